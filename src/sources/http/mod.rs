//! Files by `http` and `https`: streamed to disk, resumed where they were cut, verified.
//!
//! A download that fails goes on from the bytes that are there, if the server says that they are still
//! the same (RFC 9110, section 13.1.5); otherwise it begins anew. `#sha256=…` behind the URL names the
//! digest of the right file.

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use reqwest::StatusCode;
use reqwest::header::{self, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::buildfile::Location;
use crate::error::{Error, Wrap as _};
use crate::net::{self, Coding, Decoder, Retry};
use crate::secret::Secret;

use super::error::{no_space, source};
use super::{Answer, Fetch, Validator};

/// No file is larger; a body without an end stops here.
const LARGEST: u64 = 64 << 30;
/// Between two events about the same file.
const TICK: Duration = Duration::from_millis(50);

/// Fetches what lies at `location`.
pub(super) fn fetch(
    location: &Location,
    into: &Path,
    known: Option<&Validator>,
    fetch: Fetch<'_>,
) -> Result<Answer, Error> {
    download(location, into, known, fetch).wrap(|| format!("failed to download `{location}`"))
}

fn download(
    location: &Location,
    into: &Path,
    known: Option<&Validator>,
    fetch: Fetch<'_>,
) -> Result<Answer, Error> {
    let expected = digest_of(location)?;
    let known_digest = known.and_then(|known| known["sha256"].as_str());
    if expected.is_some() && expected.as_deref() == known_digest {
        return Ok(Answer::Unchanged);
    }
    let download = Download::start(location, into, fetch).and_then(|download| {
        // What is kept is not the right file, whether it changed or not.
        let known = known.filter(|_| expected.is_none());
        download.run(known, expected.as_deref())
    });
    download.inspect_err(|_| {
        // It may not have been made, and whoever gave the path removes what else lies there.
        let _ = fs::remove_file(into);
    })
}

/// The digest in the URL, in small letters.
fn digest_of(location: &Location) -> Result<Option<String>, Error> {
    let fragment = location.url().fragment().unwrap_or_default();
    let Some(digest) = fragment.strip_prefix("sha256=") else {
        return Ok(None);
    };
    if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(
            source("`#sha256=` is not followed by 64 hexadecimal digits")
                .with_hint("write the file's digest behind it, as `sha256sum` prints it"),
        );
    }
    Ok(Some(digest.to_ascii_lowercase()))
}

/// A file on its way.
struct Download<'a> {
    location: &'a Location,
    credentials: Option<(String, Secret)>,
    fetch: Fetch<'a>,
    path: &'a Path,
    into: Decoder<Sink>,
    /// Bytes that came.
    received: u64,
    /// Bytes all in all, if the server says so.
    total: Option<u64>,
    /// By what the server tells this state of the file from others.
    marks: Marks,
    told: Instant,
}

/// A file, and the digest of what is in it.
struct Sink {
    file: fs::File,
    hash: Sha256,
}

impl Sink {
    fn new(file: fs::File) -> Self {
        let hash = Sha256::new();
        Self { file, hash }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// An attempt that failed.
struct Failure {
    error: Error,
    /// How often it is worth trying, all in all.
    attempts: u32,
    /// How long the server wants to be left alone.
    retry_after: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            attempts: 1,
            retry_after: None,
        }
    }
}

impl From<net::Error> for Failure {
    fn from(error: net::Error) -> Self {
        Self {
            attempts: error.attempts(),
            error: error.into(),
            retry_after: None,
        }
    }
}

/// What the server says of the state of a file.
#[derive(Default)]
struct Marks {
    etag: Option<String>,
    last_modified: Option<String>,
}

impl<'a> Download<'a> {
    fn start(location: &'a Location, path: &'a Path, fetch: Fetch<'a>) -> Result<Self, Error> {
        let file = create(path)?;
        Ok(Self {
            location,
            credentials: super::credentials(location)?,
            fetch,
            path,
            into: Coding::Identity.decoder(Sink::new(file)),
            received: 0,
            total: None,
            marks: Marks::default(),
            told: Instant::now(),
        })
    }

    fn run(mut self, known: Option<&Validator>, expected: Option<&str>) -> Result<Answer, Error> {
        let Fetch { net, progress, .. } = self.fetch;
        let mut retry = Retry::new(net.timing());
        let mut furthest = 0;
        let unchanged = loop {
            let failure = match self.attempt(known) {
                Ok(unchanged) => break unchanged,
                Err(failure) => failure,
            };
            // Only new ground counts as progress: a server that knows no ranges and cuts each time would
            // be asked for ever otherwise.
            if self.received > furthest {
                furthest = self.received;
                retry.progressed();
            }
            let Some(pause) = retry.pause(failure.attempts, failure.retry_after) else {
                return Err(failure.error);
            };
            net.pause(pause, progress)?;
        };
        if unchanged {
            fs::remove_file(self.path)?;
            return Ok(Answer::Unchanged);
        }
        self.complete(expected)
    }

