//! Local files and directories into the context.
//!
//! An entry of `files` that is a symlink stands for what it leads to; symlinks inside a directory
//! stay symlinks, wherever they lead. Sockets inside a directory are left out with a warning, and so
//! is what the entry's `exclude` or a `.dockerignore` in a local directory names, without one.
//! Everything else that is neither file nor directory is an error, since a build context cannot
//! carry it.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

use crate::buildfile::{FileEntry, Source};
use crate::error::Error;
use crate::files::expand;
use crate::progress::{Part, Progress};
use crate::sources::error::{self, no_name, on_disk};

use super::destination::Workspace;
use super::select::{Ignore, ignored};

/// Bytes that are copied between two looks at whether to stop, and between two events.
const CHUNK: u64 = 16 << 20;

/// Entries of a directory that are looked at for a name like the missing one.
const SIMILAR_LIMIT: usize = 10_000;

const FETCHED: &str = "all that is elsewhere was fetched";

/// Stages one entry of `files`: a path of this machine, or what was fetched of another one.
pub(super) fn stage(
    entry: &FileEntry,
    fetched: Option<&Path>,
    workspace: &mut Workspace,
    copier: &mut Copier<'_>,
) -> Result<(), Error> {
    let key = entry.destination.as_deref().filter(|key| !key.is_empty());
    let Source::Local(path) = &entry.source else {
        let kept = entry.source.file_name();
        let name = key.or(kept.as_deref()).unwrap_or_default();
        let from = fetched.expect(FETCHED);
        let exclude = excluded(entry, from, Path::new(name))?;
        let to = workspace.claim(Path::new(name), &entry.name)?;
        copier.copy(from, &to, &exclude)?;
        return Ok(());
    };
    let source = expand(path)?;
    let metadata = fs::metadata(&source).map_err(|error| missing(&source, error))?;
    // From here on no component is a symlink, so that one put there now is not followed.
    let from = fs::canonicalize(&source)?;
    let destination = match key {
        Some(key) => PathBuf::from(key),
        None => source
            .file_name()
            .or_else(|| from.file_name())
            .map(PathBuf::from)
            .ok_or_else(|| no_name(&source))?,
    };
    if copier.is_own(&from, &metadata) {
        let message = format!("`{}` is a directory of the build itself", source.display());
        return Err(error::source(message)
            .with_hint("leave it out, or give `--path` or `--store` another directory"));
    }
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(special(&from, &metadata));
    }
    let mut ignore = excluded(entry, &from, &source)?;
    if metadata.is_dir() {
        ignore = ignored(&from)?.and(ignore);
    }
    let to = workspace.claim(&destination, &entry.name)?;
    let left_out = copier.copy(&from, &to, &ignore)?;
    if left_out > 0 && entry.exclude.is_empty() {
        copier.progress.note(format!(
            "`{}` leaves out {}",
            source.join(".dockerignore").display(),
            match left_out {
                1 => "one file or folder".to_owned(),
                count => format!("{count} files and folders"),
            }
        ));
    }
    Ok(())
}

/// The patterns of an entry for the folder `from`, which messages call `shown`.
fn excluded(entry: &FileEntry, from: &Path, shown: &Path) -> Result<Ignore, Error> {
    if !entry.exclude.is_empty() && !fs::symlink_metadata(from)?.is_dir() {
        let message = format!(
            "`{}` is no folder, so that nothing can be excluded from it",
            shown.display()
        );
        return Err(error::source(message).with_hint("remove `exclude`"));
    }
    Ignore::parse(entry.exclude.iter().map(String::as_str))
}

/// Stages what was fetched for the repository `name` at `destination`.
pub(super) fn stage_fetched(
    fetched: Option<&Path>,
    destination: &str,
    name: &str,
    workspace: &mut Workspace,
    copier: &mut Copier<'_>,
) -> Result<(), Error> {
    let from = fetched.expect(FETCHED);
    let to = workspace.claim(Path::new(destination), name)?;
    copier.copy(from, &to, &Ignore::default())?;
    Ok(())
}

