//! YAML files of other programs as JSON, with the types that `PyYAML`'s `safe_load` gives (YAML 1.1).
//!
//! What JSON has no form for (dates, infinities, integers beyond 64 bits) stays the text that was typed.

use std::sync::LazyLock;

use regex::Regex;
use saphyr_parser::ScalarStyle;
use serde_json::{Map, Number, Value as Json};

use super::diagnostics::Problems;
use super::events::Dialect;
use super::node::{Node, Scalar, Value};
use super::{Invalid, MAX_SIZE, too_large, tree, without_mark};
use crate::error::Error;
use crate::secret::regex;

/// Parses the text of a YAML file that some other program owns. `name` is what errors call it. Keys become
/// texts, as Python's `json.dumps` makes them.
pub fn json(name: &str, text: &str) -> Result<Json, Error> {
    if text.len() > MAX_SIZE {
        return Err(too_large(name));
    }
    let text = without_mark(text);
    let mut problems = Problems::new(name, text);
    let root = tree(text, Dialect::Foreign, &mut problems);
    match (root, problems.complete()) {
        (Some(root), problems) if problems.is_empty() => Ok(value(&root)),
        (_, problems) => Err(Invalid(problems).into()),
    }
}

fn value(node: &Node) -> Json {
    match &node.value {
        Value::Scalar(text) => scalar(text),
        Value::Sequence(items) => items.iter().map(value).collect(),
        Value::Mapping(pairs) => {
            let pairs = pairs.iter().map(|(name, inner)| (key(name), value(inner)));
            Json::Object(pairs.collect::<Map<_, _>>())
        }
    }
}

fn key(node: &Node) -> String {
    match value(node) {
        Json::String(text) => text,
        other => other.to_string(),
    }
}

fn scalar(scalar: &Scalar) -> Json {
    let text = scalar.text.as_str();
    if scalar.null {
        return Json::Null;
    }
    if scalar.style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => true.into(),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => false.into(),
        _ => number(text).map_or_else(|| text.into(), Json::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.replace('_', "");
    if INTEGER.is_match(text) {
        let integer = integer(&digits)?;
        let unsigned = u64::try_from(integer).map(Number::from);
        return unsigned
            .or_else(|_| i64::try_from(integer).map(Number::from))
            .ok();
    }
    if FLOAT.is_match(text) {
        return Number::from_f64(float(&digits)?);
    }
    None
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = sign(text);
    let magnitude = if digits.contains(':') {
        // To the base of sixty, as hours, minutes and seconds.
        digits.split(':').try_fold(0_i128, |sum, part| {
            sum.checked_mul(60)?.checked_add(part.parse().ok()?)
        })?
    } else if let Some(bits) = digits.strip_prefix("0b") {
        i128::from_str_radix(bits, 2).ok()?
    } else if let Some(digits) = digits.strip_prefix("0x") {
        i128::from_str_radix(digits, 16).ok()?
    } else {
        let radix = if digits.starts_with('0') { 8 } else { 10 };
        i128::from_str_radix(digits, radix).ok()?
    };
    Some(if sign { -magnitude } else { magnitude })
}

fn float(text: &str) -> Option<f64> {
    let (sign, digits) = sign(text);
    let magnitude: f64 = if digits.contains(':') {
        digits.split(':').try_fold(0.0, |sum, part| {
            Some(sum * 60.0 + part.parse::<f64>().ok()?)
        })?
    } else {
        digits.parse().ok()?
    };
    Some(if sign { -magnitude } else { magnitude })
}

/// Whether there is a minus, and what is behind the sign.
fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// The forms of numbers that have a form in JSON (the types `int` and `float` of YAML 1.1, as `PyYAML`
/// knows them).
static INTEGER: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"^[-+]?(0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])+)$")
});
static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*)$",
    )
});
