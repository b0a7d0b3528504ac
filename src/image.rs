//! Base, layers and settings become a config and a manifest. Pure, but for reading and writing blobs.
//!
//! Follows the OCI image specification, `config.md` and `manifest.md`. The base's config is patched as
//! JSON, so that keys which this tool does not know (`Healthcheck`, `Shell`, …) survive.

use std::collections::BTreeMap;

use oci_spec::image::{ANNOTATION_BASE_IMAGE_DIGEST, ANNOTATION_BASE_IMAGE_NAME};
use serde_json::{Map, Value, json};

use crate::base::{Base, Source};
use crate::digest::{DiffId, Digest};
use crate::dockerfile;
use crate::error::{Error, Kind};
use crate::manifest::{Descriptor, Layer, Manifest, Platform, media_type};
use crate::registry::Content;
use crate::store::{self, Store};

/// What the image says beside its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// All of the environment, expanded, in order: the base's and the build file's.
    pub env: Vec<(String, String)>,
    /// What that, and instructions, make of the base's config.
    pub config: dockerfile::Config,
    /// The entrypoint's words.
    pub entrypoint: Vec<String>,
    /// Where a command starts.
    pub working_dir: String,
    /// Added to the base's labels.
    pub labels: Vec<(String, String)>,
    /// Of the manifest.
    pub annotations: Vec<(String, String)>,
    /// Seconds since 1970.
    pub created: i64,
    /// Which media types are written.
    pub format: Format,
}

/// Whose media types an image carries. The layers' bytes are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The OCI image specification's.
    #[default]
    Oci,
    /// Docker's image manifest version 2, schema 2.
    Docker,
}

impl Format {
    /// Of the manifest, and of the config.
    fn media_types(self) -> (&'static str, &'static str) {
        match self {
            Self::Oci => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
            Self::Docker => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        }
    }
}

/// An entry of the history that was made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its layer; absent if only the config changed, or nothing.
    pub layer: Option<Layer>,
    /// Its `created_by`.
    pub created_by: String,
}

/// An image whose blobs are in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest.
    pub manifest: Descriptor,
    /// The config blob; its digest is what Docker calls the image's id.
    pub config_descriptor: Descriptor,
    /// The config.
    pub config: Value,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// Its tags in the store, complete.
    pub tags: Vec<String>,
}

/// Puts the layers of `entries`, and `settings`, on top of `base`.
pub fn append(
    base: &Base,
    entries: &[Entry],
    settings: &Settings,
    store: &Store,
) -> Result<Image, Error> {
    let all: Vec<Layer> = base
        .layers
        .iter()
        .chain(entries.iter().filter_map(|entry| entry.layer.as_ref()))
        .map(|layer| translate(layer, settings.format))
        .collect::<Result<_, _>>()?;
    let config = config(base, entries, settings);
    let (manifest_type, config_type) = settings.format.media_types();
    let config_descriptor = store.put_json(config_type, &config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(manifest_type.to_owned()),
        artifact_type: None,
        config: config_descriptor.clone(),
        layers: all.iter().map(|layer| layer.descriptor.clone()).collect(),
        annotations: annotations(base, settings),
    };
    let mut manifest = store.put_json(manifest_type, &manifest)?;
    manifest.platform = Some(base.platform.clone());
    Ok(Image {
        manifest,
        config_descriptor,
        config,
        layers: all,
        tags: Vec::new(),
    })
}

/// Reads the documents of an image in the store. Its tags are not among them.
pub fn load(manifest: &Descriptor, store: &Store) -> Result<Image, Error> {
    let document: Manifest = store.read_json(manifest)?;
    let config: Value = store.read_json(&document.config)?;
    let invalid = |reason: String| {
        let message = format!("config `{}` is invalid: {reason}", document.config.digest);
        Error::new(Kind::Storage, message)
    };
    let diff_ids: Vec<DiffId> = serde_json::from_value(config["rootfs"]["diff_ids"].clone())
        .map_err(|error| invalid(error.to_string()))?;
    if diff_ids.len() != document.layers.len() {
        let reason = format!(
            "{} diffIDs for {} layers",
            diff_ids.len(),
            document.layers.len()
        );
        return Err(invalid(reason));
    }
    let layers = document.layers.into_iter().zip(diff_ids);
    Ok(Image {
        manifest: manifest.clone(),
        config_descriptor: document.config,
        config,
        layers: layers
            .map(|(descriptor, diff_id)| Layer {
                descriptor,
                diff_id,
            })
            .collect(),
        tags: Vec::new(),
    })
}

