//! A folder that is an OCI image layout.

use std::io;
use std::path::Path;

use fs_err as fs;

use super::Error;
use super::file::{PREFIX, lock, parent, umask, write_file};
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => Index::empty(),
        Err(error) => return Err(error.into()),
    };
    add(&mut index, image, references);
    write_file(
        &index_path,
        |file| Ok(file.write_all(&store::json(&index))?),
    )
}

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
