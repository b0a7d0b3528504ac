//! Puts files into a root file system, as COPY, ADD and WORKDIR do.
//!
//! This runs where a command would: in the sandbox, with the root file system as the root and the files
//! mounted below /dev. So links cannot lead out, owners are what they are for a command, and what changed is
//! found as after a command.

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

/// What is put where.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Placement {
    /// Files, directories (without what is in them) and links, in order: relative to [`FILES`], and relative
    /// to the destination.
    pub entries: Vec<(OsString, OsString)>,
    /// Absolute. Directories that lead there are made.
    pub destination: OsString,
    /// Whether the destination is a directory in any case; else the only entry is put there under this name,
    /// unless a directory has it.
    pub is_directory: bool,
    /// `USER[:GROUP]`; empty for root. New directories that lead to the destination get it too.
    pub owner: String,
    /// In place of the files' own.
    pub mode: Option<u32>,
    /// Whether archives are unpacked.
    pub unpack: bool,
}

/// Does it; the error is for the user.
pub(super) fn place(placement: &Placement) -> Result<(), String> {
    rustix::process::umask(Mode::empty());
    let owner = identity::owner(&placement.owner)?;
    let destination = Path::new(&placement.destination);
    let is_directory = placement.is_directory || destination.is_dir();
    let base = if is_directory {
        destination
    } else {
        destination.parent().unwrap_or(Path::new("/"))
    };
    make_directories(base, owner).map_err(|error| error.to_string())?;
    let mut placer = Placer {
        placement,
        owner,
        directories: Vec::new(),
    };
    for (source, target) in &placement.entries {
        let from = Path::new(FILES).join(source);
        let to = match (is_directory, target.is_empty()) {
            (false, _) | (true, true) => destination.to_owned(),
            (true, false) => destination.join(target),
        };
        placer
            .place(&from, &to, target.is_empty())
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
}

impl Placer<'_> {
    /// `is_top` is the destination itself, whose metadata stay if it is there.
    fn place(&mut self, from: &Path, to: &Path, is_top: bool) -> io::Result<()> {
        let metadata = fs::symlink_metadata(from)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
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
        if self.placement.unpack && kind.is_file() && unpack(from, to, is_top)? {
            return Ok(());
        }
        match fs::symlink_metadata(to) {
            Ok(there) if there.is_dir() => {
                let reason = "there is a directory where a file is to be put";
                return Err(io::Error::other(format!("`{}`: {reason}", to.display())));
            }
            Ok(_) => fs::remove_file(to)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
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

    /// Owner before mode, since a change of owner clears bits of it.
    fn describe(&self, from: &Path, to: &Path, metadata: &std::fs::Metadata) -> io::Result<()> {
        chown(to, self.owner)?;
        if metadata.is_symlink() {
            return Ok(());
        }
        let mode = self.placement.mode.unwrap_or(metadata.mode() & 0o7777);
        fs::set_permissions(to, PermissionsExt::from_mode(mode))?;
        let mut value = vec![0; 1 << 16];
        let names = xattrs(from)?;
        for name in names {
            let length = rustix::fs::lgetxattr(from, &*name, &mut value[..])?;
            rustix::fs::lsetxattr(to, &*name, &value[..length], XattrFlags::empty())?;
        }
        Ok(())
    }
}

/// The extended attributes that go along: the user's own.
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

/// Makes a directory, with those that lead to it, as `mkdir -p` does.
fn make_directories(path: &Path, owner: (u32, u32)) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent, owner)?;
    }
    fs::create_dir(path)?;
    chown(path, owner)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o755))
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

fn time_of(metadata: &std::fs::Metadata) -> Timespec {
    Timespec {
        tv_sec: metadata.mtime(),
        tv_nsec: metadata.mtime_nsec(),
    }
}

fn set_time(path: &Path, time: Timespec) -> io::Result<()> {
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

/// Unpacks an archive of tar, plain or compressed with gzip, bzip2, xz or zstd, into a directory; `false` if
/// it is none. A file that only begins like one is an error, and a compressed file without an archive in it
/// is no archive.
fn unpack(from: &Path, to: &Path, is_top: bool) -> io::Result<bool> {
    let mut file = fs::File::open(from)?;
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
    if !(is_header && &block[257..262] == b"ustar") {
        return Ok(false);
    }
    // The destination of an archive is a directory, whatever the archive's name is.
    let directory = if is_top {
        to
    } else {
        to.parent().unwrap_or(Path::new("/"))
    };
    let mut archive = tar::Archive::new(io::Cursor::new(block).chain(reader));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_unpack_xattrs(true);
    archive.set_overwrite(true);
    archive
        .unpack(directory)
        .map_err(|error| io::Error::other(format!("`{}`: {error}", from.display())))?;
    Ok(true)
}
