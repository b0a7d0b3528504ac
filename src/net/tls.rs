//! TLS: who is trusted, and which signatures are understood. HTTP and ftp share it.
//!
//! webpki verifies chains of certificates. It refuses a certificate of an authority (`CA:TRUE`) as a server's own,
//! which is what `openssl req -x509` makes. OpenSSL and Go, and so all other tools of this field, take such a
//! certificate where somebody put it among the trusted ones, and so does [`Verifier`].

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use p521::ecdsa::signature::hazmat::PrehashVerifier as _;
use p521::ecdsa::{Signature, VerifyingKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, PrivateKeyDer, ServerName,
    SignatureVerificationAlgorithm, UnixTime, alg_id,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::{Client, Error};

/// A client certificate, followed by those that certify it, and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// ring's algorithms and P-521 signatures, which ring lacks.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let provider = ring::default_provider();
    let WebPkiSupportedAlgorithms { all, mapping } = provider.signature_verification_algorithms;
    let p521 = P521
        .iter()
        .map(|one| one as &dyn SignatureVerificationAlgorithm);
    // rustls wants them for ever, and they are made once.
    let algorithms = WebPkiSupportedAlgorithms {
        all: all.iter().copied().chain(p521).collect::<Vec<_>>().leak(),
        mapping: [
            mapping,
            &[(SignatureScheme::ECDSA_NISTP521_SHA512, HANDSHAKE)],
        ]
        .concat()
        .leak(),
    };
    Arc::new(CryptoProvider {
        signature_verification_algorithms: algorithms,
        ..provider
    })
});

/// ECDSA by a P-521 key with each of the digests that certificates use.
static P521: [P521Ecdsa; 3] = [
    P521Ecdsa {
        algorithm: alg_id::ECDSA_SHA256,
        digest: |message| Sha256::digest(message).to_vec(),
    },
    P521Ecdsa {
        algorithm: alg_id::ECDSA_SHA384,
        digest: |message| Sha384::digest(message).to_vec(),
    },
    P521Ecdsa {
        algorithm: alg_id::ECDSA_SHA512,
        digest: |message| Sha512::digest(message).to_vec(),
    },
];

/// The one of them that TLS 1.3 has.
static HANDSHAKE: &[&dyn SignatureVerificationAlgorithm] = &[&P521[2]];

#[derive(Debug)]
struct P521Ecdsa {
    algorithm: AlgorithmIdentifier,
    digest: fn(&[u8]) -> Vec<u8>,
}

/// Bytes of a number modulo the order of P-521.
const P521_BYTES: usize = 66;

impl SignatureVerificationAlgorithm for P521Ecdsa {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        // The crate refuses digests shorter than half of the order, which SHA-256 is by a byte.
        let digest = (self.digest)(message);
        let mut number = [0; P521_BYTES];
        number[P521_BYTES - digest.len()..].copy_from_slice(&digest);
        key.verify_prehash(&number, &signature)
            .map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm
    }
}

/// Trusts authorities, and servers whose very certificate is among those of the authorities.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verified = self
            .chains
            .verify_server_cert(certificate, others, name, ocsp, now);
        match verified {
            // webpki looks at the dates before, and at the name after it.
            Err(error) if is_authority(&error) && self.trusted.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chains
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chains
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Whether all that is wrong with a server's certificate is that it says `CA:TRUE`.
pub(super) fn is_authority(error: &TlsError) -> bool {
    let TlsError::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// Makes this process's TLS understand what [`PROVIDER`] does.
pub(super) fn install() {
    // A second installation fails, and changes nothing.
    let _ = CryptoProvider::install_default(PROVIDER.as_ref().clone());
}

/// The authorities of the system, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
fn of_system() -> Result<Vec<CertificateDer<'static>>, Error> {
    let is_named = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() && ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().any(is_named) {
        let reason = found.errors.first().map_or_else(
            || "`SSL_CERT_FILE` and `SSL_CERT_DIR` name no certificates".to_owned(),
            ToString::to_string,
        );
        return Err(Error::Setup { reason });
    }
    Ok(found.certs)
}

/// Those that Mozilla trusts. They count where the system has none, as in an empty container.
fn bundled() -> Vec<CertificateDer<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec()
}

/// The bundled authorities as text, if they count here.
pub(crate) fn bundled_pem() -> Option<String> {
    let pem = |der: &CertificateDer<'_>| {
        let text = base64::prelude::BASE64_STANDARD.encode(der);
        let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
        let lines: Vec<_> = lines.collect();
        let text = lines.join("\n");
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    let needed = of_system().is_ok_and(|found| found.is_empty());
    needed.then(|| bundled().iter().map(pem).collect())
}

impl Client {
    /// TLS that trusts the authorities of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set, Mozilla's
    /// where there are none) and of `--ca-cert`. Connections that share the value resume each other's sessions.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, Error> {
        Ok(Arc::new(self.tls_with(Vec::new(), None)?))
    }

    /// The same with further authorities, and a certificate that is shown to the server.
    pub(super) fn tls_with(
        &self,
        authorities: Vec<CertificateDer<'static>>,
        identity: Option<Identity>,
    ) -> Result<ClientConfig, Error> {
        let mut trusted = self.authorities()?.to_vec();
        trusted.extend(authorities);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let chains = WebPkiServerVerifier::builder_with_provider(roots.into(), PROVIDER.clone())
            .build()
            .map_err(|error| Error::Setup {
                reason: error.to_string(),
            })?;
        configure(Arc::new(Verifier { chains, trusted }), identity)
    }

    /// All that is trusted for every host; read once.
    fn authorities(&self) -> Result<&[CertificateDer<'static>], Error> {
        if let Some(known) = self.authorities.get() {
            return Ok(known);
        }
        let mut found = of_system()?;
        if found.is_empty() {
            found = bundled();
        }
        if let Some(path) = &self.options.ca_cert {
            let own = super::certificates::read(path)?;
            found.extend(own.ok_or_else(|| Error::Certificate { path: path.clone() })?);
        }
        Ok(self.authorities.get_or_init(|| found))
    }
}

/// TLS with anybody, whoever that is.
pub(super) fn unverified(identity: Option<Identity>) -> Result<ClientConfig, Error> {
    configure(Arc::new(Anybody), identity)
}

fn configure(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<Identity>,
) -> Result<ClientConfig, Error> {
    let setup = |error: TlsError| Error::Setup {
        reason: error.to_string(),
    };
    let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(setup),
        None => Ok(builder.with_no_client_auth()),
    }
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = PROVIDER.signature_verification_algorithms;
        // Old servers sign with SHA-1, and who they are does not matter.
        let old = [
            SignatureScheme::RSA_PKCS1_SHA1,
            SignatureScheme::ECDSA_SHA1_Legacy,
        ];
        algorithms
            .supported_schemes()
            .into_iter()
            .chain(old)
            .collect()
    }
}
