//! What is fetched: files and trees as they are, once, and what cannot be.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, SystemTime};

use fs_err as fs;

use super::{Setup, listing, staged};
use crate::support::{Bench, Sshd, User, base_layout, succeed};

#[test]
fn files_and_directories_arrive_as_they_are() {
    let Some(setup) = Setup::new() else { return };
    setup.serve("plain", "some text\n");
    let script = setup.serve("script", vec![7; 3_000_001]);
    fs::set_permissions(&script, PermissionsExt::from_mode(0o4750)).expect("ours");
    let tree = setup.server.path("data/tree");
    fs::create_dir(&tree).expect("ours");
    fs::create_dir(tree.join("sub")).expect("ours");
    fs::create_dir(tree.join("sub/empty")).expect("ours");
    for name in [
        b"with space".as_slice(),
        b"new\nline",
        b"\xff\xfe",
        b"-dash",
        b".hidden",
        b"$(touch x) '\"`;\\",
        b"sub/\xc3\xbc",
        b"sub/nothing",
    ] {
        let content = if name.ends_with(b"nothing") {
            b""
        } else {
            name
        };
        fs::write(tree.join(OsStr::from_bytes(name)), content).expect("ours");
    }
    for (name, mode) in [
        ("-dash", 0o400),
        (".hidden", 0o777),
        ("sub/empty", 0o1777),
        ("sub", 0o555),
    ] {
        fs::set_permissions(tree.join(name), PermissionsExt::from_mode(mode)).expect("ours");
    }
    fs::set_permissions(&tree, PermissionsExt::from_mode(0o750)).expect("ours");
    for (link, target) in [
        ("up", "../.."),
        ("passwd", "/etc/passwd"),
        ("broken", "no where"),
    ] {
        symlink(target, tree.join(link)).expect("ours");
    }
    symlink("tree", setup.server.path("data/link")).expect("ours");

    let (workspace, progress) = setup.stage(
        &[
            &setup.url("plain"),
            &format!("sub/renamed: {}", setup.url("script")),
            &setup.url("tree"),
            &format!("other: {}/", setup.url("link")),
        ],
        &[],
    );
    assert!(!progress.contains("warning"), "{progress}");
    assert_eq!(
        fs::read(workspace.join("plain")).expect("it came"),
        b"some text\n"
    );
    let renamed = workspace.join("sub/renamed");
    assert_eq!(fs::read(&renamed).expect("it came"), vec![7; 3_000_001]);
    let mode = fs::metadata(&renamed).expect("it came").mode() & 0o7777;
    assert_eq!(
        mode, 0o750,
        "the bit that gives others its owner's rights is gone"
    );
    let expected = listing(&tree);
    assert_eq!(expected.len(), 14);
    assert_eq!(listing(&workspace.join("tree")), expected);
    assert_eq!(
        listing(&workspace.join("other")),
        expected,
        "a link that is named is followed"
    );
}

#[test]
fn folders_go_without_what_is_excluded() {
    let Some(setup) = Setup::new() else { return };
    fs::create_dir(setup.server.path("data/tree")).expect("ours");
    for name in ["a.py", "a.pyc", ".dockerignore"] {
        setup.serve(&format!("tree/{name}"), "a.py\n");
    }
    let entry = format!("{{path: '{}', exclude: ['*.pyc']}}", setup.url("tree"));
    let (workspace, _) = setup.stage(&[&entry], &[]);
    let names = fs::read_dir(workspace.join("tree")).expect("it came");
    let mut names: Vec<_> = names
        .map(|entry| entry.expect("ours").file_name())
        .collect();
    names.sort();
    // The file of another machine's folder has no say.
    assert_eq!(names, [".dockerignore", "a.py"]);
}

