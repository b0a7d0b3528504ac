//! OCI image layouts, as a directory or in an archive (image-spec `image-layout.md`).
//!
//! Blobs are copied into the store and verified on the way. They are not hard links: whoever changed
//! the layout in place later would change the store. No link in a layout is followed out of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use super::archive::{Archive, Pass, read_fully};
use super::error::OtherPlatform;
use super::{document, error};
use crate::confined;
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Descriptor, Index, Platform, REF_NAME};
use crate::progress::{Part, Progress};
use crate::store::{self, BlobWriter, MAX_DOCUMENT, Store};

/// The file that makes a directory a layout.
const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
const KIND: &str = "an OCI image layout";

/// An OCI image layout.
#[derive(Debug)]
pub enum Layout {
    /// A folder.
    Dir(PathBuf),
    /// A tar file.
    Archive(Archive),
}

/// Brings the image `tag`, or the only one, into the store, and gives its manifest.
pub(super) fn import(
    name: &str,
    layout: &Layout,
    tag: Option<&str>,
    platform: &Platform,
    store: &Store,
    progress: &Progress,
) -> Result<Descriptor, Error> {
    let index = layout.index(name, progress)?;
    let root = pick(layout.path(), &index, tag, platform)?;
    let mut read = |descriptor: &Descriptor| {
        if !store.has(descriptor) {
            let bytes = layout.document(&blob_name(&descriptor.digest), progress)?;
            let mut writer = store.writer()?;
            writer.write_all(&bytes)?;
            complete(
                writer,
                descriptor,
                layout.path(),
                &blob_name(&descriptor.digest),
            )?;
        }
        Ok(store.read(descriptor)?)
    };
    let (manifest, document) = document::choose(name, root, platform, &mut read)?;
    if document.config.size > MAX_DOCUMENT {
        return Err(error::document(name, "config", &"it is larger than 4 MiB"));
    }
    // The config tells before all the layers whether they are of use.
    let config = document::parse_config(name, &read(&document.config)?, Some(platform))?;
    document::layers(name, &document.layers, &config.diff_ids)?;
    layout.bring(&document.layers, store, progress)?;
    Ok(manifest)
}

/// The entry with the tag; without one, the only entry, or the one for the platform if none is named.
pub(super) fn pick<'a>(
    path: &Path,
    index: &'a Index,
    tag: Option<&str>,
    platform: &Platform,
) -> Result<&'a Descriptor, Error> {
    let name_of = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
    let mut tags: Vec<String> = index.manifests.iter().filter_map(name_of).collect();
    tags.sort();
    tags.dedup();
    let entries: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|entry| tag.is_none() || name_of(entry).as_deref() == tag)
        .collect();
    match (&entries[..], tag) {
        ([], Some(tag)) => Err(error::no_tag(path, tag, &tags)),
        ([], None) => Err(error::incomplete(path, "an image")),
        ([only], _) => Ok(only),
        // One name for several platforms, or an index of platforms without any name.
        (several, _) if tag.is_some() || tags.is_empty() => {
            let first = several[0];
            let fitting: Vec<Descriptor> = several.iter().map(|entry| (*entry).clone()).collect();
            match document::best(&fitting, platform) {
                Some(best) => Ok(several
                    .iter()
                    .find(|entry| **entry == best)
                    .unwrap_or(&first)),
                None if several.iter().all(|entry| entry.digest == first.digest) => Ok(first),
                None => {
                    let found = several
                        .iter()
                        .filter_map(|entry| entry.platform.clone())
                        .collect::<Vec<_>>();
                    if found.is_empty() {
                        return Err(error::several_images(path, &tags));
                    }
                    Err(OtherPlatform {
                        name: path.display().to_string(),
                        wanted: platform.clone(),
                        found,
                    }
                    .into())
                }
            }
        }
        (several, _)
            if several
                .iter()
                .all(|entry| entry.digest == several[0].digest) =>
        {
            Ok(several[0])
        }
        _ => Err(error::several_images(path, &tags)),
    }
}

