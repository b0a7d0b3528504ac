//! A snapshot, as `pyats environment snapshot` makes it, and how it joins a build file.
//!
//! The file is another program's: keys other than `packages` and `repositories` are not looked at, and
//! `%ENV{NAME}` has no meaning in it. What it says joins as if it stood in the build file.

use std::path::Path;

use super::diagnostics::Problems;
use super::events::Dialect;
use super::node::{Node, Value};
use super::shape::Decoder;
use super::{
    BuildFile, Invalid, MAX_SIZE, Origin, Repository, mask, open, read, tree, unreadable,
    without_mark, wrong,
};
use crate::error::Error;

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

/// How to come by a snapshot.
const MAKE: &str = "name a file that `pyats environment snapshot` made";

impl Snapshot {
    /// Reads and parses the snapshot at `path`.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let file = open(path, "snapshot", || {
            wrong(format!("there is no snapshot `{name}`")).with_hint(if path.is_relative() {
                "local paths are relative to the current directory"
            } else {
                MAKE
            })
        })?;
        let unreadable = |error| unreadable("snapshot", error);
        if file.metadata().map_err(unreadable)?.is_dir() {
            return Err(wrong(format!("the snapshot `{name}` is a directory")).with_hint(MAKE));
        }
        match String::from_utf8(read(file).map_err(unreadable)?) {
            Ok(text) => Self::parse(&name, &text),
            Err(_) => Err(not_a_snapshot(&name, "not UTF-8 text")),
        }
    }

    /// Parses the text of a snapshot. `name` is what errors call it, such as its path.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        if text.len() > MAX_SIZE {
            return Err(not_a_snapshot(name, "larger than a mebibyte"));
        }
        let text = without_mark(text);
        let mut problems = Problems::new(name, text);
        let mut snapshot = Self::default();
        if let Some(root) = tree(text, Dialect::Foreign, &mut problems) {
            snapshot = Decoder::new(&mut problems, true).snapshot_file(&root);
        }
        match problems.complete() {
            problems if problems.is_empty() => Ok(snapshot),
            problems => Err(Invalid(problems).into()),
        }
    }
}

fn not_a_snapshot(name: &str, what: &str) -> Error {
    wrong(format!("`{name}` is not a snapshot: it is {what}")).with_hint(MAKE)
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
    pub fn join(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        let mut repositories = snapshot.repositories;
        for own in self.repositories.drain(..) {
            let same = |other: &&mut Repository| other.destination == own.destination;
            match repositories.iter_mut().find(same) {
                None => repositories.push(own),
                Some(other) if agree(other, &own) => *other = own,
                Some(other) => {
                    let message = format!(
                        "`{}` is {} in the snapshot, and {} in `repositories`",
                        own.destination,
                        described(other),
                        described(&own)
                    );
                    return Err(wrong(message).with_hint(
                        "make both agree, or remove the repository from one of the files",
                    ));
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
