//! Turns: what only one build of a store does at a time, while the others wait.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use fs_err as fs;
use rustix::fs::FlockOperation;

use super::scratch::{flock, open_lock};
use super::{Error, Result, Store};

/// Held while something is done that no other build of the store does meanwhile. The kernel gives it back when the
/// process ends, however it ends.
#[derive(Debug)]
pub struct Turn {
    path: PathBuf,
    _file: fs::File,
}

impl Store {
    /// Takes the turn for `name`, unless another build has it.
    pub fn turn(&self, name: &str) -> Result<Option<Turn>> {
        let path = self.root.join("turns").join(name);
        loop {
            let file = match flock(open_lock(&path)?, FlockOperation::NonBlockingLockExclusive) {
                Ok(file) => file,
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            // Who had it before may have removed the file that was opened.
            let inode = file.metadata()?.ino();
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.ino() == inode) {
                return Ok(Some(Turn { path, _file: file }));
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Still locked, so nobody else holds it. What a killed build leaves is an empty file.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_has_it_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let turn = store.turn("a").unwrap();
        assert!(turn.is_some());
        assert!(store.turn("a").unwrap().is_none());
        assert!(store.turn("b").unwrap().is_some());
        drop(turn);
        assert!(store.turn("a").unwrap().is_some());
        let inside = AtomicUsize::new(0);
        let work = || {
            for _ in 0..2_000 {
                if let Some(_turn) = store.turn("c").unwrap() {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(work);
            }
        });
        let left = fs::read_dir(directory.path().join("turns")).unwrap();
        assert_eq!(left.count(), 0);
    }
}
