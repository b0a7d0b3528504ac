//! Text that must not be shown, and how text that others wrote is shown.
//!
//! A URL carries credentials in its user information (RFC 3986, section 3.2.1). [`mask`] is for
//! everything that a person reads; [`split_credentials`] is for files that go into an image.
//!
//! Registries, archives and build files put what they like into the texts that events and errors quote.
//! [`printable`] is called where such a text leaves the program, and nowhere else.

use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use regex::{Captures, Regex};
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

/// Controls, format characters (they turn the direction of text, or are invisible) and Unicode's line breaks.
static INVISIBLE: LazyLock<Regex> = LazyLock::new(|| regex(r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]"));

#[expect(
    clippy::unwrap_used,
    reason = "the patterns are constants, and every test compiles them"
)]
pub(crate) fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

/// `text` as one line for a terminal or a log: without escape sequences, line breaks, and characters that are
/// invisible or turn the direction of text. A symbol stands for each of them, such as `␛`; tabs stay. Text that was made
/// printable is not changed again.
///
/// ```
/// assert_eq!(pyats_image_builder::printable("a\u{1b}[2J\nerror: b"), "a␛[2J␊error: b");
/// ```
#[must_use]
pub fn printable(text: &str) -> String {
    let symbol = |found: &Captures<'_>| match found[0].chars().next() {
        Some('\t') => '\t',
        Some('\u{7f}') => '\u{2421}',
        // The block "Control Pictures" has the others in their order.
        Some(c) if c < ' ' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        _ => '\u{fffd}',
    };
    let shown = INVISIBLE.replace_all(text, |found: &Captures<'_>| symbol(found).to_string());
    shown.into_owned()
}

/// The same for a JSON document, whose texts stay what they are: the characters are escaped, but for the line breaks
/// between values.
#[must_use]
pub fn printable_json(document: &str) -> String {
    let escaped = |found: &Captures<'_>| {
        let mut text = String::new();
        for unit in found[0].encode_utf16().filter(|_| &found[0] != "\n") {
            let _ = write!(text, "\\u{unit:04x}");
        }
        if text.is_empty() {
            "\n".to_owned()
        } else {
            text
        }
    };
    INVISIBLE.replace_all(document, escaped).into_owned()
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
    let mut scan = Scan::new(text);
    for url in urls(text) {
        if ranges.last().is_some_and(|last| last.end >= url.authority) {
            continue;
        }
        if let Some(user) = scan.user_information(&url, true)
            && holds_secret(url.scheme, &text[user.start..user.at])
        {
            ranges.push(user.start..user.at);
        }
    }
    ranges.extend(bare_logins(text));
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// The logins of `user:password@host:path`, which git and scp do not understand, but people write.
fn bare_logins(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_url =
        |word: &str| word.contains("://") || word.to_ascii_lowercase().contains(ENCODED_SEPARATOR);
    let words = text.split(ends_word);
    words.filter(move |word| !is_url(word)).filter_map(|word| {
        let mut at = word.rfind('@')?;
        if word[at..].starts_with("@sha256:") {
            at = word[..at].rfind('@')?;
        }
        let host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']');
        let after = word[at + 1..].trim_start_matches(host);
        let has_host = after.len() < word.len() - at - 1 && after.starts_with([':', '/']);
        let colon = word[..at].find(':')?;
        let name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '%');
        let start = word[..colon].trim_end_matches(name).len();
        let password = &word[colon + 1..at];
        let is_login = has_host
            && start < colon
            && !word[..start].ends_with(['@', '/'])
            && !password.is_empty()
            && !password.starts_with(['/', '.', '~'])
            && !password.ends_with('/')
            && !is_variables(password);
        // Both are parts of one text.
        let offset = word.as_ptr().addr() - text.as_ptr().addr();
        is_login.then(|| offset + start..offset + at)
    })
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
    let mut scan = Scan::new(text);
    for url in urls(text).into_iter().filter(|url| !url.encoded) {
        let Some(user) = scan.user_information(&url, false) else {
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

/// Where a word of a text ends, and an error message puts something behind a URL.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`')
}

/// Looks for the user information of URLs in the order of their places. What is found behind one may be behind the next
/// one as well, so that a text takes time in proportion to its length.
struct Scan<'t> {
    text: &'t str,
    lower: String,
    word: Next,
    stop: Next,
    encoded_stops: [Next; 4],
    /// The end of a word, and its last `@`.
    last_at: (usize, Option<usize>),
}

/// The next place of something, as far as it was looked for.
#[derive(Default)]
struct Next(Option<usize>);

impl Next {
    fn after(&mut self, at: usize, text: &str, find: impl Fn(&str) -> Option<usize>) -> usize {
        match self.0 {
            Some(found) if found >= at => found,
            _ => {
                let found = find(&text[at..]).map_or(text.len(), |found| at + found);
                *self.0.insert(found)
            }
        }
    }
}

