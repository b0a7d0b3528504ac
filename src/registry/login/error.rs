//! What can go wrong with logins, and what a person can do.
//!
//! A file's content is never part of an error, and of a helper's words only those of a refusal are.

use crate::error::{Error, Kind};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no telling whether there is a login, or why it could not be kept or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// A file could not be read or written; names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The user named a file that is not there.
    #[error("`{}` does not exist, though {origin} names it", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
        /// What names it, in backticks.
        origin: &'static str,
    },
    /// A file that is not what it should be.
    #[error("`{}` cannot be understood at line {line}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A login in a file that is otherwise right.
    #[error("the login for `{key}` in `{}` cannot be understood: {problem}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// What the login is filed under.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A directory, a device or the like stands where the file should be written.
    #[error("`{}` is not a file", path.display())]
    NotAFile {
        /// What should be replaced.
        path: PathBuf,
    },
    /// Another process holds the folder of a file for long.
    #[error("`{}` is being changed by another process for more than {} s", path.display(), limit.as_secs_f64())]
    Locked {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// There is no place for a login.
    #[error("there is no place to keep a login: `HOME` is not set")]
    NoHome,
    /// A name that neither files nor registries can tell from a password.
    #[error("`{user}` is not a user name: it is empty, or holds a colon or a control character")]
    User {
        /// The name, with control characters left out.
        user: String,
    },
    /// A file names a helper in a way that no program is called.
    #[error("`{}` names the credential helper `{name}`, which is no name of a program", path.display())]
    HelperName {
        /// The file that names it.
        path: PathBuf,
        /// The name, without `docker-credential-`.
        name: String,
    },
    /// The helper is not installed.
    #[error("the credential helper `{helper}`, named by `{}`, is not in `PATH`", path.display())]
    HelperMissing {
        /// The program.
        helper: String,
        /// The file that names it.
        path: PathBuf,
    },
    /// The helper could not be started.
    #[error("the credential helper `{helper}`, named by `{}`, could not be run", path.display())]
    HelperStart {
        /// The program.
        helper: String,
        /// The file that names it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The helper says that it failed.
    #[error("the credential helper `{helper}`, named by `{}`, failed ({status}){}", path.display(), quoted(said))]
    HelperFailed {
        /// The program.
        helper: String,
        /// The file that names it.
        path: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its own words in one line; may be empty.
        said: String,
        /// What a person can run to see it fail.
        by_hand: String,
    },
    /// The helper's answer holds no login, and does not say that there is none.
    #[error("the credential helper `{helper}`, named by `{}`, gave an answer that is not understood", path.display())]
    HelperAnswer {
        /// The program.
        helper: String,
        /// The file that names it.
        path: PathBuf,
    },
    /// The helper's answer has no end.
    #[error("the credential helper `{helper}`, named by `{}`, gave an answer of more than {limit} bytes", path.display())]
    HelperFlood {
        /// The program.
        helper: String,
        /// The file that names it.
        path: PathBuf,
        /// What it may print.
        limit: usize,
    },
    /// The helper hangs, perhaps because it waits for somebody to unlock its store.
    #[error("the credential helper `{helper}`, named by `{}`, was stopped after {} s", path.display(), limit.as_secs_f64())]
    HelperSlow {
        /// The program.
        helper: String,
        /// The file that names it.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
}

fn quoted(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

impl From<LoginError> for Error {
    fn from(error: LoginError) -> Self {
        Self::from_enum(Kind::Push, error.hint(), error)
    }
}

impl LoginError {
    /// Whether another program failed, and no file is wrong.
    pub(crate) fn is_of_helper(&self) -> bool {
        matches!(
            self,
            Self::HelperMissing { .. }
                | Self::HelperStart { .. }
                | Self::HelperFailed { .. }
                | Self::HelperAnswer { .. }
                | Self::HelperFlood { .. }
                | Self::HelperSlow { .. }
        )
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "the file belongs to another user: name your own with `--authfile FILE`".to_owned()
            }
            Self::Absent { .. } => {
                "check the path, or make the file with `pyats-image-build login`".to_owned()
            }
            Self::Malformed { path, .. } => {
                format!(
                    "it must be JSON: correct `{}`, or take it away and log in again",
                    path.display()
                )
            }
            Self::Entry { .. } => "log in again with `pyats-image-build login`".to_owned(),
            Self::NotAFile { .. } => "name a file with `--authfile FILE`".to_owned(),
            Self::Locked { .. } => "try again when the other process is done".to_owned(),
            Self::NoHome => "set `HOME`, or name a file with `--authfile FILE`".to_owned(),
            Self::HelperName { path, .. } => format!(
                "`credHelpers` and `credsStore` in `{}` hold what follows `docker-credential-` in a program's name",
                path.display()
            ),
            Self::HelperMissing { helper, path } => format!(
                "install `{helper}`, add its folder to `PATH`, or take it out of `credHelpers` and `credsStore` in `{}`",
                path.display()
            ),
            Self::HelperStart { helper, .. } => {
                format!("check that `{helper}` is a program for this machine")
            }
            Self::HelperFailed { by_hand, .. } => format!("try it by hand: `{by_hand}`"),
            Self::HelperAnswer { helper, .. } | Self::HelperFlood { helper, .. } => {
                format!("check that `{helper}` is a credential helper as Docker has them")
            }
            Self::HelperSlow { helper, .. } => format!(
                "if `{helper}` waits for a password or a key, unlock its store before, or name a file with `--authfile FILE`"
            ),
            Self::Io(_) | Self::User { .. } => return None,
        })
    }
}
