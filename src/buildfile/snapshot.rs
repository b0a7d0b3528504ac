//! A snapshot, as `pyats environment snapshot` makes it, and how it joins a build file.
//!
//! The file is another program's: keys other than `packages` and `repositories` are not looked at, and
//! `%ENV{NAME}` has no meaning in it. What it says joins as if it stood in the build file.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::diagnostics::{Problem, Problems, render};
use super::events::Dialect;
use super::node::{Node, Value};
use super::shape::Decoder;
use super::{BuildFile, MAX_SIZE, Origin, Repository, mask, read, tree, without_mark};

/// What a snapshot adds to a build file.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// `packages`: requirement lines.
    pub packages: Vec<String>,
    /// `repositories`, in their order.
    pub repositories: Vec<Repository>,
    /// The file for `installation/snapshot.yaml`: credentials and keys masked.
    pub masked: String,
}

/// What is wrong with a snapshot. Each of them is a usage error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// There is no such file.
    #[error("there is no snapshot `{}`", .path.display())]
    Missing {
        /// As the user typed it.
        path: PathBuf,
    },
    /// It is a directory.
    #[error("the snapshot `{}` is a directory", .path.display())]
    Directory {
        /// As the user typed it.
        path: PathBuf,
    },
    /// The file system's own words.
    #[error("failed to read the snapshot")]
    Read(#[from] io::Error),
    /// No text of a size that a snapshot could have.
    #[error("`{name}` is not a snapshot: it is {what}")]
    NoText {
        /// What errors call it.
        name: String,
        /// What it is instead.
        what: &'static str,
    },
    /// All that is wrong with what it says, with places, lines and remedies.
    #[error("{}", render(.0))]
    Invalid(Vec<Problem>),
    /// A repository is in the build file too, but from elsewhere or of another commit.
    #[error("`{destination}` is {snapshot} in the snapshot, and {buildfile} in `repositories`")]
    Conflict {
        /// Where both go.
        destination: String,
        /// What the snapshot says, masked.
        snapshot: String,
        /// What the build file says, masked.
        buildfile: String,
    },
}

impl SnapshotError {
    /// What to do about it; the problems of an invalid file carry their own.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { path } if path.is_relative() => {
                "local paths are relative to the current directory"
            }
            Self::Missing { .. } | Self::Directory { .. } | Self::NoText { .. } => MAKE,
            Self::Conflict { .. } => {
                "make both agree, or remove the repository from one of the files"
            }
            Self::Read(_) | Self::Invalid(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// How to come by a snapshot.
const MAKE: &str = "name a file that `pyats environment snapshot` made";

impl Snapshot {
    /// Reads and parses the snapshot at `path`.
    pub fn load(path: &Path) -> Result<Self, SnapshotError> {
        let file = fs::File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SnapshotError::Missing {
                path: path.to_owned(),
            },
            _ => SnapshotError::Read(error),
        })?;
        if file.metadata()?.is_dir() {
            return Err(SnapshotError::Directory {
                path: path.to_owned(),
            });
        }
        let name = path.display().to_string();
        match String::from_utf8(read(file)?) {
            Ok(text) => Self::parse(&name, &text),
            Err(_) => Err(SnapshotError::NoText {
                name,
                what: "not UTF-8 text",
            }),
        }
    }

    /// Parses the text of a snapshot. `name` is what errors call it, such as its path.
    pub fn parse(name: &str, text: &str) -> Result<Self, SnapshotError> {
        if text.len() > MAX_SIZE {
            return Err(SnapshotError::NoText {
                name: name.to_owned(),
                what: "larger than a mebibyte",
            });
        }
        let text = without_mark(text);
        let mut problems = Problems::new(name, text);
        let mut snapshot = Self::default();
        if let Some(root) = tree(text, Dialect::Foreign, &mut problems) {
            snapshot = Decoder::new(&mut problems, true).snapshot_file(&root);
        }
        match problems.complete() {
            problems if problems.is_empty() => Ok(snapshot),
            problems => Err(SnapshotError::Invalid(problems)),
        }
    }
}

impl Decoder<'_, '_> {
    fn snapshot_file(&mut self, root: &Node) -> Snapshot {
        let mut snapshot = Snapshot {
            masked: mask::masked(root),
            ..Snapshot::default()
        };
        if !matches!(root.value, Value::Mapping(_)) {
            let message = format!("a snapshot must be a mapping, not {}", root.kind());
            self.problem(root.span, message, MAKE);
            return snapshot;
        }
        let mut empty = true;
        for (name, value) in self.mapping(root, "the snapshot") {
            match name.key() {
                "packages" => snapshot.packages = self.requirements(value, "packages"),
                "repositories" => snapshot.repositories = self.repositories(value),
                _ => continue,
            }
            empty = false;
        }
        if empty {
            let message = "a snapshot has `packages` or `repositories`, and this file neither";
            self.problem(root.span, message, MAKE);
        }
        for repository in &mut snapshot.repositories {
            repository.name.insert_str(0, "snapshot.");
        }
        snapshot
    }
}

impl BuildFile {
    /// Adds what a snapshot says. Its packages stay apart, so that `packages` can change their versions. A
    /// repository that is in both counts once, as the build file has it: credentials and the like are not a
    /// snapshot's.
    pub fn join(&mut self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        let mut repositories = snapshot.repositories;
        for own in self.repositories.drain(..) {
            let same = |other: &&mut Repository| other.destination == own.destination;
            match repositories.iter_mut().find(same) {
                None => repositories.push(own),
                Some(other) if agree(other, &own) => *other = own,
                Some(other) => {
                    return Err(SnapshotError::Conflict {
                        snapshot: described(other),
                        buildfile: described(&own),
                        destination: own.destination,
                    });
                }
            }
        }
        self.repositories = repositories;
        self.snapshot_packages = snapshot.packages;
        self.masked_snapshot = Some(snapshot.masked);
        Ok(())
    }
}

/// Whether two entries name the same commit of the same repository. Who logs in does not matter.
fn agree(one: &Repository, other: &Repository) -> bool {
    let origin = match (&one.origin, &other.origin) {
        (Origin::Http(one), Origin::Http(other)) | (Origin::Git(one), Origin::Git(other)) => {
            one.public() == other.public()
        }
        (Origin::Ssh(one), Origin::Ssh(other)) => one.to_string() == other.to_string(),
        (one, other) => one == other,
    };
    origin && one.commit == other.commit
}

fn described(repository: &Repository) -> String {
    let origin = &repository.origin;
    match &repository.commit {
        Some(commit) => format!("`{origin}` at `{commit}`"),
        None => format!("`{origin}` without a `commit_id`"),
    }
}
