//! How other machines are reached: by which proxy, with which certificates, and for how long a silence
//! is borne.

mod proxy;
mod tls;
mod tunnel;

use std::path::PathBuf;
use std::time::Duration;

pub use proxy::Proxies;
pub use tls::TlsError;
pub use tunnel::{ConnectError, Connection};

/// How other machines are reached.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A PEM file with authorities that are trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
    /// Who leads where.
    pub proxies: Proxies,
}

/// Connects to other machines.
#[derive(Debug)]
pub struct Client {
    options: Options,
    timing: Timing,
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
        Self::with_timing(options, Timing::default())
    }

    /// As [`new`](Self::new), with other patience.
    #[must_use]
    pub fn with_timing(options: Options, timing: Timing) -> Self {
        Self { options, timing }
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
}
