//! Runs commands inside a root file system, by the best technique that the machine allows.
//!
//! The program starts itself again as a helper process. That one enters namespaces, forks their pid 1, which
//! mounts, and that one forks the command. The program itself, which has threads, never enters any.
//!
//! ```text
//! program ── helper ── pid 1 ── command          each dies with the one before it,
//!    socket for notes, pipe for output            whatever kills that
//! ```
//!
//! On the runner `chroot` there are no namespaces: what pid 1 is elsewhere takes in the orphans of the command, lives
//! on until it has killed them all, and puts into the root file system what is mounted elsewhere.
//!
//! A step is somebody else's code: it gets Docker's default capabilities and system calls, an environment of
//! its own, and no descriptor but three. Imports nothing of this crate.

mod child;
mod copies;
mod failure;
mod family;
mod files;
mod identity;
mod ids;
mod init;
mod lines;
mod mounts;
mod owners;
mod parent;
mod place;
mod probe;
mod reach;
mod seccomp;
mod shown;
mod sys;
mod unpack;
mod watch;
mod wire;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::str::FromStr;
use std::sync::atomic::AtomicI32;

use rustix::process::DumpableBehavior;
use serde::{Deserialize, Serialize};

use self::failure::Failure;
pub(crate) use self::files::NO_OWNER;
pub use self::files::{Destination, FILES, Item, Placement};
pub use self::watch::Watch;

/// The name that the helper process goes by. With it, and a socket as standard input, [`child`] takes over.
const MARKER: &str = "pyats-image-build: runner";
/// The runner's directory in a step's /dev.
const PRIVATE: &str = ".pyats-image-build";
/// The CA bundle's name in [`PRIVATE`].
const CA_BUNDLE: &str = "ca.pem";
/// Who reads the CA bundle: OpenSSL, pip, requests, curl, git.
const CA_VARIABLES: &[&str] = &[
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
];

/// A technique. The ladder goes from the first, which loses nothing, to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runner {
    /// Real root, in mount, pid and ipc namespaces of its own.
    Root,
    /// A user namespace with a range of ids, by newuidmap and newgidmap.
    UsernsRange,
    /// A user namespace with one id; calls that change identity or owners are answered with success.
    UsernsSingle,
    /// Real root without namespaces and mounts, as in most containers: another root, and filters.
    Chroot,
}

/// Why a runner cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The call or program that failed, such as `unshare(CLONE_NEWUSER)`.
    pub call: String,
    /// Its errno, or 0.
    pub errno: i32,
    /// What its errno or its output means.
    pub reason: String,
    /// What the user, or an administrator, can do.
    pub remedy: String,
}

/// What each runner said when it was tried all the way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// From the first runner to the last.
    pub runners: Vec<(Runner, Result<(), Refusal>)>,
}

/// The root file system of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum RootFs {
    /// An overlay; writes go to `upper`. All directories exist, `upper` and `work` on one file system.
    Overlay {
        /// Topmost first.
        #[serde(with = "wire::paths")]
        lower: Vec<PathBuf>,
        /// Takes the changes.
        #[serde(with = "wire::path")]
        upper: PathBuf,
        /// The overlay's own.
        #[serde(with = "wire::path")]
        work: PathBuf,
    },
    /// A directory that is written in place.
    Directory(#[serde(with = "wire::path")] PathBuf),
}

/// A file or directory of the host that a step sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    /// On the host, absolute.
    #[serde(with = "wire::path")]
    pub source: PathBuf,
    /// What of it is shown, relative; empty for all. Links count as if the source were the root.
    #[serde(with = "wire::path")]
    pub below: PathBuf,
    /// In the root file system, absolute; made if it is not there.
    #[serde(with = "wire::path")]
    pub target: PathBuf,
    /// Whether the step may not write to it.
    pub read_only: bool,
}

/// An empty file system in memory that a step sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tmpfs {
    /// In the root file system, absolute; made if it is not there.
    #[serde(with = "wire::path")]
    pub target: PathBuf,
    /// In bytes; without it, half of the memory.
    pub size: Option<u64>,
}

