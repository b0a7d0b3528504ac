//! Owners and identity: the same steps on every rung, as every kind of user, give the same layers.
//!
//! As root it makes two users, one with subordinate ids and one without, and runs the steps as each of them too,
//! upon an overlay and in place. The steps are programs of `tests/owners/`, which look at what they did
//! themselves; what they look at is the same everywhere. It has no test harness, since its `main` has to be
//! the runner's helper process as well. Arguments are parts of names of steps to run, `RUNGS` and `VARIANTS` in
//! the environment are names of those to run them on.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::exit,
    reason = "this is a test harness"
)]

use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use pyats_image_builder::base::{self, Pull};
use pyats_image_builder::layer::{Compression, OWNER_ATTRIBUTE, Times};
use pyats_image_builder::manifest::{Layer, Platform};
use pyats_image_builder::progress::Progress;
use pyats_image_builder::rootfs::{self, Rootfs};
use pyats_image_builder::runner::{self, Outcome, Owners, RootFs, Rung};
use pyats_image_builder::step::{Inputs, Stack, Task, with_defaults};
use pyats_image_builder::store::{Scratch, Store};
use pyats_image_builder::{net, registry};

/// A step: the name of its program, and whether it needs owners and identity read back.
type Case = (&'static str, bool);

/// In this order upon each other, but for the first, which the base is made of.
const CASES: &[Case] = &[
    ("ground", false),
    ("files", false),
    ("cleared", false),
    ("kept", false),
    ("replaced", false),
    ("again", false),
    ("errors", false),
    ("crowd", false),
    ("hostile", false),
    ("groups", false),
    ("users", false),
    ("shown", true),
    ("identity", true),
    ("tools", true),
];

/// How trees are written to, and whether answers are emulated.
const VARIANTS: [(&str, bool, bool); 3] = [
    ("overlay", false, true),
    ("in-place", true, true),
    ("recorded-only", false, false),
];

fn main() {
    if let Some(call) = runner::child() {
        rootfs::serve(call);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--rung") => as_this_user(arguments[1].parse().unwrap(), Path::new(&arguments[2])),
        Some("--time") => time(&arguments[1..]),
        Some("--list") if arguments.iter().any(|argument| argument == "--ignored") => {}
        Some("--list") => println!("same_on_every_rung: test"),
        _ => everything(),
    }
}

fn everything() {
    let root = rustix::process::geteuid().is_root();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/base/make.sh");
    let made = Command::new("bash").arg(script).output().unwrap();
    assert!(made.status.success(), "the base is needed");
    let layout = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
    let place = tempfile::Builder::new()
        .prefix("owners-")
        .tempdir()
        .unwrap();
    fs_err::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    succeed(
        Command::new("cp")
            .arg("-rL")
            .arg(&layout)
            .arg(place.path().join("layout")),
    );
    succeed(
        Command::new("cp")
            .arg("-rL")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/owners"))
            .arg(place.path().join("programs")),
    );
    fs_err::copy("/proc/self/exe", place.path().join("owners")).unwrap();
    if !root {
        println!("SKIPPED: only root can compare the rungs");
        let required = std::env::var_os("REQUIRE_ALL").is_some_and(|value| value == "1");
        std::process::exit(i32::from(required));
    }
    let mut results = vec![];
    for (user, rung) in [
        ("root", "root"),
        ("pib-subids", "userns-range"),
        ("pib-plain", "userns-single"),
    ] {
        account(user);
        let own = place.path().join(user);
        fs_err::create_dir_all(own.join("in-place")).unwrap();
        // An overlay holds no overlay's upper directory.
        let over = own.join("over");
        for directory in ["lower", "upper", "work"] {
            fs_err::create_dir_all(over.join(directory)).unwrap();
        }
        rustix::mount::mount(
            "overlay",
            own.join("in-place"),
            "overlay",
            rustix::mount::MountFlags::empty(),
            std::ffi::CString::new(format!(
                "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
                over.display()
            ))
            .unwrap()
            .as_c_str(),
        )
        .unwrap();
        // Nobody may touch it.
        fs_err::write(own.join("sentinel"), "outside").unwrap();
        succeed(
            Command::new("chown")
                .args(["-R", &format!("{user}:")])
                .arg(&own),
        );
        fs_err::set_permissions(own.join("sentinel"), PermissionsExt::from_mode(0o4755)).unwrap();
        let rungs = std::env::var("RUNGS").unwrap_or_default();
        if !rungs.is_empty() && !rungs.contains(rung) {
            continue;
        }
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", user, "--regid", user, "--init-groups"])
            .arg(place.path().join("owners"))
            .args(["--rung", rung])
            .arg(&own)
            .args(
                std::env::args()
                    .skip(1)
                    .filter(|word| !word.starts_with('-')),
            )
            .env("USER", user)
            .current_dir("/");
        let passed = command.status().unwrap().success();
        let metadata = fs_err::metadata(own.join("sentinel")).unwrap();
        assert_eq!(
            metadata.mode() & 0o7777,
            0o4755,
            "{user}: the host's file was touched"
        );
        rustix::mount::unmount(own.join("in-place"), rustix::mount::UnmountFlags::DETACH).unwrap();
        let text = fs_err::read_to_string(own.join("results")).unwrap_or_default();
        let steps: Vec<(String, String, String)> = serde_json::from_str(&text).unwrap_or_default();
        results.push((rung, passed, steps));
    }
    std::process::exit(i32::from(!same(&results)));
}

type Steps = Vec<(String, String, String)>;

/// Whether all passed, and gave what the first one gave.
fn same(results: &[(&str, bool, Steps)]) -> bool {
    let mut passed = results.iter().all(|(_, passed, _)| *passed);
    let first = &results[0].2;
    passed &= !first.is_empty();
    let expected = |name: &str| {
        let case = name.split(' ').next().unwrap();
        first
            .iter()
            .find(|(other, ..)| other.split(' ').next() == Some(case))
    };
    for (rung, _, steps) in results {
        for (name, digest, listing) in steps {
            let Some((first_name, expected, expected_listing)) = expected(name) else {
                continue;
            };
            if digest == expected {
                continue;
            }
            passed = false;
            println!("FAILED {rung}: {name} gives another layer than root's {first_name}");
            for line in listing
                .lines()
                .filter(|line| !expected_listing.contains(line))
            {
                println!("    {rung}: {line}");
            }
            for line in expected_listing
                .lines()
                .filter(|line| !listing.contains(line))
            {
                println!("    root: {line}");
            }
        }
    }
    if passed {
        println!("ok: the layers are the same on every rung");
    }
    passed
}

fn account(user: &str) {
    let known = |flag: &str| Command::new("id").args([flag, user]).output().unwrap();
    if !known("-u").status.success() {
        succeed(Command::new("/usr/sbin/useradd").args([
            "--system",
            "--user-group",
            "--no-create-home",
            user,
        ]));
    }
    let subids = fs_err::read_to_string("/etc/subuid").unwrap_or_default();
    if user == "pib-subids" && !subids.lines().any(|line| line.starts_with("pib-subids:")) {
        let range = "2000000-2065535";
        succeed(Command::new("/usr/sbin/usermod").args([
            "--add-subuids",
            range,
            "--add-subgids",
            range,
            user,
        ]));
    }
}

fn succeed(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Every variant of one rung.
fn as_this_user(rung: Rung, own: &Path) {
    let filter: Vec<String> = std::env::args().skip(4).collect();
    let store = Store::open(&own.join("store")).unwrap();
    let layers = base_layers(&own.parent().unwrap().join("layout"), &store);
    let progress = Progress::silent();
    let plain = rootfs::unpack(&layers, rung, &store, &progress).unwrap();
    let mut results: Steps = vec![];
    let mut passed = true;
    let started = Instant::now();
    let ground = {
        let scratch = Scratch::new_in(&store.scratch_root()).unwrap();
        let mut stack = Stack::new(&plain, inputs(rung, &store, scratch.path())).unwrap();
        let layer = run(&mut stack, own, CASES[0].0, true);
        drop(stack);
        rootfs::remove(rung, scratch.path()).unwrap();
        match layer {
            Ok(layer) => layer.expect("the ground is something"),
            Err(error) => {
                println!("FAILED {rung}: ground: {error}");
                std::process::exit(1);
            }
        }
    };
    results.push(result("ground", &store, Some(&ground)));
    println!(
        "ok     {rung}: ground ({} ms)",
        started.elapsed().as_millis()
    );
    let base = rootfs::unpack(&[layers, vec![ground]].concat(), rung, &store, &progress).unwrap();
    for (variant, in_place, emulate) in VARIANTS {
        let only = std::env::var("VARIANTS").unwrap_or_default();
        let unwanted = !only.is_empty() && !only.contains(variant);
        if unwanted || (rung != Rung::UsernsSingle && variant == "recorded-only") {
            continue;
        }
        let scratch = if in_place {
            Scratch::new_in(&own.join("in-place")).unwrap()
        } else {
            Scratch::new_in(&store.scratch_root()).unwrap()
        };
        let mut stack = Stack::new(&base, inputs(rung, &store, scratch.path())).unwrap();
        let made_copy = scratch.path().join("tree").exists();
        assert_eq!(
            made_copy, in_place,
            "{rung}, {variant}: an overlay is where none was wanted"
        );
        for case in &CASES[1..] {
            let (name, needs_emulation) = *case;
            let wanted = filter.is_empty() || filter.iter().any(|part| name.contains(part));
            if !wanted || (needs_emulation && !emulate) {
                continue;
            }
            let started = Instant::now();
            match run(&mut stack, own, name, emulate) {
                Ok(layer) => {
                    let name = format!("{name} ({variant})");
                    println!(
                        "ok     {rung}: {name} ({} ms)",
                        started.elapsed().as_millis()
                    );
                    results.push(result(&name, &store, layer.as_ref()));
                }
                Err(error) => {
                    passed = false;
                    println!("FAILED {rung}: {name} ({variant}): {error}");
                    break;
                }
            }
        }
        drop(stack);
        rootfs::remove(rung, scratch.path()).unwrap();
    }
    passed &= killed(rung, &base, &store);
    fs_err::write(
        own.join("results"),
        serde_json::to_string(&results).unwrap(),
    )
    .unwrap();
    std::process::exit(i32::from(!passed));
}

fn base_layers(layout: &Path, store: &Store) -> Vec<Layer> {
    let source = format!("oci:{}", layout.display()).parse().unwrap();
    let client = registry::Client::new(
        registry::Options::default(),
        Arc::new(net::Client::new(net::Options::default())),
    );
    base::pull(
        &source,
        &Platform::host(),
        Pull::Never,
        &client,
        store,
        &Progress::silent(),
    )
    .unwrap()
    .layers
}

/// Lives as long as the test.
fn silent() -> &'static Progress {
    Box::leak(Box::new(Progress::silent()))
}

fn inputs<'a>(rung: Rung, store: &'a Store, scratch: &'a Path) -> Inputs<'a> {
    Inputs {
        rung,
        store,
        scratch,
        ca_bundle: None,
        times: Times {
            fixed_under: vec![],
            fixed: 0,
            clamp: Some(1_600_000_000),
        },
        compression: Compression::None,
        progress: silent(),
    }
}

fn run(
    stack: &mut Stack<'_>,
    own: &Path,
    name: &str,
    emulate: bool,
) -> Result<Option<Layer>, String> {
    let programs = own.parent().unwrap().join("programs");
    let read = |name: &str| fs_err::read_to_string(programs.join(format!("{name}.py"))).unwrap();
    let program = format!("{}\n{}", read("common"), read(name));
    let task = Task {
        argv: vec!["python3".into(), "-c".into(), program],
        env: with_defaults(&[("PYTHONDONTWRITEBYTECODE".into(), "1".into())]),
        emulate,
        ..Task::default()
    };
    stack.perform(name, &[task]).map_err(|error| match error {
        pyats_image_builder::step::Error::Failed { tail, .. } => tail.join("\n    "),
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        }
    })
}

