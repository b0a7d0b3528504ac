//! The long tests, which `tests/run.sh --full` adds: builds that are killed at any moment, the
//! whole of pyATS, a thousand faults, and large pushes.

/// Every kind of container, killed builds in one, the one file to ship, and the recipe for GitLab.
mod containers;
/// A thousand faults, and how fast and how small pushes of many megabytes are.
mod push;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_err as fs;

use crate::support::{Bench, User, is_root, processes, resident, send, serve_base, verify};

/// How often each signal is sent in each phase.
const TIMES: u32 = 10;
/// The largest resident set that a process of the tool may have, in KiB.
const MEMORY: u64 = 150 * 1024;

/// Where in a build the signal comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// While the base is fetched: from the first byte of a blob in the store.
    Pulling,
    /// While pip works.
    Pip,
    /// While the layer of pip's work is written: from the first byte of a blob after pip began.
    Layer,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Pulling, Self::Pip, Self::Layer];

    /// Milliseconds from the phase's beginning within which the signal comes: about how long it lasts.
    fn length(self) -> u64 {
        match self {
            Self::Pulling => 150,
            Self::Pip => 3000,
            Self::Layer => 700,
        }
    }

    /// Whether the phase has begun; `events` is what the build wrote so far, as JSON lines.
    fn has_begun(self, events: &str, store: &Path) -> bool {
        let blobs = || {
            let entries = fs::read_dir(store.join("tmp"))
                .into_iter()
                .flatten()
                .flatten();
            entries
                .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"blob-"))
                .count()
        };
        let pip = events.contains(r#""label":"packages""#);
        match self {
            Self::Pulling => blobs() > 0,
            Self::Pip => pip,
            Self::Layer => pip && blobs() > 0,
        }
    }
}

#[test]
#[ignore = "long: 30 builds are killed, and 30 more come after them"]
fn a_killed_build_leaves_nothing_behind() {
    survives("KILL");
}

#[test]
#[ignore = "long: 30 builds are interrupted, and 30 more come after them"]
fn an_interrupted_build_leaves_nothing_behind() {
    survives("INT");
}

fn survives(signal: &str) {
    if !is_root() {
        return;
    }
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let arguments = [
        "build.yaml",
        "--base",
        &base,
        "-o",
        "oci-dir:out",
        "--progress",
        "json",
    ];
    for phase in Phase::ALL {
        // A build that was faster than the signal proves nothing, and does not count.
        let mut counted = 0;
        for number in 0.. {
            if counted == TIMES {
                break;
            }
            assert!(
                number < 3 * TIMES,
                "{phase:?} is over before the signal comes"
            );
            let user = User::ALL[number as usize % User::ALL.len()];
            let Some(bench) = prepare(user) else { continue };
            let what = format!("{phase:?}, {user:?}, {signal} number {number}");
            let events = bench.path("events");
            let log = fs::File::create(&events).expect("the bench can be written");
            let mut child = bench
                .tool(arguments)
                .stderr(log.into_parts().0)
                .stdout(Stdio::null())
                .spawn()
                .expect("starts");
            let read = || fs::read_to_string(&events).unwrap_or_default();
            while child.try_wait().expect("it is our child").is_none()
                && !phase.has_begun(&read(), &bench.store())
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let random = u64::from(now.subsec_nanos()) / 1000 % phase.length();
            std::thread::sleep(Duration::from_millis(random));
            send(&child, signal);
            let status = child.wait().expect("it is our child");
            match signal {
                _ if status.success() => {}
                "KILL" => assert_eq!(status.signal(), Some(9), "{what}\n{}", read()),
                _ => assert_eq!(status.code(), Some(130), "{what}\n{}", read()),
            }
            counted += u32::from(!status.success());
            bench.is_deserted(&what);
            let out = bench.path("out");
            if out.exists() {
                verify(&out, "1");
            }
            // The next one succeeds, and clears what the killed one left: the bench looks when it goes.
            bench.run(&arguments[..5]).line();
            verify(&out, "1");
        }
    }
}