impl Image {
    /// `config.Env`, as names and values.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        env(&self.config)
    }

    /// The words of `config.Entrypoint` or `config.Cmd`.
    #[must_use]
    pub fn words(&self, key: &str) -> Vec<String> {
        serde_json::from_value(self.config["config"][key].clone()).unwrap_or_default()
    }

    /// A text of `config.config`, such as `WorkingDir`; empty if it is not there.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.config["config"][key].as_str().unwrap_or_default()
    }

    /// What the config says that the image runs on.
    #[must_use]
    pub fn platform(&self) -> Platform {
        let text = |key: &str| self.config[key].as_str().map(str::to_owned);
        Platform {
            os: text("os").unwrap_or_default(),
            architecture: text("architecture").unwrap_or_default(),
            variant: text("variant"),
        }
    }

    /// Bytes of the compressed layers.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.descriptor.size).sum()
    }

    /// The image in the shape of `docker image inspect`.
    #[must_use]
    pub fn inspect(&self) -> Value {
        let (config, tags) = (&self.config, &self.tags);
        let diff_ids = &config["rootfs"]["diff_ids"];
        let tags: Vec<_> = tags.iter().map(|tag| familiar(tag)).collect();
        json!({
            "Id": self.config_descriptor.digest,
            "RepoTags": tags,
            "RepoDigests": tags.iter().map(|tag| format!("{}@{}", repository(tag), self.manifest.digest)).collect::<Vec<_>>(),
            "Parent": "",
            "Comment": "",
            "Created": config["created"],
            "Author": config["author"].as_str().unwrap_or_default(),
            "Config": config["config"],
            "Architecture": config["architecture"],
            "Variant": config["variant"].as_str().unwrap_or_default(),
            "Os": config["os"],
            "Size": self.size(),
            "RootFS": { "Type": "layers", "Layers": diff_ids },
            "Descriptor": self.manifest,
            "History": config["history"],
        })
    }
}

/// A reference as Docker shows it: without the parts that a name has in any case.
#[must_use]
pub fn familiar(reference: &str) -> &str {
    let Some(name) = reference.strip_prefix("docker.io/") else {
        return reference;
    };
    match name.split_once('/') {
        Some(("library", rest)) if !rest.contains('/') => rest,
        // It would be the name of a registry.
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => reference,
        _ => name,
    }
}

/// A reference without its tag.
fn repository(reference: &str) -> &str {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => reference,
    }
}

