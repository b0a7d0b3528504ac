//! The stream to a host: a connection of its own, the two ends of a command, or a channel through another host.

use std::io::{self, Read, Seek as _, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use ssh2::{BlockDirections, Channel};

use super::Session;
use crate::net::Connection;
use crate::progress::Progress;
use crate::secret::mask;

/// How long it takes at most until a thread sees that the build was told to stop.
const TICK: Duration = Duration::from_millis(50);

/// Bytes that a jump holds in each direction.
const BUFFER: usize = 64 << 10;

/// Bytes of what a `ProxyCommand` said that an error repeats: those at the end.
const SAID: usize = 1000;

/// What a stream lives by; it ends with the value.
pub(super) enum Stream {
    /// Is only held: it watches whether the build was told to stop.
    #[expect(
        dead_code,
        reason = "it ends the connection when the build is told to stop"
    )]
    Direct(Connection),
    Command(ProxyCommand),
    #[expect(dead_code, reason = "it ends its thread when it goes")]
    Jump(Jump),
}

impl Stream {
    /// What a command wrote to its standard error, if there is one.
    pub(super) fn said(&mut self) -> Option<String> {
        match self {
            Self::Command(command) => command.said(),
            _ => None,
        }
    }
}

/// A command whose standard input and output are the stream.
pub(super) struct ProxyCommand {
    child: Child,
    errors: std::fs::File,
    over: Arc<AtomicBool>,
}

impl ProxyCommand {
    /// Starts it by the shell.
    pub(super) fn start(command: &str, progress: &Progress) -> io::Result<(OwnedFd, Self)> {
        let (ours, theirs) = UnixStream::pair()?;
        let errors = tempfile::tempfile()?;
        let theirs = OwnedFd::from(theirs);
        let child = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("exec {command}"))
            .stdin(theirs.try_clone()?)
            .stdout(theirs)
            .stderr(errors.try_clone()?)
            // An ssh in there asks no question on the terminal, but gives up.
            .env("SSH_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS_REQUIRE", "force")
            .process_group(0)
            .spawn()?;
        let over = Arc::new(AtomicBool::new(false));
        let (watched, ended, progress) = (ours.try_clone()?, over.clone(), progress.clone());
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if progress.check().is_err() {
                    // It may be closed already.
                    let _ = watched.shutdown(Shutdown::Both);
                    return;
                }
                thread::sleep(TICK);
            }
        });
        let command = Self {
            child,
            errors,
            over,
        };
        Ok((ours.into(), command))
    }

    fn said(&mut self) -> Option<String> {
        self.end();
        let mut bytes = Vec::new();
        self.errors.rewind().ok()?;
        (&self.errors).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SAID)..]);
        let text = mask(text.trim());
        (!text.is_empty()).then_some(text)
    }

    /// Ends the command and all that it started.
    fn end(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for ProxyCommand {
    fn drop(&mut self) {
        self.end();
    }
}

/// A channel through another host, which a thread joins with a stream.
pub(super) struct Jump {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Jump {
    /// Joins `channel` of `hop`, which lives as long as the stream.
    pub(super) fn start(
        hop: Session,
        channel: Channel,
        progress: &Progress,
    ) -> io::Result<(OwnedFd, Self)> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        hop.ssh.set_blocking(false);
        let over = Arc::new(AtomicBool::new(false));
        let (ended, progress) = (over.clone(), progress.clone());
        let thread = thread::spawn(move || {
            let goes_on = || !ended.load(Ordering::Relaxed) && progress.check().is_ok();
            // Whatever ends it, the other side sees that the stream is over.
            let _ = join(&hop, channel, &theirs, goes_on);
            let _ = theirs.shutdown(Shutdown::Both);
            hop.abandon();
        });
        let jump = Self {
            over,
            thread: Some(thread),
        };
        Ok((ours.into(), jump))
    }
}

impl Drop for Jump {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Copies in both directions until one side ends.
fn join(
    hop: &Session,
    mut channel: Channel,
    mut stream: &UnixStream,
    goes_on: impl Fn() -> bool,
) -> io::Result<()> {
    let (mut up, mut down) = (Pipe::new(), Pipe::new());
    while goes_on() {
        let moved = [
            up.fill(&mut stream)?,
            up.drain(&mut channel)?,
            down.fill(&mut channel)?,
            down.drain(&mut stream)?,
        ];
        if up.is_over() || down.is_over() {
            return Ok(());
        }
        if !moved.contains(&true) {
            wait(hop, stream, up.is_empty(), down.is_empty())?;
        }
    }
    Ok(())
}

/// Waits until something can be moved, or for a tick.
fn wait(hop: &Session, stream: &UnixStream, up_empty: bool, down_empty: bool) -> io::Result<()> {
    let (mut of_hop, mut of_stream) = (PollFlags::empty(), PollFlags::empty());
    // While bytes wait for the stream, those behind them are left where they are.
    of_hop.set(PollFlags::IN, down_empty);
    let outbound = matches!(
        hop.ssh.block_directions(),
        BlockDirections::Outbound | BlockDirections::Both
    );
    of_hop.set(PollFlags::OUT, outbound && !up_empty);
    of_stream.set(PollFlags::IN, up_empty);
    of_stream.set(PollFlags::OUT, !down_empty);
    let mut both = [
        PollFd::from_borrowed_fd(hop.socket.as_fd(), of_hop),
        PollFd::from_borrowed_fd(stream.as_fd(), of_stream),
    ];
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(TICK.subsec_nanos()),
    };
    match poll(&mut both, Some(&tick)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Bytes on their way in one direction.
struct Pipe {
    bytes: Vec<u8>,
    /// Those that wait.
    waiting: std::ops::Range<usize>,
    ended: bool,
}

impl Pipe {
    fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER],
            waiting: 0..0,
            ended: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn is_over(&self) -> bool {
        self.ended && self.is_empty()
    }

    /// Whether anything was read.
    fn fill(&mut self, from: &mut impl Read) -> io::Result<bool> {
        if !self.is_empty() || self.ended {
            return Ok(false);
        }
        match from.read(&mut self.bytes) {
            Ok(length) => {
                self.waiting = 0..length;
                self.ended = length == 0;
                Ok(true)
            }
            Err(error) => not_now(error),
        }
    }

    /// Whether anything was written.
    fn drain(&mut self, to: &mut impl Write) -> io::Result<bool> {
        if self.is_empty() {
            return Ok(false);
        }
        match to.write(&self.bytes[self.waiting.clone()]) {
            Ok(length) => {
                self.waiting.start += length;
                Ok(length > 0)
            }
            Err(error) => not_now(error),
        }
    }
}

fn not_now(error: io::Error) -> io::Result<bool> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(false),
        _ => Err(error),
    }
}
