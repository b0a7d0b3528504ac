//! What a step changed: the same layer from an overlay and from a walk, and one that leads from the
//! tree before to the tree after.

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use super::roundtrip::unpack_into;
use super::*;

/// Something that a step does. What is impossible at the moment does nothing.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Write(Name, u8, u8, i64),
    MakeDirectory(Name),
    Symlink(Name, u8, i64),
    Fifo(Name, i64),
    Remove(Name),
    Remake(Name),
    Chmod(Name, u32),
    Chown(Name, u32),
    Touch(Name, i64),
    Attribute(Name, u8),
    Link(Name, Name),
    Rename(Name, Name),
}

type Name = String;

fn name() -> impl Strategy<Value = Name> {
    let part = prop_oneof![Just("a"), Just("b"), Just("b-"), Just("ü")];
    proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let time = 0..4_i64;
    let op = prop_oneof![
        4 => (name(), 0..3_u8, 0..3_u8, time.clone()).prop_map(|(n, c, l, t)| Op::Write(n, c, l, t)),
        4 => name().prop_map(Op::MakeDirectory),
        1 => (name(), 0..3_u8, time.clone()).prop_map(|(n, c, t)| Op::Symlink(n, c, t)),
        1 => (name(), time.clone()).prop_map(|(n, t)| Op::Fifo(n, t)),
        3 => name().prop_map(Op::Remove),
        2 => name().prop_map(Op::Remake),
        2 => (name(), 0..3_u32).prop_map(|(n, m)| Op::Chmod(n, m)),
        1 => (name(), 0..3_u32).prop_map(|(n, u)| Op::Chown(n, u)),
        1 => (name(), time).prop_map(|(n, t)| Op::Touch(n, t)),
        1 => (name(), 0..3_u8).prop_map(|(n, v)| Op::Attribute(n, v)),
        2 => (name(), name()).prop_map(|(n, m)| Op::Link(n, m)),
        1 => (name(), name()).prop_map(|(n, m)| Op::Rename(n, m)),
    ];
    proptest::collection::vec(op, 0..25)
}

pub(super) fn apply_all(root: &Path, ops: &[Op]) {
    for op in ops {
        apply(root, op);
    }
}

fn apply(root: &Path, op: &Op) {
    let names = match op {
        Op::Link(from, to) | Op::Rename(from, to) => [from, to],
        Op::Write(name, ..)
        | Op::MakeDirectory(name)
        | Op::Symlink(name, ..)
        | Op::Fifo(name, _)
        | Op::Remove(name)
        | Op::Remake(name)
        | Op::Chmod(name, _)
        | Op::Chown(name, _)
        | Op::Touch(name, _)
        | Op::Attribute(name, _) => [name, name],
    };
    if !names.iter().all(|name| is_below_directories(root, name)) {
        return;
    }
    let at = |name: &Name| root.join(name);
    let kind = |path: &Path| node::Node::read(path).unwrap().map(|node| node.kind);
    match op {
        Op::Write(name, content, length, time) => {
            // In place, so that other names of the file change too; never through a link.
            let path = at(name);
            if matches!(kind(&path), None | Some(Kind::File)) {
                fs::write(&path, vec![*content; usize::from(*length) * 700]).unwrap();
                touch(&path, *time);
            }
        }
        Op::MakeDirectory(name) => {
            let _ = fs::create_dir(at(name));
        }
        Op::Symlink(name, target, time) => {
            let target = ["a", "/b", "../ü"][usize::from(*target)];
            if std::os::unix::fs::symlink(target, at(name)).is_ok() {
                touch(&at(name), *time);
            }
        }
        Op::Fifo(name, time) => {
            let fifo = rustix::fs::FileType::Fifo;
            if rustix::fs::mknodat(CWD, at(name), fifo, Mode::RUSR, 0).is_ok() {
                touch(&at(name), *time);
            }
        }
        Op::Remove(name) => remove(&at(name)).unwrap(),
        Op::Remake(name) if kind(&at(name)) == Some(Kind::Directory) => {
            remove(&at(name)).unwrap();
            fs::create_dir(at(name)).unwrap();
        }
        Op::Chmod(name, mode) if matches!(kind(&at(name)), Some(Kind::File | Kind::Directory)) => {
            let mode = [0o755, 0o4750, 0o1700][*mode as usize];
            rustix::fs::chmod(at(name), Mode::from_raw_mode(mode)).unwrap();
        }
        Op::Chown(name, owner) => {
            let (uid, gid) = (Uid::from_raw(*owner), Gid::from_raw(*owner + 1));
            let _ = rustix::fs::chownat(
                CWD,
                at(name),
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            );
        }
        Op::Touch(name, time) if kind(&at(name)).is_some_and(|kind| kind != Kind::Directory) => {
            touch(&at(name), *time);
        }
        Op::Attribute(name, value)
            if matches!(kind(&at(name)), Some(Kind::File | Kind::Directory)) =>
        {
            let _ = rustix::fs::setxattr(at(name), "user.x", &[*value; 3], XattrFlags::empty());
        }
        Op::Link(from, to) => {
            let _ = fs::hard_link(at(from), at(to));
        }
        // An overlay does not rename directories of lower layers.
        Op::Rename(from, to) => {
            let from_kind = kind(&at(from));
            if from_kind.is_some_and(|kind| kind != Kind::Directory) {
                let _ = fs::rename(at(from), at(to));
            }
        }
        _ => {}
    }
}

