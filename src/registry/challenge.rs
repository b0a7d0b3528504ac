//! What a registry asks for before it answers: the `WWW-Authenticate` header, read strictly.
//!
//! Follows RFC 9110, section 11.6.1, and the distribution project's token authentication.

use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use super::Error;
use crate::net::host;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token of a token server.
    Bearer(Bearer),
    /// User name and password.
    Basic,
}

/// `Bearer realm="…",service="…",scope="…"`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
}

/// The first challenge that can be answered, a token before a password; `None` if there are only others, such
/// as Negotiate, or none.
pub(super) fn read(headers: &HeaderMap, origin: &Url) -> Result<Option<Challenge>, Error> {
    let mut basic = None;
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = header.to_str() else { continue };
        match parse(text) {
            Parsed::Known(Challenge::Basic) => basic = Some(Challenge::Basic),
            Parsed::Known(bearer) => return Ok(Some(bearer)),
            Parsed::Other => {}
            Parsed::Invalid => return Err(Error::Challenge { host: host(origin) }),
        }
    }
    Ok(basic)
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Known(Challenge),
    Other,
    Invalid,
}

/// Reads `scheme key=value, key="value", …`, several in one header too.
fn parse(header: &str) -> Parsed {
    let mut rest = header.trim();
    let mut found = Parsed::Other;
    loop {
        let (scheme, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let scheme = scheme.trim_end_matches(',');
        if scheme.is_empty() || !scheme.bytes().all(is_token) {
            return Parsed::Invalid;
        }
        let Some((parameters, next)) = parameters(after) else {
            return Parsed::Invalid;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            return bearer(parameters).map_or(Parsed::Invalid, |bearer| {
                Parsed::Known(Challenge::Bearer(bearer))
            });
        }
        if scheme.eq_ignore_ascii_case("basic") {
            found = Parsed::Known(Challenge::Basic);
        }
        if next.is_empty() {
            return found;
        }
        rest = next;
    }
}

fn bearer(parameters: Vec<(String, String)>) -> Option<Bearer> {
    let mut bearer = Bearer::default();
    let mut seen = Vec::new();
    for (key, value) in parameters {
        if seen.contains(&key) {
            return None;
        }
        match key.as_str() {
            "realm" => bearer.realm = value,
            "service" => bearer.service = Some(value),
            _ => {}
        }
        seen.push(key);
    }
    (!bearer.realm.is_empty()).then_some(bearer)
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

    fn bearer(bearer: Bearer) -> Parsed {
        Parsed::Known(Challenge::Bearer(bearer))
    }

    #[test]
    fn challenges_are_read_strictly() {
        let docker_hub = Bearer {
            realm: "https://auth.docker.io/token".to_owned(),
            service: Some("registry.docker.io".to_owned()),
        };
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/python:pull,push""#;
        assert_eq!(parse(text), bearer(docker_hub.clone()));
        assert_eq!(
            parse(&format!(r#"Basic realm="a, b", {text}"#)),
            bearer(docker_hub)
        );
        let basic = Parsed::Known(Challenge::Basic);
        assert_eq!(parse(r#"Basic realm="x""#), basic);
        assert_eq!(parse(r#"Negotiate, basic realm="x""#), basic);
        assert_eq!(parse("Negotiate"), Parsed::Other);
        assert_eq!(
            parse(r#"bearer realm="a\"b" , error=x"#),
            bearer(Bearer {
                realm: "a\"b".to_owned(),
                ..Bearer::default()
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
            assert_eq!(parse(wrong), Parsed::Invalid, "{wrong}");
        }
    }

    #[test]
    fn a_token_goes_before_a_password() {
        let origin: Url = "https://registry.example.com/".parse().unwrap();
        let ask = |lines: &[&str]| {
            let lines = lines
                .iter()
                .map(|line| (WWW_AUTHENTICATE, line.parse().unwrap()));
            read(&lines.collect(), &origin).unwrap()
        };
        let token = r#"Bearer realm="https://a""#;
        let password = r#"Basic realm="b""#;
        for lines in [[token, password], [password, token]] {
            assert!(matches!(ask(&lines), Some(Challenge::Bearer(_))));
        }
        assert_eq!(ask(&[password]), Some(Challenge::Basic));
        assert_eq!(ask(&["Negotiate"]), None);
        assert_eq!(ask(&[]), None);
    }
}
