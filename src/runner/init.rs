//! Pid 1 of a step: starts the command, reaps, passes signals on; and what the command's process does last.
//!
//! Pid 1 keeps all capabilities of its namespace and is not dumpable, so a step, which has fewer, can neither
//! trace it nor reach anything through its entries in /proc.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::wire::{Channel, Note};
use super::{CA_BUNDLE, CA_VARIABLES, Command, Failure, Outcome, PRIVATE, Rung, seccomp, sys};

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
    rung: Rung,
    command: &Command,
    stdio: Vec<OwnedFd>,
    channel: &Channel,
) -> Result<Outcome, Failure> {
    let child_signal = sys::child_signal().map_err(|error| Failure::new("signalfd", error))?;
    let (report, reporter) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failure::new("pipe2", error))?;
    let Some(main) = sys::fork().map_err(|error| Failure::new("fork", error))? else {
        drop(report);
        let failure = start(rung, command, &stdio);
        let _ = serde_json::to_writer(fs_err::File::from_parts(reporter.into(), "pipe"), &failure);
        sys::exit(1);
    };
    drop((reporter, stdio));
    let report = io::read_to_string(std::fs::File::from(report))
        .map_err(|error| Failure::new("read", error))?;
    if let Ok(failure) = serde_json::from_str(&report) {
        return Err(failure);
    }
    reap(main, &child_signal, channel)
}

/// Waits for the command, and for the orphans that it makes; sends it the signals that the program asks for.
fn reap(main: Pid, child_signal: &OwnedFd, channel: &Channel) -> Result<Outcome, Failure> {
    loop {
        while let Some((pid, status)) = rustix::process::wait(WaitOptions::NOHANG)
            .map_err(|error| Failure::new("wait", error))?
        {
            if pid == main {
                return Ok(outcome(status));
            }
        }
        let mut fds = [
            PollFd::new(child_signal, PollFlags::IN),
            PollFd::new(channel, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::new("poll", error)),
        }
        let (child, told) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if child {
            let _ = rustix::io::read(child_signal, &mut [0; 128]);
        }
        if told {
            let signal = match channel.receive() {
                Ok(Some(Note::Signal(number))) => {
                    Signal::from_named_raw(number).unwrap_or(Signal::TERM)
                }
                _ => Signal::KILL,
            };
            // The group of pid 1 stands for every process of the namespace but pid 1 itself.
            let _ = rustix::process::kill_process_group(Pid::INIT, signal);
        }
    }
}

fn outcome(status: WaitStatus) -> Outcome {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Outcome::Exited(status),
        (None, signal) => Outcome::Signalled(signal.unwrap_or(0)),
    }
}

/// Becomes the command. Returns only if that failed, and ends by itself when it is the command's fault.
fn start(rung: Rung, command: &Command, stdio: &[OwnedFd]) -> Failure {
    match prepare(rung, command, stdio) {
        Ok((argv, env)) => {
            let (status, message) = execute(command, &argv, &env);
            let _ = rustix::io::write(rustix::stdio::stderr(), message.as_bytes());
            sys::exit(status)
        }
        Err(failure) => failure,
    }
}

type Strings = Vec<CString>;

fn prepare(
    rung: Rung,
    command: &Command,
    stdio: &[OwnedFd],
) -> Result<(Strings, Strings), Failure> {
    let argv = command
        .argv
        .iter()
        .map(|word| string(word))
        .collect::<Result<_, _>>()?;
    let env = environment(command)
        .iter()
        .map(|(name, value)| {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            string(&variable)
        })
        .collect::<Result<_, _>>()?;
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
    // Out of the caller's session a step cannot type into the caller's terminal.
    if !(command.interactive && rustix::termios::isatty(rustix::stdio::stdin())) {
        rustix::process::setsid().map_err(|error| Failure::new("setsid", error))?;
    }
    rustix::process::chdir(Path::new("/").join(&command.cwd))
        .map_err(|error| Failure::new(format!("chdir({})", command.cwd.display()), error))?;
    restrict(rung)?;
    sys::restore_signals();
    Ok((argv, env))
}

fn string(word: &OsStr) -> Result<CString, Failure> {
    CString::new(word.as_bytes()).map_err(|error| Failure::new("execve", error))
}

/// All of the step's environment: that of the command, and where the CA bundle is if the command does not say.
fn environment(command: &Command) -> Vec<(OsString, OsString)> {
    let mut env = command.env.clone();
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
/// last, since it answers `capset` with success and does nothing.
pub(super) fn restrict(rung: Rung) -> Result<(), Failure> {
    let filter = |error| Failure::new("seccomp", error);
    let [allowed, unknown] = seccomp::docker().map_err(filter)?;
    let install = |program| sys::install_filter(program).map_err(filter);
    if rung == Rung::UsernsSingle {
        drop_capabilities()?;
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| Failure::new("prctl(PR_SET_NO_NEW_PRIVS)", error))?;
        let fake = seccomp::fake().map_err(filter)?;
        [allowed, unknown, fake].iter().try_for_each(install)
    } else {
        [allowed, unknown].iter().try_for_each(install)?;
        drop_capabilities()
    }
}

fn drop_capabilities() -> Result<(), Failure> {
    let call = |call: &'static str| move |error: Errno| Failure::new(call, error);
    // Ambient ones are gone on kernels that have none.
    match rustix::thread::clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(call("prctl(PR_CAP_AMBIENT)")(error)),
    }
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if CAPABILITIES.contains(capability) {
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
    let kept = had.permitted & CAPABILITIES;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(call("capset"))
}

/// Executes the program; gives the status and message of a shell if that fails.
fn execute(command: &Command, argv: &[CString], env: &[CString]) -> (i32, String) {
    let Some(program) = command.argv.first() else {
        return (127, "no command was given\n".into());
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
        Some(reason) => (126, format!("`{shown}` cannot be executed: {reason}\n")),
        None if shown.contains('/') => (127, format!("`{shown}` does not exist\n")),
        None => (127, format!("`{shown}` was not found in `PATH`\n")),
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
