//! `cmds`: Dockerfile instructions, each of whose problems points into the build file.

use saphyr_parser::{ScalarStyle, Span};

use super::diagnostics::span;
use super::node::{Node, Scalar};
use super::shape::Decoder;
use super::{Cmds, Instructions};
use crate::dockerfile::{self, SyntaxError};

/// The keys of `cmds`.
pub(super) const CMDS: [&str; 2] = ["pre", "post"];

impl Decoder<'_, '_> {
    /// The value of the key `cmds`.
    pub(super) fn cmds(&mut self, node: &Node) -> Cmds {
        let mut cmds = Cmds::default();
        for (name, value) in self.record(node, "cmds", &CMDS) {
            let instructions = self.instructions(value, &format!("cmds.{}", name.key()));
            match name.key() {
                "pre" => cmds.pre = instructions,
                _ => cmds.post = instructions,
            }
        }
        cmds
    }

    fn instructions(&mut self, node: &Node, what: &str) -> Instructions {
        let Some(scalar) = self.scalar(node, what) else {
            return Instructions::default();
        };
        // What is shown is read as well: errors and the history quote it, and `%ENV{…}` is not for them.
        let (read, shown) = (
            dockerfile::parse(&scalar.text),
            dockerfile::parse(&scalar.shown),
        );
        let (mut read, shown) = match (read, shown) {
            (Ok(read), Ok(shown)) => (read, shown),
            (_, Err(errors)) => {
                self.syntax(&errors, scalar, node.span);
                return Instructions::default();
            }
            (Err(errors), Ok(_)) => {
                let message = format!("`{what}` is wrong once `%ENV{{…}}` is replaced");
                let line = errors.first().map_or(0, |error| error.line);
                let hint = format!("look at its line {line}: a value may need quotes");
                self.problem(node.span, message, hint);
                return Instructions::default();
            }
        };
        let kinds = read.iter().map(|instruction| instruction.kind.name());
        if !kinds.eq(shown.iter().map(|instruction| instruction.kind.name())) {
            let message = format!("a value of `%ENV{{…}}` adds instructions to `{what}`");
            self.problem(
                node.span,
                message,
                "write instructions out, and values as `%ENV{…}`",
            );
            return Instructions::default();
        }
        for (instruction, shown) in read.iter_mut().zip(&shown) {
            instruction.source.clone_from(&shown.source);
        }
        Instructions {
            text: scalar.text.clone(),
            parsed: read,
            shown,
        }
    }

    fn syntax(&mut self, errors: &[SyntaxError], scalar: &Scalar, place: Span) {
        let lines: Vec<&str> = scalar.shown.split('\n').collect();
        // A literal block begins with its first line that is not blank.
        let blank = lines
            .iter()
            .take_while(|line| line.trim().is_empty())
            .count();
        for error in errors {
            let at = self.in_block(error, &lines, blank, scalar, place);
            let hint = error.hint.as_deref().unwrap_or_default();
            self.problem(at, &error.message, hint);
        }
    }

    /// Where an error is in the file. A literal block shows its lines as they are; other styles fold and
    /// escape them, and are pointed at as a whole, unless they are one line that reads the same.
    fn in_block(
        &self,
        error: &SyntaxError,
        lines: &[&str],
        blank: usize,
        scalar: &Scalar,
        place: Span,
    ) -> Span {
        let literal = scalar.style == ScalarStyle::Literal;
        let number = match (error.line - 1).checked_sub(blank) {
            Some(below) if literal => place.start.line() + below,
            _ => place.start.line(),
        };
        let text = lines.get(error.line - 1).copied().unwrap_or_default();
        let line = self.problems.line(number);
        let before = if literal {
            line.strip_suffix(text)
        } else if lines.len() == 1 {
            line.find(text).map(|at| &line[..at])
        } else {
            None
        };
        match before {
            Some(before) => span(
                number,
                before.chars().count() + error.column - 1,
                error.width,
            ),
            // The line holds a masked value.
            None if literal => {
                let indentation = line.chars().take_while(|c| c.is_whitespace()).count();
                span(number, indentation, line.trim().chars().count())
            }
            None => place,
        }
    }
}
