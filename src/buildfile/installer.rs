//! The key `installer`: who installs the packages, and which of pip's settings mean something to uv.
//!
//! A setting that uv would not go by is an error rather than a surprise in the image.

use std::fmt;
use std::str::FromStr;

use saphyr_parser::Span;

use super::diagnostics::{MAX_PROBLEMS, Problem, Problems};
use super::node::Node;
use super::shape::Decoder;
use super::{BuildFile, Invalid};
use crate::error::Error;

/// Who installs the packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Installer {
    /// The virtual environment's own.
    #[default]
    Pip,
    /// <https://docs.astral.sh/uv/>, at the version that this release of the tool names.
    Uv,
}

impl Installer {
    /// Each of them.
    pub(super) const ALL: [Self; 2] = [Self::Pip, Self::Uv];
}

impl fmt::Display for Installer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pip => "pip",
            Self::Uv => "uv",
        })
    }
}

/// A word that is no installer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use pip or uv")]
pub struct NoInstaller;

impl FromStr for Installer {
    type Err = NoInstaller;

    fn from_str(text: &str) -> Result<Self, NoInstaller> {
        let named = |installer: &Self| installer.to_string() == text;
        Self::ALL.into_iter().find(named).ok_or(NoInstaller)
    }
}

/// pip's settings that uv can go by, and how it is told: by variables, as those are whose values may hold credentials;
/// by an option for each word of the value; by one that stands for a true value, with `?` behind it; or not at all, since
/// the setting says nothing of what is installed, or has been seen to otherwise. `step/uv.py` reads this table.
pub const UV_SETTINGS: [(&str, &str); 41] = [
    ("index-url", "UV_DEFAULT_INDEX"),
    ("extra-index-url", "UV_INDEX"),
    ("find-links", "UV_FIND_LINKS"),
    ("proxy", "HTTP_PROXY HTTPS_PROXY http_proxy https_proxy"),
    ("cert", "SSL_CERT_FILE"),
    ("client-cert", "SSL_CLIENT_CERT"),
    ("timeout", "UV_HTTP_TIMEOUT"),
    ("retries", "UV_HTTP_RETRIES"),
    ("trusted-host", "--allow-insecure-host"),
    ("constraint", "--constraints"),
    ("build-constraint", "--build-constraints"),
    ("no-binary", "--no-binary"),
    ("only-binary", "--only-binary"),
    ("no-index", "--no-index?"),
    ("pre", "--prerelease=allow?"),
    ("require-hashes", "--require-hashes?"),
    ("no-deps", "--no-deps?"),
    ("no-dependencies", "--no-deps?"),
    ("no-cache-dir", "--no-cache?"),
    // pip's cache lies in the store, and so does uv's.
    ("cache-dir", ""),
    // All of the files that pip goes by are read.
    ("config-file", ""),
    // Another version of pip, or another look.
    ("disable-pip-version-check", ""),
    ("exists-action", ""),
    ("format", ""),
    ("no-color", ""),
    ("no-input", ""),
    ("no-python-version-warning", ""),
    ("no-warn-conflicts", ""),
    ("no-warn-script-location", ""),
    ("progress-bar", ""),
    ("quiet", ""),
    ("root-user-action", ""),
    ("use-feature", ""),
    ("verbose", ""),
    // Bytecode is compiled by neither.
    ("compile", ""),
    ("no-compile", ""),
    // What uv does in any case, or does without.
    ("break-system-packages", ""),
    ("no-clean", ""),
    ("require-virtualenv", ""),
    ("resume-retries", ""),
    ("use-pep517", ""),
];

/// Sections of a `pip.conf` that `pip install` reads.
const SECTIONS: [&str; 3] = ["DEFAULT", "global", "install"];

impl Decoder<'_, '_> {
    pub(super) fn installer(&mut self, node: &Node) -> Option<Installer> {
        let text = self.line(node, "installer")?;
        let installer = text.parse().ok();
        if installer.is_none() {
            let message = "`installer` must be `pip` or `uv`";
            self.problem(node.span, message, "");
        }
        installer
    }

    /// Remembers a setting of pip's, called `shown`, if uv has nothing like it; one more than are told is too much.
    pub(super) fn setting(&mut self, section: &str, name: &str, shown: &str, place: Span) {
        if is_for_pip_alone(section, name) && self.not_for_uv.len() < MAX_PROBLEMS {
            self.not_for_uv.push((place, shown.to_owned()));
        }
    }
}

/// Whether pip goes by a setting that uv has nothing like.
pub(super) fn is_for_pip_alone(section: &str, name: &str) -> bool {
    let name = name.replace("default-timeout", "timeout");
    SECTIONS.contains(&section) && !UV_SETTINGS.iter().any(|(known, _)| *known == name)
}

/// What is wrong if uv is the installer.
pub(super) fn problems(name: &str, text: &str, not_for_uv: &[(Span, String)]) -> Vec<Problem> {
    let mut problems = Problems::new(name, text);
    for (place, shown) in not_for_uv {
        let message = format!("uv has nothing like pip's setting `{shown}`");
        let hint = "remove it, or write `installer: pip`, which goes by it";
        problems.add(*place, message, hint);
    }
    problems.complete()
}

impl BuildFile {
    /// Who installs the packages: the one that was `chosen`, or else the build file's. An error if `pip-config` has what
    /// that one cannot go by.
    pub fn installer(&self, chosen: Option<Installer>) -> Result<Installer, Error> {
        let installer = chosen.or(self.installer).unwrap_or_default();
        if installer == Installer::Uv && !self.not_for_uv.is_empty() {
            return Err(Invalid(self.not_for_uv.clone()).into());
        }
        Ok(installer)
    }
}
