//! What is run inside the image: the commands of each step, their environment, and the stack of trees
//! that they run upon.
//!
//! A step is a list of commands whose changes become one layer. The same lists are written into the
//! generated `Dockerfile`, so that both give the same image.

mod installer;
mod stack;
#[cfg(test)]
mod tests;

use installer::UV_CACHE;
pub use installer::{Kept, kept, packages};
pub use stack::{Fate, Inputs, Made, Stack};

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use fs_err as fs;
use regex::Regex;

use crate::buildfile::Layout;
use crate::cache::{self, Key};
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::progress::Progress;
use crate::runner::{Mount, Outcome, Placement, Tmpfs};
use crate::secret::{self, Secret};
use crate::{net, runner, store};

const INSTALL_PACKAGES: &str = include_str!("packages.sh");
const BYTECODE: &str = include_str!("bytecode.py");
const INSTALL_PIP: &str = include_str!("install_pip.py");
/// The `PATH` of an image that sets none, as Docker has it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One thing run that yields a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// For people: `virtual environment`, `packages`.
    pub name: &'static str,
    /// The history entry's `created_by`.
    pub created_by: String,
    /// Run one after the other, each in a sandbox of its own over the same tree.
    pub commands: Vec<Vec<String>>,
    /// See [`Task::emulate`].
    pub emulate: bool,
}

/// One thing that is done in a sandbox of its own.
#[derive(Debug, Clone, Default)]
pub struct Task {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Files that are put into the tree, in place of running a program.
    pub placement: Option<Placement>,
    /// All of its environment, see [`runner::Command::env`].
    pub env: Vec<(OsString, OsString)>,
    /// `USER[:GROUP]`; empty for root.
    pub user: String,
    /// Where a program starts; empty for the root.
    pub cwd: PathBuf,
    /// Whether it is kept from the network.
    pub is_offline: bool,
    /// Whether it gets owners and identity back as it set them where only one id exists: see
    /// [`runner::Owners::emulate`].
    pub emulate: bool,
    /// Variables of `env` whose values are no part of what it is known by: proxies and secrets.
    pub private: Vec<OsString>,
    /// What it is shown.
    pub mounts: Vec<Seen>,
    /// Empty file systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// How messages show it, if not by its words.
    pub shown: Option<String>,
    /// What its output shows as stars, line by line.
    pub hidden: Vec<Secret>,
}

/// Something of this machine that a task is shown.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What, and where.
    pub mount: Mount,
    /// What of it is part of what the task is known by.
    pub counts: Counts,
}

/// What counts of something that a task is shown.
#[derive(Debug, Clone)]
pub enum Counts {
    /// All that lies there.
    Content,
    /// A digest of that, or of what stands for it.
    Known(Digest),
    /// What it is called, and not what lies there, as of a secret.
    Name(String),
    /// The same of a cache, from which [`crate::rootfs::disarm`] takes what could harm others when the task has ended.
    Cache(String),
    /// The files of a [`Placement`], one by one.
    Items,
}

impl Seen {
    /// Something all of which counts.
    pub(crate) fn content(mount: Mount) -> Self {
        let counts = Counts::Content;
        Self { mount, counts }
    }
}

