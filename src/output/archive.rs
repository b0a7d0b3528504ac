//! Tar files: OCI archives and what `docker load` reads.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::path::Path;

use fs_err as fs;

use super::file::write_file;
use super::layout::{LAYOUT, add, blobs_of};
use super::{is_stdout, is_stream};
use crate::error::Error;
use crate::image::Image;
use crate::manifest::{Descriptor, Index, Layer};
use crate::progress::Progress;
use crate::store::{self, Store};

/// Whether the file is a tar that holds one of `names` at its top.
pub(super) fn is_archive(path: &Path, names: &[&str]) -> bool {
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

/// Fills an OCI archive.
pub(super) fn oci_entries(
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
    let mut written = BTreeSet::new();
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

/// Fills a Docker archive, as `docker save` names things.
pub(super) fn docker_entries(
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
    let mut written = BTreeSet::new();
    for layer in &image.layers {
        progress.check()?;
        if written.insert(layer.descriptor.digest) {
            tar.blob(&name(layer), &layer.descriptor, store)?;
        }
    }
    Ok(())
}

/// Writes regular files into a tar.
pub(super) struct Tar<'a>(tar::Builder<&'a mut dyn Write>);

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

/// Writes an archive at once or not at all, or as a stream.
pub(super) fn write(
    path: &Path,
    fill: impl FnOnce(&mut Tar<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let content = |file: &mut dyn Write| {
        let mut buffered = io::BufWriter::with_capacity(1 << 18, file);
        let mut tar = Tar(tar::Builder::new(&mut buffered));
        fill(&mut tar)?;
        tar.0.finish()?;
        drop(tar);
        Ok(buffered.flush()?)
    };
    if is_stdout(path) {
        // Not what Rust would look for ends of lines in.
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        return content(&mut std::fs::File::from(stdout));
    }
    if is_stream(path) {
        return content(&mut fs::OpenOptions::new().write(true).open(path)?);
    }
    write_file(path, content)
}
