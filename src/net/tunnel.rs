//! TCP connections, direct or through a proxy, that end when the build is told to stop.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::proxy::{Kind, Proxy};
use super::{Client, POLL, handshake};
use crate::progress::{Cancelled, Progress};

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name has no address, nobody listens, or the like.
    #[error("`{host}` cannot be reached: {source}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The system's own words.
        source: io::Error,
    },
    /// The proxy does not lead there, or is not there itself.
    #[error("`{host}` cannot be reached: the proxy `{proxy}` does not lead there ({source})")]
    Proxy {
        /// Host and port.
        host: String,
        /// Without credentials.
        proxy: String,
        /// The proxy's own words, or the system's.
        source: io::Error,
    },
    /// The build was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl ConnectError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some(
                "check host and port, and that the network lets it be reached; a proxy is taken from `proxy` or `SOCKS_PROXY`".to_owned(),
            ),
            Self::Proxy { .. } => Some(
                "check `proxy` in the build file and `SOCKS_PROXY`, `ALL_PROXY`, `FTP_PROXY`; `NO_PROXY` lists what is reached without".to_owned(),
            ),
            Self::Cancelled(_) => None,
        }
    }
}

/// A connection. Reading and writing fail after a minute of silence, and at once when the build is told to
/// stop, for as long as this value lives.
#[derive(Debug)]
pub struct Connection {
    /// The connection itself.
    pub stream: TcpStream,
    ended: Arc<AtomicBool>,
}

impl Client {
    /// Connects to `host` (a name or an address without brackets) by the proxy that `scheme` (`ssh`, `ftp`,
    /// `git`) has, or directly.
    pub fn connect(
        &self,
        scheme: &str,
        host: &str,
        port: u16,
        progress: &Progress,
    ) -> Result<Connection, ConnectError> {
        let proxy = self.options.proxies.find(scheme, host, port).cloned();
        let target = format!("{host}:{port}");
        let name = proxy.as_ref().map(ToString::to_string);
        let failed = |source| match &name {
            None => ConnectError::Unreachable {
                host: target.clone(),
                source,
            },
            Some(proxy) => ConnectError::Proxy {
                host: target.clone(),
                proxy: proxy.clone(),
                source,
            },
        };
        // Neither a name lookup nor a connection that comes about can be called off, so both are left
        // to a thread, which nobody waits for in the end.
        let (sender, receiver) = mpsc::channel();
        let deadline = Instant::now() + self.timing.connect;
        let host = host.to_owned();
        std::thread::spawn(move || {
            let stream = match &proxy {
                None => dial(&host, port, deadline),
                Some(proxy) => dial_by(proxy, &host, port, deadline),
            };
            // Nobody may want it any more.
            let _ = sender.send(stream);
        });
        loop {
            progress.check()?;
            match receiver.recv_timeout(POLL) {
                Ok(stream) => {
                    let stream = stream.map_err(failed)?;
                    return self.watch(stream, progress).map_err(failed);
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline + POLL => {}
                Err(_) => return Err(failed(late())),
            }
        }
    }

    /// Sets the time-outs of a connection, and ends it when the build is told to stop.
    pub fn watch(&self, stream: TcpStream, progress: &Progress) -> io::Result<Connection> {
        stream.set_read_timeout(Some(self.timing.stall))?;
        stream.set_write_timeout(Some(self.timing.stall))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (watched, over, progress) = (stream.try_clone()?, ended.clone(), progress.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if progress.check().is_err() {
                    // It may be closed already.
                    let _ = watched.shutdown(Shutdown::Both);
                    return;
                }
                std::thread::sleep(POLL);
            }
        });
        Ok(Connection { stream, ended })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Tries the addresses of `host` one after the other; each gets its share of the time.
fn dial(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let share = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, left(deadline)? / share) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection to `host` that `proxy` made.
fn dial_by(proxy: &Proxy, host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    if proxy.kind == Kind::Https {
        let reason = "`https://` proxies are for HTTP alone: write `http://` or `socks5h://`";
        return Err(io::Error::other(reason));
    }
    let mut stream = dial(&proxy.host, proxy.port, deadline)?;
    stream.set_read_timeout(Some(left(deadline)?))?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let credentials = proxy.credentials.as_ref();
    let answer = match proxy.kind {
        Kind::Http | Kind::Https => handshake::http(&mut stream, host, port, credentials),
        Kind::Socks5h => handshake::socks5(&mut stream, host, port, credentials),
        Kind::Socks5 => {
            let address = (host, port).to_socket_addrs()?.next();
            let address =
                address.map_or_else(|| host.to_owned(), |address| address.ip().to_string());
            handshake::socks5(&mut stream, &address, port, credentials)
        }
    };
    answer.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => late(),
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it closed the connection"),
        _ => error,
    })?;
    Ok(stream)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(late())
    } else {
        Ok(left)
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}
