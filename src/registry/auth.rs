//! How a registry is shown who asks: a token for what is to be done, or user name and password.
//!
//! Follows the distribution project's token authentication, with its `OAuth2` variant for identity tokens. Only the
//! rights that a request needs are asked for: a registry whose challenge names others would get a token for them.
//! Nothing is shown before the registry asked for it, and a login is looked up each time that it does: a long
//! build outlives the tokens of clouds. Logins are for people who push, so a registry that lets everybody pull
//! is asked with them too, as Docker does: some count pulls by user.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::form_urlencoded;

use super::challenge::{self, Bearer, Challenge};
use super::document::is_web_page;
use super::login::{Credentials, Login, LoginError};
use super::{Client, Error, Reference};
use crate::net::{self, Body, host};
use crate::progress::Progress;
use crate::secret::Secret;

/// What a token holds for when the server does not say (the protocol's default).
const DEFAULT_LIFE: u64 = 60;
/// A day bounds what a server may say, and how long a password is taken for right.
const LONGEST_LIFE: u64 = 86_400;
/// The answer of a token server is a page at most; some put many rights in one token.
const LARGEST_ANSWER: u64 = 1 << 18;

/// What is going to be done in a repository, which is what tokens are for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Access {
    /// Nothing: whether a login is right.
    Enter,
    /// Read.
    Pull,
    /// Read and write.
    Push,
    /// The same, and read another repository of the registry, whose name this is.
    Mount(String),
}

impl Access {
    fn scopes(&self, reference: &Reference) -> Vec<String> {
        let own = |actions| format!("repository:{}:{actions}", reference.repository());
        match self {
            Self::Enter => Vec::new(),
            Self::Pull => vec![own("pull")],
            Self::Push => vec![own("pull,push")],
            Self::Mount(from) => vec![own("pull,push"), format!("repository:{from}:pull")],
        }
    }
}

/// What was shown to registries and did, by origin and scopes. One lock, so that of many requests that find a
/// token expired only one fetches the next.
#[derive(Debug, Default)]
pub(super) struct Passes(Mutex<HashMap<(String, Vec<String>), Pass>>);

/// Helpers that failed where nobody needs a login, as sentences, and whether they were told.
#[derive(Debug, Default)]
pub(super) struct Skipped(std::sync::Mutex<BTreeMap<String, bool>>);

impl Skipped {
    fn add(&self, reference: &Reference, error: &LoginError) {
        let registry = reference.registry();
        let sentence = format!("`{registry}` is asked without a login: {error}");
        self.lock().entry(sentence).or_default();
    }

