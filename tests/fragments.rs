//! The table of fragments: instructions of `cmds`, one behaviour each, with Buildah as the oracle.
//!
//! Every fragment of `testdata/fragments/table.txt` is carried out on every runner that can be had (beside `root`,
//! the usual run takes one of the others for each), and must give the same layers, byte for byte, on all of them. A step behind it must see the same files in the tree that
//! it left and in one that is unpacked from its layers: else the result of a build would depend on the cache.
//!
//! As root, Buildah builds the same text upon the same base from the same context, and must come to the same
//! tree and the same config. What Buildah cannot read,
//! and the few things in which it is known to differ from the reference or from `BuildKit`, have a
//! hand-written text beside them that says the same in plainer instructions, which Buildah builds in its
//! place. `@PORT@` is a web server's port, `@GIT@` a git daemon's address. Buildah takes a while, so it is one of the long tests. `testdata/fragments/bad.txt` holds instructions that must fail, and the words of the error.
//!
//! It has no test harness, since its `main` has to be the runner's helper process as well. Arguments are
//! parts of names of fragments. With `FRAGMENTS_ORACLE=DIRECTORY` Buildah's images are kept there for the
//! next time.
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

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fs_err as fs;
use pyats_image_builder::assemble::{self, Instructor};
use pyats_image_builder::base::{self, Base, Layers, Pull};
use pyats_image_builder::cache::{Cache, Policy};
use pyats_image_builder::dockerfile::{self, Config};
use pyats_image_builder::error::Error;
use pyats_image_builder::layer::Times;
use pyats_image_builder::manifest::{Layer, Platform};
use pyats_image_builder::progress::{Event, Progress};
use pyats_image_builder::rootfs;
use pyats_image_builder::runner::Runner;
use pyats_image_builder::sources::{Again, Sources, SshOptions};
use pyats_image_builder::step::{Inputs, Stack};
use pyats_image_builder::store::{Scratch, Store};
use pyats_image_builder::{net, registry};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use support::{
    Bench, Docker, GitDaemon, GitProtocol, GitRepository, Tree, User, have, note, repository,
    sha256, succeed,
};

/// `SOURCE_DATE_EPOCH` of every build: later than the files of the context, earlier than those of steps.
const EPOCH: i64 = 1_000_000_000;

/// The base has no entry for the root, so that its mode is each builder's own.
const ROOT: (&str, &str) = ("", "its mode is the builder's own");

/// Prints what a step can see of the image's files.
const LOOK: &str = "RUN [\"/bin/tool\", \"list\"]";

/// What the step's secret is.
const SECRET: &str = "the secret's words\n";

/// More reasons to distrust Buildah would make it no oracle.
const MOST_DIFFERENCES: usize = 12;

/// Fewer fragments would mean that the table was not read.
const FEWEST_FRAGMENTS: usize = 150;

/// The tests.
const RUNNERS: &str = "every_fragment_on_every_runner";
const ORACLE: &str = "long::every_fragment_in_buildah";
const CONTAINERS: &str = "long::every_fragment_everywhere";

/// Where fragments are carried out.
#[derive(Debug, Clone, Copy)]
struct Venue {
    name: &'static str,
    runner: Runner,
    /// On this machine as this user.
    user: User,
    /// Or else in a container of root's with these options.
    container: Option<&'static [&'static str]>,
    /// Every second fragment: those with an even number, or those with an odd one.
    half: Option<usize>,
}

impl Venue {
    const fn user(name: &'static str, runner: Runner, user: User) -> Self {
        Self {
            name,
            runner,
            user,
            container: None,
            half: None,
        }
    }

    const fn container(
        name: &'static str,
        runner: Runner,
        options: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            runner,
            user: User::Root,
            container: Some(options),
            half: None,
        }
    }

    const fn half(self, half: usize) -> Self {
        Self {
            half: Some(half),
            ..self
        }
    }

    /// The folder for it in the test's place.
    fn folder(self, place: &Path) -> PathBuf {
        place.join(self.name)
    }
}

const ROOTS: Venue = Venue::user("root", Runner::Root, User::Root);

const RANGE: Venue = Venue::user("userns-range", Runner::UsernsRange, User::Subids);
const SINGLE: Venue = Venue::user("userns-single", Runner::UsernsSingle, User::Plain);