/// What a source that cannot be looked at suffers from.
fn missing(source: &Path, failure: io::Error) -> Error {
    if failure.kind() != io::ErrorKind::NotFound {
        return failure.into();
    }
    if let Ok(target) = fs::read_link(source) {
        return error::source(format!(
            "`{}` is a symlink to `{}`, which does not exist",
            source.display(),
            target.display()
        ));
    }
    let missing = error::source(format!("`{}` does not exist", source.display()));
    match similar(source) {
        Some(name) => missing.with_hint(format!("did you mean `{name}`?")),
        None if source.is_relative() => {
            missing.with_hint("local paths are relative to the current directory")
        }
        None => missing,
    }
}

/// The path beside `source` whose name is nearest to its own, if one is near.
fn similar(source: &Path) -> Option<String> {
    let name = source.file_name()?.to_string_lossy();
    let parent = source.parent()?;
    let listed = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let limit = (name.chars().count() / 3).min(3);
    let nearest = fs::read_dir(listed)
        .ok()?
        .take(SIMILAR_LIMIT)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .map(|other| (strsim::osa_distance(&name, &other), other))
        .filter(|(distance, _)| *distance <= limit)
        .min()?;
    Some(parent.join(nearest.1).display().to_string())
}

fn special(path: &Path, metadata: &Metadata) -> Error {
    let kind = metadata.file_type();
    let kind = if kind.is_fifo() {
        "named pipe"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "device"
    } else {
        "file of an unknown kind"
    };
    let path = path.display();
    error::source(format!(
        "`{path}` is a {kind}, which an image cannot take from a context"
    ))
    .with_hint("name the files beside it one by one")
}

/// What a directory is, by whatever name it is reached.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// A tree that is copied in part.
struct Excluding<'a> {
    ignore: &'a Ignore,
    /// Files and directories, without those in them.
    left_out: u64,
}

/// Copies trees into the context, and remembers what is left to do at the end.
#[derive(Debug)]
pub(super) struct Copier<'a> {
    progress: &'a Progress,
    part: &'a Part,
    root: PathBuf,
    /// Devices and inodes of the context, which is not copied into itself, and of what else is the
    /// tool's own.
    left_out: Vec<(u64, u64)>,
    /// Whether other users can enter the context.
    open_to_others: bool,
    /// Directories whose own mode would keep later entries out.
    unsealed: Vec<(PathBuf, u32)>,
    /// Those that were left out.
    sockets: Vec<PathBuf>,
    files: u64,
    bytes: u64,
    told: u64,
}

impl<'a> Copier<'a> {
    /// `root` is the context's, canonical; it and the directories in `leave_out` are not copied.
    pub(super) fn new(
        root: &Path,
        leave_out: &[&Path],
        progress: &'a Progress,
        part: &'a Part,
    ) -> io::Result<Self> {
        let metadata = fs::metadata(root)?;
        let left_out = leave_out.iter().filter_map(|path| fs::metadata(path).ok());
        let left_out = left_out
            .map(|other| identity(&other))
            .chain([identity(&metadata)])
            .collect();
        Ok(Self {
            progress,
            part,
            root: root.to_owned(),
            left_out,
            open_to_others: metadata.mode() & 0o011 != 0,
            unsealed: Vec::new(),
            sockets: Vec::new(),
            files: 0,
            bytes: 0,
            told: 0,
        })
    }

    /// Whether `path`, canonical, is a directory of the build itself, or a part of what is staged.
    fn is_own(&self, path: &Path, metadata: &Metadata) -> bool {
        self.left_out.contains(&identity(metadata)) || path.starts_with(self.root.join("image"))
    }

    /// Copies whatever lies at `from` to `to`, which does not exist, but for what `ignore` names by its path
    /// relative to `from`. Gives the number of files and directories that were left out, without those in them.
    fn copy(&mut self, from: &Path, to: &Path, ignore: &Ignore) -> Result<u64, Error> {
        let mut part = Excluding {
            ignore,
            left_out: 0,
        };
        self.any(from, to, Path::new(""), &mut part)?;
        Ok(part.left_out)
    }

