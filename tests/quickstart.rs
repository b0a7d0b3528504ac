//! A build from start to end as each kind of user: pull, pip from the real index, layers, layout; then
//! every oracle has its say about the image.

use std::path::Path;

use fs_err as fs;

use crate::support::{
    Bench, Image, Tree, User, buildah_build, have, repository, run_bundle, serve_base, skopeo_copy,
    skopeo_inspect, umoci_unpack, verify,
};

/// Where the tree of this tool's image may differ from what Buildah makes of the same context, as
/// patterns with reasons.
const ALLOWED: [(&str, &str); 6] = [
    (
        "{dev,proc,sys,run}{,/**}",
        "mount points: Buildah's RUN leaves some of its own in the layer",
    ),
    (
        "etc/{hosts,resolv.conf,hostname}",
        "Buildah's RUN leaves empty files where it bound the host's",
    ),
    (
        "**/__pycache__{,/**}",
        "pip and Python compile at the time of the step, this tool after it settled the times",
    ),
    (
        "venv/**/*.dist-info/RECORD",
        "lists the bytecode files above",
    ),
    (
        "var/{lib/apt/lists,cache/apt,log}/**",
        "apt's and dpkg's lists, caches and logs stay out of this tool's layers",
    ),
    (
        "{etc/group-,var/lib/dpkg/status-old,var/cache/ldconfig/aux-cache}",
        "so do copies of the state before, and the cache of ldconfig",
    ),
];

const FILES: [&str; 3] = [
    "testdata/quickstart/build.yaml",
    "testdata/quickstart/hello_job.py",
    "testdata/quickstart/testbed.yaml",
];

#[test]
fn as_root() {
    passes_every_oracle(User::Root, "pip");
}

#[test]
fn as_root_with_uv() {
    passes_every_oracle(User::Root, "uv");
}

#[test]
fn as_a_user_with_subordinate_ids() {
    passes_every_oracle(User::Subids, "pip");
}

#[test]
fn as_a_user_without_subordinate_ids() {
    passes_every_oracle(User::Plain, "pip");
}

fn passes_every_oracle(user: User, installer: &str) {
    if !have(&["skopeo", "umoci"]) {
        return;
    }
    let Some(bench) = Bench::new(user) else {
        return;
    };
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    for file in FILES {
        bench.write(
            file,
            fs::read(repository().join(file)).expect("it is in the repository"),
        );
    }
    let (layout, context) = (bench.path("out"), bench.path("context"));
    let output = format!("oci-dir:{}", layout.display());
    let run = bench.run([
        FILES[0],
        "--base",
        &base,
        "--output",
        &output,
        "--path",
        context.to_str().expect("plain"),
        "--keep-context",
        "--installer",
        installer,
        "--label",
        "who=test",
    ]);
    let (reference, digest) = run.line().split_once('@').expect("reference@digest");
    assert_eq!(reference, "docker.io/library/quickstart:latest");
    assert!(
        run.stderr().contains(user.runner()),
        "the runner is named: {}",
        run.stderr()
    );

    let image = verify(&layout, "latest");
    assert_eq!(image.digest, digest);
    has_the_specified_config(&image);
    layers_are_pure(&image);

    // skopeo
    let said = skopeo_inspect(&bench, &format!("oci:{}:latest", layout.display()));
    assert_eq!(said["Digest"], *digest);
    assert_eq!(said["Labels"]["who"], "test");
    let copy = bench.path("copy");
    skopeo_copy(
        &bench,
        &format!("oci:{}:latest", layout.display()),
        &format!("oci:{}:copied", copy.display()),
    );
    assert_eq!(verify(&copy, "copied").digest, digest);

    // umoci, and a runtime on what it unpacked
    let bundle = umoci_unpack(&bench, &layout, "latest", "bundle");
    let entrypoint = image.config["config"]["Entrypoint"]
        .as_array()
        .expect("an entrypoint")
        .iter();
    let mut command: Vec<_> = entrypoint
        .map(|word| word.as_str().expect("words"))
        .collect();
    command.extend(["python", "hello_job.py"]);
    let Some(said) = run_bundle(&bench, &bundle, &command) else {
        return;
    };
    assert!(said.ends_with("quickstart: job passed\n"), "{said}");

    runs_by_itself(&bench);
    if user == User::Root {
        is_what_buildah_makes(&bench, &layout, &image, &context);
    }
}

