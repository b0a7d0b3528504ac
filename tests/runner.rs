//! The runner, with real namespaces, on every runner that can be had: as root it makes two users, one with
//! subordinate ids and one without, and runs its checks as each of them too.
//!
//! It has no test harness, since its `main` has to be the runner's helper process as well. Arguments are parts
//! of names of checks to run.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::exit,
    reason = "this is a test harness"
)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use pyats_image_builder::runner::{
    self, Command, Error, Mount, Outcome, RootFs, Runner, mount_points, probe_overlay,
};

/// Programs of the test's root file system, all of them busybox.
const APPLETS: &[&str] = &[
    "sh", "cat", "ls", "id", "chown", "stat", "mount", "unshare", "chroot", "mknod", "sleep",
    "env", "grep", "head", "seq", "touch", "mkdir", "rm", "ln", "wc", "readlink", "hostname",
    "kill", "true", "dd", "umask", "test", "setsid", "ps", "nc", "su", "find", "sysctl", "pwd",
    "mv", "chmod", "trap",
];

fn main() {
    if let Some(call) = runner::child() {
        answer(call);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--hold") => hold(&arguments[1], Path::new(&arguments[2])),
        Some("--runner") => {
            let passed = checks(arguments[1].parse().unwrap(), &arguments[2..]);
            std::process::exit(i32::from(!passed));
        }
        // How nextest asks which tests there are (all of this is one to it), and runs it.
        Some("--list") if arguments.iter().any(|argument| argument == "--ignored") => {}
        Some("--list") => println!("every_runner: test"),
        Some("every_runner") => everything(&[]),
        // Options are those of the usual harness, such as the number of its threads.
        Some(option) if option.starts_with('-') => everything(&[]),
        _ => everything(&arguments),
    }
}

/// The functions that checks call in the helper process.
fn answer(call: runner::Call) -> ! {
    let input = call.input.clone();
    match call.task.as_str() {
        "reverse" => call.answer(Ok(input.into_iter().rev().collect())),
        "fail" => call.answer(Err("words of the task".into())),
        "abort" => std::process::abort(),
        "sleep" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        "own" => {
            let path = PathBuf::from(String::from_utf8(input).unwrap());
            let status = fs_err::read_to_string("/proc/self/status").unwrap();
            let owned = std::os::unix::fs::chown(&path, Some(1), Some(1)).is_ok();
            let mounted = rustix::mount::mount_bind(&path, &path).is_ok();
            call.answer(Ok(format!("{owned} {mounted}\n{status}").into_bytes()))
        }
        task => {
            let message = format!("there is no task `{task}`");
            call.answer(Err(message))
        }
    }
}

/// Runs a command that does not end, for a check that kills this process.
fn hold(runner: &str, directory: &Path) {
    let command = Command {
        argv: [
            "sh",
            "-c",
            "setsid sleep 4321 & sleep 4321 & echo up; sleep 4321",
        ]
        .map(Into::into)
        .into(),
        ..command(RootFs::Directory(directory.into()))
    };
    let mut output = |line: &str| {
        println!("{line}");
        std::io::stdout().flush().unwrap();
    };
    let _ = runner::run(
        runner.parse().unwrap(),
        &command,
        &mut output,
        &AtomicI32::new(0),
    );
}

/// Every runner, as every kind of user.
fn everything(filter: &[String]) {
    let root = rustix::process::geteuid().is_root();
    let mut passed = true;
    if root {
        let program = std::env::current_exe().unwrap();
        for runner in [Runner::Root, Runner::UsernsRange, Runner::Chroot] {
            passed &= apart(&[], &program, runner, filter)
                .status()
                .unwrap()
                .success();
        }
        for (user, ids, runners) in [
            (
                "runner-range",
                "65536",
                [Runner::UsernsRange, Runner::UsernsSingle].as_slice(),
            ),
            ("runner-single", "0", &[Runner::UsernsSingle]),
        ] {
            for runner in runners {
                passed &= as_user(user, ids, *runner, filter);
            }
        }
    } else {
        for (runner, result) in runner::probe(&std::env::temp_dir()).runners {
            match result {
                Ok(()) => passed &= checks(runner, filter),
                Err(refusal) => {
                    println!("SKIPPED: `{runner}` cannot be had here: {refusal}");
                    let is_roots = matches!(runner, Runner::Root | Runner::Chroot);
                    let required = std::env::var_os("REQUIRE_ALL").is_some() && !is_roots;
                    passed &= !required;
                }
            }
        }
    }
    std::process::exit(i32::from(!passed));
}

/// Runs the checks of a runner in a table of processes of their own: what a step reaches there is none of this machine's.
/// Some numbers are used up, so that those of a step in a further table are others.
fn apart(
    user: &[&str],
    program: &Path,
    runner: Runner,
    filter: &[String],
) -> std::process::Command {
    const SCRIPT: &str = "mount -t tmpfs none /sys/module && echo secret > /sys/module/secret
        for i in $(seq 50); do /bin/true; done; setsid -w \"$@\"; exit $?";
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--pid", "--fork", "--mount-proc", "sh", "-c", SCRIPT, "sh"])
        .args(user)
        .arg(program)
        .args(["--runner", &runner.to_string()])
        .args(filter)
        .env(APART, "1");
    command
}

/// Set by [`apart`].
const APART: &str = "PIB_RUNNER_APART";

fn as_user(user: &str, ids: &str, runner: Runner, filter: &[String]) -> bool {
    let system = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    if !system("id", &["-u", user]).unwrap().success() {
        let counts = [
            format!("SUB_UID_COUNT={ids}"),
            format!("SUB_GID_COUNT={ids}"),
        ];
        let arguments = ["-K", &counts[0], "-K", &counts[1], "--create-home", user];
        assert!(
            system("useradd", &arguments).unwrap().success(),
            "useradd {user}"
        );
    }
    // The program may lie where the user may not look.
    let place = tempfile::Builder::new()
        .prefix("runner-as-user-")
        .tempdir()
        .unwrap();
    fs_err::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = place.path().join("runner");
    fs_err::copy("/proc/self/exe", &program).unwrap();
    let drop = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"];
    let status = apart(&drop, &program, runner, filter)
        .env("USER", user)
        .current_dir("/")
        .status()
        .unwrap();
    status.success()
}

