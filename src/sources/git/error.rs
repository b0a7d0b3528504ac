//! Why a repository cannot be cloned.

use std::io;

use crate::error::Error;
use crate::net;
use crate::secret::mask;
use crate::sources::error::{no_space, source};

/// What helps against a page that is no git server.
pub(super) const CHECK_URL: &str = "check the URL: it is the one that `git clone` takes";

/// Why a server gave nothing. After the first two, the objects are asked for in another way.
#[derive(Debug)]
pub(super) enum Problem {
    /// The server says why not.
    Refused(String),
    /// The connection was lost.
    Broken(String),
    Other(Error),
}

impl Problem {
    /// What a server said, without credentials.
    pub(super) fn refused(words: &[u8]) -> Self {
        Self::Refused(short(&String::from_utf8_lossy(words)))
    }

    /// A connection that gave no more.
    pub(super) fn broken(error: io::Error) -> Self {
        // What the layer below said has its own words and hints.
        match error.downcast::<net::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self::Broken(match error.kind() {
                io::ErrorKind::UnexpectedEof => "it was closed too early".to_owned(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    "nothing came for too long".to_owned()
                }
                _ => short(&error.to_string()),
            }),
        }
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Refused(words) => source(format!("the server refuses: {words}"))
                .with_hint("check the URL, and whether you may read the repository"),
            Self::Broken(words) => source(format!("the connection broke: {words}"))
                .with_hint("try again; if it stays so, ask who runs the server"),
            Self::Other(error) => error,
        }
    }
}

impl<E: Into<Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl From<git2::Error> for Error {
    fn from(error: git2::Error) -> Self {
        unreadable(error.message())
    }
}

/// Objects that cannot be stored or read.
pub(super) fn unreadable(words: &str) -> Error {
    let message = format!("its objects cannot be read: {}", short(words));
    if words.contains("No space left") {
        no_space(message)
    } else {
        source(message)
    }
}

/// It is no git server, or one of another age.
pub(super) fn not_git(words: &str) -> Error {
    source(format!("there is no git server: {words}")).with_hint(CHECK_URL)
}

/// Something is larger than in any sensible repository.
pub(super) fn too_large(words: &str) -> Error {
    source(format!("it is too large: {words}"))
}

/// What a stranger said, as far as a message quotes it.
fn short(text: &str) -> String {
    let text: String = mask(text.trim()).chars().take(400).collect();
    text.trim_end().to_owned()
}
