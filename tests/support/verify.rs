//! The verification that every image of every test goes through: all that an image says about itself
//! is recomputed from its bytes. It shares no code with the tool.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};

use fs_err as fs;
use serde_json::{Value, from_value};
use sha2::{Digest as _, Sha256};

/// What a verified image is.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// The digest of the manifest.
    pub(crate) digest: String,
    /// The manifest.
    pub(crate) manifest: Value,
    /// The image's configuration.
    pub(crate) config: Value,
    /// One for each layer, lowest first.
    pub(crate) layers: Vec<Vec<Entry>>,
}

/// One entry of a layer's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative, without a slash at the end.
    pub(crate) name: String,
    /// The type flag of the header: `0` is a file, `1` a hard link, `2` a symbolic link, `5` a directory.
    pub(crate) kind: char,
    /// Permission bits.
    pub(crate) mode: u32,
    /// User and group.
    pub(crate) owner: (u64, u64),
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    /// Whether the header carries more than numbers: names of owners, or access and change times.
    pub(crate) impure: bool,
    /// What a link links to.
    pub(crate) target: Option<String>,
}

impl Image {
    /// Layers that this tool made, above the `base` layers.
    pub(crate) fn own_layers(&self, base: usize) -> &[Vec<Entry>] {
        &self.layers[base..]
    }

    /// The last entry with this name in any layer.
    pub(crate) fn find(&self, name: &str) -> Option<&Entry> {
        self.layers
            .iter()
            .rev()
            .flatten()
            .find(|entry| entry.name == name)
    }