/// A directory with the test's root file system.
struct Ground {
    runner: Runner,
    place: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
struct Done {
    outcome: Outcome,
    lines: Vec<String>,
}

impl Ground {
    fn new(runner: Runner) -> Self {
        let place = tempfile::Builder::new()
            .prefix("runner-test-")
            .tempdir()
            .unwrap();
        let lower = place.path().join("lower");
        for directory in ["bin", "etc", "tmp", "root"] {
            fs_err::create_dir_all(lower.join(directory)).unwrap();
        }
        fs_err::copy("/bin/busybox", lower.join("bin/busybox")).expect("busybox-static is needed");
        for applet in APPLETS {
            symlink("busybox", lower.join("bin").join(applet)).unwrap();
        }
        fs_err::write(
            lower.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\none:x:1:1::/:/bin/sh\n",
        )
        .unwrap();
        for directory in ["upper", "work"] {
            fs_err::create_dir(place.path().join(directory)).unwrap();
        }
        Self { runner, place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn rootfs(&self) -> RootFs {
        if self.runner == Runner::Chroot {
            return RootFs::Directory(self.path("lower"));
        }
        RootFs::Overlay {
            lower: vec![self.path("lower")],
            upper: self.path("upper"),
            work: self.path("work"),
        }
    }

    fn command(&self, script: &str) -> Command {
        Command {
            argv: ["sh", "-c", script].map(Into::into).into(),
            ..command(self.rootfs())
        }
    }

    fn run(&self, command: &Command) -> Done {
        let mut lines = vec![];
        let mut output = |line: &str| lines.push(line.to_owned());
        let outcome = runner::run(self.runner, command, &mut output, &AtomicI32::new(0)).unwrap();
        Done { outcome, lines }
    }

    fn sh(&self, script: &str) -> Done {
        self.run(&self.command(script))
    }

    /// The output of a script that succeeds.
    #[track_caller]
    fn says(&self, script: &str) -> Vec<String> {
        let done = self.sh(script);
        assert_eq!(
            done.outcome,
            Outcome::Exited(0),
            "{script}: {:?}",
            done.lines
        );
        done.lines
    }

    /// Puts a program of `tests/runner/` into the root file system.
    fn compile(&self, name: &str, source: &str) {
        let mut compiler = std::process::Command::new("cc")
            .args(["-static", "-x", "c", "-o"])
            .arg(self.path("lower/bin").join(name))
            .args(["-", "-lrt"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a C compiler is needed");
        let mut input = compiler.stdin.take().unwrap();
        input.write_all(source.as_bytes()).unwrap();
        drop(input);
        assert!(compiler.wait().unwrap().success(), "{name}");
    }

    /// What a Python program of the host says, in the root file system with the host's /usr.
    fn python(&self, program: &str) -> Vec<String> {
        for link in ["lib", "lib64"] {
            let _ = symlink(format!("usr/{link}"), self.path("lower").join(link));
        }
        let usr = Mount {
            source: "/usr".into(),
            below: PathBuf::new(),
            target: "/usr".into(),
            read_only: true,
        };
        let command = Command {
            argv: ["/usr/bin/python3", "-c", program].map(Into::into).into(),
            mounts: vec![usr],
            ..command(self.rootfs())
        };
        let done = self.run(&command);
        assert_eq!(done.outcome, Outcome::Exited(0), "{:?}", done.lines);
        done.lines
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // The kernel leaves the overlay's own directory without permissions.
        let _ = fs_err::set_permissions(self.path("work/work"), PermissionsExt::from_mode(0o700));
    }
}

fn command(rootfs: RootFs) -> Command {
    Command {
        rootfs,
        mounts: vec![],
        tmpfs: vec![],
        user: String::new(),
        network: true,
        placement: None,
        argv: vec![],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        ca_bundle: None,
        interactive: false,
        inherit_output: false,
        owners: None,
        watch: None,
    }
}

type Check = (&'static str, fn(&Ground));

fn checks(runner: Runner, filter: &[String]) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let (mut passed, mut failed) = (0, 0);
    let own = if runner == Runner::Chroot {
        CHROOT_CHECKS
    } else {
        NAMESPACE_CHECKS
    };
    for (name, check) in CHECKS.iter().chain(own) {
        if !filter.is_empty() && !filter.iter().any(|part| name.contains(part)) {
            continue;
        }
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| check(&Ground::new(runner))));
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!(
            "{word:6} {runner}, user {user}: {name} ({} ms)",
            started.elapsed().as_millis()
        );
        if result.is_ok() {
            passed += 1;
        } else {
            failed += 1;
        }
    }
    println!("{runner}, user {user}: {passed} passed, {failed} failed");
    failed == 0
}

const CHECKS: &[Check] = &[
    ("the runner is chosen when forced", chosen),
    ("the environment is exact", environment),
    ("a large environment arrives", large_environment),
    ("the CA bundle is shown and named", ca_bundle),
    ("forbidden calls are refused", forbidden),
    ("owners change or seem to", owners),
    ("the host's files are not seen", host_hidden),
    ("a tree is written in place", in_place),
    ("statuses and signals are told", statuses),
    ("missing programs are told", missing),
    ("a megabyte of lines keeps its order", many_lines),
    ("bad set-ups are errors", bad_setup),
    ("cancellation sends SIGTERM", cancel_politely),
    ("cancellation insists", cancel_hard),
    ("orphans end with the command", orphans),
    ("nothing survives SIGKILL", killed),
    ("calls are answered", calls),
    ("calls can be cancelled", call_cancelled),
    ("the network is the host's", network),
    ("the working directory is made", working_directory),
    ("mounts are honoured", mounts),
    ("a linked resolv.conf is covered", resolv_conf),
    ("hostile links stay inside", hostile),
    ("the umask is 022 and limits are kept", limits),
    ("commands run side by side", side_by_side),
    ("a terminal is passed on", terminal),
    ("a step reaches no processes but its own", reach),
    ("nobody listens to the host's network", raw_sockets),
    ("queues and shared memory are the step's own", ipc),
];

/// What holds where a step has processes, devices and mounts of its own.
const NAMESPACE_CHECKS: &[Check] = &[
    ("root has id 0 and no other group", identity),
    ("capabilities are Docker's", capabilities),
    ("the filter follows Docker's arguments", filter_arguments),
    ("only three descriptors are open", descriptors),
    ("signals are at their defaults", signals_default),
    ("the kernel's settings are read-only", read_only_kernel),
    (
        "what the host mounts below /sys is covered",
        mounts_below_sys,
    ),
    ("devices work", devices),
    ("only the step's processes are seen", processes),
    ("pid 1 cannot be entered", pid_one),
    ("the upper directory has what was written", upper),
    ("calls have all capabilities", call_privileges),
    ("an overlay is probed", overlays),
];

/// What holds where it has not.
const CHROOT_CHECKS: &[Check] = &[
    ("what is shown is taken away", taken_away),
    ("nobody leaves the root", no_way_out),
    ("devices work without mounts", plain_devices),
    ("a fork bomb ends with the command", fork_bomb),
    ("who forks and ends for ever is ended", racer),
    ("who writes for ever is ended", writer),
    (
        "who looks after a command is out of its reach",
        out_of_reach,
    ),
    (
        "a tree comes back to where it was mounted from",
        copied_back,
    ),
    ("a tree that was moved away is left alone", moved_away),
    ("no network means no sockets", no_sockets),
    ("nothing can be mounted", no_overlay),
];

fn chosen(ground: &Ground) {
    assert_eq!(
        runner::choose(Some(ground.runner), ground.place.path())
            .unwrap()
            .0,
        ground.runner
    );
    let started = Instant::now();
    let report = runner::probe(&std::env::temp_dir());
    println!(
        "       probed in {} ms: {:?}",
        started.elapsed().as_millis(),
        report.runners
    );
    assert!(
        report
            .runners
            .iter()
            .any(|(runner, result)| *runner == ground.runner && result.is_ok())
    );
    if !rustix::process::geteuid().is_root() {
        let error = runner::choose(Some(Runner::Root), ground.place.path()).unwrap_err();
        assert!(error.hint().unwrap().contains("sudo"), "{error}");
    }
}

/// What a step must not change of a process.
fn settings(id: i32) -> (String, Vec<String>, Vec<String>) {
    let read = |file: &str| fs_err::read_to_string(format!("/proc/{id}/{file}")).unwrap();
    let stat = read("stat");
    // The priority and the nice value, and the scheduling policy, after the name.
    let stat: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let stat = [15, 16, 38].map(|field| stat[field].to_owned());
    let status = read("status");
    let masks = status.lines().filter(|line| line.starts_with("Cpus_"));
    (
        read("limits"),
        stat.into(),
        masks.map(str::to_owned).collect(),
    )
}

/// Each call that takes the id of a process, on the program, another thread of it, who looks after the step, and somebody
/// else's process.
fn reach(ground: &Ground) {
    use std::os::unix::process::CommandExt as _;
    ground.compile("reach", include_str!("runner/reach.c"));
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        tell.send(own).unwrap();
        let _ = stopped.recv();
    });
    let leader = rustix::process::getpid().as_raw_nonzero().get();
    let other_thread = told.recv().unwrap();
    let mut other = std::process::Command::new("sleep")
        .arg("600")
        .process_group(0)
        .spawn()
        .unwrap();
    let unrelated = i32::try_from(other.id()).unwrap();
    let stat = fs_err::read_to_string("/proc/self/stat").unwrap();
    let group = stat.rsplit(") ").next().unwrap().split(' ').nth(2).unwrap();
    let group: i32 = group.parse().unwrap();
    // Numbers of a table that a step has for itself begin anew.
    let in_sight = std::env::var_os(APART).is_some() || ground.runner == Runner::Chroot;
    let targets = [
        ("leader", leader, leader, group),
        ("thread", other_thread, leader, 0),
        ("unrelated", unrelated, unrelated, unrelated),
    ];
    let ids = targets.map(|(_, id, ..)| id);
    let before = ids.map(settings);
    let mut command = ground.command("");
    command.argv = vec!["reach".into()];
    if in_sight {
        let words =
            targets.map(|(name, id, process, group)| format!("{name}:{id}:{process}:{group}"));
        command.argv.extend(words.map(OsString::from));
    }
    for user in ["", "one"] {
        if user == "one" && ground.runner == Runner::UsernsSingle {
            continue;
        }
        command.user = user.into();
        let done = ground.run(&command);
        assert_eq!(done.outcome, Outcome::Exited(0), "{:?}", done.lines);
        let least = if in_sight { 150 } else { 50 };
        assert!(done.lines.len() > least, "{:?}", done.lines);
        for line in &done.lines {
            let [call, whom, errno] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            assert_eq!(
                whom == "own",
                errno == "0",
                "user {user:?}: {call} {whom} {errno}"
            );
        }
    }
    assert_eq!(ids.map(settings), before);
    other.kill().unwrap();
    other.wait().unwrap();
    drop(stop);
    thread.join().unwrap();
}

/// The errnos of `tests/runner/calls.c`.
fn errnos(ground: &Ground, command: &Command) -> Vec<(String, i32)> {
    let done = ground.run(command);
    assert_eq!(done.outcome, Outcome::Exited(0), "{:?}", done.lines);
    let lines = done.lines.iter().map(|line| line.split_once(' ').unwrap());
    lines
        .map(|(call, errno)| (call.to_owned(), errno.parse().unwrap()))
        .collect()
}

fn raw_sockets(ground: &Ground) {
    ground.compile("calls", include_str!("runner/calls.c"));
    let mut command = ground.command("");
    command.argv = ["calls", "sockets"].map(Into::into).into();
    let raw = [
        "packet",
        "packet-datagram",
        "old-packet",
        "xdp",
        "raw",
        "raw6",
    ];
    for (call, errno) in errnos(ground, &command) {
        let expected = if raw.contains(&call.as_str()) {
            libc::EPERM
        } else {
            0
        };
        assert_eq!(errno, expected, "{call}");
    }
    // A network of its own is nobody else's.
    command.network = false;
    for (call, errno) in errnos(ground, &command) {
        match (ground.runner, call.as_str()) {
            (_, "netlink" | "unix") => assert_eq!(errno, 0, "{call}"),
            (Runner::Chroot, _) => assert_ne!(errno, 0, "{call}"),
            (_, "raw" | "packet") => assert_eq!(errno, 0, "{call}"),
            _ => {}
        }
    }
}

fn ipc(ground: &Ground) {
    ground.compile("calls", include_str!("runner/calls.c"));
    let mut command = ground.command("");
    command.argv = vec!["calls".into()];
    for (call, errno) in errnos(ground, &command) {
        let expected = if ground.runner == Runner::Chroot {
            libc::ENOSYS
        } else {
            0
        };
        assert_eq!(errno, expected, "{call}");
    }
}

/// Of lines with a path each, the last of every path: what is mounted last is seen.
fn last_mounts(lines: &[String]) -> std::collections::BTreeMap<&str, &str> {
    lines
        .iter()
        .map(|line| line.split_once(' ').unwrap())
        .collect()
}

fn mounts_below_sys(ground: &Ground) {
    let script = "cat /sys/module/secret 2> /dev/null
        while read -r _ _ _ _ path rest; do [ ! -e $path ] || echo $path $rest; done < /proc/self/mountinfo";
    for (path, rest) in last_mounts(&ground.says(script)) {
        let (_, kind) = rest.split_once(" - ").unwrap();
        let is_own = ["tmpfs ", "sysfs ", "cgroup2 ", "devtmpfs "].map(|own| kind.starts_with(own));
        assert!(
            !path.starts_with("/sys") || is_own.contains(&true),
            "{path} {kind}"
        );
    }
    // The root of all control groups, which tells of the whole machine, has no type.
    let script = "cd /sys/fs/cgroup || exit 0; [ ! -e cgroup.controllers ] || [ -e cgroup.type ]";
    ground.says(script);
}

fn identity(ground: &Ground) {
    assert_eq!(
        ground.says("id -u; id -g; hostname"),
        ["0", "0", "localhost"]
    );
    let groups = ground.command("grep Groups: /proc/self/status");
    // Where one id exists, a process has the groups of the caller, and getgroups(2) is answered.
    if ground.runner != Runner::UsernsSingle {
        assert_eq!(ground.run(&groups).lines.concat().trim(), "Groups:\t0");
        let user = Command {
            user: "one".into(),
            ..groups
        };
        assert_eq!(ground.run(&user).lines.concat().trim(), "Groups:\t1");
    }
}

fn environment(ground: &Ground) {
    let mut command = ground.command("");
    command.argv = vec!["env".into()];
    command.env.push(("EMPTY".into(), "".into()));
    command.env.push(("LINE".into(), "a\nb".into()));
    assert_eq!(
        ground.run(&command).lines,
        ["PATH=/usr/bin:/bin", "EMPTY=", "LINE=a", "b", "HOME=/root"]
    );
}

fn large_environment(ground: &Ground) {
    let mut command = ground.command("echo ${#V0} ${#V15}");
    for number in 0..16 {
        command
            .env
            .push((format!("V{number}").into(), "x".repeat(100_000).into()));
    }
    assert_eq!(ground.run(&command).lines, ["100000 100000"]);
}

fn ca_bundle(ground: &Ground) {
    fs_err::write(ground.path("bundle"), "certificates\n").unwrap();
    let mut command =
        ground.command("cat $SSL_CERT_FILE $PIP_CERT; echo $CURL_CA_BUNDLE; ls -l $PIP_CERT");
    command.ca_bundle = Some(ground.path("bundle"));
    command.env.push(("CURL_CA_BUNDLE".into(), "mine".into()));
    let lines = ground.run(&command).lines;
    assert_eq!(lines[..3], ["certificates", "certificates", "mine"]);
    let mut command = ground.command("echo ${SSL_CERT_FILE-unset}");
    assert_eq!(ground.run(&command).lines, ["unset"]);
    command.ca_bundle = Some("/nowhere/bundle".into());
    let error = runner::run(ground.runner, &command, &mut |_| {}, &AtomicI32::new(0)).unwrap_err();
    assert!(error.to_string().contains("/nowhere/bundle"), "{error}");
}

fn capabilities(ground: &Ground) {
    let status = ground.says("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
    let nnp = if ground.runner == Runner::UsernsSingle {
        "1"
    } else {
        "0"
    };
    let docker = "00000000a80425fb";
    let expected = [
        "CapInh:\t0000000000000000".into(),
        format!("CapPrm:\t{docker}"),
        format!("CapEff:\t{docker}"),
        format!("CapBnd:\t{docker}"),
        "CapAmb:\t0000000000000000".into(),
        format!("NoNewPrivs:\t{nnp}"),
        "Seccomp:\t2".into(),
    ];
    assert_eq!(status, expected);
}

fn forbidden(ground: &Ground) {
    for script in [
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /sys",
        "unshare -m true",
        "unshare -U true",
        "hostname other",
        // Without mounts there is a copy of /proc, in which there is no such file.
        "[ -e /proc/sysrq-trigger ] && dd if=/dev/zero of=/proc/sysrq-trigger count=1",
        "mknod /dev/mem c 1 1 && cat /dev/mem",
    ] {
        assert_ne!(ground.sh(script).outcome, Outcome::Exited(0), "{script}");
    }
}

fn filter_arguments(ground: &Ground) {
    let program = r"
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*[ctypes.c_long(a) for a in arguments])
    return errno.errorcode[ctypes.get_errno()] if result < 0 else 'ok'
x86 = os.uname().machine == 'x86_64'
nr = lambda a, b: a if x86 else b
print('clone3', call(435, 0, 0))
print('unshare', call(nr(272, 97), 0x10000000))
print('clone', call(nr(56, 220), 0x10000000 | 17, 0, 0, 0, 0))
print('setns', call(nr(308, 268), 0, 0))
print('bpf', call(nr(321, 280), 0, 0, 0))
print('keyctl', call(nr(250, 219), 0, 0))
print('perf', call(nr(298, 241), 0, 0, 0, 0, 0))
print('ptrace', call(nr(101, 117), 16, 999999, 0, 0))
print('query', call(nr(135, 92), 0xffffffff))
print('personality', call(nr(135, 92), 0x40000))
print('future', call(500))
print('tiocsti', call(nr(16, 29), 0, 0x5412, 0))
print('tiocsti high', call(nr(16, 29), 0, 0x500005412, 0))
print('vsock', call(nr(41, 198), 40, 1, 0))
print('inet', call(nr(41, 198), 2, 1, 0))
print('io_uring', call(425, 1, 0))
print('move_mount', call(429, 0, 0, 0, 0, 0))
import threading
t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()
";
    let expected = [
        "clone3 ENOSYS",
        "unshare EPERM",
        "clone EPERM",
        "setns EPERM",
        "bpf EPERM",
        "keyctl EPERM",
        "perf EPERM",
        "ptrace ESRCH",
        "query ok",
        "personality EPERM",
        "future ENOSYS",
        "tiocsti EPERM",
        "tiocsti high EPERM",
        "vsock EPERM",
        "inet ok",
        "io_uring EPERM",
        "move_mount EPERM",
        "thread",
    ];
    assert_eq!(ground.python(program), expected);
}

fn owners(ground: &Ground) {
    let script = "touch /f; chown 1:1 /f && su one -c true; stat -c %u:%g /f; mknod /n c 1 3 && echo node || true";
    let lines = ground.says(script);
    match ground.runner {
        Runner::UsernsSingle => assert_eq!(lines, ["0:0", "node"]),
        Runner::Root => assert_eq!(lines, ["1:1", "node"]),
        // In a container, whose devices are guarded, there would be a node.
        Runner::UsernsRange | Runner::Chroot => assert_eq!(lines[0], "1:1"),
    }
    assert_eq!(ground.says("su one -c 'id -u'").len(), 1);
}

fn descriptors(ground: &Ground) {
    // The fourth is that of the directory being listed.
    assert_eq!(ground.says("ls /proc/self/fd | wc -l"), ["4"]);
    assert_eq!(
        ground.says("readlink /proc/self/fd/0; cat | wc -c"),
        ["/dev/null", "0"]
    );
}

fn signals_default(ground: &Ground) {
    // A shell would ignore SIGQUIT for what it starts.
    let mut command = ground.command("");
    command.argv = ["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"]
        .map(Into::into)
        .into();
    let lines = ground.run(&command).lines;
    assert!(
        lines
            .iter()
            .all(|line| line.ends_with("\t0000000000000000")),
        "{lines:?}"
    );
}

fn read_only_kernel(ground: &Ground) {
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/drop_caches",
        "/sys/kernel/mm/ksm/run",
    ] {
        let done = ground.sh(&format!("test -e {path} || exit 9; echo 1 > {path}"));
        assert_ne!(done.outcome, Outcome::Exited(0), "{path}");
    }
    // What is covered cannot be reached.
    let script =
        "grep -E ' /(sys|sys/.*|proc/sys|proc/sys/.*|proc/irq|proc/bus) ' /proc/self/mountinfo |
        while read -r _ _ _ _ path rest; do [ ! -e $path ] || echo $path $rest; done";
    for (path, rest) in last_mounts(&ground.says(script)) {
        assert!(rest.starts_with("ro"), "{path} {rest}");
    }
    assert_eq!(
        ground
            .says("cat /proc/kcore /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware | wc -l"),
        ["0", "0"]
    );
}