/// Every kind of user; the long tests have the other halves.
const USERS: &[Venue] = &[ROOTS, RANGE.half(0), SINGLE.half(1)];

/// All venues. The first is what the others are compared with.
const EVERYWHERE: &[Venue] = &[
    ROOTS,
    RANGE,
    SINGLE,
    Venue::user("chroot", Runner::Chroot, User::Root),
    Venue::container("container", Runner::Chroot, &[]),
    Venue::container(
        "container-user",
        Runner::UsernsSingle,
        &["--user=1001", "--security-opt=seccomp=unconfined"],
    ),
];

fn main() {
    pyats_image_builder::helper();
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // So nextest runs one test.
    if arguments.first().is_some_and(|first| first == "--exact") {
        arguments.remove(0);
    }
    match arguments.first().map(String::as_str) {
        Some("--runner") => carry_out_all(
            arguments[1].parse().unwrap(),
            Path::new(&arguments[2]),
            Path::new(&arguments[3]),
            &arguments[4..],
        ),
        // How nextest asks which tests there are, and runs one.
        Some("--list") if arguments.iter().any(|argument| argument == "--ignored") => {
            println!("{ORACLE}: test\n{CONTAINERS}: test");
        }
        Some("--list") => println!("{RUNNERS}: test\n{ORACLE}: test\n{CONTAINERS}: test"),
        Some(RUNNERS) => everything(USERS, false, &[]),
        Some(ORACLE) => everything(&[ROOTS], true, &[]),
        Some(CONTAINERS) => everything(EVERYWHERE, false, &[]),
        // Options are those of the usual harness, such as the number of its threads.
        Some(option) if option.starts_with('-') => {
            let is_full = arguments
                .iter()
                .any(|argument| argument == "--include-ignored");
            everything(if is_full { EVERYWHERE } else { USERS }, is_full, &[]);
        }
        _ => everything(EVERYWHERE, true, &arguments),
    }
}

/// One entry of a table.
struct Fragment {
    name: String,
    /// Words behind the name, see the table.
    marks: Vec<String>,
    text: String,
    /// Its place in the table.
    number: usize,
    /// What stands below `===`: in the table, what Buildah builds instead; in the table of bad input, the error.
    other: Option<String>,
}

impl Fragment {
    /// Reads a table: `--- name marks`, the text, and perhaps `===` and another text.
    fn table(folder: &Path, name: &str) -> Vec<Self> {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        let (_, entries) = text.split_once("\n--- ").unwrap();
        let entry = |(number, entry): (usize, &str)| {
            let (head, body) = entry.split_once('\n').unwrap();
            let mut words = head.split(' ').map(str::to_owned);
            let (text, other) = match body.split_once("\n===") {
                Some((text, other)) => (text, Some(other.trim_start().to_owned())),
                None => (body, None),
            };
            Self {
                name: words.next().unwrap(),
                marks: words.collect(),
                text: text.to_owned(),
                number,
                other,
            }
        };
        let entries: Vec<Self> = entries.split("\n--- ").enumerate().map(entry).collect();
        let names: BTreeSet<_> = entries.iter().map(|fragment| &fragment.name).collect();
        assert_eq!(names.len(), entries.len(), "two have the same name");
        entries
    }

    fn is_chosen(&self, filter: &[String]) -> bool {
        filter.is_empty() || filter.iter().any(|part| self.name.contains(part))
    }

    /// Why Buildah would do something else.
    fn difference(&self) -> Option<&str> {
        let mut marks = self.marks.iter();
        marks.find_map(|mark| mark.strip_prefix("differs="))
    }

    /// Whether it is carried out at a venue, which can give the layers that the others give.
    fn is_for(&self, runner: Runner, half: Option<usize>) -> bool {
        let is_marked = |word| self.marks.iter().any(|mark| mark == word);
        if half.is_some_and(|half| self.number % 2 != half) {
            return false;
        }
        match runner {
            Runner::Root => true,
            Runner::UsernsRange | Runner::UsernsSingle => !is_marked("root"),
            Runner::Chroot => !is_marked("mounts"),
        }
    }
}

/// What came of a fragment on one runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    /// Each entry of the history with the digest of its layer.
    entries: Vec<(String, Option<String>)>,
    /// The image's config.
    config: Value,
}

