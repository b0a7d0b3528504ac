//! The shapes that values of a build file have: text, a list, a mapping, a truth value.
//!
//! Each question gives the value, or adds a problem and gives nothing, so that one reading of a file
//! finds all that is wrong with it.

use std::collections::HashMap;

use saphyr_parser::Span;

use super::diagnostics::{MAX_PROBLEMS, Problems};
use super::node::{Node, Scalar, Value};

/// The words of YAML 1.1 for the truth values, in any letter case.
pub(super) const TRUE: [&str; 3] = ["true", "yes", "on"];
pub(super) const FALSE: [&str; 3] = ["false", "no", "off"];

/// Reads values and collects what is wrong with them.
#[derive(Debug)]
pub(super) struct Decoder<'a, 'p> {
    pub(super) problems: &'a mut Problems<'p>,
    /// Destinations in the workspace, and the entries that have them.
    pub(super) taken: HashMap<String, Span>,
    /// Settings of pip that uv has nothing like, and what messages call them.
    pub(super) not_for_uv: Vec<(Span, String)>,
    /// Warnings for the user.
    pub(super) warnings: Vec<String>,
    /// The file is another program's: keys that are not known here are none of our business.
    foreign: bool,
}

impl<'a, 'p> Decoder<'a, 'p> {
    pub(super) fn new(problems: &'a mut Problems<'p>, foreign: bool) -> Self {
        Self {
            problems,
            taken: HashMap::new(),
            not_for_uv: Vec::new(),
            warnings: Vec::new(),
            foreign,
        }
    }
}

impl Decoder<'_, '_> {
    pub(super) fn problem(&mut self, span: Span, message: impl AsRef<str>, hint: impl AsRef<str>) {
        self.problems.add(span, message, hint);
    }

    /// Text, possibly empty. `what` is what messages call the value, such as `files[2]`.
    pub(super) fn scalar<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n Scalar> {
        match &node.value {
            Value::Scalar(scalar) if !scalar.null => Some(scalar),
            Value::Scalar(_) => {
                self.problem(node.span, format!("`{what}` is empty"), "");
                None
            }
            Value::Mapping(_) if what.contains('[') => {
                let hint = "put text that contains `: ` in quotes";
                self.problem(
                    node.span,
                    format!("`{what}` must be text, not a mapping"),
                    hint,
                );
                None
            }
            _ => {
                self.problem(
                    node.span,
                    format!("`{what}` must be text, not {}", node.kind()),
                    "",
                );
                None
            }
        }
    }

