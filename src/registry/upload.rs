//! One blob on its way to a registry: streamed from disk, and resumed where it was cut.
//!
//! An upload is a session with an address of its own. As long as the session lives, the registry knows how
//! much of the blob it has, so what follows a failure is a question and not the whole blob. A registry
//! verifies the digest when the session is closed, so the bytes are not hashed here a second time.
//!
//! Follows the OCI distribution specification 1.1, "Pushing Blobs".

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::auth::Access;
use super::connection::{Request, Target};
use super::push::Blob;
use super::transfer::TICK;
use super::{Client, Error, Reference, pause_for};
use crate::net::{Body, FilePart, host};
use crate::progress::{Part, Progress};

/// Up to this many bytes go into one request with the end of the session, however often that fails. Of larger
/// blobs only the first attempt does: a request more lets them be resumed in every registry.
const SMALL: u64 = 1 << 20;
/// What is tried in turn where a registry, or a proxy before it, does not take large requests.
const CHUNKS: [u64; 3] = [64 << 20, 16 << 20, 4 << 20];

/// An upload that is under way.
pub(super) struct Upload<'a> {
    reference: &'a Reference,
    blob: &'a Blob,
    file: Arc<File>,
    part: Arc<Part>,
    what: String,
    session: Option<Session>,
    /// Nothing has failed yet.
    is_first: bool,
    /// The most that goes into one request.
    chunk: u64,
    /// What went into the last one.
    tried: u64,
}

/// A session of an upload.
struct Session {
    url: Url,
    /// Bytes that the registry has; `None` if it has to be asked.
    offset: Option<u64>,
}

