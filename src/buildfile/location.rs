//! Where something lies that is not on this machine: URLs of files, and of git repositories.
//!
//! Parsed once, here; printed, they are masked.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::secret::{Secret, mask};

/// Where a file or directory comes from. Printed, it is as messages may show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path on this machine, `~` not expanded yet.
    Local(String),
    /// `http://` or `https://`, perhaps with `#sha256=…`.
    Http(Location),
    /// `ftp://` or `ftps://`.
    Ftp(Location),
    /// `scp://[user@]host[:port]/absolute/path`
    Scp(SshLocation),
}

/// Where a repository is cloned from. Printed, it is as messages may show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `http://` or `https://`
    Http(Location),
    /// `git://`
    Git(Location),
    /// `ssh://[user@]host[:port]/path`, or `[user@]host:path`.
    Ssh(SshLocation),
    /// A path on this machine, or one as a `file://` URL; `~` not expanded yet.
    Local(String),
}

/// A URL with a host. Printed, it has no credentials, and no query: that may be a signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Location(Url);

/// A path on a machine that is reached by ssh. Printed, it has no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshLocation {
    /// Whom to log in as, if the location says so.
    pub user: Option<String>,
    /// The password, if the location has one.
    pub password: Option<Secret>,
    /// A name, an address, or a `Host` of the ssh configuration; IPv6 addresses without brackets.
    pub host: String,
    /// The port, if the location says so.
    pub port: Option<u16>,
    /// Absolute but for repositories, which may be relative to the home directory there.
    pub path: String,
}

/// What is wrong with a location; a message and a hint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

impl Location {
    /// The URL itself, with its credentials.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The user name and password of the URL, decoded.
    #[must_use]
    pub fn credentials(&self) -> Option<(String, Secret)> {
        let user = decode(self.0.username());
        let password = self.0.password().map(decode);
        (!user.is_empty() || password.is_some())
            .then(|| (user, Secret::new(password.unwrap_or_default())))
    }

    /// The URL without credentials: what a cache may remember it by.
    #[must_use]
    pub fn public(&self) -> Url {
        let mut url = self.0.clone();
        // These fail for URLs without a host only, and every location has one.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url
    }

    /// The last component of the path, decoded.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        last_component(&decode(self.0.path()))
    }
}

impl SshLocation {
    /// The last component of the path.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        last_component(&self.path)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(location) | Self::Ftp(location) => location.fmt(f),
            Self::Scp(location) => write!(f, "scp://{location}"),
            Self::Local(path) => f.write_str(path),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(location) | Self::Git(location) => location.fmt(f),
            Self::Ssh(location) => location.fmt(f),
            Self::Local(path) => f.write_str(path),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        if url.query().is_some() {
            url.set_query(Some("***"));
        }
        f.write_str(&mask(url.as_str()))
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SshLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        let colon = if self.path.starts_with('/') { "" } else { ":" };
        write!(f, "{colon}{}", self.path)
    }
}

impl Source {
    /// Parses an entry of `files`. What has no scheme is a path of this machine.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let Some(scheme) = scheme(text) else {
            return Ok(Self::Local(text.to_owned()));
        };
        let source = match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => Self::Http(location(text)?),
            "ftp" | "ftps" => Self::Ftp(location(text)?),
            "scp" | "sftp" => Self::Scp(ssh(text)?),
            _ => {
                return Err(Malformed {
                    message: "files do not come by this scheme".to_owned(),
                    hint: "use a path, `http://`, `https://`, `ftp://`, `ftps://` or `scp://`",
                });
            }
        };
        let path_is_empty = match &source {
            Self::Http(location) | Self::Ftp(location) => location.file_name().is_none(),
            Self::Scp(location) => location.file_name().is_none(),
            Self::Local(_) => false,
        };
        // A download may have no name of its own; what is behind the others must.
        if path_is_empty && !matches!(source, Self::Http(_)) {
            return Err(Malformed {
                message: "the URL names no file".to_owned(),
                hint: "write the absolute path behind the host",
            });
        }
        Ok(source)
    }

    /// The name that the source keeps in the workspace, unless the entry names another one; of a path
    /// of this machine it takes a look at the machine.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        match self {
            Self::Local(_) => None,
            Self::Http(location) | Self::Ftp(location) => location.file_name(),
            Self::Scp(location) => location.file_name(),
        }
    }
}

