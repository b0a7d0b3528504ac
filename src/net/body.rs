//! What is sent along with a request. It can be sent again, after a redirect or a new login, and a part of a
//! file is read while it is sent. Slowness is borne, and silence is not.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_LENGTH;

/// Read at once. Larger pieces keep more memory for each upload, and are no faster.
const PIECE: u64 = 1 << 18;
/// While a part of a file is sent no answer may come for this many times longer than a silence may last. The kernel
/// ends a connection whose other end takes nothing (`TCP_USER_TIMEOUT`); what is seen here is later and coarser,
/// since megabytes lie in buffers, and a server that has all of a large file takes its time to put it in its place.
const DIGESTION: u32 = 5;

/// What is sent along with a request.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Nothing, or a text.
    Bytes(Bytes),
    /// A part of a file.
    Part(FilePart),
}

/// A part of a file, and who is told how much of it was taken to be sent.
#[derive(Clone)]
pub(crate) struct FilePart {
    pub(crate) file: Arc<std::fs::File>,
    /// Where it begins in the file, in bytes.
    pub(crate) from: u64,
    /// In bytes.
    pub(crate) length: u64,
    /// Called with the number of bytes of this part, from its beginning on.
    pub(crate) tell: Arc<dyn Fn(u64) + Send + Sync>,
}

impl fmt::Debug for FilePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilePart")
            .field("from", &self.from)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Body {
    /// No body at all.
    pub(crate) fn none() -> Self {
        Self::Bytes(Bytes::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Bytes(bytes) if bytes.is_empty())
    }

    /// The request with this body, and what tells how it is getting on.
    pub(super) fn attach(&self, request: RequestBuilder) -> (RequestBuilder, Watch) {
        let mut watch = Watch::default();
        let request = match self {
            Self::Bytes(bytes) if bytes.is_empty() => request,
            Self::Bytes(bytes) => request.body(bytes.clone()),
            Self::Part(part) => {
                watch.is_part = true;
                request
                    .header(CONTENT_LENGTH, part.length)
                    .body(part.clone().stream(watch.sent.clone()))
            }
        };
        (request, watch)
    }
}

/// How a request is getting on.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Bytes of a part that were taken to be sent.
    sent: Arc<AtomicU64>,
    is_part: bool,
}

impl Watch {
    /// Waits for an answer; `None` if nothing moves for `stall`, or for a multiple of it while a part is sent.
    pub(super) async fn over<T>(
        &self,
        answer: impl Future<Output = T>,
        stall: Duration,
    ) -> Option<T> {
        let mut answer = pin!(answer);
        let (mut seen, mut since) = (0, Instant::now());
        let patience = if self.is_part {
            stall * DIGESTION
        } else {
            stall
        };
        loop {
            let left = patience.checked_sub(since.elapsed())?;
            let look = left.min(stall / 4).max(Duration::from_millis(1));
            if let Ok(answer) = tokio::time::timeout(look, &mut answer).await {
                return Some(answer);
            }
            let sent = self.sent.load(Ordering::Relaxed);
            if sent != seen {
                (seen, since) = (sent, Instant::now());
            }
        }
    }
}

impl FilePart {
    /// Reading blocks for as long as copying from the page cache takes, which is less than a switch to another
    /// thread costs.
    fn stream(self, taken: Arc<AtomicU64>) -> reqwest::Body {
        let start = (self, taken, 0);
        reqwest::Body::wrap_stream(stream::try_unfold(
            start,
            |(part, taken, sent)| async move {
                (part.tell)(sent);
                taken.store(sent, Ordering::Relaxed);
                let length = PIECE.min(part.length - sent);
                if length == 0 {
                    return Ok::<_, io::Error>(None);
                }
                let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
                part.file.read_exact_at(&mut piece, part.from + sent)?;
                Ok(Some((Bytes::from(piece), (part, taken, sent + length))))
            },
        ))
    }
}
