//! What the user typed about the base: where it comes from, and when a registry is asked.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Kind};
use crate::registry::{InvalidReference, Reference};

/// Where a base comes from.
///
/// The path ends at the first colon, as with other tools: names in a layout may have colons
/// themselves (`oci:images:docker.io/library/python:3.11`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A registry reference.
    Registry(Reference),
    /// `oci:DIR[:TAG]`
    OciDir(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]`
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:TAG]`
    DockerArchive(PathBuf, Option<String>),
}

/// A text that is not a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSource {
    /// Neither a reference nor a kind of file.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// `oci:` and nothing more.
    #[error("`{0}` names no path; a right one looks like `{1}image` or `{1}image:latest`")]
    NoPath(String, &'static str),
    /// `oci:DIR:`
    #[error("`{0}` ends with a colon, but without a tag")]
    NoTag(String),
}

const OCI_DIR: &str = "oci:";
const OCI_ARCHIVE: &str = "oci-archive:";
const DOCKER_ARCHIVE: &str = "docker-archive:";

impl From<InvalidSource> for Error {
    fn from(error: InvalidSource) -> Self {
        Self::from_source(Kind::Options, error).usage().with_hint(
            "use a registry reference, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE`",
        )
    }
}

impl FromStr for Source {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        for prefix in [OCI_DIR, OCI_ARCHIVE, DOCKER_ARCHIVE] {
            let Some(rest) = text.strip_prefix(prefix) else {
                continue;
            };
            let (path, tag) = match rest.split_once(':') {
                Some((_, "")) => return Err(InvalidSource::NoTag(text.to_owned())),
                Some((path, tag)) => (path, Some(tag.to_owned())),
                None => (rest, None),
            };
            if path.is_empty() {
                return Err(InvalidSource::NoPath(text.to_owned(), prefix));
            }
            let path = PathBuf::from(path);
            return Ok(match prefix {
                OCI_DIR => Self::OciDir(path, tag),
                OCI_ARCHIVE => Self::OciArchive(path, tag),
                _ => Self::DockerArchive(path, tag),
            });
        }
        Ok(Self::Registry(text.parse()?))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, path, tag) = match self {
            Self::Registry(reference) => return reference.fmt(f),
            Self::OciDir(path, tag) => (OCI_DIR, path, tag),
            Self::OciArchive(path, tag) => (OCI_ARCHIVE, path, tag),
            Self::DockerArchive(path, tag) => (DOCKER_ARCHIVE, path, tag),
        };
        write!(f, "{prefix}{}", path.display())?;
        match tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

/// When a registry is asked for a tag that the store knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Ask unless the answer is less than an hour old.
    Default,
    /// Always ask.
    Always,
    /// Ask only for what is not there.
    Missing,
    /// Never ask.
    Never,
}

/// A text that is not a [`Pull`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of `always`, `missing`, `never`")]
pub struct InvalidPull(pub String);

impl FromStr for Pull {
    type Err = InvalidPull;

    fn from_str(text: &str) -> Result<Self, InvalidPull> {
        match text {
            "default" => Ok(Self::Default),
            "always" => Ok(Self::Always),
            "missing" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            _ => Err(InvalidPull(text.to_owned())),
        }
    }
}

impl fmt::Display for Pull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Always => "always",
            Self::Missing => "missing",
            Self::Never => "never",
        })
    }
}
