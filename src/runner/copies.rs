//! Files and directories of the host in a copy, where they cannot be mounted; what a command does there is done to
//! them when it has ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};

use super::files;

/// A file or directory of the host that a command may write to, in a copy.
pub(super) struct Back {
    to: PathBuf,
    before: Stamps,
    /// The copy, so that no other file gets its number.
    copy: OwnedFd,
}

/// By what a change of each entry is seen, by the directory (relative to the copy) and the name.
type Stamps = HashMap<PathBuf, BTreeMap<OsString, Stamp>>;

/// The inode, the length, and when it was last changed in any way.
type Stamp = (u64, u64, (i64, i64));

impl Back {
    /// Of the copy at `place`, before a command has it.
    pub(super) fn of(place: &Path, to: PathBuf) -> io::Result<Self> {
        let mut before = Stamps::new();
        stamp_all(place, Path::new(""), &mut before)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::open(place, flags, Mode::empty())?;
        Ok(Self { to, before, copy })
    }

    /// Whether it is the copy that a command left in its place.
    fn is_copy(&self, there: &std::fs::Metadata) -> io::Result<bool> {
        let copy = rustix::fs::fstat(&self.copy)?;
        Ok((copy.st_dev, copy.st_ino) == (there.dev(), there.ino()))
    }
}

pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// Copies a file, a directory with all that is in it, or whatever else, as it is: with owner, mode, times and the
/// user's attributes.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    copy_with(from, to, &mut HashMap::new())
}

/// `inodes` is where files with several names were copied to.
fn copy_with(from: &Path, to: &Path, inodes: &mut HashMap<(u64, u64), PathBuf>) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let kind = FileType::from_raw_mode(metadata.mode());
    if kind != FileType::Directory && metadata.nlink() > 1 {
        let inode = (metadata.dev(), metadata.ino());
        if let Some(first) = inodes.get(&inode) {
            return fs::hard_link(first, to);
        }
        inodes.insert(inode, to.to_owned());
    }
    match kind {
        FileType::Directory => {
            fs::create_dir(to)?;
            for entry in fs::read_dir(from)? {
                let name = entry?.file_name();
                let from = from.join(&name);
                match copy_with(&from, &to.join(&name), inodes) {
                    // Somebody else removed it just now.
                    Err(_) if fs::symlink_metadata(&from).is_err() => {}
                    result => result?,
                }
            }
        }
        FileType::Symlink => fs_err::os::unix::fs::symlink(fs::read_link(from)?, to)?,
        FileType::RegularFile => drop(fs::copy(from, to)?),
        kind => rustix::fs::mknodat(CWD, to, kind, Mode::from_raw_mode(0o600), metadata.rdev())?,
    }
    describe(from, to, &metadata)
}

/// Gives a copy its owner, mode, attributes and times.
fn describe(from: &Path, to: &Path, metadata: &std::fs::Metadata) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    rustix::fs::chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !metadata.is_symlink() {
        set_mode(to, metadata.mode() & 0o7777)?;
        files::copy_xattrs(from, to)?;
    }
    files::set_time(to, files::time_of(metadata))
}

fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    (metadata.ino(), metadata.len(), changed)
}

/// Stamps what lies in a copy; the copy of a single file has no name in it.
fn stamp_all(place: &Path, path: &Path, stamps: &mut Stamps) -> io::Result<()> {
    // Joined to nothing the name of a file ends with a slash.
    let here = if path == Path::new("") {
        place.to_owned()
    } else {
        place.join(path)
    };
    let metadata = fs::symlink_metadata(&here)?;
    let mut names = BTreeMap::new();
    if metadata.is_dir() {
        for entry in fs::read_dir(&here)? {
            let name = entry?.file_name();
            let below = path.join(&name);
            let metadata = fs::symlink_metadata(place.join(&below))?;
            names.insert(name, stamp(&metadata));
            if metadata.is_dir() {
                stamp_all(place, &below, stamps)?;
            }
        }
    } else {
        names.insert(OsString::new(), stamp(&metadata));
    }
    stamps.insert(path.to_owned(), names);
    Ok(())
}

/// Does at the host's place what a command did in the copy, and nothing else: others may have been at work there.
///
/// The place itself stays what it is, as a mount would. A copy that was moved away or removed says nothing of what is
/// to become of what is there.
pub(super) fn copy_back(from: &Path, back: &Back) -> io::Result<()> {
    let Ok(there) = fs::symlink_metadata(&back.to) else {
        return Ok(());
    };
    let moved = || {
        let to = back.to.display();
        io::Error::other(format!(
            "the command moved, removed or replaced it, so `{to}` was left as it is"
        ))
    };
    let now = fs::symlink_metadata(from).map_err(|_| moved())?;
    if there.is_dir() {
        if !back.is_copy(&now)? {
            return Err(moved());
        }
        copy_directory_back(from, &back.to, Path::new(""), &back.before)?;
        return describe(from, &back.to, &now);
    }
    let before = back
        .before
        .get(Path::new(""))
        .and_then(|names| names.values().next());
    match (now.is_file(), there.is_file()) {
        (true, true) if Some(&stamp(&now)) != before => replace(from, &back.to),
        (false, true) => Err(moved()),
        _ => Ok(()),
    }
}

/// The same for a directory of both. What is new is there before anything is removed, or a full disk would lose what
/// was renamed.
fn copy_directory_back(from: &Path, to: &Path, path: &Path, before: &Stamps) -> io::Result<()> {
    let known = before.get(path);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        names.insert(entry?.file_name());
    }
    for name in &names {
        let (from, to) = (from.join(name), to.join(name));
        let now = fs::symlink_metadata(&from)?;
        let there = fs::symlink_metadata(&to).ok();
        let is_same = known.and_then(|known| known.get(name)) == Some(&stamp(&now));
        if now.is_dir() && there.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            copy_directory_back(&from, &to, &path.join(name), before)?;
            if !is_same {
                describe(&from, &to, &now)?;
            }
        } else if !is_same {
            replace(&from, &to)?;
        }
    }
    let gone = known.into_iter().flatten().map(|(name, _)| name);
    for name in gone.filter(|name| !names.contains(*name)) {
        remove(&to.join(name))?;
    }
    Ok(())
}

/// Puts a copy in the place of what is there, at once unless one is a directory and the other is not.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    let fresh = tempfile::Builder::new()
        .prefix(".pyats-image-build-")
        .tempdir_in(folder)?;
    let new = fresh.path().join("new");
    copy(from, &new)?;
    if fs::symlink_metadata(&new)?.is_dir() || fs::symlink_metadata(to).is_ok_and(|to| to.is_dir())
    {
        remove(to)?;
    }
    fs::rename(&new, to)
}

/// Removes whatever is at a path, if something is.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
