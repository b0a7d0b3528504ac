//! Why a repository could not be cloned, and what to do about it.

use std::io;

use crate::net;
use crate::progress::Cancelled;
use crate::secret::mask;
use crate::sources::ssh;

/// A repository could not be cloned.
#[derive(Debug, thiserror::Error)]
#[error("failed to clone `{origin}`")]
pub struct Error {
    /// Where it lies, masked.
    pub(super) origin: String,
    /// Why.
    pub(super) source: Problem,
}

/// What is wrong with a repository, or with the way to it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// No connection by TCP.
    #[error(transparent)]
    Connect(#[from] net::ConnectError),
    /// No answer by HTTP.
    #[error(transparent)]
    Http(#[from] net::Error),
    /// `~/.netrc` says nothing.
    #[error(transparent)]
    Netrc(#[from] net::NetrcError),
    /// No session by ssh.
    #[error(transparent)]
    Ssh(#[from] ssh::Error),
    /// The server wants to know who asks.
    #[error("authentication required")]
    AuthenticationRequired,
    /// The server knows who asks, and does not let it in.
    #[error("the server does not accept the credentials")]
    Denied,
    /// The server lets nobody in, or not this one.
    #[error("the server forbids access")]
    Forbidden,
    /// The server has no such repository, or does not admit to it.
    #[error("the server has no such repository")]
    NotFound,
    /// Another HTTP status.
    #[error("the server answers with status {0}")]
    Status(u16),
    /// The server says why not.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// It is no git server, or one of another age.
    #[error("there is no git server: {0}")]
    NotGit(&'static str),
    /// The connection was lost.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// There is no repository at a path of this machine.
    #[error("`{0}` is not a git repository")]
    NotRepository(String),
    /// The path of this machine belongs to somebody else.
    #[error("`{0}` belongs to another user")]
    Foreign(String),
    /// Ids of a kind that cannot be read.
    #[error("it has objects of the format `{0}`, and only `sha1` can be read")]
    Format(String),
    /// There is no commit at all.
    #[error("the repository is empty")]
    Empty,
    /// `HEAD` leads nowhere.
    #[error("the repository has no default branch")]
    NoHead,
    /// The name is not known.
    #[error("it has no commit, tag or branch `{name}`")]
    NoCommit {
        /// As typed.
        name: String,
        /// The name that is nearest.
        similar: Option<String>,
    },
    /// More than one commit begins so.
    #[error("more than one commit begins with `{0}`")]
    Ambiguous(String),
    /// A tag of something else.
    #[error("`{0}` is not a commit")]
    NotCommit(String),
    /// A name that would lead out of the destination, or into git's own files.
    #[error("it holds the path `{0}`, which cannot be checked out")]
    Path(String),
    /// Something is larger than any sensible repository.
    #[error("it is too large: {0}")]
    TooLarge(&'static str),
    /// Objects cannot be stored or read.
    #[error("its objects cannot be read: {0}")]
    Objects(String),
    /// A file cannot be written; names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The location cannot be used.
    #[error(transparent)]
    Staging(crate::error::Error),
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
        self.source.hint()
    }
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
            Ok(error) => Self::Http(error),
            Err(error) => Self::Broken(match error.kind() {
                io::ErrorKind::UnexpectedEof => "it was closed too early".to_owned(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    "nothing came for too long".to_owned()
                }
                _ => short(&error.to_string()),
            }),
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Connect(error) => return error.hint(),
            Self::Http(error) => return error.hint(),
            Self::Ssh(error) => return error.hint(),
            Self::AuthenticationRequired => {
                "set `credentials`, or use an ssh URL and `ssh_key`, for a private repository"
            }
            Self::Denied => "check `credentials`; many servers want a token for a password",
            Self::Forbidden => "check `credentials`, and whether they may read the repository",
            Self::NotFound => {
                "check the URL; a private repository needs `credentials` or `ssh_key`"
            }
            Self::Refused(_) => "check the URL, and whether you may read the repository",
            Self::Status(_) | Self::NotGit(_) => {
                "check the URL: it is the one that `git clone` takes"
            }
            Self::Broken(_) => "try again; if it stays so, ask who runs the server",
            Self::NotRepository(_) => "local paths are relative to the current directory",
            Self::Foreign(path) => {
                return Some(format!(
                    "if you trust it: git config --global --add safe.directory '{path}'"
                ));
            }
            Self::NoHead => "name a branch, a tag or an id in `commit_id`",
            Self::NoCommit {
                similar: Some(name),
                ..
            } => return Some(format!("did you mean `{name}`?")),
            Self::NoCommit { .. } => {
                "check `commit_id`: it is an id, a tag or a branch, and was pushed"
            }
            Self::Ambiguous(_) => "write more of the id in `commit_id`",
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                "free space there, or choose another place with `--store`"
            }
            Self::Objects(words) if words.contains("No space left") => {
                "free space there, or choose another place with `--store`"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl From<git2::Error> for Problem {
    fn from(error: git2::Error) -> Self {
        Self::Objects(short(error.message()))
    }
}

/// What a stranger said, as far as a message quotes it.
fn short(text: &str) -> String {
    let text: String = mask(text.trim()).chars().take(400).collect();
    text.trim_end().to_owned()
}
