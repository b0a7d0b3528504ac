//! Manifests, indexes and configs: read strictly, checked, and followed to the one for a platform.
//!
//! Nothing here knows where documents come from. Follows the OCI image specification, `manifest.md`,
//! `image-index.md` and `config.md`.

use serde_json::Value;

use super::error::{self, OtherPlatform};
use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::manifest::{Descriptor, Index, Layer, Manifest, Platform, media_type};
use crate::store::MAX_DOCUMENT;

/// Documents that are read for one image at most; indexes in indexes are rare, and deep ones hostile.
const MOST_DOCUMENTS: u32 = 16;

pub(super) enum Document {
    /// With its media type.
    Manifest(Manifest, &'static str),
    Index(Index),
}

/// The manifest that `root` leads to, for `platform`. `read` gives the verified bytes of a document.
pub(super) fn choose(
    name: &str,
    root: &Descriptor,
    platform: &Platform,
    read: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, Error>,
) -> Result<(Descriptor, Manifest), Error> {
    let mut search = Search {
        name,
        platform,
        read,
        left: MOST_DOCUMENTS,
        found: Vec::new(),
    };
    match search.follow(root)? {
        Some((descriptor, manifest)) => {
            check_types(name, &manifest)?;
            Ok((descriptor, manifest))
        }
        None => Err(OtherPlatform {
            name: name.to_owned(),
            wanted: platform.clone(),
            found: search.found,
        }
        .into()),
    }
}

struct Search<'a> {
    name: &'a str,
    platform: &'a Platform,
    read: &'a mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, Error>,
    left: u32,
    found: Vec<Platform>,
}

impl Search<'_> {
    fn follow(&mut self, at: &Descriptor) -> Result<Option<(Descriptor, Manifest)>, Error> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            error::document(self.name, "index", &"it leads through too many indexes")
        })?;
        if at.size > MAX_DOCUMENT {
            return Err(error::document(
                self.name,
                "manifest",
                &"it is larger than 4 MiB",
            ));
        }
        let bytes = (self.read)(at)?;
        let index = match parse(self.name, &bytes, &at.media_type)? {
            Document::Manifest(manifest, media_type) => {
                return Ok(Some((
                    Descriptor::new(media_type, at.digest, at.size),
                    manifest,
                )));
            }
            Document::Index(index) => index,
        };
        let best = best(&index.manifests, self.platform);
        if let Some(best) = best {
            return self.follow(best);
        }
        // Attestations are filed under `unknown/unknown`.
        let known = index
            .manifests
            .iter()
            .filter_map(|entry| entry.platform.as_ref());
        for platform in known.filter(|platform| platform.os != "unknown") {
            if !self.found.contains(platform) {
                self.found.push(platform.clone());
            }
        }
        for entry in index
            .manifests
            .iter()
            .filter(|entry| entry.platform.is_none())
        {
            if let Some(found) = self.follow(entry)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// The entry that fits best.
pub(super) fn best<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    entries
        .iter()
        .filter_map(|entry| Some((entry, entry.platform.as_ref()?)))
        .filter(|(_, platform)| wanted.accepts(platform))
        .min_by_key(|(_, platform)| wanted.rank(platform))
        .map(|(entry, _)| entry)
}

/// Reads an index that is known to be one, such as a layout's `index.json`.
pub(super) fn parse_index(name: &str, bytes: &[u8]) -> Result<Index, Error> {
    match parse(name, bytes, media_type::OCI_INDEX)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(..) => Err(error::document(name, "index", &"it is a manifest")),
    }
}

/// Tells a manifest from an index by its shape; a document that has both shapes, or says that it is
/// the other one, is refused, since two readers would see two images (CVE-2021-41190). So is one that has a key twice.
pub(super) fn parse(name: &str, bytes: &[u8], claimed: &str) -> Result<Document, Error> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| error::document(name, "manifest", &error))?;
    let has = |key: &str| value.get(key).is_some();
    if value.get("schemaVersion").and_then(Value::as_u64) == Some(1) || has("fsLayers") {
        let message = format!("`{name}` has a manifest of schema 1, which is no longer supported");
        return Err(error::base(message)
            .with_hint("push the image anew with a tool of this decade, or choose another base"));
    }
    if let Some(digest) = other_algorithm(&value) {
        return Err(error::unusable(format!(
            "`{name}` uses the digest `{digest}`; only sha256 is supported"
        )));
    }
    let said = value
        .get("mediaType")
        .and_then(Value::as_str)
        .filter(|said| !said.is_empty());
    let (is_index, is_manifest) = (has("manifests"), has("layers") || has("config"));
    let media_type = match (is_index, is_manifest, said.unwrap_or(claimed)) {
        (true, true, _) => {
            return Err(error::document(name, "manifest", &"it is an index as well"));
        }
        (true, false, said)
            if said != media_type::OCI_MANIFEST && said != media_type::DOCKER_MANIFEST =>
        {
            return serde_json::from_slice(bytes)
                .map(Document::Index)
                .map_err(|error| error::document(name, "index", &error));
        }
        (false, true, media_type::DOCKER_MANIFEST) => media_type::DOCKER_MANIFEST,
        (false, true, said)
            if said != media_type::OCI_INDEX && said != media_type::DOCKER_INDEX =>
        {
            media_type::OCI_MANIFEST
        }
        (false, false, _) => {
            return Err(error::document(
                name,
                "manifest",
                &"it is neither a manifest nor an index",
            ));
        }
        (_, _, said) => {
            let reason = format!("it says of itself that it is `{said}`, which it is not");
            return Err(error::document(name, "manifest", &reason));
        }
    };
    let manifest =
        serde_json::from_slice(bytes).map_err(|error| error::document(name, "manifest", &error))?;
    Ok(Document::Manifest(manifest, media_type))
}

