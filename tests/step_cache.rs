//! The step cache: what is run again, and what is not.

/// A shared cache that fails, and disks that do.
mod luck;
/// What depends on the workspace.
mod workspace;

use std::collections::{BTreeSet, VecDeque};
use std::process::Stdio;
use std::time::{Duration, Instant};

use fs_err as fs;
use serde_json::{Value, json};

use crate::support::{Bench, Registry, Run, User, base_layout, serve_base, verify};

/// A build with steps of every kind.
const BUILD: &str = r"
tag: image:1
python: 3.11
system-packages: []
files: [job.py, seen]
packages: [six==1.16.0]
pip-config:
  global:
    retries: 3
env:
  GREETING: hello
cmds:
  post: |
    RUN echo $GREETING >/greeting
    RUN --mount=type=bind,source=image/workspace/seen,target=/seen cat /seen/file >/copied
    RUN --mount=type=secret,id=token true
    COPY image/workspace/seen/file /placed
";

/// The names of its steps.
const VENV: &str = "virtual environment";
const PACKAGES: &str = "packages";
const COPIED: &str = "RUN /bin/sh -c cat /seen/file >/copied";
const GREETING: &str = "RUN /bin/sh -c echo $GREETING >/greeting";

struct Ground {
    bench: Bench,
    base: String,
}

impl Ground {
    fn new() -> Option<Self> {
        let base = format!("oci:{}", base_layout()?.display());
        let bench = Bench::current();
        bench.write("job.py", "print('job')\n");
        bench.write("seen/file", "text\n");
        bench.write("token", "first\n");
        bench.write("build.yaml", BUILD);
        bench.path("out");
        Some(Self { bench, base })
    }

    fn command(&self, more: &[&str]) -> Run {
        let fixed = ["build.yaml", "--base", &self.base, "-o", "oci-dir:out"];
        let secret = ["--secret", "id=token,src=token"];
        self.bench.run([&fixed[..], &secret, more].concat())
    }

    /// Builds; gives the digest, and what was said.
    fn build(&self, more: &[&str]) -> (String, String) {
        let run = self.command(more);
        let (_, digest) = run.line().split_once('@').expect("reference@digest");
        assert_eq!(verify(&self.bench.path("out"), "1").digest, digest);
        (digest.to_owned(), run.stderr().to_owned())
    }

    /// Nothing is known of steps any more.
    fn forget(&self) {
        let steps = self.bench.store().join("steps");
        fs::remove_dir_all(&steps).expect("it is there");
        fs::create_dir(&steps).expect("ours");
    }

    /// The first step that would be run, and why; `None` if none would.
    fn first_run(&self, more: &[&str]) -> Option<(String, String)> {
        let run = self.command(&[&["--dry-run", "-v"], more].concat());
        let _ = run.stderr();
        assert_eq!(run.status(), Some(0), "{}", run.stdout());
        let steps: Vec<_> = run
            .stdout()
            .lines()
            .filter_map(|line| line.strip_prefix("step: ")?.rsplit_once(": "))
            .collect();
        assert!(steps.len() >= 5, "{}", run.stdout());
        let mut lines = run.stdout().lines();
        let line = lines.find(|line| line.starts_with("step: ") && !line.ends_with(": cached"))?;
        let (name, why) = line.strip_prefix("step: ")?.split_once(": runs, ")?;
        Some((name.to_owned(), why.to_owned()))
    }
}

#[test]
fn an_unchanged_build_runs_nothing_and_a_touched_file_costs_one_layer() {
    let Some(ground) = Ground::new() else { return };
    let (first, said) = ground.build(&[]);
    assert!(!said.contains("cached"), "{said}");
    // The same image, though times are those of the build.
    let began = Instant::now();
    let (again, said) = ground.build(&[]);
    let took = began.elapsed();
    assert_eq!(again, first, "{said}");
    assert_eq!(said.matches("cached").count(), 6, "{said}");
    assert!(!said.contains("unpack layers"), "{said}");
    assert!(took < Duration::from_secs(3), "{took:?}: {said}");
    let before = verify(&ground.bench.path("out"), "1").manifest["layers"].clone();

    ground.bench.write("job.py", "print('another job')\n");
    let (touched, said) = ground.build(&[]);
    assert_ne!(touched, first);
    let after = verify(&ground.bench.path("out"), "1").manifest["layers"].clone();
    let (before, after) = (before.as_array().unwrap(), after.as_array().unwrap());
    // The base's three, the virtual environment and the packages.
    assert_eq!(before[..5], after[..5], "{said}");
    assert_ne!(before[5], after[5]);
    assert!(said.contains("packages: "), "{said}");

    let (_, said) = ground.build(&["--no-cache"]);
    assert!(!said.contains("cached"), "{said}");
}

