//! The readers of what others write, by name, as fuzzers call them. Each takes any bytes; a panic, a hang or a broken
//! law is a fault. `tests/fuzz.rs` calls them in every test run, and `tests/fuzz/run.sh` with coverage feedback.

use std::path::Path;

use fs_err as fs;

use crate::base::{Source, document};
use crate::buildfile::{BuildFile, Snapshot};
use crate::digest::{DiffId, Digest};
use crate::dockerfile::{self, State};
use crate::layer::{self, UnpackRequest};
use crate::manifest::{Descriptor, Layer, Platform, media_type};
use crate::output::Output;
use crate::registry::{Reference, login, mirrors};
use crate::secret::mask;
use crate::sources::ssh::{config, known_hosts};

/// What takes any bytes.
pub type Target = fn(&[u8]);

/// All of them.
pub const TARGETS: [(&str, Target); 10] = [
    ("build_file", build_file),
    ("dockerfile", dockerfile),
    ("reference", reference),
    ("auth_json", login::file::fuzz),
    ("registries_conf", registries_conf),
    ("known_hosts", known_hosts_file),
    ("ssh_config", ssh_config),
    ("layer", unpack),
    ("manifest", manifest),
    ("snapshot", snapshot),
];

/// Calls the target of this name, if there is one.
pub fn call(name: &str, bytes: &[u8]) {
    for (_, target) in TARGETS.iter().filter(|(known, _)| *known == name) {
        target(bytes);
    }
}

fn build_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lookup = |name: &str| (!name.starts_with("NO")).then(|| "a value".to_owned());
    match BuildFile::parse("build.yaml", &text, &lookup) {
        // What the image is given can be read again.
        Ok(buildfile) => drop(BuildFile::parse("masked", &buildfile.masked, &lookup)),
        Err(error) => drop((error.to_string(), error.hint())),
    }
}

fn snapshot(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Snapshot::parse("snapshot.yaml", &text) {
        Ok(snapshot) => drop(BuildFile::default().join(snapshot)),
        Err(error) => drop((error.to_string(), error.hint())),
    }
}

fn dockerfile(bytes: &[u8]) {
    let instructions = match dockerfile::parse(&String::from_utf8_lossy(bytes)) {
        Ok(instructions) => instructions,
        Err(errors) => {
            for error in errors {
                let _ = error.to_string();
            }
            return;
        }
    };
    let mut state = State::new(dockerfile::Config::default(), []);
    for instruction in &instructions {
        if let Err(error) = state.apply(instruction) {
            drop((error.to_string(), error.hint()));
        }
    }
    let _ = state.environment();
}

fn reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }
    let _ = (text.parse::<Source>(), text.parse::<Output>());
    let masked = mask(&text);
    assert_eq!(mask(&masked), masked, "{text:?}");
}

fn registries_conf(bytes: &[u8]) {
    let images = ["alpine", "registry.example.com:5000/team/image:1.0"];
    let images = images.map(|image| image.parse().ok());
    let images: Vec<Reference> = images.into_iter().flatten().collect();
    mirrors::fuzz(&String::from_utf8_lossy(bytes), &images);
}

fn known_hosts_file(bytes: &[u8]) {
    known_hosts::fuzz(&String::from_utf8_lossy(bytes));
}

fn ssh_config(bytes: &[u8]) {
    config::fuzz(&String::from_utf8_lossy(bytes));
}

fn manifest(bytes: &[u8]) {
    document::fuzz(bytes, &Platform::host());
}

/// A layer that nothing is compressed in, unpacked: nothing may come to lie beside the tree.
fn unpack(bytes: &[u8]) {
    let bytes = &with_checksums(bytes)[..];
    let Ok(folder) = tempfile::tempdir() else {
        return;
    };
    let (blob, rootfs) = (folder.path().join("blob"), folder.path().join("rootfs"));
    if fs::write(&blob, bytes).is_err() || fs::create_dir(&rootfs).is_err() {
        return;
    }
    let digest = Digest::of(bytes);
    let layer = Layer {
        descriptor: Descriptor::new(media_type::OCI_LAYER, digest, bytes.len() as u64),
        diff_id: DiffId(digest),
    };
    let owners = folder.path().join("owners");
    let request = UnpackRequest {
        layers: vec![(blob, layer)],
        rootfs: rootfs.clone(),
        owners: Some(owners),
        coming: None,
        is_alone: false,
    };
    if let Err(error) = layer::unpack(&request) {
        drop((error.to_string(), error.hint()));
    }
    let names = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
    assert!(names(folder.path()) <= 3, "the layer left its tree");
    let _ = layer::remove(&rootfs);
}

/// The same with right checksums in its headers, which chance does not find.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if block[257..].starts_with(b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().copied().map(u32::from).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}
