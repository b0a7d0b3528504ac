//! Images by their names: those of the store, of a layout and of an archive; and further names for them.

use std::path::{Path, PathBuf};

use crate::access::Access;
use crate::base::{self, Layers, OtherPlatform, Pull, Source};
use crate::error::{Error, Kind};
use crate::image::{self, Image};
use crate::manifest::{Platform, REF_NAME};
use crate::progress::Progress;
use crate::registry::{self, InvalidReference, Reference};
use crate::store::Store;

/// Layers and sources that are moved side by side, where nobody says how many.
pub(crate) const JOBS: usize = 8;

/// The folder of the store where none is named: `$PYATS_IMAGE_BUILD_STORE`, or `pyats-image-build` in
/// `$XDG_CACHE_HOME` or `~/.cache`.
pub fn default_store() -> Result<PathBuf, Error> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let found = set("PYATS_IMAGE_BUILD_STORE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("pyats-image-build")))
        .or_else(|| Some(set("HOME")?.join(".cache/pyats-image-build")));
    found.ok_or_else(|| {
        Error::options(
            "there is no place for the store: neither `XDG_CACHE_HOME` nor `HOME` is set",
        )
        .with_hint("set `--store DIR` or `PYATS_IMAGE_BUILD_STORE`")
    })
}

/// The folder of the store: the one that was chosen, or the default.
pub fn place(chosen: Option<&Path>) -> Result<PathBuf, Error> {
    let place = chosen.map_or_else(default_store, |chosen| Ok(chosen.to_owned()))?;
    require_utf8(&place)?;
    Ok(place)
}

/// Opens the store.
pub(crate) fn open(chosen: Option<&Path>) -> Result<Store, Error> {
    Ok(Store::open(&place(chosen)?)?)
}

/// An error if a path cannot be handed on as text, which for a relative one depends on the current directory.
pub(crate) fn require_utf8(path: &Path) -> Result<(), Error> {
    let path = std::path::absolute(path)?;
    if path.to_str().is_some() {
        return Ok(());
    }
    let message = format!("the path `{}` is not UTF-8", path.display());
    Err(Error::options(message).with_hint("choose another path"))
}

/// Finds an image by its name: a tag or an id (the digest of the manifest or the config, or at least twelve of its leading
/// digits) in the store, or else `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE`, which is copied into
/// the store. Without a `store`, it is the [default](default_store).
///
/// ```
/// # use pyats_image_builder::manifest::media_type::{OCI_CONFIG, OCI_MANIFEST};
/// # use serde_json::json;
/// # let directory = tempfile::tempdir()?;
/// # let folder = directory.path();
/// # let store = pyats_image_builder::store::Store::open(folder)?;
/// # let platform = pyats_image_builder::Platform::host();
/// # let config = store.put_json(OCI_CONFIG, &json!({
/// #     "architecture": platform.architecture, "os": "linux", "config": { "Env": ["A=b"] },
/// #     "rootfs": { "type": "layers", "diff_ids": [] },
/// # }))?;
/// # let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] });
/// # let manifest = store.put_json(OCI_MANIFEST, &manifest)?;
/// # store.tag(&manifest, Some("docker.io/library/tests:latest"))?;
/// use pyats_image_builder::{Kind, Progress, find};
///
/// let image = find("tests", Some(folder), &Progress::silent())?;
/// assert_eq!(image.tags, ["docker.io/library/tests:latest"]);
/// assert_eq!(image.env(), [("A".to_owned(), "b".to_owned())]);
/// // In the shape of `docker image inspect`.
/// assert_eq!(image.inspect()["Os"], "linux");
///
/// let error = find("other", Some(folder), &Progress::silent()).unwrap_err();
/// assert_eq!(error.kind(), Kind::NoImage);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn find(name: &str, store: Option<&Path>, progress: &Progress) -> Result<Image, Error> {
    find_in(&open(store)?, name, progress)
}