/// Steps that leave behind what is in no layer, and one that looks for it.
const LEAVING: [&str; 7] = [
    "RUN --mount=type=secret,id=token --mount=type=cache,target=/c/d --mount=type=tmpfs,target=/t \
     --mount=type=bind,source=image/workspace/seen,target=/etc/alternatives/seen true",
    "RUN touch /etc/passwd- /made && ln /usr/bin/env /linked && mkdir -p /var/lib/apt/lists/partial",
    "RUN python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('/socket')\"",
    "WORKDIR /opt/below",
    "RUN chmod 711 /usr / && touch /usr/gone && rm /usr/gone",
    "COPY image/workspace/seen/file /placed",
    "RUN find / -mindepth 1 -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o \
     -path /etc/hosts -o -path /etc/resolv.conf -o -path /list -o -printf '%p %y %m %U:%G %T@ %l\\n' | sort >/list",
];

#[test]
fn a_build_that_was_stopped_and_started_again_has_the_same_digest() {
    let Some(ground) = Ground::new() else { return };
    let build = |instructions: &[&str]| {
        let head =
            "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [seen]\ncmds:\n  post: |\n";
        let lines = instructions.iter().map(|line| format!("    {line}\n"));
        ground
            .bench
            .write("build.yaml", head.to_owned() + &lines.collect::<String>());
    };
    let run = |runner: &str| {
        let mut command =
            ground
                .bench
                .tool(["build.yaml", "--base", &ground.base, "--runner", runner]);
        command.args(["--secret", "id=token,src=token"]);
        ground
            .bench
            .finish(command.env("SOURCE_DATE_EPOCH", "1700000000"))
    };
    let is_root = User::current() == User::Root;
    let runners = if is_root {
        &["root", "chroot"][..]
    } else {
        &["auto"]
    };
    let mut digests = BTreeSet::new();
    for runner in runners {
        build(&LEAVING);
        digests.insert(run(runner).line().to_owned());
        ground.forget();
        // Before the step that looks.
        build(&[&LEAVING[..LEAVING.len() - 1], &["RUN false"]].concat());
        let stopped = run(runner);
        assert!(stopped.refusal(1).contains("`RUN /bin/sh -c false` ended"));
        build(&LEAVING);
        digests.insert(run(runner).line().to_owned());
        ground.forget();
    }
    assert_eq!(digests.len(), 1, "{digests:#?}");
}

