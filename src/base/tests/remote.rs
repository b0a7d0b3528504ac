use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::{Layout, Registry, empty, has, linux, on, pull, pushed, says, verify};
use crate::base::{Layers, Pull};
use crate::error::Kind;
use crate::manifest::{Descriptor, media_type};
use crate::progress::{Event, Progress};
use crate::registry::tests::server::Server;

#[test]
fn images_of_every_form_come_from_a_real_registry() {
    if !has(&["docker-registry", "skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start(directory.path());
    let layout = Layout::new(directory.path().join("layout"));
    let (amd, arm) = (linux("amd64"), linux("arm64"));
    let manifests = [
        on(&amd, layout.manifest(&amd)),
        on(&arm, layout.manifest(&arm)),
    ];
    layout.store.tag(&manifests[0], Some("single")).unwrap();
    layout
        .store
        .tag(&layout.index(&manifests), Some("index"))
        .unwrap();
    layout
        .store
        .tag(&layout.old_manifest(&amd), Some("old"))
        .unwrap();
    pushed(
        &layout.source("single"),
        &registry,
        "team/image:single",
        &["--preserve-digests"],
    );
    pushed(
        &layout.source("index"),
        &registry,
        "team/image:index",
        &["--all", "--preserve-digests"],
    );
    pushed(
        &layout.source("old"),
        &registry,
        "team/docker:1",
        &["--format", "v2s2"],
    );

    let (_directory, store) = empty();
    let base = format!("127.0.0.1:{}/team", registry.port);
    let single = pull(&format!("{base}/image:single"), &amd, Pull::Default, &store).unwrap();
    verify(&single, &store);
    assert_eq!(single.name, format!("{base}/image:single"));
    assert_eq!(single.manifest.digest, manifests[0].digest);
    for (platform, manifest) in [(&amd, &manifests[0]), (&arm, &manifests[1])] {
        let found = pull(
            &format!("{base}/image:index"),
            platform,
            Pull::Default,
            &store,
        )
        .unwrap();
        verify(&found, &store);
        assert_eq!(found.manifest.digest, manifest.digest);
        assert_eq!(found.platform.architecture, platform.architecture);
    }
    let docker = pull(
        &format!("localhost:{}/team/docker:1", registry.port),
        &amd,
        Pull::Default,
        &store,
    )
    .unwrap();
    verify(&docker, &store);
    assert_eq!(docker.manifest.media_type, media_type::DOCKER_MANIFEST);
    assert!(
        docker.layers[0]
            .descriptor
            .media_type
            .starts_with("application/vnd.docker.")
    );

    let error = pull(&format!("{base}/image:single"), &arm, Pull::Default, &store).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{base}/image:single` is for `linux/amd64` only, and not for `linux/arm64`")
    );
    let error = pull(
        &format!("{base}/image:index"),
        &linux("s390x"),
        Pull::Default,
        &store,
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is for `linux/amd64`, `linux/arm64` only"),
        "{error}"
    );
    let error = pull(&format!("{base}/nothing:1"), &amd, Pull::Default, &store).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("404") && source.contains("manifest unknown"),
        "{source}"
    );
    assert!(error.hint().unwrap().contains(&format!("{base}/nothing:1")));
}

/// A registry with an image that has one platform.
struct Served {
    _directory: tempfile::TempDir,
    registry: Registry,
    layout: Layout,
    first: Descriptor,
    name: String,
}

fn served() -> Option<Served> {
    if !has(&["docker-registry", "skopeo"]) {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::start(directory.path());
    let layout = Layout::new(directory.path().join("layout"));
    let platform = linux("amd64");
    let first = layout.index(&[on(&platform, layout.manifest(&platform))]);
    layout.store.tag(&first, Some("x")).unwrap();
    pushed(
        &layout.source("x"),
        &registry,
        "image:1",
        &["--all", "--preserve-digests"],
    );
    let name = format!("127.0.0.1:{}/image", registry.port);
    Some(Served {
        _directory: directory,
        registry,
        layout,
        first,
        name,
    })
}

#[test]
fn the_registry_is_asked_when_the_user_said_and_no_oftener() {
    let Some(Served {
        _directory,
        registry,
        layout,
        first,
        name,
    }) = served()
    else {
        return;
    };
    let platform = linux("amd64");
    let (_scratch, store) = empty();
    let tag = format!("{name}:1");

    let error = pull(&tag, &platform, Pull::Never, &store).unwrap_err();
    assert_eq!(error.to_string(), format!("`{tag}` is not in the store"));
    let before = pull(&tag, &platform, Pull::Default, &store).unwrap();

    // The tag moves; within the hour nobody asks.
    let arm = layout.manifest(&linux("arm64"));
    let second = layout.index(&[on(&linux("arm64"), arm.clone()), on(&platform, arm)]);
    layout.store.tag(&second, Some("x")).unwrap();
    for when in [Pull::Default, Pull::Missing, Pull::Never] {
        pushed(
            &layout.source("x"),
            &registry,
            "image:1",
            &["--all", "--preserve-digests"],
        );
        assert_eq!(
            pull(&tag, &platform, when, &store).unwrap().manifest,
            before.manifest
        );
    }
    // What it names now is for another machine, which only a config tells: the registry was asked.
    let error = pull(&tag, &platform, Pull::Always, &store).unwrap_err();
    says(&error, " only, and not for `");
    layout.store.tag(&first, Some("x")).unwrap();
    pushed(
        &layout.source("x"),
        &registry,
        "image:1",
        &["--all", "--preserve-digests"],
    );
    assert_eq!(
        pull(&tag, &platform, Pull::Always, &store)
            .unwrap()
            .manifest,
        before.manifest
    );
}

#[test]
fn without_a_registry_the_store_does_as_far_as_the_user_lets_it() {
    let Some(Served {
        _directory,
        registry,
        first,
        name,
        ..
    }) = served()
    else {
        return;
    };
    let platform = linux("amd64");
    let (_scratch, store) = empty();
    let tag = format!("{name}:1");
    let before = pull(&tag, &platform, Pull::Default, &store).unwrap();

    // A digest, of the index or of the manifest, needs no registry once it is there.
    drop(registry);
    for digest in [first.digest, before.manifest.digest] {
        let found = pull(&format!("{name}@{digest}"), &platform, Pull::Always, &store).unwrap();
        assert_eq!(found.manifest.digest, before.manifest.digest);
    }
    assert_eq!(
        pull(&tag, &platform, Pull::Default, &store)
            .unwrap()
            .manifest,
        before.manifest
    );
    let error = pull(&tag, &platform, Pull::Always, &store).unwrap_err();
    says(&error, "failed to pull `");

    // After the hour the store does too, with a warning.
    let file = fs_err::read_dir(store.root().join("resolved"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut resolved: serde_json::Value =
        serde_json::from_slice(&fs_err::read(&file).unwrap()).unwrap();
    resolved["at"] = json!(resolved["at"].as_u64().unwrap() - 3601);
    fs_err::write(&file, resolved.to_string()).unwrap();
    let events = Arc::<Mutex<Vec<Event>>>::default();
    let sink = events.clone();
    let progress = Progress::new(move |event| sink.lock().unwrap().push(event));
    let client = crate::registry::tests::client();
    let source = tag.parse().unwrap();
    let old = crate::base::pull(
        &source,
        &platform,
        Pull::Default,
        Layers::Now,
        &client,
        &store,
        &progress,
    )
    .unwrap();
    assert_eq!(old.manifest, before.manifest);
    let warnings = events
        .lock()
        .unwrap()
        .iter()
        .filter(|event| matches!(event, Event::Warning(_)))
        .count();
    assert_eq!(warnings, 1);

    fs_err::remove_file(store.blob_path(&before.layers[1].descriptor.digest)).unwrap();
    let error = pull(&tag, &platform, Pull::Never, &store).unwrap_err();
    assert!(
        error.to_string().contains("1 of its blobs are missing"),
        "{error}"
    );
}

#[test]
fn after_the_hour_one_head_request_tells_that_nothing_changed() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().join("layout"));
    let platform = linux("amd64");
    let index = layout.index(&[on(&platform, layout.manifest(&platform))]);
    let (root, blobs) = (index.clone(), layout.store.clone());
    let transfers = Arc::new(AtomicUsize::new(0));
    let count = transfers.clone();
    let server = Server::start(move |request, reply| {
        let name = request.path.rsplit('/').next().unwrap();
        let digest = name.parse().unwrap_or(root.digest);
        let bytes = fs_err::read(blobs.blob_path(&digest)).unwrap();
        if request.method == "HEAD" {
            let digest = format!("Docker-Content-Digest: {digest}");
            let length = format!("Content-Length: {}", bytes.len());
            return reply.raw(
                "200 OK",
                &[
                    &digest,
                    &length,
                    "Content-Type: application/vnd.oci.image.index.v1+json",
                ],
                b"",
            );
        }
        count.fetch_add(1, Ordering::SeqCst);
        reply.send("200 OK", &[], &bytes);
    });
    let (_directory, store) = empty();
    let name = format!("{}/image:1", server.address);
    let first = pull(&name, &platform, Pull::Default, &store).unwrap();
    verify(&first, &store);
    assert_eq!(
        transfers.load(Ordering::SeqCst),
        6,
        "index, manifest, config and three layers"
    );
    let again = pull(&name, &platform, Pull::Always, &store).unwrap();
    assert_eq!(again.manifest, first.manifest);
    assert_eq!(transfers.load(Ordering::SeqCst), 6);
    assert_eq!(server.requests().last().unwrap().method, "HEAD");
}

#[test]
fn a_build_that_was_told_to_stop_says_so_and_leaves_nothing() {
    let server = Server::start(|_, reply| reply.send("200 OK", &[], b"{}"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file.tar");
    fs_err::write(&file, super::archive(&[("index.json", b"{}")])).unwrap();
    let progress = Progress::silent();
    progress.stop();
    let client = crate::registry::tests::client();
    for source in [
        format!("{}/x", server.address),
        format!("oci-archive:{}", file.display()),
    ] {
        let (_directory, store) = empty();
        let (source, platform) = (source.parse().unwrap(), linux("amd64"));
        let error = crate::base::pull(
            &source,
            &platform,
            Pull::Default,
            Layers::Now,
            &client,
            &store,
            &progress,
        )
        .unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    }
}
