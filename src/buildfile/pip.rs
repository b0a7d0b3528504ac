//! The key `pip-config` becomes the text of a `pip.conf`.
//!
//! pip reads the file with Python's `configparser.RawConfigParser`: no interpolation, options end at
//! `=` or `:`, deeper indented lines continue a value, `#` and `;` begin a comment line, and a section
//! or option may be there once. Text is checked by these rules and kept as it is.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use saphyr_parser::{ScalarStyle, Span};

use super::diagnostics::{Problems, span};
use super::node::{Node, Scalar, Value};
use super::shape::Decoder;

impl Decoder<'_, '_> {
    /// Reads `pip-config` in either form; `None` if it says nothing.
    pub(super) fn pip_config(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Scalar(scalar) => {
                self.pip_text(scalar, node.span);
                Some(scalar.text.clone()).filter(|text| !text.trim().is_empty())
            }
            Value::Mapping(sections) => {
                Some(self.pip_sections(sections)).filter(|text| !text.is_empty())
            }
            Value::Sequence(_) => {
                let hint =
                    "write `global:` below it, and options such as `index-url: …` below that";
                self.problem(
                    node.span,
                    "`pip-config` must be a mapping or text, not a list",
                    hint,
                );
                None
            }
        }
    }

    fn pip_sections(&mut self, sections: &[(Node, Node)]) -> String {
        let mut text = String::new();
        for (key, options) in sections {
            let section = key.shown_key();
            self.pip_name(key, "section", &['[', ']']);
            match &options.value {
                Value::Mapping(options) => {
                    let _ = writeln!(text, "[{}]", key.key());
                    self.pip_options(key, options, &mut text);
                }
                _ if options.is_null() => {}
                _ => {
                    let message = format!(
                        "`pip-config.{section}` must be a section, not {}",
                        options.kind()
                    );
                    let hint =
                        format!("write `global:` above it, and indent `{section}` below that");
                    self.problem(key.span, message, hint);
                }
            }
        }
        text
    }

    fn pip_options(&mut self, section: &Node, options: &[(Node, Node)], text: &mut String) {
        let mut seen: HashMap<String, Span> = HashMap::new();
        for (key, value) in options {
            self.pip_name(key, "option", &['=', ':', '[', ']']);
            let normal = normal_name(key.key());
            if let Some(first) = seen.get(&normal).copied() {
                let message = format!(
                    "duplicate option `{}`: to pip both are one",
                    key.shown_key()
                );
                self.problems
                    .add_related(key.span, message, first, "first used here");
                continue;
            }
            if value.is_null() {
                seen.insert(normal, key.span);
                continue;
            }
            self.setting(section.key(), &normal, key.shown_key(), key.span);
            seen.insert(normal, key.span);
            let what = format!("pip-config.{}.{}", section.shown_key(), key.shown_key());
            let lines = self.pip_value(value, &what);
            // The form of the ancestor's documentation: the first line stands behind the name.
            let _ = writeln!(text, "{} = {}", key.key(), lines.join("\n    "));
        }
    }

    /// The lines of an option's value, none of which is blank or looks like a comment.
    fn pip_value<'n>(&mut self, node: &'n Node, what: &str) -> Vec<&'n str> {
        let mut lines: Vec<&str> = Vec::new();
        let items = match &node.value {
            Value::Sequence(items) => items.as_slice(),
            Value::Mapping(_) => {
                let message = format!("`{what}` must be text or a list, not a mapping");
                self.problem(
                    node.span,
                    message,
                    "`pip-config` has sections, and options in them",
                );
                return lines;
            }
            Value::Scalar(_) => std::slice::from_ref(node),
        };
        for (at, item) in items.iter().enumerate() {
            let what = if items.len() > 1 {
                format!("{what}[{at}]")
            } else {
                what.to_owned()
            };
            let Some(scalar) = self.scalar(item, &what) else {
                continue;
            };
            for line in python_lines(&scalar.text)
                .map(str::trim)
                .filter(|line| !line.is_empty())
            {
                if !lines.is_empty() && line.starts_with(['#', ';']) {
                    let message =
                        format!("a line of `{what}` begins as a comment, so pip would not see it");
                    self.problem(item.span, message, "move it to the first line of the value");
                }
                lines.push(line);
            }
        }
        lines
    }

    fn pip_name(&mut self, key: &Node, what: &str, forbidden: &[char]) {
        let name = key.key();
        let reason = if name.trim().is_empty() {
            "is empty"
        } else if name.contains(char::is_control) {
            "has a control character"
        } else if name.contains(forbidden) {
            "has a bracket or a delimiter"
        } else if name.trim() != name {
            "begins or ends with a blank"
        } else if name.starts_with(['#', ';']) {
            "begins as a comment"
        } else {
            return;
        };
        self.problem(key.span, format!("the name of a pip {what} {reason}"), "");
    }

    fn pip_text(&mut self, scalar: &Scalar, place: Span) {
        let blank = python_lines(&scalar.text)
            .take_while(|line| line.trim().is_empty())
            .count();
        let place_of = |problems: &Problems<'_>, at: usize| {
            // A literal block begins with its first line that is not blank, and shows its lines as they
            // are; other styles fold and escape them, and a variable may have brought lines.
            let number = place.start.line() + at - blank;
            let line = problems.line(number);
            let text = python_lines(&scalar.text).nth(at).unwrap_or_default();
            let shows = scalar.style == ScalarStyle::Literal && line.ends_with(text);
            let indentation = line.chars().take_while(|c| c.is_whitespace()).count();
            if shows {
                span(number, indentation, line.trim().chars().count())
            } else {
                place
            }
        };
        let Checked { broken, options } = check(&scalar.text);
        for (at, section, name) in options {
            // What `%ENV{NAME}` stands for is not shown.
            let is_shown = scalar.shown.contains(&name);
            let shown = if is_shown { &name } else { "***" };
            let place = place_of(self.problems, at);
            self.setting(&section, &normal_name(&name), shown, place);
        }
        for (at, message) in broken {
            let place = place_of(self.problems, at);
            let hint = match &message {
                Broken::NoSection => "begin with a section, such as `[global]`",
                Broken::NoValue => {
                    "write `name = value`; lines that continue a value are indented deeper"
                }
                Broken::Duplicate(_) => {
                    "write it once; several values go on indented lines below it"
                }
            };
            let message = match message {
                Broken::NoSection => {
                    "an option of `pip-config` stands before any section".to_owned()
                }
                Broken::NoValue => "this line of `pip-config` is no option".to_owned(),
                Broken::Duplicate(what) => format!("`pip-config` has this {what} twice"),
            };
            self.problem(place, message, hint);
        }
    }
}

