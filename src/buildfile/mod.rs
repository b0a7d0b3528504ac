//! The user's YAML file becomes a [`BuildFile`] here; past this module nobody sees YAML.
//!
//! Text is read in three steps: a parser's events become nodes with places (`events`, `node`), `%ENV{NAME}` is
//! replaced in their texts (`interpolate`), and the nodes are decoded by hand (`decode` and the files
//! that add keys to it). A problem does not end the reading: all that is wrong is reported at once
//! (`diagnostics`). What the image keeps of the file is made in `mask`.

mod cmds;
mod decode;
mod diagnostics;
mod events;
mod expand;
mod files;
mod installer;
mod interpolate;
mod json;
mod layout;
mod location;
mod mask;
mod node;
mod pip;
mod print;
mod repositories;
mod schema;
mod shape;
mod snapshot;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::Path;

use fs_err as fs;
use regex::Regex;

pub use diagnostics::Problem;
pub use expand::{ExpandError, environment, expand};
pub use installer::{Installer, NoInstaller, UV_SETTINGS};
pub use json::json;
pub use layout::{INSTALLATION, Layout};
pub(crate) use location::Malformed;
pub use location::{Location, Origin, Source, SshLocation};
pub(crate) use repositories::split_steps;
pub use schema::schema;
pub use snapshot::Snapshot;

use crate::dockerfile::Instruction;
use crate::error::{Error, Kind};
use crate::manifest::Platform;
use crate::secret::Secret;
use diagnostics::{Problems, render, span};
use events::Dialect;
use node::Node;
use shape::Decoder;

/// What the user wants in the image. Strings are as typed, with `%ENV{NAME}` already replaced.
#[derive(Debug, Clone, Default)]
pub struct BuildFile {
    /// `tag`: the main tag of the image.
    pub tag: Option<String>,
    /// `python`: digits and dots; `None` if the file does not say (then it is 3.6.9).
    pub python: Option<String>,
    /// `base`: replaces `python:X-slim`.
    pub base: Option<String>,
    /// `platform`
    pub platform: Option<Platform>,
    /// `layout`
    pub layout: Layout,
    /// `env`, in its order, not expanded yet.
    pub env: Vec<(String, String)>,
    /// `files`
    pub files: Vec<FileEntry>,
    /// `packages`: requirement lines, as pip reads them, not expanded (pip expands `${NAME}` itself).
    pub packages: Vec<String>,
    /// The same of the snapshot that joined; they are installed first.
    pub snapshot_packages: Vec<String>,
    /// `pip-config` as the text of a `pip.conf`, with credentials in it.
    pub pip_config: Option<String>,
    /// `installer`
    pub installer: Option<Installer>,
    /// What is wrong with `pip-config` if uv is the installer, see [`BuildFile::installer`].
    pub not_for_uv: Vec<Problem>,
    /// `repositories`, in their order.
    pub repositories: Vec<Repository>,
    /// `snapshot`: a path of this machine, `~` not expanded yet.
    pub snapshot: Option<String>,
    /// `proxy`: variables, as typed, and their values, which may hold credentials.
    pub proxy: Vec<(String, Secret)>,
    /// `system-packages`: names of Debian packages; `None` for the usual ones.
    pub system_packages: Option<Vec<String>>,
    /// `cmds`
    pub cmds: Cmds,
    /// `jobfiles`
    pub jobfiles: JobFiles,
    /// `labels`, in their order.
    pub labels: Vec<(String, String)>,
    /// `annotations`, in their order.
    pub annotations: Vec<(String, String)>,
    /// Warnings about the file.
    pub warnings: Vec<String>,
    /// The build file for `installation/build.yaml`: credentials, keys and `%ENV{…}` values masked.
    pub masked: String,
    /// The snapshot that joined, for `installation/snapshot.yaml`, masked likewise.
    pub masked_snapshot: Option<String>,
}

/// One entry of `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The key, if the entry is a mapping: where it goes, relative to the workspace.
    pub destination: Option<String>,
    /// Where it comes from.
    pub source: Source,
    /// `exclude`: patterns of what a folder leaves out, as in a `.dockerignore`.
    pub exclude: Vec<String>,
    /// For errors: where the entry stands, such as `files[2]`.
    pub name: String,
}

