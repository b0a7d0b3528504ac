//! What can go wrong between us and a registry, what may be tried again, and what a person can do.
//!
//! No URL is ever part of an error: those of blobs carry signatures, and others may carry passwords.

use std::io;
use std::time::Duration;

use reqwest::{StatusCode, Url};

use super::login::LoginError;
use super::mirrors::PolicyError;
use super::reference::InvalidReference;
use crate::digest::Digest;
use crate::error::Kind;
use crate::net::{self, Fault, host, is_passing, retry_after, words};
use crate::progress::Cancelled;
use crate::store::{self, MAX_DOCUMENT};

/// What can go wrong between us and a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The build was told to stop.
    #[error("the transfer was not finished")]
    Cancelled(#[from] Cancelled),
    /// The store could not take a blob.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Certificates, or the machinery of the protocol, could not be set up.
    #[error("the client for registries could not be set up: {reason}")]
    Setup {
        /// The machinery's own words.
        reason: String,
    },
    /// No answer, not the whole of it, or one that leads elsewhere.
    #[error(transparent)]
    Net(net::Error),
    /// The registry refused.
    #[error("`{host}` answered {status} for `{what}`{}{}", quoted(.said), by(.login.as_deref()))]
    Refused {
        /// The host that was spoken to.
        host: String,
        /// The complete reference, with a blob's digest in place of the tag.
        what: String,
        /// The HTTP status.
        status: StatusCode,
        /// Its own words; may be empty.
        said: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
        /// Whose login it was shown, and where that came from.
        login: Option<String>,
    },
    /// A name that is no reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// What is said about registries cannot be read, or forbids this one.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The login for a registry cannot be had.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// A registry has something else than what it was sent.
    #[error("`{host}` answered with the digest `{found}` for `{expected}`")]
    Mismatch {
        /// The host that was spoken to.
        host: String,
        /// The digest of what was sent.
        expected: Digest,
        /// The digest by the registry.
        found: Digest,
    },
    /// A blob that is not in the store, and cannot be had from where it was seen.
    #[error("`{digest}` is neither in the store nor to be had from a registry where it was seen")]
    Lost {
        /// The digest of the blob.
        digest: Digest,
        /// What the last of those registries says, if there is one.
        source: Option<Box<Error>>,
    },
    /// A reference with a digest that is not the image's.
    #[error("`{reference}` names another image than `{found}`")]
    OtherDigest {
        /// The reference.
        reference: String,
        /// The image's digest.
        found: Digest,
    },
    /// A document whose media type no header can hold.
    #[error("the media type of `{digest}` is not a media type")]
    MediaType {
        /// The digest of the document.
        digest: Digest,
    },
    /// The challenge of the registry cannot be answered.
    #[error("`{host}` asks for a login in a way that is not understood")]
    Challenge {
        /// The host that was spoken to.
        host: String,
    },
    /// A registry with TLS wants its tokens fetched without.
    #[error("`{host}` names a token server without TLS: `{realm}`")]
    InsecureRealm {
        /// The host that was spoken to.
        host: String,
        /// The host of the token server.
        realm: String,
    },
    /// The token server's answer holds no token.
    #[error("the token server `{host}` gave no token")]
    NoToken {
        /// The host of the token server.
        host: String,
    },
    /// The registry lied, or something between us and it changed the bytes.
    #[error("`{host}` sent other bytes for `{expected}`: `{found}`")]
    Damaged {
        /// The host that was spoken to.
        host: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// As many bytes as the descriptor says, or none at all.
    #[error("`{host}` sent {found} bytes for `{digest}`, which has {expected}")]
    Size {
        /// The host that was spoken to.
        host: String,
        /// The digest asked for.
        digest: Digest,
        /// The size by the descriptor.
        expected: u64,
        /// What the registry sent, or announced.
        found: u64,
    },
    /// Something else answers in the place of a registry.
    #[error("`{host}` sent a web page for `{what}`, which no registry does")]
    WebPage {
        /// The host that was spoken to.
        host: String,
        /// What it was asked for.
        what: String,
    },
    /// A document beyond the limit.
    #[error("the document `{what}` of `{host}` has more than {MAX_DOCUMENT} bytes")]
    TooLarge {
        /// The host that was spoken to.
        host: String,
        /// The complete reference.
        what: String,
    },
}

fn quoted(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

/// Who was refused, if that may be why.
fn by(login: Option<&str>) -> String {
    login
        .map(|login| format!(" (as {login})"))
        .unwrap_or_default()
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Store(_) | Error::Io(_) => Some(Kind::Storage),
            Error::Cancelled(_) => Some(Kind::Interrupted),
            // What the registry was asked for decides.
            _ => None,
        };
        Self::from_enum(kind, error.hint(), error)
    }
}

