//! The support code itself: each check is shown to pass on what is sound and to fail on what is not.

use std::os::unix::fs::symlink;
use std::process::Command;

use fs_err as fs;
use serde_json::Value;

use crate::support::{
    Bench, Docker, Registry, Tree, User, base_layout, buildah_build, check, have, is_root,
    repository, run_bundle, serve_base, skopeo_copy, skopeo_inspect, succeed, umoci_unpack, verify,
};

const TAG: &str = "3.11-slim";

#[test]
fn the_stand_in_is_a_sound_image_with_a_python() {
    let Some(layout) = base_layout() else { return };
    let image = verify(&layout, TAG);
    assert_eq!(image.layers.len(), 3);
    assert_eq!(
        image.config["config"]["Cmd"],
        serde_json::json!(["python3"])
    );
    assert_eq!(image.env("PYTHON_VERSION"), Some("3.11"));
    assert_eq!(
        image
            .find("usr/bin/python")
            .and_then(|link| link.target.as_deref()),
        Some("python3")
    );
    let shadow = image.find("etc/shadow").expect("accounts have passwords");
    assert_eq!((shadow.mode, shadow.owner), (0o640, (0, 42)));
    // A whiteout of something that is there.
    assert!(
        image.layers[2]
            .iter()
            .any(|entry| entry.name == "usr/share/.wh.bug")
    );
    assert!(
        image.layers[0]
            .iter()
            .any(|entry| entry.name.starts_with("usr/share/bug"))
    );
}

#[test]
fn the_stand_in_has_the_same_bytes_when_a_user_makes_it() {
    let Some(layout) = base_layout() else { return };
    let expected = verify(&layout, TAG).digest;
    let Some(bench) = Bench::new(User::Plain) else {
        return;
    };
    // The scripts, where every user can read them.
    for file in [
        "testdata/lib.sh",
        "testdata/base/make.sh",
        "testdata/base/assemble.py",
    ] {
        bench.write(
            file,
            fs::read(repository().join(file)).expect("it is there"),
        );
    }
    let made = bench.path("made");
    let mut command = bench.command("bash");
    succeed(command.arg(bench.path("testdata/base/make.sh")).arg(&made));
    bench.path("made.lock");
    assert_eq!(verify(&made, TAG).digest, expected);
}

#[test]
fn verification_finds_what_is_not_sound() {
    let Some(layout) = base_layout() else { return };
    let bench = Bench::current();
    let copy = bench.path("copy");
    succeed(Command::new("cp").arg("-r").arg(&layout).arg(&copy));
    let image = verify(&copy, TAG);
    assert!(check(&copy, "other").is_err_and(|reason| reason.contains("0 entries")));

    // A flipped byte in a layer, and one byte too many.
    let digest = image.manifest["layers"][2]["digest"]
        .as_str()
        .expect("a digest");
    let blob = copy.join("blobs").join(digest.replace(':', "/"));
    let sound = fs::read(&blob).expect("a blob");
    let mut damaged = sound.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    fs::write(&blob, &damaged).expect("ours");
    assert!(check(&copy, TAG).is_err_and(|reason| reason.contains("holds sha256:")));
    damaged.push(0);
    fs::write(&blob, &damaged).expect("ours");
    assert!(check(&copy, TAG).is_err_and(|reason| reason.contains("instead of")));
    fs::write(&blob, &sound).expect("ours");

    // Configs that do not fit their layers, under digests that are right.
    let spoil = |change: &dyn Fn(&mut Value)| {
        let mut config = image.config.clone();
        change(&mut config);
        let mut manifest = image.manifest.clone();
        manifest["config"] = store(&copy, &config, &image.manifest["config"]);
        let index = copy.join("index.json");
        let mut entry: Value =
            serde_json::from_slice(&fs::read(&index).expect("there")).expect("JSON");
        entry["manifests"][0] = {
            let mut new = store(&copy, &manifest, &entry["manifests"][0]);
            new["annotations"] = entry["manifests"][0]["annotations"].clone();
            new["platform"] = entry["manifests"][0]["platform"].clone();
            new
        };
        fs::write(&index, entry.to_string()).expect("ours");
        check(&copy, TAG).err().unwrap_or_default()
    };
    assert_eq!(spoil(&|_| {}), "");
    let swapped = |config: &mut Value| {
        config["rootfs"]["diff_ids"]
            .as_array_mut()
            .expect("a list")
            .swap(0, 1);
    };
    assert!(spoil(&swapped).contains("diffID"));
    let shorter = |config: &mut Value| {
        config["history"].as_array_mut().expect("a list").pop();
    };
    assert!(spoil(&shorter).contains("history"));
    assert!(spoil(&|config| config["architecture"] = "none".into()).contains("architecture"));
    assert!(spoil(&|config| config["config"]["Cmd"] = "bash".into()).contains("Cmd"));
    assert!(spoil(&|config| config["created"] = "yesterday".into()).contains("RFC 3339"));
}

fn store(layout: &std::path::Path, value: &Value, like: &Value) -> Value {
    use sha2::Digest as _;
    let bytes = value.to_string();
    let hex = hex::encode(sha2::Sha256::digest(bytes.as_bytes()));
    fs::write(layout.join("blobs/sha256").join(&hex), &bytes).expect("ours");
    serde_json::json!({
        "mediaType": like["mediaType"], "digest": format!("sha256:{hex}"), "size": bytes.len(),
    })
}

