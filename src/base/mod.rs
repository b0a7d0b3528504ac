//! A source and a platform become a [`Base`]: manifest, config and layers in the store.
//!
//! Wherever an image comes from, it ends as an OCI (or Docker schema 2) manifest in the store, and
//! `load` makes the value out of that alone.

mod archive;
mod content;
mod docker_archive;
pub(crate) mod document;
mod error;
mod layout;
mod remote;
mod source;
#[cfg(test)]
pub(crate) mod tests;

use crate::error::{Error, Kind};
use crate::manifest::{Descriptor, Layer, Manifest, Platform};
use crate::progress::Progress;
use crate::registry;
use crate::store::Store;

pub use archive::Archive;
pub use content::content;
pub(crate) use error::OtherPlatform;
pub use layout::Layout;
pub use source::{InvalidPull, InvalidSource, Pull, Source};

/// When layers of a registry are brought into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// With the base.
    Now,
    /// By [`bring`], if they are needed.
    Later,
}

/// An image to build upon, with its documents in the store.
#[derive(Debug, Clone)]
pub struct Base {
    /// What the user would call it, such as `docker.io/library/python:3.11-slim`.
    pub name: String,
    /// Its manifest, for this platform.
    pub manifest: Descriptor,
    /// The config as it came: keys that this tool does not know are kept.
    pub config: serde_json::Value,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// What the config says.
    pub platform: Platform,
}

/// Brings the base into the store. `pull` says when a registry is asked; files are always read, with their layers.
pub fn pull(
    source: &Source,
    platform: &Platform,
    pull: Pull,
    layers: Layers,
    client: &registry::Client,
    store: &Store,
    progress: &Progress,
) -> Result<Base, Error> {
    let base = match source {
        Source::Registry(reference) => {
            remote::pull(reference, platform, pull, layers, client, store, progress)
        }
        _ => import(source, platform, store, progress),
    };
    base.map_err(|error| error.or_kind(Kind::Base))
}

fn import(
    source: &Source,
    platform: &Platform,
    store: &Store,
    progress: &Progress,
) -> Result<Base, Error> {
    let name = source.to_string();
    let part = progress.start(format!("load `{name}`"));
    let manifest = match source {
        Source::OciDir(path, tag) => {
            let layout = layout::Layout::Dir(path.clone());
            layout::import(&name, &layout, tag.as_deref(), platform, store, progress)?
        }
        Source::OciArchive(path, tag) => {
            let layout = layout::Layout::Archive(archive::Archive::open(path)?);
            layout::import(&name, &layout, tag.as_deref(), platform, store, progress)?
        }
        Source::DockerArchive(path, tag) => {
            let archive = archive::Archive::open(path)?;
            docker_archive::import(
                &name,
                &archive,
                tag.as_deref(),
                Some(platform),
                store,
                progress,
            )?
        }
        Source::Registry(_) => unreachable!("handled above"),
    };
    let base = load(&name, &manifest, platform, store)?;
    part.finish(base.outcome());
    Ok(base)
}

/// Brings layers into the store, of a base or others, from where they were seen.
pub fn bring(
    layers: &[Layer],
    client: &registry::Client,
    store: &Store,
    progress: &Progress,
) -> Result<(), Error> {
    let blobs = layers.iter().map(|layer| &layer.descriptor);
    let missing: Vec<_> = blobs.filter(|blob| !store.has(blob)).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let part = progress.start("pull layers");
    client
        .bring(&missing, store, progress)
        .map_err(|error| error::pull("failed to pull layers".to_owned(), error))?;
    let bytes: u64 = missing.iter().map(|blob| blob.size).sum();
    part.finish(outcome(missing.len(), bytes));
    Ok(())
}

/// Makes a base out of what is in the store.
fn load(
    name: &str,
    manifest: &Descriptor,
    platform: &Platform,
    store: &Store,
) -> Result<Base, Error> {
    let document: Manifest = store.read_json(manifest)?;
    let config = document::parse_config(name, &store.read(&document.config)?, Some(platform))?;
    let layers = document::layers(name, &document.layers, &config.diff_ids)?;
    Ok(Base {
        name: name.to_owned(),
        manifest: manifest.clone(),
        config: config.value,
        layers,
        platform: config.platform,
    })
}

impl Base {
    fn outcome(&self) -> String {
        let bytes = self.layers.iter().map(|layer| layer.descriptor.size).sum();
        outcome(self.layers.len(), bytes)
    }
}

fn outcome(count: usize, bytes: u64) -> String {
    let layers = if count == 1 { "layer" } else { "layers" };
    format!(
        "{count} {layers}, {}.{} MB",
        bytes / 1_000_000,
        bytes / 100_000 % 10
    )
}