/// How pip calls an option, however it is spelled.
fn normal_name(name: &str) -> String {
    let name = name.to_lowercase().replace('_', "-");
    name.strip_prefix("--").map_or(name.clone(), str::to_owned)
}

/// Lines as Python's file objects give them.
fn python_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
enum Broken {
    NoSection,
    NoValue,
    Duplicate(&'static str),
}

/// What `configparser` finds in a text, by lines counted from 0.
#[derive(Debug, Default)]
struct Checked {
    broken: Vec<(usize, Broken)>,
    /// Section and name.
    options: Vec<(usize, String, String)>,
}

fn check(text: &str) -> Checked {
    let mut checked = Checked::default();
    let mut sections: HashSet<String> = HashSet::new();
    let mut options: HashSet<(String, String)> = HashSet::new();
    let mut section: Option<String> = None;
    // The indentation of the option that a deeper line continues.
    let mut option: Option<usize> = None;
    for (at, line) in python_lines(text).enumerate() {
        let value = line.trim();
        if value.is_empty() || value.starts_with(['#', ';']) {
            continue;
        }
        let indentation = line.chars().take_while(|c| c.is_whitespace()).count();
        if option.is_some_and(|option| indentation > option) {
            continue;
        }
        let header = value
            .strip_prefix('[')
            .and_then(|rest| rest.rsplit_once(']'));
        if let Some((name, _)) = header.filter(|(name, _)| !name.is_empty()) {
            if !sections.insert(name.to_owned()) && name != "DEFAULT" {
                checked.broken.push((at, Broken::Duplicate("section")));
            }
            section = Some(name.to_owned());
            option = None;
            continue;
        }
        let Some(section) = &section else {
            checked.broken.push((at, Broken::NoSection));
            // Whatever follows has no section either.
            break;
        };
        match value.split_once(['=', ':']) {
            Some((name, _)) if !name.trim().is_empty() => {
                let key = (section.clone(), name.trim().to_lowercase());
                if !options.insert(key) {
                    checked.broken.push((at, Broken::Duplicate("option")));
                }
                checked
                    .options
                    .push((at, section.clone(), name.trim().to_owned()));
                option = Some(indentation);
            }
            _ => checked.broken.push((at, Broken::NoValue)),
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_checked_as_python_does() {
        for (text, expected) in [
            ("[global]\nformat = columns\n", vec![]),
            (
                "[global]\ntrusted-host = a\n   b\n\n   c\n[search]\nindex: x",
                vec![],
            ),
            ("# comment\n\n[a]\n; comment\nx=\n", vec![]),
            ("[a]\nx=1\n[b]\nx=1", vec![]),
            ("[a]\r\nx=1\r\n", vec![]),
            ("x = 1\ny = 2", vec![(0, Broken::NoSection)]),
            ("[a]\nx", vec![(1, Broken::NoValue)]),
            ("[a]\n= 1", vec![(1, Broken::NoValue)]),
            ("[a]\n[]", vec![(1, Broken::NoValue)]),
            ("[a]\nx=1\nX: 2", vec![(2, Broken::Duplicate("option"))]),
            ("[a]\n[b]\n[a]", vec![(2, Broken::Duplicate("section"))]),
            ("[a]\n  x=1\n  y", vec![(2, Broken::NoValue)]),
            ("[a]\n  x=1\n    y", vec![]),
        ] {
            assert_eq!(check(text).broken, expected, "{text}");
        }
    }
}