impl Origin {
    /// Parses the `url` of a repository, by the rules of `git clone`.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        if let Some(scheme) = scheme(text) {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => Ok(Self::Http(location(text)?)),
                "git" => Ok(Self::Git(location(text)?)),
                "ssh" | "git+ssh" | "ssh+git" => Ok(Self::Ssh(ssh(text)?)),
                "file" => {
                    let path = text[scheme.len() + 3..].trim_start_matches("localhost");
                    Ok(Self::Local(decode(path)))
                }
                _ => Err(Malformed {
                    message: "repositories do not come by this scheme".to_owned(),
                    hint: "use `https://`, `ssh://`, `user@host:path`, `git://`, `file://` or a path",
                }),
            };
        }
        // `host:path`, unless a slash comes first.
        match text.split_once(':') {
            Some((host, path)) if !host.contains('/') && !host.is_empty() => scp_like(host, path),
            _ => Ok(Self::Local(text.to_owned())),
        }
    }
}

/// The scheme of a text that is a URL.
pub(super) fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(valid))
        .then_some(scheme)
}

fn location(text: &str) -> Result<Location, Malformed> {
    // Words of our own: the parser's do not say what to do, and no text is repeated here.
    let url = Url::parse(text).map_err(|error| malformed(&error.to_string()))?;
    match url.host_str() {
        Some(host) if !host.is_empty() => Ok(Location(url)),
        _ => Err(malformed("it names no host")),
    }
}

fn ssh(text: &str) -> Result<SshLocation, Malformed> {
    let Location(url) = location(text)?;
    let user = decode(url.username());
    let host = url.host_str().unwrap_or_default();
    let path = decode(url.path());
    if !path.starts_with('/') {
        return Err(malformed("it has no absolute path behind the host"));
    }
    checked(SshLocation {
        user: (!user.is_empty()).then_some(user),
        password: url.password().map(|password| Secret::new(decode(password))),
        host: decode(host.trim_start_matches('[').trim_end_matches(']')),
        port: url.port(),
        // `/~/x` and `/~user/x` are relative to a home directory.
        path: path
            .strip_prefix("/~")
            .map_or_else(|| path.clone(), |rest| format!("~{rest}")),
    })
}

fn scp_like(host: &str, path: &str) -> Result<Origin, Malformed> {
    let (user, host) = match host.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, host),
    };
    if path.is_empty() || host.is_empty() {
        return Err(malformed("it names no path behind the host"));
    }
    checked(SshLocation {
        user,
        password: None,
        host: host.to_owned(),
        port: None,
        path: path.to_owned(),
    })
    .map(Origin::Ssh)
}

/// Refuses parts that begin with a dash, which programs on either side would take for options, and control characters,
/// which move the cursor of a terminal.
fn checked(location: SshLocation) -> Result<SshLocation, Malformed> {
    let parts = [
        Some(&location.host),
        location.user.as_ref(),
        Some(&location.path),
    ];
    for part in parts.into_iter().flatten() {
        if part.starts_with('-') {
            return Err(malformed("a part of it begins with a dash"));
        }
        if part.contains(|c: char| c.is_control()) {
            return Err(malformed("it has a control character"));
        }
    }
    Ok(location)
}

fn malformed(reason: &str) -> Malformed {
    Malformed {
        message: format!("this is not a URL that can be used: {reason}"),
        hint: "write `scheme://host/path`, with special characters percent-encoded",
    }
}

fn last_component(path: &str) -> Option<String> {
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    (!matches!(name, "" | "." | "..")).then(|| name.to_owned())
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
