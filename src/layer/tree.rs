//! Trees as wholes: copied, removed, and freed of hard links.

use fs_err::os::unix::fs::FileExt as _;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use fs_err as fs;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::layer::node::{self, Kind, Node};
use crate::layer::walk::{self, Walk};
use crate::layer::{Error, OWNER_ATTRIBUTE, holes, root, writer};

/// Copies a tree with everything that a layer can carry; hard links become files of their own.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let mut directories = Vec::new();
    for entry in Walk::new(from) {
        let (path, node) = entry?;
        let target = walk::at(to, &path);
        copy_node(&walk::at(from, &path), &target, &node)?;
        if node.kind == Kind::Directory {
            directories.push((target, node));
        }
    }
    // Files that are put into a directory change its time, and need leave to.
    for (path, node) in directories.iter().rev() {
        describe(path, node)?;
    }
    Ok(())
}

/// Removes a tree, unreadable directories included; fine when it is not there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let Some(name) = path.file_name() else {
        return Err(Error::file("remove", path)(Errno::INVAL));
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(Error::file("open the directory of", path))?,
    };
    root::remove_all(parent.as_fd(), name.as_bytes()).map_err(Error::file("remove", path))
}

/// Makes one of several names of a file a file of its own, as an overlay does when it is written to.
pub(super) fn unshare(path: &Path, node: &Node) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let Some(parent_node) = Node::read(parent)? else {
        return Err(Error::Changed {
            path: parent.to_owned(),
        });
    };
    let new = tempfile::Builder::new()
        .prefix(".unshared-")
        .tempdir_in(parent)?;
    let copy = new.path().join("file");
    copy_node(path, &copy, node)?;
    fs::rename(&copy, path)?;
    new.close()?;
    set_time(parent, parent_node.mtime)
}

/// Gives a path what it was before, with the content at `old`; of a directory, its metadata.
pub(super) fn restore(path: &Path, node: &Node, old: &Path) -> Result<(), Error> {
    if node.kind == Kind::Directory {
        return describe(path, node);
    }
    remove(path)?;
    copy_node(old, path, node)
}

/// Marks a path of an overlay's upper directory as gone.
pub(super) fn hide(path: &Path) -> Result<(), Error> {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0)
        .map_err(Error::file("hide", path))
}

/// Gives a path this time, unless it has it.
pub(super) fn settle_time(path: &Path, mtime: (i64, u32)) -> Result<(), Error> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::file("read the metadata of", path))?;
    if Node::of(&stat).mtime == mtime {
        return Ok(());
    }
    set_time(path, mtime)
}

/// Makes the same at another path; of a directory only an empty one, that `describe` has to complete.
fn copy_node(from: &Path, to: &Path, node: &Node) -> Result<(), Error> {
    let device = match node.kind {
        Kind::Directory => {
            return match rustix::fs::mkdirat(CWD, to, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(Error::file("make the directory", to)(error)),
            };
        }
        Kind::File => {
            copy_content(from, to)?;
            return describe(to, node);
        }
        Kind::Symlink => {
            rustix::fs::symlink(OsStr::from_bytes(&node.target), to)
                .map_err(Error::file("make the link", to))?;
            return describe(to, node);
        }
        Kind::Socket => return Ok(()),
        Kind::Fifo => FileType::Fifo,
        Kind::Char => FileType::CharacterDevice,
        Kind::Block => FileType::BlockDevice,
    };
    match rustix::fs::mknodat(CWD, to, device, Mode::RUSR | Mode::WUSR, node.rdev) {
        // As when unpacking: what may not be made is left out.
        Err(Errno::PERM) if node.kind != Kind::Fifo => Ok(()),
        other => {
            other.map_err(Error::file("make the device", to))?;
            describe(to, node)
        }
    }
}

fn copy_content(from: &Path, to: &Path) -> Result<(), Error> {
    let input = writer::open(from)?;
    let mut output = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(to)?;
    let size = input.metadata()?.len();
    for part in holes::data(&input, size) {
        copy_part(&input, &mut output, part?).map_err(Error::file("copy", from))?;
    }
    Ok(output.set_len(size)?)
}

fn copy_part(input: &fs::File, output: &mut fs::File, part: Range<u64>) -> io::Result<()> {
    let (mut from, mut to) = (part.start, part.start);
    while from < part.end {
        let wanted = usize::try_from(part.end - from).unwrap_or(usize::MAX);
        // Shares blocks where the file system can.
        let wanted = wanted.min(1 << 30);
        match rustix::fs::copy_file_range(input, Some(&mut from), &*output, Some(&mut to), wanted) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // The rest, where the kernel does not copy at all.
    let mut buffer = vec![0; 1 << 17];
    while from < part.end {
        let wanted = usize::try_from(part.end - from).unwrap_or(usize::MAX);
        let wanted = wanted.min(buffer.len());
        let length = input.read_at(&mut buffer[..wanted], from)?;
        if length == 0 {
            break;
        }
        output.write_all_at(&buffer[..length], from)?;
        from += length as u64;
    }
    Ok(())
}

/// Owner before mode before attributes: each clears bits of those that come after it.
fn describe(path: &Path, node: &Node) -> Result<(), Error> {
    let now = Node::read(path)?.ok_or_else(|| Error::Changed {
        path: path.to_owned(),
    })?;
    if (now.uid, now.gid) != (node.uid, node.gid) {
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::file("set the owner of", path))?;
    }
    if node.kind != Kind::Symlink {
        rustix::fs::chmod(path, Mode::from_raw_mode(node.mode))
            .map_err(Error::file("set the mode of", path))?;
    }
    if let Some(owner) = node.recorded {
        let value = node::owner_value(owner);
        rustix::fs::lsetxattr(path, OWNER_ATTRIBUTE, value.as_bytes(), XattrFlags::empty())
            .map_err(Error::file("record the owner of", path))?;
    }
    for (name, value) in &node.xattrs {
        rustix::fs::lsetxattr(path, OsStr::from_bytes(name), value, XattrFlags::empty())
            .map_err(Error::file("set an extended attribute of", path))?;
    }
    set_time(path, node.mtime)
}

fn set_time(path: &Path, (seconds, nanoseconds): (i64, u32)) -> Result<(), Error> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::file("set the time of", path))
}