impl Task {
    /// Adds to a key all that the task can read beside the tree. Secrets, proxies and the CA bundle are left out: they
    /// lead to what is read, and are not it.
    fn add_to(&self, key: &mut Key, progress: &Progress) -> Result<(), Error> {
        key.add("the command", store::json(&self.argv));
        for (name, value) in &self.env {
            let is_private = self.private.contains(name);
            let value = if is_private { OsStr::new("") } else { value };
            key.add(
                format!("variable `{}`", name.display()),
                value.as_encoded_bytes(),
            );
        }
        key.add("the user", &self.user);
        key.add("the directory", self.cwd.as_os_str().as_encoded_bytes());
        key.add("the network", [u8::from(self.is_offline)]);
        for tmpfs in &self.tmpfs {
            key.add("a file system in memory", store::json(tmpfs));
        }
        for Seen { mount, counts } in &self.mounts {
            let target = format!("`{}`", mount.target.display());
            key.add(
                format!("how {target} is shown"),
                [u8::from(mount.read_only)],
            );
            match counts {
                Counts::Content => {
                    key.add_digest(target, cache::digest_of(&mount.source, progress)?);
                }
                Counts::Known(digest) => key.add_digest(target, *digest),
                Counts::Name(name) | Counts::Cache(name) => key.add(target, name),
                Counts::Items => {}
            }
        }
        if let Some(placement) = &self.placement {
            key.add("what is put where", store::json(placement));
            let is_files = |seen: &&Seen| seen.mount.target == Path::new(runner::FILES);
            if let Some(files) = self.mounts.iter().find(is_files) {
                let items = placement.items.iter();
                let paths: Vec<PathBuf> = items.map(|item| PathBuf::from(&item.source)).collect();
                let digests = cache::digests_of(&files.mount.source, &paths, progress)?;
                for (path, digest) in paths.iter().zip(digests) {
                    key.add_digest(format!("`{}`", path.display()), digest);
                }
            }
        }
        Ok(())
    }

    /// As people would type it, credentials masked.
    fn shown(&self) -> String {
        match &self.shown {
            Some(text) => secret::mask(text),
            None => display(&self.argv),
        }
    }
}

const NEED_SHELL: &str = "use a base that has a shell, or copy one to `/bin/sh` in `cmds.pre`";

/// Words in a failed command's output, and what helps.
const REMEDIES: [(&str, &str); 6] = [
    ("No matching distribution", CHECK_PACKAGES),
    ("No solution found", CHECK_PACKAGES),
    ("there is no user `", MAKE_IT),
    ("there is no group `", MAKE_IT),
    (
        "E: Unable to locate package",
        "package lists are in no layer: write `RUN apt-get update && apt-get install -y NAME` in one `RUN`",
    ),
    (
        "Cannot find command 'git'",
        "git is not in the image; requirements that begin with `git+https://` or `git+ssh://` need none, and for others \
         there is the package `git` of `system-packages`",
    ),
];
const CHECK_PACKAGES: &str = "check the name and the version in `packages`, and that the index has a release for this Python";
const MAKE_IT: &str = "make it before, such as by `RUN useradd NAME`, or use a number";

