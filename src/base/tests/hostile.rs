use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Layout, archive, config, empty, gzip, linux, on, pull, says};
use crate::base::Pull;
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Descriptor, Platform, media_type};
use crate::store::Store;

/// What comes of the image `x` in a layout that `make` filled.
fn outcome(make: impl FnOnce(&Layout) -> Descriptor) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().join("layout"));
    let root = make(&layout);
    layout.store.tag(&root, Some("x")).unwrap();
    failed(&layout.source("x"))
}

fn failed(source: &str) -> Error {
    let (_directory, store) = empty();
    let error = pull(source, &linux("amd64"), Pull::Default, &store).unwrap_err();
    assert_clean(&store);
    error
}

/// Nothing half-written is visible, and nothing lies around.
fn assert_clean(store: &Store) {
    assert_eq!(
        fs_err::read_dir(store.root().join("tmp")).unwrap().count(),
        0
    );
    for blob in fs_err::read_dir(store.root().join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let digest = Digest::of(&fs_err::read(&path).unwrap());
        assert!(path.ends_with(digest.hex()));
    }
}

fn amd() -> Platform {
    linux("amd64")
}

fn document(layout: &Layout, value: &Value) -> Descriptor {
    layout.store.put_json("", value).unwrap()
}

#[test]
fn documents_that_are_not_images_are_refused_with_the_reason() {
    let error = outcome(|layout| document(layout, &json!({ "schemaVersion": 1, "fsLayers": [] })));
    assert!(error.to_string().contains("schema 1"), "{error}");
    let error = outcome(|layout| {
        let mut both = layout
            .store
            .read_json::<Value>(&layout.manifest(&amd()))
            .unwrap();
        both["manifests"] = json!([]);
        document(layout, &both)
    });
    assert!(
        error.to_string().contains("it is an index as well"),
        "{error}"
    );
    let error = outcome(|layout| {
        let mut liar = layout
            .store
            .read_json::<Value>(&layout.manifest(&amd()))
            .unwrap();
        liar["mediaType"] = json!(media_type::OCI_INDEX);
        document(layout, &liar)
    });
    assert!(error.to_string().contains("which it is not"), "{error}");
    let error = outcome(|layout| layout.store.put("", b"\x1f\x8b no json").unwrap());
    says(&error, "` is invalid: ");
    let error = outcome(|layout| {
        let manifest = layout.store.read(&layout.manifest(&amd())).unwrap();
        let text = String::from_utf8(manifest).unwrap();
        let twice = text.replacen('{', "{\"layers\":[],", 1);
        layout.store.put("", twice.as_bytes()).unwrap()
    });
    assert!(
        error.to_string().contains("duplicate field `layers`"),
        "{error}"
    );
    let error = outcome(|layout| document(layout, &json!([])));
    assert!(
        error
            .to_string()
            .contains("neither a manifest nor an index"),
        "{error}"
    );
}

#[test]
fn layers_that_cannot_be_used_are_named() {
    let with_layer = |media_type: &'static str| {
        outcome(move |layout| {
            let layer = layout.store.put(media_type, b"x").unwrap();
            layout.raw_manifest(&config(&amd(), &json!([layer.digest])), &json!([layer]))
        })
    };
    let error = with_layer("application/x-squashfs");
    assert!(
        error
            .to_string()
            .ends_with("unknown type `application/x-squashfs`"),
        "{error}"
    );
    let error = with_layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    says(&error, "which is not distributed with the image");
    let error = outcome(|layout| {
        let digest = format!("sha512:{}", "0".repeat(128));
        let layer = json!({ "mediaType": media_type::OCI_LAYER, "digest": digest, "size": 1 });
        layout.raw_manifest(&config(&amd(), &json!([])), &json!([layer]))
    });
    assert!(
        error.to_string().contains("only sha256 is supported"),
        "{error}"
    );
    let error = outcome(|layout| {
        let layer = layout.store.put(media_type::OCI_LAYER, b"x").unwrap();
        layout.raw_manifest(&config(&amd(), &json!([])), &json!([layer]))
    });
    assert!(
        error
            .to_string()
            .ends_with("has 1 layers, but its config names 0"),
        "{error}"
    );
    let error = outcome(|layout| {
        let config = layout
            .store
            .put("application/vnd.cncf.helm.config.v1+json", b"{}")
            .unwrap();
        document(
            layout,
            &json!({ "schemaVersion": 2, "config": config, "layers": [] }),
        )
    });
    says(&error, "is not a container image");
    let error = outcome(|layout| {
        let mut descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::of(b"gone"), 4);
        descriptor
            .annotations
            .insert("a".to_owned(), "b".to_owned());
        layout.raw_manifest(
            &config(&amd(), &json!([descriptor.digest])),
            &json!([descriptor]),
        )
    });
    says(&error, "has no `blobs/");
    for (bytes, size) in [(&b"othr"[..], 4), (b"longer than that", 4), (b"s", 4)] {
        let error = outcome(|layout| {
            let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::of(b"gone"), size);
            fs_err::write(layout.store.blob_path(&descriptor.digest), bytes).unwrap();
            layout.raw_manifest(
                &config(&amd(), &json!([descriptor.digest])),
                &json!([descriptor]),
            )
        });
        says(&error, "` is damaged");
    }
}

