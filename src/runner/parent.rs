//! The program's side: starts the helper process, talks to it, passes on output and cancellation.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::time::Timespec;

use super::failure::Failure;
use super::ids::{self, Maps};
use super::lines::Lines;
use super::place;
use super::wire::{Channel, Job, Note, Spec};
use super::{Command, Error, MARKER, Outcome, Refusal, Runner, child};

/// How often a flag that nobody signals is looked at.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Between the signal that asks to stop and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// See [`super::run`].
pub(super) fn run(
    runner: Runner,
    command: &Command,
    output: &mut dyn FnMut(&str),
    cancelled: &AtomicI32,
) -> Result<Outcome, Error> {
    let broken = |error: Errno| Error::helper(error);
    let (pipe, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(broken)?;
    rustix::io::ioctl_fionbio(&pipe, true).map_err(broken)?;
    let null = fs_err::File::open("/dev/null").map_err(Error::helper)?;
    let mut helper = Helper::start(runner, Job::Run(Box::new(command.clone())))?;
    let stdin = if command.interactive {
        rustix::stdio::stdin()
    } else {
        null.as_fd()
    };
    let (stdout, stderr) = if command.inherit_output {
        (rustix::stdio::stdout(), rustix::stdio::stderr())
    } else {
        (writer.as_fd(), writer.as_fd())
    };
    let names = ["standard input", "standard output", "standard error"];
    for (name, fd) in names.into_iter().zip([stdin, stdout, stderr]) {
        if place::is_directory(fd).map_err(Error::helper)? {
            return Err(Error::Directory { name });
        }
    }
    // A helper that is gone says why in its last note, or by its status.
    let _ = helper.channel.send_descriptors(&[stdin, stdout, stderr]);
    drop(writer);

    let mut lines = Lines::default();
    let mut streaming = true;
    let mut outcome = None;
    let mut cancellation = Cancellation::default();
    loop {
        let mut fds = vec![PollFd::new(&helper.channel, PollFlags::IN)];
        if streaming {
            fds.push(PollFd::new(&pipe, PollFlags::IN));
        }
        wait(&mut fds)?;
        let told = !fds[0].revents().is_empty();
        if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            streaming = stream(&pipe, 1, &mut lines, output)?;
        }
        if told {
            match helper.receive()? {
                Some(Note::Done(done)) => outcome = Some(done),
                Some(_) => {}
                None => break,
            }
        }
        let signal = cancelled.load(Ordering::Relaxed);
        cancellation.proceed(&mut helper, signal, command.inherit_output);
    }
    // With the helper all processes of the step have ended, so what is in the pipe is all.
    let status = helper.end()?;
    if streaming {
        stream(&pipe, usize::MAX, &mut lines, output)?;
    }
    lines.finish(output);
    outcome.ok_or(Error::Died { status })
}

/// See [`super::call`].
pub(super) fn call(
    runner: Runner,
    task: &str,
    input: &[u8],
    cancelled: &AtomicI32,
) -> Result<Vec<u8>, Error> {
    let mut helper = Helper::start(
        runner,
        Job::Call {
            task: task.to_owned(),
        },
    )?;
    loop {
        let mut fds = [PollFd::new(&helper.channel, PollFlags::IN)];
        wait(&mut fds)?;
        let told = !fds[0].revents().is_empty();
        if cancelled.load(Ordering::Relaxed) != 0 {
            return Err(Error::Cancelled);
        }
        if !told {
            continue;
        }
        match helper.receive()? {
            Some(Note::Ready) => {
                // If it fails the helper is gone, and the next read says so.
                let _ = helper.channel.send_bytes(input);
            }
            Some(Note::Answer { error }) => {
                if let Some(bytes) = helper.channel.receive_bytes().map_err(Error::helper)? {
                    helper.end()?;
                    return if error {
                        let message = String::from_utf8_lossy(&bytes).into_owned();
                        Err(Error::Task {
                            task: task.to_owned(),
                            message,
                        })
                    } else {
                        Ok(bytes)
                    };
                }
            }
            Some(_) => {}
            None => {
                return Err(Error::Died {
                    status: helper.end()?,
                });
            }
        }
    }
}

/// Does a job that gives nothing but success.
pub(super) fn attempt(runner: Runner, job: Job) -> Result<(), Refusal> {
    let outcome = (|| {
        let mut helper = Helper::start(runner, job)?;
        let mut outcome = None;
        while let Some(note) = helper.receive()? {
            if let Note::Done(done) = note {
                outcome = Some(done);
            }
        }
        let status = helper.end()?;
        outcome.ok_or(Error::Died { status })
    })();
    match outcome {
        Ok(_) => Ok(()),
        Err(Error::Setup { refusal, .. }) => Err(refusal),
        Err(error) => Err(Failure::said("the helper process", error.to_string()).refusal(runner)),
    }
}

/// A helper process. It ends when this is dropped, and everything that it started with it.
struct Helper {
    child: Child,
    channel: Channel,
    runner: Runner,
    maps: Option<Maps>,
}