/// Whether no parent is a link, which could lead anywhere.
fn is_below_directories(root: &Path, name: &Name) -> bool {
    let parents: Vec<_> = Path::new(name).ancestors().skip(1).collect();
    parents.iter().all(|parent| {
        fs::symlink_metadata(root.join(parent)).is_ok_and(|metadata| metadata.is_dir())
    })
}

fn touch(path: &Path, time: i64) {
    let time = Timespec {
        tv_sec: time,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A tree before, and the same change made to it in an overlay and in place.
struct Change {
    directory: TempDir,
    request: ChangesRequest,
}

impl Change {
    /// `base` makes the lowest layer of the overlay, each of `steps` one more.
    fn new(base: impl Fn(&Path)) -> Self {
        let directory = scratch();
        let lower = directory.path().join("lower");
        fs::create_dir(&lower).unwrap();
        fs::set_permissions(&lower, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        base(&lower);
        settle_directories(&lower);
        copy(&lower, &directory.path().join("tree")).unwrap();
        let snapshot_file = directory.path().join("snapshot");
        snapshot(&directory.path().join("tree"), &snapshot_file).unwrap();
        let request = ChangesRequest {
            changes: Changes::Walk {
                root: directory.path().join("tree"),
                snapshot: snapshot_file,
            },
            ignore: Vec::new(),
            owners: None,
            // Times of directories are those of the test: all of them become this one.
            times: Times {
                fixed_under: Vec::new(),
                fixed: 0,
                clamp: Some(1000),
            },
            compression: Compression::None,
            store: directory.path().join("store"),
        };
        Self { directory, request }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a change in place.
    fn walk(&self, change: impl Fn(&Path)) -> Option<Layer> {
        change(&self.path("tree"));
        write_changes(&self.request).unwrap()
    }

    /// Makes a change in an overlay over `lower`, topmost first.
    fn overlay(&self, lower: &[&str], name: &str, change: impl Fn(&Path)) -> Option<Layer> {
        let [upper, work, merged] =
            ["upper", "work", "merged"].map(|kind| self.path(&format!("{name}.{kind}")));
        for directory in [&upper, &work, &merged] {
            fs::create_dir(directory).unwrap();
            fs::set_permissions(
                directory,
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )
            .unwrap();
        }
        let lower: Vec<_> = lower.iter().map(|name| self.path(name)).collect();
        let names: Vec<_> = lower
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},userxattr",
            names.join(":"),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount(
            "overlay",
            &merged,
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .unwrap();
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| change(&merged)));
        rustix::mount::unmount(&merged, UnmountFlags::DETACH).unwrap();
        changed.unwrap();
        let mut request = self.request.clone();
        request.changes = Changes::Overlay { lower, upper };
        write_changes(&request).unwrap()
    }

    /// What an overlay holds whose upper directory was compared.
    fn merged<T>(&self, name: &str, look: impl FnOnce(&Path) -> T) -> T {
        let merged = self.path(&format!("{name}.merged"));
        let [lower, upper] = ["lower", &format!("{name}.upper")].map(|name| self.path(name));
        let options = format!("lowerdir={}:{},userxattr", upper.display(), lower.display());
        let options = std::ffi::CString::new(options).unwrap();
        let flags = MountFlags::RDONLY;
        rustix::mount::mount("overlay", &merged, "overlay", flags, options.as_c_str()).unwrap();
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&merged)));
        rustix::mount::unmount(&merged, UnmountFlags::DETACH).unwrap();
        looked.unwrap()
    }

    /// Makes a change both ways, and lists the entries of the one layer that came of it.
    fn entries(&self, change: impl Fn(&Path)) -> Vec<String> {
        let walked = self.walk(&change);
        let overlaid = self.overlay(&["lower"], "o", &change);
        let (walked, overlaid) = (self.list(walked.as_ref()), self.list(overlaid.as_ref()));
        assert_eq!(walked, overlaid);
        walked
    }

    fn list(&self, layer: Option<&Layer>) -> Vec<String> {
        let Some(layer) = layer else {
            return Vec::new();
        };
        let blob = Store::open(&self.request.store)
            .unwrap()
            .blob_path(&layer.descriptor.digest);
        let mut archive = archive::Archive::new(fs::File::open(blob).unwrap(), u64::MAX);
        let mut entries = Vec::new();
        while let Some(entry) = archive.next().unwrap() {
            let mut text = format!("{} {:?}", String::from_utf8_lossy(&entry.path), entry.kind);
            if !entry.link.is_empty() {
                text.push(' ');
                text.push_str(&String::from_utf8_lossy(&entry.link));
            }
            entries.push(text);
        }
        entries
    }
}

