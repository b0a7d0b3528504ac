//! Why another machine gave no answer, and what of that is worth another attempt.
//!
//! No URL is ever part of an error: some carry signatures, others passwords. Hosts say enough.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::proxy::Proxy;
use super::tls;
use super::words::short;
use crate::progress::Cancelled;

/// Why there is no answer to an HTTP request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The build was told to stop.
    #[error("the transfer was not finished")]
    Cancelled(#[from] Cancelled),
    /// The file of `--ca-cert` could not be read; names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Certificates, or the machinery of the protocol, could not be set up.
    #[error("the client for HTTP could not be set up: {reason}")]
    Setup {
        /// The machinery's own words.
        reason: String,
    },
    /// The file of `--ca-cert` holds no certificate.
    #[error("`{}` holds no certificate in PEM form", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// A `*.crt` of `certs.d` holds no certificate.
    #[error("`{}` holds no certificate in PEM form", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
    },
    /// A `*.cert` of `certs.d` is alone.
    #[error("the client certificate `{}` has no key beside it", path.display())]
    NoKey {
        /// The certificate.
        path: PathBuf,
    },
    /// A `*.key` of `certs.d` is alone.
    #[error("the key `{}` has no client certificate beside it", path.display())]
    NoCertificate {
        /// The key.
        path: PathBuf,
    },
    /// A `*.cert` of `certs.d` and its key are not what they should be.
    #[error("`{}` and the key beside it cannot be used as a client certificate", path.display())]
    Identity {
        /// The certificate.
        path: PathBuf,
    },
    /// A host has more client certificates than can be shown to it.
    #[error("there are two client certificates for one host: `{}` and `{}`", first.display(), second.display())]
    Identities {
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// No connection came about.
    #[error("`{host}` cannot be reached: {fault}")]
    Unreachable {
        /// The host that was spoken to, with its port if it is not the usual one.
        host: String,
        /// Why.
        fault: Fault,
    },
    /// The connection broke.
    #[error("the connection to `{host}` broke: {reason}")]
    Broken {
        /// The host that was spoken to.
        host: String,
        /// How.
        reason: String,
    },
    /// A redirect that is not followed.
    #[error("`{host}` redirects {reason}")]
    Redirect {
        /// The host that was spoken to.
        host: String,
        /// What is wrong with the redirect.
        reason: &'static str,
    },
}

/// Why no connection came about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// The name has no address.
    #[error("its name cannot be resolved ({0})")]
    Lookup(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The certificate is not trusted.
    #[error("its certificate is not trusted ({0})")]
    Certificate(String),
    /// The server wants a certificate of the client, or not the one that was shown.
    #[error("it wants another client certificate, or one at all ({0})")]
    ClientCertificate(String),
    /// Plain HTTP where TLS should be.
    #[error("it does not speak TLS")]
    NotTls,
    /// Both ends have no version, cipher or kind of key in common.
    #[error("the TLS handshake failed ({0})")]
    Handshake(String),
    /// The proxy does not lead there, or is not there itself.
    #[error("the proxy `{proxy}` does not lead there ({reason})")]
    Proxy {
        /// Without credentials.
        proxy: String,
        /// Its own words, or why it cannot be reached.
        reason: String,
    },
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable { fault, host } => return fault.hint(host),
            Self::Broken { .. } => "try again; if it stays so, look at the server and at what lies between".to_owned(),
            Self::Setup { .. } => {
                "install the certificates of your system (`ca-certificates`), or name a file with `--ca-cert` or in `SSL_CERT_FILE`".to_owned()
            }
            Self::Authority { .. } => "put a file with `-----BEGIN CERTIFICATE-----` there, or remove this one".to_owned(),
            Self::NoKey { path } => format!(
                "put it there as `{}`; the certificate of an authority ends with `.crt` instead",
                named(path, "key")
            ),
            Self::NoCertificate { path } => format!("put it there as `{}`", named(path, "cert")),
            Self::Identity { .. } => {
                "both have to be in PEM form, the key without a passphrase, and they have to belong together".to_owned()
            }
            Self::Identities { .. } => "leave the one that this host wants".to_owned(),
            Self::Certificate { .. } => "give `--ca-cert` a file with `-----BEGIN CERTIFICATE-----`".to_owned(),
            _ => return None,
        })
    }

    /// How often it is worth trying all in all.
    pub(crate) fn attempts(&self) -> u32 {
        match self {
            // The other faults are such as a handshake that was cut.
            Self::Broken { .. }
            | Self::Unreachable {
                fault: Fault::Other(_),
                ..
            } => 5,
            Self::Unreachable { fault, .. } if fault.is_lasting() => 1,
            Self::Unreachable { .. } => 2,
            _ => 1,
        }
    }

    /// An HTTP client that could not be made.
    pub(super) fn setup(error: &reqwest::Error) -> Self {
        Self::Setup {
            reason: root_cause(error),
        }
    }

    /// A request that got no answer in time.
    pub(super) fn silent(url: &Url) -> Self {
        Self::Broken {
            host: host(url),
            reason: "no answer in time".to_owned(),
        }
    }

    /// A request that got no answer, or not the whole of it.
    pub(crate) fn unanswered(url: &Url, error: &reqwest::Error) -> Self {
        let host = host(url);
        let reason = root_cause(error);
        if let Some(fault) = tls_fault(error) {
            return Self::Unreachable { host, fault };
        }
        if !error.is_connect() {
            let reason = if error.is_timeout() || timed_out(error) {
                "no answer in time".to_owned()
            } else {
                reason
            };
            return Self::Broken { host, reason };
        }
        let refused = causes(error)
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        let fault = if error.is_timeout() {
            Fault::Timeout
        } else if refused {
            Fault::Refused
        } else if reason.contains("lookup address") {
            Fault::Lookup(reason.rsplit(": ").next().unwrap_or_default().to_owned())
        } else {
            Fault::Other(reason)
        };
        Self::Unreachable { host, fault }
    }

    /// The same, where the request went to `proxy`: what is wrong is on the way, unless a server behind
    /// it already showed its certificate.
    pub(super) fn by(self, proxy: Option<&Proxy>) -> Self {
        match (self, proxy) {
            (Self::Unreachable { host, fault }, Some(proxy)) if !fault.is_lasting() => {
                let (proxy, reason) = (proxy.to_string(), fault.to_string());
                let fault = Fault::Proxy { proxy, reason };
                Self::Unreachable { host, fault }
            }
            (error, _) => error,
        }
    }
}

