//! Text that must not be shown, and the masking of credentials in text that will be.
//!
//! A URL carries credentials in its user information (RFC 3986, section 3.2.1). [`mask`] is for
//! everything that a person reads; [`split_credentials`] is for files that go into an image.

use std::fmt;
use std::ops::Range;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// A value that no message, log or file shows. `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `text` with `***` in place of the user information of every URL in it: `https://***@host/x`.
///
/// A bare user name of an ssh URL (`git+ssh://git@host`) and variables (`https://${TOKEN}@host`) hold
/// no secret and stay. Masked text is not changed by masking it again.
#[must_use]
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = 0;
    for range in secret_ranges(text) {
        masked.push_str(&text[rest..range.start]);
        masked.push_str("***");
        rest = range.end;
    }
    masked.push_str(&text[rest..]);
    masked
}

/// The bytes of `text` that [`mask`] replaces, in their order: user information without its `@`.
#[must_use]
pub fn secret_ranges(text: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for url in urls(text) {
        if ranges.last().is_some_and(|last| last.end >= url.authority) {
            continue;
        }
        if let Some(user) = user_information(text, &url, true)
            && holds_secret(url.scheme, &text[user.start..user.at])
        {
            ranges.push(user.start..user.at);
        }
    }
    ranges
}

/// `text` without the credentials of its URLs, and whether there were any: what a requirement or a
/// line of `pip.conf` looks like in the image.
///
/// Unlike [`mask`] it touches only what pip itself takes for user information. An ssh URL keeps its
/// user name and loses its password.
#[must_use]
pub fn split_credentials(text: &str) -> (String, bool) {
    let mut public = String::with_capacity(text.len());
    let mut rest = 0;
    for url in urls(text).into_iter().filter(|url| !url.encoded) {
        let Some(user) = user_information(text, &url, false) else {
            continue;
        };
        if user.start < rest || !holds_secret(url.scheme, &text[user.start..user.at]) {
            continue;
        }
        public.push_str(&text[rest..user.start]);
        let name = text[user.start..user.at]
            .split(':')
            .next()
            .unwrap_or_default();
        if is_ssh(url.scheme) && !name.is_empty() {
            public.push_str(name);
            public.push('@');
        }
        rest = user.end;
    }
    public.push_str(&text[rest..]);
    (public, rest > 0)
}

/// The passwords and tokens in the URLs of `text`, as they are written and as they are meant, for a log that
/// may show them on their own. Those of fewer than four characters are left out: words would be full of them.
#[must_use]
pub fn credentials(text: &str) -> Vec<Secret> {
    let mut found = Vec::new();
    for range in secret_ranges(text) {
        let user = &text[range];
        let written = match user.split_once(':') {
            Some((_, password)) if !password.is_empty() => password,
            Some((name, _)) => name,
            None => user,
        };
        let meant = percent_decode_str(written).decode_utf8_lossy();
        found.extend([written, &meant].map(Secret::new));
    }
    found.retain(|secret| secret.reveal().len() >= 4);
    found.dedup();
    found
}

/// Where a URL's authority begins, after `scheme://`.
struct Url<'a> {
    scheme: &'a str,
    authority: usize,
    /// Written as `scheme%3A%2F%2F`, inside another URL.
    encoded: bool,
}

struct UserInformation {
    start: usize,
    /// Where its `@` is, so where it ends.
    at: usize,
    /// After the `@`.
    end: usize,
}

const ENCODED_SEPARATOR: &str = "%3a%2f%2f";

fn urls(text: &str) -> Vec<Url<'_>> {
    // Lower-casing ASCII alone keeps every byte's place.
    let lower = text.to_ascii_lowercase();
    let mut urls: Vec<Url<'_>> = Vec::new();
    for (separator, encoded) in [("://", false), (ENCODED_SEPARATOR, true)] {
        for (at, _) in lower.match_indices(separator) {
            let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
            let before = text[..at].char_indices().rev();
            let start = before
                .take_while(|(_, c)| valid(*c))
                .last()
                .map_or(at, |(start, _)| start);
            let scheme = &text[start..at];
            urls.push(Url {
                scheme,
                authority: at + separator.len(),
                encoded,
            });
        }
    }
    urls.sort_by_key(|url| url.authority);
    urls
}

/// The user information of `url`. `eager` also finds one with a `/`, `?` or `#` that should have been
/// percent-encoded: such a URL does not work, but an error message would show its password.
fn user_information(text: &str, url: &Url<'_>, eager: bool) -> Option<UserInformation> {
    let tail = &text[url.authority..];
    let word = &tail[..tail
        .find(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '<' | '>' | '`'))
        .unwrap_or(tail.len())];
    let lower = word.to_ascii_lowercase();
    let mut end = word.find(['/', '?', '#', '\\']).unwrap_or(word.len());
    if url.encoded {
        for stop in ["%2f", "%3f", "%23", "&"] {
            end = end.min(lower.find(stop).unwrap_or(end));
        }
    }
    let found = |within: &str, encoded: bool| {
        let plain = within.rfind('@').map(|at| (at, at + 1));
        let encoded = within
            .rfind("%40")
            .filter(|_| encoded)
            .map(|at| (at, at + 3));
        plain.max(encoded)
    };
    let (at, after) = found(&lower[..end], url.encoded).or_else(|| {
        let (host, port) = word[..end].split_once(':')?;
        let suspicious = eager
            && !url.encoded
            && !host.starts_with('[')
            && !port.starts_with(['$', '{'])
            && !port.bytes().all(|byte| byte.is_ascii_digit());
        found(&lower, false).filter(|_| suspicious)
    })?;
    Some(UserInformation {
        start: url.authority,
        at: url.authority + at,
        end: url.authority + after,
    })
}

