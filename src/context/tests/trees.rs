//! Sources, destinations, and what of them arrives.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{Build, again, mode};
use crate::context::destination::Workspace;
use crate::files::expand;

fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path.as_ref(), PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn files_and_directories_arrive_as_they_are() {
    let mut build = Build::new();
    build.write("tree/sub/script.sh", "#!/bin/sh\n");
    build.write("tree/setuid", "x");
    build.write("plain", "plain");
    chmod(build.source("tree/sub/script.sh"), 0o751);
    chmod(build.source("tree/setuid"), 0o4711);
    chmod(build.source("plain"), 0o600);
    fs::create_dir(build.source("tree/empty")).unwrap();
    chmod(build.source("tree/empty"), 0o1777);
    fs::create_dir(build.source("tree/sealed")).unwrap();
    build.write("tree/sealed/inner", "y");
    chmod(build.source("tree/sealed"), 0o555);
    chmod(build.source("tree"), 0o2750);
    symlink("sub/script.sh", build.source("tree/relative")).unwrap();
    symlink("/nowhere/at/all", build.source("tree/dangling")).unwrap();
    symlink("sub", build.source("tree/directory")).unwrap();
    symlink(".", build.source("tree/loop")).unwrap();
    symlink("tree", build.source("link-to-tree")).unwrap();
    symlink("plain", build.source("link-to-plain")).unwrap();
    let odd = OsStr::from_bytes(b"new\nline \xff");
    fs::write(Path::new(&build.source("tree")).join(odd), "odd").unwrap();

    build.entry(None, "tree/");
    build.entry(None, "plain");
    build.entry(Some("renamed"), "plain");
    build.entry(Some("deep/er/renamed/"), "plain/");
    build.entry(Some("./x/../tree/sealed/added"), "plain");
    build.entry(None, "link-to-tree");
    build.entry(None, "link-to-plain");
    let context = build.stage().unwrap();

    let workspace = build.image("workspace");
    let read = |name: &str| fs::read_to_string(workspace.join(name)).unwrap();
    for tree in ["tree", "link-to-tree"] {
        let at = |name: &str| workspace.join(tree).join(name);
        assert_eq!(mode(at("")), 0o2750);
        assert_eq!(mode(at("sub/script.sh")), 0o751);
        assert_eq!(mode(at("setuid")), 0o4711);
        assert_eq!(mode(at("empty")), 0o1777);
        assert_eq!(mode(at("sealed")), 0o555);
        assert_eq!(
            fs::read_link(at("relative")).unwrap(),
            Path::new("sub/script.sh")
        );
        assert_eq!(
            fs::read_link(at("dangling")).unwrap(),
            Path::new("/nowhere/at/all")
        );
        assert_eq!(fs::read_link(at("directory")).unwrap(), Path::new("sub"));
        assert_eq!(fs::read_link(at("loop")).unwrap(), Path::new("."));
        assert_eq!(fs::read(workspace.join(tree).join(odd)).unwrap(), b"odd");
    }
    assert_eq!(mode(workspace.join("plain")), 0o600);
    for name in [
        "plain",
        "renamed",
        "deep/er/renamed",
        "tree/sealed/added",
        "link-to-plain",
    ] {
        assert_eq!(read(name), "plain");
        assert!(
            !fs::symlink_metadata(workspace.join(name))
                .unwrap()
                .is_symlink()
        );
    }
    let warnings = build.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("has a set-id bit, and other users can enter"),
        "{warnings:?}"
    );
    // Two trees of four files and four links, and five times `plain`.
    assert_eq!(context.files, 2 * 8 + 5);
    assert_eq!(context.bytes, 2 * (10 + 1 + 1 + 3) + 5 * 5);
}