/// Directories whose time is the same in every copy.
fn settle_directories(root: &Path) {
    for entry in walk::Walk::new(root) {
        let (path, node) = entry.unwrap();
        if node.kind == Kind::Directory {
            touch(&walk::at(root, &path), 500);
        }
    }
}

/// A base for the tests that follow.
fn base(root: &Path) {
    for directory in [
        "etc",
        "usr",
        "usr/lib",
        "var",
        "var/lib",
        "var/lib/apt",
        "var/lib/apt/lists",
    ] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    for file in [
        "etc/passwd",
        "etc/old",
        "usr/one",
        "usr/two",
        "usr/lib/x",
        "usr/lib/y",
    ] {
        fs::write(root.join(file), file).unwrap();
        touch(&root.join(file), 100);
    }
    fs::hard_link(root.join("usr/one"), root.join("usr/one-more")).unwrap();
}

const ROOT: &str = "changes made in an overlay";

#[test]
fn only_what_changed_is_in_the_layer_with_the_directories_above() {
    if !can_mount(ROOT) {
        return;
    }
    let change = Change::new(base);
    let entries = change.entries(|root| {
        fs::write(root.join("usr/lib/new"), "new").unwrap();
        fs::remove_file(root.join("etc/old")).unwrap();
        // Touched, and the same as before.
        fs::write(root.join("usr/two"), "usr/two").unwrap();
        touch(&root.join("usr/two"), 100);
    });
    let mark = String::from_utf8(whiteout::name_for(b"etc/old")).unwrap();
    assert_eq!(
        entries,
        [
            "etc Directory",
            &format!("{mark} File"),
            "usr Directory",
            "usr/lib Directory",
            "usr/lib/new File"
        ]
    );
}