#[test]
fn trees_differ_in_what_an_image_can_carry() {
    let bench = Bench::current();
    let folder = bench.path("trees");
    let make = |name: &str| {
        let root = folder.join(name);
        fs::create_dir_all(root.join("a/b")).expect("ours");
        fs::write(root.join("a/file"), "text").expect("ours");
        fs::hard_link(root.join("a/file"), root.join("a/again")).expect("ours");
        symlink("file", root.join("a/link")).expect("ours");
        root
    };
    let (one, two) = (make("one"), make("two"));
    let differences = || Tree::of(&one).differences(&Tree::of(&two), &[]);
    assert_eq!(differences(), [""; 0]);

    fs::remove_file(two.join("a/again")).expect("ours");
    fs::write(two.join("a/again"), "text").expect("ours");
    fs::remove_file(two.join("a/link")).expect("ours");
    symlink("again", two.join("a/link")).expect("ours");
    fs::create_dir(two.join("a/c")).expect("ours");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(two.join("a/b"), mode).expect("ours");
    insta::assert_snapshot!(differences().join("\n"), @r#"
    /a/b: mode 0755 and 0700
    /a/c: only in the second (directory)
    /a/file: hard link Some("a/again") and None
    /a/link: content file and again
    "#);
    let allowed = [("a/{b,c}", "for the test"), ("a/link", "for the test")];
    assert_eq!(
        Tree::of(&one).differences(&Tree::of(&two), &allowed).len(),
        1
    );
    assert!(Tree::of(&one).has("a/link"));
}

#[test]
fn a_registry_serves_what_was_pushed() {
    let bench = Bench::current();
    let Some((mut registry, reference)) = serve_base() else {
        return;
    };
    let image = verify(&base_layout().expect("it was pushed"), TAG);
    let said = skopeo_inspect(&bench, &format!("docker://{reference}"));
    assert_eq!(said["Digest"], *image.digest);
    assert!(
        registry
            .log()
            .contains("/v2/library/python/manifests/3.11-slim")
    );
    assert!(registry.blob(&image.digest).is_file());
    assert_eq!(reference, registry.reference("library/python:3.11-slim"));
    registry.stop();
    let port = registry
        .host()
        .split(':')
        .nth(1)
        .and_then(|port| port.parse().ok())
        .expect("a port");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    let Some(another) = Registry::start() else {
        return;
    };
    assert_ne!(another.host(), registry.host());
}

#[test]
fn every_user_can_unpack_and_run_an_image() {
    let Some(layout) = base_layout() else { return };
    if !have(&["umoci", "skopeo"]) {
        return;
    }
    for user in User::ALL {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        let copy = bench.path("copy");
        succeed(
            Command::new("cp")
                .args(["-r", "--no-preserve=mode"])
                .arg(&layout)
                .arg(&copy),
        );
        let archive = format!("oci-archive:{}:x", bench.path("image.tar").display());
        skopeo_copy(&bench, &format!("oci:{}:{TAG}", copy.display()), &archive);
        let bundle = umoci_unpack(&bench, &copy, TAG, "bundle");
        let said = run_bundle(
            &bench,
            &bundle,
            &["python3", "-c", "import os; print(os.getuid())"],
        );
        assert_eq!(said.expect("a runtime").trim(), "0", "{user:?}");
    }
}

#[test]
fn buildah_builds_a_context() {
    if !is_root() || !have(&["buildah", "umoci"]) {
        return;
    }
    let bench = Bench::current();
    let Some((_registry, reference)) = serve_base() else {
        return;
    };
    let text = format!("FROM {reference}\nCOPY hello /\nENV A=b\nRUN python3 -m venv /venv\n");
    bench.write("context/Dockerfile", text);
    bench.write("context/hello", "hello");
    let Some((layout, image)) = buildah_build(&bench, &bench.path("context"), "", "built") else {
        return;
    };
    assert_eq!(image.env("A"), Some("b"));
    assert_eq!(image.env("PIP_CERT"), None);
    let tree = Tree::of(&umoci_unpack(&bench, &layout, "latest", "bundle").join("rootfs"));
    assert!(tree.has("venv/bin/pip") && tree.has("hello"));
    assert!(!tree.has("dev/shm/ca.crt") && !tree.has("usr/share/bug"));
}

#[test]
fn docker_loads_and_runs_an_archive() {
    let Some(layout) = base_layout() else { return };
    let bench = Bench::current();
    let Some(docker) = Docker::start(&bench) else {
        return;
    };
    let archive = bench.path("docker.tar");
    let target = format!("docker-archive:{}:example.com/base:1", archive.display());
    skopeo_copy(&bench, &format!("oci:{}:{TAG}", layout.display()), &target);
    assert!(docker.load(&archive).contains("example.com/base:1"));
    let diff_ids = &verify(&layout, TAG).config["rootfs"]["diff_ids"];
    assert_eq!(
        &docker.inspect("example.com/base:1")["RootFS"]["Layers"],
        diff_ids
    );
    assert_eq!(
        docker.run("example.com/base:1", &["python3", "-c", "print(1 + 1)"]),
        "2\n"
    );
}

#[test]
#[should_panic(expected = "the errors were not looked at")]
fn errors_that_a_test_does_not_look_at_fail_it() {
    let bench = Bench::current();
    let run = bench.finish(bench.command("sh").args(["-c", "echo oops >&2"]));
    assert_eq!(run.status(), Some(0));
}

#[test]
#[should_panic(expected = "in the working directory")]
fn files_that_a_test_does_not_name_fail_it() {
    let bench = Bench::current();
    let _ = bench.finish(bench.command("sh").args(["-c", "touch surprise"]));
}
