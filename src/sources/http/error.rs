//! Why a file cannot be downloaded, what of that passes, and what the user can do.

use std::io;
use std::time::Duration;

use reqwest::StatusCode;

use super::LARGEST;
use crate::buildfile::Location;
use crate::net;

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[error("failed to download `{location}`")]
pub struct Error {
    /// Printed, it holds no credentials.
    pub(super) location: Location,
    pub(super) source: Problem,
}

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// There was no answer, or not the whole of it.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// The server refused.
    #[error("`{host}` answered {status}{}", quoted(.said))]
    Refused {
        /// The host that was spoken to in the end.
        host: String,
        /// The HTTP status.
        status: StatusCode,
        /// Its own words; may be empty.
        said: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
        /// Whether credentials are at hand that were not shown, since a redirect leads elsewhere.
        strayed: bool,
    },
    /// The server sends the file in another form than it has.
    #[error("`{host}` sends it compressed as `{encoding}`, though it was asked not to")]
    Encoded {
        /// The host that was spoken to in the end.
        host: String,
        /// The content coding.
        encoding: String,
    },
    /// A file beyond the limit.
    #[error("it has more than {} GiB", LARGEST >> 30)]
    TooLarge,
    /// A file that the disk cannot take.
    #[error("it has {length} bytes, and there is space for {available}")]
    NoSpace {
        /// Bytes that are announced and not there yet.
        length: u64,
        /// Bytes.
        available: u64,
    },
    /// Another file than the right one.
    #[error("its digest is `sha256:{found}`, and not `sha256:{expected}`")]
    Damaged {
        /// By the URL.
        expected: String,
        /// Of what came.
        found: String,
    },
    /// `#sha256=` and no digest.
    #[error("`#sha256=` is not followed by 64 hexadecimal digits")]
    Fragment,
    /// Names and passwords cannot be read.
    #[error(transparent)]
    Netrc(#[from] net::NetrcError),
    /// The file cannot be written; names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
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
        let text = match &self.source {
            Problem::Net(error) => return error.hint(),
            Problem::Refused {
                status,
                strayed,
                host,
                ..
            } => match status.as_u16() {
                401 | 403 if *strayed => format!(
                    "a redirect leads to `{host}`, and credentials go to no other server than theirs: write the URL that it leads to"
                ),
                401 | 403 => "give a name and a password in the URL (`https://%ENV{NAME}:%ENV{PASSWORD}@host/…`) or in `~/.netrc`".to_owned(),
                404 | 410 => "check the path in the URL".to_owned(),
                429 => "the server limits how often it may be asked: wait, and try again".to_owned(),
                500.. => "the server is in trouble: try again later".to_owned(),
                _ => return None,
            },
            Problem::Encoded { .. } => "turn that off at the server; `gzip` and `deflate` are decoded".to_owned(),
            Problem::NoSpace { .. } => DISK.to_owned(),
            Problem::Io(error) if error.kind() == io::ErrorKind::StorageFull => DISK.to_owned(),
            Problem::Damaged { .. } => {
                "the file changed, or something on the way changes it: look at it, and correct `#sha256=`".to_owned()
            }
            Problem::Fragment => "write the file's digest behind it, as `sha256sum` prints it".to_owned(),
            Problem::Netrc(_) => "correct the file, or name another one in `NETRC`".to_owned(),
            Problem::TooLarge | Problem::Io(_) => return None,
        };
        Some(text)
    }
}

const DISK: &str = "free some space, or keep the store elsewhere with `--store DIR`";

fn quoted(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

impl Problem {
    /// How often it is worth trying all in all.
    pub(super) fn attempts(&self) -> u32 {
        match self {
            Self::Net(error) => error.attempts(),
            Self::Refused { status, .. } if net::is_passing(*status) => 5,
            _ => 1,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