type Answers = BTreeMap<String, Result<Made, String>>;

/// Every fragment in each of the places, and perhaps in Buildah.
fn everything(venues: &[Venue], with_oracle: bool, filter: &[String]) {
    let bench = Bench::current();
    let docker = venues
        .iter()
        .any(|venue| venue.container.is_some())
        .then(|| Docker::with_base(&bench))
        .flatten();
    let directory = tempfile::Builder::new()
        .prefix("pib-fragments-")
        .tempdir()
        .unwrap();
    let place = directory.path();
    fs::set_permissions(place, PermissionsExt::from_mode(0o755)).unwrap();
    let base = place.join("base");
    fs::create_dir(&base).unwrap();
    make("base", &base, User::current());
    // Program and tables may lie where the other users may not look.
    fs::copy("/proc/self/exe", place.join("fragments")).unwrap();
    for name in ["make.py", "table.txt", "bad.txt"] {
        fs::copy(testdata().join(name), place.join(name)).unwrap();
    }
    let port = serve();
    fs::create_dir(place.join("git")).unwrap();
    suite(&place.join("git/suite.git"));
    let daemon = GitDaemon::start(&place.join("git"), GitProtocol::Current);
    let git = daemon.url("").replace("git://", "");
    let git = git.trim_end_matches('/');
    let table = Fragment::table(place, "table.txt");
    assert!(table.len() >= FEWEST_FRAGMENTS, "{} fragments", table.len());

    let mut answers = Vec::new();
    let mut theirs = None;
    std::thread::scope(|scope| {
        let is_there = with_oracle && User::current() == User::Root && have(&["buildah"]);
        let oracle = is_there
            .then(|| scope.spawn(|| Buildah::new(place, &base, port).build(&table, filter)));
        let docker = docker.as_ref();
        let ours: Vec<_> = venues
            .iter()
            .map(|venue| {
                scope.spawn(move || carry_out_at(*venue, docker, place, port, git, filter))
            })
            .collect();
        answers.extend(ours.into_iter().filter_map(|ours| ours.join().unwrap()));
        theirs = oracle.map(|oracle| oracle.join().unwrap());
    });
    if with_oracle && theirs.is_none() {
        note("only root has Buildah for an oracle");
    }
    let mut failures = bad_input(&Fragment::table(place, "bad.txt"), &answers, filter);
    failures.extend(compare_runners(&table, &answers, filter));
    if let (Some(theirs), Some((_, ours))) = (&theirs, answers.first()) {
        failures.extend(compare_oracle(&table, ours, theirs, place, filter));
    }
    let reasons: BTreeSet<_> = table.iter().filter_map(Fragment::difference).collect();
    assert!(reasons.len() <= MOST_DIFFERENCES, "{reasons:?}");
    for failure in &failures {
        println!("FAILED {failure}");
    }
    // Only in its namespace can a user remove what is not his; root can remove everything.
    let own = |venue: &&Venue| venue.user == User::current() && venue.container.is_none();
    for venue in venues.iter().filter(own) {
        rootfs::remove(venue.runner, &venue.folder(place)).unwrap();
    }
    directory.close().unwrap();
    drop((docker, bench));
    if !failures.is_empty() {
        std::process::exit(1);
    }
}

/// The folder of the tables.
fn testdata() -> PathBuf {
    repository().join("testdata/fragments")
}

/// Makes the base or a context, as `user`.
fn make(what: &str, directory: &Path, user: User) {
    let mut command = Command::new("python3");
    command.arg(testdata().join("make.py"));
    user.apply(&mut command);
    succeed(command.arg(what).arg(directory));
}