    /// One request, for what is missing yet. Says whether there is nothing new.
    fn attempt(&mut self, known: Option<&Validator>) -> Result<bool, Failure> {
        let resumes = self.received > 0 && self.into.is_identity() && self.marks.tag().is_some();
        let mut request = net::Request::get(self.location.public());
        request.credentials.clone_from(&self.credentials);
        request.headers = if resumes {
            self.marks.rest(self.received)
        } else {
            conditions(known)
        };
        let is_conditional = !resumes && !request.headers.is_empty();
        let Fetch { net, progress, .. } = self.fetch;
        let mut response = net.request(request, progress)?;
        match response.status() {
            StatusCode::NOT_MODIFIED if is_conditional => return Ok(true),
            StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => {
                self.restart(&response)?;
            }
            StatusCode::PARTIAL_CONTENT if resumes && self.is_continued_by(&response) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if resumes => {
                let reason = format!("it does not go on after {} bytes", self.received);
                return Err(self.broken(&response, reason));
            }
            _ => return Err(self.refused(response)),
        }
        self.check(&response)?;
        while let Some(chunk) = response.chunk()? {
            self.take(&chunk)?;
        }
        match self.total {
            Some(total) if self.received < total => {
                let reason = format!("it ended after {} of {total} bytes", self.received);
                let host = net::host(response.url());
                Err(net::Error::Broken { host, reason }.into())
            }
            Some(total) if self.received > total => {
                let reason = format!("it goes on after {total} bytes");
                Err(self.broken(&response, reason))
            }
            _ => Ok(false),
        }
    }

    /// The bytes at hand are of no use; the next attempt begins anew.
    fn broken(&mut self, response: &net::Response, reason: String) -> Failure {
        self.received = 0;
        let host = net::host(response.url());
        net::Error::Broken { host, reason }.into()
    }

    /// Whether a part of the file begins where the bytes at hand end, and is of the same file.
    fn is_continued_by(&self, response: &net::Response) -> bool {
        let range = response.headers().get(CONTENT_RANGE).and_then(text);
        let Some((range, total)) = range
            .as_deref()
            .and_then(|range| range.strip_prefix("bytes ")?.split_once('/'))
        else {
            return false;
        };
        let first = range
            .split('-')
            .next()
            .and_then(|first| first.trim().parse().ok());
        let total: Option<u64> = total.trim().parse().ok();
        first == Some(self.received)
            && (total.is_none() || self.total.is_none() || total == self.total)
    }

    /// The answer is the whole file.
    fn restart(&mut self, response: &net::Response) -> Result<(), Error> {
        let coding = if self.is_coding_of_file(response) {
            Coding::Identity
        } else {
            Coding::of(response.headers()).map_err(|encoding| {
                let host = net::host(response.url());
                source(format!(
                    "`{host}` sends it compressed as `{encoding}`, though it was asked not to"
                ))
                .with_hint("turn that off at the server; `gzip` and `deflate` are decoded")
            })?
        };
        fs::remove_file(self.path)?;
        self.into = coding.decoder(Sink::new(create(self.path)?));
        self.received = 0;
        self.total = response.content_length();
        if let Some(total) = self.total {
            self.fetch.part.expect(total);
        }
        self.marks = Marks::of(response.headers());
        Ok(())
    }

    /// Refuses what cannot be taken, before a byte of it is.
    fn check(&self, response: &net::Response) -> Result<(), Error> {
        let Some(length) = response.content_length() else {
            return Ok(());
        };
        if self.received.saturating_add(length) > LARGEST {
            return Err(too_large());
        }
        let disk = rustix::fs::statvfs(self.path).map_err(io::Error::from)?;
        let available = disk.f_bavail.saturating_mul(disk.f_frsize);
        if length > available {
            return Err(no_space(format!(
                "it has {length} bytes, and there is space for {available}"
            )));
        }
        Ok(())
    }

