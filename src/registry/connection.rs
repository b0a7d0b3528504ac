//! Where a registry is, how far it is trusted, and the one way by which requests are sent.
//!
//! A login goes to the registry's own origin, and to the token server that it names, and nowhere else: `net`
//! follows redirects and is told here, for each, whether it may lead there.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::Mutex;

use super::auth::{Access, Pass};
use super::{Client, Error, Reference, pause};
use crate::net::{self, Body, Coding, DOWNGRADE, Trust};

/// How long an insecure registry has to answer by HTTPS before plain HTTP is tried.
const PROBE: Duration = Duration::from_secs(5);

/// Which origin an insecure registry was found at.
#[derive(Debug, Default)]
pub(super) struct Origins(Mutex<HashMap<String, Url>>);

/// A request about a repository.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// Whose repository it is about.
    pub(super) reference: &'a Reference,
    pub(super) target: Target<'a>,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) access: Access,
    /// What it is about, for people.
    pub(super) what: String,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(super) enum Target<'a> {
    /// What comes after the repository's name.
    Path(String),
    /// The registry as a whole.
    Root,
    /// Where the registry said.
    Url(&'a Url),
}

impl<'a> Request<'a> {
    /// A request without headers or body.
    pub(super) fn new(
        method: Method,
        reference: &'a Reference,
        path: impl Into<String>,
        access: Access,
    ) -> Self {
        Self {
            method,
            reference,
            target: Target::Path(path.into()),
            headers: HeaderMap::new(),
            body: Body::none(),
            access,
            what: reference.to_string(),
        }
    }
}

impl Client {
    /// Sends a request and gives back a successful answer. A token is fetched, or renewed once, if the registry
    /// asks for it.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let Request {
            reference, access, ..
        } = request;
        let origin = self.origin(reference).await?;
        let url = match &request.target {
            Target::Path(path) => origin
                .join(&format!("/v2/{}/{path}", reference.repository()))
                .expect("a repository's name is made of characters that a path may have"),
            Target::Root => origin.join("/v2/").expect("a fixed path"),
            Target::Url(url) => (*url).clone(),
        };
        let is_home = url.origin() == origin.origin();
        let mut pass = self
            .pass(&origin, reference, access)
            .await
            .filter(|_| is_home);
        for may_renew in [true, false] {
            let authorization = pass.as_ref().map(|pass| &pass.header);
            let (response, from_home) = self
                .follow(
                    &origin,
                    request.method.clone(),
                    url.clone(),
                    (&request.headers, &request.body),
                    authorization,
                )
                .await?;
            let is_refused = response.status() == StatusCode::UNAUTHORIZED && from_home && is_home;
            if may_renew && is_refused {
                let renewed = self
                    .renew(
                        &origin,
                        reference,
                        access,
                        response.headers(),
                        pass.as_ref(),
                    )
                    .await?;
                if renewed.is_some() {
                    pass = renewed;
                    continue;
                }
            }
            if response.status().is_success() {
                return Ok(response);
            }
            let refused = Error::refused(&request.what, response).await;
            let is_anonymous = pass.as_ref().is_none_or(|pass| pass.login.is_none());
            if is_anonymous && refused.is_of_rights() && from_home {
                // A helper that failed did not end the request, but may be why it is refused.
                self.check_helper(reference).await?;
            }
            return Err(refused.with_login(pass.and_then(|pass: Pass| pass.login)));
        }
        unreachable!("the second round returns")
    }

    /// The same, tried again as long as that may help. For answers without a body, whose reading may fail too.
    pub(super) async fn insist(&self, request: &Request<'_>) -> Result<Response, Error> {
        let mut retry = self.retry();
        loop {
            match self.send(request).await {
                Err(error) => pause(&mut retry, error).await?,
                answer => return answer,
            }
        }
    }

    /// Sends a request on behalf of the registry at `home` and follows redirects. Says too whether the answer came from the origin of
    /// `url`, the only one that `authorization` is shown to.
    pub(super) async fn follow(
        &self,
        home: &Url,
        method: Method,
        url: Url,
        content: (&HeaderMap, &Body),
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response, bool), Error> {
        let trust = self.trust(&url);
        let start = url.clone();
        let judge = |from: &Url, to: &Url| {
            if is_secret(content.1) && start.origin() != to.origin() {
                return Err("to another host what is for itself only");
            }
            self.may_lead(from, to).ok_or(DOWNGRADE)
        };
        let answer =
            self.net
                .follow_for(home, method, url, content, authorization, (trust, &judge));
        Ok(answer.await?)
    }

    /// The whole of an answer; `None` if it has more than `most` bytes.
    pub(super) async fn read(
        &self,
        mut response: Response,
        most: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        let coding = Coding::of(response.headers()).unwrap_or(Coding::Identity);
        let mut decoder = coding.decoder(Vec::new());
        let url = response.url().clone();
        let damaged = |error: io::Error| Error::broken(&url, error.to_string());
        while let Some(chunk) = net::chunk(&mut response, self.net.timing().stall).await? {
            // A few kilobytes can stand for megabytes.
            for piece in chunk.chunks(1 << 12) {
                decoder.push(piece).map_err(damaged)?;
                if decoder.written() > most {
                    return Ok(None);
                }
            }
        }
        Ok(Some(decoder.finish().map_err(damaged)?))
    }

    /// Where `response`, to a request that opened or filled an upload, says that the upload goes on.
    pub(super) fn next_location(&self, response: &Response) -> Result<Url, Error> {
        let at = response.url();
        let location = response.headers().get(reqwest::header::LOCATION);
        let mut to = net::next_hop(at, location)?;
        // A registry behind a proxy that speaks TLS for it may not know of that.
        if at.scheme() == "https" && to.scheme() == "http" && at.host_str() == to.host_str() {
            let port = at.port();
            // Neither fails between two schemes with a host.
            let _ = to.set_scheme("https");
            let _ = to.set_port(port);
        }
        if self.may_lead(at, &to).is_none() {
            let (host, reason) = (net::host(at), DOWNGRADE);
            return Err(net::Error::Redirect { host, reason }.into());
        }
        Ok(to)
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
        let names = [name.to_owned(), format!("{name}:{port}")];
        let is_listed = names.iter().any(|name| {
            let mut listed = self.options.insecure.iter();
            listed.any(|entry| entry.eq_ignore_ascii_case(name)) || self.places.is_insecure(name)
        });
        if is_listed {
            Trust::Unverified
        } else {
            Trust::Verified
        }
    }
}

/// Whether a body is for one server only: texts are, such as an identity token, and layers are not.
fn is_secret(body: &Body) -> bool {
    matches!(body, Body::Bytes(bytes) if !bytes.is_empty())
}