#[test]
fn nothing_changed_is_no_layer() {
    if !can_mount(ROOT) {
        return;
    }
    let change = Change::new(base);
    let entries = change.entries(|root| {
        fs::create_dir(root.join("usr/temporary")).unwrap();
        fs::remove_dir(root.join("usr/temporary")).unwrap();
        rustix::fs::chmod(root.join("usr/lib"), Mode::RWXU).unwrap();
        rustix::fs::chmod(root.join("usr/lib"), Mode::from_raw_mode(0o755)).unwrap();
        std::mem::forget(std::os::unix::net::UnixListener::bind(root.join("usr/s")).unwrap());
    });
    assert_eq!(entries, [""; 0]);
}

#[test]
fn a_change_that_restores_size_and_time_is_found() {
    if !can_mount(ROOT) {
        return;
    }
    let change = Change::new(base);
    let entries = change.entries(|root| {
        fs::write(root.join("usr/two"), "USR/TWO").unwrap();
        touch(&root.join("usr/two"), 100);
    });
    assert_eq!(entries, ["usr Directory", "usr/two File"]);
}

#[test]
fn hard_links_are_those_of_the_overlay() {
    if !can_mount(ROOT) {
        return;
    }
    // One name of two is written to: the other one stays as it was.
    let entries =
        Change::new(base).entries(|root| fs::write(root.join("usr/one"), "changed").unwrap());
    assert_eq!(entries, ["usr Directory", "usr/one File"]);
    // A new name of a file that did not change is a file.
    let entries = Change::new(base)
        .entries(|root| fs::hard_link(root.join("usr/two"), root.join("etc/two")).unwrap());
    assert_eq!(entries, ["etc Directory", "etc/two File"]);
    // Two new names are one file, and so are a changed file and its new name.
    let entries = Change::new(base).entries(|root| {
        fs::hard_link(root.join("usr/two"), root.join("etc/two")).unwrap();
        fs::hard_link(root.join("usr/two"), root.join("usr/zwei")).unwrap();
        fs::write(root.join("usr/lib/x"), "changed").unwrap();
        fs::hard_link(root.join("usr/lib/x"), root.join("usr/lib/a")).unwrap();
    });
    assert_eq!(
        entries,
        [
            "etc Directory",
            "etc/two File",
            "usr Directory",
            "usr/lib Directory",
            "usr/lib/a File",
            "usr/lib/x HardLink usr/lib/a",
            "usr/zwei HardLink etc/two"
        ]
    );
}

#[test]
fn a_directory_that_was_made_again_deletes_what_is_no_longer_in_it() {
    if !can_mount(ROOT) {
        return;
    }
    let entries = Change::new(base).entries(|root| {
        remove(&root.join("usr/lib")).unwrap();
        fs::create_dir(root.join("usr/lib")).unwrap();
        fs::write(root.join("usr/lib/y"), "other").unwrap();
    });
    let mark = String::from_utf8(whiteout::name_for(b"usr/lib/x")).unwrap();
    assert_eq!(
        entries,
        [
            "usr Directory",
            "usr/lib Directory",
            &format!("{mark} File"),
            "usr/lib/y File"
        ]
    );
    // The overlay marks `usr` alone, and that hides what was in `usr/lib` as well.
    let entries = Change::new(base).entries(|root| {
        remove(&root.join("usr")).unwrap();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
    });
    let mark = |path: &str| String::from_utf8(whiteout::name_for(path.as_bytes())).unwrap();
    let marks = [
        "usr/lib/x",
        "usr/lib/y",
        "usr/one",
        "usr/one-more",
        "usr/two",
    ];
    assert_eq!(entries[..2], ["usr Directory", "usr/lib Directory"]);
    assert_eq!(
        entries[2..],
        marks.map(|path| format!("{} File", mark(path)))
    );
    let entries = Change::new(base).entries(|root| {
        remove(&root.join("usr/lib")).unwrap();
        fs::write(root.join("usr/lib"), "a file").unwrap();
    });
    assert_eq!(entries, ["usr Directory", "usr/lib File"]);
}