    /// Some servers say of an archive itself what is meant for its transfer.
    fn is_coding_of_file(&self, response: &net::Response) -> bool {
        let Some(encoding) = response.headers().get(header::CONTENT_ENCODING) else {
            return true;
        };
        let name = self
            .location
            .file_name()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let endings: &[&str] = match text(encoding)
            .unwrap_or_default()
            .to_ascii_lowercase()
            .as_str()
        {
            "gzip" | "x-gzip" => &["gz", "tgz"],
            "bzip2" | "x-bzip2" => &["bz2", "tbz2"],
            "zstd" => &["zst", "tzst"],
            "xz" | "x-xz" => &["xz", "txz"],
            _ => &[],
        };
        let ending = name.rsplit_once('.').map(|(_, ending)| ending);
        ending.is_some_and(|ending| endings.contains(&ending))
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), Error> {
        let received = self.received + chunk.len() as u64;
        if received.max(self.into.written()) > LARGEST {
            return Err(too_large());
        }
        self.into.push(chunk)?;
        self.received = received;
        if self.told.elapsed() >= TICK {
            self.told = Instant::now();
            self.fetch.part.advance(received);
        }
        Ok(())
    }

    fn complete(self, expected: Option<&str>) -> Result<Answer, Error> {
        let length = self.into.written();
        let Sink { file, hash } = self.into.finish()?;
        let found = hex::encode(hash.finalize());
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            let message = format!("its digest is `sha256:{found}`, and not `sha256:{expected}`");
            return Err(source(message).with_hint(
                "the file changed, or something on the way changes it: look at it, and correct `#sha256=`",
            ));
        }
        file.set_permissions(PermissionsExt::from_mode(0o644))?;
        self.fetch.part.advance(self.received);
        Ok(Answer::Fetched(json!({
            "etag": self.marks.etag,
            "last_modified": self.marks.last_modified,
            "length": length,
            "sha256": found,
        })))
    }

    fn refused(&self, response: net::Response) -> Failure {
        let (host, status) = (net::host(response.url()), response.status());
        let strayed = response.url().origin() != self.location.url().origin();
        let retry_after = net::retry_after(response.headers());
        let said = match response.words() {
            Ok(said) if said.is_empty() => said,
            Ok(said) => format!(": {said}"),
            Err(error) => return error.into(),
        };
        let error = source(format!("`{host}` answered {status}{said}"));
        let error = match status.as_u16() {
            401 | 403 if strayed && self.credentials.is_some() => error.with_hint(format!(
                "a redirect leads to `{host}`, and credentials go to no other server than theirs: write the URL that it leads to"
            )),
            401 | 403 => error.with_hint(
                "give a name and a password in the URL (`https://%ENV{NAME}:%ENV{PASSWORD}@host/…`) or in `~/.netrc`",
            ),
            404 | 410 => error.with_hint("check the path in the URL"),
            429 => error.with_hint("the server limits how often it may be asked: wait, and try again"),
            500.. => error.with_hint("the server is in trouble: try again later"),
            _ => error,
        };
        Failure {
            error,
            attempts: if net::is_passing(status) { 5 } else { 1 },
            retry_after,
        }
    }
}

impl Marks {
    fn of(headers: &HeaderMap) -> Self {
        let value = |name| headers.get(name).and_then(text);
        Self {
            etag: value(header::ETAG),
            last_modified: value(header::LAST_MODIFIED),
        }
    }

    /// What a range may be asked by: a strong tag, or else a time.
    fn tag(&self) -> Option<&str> {
        let etag = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        etag.or(self.last_modified.as_deref())
    }

    /// Asks for what comes after `received` bytes, and for the whole if it changed.
    fn rest(&self, received: u64) -> HeaderMap {
        let range = format!("bytes={received}-");
        headers([
            (header::RANGE, Some(range.as_str())),
            (header::IF_RANGE, self.tag()),
        ])
    }
}

fn too_large() -> Error {
    source(format!("it has more than {} GiB", LARGEST >> 30))
}

fn create(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Asks for the file only if it is not the known one.
fn conditions(known: Option<&Validator>) -> HeaderMap {
    let value = |key| known.and_then(|known| known[key].as_str());
    headers([
        (header::IF_NONE_MATCH, value("etag")),
        (header::IF_MODIFIED_SINCE, value("last_modified")),
    ])
}

fn headers<const N: usize>(pairs: [(HeaderName, Option<&str>); N]) -> HeaderMap {
    let pairs = pairs.into_iter().filter_map(|(name, value)| {
        let value = HeaderValue::from_str(value?).ok()?;
        Some((name, value))
    });
    pairs.collect()
}

fn text(value: &HeaderValue) -> Option<String> {
    Some(value.to_str().ok()?.trim().to_owned())
}