/// The error for a command of a step that failed; `is_full` is whether the disk that it worked on is full now.
fn failed(step: &str, command: &str, outcome: Outcome, tail: Vec<String>, is_full: bool) -> Error {
    let says = |words: &str| tail.iter().any(|line| line.contains(words));
    let no_uv = format!("No matching distribution found for uv=={}", installer::UV);
    let hint = if is_full {
        Some("its disk is full: make room, or choose another place with `--store DIR` or `--work-dir DIR`".to_owned())
    } else if step == VIRTUAL_ENVIRONMENT {
        Some(
            "the base needs a Python with `venv` and `ensurepip`, such as `python:3.11-slim` has; on \
             Debian both are in the package `python3-venv`"
                .to_owned(),
        )
    } else if step == SYSTEM_PACKAGES {
        Some(
            "check the names in `system-packages`, and that the package server can be reached; \
             `system-packages: []` installs none"
                .to_owned(),
        )
    } else if says(&no_uv) {
        Some(format!(
            "`installer: uv` takes uv {} from where packages come from; have it there, or write `installer: pip`",
            installer::UV
        ))
    } else if let Some((_, hint)) = REMEDIES.iter().find(|(words, _)| says(words)) {
        Some((*hint).to_owned())
    } else if outcome == Outcome::Signalled(9) {
        Some("it may have run out of memory".to_owned())
    } else if matches!(outcome, Outcome::Exited(126 | 127))
        && (says("`/bin/sh` does not") || says("`sh` was not"))
    {
        Some(NEED_SHELL.to_owned())
    } else {
        None
    };
    let how = match outcome {
        Outcome::Exited(status) => format!("ended with status {status}"),
        Outcome::Signalled(signal) => format!("was ended by signal {signal}"),
    };
    // Some steps are known by their command.
    let message = if step == command {
        format!("`{command}` {how}")
    } else {
        format!("step `{step}` failed: `{command}` {how}")
    };
    let error = Error::new(Kind::Step, message).with_tail(tail);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The error for an image that cannot run its entrypoint.
pub(crate) fn no_shell() -> Error {
    let message = "the image has no shell at `/bin/sh`, and its entrypoint needs one";
    Error::new(Kind::Base, message).with_hint(NEED_SHELL)
}

/// The name of the step that makes the virtual environment.
const VIRTUAL_ENVIRONMENT: &str = "virtual environment";

/// The name of the step that installs Debian packages.
pub const SYSTEM_PACKAGES: &str = "system packages";

/// Installs Debian packages. `None` stands for those of the [layout](Layout::system_packages); those of them
/// that the base's suite lacks are left out.
#[must_use]
pub fn system_packages(names: Option<&[String]>, layout: Layout) -> Step {
    let asked = if names.is_some() { "named" } else { "usual" };
    let names = names.map_or_else(|| argv(layout.system_packages()), <[String]>::to_vec);
    Step {
        name: SYSTEM_PACKAGES,
        created_by: format!(
            "apt-get install -y --no-install-recommends {}",
            names.join(" ")
        ),
        commands: vec![
            [
                argv(&["sh", "-c", INSTALL_PACKAGES, "system-packages", asked]),
                names,
            ]
            .concat(),
        ],
        // Packages make accounts, and who adds a line to `/etc/shadow` gives the new file the owner of the old.
        emulate: true,
    }
}

/// Makes the virtual environment. Sources get the time `settled`, in seconds since 1970.
#[must_use]
pub fn virtual_environment(settled: i64, layout: Layout) -> Step {
    let place = layout.virtual_env();
    Step {
        name: VIRTUAL_ENVIRONMENT,
        created_by: format!("python3 -m venv {place}"),
        commands: vec![
            argv(&["python3", "-m", "venv", "--without-pip", place]),
            python(INSTALL_PIP, layout),
            settle(settled, layout),
        ],
        emulate: false,
    }
}

/// Settles the times of the sources in the virtual environment, and compiles them.
fn settle(settled: i64, layout: Layout) -> Vec<String> {
    python(&compiling(settled, "settle()\n"), layout)
}

/// A script that can compile, see `bytecode.py`.
fn compiling(settled: i64, script: &str) -> String {
    format!("SETTLED = {settled}\nUV_CACHE = '{UV_CACHE}'\n{BYTECODE}\n\n{script}")
}

/// A script, run by the Python of the virtual environment.
fn python(script: &str, layout: Layout) -> Vec<String> {
    let program = format!("{}/bin/python", layout.virtual_env());
    argv(&[&program, "-c", script])
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// What the steps' environment has beside, or instead of, the image's: name and value, or `None` for a
/// variable that is unset. The generated `Dockerfile` sets the same.
pub(crate) const OVERRIDES: [(&str, Option<&str>); 8] = [
    // pip would take what lies there for installed.
    ("PYTHONPATH", None),
    ("PYTHONHOME", None),
    // Bytecode beside the base's modules would be part of the layer, with the time of this build.
    ("PYTHONDONTWRITEBYTECODE", Some("1")),
    // The order of sets shows in bytecode before Python 3.11.
    ("PYTHONHASHSEED", Some("0")),
    ("PIP_DISABLE_PIP_VERSION_CHECK", Some("1")),
    ("PIP_NO_INPUT", Some("1")),
    ("PIP_PROGRESS_BAR", Some("off")),
    ("PIP_ROOT_USER_ACTION", Some("ignore")),
];

/// The environment of the steps, from the image's; `proxies` are variables for the steps alone.
#[must_use]
pub fn environment(
    image: &[(String, String)],
    proxies: &[(String, Secret)],
    epoch: Option<i64>,
) -> Vec<(OsString, OsString)> {
    let mut env = with_defaults(image);
    env.retain(|(name, _)| !OVERRIDES.iter().any(|(overridden, _)| name == overridden));
    env.extend(
        OVERRIDES
            .iter()
            .filter_map(|(name, value)| Some((name.into(), (*value)?.into()))),
    );
    if let Some(epoch) = epoch {
        env.push(("SOURCE_DATE_EPOCH".into(), epoch.to_string().into()));
    }
    for (name, value) in proxies {
        if !image.iter().any(|(set, _)| set == name) {
            env.push((name.into(), value.reveal().into()));
        }
    }
    env
}

/// An image's environment as a process in it gets it: with a `PATH`.
#[must_use]
pub fn with_defaults(image: &[(String, String)]) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = image
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    if !image.iter().any(|(set, _)| set == "PATH") {
        env.push(("PATH".into(), DEFAULT_PATH.into()));
    }
    env
}

/// The CA bundle of this machine, for the steps; with the certificates of `extra` in a copy in `scratch`.
pub fn ca_bundle(extra: Option<&Path>, scratch: &Path) -> std::io::Result<Option<PathBuf>> {
    const PLACES: [&str; 5] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let found = named
        .into_iter()
        .chain(PLACES.map(PathBuf::from))
        .find(|path| path.is_file());
    let Some(extra) = extra else {
        return found.map(std::path::absolute).transpose();
    };
    let mut bundle = fs::read(extra)?;
    bundle.push(b'\n');
    if let Some(found) = found {
        bundle.extend(fs::read(found)?);
    } else if let Some(bundled) = net::bundled_pem() {
        bundle.extend(bundled.into_bytes());
    }
    let path = scratch.join("ca.pem");
    fs::write(&path, bundle)?;
    Ok(Some(path))
}

/// Colours, movements of the cursor, titles of windows (ECMA-48, sections 5.4 and 8.3.89), and any other control.
static CONTROL: LazyLock<Regex> = LazyLock::new(|| {
    secret::regex(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))|[\p{Cc}--\t]")
});

