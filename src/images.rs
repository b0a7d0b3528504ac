//! Images by their names: those of the store, of a layout and of an archive; and further names for them.

use std::path::Path;
use std::sync::Arc;

use crate::assemble;
use crate::base::{self, Layers, Pull, Source};
use crate::error::{Error, OptionsError};
use crate::image::{self, Image};
use crate::manifest::{Platform, REF_NAME};
use crate::net::{self, Proxies};
use crate::progress::Progress;
use crate::registry;
use crate::store::Store;

/// Finds an image: a tag or an id (of the manifest or the config) in the store, or a layout or archive. Also
/// returns its tags, and the store.
pub fn find(
    name: &str,
    store: &Path,
    progress: &Progress,
) -> Result<(Image, Vec<String>, Store), Error> {
    let store = Store::open(store)?;
    if is_outside(name) {
        let source: Source = name.parse().map_err(OptionsError::Base)?;
        let base = base::pull(
            &source,
            &Platform::host(),
            Pull::Never,
            Layers::Now,
            &client()?,
            &store,
            progress,
        )?;
        return Ok((image::load(&base.manifest, &store)?, Vec::new(), store));
    }
    let unknown = || OptionsError::UnknownImage(name.to_owned());
    let image = of_store(name, &store)?.ok_or_else(unknown)?;
    let index = store.index()?;
    let named = index
        .manifests
        .iter()
        .filter(|entry| entry.digest == image.manifest.digest);
    let tags = named
        .filter_map(|entry| entry.annotations.get(REF_NAME).cloned())
        .collect();
    Ok((image, tags, store))
}

/// Gives an image of the store further tags, completed as those of a build, and gives these. Another image that has
/// one of them loses it.
pub fn tag(name: &str, tags: &[String], store: &Path) -> Result<Vec<String>, Error> {
    let tags: Vec<String> = tags
        .iter()
        .map(|tag| assemble::complete_tag(tag))
        .collect::<Result<_, _>>()?;
    let store = Store::open(store)?;
    let _session = store.session()?;
    let not_stored = || OptionsError::NotStored(name.to_owned());
    let image = of_store(name, &store)?.ok_or_else(not_stored)?;
    // Whoever prunes meanwhile may have seen that nothing names them.
    let layers = image.layers.iter().map(|layer| &layer.descriptor);
    for blob in layers.chain([&image.manifest, &image.config_descriptor]) {
        let _ = store.has(blob);
    }
    for tag in &tags {
        store.tag(&image.manifest, Some(tag))?;
    }
    // It was kept under its digest for want of a tag.
    store.untag(&image.manifest.digest.to_string())?;
    Ok(tags)
}

/// Whether a name is a layout's or an archive's.
pub(crate) fn is_outside(name: &str) -> bool {
    ["oci:", "oci-archive:", "docker-archive:"]
        .iter()
        .any(|kind| name.starts_with(kind))
}

/// Reaches registries as this machine does: an image may have layers that were not needed so far.
pub(crate) fn client() -> Result<registry::Client, Error> {
    let proxies = Proxies::from_env().map_err(OptionsError::Proxy)?;
    let net = net::Client::new(net::Options::of_system(None, proxies));
    let registries = registry::Registries::load(&[]).map_err(OptionsError::Policy)?;
    let options = registry::Options {
        registries,
        ..registry::Options::default()
    };
    Ok(registry::Client::new(options, Arc::new(net)))
}

/// An image of the store: by its tag, or by the digest of its manifest or config, of which at least twelve leading
/// digits are enough.
fn of_store(name: &str, store: &Store) -> Result<Option<Image>, Error> {
    let tag = assemble::complete_tag(name).unwrap_or_default();
    if let Some(manifest) = store.tagged(&tag)? {
        return Ok(Some(image::load(&manifest, store)?));
    }
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    if digits.len() < 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    for entry in &store.index()?.manifests {
        let image = image::load(entry, store)?;
        let ids = [image.manifest.digest, image.config_descriptor.digest];
        if ids.iter().any(|id| id.hex().starts_with(digits)) {
            return Ok(Some(image));
        }
    }
    Ok(None)
}