impl<'a> Upload<'a> {
    /// `session` is where an upload was begun already, if it was.
    pub(super) fn new(
        reference: &'a Reference,
        (blob, file): (&'a Blob, Arc<File>),
        part: Arc<Part>,
        session: Option<Url>,
    ) -> Self {
        Self {
            reference,
            blob,
            file,
            part,
            what: format!(
                "{}/{}@{}",
                reference.registry(),
                reference.repository(),
                blob.descriptor.digest
            ),
            session: session.map(|url| Session {
                url,
                offset: Some(0),
            }),
            is_first: true,
            chunk: u64::MAX,
            tried: 0,
        }
    }

    fn request(&self, method: Method, target: Target<'a>) -> Request<'a> {
        Request {
            method,
            reference: self.reference,
            target,
            headers: HeaderMap::new(),
            body: Body::none(),
            access: Access::Push,
            what: self.what.clone(),
        }
    }

    /// How often what failed so is worth trying. The session is asked next time, or is lost.
    fn judge(&mut self, error: &Error, progress: &Progress) -> Result<u32, Error> {
        if self.session.is_none() {
            return Ok(error.attempts());
        }
        self.forget_offset();
        let mismatch = matches!(error, Error::Mismatch { .. });
        if !mismatch && !error.is_lost() {
            return Ok(error.attempts());
        }
        self.session = None;
        // Bytes that the registry does not take may be wrong here already.
        if mismatch || error.status() == Some(StatusCode::BAD_REQUEST) {
            self.blob.verify(&self.file, progress)?;
            return Ok(3);
        }
        Ok(5)
    }

    /// The registry is asked for it before the upload goes on.
    fn forget_offset(&mut self) {
        if let Some(session) = &mut self.session {
            session.offset = None;
        }
    }

    /// `length` bytes of the blob from `from` on.
    fn body(&self, from: u64, length: u64) -> Body {
        // The HTTP library may keep the body for a moment longer than the upload lasts.
        let part = Arc::downgrade(&self.part);
        let told = Mutex::new(Instant::now());
        Body::Part(FilePart {
            file: self.file.clone(),
            from,
            length,
            tell: Arc::new(move |sent| {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.elapsed() >= TICK
                    && let Some(part) = part.upgrade()
                {
                    *told = Instant::now();
                    part.advance(from + sent);
                }
            }),
        })
    }
}

impl Client {
    /// Brings a blob into the repository, however often that has to be tried.
    pub(super) async fn upload(
        &self,
        upload: &mut Upload<'_>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut retry = self.retry();
        let mut furthest = 0;
        loop {
            let Err(error) = self.attempt_upload(upload).await else {
                return Ok(());
            };
            upload.is_first = false;
            // Only new ground counts as progress, as with downloads.
            let offset = upload.session.as_ref().and_then(|session| session.offset);
            let is_stuck = offset.is_none_or(|offset| offset <= furthest);
            if let Some(offset) = offset.filter(|_| !is_stuck) {
                furthest = offset;
                retry.progressed();
            }
            // Who refuses a large request may hang up before that is heard.
            if error.is_too_large() || (error.is_broken() && is_stuck) {
                let smaller = CHUNKS.into_iter().find(|chunk| *chunk < upload.tried);
                upload.chunk = smaller.unwrap_or(upload.chunk);
                if error.is_too_large() && smaller.is_some() {
                    upload.forget_offset();
                    continue;
                }
            }
            let attempts = upload.judge(&error, progress)?;
            if let Err(error) = pause_for(&mut retry, attempts, error).await {
                self.abandon(upload).await;
                return Err(error);
            }
        }
    }

    /// One session, from where it is to its end.
    async fn attempt_upload(&self, upload: &mut Upload<'_>) -> Result<(), Error> {
        let size = upload.blob.descriptor.size;
        let (mut url, mut offset) = match upload.session.take() {
            None => (self.open_session(upload.reference, &upload.what).await?, 0),
            Some(Session {
                url,
                offset: Some(offset),
            }) => (url, offset),
            Some(Session { url, offset: None }) => match self.ask_offset(upload, &url).await {
                Ok(asked) => asked,
                Err(error) if error.is_lost() => {
                    // It may have ended well, and only the answer was lost.
                    let digest = &upload.blob.descriptor.digest;
                    if self.has_blob(upload.reference, digest).await? {
                        upload.session = None;
                        return Ok(());
                    }
                    (self.open_session(upload.reference, &upload.what).await?, 0)
                }
                Err(error) => {
                    upload.session = Some(Session { url, offset: None });
                    return Err(error);
                }
            },
        };
        loop {
            upload.session = Some(Session {
                url: url.clone(),
                offset: Some(offset),
            });
            let left = size - offset;
            if left == 0 || (offset == 0 && (upload.is_first || left <= SMALL)) {
                upload.tried = left;
                return self.close_session(upload, &url, offset).await;
            }
            let length = left.min(upload.chunk);
            upload.tried = length;
            let mut request = upload.request(Method::PATCH, Target::Url(&url));
            request.body = upload.body(offset, length);
            let octets = HeaderValue::from_static("application/octet-stream");
            request.headers.insert(CONTENT_TYPE, octets);
            // A whole blob goes without, as Docker sends it, which all registries know.
            if offset > 0 || length < size {
                let range = format!("{offset}-{}", offset + length - 1);
                let range = HeaderValue::from_str(&range).expect("digits");
                request.headers.insert(CONTENT_RANGE, range);
            }
            let response = self.send(&request).await?;
            url = self.next_location(&response)?;
            // Less than was sent comes again; and whoever has nothing of it will not take it next time either.
            let taken = taken(&response).unwrap_or(u64::MAX).min(offset + length);
            if taken <= offset {
                let reason = format!("it took {taken} of {} bytes", offset + length);
                return Err(Error::broken(response.url(), reason));
            }
            offset = taken;
            upload.part.advance(offset);
        }
    }

    /// Begins an upload.
    pub(super) async fn open_session(
        &self,
        reference: &Reference,
        what: &str,
    ) -> Result<Url, Error> {
        let mut request = Request::new(Method::POST, reference, "blobs/uploads/", Access::Push);
        what.clone_into(&mut request.what);
        let response = self.send(&request).await?;
        self.next_location(&response)
    }

    /// Where an upload is: its address from now on, and the bytes that the registry has.
    async fn ask_offset(&self, upload: &Upload<'_>, url: &Url) -> Result<(Url, u64), Error> {
        let response = self
            .send(&upload.request(Method::GET, Target::Url(url)))
            .await?;
        let offset = taken(&response).unwrap_or(0);
        if offset > upload.blob.descriptor.size {
            let reason = format!("it has {offset} bytes of fewer");
            return Err(Error::broken(response.url(), reason));
        }
        let next = match response.headers().get(reqwest::header::LOCATION) {
            Some(_) => self.next_location(&response)?,
            None => url.clone(),
        };
        Ok((next, offset))
    }

    /// Ends an upload, with all that is left of the blob.
    async fn close_session(
        &self,
        upload: &Upload<'_>,
        url: &Url,
        offset: u64,
    ) -> Result<(), Error> {
        let digest = upload.blob.descriptor.digest;
        let mut url = url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let mut request = upload.request(Method::PUT, Target::Url(&url));
        request.body = upload.body(offset, upload.blob.descriptor.size - offset);
        let octets = HeaderValue::from_static("application/octet-stream");
        request.headers.insert(CONTENT_TYPE, octets);
        let response = self.send(&request).await?;
        match super::document::content_digest(response.headers()) {
            Some(found) if found != digest => Err(Error::Mismatch {
                host: host(response.url()),
                expected: digest,
                found,
            }),
            _ => Ok(()),
        }
    }

    /// Tells the registry that nothing more will come. It finds out by itself in the end, so nobody waits for
    /// more than one answer.
    async fn abandon(&self, upload: &Upload<'_>) {
        if let Some(session) = &upload.session {
            let request = upload.request(Method::DELETE, Target::Url(&session.url));
            let _ = self.send(&request).await;
        }
    }
}

/// Bytes that the registry has, by the answer to a request about an upload: `Range: 0-1023`, with `bytes=`
/// before it in some. `0-0` is what an empty one answers, and one byte too: then it is sent again.
fn taken(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?.trim();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (_, last) = range.split_once('-')?;
    match last.trim().parse().ok()? {
        0_u64 => Some(0),
        last => last.checked_add(1),
    }
}
