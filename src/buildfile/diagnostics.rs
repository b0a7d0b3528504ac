//! Problems of a build file, each with its place, the offending line and a remedy.
//!
//! The lines that are shown are the user's, so what may be a credential in them is masked: user
//! information of URLs, and whatever belongs to a key such as `password` or `ssh_key`, judged by
//! indentation, since the file may be no valid YAML.

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;
use saphyr_parser::{Marker, Span};

use crate::secret::{mask, printable, regex, secret_ranges};

/// One thing that is wrong with a build file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What errors call the build file.
    pub name: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong; credentials are masked.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The offending line, and another that explains it.
    excerpts: Vec<Excerpt>,
}

/// A line of the build file with a marker below it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    line: usize,
    text: String,
    /// Characters before the marker.
    start: usize,
    marker: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.name, self.line, self.column, self.message
        )?;
        let last = self.excerpts.iter().map(|excerpt| excerpt.line).max();
        let width = last.unwrap_or(0).to_string().len();
        for Excerpt {
            line,
            text,
            start,
            marker,
        } in &self.excerpts
        {
            write!(f, "\n  {line:width$} | {text}")?;
            write!(f, "\n  {:width$} | {:start$}{marker}", "", "")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The problems of one build file, in the order of their places.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
    found: Vec<Problem>,
}

/// Problems that are shown: a file with more is a wrong file, and the rest of them help nobody.
const MAX_SHOWN: usize = 20;
/// Problems that are kept: each costs a look at the lines above it.
pub(super) const MAX_PROBLEMS: usize = 100;
/// Characters of a message: it may name a key of any length.
const MAX_MESSAGE: usize = 300;

impl<'a> Problems<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        Self {
            name,
            lines: lines(text),
            found: Vec::new(),
        }
    }

    /// The line with this number, from 1; empty past the end.
    pub(super) fn line(&self, number: usize) -> &'a str {
        number
            .checked_sub(1)
            .and_then(|at| self.lines.get(at))
            .copied()
            .unwrap_or_default()
    }

    /// How many lines the file has.
    pub(super) fn line_count(&self) -> usize {
        self.lines.len()
    }

    /// Whether further problems are dropped.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MAX_PROBLEMS
    }

    /// Adds a problem at `span`, with a remedy if `hint` is not empty.
    pub(super) fn add(&mut self, span: Span, message: impl AsRef<str>, hint: impl AsRef<str>) {
        self.push(span, message.as_ref(), hint.as_ref(), None);
    }

    /// Adds a problem at `span` that `other`, an earlier place, explains.
    pub(super) fn add_related(
        &mut self,
        span: Span,
        message: impl AsRef<str>,
        other: Span,
        note: &str,
    ) {
        self.push(span, message.as_ref(), "", Some((other, note)));
    }

    /// All problems, if there are any: each place and message once, since an alias repeats them.
    pub(super) fn complete(mut self) -> Vec<Problem> {
        self.found
            .sort_by_key(|problem| (problem.line, problem.column));
        self.found.dedup();
        self.found
    }

    fn push(&mut self, span: Span, message: &str, hint: &str, related: Option<(Span, &str)>) {
        if self.is_full() {
            return;
        }
        let mut excerpts = vec![self.excerpt(span, None)];
        excerpts.extend(related.map(|(other, note)| self.excerpt(other, Some(note))));
        self.found.push(Problem {
            name: drawn(self.name),
            line: span.start.line(),
            column: span.start.col() + 1,
            message: cut(&drawn(&mask(message))),
            hint: Some(drawn(&mask(hint))).filter(|hint| !hint.is_empty()),
            excerpts,
        });
    }

    fn excerpt(&self, span: Span, note: Option<&str>) -> Excerpt {
        let number = span.start.line();
        let line = self.line(number);
        let length = line.chars().count();
        let start = span.start.col().min(length);
        let end = if span.end.line() == number {
            span.end.col()
        } else {
            length
        };
        let shown = Shown::new(line, &self.hidden(number));
        let (start, end) = (shown.column(start), shown.column(end.clamp(start, length)));
        let (text, cut) = window(&shown.text, start);
        let width = (end - start).clamp(1, MAX_WIDTH);
        let mut marker = if note.is_some() { "-" } else { "^" }.repeat(width);
        if let Some(note) = note {
            marker = format!("{marker} {note}");
        }
        Excerpt {
            line: number,
            text: drawn(text.trim_end()),
            start: start - cut,
            marker,
        }
    }

    /// The bytes of a line that may be a credential.
    fn hidden(&self, number: usize) -> Vec<Range<usize>> {
        let line = self.line(number);
        let mut hidden = secret_ranges(line);
        if let Some(start) = self.secret_from(number) {
            let around = hidden.iter().find(|range| range.contains(&start));
            let start = around.map_or(start, |range| range.start);
            hidden.retain(|range| range.end <= start);
            hidden.push(start..line.len());
        }
        hidden
    }

    /// Where the value of a secret key begins in a line, if the line has or continues one.
    fn secret_from(&self, number: usize) -> Option<usize> {
        let line = self.line(number);
        let value = |line: &str| SECRET_KEY.find(line).map(|found| found.end());
        if let Some(start) = value(line).filter(|start| *start < line.len()) {
            return Some(start);
        }
        let mut deepest = indentation(line);
        let above = if deepest == 0 { 1..1 } else { 1..number };
        for above in above.rev().map(|above| self.line(above)) {
            if above.trim().is_empty() || indentation(above) >= deepest {
                continue;
            }
            deepest = indentation(above);
            if value(above).is_some() {
                return Some(line.len() - line.trim_start().len());
            }
            if deepest == 0 {
                break;
            }
        }
        None
    }
}