/// One command to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// The root file system.
    pub rootfs: RootFs,
    /// In order.
    pub mounts: Vec<Mount>,
    /// Made before the mounts.
    pub tmpfs: Vec<Tmpfs>,
    /// The program, looked up in the `PATH` of `env`, and its arguments.
    pub argv: Vec<OsString>,
    /// Puts files into the root file system, in place of running a program.
    pub placement: Option<Placement>,
    /// `USER[:GROUP]`, by name or number, of the root file system; empty for root.
    pub user: String,
    /// Whether it has a network: the host's, or else a loopback interface of its own.
    pub network: bool,
    /// All of its environment, but for `HOME`, which without an entry here is what `/etc/passwd` says.
    pub env: Vec<(OsString, OsString)>,
    /// In the root file system; made if it is not there.
    #[serde(with = "wire::path")]
    pub cwd: PathBuf,
    /// A CA bundle of the host, shown to the step under /dev and named by `SSL_CERT_FILE` and its kin.
    #[serde(with = "wire::maybe_path")]
    pub ca_bundle: Option<PathBuf>,
    /// Whether the step reads the caller's standard input (else it is empty).
    pub interactive: bool,
    /// Whether the step writes to the caller's standard output and error itself, on the caller's terminal if
    /// that is one, instead of line by line through the callback.
    pub inherit_output: bool,
    /// On [`Runner::UsernsSingle`]: what becomes of the owners that the command sets. With `None` they are
    /// forgotten. The other runners set them.
    pub owners: Option<Owners>,
    /// Paths to watch: afterwards it is known whether the command looked at them.
    pub watch: Option<Watch>,
}

/// Where owners are kept that no file can have, since one id is all there is.
///
/// The kernel would refuse them; so they are taken down, and each file is as after a chown(2) by root in
/// everything else: without setuid, setgid and capabilities, and copied up in an overlay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Owners {
    /// The extended attribute of files and directories that holds `UID:GID`, in `user.`. Files without it are
    /// root's. Steps can see it, and may set it: that gives away no more than they have.
    pub attribute: String,
    /// Owners of what can have no attribute, as `UID GID PATH\0`: those of the tree before the step.
    #[serde(with = "wire::maybe_path")]
    pub known: Option<PathBuf>,
    /// The same for what the step changed. Made if it is not there, else added to; written when the command
    /// ended.
    #[serde(with = "wire::path")]
    pub record: PathBuf,
    /// Whether the command gets owners and identity back as it set them, and files that it makes as another
    /// user are that user's. Every such call then takes some microseconds.
    pub emulate: bool,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// With this status; 0 is success.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

/// Why a command could not be run. A command that ran and failed is an [`Outcome`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No runner, of those that were asked for, works here.
    #[error("no way to run commands works here: {}", list(runners))]
    Refused {
        /// What each one said.
        runners: Vec<(Runner, Refusal)>,
    },
    /// A runner that works in principle failed for this command.
    #[error("the sandbox (`{runner}`) failed: {refusal}")]
    Setup {
        /// The runner.
        runner: Runner,
        /// What failed.
        refusal: Refusal,
    },
    /// The function that [`call`] called gave an error.
    #[error("{message}")]
    Task {
        /// Its name.
        task: String,
        /// Its error.
        message: String,
    },
    /// [`call`] was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The helper process ended without a word, as when the machine is out of memory.
    #[error("the helper process ended unexpectedly, with {status}")]
    Died {
        /// How it ended.
        status: ExitStatus,
    },
    /// A directory is one of the three descriptors that a command gets: it would lead out of its root.
    #[error("{name} is a directory")]
    Directory {
        /// Which one.
        name: &'static str,
    },
    /// The program would do all that it does anew, as its own helper process.
    #[error("this program cannot be its own helper process")]
    NoHelper,
    /// The helper process could not be started or talked to.
    #[error("failed to work with the helper process")]
    Helper(#[source] io::Error),
    /// No runner has this name.
    #[error("there is no runner `{name}`")]
    UnknownRunner {
        /// As it was given.
        name: String,
    },
    /// The runner is known, and not made yet.
    #[error("the runner `{name}` is not supported yet")]
    UnsupportedRunner {
        /// As it was given.
        name: String,
    },
}

