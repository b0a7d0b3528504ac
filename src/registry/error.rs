//! What can go wrong between us and a registry, what may be tried again, and what a person can do.
//!
//! No URL is ever part of an error: those of blobs carry signatures, and others may carry passwords.

use std::io;
use std::time::Duration;

use reqwest::Url;

use crate::digest::Digest;
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
    #[error("`{host}` answered {status} for `{what}`{}", quoted(.said))]
    Refused {
        /// The host that was spoken to.
        host: String,
        /// The complete reference, with a blob's digest in place of the tag.
        what: String,
        /// The HTTP status.
        status: reqwest::StatusCode,
        /// Its own words; may be empty.
        said: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
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

impl Error {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let host_of = |what: &str| what.split('/').next().unwrap_or_default().to_owned();
        Some(match self {
            Self::Net(net::Error::Unreachable { fault: Fault::Certificate(_), .. }) => {
                "if the certificate is right, name its authority with `--ca-cert FILE` or in `SSL_CERT_FILE`".to_owned()
            }
            Self::Net(net::Error::Unreachable { host, fault: Fault::NotTls }) => {
                format!("if the registry is to be trusted without TLS, allow it with `--insecure-registry {host}`")
            }
            Self::Net(net::Error::Unreachable { fault: Fault::Lookup(_), .. }) => {
                "check the registry's name in the reference, and the network; a proxy is taken from `HTTPS_PROXY`".to_owned()
            }
            Self::Net(net::Error::Unreachable { .. } | net::Error::Broken { .. }) => {
                "check that the registry runs and that the network lets it be reached; a proxy is taken from `HTTPS_PROXY`".to_owned()
            }
            Self::Refused { status, what, .. } => match status.as_u16() {
                401 | 403 => format!("check the name `{what}`, and that the repository is public"),
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
            Self::Damaged { .. } | Self::Size { .. } => {
                "the registry, or a proxy before it, changes what it serves: try again, or try another registry".to_owned()
            }
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

    /// How often it is worth trying all in all.
    pub(super) fn attempts(&self) -> u32 {
        match self {
            Self::Net(error) => error.attempts(),
            Self::Refused { status, .. } if is_passing(*status) => 5,
            Self::Damaged { .. } | Self::Size { .. } => 2,
            _ => 1,
        }
    }

    /// How long the registry wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// A request that got no answer, or not the whole of it.
    pub(super) fn unanswered(url: &Url, error: &reqwest::Error) -> Self {
        net::Error::unanswered(url, error).into()
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
