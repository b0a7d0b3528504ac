//! Sources that were fetched, kept in the store for the next build.
//!
//! ```text
//! STORE/sources/KEY/lock          held shared by whoever uses the content
//!                   content       the file or directory
//!                   validator     JSON; it is there only if the content is whole
//! ```

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::FlockOperation;

use crate::digest::Digest;
use crate::store::{self, Store, flock, make_folder, open_lock};

use super::Validator;
use crate::files::remove_tree;

/// The place of one source, which nobody else changes while this value lives.
#[derive(Debug)]
pub(super) struct Kept {
    store: Store,
    directory: PathBuf,
    lock: fs::File,
}

impl Kept {
    /// Opens the place of the source with this key.
    pub(super) fn open(store: &Store, key: Digest) -> Result<Self, store::Error> {
        let directory = store.source_path(&key);
        let _ = store.uses(&directory);
        make_folder(&directory)?;
        let lock = open_lock(&directory.join("lock"))?;
        let lock = flock(lock, FlockOperation::LockShared)?;
        Ok(Self {
            store: store.clone(),
            directory,
            lock,
        })
    }

    /// By what a change of the content is seen, if there is content.
    pub(super) fn validator(&self) -> Option<Validator> {
        let text = fs::read(self.validator_path()).ok()?;
        let validator = serde_json::from_slice(&text).ok()?;
        fs::symlink_metadata(self.content()).ok()?;
        Some(validator)
    }

    /// The file or directory.
    pub(super) fn content(&self) -> PathBuf {
        self.directory.join("content")
    }

    fn validator_path(&self) -> PathBuf {
        self.directory.join("validator")
    }

    /// Puts what lies at `fresh`, on the store's file system, in the place of the content. Does nothing if
    /// another build is using that.
    pub(super) fn replace(self, fresh: &Path, validator: &Validator) -> Result<(), store::Error> {
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::flock(&self.lock, exclusive).is_err() {
            return Ok(());
        }
        // Killed between any two of these, a build leaves content without a validator, which counts as none.
        match fs::remove_file(self.validator_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        remove_tree(&self.content())?;
        move_tree(fresh, &self.content())?;
        self.store
            .replace(&self.validator_path(), &store::json(validator))
    }
}

/// Renames, also a directory that its owner may not write to: moved into another one, its `..` changes.
fn move_tree(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if !metadata.is_dir() {
        return fs::rename(from, to);
    }
    fs::set_permissions(from, PermissionsExt::from_mode(0o700))?;
    fs::rename(from, to)?;
    fs::set_permissions(to, metadata.permissions())
}
