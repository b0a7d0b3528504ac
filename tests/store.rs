//! The store's folder: whose it is, who can enter it, and how it is named.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use crate::support::{Bench, User, is_root, serve_base, succeed, verify};

/// Steps, and a package's own code, that leave in caches what would give others their rights.
const ARMED: &str = r"
tag: image:1
python: 3.11
system-packages: []
files: [armed-1.tar.gz]
packages: ['${WORKSPACE}/armed-1.tar.gz']
cmds:
  post: |
    RUN --mount=type=cache,target=/cache <<END
    set -e
    if grep ' /cache ' /proc/mounts | grep -v nosuid,nodev; then exit 1; fi
    mkdir -p /cache/deep/er
    cp /bin/sh /cache/user
    cp /bin/sh /cache/deep/er/group
    chmod 4755 /cache/user
    chmod 2755 /cache/deep/er/group
    mknod /cache/deep/null c 1 3 || true
    python3 /workspace/arm.py /cache
    chmod 755 /cache/deep
    END
";
/// Gives a program capabilities where that is allowed, and hides a set-id program deep down.
const ARM: &str = r"
import os, shutil, sys
os.chdir(sys.argv[1])
shutil.copy('/bin/sh', 'capable')
try:
    os.setxattr('capable', 'security.capability', bytes.fromhex('0100000280000000' + 24 * '0'))
except OSError as error:
    print(error)
for _ in range(400):
    os.makedirs('d', exist_ok=True)
    os.chdir('d')
shutil.copy('/bin/true', 'true')
os.chmod('true', 0o6755)
";
/// The build backend of a source distribution that does the same to pip's cache.
const BACKEND: &str = r"
import os, shutil
def prepare_metadata_for_build_wheel(*_):
    place = os.environ['PIP_CACHE_DIR']
    shutil.copy('/bin/sh', place + '/shell')
    os.chmod(place + '/shell', 0o6755)
    os.makedirs('armed-1.dist-info', exist_ok=True)
    raise SystemExit('it has done what it wanted')
build_wheel = prepare_metadata_for_build_wheel
";

/// All that lies below a folder.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("root reads everything") {
            let path = entry.expect("it is there").path();
            if fs::symlink_metadata(&path).expect("it is there").is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// What others could take the rights of whoever builds from.
fn armed(caches: &Path) -> Vec<PathBuf> {
    let is_armed = |path: &PathBuf| {
        let metadata = fs::symlink_metadata(path).expect("it is there");
        let kind = metadata.file_type();
        let is_device = kind.is_char_device() || kind.is_block_device();
        let mut value = [0_u8; 64];
        let capable = rustix::fs::lgetxattr(path, "security.capability", &mut value[..]);
        !kind.is_dir() && metadata.mode() & 0o6000 != 0 || is_device || capable.is_ok()
    };
    everything(caches).into_iter().filter(is_armed).collect()
}

fn write_sdist(bench: &Bench) {
    let project = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n\
                   [project]\nname = 'armed'\nversion = '1'\n";
    bench.write("armed-1/pyproject.toml", project);
    bench.write("armed-1/backend.py", BACKEND);
    let archive = bench.path("armed-1.tar.gz");
    succeed(
        Command::new("tar")
            .arg("-C")
            .arg(bench.root().join("work"))
            .arg("-czf")
            .arg(&archive)
            .arg("armed-1"),
    );
    bench.give(&archive);
}

