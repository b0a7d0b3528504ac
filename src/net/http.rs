//! HTTP requests: one pool of connections for each degree of trust, more for hosts with certificates of
//! their own, and redirects that are looked at.
//!
//! Credentials go to the origin that they are for and nowhere else, so redirects are followed here and
//! not in the HTTP library.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use super::body::Watch;
use super::certificates::{Certificates, OfHosts};
use super::fault::host;
use super::{Body, Client, Error, Fault, Response, tls};
use crate::progress::Progress;
use crate::secret::Secret;

/// More redirects than these are a loop.
const MOST_REDIRECTS: usize = 10;

/// How far a server is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// TLS by the system's certificates, those of `--ca-cert`, and those for the host.
    Verified,
    /// TLS with anybody.
    Unverified,
    /// The same on this machine, where no proxy leads.
    Local,
}

/// From the two ends of a redirect to the trust for its target, or to what is wrong with it.
type Judge<'a> = &'a dyn Fn(&Url, &Url) -> Result<Trust, &'static str>;

/// What is wrong with a redirect that gives up TLS.
pub(crate) const DOWNGRADE: &str = "from HTTPS to plain HTTP";

/// An HTTP request.
#[derive(Clone)]
pub struct Request {
    /// GET, POST or the like.
    pub method: Method,
    /// `http` or `https`. Credentials in it are not used.
    pub url: Url,
    /// Besides those that every request has.
    pub headers: HeaderMap,
    /// May be empty.
    pub body: Vec<u8>,
    /// How far the server is trusted.
    pub trust: Trust,
    /// User name and password, sent at once and to the origin of `url` only.
    pub credentials: Option<(String, Secret)>,
}

/// The HTTP clients, made when they are first needed: reading certificates costs time, and fails on
/// a system that has none.
#[derive(Debug, Default)]
pub(super) struct Pools {
    verified: OnceLock<reqwest::Client>,
    unverified: OnceLock<reqwest::Client>,
    local: OnceLock<reqwest::Client>,
    pub(super) of_hosts: OfHosts,
}

impl Request {
    /// Asks for what lies at `url`, of a server that is verified.
    #[must_use]
    pub fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Vec::new(),
            trust: Trust::Verified,
            credentials: None,
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("host", &host(&self.url))
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Sends `request` and follows redirects, at most ten and never from HTTPS to plain HTTP; gives back
    /// the answer, whatever its status, with its body still to be read. What lies behind 301, 302 and 303
    /// is not asked for with a body.
    pub fn request(&self, request: Request, progress: &Progress) -> Result<Response, Error> {
        let engine = self.engine()?.clone();
        let Request {
            method,
            url,
            mut headers,
            body,
            trust,
            credentials,
        } = request;
        let authorization = credentials
            .as_ref()
            .map(|(user, password)| basic(user, password));
        headers.remove(AUTHORIZATION);
        let body = Body::Bytes(body.into());
        let judge = |from: &Url, to: &Url| {
            let keeps_tls = from.scheme() == "http" || to.scheme() == "https";
            keeps_tls.then_some(trust).ok_or(DOWNGRADE)
        };
        let work = self.follow(
            method,
            without_credentials(url),
            (&headers, &body),
            authorization.as_ref(),
            (trust, &judge),
        );
        let (inner, _) = engine.block(progress, work)?;
        Ok(Response::new(
            inner,
            engine,
            progress.clone(),
            self.timing.stall,
        ))
    }

    /// Sends a request and follows redirects. `authorization` is shown to the origin of `url` only; the
    /// answer says too whether it came from there. `trust` is for `url`, and `judge` for what comes after it.
    pub(crate) async fn follow(
        &self,
        method: Method,
        url: Url,
        content: (&HeaderMap, &Body),
        authorization: Option<&HeaderValue>,
        trust: (Trust, Judge<'_>),
    ) -> Result<(reqwest::Response, bool), Error> {
        let home = url.clone();
        self.follow_for(&home, method, url, content, authorization, trust)
            .await
    }

    /// The same on behalf of `home`, whose authorities are trusted wherever it leads, as the container tools
    /// do: the servers of a registry's tokens and blobs are mostly certified by the same one.
    pub(crate) async fn follow_for(
        &self,
        home: &Url,
        method: Method,
        url: Url,
        (headers, body): (&HeaderMap, &Body),
        authorization: Option<&HeaderValue>,
        (trust, judge): (Trust, Judge<'_>),
    ) -> Result<(reqwest::Response, bool), Error> {
        let mut at = url.clone();
        let mut trust = trust;
        let mut is_home = true;
        for _ in 0..=MOST_REDIRECTS {
            // Who left once is not trusted again, even if the way leads back.
            is_home &= at.origin() == url.origin();
            let request = self
                .http_for(home, &at, trust)?
                .request(method.clone(), at.clone())
                .header(ACCEPT_ENCODING, "identity")
                .headers(headers.clone());
            let (mut request, watch) = body.attach(request);
            if let Some(value) = authorization.filter(|_| is_home) {
                request = request.header(AUTHORIZATION, value);
            }
            let response = self.send(request, &watch, &at, trust).await?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok((response, is_home));
            }
            if status < 307 && !body.is_empty() {
                return Err(refuse(&at, "what is sent with a body"));
            }
            let next = next_hop(&at, response.headers().get(LOCATION))?;
            trust = judge(&at, &next).map_err(|reason| refuse(&at, reason))?;
            at = next;
        }
        Err(refuse(&url, "in a circle"))
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        watch: &Watch,
        url: &Url,
        trust: Trust,
    ) -> Result<reqwest::Response, Error> {
        let proxy = match trust {
            Trust::Local => None,
            Trust::Verified | Trust::Unverified => self.options.proxies.for_url(url),
        };
        let answer = watch.over(request.send(), self.timing.stall).await;
        let response = answer
            .ok_or_else(|| Error::silent(url))?
            .map_err(|error| Error::unanswered(url, &error).by(proxy))?;
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            let fault = Fault::Other("it wants a user name and a password".to_owned());
            let host = host(url);
            return Err(Error::Unreachable { host, fault }.by(proxy));
        }
        Ok(response)
    }

