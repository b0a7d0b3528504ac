//! TCP connections, direct or through a proxy, that end when the build is told to stop.

use std::io;
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Client;
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
    /// The build was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
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
        _scheme: &str,
        host: &str,
        port: u16,
        progress: &Progress,
    ) -> Result<Connection, ConnectError> {
        let failed = |source| ConnectError::Unreachable {
            host: format!("{host}:{port}"),
            source,
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in (host, port).to_socket_addrs().map_err(failed)? {
            progress.check()?;
            match TcpStream::connect_timeout(&address, self.timing.connect) {
                Ok(stream) => return self.watch(stream, progress).map_err(failed),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
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
                std::thread::sleep(Duration::from_millis(50));
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
