//! Manifests and work trees: the same as the newest ancestor finds, and nothing that lies elsewhere.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use fs_err as fs;
use serde_json::{Value, json};

use super::{Build, ancestor};

/// All that a manifest can say, in the ways that YAML has to say it.
const MANIFEST: &str = "
type: easypy
name: Größe
description: |
  two
  lines
version: 1.10
enabled: yes
timeout: 01:30:00
tags: [common, 0x10]
arguments:
  testbed-file: ../testbeds/tb.yaml
  clean-file: clean.YAML
  other-file: ../testbeds/gone.yaml
runtimes:
  system:
    source: path/to/env
    environment: &environment {A: 1, B: 0755}
  container: {image: pyats, environment: {}}
  old: {environment: ~}
profiles:
  sanity: &sanity
    runtime: container
    tags: [fast]
    arguments: {testbed-file: /WORKSPACE/m/tb.yaml, logical-testbed-file: $HOME/tb.yaml}
  late:
    <<: *sanity
    runtime: old
    environment: *environment
  elsewhere:
    arguments: {testbed-file: ../../../../etc/tb.yaml, clean-file: 12.yaml}
  plain: {arguments: [a], runtime: unknown}
";

const TESTBED: &str = "
devices:
  uut:
    os: iosxe
    platform: cat9k
    model: ''
    type: router
    device_id: 7
    connections: {a: {ip: 10.0.0.1, port: 2001}, cli: {ip: 10.0.0.2}}
  peer: {os: nxos, logical: no, connections: {a: {ip: 10.0.0.3}}}
  text: just this
";

fn build() -> Build {
    let mut build = Build::new();
    for (name, text) in [
        ("m/full.tem", &*MANIFEST.replace("/WORKSPACE", "/pyats")),
        ("m/tb.yaml", "devices: {only: {pid: x}}\n"),
        ("m/clean.YAML", "bringup: {BringUpWorker: {module: a.b}}\n"),
        ("m/12.yaml", "devices: [a]\n"),
        ("testbeds/tb.yaml", TESTBED),
        ("m/small.tem", "type: x\n"),
        ("m/.tem", "type: hidden\ntags:\n"),
        ("m/sub/deep.tem", "{type: flow, profiles: {a: {}}}"),
        ("repo/in.tem", "type: in a repository\nrepo_path: mine\n"),
        // Nothing of these.
        ("m/empty.tem", "# nothing\n"),
        ("m/untyped.tem", "name: x\n"),
        ("m/falsy.tem", "type: ''\n"),
        ("m/list.tem", "- type\n"),
        ("m/text.tem", "type"),
        ("m/broken.tem", "type: [\n"),
        ("m/tag.tem", "type: !!python/name:os.system x\n"),
        ("m/profiles.tem", "type: x\nprofiles: [a]\n"),
        ("m/profile.tem", "type: x\nprofiles: {a: ~}\n"),
        ("m/runtimes.tem", "type: x\nruntimes: ~\n"),
        ("m/tags.tem", "type: x\ntags: a\n"),
        ("m/x.tem.txt", "type: x\n"),
    ] {
        build.write(&format!("w/{name}"), text);
    }
    build.entry(None, "w");
    build
}