impl Fault {
    /// Whether it will be the same in a second.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Certificate(_) | Self::ClientCertificate(_) | Self::NotTls | Self::Handshake(_)
        )
    }

    pub(crate) fn hint(&self, host: &str) -> Option<String> {
        Some(match self {
            Self::Certificate(_) => {
                format!(
                    "if the certificate is right, name its authority's certificate, or its own, with `--ca-cert FILE` or in `SSL_CERT_FILE`, or put that as `ca.crt` into `/etc/containers/certs.d/{host}`"
                )
            }
            Self::ClientCertificate(_) => {
                format!("put it as `NAME.cert` with its key `NAME.key` into `/etc/containers/certs.d/{host}`")
            }
            Self::Handshake(_) => {
                let address = if host.contains(':') {
                    host.to_owned()
                } else {
                    format!("{host}:443")
                };
                format!(
                    "the server needs TLS 1.2 or 1.3 with ECDHE and AES-GCM or ChaCha20, and an RSA (2048 bits or more), ECDSA or Ed25519 certificate; `openssl s_client -connect {address}` shows what it offers"
                )
            }
            Self::NotTls => format!("write `http://{host}` if there is no TLS, or look at the port"),
            Self::Lookup(_) => {
                "check the host's name, and the network; a proxy is taken from `proxy` or `HTTPS_PROXY`".to_owned()
            }
            Self::Proxy { .. } => {
                "check `proxy` in the build file and `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`; `NO_PROXY` lists what is reached without".to_owned()
            }
            Self::Refused | Self::Timeout => {
                "check host and port, and that the network lets it be reached; a proxy is taken from `proxy` or `HTTPS_PROXY`".to_owned()
            }
            Self::Other(_) => return None,
        })
    }
}

/// The name of the file beside `path` that ends with `extension`.
fn named(path: &Path, extension: &str) -> String {
    let name = path.with_extension(extension);
    name.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Host and port of a URL, without anything that could be secret.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

type Cause = dyn StdError + 'static;

fn causes(error: &Cause) -> impl Iterator<Item = &Cause> {
    std::iter::successors(Some(error), |error| cause_of(*error))
}

fn cause_of(error: &Cause) -> Option<&Cause> {
    // An `io::Error` that wraps another error reports that one's source as its own.
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    // Only reqwest's own errors print URLs, and they are never the innermost one, but for one kind.
    match causes(error).last() {
        Some(last) if last.downcast_ref::<reqwest::Error>().is_none() => short(&last.to_string()),
        _ => "the request could not be sent".to_owned(),
    }
}

/// Whether the kernel gave up on the connection.
fn timed_out(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

fn tls_fault(error: &reqwest::Error) -> Option<Fault> {
    let error = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>())?;
    Some(Fault::from(error))
}

impl From<&rustls::Error> for Fault {
    fn from(error: &rustls::Error) -> Self {
        match error {
            error if tls::is_authority(error) => Self::Certificate(
                "it is an authority's certificate (`CA:TRUE`), which is trusted only where it is named itself"
                    .to_owned(),
            ),
            rustls::Error::InvalidCertificate(reason) => Self::Certificate(distrust(reason)),
            rustls::Error::AlertReceived(alert) if is_about_us(*alert) => {
                Self::ClientCertificate(format!("{alert:?}"))
            }
            rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion) => {
                Self::Handshake(OLD.to_owned())
            }
            rustls::Error::AlertReceived(alert) => Self::Handshake(format!(
                "the server gave up with the alert `{alert:?}`: it accepts nothing of what it was offered"
            )),
            rustls::Error::PeerIncompatible(reason) => Self::Handshake(offered(reason)),
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            other => Self::Other(short(&other.to_string())),
        }
    }
}

const OLD: &str = "the server offers TLS 1.1 or older only";

/// What a server offers that cannot be used.
fn offered(reason: &rustls::PeerIncompatible) -> String {
    use rustls::PeerIncompatible as Reason;
    match reason {
        Reason::ServerDoesNotSupportTls12Or13 | Reason::ServerTlsVersionIsDisabledByOurConfig => {
            OLD.to_owned()
        }
        other => format!("the server's offer cannot be used: `{other:?}`"),
    }
}

/// Whether a server says it of the client's certificate (RFC 8446, section 6.2).
fn is_about_us(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
    )
}

fn distrust(reason: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Reason;
    match reason {
        Reason::UnknownIssuer => "its issuer is not known here".to_owned(),
        Reason::Expired | Reason::ExpiredContext { .. } => "it has expired".to_owned(),
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        other => short(&other.to_string()),
    }
}
