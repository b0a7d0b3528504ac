//! An image leaves the store: as an OCI layout, an OCI archive or a Docker archive.
//!
//! Whatever is there already is replaced only if it is of the same kind, and only by a rename when the
//! new one is complete. Follows the OCI image specification, `image-layout.md`, and the format of
//! `docker save`.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fs_err as fs;
use rustix::fs::FlockOperation;

use crate::image::Image;
use crate::manifest::{Descriptor, Index, Layer};
use crate::progress::{Cancelled, Progress};
use crate::store::{self, Store};

/// The annotation by which containerd and BuildKit keep the full reference in a layout.
const IMAGE_NAME: &str = "io.containerd.image.name";

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
    let taken = |wanted| {
        Err(Error::Taken {
            path: path.to_owned(),
            wanted,
        })
    };
    match fs::symlink_metadata(path) {
        Ok(_) => match kind {
            Kind::OciDir if !path.is_dir() => return taken("a folder"),
            Kind::OciDir if !is_layout(path)? => return taken("an OCI image layout"),
            Kind::OciArchive if !is_archive(path, &["oci-layout", "index.json"]) => {
                return taken("an OCI archive");
            }
            Kind::DockerArchive if !is_archive(path, &["manifest.json"]) => {
                return taken("a Docker archive");
            }
            _ => {}
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let directory = if kind == Kind::OciDir && path.is_dir() {
        path
    } else {
        parent(path)
    };
    let probe = tempfile::Builder::new()
        .prefix(PREFIX)
        .tempfile_in(directory);
    probe.map_err(|source| Error::Directory {
        directory: directory.to_owned(),
        source,
    })?;
    Ok(())
}

fn is_layout(path: &Path) -> Result<bool, Error> {
    Ok(path.join("oci-layout").is_file() || fs::read_dir(path)?.next().is_none())
}

/// Whether the file is a tar that holds one of `names` at its top.
fn is_archive(path: &Path, names: &[&str]) -> bool {
    let Ok(file) = fs::File::open(path) else {
        return false;
    };
    let mut archive = tar::Archive::new(file);
    let Ok(entries) = archive.entries() else {
        return false;
    };
    entries.take_while(Result::is_ok).flatten().any(|entry| {
        entry
            .path()
            .is_ok_and(|path| names.iter().any(|name| path == Path::new(name)))
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
    sweep(path);
    let part = progress.start(format!("write {kind} `{}`", path.display()));
    match kind {
        Kind::OciDir => write_layout(image, references, path, store, progress)?,
        Kind::OciArchive => write_archive(path, |tar| {
            oci_entries(image, references, store, tar, progress)
        })?,
        Kind::DockerArchive => {
            write_archive(path, |tar| {
                docker_entries(image, references, store, tar, progress)
            })?;
        }
    }
    part.finish(String::new());
    Ok(())
}

/// Replaces the small file at `path`, at once or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_file(path, |file| Ok(file.write_all(bytes)?))
}

fn write_layout(
    image: &Image,
    references: &[String],
    path: &Path,
    store: &Store,
    progress: &Progress,
) -> Result<(), Error> {
    if path.is_dir() && fs::read_dir(path)?.next().is_some() {
        return fill_layout(image, references, path, store, progress);
    }
    let fresh = tempfile::Builder::new()
        .prefix(PREFIX)
        .tempdir_in(parent(path))?;
    let held = fs::File::open(fresh.path())?;
    lock(&held)?;
    fill_layout(image, references, fresh.path(), store, progress)?;
    let mode = 0o777 & !umask();
    fs::set_permissions(
        fresh.path(),
        std::os::unix::fs::PermissionsExt::from_mode(mode),
    )?;
    // An empty folder is replaced by a rename; anything else was refused before.
    fs::rename(fresh.path(), path)?;
    let _ = fresh.keep();
    Ok(())
}

fn fill_layout(
    image: &Image,
    references: &[String],
    path: &Path,
    store: &Store,
    progress: &Progress,
) -> Result<(), Error> {
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    for descriptor in blobs_of(image) {
        progress.check()?;
        let target = blobs.join(descriptor.digest.hex());
        if fs::metadata(&target).is_ok_and(|metadata| metadata.len() == descriptor.size) {
            continue;
        }
        write_file(&target, |file| {
            io::copy(&mut store.open_blob(descriptor)?, file)?;
            Ok(())
        })?;
    }
    write_file(&path.join("oci-layout"), |file| Ok(file.write_all(LAYOUT)?))?;
    let index_path = path.join("index.json");
    let mut index: Index = match fs::read(&index_path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| store::Error::Json {
            path: index_path.display().to_string(),
            source,
        })?,
        Err(_) => Index::empty(),
    };
    add(&mut index, image, references);
    write_file(
        &index_path,
        |file| Ok(file.write_all(&store::json(&index))?),
    )
}

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Enters the image under each tag, as containerd and BuildKit do: the tag alone in the specification's
/// annotation, the full reference beside it.
fn add(index: &mut Index, image: &Image, references: &[String]) {
    if references.is_empty() {
        store::tag_in(index, &image.manifest, None);
    }
    for reference in references {
        let tag = reference
            .rsplit_once(':')
            .map_or(reference.as_str(), |(_, tag)| tag);
        store::tag_in(index, &image.manifest, Some(tag));
        if let Some(entry) = index.manifests.last_mut() {
            entry
                .annotations
                .insert(IMAGE_NAME.to_owned(), reference.clone());
        }
    }
}

fn blobs_of(image: &Image) -> impl Iterator<Item = &Descriptor> {
    let layers = image.layers.iter().map(|layer| &layer.descriptor);
    layers.chain([&image.config_descriptor, &image.manifest])
}

fn oci_entries(
    image: &Image,
    references: &[String],
    store: &Store,
    tar: &mut Tar<'_>,
    progress: &Progress,
) -> Result<(), Error> {
    tar.bytes("oci-layout", LAYOUT)?;
    let mut index = Index::empty();
    add(&mut index, image, references);
    tar.bytes("index.json", &store::json(&index))?;
    let mut written = std::collections::BTreeSet::new();
    for descriptor in blobs_of(image) {
        progress.check()?;
        if written.insert(descriptor.digest) {
            tar.blob(
                &format!("blobs/sha256/{}", descriptor.digest.hex()),
                descriptor,
                store,
            )?;
        }
    }
    Ok(())
}

fn docker_entries(
    image: &Image,
    references: &[String],
    store: &Store,
    tar: &mut Tar<'_>,
    progress: &Progress,
) -> Result<(), Error> {
    let config = format!("{}.json", image.config_descriptor.digest.hex());
    let name = |layer: &Layer| format!("{}.tar", layer.descriptor.digest.hex());
    let manifest = serde_json::json!([{
        "Config": config,
        "RepoTags": references,
        "Layers": image.layers.iter().map(name).collect::<Vec<_>>(),
    }]);
    tar.bytes("manifest.json", &store::json(&manifest))?;
    tar.blob(&config, &image.config_descriptor, store)?;
    let mut written = std::collections::BTreeSet::new();
    for layer in &image.layers {
        progress.check()?;
        if written.insert(layer.descriptor.digest) {
            tar.blob(&name(layer), &layer.descriptor, store)?;
        }
    }
    Ok(())
}

struct Tar<'a>(tar::Builder<&'a mut dyn Write>);

