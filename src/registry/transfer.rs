//! Blobs: many side by side, each streamed to disk while it is hashed, resumed where it was cut.
//!
//! A download that fails goes on from the bytes that are there; the hash goes on with it, since the
//! writer lives through the attempts. Memory holds one chunk of the network for each download.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::auth::Access;
use super::connection::Request;
use super::document::refuse_web_page;
use super::{Client, Error, Reference, pause};
use crate::digest::Digest;
use crate::manifest::{Descriptor, media_type};
use crate::net::{self, Coding, Decoder, host};
use crate::progress::{Part, Progress};
use crate::store::{self, BlobWriter, Store};

/// Bytes that are decoded between two looks at the size of a blob.
const PIECE: usize = 1 << 16;
/// Between two events about the same blob.
pub(super) const TICK: Duration = Duration::from_millis(50);

impl Client {
    pub(super) async fn fetch_blobs(
        &self,
        reference: &Reference,
        blobs: &[Descriptor],
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut seen: HashSet<Digest> = HashSet::new();
        let wanted: Vec<&Descriptor> = blobs
            .iter()
            .filter(|blob| seen.insert(blob.digest) && !store.has(blob))
            .collect();
        stream::iter(wanted)
            .map(|blob| self.fetch_blob(reference, blob, store, progress))
            .buffer_unordered(self.options.jobs.max(1))
            .try_collect::<()>()
            .await?;
        for digest in seen {
            store.saw(&digest, &reference.place())?;
        }
        Ok(())
    }

    pub(super) async fn bring_blobs(
        &self,
        blobs: &[Descriptor],
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut seen: HashSet<Digest> = HashSet::new();
        let wanted = blobs
            .iter()
            .filter(|blob| seen.insert(blob.digest) && !store.has(blob));
        stream::iter(wanted)
            .map(|blob| self.bring_blob(blob, store, progress))
            .buffer_unordered(self.options.jobs.max(1))
            .try_collect::<()>()
            .await
    }

    /// Fetches a blob from the first of the places where it was seen that has it.
    pub(super) async fn bring_blob(
        &self,
        blob: &Descriptor,
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        let digest = blob.digest;
        let blobs = std::slice::from_ref(blob);
        let mut source = None;
        for place in store.seen(&digest) {
            let reference: Reference = format!("{place}@{digest}").parse()?;
            let work =
                async |place: &Reference| self.fetch_blobs(place, blobs, store, progress).await;
            match self.of_any(&reference, progress, work).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_of_the_place() => source = Some(Box::new(error)),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Lost { digest, source })
    }

    async fn fetch_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        let part = progress.transfer(label(blob), Some(blob.size));
        let mut download = Download {
            blob,
            store,
            part: &part,
            writer: None,
            received: 0,
            told: Instant::now(),
        };
        let mut retry = self.retry();
        let mut furthest = 0;
        while let Err(error) = self.attempt(reference, &mut download).await {
            // Only new ground counts as progress: a server that ignores ranges and cuts each time
            // would be asked forever otherwise.
            if download.received > furthest {
                furthest = download.received;
                retry.progressed();
            }
            pause(&mut retry, error).await?;
        }
        part.advance(blob.size);
        part.finish("");
        Ok(())
    }

    /// One request, for what is missing yet.
    async fn attempt(
        &self,
        reference: &Reference,
        download: &mut Download<'_>,
    ) -> Result<(), Error> {
        let digest = download.blob.digest;
        let what = format!(
            "{}/{}@{digest}",
            reference.registry(),
            reference.repository()
        );
        let from = match &download.writer {
            Some(writer) if writer.is_identity() => download.received,
            _ => 0,
        };
        let path = format!("blobs/{digest}");
        let mut request = Request::new(Method::GET, reference, path, Access::Pull);
        request.what = what;
        if from > 0 {
            let range = format!("bytes={from}-");
            let range = HeaderValue::from_str(&range).expect("plain text");
            request.headers.insert(RANGE, range);
        }
        let mut response = match self.send(&request).await {
            Err(Error::Refused { host, status, .. })
                if status == StatusCode::RANGE_NOT_SATISFIABLE =>
            {
                // The next attempt begins anew.
                download.writer = None;
                let reason = format!("it has nothing after {from} bytes");
                return Err(net::Error::Broken { host, reason }.into());
            }
            result => result?,
        };
        if !resumes(&response, from) {
            let coding = download.coding(&response);
            download.restart(coding)?;
        }
        download.check_length(&response)?;
        let url = response.url().clone();
        loop {
            match net::chunk(&mut response, self.net.timing().stall).await {
                Ok(Some(chunk)) => download.take(&chunk, &url)?,
                Ok(None) => break,
                // All that was promised is there, and its digest says whether it is right.
                Err(_) if download.received == download.blob.size => break,
                Err(error) => return Err(error.into()),
            }
        }
        download.complete(&url)
    }
}

