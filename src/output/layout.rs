//! A folder that is an OCI image layout.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::file::{PREFIX, make_locked, parent, umask, write_file};
use super::taken;
use crate::confined;
use crate::digest::Digest;
use crate::error::Error;
use crate::image::Image;
use crate::manifest::{Descriptor, Index};
use crate::progress::Progress;
use crate::store::{self, Store};

/// The annotation by which containerd and BuildKit keep the full reference in a layout.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Whether `path`, a folder, is a layout or empty.
pub(super) fn is_layout(path: &Path) -> Result<bool, Error> {
    Ok(path.join("oci-layout").is_file() || fs::read_dir(path)?.next().is_none())
}

/// Writes the image into the layout at `path`, which is made if it is not there.
pub(super) fn write(
    image: &Image,
    references: &[String],
    path: &Path,
    store: &Store,
    progress: &Progress,
) -> Result<(), Error> {
    if path.is_dir() && fs::read_dir(path)?.next().is_some() {
        return fill_layout(image, references, path, store, progress);
    }
    let (fresh, _lock) = make_locked(|| {
        tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(parent(path))
    })?;
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
    let mut layout = LayoutWriter::open(path, store)?;
    layout.index = match confined::file(path, Path::new("index.json")) {
        Ok(file) => serde_json::from_reader(io::BufReader::new(file)).map_err(|source| {
            store::Error::Json {
                path: layout.index_path().display().to_string(),
                source,
            }
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Index::empty(),
        Err(error) => return Err(error.into()),
    };
    for descriptor in blobs_of(image) {
        progress.check()?;
        layout.copy(descriptor)?;
    }
    add(&mut layout.index, image, references);
    layout.write_index()
}

/// A layout that is written. What was in it stays until its index is written, which comes last.
#[derive(Debug)]
pub struct LayoutWriter {
    path: PathBuf,
    store: Store,
    index: Index,
    /// The blobs that were put into it, by their names.
    put: BTreeSet<OsString>,
}

impl LayoutWriter {
    /// Begins with an index that names nothing.
    pub fn open(path: &Path, store: &Store) -> Result<Self, Error> {
        // Blobs would be written, and removed, wherever a link leads.
        for folder in ["blobs", BLOBS].map(|name| path.join(name)) {
            if folder.is_symlink() {
                let wanted = "a folder of its own";
                return Err(taken(&folder, wanted));
            }
        }
        fs::create_dir_all(path.join(BLOBS))?;
        write_file(&path.join("oci-layout"), |file| Ok(file.write_all(LAYOUT)?))?;
        Ok(Self {
            path: path.to_owned(),
            store: store.clone(),
            index: Index::empty(),
            put: BTreeSet::new(),
        })
    }

    /// Copies a blob of the store, unless it is there.
    pub fn copy(&mut self, blob: &Descriptor) -> Result<(), Error> {
        let store = self.store.clone();
        self.write(blob, |file| {
            io::copy(&mut store.open_blob(blob)?, file)?;
            Ok(())
        })
    }

    /// Puts a small blob there.
    pub fn put(&mut self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        let blob = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        self.write(&blob, |file| Ok(file.write_all(bytes)?))?;
        Ok(blob)
    }

    /// Has a blob named by the index.
    pub fn enter(&mut self, blob: Descriptor) {
        self.index.manifests.push(blob);
    }

    /// Writes the index, and removes all blobs that were not put there.
    pub fn complete(self) -> Result<(), Error> {
        self.write_index()?;
        let is_blob = |name: &OsStr| name.to_str().is_some_and(is_digest);
        for entry in fs::read_dir(self.path.join(BLOBS))? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_file() && is_blob(&name) && !self.put.contains(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        blob: &Descriptor,
        content: impl FnOnce(&mut dyn io::Write) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let name = blob.digest.hex();
        let target = self.path.join(BLOBS).join(&name);
        self.put.insert(name.into());
        let is_there =
            |metadata: std::fs::Metadata| metadata.is_file() && metadata.len() == blob.size;
        if fs::symlink_metadata(&target).is_ok_and(is_there) {
            return Ok(());
        }
        write_file(&target, content)
    }

    fn index_path(&self) -> PathBuf {
        self.path.join("index.json")
    }

    fn write_index(&self) -> Result<(), Error> {
        write_file(&self.index_path(), |file| {
            Ok(file.write_all(&store::json(&self.index))?)
        })
    }
}

/// Whether a name is that of a blob.
fn is_digest(name: &str) -> bool {
    format!("sha256:{name}").parse::<Digest>().is_ok()
}

/// Where the blobs of a layout are.
const BLOBS: &str = "blobs/sha256";

/// The marker file of a layout.
pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Enters the image under each tag, as containerd and BuildKit do: the tag alone in the specification's
/// annotation, the full reference beside it.
pub(super) fn add(index: &mut Index, image: &Image, references: &[String]) {
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

/// Every blob of an image, the manifest last.
pub(super) fn blobs_of(image: &Image) -> impl Iterator<Item = &Descriptor> {
    let layers = image.layers.iter().map(|layer| &layer.descriptor);
    layers.chain([&image.config_descriptor, &image.manifest])
}
