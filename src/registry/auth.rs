//! Bearer tokens: the challenge of a registry, the token server's answer, and how long it holds.
//!
//! Follows the distribution project's token authentication. Tokens are asked for without a login.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Client, Error, Reference};
use crate::net::host;
use crate::secret::Secret;

/// What a token holds for when the server does not say (the protocol's default).
const DEFAULT_LIFE: u64 = 60;
/// The answer of a token server is a page at most; some put many rights in one token.
const LARGEST_ANSWER: usize = 1 << 18;

/// The tokens at hand, by registry and scope. One lock, so that of many requests that find a token
/// expired only one fetches the next.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<(String, String), Token>>);

#[derive(Debug, Clone)]
struct Token {
    value: Secret,
    until: Instant,
}

/// What `WWW-Authenticate: Bearer …` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Challenge {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<u64>,
}

fn scope(reference: &Reference) -> String {
    format!("repository:{}:pull", reference.repository())
}

impl Client {
    /// The token for `reference`, if one is at hand and still holds.
    pub(super) async fn token(&self, origin: &Url, reference: &Reference) -> Option<Secret> {
        let tokens = self.tokens.0.lock().await;
        let token = tokens.get(&(origin.to_string(), scope(reference)))?;
        (Instant::now() < token.until).then(|| token.value.clone())
    }

    /// A new token, after `refused` (if one was sent) did not do.
    pub(super) async fn renew(
        &self,
        origin: &Url,
        reference: &Reference,
        challenges: &HeaderMap,
        refused: Option<&Secret>,
    ) -> Result<Option<Secret>, Error> {
        let Some(challenge) = bearer(challenges, origin)? else {
            return Ok(None);
        };
        let scope = scope(reference);
        let mut tokens = self.tokens.0.lock().await;
        let key = (origin.to_string(), scope.clone());
        if let Some(token) = tokens.get(&key)
            && Some(&token.value) != refused
            && Instant::now() < token.until
        {
            return Ok(Some(token.value.clone()));
        }
        let token = self
            .fetch_token(origin, reference, &challenge, &scope)
            .await?;
        let value = token.value.clone();
        tokens.insert(key, token);
        Ok(Some(value))
    }

    async fn fetch_token(
        &self,
        origin: &Url,
        reference: &Reference,
        challenge: &Challenge,
        scope: &str,
    ) -> Result<Token, Error> {
        let mut url = Url::parse(&challenge.realm)
            .ok()
            .filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| Error::Challenge { host: host(origin) })?;
        if url.scheme() == "http" && origin.scheme() == "https" {
            return Err(Error::InsecureRealm {
                host: host(origin),
                realm: host(&url),
            });
        }
        if let Some(service) = &challenge.service {
            url.query_pairs_mut().append_pair("service", service);
        }
        url.query_pairs_mut()
            .append_pair("scope", challenge.scope.as_deref().unwrap_or(scope));
        let asked = Instant::now();
        let (mut response, _) = self
            .follow(reqwest::Method::GET, url, &HeaderMap::new(), None)
            .await?;
        if !response.status().is_success() {
            return Err(Error::refused(&reference.to_string(), response).await);
        }
        let token_host = host(response.url());
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| Error::unanswered(origin, &error))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST_ANSWER {
                return Err(Error::NoToken { host: token_host });
            }
        }
        let no_token = || Error::NoToken {
            host: token_host.clone(),
        };
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| no_token())?;
        let value = answer
            .token
            .into_iter()
            .chain(answer.access_token)
            .find(|token| !token.reveal().is_empty())
            .filter(|token| HeaderValue::from_str(token.reveal()).is_ok())
            .ok_or_else(no_token)?;
        // A tenth is left for the way and for clocks that differ; a day bounds what a server may say.
        let life = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE).min(86_400));
        Ok(Token {
            value,
            until: asked + life * 9 / 10,
        })
    }
}