fn result(name: &str, store: &Store, layer: Option<&Layer>) -> (String, String, String) {
    let digest = layer.map_or("nothing".to_owned(), |layer| layer.diff_id.0.to_string());
    let listing = layer.map_or(String::new(), |layer| {
        list(&store.blob_path(&layer.descriptor.digest))
    });
    (name.to_owned(), digest, listing)
}

/// What a layer says, for people.
fn list(blob: &Path) -> String {
    let mut archive = tar::Archive::new(fs_err::File::open(blob).unwrap());
    let mut text = String::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let link = entry
            .link_name_bytes()
            .map(|link| String::from_utf8_lossy(&link).into_owned());
        let attributes: Vec<String> = entry
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
            .map(|record| {
                let record = record.unwrap();
                let value = String::from_utf8_lossy(record.value_bytes()).into_owned();
                format!("{}={value:?}", record.key().unwrap())
            })
            .collect();
        let mut content = vec![];
        let header = entry.header().clone();
        entry.read_to_end(&mut content).unwrap();
        let sum: u64 = content.iter().map(|byte| u64::from(*byte)).sum();
        let _ = writeln!(
            text,
            "{path} {:?} {:o} {}:{} {} {sum} {} {link:?} {attributes:?}",
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            content.len(),
            header.mtime().unwrap(),
        );
    }
    text
}

