//! A build file as a tree of nodes that know where they stand.

use saphyr_parser::{ScalarStyle, Span};

/// A value of the file, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// In the order of the file; keys are scalars and differ.
    Mapping(Vec<(Node, Node)>),
}

/// Text, as it was typed.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    /// With every `%ENV{NAME}` replaced.
    pub(super) text: String,
    /// With every `%ENV{NAME}` masked.
    pub(super) shown: String,
    /// Nothing, `~` or `null`.
    pub(super) null: bool,
    pub(super) style: ScalarStyle,
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.null)
    }

    /// The text of a key; every key is a scalar.
    pub(super) fn key(&self) -> &str {
        match &self.value {
            Value::Scalar(scalar) => &scalar.text,
            _ => "",
        }
    }

    /// The text of a key for messages and paths.
    pub(super) fn shown_key(&self) -> &str {
        match &self.value {
            Value::Scalar(scalar) => &scalar.shown,
            _ => "",
        }
    }

    /// What a message calls it.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) if scalar.null => "nothing",
            Value::Scalar(_) => "text",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    pub(super) fn size(&self) -> Size {
        let mut size = Size {
            nodes: 1,
            bytes: 0,
            depth: 1,
        };
        let mut add = |node: &Self| {
            let inner = node.size();
            size.nodes += inner.nodes;
            size.bytes += inner.bytes;
            size.depth = size.depth.max(inner.depth + 1);
        };
        match &self.value {
            Value::Scalar(scalar) => size.bytes = scalar.text.len() + scalar.shown.len(),
            Value::Sequence(items) => items.iter().for_each(add),
            Value::Mapping(pairs) => pairs.iter().for_each(|(key, value)| {
                add(key);
                add(value);
            }),
        }
        size
    }
}

/// How much a node holds: itself, the nodes in it, their texts, and how deep they nest.
#[derive(Default, Clone, Copy)]
pub(super) struct Size {
    pub(super) nodes: usize,
    pub(super) bytes: usize,
    pub(super) depth: usize,
}
