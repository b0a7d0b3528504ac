//! One login at an ftp server: the control connection, what the server knows of a file, and the transfer.
//!
//! All connections are made by [`net::Client`], so that time-outs, proxies and Ctrl-C hold for each. Data
//! connections are passive, and lead to the machine of the control connection, whatever the server says.
//!
//! `ftp://` is never encrypted. `ftps://` is encrypted from the first byte at port 990; at any other port,
//! 21 if none is given, the client asks for TLS by `AUTH TLS` (RFC 4217), unless the server waits for the
//! client to speak first, which servers of the first kind do. Both channels are encrypted then.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use suppaftp::types::{FileType, Mode, Response};
use suppaftp::{
    FtpError, FtpResult, RustlsConnector, RustlsFtpStream, Status, TlsConnector, TransferStream,
};

use crate::buildfile::Location;
use crate::net::{self, ConnectError, Connection};
use crate::progress::Progress;

use super::super::error::source;
use super::{Fault, refused};

/// An encrypted connection; the crate exports it by no name.
type TlsStream = <RustlsConnector as TlsConnector>::Stream;

/// Where TLS begins with the first byte.
const IMPLICIT_PORT: u16 = 990;
/// Who logs in if the URL does not say.
const ANONYMOUS: (&str, &str) = ("anonymous", "anonymous@");

/// A login.
pub(super) struct Session<'a> {
    location: &'a Location,
    stream: RustlsFtpStream,
    wires: Wires,
    path: String,
}

/// What a server knows of a file without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) size: Option<u64>,
    /// In UTC, to the second.
    modified: Option<String>,
}

impl Facts {
    /// By what a change is seen.
    pub(super) fn validator(&self) -> Value {
        json!({ "size": self.size, "modified": self.modified })
    }

    /// Whether nothing has changed since an earlier fetch.
    pub(super) fn fits(&self, known: Option<&Value>) -> bool {
        let complete = self.size.is_some() && self.modified.is_some();
        complete && known == Some(&self.validator())
    }
}

impl<'a> Session<'a> {
    /// Connects and logs in.
    pub(super) fn open(
        location: &'a Location,
        net: &net::Client,
        progress: &Progress,
    ) -> Result<Self, Fault> {
        let url = location.url();
        let path = percent_decode_str(url.path()).decode_utf8().ok();
        let path = path.filter(|path| !path.contains(char::is_control));
        let path = path.ok_or_else(|| {
            source("the path is not one line of UTF-8 text").with_hint(
                "write it as the server shows it, with special characters percent-encoded",
            )
        })?;
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port().unwrap_or(21);

        let wires = Wires::default();
        let control = net.connect("ftp", host, port, progress)?;
        let control = wires.keep(control).map_err(Fault::io)?;
        // A name may have several machines. Behind a proxy, their addresses are not known here.
        let proxy = net.options().proxies.find("ftp", host, port);
        let data_host = proxy.map(|_| host.to_owned());
        let stream = if url.scheme() == "ftps" {
            secure(control, location, host, port, net)?
        } else {
            RustlsFtpStream::connect_with_stream(control)?
        };
        let mut session = Self {
            location,
            stream: stream.passive_stream_builder(data_connections(
                data_host,
                net,
                progress,
                wires.clone(),
            )),
            wires,
            path: path.into_owned(),
        };
        session.stream.set_passive_nat_workaround(true);
        session.login()?;
        session.stream.transfer_type(FileType::Binary)?;
        Ok(session)
    }

    fn login(&mut self) -> Result<(), Fault> {
        let login = self.location.credentials();
        let (user, password) = login
            .as_ref()
            .map_or(ANONYMOUS, |(user, password)| (user, password.reveal()));
        self.stream
            .login(user, password)
            .map_err(|error| match error.into() {
                Fault::Refused { code, said } if code >= 500 || code == 430 => refused(
                    "the login was refused",
                    &said,
                    self.location,
                )
                .with_hint(if login.is_none() {
                    "a URL may hold a login: `ftp://user:password@host/path`"
                } else {
                    "check user and password; special characters in a URL are percent-encoded"
                })
                .into(),
                fault => fault,
            })
    }

    /// Asks what the server knows of the file; not every server answers.
    pub(super) fn facts(&mut self) -> Result<Facts, Fault> {
        let size = answered(self.stream.size(&self.path))?;
        let modified = answered(self.stream.mdtm(&self.path))?;
        Ok(Facts {
            size: size.and_then(|size| size.try_into().ok()),
            modified: modified.map(|time| time.to_string()),
        })
    }

    /// Begins the transfer of the file from `offset`, or from its start where the server cannot do that;
    /// gives the place where it begins.
    pub(super) fn begin(&mut self, offset: u64) -> Result<(Transfer, u64), Fault> {
        let start = usize::try_from(offset).map_err(|_| Fault::NotFtp)?;
        // A refusal does not say whether it is one of EPSV, of REST or of RETR: less and less is asked for.
        let mut refused = Fault::NotFtp;
        for (mode, start) in [
            (Mode::ExtendedPassive, start),
            (Mode::Passive, start),
            (Mode::Passive, 0),
        ] {
            self.stream.set_mode(mode);
            if start > 0 {
                self.stream.resume_transfer(start)?;
            }
            match self.stream.retr_as_stream(&self.path).map_err(Fault::from) {
                Ok(stream) => {
                    let wires = self.wires.clone();
                    let begins = if start == 0 { 0 } else { offset };
                    return Ok((Transfer { stream, wires }, begins));
                }
                Err(Fault::Refused { code: 550, said }) => return Err(self.unavailable(&said)),
                Err(fault @ Fault::Refused { code: 500.., .. }) => refused = fault,
                Err(fault) => return Err(fault),
            }
        }
        Err(refused)
    }