/// A step that is killed in the middle of changing owners ends at once, and leaves no record.
fn killed(rung: Rung, base: &Rootfs, store: &Store) -> bool {
    let scratch = Scratch::new_in(&store.scratch_root()).unwrap();
    let rootfs = rootfs::overlay(std::slice::from_ref(&base.path), scratch.path()).unwrap();
    let record = scratch.path().join("record");
    let program = "import os, threading\n\
        os.makedirs('/k')\n\
        os.symlink('x', '/k/link')\n\
        def storm():\n\
        \x20   while True:\n\
        \x20       os.chown('/k', 7, 7)\n\
        \x20       os.lchown('/k/link', 7, 7)\n\
        for _ in range(4): os.fork()\n\
        for _ in range(2): threading.Thread(target=storm).start()\n\
        print('up', flush=True)\n\
        storm()\n";
    let command = |rootfs: RootFs| runner::Command {
        rootfs,
        mounts: vec![],
        argv: ["python3", "-c", program].map(Into::into).into(),
        env: with_defaults(&[]),
        cwd: "/".into(),
        tmpfs: vec![],
        user: String::new(),
        network: true,
        placement: None,
        ca_bundle: None,
        interactive: false,
        inherit_output: false,
        owners: base.owners.as_ref().map(|known| Owners {
            attribute: OWNER_ATTRIBUTE.to_owned(),
            known: Some(known.clone()),
            record: record.clone(),
            emulate: false,
        }),
    };
    let cancelled = AtomicI32::new(0);
    let mut since = None;
    let outcome = runner::run(
        rung,
        &command(rootfs),
        &mut |line| {
            if line == "up" {
                since.get_or_insert_with(Instant::now);
                cancelled.store(libc::SIGKILL, Ordering::Relaxed);
            }
        },
        &cancelled,
    )
    .unwrap();
    let took = since.unwrap().elapsed();
    let left = fs_err::read(&record).map_or(0, |bytes| bytes.len());
    rootfs::remove(rung, scratch.path()).unwrap();
    let expected =
        left == 0 && outcome == Outcome::Signalled(libc::SIGKILL) && took < Duration::from_secs(3);
    let word = if expected { "ok    " } else { "FAILED" };
    println!("{word} {rung}: killed ({outcome:?} after {took:?}, {left} bytes of record)");
    expected
}

