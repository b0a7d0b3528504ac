//! Owners of what cannot have extended attributes: symbolic links, pipes, sockets, devices (and everything, on
//! file systems without attributes).
//!
//! An overlay's own numbers of files change when they are copied up, so each file is looked up in the directory
//! that takes the writes, and known by the handle that its file system gives it: neither a rename nor a second
//! name changes that, and no later file gets the same. At the end the paths are found by one walk.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::super::{Failure, place, sys};
use super::Owner;

/// Some hundred megabytes of memory at most.
const MAX_LINKS: usize = 1 << 20;

/// Owners by handle.
#[derive(Default)]
pub(super) struct Links {
    owners: HashMap<Box<[u8]>, Owner>,
    has_files: bool,
    is_full: bool,
}

impl Links {
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// The owner of a file of the directory that takes the writes.
    pub(super) fn get(&self, file: &OwnedFd) -> Option<Owner> {
        self.owners.get(&*handle(file).ok()?).copied()
    }

    /// Records one; out of memory when there are too many.
    pub(super) fn set(&mut self, file: &OwnedFd, owner: Owner) -> Result<(), Errno> {
        let handle = handle(file)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode);
        self.has_files |= kind == FileType::RegularFile;
        if self.owners.len() >= MAX_LINKS && !self.owners.contains_key(&*handle) {
            self.is_full = true;
            return Err(Errno::NOMEM);
        }
        self.owners.insert(handle.into_boxed_slice(), owner);
        Ok(())
    }

    /// Where the recorded files are now.
    pub(super) fn paths(&self, under: &OwnedFd) -> Result<Vec<(Vec<u8>, Owner)>, Failure> {
        if self.is_full {
            return Err(Failure::said(
                "chown",
                format!(
                    "the step changed the owners of more than {MAX_LINKS} links, pipes or devices"
                ),
            ));
        }
        let mut found = vec![];
        if !self.is_empty() {
            self.walk(under, Path::new("."), &mut found)
                .map_err(|error| Failure::new("readdir (of what the step wrote)", error))?;
        }
        found.sort();
        Ok(found)
    }

    fn walk(
        &self,
        under: &OwnedFd,
        top: &Path,
        found: &mut Vec<(Vec<u8>, Owner)>,
    ) -> Result<(), Errno> {
        let mut open = vec![top.to_owned()];
        while let Some(directory) = open.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match rustix::fs::openat(under, &directory, flags, Mode::empty()) {
                // Too deep for a layer, too.
                Err(Errno::NAMETOOLONG) => continue,
                result => result?,
            };
            for entry in Dir::read_from(&fd)? {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let path = directory.join(OsStr::from_bytes(name.to_bytes()));
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let kind = entry.file_type();
                if kind == FileType::RegularFile && !self.has_files {
                    continue;
                }
                let file = rustix::fs::openat(&fd, name, flags, Mode::empty())?;
                if let Some(owner) = self.get(&file) {
                    let path = path.strip_prefix(".").unwrap_or(&path);
                    found.push((path.as_os_str().as_bytes().to_owned(), owner));
                }
                if kind == FileType::Directory {
                    open.push(path);
                }
            }
        }
        Ok(())
    }
}

/// A name for the file as long as it exists.
fn handle(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    if let Ok(handle) = sys::file_handle(file) {
        return Ok(handle);
    }
    // A file system that gives none: the number, and since when the file has it.
    let flags = StatxFlags::INO | StatxFlags::BTIME;
    let status = match rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, flags) {
        Err(Errno::NOSYS | Errno::PERM) => {
            return Ok(rustix::fs::fstat(file)?.st_ino.to_ne_bytes().to_vec());
        }
        result => result?,
    };
    let mut handle = status.stx_ino.to_ne_bytes().to_vec();
    handle.extend(status.stx_btime.tv_sec.to_ne_bytes());
    handle.extend(status.stx_btime.tv_nsec.to_ne_bytes());
    Ok(handle)
}

/// The path of a file from the root; `None` if it has no name any more.
pub(super) fn path_of(fd: &OwnedFd) -> Result<Option<PathBuf>, Errno> {
    if rustix::fs::fstat(fd)?.st_nlink == 0 {
        return Ok(None);
    }
    let path = rustix::fs::readlink(place::name(fd), vec![])?;
    let path = path
        .to_bytes()
        .strip_prefix(b"/")
        .unwrap_or_default()
        .to_owned();
    Ok(Some(PathBuf::from(std::ffi::OsString::from_vec(path))))
}

/// The same file in the directory that takes the writes; `None` if it is not there.
pub(super) fn find_under(under: &OwnedFd, fd: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    match path_of(fd)? {
        Some(path) => find(under, path.as_os_str().as_bytes()),
        None => Ok(None),
    }
}

/// What lies at a path below the directory that takes the writes.
pub(super) fn find(under: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let confined = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let found = rustix::fs::openat2(
        under,
        OsStr::from_bytes(path),
        flags,
        Mode::empty(),
        confined,
    );
    match found {
        // Linux before 5.6.
        Err(Errno::NOSYS | Errno::PERM) => find_by_hand(under, path),
        result => there(result),
    }
}

/// The same, step by step.
fn find_by_hand(under: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |from: &OwnedFd, name: &[u8]| {
        let name = OsStr::from_bytes(name);
        there(rustix::fs::openat(from, name, flags, Mode::empty()))
    };
    let Some(mut found) = open(under, b".")? else {
        return Ok(None);
    };
    for name in path.split(|byte| *byte == b'/') {
        match open(&found, name)? {
            Some(next) => found = next,
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

fn there(found: Result<OwnedFd, Errno>) -> Result<Option<OwnedFd>, Errno> {
    match found {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand_the_same_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs_err::create_dir_all(path("a/b")).unwrap();
        fs_err::write(path("a/file"), "").unwrap();
        fs_err::os::unix::fs::symlink("a", path("link")).unwrap();
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let under = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        let inode = |found: Option<OwnedFd>| {
            found.map(|fd| rustix::fs::fstat(&fd).expect("it is open").st_ino)
        };
        for (path, is_there) in [
            (".", true),
            ("a", true),
            ("a/b", true),
            ("a/file", true),
            ("link", true),
            ("link/b", false),
            ("a/file/x", false),
            ("none", false),
            ("a/none/x", false),
        ] {
            let by_hand = inode(find_by_hand(&under, path.as_bytes()).unwrap());
            assert_eq!(by_hand.is_some(), is_there, "{path}");
            assert_eq!(
                by_hand,
                inode(find(&under, path.as_bytes()).unwrap()),
                "{path}"
            );
        }
    }
}