impl<'t> Scan<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            // Lower-casing ASCII alone keeps every byte's place.
            lower: text.to_ascii_lowercase(),
            word: Next::default(),
            stop: Next::default(),
            encoded_stops: <[Next; 4]>::default(),
            last_at: (0, None),
        }
    }

    /// The user information of `url`. `eager` also finds one with a `/`, `?` or `#` that should have been
    /// percent-encoded: such a URL does not work, but an error message would show its password.
    fn user_information(&mut self, url: &Url<'_>, eager: bool) -> Option<UserInformation> {
        let (text, start) = (self.text, url.authority);
        let word_end = self.word.after(start, text, |text| text.find(ends_word));
        let stops = ['/', '?', '#', '\\'];
        let stop = self.stop.after(start, text, |text| text.find(stops));
        let mut end = stop.min(word_end);
        if url.encoded {
            for (next, stop) in self
                .encoded_stops
                .iter_mut()
                .zip(["%2f", "%3f", "%23", "&"])
            {
                end = end.min(next.after(start, &self.lower, |text| text.find(stop)));
            }
        }
        let found = &self.lower[start..end];
        let plain = found.rfind('@').map(|at| (start + at, 1));
        let encoded = found.rfind("%40").filter(|_| url.encoded);
        let (at, length) = plain.max(encoded.map(|at| (start + at, 3))).or_else(|| {
            let (host, port) = text[start..end].split_once(':')?;
            let is_suspicious = eager
                && !url.encoded
                && !host.starts_with('[')
                && !port.starts_with(['$', '{'])
                // The login of a URL inside this one was masked before, and with it the `@` that it was found by.
                && !text[start..end].contains("***%40")
                && !port.bytes().all(|byte| byte.is_ascii_digit());
            let at = self.last_at(start..word_end).filter(|_| is_suspicious)?;
            Some((at, 1))
        })?;
        Some(UserInformation {
            start,
            at,
            end: at + length,
        })
    }

    fn last_at(&mut self, word: Range<usize>) -> Option<usize> {
        if self.last_at.0 != word.end {
            let found = self.text[word.clone()].rfind('@');
            self.last_at = (word.end, found.map(|at| word.start + at));
        }
        self.last_at.1.filter(|at| *at >= word.start)
    }
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
            ("user:pw@host:path/x", "***@host:path/x"),
            ("url=user:p/w@host/path", "url=***@host/path"),
            ("`me:pw@[::1]:x`", "`***@[::1]:x`"),
            ("me:pw@docker.io/x@sha256:00", "***@docker.io/x@sha256:00"),
            ("http%3a%2f%2fu:p@h:1", "http%3a%2f%2f***@h:1"),
            ("ssh://git:pw@host", "ssh://***@host"),
            ("https://***@host", "https://***@host"),
            ("https://user:a${B}@host", "https://***@host"),
            ("http://u:p@[::1]:80/", "http://***@[::1]:80/"),
        ] {
            assert_eq!(mask(text), masked, "{text}");
        }
    }

    #[test]
    fn time_is_in_proportion_to_length() {
        let parts = [
            "://",
            "x://a:b/",
            "x://a:b",
            "%3a%2f%2f",
            "x%3a%2f%2fa%3ab",
            "a:b@",
            "@",
            "x://@",
            "a:b@c:",
            "://a:b@c ",
        ];
        let began = std::time::Instant::now();
        for part in parts {
            let text = part.repeat((1 << 16) / part.len());
            let _ = (mask(&text), split_credentials(&text), credentials(&text));
        }
        // Half a minute for the first of them alone, if each part is looked at to the end of the line.
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }

    #[test]
    fn lines_are_printable() {
        for (text, shown) in [
            ("plain ä\t…", "plain ä\t…"),
            ("a\r\nb\0\u{1b}[1m\u{7f}", "a␍␊b␀␛[1m␡"),
            (
                "\u{9b}2J\u{85}\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\u{e0041}",
                "�2J�������",
            ),
        ] {
            assert_eq!(printable(text), shown);
            assert_eq!(printable(shown), shown);
        }
        let value = serde_json::json!({"a\n": "\u{1b}\u{9b}\u{202e}\u{e0041}ä"});
        let document = printable_json(&format!("{value:#}"));
        assert_eq!(
            document,
            "{\n  \"a\\n\": \"\\u001b\\u009b\\u202e\\udb40\\udc41ä\"\n}"
        );
        let read: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn what_holds_no_secret_stays() {
        for text in [
            "python:3.11@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "host:/opt/node_modules/@scope/pkg",
            "git@host:a@b:c",
            "mailto:me@example.com",
            "user:${TOKEN}@host:path",
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
        fn any_text_is_masked_once(text in "([a-z:/@%$ {}é]|://|@|%3A%2F%2F|%40|a:b@c:){0,40}") {
            let once = mask(&text);
            prop_assert_eq!(mask(&once), once);
            let (public, changed) = split_credentials(&text);
            prop_assert_eq!(changed, public != text);
        }
    }
}
