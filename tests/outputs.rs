//! Output kinds, tags, labels, annotations, compression and the files for scripts.

use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};

use crate::support::{
    Bench, Docker, base_layout, have, serve_base, skopeo_copy, skopeo_inspect, verify,
};

const BUILD: &str = "tag: from-the-file:1\npython: 3.11\nsystem-packages: []\nenv: {PIP_NO_INDEX: '1'}\nlabels: {a: file, b: file}\n";

#[test]
fn every_kind_of_output_holds_the_same_image() {
    if !have(&["skopeo"]) {
        return;
    }
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write("build.yaml", BUILD);
    let dir = bench.path("image");
    let (archive, docker) = (bench.path("image.tar"), bench.path("docker.tar"));
    let files =
        ["digest", "id", "metadata.json"].map(|name| bench.path(name).display().to_string());
    // Paths and names by default: the last name of the main tag.
    let run = bench.run([
        "build.yaml",
        "--base",
        &base,
        "-t",
        "example.com/team/image:1",
        "-t",
        "other:2",
        "-o",
        "oci-dir",
        "-o",
        "oci-archive",
        "-o",
        "docker-archive:docker.tar",
        "--label",
        "b=option",
        "--annotation",
        "note=a note",
        "--digest-file",
        &files[0],
        "--iidfile",
        &files[1],
        "--metadata-file",
        &files[2],
    ]);
    let (reference, digest) = run.line().split_once('@').expect("reference@digest");
    assert_eq!(reference, "example.com/team/image:1");

    let image = verify(&dir, "1");
    assert_eq!(image.digest, digest);
    assert_eq!(verify(&dir, "2").digest, digest, "every tag is there");
    assert_eq!(
        image.config["config"]["Labels"],
        serde_json::json!({"a": "file", "b": "option"})
    );
    assert_eq!(image.manifest["annotations"]["note"], "a note");

    let archived = skopeo_inspect(&bench, &format!("oci-archive:{}:1", archive.display()));
    assert_eq!(archived["Digest"], *digest);
    let loaded = bench.path("loaded");
    skopeo_copy(
        &bench,
        &format!(
            "docker-archive:{}:example.com/team/image:1",
            docker.display()
        ),
        &format!("oci:{}:x", loaded.display()),
    );
    let loaded = verify(&loaded, "x");
    assert_eq!(loaded.config["rootfs"], image.config["rootfs"]);
    assert_eq!(loaded.config["config"], image.config["config"]);

    let read = |name: &str| fs::read_to_string(name).expect("it was asked for");
    assert_eq!(read(&files[0]), digest);
    assert_eq!(
        read(&files[1]),
        image.manifest["config"]["digest"]
            .as_str()
            .expect("a digest")
    );
    let metadata: Value = serde_json::from_str(&read(&files[2])).expect("JSON");
    assert_eq!(metadata["digest"], *digest);

    streams(&bench, &base, digest, [&docker, &archive]);

    // The same from the store, with Docker's words.
    let run = bench.run(["inspect", "example.com/team/image:1"]);
    let said: Value = serde_json::from_str(run.stdout()).expect("JSON");
    let said = if said.is_array() {
        said[0].clone()
    } else {
        said
    };
    assert_eq!(said["Id"], image.manifest["config"]["digest"]);
    assert!(said["RepoTags"].to_string().contains("other:2"), "{said}");
}

/// Archives on standard output, where nothing else goes, are those in files.
fn streams(bench: &Bench, base: &str, digest: &str, [docker, archive]: [&Path; 2]) {
    for (output, file) in [
        ("docker-archive:-", docker),
        ("oci-archive:/dev/stdout", archive),
    ] {
        let streamed = bench.path("streamed.tar");
        let tags = ["-t", "example.com/team/image:1", "-t", "other:2"];
        let options = [
            "--label",
            "b=option",
            "--annotation",
            "note=a note",
            "-o",
            output,
        ];
        let mut command = bench.tool(["build.yaml", "--base", base]);
        command.args(tags).args(options);
        command.stdout(fs::File::create(&streamed).expect("ours").into_file());
        let ended = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{said}");
        assert!(
            said.ends_with(&format!("example.com/team/image:1@{digest}\n")),
            "{said}"
        );
        let read = |path: &Path| fs::read(path).expect("it was written");
        assert!(read(&streamed) == read(file), "{output}");
    }
    let run = bench.run([
        "build.yaml",
        "--base",
        base,
        "-o",
        "oci-archive:-",
        "-o",
        "docker-archive:/dev/stdout",
    ]);
    assert!(
        run.refusal(2)
            .contains("two outputs would be written to `/dev/stdout`")
    );
    let run = bench.run(["build.yaml", "--base", base, "-o", "oci-dir:-"]);
    assert!(run.refusal(2).contains("`oci-dir:-` is not an output"));
}

