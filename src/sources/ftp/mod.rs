//! Files by `ftp` and `ftps`: one file, binary, by a passive connection, into bounded memory.
//!
//! The one idea: an attempt logs in anew and goes on where the last one was cut, as long as the server
//! says that the file is still the same. The path of the URL is absolute, as the server shows it to whoever
//! logs in: anonymous, unless the URL has a user.

mod session;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;
use suppaftp::FtpError;

use crate::buildfile::Location;
use crate::error::Error;
use crate::net::{self, Retry};

use super::error::source;
use super::{Answer, Fetch, Validator};
use session::{Facts, Session, Transfer};

/// Attempts that brought next to nothing, before the last failure is reported.
const ATTEMPTS: u32 = 4;
/// Bytes with which an attempt was worth while, so that the next one is the first again.
const PROGRESS: u64 = 1 << 20;
/// Bytes of a file whose size the server does not say.
const MAX_SIZE: u64 = 64 << 30;
const BUFFER: usize = 256 << 10;
/// Characters of a server's own words that are shown.
const MAX_WORDS: usize = 200;

/// Why an attempt failed, as far as the next step depends on it.
enum Fault {
    /// The server refused.
    Refused {
        code: u32,
        said: String,
    },
    /// The other side is no ftp server.
    NotFtp,
    /// Not a single byte came in a while.
    Stalled,
    /// The connection or the transfer ended too early.
    Cut(Error),
    /// There is no encrypted connection.
    Tls(net::Fault),
    Other(Error),
}

/// Fetches the file at `location` into `into`.
pub(super) fn fetch(
    location: &Location,
    into: &Path,
    known: Option<&Validator>,
    fetch: Fetch<'_>,
) -> Result<Answer, Error> {
    let mut download = Download {
        location,
        into,
        fetch,
        file: None,
        received: 0,
        facts: None,
    };
    let mut retry = Retry::new(fetch.net.timing());
    loop {
        let before = download.received;
        let fault = match download.attempt(known) {
            Ok(answer) => return Ok(answer),
            Err(fault) => fault,
        };
        let gained = download.received.saturating_sub(before);
        if gained >= PROGRESS {
            retry.progressed();
        }
        let pause = fault.may_pass(gained).then(|| retry.pause(ATTEMPTS, None));
        let Some(pause) = pause.flatten() else {
            let error = fault.into_error(location);
            return Err(error.wrap(format!("failed to fetch `{location}`")));
        };
        fetch.net.pause(pause, fetch.progress)?;
    }
}

/// A file that may take several attempts.
struct Download<'a> {
    location: &'a Location,
    into: &'a Path,
    fetch: Fetch<'a>,
    file: Option<fs::File>,
    received: u64,
    /// Of which file the bytes so far are.
    facts: Option<Facts>,
}

impl Download<'_> {
    fn attempt(&mut self, known: Option<&Validator>) -> Result<Answer, Fault> {
        let Fetch { net, progress, .. } = self.fetch;
        let mut session = Session::open(self.location, net, progress)?;
        let facts = session.facts()?;
        if facts.fits(known) {
            return Ok(Answer::Unchanged);
        }
        if facts.size.is_none() || self.facts.as_ref() != Some(&facts) {
            self.received = 0;
        } else if facts.size == Some(self.received) {
            // Only the server's last word was lost.
            return Ok(Answer::Fetched(facts.validator()));
        }
        let (mut transfer, begins) = session.begin(self.received)?;
        self.received = begins;
        self.facts = Some(facts.clone());
        match self.receive(&mut transfer, facts.size) {
            Ok(()) => transfer.complete()?,
            Err(fault) => {
                transfer.abort();
                return Err(fault);
            }
        }
        match facts.size {
            Some(size) if size != self.received => Err(Fault::Cut(source(format!(
                "the server sent {} bytes, and said that the file has {size}",
                self.received
            )))),
            _ => Ok(Answer::Fetched(facts.validator())),
        }
    }

    /// Writes what comes behind what was received before.
    fn receive(&mut self, transfer: &mut Transfer, size: Option<u64>) -> Result<(), Fault> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => create(self.into)?,
        };
        file.set_len(self.received)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(self.received))?;
        let file = self.file.insert(file);
        let mut buffer = vec![0; BUFFER];
        loop {
            self.fetch.progress.check()?;
            let length = match transfer.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Not every server says goodbye in TLS. The size says that this was all.
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof
                        && size == Some(self.received) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(Fault::io(error)),
            };
            let sent = self.received + length as u64;
            match size {
                Some(size) if sent > size => {
                    return Err(source(format!(
                        "the server sent more than the {size} bytes that it said the file has"
                    ))
                    .into());
                }
                None if sent > MAX_SIZE => {
                    return Err(source(format!(
                        "the server sent more than {} GiB, and did not say how large the file is",
                        MAX_SIZE >> 30
                    ))
                    .into());
                }
                _ => {}
            }
            file.write_all(&buffer[..length])?;
            self.received = sent;
            self.fetch.part.advance(sent);
        }
    }
}

/// Makes the file, of mode 0644 whatever the umask says.
fn create(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?;
    file.set_permissions(PermissionsExt::from_mode(0o644))?;
    Ok(file)
}

/// A refusal in the server's own words: cut, and without the password, which a server may repeat.
fn refused(what: &str, said: &str, location: &Location) -> Error {
    let password = location.credentials().map(|(_, password)| password);
    let said = match password.filter(|password| !password.reveal().is_empty()) {
        Some(password) => said.replace(password.reveal(), "***"),
        None => said.to_owned(),
    };
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let words: String = words.chars().take(MAX_WORDS).collect();
    source(format!("{what}: `{words}`"))
}

impl Fault {
    fn into_error(self, location: &Location) -> Error {
        match self {
            Self::Refused { said, .. } => refused("the server refused", &said, location),
            Self::NotFtp => source("the server's answer is not one of ftp"),
            Self::Stalled => source("the server fell silent"),
            Self::Tls(fault) => {
                let error = source(format!("no encrypted connection: {fault}"));
                match fault {
                    net::Fault::Certificate(_) => error.with_hint(
                        "name the certificate of its authority, or its own, with `--ca-cert FILE`",
                    ),
                    net::Fault::Handshake(_) => {
                        let hint = fault.hint(&net::host(location.url()));
                        error.with_hint(hint.unwrap_or_default())
                    }
                    _ => error,
                }
            }
            Self::Cut(error) | Self::Other(error) => error,
        }
    }

    /// Whether another attempt may help, after one that brought `gained` bytes.
    fn may_pass(&self, gained: u64) -> bool {
        match self {
            Self::Cut(_) => true,
            Self::Refused { code, .. } => (400..500).contains(code),
            // It took long enough already.
            Self::Stalled => gained > 0,
            _ => false,
        }
    }

    fn io(error: io::Error) -> Self {
        let inner = error.get_ref();
        match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::Tls(net::Fault::from(error)),
            None => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Stalled,
                _ => Self::Cut(source("the connection was cut").with_source(error)),
            },
        }
    }
}

impl From<FtpError> for Fault {
    fn from(error: FtpError) -> Self {
        match error {
            FtpError::ConnectionError(error) => Self::io(error),
            FtpError::UnexpectedResponse(reply) => Self::Refused {
                code: session::code(&reply),
                said: String::from_utf8_lossy(&reply.body).into_owned(),
            },
            FtpError::SecureError(text) => Self::Tls(net::Fault::Other(text)),
            _ => Self::NotFtp,
        }
    }
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}
