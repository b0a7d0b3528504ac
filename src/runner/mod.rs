//! Runs commands inside a root file system, by the best technique that the machine allows.
//!
//! Imports nothing of this crate.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

/// A technique. The ladder goes from the first, which loses nothing, to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Real root, in mount, pid and ipc namespaces of its own.
    Root,
    /// A user namespace with a range of ids, by newuidmap and newgidmap.
    UsernsRange,
    /// A user namespace with one id; calls that change identity or owners are answered with success.
    UsernsSingle,
}

/// Why a rung cannot be used here.
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

/// What each rung said when it was tried all the way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// From the first rung to the last.
    pub rungs: Vec<(Rung, Result<(), Refusal>)>,
}

/// The root file system of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum RootFs {
    /// An overlay; writes go to `upper`. All directories exist, `upper` and `work` on one file system.
    Overlay {
        /// Topmost first.
        lower: Vec<PathBuf>,
        /// Takes the changes.
        upper: PathBuf,
        /// The overlay's own.
        work: PathBuf,
    },
    /// A directory that is written in place.
    Directory(PathBuf),
}

/// A file or directory of the host that a step sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    /// On the host, absolute.
    pub source: PathBuf,
    /// In the root file system, absolute; made if it is not there.
    pub target: PathBuf,
    /// Whether the step may not write to it.
    pub read_only: bool,
}

/// One command to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// The root file system.
    pub rootfs: RootFs,
    /// In order.
    pub mounts: Vec<Mount>,
    /// The program, looked up in the `PATH` of `env`, and its arguments.
    pub argv: Vec<OsString>,
    /// All of its environment.
    pub env: Vec<(OsString, OsString)>,
    /// In the root file system; made if it is not there.
    pub cwd: PathBuf,
    /// A CA bundle of the host, shown to the step under /dev and named by `SSL_CERT_FILE` and its kin.
    pub ca_bundle: Option<PathBuf>,
    /// Whether the step reads the caller's standard input (else it is empty).
    pub interactive: bool,
    /// Whether the step writes to the caller's standard output and error itself, on the caller's terminal if
    /// that is one, instead of line by line through the callback.
    pub inherit_output: bool,
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
#[error("stub")]
pub struct Error;

/// A call of [`call`] that arrived in the helper process.
#[derive(Debug)]
pub struct Call {
    /// Which function of the library is meant.
    pub task: String,
    /// Its input.
    pub input: Vec<u8>,
}

impl Call {
    /// Answers and ends the process: `Ok` is the output, `Err` the message of an error.
    pub fn answer(self, _answer: Result<Vec<u8>, String>) -> ! {
        unimplemented!()
    }
}

/// Has to be the first thing that `main` does, before any thread exists. In a process that this module
/// started it runs the command and does not return, or returns the call to answer.
#[must_use]
pub fn child() -> Option<Call> {
    unimplemented!()
}

/// Tries every rung.
#[must_use]
pub fn probe() -> Report {
    unimplemented!()
}

/// The best rung that works here, or `forced` if that one works.
pub fn choose(_forced: Option<Rung>) -> Result<Rung, Error> {
    unimplemented!()
}

/// Whether an overlay can be mounted whose upper directory lies in `directory`.
pub fn probe_overlay(_rung: Rung, _directory: &Path) -> Result<(), Refusal> {
    unimplemented!()
}

/// Runs a command to its end. `output` gets every line of its output and error.
pub fn run(
    _rung: Rung,
    _command: &Command,
    _output: &mut dyn FnMut(&str),
    _cancelled: &AtomicBool,
) -> Result<Outcome, Error> {
    unimplemented!()
}

/// Calls a function of this program in a helper process, in the rung's user namespace (with a mount
/// namespace of its own), outside any root file system.
pub fn call(_rung: Rung, _task: &str, _input: &[u8], _cancelled: &AtomicBool) -> Result<Vec<u8>, Error> {
    unimplemented!()
}