/// One entry of `repositories`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct Repository {
    /// The key: where it goes, relative to the workspace.
    pub destination: String,
    /// `url`
    pub origin: Origin,
    /// `commit_id`: an id, abbreviated or not, a tag or a branch, perhaps with steps to an ancestor (`~1`);
    /// `None` for the server's `HEAD`.
    pub commit: Option<String>,
    /// `requirements_file`: whether pip installs the repository's `requirements.txt`.
    pub requirements: bool,
    /// `ssh_key`: a private key, as typed: folding may have eaten its line breaks.
    pub ssh_key: Option<Secret>,
    /// `credentials`: user name and password.
    pub credentials: Option<(String, Secret)>,
    /// `GIT_SSL_NO_VERIFY`
    pub no_verify: bool,
    /// Of ADD alone: whether `.git` comes along.
    pub keep_git_dir: bool,
    /// Of ADD alone: whether a branch comes before a tag of the same name.
    pub branch_first: bool,
    /// For errors: where the entry stands, such as `repositories.suite`.
    pub name: String,
}

impl Repository {
    /// The `HEAD` of a repository, without any option.
    #[must_use]
    pub fn new(origin: Origin, name: impl Into<String>) -> Self {
        Self {
            destination: String::new(),
            origin,
            commit: None,
            requirements: false,
            ssh_key: None,
            credentials: None,
            no_verify: false,
            keep_git_dir: false,
            branch_first: false,
            name: name.into(),
        }
    }
}

/// `cmds`: Dockerfile instructions. What they say of an `ENTRYPOINT` or a `WORKDIR` yields to the tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmds {
    /// `pre`: before pip installs the packages.
    pub pre: Instructions,
    /// `post`: above everything else.
    pub post: Instructions,
}

impl Cmds {
    /// Whether they ask for nothing: comments are no instructions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pre.parsed.is_empty() && self.post.parsed.is_empty()
    }
}

/// One text of instructions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instructions {
    /// As it was typed, with every `%ENV{NAME}` replaced.
    pub text: String,
    /// What is carried out. The `source` of each may be shown.
    pub parsed: Vec<Instruction>,
    /// The same instructions with the values of `%ENV{NAME}` masked: what the history tells is made from
    /// these.
    pub shown: Vec<Instruction>,
}

/// Matches the names of pyATS jobs where the key `jobfiles.match` is not there: the ancestor's pattern.
const JOBS: &str = r".*job.*\.py$";

/// `jobfiles`: which files are pyATS jobs.
#[derive(Debug, Clone)]
pub struct JobFiles {
    /// `paths`: relative to the workspace, or absolute in the image.
    pub paths: Vec<String>,
    /// `match`: regular expressions over file names, see [`JobFiles::is_match`]; without the key `.*job.*\.py$`.
    pub matches: Vec<Regex>,
    /// `glob`: shell patterns.
    pub globs: Vec<String>,
}

impl Default for JobFiles {
    fn default() -> Self {
        let matches = Regex::new(JOBS).into_iter().collect();
        Self {
            paths: Vec::new(),
            matches,
            globs: Vec::new(),
        }
    }
}

impl JobFiles {
    /// Whether a pattern of `match` matches from the beginning of `file_name`, as Python's `re.match`
    /// does it. The last component of a path is meant, not the path.
    #[must_use]
    pub fn is_match(&self, file_name: &str) -> bool {
        let at_start = |regex: &Regex| {
            regex
                .find(file_name)
                .is_some_and(|found| found.start() == 0)
        };
        self.matches.iter().any(at_start)
    }
}

/// A build file larger than this is no build file.
const MAX_SIZE: usize = 1 << 20;

/// All that is wrong with what a file says, with places, lines and remedies.
#[derive(Debug, thiserror::Error)]
#[error("{}", render(.0))]
pub struct Invalid(pub Vec<Problem>);

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::laid_out(Kind::BuildFile, invalid).usage()
    }
}