    /// Tells a directory from a file that is not there.
    fn unavailable(&mut self, said: &str) -> Fault {
        let error = match self.stream.cwd(&self.path) {
            Ok(()) => source("it is a directory")
                .with_hint("name one file of it: ftp fetches single files only"),
            Err(_) => refused("the server does not give the file", said, self.location)
                .with_hint("the path is absolute, as the server shows it to this user"),
        };
        error.into()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.wires.cut();
    }
}

/// A file on its way.
pub(super) struct Transfer {
    stream: TransferStream<TlsStream>,
    wires: Wires,
}

impl Transfer {
    /// Reads a part of the file; nothing at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut self.stream, buffer)
    }

    /// Hears from the server whether that was all.
    pub(super) fn complete(self) -> Result<(), Fault> {
        Ok(self.stream.finish()?)
    }

    /// Gives up. Without this the end of the value would wait for the server's last word.
    pub(super) fn abort(self) {
        self.wires.cut();
    }
}

/// `None` if the server has no answer, which is no failure.
fn answered<T>(answer: FtpResult<T>) -> Result<Option<T>, Fault> {
    match answer.map_err(Fault::from) {
        Ok(answer) => Ok(Some(answer)),
        Err(Fault::Refused { code: 421, said }) => Err(Fault::Refused { code: 421, said }),
        Err(Fault::Refused { .. } | Fault::NotFtp) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Makes the control connection an encrypted one.
fn secure(
    control: TcpStream,
    location: &Location,
    host: &str,
    port: u16,
    net: &net::Client,
) -> Result<RustlsFtpStream, Fault> {
    let inner = RustlsConnector::from(net.tls()?);
    let timing = net.timing();
    if port != IMPLICIT_PORT && speaks_first(&control, timing.connect / 3, timing.stall)? {
        let stream = RustlsFtpStream::connect_with_stream(control)?;
        return stream
            .into_secure(inner, host)
            .map_err(|error| match error.into() {
                Fault::Refused { code: 500.., said } => {
                    refused("the server offers no TLS", &said, location)
                        .with_hint("`ftp://` fetches without encryption, if that is good enough")
                        .into()
                }
                fault => fault,
            });
    }
    // The crate makes the connection itself, without time-outs or proxies. It is let connect to a door
    // behind which nobody is, and given the real connection afterwards.
    let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Fault::io)?;
    let address = door.local_addr().map_err(Fault::io)?;
    let connector = Substitute {
        inner,
        control: Mutex::new(Some(control)),
    };
    let mut stream = RustlsFtpStream::connect_secure_implicit(address, connector, host)?;
    for command in ["PBSZ 0", "PROT P"] {
        stream.custom_command(command, &[Status::CommandOk])?;
    }
    Ok(stream)
}

/// Whether the server greets within `patience`. Whoever waits for TLS does not.
fn speaks_first(control: &TcpStream, patience: Duration, stall: Duration) -> Result<bool, Fault> {
    control
        .set_read_timeout(Some(patience))
        .map_err(Fault::io)?;
    let spoken = match control.peek(&mut [0]) {
        Ok(_) => true,
        Err(error) => match Fault::io(error) {
            Fault::Stalled => false,
            fault => return Err(fault),
        },
    };
    control.set_read_timeout(Some(stall)).map_err(Fault::io)?;
    Ok(spoken)
}

/// Encrypts another connection than the first that it is given.
#[derive(Debug)]
struct Substitute {
    inner: RustlsConnector,
    control: Mutex<Option<TcpStream>>,
}

impl TlsConnector for Substitute {
    type Stream = TlsStream;

    fn connect(&self, domain: &str, given: TcpStream) -> FtpResult<TlsStream> {
        let control = self
            .control
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.inner.connect(domain, control.unwrap_or(given))
    }
}

/// The connections of a session, which are watched for as long as they are here.
#[derive(Debug, Clone, Default)]
struct Wires(Arc<Mutex<Vec<Connection>>>);

impl Wires {
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, connection: Connection) -> io::Result<TcpStream> {
        let stream = connection.stream.try_clone()?;
        self.lock().push(connection);
        Ok(stream)
    }

    fn cut(&self) {
        for connection in self.lock().drain(..) {
            // It may be closed already.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
    }
}

/// Makes data connections to `host`, or to the very machine of the control connection if that is `None`.
fn data_connections(
    host: Option<String>,
    net: &net::Client,
    progress: &Progress,
    wires: Wires,
) -> impl Fn(SocketAddr) -> FtpResult<TcpStream> + Send + Sync + 'static {
    let options = match host {
        Some(_) => net.options().clone(),
        // `NO_PROXY` may name the machine, and not its address.
        None => net::Options::default(),
    };
    let net = net::Client::with_timing(options, net.timing());
    let progress = progress.clone();
    move |address| {
        let host = host.clone().unwrap_or_else(|| address.ip().to_string());
        let stream = match net.connect("ftp", &host, address.port(), &progress) {
            Ok(connection) => wires.keep(connection),
            Err(ConnectError::Unreachable { source, .. }) => Err(source),
            Err(other) => Err(io::Error::other(other)),
        };
        stream.map_err(FtpError::ConnectionError)
    }
}

/// The code of a reply, also of one that the crate does not know.
pub(super) fn code(reply: &Response) -> u32 {
    match reply.status {
        Status::Unknown => {
            let digits = reply.body.get(..3).unwrap_or_default();
            str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .unwrap_or_default()
        }
        status => status.code(),
    }
}
