//! An image leaves the store: as an OCI layout, an OCI archive or a Docker archive.
//!
//! Whatever is there already is replaced only if it is of the same kind, and only by a rename when the
//! new one is complete. Follows the OCI image specification, `image-layout.md`, and the format of
//! `docker save`.

mod archive;
mod file;
mod layout;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fs_err as fs;

use crate::image::Image;
use crate::progress::{Cancelled, Progress};
use crate::store::{self, Store};

pub use layout::LayoutWriter;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder that is an OCI image layout. Other images in it stay.
    OciDir,
    /// The same in a tar file.
    OciArchive,
    /// What `docker load` reads.
    DockerArchive,
}

/// `KIND[:PATH]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What is written.
    pub kind: Kind,
    /// Where; absent, the image's own name decides.
    pub path: Option<PathBuf>,
}

/// A text that is not an output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an output: use `oci-dir`, `oci-archive` or `docker-archive`, each with `:PATH` or without"
)]
pub struct InvalidOutput(pub String);

/// What can go wrong with an output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is something else.
    #[error("`{path}` exists and is not {wanted}")]
    Taken {
        /// The output's path.
        path: PathBuf,
        /// What would have been replaced.
        wanted: &'static str,
    },
    /// Its directory does not exist, or nothing can be written there.
    #[error("nothing can be written in `{directory}`")]
    Directory {
        /// The output's directory.
        directory: PathBuf,
        /// The file system's own words.
        source: io::Error,
    },
    /// The store's own words.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The file system's own words.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The user wants to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => Some("choose another path, or remove what is there".to_owned()),
            Self::Directory { directory, source } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!(
                    "make the directory first: `mkdir -p {}`",
                    directory.display()
                ))
            }
            Self::Directory { .. } => Some("choose a directory that you may write to".to_owned()),
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                Some("make room on the output's file system".to_owned())
            }
            _ => None,
        }
    }
}

impl FromStr for Output {
    type Err = InvalidOutput;

    fn from_str(text: &str) -> Result<Self, InvalidOutput> {
        let (kind, path) = match text.split_once(':') {
            Some((kind, path)) => (kind, Some(path)),
            None => (text, None),
        };
        let kind = match kind {
            "oci-dir" => Kind::OciDir,
            "oci-archive" => Kind::OciArchive,
            "docker-archive" => Kind::DockerArchive,
            _ => return Err(InvalidOutput(text.to_owned())),
        };
        match path {
            Some("") => Err(InvalidOutput(text.to_owned())),
            path => Ok(Self {
                kind,
                path: path.map(PathBuf::from),
            }),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OciDir => "oci-dir",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
        })
    }
}

impl Output {
    /// The path, or the one that `name` (the last name of the tag) gives.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        match (&self.path, self.kind) {
            (Some(path), _) => path.clone(),
            (None, Kind::OciDir) => PathBuf::from(name),
            (None, Kind::OciArchive | Kind::DockerArchive) => PathBuf::from(format!("{name}.tar")),
        }
    }
}

/// An error if `path` cannot take an output of `kind`; asked before the build begins.
pub fn check(kind: Kind, path: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir() && !path.is_file()) {
        // Reading a pipe to see what it holds would wait for ever.
        let path = path.to_owned();
        return Err(Error::Taken {
            path,
            wanted: "a regular file or a folder",
        });
    }
    let taken = |wanted| {
        Err(Error::Taken {
            path: path.to_owned(),
            wanted,
        })
    };
    match fs::symlink_metadata(path) {
        Ok(_) => match kind {
            Kind::OciDir if !path.is_dir() => return taken("a folder"),
            Kind::OciDir if !layout::is_layout(path)? => return taken("an OCI image layout"),
            Kind::OciArchive if !archive::is_archive(path, &["oci-layout", "index.json"]) => {
                return taken("an OCI archive");
            }
            Kind::DockerArchive if !archive::is_archive(path, &["manifest.json"]) => {
                return taken("a Docker archive");
            }
            _ => {}
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    is_writable(if kind == Kind::OciDir && path.is_dir() {
        path
    } else {
        file::parent(path)
    })
}

/// Writes `image` to `path` under its `references` (the first is the main one).
pub fn write(
    image: &Image,
    references: &[String],
    kind: Kind,
    path: &Path,
    store: &Store,
    progress: &Progress,
) -> Result<(), Error> {
    file::sweep(path);
    let part = progress.start(format!("write {kind} `{}`", path.display()));
    match kind {
        Kind::OciDir => layout::write(image, references, path, store, progress)?,
        Kind::OciArchive => archive::write(path, |tar| {
            archive::oci_entries(image, references, store, tar, progress)
        })?,
        Kind::DockerArchive => archive::write(path, |tar| {
            archive::docker_entries(image, references, store, tar, progress)
        })?,
    }
    part.finish(String::new());
    Ok(())
}

/// An error if no small file can be written to `path`; asked before the build begins.
pub fn check_file(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        let path = path.to_owned();
        return Err(Error::Taken {
            path,
            wanted: "a file",
        });
    }
    // A device or a pipe is written to as it is.
    if path.exists() && !path.is_file() {
        return Ok(());
    }
    is_writable(file::parent(path))
}

/// Replaces the small file at `path`, at once or not at all. A device, a pipe, or what a link leads to is
/// written to.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let plain = fs::symlink_metadata(path).map_or(true, |metadata| metadata.is_file());
    if plain {
        return file::write_file(path, |file| Ok(file.write_all(bytes)?));
    }
    Ok(fs::write(path, bytes)?)
}

fn is_writable(directory: &Path) -> Result<(), Error> {
    let probe = tempfile::Builder::new()
        .prefix(file::PREFIX)
        .tempfile_in(directory);
    probe.map(drop).map_err(|source| Error::Directory {
        directory: directory.to_owned(),
        source: io::Error::from(source.kind()),
    })
}
