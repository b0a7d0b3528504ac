//! Owners and identity: the same steps on every runner, as every kind of user, give the same layers.
//!
//! As root it runs the steps as the two other kinds of user too, upon an overlay and in place. The steps are
//! programs of `tests/owners/`, which look at what they did themselves; what they look at is the same
//! everywhere. What recording costs is a test of its own, one of the long ones. There is no test harness,
//! since `main` has to be the runner's helper process as well. Arguments are parts of names of steps to run.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::exit,
    reason = "this is a test harness"
)]

#[expect(
    dead_code,
    unused_imports,
    reason = "the integration tests need all of it"
)]
mod support;

use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use pyats_image_builder::base::{self, Layers, Pull};
use pyats_image_builder::cache::{Cache, Policy};
use pyats_image_builder::layer::{Compression, OWNER_ATTRIBUTE, Times};
use pyats_image_builder::manifest::{Layer, Platform};
use pyats_image_builder::progress::Progress;
use pyats_image_builder::rootfs::{self, Rootfs};
use pyats_image_builder::runner::{self, Outcome, Owners, RootFs, Runner};
use pyats_image_builder::step::{Inputs, Stack, Task, with_defaults};
use pyats_image_builder::store::{Scratch, Store};
use pyats_image_builder::{net, registry};

use support::{User, base_layout, repository, skip, succeed};

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
    // The programs that make accounts give their new files the owners that they see of the old ones.
    ("users", true),
    ("shown", true),
    ("identity", true),
    ("tools", true),
];

/// A name, whether trees are written in place, and whether answers are emulated.
type Variant = (&'static str, bool, bool);

const VARIANTS: [Variant; 3] = [
    ("overlay", false, true),
    ("in-place", true, true),
    ("recorded-only", false, false),
];

const SAME: &str = "same_on_every_runner";
const IN_PLACE: &str = "long::same_in_place_and_without_answers";
const COST: &str = "long::recording_costs_little";

fn main() {
    pyats_image_builder::helper();
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // So nextest runs one test.
    if arguments.first().is_some_and(|first| first == "--exact") {
        arguments.remove(0);
    }
    match arguments.first().map(String::as_str) {
        Some("--runner") => as_this_user(
            arguments[1].parse().unwrap(),
            Path::new(&arguments[2]),
            &arguments[3],
            &arguments[4..],
        ),
        Some("--cost") => {
            cost_for_this_user(arguments[1].parse().unwrap(), Path::new(&arguments[2]));
        }
        // How nextest asks which tests there are, and runs one.
        Some("--list") if arguments.iter().any(|argument| argument == "--ignored") => {
            println!("{IN_PLACE}: test\n{COST}: test");
        }
        Some("--list") => println!("{SAME}: test\n{IN_PLACE}: test\n{COST}: test"),
        Some(SAME) => everything(&VARIANTS[..1], &[]),
        Some(IN_PLACE) => everything(&VARIANTS[1..], &[]),
        Some(COST) => cost(),
        // Options are those of the usual harness, such as the number of its threads.
        Some(option) if option.starts_with('-') => {
            if arguments
                .iter()
                .any(|argument| argument == "--include-ignored")
            {
                cost();
                everything(&VARIANTS, &[]);
            }
            everything(&VARIANTS[..1], &[]);
        }
        _ => everything(&VARIANTS, &arguments),
    }
}

/// A folder with the base, the programs, and a folder for each user.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::Builder::new()
            .prefix("owners-")
            .tempdir()
            .unwrap();
        fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let layout = base_layout().expect("the base is needed");
        let copy = |from: &Path, name: &str| {
            succeed(
                Command::new("cp")
                    .arg("-rL")
                    .arg(from)
                    .arg(place.path().join(name)),
            );
        };
        copy(&layout, "layout");
        copy(&repository().join("tests/owners"), "programs");
        fs::copy("/proc/self/exe", place.path().join("owners")).unwrap();
        Self(place)
    }

    /// The folder of a user, with empty folders in it.
    fn folder(&self, user: User, within: &[&str]) -> PathBuf {
        let own = self.0.path().join(user.runner());
        let (uid, gid) = user.ids().unwrap();
        for name in [&[""], within].concat() {
            let folder = own.join(name);
            fs::create_dir_all(&folder).unwrap();
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        own
    }

    /// Runs this program as a user.
    fn run(&self, user: User, arguments: &[String]) -> bool {
        let own = self.folder(user, &[]);
        let mut command = Command::new(self.0.path().join("owners"));
        command
            .args([&arguments[0], user.runner()])
            .arg(&own)
            .args(&arguments[1..])
            .env("HOME", &own)
            .current_dir("/");
        user.apply(&mut command);
        command.status().unwrap().success()
    }
}