#[test]
fn what_the_runner_made_to_mount_upon_is_ignored() {
    if !can_mount(ROOT) {
        return;
    }
    let mut change = Change::new(base);
    change.request.ignore = [
        "etc/resolv.conf",
        "/dev/null",
        "workspace",
        "run/a/b",
        "etc/passwd",
    ]
    .map(PathBuf::from)
    .to_vec();
    let make = |root: &Path| {
        fs::write(root.join("etc/resolv.conf"), "").unwrap();
        fs::create_dir_all(root.join("dev")).unwrap();
        fs::write(root.join("dev/null"), "").unwrap();
        fs::create_dir_all(root.join("workspace")).unwrap();
        fs::create_dir_all(root.join("run/a/b")).unwrap();
    };
    assert_eq!(change.entries(make), [""; 0]);
    // What is beside is kept, what was put there, and a change of what was there before.
    let ignore = change.request.ignore.clone();
    let mut change = Change::new(base);
    change.request.ignore = ignore;
    let entries = change.entries(|root| {
        make(root);
        fs::write(root.join("run/a/x"), "").unwrap();
        fs::write(root.join("workspace/x"), "").unwrap();
        fs::write(root.join("dev/null"), "text").unwrap();
        fs::write(root.join("etc/passwd"), "changed").unwrap();
    });
    assert_eq!(
        entries,
        [
            "dev Directory",
            "dev/null File",
            "etc Directory",
            "etc/passwd File",
            "run Directory",
            "run/a Directory",
            "run/a/x File",
            "workspace Directory",
            "workspace/x File"
        ]
    );
}

#[test]
fn what_no_image_needs_is_left_out() {
    if !can_mount(ROOT) {
        return;
    }
    let change = Change::new(|root| {
        base(root);
        fs::write(root.join("etc/passwd-"), "").unwrap();
        fs::write(root.join("etc/group-"), "").unwrap();
    });
    let entries = change.entries(|root| {
        fs::create_dir(root.join("var/lib/apt/lists/partial")).unwrap();
        fs::write(root.join("var/lib/apt/lists/partial/x"), "").unwrap();
        fs::write(root.join("etc/passwd-"), "changed").unwrap();
        fs::remove_file(root.join("etc/group-")).unwrap();
    });
    let mark = String::from_utf8(whiteout::name_for(b"etc/group-")).unwrap();
    assert_eq!(entries, ["etc Directory", &format!("{mark} File")]);
}

#[test]
fn a_changed_root_is_in_the_layer() {
    if !can_mount(ROOT) {
        return;
    }
    let change = Change::new(base);
    let entries =
        change.entries(|root| rustix::fs::chmod(root, Mode::from_raw_mode(0o711)).unwrap());
    assert_eq!(entries, [" Directory"]);
}