#[test]
fn images_of_the_store_get_further_tags() {
    let Some(layout) = base_layout() else { return };
    let bench = Bench::current();
    let base = format!("oci:{}:3.11-slim", layout.display());
    let build = |text: &str| {
        bench.write("build.yaml", text);
        let run = bench.run(["build.yaml", "--base", &base]);
        let digest = run.line().rsplit('@').next().expect("a digest");
        digest.to_owned()
    };
    let untagged = build("{python: 3.11, system-packages: [], labels: {one: more}}");
    let digest = build(BUILD);
    let tags = |name: &str| {
        let run = bench.run(["inspect", name]);
        let said: Value = serde_json::from_str(run.stdout()).expect("JSON");
        said["RepoTags"].clone()
    };
    let own = "from-the-file:1";
    assert_eq!(tags(&digest), json!([own]));
    // It prints nothing, which the run itself checks.
    let tag = |words: &[&str]| drop(bench.run([&["tag"], words].concat()));
    tag(&["from-the-file:1", "more", "localhost:5000/team/more:2"]);
    let more = "more:latest";
    assert_eq!(
        tags("more"),
        json!([own, more, "localhost:5000/team/more:2"])
    );
    // By an id, and away from another image.
    let id = untagged.strip_prefix("sha256:").expect("a digest");
    tag(&[&id[..12], "more"]);
    assert_eq!(tags("more"), json!([more]));
    assert_eq!(tags(&untagged), json!([more]));
    assert_eq!(tags(&digest), json!([own, "localhost:5000/team/more:2"]));
    let listed = bench.run(["cache", "ls"]);
    assert!(!listed.stdout().contains(&untagged), "{}", listed.stdout());

    for (words, said) in [
        (["tag", "nothing:1", "x"], "no image `nothing:1`"),
        (["tag", &base, "x"], "others cannot be tagged"),
        (["tag", "more", "No Tag"], "not a valid tag"),
        (["tag", "more", &format!("x@{digest}")], "name a digest"),
    ] {
        let run = bench.run(words);
        let errors = run.refusal(2);
        assert!(
            errors.contains(said) && errors.contains("hint:"),
            "{errors}"
        );
    }
}

#[test]
fn docker_loads_and_runs_what_is_built() {
    let bench = Bench::current();
    let Some(docker) = Docker::start(&bench) else {
        return;
    };
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    bench.write("build.yaml", BUILD);
    let id = bench.path("id");
    let arguments = [
        "build.yaml",
        "--base",
        &base,
        "-o",
        "docker-archive:docker.tar",
        "--iidfile",
    ];
    let mut command = bench.tool(arguments);
    bench.finish(command.arg(&id)).line();
    let said = docker.load(&bench.path("docker.tar"));
    assert!(said.contains("from-the-file:1"), "{said}");
    let id = fs::read_to_string(id).expect("it was asked for");
    assert_eq!(docker.inspect("from-the-file:1")["Id"], *id);
    let script = "import os, sys; print(os.getcwd(), sys.prefix)";
    assert_eq!(
        docker.run("from-the-file:1", &["python", "-c", script]),
        "/workspace /venv\n"
    );
}

#[test]
fn compression_changes_blobs_and_nothing_else() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write("build.yaml", BUILD);
    let out = bench.path("out");
    let output = format!("oci-dir:{}", out.display());
    let mut images = Vec::new();
    for (kind, suffix) in [
        ("gzip", "tar+gzip"),
        ("gzip:9", "tar+gzip"),
        ("zstd:3", "tar+zstd"),
        ("none", "tar"),
    ] {
        let tag = format!("image:{}", images.len());
        let mut command = bench.tool([
            "build.yaml",
            "--base",
            &base,
            "-o",
            &output,
            "-t",
            &tag,
            "--compression",
            kind,
        ]);
        command.env("SOURCE_DATE_EPOCH", "1700000000");
        bench.finish(&mut command).line();
        // The layout keeps the images that were in it.
        for (number, digest) in images.iter().enumerate() {
            assert_eq!(&verify(&out, &number.to_string()).digest, digest);
        }
        let image = verify(&out, &images.len().to_string());
        let layers = image.manifest["layers"].as_array().expect("layers");
        for layer in &layers[3..] {
            let media_type = layer["mediaType"].as_str().expect("a type");
            assert!(media_type.ends_with(suffix), "{kind}: {media_type}");
        }
        let first = images.first().map(|_| verify(&out, "0"));
        assert!(
            first.is_none_or(|first| first.config == image.config),
            "{kind}"
        );
        images.push(image.digest);
    }
}

#[test]
fn docker_media_types_on_request() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write("build.yaml", BUILD);
    bench
        .run([
            "build.yaml",
            "--base",
            &base,
            "-o",
            "oci-dir:out",
            "--format",
            "docker",
        ])
        .line();
    let image = verify(&bench.path("out"), "1");
    assert_eq!(
        image.manifest["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    let text = image.manifest.to_string();
    assert!(!text.contains("vnd.oci"), "{text}");
}

#[test]
fn a_dry_run_stages_and_plans_but_builds_nothing() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write("build.yaml", BUILD);
    let context = bench.path("context");
    let path = context.to_str().expect("plain");
    let run = bench.run([
        "build.yaml",
        "--base",
        &base,
        "-o",
        "oci-dir:out",
        "-n",
        "-k",
        "-p",
        path,
    ]);
    let plan = run.stdout().to_owned();
    run.stderr();
    assert!(
        plan.contains("python3 -m venv") && plan.contains("oci-dir:out"),
        "{plan}"
    );
    for name in [
        "Dockerfile",
        "image/workspace/installation/requirements.txt",
        "image/venv",
    ] {
        assert!(context.join(name).exists(), "{name}");
    }
    assert!(!bench.root().join("work/out").exists());
}

#[test]
fn quiet_and_json_keep_to_what_they_promise() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write("build.yaml", BUILD);
    // Quiet: standard error stays empty, which the run itself checks.
    let run = bench.run(["-q", "build.yaml", "--base", &base]);
    assert!(run.stdout().contains("@sha256:"));
    let run = bench.run(["--progress", "json", "build.yaml", "--base", &base]);
    run.stdout();
    for line in run.stderr().lines() {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event["event"].is_string(), "{line}");
    }
}