impl BuildFile {
    /// Parses the text of a build file. `name` is what errors call it, such as its path; `lookup`
    /// gives the environment variables that `%ENV{NAME}` asks for.
    pub fn parse(
        name: &str,
        text: &str,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        if text.len() > MAX_SIZE {
            return Err(too_large(name));
        }
        let text = without_mark(text);
        let mut problems = Problems::new(name, text);
        let mut buildfile = Self::default();
        if let Some(root) = tree(text, Dialect::BuildFile(lookup), &mut problems) {
            let mut decoder = Decoder::new(&mut problems, false);
            buildfile = decoder.buildfile(&root, mask::masked(&root));
            buildfile.not_for_uv = installer::problems(name, text, &decoder.not_for_uv);
        }
        match problems.complete() {
            problems if problems.is_empty() => Ok(buildfile),
            problems => Err(Invalid(problems).into()),
        }
    }

    /// Reads and parses the build file at `path`; `-` is standard input. `%ENV{NAME}` asks for the
    /// variables of this process.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let unreadable = |error| unreadable("build file", error);
        let (name, bytes) = if path == Path::new("-") {
            let bytes = read(io::stdin().lock()).map_err(unreadable)?;
            ("standard input".to_owned(), bytes)
        } else {
            let shown = path.display();
            let file = open(path, "build file", || {
                wrong(format!("there is no build file `{shown}`")).with_hint(
                    "name the YAML file that says what the image holds, or `-` for standard input",
                )
            })?;
            if file.metadata().map_err(unreadable)?.is_dir() {
                let message = format!("the build file `{shown}` is a directory");
                let inside = path.join("build.yaml");
                return Err(wrong(message).with_hint(format!(
                    "name the file in it, such as `{}`",
                    inside.display()
                )));
            }
            (shown.to_string(), read(file).map_err(unreadable)?)
        };
        if bytes.len() > MAX_SIZE {
            return Err(too_large(&name));
        }
        let text =
            str::from_utf8(&bytes).map_err(|error| encoding(&name, &bytes, error.valid_up_to()))?;
        Self::parse(&name, text, &|variable| std::env::var(variable).ok())
    }
}

/// The text of a file behind its byte order mark.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Reads a file's one document, unless it is not valid YAML, which is then a problem.
fn tree(text: &str, dialect: Dialect<'_>, problems: &mut Problems<'_>) -> Option<Node> {
    // Characters that YAML forbids would end the parser's text early, or be invisible in it.
    if let Some((line, column)) = forbidden(text) {
        let hint = "remove it; quoted text can name it, such as `\"\\x07\"`";
        let message = "YAML does not allow this control character";
        problems.add(span(line, column, 1), message, hint);
        return None;
    }
    events::parse(text, dialect, problems)
}

/// All bytes, or one more than are allowed.
fn read(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn encoding(name: &str, bytes: &[u8], valid: usize) -> Error {
    let before = String::from_utf8_lossy(&bytes[..valid]);
    let line = before.matches('\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    let column = last.chars().count() + 1;
    let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    wrong(format!(
        "{name}:{line}:{column}: the build file is not UTF-8 text"
    ))
    .with_hint(if is_utf16 {
        "it looks like UTF-16: save it as UTF-8"
    } else {
        "save it as UTF-8"
    })
}

fn wrong(message: String) -> Error {
    Error::new(Kind::BuildFile, message).usage()
}

fn unreadable(what: &str, error: io::Error) -> Error {
    wrong(format!("failed to read the {what}")).with_source(error)
}

fn too_large(name: &str) -> Error {
    let most = MAX_SIZE / 1024;
    wrong(format!("the build file `{name}` is larger than {most} KiB"))
        .with_hint("name files in `files` instead of writing their text into the build file")
}

fn open(path: &Path, what: &str, missing: impl FnOnce() -> Error) -> Result<fs::File, Error> {
    fs::File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(),
        _ => unreadable(what, error),
    })
}

/// The line, from 1, and column, from 0, of the first character that no YAML text may hold.
fn forbidden(text: &str) -> Option<(usize, usize)> {
    let wrong = |c: char| {
        let control = c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
        control || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    let before = &text[..text.find(wrong)?];
    let line = before.matches('\n').count() + 1;
    Some((
        line,
        before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count(),
    ))
}