fn devices(ground: &Ground) {
    let script = "head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; echo x > /dev/null;
        echo x > /dev/full || echo full; readlink /dev/fd; readlink /dev/ptmx; echo out > /dev/stdout;
        touch /dev/shm/x && stat -c %a /dev/shm; ls /dev/pts";
    let lines: Vec<String> = ground
        .says(script)
        .into_iter()
        .filter(|line| !line.contains("rror"))
        .collect();
    assert_eq!(
        lines,
        [
            "3",
            "3",
            "full",
            "/proc/self/fd",
            "pts/ptmx",
            "out",
            "1777",
            "ptmx"
        ]
    );
    let program =
        "import os; a, b = os.openpty(); os.write(b, b'x\\n'); print(os.read(a, 9), os.ttyname(b))
import multiprocessing; multiprocessing.Lock()";
    assert_eq!(ground.python(program), ["b'x\\r\\n' /dev/pts/0"]);
}

fn processes(ground: &Ground) {
    assert_eq!(
        ground.says("echo /proc/[0-9]*; echo $$"),
        ["/proc/1 /proc/2", "2"]
    );
}

fn pid_one(ground: &Ground) {
    for path in [
        "/proc/1/root/",
        "/proc/1/exe",
        "/proc/1/fd/",
        "/proc/1/environ",
    ] {
        let done = ground.sh(&format!("ls {path} && cat {path}"));
        assert_ne!(done.outcome, Outcome::Exited(0), "{path}: {:?}", done.lines);
    }
}