/// The tables at one place, in a process of its own; `None` if there is no such place.
fn carry_out_at(
    venue: Venue,
    docker: Option<&Docker>,
    place: &Path,
    port: u16,
    git: &str,
    filter: &[String],
) -> Option<(Venue, Answers)> {
    let (mut uid, mut gid) = venue.user.ids()?;
    let folder = venue.folder(place);
    let program = place.join("fragments");
    let mut command = match venue.container {
        None => {
            let mut command = Command::new(program);
            command
                .env("HOME", &folder)
                .env_remove("XDG_CACHE_HOME")
                .current_dir("/");
            venue.user.apply(&mut command);
            command
        }
        Some(options) => {
            let mut command = docker?.command();
            command.args(["run", "--rm", "--network=host", "--workdir=/"]);
            let shown = place.display();
            command.arg(format!("--volume={shown}:{shown}"));
            command.arg(format!("--env=HOME={}", folder.display()));
            command.args(options).arg("--entrypoint").arg(program);
            command.arg("base:1");
            let user = options.iter().find_map(|word| word.strip_prefix("--user="));
            if let Some(user) = user {
                (uid, gid) = (user.parse().unwrap(), 0);
            }
            command
        }
    };
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
    let started = Instant::now();
    command
        .args(["--runner", &venue.runner.to_string()])
        .arg(&folder)
        .arg(place.join("base"))
        .arg(port.to_string())
        .arg(git)
        .arg(venue.half.map_or("all".to_owned(), |half| half.to_string()))
        .args(filter);
    succeed(&mut command);
    println!("{}: {} s", venue.name, started.elapsed().as_secs());
    let text = fs::read_to_string(folder.join("answers")).unwrap();
    Some((venue, serde_json::from_str(&text).unwrap()))
}

/// Carries out both tables on one runner, and leaves the answers in the folder.
fn carry_out_all(runner: Runner, folder: &Path, base: &Path, arguments: &[String]) {
    let (port, git, half, filter) = (&arguments[0], &arguments[1], &arguments[2], &arguments[3..]);
    let half = half.parse().ok();
    let context = folder.join("context");
    let given = base.parent().unwrap();
    let mut python = Command::new("python3");
    succeed(
        python
            .arg(given.join("make.py"))
            .arg("context")
            .arg(&context),
    );
    fs::write(folder.join("secret"), SECRET).unwrap();
    fs::create_dir(folder.join("store")).unwrap();
    let ground = Ground::new(runner, folder, base);
    let mut answers = Answers::new();
    for table in ["table.txt", "bad.txt"] {
        for fragment in Fragment::table(given, table) {
            if fragment.is_chosen(filter) && fragment.is_for(runner, half) {
                let text = fragment.text.replace("@PORT@", port).replace("@GIT@", git);
                let made = ground.carry_out(&fragment, &text);
                let made = made.map_err(|error| {
                    let error = error.replace(&format!(":{port}"), ":@PORT@");
                    let error = error.replace(git.as_str(), "@GIT@");
                    error.replace(&runner.to_string(), "@RUNNER@")
                });
                answers.insert(fragment.name.clone(), made);
            }
        }
    }
    let text = serde_json::to_string(&answers).unwrap();
    fs::write(folder.join("answers"), text).unwrap();
}

/// What the fragments build upon.
struct Ground<'a> {
    runner: Runner,
    folder: &'a Path,
    store: Store,
    net: Arc<net::Client>,
    client: registry::Client,
    base: Base,
}

impl<'a> Ground<'a> {
    fn new(runner: Runner, folder: &'a Path, base: &Path) -> Self {
        let store = Store::open(&folder.join("store")).unwrap();
        let net = Arc::new(net::Client::new(net::Options::default()));
        let client = registry::Client::new(registry::Options::default(), net.clone());
        let source = format!("oci:{}:base", base.display()).parse().unwrap();
        let platform = Platform::host();
        let silent = Progress::silent();
        let base = base::pull(
            &source,
            &platform,
            Pull::Never,
            Layers::Now,
            &client,
            &store,
            &silent,
        )
        .unwrap();
        Self {
            runner,
            folder,
            store,
            net,
            client,
            base,
        }
    }