/// As [`find`].
pub(crate) fn find_in(store: &Store, name: &str, progress: &Progress) -> Result<Image, Error> {
    if is_outside(name) {
        let source: Source = name.parse()?;
        let client = client()?;
        let pull = |platform: &Platform| {
            base::pull(
                &source,
                platform,
                Pull::Never,
                Layers::Now,
                &client,
                store,
                progress,
            )
        };
        let found = match pull(&Platform::host()) {
            Err(error) => match error.find::<OtherPlatform>() {
                // There is no other.
                Some(OtherPlatform { found, .. }) if found.len() == 1 => pull(&found[0]),
                _ => Err(error),
            },
            found => found,
        };
        let base = found.map_err(|error| error.map_kind(Kind::Base, Kind::NoImage))?;
        return image::load(&base.manifest, store);
    }
    of_store(store, name)?.ok_or_else(|| {
        Error::new(
            Kind::NoImage,
            format!("there is no image `{name}` in the store"),
        )
        .usage()
        .with_hint(
            "build it without `--output`, or name an image as `oci:DIR[:TAG]`, `oci-archive:FILE` or `docker-archive:FILE`",
        )
    })
}

/// Gives an image of the store further tags, completed as Docker does it, and gives these. Another image that has one of
/// them loses it. Without a `store`, it is the [default](default_store).
///
/// ```no_run
/// # let _ = || -> Result<(), pyats_image_builder::Error> {
/// let tags = ["registry.example.com/team/tests:1".to_owned()];
/// pyats_image_builder::tag("tests", &tags, None)?;
/// # Ok(()) };
/// ```
pub fn tag(name: &str, tags: &[String], store: Option<&Path>) -> Result<Vec<String>, Error> {
    let tags: Vec<String> = tags
        .iter()
        .map(|tag| complete_tag(tag))
        .collect::<Result<_, _>>()?;
    let store = open(store)?;
    let _session = store.session()?;
    let image = of_store(&store, name)?.ok_or_else(|| {
        let message = format!("the store has no image `{name}`, and others cannot be tagged");
        Error::new(Kind::NoImage, message).usage().with_hint(
            "give a tag or an id that the store has, as `pyats-image-build cache ls` lists them",
        )
    })?;
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

/// A tag as Docker completes it: `name` is `docker.io/library/name:latest`.
pub(crate) fn complete_tag(tag: &str) -> Result<String, Error> {
    let reference = parse_tag(tag)?;
    if reference.digest().is_some() {
        return Err(invalid_tag(tag, &"a tag cannot name a digest"));
    }
    Ok(reference.to_string())
}

/// A reference as the user types it, for an image that is made or pushed.
pub(crate) fn parse_tag(tag: &str) -> Result<Reference, Error> {
    let reference = tag.parse();
    reference.map_err(|error: InvalidReference| invalid_tag(&error.text, &error.problem))
}

fn invalid_tag(tag: &str, problem: &dyn std::fmt::Display) -> Error {
    Error::options(format!("`{tag}` is not a valid tag: {problem}"))
        .with_hint("use a form such as `name:latest` or `registry.example.com/team/name:1.0`")
}

/// Whether a name is a layout's or an archive's.
pub(crate) fn is_outside(name: &str) -> bool {
    ["oci:", "oci-archive:", "docker-archive:"]
        .iter()
        .any(|kind| name.starts_with(kind))
}

/// Reaches registries as this machine does: an image may have layers that were not needed so far.
pub(crate) fn client() -> Result<registry::Client, Error> {
    Access::default().client(JOBS, &[])
}

/// An image that the store keeps by this tag or id.
fn of_store(store: &Store, name: &str) -> Result<Option<Image>, Error> {
    let index = store.index()?;
    let named = |image: Image| {
        let entries = index.manifests.iter();
        let own = entries.filter(|entry| entry.digest == image.manifest.digest);
        let tags = own.filter_map(|entry| entry.annotations.get(REF_NAME).cloned());
        let tags = tags.collect();
        Some(Image { tags, ..image })
    };
    let tag = complete_tag(name).unwrap_or_default();
    if let Some(manifest) = store.tagged(&tag)? {
        return Ok(named(image::load(&manifest, store)?));
    }
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    if digits.len() < 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    for entry in &index.manifests {
        let image = image::load(entry, store)?;
        let ids = [image.manifest.digest, image.config_descriptor.digest];
        if ids.iter().any(|id| id.hex().starts_with(digits)) {
            return Ok(named(image));
        }
    }
    Ok(None)
}
