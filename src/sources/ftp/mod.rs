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
use crate::net::{self, ConnectError, Retry};
use crate::progress::Cancelled;

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

/// Nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[error("failed to fetch `{location}`")]
pub struct Error {
    /// From where.
    pub location: Location,
    /// Why.
    pub source: Fault,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No connection came about.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There can be no TLS.
    #[error(transparent)]
    Setup(#[from] net::Error),
    /// The path cannot be sent.
    #[error("the path is not one line of UTF-8 text")]
    Path,
    /// The server does not know the user, or the password is wrong.
    #[error("the login was refused: `{said}`")]
    Login {
        /// The server's words.
        said: String,
        /// The URL has no user.
        anonymous: bool,
    },
    /// `AUTH TLS` was refused.
    #[error("the server offers no TLS: `{said}`")]
    NoTls {
        /// The server's words.
        said: String,
    },
    /// The TLS handshake failed.
    #[error("no encrypted connection: {0}")]
    Tls(net::Fault),
    /// No such file, or none that may be read.
    #[error("the server does not give the file: `{said}`")]
    Missing {
        /// The server's words.
        said: String,
    },
    /// The path is one of a directory.
    #[error("it is a directory")]
    Directory,
    /// Anything else that the server refuses.
    #[error("the server refused: `{said}`")]
    Refused {
        /// Of the reply.
        code: u32,
        /// The server's words.
        said: String,
    },
    /// The other side is no ftp server.
    #[error("the server's answer is not one of ftp")]
    NotFtp,
    /// Not a single byte came in a while.
    #[error("the server fell silent")]
    Stalled,
    /// The connection ended too early.
    #[error("the connection was cut")]
    Cut(#[source] io::Error),
    /// The transfer ended early.
    #[error("the server sent {sent} bytes, and said that the file has {size}")]
    Short {
        /// Bytes.
        sent: u64,
        /// As the server said.
        size: u64,
    },
    /// The transfer does not end where it should.
    #[error("the server sent more than the {size} bytes that it said the file has")]
    Long {
        /// As the server said.
        size: u64,
    },
    /// The transfer does not end.
    #[error("the server sent more than {} GiB, and did not say how large the file is", MAX_SIZE >> 30)]
    Endless,
    /// The file cannot be written; names the path.
    #[error(transparent)]
    Write(io::Error),
    /// The build was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
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
    let failed = |fault: Fault| Error {
        location: location.clone(),
        source: fault.presentable(location),
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
            return Err(failed(fault));
        };
        let paused = fetch.net.pause(pause, fetch.progress);
        paused.map_err(|cancelled| failed(cancelled.into()))?;
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
            Some(size) if size != self.received => Err(Fault::Short {
                sent: self.received,
                size,
            }),
            _ => Ok(Answer::Fetched(facts.validator())),
        }
    }

    /// Writes what comes behind what was received before.
    fn receive(&mut self, transfer: &mut Transfer, size: Option<u64>) -> Result<(), Fault> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => create(self.into).map_err(Fault::Write)?,
        };
        file.set_len(self.received).map_err(Fault::Write)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(self.received)).map_err(Fault::Write)?;
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
                Some(size) if sent > size => return Err(Fault::Long { size }),
                None if sent > MAX_SIZE => return Err(Fault::Endless),
                _ => {}
            }
            file.write_all(&buffer[..length]).map_err(Fault::Write)?;
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

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        Self::from_enum(None, error.hint(), error)
    }
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match &self.source {
            Fault::Tls(fault @ net::Fault::Handshake(_)) => {
                fault.hint(&net::host(self.location.url()))
            }
            source => source.hint(),
        }
    }
}

impl Fault {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Connect(error) => return error.hint(),
            Self::Setup(error) => return error.hint(),
            Self::Path => {
                "write it as the server shows it, with special characters percent-encoded"
            }
            Self::Login {
                anonymous: true, ..
            } => "a URL may hold a login: `ftp://user:password@host/path`",
            Self::Login { .. } => {
                "check user and password; special characters in a URL are percent-encoded"
            }
            Self::NoTls { .. } => "`ftp://` fetches without encryption, if that is good enough",
            Self::Tls(net::Fault::Certificate(_)) => {
                "name the certificate of its authority, or its own, with `--ca-cert FILE`"
            }
            Self::Missing { .. } => "the path is absolute, as the server shows it to this user",
            Self::Directory => "name one file of it: ftp fetches single files only",
            Self::Write(error) if error.kind() == io::ErrorKind::StorageFull => {
                "free space there, or choose another place with `--store`"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Whether another attempt may help, after one that brought `gained` bytes.
    fn may_pass(&self, gained: u64) -> bool {
        match self {
            Self::Cut(_) | Self::Short { .. } => true,
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
                _ => Self::Cut(error),
            },
        }
    }

    /// The same with the server's words cut, and without the password, which a server may repeat.
    fn presentable(mut self, location: &Location) -> Self {
        if let Self::Login { said, .. }
        | Self::NoTls { said }
        | Self::Missing { said }
        | Self::Refused { said, .. } = &mut self
        {
            let password = location.credentials().map(|(_, password)| password);
            if let Some(password) = password.filter(|password| !password.reveal().is_empty()) {
                *said = said.replace(password.reveal(), "***");
            }
            let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
            *said = words.chars().take(MAX_WORDS).collect();
        }
        self
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
