//! The cache in a registry: entries are artifacts in one repository, tagged by their keys. A layer that is found there is
//! mounted by a push, and fetched only where it is needed.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Entry;
use super::artifact::{EMPTY, Seal};
use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest, media_type};
use crate::net::Timing;
use crate::progress::Progress;
use crate::registry::{self, Blob, Client, Content, Reference};
use crate::store::{self, Store};

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
pub struct Remote {
    client: Arc<Client>,
    repository: String,
    mode: Mode,
    seal: Seal,
    /// Set once it failed: nobody waits for it a second time.
    is_down: Arc<AtomicBool>,
}

/// A cache is worth no long wait: what it would give can be made.
pub const TIMING: Timing = Timing {
    connect: Duration::from_secs(5),
    stall: Duration::from_secs(15),
    backoff: Duration::from_millis(200),
    pause: Duration::from_secs(5),
    attempts: 2,
};

impl Remote {
    /// The entries in the repository of a reference. The client's patience should be [`TIMING`].
    #[must_use]
    pub fn new(client: Client, repository: &Reference, mode: Mode, seal: Seal) -> Self {
        Self {
            client: Arc::new(client),
            repository: repository.place(),
            mode,
            seal,
            is_down: Arc::default(),
        }
    }

    /// How its entries are signed.
    pub(super) fn seal(&self) -> &Seal {
        &self.seal
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
        let entry = self.seal.read(key, &manifest);
        if entry.is_none() {
            progress.warn(format!(
                "`{reference}` is no entry of a cache that is to be trusted"
            ));
        }
        let entry = entry?;
        if let Some(layer) = &entry.layer {
            let _ = store.saw(&layer.descriptor.digest, &self.repository);
        }
        let _ = store.saw(key, &self.mark());
        Some(entry)
    }

    /// Whether an entry was seen there, or put there, signed as it has to be.
    pub(super) fn has_seen(&self, key: &Digest, store: &Store) -> bool {
        store.seen(key).contains(&self.mark())
    }

    /// What the store remembers of an entry that is there.
    fn mark(&self) -> String {
        match self.seal.key_id() {
            Some(id) => format!("{} signed with {id}", self.repository),
            None => self.repository.clone(),
        }
    }

    /// Puts an entry there.
    pub(super) fn put(&self, key: &Digest, entry: &Entry, store: &Store, progress: &Progress) {
        if self.mode == Mode::Read || self.is_down() {
            return;
        }
        let Some(reference) = self.reference(key) else {
            return;
        };
        let content = self.content(key, entry, store);
        let put = content.map_err(registry::Error::from).and_then(|content| {
            let silent = Progress::silent();
            self.client.push(&content, &reference, store, &silent)
        });
        match put {
            Ok(()) => drop(store.saw(key, &self.mark())),
            Err(error) => self.fails(&error, progress),
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

    fn content(&self, key: &Digest, entry: &Entry, store: &Store) -> Result<Content, store::Error> {
        let manifest = self.seal.write(key, entry);
        store.put(&manifest.config.media_type, EMPTY)?;
        let bytes = store::json(&manifest);
        let descriptor = Descriptor::new(
            media_type::OCI_MANIFEST,
            Digest::of(&bytes),
            bytes.len() as u64,
        );
        let blobs = manifest.layers.iter().chain([&manifest.config]);
        Ok(Content {
            blobs: blobs.map(|blob| Blob::stored(blob, store)).collect(),
            documents: vec![(descriptor, bytes)],
        })
    }
}