/// Buildah builds the kept context's `Dockerfile`: same config, same tree.
fn is_what_buildah_makes(bench: &Bench, layout: &Path, image: &Image, context: &Path) {
    let Some((other, built)) = buildah_build(bench, context, "", "buildah") else {
        return;
    };
    let mut theirs = built.config["config"].clone();
    // Buildah adds a label with its own version.
    if let Some(labels) = theirs["Labels"].as_object_mut() {
        labels.remove("io.buildah.version");
    }
    for key in ["Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "User"] {
        assert_eq!(image.config["config"][key], theirs[key], "{key}");
    }
    let ours = Tree::of(&umoci_unpack(bench, layout, "latest", "ours").join("rootfs"));
    let theirs = Tree::of(&umoci_unpack(bench, &other, "latest", "theirs").join("rootfs"));
    let differences = ours.differences(&theirs, &ALLOWED);
    assert!(
        differences.is_empty(),
        "{} differences between this tool and Buildah, such as:\n{}",
        differences.len(),
        differences[..differences.len().min(40)].join("\n")
    );
}

/// The tool runs commands in its image.
fn runs_by_itself(bench: &Bench) {
    let run = bench.run([
        "run",
        "-q",
        "--rm",
        "quickstart:latest",
        "python",
        "hello_job.py",
    ]);
    assert!(
        run.stdout().ends_with("quickstart: job passed\n"),
        "{}",
        run.stdout()
    );
    let run = bench.run([
        "run",
        "-q",
        "quickstart:latest",
        "python",
        "-c",
        "raise SystemExit(3)",
    ]);
    assert_eq!(run.status(), Some(3));
    // What a command writes never stays.
    let run = bench.run([
        "run",
        "-q",
        "quickstart:latest",
        "sh",
        "-c",
        "ls -A /workspace; touch /workspace/new",
    ]);
    let again = bench.run([
        "run",
        "-q",
        "quickstart:latest",
        "sh",
        "-c",
        "ls -A /workspace",
    ]);
    assert_eq!(run.stdout(), again.stdout());
}

fn has_the_specified_config(image: &Image) {
    let config = &image.config["config"];
    assert_eq!(image.env("WORKSPACE"), Some("/workspace"));
    assert_eq!(image.env("VIRTUAL_ENV"), Some("/venv"));
    assert_eq!(image.env("TESTBED"), Some("/workspace/testbeds/hello.yaml"));
    assert_eq!(
        image.env("PYTHON_VERSION"),
        Some("3.11"),
        "the base's variables stay"
    );
    assert_eq!(config["WorkingDir"], "/workspace");
    assert!(config["Cmd"].is_null(), "the base's command is gone");
    let last = config["Entrypoint"]
        .as_array()
        .and_then(|words| words.last())
        .expect("an entrypoint");
    assert_eq!(last, "/workspace/installation/entrypoint.sh");
    assert_eq!(
        config["Labels"]["org.opencontainers.image.title"],
        "quickstart"
    );
    for name in ["build.yaml", "requirements.txt", "entrypoint.sh"] {
        let name = format!("workspace/installation/{name}");
        assert!(image.find(&name).is_some(), "{name}");
    }
    let text = image.config.to_string().to_lowercase();
    for word in ["proxy", "ssl_cert_file", "pip_cert"] {
        assert!(!text.contains(word), "`{word}` is in the config");
    }
}

/// The layers that this tool made: sorted, numeric owners, nothing of the runner's.
fn layers_are_pure(image: &Image) {
    for layer in image.own_layers(3) {
        let names: Vec<_> = layer.iter().map(|entry| entry.name.as_str()).collect();
        for entry in layer {
            assert!(!entry.impure, "{entry:?}");
            assert!(entry.kind != '5' || entry.name == entry.name.trim_end_matches('/'));
        }
        for name in ["etc/resolv.conf", "etc/hosts", "root/.cache", "tmp/pip"] {
            assert!(
                !names.iter().any(|found| found.starts_with(name)),
                "{name} is in a layer"
            );
        }
        let leaves = names
            .iter()
            .filter(|name| name.starts_with("dev/") || name.starts_with("proc/"));
        assert_eq!(leaves.count(), 0);
    }
}