/// A key whose value no message shows.
static SECRET_KEY: LazyLock<Regex> = LazyLock::new(|| {
    regex(r#"(?i)[\w-]*(?:passw|token|secret|credential|ssh_key|api_?key)[\w-]*["']?\s*[:=]\s*"#)
});

/// Blanks before the text; an item of a list stands deeper than a key in its column.
fn indentation(line: &str) -> usize {
    let text = line.trim_start();
    line.len() - text.len() + usize::from(text.starts_with("- "))
}

/// Lines as YAML 1.2 and the parser count them: ended by a line feed, a carriage return, or both.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        lines.extend(line.strip_suffix('\r').unwrap_or(line).split('\r'));
    }
    lines
}

/// A line with its hidden parts replaced, and where each of its characters went.
struct Shown {
    text: Vec<char>,
    columns: Vec<usize>,
}

impl Shown {
    fn new(line: &str, hidden: &[Range<usize>]) -> Self {
        let mut shown = Self {
            text: Vec::new(),
            columns: Vec::new(),
        };
        for (at, character) in line.char_indices() {
            shown.columns.push(shown.text.len());
            match hidden.iter().find(|range| range.contains(&at)) {
                Some(range) if range.start == at => shown.text.extend("***".chars()),
                Some(_) => {}
                None => shown.text.push(character),
            }
        }
        shown.columns.push(shown.text.len());
        shown
    }

    fn column(&self, column: usize) -> usize {
        self.columns.get(column).copied().unwrap_or(self.text.len())
    }
}

/// Characters of a long line that are shown, and before its marker.
const MAX_WIDTH: usize = 100;
const BEFORE: usize = 40;

/// The part of a line around `start`, and how many characters were cut off before it.
fn window(line: &[char], start: usize) -> (String, usize) {
    if line.len() <= MAX_WIDTH {
        return (line.iter().collect(), 0);
    }
    let cut = start.saturating_sub(BEFORE);
    let end = line.len().min(cut + MAX_WIDTH);
    let mut text: String = line[cut..end].iter().collect();
    if cut > 0 {
        text.replace_range(..text.chars().next().map_or(0, char::len_utf8), "…");
    }
    if end < line.len() {
        text.push('…');
    }
    (text, cut)
}

/// A part of what is drawn here, which is printed as it is. A tab is shown, and as wide as its marker.
fn drawn(text: &str) -> String {
    printable(&text.replace('\t', "→"))
}

fn cut(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

/// The span of `width` characters at a line, from 1, and a column, from 0.
pub(super) fn span(line: usize, column: usize, width: usize) -> Span {
    Span::new(
        Marker::new(0, line, column),
        Marker::new(width, line, column + width),
    )
}

/// Cuts a list of problems to what helps, and says how many are left out.
pub(super) fn render(problems: &[Problem]) -> String {
    let mut parts: Vec<String> = problems
        .iter()
        .take(MAX_SHOWN)
        .map(ToString::to_string)
        .collect();
    if problems.len() > MAX_SHOWN {
        parts.push(format!("and {} more problems", problems.len() - MAX_SHOWN));
    }
    parts.join("\n")
}