    /// Text that is not blank.
    pub(super) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let scalar = self.scalar(node, what)?;
        if scalar.text.trim().is_empty() {
            self.problem(node.span, format!("`{what}` is empty"), "");
            return None;
        }
        Some(&scalar.text)
    }

    /// Text that is not blank and has no line break; blanks around it are gone.
    pub(super) fn line<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let text = self.text(node, what)?.trim();
        if text.contains(['\n', '\r']) {
            let hint = "write each on a line of its own, as an item of the list";
            let hint = if what.contains('[') { hint } else { "" };
            self.problem(node.span, format!("`{what}` has several lines"), hint);
            return None;
        }
        Some(text)
    }

    /// The same, or nothing if the text is blank: what a variable of `%ENV{…}` stands for may be empty.
    pub(super) fn line_or_blank<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let scalar = self.scalar(node, what)?;
        if scalar.text.trim().is_empty() {
            return None;
        }
        self.line(node, what)
    }

    /// A list; nothing counts as an empty one.
    pub(super) fn list<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.value {
            Value::Sequence(items) => items,
            _ if node.is_null() => &[],
            Value::Scalar(_) => {
                let hint = "write `- ` in front of each item";
                self.problem(
                    node.span,
                    format!("`{what}` must be a list, not text"),
                    hint,
                );
                &[]
            }
            Value::Mapping(_) => {
                let hint = "write `- ` in front of each item";
                self.problem(
                    node.span,
                    format!("`{what}` must be a list, not a mapping"),
                    hint,
                );
                &[]
            }
        }
    }

    /// A list of texts of one line each.
    pub(super) fn lines<'n>(&mut self, node: &'n Node, what: &str) -> Vec<(&'n Node, &'n str)> {
        let items = self.list(node, what).iter().enumerate();
        items
            .filter_map(|(at, item)| Some((item, self.line(item, &format!("{what}[{at}]"))?)))
            .collect()
    }

    /// A list of texts, or one text; those that are blank are left out.
    pub(super) fn lines_or_line<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
    ) -> Vec<(&'n Node, &'n str)> {
        let items: Vec<_> = match &node.value {
            Value::Scalar(scalar) if !scalar.null => vec![(node, what.to_owned())],
            _ => {
                let items = self.list(node, what).iter().enumerate();
                items
                    .map(|(at, item)| (item, format!("{what}[{at}]")))
                    .collect()
            }
        };
        let items = items.into_iter();
        items
            .filter_map(|(item, what)| Some((item, self.line_or_blank(item, &what)?)))
            .collect()
    }

    /// The pairs of a mapping; nothing counts as an empty one.
    pub(super) fn mapping<'n>(&mut self, node: &'n Node, what: &str) -> &'n [(Node, Node)] {
        match &node.value {
            Value::Mapping(pairs) => pairs,
            _ if node.is_null() => &[],
            Value::Scalar(_) | Value::Sequence(_) => {
                let message = format!("`{what}` must be a mapping, not {}", node.kind());
                self.problem(
                    node.span,
                    message,
                    "write `name: value` lines, indented below the key",
                );
                &[]
            }
        }
    }

    /// The pairs of a mapping whose keys are known; those without a value are left out. Unknown keys are problems.
    pub(super) fn record<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
    ) -> Vec<(&'n Node, &'n Node)> {
        self.record_or(node, what, known, |decoder, key| {
            if !decoder.foreign {
                decoder.unknown(key, what, known);
            }
        })
    }

    /// The same pairs. Unknown keys are only worth a warning.
    pub(super) fn lenient_record<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
    ) -> Vec<(&'n Node, &'n Node)> {
        self.record_or(node, what, known, |decoder, key| {
            if decoder.warnings.len() < MAX_PROBLEMS {
                let (typed, hint) = (key.shown_key(), similar(key, known).1);
                decoder.warnings.push(format!(
                    "unknown key `{typed}` in `{what}` is ignored: {hint}"
                ));
            }
        })
    }

    fn record_or<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
        unknown: impl Fn(&mut Self, &Node),
    ) -> Vec<(&'n Node, &'n Node)> {
        let mut record = Vec::new();
        for (key, value) in self.mapping(node, what) {
            if !known.contains(&key.key()) {
                unknown(self, key);
            } else if !value.is_null() {
                record.push((key, value));
            }
        }
        record
    }

    /// A truth value, in the words of YAML 1.1.
    pub(super) fn truth(&mut self, node: &Node, what: &str) -> Option<bool> {
        let scalar = self.scalar(node, what)?;
        match scalar.text.to_ascii_lowercase().as_str() {
            word if TRUE.contains(&word) => Some(true),
            word if FALSE.contains(&word) => Some(false),
            _ => {
                let message = format!("`{what}` must be `true` or `false`, not `{}`", scalar.shown);
                self.problem(node.span, message, "");
                None
            }
        }
    }

    fn unknown(&mut self, key: &Node, what: &str, known: &[&str]) {
        if self.problems.is_full() {
            return;
        }
        let (is_near, hint) = similar(key, known);
        // A credential may stand where a key should.
        let hidden = what.ends_with(".credentials") && !is_near;
        let typed = if hidden { "***" } else { key.shown_key() };
        self.problem(key.span, format!("unknown key `{typed}`"), hint);
    }
}

/// Whether an unknown key is similar to a known one, and a hint that names it, or all of them.
fn similar(key: &Node, known: &[&str]) -> (bool, String) {
    let folded = key.shown_key().to_lowercase().replace('_', "-");
    // The distance to a key of a megabyte is no use, and costs.
    let comparable = |known: &&&str| folded.len() <= 2 * known.len();
    let nearest = known
        .iter()
        .filter(comparable)
        .map(|known| {
            (
                strsim::damerau_levenshtein(&folded, &known.to_lowercase().replace('_', "-")),
                known,
            )
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3));
    match nearest {
        Some((_, known)) => (true, format!("did you mean `{known}`?")),
        None => (false, format!("the keys here are {}", quoted(known))),
    }
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
