//! Shell patterns as Python's `pathlib` reads them: `*`, `?`, `[a-z]`, `[!a-z]` within one name, and
//! `**` for any number of directories. There are no braces and no escapes, hidden files are like
//! others, and case counts.

use std::fmt::Write;
use std::path::Path;

use regex::Regex;

use super::jobs::in_workspace;
use crate::buildfile::Layout;

/// A pattern over paths of the workspace.
#[derive(Debug)]
pub(super) struct Glob(Regex);

impl Glob {
    /// Like `rglob`, a relative pattern holds in every directory; one that begins with the
    /// workspace's path holds there alone. `None` if it does not stay in the workspace.
    pub(super) fn parse(text: &str, layout: Layout) -> Option<Self> {
        let inner = in_workspace(text, layout);
        let anchored = inner != text;
        let mut regex = String::from(if anchored { "(?s)^" } else { "(?s)^(?:.*/)?" });
        let names: Vec<&str> = inner
            .split('/')
            .filter(|name| !name.is_empty() && *name != ".")
            .collect();
        if inner.starts_with('/') || names.contains(&"..") || names.is_empty() {
            return None;
        }
        for (index, name) in names.iter().enumerate() {
            let last = index + 1 == names.len();
            match (*name, last) {
                ("**", true) => regex.push_str(".*"),
                ("**", false) => regex.push_str("(?:[^/]+/)*"),
                (name, _) => {
                    push_name(&mut regex, name);
                    regex.push_str(if last { "" } else { "/" });
                }
            }
        }
        regex.push('$');
        Regex::new(&regex).ok().map(Self)
    }

    /// `path` is relative to the workspace.
    pub(super) fn matches(&self, path: &Path) -> bool {
        self.0.is_match(&path.to_string_lossy())
    }
}

fn push_name(regex: &mut String, name: &str) {
    let letters: Vec<char> = name.chars().collect();
    let mut at = 0;
    while let Some(&letter) = letters.get(at) {
        at += 1;
        match letter {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => match class_end(&letters, at) {
                Some(end) => {
                    push_class(regex, &letters[at..end]);
                    at = end + 1;
                }
                None => regex.push_str("\\["),
            },
            other => regex.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
}

/// The index of the `]` that closes a class whose inside begins at `start`.
fn class_end(letters: &[char], start: usize) -> Option<usize> {
    let negated = usize::from(letters.get(start) == Some(&'!'));
    // A `]` that comes first is one of the class.
    let from = start + negated + 1;
    (from..letters.len()).find(|index| letters[*index] == ']')
}

fn push_class(regex: &mut String, inside: &[char]) {
    let (negated, inside) = match inside {
        ['!', rest @ ..] => (true, rest),
        all => (false, all),
    };
    let mut items = String::new();
    let mut rest = inside;
    while let [first, others @ ..] = rest {
        let (low, high, after) = match others {
            ['-', high, after @ ..] => (*first, *high, after),
            _ => (*first, *first, others),
        };
        // A range that runs backwards holds nothing.
        if low <= high {
            let (low, high) = (u32::from(low), u32::from(high));
            write!(items, "\\x{{{low:x}}}-\\x{{{high:x}}}").unwrap_or_default();
        }
        rest = after;
    }
    let class = match (negated, items.is_empty()) {
        (true, _) => format!("[^/{items}]"),
        (false, true) => "[a&&b]".to_owned(),
        (false, false) => format!("[{items}]"),
    };
    regex.push_str(&class);
}
