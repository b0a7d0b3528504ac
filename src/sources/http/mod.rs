//! Files by `http` and `https`: streamed to disk, resumed where they were cut, verified.
//!
//! A download that fails goes on from the bytes that are there, if the server says that they are still
//! the same (RFC 9110, section 13.1.5); otherwise it begins anew. `#sha256=…` behind the URL names the
//! digest of the right file.

mod error;

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
use crate::net::{self, Coding, Decoder, Retry};
use crate::secret::Secret;

use super::{Answer, Fetch, Validator};

use error::Problem;

pub(crate) use error::Error;

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
    let failed = |source| Error {
        location: location.clone(),
        source,
    };
    let expected = digest_of(location).map_err(failed)?;
    let known_digest = known.and_then(|known| known["sha256"].as_str());
    if expected.is_some() && expected.as_deref() == known_digest {
        return Ok(Answer::Unchanged);
    }
    let download = Download::start(location, into, fetch).and_then(|download| {
        // What is kept is not the right file, whether it changed or not.
        let known = known.filter(|_| expected.is_none());
        download.run(known, expected.as_deref())
    });
    download.map_err(|problem| {
        // It may not have been made, and whoever gave the path removes what else lies there.
        let _ = fs::remove_file(into);
        failed(problem)
    })
}

/// The digest in the URL, in small letters.
fn digest_of(location: &Location) -> Result<Option<String>, Problem> {
    let fragment = location.url().fragment().unwrap_or_default();
    let Some(digest) = fragment.strip_prefix("sha256=") else {
        return Ok(None);
    };
    if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Problem::Fragment);
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

/// What the server says of the state of a file.
#[derive(Default)]
struct Marks {
    etag: Option<String>,
    last_modified: Option<String>,
}

impl<'a> Download<'a> {
    fn start(location: &'a Location, path: &'a Path, fetch: Fetch<'a>) -> Result<Self, Problem> {
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

    fn run(mut self, known: Option<&Validator>, expected: Option<&str>) -> Result<Answer, Problem> {
        let Fetch { net, progress, .. } = self.fetch;
        let mut retry = Retry::new(net.timing());
        let mut furthest = 0;
        let unchanged = loop {
            let problem = match self.attempt(known) {
                Ok(unchanged) => break unchanged,
                Err(problem) => problem,
            };
            // Only new ground counts as progress: a server that knows no ranges and cuts each time would
            // be asked for ever otherwise.
            if self.received > furthest {
                furthest = self.received;
                retry.progressed();
            }
            let Some(pause) = retry.pause(problem.attempts(), problem.retry_after()) else {
                return Err(problem);
            };
            net.pause(pause, progress).map_err(net::Error::from)?;
        };
        if unchanged {
            fs::remove_file(self.path)?;
            return Ok(Answer::Unchanged);
        }
        self.complete(expected)
    }

    /// One request, for what is missing yet. Says whether there is nothing new.
    fn attempt(&mut self, known: Option<&Validator>) -> Result<bool, Problem> {
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
    fn broken(&mut self, response: &net::Response, reason: String) -> Problem {
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
    fn restart(&mut self, response: &net::Response) -> Result<(), Problem> {
        let coding = if self.is_coding_of_file(response) {
            Coding::Identity
        } else {
            Coding::of(response.headers()).map_err(|encoding| {
                let host = net::host(response.url());
                Problem::Encoded { host, encoding }
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
    fn check(&self, response: &net::Response) -> Result<(), Problem> {
        let Some(length) = response.content_length() else {
            return Ok(());
        };
        if self.received.saturating_add(length) > LARGEST {
            return Err(Problem::TooLarge);
        }
        let disk = rustix::fs::statvfs(self.path).map_err(io::Error::from)?;
        let available = disk.f_bavail.saturating_mul(disk.f_frsize);
        if length > available {
            return Err(Problem::NoSpace { length, available });
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

    fn take(&mut self, chunk: &[u8]) -> Result<(), Problem> {
        let received = self.received + chunk.len() as u64;
        if received.max(self.into.written()) > LARGEST {
            return Err(Problem::TooLarge);
        }
        self.into.push(chunk)?;
        self.received = received;
        if self.told.elapsed() >= TICK {
            self.told = Instant::now();
            self.fetch.part.advance(received);
        }
        Ok(())
    }

    fn complete(self, expected: Option<&str>) -> Result<Answer, Problem> {
        let length = self.into.written();
        let Sink { file, hash } = self.into.finish()?;
        let found = hex::encode(hash.finalize());
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            let expected = expected.to_owned();
            return Err(Problem::Damaged { expected, found });
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

    fn refused(&self, response: net::Response) -> Problem {
        let (host, status) = (net::host(response.url()), response.status());
        let strayed = response.url().origin() != self.location.url().origin();
        let retry_after = net::retry_after(response.headers());
        match response.words() {
            Ok(said) => Problem::Refused {
                host,
                status,
                said,
                retry_after,
                strayed: strayed && self.credentials.is_some(),
            },
            Err(error) => error.into(),
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
