//! Keys: all that a step can read, in one digest.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hashing};
use crate::progress::{Cancelled, Progress};
use crate::store;

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
    /// The store's own words.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The user wants to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, UNIX_EPOCH};

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
}
