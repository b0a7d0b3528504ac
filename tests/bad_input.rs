//! Bad input and bad luck: one clear error with a remedy, its exit status, nothing lost and nothing
//! half-written (which the bench checks when it goes).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use fs_err as fs;

use crate::support::{Bench, Disk, User, base_layout, is_root, serve_base, succeed, verify};

/// The request itself is wrong.
const USAGE: i32 = 2;
/// The build failed.
const FAILED: i32 = 1;

/// Build files that are refused: name, text, and words that the error must hold: where it is, what is
/// wrong, and the remedy.
const BUILD_FILES: [(&str, &str, &[&str]); 18] = [
    ("unclosed list", "tag: x\nfiles: [a\n", &["build.yaml:"]),
    ("a tab", "env:\n\tA: b\n", &["build.yaml:2", "tab"]),
    ("not a mapping", "- a\n- b\n", &["build.yaml:1"]),
    (
        "unknown key",
        "tag: x\npakages: [a]\n",
        &["build.yaml:2:1", "`pakages`", "`packages`"],
    ),
    (
        "unknown key below",
        "cmds: {prae: RUN x}\n",
        &["build.yaml:1", "`prae`", "`pre`"],
    ),
    (
        "duplicate key",
        "tag: x\ntag: y\n",
        &["build.yaml:2:1", "`tag`"],
    ),
    (
        "list for a mapping",
        "env: [A]\n",
        &["build.yaml:1:6", "`env`"],
    ),
    (
        "mapping for text",
        "tag: {a: b}\n",
        &["build.yaml:1:6", "`tag`"],
    ),
    (
        "not a version",
        "python: three\n",
        &["build.yaml:1:9", "three"],
    ),
    (
        "unknown instruction",
        "cmds:\n  pre: |\n    USER x\n    RNU y\n",
        &["build.yaml:4:5", "`RNU`", "`RUN`"],
    ),
    (
        "unset variable",
        "tag: x\nenv: {A: '%ENV{NOT_SET_HERE}'}\n",
        &["build.yaml:2", "NOT_SET_HERE"],
    ),
    (
        "pip-config text",
        "pip-config: |\n  key = value\n",
        &["build.yaml:", "pip-config"],
    ),
    (
        "a repository without a url",
        "repositories: {a: {commit_id: x}}\n",
        &["build.yaml:1:16", "`url`"],
    ),
    (
        "unknown scheme",
        "files: ['gopher://example.com/a']\n",
        &["build.yaml:1:9", "gopher://", "`https://`"],
    ),
    (
        "malformed URL",
        "files: ['https://user:pa55@:x/a']\n",
        &["build.yaml:1:9", "https://***@", "URL"],
    ),
    (
        "two sources for one destination",
        "files: ['http://a/x', 'scp://b/y/x']\n",
        &["build.yaml:1:23", "`x` is taken"],
    ),
    (
        "a file and a repository for one destination",
        "files: ['http://a/x']\nrepositories: {x: {url: 'https://b/c'}}\n",
        &["build.yaml:2:16", "`x` is taken"],
    ),
    (
        "a commit that is an option",
        "repositories: {x: {url: 'https://b/c', commit_id: --upload-pack=x}}\n",
        &["build.yaml:1:51", "commit_id"],
    ),
];

#[test]
fn build_files() {
    let bench = Bench::current();
    for (name, text, words) in BUILD_FILES {
        bench.write("build.yaml", text);
        refused(&bench, &["build.yaml"], USAGE, words, name);
    }
    refused(
        &bench,
        &["missing.yaml"],
        USAGE,
        &["missing.yaml", "hint:"],
        "missing build file",
    );
    refused(
        &bench,
        &["."],
        USAGE,
        &["directory"],
        "a directory as the build file",
    );
    assert!(
        !bench.store().exists(),
        "nothing is made for a request that is wrong"
    );
}

