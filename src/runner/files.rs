//! Puts files into a root file system, as COPY, ADD and WORKDIR do.
//!
//! This runs where a command would: in the sandbox, with the root file system as the root and the files
//! mounted below /dev. So links cannot lead out, owners are what they are for a command, and what changed is
//! found as after a command.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use serde::{Deserialize, Serialize};

use super::identity;

/// Where the files are that are put into a root file system; see [`super::Mount`].
pub const FILES: &str = "/dev/.pyats-image-build/files";

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

/// What is put where.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Placement {
    /// A directory comes before what is in it.
    pub items: Vec<Item>,
    /// Absolute. Directories that lead there are made.
    pub destination: OsString,
    /// Whether the destination is a directory in any case; else the only entry is put there under this name,
    /// unless a directory has it.
    pub is_directory: bool,
    /// `USER[:GROUP]`; empty for root. New directories that lead to the destination get it too, and what is in
    /// an archive does not.
    pub owner: String,
    /// In place of the files' own.
    pub mode: Option<u32>,
    /// Whether what is there makes no difference: links that lead to the destination are not followed, but
    /// replaced by directories, and a directory is replaced by a file.
    pub link: bool,
}

/// Does it; the error is for the user.
pub(super) fn place(placement: &Placement) -> Result<(), String> {
    rustix::process::umask(Mode::empty());
    let owner = identity::owner(&placement.owner)?;
    let destination = Path::new(&placement.destination);
    let is_directory = placement.is_directory || (!placement.link && destination.is_dir());
    let base = if is_directory {
        destination
    } else {
        destination.parent().unwrap_or(Path::new("/"))
    };
    make_directories(base, owner, placement.link).map_err(|error| error.to_string())?;
    let mut placer = Placer {
        placement,
        owner,
        directories: Vec::new(),
        inodes: HashMap::new(),
    };
    for item in &placement.items {
        let from = Path::new(FILES).join(&item.source);
        if item.unpack && placer.unpack(&from).map_err(|error| error.to_string())? {
            continue;
        }
        let to = match (is_directory, item.target.is_empty()) {
            (false, _) | (true, true) => destination.to_owned(),
            (true, false) => destination.join(&item.target),
        };
        placer
            .place(&from, &to, item.target.is_empty())
            .map_err(|error| error.to_string())?;
    }
    // What is put into a directory changes its time.
    for (path, time) in placer.directories.iter().rev() {
        set_time(path, *time)
            .map_err(|error| format!("failed to set the time of `{}`: {error}", path.display()))?;
    }
    Ok(())
}

struct Placer<'a> {
    placement: &'a Placement,
    owner: (u32, u32),
    /// New ones, and their times.
    directories: Vec<(PathBuf, Timespec)>,
    /// Where files with several names were put.
    inodes: HashMap<(u64, u64), PathBuf>,
}