fn host_hidden(ground: &Ground) {
    assert_eq!(ground.says("ls -A /tmp; ls -A /root"), Vec::<String>::new());
    let roots = ground.says("ls /");
    assert_eq!(roots, ["bin", "dev", "etc", "proc", "root", "sys", "tmp"]);
    if ground.runner == Runner::Chroot {
        return;
    }
    let table = ground.says("cat /proc/self/mountinfo").join("\n");
    assert!(!table.contains(" /home "), "{table}");
}

fn upper(ground: &Ground) {
    let before = fs_err::metadata(ground.path("lower/etc")).unwrap();
    let mut command =
        ground.command("echo new > /tmp/new; rm /etc/passwd; mkdir -p /srv/deep; pwd");
    command.cwd = "/made/here".into();
    assert_eq!(ground.run(&command).lines, ["/made/here"]);
    let mut found = BTreeSet::new();
    list(&ground.path("upper"), Path::new(""), &mut found);
    let made: BTreeSet<PathBuf> = mount_points(&command).into_iter().collect();
    let written = [
        "etc",
        "etc/passwd",
        "made",
        "made/here",
        "srv",
        "srv/deep",
        "tmp",
        "tmp/new",
    ]
    .map(PathBuf::from);
    for path in &written {
        assert!(found.contains(path), "{} in {found:?}", path.display());
    }
    let rest: BTreeSet<_> = found
        .iter()
        .filter(|path| !written.contains(path))
        .cloned()
        .collect();
    assert!(rest.is_subset(&made), "{rest:?}");
    let ground = Ground::new(ground.runner);
    let stamp = fs_err::File::open(ground.path("lower/etc")).unwrap();
    stamp
        .file()
        .set_modified(before.modified().unwrap())
        .unwrap();
    ground.says("true");
    let after = fs_err::metadata(ground.path("upper/etc")).unwrap();
    assert_eq!(
        (after.mtime(), after.mtime_nsec()),
        (before.mtime(), before.mtime_nsec())
    );
}

