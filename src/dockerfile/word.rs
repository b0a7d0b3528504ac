//! Words: quotes, escapes and variables, as `BuildKit`'s shell lexer reads them.
//!
//! Reference, "Environment replacement". An unset variable is empty. Every word is read once, from left
//! to right; what a variable holds is not read again. The depth of `${A:-${B:-…}}` and the length of what
//! comes out are bounded.

use std::mem;

use super::error::quoted;
use super::expand_error::{ExpandError, MAX_DEPTH, MAX_LENGTH};
use super::pattern;

/// Bytes of values that the patterns of a word may look through, and what a pattern counts as beside.
const MAX_WORK: usize = 64 << 20;
const PATTERN_WORK: usize = 4096;

/// What a variable holds, if it is set.
pub(super) type Lookup<'e> = &'e dyn Fn(&str) -> Option<&'e str>;

/// What a word becomes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    /// As one word.
    pub(super) text: String,
    /// Split at the blanks that stand in no quotes.
    pub(super) words: Vec<String>,
    /// What its patterns cost, in bytes.
    pub(super) work: usize,
}

/// Replaces the variables of a word, and takes its quotes and escapes away.
pub(super) fn expand(
    word: &str,
    escape: char,
    lookup: Lookup<'_>,
) -> Result<Expanded, ExpandError> {
    Lexer::new(word, escape, Some(lookup)).all()
}

/// Replaces the variables of a heredoc's text, where quotes are ordinary characters. A backslash before
/// any character goes, as `BuildKit` has it.
pub(super) fn expand_heredoc(text: &str, lookup: Lookup<'_>) -> Result<Expanded, ExpandError> {
    let mut lexer = Lexer::new(text, '\\', Some(lookup));
    lexer.quotes = false;
    lexer.all()
}

/// Whether a word can be read, whatever its variables hold; and the byte where it cannot.
pub(super) fn check(word: &str, escape: char) -> Result<(), (usize, ExpandError)> {
    let mut lexer = Lexer::new(word, escape, None);
    let read = lexer.word(None, false, 0);
    read.map(drop).map_err(|error| (lexer.wrong_at, error))
}

/// Like [`check`], for the text of a heredoc.
pub(super) fn check_heredoc(text: &str) -> Result<(), ExpandError> {
    let mut lexer = Lexer::new(text, '\\', None);
    lexer.quotes = false;
    lexer.word(None, false, 0).map(drop)
}

struct Lexer<'t, 'e> {
    text: &'t str,
    at: usize,
    escape: char,
    /// Whether quotes are special.
    quotes: bool,
    /// Without it, the values are not known yet.
    lookup: Option<Lookup<'e>>,
    /// Where what could not be read begins.
    wrong_at: usize,
    /// What patterns cost so far.
    work: usize,
}

/// A word while it is read: the text, and the words in it.
#[derive(Default)]
struct Words {
    done: Expanded,
    word: String,
}

impl Words {
    /// Adds text whose blanks end words.
    fn plain(&mut self, text: &str) {
        self.done.text.push_str(text);
        for part in text.split_inclusive(char::is_whitespace) {
            let word = part.trim_end();
            self.word.push_str(word);
            if word.len() < part.len() {
                self.end();
            }
        }
    }

    /// Adds text that belongs to one word.
    fn raw(&mut self, text: &str) {
        self.done.text.push_str(text);
        self.word.push_str(text);
    }

    fn end(&mut self) {
        if !self.word.is_empty() {
            self.done.words.push(mem::take(&mut self.word));
        }
    }
}

impl<'t, 'e> Lexer<'t, 'e> {
    fn new(text: &'t str, escape: char, lookup: Option<Lookup<'e>>) -> Self {
        Self {
            text,
            at: 0,
            escape,
            quotes: true,
            lookup,
            wrong_at: 0,
            work: 0,
        }
    }

    fn all(mut self) -> Result<Expanded, ExpandError> {
        let mut expanded = self.word(None, false, 0)?;
        expanded.work = self.work;
        Ok(expanded)
    }

