//! Pid 1 of a step: starts the command, reaps, passes signals on; and what the command's process does last.
//!
//! Pid 1 keeps all capabilities of its namespace and is not dumpable, so a step, which has fewer, can neither
//! trace it nor reach anything through its entries in /proc.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::identity::Identity;
use super::owners::{Prepared, Recorder};
use super::reach::{self, Gate};
use super::seccomp::Told;
use super::wire::{Channel, Note};
use super::{
    CA_BUNDLE, CA_VARIABLES, Command, Failure, Outcome, PRIVATE, Runner, family, files, seccomp,
    shown, sys,
};
use crate::secret::printable;

/// Docker's default capabilities.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Where a program is looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs the command to its end.
pub(super) fn run(
    runner: Runner,
    command: &Command,
    stdio: Vec<OwnedFd>,
    owners: Option<Prepared>,
    taps: &Taps<'_>,
    channel: &Channel,
) -> Result<Outcome, Failure> {
    let child_signal = sys::child_signal().map_err(|error| Failure::new("signalfd", error))?;
    let (report, reporter) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failure::new("pipe2", error))?;
    let (ours, theirs) = Channel::both().map_err(|error| Failure::new("socketpair", error))?;
    let told = match &command.owners {
        Some(settings) if owners.is_some() && settings.emulate => Told::Everything,
        Some(_) if owners.is_some() => Told::Owners,
        _ => Told::Nothing,
    };
    let Some(main) = sys::fork().map_err(|error| Failure::new("fork", error))? else {
        drop((report, ours));
        let failure = start(runner, command, &stdio, told, &theirs);
        let _ = serde_json::to_writer(fs_err::File::from_parts(reporter.into(), "pipe"), &failure);
        sys::exit(1);
    };
    // Whoever reads the command's output waits for its end.
    drop((reporter, theirs, stdio));
    let report = Some(std::fs::File::from(report));
    let listener = ours
        .receive_descriptors()
        .map_err(|error| Failure::new("recvmsg", error))?;
    // A command that did not get so far says why.
    let (mut recorder, gate) = match (owners, listener.into_iter().next()) {
        (Some(owners), Some(listener)) => {
            let recorder = Recorder::new(owners, listener, &command.rootfs)?;
            (Some(recorder), None)
        }
        (None, listener) => (None, listener.map(Gate::new)),
        (Some(_), None) => (None, None),
    };
    let outcome = Init {
        runner,
        main,
        child_signal,
        channel,
        report,
        recorder: recorder.as_mut(),
        gate,
        taps,
        is_alone: false,
    }
    .reap()?;
    // What was killed is not what anybody asked for.
    if let (Some(recorder), Outcome::Exited(_)) = (recorder, outcome) {
        recorder.complete()?;
    }
    Ok(outcome)
}

/// Ends all other processes, of which this one is pid 1.
pub(super) fn end_others() {
    let _ = rustix::process::kill_process_group(Pid::INIT, Signal::KILL);
    while let Ok(_) | Err(Errno::INTR) = rustix::process::wait(WaitOptions::empty()) {}
}

/// Where writes to `/dev/stdout` and `/dev/stderr` come out, where /proc cannot lead them.
#[derive(Debug, Default)]
pub(super) struct Taps<'a> {
    from: &'a [OwnedFd],
    to: Vec<OwnedFd>,
}

impl<'a> Taps<'a> {
    pub(super) fn new(from: &'a [OwnedFd], to: Vec<OwnedFd>) -> Self {
        Self { from, to }
    }

    /// Passes on some of what is there: who never stops writing must not keep anybody from listening to others.
    fn pass_on(&self) {
        for (from, to) in self.from.iter().zip(&self.to) {
            pass_on(from, to);
        }
    }

    /// Passes on all of it. There may be nobody who writes.
    pub(super) fn pass_on_all(&self) {
        for (from, to) in self.from.iter().zip(&self.to) {
            while pass_on(from, to) {}
        }
    }
}

/// Gives whether there was something, and somebody who takes it.
fn pass_on(from: &OwnedFd, to: &OwnedFd) -> bool {
    let mut buffer = [0; 1 << 14];
    let Ok(length @ 1..) = rustix::io::read(from, &mut buffer) else {
        return false;
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            // A command may have said that nobody waits for its output.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(to, PollFlags::OUT)], None);
            }
            Err(_) => return false,
        }
    }
    true
}

