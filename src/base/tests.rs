//! Bases from real registries and from files that other people's programs wrote.

mod files;
mod hostile;
mod remote;

use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Base, Pull, Source};
use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::manifest::{Descriptor, Platform, media_type};
use crate::progress::Progress;
use crate::store::Store;

/// Whether all of `programs` are installed; says loudly which is not.
pub(crate) fn has(programs: &[&str]) -> bool {
    for program in programs {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
        });
        if !found {
            skip(&format!("`{program}` is not installed"));
            return false;
        }
    }
    true
}

#[expect(clippy::print_stderr, reason = "a skipped test has to be heard")]
fn skip(reason: &str) {
    assert!(
        std::env::var_os("REQUIRE_ALL").is_none_or(|value| value != "1"),
        "cannot run: {reason}"
    );
    eprintln!("SKIPPED: {reason}");
}

/// Waits until somebody listens on a local port.
pub(crate) fn wait_for(port: u16) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "nobody listens on {port}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Debian's registry, on a port of its own, with its storage in a folder of the test.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    fn start(directory: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = directory.join("registry.yml");
        let storage = directory.join("registry");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            storage.display()
        );
        fs_err::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(port);
        Self { child, port }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skopeo(arguments: &[&str]) {
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "skopeo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn pushed(layout: &str, registry: &Registry, name: &str, options: &[&str]) {
    let target = format!("docker://127.0.0.1:{}/{name}", registry.port);
    let mut arguments = options.to_vec();
    arguments.extend(["--dest-tls-verify=false", layout, &target]);
    skopeo(&arguments);
}

fn linux(architecture: &str) -> Platform {
    format!("linux/{architecture}").parse().unwrap()
}

/// A layer with one file, so that it is a real one.
fn layer_tar(name: &str, bytes: &[u8]) -> Vec<u8> {
    archive(&[(name, bytes)])
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

type Pack = fn(&[u8]) -> Vec<u8>;

/// A layout, since a store is one, with what it takes to put images into it.
struct Layout {
    path: PathBuf,
    store: Store,
}

impl Layout {
    fn new(path: PathBuf) -> Self {
        let store = Store::open(&path).unwrap();
        Self { path, store }
    }

    fn source(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.path.display())
    }

    /// One plain, one gzip and one zstd layer.
    fn manifest(&self, platform: &Platform) -> Descriptor {
        self.manifest_with(
            platform,
            (media_type::OCI_LAYER_ZSTD, |tar| {
                zstd::encode_all(tar, 3).unwrap()
            }),
        )
    }

    /// Without the zstd layer, which Docker's formats do not know.
    fn old_manifest(&self, platform: &Platform) -> Descriptor {
        self.manifest_with(platform, (media_type::OCI_LAYER_GZIP, gzip))
    }

    fn manifest_with(&self, platform: &Platform, last: (&str, Pack)) -> Descriptor {
        // skopeo remembers which compression a diffID had elsewhere, so each kind has content of its own.
        let content = format!("{platform} {}\n", last.0).repeat(200);
        let tars = ["a", "b", "c"].map(|name| layer_tar(name, content.as_bytes()));
        let layers = [
            (media_type::OCI_LAYER, tars[0].clone()),
            (media_type::OCI_LAYER_GZIP, gzip(&tars[1])),
            (last.0, last.1(&tars[2])),
        ];
        let layers = layers.map(|(kind, bytes)| self.store.put(kind, &bytes).unwrap());
        let diff_ids: Vec<DiffId> = tars.iter().map(|tar| DiffId(Digest::of(tar))).collect();
        self.raw_manifest(&config(platform, &json!(diff_ids)), &json!(layers))
    }

    fn raw_manifest(&self, config: &Value, layers: &Value) -> Descriptor {
        let config = self.store.put_json(media_type::OCI_CONFIG, config).unwrap();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": config,
            "layers": layers,
        });
        self.store
            .put_json(media_type::OCI_MANIFEST, &manifest)
            .unwrap()
    }

    fn index(&self, manifests: &[Descriptor]) -> Descriptor {
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests });
        self.store.put_json(media_type::OCI_INDEX, &index).unwrap()
    }
}

fn config(platform: &Platform, diff_ids: &Value) -> Value {
    json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": { "Env": ["PATH=/bin"], "Healthcheck": { "Test": ["CMD", "true"] } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "x-unknown": true,
    })
}

fn on(platform: &Platform, mut descriptor: Descriptor) -> Descriptor {
    descriptor.platform = Some(platform.clone());
    descriptor
}

fn pull(source: &str, platform: &Platform, when: Pull, store: &Store) -> Result<Base, Error> {
    let source: Source = source.parse().unwrap();
    let client = crate::registry::tests::client();
    super::pull(
        &source,
        platform,
        when,
        super::Layers::Now,
        &client,
        store,
        &Progress::silent(),
    )
}

/// A store that is empty at first.
fn empty() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    (directory, store)
}

/// Everything that a base names is there with the bytes that its digest says, nothing is left over,
/// and each layer's content is what its diffID says.
fn verify(base: &Base, store: &Store) {
    assert_eq!(base.layers.len(), 3);
    assert_eq!(base.config["x-unknown"], true);
    assert_eq!(base.config["config"]["Healthcheck"]["Test"][1], "true");
    store.read(&base.manifest).unwrap();
    for layer in &base.layers {
        let mut bytes = Vec::new();
        std::io::copy(&mut store.open_blob(&layer.descriptor).unwrap(), &mut bytes).unwrap();
        let tar = match &bytes[..2] {
            [0x1f, 0x8b] => {
                let mut tar = Vec::new();
                std::io::copy(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut tar)
                    .unwrap();
                tar
            }
            [0x28, 0xb5] => zstd::decode_all(&bytes[..]).unwrap(),
            _ => bytes,
        };
        assert_eq!(DiffId(Digest::of(&tar)), layer.diff_id);
        let suffix = layer
            .descriptor
            .media_type
            .rsplit(['+', '.'])
            .next()
            .unwrap();
        assert!(["tar", "gzip", "zstd"].contains(&suffix), "{suffix}");
    }
    assert_eq!(
        fs_err::read_dir(store.root().join("tmp")).unwrap().count(),
        0
    );
}

/// Holds that an error says something.
fn says(error: &Error, text: &str) {
    assert!(
        error.to_string().contains(text),
        "{error}, and not `{text}`"
    );
}