fn list(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs_err::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            list(root, &path, found);
        }
        found.insert(path);
    }
}

fn in_place(ground: &Ground) {
    let mut command = ground.command("echo here > /made; rm /etc/passwd");
    command.rootfs = RootFs::Directory(ground.path("lower"));
    assert_eq!(ground.run(&command).outcome, Outcome::Exited(0));
    assert_eq!(
        fs_err::read_to_string(ground.path("lower/made")).unwrap(),
        "here\n"
    );
    assert!(!ground.path("lower/etc/passwd").exists());
    let hosts = ground.path("lower/etc/hosts");
    if ground.runner == Runner::Chroot {
        assert!(!hosts.exists(), "it is taken away again");
    } else {
        assert_eq!(fs_err::metadata(hosts).unwrap().len(), 0);
    }
}

fn statuses(ground: &Ground) {
    assert_eq!(ground.sh("exit 42").outcome, Outcome::Exited(42));
    assert_eq!(ground.sh("kill -9 $$").outcome, Outcome::Signalled(9));
    assert_eq!(ground.sh("kill -TERM $$").outcome, Outcome::Signalled(15));
}

fn missing(ground: &Ground) {
    let mut command = ground.command("");
    let mut expect = |argv: &[&str], status, message: &str| {
        command.argv = argv.iter().map(OsString::from).collect();
        let done = ground.run(&command);
        assert_eq!(
            (done.outcome, done.lines),
            (Outcome::Exited(status), vec![message.to_owned()])
        );
    };
    expect(&["nothing"], 127, "`nothing` was not found in `PATH`");
    expect(&["/nothing"], 127, "`/nothing` does not exist");
    expect(
        &["/etc/passwd"],
        126,
        "`/etc/passwd` cannot be executed: permission denied",
    );
    expect(&[], 127, "no command was given");
    fs_err::write(ground.path("lower/bin/odd"), "words").unwrap();
    fs_err::write(ground.path("lower/bin/lost"), "#!/no/interpreter\n").unwrap();
    for name in ["odd", "lost"] {
        let path = ground.path("lower/bin").join(name);
        fs_err::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let other = "`odd` cannot be executed: it is neither a script nor a program for this machine";
    expect(&["odd"], 126, other);
    expect(
        &["lost"],
        126,
        "`lost` cannot be executed: its interpreter does not exist",
    );
}

fn many_lines(ground: &Ground) {
    let lines = ground.says("seq 1 200000; echo -n last");
    assert_eq!(lines.len(), 200_001);
    assert!(
        lines
            .iter()
            .take(200_000)
            .zip(1..)
            .all(|(line, number)| *line == number.to_string())
    );
    assert_eq!(lines[200_000], "last");
    assert_eq!(
        ground.says("echo out; echo err >&2; echo out"),
        ["out", "err", "out"]
    );
}

fn bad_setup(ground: &Ground) {
    let fails = |command: &Command, words: &str| {
        let error =
            runner::run(ground.runner, command, &mut |_| {}, &AtomicI32::new(0)).unwrap_err();
        assert!(matches!(error, Error::Setup { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let mut command = ground.command("true");
    command.rootfs = RootFs::Directory("/nowhere".into());
    fails(&command, "/nowhere");
    let mut command = ground.command("true");
    command.mounts = vec![Mount {
        source: "/nowhere".into(),
        below: PathBuf::new(),
        target: "/x".into(),
        read_only: false,
    }];
    fails(&command, "/nowhere");
    let mut command = ground.command("true");
    command.cwd = "/etc/passwd".into();
    fails(&command, "/etc/passwd");
    let mut command = ground.command("true");
    command.env.push(("NUL".into(), "a\0b".into()));
    fails(&command, "nul");
}

fn cancelled_after(ground: &Ground, script: &str) -> (Done, Duration) {
    let cancelled = AtomicI32::new(0);
    let mut lines: Vec<String> = vec![];
    let mut since = Instant::now();
    let mut output = |line: &str| {
        if lines.is_empty() {
            since = Instant::now();
            cancelled.store(15, Ordering::Relaxed);
        }
        lines.push(line.into());
    };
    let outcome = runner::run(
        ground.runner,
        &ground.command(script),
        &mut output,
        &cancelled,
    )
    .unwrap();
    (Done { outcome, lines }, since.elapsed())
}

fn cancel_politely(ground: &Ground) {
    let (done, waited) = cancelled_after(
        ground,
        "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 0.1; done",
    );
    assert_eq!(done.outcome, Outcome::Exited(3));
    assert!(done.lines.contains(&"bye".to_owned()), "{:?}", done.lines);
    assert!(waited < Duration::from_secs(2));
    let (done, _) = cancelled_after(ground, "echo up; sleep 100");
    assert_eq!(done.outcome, Outcome::Signalled(15));
}

fn cancel_hard(ground: &Ground) {
    let (done, waited) = cancelled_after(
        ground,
        "trap '' TERM; echo up; while true; do sleep 99; done",
    );
    assert_eq!(done.outcome, Outcome::Signalled(9));
    // Five seconds, and what a loaded machine takes.
    assert!((5..20).contains(&waited.as_secs()), "{waited:?}");
}

fn orphans(ground: &Ground) {
    let started = Instant::now();
    // It would hold the output open for long.
    assert_eq!(ground.says("setsid sleep 7777 & echo done"), ["done"]);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(running("7777"), 0);
}

/// How many processes have this argument.
fn running(argument: &str) -> usize {
    let processes = fs_err::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| fs_err::read(process.path().join("cmdline")).ok())
        .filter(|line| {
            line.split(|byte| *byte == 0)
                .any(|word| word == argument.as_bytes())
        })
        .count()
}

fn killed(ground: &Ground) {
    for delay in [0, 5, 20, 1000] {
        let mut child = std::process::Command::new("/proc/self/exe")
            .args(["--hold", &ground.runner.to_string()])
            .arg(ground.path("lower"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        if delay == 1000 {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            eventually("the command's processes are there", || running("4321") >= 3);
        } else {
            std::thread::sleep(Duration::from_millis(delay));
        }
        let family = descendants(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("all have ended", || {
            running("4321") == 0 && !family.iter().any(|pid| lives(*pid))
        });
    }
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(5), "{what}: not so");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process is there, and not just waiting to be waited for.
fn lives(pid: u32) -> bool {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains('Z'))
}

fn descendants(ancestor: u32) -> BTreeSet<u32> {
    let parents: Vec<(u32, u32)> = fs_err::read_dir("/proc")
        .unwrap()
        .filter_map(|process| {
            let process = process.ok()?;
            let pid = process.file_name().to_str()?.parse().ok()?;
            let stat = fs_err::read_to_string(process.path().join("stat")).ok()?;
            Some((
                pid,
                stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?,
            ))
        })
        .collect();
    let mut family = BTreeSet::from([ancestor]);
    loop {
        let before = family.len();
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| family.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == before {
            family.remove(&ancestor);
            return family;
        }
    }
}

fn calls(ground: &Ground) {
    let none = AtomicI32::new(0);
    let input: Vec<u8> = (0..3_000_000_u32)
        .map(|number| number.to_le_bytes()[1])
        .collect();
    let reversed: Vec<u8> = input.iter().rev().copied().collect();
    assert_eq!(
        runner::call(ground.runner, "reverse", &input, &none).unwrap(),
        reversed
    );
    assert_eq!(
        runner::call(ground.runner, "reverse", b"", &none).unwrap(),
        b""
    );
    match runner::call(ground.runner, "fail", b"x", &none) {
        Err(Error::Task { task, message }) => {
            assert_eq!(
                (task.as_str(), message.as_str()),
                ("fail", "words of the task")
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        runner::call(ground.runner, "abort", b"", &none),
        Err(Error::Died { .. })
    ));
}

fn call_privileges(ground: &Ground) {
    let path = ground.path("owned");
    fs_err::create_dir(&path).unwrap();
    let input = path.to_str().unwrap().as_bytes();
    let answer = runner::call(ground.runner, "own", input, &AtomicI32::new(0)).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let owned = ground.runner != Runner::UsernsSingle;
    assert!(answer.starts_with(&format!("{owned} true\n")), "{answer}");
    assert!(answer.contains("\nSeccomp:\t0\n"), "{answer}");
    assert!(answer.contains("\nCapEff:\t000001ff"), "{answer}");
    let table = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !table.contains(path.to_str().unwrap()),
        "the mount is seen by the host"
    );
}

fn call_cancelled(ground: &Ground) {
    let cancelled = AtomicI32::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            cancelled.store(15, Ordering::Relaxed);
        });
        let result = runner::call(ground.runner, "sleep", b"", &cancelled);
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    });
    assert!(started.elapsed() < Duration::from_secs(2));
}

fn network(ground: &Ground) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"hello\n").unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut vec![]);
    });
    assert_eq!(ground.says(&format!("nc 127.0.0.1 {port}")), ["hello"]);
    server.join().unwrap();
    let host = fs_err::read_to_string("/etc/hosts").unwrap_or_default();
    assert_eq!(ground.says("cat /etc/hosts").join("\n").trim(), host.trim());
    ground.says("echo changed > /etc/hosts; echo changed > /etc/resolv.conf");
    assert_eq!(
        fs_err::read_to_string("/etc/hosts").unwrap_or_default(),
        host
    );
}