fn everything(variants: &[Variant], filter: &[String]) {
    if User::current() != User::Root {
        skip("only root can compare the runners");
        return;
    }
    let place = Place::new();
    let mut results = vec![];
    for user in User::ALL {
        let within = ["in-place", "over", "over/lower", "over/upper", "over/work"];
        let own = place.folder(user, &within);
        let in_place = own.join("in-place");
        // An overlay holds no overlay's upper directory.
        let options = format!(
            "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
            own.join("over").display()
        );
        rustix::mount::mount(
            "overlay",
            &in_place,
            "overlay",
            rustix::mount::MountFlags::empty(),
            std::ffi::CString::new(options).unwrap().as_c_str(),
        )
        .unwrap();
        // Nobody may touch it.
        let sentinel = own.join("sentinel");
        fs::write(&sentinel, "outside").unwrap();
        let (uid, gid) = user.ids().unwrap();
        std::os::unix::fs::chown(&sentinel, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&sentinel, PermissionsExt::from_mode(0o4755)).unwrap();
        let names = variants.iter().map(|(name, ..)| *name);
        let names = names.collect::<Vec<_>>().join(",");
        let passed = place.run(user, &[&["--runner".to_owned(), names], filter].concat());
        let mode = fs::metadata(&sentinel).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o4755, "{user:?}: the host's file was touched");
        rustix::mount::unmount(&in_place, rustix::mount::UnmountFlags::DETACH).unwrap();
        let text = fs::read_to_string(own.join("results")).unwrap_or_default();
        let steps: Steps = serde_json::from_str(&text).unwrap_or_default();
        results.push((user.runner(), passed, steps));
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
    for (runner, _, steps) in results {
        for (name, digest, listing) in steps {
            let Some((first_name, expected, expected_listing)) = expected(name) else {
                continue;
            };
            if digest == expected {
                continue;
            }
            passed = false;
            println!("FAILED {runner}: {name} gives another layer than root's {first_name}");
            for line in listing
                .lines()
                .filter(|line| !expected_listing.contains(line))
            {
                println!("    {runner}: {line}");
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
        println!("ok: the layers are the same on every runner");
    }
    passed
}

/// Every variant of one runner.
fn as_this_user(runner: Runner, own: &Path, variants: &str, filter: &[String]) {
    let store = Store::open(&own.join("store")).unwrap();
    let layers = base_layers(&own.parent().unwrap().join("layout"), &store);
    let progress = Progress::silent();
    let mut results: Steps = vec![];
    let mut passed = true;
    let started = Instant::now();
    let ground = {
        let scratch = Scratch::new_in(&store.scratch_root()).unwrap();
        let mut stack = Stack::new(&layers, inputs(runner, &store, scratch.path()));
        let layer = run(&mut stack, own, CASES[0].0, true);
        drop(stack);
        rootfs::remove(runner, scratch.path()).unwrap();
        match layer {
            Ok(layer) => layer.expect("the ground is something"),
            Err(error) => {
                println!("FAILED {runner}: ground: {error}");
                std::process::exit(1);
            }
        }
    };
    results.push(result("ground", &store, Some(&ground)));
    println!(
        "ok     {runner}: ground ({} ms)",
        started.elapsed().as_millis()
    );
    let base = [layers, vec![ground]].concat();
    for (variant, in_place, emulate) in VARIANTS {
        let is_wanted = variants.split(',').any(|name| name == variant);
        if !is_wanted || (runner != Runner::UsernsSingle && variant == "recorded-only") {
            continue;
        }
        let scratch = if in_place {
            Scratch::new_in(&own.join("in-place")).unwrap()
        } else {
            Scratch::new_in(&store.scratch_root()).unwrap()
        };
        let mut stack = Stack::new(&base, inputs(runner, &store, scratch.path()));
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
                        "ok     {runner}: {name} ({} ms)",
                        started.elapsed().as_millis()
                    );
                    results.push(result(&name, &store, layer.as_ref()));
                }
                Err(error) => {
                    passed = false;
                    println!("FAILED {runner}: {name} ({variant}): {error}");
                    break;
                }
            }
        }
        drop(stack);
        let mut folders = fs::read_dir(scratch.path()).unwrap();
        let made_copy = folders.any(|folder| folder.unwrap().path().join("tree").exists());
        assert_eq!(
            made_copy, in_place,
            "{runner}, {variant}: an overlay is where none was wanted"
        );
        rootfs::remove(runner, scratch.path()).unwrap();
    }
    passed &= killed(
        runner,
        &rootfs::unpack(&base, runner, &store, &progress).unwrap(),
        &store,
    );
    fs::write(
        own.join("results"),
        serde_json::to_string(&results).unwrap(),
    )
    .unwrap();
    std::process::exit(i32::from(!passed));
}