    /// `inside` is relative to what `copy` was given.
    fn any(
        &mut self,
        from: &Path,
        to: &Path,
        inside: &Path,
        part: &mut Excluding<'_>,
    ) -> Result<(), Error> {
        self.progress.check()?;
        let is_out = !inside.as_os_str().is_empty() && part.ignore.holds(inside);
        if is_out && !part.ignore.has_exceptions() {
            part.left_out += 1;
            return Ok(());
        }
        let metadata = fs::symlink_metadata(from)?;
        if metadata.is_dir() {
            self.directory(from, to, inside, &metadata, part)?;
            // A directory that is left out is there for what is taken back in.
            if is_out && fs::read_dir(to)?.next().is_none() {
                fs::remove_dir(to)?;
                self.unsealed.pop_if(|(path, _)| path == to);
            }
            Ok(())
        } else if is_out {
            part.left_out += 1;
            Ok(())
        } else if metadata.is_symlink() {
            fs_err::os::unix::fs::symlink(fs::read_link(from)?, to)?;
            self.files += 1;
            Ok(())
        } else if metadata.is_file() {
            self.file(from, to)
        } else if metadata.file_type().is_socket() {
            self.sockets.push(from.to_owned());
            Ok(())
        } else {
            Err(special(from, &metadata))
        }
    }

    fn directory(
        &mut self,
        from: &Path,
        to: &Path,
        inside: &Path,
        metadata: &Metadata,
        part: &mut Excluding<'_>,
    ) -> Result<(), Error> {
        if self.left_out.contains(&identity(metadata)) {
            self.progress.note(format!(
                "`{}` is left out of the image: it is a directory of the build itself",
                from.display()
            ));
            return Ok(());
        }
        let names = fs::read_dir(from)?.map(|entry| Ok(entry?.file_name()));
        let mut names = names.collect::<io::Result<Vec<OsString>>>()?;
        names.sort_unstable();
        fs::create_dir(to)?;
        fs::set_permissions(to, PermissionsExt::from_mode(0o700))?;
        for name in names {
            self.any(
                &from.join(&name),
                &to.join(&name),
                &inside.join(&name),
                part,
            )?;
        }
        let mode = metadata.mode() & 0o7777;
        fs::set_permissions(to, PermissionsExt::from_mode(mode | 0o700))?;
        if mode & 0o700 != 0o700 {
            self.unsealed.push((to.to_owned(), mode));
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        // Not blocking: what was a file a moment ago may be a named pipe by now.
        let source = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(from)?;
        let metadata = source.metadata()?;
        if !metadata.is_file() {
            return Err(special(from, &metadata));
        }
        let target = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        if rustix::fs::ioctl_ficlone(target.file(), source.file()).is_ok() {
            self.advance(metadata.len());
        } else {
            // On plain files and through `Take` this is `copy_file_range`, without a buffer of ours.
            loop {
                let copied = io::copy(&mut source.file().take(CHUNK), &mut target.file());
                let copied = copied.map_err(|error| {
                    let (from, to) = (from.display(), to.display());
                    on_disk(error.into()).wrap(format!("failed to copy `{from}` to `{to}`"))
                })?;
                self.advance(copied);
                if copied < CHUNK {
                    break;
                }
                self.progress.check()?;
            }
        }
        let mode = metadata.mode() & 0o7777;
        target.set_permissions(PermissionsExt::from_mode(mode))?;
        if mode & 0o6000 != 0 && self.open_to_others {
            self.open_to_others = false;
            self.progress.warn(format!(
                "`{}` has a set-id bit, and other users can enter the context `{}`",
                from.display(),
                self.root.display()
            ));
        }
        self.files += 1;
        Ok(())
    }

    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes - self.told >= CHUNK {
            self.told = self.bytes;
            self.part.advance(self.bytes);
        }
    }

    /// Gives the directories that were held open their own modes; returns files and bytes.
    pub(super) fn complete(self) -> io::Result<(u64, u64)> {
        if let Some(first) = self.sockets.first() {
            let text = format!("`{}` is a socket, which is left out", first.display());
            self.progress.warn(match self.sockets.len() {
                1 => text,
                count => format!("{text} ({count} sockets in all)"),
            });
        }
        // A directory was pushed after those in it, so that this order never locks itself out.
        for (path, mode) in &self.unsealed {
            fs::set_permissions(path, PermissionsExt::from_mode(*mode))?;
        }
        self.part.advance(self.bytes);
        Ok((self.files, self.bytes))
    }
}

/// Copies a tree of the user's own.
pub fn copy_plainly(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_symlink() {
        return fs_err::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if !metadata.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy_plainly(&from.join(&name), &to.join(&name))?;
    }
    fs::set_permissions(to, metadata.permissions())
}
