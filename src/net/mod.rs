//! How other machines are reached: by which proxy, with which certificates, and for how long a silence
//! is borne. Registries and sources share it.
//!
//! The one idea: whoever needs another machine asks [`Client`], either for a TCP connection
//! ([`Client::connect`]) or for the answer to an HTTP request ([`Client::request`]). Both go by the
//! proxies, end soon after the build is told to stop, and take no silence for ever.
//!
//! | file | holds |
//! |---|---|
//! | `proxy.rs`, `no_proxy.rs` | which proxy leads to a machine, and to which none does |
//! | `tunnel.rs`, `handshake.rs` | TCP connections, and how a proxy is asked for one |
//! | `relay.rs` | the proxies as steps see them |
//! | `http.rs`, `body.rs`, `response.rs` | HTTP requests with their redirects, and what comes back |
//! | `coding.rs` | bodies that were compressed on their way |
//! | `certificates.rs` | certificates for one host, in `certs.d` |
//! | `tls.rs` | TLS: who is trusted |
//! | `netrc.rs` | names and passwords by machine |
//! | `fault.rs` | why there was no answer |
//! | `retry.rs` | how often, and after which pause, something is tried again |
//! | `words.rs` | what a server says when it refuses, fit to be shown |

mod body;
mod certificates;
mod coding;
mod fault;
mod handshake;
mod http;
mod netrc;
mod no_proxy;
mod proxy;
mod relay;
mod response;
mod retry;
mod tls;
mod tunnel;
mod words;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::runtime::Runtime;

use crate::progress::{Cancelled, Progress};

pub use certificates::certificate_folders;
pub use fault::{Error, Fault};
pub use http::{Request, Trust};
pub use netrc::NetrcError;
pub use proxy::{InvalidProxy, Proxies, Proxy};
pub use relay::StepProxies;
pub use response::Response;
pub(crate) use tls::bundled_pem;
pub use tunnel::{ConnectError, Connection};

pub(crate) use body::{Body, FilePart};
pub(crate) use coding::{Coding, Decoder};
pub(crate) use fault::host;
pub(crate) use http::{DOWNGRADE, basic, chunk, next_hop, without_credentials};
pub(crate) use netrc::{lookup as netrc, passwords as netrc_passwords};
pub(crate) use proxy::PROXY_VARIABLES;
pub(crate) use retry::{Retry, is_passing, retry_after};
pub(crate) use words::words;

/// Between two looks at whether to stop.
const POLL: Duration = Duration::from_millis(50);

/// How other machines are reached.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A PEM file with authorities that are trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
    /// Folders with a folder of certificates for each host, such as `/etc/containers/certs.d`. The first one
    /// that knows a host counts for it; [`certificate_folders`] gives those of this machine.
    pub certificates: Vec<PathBuf>,
    /// Who leads where.
    pub proxies: Proxies,
}

impl Options {
    /// With the certificates that this machine has for single hosts.
    #[must_use]
    pub fn of_system(ca_cert: Option<PathBuf>, proxies: Proxies) -> Self {
        Self {
            ca_cert,
            certificates: certificate_folders(),
            proxies,
        }
    }
}

/// Connects to other machines.
#[derive(Debug)]
pub struct Client {
    options: Options,
    timing: Timing,
    engine: OnceLock<Arc<Engine>>,
    pools: http::Pools,
    /// Trusted for every host.
    authorities: OnceLock<Vec<CertificateDer<'static>>>,
}

/// How long things may take. Nothing limits the whole of a transfer, which may be long.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For a connection to come about, TLS included.
    pub connect: Duration,
    /// Without a single byte.
    pub stall: Duration,
    /// Before the second attempt.
    pub backoff: Duration,
    /// That a server may ask for before the next attempt. One that asks for more is reported instead: nobody waits
    /// hours for a rate limit without a word.
    pub pause: Duration,
    /// How often something is tried at most.
    pub attempts: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            backoff: Duration::from_millis(500),
            pause: Duration::from_secs(120),
            attempts: u32::MAX,
        }
    }
}

impl Client {
    /// Makes a client; nothing is sent and no certificate is read yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self::with_timing(options, Timing::default())
    }

    /// As [`new`](Self::new), with other patience.
    #[must_use]
    pub fn with_timing(options: Options, timing: Timing) -> Self {
        tls::install();
        Self {
            options,
            timing,
            engine: OnceLock::new(),
            pools: http::Pools::default(),
            authorities: OnceLock::new(),
        }
    }

    /// How other machines are reached.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How long things may take.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Waits for `pause`, or until the build is told to stop.
    pub fn pause(&self, pause: Duration, progress: &Progress) -> Result<(), Cancelled> {
        let end = std::time::Instant::now() + pause;
        loop {
            progress.check()?;
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(POLL));
        }
    }

    /// Runs `work`, and drops it soon after the build was told to stop. It is not begun if that was before.
    pub(crate) fn block<T, E: From<Error> + From<Cancelled>>(
        &self,
        progress: &Progress,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.engine()?.block(progress, work)
    }

    fn engine(&self) -> Result<&Arc<Engine>, Error> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Arc::new(Engine::start()?);
        Ok(self.engine.get_or_init(|| engine))
    }
}

/// What runs asynchronous work: one thread beside the caller's. It reads and decrypts, the caller's hashes
/// and writes.
#[derive(Debug)]
struct Engine(Option<Runtime>);

impl Engine {
    fn start() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("net")
            .build();
        let runtime = runtime.map_err(|error| Error::Setup {
            reason: error.to_string(),
        })?;
        Ok(Self(Some(runtime)))
    }

    fn block<T, E: From<Cancelled>>(
        &self,
        progress: &Progress,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        // On a busy machine even the first look at an answer may find it whole.
        progress.check()?;
        let runtime = self.0.as_ref().expect("it is there until the value goes");
        runtime.block_on(async {
            tokio::select! {
                // What is there already is not worth a look at the clock.
                biased;
                result = work => result,
                cancelled = cancelled(progress) => Err(cancelled.into()),
            }
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A plain drop would wait for name lookups that are under way.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn cancelled(progress: &Progress) -> Cancelled {
    loop {
        if let Err(cancelled) = progress.check() {
            return cancelled;
        }
        tokio::time::sleep(POLL).await;
    }
}