impl Error {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let host_of = |what: &str| what.split('/').next().unwrap_or_default().to_owned();
        Some(match self {
            Self::Net(
                error @ net::Error::Unreachable {
                    fault: Fault::Certificate(_) | Fault::ClientCertificate(_),
                    ..
                },
            ) => return error.hint(),
            Self::Net(net::Error::Unreachable { host, fault: Fault::NotTls }) => {
                format!("if the registry is to be trusted without TLS, allow it with `--insecure-registry {host}`")
            }
            Self::Net(net::Error::Unreachable { fault: Fault::Lookup(_), .. }) => {
                "check the registry's name in the reference, and the network; a proxy is taken from `HTTPS_PROXY`".to_owned()
            }
            Self::Net(net::Error::Unreachable { .. } | net::Error::Broken { .. }) => {
                "check that the registry runs and that the network lets it be reached; a proxy is taken from `HTTPS_PROXY`".to_owned()
            }
            Self::Net(error) => return error.hint(),
            Self::Refused { status, what, login, .. } => match status.as_u16() {
                401 | 403 if login.is_some() => format!(
                    "check the name `{what}`, and that this user may do that; `pyats-image-build login {}` keeps another login",
                    host_of(what)
                ),
                401 | 403 => format!(
                    "check the name `{what}`; if the repository is not public, log in with `pyats-image-build login {}`, `--creds` or `--authfile`",
                    host_of(what)
                ),
                405 => "the registry takes no images: it is read-only, a mirror, or behind a proxy that lets nothing through".to_owned(),
                413 => "the registry, or a proxy before it, takes no images of this size: ask for a larger limit".to_owned(),
                404 => format!(
                    "the reference was completed to `{what}`: check the registry `{}`, the repository and the tag",
                    host_of(what)
                ),
                429 => "the registry limits how often it may be asked: wait, or use a mirror or a base that is at hand (`oci:DIR`)".to_owned(),
                500.. => "the registry is in trouble: try again later".to_owned(),
                _ => return None,
            },
            Self::Setup { .. } => {
                "install the certificates of your system (`ca-certificates`), or name a file with `--ca-cert` or in `SSL_CERT_FILE`".to_owned()
            }
            Self::Damaged { .. } | Self::Size { .. } | Self::Mismatch { .. } => {
                "the registry, or a proxy before it, changes what it serves: try again, or try another registry".to_owned()
            }
            Self::WebPage { host, .. } => format!(
                "check the name of the registry; a captive portal or a proxy may answer in its place: open `{host}` in a browser"
            ),
            Self::OtherDigest { .. } => "leave the digest out, or push the image that has it".to_owned(),
            Self::Lost { source: Some(source), .. } => return source.hint(),
            Self::Login(error) => return error.hint(),
            Self::Policy(error) => return error.hint(),
            Self::Store(error @ (store::Error::Damaged { .. } | store::Error::Size { .. })) => return error.hint(),
            Self::Store(store::Error::Io(error)) if error.kind() == io::ErrorKind::StorageFull => {
                "free some space, or keep the store elsewhere with `--store DIR`".to_owned()
            }
            _ => return None,
        })
    }

    /// Whether the registry could not be asked at all, so that an older answer may do.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Net(net::Error::Unreachable { fault, .. }) => !fault.is_lasting(),
            Self::Net(net::Error::Broken { .. }) => true,
            Self::Refused { status, .. } => is_passing(*status),
            _ => false,
        }
    }

    /// Whether it may be otherwise elsewhere.
    pub(super) fn is_of_the_place(&self) -> bool {
        !matches!(
            self,
            Self::Cancelled(_) | Self::Store(_) | Self::Io(_) | Self::Policy(_)
        )
    }

    /// How often it is worth trying all in all.
    pub(super) fn attempts(&self) -> u32 {
        match self {
            Self::Net(error) => error.attempts(),
            Self::Refused { status, .. } if is_passing(*status) => 5,
            Self::Damaged { .. } | Self::Size { .. } | Self::Mismatch { .. } => 2,
            _ => 1,
        }
    }

    /// The status of a refusal.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether what was asked for is not there.
    pub(crate) fn is_absent(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Whether something that was there is not there any more, or is not what it was: an upload, or a blob that a
    /// manifest names.
    pub(super) fn is_lost(&self) -> bool {
        self.status()
            .is_some_and(|status| matches!(status.as_u16(), 400 | 404 | 409 | 410 | 416))
    }

    /// Whether the connection broke.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Net(net::Error::Broken { .. }))
    }

    /// Whether less might be taken.
    pub(super) fn is_too_large(&self) -> bool {
        self.status() == Some(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// Whether another login might do.
    pub(super) fn is_of_rights(&self) -> bool {
        matches!(
            self.status(),
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        )
    }

    /// The same, with whose login was shown.
    pub(super) fn with_login(mut self, whose: Option<String>) -> Self {
        let is_of_rights = self.is_of_rights();
        if let Self::Refused { login, .. } = &mut self
            && is_of_rights
        {
            *login = whose;
        }
        self
    }

    /// How long the registry wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// An answer that ended too early.
    pub(super) fn broken(url: &Url, reason: String) -> Self {
        let host = host(url);
        Self::Net(net::Error::Broken { host, reason })
    }

    /// An answer that is a refusal; its body is read for the registry's own words.
    pub(super) async fn refused(what: &str, response: reqwest::Response) -> Self {
        let retry_after = retry_after(response.headers());
        let (host, status) = (host(response.url()), response.status());
        Self::Refused {
            host,
            what: what.to_owned(),
            status,
            said: words(response).await,
            retry_after,
            login: None,
        }
    }
}

impl From<net::Error> for Error {
    fn from(error: net::Error) -> Self {
        match error {
            net::Error::Cancelled(cancelled) => Self::Cancelled(cancelled),
            net::Error::Io(error) => Self::Io(error),
            net::Error::Setup { reason } => Self::Setup { reason },
            error => Self::Net(error),
        }
    }
}