impl Error {
    fn helper(error: impl Into<io::Error>) -> Self {
        Self::Helper(error.into())
    }

    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let remedies: BTreeSet<String> = match self {
            Self::Setup { refusal, .. } => BTreeSet::from([refusal.remedy.clone()]),
            Self::Refused { runners } => runners
                .iter()
                .filter(|(_, refusal)| !refusal.remedy.is_empty())
                .map(|(runner, refusal)| format!("for `{runner}`: {}", refusal.remedy))
                .collect(),
            Self::UnknownRunner { .. } | Self::UnsupportedRunner { .. } => {
                let names = Runner::ALL.map(|runner| format!("`{runner}`"));
                BTreeSet::from([format!("use {}, or `auto`", names.join(", "))])
            }
            Self::Died { .. } => BTreeSet::from([
                "look in the kernel's log (`dmesg`) for a process killed for want of memory".into(),
            ]),
            Self::NoHelper => {
                BTreeSet::from(["let `main` begin with `pyats_image_builder::helper()`".into()])
            }
            Self::Directory { .. } => BTreeSet::from([
                "give the command a file, a pipe or a terminal, or mount the directory".into(),
            ]),
            Self::Task { .. } | Self::Cancelled | Self::Helper(_) => BTreeSet::new(),
        };
        let text = remedies.into_iter().collect::<Vec<_>>().join("; ");
        (!text.is_empty()).then_some(text)
    }
}

fn list(runners: &[(Runner, Refusal)]) -> String {
    let runners: Vec<_> = runners
        .iter()
        .map(|(runner, refusal)| format!("`{runner}`: {refusal}"))
        .collect();
    runners.join("; ")
}

impl Runner {
    /// From the first to the last.
    pub const ALL: [Self; 4] = [
        Self::Root,
        Self::UsernsRange,
        Self::UsernsSingle,
        Self::Chroot,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::UsernsRange => "userns-range",
            Self::UsernsSingle => "userns-single",
            Self::Chroot => "chroot",
        }
    }
}

impl fmt::Display for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Runner {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        if let Some(runner) = Self::ALL.into_iter().find(|runner| runner.name() == name) {
            return Ok(runner);
        }
        let name = name.to_owned();
        Err(match name.as_str() {
            "ptrace" => Error::UnsupportedRunner { name },
            _ => Error::UnknownRunner { name },
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.call, self.reason)
    }
}

/// What a runner does not isolate, as a sentence.
#[must_use]
pub fn isolation(runner: Runner) -> &'static str {
    match runner {
        Runner::Root => {
            "Steps use the host's network, without raw and packet sockets, and their root is the host's root, with Docker's default \
             capabilities and system calls."
        }
        Runner::UsernsRange => {
            "Steps use the host's network, without raw and packet sockets; their root is the calling user, and \
             their other users are its subordinate ids."
        }
        Runner::UsernsSingle => {
            "Steps use the host's network, without raw and packet sockets; all their users are the calling user. Changes of owner are \
             recorded for the image, and changes of identity only pretended."
        }
        Runner::Chroot => {
            "Steps share this container's network, without raw and packet sockets, and its processes, of which they \
             reach only their own; they have Docker's default capabilities but `CAP_SYS_CHROOT`, a root of their \
             own, little of /proc, and neither System V IPC nor message queues."
        }
    }
}