#[test]
fn the_best_platform_is_chosen_through_nested_indexes() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().join("layout"));
    let variant = |text: &str| on(&text.parse().unwrap(), layout.manifest(&linux("arm")));
    let made = |descriptors: &[Descriptor]| layout.index(descriptors);
    let mut v6 = variant("linux/arm/v6");
    v6.digest = Digest::of(b"never read");
    let attestation = on(&"unknown/unknown".parse().unwrap(), v6.clone());
    let inner = made(&[attestation.clone(), v6.clone(), variant("linux/arm/v7")]);
    layout.store.tag(&made(&[inner]), Some("x")).unwrap();
    for wanted in ["linux/arm/v7", "linux/arm"] {
        let (_directory, store) = empty();
        pull(
            &layout.source("x"),
            &wanted.parse().unwrap(),
            Pull::Default,
            &store,
        )
        .unwrap();
    }
    let (_directory, store) = empty();
    let error = pull(&layout.source("x"), &amd(), Pull::Default, &store).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is for `linux/arm/v6`, `linux/arm/v7` only"),
        "{error}"
    );

    let error =
        outcome(|layout| (0..20).fold(layout.index(&[]), |inner, _| layout.index(&[inner])));
    assert!(error.to_string().contains("too many indexes"), "{error}");
}

#[test]
fn archives_that_lie_about_their_entries_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file.tar");
    let load = |bytes: &[u8]| {
        fs_err::write(&file, bytes).unwrap();
        failed(&format!("oci-archive:{}", file.display()))
    };
    let marker: (&str, &[u8]) = ("oci-layout", b"{}");
    let mut huge = archive(&[marker, ("index.json", &vec![b' '; (4 << 20) + 1])]);
    says(&load(&huge), "has more than");
    huge.truncate(1 << 20);
    says(&load(&huge), "has more than");
    let whole = archive(&[marker, ("index.json", &[b' '; 5000])]);
    says(&load(&whole[..4096]), "is not readable as a tar archive");
    says(
        &load(&gzip(&whole)[..60]),
        "is not readable as a tar archive",
    );
    says(
        &load(b"neither a tar nor anything else"),
        "is not readable as a tar archive",
    );
    says(&load(b""), "it has no `oci-layout`");
    // An entry of 8 EiB that is not there.
    let mut header = tar::Header::new_gnu();
    header.set_path("index.json").unwrap();
    header.set_size(u64::MAX >> 1);
    header.set_cksum();
    let bytes = [&archive(&[marker])[..1024], header.as_bytes()].concat();
    says(&load(&bytes), "has more than");
    header.set_path("other").unwrap();
    header.set_cksum();
    let bytes = [&archive(&[marker])[..1024], header.as_bytes()].concat();
    load(&bytes);
}

#[test]
fn names_in_archives_are_never_paths_of_this_machine() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file.tar");
    for name in ["/etc/hostname", "../../../etc/hostname", "../outside"] {
        fs_err::write(directory.path().join("outside"), b"{}").unwrap();
        let listing = json!([{ "Config": name, "Layers": [] }]).to_string();
        fs_err::write(&file, archive(&[("manifest.json", listing.as_bytes())])).unwrap();
        let error = failed(&format!("docker-archive:{}", file.display()));
        says(
            &error,
            &format!("has no `{name}`, which the image consists of"),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_to_an_archive_makes_the_reader_panic(at in 0..12_000_usize, with in any::<u8>()) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("layout"));
        let root = layout.manifest(&amd());
        let index = json!({ "schemaVersion": 2, "manifests": [root] }).to_string();
        let blobs: Vec<(String, Vec<u8>)> = fs_err::read_dir(layout.path.join("blobs/sha256")).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            (format!("blobs/sha256/{}", path.file_name().unwrap().display()), fs_err::read(path).unwrap())
        }).collect();
        let mut entries: Vec<(&str, &[u8])> = vec![("oci-layout", b"{}"), ("index.json", index.as_bytes())];
        entries.extend(blobs.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])));
        let mut bytes = archive(&entries);
        let at = at % bytes.len();
        bytes[at] ^= with;
        let file = directory.path().join("file.tar");
        fs_err::write(&file, bytes).unwrap();
        let (_directory, store) = empty();
        let source = format!("oci-archive:{}", file.display());
        if let Ok(base) = pull(&source, &amd(), Pull::Default, &store) {
            super::verify(&base, &store);
        }
        assert_clean(&store);
    }
}