impl Placer<'_> {
    /// `is_top` is the destination itself, whose metadata stay if it is there.
    fn place(&mut self, from: &Path, to: &Path, is_top: bool) -> io::Result<()> {
        let metadata = fs::symlink_metadata(from)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            if self.placement.link {
                remove_unless_directory(to)?;
            }
            let is_new = match fs::create_dir(to) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && to.is_dir() => false,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let reason = "there is something that is no directory";
                    return Err(io::Error::other(format!("`{}`: {reason}", to.display())));
                }
                Err(error) => return Err(error),
            };
            if is_new || !is_top {
                self.describe(from, to, &metadata)?;
                self.directories.push((to.to_owned(), time_of(&metadata)));
            }
            return Ok(());
        }
        match fs::symlink_metadata(to) {
            Ok(there) if there.is_dir() && self.placement.link => fs::remove_dir_all(to)?,
            Ok(there) if there.is_dir() => {
                let reason = "there is a directory where a file is to be put";
                return Err(io::Error::other(format!("`{}`: {reason}", to.display())));
            }
            Ok(_) => fs::remove_file(to)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
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
            rustix::fs::mknodat(CWD, to, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        } else if kind.is_file() {
            let mut input = fs::File::open(from)?;
            let mut output = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(to)?;
            io::copy(&mut input, &mut output)?;
        } else {
            let reason = "only files, directories, links and fifos can be copied";
            return Err(io::Error::other(format!("`{}`: {reason}", from.display())));
        }
        self.describe(from, to, &metadata)?;
        set_time(to, time_of(&metadata))
    }

    /// Unpacks an archive into the destination, which becomes a directory, whatever the archive's name is;
    /// `false` if the file is none. One that only begins like an archive is an error.
    fn unpack(&self, from: &Path) -> io::Result<bool> {
        if !fs::metadata(from)?.is_file() {
            return Ok(false);
        }
        let Some(mut archive) = archive(from)? else {
            return Ok(false);
        };
        let into = Path::new(&self.placement.destination);
        make_directories(into, self.owner, self.placement.link)?;
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(true);
        archive.set_unpack_xattrs(true);
        archive.set_overwrite(true);
        // Directories that the archive does not name are made on the way.
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let unpacked = Self::unpack_entries(&mut archive, into);
        rustix::process::umask(Mode::empty());
        unpacked.map_err(|error| {
            let name = from.strip_prefix(FILES).unwrap_or(from).display();
            io::Error::other(format!("`{name}`: {error}"))
        })?;
        Ok(true)
    }

    fn unpack_entries(archive: &mut tar::Archive<impl Read>, into: &Path) -> io::Result<()> {
        // What is put into a directory changes its time, and its mode may forbid it.
        let mut directories = Vec::new();
        for entry in archive.entries()? {
            let entry = entry?;
            if entry.header().entry_type().is_dir() {
                directories.push(entry);
            } else {
                Self::unpack_entry(entry, into)?;
            }
        }
        directories.sort_by(|one, two| two.path_bytes().cmp(&one.path_bytes()));
        for directory in directories {
            Self::unpack_entry(directory, into)?;
        }
        Ok(())
    }

    fn unpack_entry(mut entry: tar::Entry<'_, impl Read>, into: &Path) -> io::Result<()> {
        let to = into.join(entry.path()?);
        let kind = entry.header().entry_type();
        if kind.is_hard_link() && fs::symlink_metadata(&to).is_ok_and(|there| !there.is_dir()) {
            fs::remove_file(&to)?;
        }
        let mode = entry.header().mode()?;
        if entry.unpack_in(into)? && kind.is_hard_link() {
            // The later name's counts, as with Docker.
            fs::set_permissions(&to, PermissionsExt::from_mode(mode & 0o7777))?;
        }
        Ok(())
    }

    /// Owner before mode, since a change of owner clears bits of it.
    fn describe(&self, from: &Path, to: &Path, metadata: &std::fs::Metadata) -> io::Result<()> {
        chown(to, self.owner)?;
        if metadata.is_symlink() {
            return Ok(());
        }
        let mode = self.placement.mode.unwrap_or(metadata.mode() & 0o7777);
        fs::set_permissions(to, PermissionsExt::from_mode(mode))?;
        copy_xattrs(from, to)
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

/// Makes a directory, with those that lead to it, as `mkdir -p` does. With `link`, links are replaced.
fn make_directories(path: &Path, owner: (u32, u32), link: bool) -> io::Result<()> {
    if !link && path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent, owner, link)?;
    }
    if link && !remove_unless_directory(path)? {
        return Ok(());
    }
    fs::create_dir(path)?;
    chown(path, owner)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o755))
}

/// Whether nothing is there, or no longer.
fn remove_unless_directory(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => Ok(false),
        Ok(_) => fs::remove_file(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn chown(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(
        |error| {
            io::Error::other(format!(
                "the owner of `{}` cannot be {}:{}: {error}",
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

/// What is read out of a file that is an archive of tar, plain or compressed with gzip, bzip2, xz or zstd;
/// nothing if it is none. A compressed file without an archive in it is no archive.
fn archive(path: &Path) -> io::Result<Option<tar::Archive<impl Read>>> {
    let mut file = fs::File::open(path)?;
    let mut start = [0; 6];
    let mut length = 0;
    while length < start.len() {
        match file.read(&mut start[length..])? {
            0 => break,
            count => length += count,
        }
    }
    io::Seek::rewind(&mut file)?;
    let mut reader: Box<dyn Read> = match &start[..length] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(file)?),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::read::MultiBzDecoder::new(file)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(lzma_rust2::XzReader::new(file, true)),
        _ => Box::new(file),
    };
    // A header of tar is one block, with its mark near the end.
    let mut block = Vec::new();
    let is_header = (&mut reader)
        .take(512)
        .read_to_end(&mut block)
        .is_ok_and(|count| count == 512);
    let is_archive = is_header && &block[257..262] == b"ustar";
    Ok(is_archive.then(|| tar::Archive::new(io::Cursor::new(block).chain(reader))))
}