/// All paths, relative to the root, that [`run`] may have to make in the root file system to mount upon, with
/// the directories that lead to them, sorted. A path that was not there before and is empty now is no change
/// of the command's. The times of directories that were there before are kept. The working directory is none
/// of them: it stays, as with other builders.
#[must_use]
pub fn mount_points(command: &Command) -> Vec<PathBuf> {
    let own = ["dev", "proc", "sys", "etc/resolv.conf", "etc/hosts"].map(Path::new);
    let mounts = command.mounts.iter().map(|mount| mount.target.as_path());
    let tmpfs = command.tmpfs.iter().map(|tmpfs| tmpfs.target.as_path());
    own.into_iter()
        .chain(mounts)
        .chain(tmpfs)
        .map(place::inside)
        .flat_map(|path| path.ancestors().map(Path::to_owned).collect::<Vec<_>>())
        .filter(|path| !path.as_os_str().is_empty())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// A call of [`call`] that arrived in the helper process.
#[derive(Debug)]
pub struct Call {
    /// Which function of the library is meant.
    pub task: String,
    /// Its input.
    pub input: Vec<u8>,
    channel: wire::Channel,
}

impl Call {
    /// Answers and ends the process: `Ok` is the output, `Err` the message of an error.
    pub fn answer(self, answer: Result<Vec<u8>, String>) -> ! {
        let error = answer.is_err();
        let bytes = answer.unwrap_or_else(String::into_bytes);
        let note = self.channel.send(&wire::Note::Answer { error });
        let sent = note.and_then(|()| self.channel.send_bytes(&bytes));
        sys::exit(i32::from(sent.is_err()))
    }
}

/// Has to be the first thing that `main` does, before any thread exists. In a process that this module
/// started it runs the command and does not return, or returns the call to answer.
#[must_use]
pub fn child() -> Option<Call> {
    child::take_over()
}

/// Keeps other processes of the user, such as steps of other builds, out of this one's memory and /proc
/// entries. It also makes no core dumps.
///
/// And makes up for containers whose profile forbids clone3(2), in which no program of today's C library can start a
/// thread. To be called while the process has one.
pub fn harden() -> Result<(), Error> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Error::helper)?;
    if sys::clone3_is_forbidden() {
        rustix::thread::set_no_new_privs(true).map_err(Error::helper)?;
        seccomp::without_clone3()
            .and_then(|filter| sys::install_filter(&filter))
            .map_err(Error::helper)?;
    }
    Ok(())
}

/// Tries every runner; steps will work in `directory`.
#[must_use]
pub fn probe(directory: &Path) -> Report {
    probe::report(directory)
}

/// The best runner that works here, or `forced` if that one works; and what those before it said. Steps will work in
/// `directory`.
pub fn choose(
    forced: Option<Runner>,
    directory: &Path,
) -> Result<(Runner, Vec<(Runner, Refusal)>), Error> {
    probe::choose(forced, directory)
}

/// The next runner after `runner` that works here; for what that one cannot hold.
#[must_use]
pub fn next(runner: Runner, directory: &Path) -> Option<Runner> {
    probe::next(runner, directory)
}

/// Whether an overlay can be mounted whose upper directory lies in `directory`.
pub fn probe_overlay(runner: Runner, directory: &Path) -> Result<(), Refusal> {
    probe::probe_overlay(runner, directory)
}

/// Runs a command to its end. `output` gets every line of its output and error, in the order of writing.
///
/// A program that does not exist gives 127, one that cannot be executed 126, and a line that says so. Once
/// `cancelled` is the number of a signal, the command and all that it started get that signal, and five seconds
/// later SIGKILL; with [`Command::inherit_output`], as long as they like. When this
/// returns, none of its processes is left; they also end when this process is killed, or the calling thread ends.
///
/// With [`Command::interactive`] on a terminal the command stays in the caller's session, so the terminal's
/// signals reach the caller too, who may want to ignore SIGINT.
pub fn run(
    runner: Runner,
    command: &Command,
    output: &mut dyn FnMut(&str),
    cancelled: &AtomicI32,
) -> Result<Outcome, Error> {
    parent::run(runner, command, output, cancelled)
}

/// Calls a function of this program in a helper process, in the runner's user namespace (with a mount
/// namespace of its own), outside any root file system.
///
/// The function has all capabilities of that namespace, an empty environment, and the caller's current
/// directory and standard error. Its process is killed once `cancelled` is not zero.
pub fn call(
    runner: Runner,
    task: &str,
    input: &[u8],
    cancelled: &AtomicI32,
) -> Result<Vec<u8>, Error> {
    parent::call(runner, task, input, cancelled)
}

#[cfg(test)]
mod tests;