#[test]
fn what_a_step_can_read_is_its_key_and_nothing_else() {
    let Some(ground) = Ground::new() else { return };
    ground.build(&[]);
    assert_eq!(ground.first_run(&[]), None);
    let bench = &ground.bench;
    // Elsewhere each step depends on the workspace, which holds the build file.
    let is_watched = workspace::runners(&ground)[0].1;
    let unless_watched = |step| if is_watched { step } else { GREETING };

    // One thing at a time: the text to replace, and the first step that has to be run, with what has changed.
    for (old, new, step) in [
        ("GREETING: hello", "GREETING: bye", VENV),
        ("GREETING: hello", "GREETING: hello\n  MORE: x", VENV),
        ("six==1.16.0", "six==1.15.0", PACKAGES),
        ("[six==1.16.0]", "[six==1.16.0, pip]", PACKAGES),
        ("retries: 3", "retries: 4", PACKAGES),
        (
            "echo $GREETING >",
            "echo  $GREETING >",
            "RUN /bin/sh -c echo  $GREETING >/greeting",
        ),
        ("RUN echo $G", "RUN --network=none echo $G", GREETING),
        (
            "target=/seen cat",
            "target=/seen,rw cat",
            unless_watched(COPIED),
        ),
        (
            "COPY image",
            "COPY --chown=1 image",
            unless_watched("COPY --chown=1 image/workspace/seen/file /placed"),
        ),
    ] {
        assert!(BUILD.contains(old), "{old}");
        bench.write("build.yaml", BUILD.replace(old, new));
        let (found, why) = ground
            .first_run(&[])
            .unwrap_or_else(|| panic!("{new} is not seen"));
        assert_eq!(found, step, "{new}: {why}");
    }
    bench.write("build.yaml", BUILD);
    for (more, step) in [
        (&["--compression", "zstd"][..], VENV),
        (&["--no-cache"], VENV),
    ] {
        let (found, why) = ground.first_run(more).unwrap_or_else(|| panic!("{more:?}"));
        assert_eq!(found, step, "{more:?}: {why}");
    }
    // What is shown to steps above the workspace's layer.
    for (file, shown_to) in [("job.py", None), ("seen/file", Some(COPIED))] {
        let before = fs::read_to_string(bench.path(file)).unwrap();
        bench.write(file, "changed\n");
        let found = ground.first_run(&[]);
        let step = found.as_ref().map(|(step, _)| step.as_str());
        assert_eq!(step, if is_watched { shown_to } else { Some(GREETING) });
        if let Some((_, why)) = found {
            let words = "since this has changed: the layers below";
            assert!(why.starts_with(words), "{why}");
            assert_eq!(why.contains("/seen"), is_watched, "{why}");
        }
        bench.write(file, before);
    }

    // And what no step can read.
    for (old, new) in [
        ("tag: image:1", "tag: other:2"),
        (
            "tag: image:1",
            "tag: image:1\nlabels: {a: b}\nannotations: {c: d}",
        ),
    ] {
        bench.write("build.yaml", BUILD.replace(old, new));
        let found = ground.first_run(&[]).map(|(step, _)| step);
        assert_eq!(found.as_deref(), (!is_watched).then_some(GREETING), "{new}");
    }
    bench.write("build.yaml", BUILD);
    bench.write("token", "second\n");
    for more in [
        &[][..],
        &["--label", "a=b", "--annotation", "c=d"],
        &["-t", "other:1"],
        &["--format", "docker"],
        &["--jobs", "3"],
    ] {
        // Another tag is another build to compare with, and the same steps.
        assert_eq!(ground.first_run(more), None, "{more:?}");
    }
    for file in ["job.py", "seen/file"] {
        let path = bench.path(file);
        let text = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        bench.write(file, text);
    }
    assert_eq!(ground.first_run(&[]), None, "times and inodes");
}

