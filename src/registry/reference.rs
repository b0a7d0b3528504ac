//! What an image is called: `registry/repository[:tag][@digest]`.
//!
//! Follows the grammar of the distribution specification and Docker's rules of completion: `python`
//! is `docker.io/library/python:latest`. The parser is our own, because the one of `oci-client` knows
//! no IPv6 hosts and does not say what is wrong.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry that a name without one belongs to.
pub(super) const DOCKER_HUB: &str = "docker.io";
/// The limit of registries for the name of a repository.
const LONGEST_NAME: usize = 255;
/// The limit of registries for a tag.
const LONGEST_TAG: usize = 128;

/// A complete reference: it has a registry, and a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {problem}; a right one looks like `{example}`")]
pub struct InvalidReference {
    /// What was given, with user information masked.
    pub text: String,
    /// What is wrong with it.
    pub problem: Problem,
    /// A reference of the kind that was probably meant.
    pub example: &'static str,
}

/// What is wrong with a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Nothing was given.
    #[error("it is empty")]
    Empty,
    /// `https://…`, `docker://…`.
    #[error("it begins with `{0}`, which does not belong there")]
    Scheme(String),
    /// `user@host/…`.
    #[error("it holds an `@` that no digest follows")]
    At,
    /// Something else than sha256.
    #[error("its digest is not `sha256:` and 64 lower-case hexadecimal digits")]
    Digest,
    /// An impossible host or port.
    #[error("`{0}` is not a host with an optional port")]
    Host(String),
    /// An impossible tag.
    #[error(
        "`{0}` is not a tag: up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`"
    )]
    Tag(String),
    /// Upper case in the name.
    #[error("the name `{0}` has upper-case letters")]
    UpperCase(String),
    /// Another character in the name.
    #[error(
        "`{0}` is not a part of a name: lower-case letters and digits with `.`, `_` or `-` between them"
    )]
    Component(String),
    /// Too many characters.
    #[error("its name is longer than 255 characters")]
    TooLong,
    /// Docker would take it for an image's id.
    #[error("64 hexadecimal digits are an image's id, and not a name")]
    Id,
}

impl Reference {
    /// The registry as people write it, such as `docker.io` or `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The host, with the port if there is one, that is spoken to.
    #[must_use]
    pub fn host(&self) -> &str {
        if self.registry == DOCKER_HUB {
            "registry-1.docker.io"
        } else {
            &self.registry
        }
    }