impl Helper {
    fn start(runner: Runner, job: Job) -> Result<Self, Error> {
        child::require()?;
        let setup = |failure: Failure| Error::Setup {
            runner,
            refusal: failure.refusal(runner),
        };
        let maps = match runner {
            Runner::UsernsRange => Some(ids::plan().map_err(setup)?),
            Runner::Root | Runner::UsernsSingle | Runner::Chroot => None,
        };
        let (channel, theirs) = Channel::pair().map_err(Error::helper)?;
        // Only what runs somebody else's code needs the copy.
        let copy = matches!(job, Job::Run(_))
            .then(own_copy)
            .transpose()
            .map_err(Error::helper)?;
        let program = copy.as_ref().map_or_else(
            || "/proc/self/exe".to_owned(),
            |copy| format!("/proc/self/fd/{}", copy.as_raw_fd()),
        );
        let mut command = std::process::Command::new(program);
        command
            .arg0(MARKER)
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null());
        // A process that another thread forks holds the copy open for writing until it executes its own program.
        let child = retry(Errno::TXTBSY, || command.spawn()).map_err(Error::helper)?;
        let helper = Self {
            child,
            channel,
            runner,
            maps,
        };
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        let spec = Spec {
            parent,
            runner,
            job,
        };
        match helper.channel.send(&spec) {
            // The helper is gone, and the next read says so.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result.map_err(Error::helper)?,
        }
        Ok(helper)
    }

    /// The next note; `None` is the end. A failure is an error. Blocks for one note and no longer, since the
    /// caller has output to read as well.
    fn receive(&mut self) -> Result<Option<Note>, Error> {
        let note = self.channel.receive().map_err(Error::helper)?;
        let failure = match (&note, &self.maps) {
            (Some(Note::MapIds), Some(maps)) => match ids::write(maps, self.child.id()) {
                Ok(()) => {
                    let _ = self.channel.send(&Note::IdsMapped);
                    return Ok(note);
                }
                Err(failure) => failure,
            },
            (Some(Note::Failed(failure)), _) => failure.clone(),
            _ => return Ok(note),
        };
        Err(Error::Setup {
            runner: self.runner,
            refusal: failure.refusal(self.runner),
        })
    }

    fn end(&mut self) -> Result<ExitStatus, Error> {
        self.child.wait().map_err(Error::helper)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Neither has an effect after `end`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A copy of this program in memory, which nobody can write to; one for all steps.
///
/// A step that has the program's own file under /proc (as its pid 1, or by executing /proc/self/exe) could
/// otherwise overwrite it, and with it what the user runs next (CVE-2019-5736).
fn own_copy() -> io::Result<OwnedFd> {
    static COPY: Mutex<Option<OwnedFd>> = Mutex::new(None);
    let mut known = COPY.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = match known.take() {
        Some(copy) => copy,
        None => make_copy()?,
    };
    // A step's root may have changed the mode, which no seal holds.
    rustix::fs::fchmod(&copy, Mode::RWXU | Mode::RWXG | Mode::RWXO)?;
    known.insert(copy).try_clone()
}

fn make_copy() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match rustix::fs::memfd_create("pyats-image-build", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every such file may be executed.
        Err(Errno::INVAL) => rustix::fs::memfd_create("pyats-image-build", flags),
        result => result,
    }?;
    let mut program = fs_err::File::open("/proc/self/exe")?;
    let mut copy = std::fs::File::from(copy);
    io::copy(&mut program, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    // The kernel does not seal pages that it has in hand just then, as a busy machine's has for a while.
    retry(Errno::BUSY, || {
        rustix::fs::fcntl_add_seals(&copy, seals).map_err(io::Error::from)
    })?;
    // A file that is open for writing cannot be executed.
    let readable = fs_err::File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    Ok(readable.into())
}

/// Tries what fails for a moment again, a hundred times.
fn retry<T>(passing: Errno, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..100 {
        match work() {
            Err(error) if error.raw_os_error() == Some(passing.raw_os_error()) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
    work()
}

/// Asks a command to end, then makes it.
#[derive(Default)]
struct Cancellation {
    since: Option<Instant>,
    steps: u32,
}

impl Cancellation {
    /// `signal` is what the command gets first, or 0; a `patient` one may take its time then.
    fn proceed(&mut self, helper: &mut Helper, signal: i32, patient: bool) {
        if signal == 0 || (patient && self.steps == 1) {
            return;
        }
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        if waited < GRACE * self.steps {
            return;
        }
        // A helper that does not listen any more needs no telling.
        match self.steps {
            0 => drop(helper.channel.send(&Note::Signal(signal))),
            1 => drop(helper.channel.send(&Note::Kill)),
            _ => drop(helper.child.kill()),
        }
        self.steps += 1;
    }
}

fn wait(fds: &mut [PollFd<'_>]) -> Result<(), Error> {
    match poll(fds, Some(&TICK)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(Error::helper(error)),
    }
}

/// Passes on what is in the pipe, reading at most `times`. Gives whether there may come more.
fn stream(
    pipe: &OwnedFd,
    times: usize,
    lines: &mut Lines,
    output: &mut dyn FnMut(&str),
) -> Result<bool, Error> {
    let mut buffer = [0; 16 * 1024];
    for _ in 0..times {
        match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => lines.push(&buffer[..count], output),
            Err(Errno::AGAIN) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::helper(error)),
        }
    }
    Ok(true)
}
