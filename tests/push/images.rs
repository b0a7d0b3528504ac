//! Every kind of image and of source; what is there already is not sent again.

use fs_err as fs;
use serde_json::Value;

use super::{arrived, push, small, tool};
use crate::support::{
    Bench, Faults, Plan, Registry, noise, serve_base, skopeo_copy, skopeo_manifest, verify,
};

#[test]
fn several_tags_and_repositories_at_once() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    let names = ["team/image:1", "team/image:latest", "other/image:1"];
    let references = names.map(|name| registry.reference(name));
    let [one, two, three] = references.each_ref().map(String::as_str);
    let run = bench.finish(&mut tool(
        &bench,
        &["push", &image.image(), one, two, three],
    ));
    let lines = references
        .each_ref()
        .map(|reference| format!("{reference}@{}\n", image.digest));
    assert_eq!(run.status(), Some(0), "{}", run.stderr());
    run.stderr();
    assert_eq!(run.stdout(), lines.concat());
    for reference in &references {
        arrived(&bench, &image, reference);
    }
    // Each blob, the config among them, is sent once: the other repository gets it by a mount.
    let requests = registry.requests();
    let count = |wanted: &str| {
        let path = |path: &str| path.contains(wanted) && path.contains("/blobs/uploads/");
        requests
            .iter()
            .filter(|one| one.method == "PUT" && path(&one.path))
            .count()
    };
    let blobs = image.layers.len() + 1;
    assert_eq!((count("/team/image/"), count("/other/image/")), (blobs, 0));
    assert_eq!(requests.iter().filter(|one| one.is_mount()).count(), blobs);
}

#[test]
fn an_image_of_the_store_an_archive_and_the_files_for_scripts() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    let archive = bench.path("image.tar");
    let target = format!("oci-archive:{}:1", archive.display());
    skopeo_copy(&bench, &image.image(), &target);
    let reference = registry.reference("team/archive:1");
    let run = bench.finish(&mut tool(
        &bench,
        &[
            "push",
            "oci-archive:image.tar",
            &reference,
            "--digest-file",
            "digest",
            "--metadata-file",
            "metadata.json",
        ],
    ));
    let line = run.line();
    let read = |name: &str| fs::read_to_string(bench.path(name)).expect("it was asked for");
    assert_eq!(line, format!("{reference}@{}", read("digest").trim()));
    let metadata: Value = serde_json::from_str(&read("metadata.json")).expect("JSON");
    assert_eq!(metadata["digest"], read("digest").trim());
    arrived(&bench, &image, &reference);

    // A docker-archive has layers that are not compressed; what they hold stays.
    let docker = bench.path("docker.tar");
    let target = format!("docker-archive:{}:x:1", docker.display());
    skopeo_copy(&bench, &image.image(), &target);
    let reference = registry.reference("team/docker:1");
    let run = bench.finish(&mut tool(
        &bench,
        &["push", "docker-archive:docker.tar", &reference],
    ));
    run.line();
    let copy = bench.path("copy");
    let target = format!("oci:{}:1", copy.display());
    skopeo_copy(&bench, &format!("docker://{reference}"), &target);
    let ids = |image: &crate::support::Image| image.config["rootfs"].clone();
    assert_eq!(ids(&verify(&copy, "1")), ids(&verify(&image.layout, "1")));
}

#[test]
fn archives_for_other_machines_are_inspected_and_pushed() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = small(&bench).for_architecture("s390x");
    for kind in ["oci-archive", "docker-archive"] {
        let file = bench.path(&format!("{kind}.tar"));
        let target = format!("{kind}:{}:x:1", file.display());
        skopeo_copy(&bench, &image.image(), &target);
        let source = format!("{kind}:{kind}.tar");
        let run = bench.finish(&mut tool(&bench, &["inspect", &source]));
        let said: Value = serde_json::from_str(run.stdout()).expect("JSON");
        let said = said.get(0).unwrap_or(&said);
        assert_eq!(said["Architecture"], "s390x");
        let reference = registry.reference(&format!("team/{kind}:1"));
        bench
            .finish(&mut tool(&bench, &["push", &source, &reference]))
            .line();
    }
}