#[test]
fn command_lines() {
    let bench = Bench::current();
    bench.write("build.yaml", "tag: x\npython: 3.11\nsystem-packages: []\n");
    for arguments in [
        &["build.yaml", "--no-such-option"][..],
        &[],
        &["build.yaml", "-o", "iso:x"],
        &["build.yaml", "--compression", "lzma"],
        &["build.yaml", "--runner", "magic"],
        &["build.yaml", "--platform", "linux"],
    ] {
        let run = bench.run(arguments);
        let errors = run.refusal(USAGE);
        assert!(errors.contains("error: "), "{arguments:?}: {errors}");
    }
    refused(
        &bench,
        &["build.yaml", "-t", "UPPER/Case"],
        USAGE,
        &["`UPPER/Case`", "hint:"],
        "tag",
    );
    refused(
        &bench,
        &["build.yaml", "--base", "not a base"],
        USAGE,
        &["`not a base`", "hint:"],
        "base",
    );
    let other = if cfg!(target_arch = "s390x") {
        "linux/amd64"
    } else {
        "linux/s390x"
    };
    refused(
        &bench,
        &["build.yaml", "--platform", other],
        USAGE,
        &[other, "hint:"],
        "platform",
    );
    bench.write("empty.yaml", "# nothing yet\n");
    let run = bench.run(["empty.yaml"]);
    assert!(
        run.refusal(USAGE).contains("the build file is empty"),
        "{}",
        run.stderr()
    );
    for time in ["yesterday", "-1", "253402300800", "9223372036854775807"] {
        let mut command = bench.tool(["build.yaml"]);
        let run = bench.finish(command.env("SOURCE_DATE_EPOCH", time));
        let words = format!("`SOURCE_DATE_EPOCH` is `{time}`");
        assert!(run.refusal(USAGE).contains(&words), "{}", run.stderr());
    }
}

#[test]
fn files_of_a_build() {
    let Some(layout) = base_layout() else { return };
    let Some(bench) = Bench::new(User::Plain) else {
        return;
    };
    let base = copy(&bench, &layout);
    bench.write("a.txt", "a");
    bench.write("b.txt", "b");
    let secret = bench.write("unreadable.txt", "x");
    fs::set_permissions(secret, PermissionsExt::from_mode(0o000)).expect("ours");
    for (name, files, words) in [
        (
            "missing source",
            "[no-such-file]",
            &["`files[0]`", "no-such-file"][..],
        ),
        (
            "unreadable source",
            "[unreadable.txt]",
            &["unreadable.txt", "ermission denied"],
        ),
        (
            "outside",
            "[{../../x: a.txt}]",
            &["../../x", "inside the workspace"],
        ),
        ("absolute", "[{/etc/passwd: a.txt}]", &["/etc/passwd"]),
        (
            "control character",
            "['scp://host/a%07b']",
            &["it has a control character"],
        ),
        ("taken", "[{x: a.txt}, {x: b.txt}]", &["taken"]),
        (
            "the build's own",
            "[{installation/build.yaml: a.txt}]",
            &["installation"],
        ),
    ] {
        bench.write(
            "build.yaml",
            format!("python: 3.11\nsystem-packages: []\nfiles: {files}\n"),
        );
        let run = bench.run(["build.yaml", "--base", &base, "-o", "oci-dir:out"]);
        let status = run.status();
        // Before or while files are staged: both are right.
        assert!(matches!(status, Some(USAGE | FAILED)), "{name}: {status:?}");
        let errors = run.stderr();
        assert_eq!(
            errors
                .lines()
                .filter(|line| line.starts_with("error: "))
                .count(),
            1,
            "{name}: {errors}"
        );
        for word in words {
            assert!(
                errors.contains(word),
                "{name}: `{word}` is missing in: {errors}"
            );
        }
    }
}

