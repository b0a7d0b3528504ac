//! When something of the store was last used, and what may be removed.
//!
//! Whoever uses a file or folder of the store gives it the present time, under a shared lock. Whoever removes one
//! looks at that time under the same lock, held alone, and takes it away by a rename. Every build marks its beginning by
//! a [`Session`]; so what was last used before the oldest of them began is used by none.

use std::path::Path;
use std::time::SystemTime;

use fs_err as fs;
use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW};

use super::scratch::{flock, is_locked, open_lock, temporary};
use super::{Result, Store};

/// A build, or whatever else uses the store, for as long as it lives.
#[derive(Debug)]
pub struct Session {
    _file: tempfile::NamedTempFile,
}

impl Store {
    /// Says that something of the store will be used from now on.
    pub fn session(&self) -> Result<Session> {
        let file = temporary(&self.scratch_root())?;
        Ok(Session { _file: file })
    }

    /// Whether something of the store is there; if so, it stays for as long as this session.
    #[must_use]
    pub fn uses(&self, path: &Path) -> bool {
        // Where not even this can be written nothing can be removed either.
        let _lock = self.usage(FlockOperation::LockShared);
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        match rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => false,
            Err(_) => path.symlink_metadata().is_ok(),
            Ok(()) => true,
        }
    }

    /// When the oldest session began that goes on; now, if there is none.
    pub fn oldest_session(&self) -> Result<SystemTime> {
        let mut oldest = SystemTime::now();
        for entry in fs::read_dir(self.scratch_root())? {
            // It may have ended since.
            let Ok(entry) = entry else { continue };
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_file()
                && is_locked(&entry.path())
                && let Ok(began) = metadata.modified()
            {
                oldest = oldest.min(began);
            }
        }
        Ok(oldest)
    }

    /// Moves something of the store to `place`, if it was last used before a time; gives whether it was.
    pub fn take_away(&self, path: &Path, before: SystemTime, place: &Path) -> Result<bool> {
        let _lock = self.usage(FlockOperation::LockExclusive)?;
        let is_old = fs::symlink_metadata(path)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|used| used < before);
        if is_old {
            fs::rename(path, place)?;
        }
        Ok(is_old)
    }

    fn usage(&self, operation: FlockOperation) -> Result<fs::File> {
        flock(open_lock(&self.root.join("usage"))?, operation)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_session_uses_stays() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let old = SystemTime::now() - Duration::from_secs(100);
        let blob = |bytes: &[u8]| {
            let descriptor = store.put("application/octet-stream", bytes).unwrap();
            let path = store.blob_path(&descriptor.digest);
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(old).unwrap();
            path
        };
        let (used, unused) = (blob(b"used"), blob(b"unused"));
        let session = store.session().unwrap();
        assert!(store.uses(&used));
        assert!(!store.uses(&used.join("not/there")));
        let began = store.oldest_session().unwrap();
        assert!(began <= SystemTime::now());
        let place = directory.path().join("taken");
        assert!(!store.take_away(&used, began, &place).unwrap());
        assert!(store.take_away(&unused, began, &place).unwrap());
        assert!(used.exists() && !unused.exists());
        drop(session);
        let later = store.oldest_session().unwrap();
        assert!(later >= began);
        assert!(store.take_away(&used, later, &place).unwrap());
        assert!(!store.take_away(&used, later, &place).unwrap());
    }
}