fn working_directory(ground: &Ground) {
    let mut command = ground.command("pwd; stat -c %a .");
    command.cwd = "/some/where".into();
    assert_eq!(ground.run(&command).lines, ["/some/where", "755"]);
    command.cwd = "/some/../../../etc".into();
    assert_eq!(ground.run(&command).lines, ["/etc", "755"]);
}

fn mounts(ground: &Ground) {
    fs_err::create_dir(ground.path("shared")).unwrap();
    fs_err::write(ground.path("shared/file"), "content\n").unwrap();
    let mount = |source: &str, target: &str, read_only| Mount {
        source: ground.path(source),
        below: PathBuf::new(),
        target: target.into(),
        read_only,
    };
    symlink("/srv", ground.path("lower/link")).unwrap();
    fs_err::create_dir(ground.path("lower/srv")).unwrap();
    let mut command = ground.command(
        "cat /new/dir/file /single /srv/below/file; echo x > /new/dir/file || echo ro;
         echo x > /single || echo ro; echo y > /srv/below/out; rm /single || echo busy",
    );
    command.mounts = vec![
        mount("shared", "/new/dir", true),
        mount("shared/file", "/single", true),
        mount("shared", "/link/below", false),
    ];
    let lines: Vec<String> = ground
        .run(&command)
        .lines
        .into_iter()
        .filter(|line| !line.contains(':'))
        .collect();
    if ground.runner == Runner::Chroot {
        // What is written to a copy is gone afterwards.
        assert_eq!(lines, ["content", "content", "content"]);
    } else {
        assert_eq!(lines, ["content", "content", "content", "ro", "ro", "busy"]);
    }
    assert_eq!(
        fs_err::read_to_string(ground.path("shared/out")).unwrap(),
        "y\n"
    );
    assert_eq!(
        fs_err::read_to_string(ground.path("shared/file")).unwrap(),
        "content\n"
    );
}

/// All of a tree but for times: kind, mode and content.
fn state(root: &Path) -> std::collections::BTreeMap<PathBuf, String> {
    let mut found = BTreeSet::new();
    list(root, Path::new(""), &mut found);
    let state = |path: &PathBuf| {
        let host = root.join(path);
        let metadata = fs_err::symlink_metadata(&host).unwrap();
        let content = match metadata.file_type() {
            kind if kind.is_symlink() => fs_err::read_link(&host).unwrap().display().to_string(),
            kind if kind.is_file() => fs_err::read(&host).unwrap().len().to_string(),
            _ => String::new(),
        };
        let times = (metadata.mtime(), metadata.mtime_nsec());
        (
            path.clone(),
            format!("{:o} {times:?} {content}", metadata.mode()),
        )
    };
    found.iter().map(state).collect()
}