/// What pid 1 looks after.
struct Init<'a> {
    runner: Runner,
    main: Pid,
    child_signal: OwnedFd,
    channel: &'a Channel,
    report: Option<std::fs::File>,
    recorder: Option<&'a mut Recorder>,
    gate: Option<Gate>,
    taps: &'a Taps<'a>,
    /// Whether the program has said its last word.
    is_alone: bool,
}

/// What something is heard from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ear {
    Child,
    Channel,
    Report,
    Recorder,
    Gate,
    Tap,
}

impl Init<'_> {
    /// Waits for the command, and for the orphans that it makes; sends it the signals that the program asks for, and
    /// answers its calls.
    fn reap(mut self) -> Result<Outcome, Failure> {
        loop {
            while let Some((pid, status)) = rustix::process::wait(WaitOptions::NOHANG)
                .map_err(|error| Failure::new("wait", error))?
            {
                if pid == self.main {
                    failed_start(&mut self.report)?;
                    return Ok(outcome(status));
                }
            }
            for (ear, heard) in self.listen()? {
                self.attend(ear, heard)?;
            }
        }
    }

    /// Waits until something is heard.
    fn listen(&self) -> Result<Vec<(Ear, PollFlags)>, Failure> {
        let mut ears = vec![Ear::Child];
        let mut fds = vec![PollFd::new(&self.child_signal, PollFlags::IN)];
        if !self.is_alone {
            ears.push(Ear::Channel);
            fds.push(PollFd::new(self.channel, PollFlags::IN));
        }
        if let Some(report) = &self.report {
            ears.push(Ear::Report);
            fds.push(PollFd::new(report, PollFlags::IN));
        }
        if let Some(recorder) = &self.recorder {
            ears.push(Ear::Recorder);
            fds.push(PollFd::new(recorder.listener(), PollFlags::IN));
        }
        if let Some(gate) = &self.gate {
            ears.push(Ear::Gate);
            fds.push(PollFd::new(gate.listener(), PollFlags::IN));
        }
        for tap in self.taps.from {
            ears.push(Ear::Tap);
            fds.push(PollFd::new(tap, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::new("poll", error)),
        }
        let heard = fds.iter().map(PollFd::revents);
        let heard = ears.into_iter().zip(heard);
        Ok(heard.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn attend(&mut self, ear: Ear, heard: PollFlags) -> Result<(), Failure> {
        match ear {
            Ear::Child => drop(rustix::io::read(&self.child_signal, &mut [0; 128])),
            Ear::Report => failed_start(&mut self.report)?,
            Ear::Recorder => match &mut self.recorder {
                Some(recorder) if heard.contains(PollFlags::IN) => recorder.serve()?,
                // Nobody is left who could ask.
                _ => self.recorder = None,
            },
            Ear::Gate => match &self.gate {
                Some(gate) if heard.contains(PollFlags::IN) => gate.serve()?,
                _ => self.gate = None,
            },
            Ear::Tap => self.taps.pass_on(),
            Ear::Channel => {
                let signal = match self.channel.receive() {
                    Ok(Some(Note::Signal(number))) => {
                        Signal::from_named_raw(number).unwrap_or(Signal::TERM)
                    }
                    heard => {
                        self.is_alone = !matches!(heard, Ok(Some(_)));
                        Signal::KILL
                    }
                };
                match (self.runner, signal) {
                    (Runner::Chroot, Signal::KILL) => {
                        family::kill()?;
                        let _ = rustix::process::kill_process(self.main, Signal::KILL);
                    }
                    (Runner::Chroot, signal) => family::signal(signal)?,
                    // The group of pid 1 stands for every process of the namespace but pid 1 itself.
                    _ => drop(rustix::process::kill_process_group(Pid::INIT, signal)),
                }
            }
        }
        Ok(())
    }
}

/// Why the command was not started, if it was not. Asked when its process has become the command, or ended.
fn failed_start(report: &mut Option<std::fs::File>) -> Result<(), Failure> {
    let Some(report) = report.take() else {
        return Ok(());
    };
    let report = io::read_to_string(report).map_err(|error| Failure::new("read", error))?;
    serde_json::from_str(&report).map_or(Ok(()), Err)
}

fn outcome(status: WaitStatus) -> Outcome {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Outcome::Exited(status),
        (None, signal) => Outcome::Signalled(signal.unwrap_or(0)),
    }
}

/// Becomes the command. Returns only if that failed, and ends by itself when it is the command's fault.
fn start(
    runner: Runner,
    command: &Command,
    stdio: &[OwnedFd],
    told: Told,
    listener: &Channel,
) -> Failure {
    if let Err(failure) = connect(stdio) {
        return failure;
    }
    if runner == Runner::Chroot
        && let Err(failure) = shown::enter(&command.rootfs)
    {
        return failure;
    }
    let (status, message) = match Identity::look_up(&command.user) {
        Ok(identity) => match prepare(runner, command, &identity, told, listener) {
            Ok((argv, env)) => match &command.placement {
                None => execute(command, &argv, &env),
                Some(placement) => match files::place(placement) {
                    Ok(()) => sys::exit(0),
                    Err(error) => (1, error),
                },
            },
            Err(failure) => return failure,
        },
        Err(error) => (126, error),
    };
    // Of `run` this is a terminal.
    let message = printable(&message) + "\n";
    let _ = rustix::io::write(rustix::stdio::stderr(), message.as_bytes());
    sys::exit(status)
}

/// Gives the process the command's standard input, output and error, and no other file.
fn connect(stdio: &[OwnedFd]) -> Result<(), Failure> {
    let [input, output, errors] = stdio else {
        return Err(Failure::said(
            "recvmsg",
            "standard input, output and error did not arrive",
        ));
    };
    rustix::stdio::dup2_stdin(input)
        .and_then(|()| rustix::stdio::dup2_stdout(output))
        .and_then(|()| rustix::stdio::dup2_stderr(errors))
        .map_err(|error| Failure::new("dup2", error))?;
    sys::close_on_exec_from(3);
    Ok(())
}

type Strings = Vec<CString>;

fn prepare(
    runner: Runner,
    command: &Command,
    identity: &Identity,
    told: Told,
    listener: &Channel,
) -> Result<(Strings, Strings), Failure> {
    let argv = command
        .argv
        .iter()
        .map(|word| string(word))
        .collect::<Result<_, _>>()?;
    let env = environment(command, &identity.home)
        .iter()
        .map(|(name, value)| {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            string(&variable)
        })
        .collect::<Result<_, _>>()?;
    // Out of the caller's session a step cannot type into the caller's terminal.
    if !(command.interactive && rustix::termios::isatty(rustix::stdio::stdin())) {
        rustix::process::setsid().map_err(|error| Failure::new("setsid", error))?;
    }
    rustix::process::chdir(Path::new("/").join(&command.cwd))
        .map_err(|error| Failure::new(format!("chdir({})", command.cwd.display()), error))?;
    let given = restrict(runner, told, command.network)?;
    let given: Vec<_> = given.iter().map(AsFd::as_fd).collect();
    listener
        .send_descriptors(&given)
        .map_err(|error| Failure::new("sendmsg", error))?;
    if told != Told::Nothing {
        // Pid 1 reads from here what it is told of. Nothing is secret that the command will not have, too.
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
            .map_err(|error| Failure::new("prctl(PR_SET_DUMPABLE)", error))?;
    }
    if command.inherit_output {
        // Whoever is run for a user is as good as pid 1: orphans are its own, and an init has work.
        rustix::process::set_child_subreaper(Some(Pid::INIT))
            .map_err(|error| Failure::new("prctl(PR_SET_CHILD_SUBREAPER)", error))?;
    }
    identity.assume()?;
    sys::restore_signals();
    Ok((argv, env))
}

fn string(word: &OsStr) -> Result<CString, Failure> {
    CString::new(word.as_bytes()).map_err(|error| Failure::new("execve", error))
}

/// All of the step's environment: that of the command, and `HOME` and where the CA bundle is if the command
/// does not say.
fn environment(command: &Command, home: &str) -> Vec<(OsString, OsString)> {
    let mut env = command.env.clone();
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".into(), home.into()));
    }
    if command.ca_bundle.is_some() {
        let bundle = Path::new("/dev").join(PRIVATE).join(CA_BUNDLE);
        for variable in CA_VARIABLES {
            if !env.iter().any(|(name, _)| name == variable) {
                env.push((variable.into(), bundle.clone().into()));
            }
        }
    }
    env
}