#[test]
fn nobody_else_enters_the_store_and_caches_keep_no_set_id_programs() {
    if !is_root() {
        return;
    }
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    for (user, runner) in [
        (User::Root, "root"),
        (User::Subids, "userns-range"),
        (User::Plain, "userns-single"),
        (User::Root, "chroot"),
    ] {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        let store = bench.store();
        // A folder of the user's that everybody can enter.
        fs::create_dir(&store).expect("it is new");
        bench.give(&store);
        set_mode(&store, 0o755);
        write_sdist(&bench);
        bench.write("arm.py", ARM);
        let build = |text: &str| {
            bench.write("build.yaml", text);
            bench.run(["build.yaml", "--base", &base, "--runner", runner])
        };
        let closed = |what: &str| {
            let folders = ["", "blobs", "caches", "rootfs", "sources", "steps", "tmp"];
            let folders = folders.map(|folder| store.join(folder));
            let kept = ["caches", "rootfs"].map(|folder| store.join(folder));
            let kept = kept.iter().flat_map(|folder| {
                let entries = fs::read_dir(folder).expect("it is there");
                entries.map(|entry| entry.expect("it is there").path())
            });
            for folder in folders.iter().cloned().chain(kept) {
                let shown = folder.display();
                assert_eq!(mode(&folder), 0o700, "{what} {runner}: {shown}");
            }
        };
        // The step fails, and its cache is as harmless as that of one that does not.
        let run = build(&ARMED.replace("files: [", "files: [arm.py, "));
        let said = run.refusal(1);
        assert!(said.contains("it has done what it wanted"), "{said}");
        closed("failed");
        if runner != "chroot" {
            assert!(store.join("caches/pip/shell").is_file(), "{runner}: {said}");
        }
        assert_eq!(
            armed(&store.join("caches")),
            [""; 0].map(PathBuf::from),
            "{runner}"
        );

        let text = ARMED.replace("files: [armed-1.tar.gz]", "files: [arm.py]");
        build(&text.replace("\npackages: [", "\nlabels: {a: b}\n#[")).line();
        closed("built");
        let caches = store.join("caches");
        let left = everything(&caches);
        let has = |name: &str| left.iter().any(|path| path.ends_with(name));
        assert!(
            has("user") && has("deep/er/group") && has("capable"),
            "{left:?}"
        );
        assert_eq!(armed(&caches), [""; 0].map(PathBuf::from), "{runner}");

        // An earlier version left its folders open, and what lies in them.
        for folder in [&store, &caches, &store.join("rootfs")] {
            set_mode(folder, 0o755);
        }
        if runner != "chroot" {
            set_mode(&caches.join("pip"), 0o755);
        }
        build(&text.replace("\npackages: [", "\nlabels: {a: c}\n#[")).line();
        closed("taken over");
    }
}

#[test]
fn a_folder_that_is_no_store_stays_open() {
    let bench = Bench::current();
    bench.write("shared/file", "of others\n");
    let shared = bench.path("shared");
    set_mode(&shared, 0o755);
    let run = bench.run(["cache", "ls", "--store", "shared"]);
    let said = run.refusal(1);
    assert!(
        said.contains("other users can enter the folder `[BENCH]/work/shared`, and it holds files")
            && said.contains("chmod 700"),
        "{said}"
    );
    assert_eq!((mode(&shared), everything(&shared).len()), (0o755, 1));
    // Its owner has decided.
    set_mode(&shared, 0o700);
    assert!(
        bench
            .run(["cache", "ls", "--store", "shared"])
            .stdout()
            .contains("all")
    );
}

#[test]
fn nothing_is_made_in_a_store_or_a_context_of_another_user() {
    if !is_root() {
        return;
    }
    let Some(plain) = Bench::new(User::Plain) else {
        return;
    };
    let bench = Bench::current();
    let theirs = bench.path("theirs");
    fs::create_dir(&theirs).expect("it is new");
    plain.give(&theirs);
    let own = bench.path("own");
    fs::create_dir(&own).expect("it is new");
    // A link that another user may lead elsewhere at any time.
    let link = bench.path("link");
    symlink(&own, &link).expect("it is new");
    plain.give(&link);
    for store in ["theirs", "link"] {
        let run = bench.run(["cache", "ls", "--store", store]);
        let said = run.refusal(1);
        assert!(said.contains("belongs to the user"), "{said}");
    }
    bench.write("build.yaml", "{python: 3.11, system-packages: []}");
    for (context, words) in [
        ("theirs", "it belongs to the user"),
        ("link", "it is a symbolic link"),
        ("link/", "it is a symbolic link"),
        ("own/../link/.", "it is a symbolic link"),
    ] {
        let run = bench.run(["build.yaml", "-n", "--base", "oci:none", "-p", context]);
        let said = run.refusal(1);
        assert!(
            said.contains(words) && said.contains("give `--path` another directory"),
            "{context}: {said}"
        );
    }
    assert_eq!(everything(&theirs).len() + everything(&own).len(), 0);
}

