//! An image as it is, for a registry: with all of its platforms, and without a copy of what lies in a folder.

use super::archive::Archive;
use super::layout::{self, Layout, blob_name};
use super::{Source, docker_archive, document, error};
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::manifest::{Descriptor, Platform};
use crate::progress::Progress;
use crate::registry::{Blob, BlobPlace, Content};
use crate::store::{self, MAX_DOCUMENT, Store};

/// Documents of one image at most: an index has one a platform, and some have an attestation each.
const MOST_DOCUMENTS: usize = 256;

/// What a layout or an archive holds under a name. Blobs of archives come into the store.
pub fn content(source: &Source, store: &Store, progress: &Progress) -> Result<Content, Error> {
    read(source, store, progress).map_err(|error| error.or_kind(Kind::Base))
}

fn read(source: &Source, store: &Store, progress: &Progress) -> Result<Content, Error> {
    let name = source.to_string();
    let (layout, tag) = match source {
        Source::OciDir(path, tag) => (Layout::Dir(path.clone()), tag),
        Source::OciArchive(path, tag) => (Layout::Archive(Archive::open(path)?), tag),
        Source::DockerArchive(path, tag) => {
            let archive = Archive::open(path)?;
            let tag = tag.as_deref();
            let manifest = docker_archive::import(&name, &archive, tag, None, store, progress)?;
            return Ok(Content::stored(&manifest, store)?);
        }
        Source::Registry(_) => unreachable!("registries are asked by `pull`"),
    };
    let index = layout.index(&name, progress)?;
    let root = layout::pick(layout.path(), &index, tag.as_deref(), &Platform::host())?;
    let mut found = Found::default();
    found.follow(&name, root, &layout, progress)?;
    let blobs = match &layout {
        Layout::Dir(path) => {
            let place = |descriptor: Descriptor| {
                let entry = blob_name(&descriptor.digest);
                // The registry may have what is missing here.
                layout::open(path, &entry)?;
                Ok(Blob {
                    place: BlobPlace::Layout(path.clone(), entry.into()),
                    descriptor,
                })
            };
            let blobs = found.blobs.into_iter().map(place);
            blobs.collect::<Result<_, Error>>()?
        }
        Layout::Archive(_) => {
            layout.bring(&found.blobs, store, progress)?;
            let stored = |blob: &Descriptor| Blob::stored(blob, store);
            found.blobs.iter().map(stored).collect()
        }
    };
    Ok(Content {
        documents: found.documents,
        blobs,
    })
}

/// What was found so far.
#[derive(Default)]
struct Found {
    documents: Vec<(Descriptor, Vec<u8>)>,
    blobs: Vec<Descriptor>,
}

impl Found {
    /// Reads a document, after those that it names.
    fn follow(
        &mut self,
        name: &str,
        at: &Descriptor,
        layout: &Layout,
        progress: &Progress,
    ) -> Result<(), Error> {
        if self
            .documents
            .iter()
            .any(|(known, _)| known.digest == at.digest)
        {
            return Ok(());
        }
        if self.documents.len() >= MOST_DOCUMENTS {
            return Err(error::document(name, "index", &"it names too many images"));
        }
        if at.size > MAX_DOCUMENT {
            return Err(error::document(
                name,
                "manifest",
                &"it is larger than 4 MiB",
            ));
        }
        let entry = blob_name(&at.digest);
        let bytes = layout.document(&entry, progress)?;
        let found = Digest::of(&bytes);
        if found != at.digest {
            let expected = at.digest;
            let source = store::Error::Damaged { expected, found };
            return Err(error::damaged(layout.path(), &entry, source));
        }
        let media_type = match document::parse(name, &bytes, &at.media_type)? {
            document::Document::Manifest(manifest, media_type) => {
                self.blobs.push(manifest.config);
                self.blobs.extend(manifest.layers);
                media_type.to_owned()
            }
            document::Document::Index(index) => {
                // No document can name itself, so this ends.
                for child in &index.manifests {
                    self.follow(name, child, layout, progress)?;
                }
                index.media_type.unwrap_or_else(|| at.media_type.clone())
            }
        };
        let descriptor = Descriptor::new(&media_type, at.digest, at.size);
        self.documents.push((descriptor, bytes));
        Ok(())
    }
}
