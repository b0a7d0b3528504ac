//! Puts files into a root file system, as COPY, ADD and WORKDIR do.
//!
//! This runs where a command would: in the sandbox, with the root file system as the root and the files
//! mounted below /dev. So links cannot lead out, owners are what they are for a command, and what changed is
//! found as after a command.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Timespec, Timestamps, Uid, XattrFlags};
use serde::{Deserialize, Serialize};

use super::identity;
use super::unpack::{Unpacker, archive};
use crate::mode::Mode;

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// Where the files are that are put into a root file system; see [`super::Mount`].
pub const FILES: &str = "/dev/.pyats-image-build/files";

/// How the error begins of an owner that the runner's user namespace does not have.
pub(crate) const NO_OWNER: &str = "the owner of ";

/// One thing that is put somewhere: a file, a directory (without what is in it) or a link.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    /// Relative to [`FILES`].
    pub source: OsString,
    /// Relative to the destination.
    pub target: OsString,
    /// Whether it is unpacked into the destination, if it is an archive.
    pub unpack: bool,
}

/// What a destination is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Destination {
    /// A directory, made if it is not there.
    #[default]
    Directory,
    /// A directory if one is there, and otherwise the name of the only item.
    Name,
    /// A directory that has to be there.
    Existing,
}

/// What is put where.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Placement {
    /// A directory comes before what is in it.
    pub items: Vec<Item>,
    /// Absolute. Directories that lead there are made, and links followed, also one that leads nowhere yet.
    pub destination: OsString,
    /// What the destination is.
    pub kind: Destination,
    /// `USER[:GROUP]`; empty for root, and for what an archive says. New directories that lead to the
    /// destination get it too.
    pub owner: String,
    /// In place of the files' own. New directories that lead to the destination get an octal one.
    pub mode: Option<Mode>,
    /// Whether what is there makes no difference: links that lead to the destination are not followed, but
    /// replaced by directories, and a directory is replaced by a file.
    pub link: bool,
}

/// Does it; the error is for the user.
pub(super) fn place(placement: &Placement) -> Result<(), String> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut placer = Placer {
        placement,
        owner: identity::owner(&placement.owner)?,
        directories: Vec::new(),
        inodes: HashMap::new(),
    };
    placer.all().map_err(|error| error.to_string())
}

struct Placer<'a> {
    placement: &'a Placement,
    owner: (u32, u32),
    /// Those that were copied, and their times.
    directories: Vec<(PathBuf, Timespec)>,
    /// Where files with several names were put.
    inodes: HashMap<(u64, u64), PathBuf>,
}

impl Placer<'_> {
    fn all(&mut self) -> io::Result<()> {
        let (destination, is_directory) = self.destination()?;
        let base = if is_directory {
            &destination
        } else {
            destination.parent().unwrap_or(Path::new("/"))
        };
        let octal = self.placement.mode.as_ref().and_then(Mode::octal);
        let mode = octal.unwrap_or(0o755) & 0o777;
        let mut is_made = self.placement.items.is_empty();
        if is_made {
            self.make_directories(base, mode)?;
        }
        for item in &self.placement.items {
            let from = Path::new(FILES).join(&item.source);
            if item.unpack && self.unpack(&from, &destination)? {
                continue;
            }
            if !std::mem::replace(&mut is_made, true) {
                self.make_directories(base, mode)?;
            }
            let to = match (is_directory, item.target.is_empty()) {
                (false, _) | (true, true) => destination.clone(),
                (true, false) => destination.join(&item.target),
            };
            self.place(&from, &to, item.target.is_empty())?;
        }
        // What is put into a directory changes its time.
        for (path, time) in self.directories.iter().rev() {
            set_time(path, *time).map_err(|error| {
                other(format!(
                    "failed to set the time of `{}`: {error}",
                    path.display()
                ))
            })?;
        }
        Ok(())
    }

    /// Where the destination lies, and whether it is a directory.
    fn destination(&self) -> io::Result<(PathBuf, bool)> {
        let path = Path::new(&self.placement.destination);
        let path = if self.placement.link {
            // A slash at the end would follow a link.
            path.components().collect()
        } else {
            rooted(Path::new("/"), path)?
        };
        let is_there = !self.placement.link && path.is_dir();
        match self.placement.kind {
            Destination::Directory => Ok((path, true)),
            Destination::Name => Ok((path, is_there)),
            Destination::Existing if is_there => Ok((path, true)),
            Destination::Existing => {
                let reason = "is not a directory, and there are several sources";
                Err(other(format!("`{}` {reason}", path.display())))
            }
        }
    }

    /// `is_top` is the destination itself, which is there by now and keeps its mode and its owner.
    fn place(&mut self, from: &Path, to: &Path, is_top: bool) -> io::Result<()> {
        let metadata = fs::symlink_metadata(from)?;
        if metadata.is_dir() {
            if !is_top {
                self.directory(to)?;
                self.describe(from, to, &metadata)?;
            }
            self.directories.push((to.to_owned(), time_of(&metadata)));
            return Ok(());
        }
        match fs::symlink_metadata(to) {
            Ok(there) if there.is_dir() && self.placement.link => fs::remove_dir_all(to)?,
            Ok(there) if there.is_dir() => {
                let reason = "there is a directory where a file is to be put";
                return Err(other(format!("`{}`: {reason}", to.display())));
            }
            Ok(_) => fs::remove_file(to)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let kind = metadata.file_type();
        if kind.is_file() && metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.inodes.get(&inode) {
                return fs::hard_link(first, to);
            }
            self.inodes.insert(inode, to.to_owned());
        }
        if kind.is_symlink() {
            fs_err::os::unix::fs::symlink(fs::read_link(from)?, to)?;
        } else if kind.is_fifo() {
            make_fifo(to)?;
        } else if kind.is_file() {
            let mut input = fs::File::open(from)?;
            let mut output = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(to)?;
            io::copy(&mut input, &mut output)?;
        } else {
            let reason = "only files, directories, links and fifos can be copied";
            return Err(other(format!("`{}`: {reason}", from.display())));
        }
        self.describe(from, to, &metadata)?;
        set_time(to, time_of(&metadata))
    }

    /// Makes a directory of the sources, unless it is there.
    fn directory(&self, to: &Path) -> io::Result<()> {
        if self.placement.link {
            remove_unless_directory(to)?;
        }
        match fs::create_dir(to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && to.is_dir() => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let reason = "there is something that is no directory";
                Err(other(format!("`{}`: {reason}", to.display())))
            }
            result => result,
        }
    }

    /// Makes a directory, with those that lead to it, as `mkdir -p` does. With `link`, what is no directory is
    /// replaced, and the directories that are there become as new ones.
    fn make_directories(&self, path: &Path, mode: u32) -> io::Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        let link = self.placement.link;
        if !link && path.is_dir() {
            return Ok(());
        }
        self.make_directories(parent, mode)?;
        if link {
            remove_unless_directory(path)?;
        }
        match fs::create_dir(path) {
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists && !(link && path.is_dir()) =>
            {
                return Err(other(format!("`{}` is not a directory", path.display())));
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        chown(path, self.owner)?;
        set_mode(path, mode)
    }

    /// Owner before mode, since a change of owner clears bits of it.
    fn describe(&self, from: &Path, to: &Path, metadata: &std::fs::Metadata) -> io::Result<()> {
        chown(to, self.owner)?;
        if metadata.is_symlink() {
            return Ok(());
        }
        let own = metadata.mode() & 0o7777;
        let mode = self.placement.mode.as_ref();
        set_mode(
            to,
            mode.map_or(own, |mode| mode.apply(own, metadata.is_dir())),
        )?;
        copy_xattrs(from, to)
    }

    /// Unpacks an archive into the destination, which becomes a directory, whatever the archive's name is;
    /// `false` if the file is none. One that only begins like an archive is an error.
    fn unpack(&self, from: &Path, into: &Path) -> io::Result<bool> {
        if !fs::metadata(from)?.is_file() {
            return Ok(false);
        }
        let Some(archive) = archive(from)? else {
            return Ok(false);
        };
        // The modes are the archive's.
        self.make_directories(into, 0o755)?;
        let unpacker = Unpacker {
            into,
            owner: (!self.placement.owner.is_empty()).then_some(self.owner),
            link: self.placement.link,
        };
        unpacker.all(archive).map_err(|error| {
            let name = from.strip_prefix(FILES).unwrap_or(from).display();
            other(format!("`{name}`: {error}"))
        })?;
        Ok(true)
    }
}

