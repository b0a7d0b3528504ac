//! Patterns: what `*`, `?`, `[…]` and `\` mean in a name (Go's `filepath.Match`), and the lists of patterns of
//! `.dockerignore` and `--exclude`, where `**` stands for any number of directories.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

use regex::Regex;

use super::{not_a_pattern, plain};
use crate::error::Error;

/// The patterns of a `.dockerignore`, or of `--exclude`.
#[derive(Debug, Default)]
pub(in crate::context) struct Ignore(Vec<(Regex, bool)>);

impl Ignore {
    pub(in crate::context) fn parse<'a>(
        lines: impl Iterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        let mut patterns = Vec::new();
        for line in lines.map(str::trim) {
            let (text, out) = match line.strip_prefix('!') {
                Some(rest) => (rest.trim(), false),
                None => (line, true),
            };
            let malformed = |reason| not_a_pattern(line, reason);
            if text.is_empty() && !out {
                return Err(malformed("nothing is behind its `!`"));
            }
            let path = plain(text);
            if path.as_os_str().is_empty() {
                continue;
            }
            let pattern = expression(&path.to_string_lossy(), true).map_err(malformed)?;
            patterns.push((pattern, out));
        }
        Ok(Self(patterns))
    }

    /// With more patterns, which have the last word.
    pub(in crate::context) fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    pub(in crate::context) fn has_exceptions(&self) -> bool {
        self.0.iter().any(|(_, out)| !out)
    }

    /// Whether the last pattern that matches the path, or a directory above it, leaves it out.
    pub(in crate::context) fn holds(&self, path: &Path) -> bool {
        let matching = |(pattern, _): &&(Regex, bool)| {
            path.ancestors()
                .any(|path| pattern.is_match(&path.to_string_lossy()))
        };
        let last = self.0.iter().rfind(matching);
        last.is_some_and(|(_, out)| *out)
    }
}

/// A pattern as a regular expression; with `deep`, `**` stands for any number of directories.
pub(super) fn expression(pattern: &str, deep: bool) -> Result<Regex, &'static str> {
    let mut regex = String::from("(?s)^");
    let mut rest = pattern.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '*' if deep && rest.peek() == Some(&'*') => {
                rest.next();
                if rest.peek() == Some(&'/') {
                    rest.next();
                    regex.push_str("(?:.*/)?");
                } else {
                    regex.push_str(".*");
                }
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '\\' => push(&mut regex, rest.next().ok_or("it ends with `\\`")?),
            '[' => {
                let negated = rest.next_if_eq(&'^').is_some();
                regex.push_str(if negated { "[^/" } else { "[" });
                let mut count = 0;
                while count == 0 || rest.next_if_eq(&']').is_none() {
                    let low = member(&mut rest)?;
                    let is_range = rest.next_if_eq(&'-').is_some();
                    let high = if is_range { member(&mut rest)? } else { low };
                    if low > high {
                        return Err("a range in it runs backwards");
                    }
                    count += 1;
                    let (low, high) = (u32::from(low), u32::from(high));
                    // A string takes all that is written.
                    let _ = write!(regex, "\\x{{{low:x}}}-\\x{{{high:x}}}");
                }
                regex.push(']');
            }
            other => push(&mut regex, other),
        }
    }
    regex.push('$');
    Regex::new(&regex).map_err(|_| "it is too long")
}

/// A letter of a class. What stands for something else has to be escaped.
fn member(rest: &mut Peekable<Chars<'_>>) -> Result<char, &'static str> {
    const OPEN: &str = "a `[` has no `]`";
    let letter = rest.next().ok_or(OPEN)?;
    match letter {
        '\\' => rest.next().ok_or(OPEN),
        '-' | ']' if !rest.clone().any(|letter| letter == ']') => Err(OPEN),
        '-' | ']' => Err("a `]` or `-` in its `[…]` needs a `\\`"),
        letter => Ok(letter),
    }
}

fn push(regex: &mut String, letter: char) {
    regex.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4])));
}

/// Whether a name is a pattern and not only escaped.
pub(super) fn is_pattern(name: &str) -> bool {
    let mut letters = name.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '*' | '?' | '[' => return true,
            '\\' => drop(letters.next()),
            _ => {}
        }
    }
    false
}

pub(super) fn is_pattern_name(name: &OsStr) -> bool {
    is_pattern(&name.to_string_lossy())
}

/// A name without the backslashes that take the meaning from what is behind them.
pub(super) fn unescaped(name: &str) -> String {
    let mut plain = String::new();
    let mut letters = name.chars();
    while let Some(letter) = letters.next() {
        match (letter, letters.clone().next()) {
            ('\\', Some(next)) => {
                plain.push(next);
                letters.next();
            }
            _ => plain.push(letter),
        }
    }
    plain
}
