//! Other people's programs, which have to agree with this tool about its images.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use serde_json::{Value, json};

use super::{Bench, Image, User, have, succeed, verify};

/// A program of somebody else, which the bench's user calls.
pub(crate) fn program(bench: &Bench, name: &str) -> Command {
    let mut command = bench.command(name);
    let path = std::env::var("PATH").unwrap_or_default();
    // runc lives where only administrators look; containers' tools keep state in a runtime folder.
    command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("XDG_RUNTIME_DIR", bench.root().join("home"));
    command
}

/// What skopeo says about an image, such as `oci:DIR:TAG`.
pub(crate) fn skopeo_inspect(bench: &Bench, image: &str) -> Value {
    let mut command = program(bench, "skopeo");
    let text = succeed(command.args(["inspect", "--tls-verify=false", image]));
    serde_json::from_str(&text).expect("skopeo writes JSON")
}

/// The bytes of a manifest or index as skopeo gets them, such as of `docker://REFERENCE`.
pub(crate) fn skopeo_manifest(bench: &Bench, image: &str) -> Vec<u8> {
    let mut command = program(bench, "skopeo");
    succeed(command.args(["inspect", "--raw", "--tls-verify=false", image])).into_bytes()
}

/// Copies an image with skopeo, which verifies digests and sizes on the way.
pub(crate) fn skopeo_copy(bench: &Bench, from: &str, to: &str) {
    let mut command = program(bench, "skopeo");
    command.args([
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
    ]);
    succeed(command.args(["--dest-tls-verify=false", from, to]));
}

/// Unpacks an image with umoci into a bundle, rootless where the bench's user is not root.
pub(crate) fn umoci_unpack(bench: &Bench, layout: &Path, tag: &str, name: &str) -> PathBuf {
    let bundle = bench.path(name);
    let mut command = program(bench, "umoci");
    command
        .arg("unpack")
        .arg("--image")
        .arg(format!("{}:{tag}", layout.display()));
    if bench.user() != User::Root {
        command.arg("--rootless");
    }
    succeed(command.arg(&bundle));
    bundle
}

/// Runs a command, or else the image's own, in an unpacked bundle, and returns its output. crun where
/// it can be had; it refuses machines that mix both versions of control groups, runc does not.
pub(crate) fn run_bundle(bench: &Bench, bundle: &Path, command: &[&str]) -> Option<String> {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let runtime = if unified { "crun" } else { "runc" };
    if !have(&[runtime]) {
        return None;
    }
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("umoci has written it"))
        .expect("it is JSON");
    config["process"]["terminal"] = Value::Bool(false);
    if !command.is_empty() {
        config["process"]["args"] = json!(command);
    }
    fs::write(&path, config.to_string()).expect("the bundle can be written");
    let state = bench.root().join("home").join("runtime");
    let name = bundle
        .file_name()
        .expect("it has a name")
        .to_string_lossy()
        .into_owned();
    let mut run = program(bench, runtime);
    run.arg("--root")
        .arg(state)
        .args(["run", "--bundle"])
        .arg(bundle);
    Some(succeed(
        run.arg(format!("pib-{}-{name}", std::process::id())),
    ))
}

/// Builds a kept context's `Dockerfile` with Buildah, as root, from the folder `root` of that context, and returns
/// the layout and what it says; its tag is `latest`. `None` (and the test is skipped) where Buildah cannot be used.
pub(crate) fn buildah_build(
    bench: &Bench,
    context: &Path,
    root: &str,
    name: &str,
) -> Option<(PathBuf, Image)> {
    if bench.user() != User::Root || !have(&["buildah"]) {
        return None;
    }
    let state = bench.root().join("buildah");
    let buildah = || {
        let mut command = program(bench, "buildah");
        command
            .arg("--root")
            .arg(state.join("root"))
            .arg("--runroot")
            .arg(state.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    };
    let mut build = buildah();
    build.args([
        "build",
        "--isolation",
        "chroot",
        "--tls-verify=false",
        "--format",
        "oci",
    ]);
    let mut dockerfile =
        fs::read_to_string(context.join("Dockerfile")).expect("the context has a Dockerfile");
    if let Ok(bundle) = std::env::var("SSL_CERT_FILE") {
        // Buildah has no variables for the steps alone, and pip has to trust what this machine trusts.
        // Not below `/dev`, where Buildah can mount folders of its own over it.
        build
            .arg("--volume")
            .arg(format!("{bundle}:/run/ca.crt:ro"));
        let setting = "\"PIP_NO_INPUT=1\",";
        dockerfile = dockerfile.replace(setting, &format!("{setting}\"PIP_CERT=/run/ca.crt\","));
    }
    let file = bench.root().join("Dockerfile");
    fs::write(&file, dockerfile).expect("the bench can be written");
    build.arg("--file").arg(file);
    succeed(build.args(["--tag", name]).arg(context.join(root)));
    let layout = bench.path(name);
    succeed(
        buildah()
            .args(["push", name])
            .arg(format!("oci:{}:latest", layout.display())),
    );
    let image = verify(&layout, "latest");
    Some((layout, image))
}
