//! A root file system as a tree that nothing leaves: paths are resolved as the kernel would inside a
//! chroot, by `openat2` with `RESOLVE_IN_ROOT`.
//!
//! A layer may say `var/run/x` where `var/run` is a link to `/run`; that means `run/x` of the root,
//! never of this machine. Only parents are resolved that way; the last component is never followed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::confined;
use crate::layer::Error;
use crate::layer::node::{self, Kind};

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::RDONLY);

/// Directories that are missing get this mode, as container runtimes do.
const MISSING: Mode = Mode::from_raw_mode(0o755);

/// An open root, and the directory that was asked for last: archives list a directory's files one
/// after the other.
pub(super) struct Root {
    fd: OwnedFd,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Root {
    /// Opens the directory at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map_err(Error::file("open the directory", path))?;
        Ok(Self { fd, last: None })
    }

    /// The root itself.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The directory that `path` names; `None` if there is nothing of that name, or no directory.
    pub(super) fn directory(&self, path: &[u8]) -> io::Result<Option<OwnedFd>> {
        match resolve(self.fd(), path) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory that `path` names, made where it is missing; `made` is called with each new one.
    pub(super) fn make_directory(
        &mut self,
        path: &[u8],
        mut made: impl FnMut(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<BorrowedFd<'_>> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let fd = match resolve(self.fd(), path) {
                Err(Errno::NOENT) => self.make_missing(path, &mut made)?,
                other => other?,
            };
            self.last = Some((path.to_owned(), fd));
        }
        Ok(self
            .last
            .as_ref()
            .map_or(self.fd.as_fd(), |(_, fd)| fd.as_fd()))
    }

    fn make_missing(
        &self,
        path: &[u8],
        made: &mut impl FnMut(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<OwnedFd> {
        let mut parent = resolve(self.fd(), b"")?;
        for (start, part) in parts(path) {
            // Resolved from the root each time, so that a link's `..` stops at the root.
            parent = match resolve(self.fd(), &path[..start + part.len()]) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&parent, OsStr::from_bytes(part), MISSING)?;
                    let flags = DIRECTORY | OFlags::NOFOLLOW;
                    let new =
                        rustix::fs::openat(&parent, OsStr::from_bytes(part), flags, Mode::empty())?;
                    rustix::fs::fchmod(&new, MISSING)?;
                    made(new.as_fd())?;
                    new
                }
                other => other?,
            };
        }
        Ok(parent)
    }

    /// Has to be called when a directory or a link goes away: the remembered directory may be below it.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    path.split(|&byte| byte == b'/').scan(0, |start, part| {
        let at = *start;
        *start += part.len() + 1;
        Some((at, part))
    })
}

fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    confined::open(root, Path::new(OsStr::from_bytes(path)), DIRECTORY)
}

/// Splits off the last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The names in a directory, in no order.
pub(super) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_owned();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Opens a directory by its name in `parent`, not following a link.
pub(super) fn open_child(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let name = OsStr::from_bytes(name);
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        // An overlay leaves directories of mode 000 behind.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// What lies under a name in `parent`; `None` if nothing does.
pub(super) fn kind_of(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Kind>> {
    match rustix::fs::statat(parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(node::kind(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes what lies under a name in `parent`, a directory with all that is in it.
///
/// A tree may be deeper than the stack, or than the number of files that a process may have open:
/// directories that are met deep down are moved up beside the first one and removed from there.
pub(super) fn remove_all(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match kind_of(parent, name)? {
        None => return Ok(()),
        Some(Kind::Directory) => {}
        Some(_) => return unlink(parent, name, AtFlags::empty()),
    }
    let top = open_child(parent, name)?;
    rustix::fs::fchmod(&top, Mode::RWXU).or_else(|error| match error {
        // Somebody else's directory, which may still be readable.
        Errno::PERM => Ok(()),
        other => Err(other),
    })?;
    let mut moved = 0_u64;
    for child in names(top.as_fd())? {
        remove_below(top.as_fd(), top.as_fd(), &child, 0, &mut moved)?;
    }
    // What was moved up is found here, and may move more.
    loop {
        let rest = names(top.as_fd())?;
        if rest.is_empty() {
            break;
        }
        for child in rest {
            remove_below(top.as_fd(), top.as_fd(), &child, 0, &mut moved)?;
        }
    }
    drop(top);
    unlink(parent, name, AtFlags::REMOVEDIR)
}

/// Far below the 1,024 open files that a process has by default.
const MAX_DEPTH: usize = 100;

fn remove_below(
    top: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: &[u8],
    depth: usize,
    moved: &mut u64,
) -> io::Result<()> {
    match unlink(parent, name, AtFlags::empty()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EISDIR | libc::EPERM)) => {}
        other => return other,
    }
    if depth == MAX_DEPTH {
        loop {
            *moved += 1;
            let new = format!(".removing-{moved}");
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(parent, OsStr::from_bytes(name), top, new, flags) {
                Err(Errno::EXIST) => {}
                other => return Ok(other?),
            }
        }
    }
    let directory = open_child(parent, name)?;
    match rustix::fs::fchmod(&directory, Mode::RWXU) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    for child in names(directory.as_fd())? {
        remove_below(top, directory.as_fd(), &child, depth + 1, moved)?;
    }
    drop(directory);
    unlink(parent, name, AtFlags::REMOVEDIR)
}

/// Removes one name; fine when it is gone already.
pub(super) fn unlink(parent: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, OsStr::from_bytes(name), flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