#[test]
fn media_types_are_of_one_kind() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    let reference = registry.reference("team/image:1");
    let source = image.image();
    let arguments = ["push", "--format", "docker", &source, &reference];
    let run = bench.finish(&mut tool(&bench, &arguments));
    let (_, digest) = run.line().split_once('@').expect("a digest");
    assert_ne!(digest, image.digest);
    let name = format!("docker://{reference}");
    let manifest = skopeo_manifest(&bench, &name);
    let manifest = String::from_utf8(manifest).expect("JSON");
    assert!(!manifest.contains("vnd.oci"), "{manifest}");
    assert!(manifest.contains("application/vnd.docker.distribution.manifest.v2+json"));
    let copy = bench.path("copy");
    skopeo_copy(&bench, &name, &format!("oci:{}:1", copy.display()));
    verify(&copy, "1");
}

#[test]
fn a_build_pushes_and_sends_no_layer_of_its_base() {
    let Some((registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    let text = "python: 3.11\nsystem-packages: []\nenv: {PIP_NO_INDEX: '1'}\n";
    bench.write("build.yaml", text);
    let reference = registry.reference("team/built:1");
    let before = registry.requests().len();
    let arguments = ["build.yaml", "--base", &base, "-t", &reference, "--push"];
    let run = bench.finish(&mut tool(&bench, &arguments));
    let (name, digest) = run.line().split_once('@').expect("a digest");
    assert_eq!(name, reference);
    assert_eq!(registry.tagged("team/built", "1").as_deref(), Some(digest));
    let copy = bench.path("copy");
    let target = format!("oci:{}:1", copy.display());
    skopeo_copy(&bench, &format!("docker://{reference}"), &target);
    let image = verify(&copy, "1");
    let layers = image.manifest["layers"].as_array().expect("layers");
    let requests = &registry.requests()[before..];
    for (number, layer) in layers.iter().enumerate() {
        let digest = layer["digest"].as_str().expect("a digest");
        let hex = &digest["sha256:".len()..];
        let of = |wanted: &str| {
            let hits = requests.iter().filter(|one| one.path.contains(hex));
            hits.filter(|one| one.method == wanted).count()
        };
        let mounts = requests
            .iter()
            .filter(|one| one.is_mount() && one.path.contains(hex))
            .count();
        // The stand-in has three.
        let expected = if number < 3 { (1, 0) } else { (0, 1) };
        assert_eq!(
            (mounts, of("PUT")),
            expected,
            "layer {number}: {requests:?}"
        );
    }
}

#[test]
fn what_is_there_is_not_sent_again() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let faults = Faults::start(registry.port(), Plan::quiet());
    let image = small(&bench);
    let reference = format!("{}/team/image:1", faults.host());
    push(&bench, &[], &image, &reference);
    let sent = faults.sent();
    assert!(sent >= image.size());
    let before = registry.requests().len();
    // The same tag again, as registries with immutable tags want it: nothing is put there.
    push(&bench, &[], &image, &reference);
    let again = registry.requests().split_off(before);
    assert!(
        again
            .iter()
            .all(|one| matches!(one.method.as_str(), "HEAD" | "GET")),
        "{again:?}"
    );
    // One layer more: that one alone is sent, and the config.
    let layers = [(1, 5000), (2, 70_000), (3, 300_000), (4, 900)];
    let more = noise(&image.layout, "2", &layers);
    push(
        &bench,
        &[],
        &more,
        &format!("{}/team/image:2", faults.host()),
    );
    let extra = faults.sent() - sent;
    assert!((900..10_000).contains(&extra), "{extra} bytes");
    arrived(&bench, &more, &registry.reference("team/image:2"));
}