/// A blob on its way.
struct Download<'a> {
    blob: &'a Descriptor,
    store: &'a Store,
    part: &'a Part,
    writer: Option<Decoder<BlobWriter>>,
    /// Bytes in the writer, or in the one that was given up last.
    received: u64,
    told: Instant,
}

impl Download<'_> {
    /// How the blob is coded on its way. A body of its size is the blob itself: some servers say of that, too, that it
    /// is compressed.
    fn coding(&self, response: &Response) -> Coding {
        let coding = Coding::of(response.headers()).unwrap_or(Coding::Identity);
        let is_own = response.content_length() == Some(self.blob.size)
            || (coding == Coding::Gzip && self.blob.media_type.ends_with("gzip"));
        if is_own { Coding::Identity } else { coding }
    }

    fn restart(&mut self, coding: Coding) -> Result<(), Error> {
        let writer = self.store.writer_of(&self.blob.digest)?;
        self.writer = Some(coding.decoder(writer));
        self.received = 0;
        Ok(())
    }

    /// Refuses an answer whose announced length is not what is missing, before a byte is taken.
    fn check_length(&mut self, response: &Response) -> Result<(), Error> {
        let is_identity = self.writer.as_ref().is_some_and(Decoder::is_identity);
        let Some(length) = response.content_length().filter(|_| is_identity) else {
            return Ok(());
        };
        let end = self.received.saturating_add(length);
        // A server may give less of a range than it was asked for, but never less of the whole.
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        if end > self.blob.size || (end < self.blob.size && !is_part) {
            refuse_web_page(response, &self.blob.digest.to_string())?;
            return Err(self.wrong_size(response.url(), end));
        }
        Ok(())
    }

    fn take(&mut self, chunk: &[u8], url: &reqwest::Url) -> Result<(), Error> {
        let writer = self
            .writer
            .as_mut()
            .expect("an attempt begins with a writer");
        // Blocks for as long as copying into the page cache takes, which is less than a switch to
        // another thread costs.
        for piece in chunk.chunks(PIECE) {
            writer.push(piece).map_err(|error| coded(error, url))?;
            let received = writer.written();
            if received > self.blob.size {
                return Err(self.wrong_size(url, received));
            }
        }
        let received = writer.written();
        self.received = received;
        if self.told.elapsed() >= TICK {
            self.told = Instant::now();
            self.part.advance(received);
        }
        Ok(())
    }

    fn complete(&mut self, url: &reqwest::Url) -> Result<(), Error> {
        let writer = self.writer.take().expect("an attempt begins with a writer");
        if writer.is_identity() && self.received < self.blob.size {
            self.writer = Some(writer);
            let reason = format!(
                "it ended after {} of {} bytes",
                self.received, self.blob.size
            );
            return Err(Error::broken(url, reason));
        }
        let writer = writer.finish().map_err(|error| coded(error, url))?;
        writer.complete_as(self.blob).map_err(|error| match error {
            store::Error::Damaged { expected, found } => Error::Damaged {
                host: host(url),
                expected,
                found,
            },
            other => Error::Store(other),
        })
    }

    fn wrong_size(&mut self, url: &reqwest::Url, found: u64) -> Error {
        self.writer = None;
        let Descriptor { digest, size, .. } = *self.blob;
        Error::Size {
            host: host(url),
            digest,
            expected: size,
            found,
        }
    }
}

/// Whether the answer goes on where the bytes at hand end. 200 is the whole blob: the server knows
/// no ranges.
fn resumes(response: &Response, from: u64) -> bool {
    if from == 0 || response.status() != StatusCode::PARTIAL_CONTENT {
        return false;
    }
    let range = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok());
    range.is_some_and(|range| {
        range
            .trim_start()
            .strip_prefix("bytes ")
            .is_some_and(|range| {
                range
                    .split('-')
                    .next()
                    .and_then(|first| first.trim().parse().ok())
                    == Some(from)
            })
    })
}

/// A body that cannot be decoded may be whole the next time; the disk's own errors stay what they are.
fn coded(error: io::Error, url: &reqwest::Url) -> Error {
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
            Error::broken(url, error.to_string())
        }
        _ => Error::Store(store::Error::Io(error)),
    }
}

pub(super) fn label(blob: &Descriptor) -> String {
    let what = match blob.media_type.as_str() {
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG => "config",
        _ => "layer",
    };
    format!("{what} `sha256:{}`", &blob.digest.hex()[..12])
}
