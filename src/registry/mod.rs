//! The distribution protocol, as far as pulling needs it; the only asynchronous code.
//!
//! One idea holds it together: every request goes through `Client::send`, which knows where a
//! registry is (`connection.rs`), which token it wants (`auth.rs`) and how refusals read
//! (`error.rs`); documents (`document.rs`) and blobs (`transfer.rs`) add what is theirs, above all
//! when to try again (`retry.rs`). The functions for the rest of the library block.
//!
//! Follows the OCI distribution specification 1.1 and the distribution project's token
//! authentication.

mod auth;
mod connection;
mod document;
mod error;
mod reference;
mod retry;
#[cfg(test)]
pub(crate) mod tests;
mod transfer;
mod words;

use std::future::Future;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::progress::{Cancelled, Progress};
use crate::store::Store;

pub use document::Document;
pub use error::{Error, Fault};
pub use reference::{InvalidReference, Problem, Reference};

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Hosts (`host[:port]`, without a port for all of them) that are spoken to by HTTPS without
    /// verification or, where that does not answer, by plain HTTP.
    pub insecure: Vec<String>,
    /// Layers that are downloaded side by side; 0 stands for 4.
    pub jobs: usize,
    /// A PEM file with authorities that are trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
}

/// A connection pool with its options and tokens.
#[derive(Debug)]
pub struct Client {
    options: Options,
    timing: Timing,
    runtime: OnceLock<Runtime>,
    connections: connection::Connections,
    tokens: auth::Tokens,
}

/// How long things may take. Nothing limits the whole of a transfer, which may be long.
#[derive(Debug, Clone, Copy)]
struct Timing {
    /// For a connection to come about, TLS included.
    connect: Duration,
    /// Without a single byte.
    stall: Duration,
    /// Before the second attempt.
    backoff: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            backoff: Duration::from_millis(500),
        }
    }
}

impl Client {
    /// Makes a client; nothing is sent and no certificate is read yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        // A second installation fails, and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            options,
            timing: Timing::default(),
            runtime: OnceLock::new(),
            connections: connection::Connections::default(),
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
        self.block(progress, self.head_document(reference))
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
        self.block(progress, self.get_document(reference, digest))
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
        self.block(
            progress,
            self.fetch_blobs(reference, blobs, store, progress),
        )
    }

    /// Runs `work`, and drops it soon after the build was told to stop.
    fn block<T>(
        &self,
        progress: &Progress,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.runtime()?.block_on(async {
            tokio::select! {
                result = work => result,
                cancelled = cancelled(progress) => Err(cancelled.into()),
            }
        })
    }

    /// One thread beside the caller's: it reads and decrypts, the caller's hashes and writes.
    fn runtime(&self) -> Result<&Runtime, Error> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("registry")
            .build()
            .map_err(|error| Error::Setup {
                reason: error.to_string(),
            })?;
        Ok(self.runtime.get_or_init(|| runtime))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A plain drop would wait for name lookups that are under way.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn cancelled(progress: &Progress) -> Cancelled {
    loop {
        if let Err(cancelled) = progress.check() {
            return cancelled;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