fn taken_away(ground: &Ground) {
    let lower = ground.path("lower");
    fs_err::create_dir_all(lower.join("dev/own")).unwrap();
    fs_err::write(lower.join("dev/own/file"), "of the image").unwrap();
    fs_err::write(lower.join("etc/resolv.conf"), "of the image").unwrap();
    fs_err::create_dir_all(lower.join("cache/below")).unwrap();
    let mut before = state(&lower);
    let mut command = ground.command(
        "ls /dev/own && exit 1; echo x > /dev/file; echo x > /proc/file; rm -r /sys; rm /etc/hosts;
         rm /etc/resolv.conf; mkdir /etc/resolv.conf; echo x > /cache/file; echo x > /deep/down/file; exit 0",
    );
    fs_err::create_dir(ground.path("shared")).unwrap();
    command.mounts = ["/cache", "/deep/down"]
        .map(|target| Mount {
            source: ground.path("shared"),
            below: PathBuf::new(),
            target: target.into(),
            read_only: true,
        })
        .into();
    command.tmpfs = vec![runner::Tmpfs {
        target: "/scratch/space".into(),
        size: None,
    }];
    assert_eq!(ground.run(&command).outcome, Outcome::Exited(0));
    // The command has removed files there, so its time is the command's.
    let mut after = state(&lower);
    assert!(before.remove(Path::new("etc")).is_some() && after.remove(Path::new("etc")).is_some());
    assert_eq!(after, before);
    assert!(
        fs_err::read_dir(ground.path("shared"))
            .unwrap()
            .next()
            .is_none()
    );
    // What a step makes of a directory that was made on the way is its own.
    command.argv[2] = "echo x > /deep/kept; mv /etc /moved; mkdir /etc".into();
    assert_eq!(ground.run(&command).outcome, Outcome::Exited(0));
    let after = state(&lower);
    let new: Vec<_> = after
        .keys()
        .filter(|path| !before.contains_key(*path))
        .collect();
    assert_eq!(
        new,
        [
            "deep",
            "deep/kept",
            "etc",
            "moved",
            "moved/passwd",
            "moved/resolv.conf"
        ]
        .map(Path::new)
    );
    assert!(!ground.path("lower.aside").exists());
}

fn no_way_out(ground: &Ground) {
    for script in [
        "chroot /tmp true",
        "kill -9 -1",
        "ls /proc/1",
        "mknod /disk b 8 0 && head -c 1 /disk",
    ] {
        let done = ground.sh(script);
        assert!(
            !matches!(done.outcome, Outcome::Exited(0) | Outcome::Signalled(_)),
            "{script}: {:?}",
            done.lines
        );
    }
}

fn plain_devices(ground: &Ground) {
    let script = "head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; echo x > /dev/null;
        echo x > /dev/full || echo full; echo out > /dev/stdout; echo err > /dev/stderr;
        touch /dev/shm/x && stat -c %a /dev/shm; test -s /proc/meminfo && echo memory";
    let mut lines: Vec<String> = ground.says(script);
    lines.retain(|line| !line.contains("rror"));
    // What comes by a pipe of its own may come a little later.
    lines.sort();
    assert_eq!(lines, ["1777", "3", "3", "err", "full", "memory", "out"]);
}

fn fork_bomb(ground: &Ground) {
    let started = Instant::now();
    ground.says(
        "bomb() { test $1 -lt 11 || exec sleep 8888; bomb $(($1 + 1)) & bomb $(($1 + 1)) & sleep 8888; }
         bomb 0 & sleep 1; echo enough",
    );
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(running("8888"), 0);
}

fn racer(ground: &Ground) {
    let started = Instant::now();
    ground.says("again() { again & }; again; again; sleep 0.3; echo enough");
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
}

fn writer(ground: &Ground) {
    let run = ground.sh("(yes > /dev/stdout &); (yes > /dev/stderr &); sleep 0.2; exit 3");
    assert_eq!(run.outcome, Outcome::Exited(3));
    // And nobody has to wait for it who wants to stop.
    let started = Instant::now();
    let stop = AtomicI32::new(0);
    let command = ground.command("yes > /dev/stdout");
    let mut lines = 0;
    let outcome = runner::run(
        ground.runner,
        &command,
        &mut |_| {
            lines += 1;
            if lines == 1000 {
                stop.store(libc::SIGTERM, std::sync::atomic::Ordering::Relaxed);
            }
        },
        &stop,
    );
    assert_eq!(outcome.unwrap(), Outcome::Signalled(libc::SIGTERM));
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}

fn out_of_reach(ground: &Ground) {
    for script in [
        "kill -9 $PPID",
        "kill -STOP $PPID",
        "kill -9 -$PPID",
        "kill -9 -1",
    ] {
        let run = ground.sh(&format!("{script}; echo on"));
        assert!(run.lines.concat().ends_with("on"), "{script}: {run:?}");
        let words = run.lines.concat();
        assert!(
            words.contains("not permitted") || words.contains("No such process"),
            "{script}: {run:?}"
        );
    }
}

fn copied_back(ground: &Ground) {
    let shared = ground.path("shared");
    fs_err::create_dir(&shared).unwrap();
    fs_err::write(shared.join("old"), "old").unwrap();
    fs_err::hard_link(shared.join("old"), shared.join("same")).unwrap();
    let mut command = ground.command(
        "cat /cache/old; rm /cache/old; echo new > /cache/new; ln -s new /cache/link; chmod 700 /cache/new",
    );
    command.mounts = vec![Mount {
        source: shared.clone(),
        below: PathBuf::new(),
        target: "/cache".into(),
        read_only: false,
    }];
    assert_eq!(ground.run(&command).lines, ["old"]);
    let found: Vec<_> = state(&shared).into_keys().collect();
    assert_eq!(found, ["link", "new", "same"].map(PathBuf::from));
    let mode = fs_err::metadata(shared.join("new")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o700);
    // What did not change is what it was.
    let inode = |path: &Path| fs_err::metadata(path).unwrap().ino();
    let before = (inode(&shared), inode(&shared.join("new")));
    command.argv[2] =
        "mkdir /cache/folder; rm /cache/link; mkdir /cache/link; echo x > /cache/link/x".into();
    ground.run(&command);
    assert_eq!((inode(&shared), inode(&shared.join("new"))), before);
    let found: Vec<_> = state(&shared).into_keys().collect();
    assert_eq!(
        found,
        ["folder", "link", "link/x", "new", "same"].map(PathBuf::from)
    );
    command.argv[2] = "rm -r /cache/*".into();
    ground.run(&command);
    assert!(fs_err::symlink_metadata(&shared).unwrap().is_dir());
    assert!(state(&shared).is_empty());

    // Others' work stays, and a link to the source is followed once.
    fs_err::write(shared.join("edited"), "before").unwrap();
    fs_err::write(shared.join(".edited.new"), "beside").unwrap();
    symlink("shared", ground.path("linked")).unwrap();
    command.mounts[0].source = ground.path("linked");
    command.argv[2] = "sleep 1; echo x > /cache/mine; rm /cache/.edited.new".into();
    let theirs = shared.clone();
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(600));
        fs_err::write(theirs.join("edited"), "after").unwrap();
        fs_err::write(theirs.join("theirs"), "").unwrap();
    });
    ground.run(&command);
    other.join().unwrap();
    let found: Vec<_> = state(&shared).into_keys().collect();
    assert_eq!(found, ["edited", "mine", "theirs"].map(PathBuf::from));
    let text = fs_err::read_to_string(shared.join("edited")).unwrap();
    assert_eq!(text, "after");
    assert!(
        fs_err::symlink_metadata(ground.path("linked"))
            .unwrap()
            .is_symlink()
    );

    // A copy of the tree into itself would have no end.
    command.mounts[0].source = ground.place.path().into();
    let error = runner::run(ground.runner, &command, &mut |_| {}, &AtomicI32::new(0)).unwrap_err();
    assert!(error.to_string().contains("store lies in it"), "{error}");
}

