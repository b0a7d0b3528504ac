//! What a tree becomes, whoever wrote it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use fs_err as fs;

use super::{
    FAILED, Suite, USAGE, begin, build_file, refused, same_tree, stage, succeeded, try_stage,
};
use crate::support::{GitDaemon, GitProtocol, GitRepository, Stage, is_root, succeed};

/// Mode, name and id.
type Entry<'a> = (&'a str, &'a str, &'a str);

#[test]
fn large_files_are_not_held_in_memory() {
    const SIZE: usize = 192 << 20;
    let Some((bench, folder)) = begin() else {
        return;
    };
    let repository = GitRepository::new(folder.join("large.git"));
    let blob = repository.blob(&vec![0; SIZE]);
    let tree = repository.raw_tree(&[("100644", "large", &blob)]);
    repository.commit_tree("main", &tree);
    let daemon = GitDaemon::start(&folder, GitProtocol::Current);
    let path = repository.path().display().to_string();
    for (how, url) in [
        ("by a server", daemon.url("large.git")),
        ("in a file of its own", path.clone()),
        ("in a pack", path),
    ] {
        if how == "in a pack" {
            repository.git(&["repack", "-a", "-d", "-q"]);
        }
        let text = build_file(&format!("  suite: {{url: '{url}'}}\n"));
        let peak = Stage::new(&bench).peak(&text) >> 10;
        assert!(peak < 128, "{how}: {peak} MiB");
        let file = bench.path("context/image/workspace/suite/large");
        let length = fs::metadata(file).expect("it is there").len();
        assert_eq!(length, SIZE as u64, "{how}");
    }
}

