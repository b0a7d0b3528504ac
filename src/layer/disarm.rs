//! Makes a cache harmless once a step has ended: it outlives the step's sandbox, and other steps get it.
//!
//! Other steps may write to it at the same time. So nothing is found by a path, no link is followed, and what has gone
//! meanwhile is fine.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::layer::Error;
use crate::layer::node::{self, Kind};
use crate::layer::root;

/// The bits that give a program the rights of its owner.
const SET_ID: u32 = 0o6000;
/// The attribute that gives a program single rights of root's.
const CAPABILITIES: &str = "security.capability";
/// Far below the number of files that a process may have open. No tool nests its cache like that.
const MAX_DEPTH: usize = 200;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

pub(super) fn disarm(path: &Path) -> Result<(), Error> {
    match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(error) => Err(Error::file("open the cache", path)(error)),
        Ok(top) => below(top.as_fd(), 0).map_err(Error::file("clean the cache", path)),
    }
}

fn below(directory: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    for name in root::names(directory)? {
        match entry(directory, &name, depth) {
            // Ids that this user namespace does not map: no step of it has made that.
            Err(error) if is(&error, &[Errno::NOENT, Errno::PERM, Errno::ACCESS]) => {}
            result => result?,
        }
    }
    Ok(())
}

fn entry(parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> io::Result<()> {
    let file = OsStr::from_bytes(name);
    let stat = rustix::fs::statat(parent, file, AtFlags::SYMLINK_NOFOLLOW)?;
    match node::kind(&stat) {
        Kind::Directory if depth == MAX_DEPTH => root::remove_all(parent, name),
        Kind::Directory => match rustix::fs::openat(parent, file, DIRECTORY, Mode::empty()) {
            // Whoever put something else there cleans it.
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            directory => below(directory?.as_fd(), depth + 1),
        },
        Kind::Char | Kind::Block => root::unlink(parent, name, AtFlags::empty()),
        Kind::File | Kind::Fifo | Kind::Socket if is_armed(&stat) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(parent, file, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&file)?;
            if matches!(node::kind(&stat), Kind::Directory | Kind::Symlink) {
                return Ok(());
            }
            // Leads to the open file and nowhere else.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            if stat.st_mode & SET_ID != 0 {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o1777);
                rustix::fs::chmod(&path, mode)?;
            }
            match rustix::fs::removexattr(&path, CAPABILITIES) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Kind::File | Kind::Fifo | Kind::Socket | Kind::Symlink => Ok(()),
    }
}

/// Whether a file may give rights to who executes it.
fn is_armed(stat: &Stat) -> bool {
    stat.st_mode & (SET_ID | 0o111) != 0
}

fn is(error: &io::Error, errnos: &[Errno]) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| errnos.contains(&errno))
}
