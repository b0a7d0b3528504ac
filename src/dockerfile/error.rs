//! What is wrong with the text of instructions, and where.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong with a text of instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The line within the text, from 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Characters that are wrong, on that line.
    pub width: usize,
    /// What is wrong. It quotes the text, so it may hold what the text holds.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for SyntaxError {}

/// The same with a place inside a statement.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Bytes of the statement's joined text.
    pub(super) at: Range<usize>,
    pub(super) message: String,
    pub(super) hint: String,
}

impl Wrong {
    pub(super) fn new(
        at: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            at,
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// Errors that are kept: a text with more is no text of instructions.
pub(super) const MAX_ERRORS: usize = 100;

/// Characters of a word that a message quotes: it may be of any length.
const MAX_QUOTED: usize = 60;

/// A word for a message: cut, and that of a heredoc in one line.
pub(super) fn quoted(word: &str) -> String {
    let letters = word.chars().take(MAX_QUOTED);
    let mut text: String = letters.map(|c| if c == '\n' { ' ' } else { c }).collect();
    if word.chars().nth(MAX_QUOTED).is_some() {
        text.push('…');
    }
    text
}

/// The one of `known` that `typed` was probably meant to be.
pub(super) fn nearest<'k>(typed: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = typed.to_lowercase();
    known
        .iter()
        // The distance to a word of a megabyte is no use, and costs.
        .filter(|known| folded.len() <= 2 * known.len())
        .map(|known| {
            (
                strsim::damerau_levenshtein(&folded, &known.to_lowercase()),
                *known,
            )
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .map(|(_, known)| known)
}

/// A hint that names the nearest of `known`, or all of them.
pub(super) fn suggest(typed: &str, known: &[&str], what: &str) -> String {
    match nearest(typed, known) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("{what} {}", list(known)),
    }
}

pub(super) fn list(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