#[test]
fn hostile_trees_stay_inside() {
    let Some((bench, folder)) = begin() else {
        return;
    };
    let repository = GitRepository::new(folder.join("hostile.git"));
    let blob = repository.blob(b"planted");
    let target = repository.blob(
        bench
            .root()
            .join("home")
            .to_str()
            .expect("plain")
            .as_bytes(),
    );
    let empty = repository.blob(b"");
    let inner = repository.raw_tree(&[("100644", "planted", &blob)]);
    let link = ("120000", "link", &*target);
    let mut nested = inner.clone();
    for _ in 0..30 {
        nested = repository.raw_tree(&[("40000", "a", &nested), ("40000", "b", &nested)]);
    }
    let mut deep = inner.clone();
    for _ in 0..600 {
        deep = repository.raw_tree(&[("40000", "d", &deep)]);
    }
    let trees: [(&str, Vec<Entry<'_>>); 13] = [
        ("`..`", vec![("40000", "..", &inner)]),
        ("`.`", vec![("40000", ".", &inner)]),
        ("`../planted`", vec![("100644", "../planted", &blob)]),
        ("/planted`", vec![("100644", "/planted", &blob)]),
        ("`.git`", vec![("40000", ".git", &inner)]),
        ("`.GiT`", vec![("100644", ".GiT", &blob)]),
        ("parse filename", vec![("100644", "", &blob)]),
        ("`link`", vec![link, ("40000", "link", &inner)]),
        ("`link`", vec![link, ("100644", "link", &blob)]),
        ("`link`", vec![("120000", "link", &empty)]),
        ("`fifo`", vec![("10000", "fifo", &blob)]),
        ("two million", vec![("40000", "bomb", &nested)]),
        ("too deep", vec![("40000", "deep", &deep)]),
    ];
    for (word, entries) in trees {
        let tree = repository.raw_tree(&entries);
        repository.commit_tree("main", &tree);
        let entry = format!("  suite: {{url: '{}'}}\n", repository.path().display());
        let errors = refused(&bench, &entry, FAILED, &[word]);
        let home = fs::read_dir(bench.root().join("home"))
            .expect("ours")
            .count();
        assert_eq!(home, 0, "{word}: {errors}");
        assert!(!bench.root().join("planted").exists() && !Path::new("/planted").exists());
    }
    // These are strange, and harmless.
    let tree = repository.raw_tree(&[
        ("100664", "back\\slash", &blob),
        ("104755", "git~1", &blob),
        ("120000", "out", &target),
    ]);
    repository.commit_tree("main", &tree);
    let url = repository.path().display();
    let workspace = stage(&bench, &format!("  suite: {{url: '{url}'}}\n"));
    let mode = |name: &str| {
        let metadata = fs::symlink_metadata(workspace.join("suite").join(name));
        metadata.expect("it is there").permissions().mode() & 0o7777
    };
    assert_eq!((mode("back\\slash"), mode("git~1")), (0o644, 0o755));
    assert!(
        fs::symlink_metadata(workspace.join("suite/out"))
            .expect("there")
            .is_symlink()
    );
}

#[test]
fn what_is_not_fetched_is_said() {
    let Some((bench, folder)) = begin() else {
        return;
    };
    let repository = GitRepository::new(folder.join("parts.git"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    let id = "1111111111111111111111111111111111111111";
    repository.commit(
        "main",
        &[
            ("100644", "big.bin", pointer),
            ("160000", "vendor/lib", id),
            (
                "100644",
                ".gitattributes",
                "*.bat text eol=crlf\n*.id ident\n",
            ),
            ("100644", "run.bat", "one\ntwo\n"),
            ("100644", "x.id", "$Id$\n"),
        ],
    );
    let entry = format!("  parts: {{url: '{}'}}\n", repository.path().display());
    let run = try_stage(&bench, &entry, &[]);
    succeeded(&run);
    for word in ["submodules", "`vendor/lib`", "LFS", "`big.bin`"] {
        assert!(run.stderr().contains(word), "{word}: {}", run.stderr());
    }
    let parts = bench.path("context/image/workspace/parts");
    assert_eq!(
        fs::read_dir(parts.join("vendor/lib"))
            .expect("a directory")
            .count(),
        0
    );
    // Files are as they were committed.
    for (name, text) in [
        ("big.bin", pointer),
        ("run.bat", "one\ntwo\n"),
        ("x.id", "$Id$\n"),
    ] {
        assert_eq!(fs::read_to_string(parts.join(name)).expect("there"), text);
    }
}

#[test]
fn neither_umask_nor_configuration_matter() {
    let Some((bench, folder)) = begin() else {
        return;
    };
    let suite = Suite::new(&folder);
    let expected = suite.tree(&bench);
    let config = "[core]\n\tautocrlf = true\n\tsymlinks = false\n\tfileMode = false\n\tattributesFile = ~/attributes\n\
                  [init]\n\ttemplateDir = ~/template\n[url \"/nowhere/\"]\n\tinsteadOf = /\n";
    fs::write(bench.root().join("home/.gitconfig"), config).expect("ours");
    fs::write(bench.root().join("home/attributes"), "* text eol=crlf\n").expect("ours");
    let daemon = GitDaemon::start(&folder, GitProtocol::Current);
    for url in [
        daemon.url("suite.git"),
        suite.repository.path().display().to_string(),
    ] {
        let tool = Stage::new(&bench).command(&build_file(&format!("  suite: {{url: '{url}'}}\n")));
        let mut shell = bench.command("sh");
        shell.args(["-c", "umask 077; exec \"$@\"", "sh"]);
        shell.arg(tool.get_program()).args(tool.get_args());
        shell.envs(
            tool.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let run = bench.finish(&mut shell);
        succeeded(&run);
        same_tree(
            &bench.path("context/image/workspace/suite"),
            &expected,
            &url,
        );
    }
}

#[test]
fn a_repository_of_somebody_else() {
    if !is_root() {
        return;
    }
    let Some((bench, folder)) = begin() else {
        return;
    };
    let suite = Suite::new(&folder);
    let path = suite.repository.path().display().to_string();
    succeed(Command::new("chown").args(["-R", "nobody", &path]));
    let entry = format!("  suite: {{url: '{path}'}}\n");
    refused(
        &bench,
        &entry,
        FAILED,
        &["belongs to another user", "safe.directory"],
    );
    // As for git itself.
    let config = format!("[safe]\n\tdirectory = {path}\n");
    fs::write(bench.root().join("home/.gitconfig"), config).expect("ours");
    stage(&bench, &entry);
}

#[test]
fn a_path_that_is_taken() {
    let Some((bench, folder)) = begin() else {
        return;
    };
    let suite = Suite::new(&folder);
    let url = suite.repository.path().display();
    let two = format!("  a: {{url: '{url}'}}\n  a/x: {{url: '{url}'}}\n");
    let workspace = stage(&bench, &two);
    assert!(workspace.join("a/x/a.txt").exists());
    let taken = format!("  a: {{url: '{url}'}}\n  a/bin: {{url: '{url}'}}\n");
    refused(&bench, &taken, FAILED, &["`a/bin`", "taken"]);
    let outside = format!("  ../a: {{url: '{url}'}}\n");
    refused(&bench, &outside, USAGE, &["../a"]);
}
