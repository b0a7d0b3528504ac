//! Certificates for one host: authorities that it alone is trusted by, and what is shown to it.
//!
//! They lie in a folder named `host[:port]`: `*.crt` are authorities, `NAME.cert` and `NAME.key` are a client
//! certificate with its key. Follows containers-certs.d(5), and for other hosts that the first one leads to
//! what the container tools do. Only one client certificate is possible for a host.

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs_err as fs;
use reqwest::Url;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::tls::Identity;
use super::{Client, Error, Trust};

/// The HTTP clients of hosts that have a folder, by what they are made of.
#[derive(Debug, Default)]
pub(super) struct OfHosts(Mutex<HashMap<Key, reqwest::Client>>);

/// A folder, whether its client certificate is shown, and how far the server is trusted.
type Key = (PathBuf, bool, Trust);

/// What a folder holds.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) identity: Option<Identity>,
}

/// The folders that the container tools and Docker read on this machine, the user's first; they need not
/// exist.
#[must_use]
pub fn certificate_folders() -> Vec<PathBuf> {
    let path = |name: &str| {
        let value = env::var_os(name).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    let config = path("XDG_CONFIG_HOME").or_else(|| Some(path("HOME")?.join(".config")));
    let user = config.into_iter();
    let user = user.flat_map(|config| ["containers", "docker"].map(|name| config.join(name)));
    let system = ["/etc/containers", "/etc/docker"].map(PathBuf::from);
    user.chain(system)
        .map(|folder| folder.join("certs.d"))
        .collect()
}

impl Client {
    /// The pool of connections for the host of `url`, if there is a folder for it; or else, if there is one
    /// for the host of `home`, a pool that trusts the authorities there.
    pub(super) fn http_of_host(
        &self,
        home: &Url,
        url: &Url,
        trust: Trust,
    ) -> Result<Option<reqwest::Client>, Error> {
        let folders = &self.options.certificates;
        let (folder, is_own) = match (folder_for(folders, url), trust) {
            _ if url.scheme() != "https" => return Ok(None),
            (Some(folder), _) => (folder, true),
            (None, Trust::Verified) => match folder_for(folders, home) {
                Some(folder) => (folder, false),
                None => return Ok(None),
            },
            (None, Trust::Unverified | Trust::Local) => return Ok(None),
        };
        let key = (folder, is_own, trust);
        let known = &self.pools.of_hosts.0;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.get(&key) {
            return Ok(Some(client.clone()));
        }
        let mut certificates = load(&key.0)?;
        // A client certificate says who somebody is, and is for nobody else.
        certificates.identity = certificates.identity.filter(|_| is_own);
        let client = self.make_with(trust, certificates)?;
        known.insert(key, client.clone());
        Ok(Some(client))
    }
}

/// The first folder for the host of `url`.
fn folder_for(folders: &[PathBuf], url: &Url) -> Option<PathBuf> {
    let host = url.host_str().filter(|_| url.scheme() == "https")?;
    let names = match url.port() {
        Some(port) => vec![format!("{host}:{port}")],
        // The folder is named as the registry is in a reference.
        None if host == "registry-1.docker.io" => vec!["docker.io".to_owned()],
        None => vec![host.to_owned(), format!("{host}:443")],
    };
    let paths = folders
        .iter()
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    paths.into_iter().find(|path| path.is_dir())
}

/// Reads a folder. One that this user may not look into holds nothing.
fn load(folder: &Path) -> Result<Certificates, Error> {
    let mut paths = Vec::new();
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        entries => {
            for entry in entries? {
                paths.push(entry?.path());
            }
        }
    }
    paths.sort();
    let mut certificates = Certificates::default();
    let mut first: Option<PathBuf> = None;
    for path in paths {
        match path.extension().and_then(OsStr::to_str) {
            Some("crt") => certificates.authorities.extend(authorities(&path)?),
            Some("cert") => {
                if let Some(first) = first {
                    return Err(Error::Identities {
                        first,
                        second: path,
                    });
                }
                certificates.identity = Some(identity(&path)?);
                first = Some(path);
            }
            Some("key") if !path.with_extension("cert").exists() => {
                return Err(Error::NoCertificate { path });
            }
            _ => {}
        }
    }
    Ok(certificates)
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    read(path)?.ok_or_else(|| Error::Authority {
        path: path.to_owned(),
    })
}

/// The certificates in a PEM file; `None` if it holds none, or one that is damaged.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<CertificateDer<'static>>>> {
    let text = fs::read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    Ok(found.ok().filter(|found| !found.is_empty()))
}

/// The client certificate in `path` with the key beside it.
fn identity(path: &Path) -> Result<Identity, Error> {
    let chain = read(path)?;
    let key = match fs::read(path.with_extension("key")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoKey {
                path: path.to_owned(),
            });
        }
        key => key?,
    };
    let pair = chain.and_then(|chain| {
        let key = PrivateKeyDer::from_pem_slice(&key).ok()?;
        let provider = ring::default_provider();
        // Whether they belong together.
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).ok()?;
        Some((chain, key))
    });
    pair.ok_or_else(|| Error::Identity {
        path: path.to_owned(),
    })
}