    /// The pool of connections for `url`.
    pub(crate) fn http(&self, url: &Url, trust: Trust) -> Result<reqwest::Client, Error> {
        self.http_for(url, url, trust)
    }

    fn http_for(&self, home: &Url, url: &Url, trust: Trust) -> Result<reqwest::Client, Error> {
        if let Some(client) = self.http_of_host(home, url, trust)? {
            return Ok(client);
        }
        let is_plain = url.scheme() == "http"
            && self
                .options
                .proxies
                .for_url(url)
                .is_none_or(|proxy| !proxy.speaks_tls());
        let trust = match trust {
            // Without TLS there is nothing to verify, and no certificates are needed.
            Trust::Verified if is_plain => Trust::Unverified,
            trust => trust,
        };
        let slot = match trust {
            Trust::Verified => &self.pools.verified,
            Trust::Unverified => &self.pools.unverified,
            Trust::Local => &self.pools.local,
        };
        if let Some(client) = slot.get() {
            return Ok(client.clone());
        }
        let client = self.make(trust)?;
        Ok(slot.get_or_init(|| client).clone())
    }

    pub(crate) fn make(&self, trust: Trust) -> Result<reqwest::Client, Error> {
        self.make_with(trust, Certificates::default())
    }

    /// Makes a pool that knows `certificates` too.
    pub(super) fn make_with(
        &self,
        trust: Trust,
        certificates: Certificates,
    ) -> Result<reqwest::Client, Error> {
        let Certificates {
            authorities,
            identity,
        } = certificates;
        let mut config = match trust {
            Trust::Verified => self.tls_with(authorities, identity)?,
            Trust::Unverified | Trust::Local => tls::unverified(identity)?,
        };
        // The HTTP library leaves a configuration that it is given as it is.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .user_agent(concat!("pyats-image-build/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // Its own limit for silence counts the time that sending a body takes; the kernel's does not.
            .connect_timeout(self.timing.connect)
            .tcp_user_timeout(self.timing.stall)
            // Its own reading of the environment ends here.
            .no_proxy();
        let builder = if trust == Trust::Local {
            builder
        } else {
            let proxies = self.options.proxies.clone();
            let by_url = move |url: &Url| proxies.for_url(url).map(super::Proxy::url);
            builder.proxy(reqwest::Proxy::custom(by_url))
        };
        builder.build().map_err(|error| Error::setup(&error))
    }
}

/// The next piece of a body, unless nothing comes for `stall`.
pub(crate) async fn chunk(
    response: &mut reqwest::Response,
    stall: Duration,
) -> Result<Option<Bytes>, Error> {
    match tokio::time::timeout(stall, response.chunk()).await {
        Ok(result) => result.map_err(|error| Error::unanswered(response.url(), &error)),
        Err(_) => Err(Error::silent(response.url())),
    }
}

/// Where a redirect leads: to HTTP or HTTPS, and without credentials of its own.
pub(crate) fn next_hop(from: &Url, location: Option<&HeaderValue>) -> Result<Url, Error> {
    location
        .and_then(|location| from.join(location.to_str().ok()?).ok())
        .filter(|to| matches!(to.scheme(), "http" | "https") && to.has_host())
        .map(without_credentials)
        .ok_or_else(|| refuse(from, "to nowhere"))
}

/// The HTTP library would make an Authorization header of credentials in a URL.
pub(crate) fn without_credentials(mut url: Url) -> Url {
    // These fail for URLs without a host only, to which nothing is sent.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

fn refuse(from: &Url, reason: &'static str) -> Error {
    Error::Redirect {
        host: host(from),
        reason,
    }
}

/// `Authorization: Basic`, RFC 7617.
pub(crate) fn basic(user: &str, password: &Secret) -> HeaderValue {
    super::handshake::basic(user, password.reveal())
        .parse()
        .map(|mut value: HeaderValue| {
            value.set_sensitive(true);
            value
        })
        .expect("base64 is plain text")
}