    /// A variable of the image's environment.
    pub(crate) fn env(&self, name: &str) -> Option<&str> {
        let entries = self.config["config"]["Env"].as_array()?;
        let pairs = entries
            .iter()
            .filter_map(|entry| entry.as_str()?.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next_back()
    }
}

/// Verifies the image `tag` of the layout, and panics with the reason if it is not sound.
pub(crate) fn verify(layout: &Path, tag: &str) -> Image {
    check(layout, tag).unwrap_or_else(|reason| panic!("{}:{tag}: {reason}", layout.display()))
}

type Result<T> = std::result::Result<T, String>;

/// Verifies the image `tag` of the layout.
pub(crate) fn check(layout: &Path, tag: &str) -> Result<Image> {
    let marker: Value = parse(&read(&layout.join("oci-layout"))?)?;
    ensure(marker["imageLayoutVersion"] == "1.0.0", || {
        format!("oci-layout says {marker}")
    })?;
    let index: Value = parse(&read(&layout.join("index.json"))?)?;
    ensure(index["schemaVersion"] == 2, || {
        "index.json has another schema version".to_owned()
    })?;
    let entries = index["manifests"]
        .as_array()
        .ok_or("index.json has no manifests")?;
    let name = "org.opencontainers.image.ref.name";
    let tagged: Vec<_> = entries
        .iter()
        .filter(|entry| entry["annotations"][name] == tag)
        .collect();
    let [entry] = tagged[..] else {
        return Err(format!(
            "{} entries of index.json have the tag: {index}",
            tagged.len()
        ));
    };

    let manifest = document(layout, entry)?;
    ensure(manifest["schemaVersion"] == 2, || {
        "the manifest has another schema version".to_owned()
    })?;
    ensure(manifest["mediaType"] == entry["mediaType"], || {
        format!(
            "the manifest is not the {} that its descriptor says",
            entry["mediaType"]
        )
    })?;
    let config = document(layout, &manifest["config"])?;
    if let Some(platform) = entry.get("platform") {
        for key in ["os", "architecture", "variant"] {
            ensure(platform.get(key) == config.get(key), || {
                format!("index and config differ in {key}")
            })?;
        }
    }
    check_config(&config)?;
    // The specification's own types read both, Docker's media types included.
    from_value::<oci_spec::image::ImageManifest>(manifest.clone())
        .map_err(|error| error.to_string())?;
    from_value::<oci_spec::image::ImageConfiguration>(config.clone())
        .map_err(|error| error.to_string())?;

    let descriptors = manifest["layers"]
        .as_array()
        .ok_or("the manifest has no layers")?;
    let diff_ids = config["rootfs"]["diff_ids"]
        .as_array()
        .ok_or("the config has no diffIDs")?;
    ensure(descriptors.len() == diff_ids.len(), || {
        format!(
            "{} layers, but {} diffIDs",
            descriptors.len(),
            diff_ids.len()
        )
    })?;
    let mut layers = Vec::new();
    for (descriptor, diff_id) in descriptors.iter().zip(diff_ids) {
        check_blob(layout, descriptor)?;
        layers.push(check_layer(layout, descriptor, diff_id)?);
    }
    let history = config["history"]
        .as_array()
        .ok_or("the config has no history")?;
    let with_layer = history
        .iter()
        .filter(|entry| entry["empty_layer"] != true)
        .count();
    ensure(with_layer == layers.len(), || {
        format!(
            "{with_layer} history entries with a layer, but {} layers",
            layers.len()
        )
    })?;
    for entry in history.iter().chain([&config]) {
        let created = entry["created"].as_str().unwrap_or("none");
        ensure(is_time(created), || {
            format!("`{created}` is not a time of RFC 3339")
        })?;
    }
    let digest = text(&entry["digest"])?;
    Ok(Image {
        digest,
        manifest,
        config,
        layers,
    })
}

/// Fields that runtimes trip over when they have another shape.
fn check_config(config: &Value) -> Result<()> {
    ensure(config["os"] == "linux", || {
        format!("the os is {}", config["os"])
    })?;
    ensure(config["architecture"].is_string(), || {
        "there is no architecture".to_owned()
    })?;
    ensure(config["rootfs"]["type"] == "layers", || {
        "the rootfs is not of layers".to_owned()
    })?;
    let settings = &config["config"];
    for key in ["Env", "Entrypoint", "Cmd"] {
        let sound = match &settings[key] {
            Value::Null => true,
            Value::Array(words) => words.iter().all(Value::is_string),
            _ => false,
        };
        ensure(sound, || format!("{key} is not a list of strings"))?;
    }
    let mut names = BTreeSet::new();
    for entry in settings["Env"].as_array().into_iter().flatten() {
        let name = entry
            .as_str()
            .and_then(|entry| Some(entry.split_once('=')?.0));
        let name = name.ok_or_else(|| format!("{entry} is not a variable"))?;
        ensure(names.insert(name), || {
            format!("the variable {name} is there twice")
        })?;
    }
    let labels = &settings["Labels"];
    let strings = labels
        .as_object()
        .is_none_or(|labels| labels.values().all(Value::is_string));
    ensure(labels.is_null() || (labels.is_object() && strings), || {
        "a label is no string".to_owned()
    })
}

/// Recomputes a layer's diffID, and reads its archive with the rules that all unpackers share.
fn check_layer(layout: &Path, descriptor: &Value, diff_id: &Value) -> Result<Vec<Entry>> {
    let media_type = text(&descriptor["mediaType"])?;
    let blob = BufReader::new(open(&layout.join(blob_path(descriptor)?))?);
    let reader: Box<dyn Read> = if media_type.ends_with("gzip") {
        Box::new(flate2::bufread::MultiGzDecoder::new(blob))
    } else if media_type.ends_with("zstd") {
        Box::new(zstd::Decoder::with_buffer(blob).map_err(|error| error.to_string())?)
    } else if media_type.rsplit('.').next() == Some("tar") {
        Box::new(blob)
    } else {
        return Err(format!("a layer is `{media_type}`"));
    };
    let mut reader = Hashing {
        inner: reader,
        hash: Sha256::new(),
        bytes: 0,
    };
    let entries = entries(&mut reader)?;
    io::copy(&mut reader, &mut io::sink())
        .map_err(|error| format!("the layer ends badly: {error}"))?;
    let found = reader.digest();
    ensure(diff_id == &Value::from(found.as_str()), || {
        format!("the diffID {diff_id} should be {found}")
    })?;
    Ok(entries)
}

/// The entries of an archive, which names nothing twice and nothing outside.
pub(crate) fn entries(reader: impl Read) -> Result<Vec<Entry>> {
    let problem = |error: io::Error| format!("the archive is damaged: {error}");
    let mut names = BTreeSet::new();
    let mut found = Vec::new();
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(problem)? {
        let mut entry = entry.map_err(problem)?;
        let path = entry.path().map_err(problem)?.into_owned();
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        ensure(plain, || format!("the entry {} leads out", path.display()))?;
        let name = path
            .to_str()
            .ok_or("a name is not UTF-8")?
            .trim_matches('/')
            .to_owned();
        ensure(names.insert(name.clone()), || {
            format!("the archive names {name} twice")
        })?;
        let target = entry.link_name().map_err(problem)?;
        let target = target.map(|target| target.to_string_lossy().into_owned());
        let mut impure = false;
        if let Some(records) = entry.pax_extensions().map_err(problem)? {
            for record in records {
                let record = record.map_err(problem)?;
                let times = [b"atime".as_slice(), b"ctime", b"uname", b"gname"];
                impure |= times.contains(&record.key_bytes());
            }
        }
        let header = entry.header();
        let filled = |field: Option<&[u8]>| field.is_some_and(|field| !field.is_empty());
        impure |= filled(header.username_bytes()) || filled(header.groupname_bytes());
        found.push(Entry {
            name,
            kind: char::from(header.entry_type().as_byte()),
            mode: header.mode().map_err(problem)? & 0o7777,
            owner: (
                header.uid().map_err(problem)?,
                header.gid().map_err(problem)?,
            ),
            mtime: header.mtime().map_err(problem)?,
            impure,
            target,
        });
    }
    for link in found.iter().filter(|entry| entry.kind == '1') {
        let target = link.target.as_deref().unwrap_or_default();
        ensure(names.contains(target), || {
            format!("{} links to {target}, which is not there", link.name)
        })?;
    }
    Ok(found)
}

fn document(layout: &Path, descriptor: &Value) -> Result<Value> {
    check_blob(layout, descriptor)?;
    parse(&read(&layout.join(blob_path(descriptor)?))?)
}

/// Recomputes a blob's digest and size.
fn check_blob(layout: &Path, descriptor: &Value) -> Result<()> {
    let mut reader = Hashing {
        inner: open(&layout.join(blob_path(descriptor)?))?,
        hash: Sha256::new(),
        bytes: 0,
    };
    io::copy(&mut reader, &mut io::sink()).map_err(|error| error.to_string())?;
    ensure(descriptor["size"] == reader.bytes, || {
        format!(
            "{} has {} bytes instead of {}",
            descriptor["digest"], reader.bytes, descriptor["size"]
        )
    })?;
    let found = reader.digest();
    ensure(descriptor["digest"] == *found, || {
        format!("{} holds {found}", descriptor["digest"])
    })
}

fn blob_path(descriptor: &Value) -> Result<String> {
    let digest = text(&descriptor["digest"])?;
    let (algorithm, hex) = digest
        .split_once(':')
        .ok_or("a digest without an algorithm")?;
    Ok(format!("blobs/{algorithm}/{hex}"))
}

fn is_time(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        text.get(range)
            .is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let marks: Option<Vec<_>> = [4, 7, 10, 13, 16]
        .iter()
        .map(|&at| text.chars().nth(at))
        .collect();
    marks.is_some_and(|marks| marks == ['-', '-', 'T', ':', ':'])
        && [0..4, 5..7, 8..10, 11..13, 14..16, 17..19]
            .into_iter()
            .all(digits)
        && (text.ends_with('Z') || text.contains('+'))
}

fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(reason()) }
}

fn text(value: &Value) -> Result<String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("{value} should be a string"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| error.to_string())
}

fn open(path: &Path) -> Result<fs::File> {
    fs::File::open(path).map_err(|error| error.to_string())
}

fn parse(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R> Hashing<R> {
    fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(self.hash.clone().finalize()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.bytes += length as u64;
        Ok(length)
    }
}