    /// What the text gives, or the words of its error. As root its tree is kept, for the comparison with the oracle's.
    fn carry_out(&self, fragment: &Fragment, text: &str) -> Result<Made, String> {
        let instructions = dockerfile::parse(text).map_err(|errors| {
            let lines = errors.iter().map(|error| {
                let hint = error.hint.as_deref().unwrap_or("none");
                format!("{error}\nhint: {hint}\n")
            });
            lines.collect::<String>()
        })?;
        let scratch = Scratch::new_in(&self.store.scratch_root()).unwrap();
        let second = Scratch::new_in(&self.store.scratch_root()).unwrap();
        let (progress, printed) = listening();
        let ssh = SshOptions {
            accept_new_host_keys: false,
            known_hosts: None,
        };
        let secrets = [("token".to_owned(), self.folder.join("secret"))];
        let context = self.folder.join("context");
        let instructor = Instructor {
            context: &context,
            scratch: scratch.path(),
            sources: Sources {
                net: &self.net,
                ssh: &ssh,
                store: &self.store,
                jobs: 1,
                again: Again::Ask,
            },
            secrets: &secrets,
            proxies: &[],
            epoch: Some(EPOCH),
            progress: &progress,
        };
        let inputs = |scratch| Inputs {
            runner: Some(self.runner),
            platform: self.base.platform.clone(),
            store: &self.store,
            registries: &self.client,
            cache: Cache::new(
                &self.store,
                Policy {
                    is_used: false,
                    ttl: None,
                },
                "fragments",
            ),
            scratch,
            ca_bundle: None,
            times: Times {
                fixed_under: Vec::new(),
                fixed: EPOCH,
                clamp: Some(EPOCH),
            },
            compression: "none".parse().unwrap(),
            hidden: Vec::new(),
            progress: &progress,
        };
        let config = Config::read(&self.base.config);
        let mut stack = Stack::new(&self.base.layers, inputs(scratch.path()));
        let carried_out = assemble::carry_out(&instructions, config, &mut stack, instructor)
            .map_err(|error| words(&error));
        let look = dockerfile::parse(LOOK).unwrap();
        let seen = |stack: &mut Stack<'_>| {
            printed.lock().unwrap().clear();
            let looked = assemble::carry_out(&look, Config::default(), stack, instructor);
            let seen = std::mem::take(&mut *printed.lock().unwrap());
            looked.map(|_| seen).map_err(|error| words(&error))
        };
        let compared = carried_out.and_then(|(config, entries)| {
            let own = entries.iter().filter_map(|entry| entry.layer.clone());
            let layers: Vec<_> = self.base.layers.iter().cloned().chain(own).collect();
            // An overlay and a tree that is written in place differ here; user namespaces do not.
            if matches!(self.runner, Runner::Root | Runner::Chroot) {
                let mut unpacked = Stack::new(&layers, inputs(second.path()));
                compare_seen(&seen(&mut stack)?, &seen(&mut unpacked)?)?;
            }
            Ok((config, entries, layers))
        });
        for scratch in [&scratch, &second] {
            rootfs::remove(self.runner, scratch.path()).unwrap();
        }
        let (config, entries, layers) = compared?;
        self.keep_tree(fragment, &layers);
        let mut document = self.base.config.clone();
        config.write(&mut document);
        let digest = |entry: &pyats_image_builder::image::Entry| {
            let layer = entry.layer.as_ref();
            layer.map(|layer| layer.descriptor.digest.to_string())
        };
        Ok(Made {
            entries: entries
                .iter()
                .map(|entry| (entry.created_by.clone(), digest(entry)))
                .collect(),
            config: document,
        })
    }

    /// Unpacks the layers, and as root keeps their tree below the fragment's name. It does not stay in the store,
    /// which drops all but the latest.
    fn keep_tree(&self, fragment: &Fragment, layers: &[Layer]) {
        let tree = rootfs::unpack(layers, self.runner, &self.store, &Progress::silent()).unwrap();
        let is_its_own = layers.len() > self.base.layers.len();
        if self.runner == Runner::Root {
            let name = self.folder.join(&fragment.name);
            fs::create_dir_all(name.parent().unwrap()).unwrap();
            if is_its_own {
                fs::rename(&tree.path, name).unwrap();
            } else {
                fs_err::os::unix::fs::symlink(&tree.path, name).unwrap();
            }
        }
        if is_its_own {
            rootfs::remove(self.runner, tree.path.parent().unwrap()).unwrap();
        }
    }
}

/// What steps print, as they print it.
fn listening() -> (Progress, Arc<Mutex<Vec<String>>>) {
    let printed = Arc::new(Mutex::new(Vec::new()));
    let sink = printed.clone();
    let progress = Progress::new(move |event| {
        if let Event::Output { line } = event {
            sink.lock().unwrap().push(line);
        }
    });
    (progress, printed)
}

