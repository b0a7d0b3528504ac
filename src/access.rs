//! How other machines are reached, and as whom: what the caller says, beside what this machine's files and variables say.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Error;
use crate::net::{self, Proxies};
use crate::registry::{self, Client, Given, Logins, Registries};
use crate::secret::Secret;

/// How registries and other machines are reached, beside what this machine says: the system's certificates, proxies by
/// `HTTPS_PROXY` and its like, `registries.conf` and `certs.d`.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Registries (`host[:port]`, without a port on all of them) that are spoken to by HTTPS without verification or, where
    /// that does not answer, by plain HTTP.
    pub insecure: Vec<String>,
    /// Mirrors that are asked before the registry when something is pulled, as
    /// `[REGISTRY=][http[s]://]HOST[:PORT][/PATH]`; without a registry, Docker Hub's.
    pub mirrors: Vec<String>,
    /// The only file with logins. Absent, the files of podman and Docker have them.
    pub authfile: Option<PathBuf>,
    /// A login that goes before every file, for the registry where the image is pushed to or, if it is pushed nowhere, where
    /// the base comes from.
    pub login: Option<Login>,
    /// A PEM file with authorities that are trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
}

/// A login for a registry.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password, or a token in its place.
    pub password: Secret,
    /// Where it is from, for errors: "(as user `me` of …)".
    pub origin: &'static str,
}

impl Access {
    /// How `registries` are reached, with `jobs` layers side by side. All of them must be one, if there is a login.
    pub(crate) fn registry(
        &self,
        jobs: usize,
        registries: &[&str],
    ) -> Result<registry::Options, Error> {
        let given = match (&self.login, registries) {
            (Some(login), [first, others @ ..]) => {
                if others.iter().any(|other| other != first) {
                    let message = format!(
                        "{} is a login for one registry, but the image is pushed to several",
                        login.origin
                    );
                    return Err(Error::options(message)
                        .with_hint("keep the logins with `pyats-image-build login`"));
                }
                Some(Given {
                    registry: (*first).to_owned(),
                    user: login.user.clone(),
                    password: login.password.clone(),
                    origin: login.origin,
                })
            }
            _ => None,
        };
        Ok(registry::Options {
            insecure: self.insecure.clone(),
            jobs,
            logins: Logins {
                authfile: self.authfile.clone(),
                given,
            },
            registries: Registries::load(&self.mirrors)?,
        })
    }

    /// How all machines are reached.
    pub(crate) fn net(&self, proxies: Proxies) -> Result<net::Options, Error> {
        if let Some(path) = &self.ca_cert {
            let text = fs_err::read_to_string(path).unwrap_or_default();
            if !text.contains("-----BEGIN") {
                let message = format!("`{}` holds no PEM certificate", path.display());
                return Err(Error::options(message)
                    .with_hint("name a file with lines such as `-----BEGIN CERTIFICATE-----`"));
            }
        }
        Ok(net::Options::of_system(self.ca_cert.clone(), proxies))
    }

    /// Reaches `registries` as `registry` and `net` say, by the environment's proxies.
    #[doc(hidden)]
    pub fn client(&self, jobs: usize, registries: &[&str]) -> Result<Client, Error> {
        let proxies = Proxies::from_env()?;
        let net = Arc::new(net::Client::new(self.net(proxies)?));
        Ok(Client::new(self.registry(jobs, registries)?, net))
    }
}
