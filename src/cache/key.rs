//! Keys: all that a step can read, in one digest.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hashing};
use crate::error::Error;
use crate::progress::Progress;

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

    /// Takes in all that another key has.
    pub fn extend(&mut self, other: &Self) {
        self.inputs.extend(other.inputs.iter().cloned());
    }

    /// Names the entry. All inputs are written with their lengths, so that no two keys give the same bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        write(&mut bytes, VERSION.as_bytes());
        for (name, digest) in &self.inputs {
            write(&mut bytes, name.as_bytes());
            write(&mut bytes, digest.hex().as_bytes());
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
    let mut tree = Tree {
        root: path,
        progress,
        pending: vec![PathBuf::new()],
        hashing: Hashing::new(io::sink()),
    };
    if fs::symlink_metadata(path)?.is_dir() {
        tree.add_directory(Path::new(""))?;
    }
    tree.take_in()?;
    Ok(tree.hashing.complete().1)
}

/// A tree whose digest is made. Only some of its paths are held at a time: there may be millions.
struct Tree<'a> {
    root: &'a Path,
    progress: &'a Progress,
    pending: Vec<PathBuf>,
    hashing: Hashing<io::Sink>,
}

impl Tree<'_> {
    /// Takes in what is in a directory, in order; a directory comes right before what is in it.
    fn add_directory(&mut self, directory: &Path) -> Result<(), Error> {
        self.progress.check()?;
        let mut entries = fs::read_dir(self.root.join(directory))?
            .map(|entry| {
                let entry = entry?;
                Ok((entry.file_name(), entry.file_type()?.is_dir()))
            })
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort_unstable();
        for (name, is_directory) in entries {
            let path = directory.join(name);
            self.pending.push(path.clone());
            if self.pending.len() == MOST {
                self.take_in()?;
            }
            if is_directory {
                self.add_directory(&path)?;
            }
        }
        Ok(())
    }

    fn take_in(&mut self) -> Result<(), Error> {
        let digests = digests_of(self.root, &self.pending, self.progress)?;
        for (path, digest) in self.pending.drain(..).zip(digests) {
            let mut bytes = Vec::new();
            write(&mut bytes, path.as_os_str().as_bytes());
            write(&mut bytes, digest.hex().as_bytes());
            self.hashing.write_all(&bytes)?;
        }
        Ok(())
    }
}

/// The digests of what lies at paths below `root`, on all cores; those of directories without what is in them. An empty
/// path is the root itself.
pub fn digests_of(
    root: &Path,
    paths: &[PathBuf],
    progress: &Progress,
) -> Result<Vec<Digest>, Error> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores.min(MAX_THREADS).min(paths.len() / FEW + 1);
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Digest)>, Error> {
        let mut buffer = vec![0; 1 << 17];
        let mut found = Vec::new();
        loop {
            progress.check()?;
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(index) else {
                return Ok(found);
            };
            found.push((index, digest_of_one(root, path, &mut buffer)?));
        }
    };
    let mut digests = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut digests = work()?;
        for other in others {
            let found = other.join();
            digests.extend(found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, Error>(digests)
    })?;
    digests.sort_unstable_by_key(|(index, _)| *index);
    Ok(digests.into_iter().map(|(_, digest)| digest).collect())
}

/// Beginning a thread costs as much as looking at some files.
const FEW: usize = 64;
/// More do not make a disk faster.
const MAX_THREADS: usize = 16;
/// Paths that are held at a time: enough for all threads.
const MOST: usize = 4096;

fn digest_of_one(root: &Path, path: &Path, buffer: &mut [u8]) -> io::Result<Digest> {
    let joined;
    let path = if path.as_os_str().is_empty() {
        root
    } else {
        joined = root.join(path);
        &joined
    };
    let metadata = fs::symlink_metadata(path)?;
    let mut content = Hashing::new(io::sink());
    content.write_all(&metadata.mode().to_be_bytes())?;
    if metadata.is_symlink() {
        content.write_all(fs::read_link(path)?.as_os_str().as_bytes())?;
    } else if metadata.is_file() {
        let mut file = fs::File::open(path)?;
        loop {
            let length = file.read(buffer)?;
            if length == 0 {
                break;
            }
            content.write_all(&buffer[..length])?;
        }
    }
    Ok(content.complete().1)
}

fn write(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend((field.len() as u64).to_be_bytes());
    bytes.extend(field);
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    pub(crate) fn key(inputs: &[(&str, &str)]) -> Key {
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
}
