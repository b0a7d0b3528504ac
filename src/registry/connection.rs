//! Where a registry is, how far it is trusted, and the one way by which requests are sent.
//!
//! A token goes to the registry's own origin and nowhere else: redirects are followed here and not
//! in the HTTP library, so that each hop is looked at.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::error::host;
use super::{Client, Error, Reference};
use crate::secret::Secret;

/// More redirects than these are a loop.
const MOST_REDIRECTS: usize = 10;
/// How long an insecure registry has to answer by HTTPS before plain HTTP is tried.
const PROBE: Duration = Duration::from_secs(5);

/// The HTTP clients, made when they are first needed: reading certificates costs time, and fails on
/// a system that has none.
#[derive(Debug, Default)]
pub(super) struct Connections {
    verified: OnceLock<reqwest::Client>,
    unverified: OnceLock<reqwest::Client>,
    local: OnceLock<reqwest::Client>,
    /// Which origin an insecure registry was found at.
    probed: Mutex<HashMap<String, Url>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// TLS by the system's certificates.
    Verified,
    /// TLS with anybody, or plain HTTP.
    Unverified,
    /// The same on this machine, where no proxy leads.
    Local,
}

impl Client {
    /// Sends a request about `reference` and gives back a successful answer. A token is fetched, or
    /// renewed once, if the registry asks for it. `path` comes after the repository's name.
    pub(super) async fn send(
        &self,
        method: Method,
        reference: &Reference,
        path: &str,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<Response, Error> {
        let origin = self.origin(reference).await?;
        let url = origin
            .join(&format!("/v2/{}/{path}", reference.repository()))
            .expect("a repository's name is made of characters that a path may have");
        let mut token = self.token(&origin, reference).await;
        for may_renew in [true, false] {
            let (response, from_registry) = self
                .follow(method.clone(), url.clone(), headers, token.as_ref())
                .await?;
            if may_renew && from_registry && response.status() == StatusCode::UNAUTHORIZED {
                let renewed = self
                    .renew(&origin, reference, response.headers(), token.as_ref())
                    .await?;
                if renewed.is_some() {
                    token = renewed;
                    continue;
                }
            }
            if response.status().is_success()
                || response.status() == StatusCode::RANGE_NOT_SATISFIABLE
            {
                return Ok(response);
            }
            return Err(Error::refused(what, response).await);
        }
        unreachable!("the second round returns")
    }

    /// Sends a request and follows redirects. Says too whether the answer came from the origin of
    /// `url`, the only one that `token` is shown to.
    pub(super) async fn follow(
        &self,
        method: Method,
        url: Url,
        headers: &HeaderMap,
        token: Option<&Secret>,
    ) -> Result<(Response, bool), Error> {
        let mut at = url.clone();
        let mut is_home = true;
        for _ in 0..=MOST_REDIRECTS {
            // Who left once is not trusted again, even if the way leads back.
            is_home &= at.origin() == url.origin();
            let mut request = self
                .http(&at)?
                .request(method.clone(), at.clone())
                .headers(headers.clone());
            if let Some(token) = token.filter(|_| is_home) {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                    .expect("tokens are checked when they come");
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            let response = request
                .send()
                .await
                .map_err(|error| Error::unanswered(&at, &error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((response, is_home));
            }
            at = self.next_hop(&at, response.headers().get(LOCATION))?;
        }
        Err(Error::Redirect {
            host: host(&url),
            reason: "in a circle",
        })
    }

    pub(super) fn next_hop(
        &self,
        from: &Url,
        location: Option<&HeaderValue>,
    ) -> Result<Url, Error> {
        let refuse = |reason| Error::Redirect {
            host: host(from),
            reason,
        };
        let mut to = location
            .and_then(|location| from.join(location.to_str().ok()?).ok())
            .filter(|to| matches!(to.scheme(), "http" | "https"))
            .ok_or_else(|| refuse("to nowhere"))?;
        // The HTTP library would make an Authorization header of these.
        if to
            .set_username("")
            .and_then(|()| to.set_password(None))
            .is_err()
        {
            return Err(refuse("to nowhere"));
        }
        // A stranger's registry has no say about this machine's own servers.
        let may_be_plain = match self.trust(&to) {
            Trust::Verified => false,
            Trust::Unverified => true,
            Trust::Local => self.trust(from) == Trust::Local,
        };
        if from.scheme() == "https" && to.scheme() == "http" && !may_be_plain {
            return Err(refuse("from HTTPS to plain HTTP"));
        }
        Ok(to)
    }

    /// Scheme, host and port of a registry. An insecure one is asked by HTTPS first: it answers at
    /// once or not at all, since a server of plain HTTP closes on the bytes of TLS.
    async fn origin(&self, reference: &Reference) -> Result<Url, Error> {
        let at = |scheme: &str| Url::parse(&format!("{scheme}://{}/", reference.host()));
        let secure = at("https").expect("a reference's host is checked when it is parsed");
        if self.trust(&secure) == Trust::Verified {
            return Ok(secure);
        }
        let mut probed = self.connections.probed.lock().await;
        if let Some(origin) = probed.get(reference.host()) {
            return Ok(origin.clone());
        }
        let probe = secure.join("/v2/").expect("a fixed path");
        let answer = self.http(&secure)?.get(probe).timeout(PROBE).send().await;
        let origin = match answer {
            Ok(_) => secure,
            Err(_) => at("http").expect("the same host as above"),
        };
        probed.insert(reference.host().to_owned(), origin.clone());
        Ok(origin)
    }

    pub(super) fn trust(&self, url: &Url) -> Trust {
        let name = url.host_str().unwrap_or_default();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if name == "localhost"
            || bare
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
        {
            return Trust::Local;
        }
        let port = url.port_or_known_default().unwrap_or_default();
        let is_listed = self.options.insecure.iter().any(|entry| {
            let entry = entry.to_ascii_lowercase();
            entry == name || entry == format!("{name}:{port}")
        });
        if is_listed {
            Trust::Unverified
        } else {
            Trust::Verified
        }
    }

    fn http(&self, url: &Url) -> Result<&reqwest::Client, Error> {
        let trust = match self.trust(url) {
            // Without TLS there is nothing to verify, and no certificates are needed.
            Trust::Verified if url.scheme() == "http" => Trust::Unverified,
            trust => trust,
        };
        let slot = match trust {
            Trust::Verified => &self.connections.verified,
            Trust::Unverified => &self.connections.unverified,
            Trust::Local => &self.connections.local,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = self.make(trust)?;
        Ok(slot.get_or_init(|| client))
    }

    pub(super) fn make(&self, trust: Trust) -> Result<reqwest::Client, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("pyats-image-build/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.timing.connect)
            .read_timeout(self.timing.stall);
        builder = match trust {
            Trust::Verified => match &self.options.ca_cert {
                None => builder,
                Some(path) => {
                    let roots = reqwest::Certificate::from_pem_bundle(&fs_err::read(path)?)
                        .ok()
                        .filter(|roots| !roots.is_empty())
                        .ok_or_else(|| Error::Certificate { path: path.clone() })?;
                    builder.tls_certs_merge(roots)
                }
            },
            Trust::Unverified => builder.tls_danger_accept_invalid_certs(true),
            Trust::Local => builder.tls_danger_accept_invalid_certs(true).no_proxy(),
        };
        builder.build().map_err(|error| Error::setup(&error))
    }
}
