//! A reference and a platform become a [`Base`]: config and layers in the store.

use std::path::PathBuf;

use crate::manifest::{Descriptor, Layer, Platform};
use crate::progress::Progress;
use crate::registry;
use crate::store::Store;

/// Where a base comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A registry reference.
    Registry(registry::Reference),
    /// `oci:DIR[:TAG]`
    OciDir(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]`
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE`
    DockerArchive(PathBuf),
}

/// When a registry is asked for a tag that the store knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Ask unless the answer is less than an hour old.
    Default,
    /// Always ask.
    Always,
    /// Ask only for what is not there.
    Missing,
    /// Never ask.
    Never,
}

/// An image to build upon, with all its blobs in the store.
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

/// What can go wrong with a base.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct Error;

/// Brings the base into the store.
pub fn pull(
    _source: &Source,
    _platform: &Platform,
    _pull: Pull,
    _client: &registry::Client,
    _store: &Store,
    _progress: &Progress,
) -> Result<Base, Error> {
    unimplemented!()
}