impl Layout {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Dir(path) => path,
            Self::Archive(archive) => archive.path(),
        }
    }

    fn has(&self, entry: &str, progress: &Progress) -> Result<bool, Error> {
        match self {
            Self::Dir(path) => {
                fs_err::metadata(path)?;
                Ok(open(path, entry)?.is_some())
            }
            Self::Archive(archive) => Ok(archive.document(entry, progress)?.is_some()),
        }
    }

    /// What a layout names; `name` is for people.
    pub fn index(&self, name: &str, progress: &Progress) -> Result<Index, Error> {
        for entry in [MARKER, INDEX] {
            if !self.has(entry, progress)? {
                return Err(error::kind(self.path(), KIND, entry));
            }
        }
        document::parse_index(name, &self.document(INDEX, progress)?)
    }

    /// A whole document.
    pub(super) fn document(&self, entry: &str, progress: &Progress) -> Result<Vec<u8>, Error> {
        let absent = || error::incomplete(self.path(), entry);
        match self {
            Self::Archive(archive) => archive.document(entry, progress)?.ok_or_else(absent),
            Self::Dir(path) => {
                let file = open(path, entry)?.ok_or_else(absent)?;
                let mut bytes = Vec::new();
                file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
                if bytes.len() as u64 > MAX_DOCUMENT {
                    return Err(error::too_large(path, entry));
                }
                Ok(bytes)
            }
        }
    }

    /// A whole document by its digest, verified.
    pub fn blob(&self, blob: &Descriptor, progress: &Progress) -> Result<Vec<u8>, Error> {
        let entry = blob_name(&blob.digest);
        let bytes = self.document(&entry, progress)?;
        let (found, expected) = (Digest::of(&bytes), blob.digest);
        if found != expected {
            let source = store::Error::Damaged { expected, found };
            return Err(error::damaged(self.path(), &entry, source));
        }
        Ok(bytes)
    }

    /// Copies those of the blobs into the store that it lacks.
    pub fn bring(
        &self,
        blobs: &[Descriptor],
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        let missing = blobs.iter().filter(|blob| !store.has(blob));
        let mut missing: HashMap<String, &Descriptor> = missing
            .map(|blob| (blob_name(&blob.digest), blob))
            .collect();
        match self {
            Self::Dir(path) => {
                for (entry, blob) in missing.drain() {
                    let absent = || error::incomplete(path, &entry);
                    let mut file = open(path, &entry)?.ok_or_else(absent)?;
                    self.copy_blob(&mut file, blob, store, progress)?;
                }
            }
            Self::Archive(archive) if !missing.is_empty() => {
                archive.pass(progress, &mut |entry| {
                    if entry.link.is_some() {
                        return Ok(Pass::GoesOn);
                    }
                    let Some(blob) = missing.remove(entry.name) else {
                        return Ok(Pass::GoesOn);
                    };
                    self.copy_blob(entry.content, blob, store, progress)?;
                    Ok(if missing.is_empty() {
                        Pass::Ends
                    } else {
                        Pass::GoesOn
                    })
                })?;
            }
            Self::Archive(_) => {}
        }
        match missing.into_keys().next() {
            Some(entry) => Err(error::incomplete(self.path(), &entry)),
            None => Ok(()),
        }
    }

    fn copy_blob(
        &self,
        from: &mut dyn Read,
        blob: &Descriptor,
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        let label = format!("layer `sha256:{}`", &blob.digest.hex()[..12]);
        let part = progress.transfer(label, Some(blob.size));
        let mut writer = store.writer()?;
        let mut unreadable = |source: io::Error| match self {
            Self::Dir(_) => source.into(),
            Self::Archive(archive) => archive.broken(source),
        };
        // One byte more than promised shows that there is more.
        let mut from = from.take(blob.size.saturating_add(1));
        copy(&mut from, &mut writer, &part, progress, &mut unreadable)?;
        complete(writer, blob, self.path(), &blob_name(&blob.digest))?;
        part.finish("");
        Ok(())
    }
}

pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Opens a regular file of the layout in a folder; anything else counts as absent.
pub(super) fn open(root: &Path, entry: &str) -> Result<Option<File>, Error> {
    let path = root.join(entry);
    match confined::file(root, Path::new(entry)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let reason = format!("failed to open file `{}`: {error}", path.display());
            Err(io::Error::new(error.kind(), reason).into())
        }
        Err(_) if path.is_file() => {
            let root = root.display();
            let message = format!(
                "`{entry}` in `{root}` is a link to a file outside of it, which is not read"
            );
            Err(error::base(message).with_hint(format!(
                "if you trust what the link names, copy it in: `cp -rL {root} COPY`"
            )))
        }
        Err(_) => Ok(None),
    }
}

/// Makes a blob visible, unless its bytes are not what the layout says.
pub(super) fn complete(
    writer: BlobWriter,
    blob: &Descriptor,
    path: &Path,
    entry: &str,
) -> Result<(), Error> {
    writer.complete_as(blob).map_err(|error| match error {
        store::Error::Damaged { .. } | store::Error::Size { .. } => {
            error::damaged(path, entry, error)
        }
        other => other.into(),
    })
}

/// Copies to the end, and tells about it now and then.
pub(super) fn copy(
    from: &mut dyn Read,
    to: &mut dyn io::Write,
    part: &Part,
    progress: &Progress,
    unreadable: &mut dyn FnMut(io::Error) -> Error,
) -> Result<u64, Error> {
    let mut buffer = vec![0; 1 << 17];
    let (mut done, mut told) = (0, 0);
    loop {
        progress.check()?;
        let length = read_fully(from, &mut buffer).map_err(&mut *unreadable)?;
        if length == 0 {
            return Ok(done);
        }
        to.write_all(&buffer[..length]).map_err(store::Error::Io)?;
        done += length as u64;
        if done - told >= 1 << 22 {
            told = done;
            part.advance(done);
        }
    }
}