#[test]
fn a_current_folder_whose_name_is_not_text_is_told_and_an_empty_variable_is_none() {
    let bench = Bench::current();
    let odd = bench
        .root()
        .join("work")
        .join(OsStr::from_bytes(b"odd-\xff"));
    fs::create_dir(&odd).expect("it is new");
    bench.write("build.yaml", "{python: 3.11, system-packages: []}");
    let from = |arguments: &[&str]| {
        let mut command = bench.tool(arguments);
        bench.finish(command.current_dir(&odd))
    };
    let build = ["../build.yaml", "-n", "--base", "oci:none"];
    for (more, name) in [
        (&["--store", "s"][..], "/s"),
        (&["-p", "ctx"], "/ctx"),
        (&["--work-dir", "."], ""),
    ] {
        let run = from(&[&build[..], more].concat());
        let said = run.refusal(2);
        assert!(
            said.contains("is not UTF-8") && said.contains("hint:"),
            "{said}"
        );
        assert!(said.contains(&format!("work/odd-\u{fffd}{name}")), "{said}");
    }
    // A link whose own name is text leads there, too.
    let to = bench.path("to");
    symlink(&odd, &to).expect("it is new");
    let run = bench.run([&["build.yaml"], &build[1..], &["-p", "to/ctx"]].concat());
    let said = run.refusal(1);
    assert!(said.contains("is not UTF-8"), "{said}");
    fs::remove_dir_all(&odd).expect("it is ours");

    let mut command = bench.tool(["cache", "ls"]);
    command
        .env("PYATS_IMAGE_BUILD_STORE", "")
        .env("XDG_CACHE_HOME", bench.path("cache"));
    assert!(bench.finish(&mut command).stdout().contains("all"));
    assert!(bench.path("cache/pyats-image-build/oci-layout").is_file());
}

#[test]
fn small_files_and_layouts_replace_links_and_follow_none() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write(
        "build.yaml",
        "{tag: 'image:1', python: 3.11, system-packages: []}",
    );
    let files = [
        ("--digest-file", "digest"),
        ("--iidfile", "id"),
        ("--metadata-file", "metadata"),
    ];
    for (_, name) in files {
        bench.write(&format!("victim-{name}"), "mine\n");
        symlink(format!("victim-{name}"), bench.path(name)).expect("it is new");
    }
    // One that leads nowhere would make a file.
    symlink("nowhere", bench.path("dangling")).expect("it is new");
    let options = files.map(|(option, name)| [option, name]).concat();
    let arguments = [
        &["build.yaml", "--base", &base, "-o", "oci-dir:out"][..],
        &options,
    ];
    let run = bench.run(arguments.concat());
    let (_, digest) = run.line().split_once('@').expect("reference@digest");
    assert_eq!(verify(&bench.path("out"), "1").digest, digest);
    for (_, name) in files {
        let victim = fs::read_to_string(bench.path(&format!("victim-{name}")));
        assert_eq!(victim.expect("it stays"), "mine\n", "{name}");
        assert!(
            fs::symlink_metadata(bench.path(name))
                .expect("made")
                .is_file()
        );
    }
    let arguments = ["-q", "build.yaml", "--base", &base, "--digest-file"];
    bench.run([&arguments[..], &["dangling"]].concat()).line();
    assert!(!bench.root().join("work/nowhere").exists());
    // What this process has open is written to.
    let run = bench.run([&arguments[..], &["/dev/stdout"]].concat());
    assert_eq!(run.stdout().matches(digest).count(), 2, "{}", run.stdout());

    // Blobs are neither written nor removed where a link leads.
    bench.write("precious/file", "mine\n");
    bench.write("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    fs::create_dir(bench.path("layout/blobs")).expect("it is new");
    let blobs = bench.path("layout/blobs/sha256");
    symlink(bench.path("precious"), &blobs).expect("it is new");
    for arguments in [
        &["cache", "export", "layout"][..],
        &["build.yaml", "--base", &base, "-o", "oci-dir:layout"],
    ] {
        let run = bench.run(arguments);
        let said = run.refusal(1);
        assert!(
            said.contains("blobs/sha256` exists and is not a folder of its own"),
            "{said}"
        );
    }
    assert_eq!(everything(&bench.path("precious")).len(), 1);
    // Nor are files that are no blobs.
    fs::remove_file(&blobs).expect("it is ours");
    bench.write("layout/blobs/sha256/file", "mine\n");
    let run = bench.run(["-q", "cache", "export", "layout"]);
    assert!(run.stdout().contains("written"), "{}", run.stdout());
    assert!(bench.path("layout/blobs/sha256/file").is_file());
}
