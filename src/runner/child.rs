//! The helper process: enters the namespaces of a runner, then becomes what it was started for.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};
use rustix::termios::OptionalActions;
use rustix::thread::UnshareFlags;

use super::init::Taps;
use super::shown::{self, Shown};
use super::wire::{Channel, Job, Note, Spec};
use super::{
    Call, Command, Error, Failure, MARKER, Outcome, Runner, family, ids, init, mounts, owners,
    probe, sys, watch,
};

/// Whether this program asked if it is a helper process. One that does not would, as a helper, do all of what it does
/// anew, and start the next helper.
static HAS_ASKED: AtomicBool = AtomicBool::new(false);

/// An error unless [`take_over`] was called.
pub(super) fn require() -> Result<(), Error> {
    if HAS_ASKED.load(Ordering::Relaxed) {
        Ok(())
    } else {
        Err(Error::NoHelper)
    }
}

/// See [`super::child`].
pub(super) fn take_over() -> Option<Call> {
    HAS_ASKED.store(true, Ordering::Relaxed);
    if std::env::args_os().next()? != MARKER {
        return None;
    }
    let channel = Channel::from_stdin()?;
    let Ok(Some(spec)) = channel.receive::<Spec>() else {
        sys::exit(1);
    };
    match serve(spec, &channel) {
        Ok(Some(task)) => match channel.receive_bytes() {
            Ok(Some(input)) => Some(Call {
                task,
                input,
                channel,
            }),
            _ => sys::exit(1),
        },
        Ok(None) => sys::exit(0),
        Err(failure) => {
            let _ = channel.send(&Note::Failed(failure));
            sys::exit(1)
        }
    }
}

/// Does the job; gives the name of a task that the program has to do itself.
fn serve(spec: Spec, channel: &Channel) -> Result<Option<String>, Failure> {
    die_with_parent(spec.parent)?;
    // The caller's terminal sends these to all of its processes; what they mean is the caller's to decide.
    sys::ignore(&[
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGHUP,
        libc::SIGTSTP,
        libc::SIGTTOU,
    ]);
    let stdio = match &spec.job {
        Job::Run(_) => channel
            .receive_descriptors()
            .map_err(|error| Failure::new("recvmsg", error))?,
        _ => vec![],
    };
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if matches!(spec.runner, Runner::UsernsRange | Runner::UsernsSingle) {
        unshare(UnshareFlags::NEWUSER, "CLONE_NEWUSER")?;
        if spec.runner == Runner::UsernsSingle {
            ids::write_single(uid, gid)?;
        } else {
            map_range(channel)?;
        }
        // A change of credentials disarms it.
        die_with_parent(spec.parent)?;
    }
    // The command's environment is in this memory.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| Failure::new("prctl(PR_SET_DUMPABLE)", error))?;
    match spec.job {
        Job::Run(command) => {
            if !command.network && spec.runner != Runner::Chroot {
                unshare(UnshareFlags::NEWNET, "CLONE_NEWNET")?;
                match sys::raise_loopback() {
                    // Root of an outer container may have everything but CAP_NET_ADMIN: then there is not even a
                    // loopback interface.
                    Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
                    result => {
                        result.map_err(|error| Failure::new("ioctl(SIOCSIFFLAGS)", error))?;
                    }
                }
            }
            let terminal = Terminal::of(&stdio);
            first_process(spec.runner, channel, |channel| {
                if spec.runner == Runner::Chroot {
                    return in_plain_sight(&command, stdio, channel);
                }
                let owners = owners::Prepared::open(spec.runner, &command)?;
                let watch = watch::Prepared::open(&command)?;
                mounts::enter(spec.runner, &command)?;
                let watcher = watch.and_then(watch::Prepared::begin);
                let taps = Taps::default();
                let outcome = init::run(spec.runner, &command, stdio, owners, &taps, channel)?;
                if let Some(watcher) = watcher.filter(|_| outcome == Outcome::Exited(0)) {
                    watcher.complete()?;
                }
                Ok(outcome)
            })?;
            terminal.restore();
            Ok(None)
        }
        Job::Probe { directory } => {
            first_process(spec.runner, channel, |_| {
                probe::all_the_way(spec.runner, &directory)
            })?;
            Ok(None)
        }
        Job::Overlay { .. } if spec.runner == Runner::Chroot => Err(shown::no_mounts()),
        Job::Overlay { directory } => {
            unshare(UnshareFlags::NEWNS, "CLONE_NEWNS")?;
            mounts::detach_from_host()?;
            probe::overlay(Path::new(&directory))?;
            done(channel, Outcome::Exited(0))?;
            Ok(None)
        }
        Job::Call { task } => {
            if spec.runner != Runner::Chroot {
                unshare(UnshareFlags::NEWNS, "CLONE_NEWNS")?;
                mounts::detach_from_host()?;
            }
            channel
                .send(&Note::Ready)
                .map_err(|error| Failure::new("write", error))?;
            Ok(Some(task))
        }
    }
}

/// Asks for SIGKILL at the parent's end, which may have come already.
fn die_with_parent(parent: i32) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::new("prctl(PR_SET_PDEATHSIG)", error))?;
    if rustix::process::getppid()
        .map(Pid::as_raw_nonzero)
        .map(std::num::NonZero::get)
        != Some(parent)
    {
        sys::exit(1);
    }
    Ok(())
}