/// Gives up, for good, all that Docker does not give a container by default.
///
/// Where privilege is left the filter has to come while it is there. Where only one id exists the filter comes
/// last, since it answers `capset` with success and does nothing. Gives where calls are told of, if they are.
///
/// The `network` is the host's. It is taken away here only where it cannot be by a namespace.
pub(super) fn restrict(
    runner: Runner,
    told: Told,
    network: bool,
) -> Result<Option<OwnedFd>, Failure> {
    let filter = |error| Failure::new("seccomp", error);
    let mut filters: Vec<_> = seccomp::docker().map_err(filter)?.into();
    if network {
        filters.push(seccomp::without_raw_sockets().map_err(filter)?);
    }
    if runner != Runner::Chroot {
        filters.push(reach::spare_first_process().map_err(filter)?);
    }
    let install = |program| sys::install_filter(program).map_err(filter);
    if runner == Runner::Chroot {
        let guarded = shown::devices_are_guarded()?;
        drop_capabilities(CAPABILITIES.difference(CapabilitySet::SYS_CHROOT))?;
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| Failure::new("prctl(PR_SET_NO_NEW_PRIVS)", error))?;
        // A descriptor of a directory elsewhere, if it got one, would lead out of its root.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty())
            .map_err(|error| Failure::new("open(/)", error))?;
        // Not all kernels and profiles allow that.
        let _ = sys::keep_below(&root);
        filters.extend(seccomp::confine(guarded).map_err(filter)?);
        if !network {
            filters.push(seccomp::offline().map_err(filter)?);
        }
        filters.iter().try_for_each(install)?;
        let tell = reach::tell().map_err(filter)?;
        sys::install_listener(&tell).map(Some).map_err(filter)
    } else if runner == Runner::UsernsSingle {
        drop_capabilities(CAPABILITIES)?;
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| Failure::new("prctl(PR_SET_NO_NEW_PRIVS)", error))?;
        filters.push(seccomp::fake(told).map_err(filter)?);
        filters.iter().try_for_each(install)?;
        if told == Told::Nothing {
            return Ok(None);
        }
        let tell = seccomp::tell(told).map_err(filter)?;
        sys::install_listener(&tell).map(Some).map_err(filter)
    } else {
        filters.iter().try_for_each(install)?;
        drop_capabilities(CAPABILITIES)?;
        Ok(None)
    }
}

