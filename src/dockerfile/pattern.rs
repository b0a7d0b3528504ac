//! The patterns of `${x#pattern}`, `${x%pattern}` and `${x/pattern/replacement}`.
//!
//! `*` is any text and `?` any character of one line; a backslash takes their meaning away. They are
//! matched as regular expressions, which take linear time.

use regex::{Regex, RegexBuilder};

/// Characters of a pattern, and bytes of a compiled one: no name of a file or a version needs more.
const MAX_LENGTH: usize = 1000;
const MAX_SIZE: usize = 1 << 20;

#[derive(Clone, Copy)]
enum Part {
    Any,
    One,
    Literal(char),
}

/// `value` without the shortest, or longest, beginning that the pattern matches.
pub(super) fn without_prefix(pattern: &str, value: &str, longest: bool) -> Option<String> {
    let regex = regex(&parts(pattern)?, longest, true)?;
    let end = regex.find(value).map_or(0, |found| found.end());
    Some(value[end..].to_owned())
}

/// `value` without the shortest, or longest, end that the pattern matches.
pub(super) fn without_suffix(pattern: &str, value: &str, longest: bool) -> Option<String> {
    let mut parts = parts(pattern)?;
    parts.reverse();
    let regex = regex(&parts, longest, true)?;
    // The shortest end is the shortest beginning of the text read backwards.
    let backwards: String = value.chars().rev().collect();
    let end = regex.find(&backwards).map_or(0, |found| found.end());
    Some(value[..value.len() - end].to_owned())
}

/// `value` with the first, or every, match of the pattern replaced, up to about `limit` bytes.
pub(super) fn replaced(
    pattern: &str,
    value: &str,
    replacement: &str,
    all: bool,
    limit: usize,
) -> Option<String> {
    let regex = regex(&parts(pattern)?, true, false)?;
    let mut text = String::new();
    let mut rest = 0;
    for found in regex
        .find_iter(value)
        .take(if all { usize::MAX } else { 1 })
    {
        text.push_str(&value[rest..found.start()]);
        text.push_str(replacement);
        rest = found.end();
        if text.len() > limit {
            break;
        }
    }
    text.push_str(&value[rest..]);
    Some(text)
}

/// Reads a pattern; none if it is too long, or a backslash stands before an ordinary character.
fn parts(pattern: &str) -> Option<Vec<Part>> {
    if pattern.len() > MAX_LENGTH {
        return None;
    }
    let mut parts = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        parts.push(match character {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => match characters.next()? {
                escaped @ ('*' | '?' | '\\' | '}' | '/') => Part::Literal(escaped),
                _ => return None,
            },
            other => Part::Literal(other),
        });
    }
    Some(parts)
}

fn regex(parts: &[Part], longest: bool, anchored: bool) -> Option<Regex> {
    let mut text = String::from(if anchored { "^" } else { "" });
    for part in parts {
        match part {
            Part::Any => text.push_str(if longest { ".*" } else { ".*?" }),
            Part::One => text.push('.'),
            Part::Literal(literal) => {
                text.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
            }
        }
    }
    RegexBuilder::new(&text).size_limit(MAX_SIZE).build().ok()
}