fn holds_secret(scheme: &str, user: &str) -> bool {
    match user.split_once(':') {
        _ if user.is_empty() => false,
        None => !is_ssh(scheme) && !is_variables(user),
        Some((name, "")) => !is_variables(name),
        Some((_, password)) => !is_variables(password),
    }
}

/// The schemes whose user name says whom to log in as, and is no credential.
fn is_ssh(scheme: &str) -> bool {
    let scheme = scheme.to_ascii_lowercase();
    scheme
        .split('+')
        .any(|part| matches!(part, "ssh" | "scp" | "sftp" | "rsync"))
}

/// Whether `text` is `${NAME}` once or more, which pip expands when it runs.
fn is_variables(text: &str) -> bool {
    let mut rest = text;
    while let Some((name, after)) = rest
        .strip_prefix("${")
        .and_then(|tail| tail.split_once('}'))
    {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(valid) {
            return false;
        }
        rest = after;
    }
    rest.is_empty() && !text.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_masked() {
        for (text, masked) in [
            ("https://user:pw@host/x", "https://***@host/x"),
            ("https://token@host", "https://***@host"),
            (
                "--index-url=https://u%40x:p%2Fw@host/simple y",
                "--index-url=https://***@host/simple y",
            ),
            ("http://u:p@a http://u:p@b", "http://***@a http://***@b"),
            ("http://u:p@ss@host", "http://***@host"),
            ("https://u:p/w@host/x", "https://***@host/x"),
            ("https://u:p#w@host/x", "https://***@host/x"),
            (
                "?to=https%3A%2F%2Fu%3Ap%40host%2F",
                "?to=https%3A%2F%2F***%40host%2F",
            ),
            ("é://ü:p@host", "é://***@host"),
            (
                "git+https://u:p@host/r.git@v1",
                "git+https://***@host/r.git@v1",
            ),
            ("ssh://git:pw@host", "ssh://***@host"),
            ("https://***@host", "https://***@host"),
            ("https://user:a${B}@host", "https://***@host"),
            ("http://u:p@[::1]:80/", "http://***@[::1]:80/"),
        ] {
            assert_eq!(mask(text), masked, "{text}");
        }
    }

    #[test]
    fn what_holds_no_secret_stays() {
        for text in [
            "git+ssh://git@host/r.git",
            "ssh://git@host:22/r.git@v1",
            "scp://user@host:23/path",
            "https://${USER}:${TOKEN}@host/simple",
            "https://user:${TOKEN}@host/simple",
            "https://${TOKEN}@host",
            "pkg @ https://host/x@1.0",
            "pkg @ https://host:8080/x@1.0",
            "https://@host",
            "me@example.com",
            "git@host:path/x.git",
            "http://[::1]:80/a@b",
            "https://host:${PORT}/a@b",
            "",
        ] {
            assert_eq!(mask(text), text);
            assert_eq!(split_credentials(text), (text.to_owned(), false));
        }
    }

    #[test]
    fn files_of_the_image_lose_credentials() {
        for (text, public) in [
            (
                "--index-url https://u:p@h/simple",
                "--index-url https://h/simple",
            ),
            ("a @ https://t@h/a.whl", "a @ https://h/a.whl"),
            ("git+ssh://git:pw@h/r.git", "git+ssh://git@h/r.git"),
            (
                "https://u:p@a https://${T}@b https://t@c",
                "https://a https://${T}@b https://c",
            ),
        ] {
            assert_eq!(split_credentials(text), (public.to_owned(), true));
        }
    }

    #[test]
    fn credentials_are_listed_as_written_and_as_meant() {
        let found = credentials(
            "index-url = https://me:p%40ss@host/simple\nextra = https://t0ken@host https://t0ken:@host \
             https://a:b@host git+ssh://git@host https://${USER}:${TOKEN}@host",
        );
        let found: Vec<_> = found.iter().map(Secret::reveal).collect();
        assert_eq!(found, ["p%40ss", "p@ss", "t0ken"]);
    }

    #[test]
    fn a_secret_prints_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.reveal(), "hunter2");
    }

    proptest! {
        #[test]
        fn no_password_is_left(
            before in "\\PC{0,20}", password in "PLANTED[!$-.0-;=?-_a-z{-~]{0,12}", after in "(/[a-z@]{0,8})?",
        ) {
            let text = format!("{before} https://user:{password}@host{after}");
            prop_assert!(!mask(&text).contains("PLANTED"), "{}", mask(&text));
        }

        #[test]
        fn any_text_is_masked_once(text in "([a-z:/@%$ {}é]|://|@|%3A%2F%2F|%40){0,40}") {
            let once = mask(&text);
            prop_assert_eq!(mask(&once), once);
            let (public, changed) = split_credentials(&text);
            prop_assert_eq!(changed, public != text);
        }
    }
}
