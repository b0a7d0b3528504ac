//! The step cache: what a step made, under a [`Key`] of all that it can read.
//!
//! An entry is a small file of the store that names the step's layer; the layer itself is a blob like any other. What
//! is damaged, or names a layer that is not there, counts as absent: a cache can make a build slow, and never wrong.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_err as fs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hashing};
use crate::manifest::Layer;
use crate::progress::{Cancelled, Progress};
use crate::store::{self, Store};

/// Changes whenever the same key would mean something else.
const VERSION: &str = "1";

/// All that a step can read, and nothing else: neither when a file was changed nor where it lies on a disk, and of
/// secrets only their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// What it is, for people, and a digest of it; in the order in which they were added.
    inputs: Vec<(String, Digest)>,
}

impl Key {
    /// Takes something in. `name` is for people, and part of the key.
    pub fn add(&mut self, name: impl Into<String>, bytes: impl AsRef<[u8]>) {
        self.add_digest(name, Digest::of(bytes.as_ref()));
    }

    /// Takes something in whose digest is known.
    pub fn add_digest(&mut self, name: impl Into<String>, digest: Digest) {
        self.inputs.push((name.into(), digest));
    }

    /// Names the entry. All inputs are written with their lengths, so that no two keys give the same bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        let mut write = |field: &[u8]| {
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend(field);
        };
        write(VERSION.as_bytes());
        for (name, digest) in &self.inputs {
            write(name.as_bytes());
            write(digest.hex().as_bytes());
        }
        Digest::of(&bytes)
    }

    /// What has come, gone or changed since another key was made, for people.
    #[must_use]
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> Vec<&'a str> {
        let known = |key: &Self| -> BTreeMap<String, Vec<Digest>> {
            let mut known = BTreeMap::<_, Vec<_>>::new();
            for (name, digest) in &key.inputs {
                known.entry(name.clone()).or_default().push(*digest);
            }
            known
        };
        let (old, new) = (known(before), known(self));
        let mut changes: Vec<&str> = Vec::new();
        for (name, _) in self.inputs.iter().chain(&before.inputs) {
            if old.get(name) != new.get(name) && !changes.contains(&name.as_str()) {
                changes.push(name);
            }
        }
        changes
    }
}

/// A digest of what lies at a path, with all that is in it: names, kinds, modes, contents, and where links lead to.
pub fn digest_of(path: &Path, progress: &Progress) -> Result<Digest, Error> {
    let mut hash = Hashing::new(io::sink());
    describe(path, b"", &mut hash, progress)?;
    Ok(hash.complete().1)
}

/// The same of a directory without what is in it, or of anything else.
pub fn digest_of_one(path: &Path) -> Result<Digest, Error> {
    let mut hash = Hashing::new(io::sink());
    describe_one(path, b"", &mut hash)?;
    Ok(hash.complete().1)
}

fn describe(
    path: &Path,
    name: &[u8],
    hash: &mut Hashing<io::Sink>,
    progress: &Progress,
) -> Result<(), Error> {
    progress.check()?;
    if !describe_one(path, name, hash)? {
        return Ok(());
    }
    let mut names: Vec<_> = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<_>>()?;
    names.sort_unstable();
    for name in &names {
        describe(&path.join(name), name.as_bytes(), hash, progress)?;
    }
    // Whatever follows is not in this directory.
    Ok(write(hash, b"")?)
}

/// Gives whether it is a directory.
fn describe_one(path: &Path, name: &[u8], hash: &mut Hashing<io::Sink>) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    write(hash, name)?;
    write(hash, &metadata.mode().to_be_bytes())?;
    if metadata.is_symlink() {
        write(hash, fs::read_link(path)?.as_os_str().as_bytes())?;
    } else if metadata.is_file() {
        let mut content = Hashing::new(io::sink());
        io::copy(&mut fs::File::open(path)?, &mut content)?;
        write(hash, content.complete().1.hex().as_bytes())?;
    }
    Ok(metadata.is_dir())
}

fn write(hash: &mut Hashing<io::Sink>, field: &[u8]) -> io::Result<()> {
    hash.write_all(&(field.len() as u64).to_be_bytes())?;
    hash.write_all(field)
}

