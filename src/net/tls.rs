//! TLS for protocols that bring none of their own, such as ftp: who is trusted is the same for all.

use std::path::PathBuf;
use std::sync::Arc;

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

impl Client {
    /// TLS that trusts the authorities of the system, of `SSL_CERT_FILE` and `SSL_CERT_DIR` where they
    /// are set, and of `--ca-cert`. Connections that share the value resume each other's sessions.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new_with_extra_roots(self.extra_roots()?, provider.clone())
            .map_err(TlsError::Authorities)?;
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
