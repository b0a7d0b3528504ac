//! Where a context lies, and whether it stays.
//!
//! A directory that the user gave and that exists is never cleaned. What a build put into it is
//! recognised by a marker file, so that the next build can replace `image` without touching
//! anything of the user's.

use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::error::{Error, Kind};
use crate::files::remove_tree;
use crate::progress::Progress;
use crate::sources::error::on_disk;

use super::write_file;

/// Says that `image` and `Dockerfile` beside it are a build's. Its lock says that a build is on.
const MARKER: &str = ".pyats-image-build";

/// For whoever finds the marker.
const MARKER_TEXT: &str = "`image` and `Dockerfile` in this directory are made by \
                           pyats-image-build, and replaced by its next build here.\n";

/// What a build puts into the directory.
const OURS: [&str; 2] = ["image", "Dockerfile"];

/// The directory of a context. Dropped, as after a failed build, it removes what it made, unless it
/// was told to keep it.
#[derive(Debug)]
pub struct ContextRoot {
    path: PathBuf,
    /// Directories to remove, the context first, then those made on the way to it.
    made: Vec<PathBuf>,
    keep: bool,
    _lock: fs::File,
}

impl ContextRoot {
    /// Makes or opens the directory.
    ///
    /// - With `path` (`--path`): that directory. If it exists, it stays as it is but for what a
    ///   build puts there; if not, it is made with mode 0700.
    /// - Without `path`: a new directory in `scratch`, or, if it is to be kept, in the temporary
    ///   directory.
    ///
    /// A directory that is made here and kept (`--keep-context`) is told to the user.
    pub fn open(
        path: Option<&Path>,
        scratch: &Path,
        keep: bool,
        progress: &Progress,
    ) -> Result<Self, Error> {
        let temporary = std::env::temp_dir();
        let wanted = match path {
            Some(path) => path,
            None if keep => &temporary,
            None => scratch,
        };
        let mut made = Vec::new();
        let result = prepare(wanted, path.is_none(), &mut made);
        let (path, lock) = match result {
            Ok(opened) => opened,
            Err(error) => {
                remove(&made).unwrap_or_default();
                return Err(failed(wanted, error));
            }
        };
        if keep && !made.is_empty() {
            progress.note(format!("the context stays in `{}`", path.display()));
        }
        Ok(Self {
            path,
            made,
            keep,
            _lock: lock,
        })
    }

    /// The directory, absolute and without symlinks.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the use of the context: removes what [`open`](Self::open) made, unless it is kept.
    pub fn complete(mut self) -> Result<(), Error> {
        let made = std::mem::take(&mut self.made);
        if self.keep {
            return Ok(());
        }
        remove(&made).map_err(|error| failed(&self.path, error.into()))
    }
}

impl Drop for ContextRoot {
    fn drop(&mut self) {
        if !self.keep {
            // There is nobody to tell: the build has already failed for another reason.
            remove(&self.made).unwrap_or_default();
        }
    }
}

fn prepare(
    wanted: &Path,
    inside: bool,
    made: &mut Vec<PathBuf>,
) -> Result<(PathBuf, fs::File), Error> {
    let path = if inside {
        let directory = tempfile::Builder::new()
            .prefix("pyats-image.")
            .permissions(PermissionsExt::from_mode(0o700))
            .tempdir_in(wanted)?;
        let path = fs::canonicalize(directory.keep())?;
        made.push(path.clone());
        path
    } else {
        make(wanted, made)?;
        check(wanted)?;
        fs::canonicalize(wanted)?
    };
    if path.to_str().is_none() {
        let message = format!("its path `{}` is not UTF-8", path.display());
        return Err(Error::new(Kind::Options, message)
            .with_hint("give `--path` a directory whose path is UTF-8"));
    }
    let lock = lock(&path)?;
    Ok((path, lock))
}

/// An error unless it is a directory of this user's: whoever else owns it, or the link to it, decides what a build finds
/// there.
fn check(path: &Path) -> Result<(), Error> {
    // Without a slash at its end, which would follow the link.
    let path: PathBuf = path.components().collect();
    let metadata = fs::symlink_metadata(path)?;
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if metadata.is_symlink() {
        Err(refused("it is a symbolic link"))
    } else if !metadata.is_dir() {
        Err(refused("it is not a directory"))
    } else if owner != user {
        Err(refused(format!(
            "it belongs to the user {owner}, and not to {user}"
        )))
    } else {
        Ok(())
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Kind::Options, message).with_hint("give `--path` another directory")
}

fn failed(path: &Path, error: Error) -> Error {
    on_disk(error)
        .or_kind(Kind::Storage)
        .wrap(format!("failed to use `{}` as the context", path.display()))
}

/// Makes `path`, and the directories on its way, if it does not exist.
fn make(path: &Path, made: &mut Vec<PathBuf>) -> Result<(), Error> {
    let path = std::path::absolute(path)?;
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|path| fs::symlink_metadata(path).is_err())
        .collect();
    for directory in missing.iter().rev() {
        let mut builder = std::fs::DirBuilder::new();
        if *directory == path {
            builder.mode(0o700);
        }
        let failed = |error: io::Error| {
            let text = format!(
                "failed to create directory `{}`: {error}",
                directory.display()
            );
            io::Error::new(error.kind(), text)
        };
        builder.create(directory).map_err(failed)?;
        made.insert(0, (*directory).to_owned());
    }
    Ok(())
}

/// Takes the directory for this build, and clears what an earlier one left in it.
fn lock(path: &Path) -> Result<fs::File, Error> {
    let marker = path.join(MARKER);
    if !fs::symlink_metadata(&marker).is_ok_and(|metadata| metadata.is_file()) {
        let exists = |name: &&&str| fs::symlink_metadata(path.join(name)).is_ok();
        if let Some(name) = OURS.iter().find(exists) {
            let message = format!("it holds `{name}`, which no build of this tool has put there");
            let hint = format!("move `{name}` away, or give `--path` another directory");
            return Err(Error::new(Kind::Options, message).with_hint(hint));
        }
        write_file(&marker, MARKER_TEXT, 0o644)?;
    }
    let lock = fs::File::open(&marker)?;
    match lock.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => return Err(refused("another build is using it")),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    for name in OURS {
        remove_tree(&path.join(name))?;
    }
    Ok(lock)
}

/// Removes the first with all that is in it, the others only if nothing else is in them.
fn remove(made: &[PathBuf]) -> io::Result<()> {
    let Some((path, parents)) = made.split_first() else {
        return Ok(());
    };
    remove_tree(path)?;
    for parent in parents {
        if fs::remove_dir(parent).is_err() {
            break;
        }
    }
    Ok(())
}
