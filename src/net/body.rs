//! What is sent along with a request. It can be sent again, after a redirect or a new login, and a part of a
//! file is read while it is sent.

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use reqwest::RequestBuilder;
use reqwest::header::CONTENT_LENGTH;

/// Read at once. Larger pieces keep more memory for each upload, and are no faster.
const PIECE: u64 = 1 << 18;

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

    /// The request with this body.
    pub(super) fn attach(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Bytes(bytes) if bytes.is_empty() => request,
            Self::Bytes(bytes) => request.body(bytes.clone()),
            Self::Part(part) => request
                .header(CONTENT_LENGTH, part.length)
                .body(part.clone().stream()),
        }
    }
}

impl FilePart {
    /// Reading blocks for as long as copying from the page cache takes, which is less than a switch to another
    /// thread costs.
    fn stream(self) -> reqwest::Body {
        reqwest::Body::wrap_stream(stream::try_unfold((self, 0), |(part, sent)| async move {
            (part.tell)(sent);
            let length = PIECE.min(part.length - sent);
            if length == 0 {
                return Ok::<_, io::Error>(None);
            }
            let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            part.file.read_exact_at(&mut piece, part.from + sent)?;
            Ok(Some((Bytes::from(piece), (part, sent + length))))
        }))
    }
}