/// The first Bearer challenge; `None` if there are only others, such as Basic.
fn bearer(headers: &HeaderMap, origin: &Url) -> Result<Option<Challenge>, Error> {
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = header.to_str() else { continue };
        match parse(text) {
            Parsed::Bearer(challenge) => return Ok(Some(challenge)),
            Parsed::Other => {}
            Parsed::Invalid => return Err(Error::Challenge { host: host(origin) }),
        }
    }
    Ok(None)
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Bearer(Challenge),
    Other,
    Invalid,
}

/// Reads `scheme key=value, key="value", …` (RFC 9110, section 11.6.1), several in one header too.
fn parse(header: &str) -> Parsed {
    let mut rest = header.trim();
    loop {
        let (scheme, after) = rest.split_once(' ').unwrap_or((rest, ""));
        if scheme.is_empty() || !scheme.bytes().all(is_token) {
            return Parsed::Invalid;
        }
        let Some((parameters, next)) = parameters(after) else {
            return Parsed::Invalid;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            return challenge(parameters).map_or(Parsed::Invalid, Parsed::Bearer);
        }
        if next.is_empty() {
            return Parsed::Other;
        }
        rest = next;
    }
}

fn challenge(parameters: Vec<(String, String)>) -> Option<Challenge> {
    let mut challenge = Challenge::default();
    let mut seen = Vec::new();
    for (key, value) in parameters {
        if seen.contains(&key) {
            return None;
        }
        match key.as_str() {
            "realm" => challenge.realm = value,
            "service" => challenge.service = Some(value),
            "scope" if !value.is_empty() => challenge.scope = Some(value),
            _ => {}
        }
        seen.push(key);
    }
    (!challenge.realm.is_empty()).then_some(challenge)
}

/// The parameters of one challenge, and the text from the next one on; `None` if it is malformed.
fn parameters(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest
            .bytes()
            .position(|byte| !is_token(byte))
            .unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let after_key = after.trim_start_matches([' ', '\t']);
        let Some(value) = after_key.strip_prefix('=') else {
            // Not a parameter, so it is the scheme of the next challenge.
            return (!key.is_empty()).then_some((found, rest));
        };
        if key.is_empty() {
            return None;
        }
        let (value, after) = value_of(value.trim_start_matches([' ', '\t']))?;
        found.push((key.to_ascii_lowercase(), value));
        let after = after.trim_start_matches([' ', '\t']);
        if !after.is_empty() && !after.starts_with(',') {
            return None;
        }
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    Some((found, ""))
}

fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .bytes()
            .position(|byte| !is_token(byte))
            .unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Parsed {
        parse(header)
    }

    #[test]
    fn challenges_are_read_strictly() {
        let docker_hub = Challenge {
            realm: "https://auth.docker.io/token".to_owned(),
            service: Some("registry.docker.io".to_owned()),
            scope: Some("repository:library/python:pull,push".to_owned()),
        };
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/python:pull,push""#;
        assert_eq!(read(text), Parsed::Bearer(docker_hub.clone()));
        assert_eq!(
            read(&format!(r#"Basic realm="a, b", {text}"#)),
            Parsed::Bearer(docker_hub)
        );
        assert_eq!(read(r#"Basic realm="x""#), Parsed::Other);
        assert_eq!(read("Negotiate"), Parsed::Other);
        assert_eq!(
            read(r#"bearer realm="a\"b" , error=x"#),
            Parsed::Bearer(Challenge {
                realm: "a\"b".to_owned(),
                ..Challenge::default()
            })
        );
        for wrong in [
            "",
            "Bearer",
            "Bearer realm=",
            r#"Bearer realm="x"#,
            r#"Bearer service="x""#,
            r#"Bearer realm="a" realm="b""#,
            r#"Bearer realm="a",realm="b""#,
            r#"Bearer ="a""#,
        ] {
            assert_eq!(read(wrong), Parsed::Invalid, "{wrong}");
        }
    }
}