fn git(folder: &str, arguments: &[&str]) {
    let mut command = Command::new("git");
    command
        .args([
            "-c",
            "user.name=me",
            "-c",
            "user.email=me@x",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(arguments)
        .current_dir(folder);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A work tree with branches and tags here and elsewhere.
fn repository(build: &Build) {
    let folder = build.source("w/repo");
    let url = "https://me:PLANTED@example.com/r.git";
    for arguments in [
        &["init", "-q"] as &[&str],
        &["commit", "-q", "--allow-empty", "-m", "one"],
        &["tag", "before"],
        &["branch", "old"],
        &["add", "in.tem"],
        &["commit", "-q", "-m", "two"],
        &["tag", "light"],
        &["tag", "-a", "-m", "packed", "packed"],
        &["branch", "feature/x"],
        &["pack-refs", "--all"],
        &["tag", "-a", "-m", "loose", "v1.0"],
        &["tag", "-a", "-m", "of a tag", "twice", "v1.0"],
        &["branch", "-f", "old", "before"],
        &["remote", "add", "origin", url],
        &["remote", "add", "other", "git@example.com:other.git"],
    ] {
        git(&folder, arguments);
    }
}

/// A file of the installation as JSON, with what the order does not matter of sorted.
fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    let text = text.replace("/pyats", "/workspace");
    let mut value: Value = serde_json::from_str(&text).unwrap();
    let by = |list: &mut Value, key: &str| {
        list.as_array_mut()
            .unwrap()
            .sort_by_key(|item| item[key].to_string());
    };
    if let Some(jobs) = value.get_mut("jobs") {
        by(jobs, "file");
        for job in jobs.as_array_mut().unwrap() {
            by(&mut job["profiles"], "name");
            by(&mut job["runtimes"], "name");
        }
    }
    value
}

#[test]
fn the_same_manifests_and_work_trees() {
    let Some(python) = ancestor::python() else {
        return;
    };
    let build = build();
    repository(&build);
    let theirs = ancestor::stage(&python, &build).join("installation");
    // The workspace has another name there.
    build.write(
        "w/m/full.tem",
        &MANIFEST.replace("/WORKSPACE", "/workspace"),
    );
    build.stage().unwrap();
    let ours = build.image("workspace/installation");
    let expected = read(&theirs.join("manifest.json"));
    assert_eq!(read(&ours.join("manifest.json")), expected);
    assert_eq!(expected["jobs"].as_array().unwrap().len(), 5);

    let mut expected = read(&theirs.join("repos.json"));
    let repository = &mut expected["/workspace/w/repo"];
    for list in ["heads", "tags"] {
        let list = repository[list].as_array_mut().unwrap();
        list.sort_by_key(ToString::to_string);
        assert!(list.len() > 1);
    }
    repository["remotes"]["origin"] = json!("https://example.com/r.git");
    assert_eq!(read(&ours.join("repos.json")), expected);
    let text = fs::read_to_string(ours.join("manifest.json")).unwrap();
    assert!(
        text.is_ascii() && text.contains("Gr\\u00f6\\u00dfe"),
        "{text}"
    );
}

#[test]
fn what_is_left_out_is_told() {
    let build = build();
    build.stage().unwrap();
    let mut warnings = build.warnings();
    warnings.sort();
    insta::assert_snapshot!(warnings.join("\n"), @"
    `../../../../etc/tb.yaml`, which the manifest `w/m/full.tem` names, is not looked at: it does not lie in the workspace
    the manifest `w/m/broken.tem` is left out: line 2: invalid YAML: while parsing a node, did not find expected node content
    the manifest `w/m/empty.tem` is left out: it is not a mapping
    the manifest `w/m/falsy.tem` is left out: it has no `type`
    the manifest `w/m/list.tem` is left out: it is not a mapping
    the manifest `w/m/profile.tem` is left out: `profiles` is not a mapping of mappings
    the manifest `w/m/profiles.tem` is left out: `profiles` is not a mapping of mappings
    the manifest `w/m/runtimes.tem` is left out: `runtimes` is not a mapping of mappings
    the manifest `w/m/tag.tem` is left out: line 1: the tag `!!python/name:os.system` is not supported here
    the manifest `w/m/tags.tem` is left out: `tags` is not a list
    the manifest `w/m/text.tem` is left out: it is not a mapping
    the manifest `w/m/untyped.tem` is left out: it has no `type`
    ");
}

#[test]
fn nothing_outside_of_the_workspace_is_read() {
    let mut build = Build::new();
    build.write("outside/x.tem", "type: outside\n");
    build.write("outside/tb.yaml", "devices: {PLANTED: {os: x}}\n");
    let outside = build.source("outside");
    build.write("w/in.tem", "type: in\narguments: {testbed-file: tb.yaml}\n");
    symlink(format!("{outside}/x.tem"), build.source("w/out.tem")).unwrap();
    symlink(format!("{outside}/tb.yaml"), build.source("w/tb.yaml")).unwrap();
    build.write(
        "w/up.tem",
        "type: up\narguments: {testbed-file: ../../outside/tb.yaml}\n",
    );
    // Repositories whose parts are elsewhere, and one that is none.
    git(&outside, &["init", "-q"]);
    git(
        &outside,
        &["commit", "-q", "--allow-empty", "-m", "PLANTED"],
    );
    for name in ["a", "b", "c", "d", "e"] {
        fs::create_dir(build.source(&format!("w/{name}"))).unwrap();
    }
    symlink(format!("{outside}/.git"), build.source("w/a/.git")).unwrap();
    build.write("w/b/.git", &format!("gitdir: {outside}/.git\n"));
    git(&build.source("w/c"), &["init", "-q"]);
    fs::remove_dir_all(build.source("w/c/.git/refs/heads")).unwrap();
    symlink(
        format!("{outside}/.git/refs/heads"),
        build.source("w/c/.git/refs/heads"),
    )
    .unwrap();
    git(&build.source("w/d"), &["init", "-q"]);
    build.write("w/e/.git", "nothing");
    build.entry(None, "w");
    build.stage().unwrap();

    let text = fs::read_to_string(build.image("workspace/installation/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let files = manifest["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["file"]);
    assert_eq!(
        files.collect::<Vec<_>>(),
        ["/workspace/w/in.tem", "/workspace/w/up.tem"]
    );
    assert!(!text.contains("PLANTED"), "{text}");
    assert!(!build.image("workspace/installation/repos.json").exists());
    // Three files that are elsewhere, and five repositories.
    assert_eq!(build.warnings().len(), 8, "{:#?}", build.warnings());
}

#[test]
fn work_trees_of_work_trees_are_described() {
    let mut build = Build::new();
    fs::create_dir(build.source("w")).unwrap();
    let main = build.source("w/main");
    fs::create_dir(&main).unwrap();
    git(&main, &["init", "-q"]);
    git(&main, &["commit", "-q", "--allow-empty", "-m", "one"]);
    git(&main, &["worktree", "add", "-q", "-b", "side", "../side"]);
    // As a submodule's, its file says where git's own files are, from here.
    build.write("w/side/.git", "gitdir: ../main/.git/worktrees/side\n");
    build.entry(None, "w");
    build.stage().unwrap();
    let repositories = read(&build.image("workspace/installation/repos.json"));
    for name in ["main", "side"] {
        let repository = &repositories[format!("/workspace/w/{name}")];
        assert_eq!(
            repository["heads"],
            json!(["main", "side"]),
            "{:?}",
            build.warnings()
        );
    }
}
