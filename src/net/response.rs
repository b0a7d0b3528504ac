//! The answer to an HTTP request, read as it comes.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};

use super::{Engine, Error, words};
use crate::progress::Progress;

/// The answer to an HTTP request. Reading it ends at once when the build is told to stop, and fails when
/// nothing comes for too long; the error then wraps an [`Error`].
pub struct Response {
    inner: reqwest::Response,
    engine: Arc<Engine>,
    progress: Progress,
    /// The longest silence.
    stall: Duration,
    /// Came, and was not read yet.
    rest: Bytes,
}

impl Response {
    pub(super) fn new(
        inner: reqwest::Response,
        engine: Arc<Engine>,
        progress: Progress,
        stall: Duration,
    ) -> Self {
        Self {
            inner,
            engine,
            progress,
            stall,
            rest: Bytes::new(),
        }
    }

    /// Its status; never one of a redirect that can be followed.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// Where it came from in the end, after redirects. It may hold a signature: not to be shown.
    #[must_use]
    pub fn url(&self) -> &Url {
        self.inner.url()
    }

    /// How long the body is going to be, if the server says so.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.inner.content_length()
    }

    /// The next piece of the body, and `None` at its end.
    pub fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        self.progress.check()?;
        let Self {
            inner,
            engine,
            progress,
            stall,
            ..
        } = self;
        engine.block(progress, super::http::chunk(inner, *stall))
    }

    /// What the server says in the body of a refusal, in one short line; may be empty.
    pub fn words(self) -> Result<String, Error> {
        let Self {
            inner,
            engine,
            progress,
            ..
        } = self;
        engine.block(&progress, async { Ok::<_, Error>(words(inner).await) })
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Read for Response {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.chunk().map_err(io::Error::other)? {
                Some(chunk) => self.rest = chunk,
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