/// What a step sees in the tree that those before it left, and in one that is unpacked from their layers.
fn compare_seen(left: &[String], unpacked: &[String]) -> Result<(), String> {
    if left == unpacked {
        return Ok(());
    }
    let only = |one: &[String], two: &[String]| {
        let lines = one.iter().filter(|line| !two.contains(line));
        lines.cloned().collect::<Vec<_>>()
    };
    Err(format!(
        "the next step sees what no layer says:\n{:#?}\nand not what one says:\n{:#?}",
        only(left, unpacked),
        only(unpacked, left)
    ))
}

/// An error as the program shows it.
fn words(error: &Error) -> String {
    let mut lines = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        lines.push(format!("caused by: {error}"));
        source = error.source();
    }
    lines.extend(error.tail().iter().map(|line| format!("| {line}")));
    lines.extend(error.hint().map(|hint| format!("hint: {hint}")));
    lines.join("\n")
}

/// Makes a repository whose commits are always the same.
fn suite(path: &Path) {
    let repository = GitRepository::new(path);
    let first = [
        ("100644", "file", "one\n"),
        ("100755", "run", "#!/bin/sh\n"),
        ("100644", "sub/inner", "inner\n"),
        ("120000", "link", "file"),
        ("100644", ".dockerignore", "*\n"),
    ];
    repository.commit("main", &first);
    repository.git(&["tag", "v1", "main"]);
    repository.git(&["branch", "dev", "main"]);
    repository.git(&["branch", "both", "main"]);
    repository.commit("main", &[("100644", "file", "two\n")]);
    repository.commit("dev", &[("100644", "file", "dev\n")]);
    repository.git(&["tag", "both", "main"]);
    let annotated = "tag v2\nfrom refs/heads/main\ntagger Jo <jo@example.com> 1700000000 +0000\n\
                     data 2\nv2\n";
    repository.git_with(&["fast-import", "--quiet"], annotated.as_bytes());
}

/// Answers every request with one file; gives the port.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 4096];
            let length = connection.read(&mut request).unwrap_or(0);
            let is_there = !request[..length]
                .windows(8)
                .any(|words| words == b"/missing");
            let (status, body) = if is_there {
                ("200 OK", "from the web\n")
            } else {
                ("404 Not Found", "")
            };
            let body = if request.starts_with(b"HEAD") {
                ""
            } else {
                body
            };
            // A client that goes away is not ours to worry about.
            let _ = write!(
                connection,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLast-Modified: Sat, 03 Feb 2001 04:05:06 \
                 GMT\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    port
}

/// Every runner gives the same config and the same layers.
fn compare_runners(
    table: &[Fragment],
    answers: &[(Venue, Answers)],
    filter: &[String],
) -> Vec<String> {
    let mut failures = Vec::new();
    let Some((first, expected)) = answers.first() else {
        return vec!["no runner can be had here".to_owned()];
    };
    for (venue, found) in answers {
        let at = venue.name;
        let (mut good, before) = (0, failures.len());
        let chosen = table.iter().filter(|fragment| fragment.is_chosen(filter));
        for fragment in chosen.filter(|fragment| fragment.is_for(venue.runner, venue.half)) {
            let name = &fragment.name;
            match (&found[name], &expected[name]) {
                (Err(error), _) => failures.push(format!("{name} at {at}:\n{error}")),
                (Ok(one), Ok(two)) if one != two => failures.push(format!(
                    "{name}: not the same at {at} and {}:\n{one:#?}\n{two:#?}",
                    first.name
                )),
                _ => good += 1,
            }
        }
        println!("{at}: {good} good, {} bad", failures.len() - before);
    }
    failures
}

/// Every bad text has its error, the same on every runner.
fn bad_input(table: &[Fragment], answers: &[(Venue, Answers)], filter: &[String]) -> Vec<String> {
    let mut failures = Vec::new();
    let chosen: Vec<_> = table.iter().filter(|one| one.is_chosen(filter)).collect();
    for (venue, found) in answers {
        let at = venue.name;
        for fragment in chosen
            .iter()
            .filter(|fragment| fragment.is_for(venue.runner, venue.half))
        {
            let expected = fragment.other.as_deref().unwrap();
            let name = &fragment.name;
            match &found[name] {
                Ok(_) => failures.push(format!("{name} at {at}: there is no error")),
                Err(error) if error.trim() != expected.trim() => failures.push(format!(
                    "{name} at {at}:\n{error}\n  instead of\n{expected}"
                )),
                Err(_) => {}
            }
        }
    }
    println!("bad input: {} texts", chosen.len());
    failures
}