impl Tar<'_> {
    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.entry(name, bytes.len() as u64, bytes)
    }

    fn blob(&mut self, name: &str, descriptor: &Descriptor, store: &Store) -> Result<(), Error> {
        let mut reader = store.open_blob(descriptor)?;
        self.entry(name, descriptor.size, &mut reader)?;
        // The reader verifies when it meets the end of the blob.
        io::copy(&mut reader, &mut io::sink())?;
        Ok(())
    }

    fn entry(&mut self, name: &str, size: u64, content: impl Read) -> Result<(), Error> {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        Ok(self.0.append_data(&mut header, name, content)?)
    }
}

fn write_archive(
    path: &Path,
    fill: impl FnOnce(&mut Tar<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    write_file(path, |file| {
        let mut buffered = io::BufWriter::with_capacity(1 << 18, file);
        let mut tar = Tar(tar::Builder::new(&mut buffered));
        fill(&mut tar)?;
        tar.0.finish()?;
        drop(tar);
        Ok(buffered.flush()?)
    })
}

/// Writes a file beside `path` and renames it when it is complete.
fn write_file(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    let mode = 0o666 & !umask();
    let mut file = tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        .tempfile_in(parent(path))?;
    lock(file.as_file())?;
    content(&mut file)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o022)
}

/// What temporary neighbours of outputs are called. They are locked as long as they are written, so that
/// the next build can tell which ones a killed one left behind.
const PREFIX: &str = ".pyats-image-build-";

fn lock(file: impl std::os::fd::AsFd) -> io::Result<()> {
    Ok(rustix::fs::flock(
        file,
        FlockOperation::NonBlockingLockExclusive,
    )?)
}

/// Removes what a killed build left beside `path`, or in it.
fn sweep(path: &Path) {
    for directory in [
        parent(path).to_owned(),
        path.to_owned(),
        path.join("blobs/sha256"),
    ] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let left = entry.path();
            let named = entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PREFIX.as_bytes());
            if !named || !fs::File::open(&left).is_ok_and(|file| lock(file).is_ok()) {
                continue;
            }
            let _ = if left.is_dir() {
                fs::remove_dir_all(left)
            } else {
                fs::remove_file(left)
            };
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