    /// Counts the work of a pattern upon a value.
    fn count(&mut self, value: &str) -> Result<(), ExpandError> {
        self.work += PATTERN_WORK + value.len();
        if self.work > MAX_WORK {
            return Err(ExpandError::Work);
        }
        Ok(())
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// Goes on if the next character is this one.
    fn skip(&mut self, character: char) -> bool {
        let found = self.peek() == Some(character);
        self.at += if found { character.len_utf8() } else { 0 };
        found
    }

    /// Reads up to `stop`, and past it, or up to the end. With `keep`, escapes stay as they are.
    fn word(
        &mut self,
        stop: Option<char>,
        keep: bool,
        depth: usize,
    ) -> Result<Expanded, ExpandError> {
        let mut words = Words::default();
        loop {
            if words.done.text.len() > MAX_LENGTH {
                return Err(ExpandError::Length);
            }
            let start = self.at;
            let next = self.next();
            match next {
                None if stop.is_some() => return Err(ExpandError::Brace),
                None => break,
                _ if next == stop => break,
                Some('$') => {
                    self.wrong_at = start;
                    words.plain(&self.dollar(depth)?);
                }
                Some(quote @ ('\'' | '"')) if self.quotes => {
                    self.wrong_at = start;
                    let text = if quote == '"' {
                        self.double(keep, depth)?
                    } else {
                        self.single()?
                    };
                    words.raw(text.as_str());
                }
                Some(escape) if escape == self.escape => {
                    if keep {
                        words.raw(&self.text[start..self.at]);
                    }
                    let escaped = self.at;
                    self.next();
                    words.raw(&self.text[escaped..self.at]);
                }
                Some(_) => words.plain(&self.text[start..self.at]),
            }
        }
        words.end();
        Ok(words.done)
    }

    fn single(&mut self) -> Result<String, ExpandError> {
        let rest = &self.text[self.at..];
        let end = rest.find('\'').ok_or(ExpandError::Quote('\''))?;
        self.at += end + 1;
        Ok(rest[..end].to_owned())
    }

    fn double(&mut self, keep: bool, depth: usize) -> Result<String, ExpandError> {
        let mut text = String::new();
        let open = self.at - 1;
        loop {
            if text.len() > MAX_LENGTH {
                return Err(ExpandError::Length);
            }
            let start = self.at;
            match self.next() {
                None => {
                    self.wrong_at = open;
                    return Err(ExpandError::Quote('"'));
                }
                Some('"') => return Ok(text),
                Some('$') => {
                    self.wrong_at = start;
                    text.push_str(&self.dollar(depth)?);
                }
                Some(escape) if escape == self.escape => {
                    // It takes the meaning of these alone, and is an ordinary character otherwise.
                    let special = self
                        .peek()
                        .is_some_and(|next| matches!(next, '"' | '$') || next == self.escape);
                    if keep || !special {
                        text.push(escape);
                    }
                    text.extend(special.then(|| self.next()).flatten());
                }
                Some(other) => text.push(other),
            }
        }
    }

    /// What stands behind a `$`.
    fn dollar(&mut self, depth: usize) -> Result<String, ExpandError> {
        if !self.skip('{') {
            let name = self.name();
            return Ok(match name {
                "" => "$".to_owned(),
                name => self.value(name).unwrap_or_default().to_owned(),
            });
        }
        if depth >= MAX_DEPTH {
            return Err(ExpandError::Depth);
        }
        let name = self.name();
        if name.is_empty() {
            return Err(match self.peek() {
                None => ExpandError::Brace,
                Some(_) => ExpandError::Name,
            });
        }
        let modifier = self.at;
        match self.next() {
            None => Err(ExpandError::Brace),
            Some('}') => Ok(self.value(name).unwrap_or_default().to_owned()),
            Some('/') => self.replace(name, depth),
            Some(end @ ('#' | '%')) => self.trim(name, end, depth),
            Some(operator @ ('-' | '+' | '?')) => self.choose(name, operator, false, depth),
            Some(':') => match self.next() {
                Some(operator @ ('-' | '+' | '?')) => self.choose(name, operator, true, depth),
                None => Err(ExpandError::Brace),
                Some(_) => Err(self.modifier(name, modifier)),
            },
            Some(_) => Err(self.modifier(name, modifier)),
        }
    }

    fn modifier(&self, name: &str, start: usize) -> ExpandError {
        ExpandError::Modifier {
            name: quoted(name),
            modifier: quoted(&self.text[start..self.at]),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}`; `empty` counts as unset behind a colon.
    fn choose(
        &mut self,
        name: &str,
        operator: char,
        empty: bool,
        depth: usize,
    ) -> Result<String, ExpandError> {
        let word = self.word(Some('}'), false, depth + 1)?.text;
        let known = self.value(name);
        let set = known.filter(|value| !(empty && value.is_empty()));
        Ok(match (operator, set) {
            ('+', Some(_)) | ('-', None) => word,
            ('+', None) => String::new(),
            ('?', None) if self.lookup.is_some() => {
                let missing = if known.is_some() {
                    "is empty"
                } else {
                    "is not set"
                };
                let message = if word.is_empty() {
                    missing.to_owned()
                } else {
                    format!("{missing}: {}", quoted(&word))
                };
                let name = quoted(name);
                return Err(ExpandError::Required { name, message });
            }
            _ => set.unwrap_or_default().to_owned(),
        })
    }

    /// `${name#pattern}` and `${name%pattern}`; doubled, the longest match goes.
    fn trim(&mut self, name: &str, end: char, depth: usize) -> Result<String, ExpandError> {
        let longest = self.skip(end);
        let pattern = self.word(Some('}'), true, depth + 1)?.text;
        let Some(value) = self.value(name) else {
            return Ok(String::new());
        };
        self.count(value)?;
        let trimmed = if end == '#' {
            pattern::without_prefix(&pattern, value, longest)
        } else {
            pattern::without_suffix(&pattern, value, longest)
        };
        trimmed.ok_or(ExpandError::Pattern {
            pattern: quoted(&pattern),
        })
    }

    /// `${name/pattern/replacement}`; with two slashes in front, every match is replaced. Escapes stay in the
    /// replacement, as `BuildKit` has it.
    fn replace(&mut self, name: &str, depth: usize) -> Result<String, ExpandError> {
        let all = self.skip('/');
        let missing = |error| match error {
            ExpandError::Brace => ExpandError::Slash { name: quoted(name) },
            other => other,
        };
        let pattern = self.word(Some('/'), true, depth + 1).map_err(missing)?.text;
        let replacement = self.word(Some('}'), true, depth + 1)?.text;
        let Some(value) = self.value(name) else {
            return Ok(String::new());
        };
        self.count(value)?;
        let replaced = pattern::replaced(&pattern, value, &replacement, all, MAX_LENGTH);
        replaced.ok_or(ExpandError::Pattern {
            pattern: quoted(&pattern),
        })
    }

    fn value(&self, name: &str) -> Option<&'e str> {
        self.lookup.and_then(|lookup| lookup(name))
    }

    /// A variable's name, a number, or one of the shell's special parameters; empty if none is here.
    fn name(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let up_to = |end: fn(char) -> bool| rest.find(end).unwrap_or(rest.len());
        let length = match rest.chars().next() {
            Some(c) if c.is_numeric() => up_to(|c| !c.is_numeric()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => up_to(|c| !(c.is_alphanumeric() || c == '_')),
        };
        self.at += length;
        &rest[..length]
    }
}
