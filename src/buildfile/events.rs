//! The events of a YAML parser become a tree of nodes.
//!
//! Scalars keep the text that was typed. Anchors, aliases and merge keys are resolved as YAML 1.1 and
//! `PyYAML` do it; keys are unique; depth and expansion are limited, so a hostile file costs little.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::diagnostics::{Problems, span};
use super::interpolate::{Unresolved, interpolate};
use super::node::{Node, Scalar, Size, Value};

/// Lists in lists: no key of a build file needs more than five, and the tree is walked recursively.
const MAX_DEPTH: usize = 64;
/// Values in one file. A megabyte of brackets would be a hundred megabytes of tree.
const MAX_NODES: usize = 100_000;
/// What all anchors and aliases together may copy.
const MAX_ALIAS_NODES: usize = 20_000;
const MAX_ALIAS_BYTES: usize = 4 << 20;

/// Gives environment variables.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Whose file is read.
#[derive(Clone, Copy)]
pub(super) enum Dialect<'a> {
    /// A build file: `%ENV{NAME}` asks for a variable, and no key is there twice.
    BuildFile(Lookup<'a>),
    /// A file of another program, which reads it with `PyYAML`: of equal keys the last counts.
    Foreign,
}

/// Reads the one document of a file; `None` if it is not valid YAML, which is then a problem.
pub(super) fn parse(text: &str, dialect: Dialect<'_>, problems: &mut Problems<'_>) -> Option<Node> {
    let mut builder = Builder {
        dialect,
        problems,
        stack: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        nodes: 0,
        expanded: Size::default(),
    };
    // The parser takes blanks after the last line break for another line of a block.
    let end = text.trim_end_matches(' ');
    let text = if end.ends_with('\n') { end } else { text };
    let mut documents = 0;
    let mut parser = Parser::new(StrInput::new(text));
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = error.marker();
                builder.invalid(at.line(), at.col(), error.info());
                return None;
            }
        };
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents > 1 {
                let hint = "keep one document: remove what follows `---`";
                builder
                    .problems
                    .add(span, "the file has several YAML documents", hint);
                return None;
            }
        }
        builder.event(event, span)?;
    }
    Some(builder.root.unwrap_or_else(empty))
}

/// The value of a file without any.
fn empty() -> Node {
    let scalar = Scalar {
        text: String::new(),
        shown: String::new(),
        null: true,
        style: ScalarStyle::Plain,
    };
    Node {
        span: span(1, 0, 1),
        value: Value::Scalar(scalar),
    }
}

struct Builder<'a, 'p> {
    dialect: Dialect<'a>,
    problems: &'a mut Problems<'p>,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, (Node, Size)>,
    /// Values so far.
    nodes: usize,
    /// What anchors and aliases copied so far.
    expanded: Size,
}

/// A list or mapping that is not complete yet.
struct Frame {
    span: Span,
    anchor: usize,
    kind: FrameKind,
}

enum FrameKind {
    Sequence(Vec<Node>),
    Mapping {
        pairs: Vec<(Node, Node)>,
        key: Option<Node>,
    },
}