/// Why a key could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system's own words, with the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The user wants to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// The cache of one build.
#[derive(Debug, Clone)]
pub struct Cache {
    store: Store,
    policy: Policy,
    /// Tells the builds of one store apart, for [`Cache::changes`].
    build: String,
}

/// What is taken from a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Whether anything is.
    pub is_used: bool,
    /// Nothing that is older.
    pub ttl: Option<Duration>,
}

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The step's, for people.
    pub name: String,
    /// `None` if it changed nothing.
    pub layer: Option<Layer>,
    /// In seconds since 1970.
    pub at: u64,
}

impl Entry {
    /// Reads an entry, unless the file is something else.
    #[must_use]
    pub fn open(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

impl Cache {
    /// The cache in `store`; `build` is any name that the same build has the next time.
    #[must_use]
    pub fn new(store: &Store, policy: Policy, build: &str) -> Self {
        Self {
            store: store.clone(),
            policy,
            build: build.to_owned(),
        }
    }

    /// What a step with this key made, if that is known and its layer is there.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<Option<Layer>> {
        if !self.policy.is_used {
            return None;
        }
        let entry: Entry = self.read(&self.path(&key.digest()))?;
        // Zero, if the clock was set back.
        let age = Duration::from_secs(now().saturating_sub(entry.at));
        let is_old = self.policy.ttl.is_some_and(|ttl| age > ttl);
        let is_there = |layer: &Layer| self.store.has(&layer.descriptor);
        (!is_old && entry.layer.as_ref().is_none_or(is_there)).then_some(entry.layer)
    }

    /// Remembers what a step made.
    pub fn remember(
        &self,
        key: &Key,
        name: &str,
        layer: Option<&Layer>,
    ) -> Result<(), store::Error> {
        let entry = Entry {
            name: name.to_owned(),
            layer: layer.cloned(),
            at: now(),
        };
        self.write(&self.path(&key.digest()), &entry)
    }

    /// Something that was found out once and holds forever, such as whether an image has a program.
    #[must_use]
    pub fn fact<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        self.read(&self.path(&key.digest()))
    }

    /// Remembers it.
    pub fn remember_fact(&self, key: &Key, fact: &impl Serialize) -> Result<(), store::Error> {
        self.write(&self.path(&key.digest()), fact)
    }

    /// What has changed since this build's step `number` was last run or found; `None` if it never was.
    #[must_use]
    pub fn changes(&self, number: usize, key: &Key) -> Option<Vec<String>> {
        let before: Key = self.read(&self.last(number))?;
        let changes = key.changes_since(&before).into_iter();
        Some(changes.map(str::to_owned).collect())
    }

    /// Keeps a key for [`changes`](Self::changes).
    pub fn keep(&self, number: usize, key: &Key) -> Result<(), store::Error> {
        self.write(&self.last(number), key)
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.store.steps_path().join(key.hex())
    }

    fn last(&self, number: usize) -> PathBuf {
        let mut key = Key::default();
        key.add("last", format!("{number} {}", self.build));
        self.path(&key.digest())
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        if !self.store.uses(path) {
            return None;
        }
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn write(&self, path: &Path, value: &impl Serialize) -> Result<(), store::Error> {
        self.store.replace(path, &store::json(value))
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn key(inputs: &[(&str, &str)]) -> Key {
        let mut key = Key::default();
        for (name, text) in inputs {
            key.add(*name, text);
        }
        key
    }

    #[test]
    fn keys_tell_all_inputs_apart() {
        let keys = [
            key(&[]),
            key(&[("a", "b")]),
            key(&[("a", "bc")]),
            key(&[("ab", "c")]),
            key(&[("a", "b"), ("a", "b")]),
            key(&[("a", "b"), ("c", "d")]),
            key(&[("c", "d"), ("a", "b")]),
        ];
        let mut digests: Vec<_> = keys.iter().map(Key::digest).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), keys.len());
        // Keys outlive the program that made them.
        assert_eq!(
            key(&[("name", "value")]).digest(),
            key(&[("name", "value")]).digest()
        );
    }

