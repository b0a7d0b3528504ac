//! A base from a registry: what the store knows, when the registry is asked, what is then fetched.

use std::time::Duration;

use super::{Base, Layers, Pull, document, error, load};
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Descriptor, Manifest, Platform};
use crate::progress::Progress;
use crate::registry::{self, Client, Reference};
use crate::store::{MAX_DOCUMENT, Store};

/// How long a registry's word about a tag counts.
const FRESH: Duration = Duration::from_secs(60 * 60);

pub(super) fn pull(
    reference: &Reference,
    platform: &Platform,
    pull: Pull,
    layers: Layers,
    client: &Client,
    store: &Store,
    progress: &Progress,
) -> Result<Base, Error> {
    let name = reference.to_string();
    // Nothing is fetched later that is to be had without a registry.
    let layers = if pull == Pull::Never {
        Layers::Now
    } else {
        layers
    };
    let known = match known(reference, &name, platform, layers, store) {
        Ok((base, age)) => {
            let is_enough = match pull {
                Pull::Missing | Pull::Never => true,
                Pull::Default => age < FRESH,
                Pull::Always => false,
            };
            // A digest names the same image forever.
            if is_enough || reference.digest().is_some() {
                return Ok(base);
            }
            Some(base)
        }
        Err(missing) if pull == Pull::Never => {
            let missing = missing.map_or_else(String::new, |missing| format!(": {missing}"));
            return Err(error::base(format!("`{name}` is not in the store{missing}")).with_hint(
                "leave out `--offline` and `--pull never` once, so that it is pulled, or give a local base such as `--base oci:DIR`",
            ));
        }
        Err(_) => None,
    };
    let part = progress.start(format!("pull `{name}`"));
    let remote = Remote {
        name: &name,
        reference,
        layers,
        client,
        store,
        progress,
    };
    match (remote.fetch(platform, known.is_some()), known) {
        (Ok(base), _) => {
            part.finish(base.outcome());
            Ok(base)
        }
        (Err(error), known) => {
            let source = error.find::<registry::Error>();
            let source = source.filter(|source| source.is_unreachable());
            let (Pull::Default, Some(source), Some(base)) = (pull, source, known) else {
                return Err(error);
            };
            progress.warn(format!(
                "`{name}` is taken from the store, since the registry did not answer: {source}"
            ));
            part.finish("as stored");
            Ok(base)
        }
    }
}

/// The base as the store has it, and how old the registry's word is; else what is missing, if
/// anything is there.
fn known(
    reference: &Reference,
    name: &str,
    platform: &Platform,
    layers: Layers,
    store: &Store,
) -> Result<(Base, Duration), Option<String>> {
    let (manifest, age) = match (store.resolved(name, platform), reference.digest()) {
        (Some(resolved), _) => {
            let age = resolved.age();
            (resolved.manifest, age)
        }
        (None, Some(digest)) => (
            stored(digest, name, platform, store).ok_or(None)?,
            Duration::ZERO,
        ),
        (None, None) => return Err(None),
    };
    let document: Manifest = store
        .read_json(&manifest)
        .map_err(|_| Some(format!("its manifest `{}` is gone", manifest.digest)))?;
    let needed = match layers {
        Layers::Now => &document.layers[..],
        Layers::Later => &[],
    };
    let absent: Vec<&Descriptor> = needed
        .iter()
        .chain([&document.config])
        .filter(|blob| !store.has(blob))
        .collect();
    if let Some(first) = absent.first() {
        let count = absent.len();
        return Err(Some(format!(
            "{count} of its blobs are missing, such as `{}`",
            first.digest
        )));
    }
    let base = load(name, &manifest, platform, store).map_err(|error| Some(error.to_string()))?;
    Ok((base, age))
}

/// The manifest that a digest leads to by the store's documents alone.
fn stored(digest: Digest, name: &str, platform: &Platform, store: &Store) -> Option<Descriptor> {
    let size = fs_err::metadata(store.blob_path(&digest)).ok()?.len();
    let root = Descriptor::new("", digest, size);
    let mut read = |descriptor: &Descriptor| Ok(store.read(descriptor)?);
    document::choose(name, &root, platform, &mut read)
        .ok()
        .map(|(manifest, _)| manifest)
}

struct Remote<'a> {
    name: &'a str,
    reference: &'a Reference,
    layers: Layers,
    client: &'a Client,
    store: &'a Store,
    progress: &'a Progress,
}

impl Remote<'_> {
    fn fetch(&self, platform: &Platform, is_known: bool) -> Result<Base, Error> {
        // HEAD pays only where it may save the rest; otherwise it is one more round trip.
        let head = if is_known {
            self.client
                .head(self.reference, self.progress)
                .map_err(|error| self.failed(error))?
        } else {
            None
        };
        let root = match head {
            Some(root) if self.store.has(&root) => root,
            head => self.document(head.map(|root| root.digest))?,
        };
        let mut read = |descriptor: &Descriptor| self.read(descriptor);
        let (manifest, document) = document::choose(self.name, &root, platform, &mut read)?;
        if document.config.size > MAX_DOCUMENT {
            return Err(error::document(
                self.name,
                "config",
                &"it is larger than 4 MiB",
            ));
        }
        // The config comes first: it tells before all the layers whether they are of use.
        self.blobs(std::slice::from_ref(&document.config))?;
        let config = document::parse_config(
            self.name,
            &self.store.read(&document.config)?,
            Some(platform),
        )?;
        document::layers(self.name, &document.layers, &config.diff_ids)?;
        match self.layers {
            Layers::Now => self.blobs(&document.layers)?,
            Layers::Later => {
                for layer in &document.layers {
                    self.store.saw(&layer.digest, &self.reference.place())?;
                }
            }
        }
        self.store.remember(self.name, platform, &manifest)?;
        load(self.name, &manifest, platform, self.store)
    }

    /// The document `descriptor`, from the store if it is there.
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        if !self.store.has(descriptor) {
            let stored = self.document(Some(descriptor.digest))?;
            if stored.size != descriptor.size {
                let reason = format!("it names `{}` with the wrong size", descriptor.digest);
                return Err(error::document(self.name, "index", &reason));
            }
        }
        Ok(self.store.read(descriptor)?)
    }

    /// Fetches a document into the store.
    fn document(&self, digest: Option<Digest>) -> Result<Descriptor, Error> {
        let document = self
            .client
            .document(self.reference, digest, self.progress)
            .map_err(|error| self.failed(error))?;
        Ok(self.store.put(&document.media_type, &document.bytes)?)
    }

    fn blobs(&self, blobs: &[Descriptor]) -> Result<(), Error> {
        self.client
            .fetch(self.reference, blobs, self.store, self.progress)
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, error: registry::Error) -> Error {
        error::pull(format!("failed to pull `{}`", self.name), error)
    }
}
