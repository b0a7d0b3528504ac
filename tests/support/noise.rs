//! Images of noise: cheap to make, of any size, the same in each run, and sound, so that pushes of many
//! megabytes need no build.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image of noise in a layout.
#[derive(Debug, Clone)]
pub(crate) struct Noise {
    /// The layout's folder.
    pub(crate) layout: PathBuf,
    /// The tag.
    pub(crate) tag: String,
    /// Of the manifest.
    pub(crate) digest: String,
    /// The manifest's bytes.
    pub(crate) manifest: Vec<u8>,
    /// The digests of its layers, lowest first.
    pub(crate) layers: Vec<String>,
}

impl Noise {
    /// What the tool calls it.
    pub(crate) fn image(&self) -> String {
        format!("oci:{}:{}", self.layout.display(), self.tag)
    }

    /// The same with another manifest, in place of the one under the tag.
    pub(crate) fn with_manifest(&self, manifest: &Value) -> Self {
        let manifest = manifest.to_string();
        let entry = put(&self.layout, MANIFEST, &manifest);
        tag_entry(&self.layout, &self.tag, entry.clone());
        Self {
            digest: text(&entry["digest"]),
            manifest: manifest.into_bytes(),
            ..self.clone()
        }
    }

    /// The same for another architecture.
    pub(crate) fn for_architecture(&self, architecture: &str) -> Self {
        let mut manifest: Value = serde_json::from_slice(&self.manifest).expect("it was made here");
        let hex = text(&manifest["config"]["digest"]).replace(':', "/");
        let config = fs::read(self.layout.join("blobs").join(hex)).expect("it was made here");
        let mut config: Value = serde_json::from_slice(&config).expect("it was made here");
        config["architecture"] = architecture.into();
        let media_type = text(&manifest["config"]["mediaType"]);
        manifest["config"] = put(&self.layout, &media_type, &config.to_string());
        self.with_manifest(&manifest)
    }

    /// The size of all its layers.
    pub(crate) fn size(&self) -> u64 {
        let manifest: Value = serde_json::from_slice(&self.manifest).expect("it was made here");
        let layers = manifest["layers"].as_array().expect("it has layers");
        layers
            .iter()
            .map(|layer| layer["size"].as_u64().expect("a number"))
            .sum()
    }
}

/// Adds an image to a layout, which is made if it is not there. Each layer, a seed and a number of bytes,
/// holds one file of noise; the same layer is the same blob in every image.
pub(crate) fn noise(layout: &Path, tag: &str, layers: &[(u64, usize)]) -> Noise {
    fs::create_dir_all(layout.join("blobs/sha256")).expect("the folder is ours");
    let marker = json!({"imageLayoutVersion": "1.0.0"}).to_string();
    fs::write(layout.join("oci-layout"), marker).expect("the folder is ours");
    let made: Vec<(Value, String)> = layers
        .iter()
        .map(|&(seed, size)| layer(layout, seed, size))
        .collect();
    let created = "2024-01-01T00:00:00Z";
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let history = json!({"created": created, "created_by": "noise"});
    let config = json!({
        "created": created, "architecture": architecture, "os": "linux", "config": {"Cmd": ["/noise"]},
        "rootfs": {"type": "layers", "diff_ids": made.iter().map(|(_, id)| id).collect::<Vec<_>>()},
        "history": vec![history; made.len()],
    });
    let config = put(
        layout,
        "application/vnd.oci.image.config.v1+json",
        &config.to_string(),
    );
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config,
        "layers": made.iter().map(|(layer, _)| layer).collect::<Vec<_>>(),
    })
    .to_string();
    let entry = put(layout, MANIFEST, &manifest);
    let digest = text(&entry["digest"]);
    tag_entry(layout, tag, entry);
    Noise {
        layout: layout.to_owned(),
        tag: tag.to_owned(),
        digest,
        manifest: manifest.into_bytes(),
        layers: made
            .iter()
            .map(|(layer, _)| text(&layer["digest"]))
            .collect(),
    }
}

/// Puts a manifest under a tag, which no other has then.
fn tag_entry(layout: &Path, tag: &str, mut entry: Value) {
    let name = "org.opencontainers.image.ref.name";
    entry["annotations"] = json!({name: tag});
    let index = layout.join("index.json");
    let mut value: Value = fs::read(&index).map_or_else(
        |_| json!({"schemaVersion": 2, "manifests": []}),
        |bytes| serde_json::from_slice(&bytes).expect("it was made here"),
    );
    let entries = value["manifests"].as_array_mut().expect("a list");
    entries.retain(|entry| entry["annotations"][name] != tag);
    entries.push(entry);
    fs::write(&index, value.to_string()).expect("the folder is ours");
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn put(layout: &Path, media_type: &str, content: &str) -> Value {
    let hex = hex::encode(Sha256::digest(content));
    fs::write(layout.join("blobs/sha256").join(&hex), content).expect("the folder is ours");
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": content.len()})
}

/// A layer in gzip's form that compresses nothing: noise cannot be compressed, and trying takes time.
fn layer(layout: &Path, seed: u64, size: usize) -> (Value, String) {
    let path = layout.join(format!("blobs/sha256/layer-{seed}"));
    let file = Hashed::new(io::BufWriter::new(
        fs::File::create(&path).expect("the folder is ours"),
    ));
    let packed = flate2::write::GzEncoder::new(file, flate2::Compression::none());
    let mut tar = Hashed::new(packed);
    let mut header = tar::Header::new_ustar();
    header
        .set_path(format!("noise-{seed}"))
        .expect("a short name");
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    tar.write_all(header.as_bytes()).expect("there is room");
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut left = size;
    let mut block = vec![0; 1 << 16];
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let part = left.min(block.len());
        tar.write_all(&block[..part]).expect("there is room");
        left -= part;
    }
    let padding = size.next_multiple_of(512) - size + 1024;
    tar.write_all(&vec![0; padding]).expect("there is room");
    let (packed, diff_id, _) = tar.complete();
    let (mut file, digest, length) = packed.finish().expect("there is room").complete();
    file.flush().expect("there is room");
    fs::rename(&path, layout.join("blobs/sha256").join(&digest)).expect("the folder is ours");
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layer =
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": length});
    (layer, format!("sha256:{diff_id}"))
}

/// A writer that knows what has been written.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    length: u64,
}

impl<W: io::Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            length: 0,
        }
    }

    fn complete(self) -> (W, String, u64) {
        (self.inner, hex::encode(self.hash.finalize()), self.length)
    }
}

impl<W: io::Write> io::Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