    #[test]
    fn changes_are_named() {
        let before = key(&[("base", "1"), ("env A", "x"), ("env B", "y")]);
        let after = key(&[("base", "1"), ("env A", "z"), ("env C", "y")]);
        assert_eq!(after.changes_since(&before), ["env A", "env C", "env B"]);
        assert!(after.changes_since(&after).is_empty());
    }

    #[test]
    fn a_tree_is_its_names_modes_contents_and_links() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        let digest = || digest_of(&root, &Progress::silent()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/file"), "text").unwrap();
        symlink("file", root.join("a/link")).unwrap();
        let mut seen = vec![digest()];
        let mut differs = |what: &str| {
            let now = digest();
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::write(root.join("a/file"), "texts").unwrap();
        differs("content");
        fs::set_permissions(root.join("a/file"), PermissionsExt::from_mode(0o600)).unwrap();
        differs("mode");
        fs::remove_file(root.join("a/link")).unwrap();
        differs("removed");
        symlink("other", root.join("a/link")).unwrap();
        differs("target");
        fs::rename(root.join("a/b"), root.join("b")).unwrap();
        differs("moved up");
        fs::rename(root.join("b"), root.join("c")).unwrap();
        differs("name");
        fs::create_dir(root.join("c/d")).unwrap();
        differs("a directory");
        // Neither times nor inodes.
        let before = digest();
        let file = root.join("a/file");
        fs::remove_file(&file).unwrap();
        fs::write(&file, "texts").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let old = UNIX_EPOCH + Duration::from_secs(1);
        let open = fs::File::options().write(true).open(&file).unwrap();
        open.set_modified(old).unwrap();
        assert_eq!(digest(), before);
    }

    #[test]
    fn entries_count_while_they_are_young_and_their_layer_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let policy = |is_used, seconds: Option<u64>| Policy {
            is_used,
            ttl: seconds.map(Duration::from_secs),
        };
        let cache = |policy| Cache::new(&store, policy, "build");
        let used = cache(policy(true, None));
        let one = key(&[("a", "b")]);
        assert_eq!(used.find(&one), None);
        let blob = store.put("application/octet-stream", b"layer").unwrap();
        let layer = Layer {
            diff_id: crate::digest::DiffId(blob.digest),
            descriptor: blob.clone(),
        };
        used.remember(&one, "step", Some(&layer)).unwrap();
        assert_eq!(used.find(&one), Some(Some(layer.clone())));
        assert_eq!(cache(policy(true, Some(60))).find(&one), Some(Some(layer)));
        assert_eq!(cache(policy(false, None)).find(&one), None);
        let entry = used.path(&one.digest());
        let text = fs::read_to_string(&entry).unwrap();
        let (head, _) = text.split_once("\"at\":").unwrap();
        fs::write(&entry, format!("{head}\"at\":1}}")).unwrap();
        assert!(used.find(&one).is_some());
        assert_eq!(cache(policy(true, Some(60))).find(&one), None);
        // A clock that was set back makes nothing old.
        fs::write(&entry, format!("{head}\"at\":99999999999}}")).unwrap();
        assert!(cache(policy(true, Some(60))).find(&one).is_some());
        fs::remove_file(store.blob_path(&blob.digest)).unwrap();
        assert_eq!(used.find(&one), None);
        fs::write(&entry, "{").unwrap();
        assert_eq!(used.find(&one), None);
        let nothing = key(&[]);
        used.remember(&nothing, "step", None).unwrap();
        assert_eq!(used.find(&nothing), Some(None));
    }

    #[test]
    fn what_changed_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let cache = Cache::new(&store, Policy::default(), "build");
        assert_eq!(cache.changes(0, &key(&[("a", "1")])), None);
        cache.keep(0, &key(&[("a", "1")])).unwrap();
        assert_eq!(cache.changes(0, &key(&[("a", "1")])), Some(vec![]));
        let changes = cache.changes(0, &key(&[("a", "2")]));
        assert_eq!(changes, Some(vec!["a".to_owned()]));
        assert_eq!(cache.changes(1, &key(&[("a", "1")])), None);
    }
}
