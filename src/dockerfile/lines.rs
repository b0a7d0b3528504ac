//! Lines become statements: one instruction each, its continuation lines joined, its heredocs read.
//!
//! Reference, "Format", "Parser directives", "escape" and "Here-Documents". Comments and blank lines
//! between continuation lines are left out, and a joined text knows where each of its pieces stood, so
//! that errors find their place.

use std::collections::HashSet;
use std::ops::Range;

use super::error::{MAX_ERRORS, SyntaxError, Wrong, quoted};
use super::heredoc::{self, Heredoc};
use super::parse;

/// One instruction, before its words have a meaning.
#[derive(Debug)]
pub(super) struct Statement<'t> {
    /// Its first line, from 1.
    pub(super) line: usize,
    /// All its lines, with those of its heredocs.
    pub(super) source: &'t str,
    /// Its lines without comments, joined.
    pub(super) text: String,
    pieces: Vec<Piece>,
    pub(super) heredocs: Vec<Heredoc>,
}

/// Where a part of a joined text begins, and where that stood.
#[derive(Debug)]
struct Piece {
    offset: usize,
    /// From 0.
    line: usize,
    /// In bytes.
    column: usize,
}

/// A text in lines, and what is wrong with it so far.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    text: &'t str,
    /// Without their ends.
    lines: Vec<&'t str>,
    /// The line that is read next, from 0.
    next: usize,
    /// What the directive `escape` says, or a backslash.
    pub(super) escape: char,
    pub(super) errors: Vec<SyntaxError>,
}

impl<'t> Reader<'t> {
    /// Takes a text, and reads the directives at its beginning.
    pub(super) fn new(text: &'t str) -> Self {
        let mut reader = Self {
            text,
            lines: text
                .split('\n')
                .map(|line| line.strip_suffix('\r').unwrap_or(line))
                .collect(),
            next: 0,
            escape: '\\',
            errors: Vec::new(),
        };
        reader.directives();
        reader
    }

    /// The next statement; none at the end, or if there are too many errors already.
    pub(super) fn statement(&mut self) -> Option<Statement<'t>> {
        while self.errors.len() < MAX_ERRORS {
            let first = self.next;
            let line = *self.lines.get(first)?;
            self.next += 1;
            if is_comment(line) || line.trim().is_empty() {
                continue;
            }
            let mut statement = Statement {
                line: first + 1,
                source: "",
                text: String::new(),
                pieces: Vec::new(),
                heredocs: Vec::new(),
            };
            let mut continues =
                self.piece(&mut statement, first, line.len() - line.trim_start().len());
            while continues && self.next < self.lines.len() {
                let line = self.lines[self.next];
                self.next += 1;
                if !is_comment(line) && !line.trim().is_empty() {
                    continues = self.piece(&mut statement, self.next - 1, 0);
                }
            }
            if statement.text.trim().is_empty() {
                continue;
            }
            if parse::takes_heredocs(&statement.text, self.escape) {
                self.heredocs(&mut statement);
            }
            statement.source = self.source(first, self.next);
            return Some(statement);
        }
        None
    }

    /// Adds what is wrong with a statement.
    pub(super) fn wrong(&mut self, statement: &Statement<'_>, wrong: Wrong) {
        let (line, start) = statement.place(wrong.at.start);
        let (last, end) = statement.place(wrong.at.end.max(wrong.at.start + 1) - 1);
        // What goes on below is shown up to the end of its first line.
        let end = if last == line {
            end + 1
        } else {
            self.lines[line].len()
        };
        self.add(line, start..end, wrong.message, wrong.hint);
    }

    fn add(&mut self, line: usize, bytes: Range<usize>, message: String, hint: String) {
        if self.errors.len() >= MAX_ERRORS {
            return;
        }
        let text = self.lines.get(line).copied().unwrap_or_default();
        let characters = |end: usize| {
            let before = text.char_indices().take_while(|(at, _)| *at < end);
            before.count()
        };
        let (start, end) = (characters(bytes.start), characters(bytes.end));
        self.errors.push(SyntaxError {
            line: line + 1,
            column: start + 1,
            width: end.saturating_sub(start).max(1),
            message,
            hint: Some(hint).filter(|hint| !hint.is_empty()),
        });
    }

    /// Adds a line from its byte `start` on; whether the statement goes on below.
    fn piece(&self, statement: &mut Statement<'_>, line: usize, start: usize) -> bool {
        let text = &self.lines[line][start..];
        let trimmed = text.trim_end_matches([' ', '\t']);
        let (text, continues) = match trimmed.strip_suffix(self.escape) {
            // An escaped escape character is no continuation.
            Some(before) if !before.ends_with(self.escape) => (before, true),
            _ => (text, false),
        };
        statement.pieces.push(Piece {
            offset: statement.text.len(),
            line,
            column: start,
        });
        statement.text.push_str(text);
        continues
    }

    fn heredocs(&mut self, statement: &mut Statement<'_>) {
        for (at, mut heredoc) in heredoc::opened(&statement.text) {
            let mut lines = self.lines[self.next..].iter();
            let Some(length) = lines.position(|line| heredoc.is_end(line)) else {
                // What stands below would be taken for instructions.
                self.next = self.lines.len();
                let name = quoted(&heredoc.name);
                let wrong = Wrong::new(
                    at..at + 2 + heredoc.name.len(),
                    format!("the heredoc `{name}` is not closed"),
                    format!("end it by a line that holds `{name}` alone"),
                );
                self.wrong(statement, wrong);
                return;
            };
            for line in &self.lines[self.next..self.next + length] {
                heredoc.text.push_str(line);
                heredoc.text.push('\n');
            }
            self.next += length + 1;
            statement.heredocs.push(heredoc);
        }
    }

    /// The text of some lines, with the breaks between them.
    fn source(&self, from: usize, to: usize) -> &'t str {
        let offset = |line: &str| line.as_ptr() as usize - self.text.as_ptr() as usize;
        let last = self.lines[to - 1];
        self.text[offset(self.lines[from])..offset(last) + last.len()].trim()
    }

    /// Reads `# name=value` lines up to the first line that is none. Unknown names are comments.
    fn directives(&mut self) {
        let mut seen = HashSet::new();
        for number in 0..self.lines.len() {
            let line = self.lines[number];
            let Some((name, value)) = directive(line) else {
                return;
            };
            let place = 0..line.len();
            if !seen.insert(name.to_ascii_lowercase()) {
                let message = format!("the parser directive `{name}` is there twice");
                self.add(number, place, message, "keep one of them".to_owned());
            } else if name.eq_ignore_ascii_case("escape") {
                match value {
                    "\\" | "`" => self.escape = value.chars().next().unwrap_or('\\'),
                    _ => {
                        let message = format!("`{}` cannot be the escape character", quoted(value));
                        let hint = "it is a backslash, or a backtick".to_owned();
                        self.add(number, place, message, hint);
                    }
                }
            }
        }
    }
}

impl Statement<'_> {
    /// The line, from 0, and the byte in it of a place in the joined text.
    fn place(&self, offset: usize) -> (usize, usize) {
        let after = self.pieces.partition_point(|piece| piece.offset <= offset);
        match self.pieces.get(after.saturating_sub(1)) {
            Some(piece) => (piece.line, piece.column + offset - piece.offset),
            None => (self.line - 1, 0),
        }
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The name and the value of a parser directive.
fn directive(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let known = ["escape", "syntax", "check"];
    let known = known.iter().any(|known| name.eq_ignore_ascii_case(known));
    (known && !value.is_empty()).then_some((name, value))
}