#[test]
fn a_damaged_cache_makes_a_build_slow_and_never_wrong() {
    let Some(ground) = Ground::new() else { return };
    let (_, _) = ground.build(&[]);
    let layers = || verify(&ground.bench.path("out"), "1").manifest["layers"].clone();
    let expected = layers();
    let steps = ground.bench.store().join("steps");
    let entries = || {
        fs::read_dir(&steps)
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    // Cut, empty, and something else.
    for (number, entry) in entries().enumerate() {
        let text = ["", "{", "[]", r#"{"layer":{},"at":1}"#][number % 4];
        fs::write(entry, text).unwrap();
    }
    ground.build(&[]);
    // Settled times are the same; what post steps wrote has the time of the build.
    assert_eq!(layers()[4], expected[4]);
    // A layer that is gone.
    let digest = layers()[3]["digest"]
        .as_str()
        .unwrap()
        .replace("sha256:", "");
    fs::remove_file(ground.bench.store().join("blobs/sha256").join(digest)).unwrap();
    let (found, why) = ground.first_run(&[]).expect("it has to be made again");
    assert_eq!(
        (&*found, &*why),
        (VENV, "as what it made is too old, or gone")
    );
    ground.build(&[]);
    assert_eq!(layers()[3], expected[3]);
    // Old ones are not taken.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(ground.first_run(&["--cache-ttl", "1h"]), None);
    let (found, _) = ground
        .first_run(&["--cache-ttl", "1s"])
        .expect("all are old");
    assert_eq!(found, VENV);
}

#[test]
fn of_fifty_builds_at_once_one_runs_each_step() {
    let Some(ground) = Ground::new() else { return };
    let Some(registry) = Registry::start() else {
        return;
    };
    let bench = &ground.bench;
    // What each run of this step makes is different.
    let build = BUILD.replace(
        "echo $GREETING",
        "sleep 1; cat /proc/sys/kernel/random/uuid",
    );
    bench.write("build.yaml", build);
    let cache = shared(&ground, &registry);
    let start = |number: usize| {
        let output = format!("oci-dir:out{}", number % 8);
        bench.path(&format!("out{}", number % 8));
        bench
            .tool(["build.yaml", "--base", &ground.base, "-o", &output])
            .args(["--secret", "id=token,src=token"])
            .args(&cache)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .stdout(Stdio::null())
            .stderr(
                fs::File::create(bench.path(&format!("log{number}")))
                    .expect("ours")
                    .into_parts()
                    .0,
            )
            .spawn()
            .expect("it starts")
    };
    let mut running: VecDeque<_> = (0..8).map(|number| (number, start(number))).collect();
    let mut digests = BTreeSet::new();
    while let Some((number, mut build)) = running.pop_front() {
        let said = || fs::read_to_string(bench.path(&format!("log{number}"))).expect("ours");
        assert!(
            build.wait().expect("ours").success(),
            "{number}: {}",
            said()
        );
        digests.insert(verify(&bench.path(&format!("out{}", number % 8)), "1").digest);
        if number + 8 < BUILDS_AT_ONCE {
            running.push_back((number + 8, start(number + 8)));
        }
    }
    assert_eq!(digests.len(), 1);
}

/// All of them, eight at a time.
const BUILDS_AT_ONCE: usize = 50;

#[test]
fn prune_removes_what_is_not_used_and_nothing_else() {
    let Some(ground) = Ground::new() else { return };
    let bench = &ground.bench;
    let (first, _) = ground.build(&[]);
    let run = bench.run(["cache", "ls", "--json"]);
    let listed: Value = serde_json::from_str(run.stdout()).expect("it is JSON");
    let kinds = |kind: &str| {
        let items = listed["items"].as_array().expect("a list").iter();
        items.filter(|item| item["kind"] == kind).count()
    };
    assert_eq!((kinds("image"), kinds("tree")), (1, 1), "{listed:#}");
    assert!(kinds("step") >= 6 && kinds("cache") == 1, "{listed:#}");
    assert!(listed["bytes"].as_u64() > Some(50_000_000), "{listed:#}");
    let table = bench.run(["cache", "ls"]);
    assert!(table.stdout().contains("image:1"), "{}", table.stdout());

    // Nothing is old, and a dry run removes nothing.
    for arguments in [
        &["cache", "prune"][..],
        &["cache", "prune", "--all", "--dry-run"],
        &["cache", "prune", "--max-size", "1MB", "-n"],
    ] {
        let run = bench.run(arguments);
        assert!(!run.stdout().is_empty());
        let (again, said) = ground.build(&[]);
        assert_eq!(again, first, "{arguments:?}: {said}");
        assert_eq!(said.matches("cached").count(), 6, "{arguments:?}: {said}");
    }

    // All of it, while a build uses the base's tree and layers that it made before.
    std::thread::sleep(Duration::from_secs(1));
    let slow = BUILD.replace("echo $GREETING", "sleep 6; echo $GREETING");
    bench.write("build.yaml", slow);
    let log = bench.path("log");
    let mut build = bench
        .tool(["build.yaml", "--base", &ground.base, "-o", "oci-dir:out"])
        .args(["--secret", "id=token,src=token"])
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).expect("ours").into_parts().0)
        .spawn()
        .expect("it starts");
    let said = || fs::read_to_string(&log).expect("ours");
    while !said().contains("sleep 6") {
        assert_eq!(build.try_wait().expect("ours"), None, "{}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let run = bench.run(["cache", "prune", "--all"]);
    assert!(run.stdout().contains("removed"), "{}", run.stdout());
    assert!(build.wait().expect("ours").success(), "{}", said());
    verify(&bench.path("out"), "1");

    // And all of it when nobody is there.
    std::thread::sleep(Duration::from_secs(1));
    let run = bench.run(["cache", "prune", "--all"]);
    assert!(run.stdout().contains("image:1"), "{}", run.stdout());
    let run = bench.run(["cache", "ls", "--json"]);
    let listed: Value = serde_json::from_str(run.stdout()).expect("it is JSON");
    assert_eq!(listed, json!({"items": [], "bytes": 0}));
    bench.write("build.yaml", BUILD);
    ground.build(&[]);

    // By size: what was used last stays.
    std::thread::sleep(Duration::from_secs(1));
    let run = bench.run(["cache", "prune", "--max-size", "100MB"]);
    assert!(run.stdout().contains("tree"), "{}", run.stdout());
    for (arguments, words) in [
        (["cache", "prune", "--older-than", "soon"], "s, m, h or d"),
        (["cache", "prune", "--max-size", "big"], "MB, GB"),
    ] {
        let run = bench.run(arguments);
        assert!(run.refusal(2).contains(words), "{}", run.stderr());
    }
}

/// A build for the shared cache, and the place of the cache.
fn shared(ground: &Ground, registry: &Registry) -> [String; 2] {
    ground.bench.write("key", [7; 32]);
    [
        "--cache-repo".to_owned(),
        registry.reference("team/cache:any"),
    ]
}

#[test]
fn a_new_machine_takes_what_another_one_made() {
    let (Some(one), Some(other)) = (Ground::new(), Ground::new()) else {
        return;
    };
    let Some((registry, base)) = serve_base() else {
        return;
    };
    let (one, other) = (
        Ground {
            base: base.clone(),
            ..one
        },
        Ground { base, ..other },
    );
    let cache = shared(&one, &registry);
    let options = [&*cache[0], &*cache[1]];
    let (first, said) = one.build(&options);
    assert!(!said.contains("cached"), "{said}");

    // Nothing is run, unpacked or pulled, and the push sends nothing.
    other.bench.path("digest");
    let target = registry.reference("team/image:1");
    let arguments = ["build.yaml", "--base", &other.base, "--push", "-t", &target];
    let secret = ["--secret", "id=token,src=token"];
    let began = Instant::now();
    let run = other
        .bench
        .run([&arguments[..], &secret, &options].concat());
    let took = began.elapsed();
    run.line();
    let said = run.stderr();
    assert_eq!(said.matches("cached").count(), 6, "{said}");
    for words in ["unpack layers", "pull layers"] {
        assert!(!said.contains(words), "{words}: {said}");
    }
    assert!(took < Duration::from_secs(5), "{took:?}: {said}");
    // An output has all of it.
    let (_, said) = other.build(&options);
    assert!(said.contains("pull layers"), "{said}");
    let layers =
        |ground: &Ground| verify(&ground.bench.path("out"), "1").manifest["layers"].clone();
    assert_eq!(layers(&one), layers(&other));
    assert!(!first.is_empty());
}

#[test]
fn entries_of_others_are_not_trusted_and_a_failing_cache_fails_nothing() {
    let Some(ground) = Ground::new() else { return };
    let Some(registry) = Registry::start() else {
        return;
    };
    let cache = shared(&ground, &registry);
    let options = [&*cache[0], &*cache[1]];
    ground.build(&options);
    // They are not signed.
    ground.forget();
    let signed = [&options[..], &["--cache-key-file", "key"]].concat();
    let (_, said) = ground.build(&signed);
    assert!(!said.contains("cached"), "{said}");
    assert!(said.contains("to be trusted"), "{said}");
    // Now they are.
    ground.forget();
    let (_, said) = ground.build(&signed);
    assert_eq!(said.matches("cached").count(), 6, "{said}");
    // By another key they are not.
    ground.forget();
    ground.bench.write("key", [8; 32]);
    let (_, said) = ground.build(&[&signed[..], &["--cache-mode", "read"]].concat());
    assert!(!said.contains("cached"), "{said}");
    // A key that anybody guesses, and one that is not there.
    ground.bench.write("key", "short");
    for file in ["key", "none"] {
        let run = ground.command(&[&options[..], &["--cache-key-file", file]].concat());
        assert!(
            run.refusal(2).contains("key of the cache"),
            "{}",
            run.stderr()
        );
    }
    // Nobody is there.
    let port = registry.port();
    drop(registry);
    ground.forget();
    let place = format!("localhost:{port}/team/cache");
    let (_, said) = ground.build(&["--cache-repo", &place]);
    assert_eq!(said.matches("is not used any more").count(), 1, "{said}");
}

/// Changes the entries of a store.
fn rewrite(ground: &Ground, change: impl Fn(&mut Value)) {
    for entry in fs::read_dir(ground.bench.store().join("steps")).expect("it is there") {
        let path = entry.expect("ours").path();
        let text = fs::read_to_string(&path).expect("ours");
        let mut entry: Value = serde_json::from_str(&text).expect("it is JSON");
        if entry["at"].is_number() {
            change(&mut entry);
            fs::write(&path, entry.to_string()).expect("ours");
        }
    }
}

#[test]
fn with_a_key_only_entries_count_that_were_made_here_or_signed() {
    let (Some(forger), Some(ground), Some(other)) = (Ground::new(), Ground::new(), Ground::new())
    else {
        return;
    };
    let Some(registry) = Registry::start() else {
        return;
    };
    let open = shared(&forger, &registry);
    let signed = registry.reference("team/signed");
    let keyed = ["--cache-repo", &signed, "--cache-key-file", "key"];
    for ground in [&ground, &other] {
        ground.bench.write("key", [7; 32]);
    }
    let export = |ground: &Ground| {
        let kept = ground.bench.path("kept");
        let kept = kept.to_str().expect("UTF-8");
        let run = ground
            .bench
            .run(["cache", "export", kept, "--cache-key-file", "key"]);
        (run.stdout().to_owned(), run.stderr().to_owned())
    };
    // Somebody without the key puts entries into a cache, which are once taken without a key.
    forger.build(&[&*open[0], &*open[1]]);
    let (_, said) = ground.build(&[&*open[0], &*open[1]]);
    assert_eq!(said.matches("cached").count(), 6, "{said}");
    let (written, said) = export(&ground);
    assert!(
        said.contains("neither made here nor signed with this key"),
        "{said}"
    );
    assert!(
        ["1", "2", "3"]
            .map(|count| format!("written {count} entries"))
            .iter()
            .any(|few| written.starts_with(few)),
        "the workspace's at least, and no step's: {written}"
    );
    assert_eq!(ground.first_run(&[]), None);
    let (found, _) = ground.first_run(&keyed).expect("none of them counts");
    assert_eq!(found, VENV);
    let (_, said) = ground.build(&keyed);
    assert!(!said.contains("cached"), "{said}");
    assert!(
        !said.contains("to be trusted"),
        "nothing unsigned was put there: {said}"
    );

    // Whoever has the key takes them, and may pass them on.
    let (_, said) = other.build(&keyed);
    assert_eq!(said.matches("cached").count(), 6, "{said}");
    let (_, said) = export(&other);
    assert!(!said.contains("left out"), "{said}");
    let elsewhere = registry.reference("team/elsewhere");
    let keyed = ["--cache-repo", &elsewhere, "--cache-key-file", "key"];
    assert_eq!(other.first_run(&keyed), None);
    other.bench.write("key", [8; 32]);
    let (found, _) = other
        .first_run(&keyed)
        .expect("they have another signature");
    assert_eq!(found, VENV);

    // Earlier versions remembered no origin.
    rewrite(&ground, |entry| {
        entry.as_object_mut().expect("an entry").remove("origin");
    });
    let nowhere = registry.reference("team/nowhere");
    let keyed = ["--cache-repo", &nowhere, "--cache-key-file", "key"];
    assert_eq!(ground.first_run(&[]), None);
    let (found, _) = ground
        .first_run(&keyed)
        .expect("anybody could have made them");
    assert_eq!(found, VENV);

    // What claims to be of the future does not stay young.
    rewrite(&ground, |entry| entry["at"] = json!(99_999_999_999_u64));
    assert_eq!(ground.first_run(&[]), None);
    let (found, _) = ground
        .first_run(&["--cache-ttl", "1d"])
        .expect("none has an age");
    assert_eq!(found, VENV);
}

#[test]
fn what_a_registry_promises_and_cannot_give_is_made_here() {
    for damage in ["gone", "other bytes"] {
        let (Some(one), Some(other)) = (Ground::new(), Ground::new()) else {
            return;
        };
        let Some(registry) = Registry::start() else {
            return;
        };
        let cache = shared(&one, &registry);
        let options = [&*cache[0], &*cache[1]];
        one.build(&options);
        let layers =
            |ground: &Ground| verify(&ground.bench.path("out"), "1").manifest["layers"].clone();
        let expected = layers(&one);
        let digest = expected[3]["digest"].as_str().expect("a digest");
        let blob = registry.blob(digest);
        if damage == "gone" {
            fs::remove_file(&blob).expect("it is there");
        } else {
            let length = fs::metadata(&blob).expect("it is there").len();
            let bytes = vec![b'x'; usize::try_from(length).expect("small")];
            fs::write(&blob, bytes).expect("ours");
        }
        let (_, said) = other.build(&options);
        assert!(said.contains("is made here"), "{damage}: {said}");
        // The virtual environment and the packages are the same on every machine.
        let made = layers(&other);
        assert_eq!(
            (&made[3], &made[4]),
            (&expected[3], &expected[4]),
            "{damage}"
        );
    }
}

#[test]
fn a_folder_carries_the_cache() {
    let (Some(one), Some(other)) = (Ground::new(), Ground::new()) else {
        return;
    };
    one.build(&[]);
    let folder = other.bench.path("kept");
    let kept = folder.to_str().expect("UTF-8");
    // What is said, and how many entries were written or read.
    let carry = |ground: &Ground, what: &str, more: &[&str]| {
        let run = ground.bench.run([&["cache", what, kept], more].concat());
        let (_, count) = run.stdout().split_once(' ').expect("words");
        let count = count.split(' ').next().and_then(|count| count.parse().ok());
        let count: usize = count.expect("a number");
        (count, run.stderr().to_owned())
    };
    // The first job of a CI system finds nothing.
    let (count, said) = carry(&other, "import", &[]);
    assert!(said.contains("holds no cache yet"), "{said}");
    assert_eq!(count, 0);

    let (all, _) = carry(&one, "export", &[]);
    assert_eq!(
        all, 10,
        "six steps, the workspace, two questions and a time"
    );
    let index = fs::read_to_string(folder.join("index.json")).expect("it is a layout");
    let index: Value = serde_json::from_str(&index).expect("it is JSON");
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(all));
    let (count, _) = carry(&other, "import", &[]);
    assert_eq!(count, all);
    assert_eq!(other.first_run(&[]), None);
    let (_, said) = other.build(&[]);
    assert_eq!(said.matches("cached").count(), 6, "{said}");

    // It holds what the store holds, and nothing else.
    std::thread::sleep(Duration::from_secs(1));
    one.bench.run(["cache", "prune", "--all"]).stdout();
    let (count, _) = carry(&one, "export", &[]);
    assert_eq!(count, 0);
    let blobs = fs::read_dir(folder.join("blobs/sha256")).expect("it is a layout");
    assert_eq!(blobs.count(), 0);

    // Damaged layers, and entries that nobody signed, are left out.
    one.bench.write("key", [7; 32]);
    other.bench.write("key", [7; 32]);
    let (count, _) = carry(&other, "export", &["--cache-key-file", "key"]);
    assert_eq!(count, 0, "what came without a signature is not signed");
    one.build(&[]);
    let (count, _) = carry(&one, "export", &["--cache-key-file", "key"]);
    assert_eq!(count, all);
    std::thread::sleep(Duration::from_secs(1));
    one.bench.run(["cache", "prune", "--all"]).stdout();
    let largest = fs::read_dir(folder.join("blobs/sha256"))
        .expect("it is a layout")
        .map(|entry| entry.expect("ours").path())
        .max_by_key(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()))
        .expect("there are some");
    let elsewhere = other.bench.path("elsewhere");
    fs::rename(&largest, &elsewhere).expect("ours");
    fs::os::unix::fs::symlink(&elsewhere, &largest).expect("ours");
    let (count, said) = carry(&one, "import", &["--cache-key-file", "key"]);
    assert!(said.contains("is a link to a file outside of it"), "{said}");
    assert_eq!(count, all - 1);
    fs::remove_file(&largest).expect("ours");
    fs::write(&largest, "damaged").expect("ours");
    let (count, said) = carry(&one, "import", &["--cache-key-file", "key"]);
    assert!(said.contains("an entry is left out"), "{said}");
    assert_eq!(count, all - 1);
    one.bench.write("key", [8; 32]);
    let (count, said) = carry(&one, "import", &["--cache-key-file", "key"]);
    assert_eq!(count, 0);
    assert!(said.contains("to be trusted"), "{said}");
    let (_, said) = one.build(&[]);
    assert!(said.contains("cached"), "{said}");

    // Something else is neither read nor overwritten.
    one.bench.write("other/file", "text");
    let something = one.bench.path("other");
    for (what, words) in [
        ("export", "is not an OCI image layout"),
        ("import", "oci-layout"),
    ] {
        let run = one
            .bench
            .run(["cache", what, something.to_str().expect("UTF-8")]);
        assert!(run.refusal(1).contains(words), "{what}: {}", run.stderr());
    }
}
