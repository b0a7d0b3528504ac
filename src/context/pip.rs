//! `requirements.txt` and `pip.conf`, and whether pip can see the workspace through them.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::buildfile::Layout;
use crate::secret::regex;

/// Either form of the variables that hold the image's two directories.
static DIRECTORY: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\$(?:\{(WORKSPACE|VIRTUAL_ENV)\}|(WORKSPACE|VIRTUAL_ENV)\b)"));

/// `${NAME}` as pip itself replaces it in requirements.
static VARIABLE: LazyLock<Regex> = LazyLock::new(|| regex(r"\$\{([A-Z0-9_]+)\}"));

/// Settings of pip that take a path. Any file of such a setting that is relative counts.
const PATH_SETTINGS: [&str; 18] = [
    "build",
    "build-constraint",
    "cache-dir",
    "cert",
    "client-cert",
    "config-file",
    "constraint",
    "editable",
    "find-links",
    "log",
    "prefix",
    "python",
    "report",
    "requirement",
    "requirements-from-script",
    "root",
    "src",
    "target",
];

/// Endings by which pip takes a bare word for a file.
const ARCHIVES: [&str; 13] = [
    ".whl",
    ".zip",
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz",
    ".tar.xz",
    ".txz",
    ".tlz",
    ".tar.lz",
    ".tar.lzma",
    ".txt",
];

/// The text of `requirements.txt`. `$WORKSPACE` and `$VIRTUAL_ENV` are replaced in both of their
/// forms, since pip knows only the one with braces; other variables are left to pip.
pub(super) fn requirements<T: AsRef<str>>(packages: &[T], layout: Layout) -> String {
    let mut text = String::new();
    for package in packages {
        let package = package.as_ref().trim_end();
        text.push_str(&DIRECTORY.replace_all(package, |found: &Captures<'_>| {
            let name = found
                .get(1)
                .or_else(|| found.get(2))
                .map_or("", |name| name.as_str());
            if name == "WORKSPACE" {
                layout.workspace()
            } else {
                layout.virtual_env()
            }
        }));
        text.push('\n');
    }
    text
}

/// Whether one of them names the workspace or may name a path in it: see
/// [`pip_sees_workspace`](super::pip_sees_workspace).
pub(super) fn sees_workspace(
    requirements: &str,
    pip_conf: Option<&str>,
    env: &[(String, String)],
) -> bool {
    let requirements = VARIABLE.replace_all(requirements, |found: &Captures<'_>| {
        let value = env.iter().rev().find(|(name, _)| *name == found[1]);
        value.map_or_else(|| found[0].to_owned(), |(_, value)| value.clone())
    });
    let requirements = requirements.replace("\\\n", "");
    requirements.lines().any(requirement_sees)
        || pip_conf.is_some_and(configuration_sees)
        || env.iter().any(|(name, value)| {
            let setting = ["PIP_", "UV_"]
                .iter()
                .find_map(|own| name.strip_prefix(own));
            setting.is_some_and(|setting| setting_sees(setting, value))
        })
}

fn requirement_sees(line: &str) -> bool {
    let line = line.trim_start();
    // A comment begins at the start of a line or after white space.
    let line = if line.starts_with('#') { "" } else { line };
    let line = line.split(" #").next().unwrap_or(line);
    if let Some(option) = line.strip_prefix("--") {
        let (name, value) = option.split_once(['=', ' ', '\t']).unwrap_or((option, ""));
        return setting_sees(name, value);
    }
    // `-r file`, `-rfile`, and the same with the other options of one letter that take a path.
    let short = ["-r", "-c", "-e", "-f"]
        .iter()
        .find_map(|option| line.strip_prefix(option));
    match short {
        Some(value) => setting_sees("requirement", value),
        None => words(line).any(is_in_workspace),
    }
}

fn configuration_sees(text: &str) -> bool {
    let mut name = "";
    let is_comment = |line: &&str| line.trim_start().starts_with(['#', ';']);
    text.lines().filter(|line| !is_comment(line)).any(|line| {
        // A line that is indented goes on with the value above.
        let continued = line.starts_with([' ', '\t']);
        let value = match line.split_once(['=', ':']) {
            Some((key, value)) if !continued => {
                name = key.trim();
                value
            }
            _ => line,
        };
        setting_sees(name, value)
    })
}

/// Whether the value of a setting, as `pip.conf`, an option or a variable has it, is such a path.
fn setting_sees(name: &str, value: &str) -> bool {
    let name = name.trim().to_ascii_lowercase().replace('_', "-");
    let takes_path = PATH_SETTINGS.contains(&name.as_str());
    words(value).any(|word| {
        let relative = !word.starts_with('/') && !is_remote(word);
        is_in_workspace(word) || (takes_path && relative)
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| letter.is_whitespace() || "\"'".contains(letter))
        .filter(|word| !word.is_empty())
}

fn is_in_workspace(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    if word.contains("WORKSPACE")
        || word.contains(Layout::Split.workspace())
        || word.starts_with(Layout::Pyats.workspace())
        || lower.contains("file:")
    {
        return true;
    }
    if is_remote(word) {
        return false;
    }
    let archive = ARCHIVES.iter().any(|ending| lower.ends_with(ending));
    let relative = !word.starts_with('/');
    relative && (word.starts_with('.') || word.contains('/') || archive)
}

/// Whether it is, or holds as `name@https://…` does, a URL of something elsewhere.
fn is_remote(word: &str) -> bool {
    word.contains("://")
}
