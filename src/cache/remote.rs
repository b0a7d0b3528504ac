//! The cache in a registry: entries are OCI artifacts in one repository, tagged by their keys, whose only layer is the
//! step's own blob. So what is found there is mounted by a push, and fetched only where it is needed.
//!
//! Whoever may write to the repository can have any layer taken for a step's, unless entries have to be signed with a
//! key that only trusted builds have ([`Remote::signed`]).

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ring::hmac;

use super::Entry;
use crate::digest::{DiffId, Digest};
use crate::manifest::{Descriptor, Layer, Manifest, media_type};
use crate::progress::Progress;
use crate::registry::{self, Blob, Client, Content, Reference};
use crate::store::{self, Store};

/// Annotations of an entry.
const NAME: &str = "org.opencontainers.image.title";
const DIFF_ID: &str = "io.github.pyats-image-build.diff-id";
const AT: &str = "io.github.pyats-image-build.created";
const SIGNATURE: &str = "io.github.pyats-image-build.signature";

/// What is done with the cache in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Entries are looked for, and what steps make is put there.
    #[default]
    Both,
    /// They are looked for.
    Read,
    /// What steps make is put there.
    Write,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "both" => Ok(Self::Both),
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            _ => Err("use `both`, `read` or `write`".to_owned()),
        }
    }
}

/// A repository that holds entries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Remote<'a> {
    client: &'a Client,
    repository: String,
    mode: Mode,
    key: Option<hmac::Key>,
    /// Set once it failed: nobody waits for it a second time.
    is_down: Arc<AtomicBool>,
}

impl<'a> Remote<'a> {
    /// The entries in the repository of a reference.
    #[must_use]
    pub fn new(client: &'a Client, repository: &Reference, mode: Mode) -> Self {
        Self {
            client,
            repository: repository.place(),
            mode,
            key: None,
            is_down: Arc::default(),
        }
    }

    /// The same, with entries that are signed with a key: others are not used.
    #[must_use]
    pub fn signed(mut self, key: &[u8]) -> Self {
        self.key = Some(hmac::Key::new(hmac::HMAC_SHA256, key));
        self
    }

    /// The entry of a key, if there is one that is to be used.
    pub(super) fn find(&self, key: &Digest, store: &Store, progress: &Progress) -> Option<Entry> {
        if self.mode == Mode::Write || self.is_down() {
            return None;
        }
        let reference = self.reference(key)?;
        let document = match self.client.document(&reference, None, progress) {
            Ok(document) => document,
            Err(error) if error.is_absent() => return None,
            Err(error) => {
                self.fails(&error, progress);
                return None;
            }
        };
        let manifest: Manifest = serde_json::from_slice(&document.bytes).ok()?;
        let entry = self.read(key, &manifest);
        if entry.is_none() {
            progress.warn(format!(
                "`{reference}` is no entry of a cache that is to be trusted"
            ));
        }
        let entry = entry?;
        if let Some(layer) = &entry.layer {
            let _ = store.saw(&layer.descriptor.digest, &self.repository);
        }
        Some(entry)
    }

    /// Puts an entry there.
    pub(super) fn put(&self, key: &Digest, entry: &Entry, store: &Store, progress: &Progress) {
        if self.mode == Mode::Read || self.is_down() {
            return;
        }
        let Some(reference) = self.reference(key) else {
            return;
        };
        let put = self.write(key, entry, store).and_then(|content| {
            self.client
                .push(&content, &reference, store, &Progress::silent())
        });
        if let Err(error) = put {
            self.fails(&error, progress);
        }
    }

    fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    fn fails(&self, error: &registry::Error, progress: &Progress) {
        self.is_down.store(true, Ordering::Relaxed);
        let repository = &self.repository;
        progress.warn(format!(
            "the cache in `{repository}` is not used any more: {error}"
        ));
    }

    fn reference(&self, key: &Digest) -> Option<Reference> {
        format!("{}:{}", self.repository, key.hex()).parse().ok()
    }

    fn read(&self, key: &Digest, manifest: &Manifest) -> Option<Entry> {
        let annotation = |name: &str| manifest.annotations.get(name);
        let layer = match &manifest.layers[..] {
            [] => None,
            [descriptor] => Some(Layer {
                descriptor: descriptor.clone(),
                diff_id: DiffId(annotation(DIFF_ID)?.parse().ok()?),
            }),
            _ => return None,
        };
        let entry = Entry {
            name: annotation(NAME)?.clone(),
            layer,
            at: annotation(AT)?.parse().ok()?,
        };
        if let Some(own) = &self.key {
            let signature = hex::decode(annotation(SIGNATURE)?).ok()?;
            hmac::verify(own, &words(key, &entry), &signature).ok()?;
        }
        Some(entry)
    }

    fn write(
        &self,
        key: &Digest,
        entry: &Entry,
        store: &Store,
    ) -> Result<Content, registry::Error> {
        let mut annotations = BTreeMap::from([
            (NAME.to_owned(), entry.name.clone()),
            (AT.to_owned(), entry.at.to_string()),
        ]);
        if let Some(layer) = &entry.layer {
            annotations.insert(DIFF_ID.to_owned(), layer.diff_id.to_string());
        }
        if let Some(own) = &self.key {
            let signature = hmac::sign(own, &words(key, entry));
            annotations.insert(SIGNATURE.to_owned(), hex::encode(signature));
        }
        let config = store.put("application/vnd.oci.empty.v1+json", b"{}")?;
        let layers = entry.layer.iter().map(|layer| &layer.descriptor);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: config.clone(),
            layers: layers.clone().cloned().collect(),
            annotations,
        };
        let bytes = store::json(&manifest);
        let descriptor = Descriptor::new(
            media_type::OCI_MANIFEST,
            Digest::of(&bytes),
            bytes.len() as u64,
        );
        Ok(Content {
            documents: vec![(descriptor, bytes)],
            blobs: layers
                .chain([&config])
                .map(|blob| Blob::stored(blob, store))
                .collect(),
        })
    }
}

/// What is signed: all that is taken from an entry, and the key that it is for.
fn words(key: &Digest, entry: &Entry) -> Vec<u8> {
    store::json(&("pyats-image-build step", key, entry))
}
