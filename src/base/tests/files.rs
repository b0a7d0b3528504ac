use std::io::{Seek as _, Write as _};
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::{
    Layout, archive, config, empty, gzip, has, layer_tar, linux, on, pull, says, skopeo, verify,
};
use crate::base::{Base, Pull, Source};
use crate::digest::{DiffId, Digest};
use crate::error::Error;
use crate::manifest::media_type;
use crate::store::Store;

fn load(source: &str, store: &Store) -> Result<Base, Error> {
    pull(source, &linux("amd64"), Pull::Never, store)
}

/// The same file, plain and compressed in every way.
fn packed(path: &Path) -> [String; 5] {
    let bytes = fs_err::read(path).unwrap();
    let other = |suffix: &str, bytes: Vec<u8>| {
        let name = format!("{}.{suffix}", path.display());
        fs_err::write(&name, bytes).unwrap();
        name
    };
    [
        path.display().to_string(),
        other("gz", gzip(&bytes)),
        other("zst", zstd::encode_all(&bytes[..], 1).unwrap()),
        other("bz2", bzip2(&bytes)),
        other("xz", xz(&bytes)),
    ]
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    // Python's module is there wherever the tests run.
    let program =
        "import lzma, sys; sys.stdout.buffer.write(lzma.compress(sys.stdin.buffer.read()))";
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(bytes).unwrap();
    input.rewind().unwrap();
    let output = std::process::Command::new("python3")
        .args(["-c", program])
        .stdin(input)
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn layers_in_archives_of_docker_are_what_the_config_says_however_they_are_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file.tar");
    let tars = ["a", "b", "c", "d", "e"].map(|name| layer_tar(name, name.as_bytes()));
    let layers = [
        tars[0].clone(),
        gzip(&tars[1]),
        zstd::encode_all(&tars[2][..], 1).unwrap(),
        bzip2(&tars[3]),
        xz(&tars[4]),
    ];
    let names = ["0", "1", "2", "3", "4"];
    let load_with = |diff_ids: &[DiffId]| {
        let config = config(&linux("amd64"), &json!(diff_ids)).to_string();
        let listing =
            json!([{ "Config": "c.json", "RepoTags": null, "Layers": names }]).to_string();
        let mut entries: Vec<(&str, &[u8])> = vec![
            ("manifest.json", listing.as_bytes()),
            ("c.json", config.as_bytes()),
        ];
        entries.extend(
            names
                .iter()
                .copied()
                .zip(layers.iter().map(|layer| &layer[..])),
        );
        fs_err::write(&file, archive(&entries)).unwrap();
        let (_directory, store) = empty();
        load(&format!("docker-archive:{}", file.display()), &store)
    };
    let diff_ids = tars.each_ref().map(|tar| DiffId(Digest::of(tar)));
    let base = load_with(&diff_ids).unwrap();
    let kept = [&tars[0], &layers[1], &layers[2], &tars[3], &tars[4]];
    for (layer, kept) in base.layers.iter().zip(kept) {
        assert_eq!(layer.descriptor.digest, Digest::of(kept));
        assert_eq!(layer.descriptor.size, kept.len() as u64);
    }
    for number in 0..names.len() {
        let mut others = diff_ids;
        others[number] = DiffId(Digest::of(b"other"));
        let error = load_with(&others).unwrap_err();
        says(&error, &format!("`{}` in `", names[number]));
        says(&error, "is damaged");
    }
}