/// What of a line of output a terminal shows, at most.
fn visible(line: &str) -> String {
    CONTROL.replace_all(line, "").into_owned()
}

/// The same without secrets; `hidden` are visible, since what is taken away must not have parted one.
fn plain(line: &str, hidden: &[String]) -> String {
    let mut text = visible(line);
    for secret in hidden {
        text = text.replace(secret, "***");
    }
    secret::mask(&text)
}

/// What of a secret a log may show on its own: each line, also without the blanks at its ends.
pub(crate) fn lines_to_hide(text: &str) -> impl Iterator<Item = Secret> {
    let lines = text.lines().flat_map(|line| [line, line.trim()]);
    lines
        .filter(|line| !line.trim().is_empty())
        .map(Secret::new)
}

/// What the step [`SYSTEM_PACKAGES`] has left out, if a line of its output says so. Others can print the line as well, so
/// that it only chooses which of a few sentences the user is told.
fn left_out(line: &str) -> Option<String> {
    let (name, suite) = line.strip_prefix("left out: ")?.split_once(" is not in ")?;
    let is_suite = suite.len() < 20 && suite.bytes().all(|byte| byte.is_ascii_lowercase());
    (Layout::is_default_package(name) && is_suite)
        .then(|| format!("the package `{name}` is not in {suite}, and is left out"))
}

/// Whether next to nothing fits on the disk of `path`.
fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|disk| disk.f_bavail * disk.f_frsize < 4 << 20)
}

/// A command as people would type it; long scripts are left out, credentials masked.
fn display(command: &[String]) -> String {
    let words: Vec<&str> = command
        .iter()
        .map(|word| if word.contains('\n') { "…" } else { word })
        .collect();
    secret::mask(&words.join(" "))
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
