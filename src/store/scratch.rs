//! Scratch folders and temporary files of the store, and what killed builds left of them.
//!
//! Whatever is in use is locked by its process; the kernel drops the lock when the process ends, however
//! it ends. So what is not locked was left behind.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::FlockOperation;

use super::Result;
use crate::digest::Digest;

const SCRATCH_PREFIX: &str = "pyats-image-build-";
const BLOB_PREFIX: &str = "blob-";
/// The file in a scratch folder that its build holds locked.
const LOCK: &str = "lock";

/// Scratch space of one build: a folder, locked as long as the value lives. It is not removed on drop,
/// because only the user namespace that made its files may be able to remove them: see
/// [`crate::rootfs::remove`].
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: fs::File,
}

impl Scratch {
    /// Makes one in `directory`.
    pub fn new_in(directory: &Path) -> Result<Self> {
        let _making = flock(fs::File::open(directory)?, FlockOperation::LockShared)?;
        let path = tempfile::Builder::new()
            .prefix(SCRATCH_PREFIX)
            // It holds secrets for pip, and setuid files.
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .tempdir_in(directory)?
            .keep();
        let lock = flock(
            open_lock(&path.join(LOCK))?,
            FlockOperation::NonBlockingLockExclusive,
        )?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A temporary file, locked as long as it is open: what is not locked was left by a killed build.
pub(super) fn temporary(directory: &Path) -> Result<tempfile::NamedTempFile> {
    temporary_as(directory, BLOB_PREFIX)
}

/// The same for a blob that others may read as it comes.
pub(super) fn temporary_of(directory: &Path, digest: &Digest) -> Result<tempfile::NamedTempFile> {
    temporary_as(directory, &coming_prefix(digest))
}

/// What there is of a blob that is on its way, if anything is.
pub(super) fn incoming(directory: &Path, digest: &Digest) -> io::Result<Option<fs::File>> {
    let prefix = coming_prefix(digest);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(prefix.as_bytes()) {
            // It may have been moved to its place by now.
            return Ok(open_existing(&entry.path()).ok());
        }
    }
    Ok(None)
}

fn coming_prefix(digest: &Digest) -> String {
    format!("{BLOB_PREFIX}{}-", digest.hex())
}

fn temporary_as(directory: &Path, prefix: &str) -> Result<tempfile::NamedTempFile> {
    // Nobody may take it for left between its making and its locking, see `abandoned`.
    let _making = flock(fs::File::open(directory)?, FlockOperation::LockShared)?;
    let file = tempfile::Builder::new()
        .prefix(prefix)
        .tempfile_in(directory)?;
    rustix::fs::flock(file.as_file(), FlockOperation::LockExclusive).map_err(io::Error::from)?;
    Ok(file)
}

/// What killed builds left in `directory`, which holds nothing but scratch folders and temporary files: those
/// that nobody holds locked. The caller removes them, in the user namespace that made them.
pub fn abandoned(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let making = fs::File::open(directory)?;
    let Ok(_making) = flock(making, FlockOperation::NonBlockingLockExclusive) else {
        // Another build is making a temporary file, or cleaning up, this very moment.
        return Ok(found);
    };
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let starts = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        let kind = entry.file_type()?;
        let lock = if starts(SCRATCH_PREFIX) && kind.is_dir() {
            path.join(LOCK)
        } else if starts(BLOB_PREFIX) && kind.is_file() {
            path.clone()
        } else {
            continue;
        };
        match open_existing(&lock).map(|file| flock(file, FlockOperation::NonBlockingLockExclusive))
        {
            Ok(Ok(_)) => found.push(path),
            // Killed before it had a lock, or half removed; else its build is removing it.
            Err(_) if older_than(&path, Duration::from_secs(60)) => found.push(path),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    Ok(found)
}

/// Whether somebody holds a lock that is there.
pub(super) fn is_locked(path: &Path) -> bool {
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    open_existing(path).is_ok_and(|file| flock(file, exclusive).is_err())
}

/// Opens a lock that is there: no link is followed, and no pipe waited for.
fn open_existing(path: &Path) -> io::Result<fs::File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Locks a file as long as the value lives.
pub(crate) fn flock(file: fs::File, operation: FlockOperation) -> Result<fs::File> {
    rustix::fs::flock(&file, operation).map_err(io::Error::from)?;
    Ok(file)
}

/// Opens a file that is there to be locked, and makes it if it is not there.
pub(crate) fn open_lock(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

fn older_than(path: &Path, age: Duration) -> bool {
    fs::symlink_metadata(path)
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed > age))
}
