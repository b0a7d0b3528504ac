//! Writes YAML that every reader takes for the same texts.
//!
//! Serialisers by the core schema of YAML 1.2 leave `yes`, `12:30` or `1_000` unquoted, and `PyYAML`
//! reads a truth value, a number of seconds and a thousand. Here a text is plain only if no schema
//! could take it for anything else, a block if it has several plain lines, and quoted otherwise.

use std::fmt::Write as _;

/// What can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Yaml {
    Null,
    Text(String),
    List(Vec<Yaml>),
    Mapping(Vec<(String, Yaml)>),
}

/// The text of a YAML file.
pub(super) fn print(yaml: &Yaml) -> String {
    let mut out = String::new();
    match yaml {
        Yaml::Mapping(pairs) if !pairs.is_empty() => mapping(pairs, 0, &mut out),
        Yaml::List(items) if !items.is_empty() => list(items, 0, &mut out),
        other => value(other, 0, &mut out),
    }
    let text = out.strip_prefix([' ', '\n']).unwrap_or(&out);
    text.to_owned()
}

fn mapping(pairs: &[(String, Yaml)], depth: usize, out: &mut String) {
    for (at, (key, inner)) in pairs.iter().enumerate() {
        // The first pair of a list's item stands behind its dash.
        if at > 0 || !out.ends_with("- ") {
            let _ = write!(out, "{:depth$}", "");
        }
        let key = if plain(key) { key.clone() } else { quoted(key) };
        if key.len() > MAX_KEY {
            let _ = write!(out, "? {key}\n{:depth$}:", "");
        } else {
            let _ = write!(out, "{key}:");
        }
        value(inner, depth, out);
    }
}

/// `PyYAML` takes no longer key without a `?` (1,024 characters).
const MAX_KEY: usize = 200;

fn list(items: &[Yaml], depth: usize, out: &mut String) {
    for item in items {
        let _ = write!(out, "{:depth$}-", "");
        match item {
            Yaml::Mapping(pairs) if !pairs.is_empty() => {
                out.push(' ');
                mapping(pairs, depth + 2, out);
            }
            other => value(other, depth, out),
        }
    }
}

/// What stands behind `key:` or `-`, which are indented by `depth`.
fn value(yaml: &Yaml, depth: usize, out: &mut String) {
    match yaml {
        Yaml::Null => out.push_str(" null\n"),
        Yaml::List(items) if items.is_empty() => out.push_str(" []\n"),
        Yaml::Mapping(pairs) if pairs.is_empty() => out.push_str(" {}\n"),
        Yaml::List(items) => {
            out.push('\n');
            list(items, depth + 2, out);
        }
        Yaml::Mapping(pairs) => {
            out.push('\n');
            mapping(pairs, depth + 2, out);
        }
        Yaml::Text(text) if plain(text) => {
            let _ = writeln!(out, " {text}");
        }
        Yaml::Text(text) if block(text) => {
            let body = text.trim_end_matches('\n');
            let keep = match text.len() - body.len() {
                0 => "-",
                1 => "",
                _ => "+",
            };
            let _ = writeln!(out, " |{keep}");
            for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
                let indentation = if line.is_empty() { 0 } else { depth + 2 };
                let _ = writeln!(out, "{:indentation$}{line}", "");
            }
        }
        Yaml::Text(text) => {
            let _ = writeln!(out, " {}", quoted(text));
        }
    }
}

/// Numbers, dates and infinities of YAML 1.1 begin with a digit, a sign or a dot, and no such text is
/// plain here; its other words are these.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

fn plain(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_' | '$');
    let inner = |c: char| c.is_ascii_alphanumeric() || " ./_-+=@$~{}[]:,;<>()*!^".contains(c);
    text.starts_with(first)
        && text.chars().all(inner)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

fn block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || shows(c))
}

/// The characters that a YAML file may hold and that are no line break to any reader.
fn shows(c: char) -> bool {
    let special = matches!(
        c,
        '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    );
    (!c.is_control() || c == '\t') && !special
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if shows(c) => quoted.push(c),
            c => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}
