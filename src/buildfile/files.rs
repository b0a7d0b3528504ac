//! The key `files`: what is copied, and where it goes in the workspace.

use std::collections::HashMap;
use std::path::{Component, Path};

use saphyr_parser::Span;

use super::FileEntry;
use super::node::{Node, Scalar, Value};
use super::shape::Decoder;

/// The folder of the workspace that this tool fills.
const RESERVED: &str = "installation";

impl Decoder<'_, '_> {
    /// Reads `files`: texts, or mappings of one destination to one source.
    pub(super) fn files(&mut self, node: &Node) -> Vec<FileEntry> {
        let mut entries = Vec::new();
        let mut taken: HashMap<String, Span> = HashMap::new();
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
            let Some(source) = self.source(value, &name) else {
                continue;
            };
            let place = key.unwrap_or(value).span;
            let target = destination.clone().or_else(|| base_name(&source.text));
            if target.as_deref() == Some(RESERVED) {
                self.reserved(place);
            }
            if let Some(target) = target {
                if let Some(first) = taken.get(&target).copied() {
                    let shown = key.map(|key| key.shown_key().to_owned());
                    let shown = shown
                        .or_else(|| base_name(&source.shown))
                        .unwrap_or_default();
                    let message = format!("the destination `{shown}` is taken");
                    self.problems
                        .add_related(place, message, first, "by this entry");
                } else {
                    taken.insert(target, place);
                }
            }
            entries.push(FileEntry {
                destination,
                source: source.text.trim().to_owned(),
                name,
            });
        }
        entries
    }

    fn entry<'n>(&mut self, item: &'n Node, name: &str) -> Option<(Option<&'n Node>, &'n Node)> {
        match &item.value {
            Value::Scalar(scalar) if !scalar.null => Some((None, item)),
            Value::Mapping(pairs) => {
                if let [(key, value)] = pairs.as_slice() {
                    return Some((Some(key), value));
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

    /// A relative path inside the workspace, without `.` and needless slashes.
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
                "" if text.ends_with('/') && !text.contains("//") => {
                    let hint = "name the file or folder itself, such as `folder/file`";
                    return problem(format!("the destination `{shown}` ends with `/`"), hint);
                }
                "" => return problem(format!("the destination `{shown}` has an empty part"), ""),
                ".." => {
                    let hint = "a destination stays inside the workspace: remove `..`";
                    return problem(format!("the destination `{shown}` leaves its folder"), hint);
                }
                "." => {}
                part => parts.push(part),
            }
        }
        match parts.first() {
            None => {
                let hint = "name the file or folder itself";
                problem(format!("the destination `{shown}` is the workspace"), hint)
            }
            Some(&RESERVED) => {
                self.reserved(key.span);
                None
            }
            Some(_) => Some(parts.join("/")),
        }
    }

    fn reserved(&mut self, span: Span) {
        let message = format!("the destination `{RESERVED}` is reserved for files of the build");
        self.problem(span, message, "choose another name: `- name: path`");
    }

    fn source<'n>(&mut self, node: &'n Node, name: &str) -> Option<&'n Scalar> {
        self.line(node, name)?;
        let source = self.scalar(node, name)?;
        if let Some((scheme, _)) = source.text.trim().split_once("://") {
            let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(valid) {
                let shown = source
                    .shown
                    .trim()
                    .split_once("://")
                    .map_or("***", |(scheme, _)| scheme);
                let message = format!("`{shown}://` sources are not supported yet");
                self.problem(
                    node.span,
                    message,
                    "fetch the file first and name its local path",
                );
                return None;
            }
        }
        Some(source)
    }
}

/// The name that a source keeps, where its text tells.
fn base_name(source: &str) -> Option<String> {
    let source = source.trim();
    match Path::new(source).components().next_back()? {
        Component::Normal(name) if source != "~" => name.to_str().map(str::to_owned),
        _ => None,
    }
}