#[test]
fn registries() {
    let Some((mut registry, base)) = serve_base() else {
        return;
    };
    let layout = base_layout().expect("it was pushed");
    let bench = Bench::current();
    bench.write("build.yaml", "python: 3.11\nsystem-packages: []\n");
    let build = |base: &str, words: &[&str], name: &str| {
        refused(
            &bench,
            &["build.yaml", "--base", base, "-o", "oci-dir:out"],
            FAILED,
            words,
            name,
        );
    };
    build(
        &registry.reference("library/unknown:1"),
        &["library/unknown"],
        "unknown repository",
    );
    build(
        &registry.reference("library/python:unknown"),
        &["unknown"],
        "unknown tag",
    );

    let other = copy(&bench, &layout);
    let other = other
        .strip_prefix("oci:")
        .and_then(|name| name.rsplit_once(':'))
        .expect("a layout")
        .0;
    succeed(Command::new("umoci").args([
        "config",
        "--image",
        &format!("{other}:3.11-slim"),
        "--architecture",
        "s390x",
    ]));
    let foreign = registry.push(Path::new(other), "3.11-slim", "library/python:foreign");
    build(&foreign, &["s390x"], "another platform");

    // A registry that lies about a layer: as many bytes, but others.
    let image = verify(&layout, "3.11-slim");
    let blob = registry.blob(
        image.manifest["layers"][1]["digest"]
            .as_str()
            .expect("a digest"),
    );
    let mut bytes = fs::read(&blob).expect("the registry has it");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, &bytes).expect("ours");
    build(&base, &["sha256:"], "digest mismatch");

    registry.stop();
    build(
        &registry.reference("library/python:3.12-slim"),
        &["localhost"],
        "registry down",
    );
    let run = bench.run(["build.yaml", "--base", &base, "--offline"]);
    let errors = run.refusal(FAILED);
    assert!(errors.contains("hint:"), "{errors}");
}

#[test]
fn steps_that_fail() {
    let Some(layout) = base_layout() else { return };
    let bench = Bench::current();
    let base = copy(&bench, &layout);
    bench.write(
        "build.yaml",
        "tag: x:1\npython: 3.11\nsystem-packages: []\nenv: {PIP_NO_INDEX: '1'}\npackages: [no-such-package-of-the-tests]\n",
    );
    // pip's own words, the command and its status.
    let words = [
        "No matching distribution found for no-such-package-of-the-tests",
        "pip",
        "1",
    ];
    refused(
        &bench,
        &["build.yaml", "--base", &base, "-o", "oci-dir:out"],
        FAILED,
        &words,
        "unknown package",
    );
    let run = bench.run(["run", "x:1", "true"]);
    assert!(
        run.refusal(USAGE).contains("no image"),
        "a failed build tags nothing"
    );
    // A file that takes no room, and that would be compressed for days.
    bench.write(
        "build.yaml",
        "tag: x:1\npython: 3.11\nsystem-packages: []\ncmds: {pre: RUN truncate -s 8T /huge}\n",
    );
    refused(
        &bench,
        &["build.yaml", "--base", &base, "-o", "oci-dir:out"],
        FAILED,
        &["`/huge` has 8796093022208 bytes", "100 GiB", "hint:"],
        "a layer beyond the limit",
    );
}

#[test]
fn outputs() {
    let Some(layout) = base_layout() else { return };
    let Some(bench) = Bench::new(User::Plain) else {
        return;
    };
    let base = copy(&bench, &layout);
    bench.write("build.yaml", "python: 3.11\nsystem-packages: []\n");
    let build = |output: &str, words: &[&str], name: &str| {
        refused(
            &bench,
            &["build.yaml", "--base", &base, "-o", output],
            FAILED,
            words,
            name,
        );
    };
    let ours = bench.write("theirs/thesis.txt", "years of work");
    let file = bench.write("thesis.tar", "years of work");
    build(
        "oci-dir:theirs",
        &["`theirs`", "hint:"],
        "a folder that is no layout",
    );
    build(
        "oci-dir:thesis.tar",
        &["`thesis.tar`", "hint:"],
        "a file for a folder",
    );
    build(
        "oci-archive:thesis.tar",
        &["`thesis.tar`", "hint:"],
        "a file that is no archive",
    );
    build(
        "docker-archive:theirs",
        &["`theirs`", "hint:"],
        "a folder for a file",
    );
    build(
        "oci-dir:missing/out",
        &["missing", "hint:"],
        "no folder to write in",
    );
    for kept in [ours, file] {
        assert_eq!(
            fs::read_to_string(kept).expect("it is still there"),
            "years of work"
        );
    }
    let locked = bench.path("locked");
    fs::create_dir(&locked).expect("ours");
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o555)).expect("ours");
    build(
        "oci-archive:locked/out.tar",
        &["locked", "hint:"],
        "a folder that is read-only",
    );
    assert_eq!(fs::read_dir(&locked).expect("readable").count(), 0);
}