fn drop_capabilities(kept: CapabilitySet) -> Result<(), Failure> {
    let call = |call: &'static str| move |error: Errno| Failure::new(call, error);
    // Ambient ones are gone on kernels that have none.
    match rustix::thread::clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(call("prctl(PR_CAP_AMBIENT)")(error)),
    }
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(call("prctl(PR_CAPBSET_DROP)")(error)),
        }
    }
    let had = rustix::thread::capabilities(None).map_err(call("capget"))?;
    let kept = had.permitted & kept;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(call("capset"))
}

/// Executes the program; gives the status of a shell and a message if that fails.
fn execute(command: &Command, argv: &[CString], env: &[CString]) -> (i32, String) {
    let Some(program) = command.argv.first() else {
        return (127, "no command was given".into());
    };
    let shown = program.to_string_lossy();
    let mut refused = None;
    for candidate in candidates(program, &command.env) {
        let Ok(path) = string(&candidate) else {
            continue;
        };
        let error = sys::execve(&path, argv, env);
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR) => {
                // The file is there, but what its first line or its header asks for is not.
                if rustix::fs::stat(&*path).is_ok() {
                    refused = Some("its interpreter does not exist".to_owned());
                }
            }
            Some(Errno::NOEXEC) => {
                refused = Some("it is neither a script nor a program for this machine".to_owned());
            }
            _ => refused = Some(super::failure::reason(&error)),
        }
    }
    match refused {
        Some(reason) => (126, format!("`{shown}` cannot be executed: {reason}")),
        None if shown.contains('/') => (127, format!("`{shown}` does not exist")),
        None => (127, format!("`{shown}` was not found in `PATH`")),
    }
}

fn candidates(program: &OsStr, env: &[(OsString, OsString)]) -> Vec<OsString> {
    if program.is_empty() || program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    // The last one wins, as in a shell's assignments.
    let path = env.iter().rfind(|(name, _)| name == "PATH");
    let path = path.map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value);
    std::env::split_paths(path)
        .map(|directory| directory.join(program).into())
        .collect()
}
