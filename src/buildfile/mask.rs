//! The build file as the image keeps it, in `installation/build.yaml`: without any credential.
//!
//! Masked are the values of `%ENV{…}`, the user information of every URL, `credentials` and `ssh_key`
//! of repositories, user names of proxies, and options of pip that hold a secret. `env` is not secret.

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;

use super::node::{Node, Value};
use super::print::{Yaml, print};
use crate::secret::{mask, regex};

/// How the values below a key are masked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    /// Credentials of URLs alone.
    Open,
    /// As `Open`, with what a repository may hold.
    Repositories,
    /// As `Open`, with what `pip.conf` may hold.
    Pip,
    /// A proxy, whose credentials may stand without a scheme: `user:password@host:3128`.
    Proxy,
    /// Everything.
    Hidden,
}

/// The masked build file as YAML, in the order of the file. It holds the same texts otherwise.
pub(super) fn masked(root: &Node) -> String {
    let yaml = if root.is_null() {
        Yaml::Mapping(Vec::new())
    } else {
        tree(root, Secrecy::Open, 0)
    };
    print(&yaml)
}

fn tree(node: &Node, secrecy: Secrecy, depth: usize) -> Yaml {
    match &node.value {
        Value::Scalar(scalar) if scalar.null => Yaml::Null,
        Value::Scalar(scalar) => Yaml::Text(text(&scalar.shown, secrecy)),
        Value::Sequence(items) => Yaml::List(
            items
                .iter()
                .map(|item| tree(item, secrecy, depth + 1))
                .collect(),
        ),
        Value::Mapping(pairs) => {
            let mut mapping: Vec<(String, Yaml)> = Vec::new();
            let mut names: HashSet<String> = HashSet::new();
            for (key, value) in pairs {
                let mut name = mask(key.shown_key());
                // Two keys may differ in their masked parts alone.
                while !names.insert(name.clone()) {
                    name.push('*');
                }
                mapping.push((
                    name,
                    tree(value, below(key.key(), secrecy, depth), depth + 1),
                ));
            }
            Yaml::Mapping(mapping)
        }
    }
}

fn below(key: &str, secrecy: Secrecy, depth: usize) -> Secrecy {
    match (secrecy, key) {
        (Secrecy::Open, "repositories") if depth == 0 => Secrecy::Repositories,
        (Secrecy::Open, "pip-config") if depth == 0 => Secrecy::Pip,
        (Secrecy::Repositories, "credentials" | "ssh_key") if depth >= 2 => Secrecy::Hidden,
        (Secrecy::Pip, name) if SECRET_OPTION.is_match(name) => Secrecy::Hidden,
        (Secrecy::Open | Secrecy::Pip, name) if name.to_ascii_lowercase().ends_with("proxy") => {
            Secrecy::Proxy
        }
        _ => secrecy,
    }
}

fn text(shown: &str, secrecy: Secrecy) -> String {
    match secrecy {
        Secrecy::Hidden => "***".to_owned(),
        Secrecy::Proxy => proxy(shown),
        Secrecy::Pip => pip_conf(shown),
        Secrecy::Open | Secrecy::Repositories => mask(shown),
    }
}

/// Options of pip, or of a plugin, that are secret as a whole.
static SECRET_OPTION: LazyLock<Regex> =
    LazyLock::new(|| regex("(?i)passw|token|secret|api[-_]?key"));

fn proxy(text: &str) -> String {
    let masked = mask(text);
    match masked.rsplit_once('@') {
        Some((_, host)) if !masked.contains("://") => format!("***@{host}"),
        _ => masked,
    }
}

/// The text of a `pip.conf` with its secrets masked; any other text has no line that looks like it.
fn pip_conf(text: &str) -> String {
    let mut hidden: Option<usize> = None;
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let indentation = line.len() - line.trim_start().len();
        if hidden.is_some_and(|option| indentation > option) && !line.trim().is_empty() {
            lines.push(format!("{}***", &line[..indentation]));
            continue;
        }
        let delimiter = line
            .find(['=', ':'])
            .filter(|at| !line[*at..].starts_with("://"));
        let (name, value) = line.split_at(delimiter.map_or(0, |at| at + 1));
        if SECRET_OPTION.is_match(name) {
            hidden = Some(indentation);
            let value = if value.trim().is_empty() {
                value.to_owned()
            } else {
                " ***".to_owned()
            };
            lines.push(format!("{name}{value}"));
        } else if name
            .trim()
            .to_ascii_lowercase()
            .trim_end_matches(['=', ':', ' '])
            .ends_with("proxy")
        {
            hidden = hidden.filter(|_| line.trim().is_empty());
            lines.push(format!("{name}{}", proxy(value)));
        } else {
            hidden = hidden.filter(|_| line.trim().is_empty());
            lines.push(mask(line));
        }
    }
    lines.join("\n")
}