#[test]
fn no_permitted_runner() {
    let Some(layout) = base_layout() else { return };
    let Some(bench) = Bench::new(User::Plain) else {
        return;
    };
    let base = copy(&bench, &layout);
    bench.write("build.yaml", "python: 3.11\nsystem-packages: []\n");
    for runner in ["root", "userns-range"] {
        let arguments = [
            "build.yaml",
            "--base",
            &base,
            "--runner",
            runner,
            "-o",
            "oci-dir:out",
        ];
        refused(&bench, &arguments, FAILED, &[runner, "hint:"], runner);
    }
    let run = bench.run(["doctor", "--offline"]);
    let said = run.stdout();
    assert!(
        said.contains("userns-single: works, and is chosen"),
        "{said}"
    );
    assert_eq!(said.matches("remedy:").count(), 3, "{said}");
}

#[test]
fn a_full_disk() {
    if !is_root() {
        return;
    }
    let Some(layout) = base_layout() else { return };
    let bench = Bench::current();
    let base = copy(&bench, &layout);
    bench.write(
        "build.yaml",
        "tag: x:1\npython: 3.11\nsystem-packages: []\nenv: {PIP_NO_INDEX: '1'}\n",
    );
    let disk = Disk::mount(&bench, "small", "20m");
    let small = bench.path("small").display().to_string();
    // No room for the store, ...
    let store = format!("{small}/store");
    let arguments = ["build.yaml", "--base", &base, "--store", &store];
    refused(
        &bench,
        &arguments,
        FAILED,
        &["No space left on device", "hint:"],
        "a full store",
    );
    assert_eq!(
        fs::read_dir(format!("{store}/tmp"))
            .expect("a store")
            .count(),
        0,
        "scratch is gone"
    );
    fs::remove_dir_all(&store).expect("ours");
    // ... and none for the output, where an older one stays as it was.
    let out = format!("{small}/out.tar");
    let arguments = [
        "build.yaml",
        "--base",
        &base,
        "-o",
        &format!("oci-archive:{out}"),
    ];
    refused(
        &bench,
        &arguments,
        FAILED,
        &["No space left on device", "hint:"],
        "a full output",
    );
    assert_eq!(
        fs::read_dir(&small).expect("readable").count(),
        0,
        "nothing half-written is left"
    );
    drop(disk);
}

/// Holds that the run is refused with one error that has the words, and that nothing came to be at
/// the output `out`.
fn refused(bench: &Bench, arguments: &[&str], status: i32, words: &[&str], name: &str) {
    let run = bench.run(arguments);
    assert_eq!(run.status(), Some(status), "{name}: {}", run.stderr());
    let errors = run.stderr();
    let count = errors
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    assert_eq!(count, 1, "{name}: {errors}");
    assert!(!errors.contains("panicked"), "{name}: {errors}");
    for word in words {
        assert!(
            errors.contains(word),
            "{name}: `{word}` is missing in:\n{errors}"
        );
    }
    assert!(
        !bench.root().join("work/out").exists(),
        "{name}: there is half an output"
    );
}

/// The stand-in as `oci:DIR:TAG` where the bench's user can read it: no registry needed.
fn copy(bench: &Bench, layout: &Path) -> String {
    let base = bench.path("base");
    succeed(
        Command::new("cp")
            .args(["-r", "--no-preserve=mode"])
            .arg(layout)
            .arg(&base),
    );
    format!("oci:{}:3.11-slim", base.display())
}