fn unshare(flags: UnshareFlags, name: &str) -> Result<(), Failure> {
    sys::unshare(flags).map_err(|error| Failure::new(format!("unshare({name})"), error))
}

/// Has the parent write the maps, then becomes root of the namespace, in no group but its own.
fn map_range(channel: &Channel) -> Result<(), Failure> {
    channel
        .send(&Note::MapIds)
        .map_err(|error| Failure::new("write", error))?;
    if !matches!(channel.receive(), Ok(Some(Note::IdsMapped))) {
        sys::exit(1);
    }
    let (root, group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_res_gid(group, group, group)
        .map_err(|error| Failure::new("setresgid(0)", error))?;
    rustix::thread::set_thread_groups(&[]).map_err(|error| Failure::new("setgroups", error))?;
    rustix::thread::set_thread_res_uid(root, root, root)
        .map_err(|error| Failure::new("setresuid(0)", error))
}

/// Runs a command on the runner `chroot`, among the processes of this container.
fn in_plain_sight(
    command: &Command,
    stdio: Vec<OwnedFd>,
    channel: &Channel,
) -> Result<Outcome, Failure> {
    if !command.interactive {
        // Who kills the program with its process group leaves somebody to end the command.
        rustix::process::setsid().map_err(|error| Failure::new("setsid", error))?;
    }
    let shown = Shown::put(command)?;
    let to = stdio.iter().skip(1).map(OwnedFd::try_clone);
    let to: Vec<_> = to
        .collect::<io::Result<_>>()
        .map_err(|error| Failure::new("dup", error))?;
    let taps = Taps::new(shown.taps(), to);
    let outcome = init::run(Runner::Chroot, command, stdio, None, &taps, channel);
    family::end()?;
    // Nobody is left who could write any more.
    taps.pass_on_all();
    drop(taps);
    // A program that was killed has given up its locks, and its next run may be at work.
    shown.take_away(channel.is_open())?;
    outcome
}

/// Runs `work` as pid 1 of new namespaces, or what stands for it, and waits until the last process under it has ended.
fn first_process(
    runner: Runner,
    channel: &Channel,
    work: impl FnOnce(&Channel) -> Result<Outcome, Failure>,
) -> Result<(), Failure> {
    if runner == Runner::Chroot {
        // Where a command ends the process that looks after it, its orphans come here.
        family::adopt()?;
    } else {
        unshare(
            UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS,
            "CLONE_NEWPID|CLONE_NEWIPC|CLONE_NEWUTS",
        )?;
    }
    let (alive, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failure::new("pipe2", error))?;
    let Some(first) = sys::fork().map_err(|error| Failure::new("fork", error))? else {
        drop(held);
        let protected = if runner == Runner::Chroot {
            sys::leave_keyring();
            // It may not end with its parent, or the command would live on. The channel's end tells it.
            family::adopt()
        } else {
            protect(&alive)
        };
        let result = protected
            .and_then(|()| work(channel))
            .and_then(|outcome| done(channel, outcome));
        if let Err(failure) = result {
            let _ = channel.send(&Note::Failed(failure));
        }
        // The kernel kills what is left in the namespace.
        sys::exit(0);
    };
    // The end of pid 1 is final only when all of its namespace have ended, so this wait is for all of them.
    loop {
        match rustix::process::waitpid(Some(first), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            result => {
                result.map_err(|error| Failure::new("waitpid", error))?;
                break;
            }
        }
    }
    if runner == Runner::Chroot {
        family::end()?;
    }
    Ok(())
}

/// What pid 1 does first: it ends with its parent, which it cannot see from the new namespace but for a pipe
/// that the parent holds, and gets a mount namespace.
fn protect(alive: &OwnedFd) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::new("prctl(PR_SET_PDEATHSIG)", error))?;
    let mut fds = [rustix::event::PollFd::new(
        alive,
        rustix::event::PollFlags::IN,
    )];
    let now = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0) {
        sys::exit(1);
    }
    unshare(UnshareFlags::NEWNS, "CLONE_NEWNS")?;
    // Not all kernels and profiles allow it, and all that is lost is a view of the own limits.
    let _ = sys::unshare(UnshareFlags::NEWCGROUP);
    sys::leave_keyring();
    // A name that every hosts file knows.
    sys::set_host_name("localhost").map_err(|error| Failure::new("sethostname", error))
}

fn done(channel: &Channel, outcome: Outcome) -> Result<(), Failure> {
    channel
        .send(&Note::Done(outcome))
        .map_err(|error| Failure::new("write", error))
}

/// The caller's terminal, if the step has it: a killed shell or editor leaves it in a strange state, and a
/// shell with job control leaves it to a process group that is gone.
struct Terminal(Option<(OwnedFd, rustix::termios::Termios, Pid)>);

impl Terminal {
    fn of(stdio: &[OwnedFd]) -> Self {
        let state = |fd: &OwnedFd| -> io::Result<_> {
            let (settings, group) = (
                rustix::termios::tcgetattr(fd)?,
                rustix::termios::tcgetpgrp(fd)?,
            );
            Ok((fd.try_clone()?, settings, group))
        };
        Self(stdio.first().and_then(|stdin| state(stdin).ok()))
    }

    fn restore(self) {
        if let Some((fd, settings, group)) = self.0 {
            let _ = rustix::termios::tcsetpgrp(&fd, group);
            let _ = rustix::termios::tcsetattr(&fd, OptionalActions::Drain, &settings);
        }
    }
}
