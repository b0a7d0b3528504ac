//! The distribution protocol, as far as pulling needs it.
//!
//! One idea holds it together: every request goes through `Client::send`, which knows where a
//! registry is (`connection.rs`), which token it wants (`auth.rs`) and how refusals read
//! (`error.rs`); documents (`document.rs`) and blobs (`transfer.rs`) add what is theirs, above all
//! when to try again. What is not a registry's own lies in [`net`]. The functions for the rest of the
//! library block.
//!
//! Follows the OCI distribution specification 1.1 and the distribution project's token
//! authentication.

mod auth;
mod connection;
mod document;
mod error;
mod reference;
#[cfg(test)]
pub(crate) mod tests;
mod transfer;

use std::sync::Arc;

use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::net::{self, Retry};
use crate::progress::Progress;
use crate::store::Store;

pub use crate::net::Fault;
pub use document::Document;
pub use error::Error;
pub use reference::{InvalidReference, Problem, Reference};

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Hosts (`host[:port]`, without a port for all of them) that are spoken to by HTTPS without
    /// verification or, where that does not answer, by plain HTTP.
    pub insecure: Vec<String>,
    /// Layers that are downloaded side by side.
    pub jobs: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            jobs: 8,
        }
    }
}

/// A connection pool with its options and tokens.
#[derive(Debug)]
pub struct Client {
    options: Options,
    net: Arc<net::Client>,
    origins: connection::Origins,
    tokens: auth::Tokens,
}

impl Client {
    /// Makes a client; nothing is sent yet. No proxy leads to registries on this machine.
    #[must_use]
    pub fn new(options: Options, net: Arc<net::Client>) -> Self {
        Self {
            options,
            net,
            origins: connection::Origins::default(),
            tokens: auth::Tokens::default(),
        }
    }

    /// What `reference` names, by a HEAD request; `None` if the registry does not say it that way,
    /// so that it has to be asked for the document itself.
    pub fn head(
        &self,
        reference: &Reference,
        progress: &Progress,
    ) -> Result<Option<Descriptor>, Error> {
        self.net.block(progress, self.head_document(reference))
    }

    /// The manifest or index that `reference` names or, if given, the one with `digest` in the same
    /// repository. Its bytes are those of its digest, and at most
    /// [`MAX_DOCUMENT`](crate::store::MAX_DOCUMENT).
    pub fn document(
        &self,
        reference: &Reference,
        digest: Option<Digest>,
        progress: &Progress,
    ) -> Result<Document, Error> {
        self.net
            .block(progress, self.get_document(reference, digest))
    }

    /// Brings `blobs` of the repository of `reference` into the store, side by side. Those that are
    /// there are not fetched, and none is fetched twice.
    pub fn fetch(
        &self,
        reference: &Reference,
        blobs: &[Descriptor],
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.net.block(
            progress,
            self.fetch_blobs(reference, blobs, store, progress),
        )
    }

    /// Counts attempts of one request.
    fn retry(&self) -> Retry {
        Retry::new(self.net.timing().backoff)
    }
}

/// Waits before the next attempt, or gives `error` back if there should be none.
async fn pause(retry: &mut Retry, error: Error) -> Result<(), Error> {
    match retry.pause(error.attempts(), error.retry_after()) {
        Some(pause) => tokio::time::sleep(pause).await,
        None => return Err(error),
    }
    Ok(())
}