/// `--time DIRECTORY RUNG recorded|emulated|forgotten|nothing COMMAND...`: how long a command takes.
fn time(arguments: &[String]) {
    let own = Path::new(&arguments[0]);
    let rung: Rung = arguments[1].parse().unwrap();
    let store = Store::open(&own.join("store")).unwrap();
    let layers = base_layers(&own.parent().unwrap().join("layout"), &store);
    let progress = Progress::silent();
    let base = rootfs::unpack(&layers, rung, &store, &progress).unwrap();
    let scratch = Scratch::new_in(&store.scratch_root()).unwrap();
    let rootfs = rootfs::overlay(std::slice::from_ref(&base.path), scratch.path()).unwrap();
    let owners = Owners {
        attribute: OWNER_ATTRIBUTE.to_owned(),
        known: base.owners.clone(),
        record: scratch.path().join("record"),
        emulate: arguments[2] == "emulated",
    };
    let mut mounts = vec![];
    for shared in std::env::var("SHARE")
        .iter()
        .flat_map(|list| list.split(','))
    {
        let (source, target) = shared.split_once(':').unwrap();
        mounts.push(runner::Mount {
            source: source.into(),
            target: target.into(),
            read_only: false,
        });
    }
    let command = runner::Command {
        rootfs,
        mounts,
        argv: arguments[3..].iter().map(Into::into).collect(),
        env: with_defaults(&[("DEBIAN_FRONTEND".into(), "noninteractive".into())]),
        cwd: "/".into(),
        tmpfs: vec![],
        user: String::new(),
        network: true,
        placement: None,
        ca_bundle: None,
        interactive: false,
        inherit_output: false,
        owners: (arguments[2] != "forgotten").then_some(owners),
    };
    let started = Instant::now();
    let mut last = vec![];
    let outcome = runner::run(
        rung,
        &command,
        &mut |line| last.push(line.to_owned()),
        &AtomicI32::new(0),
    )
    .unwrap();
    let took = started.elapsed();
    for line in last.iter().rev().take(8).rev() {
        println!("    {line}");
    }
    println!(
        "{rung} {} {outcome:?} {:.2} s",
        arguments[2],
        took.as_secs_f64()
    );
    rootfs::remove(rung, scratch.path()).unwrap();
}