/// Buildah's trees and configs are ours.
fn compare_oracle(
    table: &[Fragment],
    ours: &Answers,
    theirs: &BTreeMap<String, Result<Built, String>>,
    place: &Path,
    filter: &[String],
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut good = 0;
    for fragment in table.iter().filter(|fragment| fragment.is_chosen(filter)) {
        let name = &fragment.name;
        let Ok(made) = &ours[name] else {
            // It is told already.
            continue;
        };
        let found = match &theirs[name] {
            Ok(built) => {
                let tree = Tree::of(&ROOTS.folder(place).join(name).join("."));
                let mut found = tree.differences(&Tree::of(&built.tree), &[ROOT]);
                if fragment.difference() == Some("volume") {
                    // The volumes themselves, which it makes.
                    found.retain(|line| !line.ends_with("only in the second (directory)"));
                }
                found.extend(config_differences(&made.config, &built.config));
                found
            }
            Err(error) => vec![format!("Buildah fails: {error}")],
        };
        if found.is_empty() {
            good += 1;
        } else {
            let found = found.join("\n  ");
            failures.push(format!(
                "{name}: this tool (first) and Buildah (second) differ:\n  {found}"
            ));
        }
    }
    println!("Buildah: {good} good, {} bad", failures.len());
    failures
}

/// What differs in what the configs say, beside what says nothing.
fn config_differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let fields = |document: &Value| {
        let mut fields = document["config"].as_object().cloned().unwrap_or_default();
        fields.insert("author".to_owned(), document["author"].clone());
        // Of the container that a builder of Docker's kind commits.
        fields.remove("Hostname");
        // Whether a variable that is set anew moves to the end says nothing.
        if let Some(Value::Array(env)) = fields.get_mut("Env") {
            env.sort_by_key(Value::to_string);
        }
        fields.retain(|_, value| {
            !(value.is_null()
                || *value == json!("")
                || *value == json!(false)
                || *value == json!([])
                || *value == json!({}))
        });
        fields
    };
    let (ours, theirs) = (fields(ours), fields(theirs));
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    names
        .into_iter()
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| {
            let show = |value: Option<&Value>| value.unwrap_or(&Value::Null).to_string();
            let (one, two) = (show(ours.get(name)), show(theirs.get(name)));
            format!("config {name}: {one} and {two}")
        })
        .collect()
}

/// Buildah with a storage of its own.
struct Buildah<'a> {
    place: &'a Path,
    storage: PathBuf,
    port: u16,
    /// Of the base and of what makes the context: images that were made with others are not used again.
    recipe: String,
}

/// What Buildah made of a fragment.
struct Built {
    tree: PathBuf,
    config: Value,
}

impl<'a> Buildah<'a> {
    const BASE: &'static str = "localhost/base:latest";

    fn new(place: &'a Path, base: &Path, port: u16) -> Self {
        let kept = std::env::var_os("FRAGMENTS_ORACLE").map(PathBuf::from);
        let index = fs::File::open(base.join("index.json")).unwrap();
        let script = fs::File::open(place.join("make.py")).unwrap();
        let buildah = Self {
            place,
            storage: kept.unwrap_or_else(|| place.join("buildah")),
            port,
            recipe: sha256(index).unwrap() + &sha256(script).unwrap(),
        };
        fs::create_dir_all(&buildah.storage).unwrap();
        fs::write(place.join("secret"), SECRET).unwrap();
        make("context", &place.join("context"), User::Root);
        // The path becomes the image's name, which takes no capitals.
        let mut pull = buildah.command();
        pull.current_dir(place).args(["pull", "oci:base:base"]);
        succeed(&mut pull);
        buildah
    }

