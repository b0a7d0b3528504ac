//! What is wrong with the files that say where images are, and with `--registry-mirror`.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::error::{Error, Kind};
use crate::registry::reference::{InvalidReference, Problem};

/// Why it is not known where an image is, or why it may not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file or folder cannot be read; names the path.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// A file is not what it should be.
    #[error("{whence}: {problem}")]
    Invalid {
        /// The file and line.
        whence: Whence,
        /// What is wrong there.
        problem: PolicyProblem,
    },
    /// A value of `--registry-mirror` is none.
    #[error("`{value}` is not a mirror: {problem}")]
    Mirror {
        /// What was given, with user information masked.
        value: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The user, or who looks after this machine, does not want it.
    #[error("`{reference}` is blocked by the prefix `{prefix}` in {whence}")]
    Blocked {
        /// The complete reference, as it was named.
        reference: String,
        /// The prefix that blocks.
        prefix: String,
        /// The file and line.
        whence: Whence,
    },
    /// A rule leads to something that is no place of an image.
    #[error("{whence} leads `{reference}` astray")]
    Astray {
        /// The complete reference, as it was named.
        reference: String,
        /// Where the rule stands.
        whence: Whence,
        /// What came of it.
        source: InvalidReference,
    },
}

/// Where something is said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Whence {
    /// In a file of the container tools.
    File {
        /// As it was found.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// On the command line.
    Option,
}

/// What is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyProblem {
    /// It is no TOML, or a value is of another type than it should be.
    #[error("{0}")]
    Syntax(String),
    /// Nobody can tell which of two keys counts.
    #[error("the key `{0}` is there another time in another letter case")]
    Twin(String),
    /// No image can lie there.
    #[error("`{text}` is not a place of images: {problem}")]
    Place {
        /// The value, with user information masked.
        text: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Only prefixes such as `*.example.com` do without.
    #[error("a `location` is missing")]
    NoLocation,
    /// `*` stands for the beginning of a host, and nothing else.
    #[error("the prefix `{0}` has more beside `*` than a domain, as in `*.example.com`")]
    Wildcard(String),
    /// `pull-from-mirror` in `[[registry]]`.
    #[error("`pull-from-mirror` belongs into `[[registry.mirror]]`")]
    NotAMirror,
    /// Two keys that say the same in different ways.
    #[error("`pull-from-mirror` does not go together with `mirror-by-digest-only`")]
    Twice,
    /// Another word than the three.
    #[error("`{0}` is not `all`, `digest-only` or `tag-only`")]
    PullFromMirror(String),
    /// Two entries lead to one place, and differ.
    #[error("`{location}` has another `{key}` elsewhere in the file")]
    Conflict {
        /// The place.
        location: String,
        /// `insecure` or `blocked`.
        key: &'static str,
    },
    /// `[registries.…]` beside the keys of version 2.
    #[error("`[registries]` of the format's version 1 does not go together with version 2")]
    Mixed,
    /// `[registries.…]` in a drop-in.
    #[error("`[registries]` of the format's version 1 does not belong into a drop-in")]
    OldDropIn,
}

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Self {
        Self::from_enum(Kind::Options, error.hint(), error).usage()
    }
}

impl PolicyError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Invalid { .. } | Self::Astray { .. } => {
                "containers-registries.conf(5) describes these files; `CONTAINERS_REGISTRIES_CONF` names another one".to_owned()
            }
            Self::Mirror { .. } => {
                "write `--registry-mirror [REGISTRY=]HOST[:PORT][/PATH]`; a host without a dot needs its port".to_owned()
            }
            Self::Blocked { .. } => {
                "use another image, or remove `blocked` there if that is yours to decide".to_owned()
            }
            Self::Read(error) if error.kind() == io::ErrorKind::NotFound => {
                "check `CONTAINERS_REGISTRIES_CONF` and `CONTAINERS_REGISTRIES_CONF_OVERRIDE`".to_owned()
            }
            Self::Read(_) => return None,
        })
    }
}

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "`{}`, line {line}", path.display()),
            Self::Option => f.write_str("`--registry-mirror`"),
        }
    }
}