impl Builder<'_, '_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(
                    tag.as_deref(),
                    &["str", "int", "float", "bool", "null", "timestamp"],
                    span,
                );
                let node = self.scalar(&text, style, tag.as_deref(), span);
                self.complete(node, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.as_deref(), &["seq"], span);
                self.open(anchor, span, FrameKind::Sequence(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.as_deref(), &["map"], span);
                self.open(
                    anchor,
                    span,
                    FrameKind::Mapping {
                        pairs: Vec::new(),
                        key: None,
                    },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let frame = self.stack.pop()?;
                let value = match frame.kind {
                    FrameKind::Sequence(items) => Value::Sequence(items),
                    FrameKind::Mapping { pairs, .. } => Value::Mapping(self.mapping(pairs)),
                };
                self.complete(
                    Node {
                        span: frame.span,
                        value,
                    },
                    frame.anchor,
                )?;
            }
            Event::Alias(anchor) => {
                let node = self.alias(anchor, span)?;
                self.complete(node, 0)?;
            }
            _ => {}
        }
        Some(())
    }

    fn open(&mut self, anchor: usize, span: Span, kind: FrameKind) -> Option<()> {
        if self.stack.len() >= MAX_DEPTH {
            self.problems.add(
                span,
                format!("the file is nested more than {MAX_DEPTH} deep"),
                "",
            );
            return None;
        }
        self.stack.push(Frame { span, anchor, kind });
        Some(())
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Option<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.problems.add(
                node.span,
                format!("the file has more than {MAX_NODES} values"),
                "",
            );
            return None;
        }
        if anchor > 0 {
            let size = node.size();
            self.expand(size, node.span)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.stack.last_mut().map(|frame| &mut frame.kind) {
            None => self.root = Some(node),
            Some(FrameKind::Sequence(items)) => items.push(node),
            Some(FrameKind::Mapping { pairs, key }) => match key.take() {
                None => *key = Some(node),
                Some(key) => pairs.push((key, node)),
            },
        }
        Some(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Option<Node> {
        let Some(size) = self.anchors.get(&anchor).map(|(_, size)| *size) else {
            self.problems
                .add(span, "the alias stands inside the value that it names", "");
            return None;
        };
        self.expand(size, span)?;
        self.anchors.get(&anchor).map(|(node, _)| node.clone())
    }

    fn expand(&mut self, size: Size, span: Span) -> Option<()> {
        self.expanded.nodes += size.nodes;
        self.expanded.bytes += size.bytes;
        if self.expanded.nodes > MAX_ALIAS_NODES
            || self.expanded.bytes > MAX_ALIAS_BYTES
            || self.stack.len() + size.depth > MAX_DEPTH
        {
            self.problems.add(
                span,
                "the anchors and aliases of the file expand to too much",
                "",
            );
            return None;
        }
        Some(())
    }

    fn tag(&mut self, tag: Option<&Tag>, allowed: &[&str], span: Span) {
        let Some(tag) = tag else { return };
        let known = tag.is_yaml_core_schema() && allowed.contains(&tag.suffix.as_str());
        if !(known || tag.suffix.is_empty() || tag.suffix == "!") {
            let name = if tag.is_yaml_core_schema() {
                format!("!!{}", tag.suffix)
            } else {
                tag.to_string()
            };
            let hint = "remove the tag: text, lists and mappings need none";
            self.problems.add(
                span,
                format!("the tag `{name}` is not supported here"),
                hint,
            );
        }
    }

    fn scalar(&mut self, typed: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let (text, shown) = match self.dialect {
            Dialect::Foreign => (typed.to_owned(), typed.to_owned()),
            Dialect::BuildFile(lookup) => {
                let result = interpolate(typed, lookup);
                for problem in &result.problems {
                    self.unresolved(problem, span);
                }
                (result.text, result.shown)
            }
        };
        if text.contains('\0') {
            self.problems
                .add(span, "text may not hold a NUL character", "");
        }
        let null = match tag {
            Some(tag) => tag.is_yaml_core_schema() && tag.suffix == "null",
            None => {
                style == ScalarStyle::Plain && matches!(typed, "" | "~" | "null" | "Null" | "NULL")
            }
        };
        // A tag says, as quotes do, that this is text.
        let text_by_tag = tag.is_some_and(|tag| !tag.is_yaml_core_schema() || tag.suffix == "str");
        let style = match style {
            ScalarStyle::Plain if text_by_tag => ScalarStyle::DoubleQuoted,
            style => style,
        };
        let scalar = Scalar {
            text,
            shown,
            null,
            style,
        };
        Node {
            span,
            value: Value::Scalar(scalar),
        }
    }

    fn unresolved(&mut self, problem: &Unresolved, scalar: Span) {
        let last = scalar.end.line().min(self.problems.line_count());
        let place = (scalar.start.line()..=last).find_map(|number| {
            let skip = if number == scalar.start.line() {
                scalar.start.col()
            } else {
                0
            };
            let line = self.problems.line(number);
            let from = line
                .char_indices()
                .nth(skip)
                .map_or(line.len(), |(at, _)| at);
            let at = from + line[from..].find(&problem.placeholder)?;
            Some(span(
                number,
                line[..at].chars().count(),
                problem.placeholder.chars().count(),
            ))
        });
        let place = place.unwrap_or(scalar);
        if let Some(name) = &problem.variable {
            let hint = format!("set it before building, such as `export {name}=…`");
            let message = format!("the environment variable `{name}` is not set");
            self.problems.add(place, message, hint);
        } else {
            let hint = "write `%ENV{NAME}`; a name has letters, digits and underscores";
            self.problems
                .add(place, "`%ENV{` is not followed by a name and `}`", hint);
        }
    }

    /// Resolves merge keys and refuses keys that are no text or there twice.
    fn mapping(&mut self, pairs: Vec<(Node, Node)>) -> Vec<(Node, Node)> {
        let mut merged = Pairs::default();
        let mut own: Vec<(Node, Node)> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        for (key, value) in pairs {
            let Value::Scalar(scalar) = &key.value else {
                self.problems.add(
                    key.span,
                    format!("a key must be text, not {}", key.kind()),
                    "",
                );
                continue;
            };
            let first = seen.get(&scalar.text).copied();
            if let (Some(first), Dialect::BuildFile(_)) = (first, self.dialect) {
                let message = format!("duplicate key `{}`", scalar.shown);
                self.problems
                    .add_related(key.span, message, first, "first used here");
                continue;
            }
            seen.insert(scalar.text.clone(), key.span);
            if scalar.style == ScalarStyle::Plain && scalar.text == "<<" {
                self.merge(value, &mut merged);
            } else {
                own.push((key, value));
            }
        }
        for pair in own {
            merged.set(pair);
        }
        merged.pairs
    }

    /// The order of `PyYAML`: of several mappings the last comes first, and the first wins.
    fn merge(&mut self, value: Node, merged: &mut Pairs) {
        let sources = match value.value {
            Value::Sequence(items) => items,
            _ => vec![value],
        };
        for source in sources.into_iter().rev() {
            let kind = source.kind();
            let Value::Mapping(pairs) = source.value else {
                let message = format!("`<<` merges mappings, not {kind}");
                self.problems
                    .add(source.span, message, "name a mapping: `<<: *anchor`");
                continue;
            };
            for pair in pairs {
                merged.set(pair);
            }
        }
    }

    /// What the parser says about text that is no YAML.
    fn invalid(&mut self, line: usize, column: usize, info: &str) {
        let text = self.problems.line(line);
        if let Some((line, column)) = self.tab(line, info) {
            let hint = "YAML does not allow tabs for indentation: use spaces";
            self.problems.add(
                span(line, column, 1),
                "invalid YAML: a tab in the indentation",
                hint,
            );
            return;
        }
        let hint = if info.contains("unknown anchor") {
            "put text that begins with `*` in quotes"
        } else if info.contains("mapping values") {
            "put text that contains `: ` in quotes, and indent keys of one mapping equally"
        } else if text.contains("%ENV{") {
            "put text that begins with `%` in quotes"
        } else if info.contains("quoted scalar") {
            "close the quotes, with the quote that opened them"
        } else if info.contains("character") {
            "put text that begins with a special character in quotes"
        } else {
            "look for a missing colon, quote or bracket here or just above"
        };
        self.problems
            .add(span(line, column, 1), format!("invalid YAML: {info}"), hint);
    }

    /// A tab that indents the line of an error or, where the parser speaks of one, its neighbour.
    fn tab(&self, line: usize, info: &str) -> Option<(usize, usize)> {
        let neighbours = if info.contains("tab") {
            [line, line + 1, line.saturating_sub(1)]
        } else {
            [line; 3]
        };
        neighbours.into_iter().find_map(|number| {
            let line = self.problems.line(number);
            let column = line
                .chars()
                .take_while(|c| c.is_whitespace())
                .position(|c| c == '\t')?;
            (!line.trim().is_empty()).then_some((number, column))
        })
    }
}

/// Pairs in the order of their first mention, with the value of the last.
#[derive(Default)]
struct Pairs {
    pairs: Vec<(Node, Node)>,
    places: HashMap<String, usize>,
}

impl Pairs {
    fn set(&mut self, (key, value): (Node, Node)) {
        if let Some(&at) = self.places.get(key.key()) {
            self.pairs[at] = (key, value);
        } else {
            self.places.insert(key.key().to_owned(), self.pairs.len());
            self.pairs.push((key, value));
        }
    }
}