#[test]
fn several_lower_directories_count_as_one() {
    if !can_mount(ROOT) {
        return;
    }
    let change = Change::new(base);
    let first = |root: &Path| {
        fs::remove_file(root.join("usr/lib/x")).unwrap();
        fs::write(root.join("usr/first"), "1").unwrap();
        touch(&root.join("usr/first"), 7);
        remove(&root.join("etc")).unwrap();
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/only"), "").unwrap();
        touch(&root.join("etc/only"), 7);
        fs::hard_link(root.join("usr/first"), root.join("usr/first-too")).unwrap();
    };
    let second = |root: &Path| {
        fs::write(root.join("usr/lib/x"), "back").unwrap();
        touch(&root.join("usr/lib/x"), 7);
        fs::remove_file(root.join("etc/only")).unwrap();
        fs::write(root.join("usr/first"), "second").unwrap();
        touch(&root.join("usr/first"), 7);
    };
    let one = change.walk(first);
    assert_eq!(one, change.overlay(&["lower"], "one", first));
    settle_directories(&change.path("tree"));
    snapshot(&change.path("tree"), &change.path("snapshot")).unwrap();
    let two = change.walk(second);
    assert_eq!(
        change.list(two.as_ref()),
        change.list(
            change
                .overlay(&["one.upper", "lower"], "two", second)
                .as_ref()
        )
    );
    let mark = String::from_utf8(whiteout::name_for(b"etc/only")).unwrap();
    assert_eq!(
        change.list(two.as_ref()),
        [
            "etc Directory",
            &format!("{mark} File"),
            "usr Directory",
            "usr/first File",
            "usr/lib Directory",
            "usr/lib/x File"
        ]
    );
}

#[test]
fn times_and_owners_are_those_that_were_asked_for() {
    let mut change = Change::new(base);
    let owners = change.path("owners");
    fs::write(&owners, b"33 34 usr/lib/x\x005 6 usr/lib\0").unwrap();
    change.request.owners = Some(RecordedOwners {
        before: owners,
        changed: None,
        after: None,
        inherits_groups: false,
    });
    change.request.times = Times {
        fixed_under: vec!["venv".into()],
        fixed: 315_619_200,
        clamp: Some(2_000),
    };
    let layer = change
        .walk(|root| {
            fs::create_dir(root.join("venv")).unwrap();
            fs::write(root.join("venv/file"), "").unwrap();
            fs::write(root.join("venv-not"), "").unwrap();
            fs::write(root.join("usr/lib/x"), "changed").unwrap();
            touch(&root.join("usr/lib/x"), 1_000);
        })
        .unwrap();
    let blob = Store::open(&change.request.store)
        .unwrap()
        .blob_path(&layer.descriptor.digest);
    let mut archive = archive::Archive::new(fs::File::open(blob).unwrap(), u64::MAX);
    let mut entries = Vec::new();
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    while let Some(entry) = archive.next().unwrap() {
        entries.push((
            String::from_utf8(entry.path).unwrap(),
            entry.mtime.0,
            (entry.uid, entry.gid),
        ));
    }
    let expected = [
        ("usr", 500, (0, 0)),
        ("usr/lib", 500, (5, 6)),
        ("usr/lib/x", 1_000, (33, 34)),
        ("venv", 315_619_200, (uid, gid)),
        ("venv/file", 315_619_200, (uid, gid)),
        ("venv-not", 2_000, (uid, gid)),
    ];
    assert_eq!(
        entries,
        expected.map(|(path, time, owner)| (path.to_owned(), time, owner))
    );
}

#[test]
fn a_snapshot_that_was_cut_short_is_refused() {
    let change = Change::new(base);
    let file = change.path("snapshot");
    let whole = fs::read(&file).unwrap();
    for length in [0, 10, 40, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        assert!(
            matches!(write_changes(&change.request), Err(Error::Record { .. })),
            "{length}"
        );
    }
}

/// All that a step can see of a tree, but how often each file is linked; the root is each builder's own.
fn seen(root: &Path) -> Vec<String> {
    let nodes = walk::Walk::new(root).map(Result::unwrap);
    let times = nodes.map(|(_, node)| format!("{:?}", node.mtime));
    let lines = listing(root).into_iter().zip(times).skip(1);
    lines.map(|(line, time)| format!("{time} {line}")).collect()
}

