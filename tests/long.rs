//! The long tests, which `tests/run.sh --full` adds: builds that are killed at any moment, and the
//! whole of pyATS.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fs_err as fs;

use crate::support::{Bench, User, is_root, serve_base, verify};

const BUILD: &str = "tag: image:1\npython: 3.11\nfiles: [pib_hello-1.0-py3-none-any.whl]\n\
                     packages: ['${WORKSPACE}/pib_hello-1.0-py3-none-any.whl']\nenv: {PIP_NO_INDEX: '1'}\n";
/// How often each signal is sent, at moments spread over a whole build.
const TIMES: u32 = 10;
/// The largest resident set that a process of the tool may have, in KiB.
const MEMORY: u64 = 150 * 1024;

#[test]
#[ignore = "long: 20 builds for each kind of user"]
fn a_killed_build_leaves_nothing_behind() {
    survives("KILL");
}

#[test]
#[ignore = "long: 20 builds for each kind of user"]
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
    let arguments = ["build.yaml", "--base", &base, "-o", "oci-dir:out"];
    for user in User::ALL {
        let Some(bench) = prepare(user) else { continue };
        let began = Instant::now();
        bench.run(arguments).line();
        let whole = began.elapsed();
        for number in 0..TIMES {
            let Some(bench) = prepare(user) else { continue };
            bench.path("out");
            let mut child = bench
                .tool(arguments)
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .expect("starts");
            // Spread over the build, each time at another moment.
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let jitter = f64::from(now.subsec_micros() % 1000) / 1000.0;
            std::thread::sleep(whole.mul_f64((f64::from(number) + jitter) / f64::from(TIMES)));
            send(&child, signal);
            let status = child.wait().expect("it is our child");
            let what = format!("{user:?}, {signal} number {number}");
            match signal {
                _ if status.success() => {}
                "KILL" => assert_eq!(status.signal(), Some(9), "{what}"),
                _ => assert_eq!(status.code(), Some(130), "{what}"),
            }
            nothing_runs_or_is_mounted(&bench, &what);
            let out = bench.path("out");
            if out.exists() {
                verify(&out, "1");
            }
            // The next one succeeds, and clears what the killed one left.
            bench.run(arguments).line();
            verify(&out, "1");
            bench.forgive_blobs();
        }
    }
}

fn prepare(user: User) -> Option<Bench> {
    let bench = Bench::new(user)?;
    bench.write_wheel(&[]);
    bench.write("build.yaml", BUILD);
    bench.path("out");
    Some(bench)
}

fn send(child: &Child, signal: &str) {
    // It may have ended already, which is a moment like any other.
    let _ = Command::new("kill")
        .args(["-s", signal, &child.id().to_string()])
        .stderr(Stdio::null())
        .status();
}

/// Holds that soon no process but this one knows a mount in the bench, and none runs there.
fn nothing_runs_or_is_mounted(bench: &Bench, what: &str) {
    let root = bench.root().to_str().expect("a plain name").to_owned();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left: Vec<_> = processes()
            .filter(|process| {
                let read = |name: &str| {
                    fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default()
                };
                let directory = fs::read_link(format!("/proc/{process}/cwd")).unwrap_or_default();
                read("mountinfo").contains(&root)
                    || read("cmdline").contains(&root)
                    || directory.starts_with(&root)
            })
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: these processes are left: {left:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("this is Linux").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
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
    bench.write("job.py", "def main(runtime):\n    print('the job ran')\n");
    bench.write(
        "build.yaml",
        "tag: pyats:1\npython: 3.11\nfiles: [job.py]\npackages: ['pyats[full]']\n",
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
                .filter_map(|process| resident(process, &tool))
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

    let run = bench.run(["run", "-q", "--rm", "pyats:1", "pyats", "version", "check"]);
    assert!(run.stdout().contains("pyats"), "{}", run.stdout());
    run.stderr();
    let run = bench.run([
        "run", "-q", "--rm", "pyats:1", "pyats", "run", "job", "job.py",
    ]);
    assert!(
        run.stdout().contains("the job ran"),
        "{}\n{}",
        run.stdout(),
        run.stderr()
    );
    run.stderr();
}

/// The largest resident set that a process had so far, in KiB, if it runs the program.
fn resident(process: u32, program: &std::path::Path) -> Option<u64> {
    let runs = fs::read_link(format!("/proc/{process}/exe")).ok()?;
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let size = line.trim().strip_suffix(" kB")?.parse().ok()?;
    (runs == program).then_some(size)
}
