//! Where a registry is, how far it is trusted, and the one way by which requests are sent.
//!
//! A token goes to the registry's own origin and nowhere else: `net` follows redirects and is told here,
//! for each, whether it may lead there.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::{Client, Error, Reference};
use crate::net::Trust;
use crate::secret::Secret;

/// How long an insecure registry has to answer by HTTPS before plain HTTP is tried.
const PROBE: Duration = Duration::from_secs(5);

/// Which origin an insecure registry was found at.
#[derive(Debug, Default)]
pub(super) struct Origins(Mutex<HashMap<String, Url>>);

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
        let authorization = token.map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                .expect("tokens are checked when they come");
            value.set_sensitive(true);
            value
        });
        let trust = self.trust(&url);
        let judge = |from: &Url, to: &Url| self.may_lead(from, to);
        let answer = self.net.follow(
            method,
            url,
            (headers, Bytes::new()),
            authorization.as_ref(),
            (trust, &judge),
        );
        Ok(answer.await?)
    }

    /// How far the target of a redirect is trusted; `None` if it may not lead there.
    pub(super) fn may_lead(&self, from: &Url, to: &Url) -> Option<Trust> {
        let trust = self.trust(to);
        // A stranger's registry has no say about this machine's own servers.
        let may_be_plain = match trust {
            Trust::Verified => false,
            Trust::Unverified => true,
            Trust::Local => self.trust(from) == Trust::Local,
        };
        (from.scheme() == "http" || to.scheme() == "https" || may_be_plain).then_some(trust)
    }

    /// Scheme, host and port of a registry. An insecure one is asked by HTTPS first: it answers at
    /// once or not at all, since a server of plain HTTP closes on the bytes of TLS.
    async fn origin(&self, reference: &Reference) -> Result<Url, Error> {
        let at = |scheme: &str| Url::parse(&format!("{scheme}://{}/", reference.host()));
        let secure = at("https").expect("a reference's host is checked when it is parsed");
        if self.trust(&secure) == Trust::Verified {
            return Ok(secure);
        }
        let mut probed = self.origins.0.lock().await;
        if let Some(origin) = probed.get(reference.host()) {
            return Ok(origin.clone());
        }
        let probe = secure.join("/v2/").expect("a fixed path");
        let http = self.net.http(&secure, self.trust(&secure))?;
        let answer = http.get(probe).timeout(PROBE).send().await;
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
}