    /// The name within the registry, such as `library/python`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The repository with its registry, without tag and digest.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.registry(), self.repository())
    }

    /// The tag; there is one wherever there is no digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest; it wins over the tag.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same tag and digest in another repository. `place` is `registry/repository`, and the registry
    /// has to be written out: nothing is completed, but for the `library/` of Docker Hub.
    pub fn at(&self, place: &str) -> Result<Self, InvalidReference> {
        let moved = checked_place(place).and_then(|(registry, path)| {
            check_repository(path)?;
            let (registry, repository) = complete(Some(registry), path)?;
            Ok(Self {
                registry,
                repository,
                tag: self.tag.clone(),
                digest: self.digest,
            })
        });
        moved.map_err(|problem| InvalidReference {
            text: masked(place),
            problem,
            example: "registry.example.com:5000/team/image",
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text).map_err(|problem| InvalidReference {
            text: masked(text),
            example: match problem {
                Problem::Digest => {
                    "python@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
                }
                Problem::Host(_) => "registry.example.com:5000/team/image:1.0",
                _ => "python:3.11-slim",
            },
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Reference, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if let Some(end) = text.find("://") {
        return Err(Problem::Scheme(text[..end + 3].to_owned()));
    }
    let (name, digest) = match text.split_once('@') {
        None => (text, None),
        Some((name, digest)) if digest.starts_with("sha") => {
            (name, Some(digest.parse().map_err(|_| Problem::Digest)?))
        }
        Some(_) => return Err(Problem::At),
    };
    let (registry, rest) = split_registry(name)?;
    let (repository, tag) = match rest.split_once(':') {
        None => (rest, None),
        Some((repository, tag)) => (repository, Some(checked_tag(tag)?)),
    };
    if registry.is_none()
        && repository.len() == 64
        && repository.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Err(Problem::Id);
    }
    check_repository(repository)?;
    let (registry, repository) = complete(registry, repository)?;
    let tag = match (tag, digest) {
        (None, None) => Some("latest"),
        (tag, _) => tag,
    };
    Ok(Reference {
        registry,
        repository,
        tag: tag.map(str::to_owned),
        digest,
    })
}

/// Docker's completion: of images without a registry, and of those of Docker Hub without a namespace.
fn complete(registry: Option<&str>, repository: &str) -> Result<(String, String), Problem> {
    let registry = canonical(registry.unwrap_or(DOCKER_HUB));
    let repository = if registry == DOCKER_HUB && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    if repository.len() > LONGEST_NAME {
        return Err(Problem::TooLong);
    }
    Ok((registry.to_owned(), repository))
}

/// Docker Hub has three names, and one that references carry.
pub(super) fn canonical(registry: &str) -> &str {
    match registry {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        registry => registry,
    }
}

/// Splits `registry[/path]`, below which images may lie; the path may be empty.
pub(super) fn checked_place(place: &str) -> Result<(&str, &str), Problem> {
    if place.is_empty() {
        return Err(Problem::Empty);
    }
    if place.contains('@') {
        return Err(Problem::At);
    }
    if let Some(end) = place.find("://") {
        return Err(Problem::Scheme(place[..end + 3].to_owned()));
    }
    let (registry, path) = place.split_once('/').unwrap_or((place, ""));
    if !is_host(registry) || !is_authority(registry) {
        return Err(Problem::Host(registry.to_owned()));
    }
    if place.contains('/') {
        check_repository(path)?;
    }
    Ok((registry, path))
}

/// What stands before the first slash, if that is a registry.
fn split_registry(name: &str) -> Result<(Option<&str>, &str), Problem> {
    let Some((first, rest)) = name.split_once('/') else {
        return Ok((None, name));
    };
    if !is_host(first) {
        return Ok((None, name));
    }
    if !is_authority(first) {
        return Err(Problem::Host(first.to_owned()));
    }
    Ok((Some(first), rest))
}

/// Docker's rule: a registry looks like a host, which is with a dot, a colon or an upper-case letter in
/// it, or as `localhost`.
fn is_host(text: &str) -> bool {
    text == "localhost"
        || text.contains(['.', ':', '['])
        || text.contains(|c: char| c.is_ascii_uppercase())
}

fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, after)) if after.starts_with(':') => (address, Some(&after[1..])),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host_is_right = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
    };
    let port_is_right = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    host_is_right && port_is_right
}

fn checked_tag(tag: &str) -> Result<&str, Problem> {
    let is_right = tag.len() <= LONGEST_TAG
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if is_right {
        Ok(tag)
    } else {
        Err(Problem::Tag(tag.to_owned()))
    }
}

fn check_repository(repository: &str) -> Result<(), Problem> {
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Problem::UpperCase(repository.to_owned()));
    }
    match repository
        .split('/')
        .find(|component| !is_component(component))
    {
        Some(component) => Err(Problem::Component(component.to_owned())),
        None => Ok(()),
    }
}

/// `[a-z0-9]+((.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut runs = text
        .as_bytes()
        .chunk_by(|a, b| is_plain(*a) == is_plain(*b))
        .peekable();
    let mut after_plain = false;
    while let Some(run) = runs.next() {
        if is_plain(run[0]) {
            after_plain = true;
        } else {
            let is_separator =
                matches!(run, b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-');
            if !is_separator || !after_plain || runs.peek().is_none() {
                return false;
            }
        }
    }
    after_plain
}

/// Leaves out what stands before an `@` that separates no digest: it may be a password.
pub(super) fn masked(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, after)) if !after.starts_with("sha") => format!("***@{after}"),
        Some((before, digest)) if before.contains('@') => {
            let before = before.rsplit('@').next().unwrap_or_default();
            format!("***@{before}@{digest}")
        }
        _ => text.to_owned(),
    }
}