/// Gives a copy the extended attributes that go along.
pub(super) fn copy_xattrs(from: &Path, to: &Path) -> io::Result<()> {
    let mut value = vec![0; 1 << 16];
    for name in xattrs(from)? {
        let length = rustix::fs::lgetxattr(from, &*name, &mut value[..])?;
        rustix::fs::lsetxattr(to, &*name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

/// The names of those: the user's own.
fn xattrs(path: &Path) -> io::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut list = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let names = list[..length].split(|&byte| byte == 0);
    let is_own = |name: &&[u8]| {
        let ours = [&b"user.overlay."[..], b"user.pyats-image-build."];
        name.starts_with(b"user.") && !ours.iter().any(|ours| name.starts_with(ours))
    };
    let own = names.filter(is_own);
    Ok(own.map(|name| OsString::from_vec(name.to_vec())).collect())
}

/// Whether nothing is there, or no longer.
pub(super) fn remove_unless_directory(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => Ok(false),
        Ok(_) => fs::remove_file(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

pub(super) fn other(message: String) -> io::Error {
    io::Error::other(message)
}

pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

pub(super) fn make_fifo(path: &Path) -> io::Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    Ok(rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0)?)
}

/// Where `path` lies in `root`, with links followed as if that were the root; names that are not there stay as
/// they are, also those that a link leads to.
pub(super) fn rooted(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut found = root.to_owned();
    let mut rest = steps(path);
    let mut links = 0;
    while let Some(step) = rest.pop() {
        match Path::new(&step).components().next() {
            Some(Component::RootDir) => root.clone_into(&mut found),
            Some(Component::ParentDir) if found == root => {}
            Some(Component::ParentDir) => drop(found.pop()),
            _ => found.push(&step),
        }
        let is_link = fs::symlink_metadata(&found).is_ok_and(|there| there.is_symlink());
        if is_link && found != root {
            links += 1;
            if links > MAX_LINKS {
                return Err(rustix::io::Errno::LOOP.into());
            }
            rest.extend(steps(&fs::read_link(&found)?));
            found.pop();
        }
    }
    Ok(found)
}

/// The steps of a path; the first one comes last.
fn steps(path: &Path) -> Vec<OsString> {
    let steps = path.components().rev();
    let steps = steps.filter(|step| !matches!(step, Component::CurDir));
    steps.map(|step| step.as_os_str().to_owned()).collect()
}

pub(super) fn chown(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(
        |error| {
            io::Error::other(format!(
                "{NO_OWNER}`{}` cannot be {}:{}: {error}",
                path.display(),
                uid.as_raw(),
                gid.as_raw()
            ))
        },
    )
}

pub(super) fn time_of(metadata: &std::fs::Metadata) -> Timespec {
    Timespec {
        tv_sec: metadata.mtime(),
        tv_nsec: metadata.mtime_nsec(),
    }
}

pub(super) fn set_time(path: &Path, time: Timespec) -> io::Result<()> {
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}
