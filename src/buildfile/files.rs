//! The key `files`: what is copied, and where it goes in the workspace.

use std::path::{Component, Path};

use saphyr_parser::Span;

use super::FileEntry;
use super::layout::INSTALLATION;
use super::location::Source;
use super::node::{Node, Value};
use super::shape::Decoder;

/// The keys of an entry that says more than where its files come from.
pub(super) const FILE: [&str; 2] = ["path", "exclude"];

impl Decoder<'_, '_> {
    /// Reads `files`: sources, or mappings of one destination to one source.
    pub(super) fn files(&mut self, node: &Node) -> Vec<FileEntry> {
        let mut entries = Vec::new();
        for (at, item) in self.list(node, "files").iter().enumerate() {
            let name = format!("files[{at}]");
            let Some((key, value)) = self.entry(item, &name) else {
                continue;
            };
            let destination = match key {
                Some(key) => match self.destination(key) {
                    Some(destination) => Some(destination),
                    None => continue,
                },
                None => None,
            };
            let Some((value, what, exclude)) = self.excluding(value, &name) else {
                continue;
            };
            let Some((source, kept)) = self.source(value, &what) else {
                continue;
            };
            let exclude = self.excluded(exclude, &source, &name);
            let place = key.unwrap_or(value).span;
            let local = matches!(source, Source::Local(_));
            match destination.clone().or(kept) {
                Some(target) => {
                    let shown = match key {
                        Some(key) => key.shown_key().to_owned(),
                        None => kept_shown(value),
                    };
                    self.take(target, &shown, place);
                }
                None if local => {}
                None => {
                    let hint = "name it: `- name: URL`";
                    self.problem(value.span, "the URL ends without a file name", hint);
                }
            }
            entries.push(FileEntry {
                destination,
                source,
                exclude,
                name,
            });
        }
        entries
    }

    /// Gives `target` to the entry at `place`, unless another one, of `files` or `repositories`, has it.
    pub(super) fn take(&mut self, target: String, shown: &str, place: Span) {
        if target == INSTALLATION {
            self.reserved(place);
        }
        if let Some(first) = self.taken.get(&target).copied() {
            let message = format!("the destination `{shown}` is taken");
            self.problems
                .add_related(place, message, first, "by this entry");
        } else {
            self.taken.insert(target, place);
        }
    }

    fn entry<'n>(&mut self, item: &'n Node, name: &str) -> Option<(Option<&'n Node>, &'n Node)> {
        match &item.value {
            Value::Scalar(scalar) if !scalar.null => Some((None, item)),
            Value::Mapping(pairs) => {
                match pairs.as_slice() {
                    // A folder may be called `path`, but no source is a list.
                    [(key, value)] if !is_exclude(key, value) => {
                        return Some((Some(key), value));
                    }
                    pairs if pairs.iter().any(|(key, _)| FILE.contains(&key.key())) => {
                        return Some((None, item));
                    }
                    _ => {}
                }
                let hint = "write `- destination: source`, and `- ` in front of each entry";
                let message = format!("`{name}` must have one destination, not {}", pairs.len());
                self.problem(item.span, message, hint);
                None
            }
            _ => {
                let message = format!(
                    "`{name}` must be a path or `destination: source`, not {}",
                    item.kind()
                );
                self.problem(item.span, message, "");
                None
            }
        }
    }

    /// The source of an entry, what messages call it, and what it leaves out.
    fn excluding<'n>(
        &mut self,
        node: &'n Node,
        name: &str,
    ) -> Option<(&'n Node, String, Option<&'n Node>)> {
        if !matches!(node.value, Value::Mapping(_)) {
            return Some((node, name.to_owned(), None));
        }
        let record = self.record(node, name, &FILE);
        let value = |wanted: &str| {
            let mut pairs = record.iter();
            pairs.find_map(|(key, value)| (key.key() == wanted).then_some(*value))
        };
        let exclude = value("exclude");
        let Some(path) = value("path") else {
            let hint = "name the file or folder: `path: …`";
            self.problem(node.span, format!("`{name}` has no `path`"), hint);
            return None;
        };
        Some((path, format!("{name}.path"), exclude))
    }

    /// The patterns of `exclude`, which only folders have a use for.
    fn excluded(&mut self, node: Option<&Node>, source: &Source, name: &str) -> Vec<String> {
        let Some(node) = node else {
            return Vec::new();
        };
        if matches!(source, Source::Http(_) | Source::Ftp(_)) {
            let message = format!("`{name}` is one file, from which nothing can be excluded");
            self.problem(node.span, message, "remove `exclude`");
        }
        let lines = self.lines_or_line(node, &format!("{name}.exclude"));
        lines.iter().map(|(_, line)| (*line).to_owned()).collect()
    }

    /// A relative path inside the workspace, without `.` and needless slashes: `jobs/` is `jobs`, as for the
    /// original tool.
    pub(super) fn destination(&mut self, key: &Node) -> Option<String> {
        let shown = key.shown_key();
        let mut problem = |message: String, hint: &str| {
            self.problem(key.span, message, hint);
            None
        };
        let text = key.key();
        if text.starts_with('/') {
            let hint = "destinations are relative to the workspace";
            return problem(format!("the destination `{shown}` is absolute"), hint);
        }
        if text.contains(['\n', '\r']) {
            return problem("the destination has several lines".to_owned(), "");
        }
        let mut parts = Vec::new();
        for part in text.split('/') {
            match part {
                ".." => {
                    let hint = "a destination stays inside the workspace: remove `..`";
                    return problem(format!("the destination `{shown}` leaves its folder"), hint);
                }
                "" | "." => {}
                part => parts.push(part),
            }
        }
        match parts.first() {
            None => {
                let hint = "name the file or folder itself";
                problem(format!("the destination `{shown}` is the workspace"), hint)
            }
            Some(&INSTALLATION) => {
                self.reserved(key.span);
                None
            }
            Some(_) => Some(parts.join("/")),
        }
    }

    fn reserved(&mut self, span: Span) {
        let message =
            format!("the destination `{INSTALLATION}` is reserved for files of the build");
        self.problem(span, message, "choose another name: `- name: path`");
    }

    /// Where an entry comes from, and the name that it keeps where its text tells.
    fn source(&mut self, node: &Node, name: &str) -> Option<(Source, Option<String>)> {
        let text = self.line(node, name)?;
        match Source::parse(text) {
            Ok(source) => {
                let kept = match &source {
                    Source::Local(path) => base_name(path),
                    remote => remote.file_name(),
                };
                Some((source, kept))
            }
            Err(problem) => {
                self.malformed(node, &problem);
                None
            }
        }
    }
}

/// Whether a pair can only be the key `exclude`, and not a destination of that name.
fn is_exclude(key: &Node, value: &Node) -> bool {
    key.key() == "exclude" && matches!(value.value, Value::Sequence(_))
}

/// The name that an entry without a key keeps, as messages may show it.
fn kept_shown(node: &Node) -> String {
    let kept = match Source::parse(node.shown_key().trim()) {
        Ok(Source::Local(path)) => base_name(&path),
        Ok(remote) => remote.file_name(),
        Err(_) => None,
    };
    kept.unwrap_or_default()
}

/// The name that a path keeps, where its text tells.
fn base_name(path: &str) -> Option<String> {
    match Path::new(path).components().next_back()? {
        Component::Normal(name) if path != "~" => name.to_str().map(str::to_owned),
        _ => None,
    }
}