/// For [`crate::fuzz`]: a manifest or an index that leads to itself, and a config.
pub(crate) fn fuzz(bytes: &[u8], platform: &Platform) {
    let name = "image";
    let root = Descriptor::new(media_type::OCI_INDEX, Digest::of(bytes), bytes.len() as u64);
    let mut read = |_: &Descriptor| Ok(bytes.to_vec());
    let _ = parse_index(name, bytes);
    match choose(name, &root, platform, &mut read) {
        Ok((_, manifest)) => drop(layers(name, &manifest.layers, &[])),
        Err(error) => drop((error.to_string(), error.hint())),
    }
    let _ = parse_config(name, bytes, Some(platform));
}

fn other_algorithm(document: &Value) -> Option<String> {
    let lists = ["layers", "manifests"]
        .into_iter()
        .filter_map(|key| document.get(key)?.as_array());
    lists
        .flatten()
        .chain(document.get("config"))
        .filter_map(|descriptor| descriptor.get("digest")?.as_str())
        .find(|digest| digest.contains(':') && !digest.starts_with("sha256:"))
        .map(|digest| digest.chars().take(20).chain(['…']).collect())
}

fn check_types(name: &str, manifest: &Manifest) -> Result<(), Error> {
    let config = manifest.config.media_type.as_str();
    if ![media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&config) {
        return Err(error::unusable(format!(
            "`{name}` is not a container image: its config is `{config}`"
        )));
    }
    let known = [
        media_type::OCI_LAYER,
        media_type::OCI_LAYER_GZIP,
        media_type::OCI_LAYER_ZSTD,
        media_type::DOCKER_LAYER,
        media_type::DOCKER_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD,
    ];
    for layer in &manifest.layers {
        let media_type = layer.media_type.as_str();
        if media_type.contains(".nondistributable.") || media_type.contains(".foreign.") {
            return Err(error::unusable(format!(
                "`{name}` has the layer `{}`, which is not distributed with the image (`{media_type}`)",
                layer.digest
            )));
        }
        if !known.contains(&media_type) {
            return Err(error::unusable(format!(
                "`{name}` has a layer of the unknown type `{media_type}`"
            )));
        }
    }
    Ok(())
}

/// What a config says that matters here.
pub(super) struct Config {
    /// The whole.
    pub(super) value: Value,
    pub(super) platform: Platform,
    pub(super) diff_ids: Vec<DiffId>,
}

/// Reads a config, and checks that it is for `wanted`, if that matters.
pub(super) fn parse_config(
    name: &str,
    bytes: &[u8],
    wanted: Option<&Platform>,
) -> Result<Config, Error> {
    let invalid = |reason: &dyn std::fmt::Display| error::document(name, "config", reason);
    let value: Value = serde_json::from_slice(bytes).map_err(|error| invalid(&error))?;
    let text = |key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let platform = Platform {
        os: text("os").ok_or_else(|| invalid(&"it has no `os`"))?,
        architecture: text("architecture").ok_or_else(|| invalid(&"it has no `architecture`"))?,
        variant: text("variant"),
    };
    if let Some(wanted) = wanted
        && !wanted.accepts(&platform)
    {
        return Err(OtherPlatform {
            name: name.to_owned(),
            wanted: wanted.clone(),
            found: vec![platform],
        }
        .into());
    }
    let diff_ids = match value.pointer("/rootfs/diff_ids") {
        None | Some(Value::Null) => Vec::new(),
        Some(diff_ids) => {
            serde_json::from_value(diff_ids.clone()).map_err(|error| invalid(&error))?
        }
    };
    Ok(Config {
        value,
        platform,
        diff_ids,
    })
}

/// Brings each layer together with its diffID.
pub(super) fn layers(
    name: &str,
    layers: &[Descriptor],
    diff_ids: &[DiffId],
) -> Result<Vec<Layer>, Error> {
    if layers.len() != diff_ids.len() {
        return Err(error::diff_ids(name, layers.len(), diff_ids.len()));
    }
    let pairs = layers.iter().zip(diff_ids);
    Ok(pairs
        .map(|(layer, diff_id)| Layer {
            descriptor: layer.clone(),
            diff_id: *diff_id,
        })
        .collect())
}
