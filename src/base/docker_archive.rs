//! What `docker save` writes: `manifest.json`, a config, and layers that are plain tars as a rule.
//!
//! The layers have no digests there, only the config's diffIDs. On the way into the store they are held
//! against these, compressed or not, and a manifest is written that names them. Old archives spell a layer
//! that two images share as a symbolic link from `ID/layer.tar` to another one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufReader, Read, Write as _};

use serde::Deserialize;

use super::archive::{Archive, Entry, MAGIC, Packing, Pass, read_fully};
use super::layout::{complete, copy};
use super::{document, error};
use crate::digest::{DiffId, Digest, Hashing};
use crate::error::Error;
use crate::layer::MAX_LAYER;
use crate::manifest::{Descriptor, Manifest, Platform, media_type};
use crate::progress::Progress;
use crate::registry::Reference;
use crate::store::{self, BlobWriter, Store};

const MANIFEST: &str = "manifest.json";
/// More links in a row than these are a circle.
const MOST_LINKS: usize = 8;

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Brings the image `tag`, or the only one, into the store, and gives the manifest made for it. Without a `platform` it
/// may be for any.
pub(super) fn import(
    name: &str,
    archive: &Archive,
    tag: Option<&str>,
    platform: Option<&Platform>,
    store: &Store,
    progress: &Progress,
) -> Result<Descriptor, Error> {
    let path = archive.path();
    let kind = || error::kind(path, "an archive of `docker save`", MANIFEST);
    let listing = archive.document(MANIFEST, progress)?.ok_or_else(kind)?;
    let images: Vec<Image> = serde_json::from_slice(&listing)
        .map_err(|error| error::document(name, "listing", &error))?;
    let image = pick(archive, &images, tag)?;
    let config = archive
        .document(clean(&image.config), progress)?
        .ok_or_else(|| error::incomplete(path, &image.config))?;
    let parsed = document::parse_config(name, &config, platform)?;
    let names: Vec<&str> = image
        .layers
        .iter()
        .flatten()
        .map(|layer| clean(layer))
        .collect();
    if names.len() != parsed.diff_ids.len() {
        let (layers, diff_ids) = (names.len(), parsed.diff_ids.len());
        return Err(error::diff_ids(name, layers, diff_ids));
    }
    let layers = import_layers(archive, &names, &parsed.diff_ids, store, progress)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: store.put(media_type::OCI_CONFIG, &config)?,
        layers,
        annotations: BTreeMap::new(),
    };
    Ok(store.put_json(media_type::OCI_MANIFEST, &manifest)?)
}

fn pick<'a>(archive: &Archive, images: &'a [Image], tag: Option<&str>) -> Result<&'a Image, Error> {
    let path = archive.path();
    let tags = || {
        let named = images.iter().map(|image| image.repo_tags.iter().flatten());
        named.flatten().cloned().collect::<Vec<_>>()
    };
    let Some(tag) = tag else {
        return match images {
            [only] => Ok(only),
            [] => Err(error::incomplete(path, "an image")),
            _ => Err(error::several_images(path, &tags())),
        };
    };
    // `python:3.11` and `docker.io/library/python:3.11` are the same name.
    let wanted = tag.parse::<Reference>().ok();
    let is_named = |name: &String| name == tag || (wanted.is_some() && name.parse().ok() == wanted);
    images
        .iter()
        .find(|image| image.repo_tags.iter().flatten().any(is_named))
        .ok_or_else(|| error::no_tag(path, tag, &tags()))
}

/// The layers' descriptors in the order of `names`. One pass takes all of them, but for those behind
/// links that lead backwards, which the next passes take.
fn import_layers(
    archive: &Archive,
    names: &[&str],
    diff_ids: &[DiffId],
    store: &Store,
    progress: &Progress,
) -> Result<Vec<Descriptor>, Error> {
    let mut expected: HashMap<String, DiffId> = HashMap::new();
    for (name, diff_id) in names.iter().zip(diff_ids) {
        expected.insert((*name).to_owned(), *diff_id);
    }
    let mut done: HashMap<String, Descriptor> = HashMap::new();
    let mut links: HashMap<String, String> = HashMap::new();
    for _ in 0..MOST_LINKS {
        let wanted: HashSet<String> = names
            .iter()
            .map(|name| resolve(name, &links).to_owned())
            .filter(|name| !done.contains_key(name))
            .collect();
        if wanted.is_empty() {
            break;
        }
        for name in names {
            let diff_id = expected[*name];
            expected
                .entry(resolve(name, &links).to_owned())
                .or_insert(diff_id);
        }
        let before = (done.len(), links.len());
        archive.pass(progress, &mut |entry| {
            if !wanted.contains(entry.name) || done.contains_key(entry.name) {
                return Ok(Pass::GoesOn);
            }
            if let Some(target) = entry.link.take() {
                links.insert(entry.name.to_owned(), target);
            } else {
                let diff_id = expected[entry.name];
                done.insert(
                    entry.name.to_owned(),
                    import_layer(archive, entry, diff_id, store, progress)?,
                );
            }
            Ok(Pass::GoesOn)
        })?;
        if before == (done.len(), links.len()) {
            break;
        }
    }
    names
        .iter()
        .map(|name| {
            done.get(resolve(name, &links))
                .cloned()
                .ok_or_else(|| error::incomplete(archive.path(), name))
        })
        .collect()
}

