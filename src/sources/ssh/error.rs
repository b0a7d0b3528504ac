//! Why no session came about.

use std::io;
use std::path::PathBuf;

use super::key::KeyProblem;
use crate::net::ConnectError;
use crate::progress::Cancelled;

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A line of the configuration does not say what it should.
    #[error("`{}`, line {line}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Others could have written the configuration, which can name commands.
    #[error("`{}` can be written by other users, or belongs to one", path.display())]
    ConfigOpen {
        /// The file.
        path: PathBuf,
    },
    /// A value of the configuration has a `%` token that has no meaning there.
    #[error("`%{token}` in `{value}` of the ssh configuration has no meaning")]
    Token {
        /// The letter.
        token: char,
        /// The value.
        value: String,
    },
    /// Nobody knows where `~/.ssh` is.
    #[error("the home directory, and so `~/.ssh`, is not known")]
    NoHome,
    /// A host or user name that could mean something to a shell.
    #[error("`{name}` cannot be the name of a host or user")]
    Name {
        /// The name.
        name: String,
    },
    /// The jumps lead in a circle.
    #[error("the way to `{login}` leads through itself")]
    Loop {
        /// `user@host:port`
        login: String,
    },
    /// No session with a host on the way.
    #[error("the jump host `{login}` cannot be used")]
    Jump {
        /// `user@host:port`
        login: String,
        /// Why.
        source: Box<Self>,
    },
    /// A host on the way does not lead on.
    #[error("the jump host `{jump}` cannot reach `{host}`: {}", source.message())]
    Forward {
        /// `user@host:port`
        jump: String,
        /// `host:port`
        host: String,
        /// The server's words.
        source: ssh2::Error,
    },
    /// The command that should lead to the host does not run.
    #[error("the `ProxyCommand` for `{host}` cannot be started")]
    Command {
        /// `host:port`
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No connection.
    #[error(transparent)]
    Connect(ConnectError),
    /// There is a connection, and whoever is at its end does not speak ssh, or nothing that both understand.
    #[error("`{host}` does not begin a session: {}{}", source.message(), said(command_said.as_ref()))]
    Handshake {
        /// `host:port`
        host: String,
        /// The library's words.
        source: ssh2::Error,
        /// What the `ProxyCommand` wrote to its standard error, if there is one.
        command_said: Option<String>,
    },
    /// Nothing says which key the host should have.
    #[error("`{host}` is not a known host: its {kind} key is `{fingerprint}`")]
    UnknownHost {
        /// As `known_hosts` calls it.
        host: String,
        /// Host and port, for the hint.
        place: (String, u16),
        /// Such as `ssh-ed25519`.
        kind: String,
        /// As `ssh-keygen -l` prints it.
        fingerprint: String,
        /// Where it is looked for first.
        file: PathBuf,
    },
    /// The host has another key than it should have.
    #[error(
        "`{host}` has another key than `{}` names in line {line}: the {kind} key `{fingerprint}`",
        file.display()
    )]
    ChangedKey {
        /// As `known_hosts` calls it.
        host: String,
        /// Such as `ssh-ed25519`.
        kind: String,
        /// As `ssh-keygen -l` prints it.
        fingerprint: String,
        /// The file that names another one.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The host has a key that must not be used any more.
    #[error("`{host}` has a key that `{}` revokes in line {line}: `{fingerprint}`", file.display())]
    RevokedKey {
        /// As `known_hosts` calls it.
        host: String,
        /// As `ssh-keygen -l` prints it.
        fingerprint: String,
        /// The file that revokes it.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A new host key cannot be written down.
    #[error("the key of `{host}` cannot be added to `{}`", file.display())]
    Remember {
        /// As `known_hosts` calls it.
        host: String,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key that was given cannot be used.
    #[error("the private key for `{login}` {problem}")]
    Key {
        /// `user@host:port`
        login: String,
        /// Why.
        problem: KeyProblem,
    },
    /// The server lets nobody in who has only what there is.
    #[error("`{login}` is refused{}", list(tried))]
    Login {
        /// `user@host:port`
        login: String,
        /// What was tried, and what became of it.
        tried: Vec<String>,
        /// Whether the server had enough before all was tried.
        ended: bool,
    },
    /// The session failed in some other way.
    #[error("the session with `{host}` failed: {}", source.message())]
    Session {
        /// `host:port`
        host: String,
        /// The library's words.
        source: ssh2::Error,
    },
    /// A file cannot be read, or the system lacks something; names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The build was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Connect(other),
        }
    }
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::ConfigOpen { path } => {
                format!("own it, and take the right from others: `chmod go-w {}`", path.display())
            }
            Self::NoHome => "set `HOME`".to_owned(),
            Self::Loop { .. } => {
                "set `ProxyJump none` for the jump host in the ssh configuration".to_owned()
            }
            Self::Jump { source, .. } => return source.hint(),
            Self::UnknownHost {
                place: (host, port),
                file,
                ..
            } => format!(
                "if that is its key, give `--accept-new-host-keys` once, or add what `ssh-keyscan -p {port} \
                 {host}` prints to `{}`",
                file.display()
            ),
            Self::ChangedKey { file, .. } => format!(
                "if the machine was set up anew, remove that line of `{}`; if not, somebody else answers in \
                 its place",
                file.display()
            ),
            Self::Key { problem, .. } => problem.hint().to_owned(),
            Self::Login { ended: true, .. } => {
                "servers end a connection after some tries: name the key of this host with `IdentityFile` in \
                 `~/.ssh/config`"
                    .to_owned()
            }
            Self::Login { .. } => {
                "set up a login without a password: `ssh-copy-id`, or a key in the agent by `ssh-add`"
                    .to_owned()
            }
            _ => return None,
        };
        Some(text)
    }
}

fn said(text: Option<&String>) -> String {
    text.map_or_else(String::new, |text| {
        format!("; the `ProxyCommand` said: {text}")
    })
}

fn list(tried: &[String]) -> String {
    if tried.is_empty() {
        "; there is no key to try".to_owned()
    } else {
        format!("; tried {}", tried.join(", "))
    }
}
