//! The flags in front of an instruction's arguments: `--chown=me --link`.

use std::ops::Range;

use super::error::{MAX_ERRORS, Wrong, list, nearest, quoted};

/// One flag, without quotes and escapes.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) at: Range<usize>,
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// What a flag may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `--name=value`, once.
    Text,
    /// `--name=value`, as often as one likes.
    Texts,
    /// `--name`, `--name=true`, `--name=false`.
    Truth,
}

/// The flags of one instruction, all of them known.
#[derive(Debug, Default)]
pub(super) struct Flags(pub(super) Vec<Flag>);

/// Reads the flags of `text` from `start` on; also, where the arguments begin.
pub(super) fn cut(text: &str, start: usize, escape: char) -> Result<(Vec<Flag>, usize), Wrong> {
    let mut flags = Vec::new();
    let mut at = start;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if !text[at..].starts_with("--") {
            return Ok((flags, at));
        }
        let (word, length) = unquoted(&text[at..], escape)
            .map_err(|quote| unclosed(at + quote..text.len(), &text[at + quote..]))?;
        let place = at..at + length;
        at += length;
        // Two dashes alone end the flags.
        let Some(word) = word.strip_prefix("--").filter(|word| !word.is_empty()) else {
            at += text[at..].len() - text[at..].trim_start().len();
            return Ok((flags, at));
        };
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        flags.push(Flag {
            at: place,
            name: name.to_owned(),
            value,
        });
    }
}

fn unclosed(at: Range<usize>, text: &str) -> Wrong {
    let quote = text.chars().next().unwrap_or('"');
    Wrong::new(
        at,
        format!("the quote `{quote}` is not closed"),
        format!("close it by another `{quote}`, or write `\\{quote}`"),
    )
}

/// The first word of a text without its quotes and escapes, and its length; or where its open quote is.
fn unquoted(text: &str, escape: char) -> Result<(String, usize), usize> {
    let mut word = String::new();
    let mut quote: Option<(char, usize)> = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (character, quote) {
            ('\'' | '"', None) => quote = Some((character, at)),
            (_, Some((open, _))) if open == character => quote = None,
            _ if character == escape => word.extend(characters.next().map(|(_, next)| next)),
            (blank, None) if blank.is_whitespace() => return Ok((word, at)),
            _ => word.push(character),
        }
    }
    match quote {
        Some((_, at)) => Err(at),
        None => Ok((word, text.len())),
    }
}

impl Flags {
    /// Takes the flags of an instruction, if it knows them all.
    pub(super) fn check(
        flags: Vec<Flag>,
        instruction: &str,
        known: &[(&str, Shape)],
        wrong: &mut Vec<Wrong>,
    ) -> Self {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        for (number, flag) in flags.iter().enumerate() {
            if wrong.len() >= MAX_ERRORS {
                break;
            }
            let name = quoted(&flag.name);
            let at = flag.at.clone();
            let shape = known.iter().find(|(known, _)| *known == flag.name);
            let Some((_, shape)) = shape else {
                let hint = match nearest(&flag.name, &names) {
                    Some(known) => format!("did you mean `--{known}`?"),
                    None if names.is_empty() => format!(
                        "it takes none; write `{instruction} -- …` if it begins the arguments"
                    ),
                    None => {
                        let names: Vec<String> =
                            names.iter().map(|name| format!("--{name}")).collect();
                        let names: Vec<&str> = names.iter().map(String::as_str).collect();
                        format!("the flags of `{instruction}` are {}", list(&names))
                    }
                };
                let message = format!("`{instruction}` has no flag `--{name}`");
                wrong.push(Wrong::new(at, message, hint));
                continue;
            };
            let again = flags[..number].iter().any(|other| other.name == flag.name);
            if again && *shape != Shape::Texts {
                let message = format!("the flag `--{name}` is there twice");
                wrong.push(Wrong::new(at, message, "keep one of them"));
                continue;
            }
            match (shape, flag.value.as_deref()) {
                (Shape::Truth, None) | (Shape::Text | Shape::Texts, Some(_)) => {}
                (Shape::Truth, Some(value)) if is_false(value) || is_true(value) => {}
                (Shape::Truth, Some(_)) => {
                    let message = format!("the flag `--{name}` is `true` or `false`");
                    wrong.push(Wrong::new(at, message, format!("write `--{name}` alone")));
                }
                (Shape::Text | Shape::Texts, None) => {
                    let message = format!("the flag `--{name}` has no value");
                    wrong.push(Wrong::new(at, message, format!("write `--{name}=…`")));
                }
            }
        }
        Self(flags)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Flag> {
        self.0.iter().find(|flag| flag.name == name)
    }

    pub(super) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f Flag> {
        self.0.iter().filter(move |flag| flag.name == name)
    }

    /// The value of a flag, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let value = self.get(name)?.value.clone();
        value.filter(|value| !value.is_empty())
    }

    pub(super) fn truth(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|flag| !flag.value.as_deref().is_some_and(is_false))
    }
}

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

fn is_false(value: &str) -> bool {
    value.eq_ignore_ascii_case("false")
}