#[test]
fn what_is_in_no_layer_is_not_seen_afterwards() {
    if !can_mount(ROOT) {
        return;
    }
    let change = || {
        Change::new(|root| {
            for (path, text) in [
                ("etc/passwd-", "old"),
                ("var/log/dpkg.log", "log"),
                ("a/file", "a"),
            ] {
                fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
                fs::write(root.join(path), text).unwrap();
                touch(&root.join(path), 400);
            }
        })
    };
    let step = |root: &Path| {
        fs::write(root.join("etc/passwd-"), "changed by the step").unwrap();
        fs::write(root.join("etc/group-"), "new").unwrap();
        fs::create_dir_all(root.join("var/lib/apt/lists/partial")).unwrap();
        fs::write(root.join("var/lib/apt/lists/list"), "new").unwrap();
        fs::create_dir_all(root.join("mounted/deep/here")).unwrap();
        fs::write(root.join("a/stub"), "").unwrap();
        fs::remove_file(root.join("a/file")).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("a/file")).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("a/socket")).unwrap();
        fs::hard_link(root.join("var/log/dpkg.log"), root.join("linked")).unwrap();
    };
    let ignore = vec![PathBuf::from("mounted/deep/here"), PathBuf::from("a/stub")];
    let mut layers = Vec::new();
    for in_place in [true, false] {
        let mut change = change();
        change.request.ignore.clone_from(&ignore);
        let layer = if in_place {
            change.walk(step)
        } else {
            change.overlay(&["lower"], "o", step)
        };
        let found = if in_place {
            seen(&change.path("tree"))
        } else {
            change.merged("o", seen)
        };
        let ChangesRequest { times, store, .. } = &change.request;
        let store = Store::open(store).unwrap();
        let base = write_tree(&change.path("lower"), times, Compression::None, &store).unwrap();
        let layers_of_both = [base, layer.clone().unwrap()];
        let unpacked = unpack_into(change.directory.path(), "unpacked", &layers_of_both);
        assert_eq!(found, seen(&unpacked));
        let text = found.join("\n");
        assert!(text.contains("passwd- File 644 0:0 400 {} old"), "{text}");
        for gone in ["group-", "partial", "mounted", "stub", "socket"] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
        layers.push(layer);
    }
    assert_eq!(layers[0], layers[1]);
}

fn trees(before: &[Op], ops: &[Op]) {
    let change = Change::new(|root| {
        // Something to change, since most changes of an empty tree are none.
        for directory in ["a", "a/a", "b", "b/b-"] {
            fs::create_dir(root.join(directory)).unwrap();
            for file in ["b-", "ü", "b"] {
                let path = root.join(directory).join(file);
                if !path.exists() && path != root.join("b/b-") {
                    apply(root, &Op::Write(format!("{directory}/{file}"), 1, 1, 1));
                }
            }
        }
        apply_all(root, before);
    });
    let empty = change.path("empty");
    fs::create_dir(&empty).unwrap();
    fs::set_permissions(&empty, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    snapshot(&empty, &change.path("empty.snapshot")).unwrap();
    let mut request = change.request.clone();
    request.changes = Changes::Walk {
        root: change.path("lower"),
        snapshot: change.path("empty.snapshot"),
    };
    let mut layers: Vec<_> = write_changes(&request).unwrap().into_iter().collect();

    let walked = change.walk(|root| apply_all(root, ops));
    layers.extend(walked.clone());
    let unpacked = unpack_into(change.directory.path(), "unpacked", &layers);
    assert_eq!(
        seen(&change.path("tree")),
        seen(&unpacked),
        "the tree is not what its layer makes of it"
    );

    if can_mount(ROOT) {
        let overlaid = change.overlay(&["lower"], "o", |root| apply_all(root, ops));
        assert_eq!(change.list(walked.as_ref()), change.list(overlaid.as_ref()));
        assert_eq!(walked, overlaid, "the same entries with other bytes");
        let merged = change.merged("o", seen);
        assert_eq!(
            merged,
            seen(&unpacked),
            "the overlay is not what its layer makes of it"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_change_is_the_same_layer_in_an_overlay_and_in_place(before in ops(), change in ops()) {
        trees(&before, &change);
    }
}
