//! TLS for protocols that bring none of their own, such as ftp: who is trusted is the same for all.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use fs_err as fs;
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use super::Client;

/// Why there can be no TLS at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file of `--ca-cert` cannot be read; names the path.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// The file of `--ca-cert` is something else.
    #[error("`{}` holds no certificate in PEM", path.display())]
    NoCertificate {
        /// As the user typed it.
        path: PathBuf,
    },
    /// Neither the system nor `--ca-cert` has an authority that can be used.
    #[error("no certificate authority can be used")]
    Authorities(#[source] rustls::Error),
}

impl TlsError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read(_) | Self::NoCertificate { .. } => {
                "give `--ca-cert` a PEM file with the certificates of authorities"
            }
            Self::Authorities(_) => {
                "install the `ca-certificates` of the system, or name a PEM file with \
                 `SSL_CERT_FILE` or `--ca-cert`"
            }
        };
        Some(hint.to_owned())
    }
}

/// Whether the authorities that this program brings count: where the system has none, as in an empty container. Whoever
/// names a place for them means that one.
pub(super) fn needs_bundled() -> bool {
    static NEEDS: OnceLock<bool> = OnceLock::new();
    let is_named = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    *NEEDS.get_or_init(|| {
        !["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().any(is_named)
            && Verifier::new(Arc::new(ring::default_provider())).is_err()
    })
}

/// Those that Mozilla trusts.
pub(super) fn bundled() -> Vec<CertificateDer<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec()
}

/// The same as text, if they count here.
pub(crate) fn bundled_pem() -> Option<String> {
    let pem = |der: &CertificateDer<'_>| {
        let text = base64::prelude::BASE64_STANDARD.encode(der);
        let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
        let lines: Vec<_> = lines.collect();
        let text = lines.join("\n");
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    needs_bundled().then(|| bundled().iter().map(pem).collect())
}

impl Client {
    /// TLS that trusts the authorities of the system, of `SSL_CERT_FILE` and `SSL_CERT_DIR` where they
    /// are set, and of `--ca-cert`; Mozilla's where the system has none. Connections that share the value resume each
    /// other's sessions.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = |roots| Verifier::new_with_extra_roots(roots, provider.clone());
        let extra = self.extra_roots()?;
        let verifier = if needs_bundled() {
            verifier([extra, bundled()].concat())
        } else {
            verifier(extra)
        };
        let verifier = verifier.map_err(TlsError::Authorities)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Authorities)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Arc::new(config))
    }

    fn extra_roots(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let Some(path) = &self.options.ca_cert else {
            return Ok(Vec::new());
        };
        let text = fs::read(path)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(TlsError::NoCertificate { path: path.clone() }),
        }
    }
}