    fn command(&self) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.storage.join("root"));
        command.arg("--runroot").arg(self.storage.join("run"));
        // Every layer is a whole tree of its own, which can be read without a mount.
        command.args(["--storage-driver", "vfs"]);
        command.env("HOME", self.place).env("TMPDIR", self.place);
        command
    }

    /// Builds what is not there yet, two at a time.
    fn build(
        &self,
        table: &[Fragment],
        filter: &[String],
    ) -> BTreeMap<String, Result<Built, String>> {
        let started = Instant::now();
        let chosen: Vec<_> = table.iter().filter(|one| one.is_chosen(filter)).collect();
        let known = self.images();
        let next = AtomicUsize::new(0);
        let mut errors = BTreeMap::new();
        std::thread::scope(|scope| {
            let worker = || {
                let mut errors = Vec::new();
                while let Some(fragment) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !known.contains_key(&self.tag(fragment))
                        && let Err(error) = self.build_one(fragment)
                    {
                        errors.push((fragment.name.clone(), error));
                    }
                }
                errors
            };
            let workers = [scope.spawn(worker), scope.spawn(worker)];
            for worker in workers {
                errors.extend(worker.join().unwrap());
            }
        });
        println!("Buildah: {} s", started.elapsed().as_secs());
        let mut images = self.images();
        let built = |fragment: &&Fragment| {
            let name = fragment.name.clone();
            let built = match errors.remove(&name) {
                Some(error) => Err(error),
                None => Ok(images.remove(&self.tag(fragment)).unwrap()),
            };
            (name, built)
        };
        chosen.iter().map(built).collect()
    }

    fn tag(&self, fragment: &Fragment) -> String {
        let text = format!(
            "{}\n{}\n{}",
            self.recipe,
            fragment.name,
            self.dockerfile(fragment)
        );
        let digest = sha256(text.replace(&self.port.to_string(), "").as_bytes()).unwrap();
        format!("localhost/fragment:{digest}")
    }

    fn dockerfile(&self, fragment: &Fragment) -> String {
        let text = fragment.other.as_deref().unwrap_or(&fragment.text);
        let text = text.replace("@PORT@", &self.port.to_string());
        // Parser directives stand in front of everything.
        let is_directive = |line: &&str| line.starts_with("# escape");
        let directives: String = text
            .split_inclusive('\n')
            .take_while(is_directive)
            .collect();
        let rest = &text[directives.len()..];
        format!("{directives}FROM {}\n{rest}", Self::BASE)
    }

    fn build_one(&self, fragment: &Fragment) -> Result<(), String> {
        let tag = self.tag(fragment);
        let file = self.place.join(tag.rsplit(':').next().unwrap());
        fs::write(&file, self.dockerfile(fragment)).unwrap();
        let output = self
            .command()
            .args([
                "build",
                "--quiet",
                "--isolation",
                "chroot",
                "--layers=false",
            ])
            .args([
                "--format",
                "docker",
                "--identity-label=false",
                "--pull=never",
            ])
            .args(["--timestamp", &EPOCH.to_string()])
            .arg("--secret")
            .arg(format!(
                "id=token,src={}",
                self.place.join("secret").display()
            ))
            .arg("--file")
            .arg(&file)
            .args(["--tag", &tag])
            .arg(self.place.join("context"))
            .output()
            .unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// All images by name, read from where the library `containers/storage` keeps them.
    fn images(&self) -> BTreeMap<String, Built> {
        let root = self.storage.join("root");
        let text = fs::read_to_string(root.join("vfs-images/images.json")).unwrap();
        let images: Vec<Value> = serde_json::from_str(&text).unwrap();
        let mut found = BTreeMap::new();
        for image in &images {
            let word = |name: &str| image[name].as_str().unwrap().to_owned();
            let folder = root.join("vfs-images").join(word("id"));
            for name in image["names"].as_array().into_iter().flatten() {
                let built = Built {
                    tree: root.join("vfs/dir").join(word("layer")),
                    config: document(&folder, &word("id")),
                };
                found.insert(name.as_str().unwrap().to_owned(), built);
            }
        }
        found
    }
}

/// The document with this digest in a folder of documents.
fn document(folder: &Path, digest: &str) -> Value {
    for entry in fs::read_dir(folder).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        if sha256(&bytes[..]).unwrap() == digest {
            return serde_json::from_slice(&bytes).unwrap();
        }
    }
    panic!("{} has no {digest}", folder.display())
}
