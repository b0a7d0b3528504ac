//! Finds and makes places inside a root file system that nobody vouches for. Every lookup is confined to the
//! root, so no link in it leads out.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, StatxFlags, Timestamps};
use rustix::io::Errno;

use super::Failure;

/// The path from the root to `path`, with no `.` or `..` in it.
pub(super) fn inside(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// A name of a descriptor for calls that want a path. It leads to what the descriptor names and nowhere else.
pub(super) fn name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens a place, following links as a process in the root would.
pub(super) fn open(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    crate::confined::open(root, path, flags | OFlags::PATH)
}

/// Opens what lies below a place of the host; the place itself for an empty path.
pub(super) fn below(place: OwnedFd, path: &Path) -> Result<OwnedFd, Failure> {
    if path.as_os_str().is_empty() {
        return Ok(place);
    }
    open(&place, path, OFlags::empty()).map_err(|error| {
        Failure::new(
            format!("open({}) in what is mounted", path.display()),
            error,
        )
    })
}

/// Opens a directory, made if it is not there, with those that lead to it.
pub(super) fn directory(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Failure> {
    match open(root, path, OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {}
        result => return result.map_err(|error| failure("open", path, error)),
    }
    let (parent, name) = split(path)?;
    let parent = directory(root, parent)?;
    keep_times(&parent, || {
        fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
    })
    .map_err(|error| failure("mkdir", path, error))?;
    open(root, path, OFlags::DIRECTORY).map_err(|error| failure("open", path, error))
}

/// As [`directory`], but a link is refused where the directory ought to be.
pub(super) fn plain_directory(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Failure> {
    match open(root, path, OFlags::DIRECTORY | OFlags::NOFOLLOW) {
        Err(Errno::NOENT) => directory(root, path),
        result => result.map_err(|error| failure("open", path, error)),
    }
}

/// Opens a file, made empty if it is not there. A link that leads nowhere is what is opened itself: a mount
/// upon it is seen in its stead. With `follow` false this holds for every link.
pub(super) fn file(root: &OwnedFd, path: &Path, follow: bool) -> Result<OwnedFd, Failure> {
    if follow {
        match open(root, path, OFlags::empty()) {
            Err(Errno::NOENT) => {}
            result => return result.map_err(|error| failure("open", path, error)),
        }
    }
    let (parent, name) = split(path)?;
    let parent = directory(root, parent)?;
    let here = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(&parent, name, here, Mode::empty()) {
        Err(Errno::NOENT) => {}
        result => return result.map_err(|error| failure("open", path, error)),
    }
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    keep_times(&parent, || {
        fs::openat(&parent, name, new, Mode::from_raw_mode(0o644)).map(drop)
    })
    .map_err(|error| failure("create", path, error))?;
    fs::openat(&parent, name, here, Mode::empty()).map_err(|error| failure("open", path, error))
}

/// Which file it is, and where it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) kind: FileType,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) mount: u64,
}

impl Place {
    pub(super) fn of(fd: &OwnedFd) -> Result<Self, Errno> {
        let flags = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
        match fs::statx(fd, "", AtFlags::EMPTY_PATH, flags) {
            Ok(status) if status.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Ok(Self {
                kind: FileType::from_raw_mode(status.stx_mode.into()),
                device: fs::makedev(status.stx_dev_major, status.stx_dev_minor),
                inode: status.stx_ino,
                mount: status.stx_mnt_id,
            }),
            // Linux before 5.8, or the filter of an outer container that knows no newer one.
            Ok(_) | Err(Errno::NOSYS | Errno::PERM) => {
                let status = fs::fstat(fd)?;
                Ok(Self {
                    kind: FileType::from_raw_mode(status.st_mode),
                    device: status.st_dev,
                    inode: status.st_ino,
                    mount: mount(fd)?,
                })
            }
            Err(error) => Err(error),
        }
    }
}

/// The number of the mount that a file was found by, as /proc tells it.
fn mount(fd: &OwnedFd) -> Result<u64, Errno> {
    let path = name(fd).replace("/fd/", "/fdinfo/");
    let text = fs_err::read_to_string(path).unwrap_or_default();
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    number
        .and_then(|number| number.trim().parse().ok())
        .ok_or(Errno::NOSYS)
}

/// Whether a descriptor names a directory.
pub(super) fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// The error of a call on a path of the root file system.
pub(super) fn failure(call: &str, path: &Path, error: impl Into<io::Error>) -> Failure {
    Failure::new(format!("{call}(/{})", path.display()), error)
}

/// A path's directory, and its name there.
pub(super) fn split(path: &Path) -> Result<(&Path, &OsStr), Failure> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(failure("open", path, Errno::ISDIR)),
    }
}

/// Changes entries of a directory without a trace in its times: a directory that only the runner touched is the
/// same as before, and the layer has no entry for it.
pub(super) fn keep_times<T, E: From<Errno>>(
    directory: &OwnedFd,
    make: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let before = fs::fstat(directory)?;
    let value = make()?;
    let time = |seconds, nanoseconds: u64| fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.try_into().unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec),
        last_modification: time(before.st_mtime, before.st_mtime_nsec),
    };
    // Not the owner's privilege alone, but it may be refused for directories of unmapped owners; then the
    // directory keeps its new time.
    let _ = fs::utimensat(fs::CWD, name(directory), &times, AtFlags::empty());
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_tells_the_mount_that_statx_tells() {
        for path in ["/", "/proc", "/dev/null"] {
            let fd = fs::open(path, OFlags::PATH, Mode::empty()).unwrap();
            let status = fs::statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).unwrap();
            assert_eq!(mount(&fd).unwrap(), status.stx_mnt_id, "{path}");
        }
    }
}