/// A build whose pip and whose layer take a while.
fn prepare(user: User) -> Option<Bench> {
    let bench = Bench::new(user)?;
    bench.write_wheel(&["--noise", "24000000"]);
    bench.write(
        "build.yaml",
        "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [pib_hello-1.0-py3-none-any.whl]\n\
         packages: ['${WORKSPACE}/pib_hello-1.0-py3-none-any.whl']\nenv: {PIP_NO_INDEX: '1'}\n",
    );
    bench.path("out");
    Some(bench)
}

#[test]
#[ignore = "long: downloads half a gigabyte"]
fn all_of_pyats_as_root() {
    builds_all_of_pyats(User::Root);
}

#[test]
#[ignore = "long: downloads half a gigabyte"]
fn all_of_pyats_as_a_user_with_subordinate_ids() {
    builds_all_of_pyats(User::Subids);
}

#[test]
#[ignore = "long: downloads half a gigabyte"]
fn all_of_pyats_as_a_user_without_subordinate_ids() {
    builds_all_of_pyats(User::Plain);
}

fn builds_all_of_pyats(user: User) {
    let Some(bench) = Bench::new(user) else {
        return;
    };
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    bench.write(
        "job.py",
        "from pyats.easypy import run\n\n\n\
         def main(runtime):\n    run(testscript='/workspace/script.py', runtime=runtime)\n",
    );
    bench.write(
        "script.py",
        "from pyats import aetest\n\n\nclass Passes(aetest.Testcase):\n    @aetest.test\n    \
         def passes(self):\n        print('the job ran')\n",
    );
    bench.write(
        "build.yaml",
        "tag: pyats:1\npython: 3.11\nsystem-packages: []\nfiles: [job.py, script.py]\npackages: ['pyats[full]']\n",
    );
    let log = bench.path("log");
    let errors = fs::File::create(&log).expect("ours").into_parts().0;
    let mut command = bench.tool(["build.yaml", "--base", &base, "-o", "oci-dir:out"]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .expect("starts");
    let tool = fs::read_link(format!("/proc/{}/exe", child.id())).expect("it runs");
    let mut largest = 0;
    let status = loop {
        largest = largest.max(
            processes()
                .filter_map(|process| resident_of(process, &tool))
                .max()
                .unwrap_or(0),
        );
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(
        status.success(),
        "{}",
        fs::read_to_string(&log).expect("there")
    );
    verify(&bench.path("out"), "1");
    assert!(
        largest > 0 && largest < MEMORY,
        "the largest resident set is {largest} KiB"
    );

    let phases = fs::read_to_string(&log).expect("there");
    report(user, largest, &phases);

    let run = bench.run(["run", "-q", "--rm", "pyats:1", "pyats", "version", "check"]);
    assert!(run.stdout().contains("pyats"), "{}", run.stdout());
    run.stderr();
    let run = bench.run([
        "run", "-q", "--rm", "pyats:1", "pyats", "run", "job", "job.py",
    ]);
    // Its status is 0 only if a test passed and none failed.
    assert!(
        run.stdout().contains("the job ran"),
        "{}\n{}",
        run.stdout(),
        run.stderr()
    );
    run.stderr();
}

/// Shows what a build took; nextest passes it on though the test passes.
#[expect(clippy::print_stdout, reason = "it is what the test measured")]
fn report(user: User, largest: u64, phases: &str) {
    println!(
        "{user:?}: the largest resident set is {} MB\n{phases}",
        largest / 1024
    );
}

/// The largest resident set that a process had so far, in KiB, if it runs the program.
fn resident_of(process: u32, program: &Path) -> Option<u64> {
    let runs = fs::read_link(format!("/proc/{process}/exe")).ok()?;
    let size = resident(process)?;
    (runs == program).then_some(size)
}