#[test]
fn layouts_of_other_programs_are_read_as_directory_and_as_archive() {
    if !has(&["skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().join("layout"));
    let (amd, arm) = (linux("amd64"), linux("arm64"));
    let manifests = [
        on(&amd, layout.manifest(&amd)),
        on(&arm, layout.manifest(&arm)),
    ];
    layout
        .store
        .tag(&layout.index(&manifests), Some("x"))
        .unwrap();
    let copy = directory.path().join("copy");
    skopeo(&[
        "--all",
        "--preserve-digests",
        &layout.source("x"),
        &format!("oci:{}:x", copy.display()),
    ]);
    let file = directory.path().join("file.tar");
    skopeo(&[
        "--all",
        "--preserve-digests",
        &layout.source("x"),
        &format!("oci-archive:{}:docker.io/library/x:1", file.display()),
    ]);
    // Without the name of the top folder, as tar writes it, and in another order.
    let reversed = directory.path().join("reversed.tar");
    let made = std::process::Command::new("tar")
        .arg("-cf")
        .arg(&reversed)
        .arg("-C")
        .arg(&copy)
        .args(["--sort=none", "./index.json", "./blobs", "./oci-layout"])
        .status()
        .unwrap();
    assert!(made.success());

    let mut sources = vec![
        layout.source("x"),
        format!("oci:{}:x", copy.display()),
        format!("oci:{}", copy.display()),
    ];
    for file in packed(&file) {
        sources.push(format!("oci-archive:{file}:docker.io/library/x:1"));
        sources.push(format!("oci-archive:{file}"));
    }
    sources.push(format!("oci-archive:{}", reversed.display()));
    for source in sources {
        let (_directory, store) = empty();
        let base = load(&source, &store).unwrap();
        verify(&base, &store);
        assert_eq!(
            (base.name, base.manifest.digest),
            (source, manifests[0].digest)
        );
    }
}

#[test]
fn archives_of_docker_save_are_read() {
    if !has(&["skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().join("layout"));
    layout
        .store
        .tag(&layout.old_manifest(&linux("amd64")), Some("x"))
        .unwrap();
    let file = directory.path().join("file.tar");
    skopeo(&[
        &layout.source("x"),
        &format!("docker-archive:{}:python:3.11", file.display()),
    ]);
    let expected: Vec<DiffId> = {
        let (_directory, store) = empty();
        load(&layout.source("x"), &store)
            .unwrap()
            .layers
            .iter()
            .map(|layer| layer.diff_id)
            .collect()
    };
    for file in packed(&file) {
        for tag in ["", ":python:3.11", ":docker.io/library/python:3.11"] {
            let (_directory, store) = empty();
            let base = load(&format!("docker-archive:{file}{tag}"), &store).unwrap();
            verify(&base, &store);
            assert_eq!(
                base.layers
                    .iter()
                    .map(|layer| layer.diff_id)
                    .collect::<Vec<_>>(),
                expected
            );
            assert!(
                base.layers
                    .iter()
                    .all(|layer| layer.descriptor.media_type == media_type::OCI_LAYER)
            );
        }
        let error = load(&format!("docker-archive:{file}:other:1"), &empty().1).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("it has `docker.io/library/python:3.11`")
                || error.to_string().ends_with("it has `python:3.11`"),
            "{error}"
        );
    }
}

#[test]
fn old_archives_of_docker_share_layers_by_links() {
    let directory = tempfile::tempdir().unwrap();
    let tars = [
        layer_tar("a", b"a"),
        layer_tar("b", b"b"),
        gzip(&layer_tar("c", b"c")),
    ];
    let diff_ids = [&tars[0], &tars[1], &layer_tar("c", b"c")].map(|tar| DiffId(Digest::of(tar)));
    let config = config(&linux("amd64"), &json!(diff_ids)).to_string();
    let listing = json!([
        { "Config": "c.json", "RepoTags": ["one:1"], "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"] },
        { "Config": "c.json", "RepoTags": null, "Layers": [] },
    ])
    .to_string();
    // The link comes before what it leads to, and leads over a second one.
    let mut tar = tar::Builder::new(Vec::new());
    for (name, target) in [
        ("1/layer.tar", "../x/layer.tar"),
        ("x/layer.tar", "../y/layer.tar"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    }
    for (name, bytes) in [
        ("y/layer.tar", &tars[0][..]),
        ("2/layer.tar", &tars[1]),
        ("3/layer.tar", &tars[2]),
        ("c.json", config.as_bytes()),
        ("manifest.json", listing.as_bytes()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    let file = directory.path().join("old.tar");
    fs_err::write(&file, tar.into_inner().unwrap()).unwrap();
    let (_directory, store) = empty();
    let base = load(&format!("docker-archive:{}:one:1", file.display()), &store).unwrap();
    verify(&base, &store);
    assert_eq!(
        base.layers[2].descriptor.media_type,
        media_type::OCI_LAYER_GZIP
    );
    let error = load(&format!("docker-archive:{}", file.display()), &store).unwrap_err();
    assert!(
        error.to_string().ends_with("has several images: `one:1`"),
        "{error}"
    );
}

#[test]
fn tags_are_picked_and_listed() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().join("layout"));
    let (amd, arm) = (linux("amd64"), linux("arm64"));
    let error = load(&format!("oci:{}", layout.path.display()), &empty().1).unwrap_err();
    says(&error, "which the image consists of");
    layout.store.tag(&layout.manifest(&amd), Some("a")).unwrap();
    layout.store.tag(&layout.manifest(&arm), Some("b")).unwrap();
    let (_directory, store) = empty();
    verify(&load(&layout.source("a"), &store).unwrap(), &store);
    let error = load(&format!("oci:{}", layout.path.display()), &store).unwrap_err();
    assert!(
        error.to_string().ends_with("has several images: `a`, `b`"),
        "{error}"
    );
    let error = load(&layout.source("c"), &store).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("has no image `c`; it has `a`, `b`"),
        "{error}"
    );
    let error = load(&layout.source("b"), &store).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("is for `linux/arm64` only, and not for `linux/amd64`"),
        "{error}"
    );
    let error = load(&format!("oci:{}", directory.path().display()), &store).unwrap_err();
    says(&error, "it has no `oci-layout`");
    let error = load("oci:/nowhere/at/all", &store).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    let file = directory.path().join("other.tar");
    fs_err::write(&file, archive(&[("hello", b"world")])).unwrap();
    let error = load(&format!("docker-archive:{}", file.display()), &store).unwrap_err();
    says(&error, "it has no `manifest.json`");
}

#[test]
fn sources_are_told_apart_by_their_beginning() {
    let parse = |text: &str| text.parse::<Source>();
    assert_eq!(
        parse("oci:a/b:c:1"),
        Ok(Source::OciDir("a/b".into(), Some("c:1".to_owned())))
    );
    assert_eq!(
        parse("docker-archive:x.tar"),
        Ok(Source::DockerArchive("x.tar".into(), None))
    );
    assert!(matches!(parse("python:3"), Ok(Source::Registry(_))));
    for wrong in ["oci:", "oci::x", "oci:x:", "oci-archive:", ""] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
    for text in ["always", "missing", "never"] {
        assert_eq!(text.parse::<Pull>().unwrap().to_string(), text);
    }
    assert!("sometimes".parse::<Pull>().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_source_is_read_as_it_is_written(kind in "oci|oci-archive|docker-archive", path in "[^:\0]{1,9}", tag in "(:[a-z:/.]{1,9})?") {
        let text = format!("{kind}:{path}{tag}");
        prop_assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
    }
}
