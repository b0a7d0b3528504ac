//! Manifests and indexes as a registry serves them.

use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response};

use super::auth::Access;
use super::connection::Request;
use super::{Client, Error, Reference, pause};
use crate::digest::Digest;
use crate::manifest::{Descriptor, media_type};
use crate::net::host;
use crate::store::MAX_DOCUMENT;

/// The header by which a registry names what it sends.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// A document as it came, and the media type that the registry gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// May be wrong or empty; the document's own `mediaType` counts more.
    pub media_type: String,
    /// Verified, if the digest was known beforehand.
    pub bytes: Vec<u8>,
}

impl Client {
    pub(super) async fn head_document(
        &self,
        reference: &Reference,
    ) -> Result<Option<Descriptor>, Error> {
        let mut retry = self.retry();
        loop {
            match self.request(Method::HEAD, reference, None).await {
                Ok(response) => return Ok(described(&response)),
                // The answer to HEAD has no words, but the one to GET will.
                Err(Error::Refused { status, .. })
                    if status.is_client_error() && status.as_u16() != 429 =>
                {
                    return Ok(None);
                }
                Err(error) => pause(&mut retry, error).await?,
            }
        }
    }

    pub(super) async fn get_document(
        &self,
        reference: &Reference,
        digest: Option<Digest>,
    ) -> Result<Document, Error> {
        let mut retry = self.retry();
        loop {
            match self
                .get_once(reference, digest.or(reference.digest()))
                .await
            {
                Ok(document) => return Ok(document),
                Err(error) => pause(&mut retry, error).await?,
            }
        }
    }

    async fn get_once(
        &self,
        reference: &Reference,
        digest: Option<Digest>,
    ) -> Result<Document, Error> {
        let response = self.request(Method::GET, reference, digest).await?;
        let host = host(response.url());
        let media_type = media_type_of(response.headers());
        let promised = content_digest(response.headers());
        let bytes = self.read(response, MAX_DOCUMENT).await?;
        let what = reference.to_string();
        let Some(bytes) = bytes else {
            return Err(Error::TooLarge { host, what });
        };
        if is_web_page(&bytes) {
            return Err(Error::WebPage { host, what });
        }
        let found = Digest::of(&bytes);
        if let Some(expected) = digest
            .into_iter()
            .chain(promised)
            .find(|expected| *expected != found)
        {
            return Err(Error::Damaged {
                host,
                expected,
                found,
            });
        }
        Ok(Document { media_type, bytes })
    }

    async fn request(
        &self,
        method: Method,
        reference: &Reference,
        digest: Option<Digest>,
    ) -> Result<Response, Error> {
        let name = match digest.or(reference.digest()) {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or("latest").to_owned(),
        };
        let path = format!("manifests/{name}");
        let mut request = Request::new(method, reference, path, Access::Pull);
        request.headers = accept();
        self.send(&request).await
    }
}

/// Every kind of document that there is.
pub(super) fn accept() -> HeaderMap {
    let accept = [
        media_type::OCI_INDEX,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_INDEX,
        media_type::DOCKER_MANIFEST,
    ];
    let value = HeaderValue::from_str(&accept.join(", ")).expect("media types are plain text");
    HeaderMap::from_iter([(ACCEPT, value)])
}

/// The descriptor in the answer to a HEAD request, if it is complete.
fn described(response: &Response) -> Option<Descriptor> {
    let headers = response.headers();
    // Not `content_length()`, which is 0 for an answer without a body.
    let size: u64 = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    let digest = content_digest(headers)?;
    (size > 0 && size <= MAX_DOCUMENT)
        .then(|| Descriptor::new(&media_type_of(headers), digest, size))
}

/// Whether an answer is a page for people, as a captive portal sends it for whatever is asked.
pub(super) fn is_web_page(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"<")
}

/// An error if the answer to a request for `what` announces such a page, and nothing that registries tell.
pub(super) fn refuse_web_page(response: &Response, what: &str) -> Result<(), Error> {
    let headers = response.headers();
    if media_type_of(headers) != "text/html" || headers.contains_key(CONTENT_DIGEST) {
        return Ok(());
    }
    Err(Error::WebPage {
        host: host(response.url()),
        what: what.to_owned(),
    })
}

pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

fn media_type_of(headers: &HeaderMap) -> String {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    text.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}
