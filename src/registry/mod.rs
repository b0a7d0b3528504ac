//! The distribution protocol: pull and push.
//!
//! One idea holds it together: every request goes through `Client::send`, which knows where a
//! registry is (`connection.rs`), what it wants to be shown (`challenge.rs`, `auth.rs`, with the
//! logins of `login.rs`) and how refusals read (`error.rs`); documents (`document.rs`), blobs that
//! come (`transfer.rs`) and go (`upload.rs`) and whole images (`push.rs`) add what is theirs, above
//! all when to try again. Which places stand for the one that was named, `mirrors/` reads from the
//! files of the container tools, and `places.rs` goes through them. What is not a registry's own lies in [`net`]. The functions for the rest of
//! the library block.
//!
//! Follows the OCI distribution specification 1.1 and the distribution project's token
//! authentication.

mod auth;
mod challenge;
mod connection;
mod document;
mod error;
pub(crate) mod login;
pub(crate) mod mirrors;
mod places;
mod push;
mod reference;
#[cfg(test)]
pub(crate) mod tests;
mod transfer;
mod upload;

use std::sync::Arc;

use reqwest::Method;

use self::auth::Access;
use self::connection::{Request, Target};
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::net::{self, Retry};
use crate::progress::Progress;
use crate::store::Store;

pub use crate::net::Fault;
pub use document::Document;
pub use error::Error;
pub use login::{Credentials, Found, Given, Login, LoginError, Logins};
pub use mirrors::{Place, PolicyError, PolicyProblem, Registries, Whence};
pub use push::{Blob, BlobPlace, Content};
pub use reference::{InvalidReference, Problem, Reference};

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Hosts (`host[:port]`, without a port for all of them) that are spoken to by HTTPS without
    /// verification or, where that does not answer, by plain HTTP.
    pub insecure: Vec<String>,
    /// Layers that are moved side by side.
    pub jobs: usize,
    /// Who asks.
    pub logins: Logins,
    /// Mirrors, and what else is said about registries.
    pub registries: Registries,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            jobs: 8,
            logins: Logins::default(),
            registries: Registries::default(),
        }
    }
}

/// A connection pool with its options and tokens.
#[derive(Debug)]
pub struct Client {
    options: Options,
    net: Arc<net::Client>,
    origins: connection::Origins,
    passes: auth::Passes,
    skipped: auth::Skipped,
    places: places::Places,
}

impl Client {
    /// Makes a client; nothing is sent yet. No proxy leads to registries on this machine.
    #[must_use]
    pub fn new(options: Options, net: Arc<net::Client>) -> Self {
        Self {
            options,
            net,
            origins: connection::Origins::default(),
            passes: auth::Passes::default(),
            skipped: auth::Skipped::default(),
            places: places::Places::default(),
        }
    }

    /// How registries are reached.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What `reference` names, by a HEAD request; `None` if the registry does not say it that way,
    /// so that it has to be asked for the document itself.
    pub fn head(
        &self,
        reference: &Reference,
        progress: &Progress,
    ) -> Result<Option<Descriptor>, Error> {
        let work = async |place: &Reference| self.head_document(place).await;
        self.block(progress, self.of_any(reference, progress, work))
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
        let work = async |place: &Reference| self.get_document(place, digest).await;
        self.block(progress, self.of_any(reference, progress, work))
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
        let work = async |place: &Reference| self.fetch_blobs(place, blobs, store, progress).await;
        self.block(progress, self.of_any(reference, progress, work))
    }

    /// Brings `blobs` into the store from wherever they were seen, side by side. Those that are there are not fetched.
    pub fn bring(
        &self,
        blobs: &[Descriptor],
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.block(progress, self.bring_blobs(blobs, store, progress))
    }

    /// Puts an image under `target`. What the registry has already is not sent again, in whichever repository it
    /// was seen; `store` remembers where that is.
    pub fn push(
        &self,
        content: &Content,
        target: &Reference,
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.block(progress, self.push_image(content, target, store, progress))
    }

    /// An error if nothing can be pushed to `target`. Leaves nothing there.
    pub fn check(&self, target: &Reference, progress: &Progress) -> Result<(), Error> {
        self.block(progress, async {
            self.check_target(&self.target(target)?).await
        })
    }

    /// An error if the registry does not take the login that the options hold for it. One that asks nobody
    /// takes them all.
    pub fn check_login(&self, registry: &str, progress: &Progress) -> Result<(), Error> {
        // A repository is not asked for.
        let reference: Reference = format!("{registry}/x").parse()?;
        self.block(progress, self.enter(&reference))
    }

    /// Waits for `work`. A helper that failed is worth a word if that was no hindrance; an error says it itself.
    fn block<T>(
        &self,
        progress: &Progress,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let result = self.net.block(progress, work)?;
        self.skipped.tell(progress);
        Ok(result)
    }

    async fn enter(&self, reference: &Reference) -> Result<(), Error> {
        let mut request = Request::new(Method::GET, reference, "", Access::Enter);
        request.target = Target::Root;
        reference.registry().clone_into(&mut request.what);
        self.insist(&request).await.map(drop)
    }

    /// Counts attempts of one request.
    fn retry(&self) -> Retry {
        Retry::new(self.net.timing())
    }
}

/// Waits before the next attempt, or gives `error` back if there should be none.
async fn pause(retry: &mut Retry, error: Error) -> Result<(), Error> {
    pause_for(retry, error.attempts(), error).await
}

/// The same for something that is worth `attempts`.
async fn pause_for(retry: &mut Retry, attempts: u32, error: Error) -> Result<(), Error> {
    match retry.pause(attempts, error.retry_after()) {
        Some(pause) => tokio::time::sleep(pause).await,
        None => return Err(error),
    }
    Ok(())
}
