//! Files that appear at once or not at all: written beside their place, then renamed.

use std::io::{self, Write};
use std::path::Path;

use fs_err as fs;
use rustix::fs::FlockOperation;

use crate::error::Error;

/// Writes a file beside `path` and renames it when it is complete.
pub(super) fn write_file(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    let mode = 0o666 & !umask();
    let (mut file, _lock) = make_locked(|| {
        tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
            .tempfile_in(parent(path))
    })?;
    content(&mut file)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The mode bits that new files of this process lack.
pub(super) fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o022)
}

/// What temporary neighbours of outputs are called, before six random characters. They are locked as long as
/// they are written, so that the next build can tell which ones a killed one left behind.
pub(super) const PREFIX: &str = ".pyats-image-build-output-";

/// What `make` makes, and its lock. Another build may take it for left before it is locked, and remove it: then
/// one more is made. (A lock on the directory could be held by the user, around this very build.)
pub(super) fn make_locked<T: AsRef<Path>>(
    make: impl Fn() -> io::Result<T>,
) -> io::Result<(T, fs::File)> {
    loop {
        let fresh = make()?;
        let path = fresh.as_ref();
        match lock(path).and_then(|lock| fs::symlink_metadata(path).map(|_| lock)) {
            Ok(lock) => return Ok((fresh, lock)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::WouldBlock => {}
                _ => return Err(error),
            },
        }
    }
}

/// Locks what is there as long as the value lives, if nobody else does.
fn lock(path: &Path) -> io::Result<fs::File> {
    let file = fs::File::open(path)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Removes what a killed build left beside `path`, or in it: what has exactly such a name and is this user's.
pub(super) fn sweep(path: &Path) {
    for directory in [
        parent(path).to_owned(),
        path.to_owned(),
        path.join("blobs/sha256"),
    ] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let left = entry.path();
            let name = entry.file_name();
            let random = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
            let ours = fs::symlink_metadata(&left).is_ok_and(|metadata| {
                let owner = std::os::unix::fs::MetadataExt::uid(&metadata);
                (metadata.is_file() || metadata.is_dir())
                    && owner == rustix::process::geteuid().as_raw()
            });
            let named = random.is_some_and(|random| random.len() == 6);
            if !named || !ours {
                continue;
            }
            let Ok(_lock) = lock(&left) else { continue };
            let _ = if left.is_dir() {
                fs::remove_dir_all(left)
            } else {
                fs::remove_file(left)
            };
        }
    }
}

/// The directory of a path.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn what_is_being_written_is_not_taken_for_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    sweep(&path);
                }
            });
            for number in 0..5000_u32 {
                let bytes = number.to_be_bytes();
                let written = write_file(&path, |file| Ok(file.write_all(&bytes)?));
                if written.is_err() || fs::read(&path).unwrap() != bytes {
                    done.store(true, Ordering::Relaxed);
                    panic!("{number}: {written:?}");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let names = fs::read_dir(directory.path()).unwrap();
        assert_eq!(names.count(), 1);
    }
}