#[test]
fn a_source_that_did_not_change_is_not_fetched_again() {
    let Some(setup) = Setup::new() else { return };
    let file = setup.serve("file", "one");
    let tree = setup.server.path("data/tree");
    fs::create_dir(&tree).expect("ours");
    let inner = setup.serve("tree/inner", "one");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    let write = |text: &str, time| {
        for path in [&file, &inner] {
            fs::write(path, text).expect("ours");
            let opened = fs::OpenOptions::new().write(true).open(path).expect("ours");
            opened.file().set_modified(time).expect("ours");
        }
    };
    let read = |more: &[&str]| {
        let (workspace, _) = setup.stage(&[&setup.url("file"), &setup.url("tree")], more);
        ["file", "tree/inner"]
            .map(|name| fs::read_to_string(workspace.join(name)).expect("it came"))
    };
    write("one", time);
    assert_eq!(read(&[]), ["one", "one"]);
    // The same size and time: only a server that is not asked for the content can be deceived by that.
    write("two", time);
    assert_eq!(read(&[]), ["one", "one"]);
    assert_eq!(read(&["--no-cache"]), ["two", "two"]);
    write("six", time + Duration::from_secs(1));
    assert_eq!(read(&[]), ["six", "six"]);
    fs::set_permissions(&inner, PermissionsExt::from_mode(0o700)).expect("ours");
    fs::write(tree.join("new"), "").expect("ours");
    let (workspace, _) = setup.stage(&[&setup.url("tree")], &[]);
    assert_eq!(listing(&workspace.join("tree")), listing(&tree));
}

#[test]
fn another_user_fetches_as_well() {
    let Some(layout) = base_layout() else { return };
    for user in User::ALL {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        let Some(server) = Sshd::start_for(&bench, &[]) else {
            return;
        };
        let tree = server.path("tree");
        fs::create_dir(&tree).expect("ours");
        fs::write(tree.join("file"), "text").expect("ours");
        // What its own user could not write to.
        for (path, mode) in [(tree.join("file"), 0o444), (tree.clone(), 0o555)] {
            fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("ours");
        }
        let me = succeed(Command::new("id").arg("-un"));
        let url = format!("scp://{}@{}{}", me.trim(), server.host(), tree.display());
        bench.write(
            "build.yaml",
            format!("python: 3.11\nsystem-packages: []\nfiles: ['{url}']\n"),
        );
        let base = bench.path("base");
        succeed(
            Command::new("cp")
                .args(["-r", "--no-preserve=mode"])
                .arg(&layout)
                .arg(&base),
        );
        let base = format!("oci:{}:3.11-slim", base.display());
        for _ in 0..2 {
            let run = bench.run(["build.yaml", "-n", "-k", "-p", "context", "--base", &base]);
            let (workspace, _) = staged(&bench, &run);
            assert_eq!(listing(&workspace.join("tree")), listing(&tree), "{user:?}");
        }
    }
}

#[test]
fn what_cannot_be_fetched_is_told() {
    let Some(setup) = Setup::new() else { return };
    setup.refused(
        &setup.url("missing"),
        &[],
        &["data/missing` does not exist", "hint:"],
    );
    fs::create_dir(setup.server.path("data/tree")).expect("ours");
    let pipe = setup.server.path("data/tree/pipe");
    succeed(Command::new("mkfifo").arg(&pipe));
    setup.refused(
        &setup.url("tree"),
        &[],
        &["data/tree/pipe` is a named pipe", "hint:"],
    );
    setup.refused(
        &format!("x: {}", setup.url("tree/pipe")),
        &[],
        &["is a named pipe"],
    );
    setup.refused(
        &format!("scp://{}/~other/file", setup.server.host()),
        &[],
        &["~other/file`", "hint:"],
    );
    setup.refused(
        "scp://no-such-host.invalid/file",
        &[],
        &["no-such-host.invalid"],
    );
    setup.refused(
        "scp://$(touch%20pwned)/file",
        &[],
        &["cannot be the name of a host"],
    );
    let port = setup.server.port();
    drop(setup.server);
    let setup = Setup::new().expect("it was possible before");
    setup.refused(&format!("scp://127.0.0.1:{port}/file"), &[], &["refused"]);
}

#[test]
fn a_server_without_a_shell_will_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = format!("ForceCommand internal-sftp -d {}", folder.path().display());
    let Some(setup) = Setup::with(&[&line]) else {
        return;
    };
    fs::create_dir(folder.path().join("tree")).expect("ours");
    fs::write(folder.path().join("tree/file"), "text").expect("ours");
    let url = format!("scp://{}/~/tree", setup.server.host());
    let (workspace, _) = setup.stage(&[&url], &[]);
    assert_eq!(
        fs::read(workspace.join("tree/file")).expect("it came"),
        b"text"
    );
    setup.refused(&format!("{url}/none"), &[], &["/tree/none` does not exist"]);
}

#[test]
fn a_server_without_sftp_is_told() {
    let Some(setup) = Setup::with(&["Subsystem nothing /bin/false"]) else {
        return;
    };
    setup.refused(&setup.url("file"), &[], &["offers no SFTP", "hint:"]);
}