#[test]
fn homes_expand() {
    let home = std::env::home_dir().unwrap();
    let hidden = tempfile::Builder::new()
        .prefix(".context-test")
        .tempfile_in(&home)
        .unwrap();
    let name = hidden.path().file_name().unwrap().to_str().unwrap();
    let mut build = Build::new();
    build.entry(None, &format!("~/{name}"));
    build.stage().unwrap();
    assert!(build.image("workspace").join(name).is_file());

    // A user's home need not be what `HOME` says, nor exist.
    let root = Command::new("getent")
        .args(["passwd", "root"])
        .output()
        .unwrap();
    let root = String::from_utf8(root.stdout).unwrap();
    let root = root.split(':').nth(5).unwrap();
    assert_eq!(expand("~root//a/b/").unwrap(), Path::new(root).join("a/b"));
    assert_eq!(expand("a~/~root").unwrap(), Path::new("a~/~root"));

    build.file.files.clear();
    build.entry(None, "~no-such-user/x");
    fs::remove_dir_all(build.image("")).unwrap();
    assert_eq!(
        build.failure(),
        "failed to stage `files[0]`\nthe home directory in `~no-such-user/x` is not known"
    );
}

#[test]
fn a_large_file_is_copied_whole() {
    let mut build = Build::new();
    let bytes: Vec<u8> = (0..40_000_003_u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(build.source("large"), &bytes).unwrap();
    build.entry(None, "large");
    let context = build.stage().unwrap();
    assert_eq!(context.bytes, 40_000_003);
    assert!(fs::read(build.image("workspace/large")).unwrap() == bytes);
}

/// Destination and source.
type Entry = (Option<&'static str>, &'static str);

/// Each case: entries, and what the error says.
#[test]
fn bad_destinations_are_refused() {
    let cases: &[(&[Entry], &str)] = &[
        (
            &[(Some("/etc/x"), "file")],
            "the destination `/etc/x` lies outside the workspace\nhint: destinations are relative to the workspace, such as `data/file`",
        ),
        (
            &[(Some("a/../../x"), "file")],
            "the destination `a/../../x` lies outside the workspace\nhint: destinations are relative to the workspace, such as `data/file`",
        ),
        (
            &[(Some("."), "file")],
            "`.` has no name that it could have in the workspace\nhint: give it a name: `- NAME: PATH`",
        ),
        (
            &[(Some("installation"), "file")],
            "the destination `installation` belongs to the build itself\nhint: give the entry another name: `- NAME: PATH`",
        ),
        (
            &[(Some("installation/build.yaml"), "file")],
            "the destination `installation/build.yaml` belongs to the build itself\nhint: give the entry another name: `- NAME: PATH`",
        ),
        (
            &[(Some("installation/entrypoint.sh/x"), "file")],
            "the destination `installation/entrypoint.sh` belongs to the build itself\nhint: give the entry another name: `- NAME: PATH`",
        ),
        (
            &[(None, "file"), (Some("./file"), "dir")],
            "the destination `file` is taken by `files[0]`\nhint: give the entry another name: `- NAME: PATH`",
        ),
        (
            &[(Some("a/b"), "file"), (Some("a"), "dir")],
            "the destination `a` is taken by `files[0]`\nhint: give the entry another name: `- NAME: PATH`",
        ),
        (
            &[(None, "dir"), (Some("dir/inner"), "file")],
            "the destination `dir/inner` is taken by `files[0]`\nhint: give the entry another name: `- NAME: PATH`",
        ),
        (
            &[(None, "dir"), (Some("dir/dangling"), "file")],
            "the destination `dir/dangling` is taken by `files[0]`\nhint: give the entry another name: `- NAME: PATH`",
        ),
        (
            &[(None, "file"), (Some("file/x"), "file")],
            "`file` on the way to the destination is not a directory, but what `files[0]` put there",
        ),
        (
            &[(None, "dir"), (Some("dir/out/passwd"), "file")],
            "the destination `dir/out/passwd` leaves the workspace through the symlink `dir/out`",
        ),
        (
            &[(None, "dir"), (Some("dir/up/x"), "file")],
            "the destination `dir/up/x` leaves the workspace through the symlink `dir/up`",
        ),
        (
            &[(None, "dir"), (Some("dir/dangling/x"), "file")],
            "the destination `dir/dangling/x` leaves the workspace through the symlink `dir/dangling`",
        ),
        (
            &[
                (None, "dir"),
                (Some("dir/installed/requirements.txt"), "file"),
            ],
            "the destination `installation/requirements.txt` belongs to the build itself\nhint: give the entry another name: `- NAME: PATH`",
        ),
    ];
    for (entries, expected) in cases {
        let mut build = Build::new();
        build.write("file", "file");
        build.write("dir/inner", "inner");
        symlink("/etc", build.source("dir/out")).unwrap();
        symlink("../../..", build.source("dir/up")).unwrap();
        symlink("nothing", build.source("dir/dangling")).unwrap();
        symlink("../installation", build.source("dir/installed")).unwrap();
        for (destination, source) in *entries {
            build.entry(*destination, source);
        }
        let name = format!("failed to stage `files[{}]`\n", entries.len() - 1);
        assert_eq!(build.failure(), format!("{name}{expected}"));
    }
}

#[test]
fn what_is_free_can_be_taken() {
    let mut build = Build::new();
    build.write("file", "file");
    build.write("dir/v1/inner", "inner");
    symlink("v1", build.source("dir/current")).unwrap();
    build.entry(None, "dir");
    build.entry(Some("dir/current/added"), "file");
    build.entry(Some("installation/mine"), "file");
    build.stage().unwrap();
    assert!(build.image("workspace/dir/v1/added").is_file());
    assert!(build.image("workspace/installation/mine").is_file());
}

#[test]
fn bad_sources_are_refused() {
    let mut build = Build::new();
    build.write("test_data.yaml", "");
    symlink("gone", build.source("dangling")).unwrap();
    fs::create_dir(build.source("dir")).unwrap();
    for (name, kind) in [("pipe", FileType::Fifo), ("socket", FileType::Socket)] {
        mknodat(
            CWD,
            build.source(&format!("dir/{name}")),
            kind,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
    }
    let mut failure = |source: &str| {
        fs::remove_dir_all(build.image("")).unwrap_or_default();
        build.file.files.clear();
        build.entry(Some("x"), source);
        build.failure().replace("failed to stage `files[0]`\n", "")
    };
    assert_eq!(
        failure("test_dat.yml"),
        "`…/source/test_dat.yml` does not exist\nhint: did you mean `…/source/test_data.yaml`?"
    );
    assert_eq!(failure("unlike"), "`…/source/unlike` does not exist");
    assert_eq!(
        failure("dangling"),
        "`…/source/dangling` is a symlink to `gone`, which does not exist"
    );
    // A socket in a directory is left out, and refused where it is named itself.
    let pipe = "`…/source/dir/pipe` is a named pipe, which an image cannot take from a context\n\
                hint: name the files beside it one by one";
    assert_eq!(failure("dir"), pipe);
    assert_eq!(failure("dir/pipe"), pipe);
    assert!(failure("dir/socket").starts_with("`…/source/dir/socket` is a socket"));
    assert!(failure("../../../../../../dev/null").contains("is a device"));
    assert!(failure("../context").contains("is a directory of the build itself"));
    assert_eq!(
        failure("../context/image"),
        "`…/source/../context/image` is a directory of the build itself\n\
         hint: leave it out, or give `--path` or `--store` another directory"
    );
}

#[test]
fn a_source_without_a_name_of_its_own_takes_that_of_its_directory() {
    let mut build = Build::new();
    build.write("dir/file", "");
    build.entry(None, "dir/../dir/.");
    build.entry(None, "dir/..");
    build.stage().unwrap();
    assert!(build.image("workspace/dir/file").exists());
    assert!(build.image("workspace/source/dir/file").exists());
    let mut build = Build::new();
    build.entry(None, "../../../../../../../..");
    assert!(build.failure().contains("has no name"));
}

#[test]
fn a_directory_that_holds_the_context_and_the_store_is_copied_without_them() {
    let mut build = Build::new();
    build.write("../store/blob", "");
    build.write("file", "");
    build.entry(Some("all"), "..");
    build.stage().unwrap();
    assert!(build.image("workspace/all/source/file").exists());
    assert!(!build.image("workspace/all/context").exists());
    assert!(!build.image("workspace/all/store").exists());
    assert_eq!(build.notes(), 2);
}

/// As root everything can be read, so that root runs this test as somebody else.
#[test]
fn an_ordinary_user_is_told_what_cannot_be_read() {
    if rustix::process::geteuid().is_root() {
        let copy = tempfile::Builder::new()
            .permissions(PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let exe = copy.path().join("tests");
        fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        chmod(&exe, 0o755);
        let mut command = Command::new(&exe);
        command.uid(65534).gid(65534).current_dir("/");
        again(
            "context::tests::trees::an_ordinary_user_is_told_what_cannot_be_read",
            command,
        );
        return;
    }
    let mut build = Build::new();
    build.write("dir/secret", "");
    chmod(build.source("dir/secret"), 0);
    build.write("sealed/file", "x");
    chmod(build.source("sealed"), 0o555);
    build.entry(None, "sealed");
    build.entry(Some("sealed/added"), "sealed/file");
    build.entry(None, "dir");
    let failure = build.failure();
    assert!(failure.contains("failed to stage `files[2]`"), "{failure}");
    assert!(failure.contains("…/source/dir/secret"), "{failure}");
    assert!(
        failure.ends_with("hint: make it readable for the user who builds"),
        "{failure}"
    );

    build.file.files.pop();
    fs::remove_dir_all(build.image("")).unwrap();
    build.stage().unwrap();
    assert!(build.image("workspace/sealed/added").is_file());
    assert_eq!(mode(build.image("workspace/sealed")), 0o555);

    // What was staged can be removed, sealed directories and all.
    let path = build.directory.path().join("made");
    let progress = crate::progress::Progress::silent();
    let root =
        crate::context::ContextRoot::open(Some(&path), Path::new("/"), false, &progress).unwrap();
    build.stage_in(root.path(), &progress).unwrap();
    root.complete().unwrap();
    assert!(!path.exists());
    for sealed in [
        build.source("sealed"),
        build.image("workspace/sealed").display().to_string(),
    ] {
        chmod(sealed, 0o755);
    }
}

proptest! {
    /// Whatever a destination says, what is claimed lies in the workspace and is not there yet.
    #[test]
    fn a_claim_stays_in_the_workspace(
        parts in prop::collection::vec(prop::sample::select(vec![
            "a", "b", "..", ".", "", "in", "out", "up", "file", "installation", "build.yaml",
        ]), 1..6)
    ) {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().canonicalize().unwrap();
        let path = outside.join("workspace");
        for name in ["workspace", "workspace/a", "workspace/installation", "elsewhere"] {
            fs::create_dir(outside.join(name)).unwrap();
        }
        fs::write(path.join("file"), "").unwrap();
        symlink("a", path.join("in")).unwrap();
        symlink(outside.join("elsewhere"), path.join("out")).unwrap();
        symlink("../elsewhere", path.join("up")).unwrap();
        let mut workspace = Workspace::new(path.clone(), Vec::new());
        if let Ok(target) = workspace.claim(&PathBuf::from(parts.join("/")), "files[0]") {
            prop_assert!(target.parent().unwrap().canonicalize().unwrap().starts_with(&path));
            prop_assert!(fs::symlink_metadata(&target).is_err());
            fs::write(&target, "").unwrap();
            prop_assert!(workspace.claim(&PathBuf::from(parts.join("/")), "files[1]").is_err());
        }
        prop_assert_eq!(fs::read_dir(outside.join("elsewhere")).unwrap().count(), 0);
        prop_assert_eq!(fs::read_dir(&outside).unwrap().count(), 2);
    }
}