fn resolve<'a>(name: &'a str, links: &'a HashMap<String, String>) -> &'a str {
    let mut at = name;
    for _ in 0..MOST_LINKS {
        match links.get(at) {
            Some(target) => at = target,
            None => break,
        }
    }
    at
}

fn import_layer(
    archive: &Archive,
    entry: &mut Entry<'_>,
    diff_id: DiffId,
    store: &Store,
    progress: &Progress,
) -> Result<Descriptor, Error> {
    let part = progress.transfer(
        format!("layer `sha256:{}`", &diff_id.0.hex()[..12]),
        Some(entry.size),
    );
    let mut magic = [0; MAGIC];
    let length = read_fully(entry.content, &mut magic).map_err(|source| archive.broken(source))?;
    let packing = Packing::of(&magic[..length]);
    let mut input = Counted {
        input: magic[..length].chain(&mut *entry.content),
        copy: None,
        size: 0,
    };
    let mut unreadable = |source| archive.broken(source);
    let mut unpack = |input: &mut dyn Read, to: &mut dyn io::Write| {
        let unpacked = packing.unpack(BufReader::new(input));
        let mut unpacked = unpacked.map_err(&mut unreadable)?.take(MAX_LAYER + 1);
        copy(&mut unpacked, to, &part, progress, &mut unreadable)
    };
    let mut writer = store.writer()?;
    let Some(media_type) = kept_as(packing) else {
        // A plain layer's digest is its diffID.
        let written = unpack(&mut input, &mut writer)?;
        check_size(archive, input.size, entry.size)?;
        let expected = Descriptor::new(media_type::OCI_LAYER, diff_id.0, written);
        complete(writer, &expected, archive.path(), entry.name)?;
        part.finish("");
        return Ok(expected);
    };
    let mut hashing = Hashing::new(io::sink());
    input.copy = Some(&mut writer);
    unpack(&mut input, &mut hashing)?;
    // What follows the compressed bytes, if anything does, belongs to the blob too.
    io::copy(&mut input, &mut io::sink()).map_err(|source| archive.broken(source))?;
    check_size(archive, input.size, entry.size)?;
    let (_, found, _) = hashing.complete();
    if found != diff_id.0 {
        return Err(damaged(archive, entry.name, diff_id, found));
    }
    let layer = writer.complete(media_type)?;
    part.finish("");
    Ok(layer)
}

/// The type of a layer that stays compressed as it is; images have none for bzip2 and xz.
fn kept_as(packing: Packing) -> Option<&'static str> {
    match packing {
        Packing::Gzip => Some(media_type::OCI_LAYER_GZIP),
        Packing::Zstd => Some(media_type::OCI_LAYER_ZSTD),
        Packing::Plain | Packing::Bzip2 | Packing::Xz => None,
    }
}

fn check_size(archive: &Archive, found: u64, expected: u64) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(archive.broken(io::ErrorKind::UnexpectedEof.into()))
}

fn damaged(archive: &Archive, entry: &str, expected: DiffId, found: Digest) -> Error {
    let expected = expected.0;
    let source = store::Error::Damaged { expected, found };
    error::damaged(archive.path(), entry, source)
}

/// Counts what is read, and copies it.
struct Counted<'a, R> {
    input: R,
    copy: Option<&'a mut BlobWriter>,
    size: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buffer[..length])?;
        }
        self.size += length as u64;
        Ok(length)
    }
}

/// The same name as [`Entry::name`] has it.
fn clean(name: &str) -> &str {
    name.trim_start_matches("./")
}