    /// Warns of those that nobody was told of.
    pub(super) fn tell(&self, progress: &Progress) {
        for (sentence, is_told) in &mut *self.lock() {
            if !std::mem::replace(is_told, true) {
                progress.warn(sentence);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An `Authorization` header, how long it is good for, and whose it is.
#[derive(Clone)]
pub(super) struct Pass {
    pub(super) header: HeaderValue,
    until: Instant,
    /// For people; `None` is nobody in particular.
    pub(super) login: Option<String>,
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass")
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<u64>,
}

impl Client {
    /// What `reference` may be asked with, if it is at hand and still good.
    pub(super) async fn pass(
        &self,
        origin: &Url,
        reference: &Reference,
        access: &Access,
    ) -> Option<Pass> {
        let passes = self.passes.0.lock().await;
        let pass = passes.get(&(origin.to_string(), access.scopes(reference)))?;
        (Instant::now() < pass.until).then(|| pass.clone())
    }

    /// Something new to ask with, after `refused` (if something was shown) did not do; `None` if there is
    /// nothing that this registry has not seen.
    pub(super) async fn renew(
        &self,
        origin: &Url,
        reference: &Reference,
        access: &Access,
        challenges: &HeaderMap,
        refused: Option<&Pass>,
    ) -> Result<Option<Pass>, Error> {
        let Some(challenge) = challenge::read(challenges, origin)? else {
            return Ok(None);
        };
        let scopes = access.scopes(reference);
        let mut passes = self.passes.0.lock().await;
        let key = (origin.to_string(), scopes.clone());
        let is_refused = |header: &HeaderValue| refused.is_some_and(|pass| pass.header == header);
        if let Some(pass) = passes.get(&key)
            && !is_refused(&pass.header)
            && Instant::now() < pass.until
        {
            return Ok(Some(pass.clone()));
        }
        let (login, failure) = match self.login(reference).await {
            // Whoever pulls may need no login. If one is needed, this is why there is none.
            Err(Error::Login(error)) if *access == Access::Pull && error.is_of_helper() => {
                self.skipped.add(reference, &error);
                (None, Some(Error::Login(error)))
            }
            login => (login?, None),
        };
        let pass = match challenge {
            Challenge::Bearer(bearer) => self
                .fetch_token(origin, reference, &bearer, scopes, login)
                .await
                .map_err(|error| match failure {
                    Some(failure) if error.is_of_rights() => failure,
                    _ => error,
                })?,
            Challenge::Basic => match login.and_then(|login| basic(&login)) {
                Some(pass) if !is_refused(&pass.header) => pass,
                _ => return failure.map_or(Ok(None), Err),
            },
        };
        passes.insert(key, pass.clone());
        Ok(Some(pass))
    }

    /// An error if there is no telling whether there is a login for a repository.
    pub(super) async fn check_helper(&self, reference: &Reference) -> Result<(), Error> {
        self.login(reference).await.map(drop)
    }

    /// The login for a repository. Helpers are other programs and may take a while, so another thread waits.
    async fn login(&self, reference: &Reference) -> Result<Option<Login>, Error> {
        let logins = self.options.logins.clone();
        let (registry, repository) = (
            reference.registry().to_owned(),
            reference.repository().to_owned(),
        );
        let found = tokio::task::spawn_blocking(move || logins.find(&registry, &repository)).await;
        let found = found.map_err(|error| Error::Setup {
            reason: error.to_string(),
        })?;
        Ok(found?.login)
    }

    async fn fetch_token(
        &self,
        origin: &Url,
        reference: &Reference,
        bearer: &Bearer,
        scopes: Vec<String>,
        login: Option<Login>,
    ) -> Result<Pass, Error> {
        let whose = login.as_ref().map(Login::to_string);
        if let Some(Login {
            credentials: Credentials::RegistryToken(token),
            ..
        }) = &login
        {
            let life = Duration::from_secs(LONGEST_LIFE);
            return token_pass(token, life, whose)
                .ok_or_else(|| Error::NoToken { host: host(origin) });
        }
        let url = realm(origin, bearer)?;
        let began = Instant::now();
        let request = TokenRequest::new(url, bearer, &scopes, login.as_ref());
        let (response, _) = self
            .follow(
                origin,
                request.method,
                request.url,
                (&request.headers, &request.body),
                request.authorization.as_ref(),
            )
            .await?;
        if !response.status().is_success() {
            let refused = Error::refused(&reference.to_string(), response).await;
            return Err(refused.with_login(whose));
        }
        let host = host(response.url());
        let no_token = || Error::NoToken { host: host.clone() };
        let body = self.read(response, LARGEST_ANSWER).await?;
        let body = body.ok_or_else(no_token)?;
        if is_web_page(&body) {
            let what = "a token".to_owned();
            return Err(Error::WebPage { host, what });
        }
        let tokens: Answer = serde_json::from_slice(&body).map_err(|_| no_token())?;
        let life = tokens.expires_in.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
        // A tenth is left for the way and for clocks that differ.
        let life = Duration::from_secs(life) * 9 / 10;
        tokens
            .token
            .into_iter()
            .chain(tokens.access_token)
            .find(|token| !token.reveal().is_empty())
            .and_then(|token| token_pass(&token, life.saturating_sub(began.elapsed()), whose))
            .ok_or_else(no_token)
    }
}

/// What a token server is asked.
struct TokenRequest {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Body,
    authorization: Option<HeaderValue>,
}

impl TokenRequest {
    fn new(mut url: Url, bearer: &Bearer, scopes: &[String], login: Option<&Login>) -> Self {
        let mut headers = HeaderMap::new();
        if let Some(Login {
            credentials: Credentials::IdentityToken(token),
            ..
        }) = login
        {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token")
                .append_pair("client_id", "pyats-image-build")
                .append_pair("service", bearer.service.as_deref().unwrap_or_default())
                .append_pair("scope", &scopes.join(" "))
                .append_pair("refresh_token", token.reveal());
            let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, form_type);
            return Self {
                method: Method::POST,
                url,
                headers,
                body: Body::Bytes(form.finish().into()),
                authorization: None,
            };
        }
        if let Some(service) = &bearer.service {
            url.query_pairs_mut().append_pair("service", service);
        }
        for scope in scopes {
            url.query_pairs_mut().append_pair("scope", scope);
        }
        Self {
            method: Method::GET,
            url,
            headers,
            body: Body::none(),
            authorization: login.and_then(basic).map(|pass| pass.header),
        }
    }
}

/// Where tokens are, if that can be believed. A user name in the URL is not the login's.
fn realm(origin: &Url, bearer: &Bearer) -> Result<Url, Error> {
    let url = Url::parse(&bearer.realm)
        .ok()
        .filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| Error::Challenge { host: host(origin) })?;
    if url.scheme() == "http" && origin.scheme() == "https" {
        return Err(Error::InsecureRealm {
            host: host(origin),
            realm: host(&url),
        });
    }
    Ok(net::without_credentials(url))
}

/// `None` for tokens that no header can hold.
fn token_pass(token: &Secret, life: Duration, login: Option<String>) -> Option<Pass> {
    let mut header = HeaderValue::from_str(&format!("Bearer {}", token.reveal())).ok()?;
    header.set_sensitive(true);
    Some(Pass {
        header,
        until: Instant::now() + life,
        login,
    })
}

/// User name and password as they are; `None` for a login that has none.
fn basic(login: &Login) -> Option<Pass> {
    let Credentials::Password { user, password } = &login.credentials else {
        return None;
    };
    Some(Pass {
        header: net::basic(user, password),
        until: Instant::now() + Duration::from_secs(LONGEST_LIFE),
        login: Some(login.to_string()),
    })
}