/// `config.Env` of an image's config, as names and values.
#[must_use]
pub fn env(config: &Value) -> Vec<(String, String)> {
    let lines: Vec<String> =
        serde_json::from_value(config["config"]["Env"].clone()).unwrap_or_default();
    lines
        .iter()
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The config that [`append`] makes.
pub(crate) fn config(base: &Base, entries: &[Entry], settings: &Settings) -> Value {
    let created = timestamp(settings.created);
    let mut document = base.config.as_object().cloned().unwrap_or_default();
    // They describe the container that the base was committed from.
    for key in [
        "id",
        "parent",
        "container",
        "container_config",
        "docker_version",
    ] {
        document.remove(key);
    }
    document.insert("created".to_owned(), created.clone().into());
    document.insert("os".to_owned(), base.platform.os.clone().into());
    document.insert(
        "architecture".to_owned(),
        base.platform.architecture.clone().into(),
    );

    let mut document = Value::Object(document);
    dockerfile::Config {
        entrypoint: settings.entrypoint.clone(),
        working_dir: settings.working_dir.clone(),
        ..settings.config.clone()
    }
    .write(&mut document);
    let document = document.as_object_mut().expect("it was made one");
    let runtime = object(document, "config");
    // It names the image that the base was committed from.
    runtime.remove("Image");
    if !settings.labels.is_empty() {
        let labels = object(runtime, "Labels");
        for (name, value) in &settings.labels {
            labels.insert(name.clone(), value.clone().into());
        }
    }

    let mut history = base_history(base);
    history.extend(entries.iter().map(|entry| {
        let mut line = json!({
            "created": created,
            "created_by": entry.created_by,
            "comment": "pyats-image-build",
        });
        if entry.layer.is_none() {
            line["empty_layer"] = true.into();
        }
        line
    }));
    document.insert("history".to_owned(), history.into());
    let diff_ids: Vec<DiffId> = base
        .layers
        .iter()
        .chain(entries.iter().filter_map(|entry| entry.layer.as_ref()))
        .map(|layer| layer.diff_id)
        .collect();
    document.insert(
        "rootfs".to_owned(),
        json!({ "type": "layers", "diff_ids": diff_ids }),
    );
    Value::Object(std::mem::take(document))
}

/// The base's history, with one entry a layer even where the base has none.
fn base_history(base: &Base) -> Vec<Value> {
    let history = base.config["history"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let of_layers = history
        .iter()
        .filter(|entry| entry["empty_layer"] != true)
        .count();
    if of_layers == base.layers.len() {
        return history;
    }
    base.layers
        .iter()
        .map(|_| json!({ "comment": "layer of the base" }))
        .collect()
}

fn object<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(key.to_owned()).or_insert(Value::Null);
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was just made one")
}

fn annotations(base: &Base, settings: &Settings) -> BTreeMap<String, String> {
    let mut annotations: BTreeMap<String, String> = settings.annotations.iter().cloned().collect();
    if settings.format == Format::Docker {
        // Docker's manifests have no annotations.
        return BTreeMap::new();
    }
    let mut note = |key: &str, value: String| {
        annotations.entry(key.to_owned()).or_insert(value);
    };
    // The path of a layout or an archive is this machine's.
    if matches!(base.name.parse(), Ok(Source::Registry(_))) {
        note(ANNOTATION_BASE_IMAGE_NAME, base.name.clone());
    }
    note(
        ANNOTATION_BASE_IMAGE_DIGEST,
        base.manifest.digest.to_string(),
    );
    annotations
}

/// An image under the media types of `format`; `None` for an index. Its blobs are the same.
pub fn convert(mut content: Content, format: Format) -> Result<Option<Content>, Error> {
    let [(root, bytes)] = &mut content.documents[..] else {
        return Ok(None);
    };
    let mut manifest: Manifest = serde_json::from_slice(bytes).map_err(|source| {
        let path = root.digest.to_string();
        store::Error::Json { path, source }
    })?;
    let (manifest_type, config_type) = format.media_types();
    manifest.media_type = Some(manifest_type.to_owned());
    config_type.clone_into(&mut manifest.config.media_type);
    for layer in &mut manifest.layers {
        layer.media_type = translated(layer, format)?.to_owned();
    }
    if format == Format::Docker {
        // Docker's manifests have no annotations.
        manifest.annotations.clear();
    }
    *bytes = store::json(&manifest);
    *root = Descriptor::new(manifest_type, Digest::of(bytes), bytes.len() as u64);
    Ok(Some(content))
}

/// The same layer under the other format's media type.
fn translate(layer: &Layer, format: Format) -> Result<Layer, Error> {
    let media_type = translated(&layer.descriptor, format)?;
    let descriptor = Descriptor::new(media_type, layer.descriptor.digest, layer.descriptor.size);
    Ok(Layer {
        descriptor,
        diff_id: layer.diff_id,
    })
}

/// The media type of a layer in the other format.
fn translated(layer: &Descriptor, format: Format) -> Result<&'static str, Error> {
    const PAIRS: [(&str, &str); 3] = [
        (media_type::OCI_LAYER, media_type::DOCKER_LAYER),
        (media_type::OCI_LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
        (media_type::OCI_LAYER_ZSTD, media_type::DOCKER_LAYER_ZSTD),
    ];
    let given = layer.media_type.as_str();
    PAIRS
        .iter()
        .find(|(oci, docker)| given == *oci || given == *docker)
        .map(|(oci, docker)| if format == Format::Oci { *oci } else { *docker })
        .ok_or_else(|| {
            let message = format!(
                "layer `{}` has the media type `{given}`, which has no counterpart in the other format",
                layer.digest
            );
            Error::new(Kind::Storage, message)
        })
}

/// Seconds since 1970 as RFC 3339 in UTC, such as `1980-01-02T00:00:00Z`; the epoch itself for
/// years that the format cannot write.
#[must_use]
pub fn timestamp(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or(chrono::DateTime::UNIX_EPOCH);
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (315_619_200, "1980-01-02T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_305_599, "2026-11-21T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }
}
