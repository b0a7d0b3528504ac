//! Why nothing was fetched by scp.

use std::io;

use super::super::ssh;
use super::list::{DEPTH, ENTRIES};
use crate::progress::Cancelled;

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no session.
    #[error(transparent)]
    Ssh(ssh::Error),
    /// The server does not speak SFTP.
    #[error("the server of `{location}` offers no SFTP: {}", source.message())]
    NoSftp {
        /// Whose server.
        location: String,
        /// The library's words.
        source: ssh2::Error,
    },
    /// There is no such file.
    #[error("`{path}` does not exist")]
    Missing {
        /// With the host.
        path: String,
    },
    /// The user must not read it.
    #[error("`{path}` may not be read by the user of the login")]
    Denied {
        /// With the host.
        path: String,
    },
    /// The home directory of another user.
    #[error("`{path}` begins with the home directory of a user, which SFTP does not know")]
    Home {
        /// With the host.
        path: String,
    },
    /// The server refuses something else.
    #[error("`{path}` cannot be read: {}", source.message())]
    Remote {
        /// With the host.
        path: String,
        /// The server's words.
        source: ssh2::Error,
    },
    /// A device, a named pipe or a socket.
    #[error("`{path}` is a {kind}, which cannot be fetched")]
    Special {
        /// With the host.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// The server lists a name that would lead out of its directory, or that cannot be one.
    #[error("the server lists `{name}` in `{path}`, which is no name of a file")]
    Name {
        /// With the host.
        path: String,
        /// Special characters escaped.
        name: String,
    },
    /// The server lists a name twice.
    #[error("the server lists `{name}` in `{path}` twice")]
    Twice {
        /// With the host.
        path: String,
        /// Special characters escaped.
        name: String,
    },
    /// There is no end to it.
    #[error("`{path}` has more than {ENTRIES} entries, or directories more than {DEPTH} deep")]
    TooMany {
        /// With the host.
        path: String,
    },
    /// The file ended early.
    #[error("`{path}` ended after {got} of {size} bytes")]
    Short {
        /// With the host.
        path: String,
        /// As listed.
        size: u64,
        /// Bytes that came.
        got: u64,
    },
    /// What was fetched cannot be written; names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The build was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
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
        let text = match self {
            Self::Ssh(error) => return error.hint(),
            Self::NoSftp { .. } => {
                "turn it on there: `Subsystem sftp internal-sftp` in `sshd_config`"
            }
            Self::Missing { .. } => {
                "write the absolute path behind the host: `scp://host/path/to/file`"
            }
            Self::Home { .. } => "write the path from the root, or from `~/`",
            Self::Special { .. } => "name the files beside it one by one",
            Self::Short { .. } => "it changed while it was fetched: try again",
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                "free space there, or give `--store` another directory"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl From<ssh::Error> for Error {
    fn from(error: ssh::Error) -> Self {
        match error {
            ssh::Error::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Ssh(other),
        }
    }
}