/// A mount could not be moved or removed; what it stands for keeps what it has.
fn moved_away(ground: &Ground) {
    let shared = ground.path("shared");
    fs_err::create_dir_all(shared.join("folder")).unwrap();
    fs_err::write(shared.join("folder/old"), "old").unwrap();
    let file = ground.path("file");
    fs_err::write(&file, "old").unwrap();
    let before = (state(&shared), fs_err::metadata(&file).unwrap().ino());
    let mount = |source: &Path, target: &str| Mount {
        source: source.into(),
        below: PathBuf::new(),
        target: target.into(),
        read_only: false,
    };
    for script in [
        "mv /mnt /mnt2",
        "mv /mnt /mnt2; mkdir /mnt",
        "rm -r /mnt",
        "rm -r /mnt; ln -s /etc /mnt",
        "rm -r /mnt; echo x > /mnt",
        "mv /file /file2",
        "rm /file; mkdir /file",
    ] {
        let mut command = ground.command(script);
        command.mounts = vec![mount(&shared, "/mnt"), mount(&file, "/file")];
        let error = runner::run(ground.runner, &command, &mut |_| {}, &AtomicI32::new(0));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("was left as it is"), "{script}: {error}");
        let after = (state(&shared), fs_err::metadata(&file).unwrap().ino());
        assert_eq!(after, before, "{script}");
        for left in ["mnt", "mnt2", "file", "file2"] {
            let left = ground.path("lower").join(left);
            let _ = fs_err::remove_dir_all(&left).or_else(|_| fs_err::remove_file(&left));
        }
    }
    // Its own names, and what leads there, may be moved.
    let mut command = ground.command("mv /a/mnt/folder /a/mnt/other; mv /a /b");
    command.mounts = vec![mount(&shared, "/a/mnt")];
    ground.run(&command);
    let found: Vec<_> = state(&shared).into_keys().collect();
    assert_eq!(found, ["other", "other/old"].map(PathBuf::from));
}

fn no_sockets(ground: &Ground) {
    let mut command = ground.command("nc 127.0.0.1 1");
    assert!(ground.run(&command).lines.concat().contains("refused"));
    command.network = false;
    let lines = ground.run(&command).lines.concat();
    assert!(lines.contains("not supported"), "{lines}");
}

fn no_overlay(ground: &Ground) {
    let refusal = probe_overlay(ground.runner, ground.place.path()).unwrap_err();
    assert!(refusal.call.contains("overlay"), "{refusal:?}");
}

fn resolv_conf(ground: &Ground) {
    let host = fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default();
    for target in [
        "../run/systemd/resolve/stub-resolv.conf",
        "/nowhere",
        "passwd",
        "resolv.conf",
    ] {
        let link = ground.path("lower/etc/resolv.conf");
        let _ = fs_err::remove_file(&link);
        symlink(target, &link).unwrap();
        assert_eq!(
            ground.says("cat /etc/resolv.conf").join("\n").trim(),
            host.trim(),
            "{target}"
        );
        assert!(ground.says("cat /etc/passwd").len() == 2);
    }
    assert!(!ground.path("upper/run").exists());
}

fn hostile(ground: &Ground) {
    let outside = ground.path("outside");
    fs_err::create_dir(&outside).unwrap();
    let untouched = || fs_err::read_dir(&outside).unwrap().next().is_none();
    let attempt = |name: &str, target: &Path| {
        let ground = Ground::new(ground.runner);
        let link = ground.path("lower").join(name);
        let _ = fs_err::remove_dir_all(&link);
        symlink(target, &link).unwrap();
        let mut command = ground.command("true");
        command.cwd = "/cwd/made".into();
        fs_err::write(ground.path("file"), "").unwrap();
        command.mounts = ["mnt/made", "mnt"]
            .map(|target| Mount {
                source: ground.path("file"),
                below: PathBuf::new(),
                target: target.into(),
                read_only: true,
            })
            .into_iter()
            .take(1)
            .collect();
        let result = runner::run(ground.runner, &command, &mut |_| {}, &AtomicI32::new(0));
        assert!(
            matches!(result, Ok(Outcome::Exited(0)) | Err(Error::Setup { .. })),
            "{result:?}"
        );
        result.is_ok()
    };
    for name in ["etc", "dev", "proc", "sys", "cwd", "mnt"] {
        let out = format!("../../../../../../../../..{}", outside.display());
        for target in [
            outside.as_path(),
            Path::new(&out),
            Path::new("../../.."),
            Path::new(name),
        ] {
            let ran = attempt(name, target);
            assert!(untouched(), "{name} -> {}", target.display());
            if ["dev", "proc", "sys"].contains(&name) && ground.runner != Runner::Chroot {
                assert!(!ran, "{name} -> {}", target.display());
            }
        }
    }
}

fn limits(ground: &Ground) {
    let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap();
    assert_eq!(
        ground.says("umask; ulimit -n"),
        ["0022".to_owned(), soft.to_string()]
    );
}

fn overlays(ground: &Ground) {
    let directory = ground.path("probed");
    fs_err::create_dir(&directory).unwrap();
    probe_overlay(ground.runner, &directory).unwrap();
    assert!(
        fs_err::read_dir(&directory).unwrap().next().is_none(),
        "it leaves nothing behind"
    );
    let refusal = probe_overlay(ground.runner, Path::new("/nowhere")).unwrap_err();
    assert!(refusal.to_string().contains("/nowhere"), "{refusal}");
    if rustix::process::geteuid().is_root() {
        // An upper directory on an overlay is refused by the kernel. This mount is made, and seen, by root.
        let merged = ground.path("merged");
        fs_err::create_dir(&merged).unwrap();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            ground.path("lower").display(),
            ground.path("upper").display(),
            ground.path("work").display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", &merged, "overlay", flags, options.as_c_str()).unwrap();
        let result = probe_overlay(ground.runner, &merged);
        rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::empty()).unwrap();
        let refusal = result.unwrap_err();
        assert!(refusal.call.contains("overlay"), "{refusal:?}");
        assert!(refusal.remedy.contains("ext4"), "{refusal:?}");
    }
}

fn side_by_side(ground: &Ground) {
    std::thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn(move || {
                let ground = Ground::new(ground.runner);
                assert_eq!(
                    ground.says(&format!("echo {number}; sleep 0.1")),
                    [number.to_string()]
                );
            });
        }
    });
}

/// The host's `script` gives this program a terminal, which it passes on.
fn terminal(ground: &Ground) {
    let place = ground.path("lower");
    let mut command =
        ground.command("test -t 0 && test -t 1 && echo terminal; read line; echo got $line");
    command.rootfs = RootFs::Directory(place);
    command.interactive = true;
    let (controller, user) = pty();
    let saved = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).unwrap();
    rustix::stdio::dup2_stdin(&user).unwrap();
    rustix::io::write(&controller, b"words\n").unwrap();
    let done = ground.run(&command);
    rustix::stdio::dup2_stdin(&saved).unwrap();
    // Its output is the pipe, its input the terminal.
    assert_eq!(
        (done.outcome, done.lines),
        (Outcome::Exited(0), vec!["got words".to_owned()])
    );
}

fn pty() -> (rustix::fd::OwnedFd, rustix::fd::OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let controller =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, vec![]).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let user = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    (controller, user)
}