fn base_layers(layout: &Path, store: &Store) -> Vec<Layer> {
    let source = format!("oci:{}", layout.display()).parse().unwrap();
    base::pull(
        &source,
        &Platform::host(),
        Pull::Never,
        Layers::Now,
        registries(),
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

/// The layers are in the store.
fn registries() -> &'static registry::Client {
    let net = Arc::new(net::Client::new(net::Options::default()));
    Box::leak(Box::new(registry::Client::new(
        registry::Options::default(),
        net,
    )))
}

fn inputs<'a>(runner: Runner, store: &'a Store, scratch: &'a Path) -> Inputs<'a> {
    Inputs {
        runner: Some(runner),
        platform: Platform::host(),
        store,
        registries: registries(),
        cache: Cache::new(
            store,
            Policy {
                is_used: false,
                ttl: None,
            },
            "owners",
        ),
        scratch,
        ca_bundle: None,
        times: Times {
            fixed_under: vec![],
            fixed: 0,
            clamp: Some(1_600_000_000),
        },
        compression: Compression::None,
        hidden: Vec::new(),
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
    let read = |name: &str| fs::read_to_string(programs.join(format!("{name}.py"))).unwrap();
    let program = format!("{}\n{}", read("common"), read(name));
    let task = Task {
        argv: vec!["python3".into(), "-c".into(), program],
        env: with_defaults(&[("PYTHONDONTWRITEBYTECODE".into(), "1".into())]),
        emulate,
        ..Task::default()
    };
    let made = stack.perform(name, &[], &[task]);
    made.map(|made| made.layer).map_err(|error| {
        let tail = error.tail();
        if tail.is_empty() {
            error.messages().join(": ")
        } else {
            tail.join("\n    ")
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
    let mut archive = tar::Archive::new(fs::File::open(blob).unwrap());
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
fn killed(runner: Runner, base: &Rootfs, store: &Store) -> bool {
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
    let mut command = command(rootfs, ["python3", "-c", program]);
    command.owners = base.owners.as_ref().map(|known| Owners {
        attribute: OWNER_ATTRIBUTE.to_owned(),
        known: Some(known.clone()),
        record: record.clone(),
        emulate: false,
    });
    let cancelled = AtomicI32::new(0);
    let mut since = None;
    let outcome = runner::run(
        runner,
        &command,
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
    let left = fs::read(&record).map_or(0, |bytes| bytes.len());
    rootfs::remove(runner, scratch.path()).unwrap();
    let expected =
        left == 0 && outcome == Outcome::Signalled(libc::SIGKILL) && took < Duration::from_secs(3);
    let word = if expected { "ok    " } else { "FAILED" };
    println!("{word} {runner}: killed ({outcome:?} after {took:?}, {left} bytes of record)");
    expected
}

/// A command without anything that this test has no use for.
fn command<const N: usize>(rootfs: RootFs, argv: [&str; N]) -> runner::Command {
    runner::Command {
        rootfs,
        mounts: vec![],
        argv: argv.map(Into::into).into(),
        env: with_defaults(&[]),
        cwd: "/".into(),
        tmpfs: vec![],
        user: String::new(),
        network: true,
        placement: None,
        ca_bundle: None,
        interactive: false,
        inherit_output: false,
        owners: None,
        watch: None,
    }
}

/// How many times each way of installing is timed.
const ROUNDS: usize = 5;

/// Slow because of many small files and changes of owner, and without the network.
const INSTALL: &str =
    "apt-get install -y --no-install-recommends -o Dir::Cache::archives=/packages";

/// Times an installation by apt where owners are recorded, where they are not, and with answers emulated.
fn cost() {
    if User::Plain.ids().is_none() {
        return;
    }
    let place = Place::new();
    let passed = place.run(User::Plain, &["--cost".to_owned()]);
    drop(place);
    assert!(passed, "see above");
}

fn cost_for_this_user(runner: Runner, own: &Path) {
    let store = Store::open(&own.join("store")).unwrap();
    let layers = base_layers(&own.parent().unwrap().join("layout"), &store);
    let base = rootfs::unpack(&layers, runner, &store, &Progress::silent()).unwrap();
    let record = |emulate| {
        let known = base.owners.clone();
        Some(Owners {
            attribute: OWNER_ATTRIBUTE.to_owned(),
            known,
            record: PathBuf::new(),
            emulate,
        })
    };
    let shell = |lower: &[PathBuf], owners: Option<Owners>, script: &str| {
        let scratch = Scratch::new_in(&store.scratch_root()).unwrap();
        let rootfs = rootfs::overlay(lower, scratch.path()).unwrap();
        let RootFs::Overlay { upper, .. } = &rootfs else {
            panic!("it is an overlay")
        };
        let upper = upper.clone();
        let mut command = command(rootfs, ["sh", "-ec", script]);
        command.owners = owners.map(|owners| Owners {
            record: scratch.path().join("record"),
            ..owners
        });
        let mut tail = vec![];
        let started = Instant::now();
        let never = AtomicI32::new(0);
        let told = &mut |line: &str| tail.push(line.to_owned());
        let outcome = runner::run(runner, &command, told, &never).unwrap();
        let took = started.elapsed().as_secs_f64();
        let from = tail.len().saturating_sub(10);
        assert_eq!(outcome, Outcome::Exited(0), "{}", tail[from..].join("\n"));
        (took, upper, scratch)
    };
    let fetch = format!(
        "export DEBIAN_FRONTEND=noninteractive; mkdir -p /packages/partial
         apt-get -o APT::Sandbox::User=root update
         {INSTALL} -o APT::Sandbox::User=root --download-only gcc libcap2-bin"
    );
    let (_, fetched, fetched_scratch) = shell(slice::from_ref(&base.path), None, &fetch);
    let lower = [fetched, base.path.clone()];
    let install =
        format!("export DEBIAN_FRONTEND=noninteractive; {INSTALL} --no-download gcc libcap2-bin");
    let ways = [
        ("owners forgotten", None),
        ("owners recorded", record(false)),
        ("and emulated", record(true)),
    ];
    let mut times = [const { Vec::new() }; 3];
    // In turns, there and back: what slows the machine down, at once or bit by bit, slows all of them.
    for round in 0..ROUNDS {
        let mut turns: Vec<_> = ways.iter().enumerate().collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (number, (name, owners)) in turns {
            let (took, _, scratch) = shell(&lower, owners.clone(), &install);
            rootfs::remove(runner, scratch.path()).unwrap();
            println!("round {round}: {name}: {took:.2} s");
            times[number].push(took);
        }
    }
    rootfs::remove(runner, fetched_scratch.path()).unwrap();
    let share = |number: usize| {
        let pairs = times[number].iter().zip(&times[0]);
        let mut shares: Vec<f64> = pairs.map(|(took, least)| took / least).collect();
        shares.sort_by(f64::total_cmp);
        shares[shares.len() / 2]
    };
    for (number, (name, _)) in ways.iter().enumerate() {
        let more = (share(number) - 1.0) * 100.0;
        println!("{name}: {more:+.1} % by the round in the middle");
    }
    let passed = share(1) < 1.1;
    println!(
        "{}",
        if passed {
            "ok"
        } else {
            "FAILED: recording costs a tenth"
        }
    );
    std::process::exit(i32::from(!passed));
}
