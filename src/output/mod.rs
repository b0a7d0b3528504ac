//! An image leaves the store: as an OCI layout, an OCI archive or a Docker archive.
//!
//! Whatever is there already is replaced only if it is of the same kind, and only by a rename when the
//! new one is complete. Follows the OCI image specification, `image-layout.md`, and the format of
//! `docker save`.

mod archive;
mod file;
mod layout;

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fs_err as fs;

use crate::error::{self, Error};
use crate::image::Image;
use crate::progress::Progress;
use crate::store::Store;

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

/// What stands for standard output; in [`Output`] `-` does too.
const STDOUT: &str = "/dev/stdout";

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
            Some("-") if kind == Kind::OciDir => Err(InvalidOutput(text.to_owned())),
            Some("-") => Ok(Self {
                kind,
                path: Some(PathBuf::from(STDOUT)),
            }),
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

/// Whether an output at `path` is written to standard output.
#[must_use]
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new(STDOUT)
}

/// Whether an archive at `path` is written as a stream: to standard output, a pipe or `/dev/null`.
fn is_stream(path: &Path) -> bool {
    let takes_any = |kind: std::fs::FileType| kind.is_fifo() || kind.is_char_device();
    is_stdout(path) || fs::metadata(path).is_ok_and(|metadata| takes_any(metadata.file_type()))
}

/// An error if `path` cannot take an output of `kind`; asked before the build begins.
pub fn check(kind: Kind, path: &Path) -> Result<(), Error> {
    if kind != Kind::OciDir && is_stream(path) {
        if is_stdout(path) && io::stdout().is_terminal() {
            let message = "an archive is not written to a terminal";
            let hint = "redirect standard output: `> image.tar`, or `| docker load`";
            return Err(Error::new(error::Kind::Options, message).with_hint(hint));
        }
        return Ok(());
    }
    if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir() && !path.is_file()) {
        // Reading a pipe to see what it holds would wait for ever.
        return Err(taken(path, "a regular file or a folder"));
    }
    let taken = |wanted| Err(taken(path, wanted));
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
    if kind == Kind::OciDir || !is_stream(path) {
        file::sweep(path);
    }
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
    if is_written_in_place(path)? {
        return Ok(());
    }
    is_writable(file::parent(path))
}

/// Replaces the small file at `path`, at once or not at all. A link is replaced too: in a folder that others may write
/// to, it would lead where they want. Devices, pipes and open files (`/dev/stdout`) are written to.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if is_written_in_place(path)? {
        let mut file = fs::OpenOptions::new().append(true).open(path)?;
        return Ok(file.write_all(bytes)?);
    }
    file::write_file(path, |file| Ok(file.write_all(bytes)?))
}

/// Whether a small file is a device, a pipe or an open file. An error if nothing can be written to what is there.
fn is_written_in_place(path: &Path) -> Result<bool, Error> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(false);
    };
    let kind = metadata.file_type();
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    let taken = |wanted| Err(taken(path, wanted));
    if kind.is_dir() || path.as_os_str().as_bytes().ends_with(b"/") {
        return taken("a file");
    }
    if kind.is_fifo() && !is_ours {
        return taken("a pipe of yours");
    }
    Ok(is_descriptor(path) || !(kind.is_file() || kind.is_symlink()))
}

/// Whether a path names a file that this process has open.
fn is_descriptor(path: &Path) -> bool {
    let standard = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    standard.iter().any(|name| path == Path::new(name))
        || ["/dev/fd", "/proc"]
            .iter()
            .any(|folder| path.starts_with(folder))
}

fn is_writable(directory: &Path) -> Result<(), Error> {
    let probe = tempfile::Builder::new()
        .prefix(file::PREFIX)
        .tempfile_in(directory);
    probe.map(drop).map_err(|source| {
        let directory = directory.display();
        let hint = match source.kind() {
            io::ErrorKind::NotFound => format!("make the directory first: `mkdir -p {directory}`"),
            _ => "choose a directory that you may write to".to_owned(),
        };
        let message = format!("nothing can be written in `{directory}`");
        Error::new(error::Kind::Storage, message)
            .with_hint(hint)
            .with_source(io::Error::from(source.kind()))
    })
}

/// The error for a path where something else than `wanted` is.
fn taken(path: &Path, wanted: &str) -> Error {
    let message = format!("`{}` exists and is not {wanted}", path.display());
    Error::new(error::Kind::Storage, message)
        .with_hint("choose another path, or remove what is there")
}
