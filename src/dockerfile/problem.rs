//! What is wrong with an instruction once its variables have values.

use super::copy::{DIGEST_HINT, MODE_HINT};
use super::error::quoted;
use super::expand_error::ExpandError;
use super::git::QueryError;
use super::mount::MountError;
use super::parse::not_a_port;
use crate::secret;

/// Bytes that all instructions together may expand to: variables may double at each of them.
pub(super) const MAX_EXPANDED: usize = 64 << 20;

/// An instruction that makes no sense with the values that its variables have.
#[derive(Debug, thiserror::Error)]
#[error("failed to evaluate `{}`", shown(.source_text))]
pub struct Error {
    /// The line of the instruction within its text, from 1.
    pub line: usize,
    /// The instruction's text.
    pub source_text: String,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

/// The first line of an instruction, credentials masked.
fn shown(source: &str) -> String {
    quoted(&secret::mask(source.lines().next().unwrap_or_default()))
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        Self::from_enum(crate::error::Kind::BuildFile, error.hint(), error)
    }
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match &self.problem {
            Problem::Expand(error) => return error.hint().map(str::to_owned),
            Problem::Mount(error) => return error.hint(),
            Problem::Port(word) => not_a_port(word).1,
            Problem::Signal(_) => "write the name or the number of a signal, such as `SIGTERM`",
            Problem::Mode(_) => MODE_HINT,
            Problem::Digest(_) => DIGEST_HINT,
            Problem::Commit(_) => "write the id of a commit, or how it begins",
            Problem::Query { error, .. } => error.hint(),
            Problem::Empty(_) => "check the variables in it",
            Problem::NotADirectory(_) => "end the destination with a slash",
            Problem::Remote(_) => "use `ADD`, which fetches",
            Problem::Checksum => "give each file an `ADD` of its own",
            Problem::TooMuch => "keep large values in files",
        };
        Some(hint.to_owned())
    }
}

/// What is wrong with an instruction once its variables are replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A word that cannot be read.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// A mount that cannot be.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A word of EXPOSE.
    #[error("`{0}` is not a port")]
    Port(String),
    /// The word of STOPSIGNAL.
    #[error("`{0}` is not a signal")]
    Signal(String),
    /// The value of `--chmod`.
    #[error("`{0}` is not a mode")]
    Mode(String),
    /// The value of `--checksum`.
    #[error("`{0}` is not a digest")]
    Digest(String),
    /// The commit that a repository should be at.
    #[error("`{0}` is not the id of a commit")]
    Commit(String),
    /// The query of a repository's URL.
    #[error("the query of `{url}` cannot be followed: {error}")]
    Query {
        /// Masked, without the query.
        url: String,
        /// What is wrong with it.
        error: QueryError,
    },
    /// A word that nothing is left of.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// Several sources, and a destination without a slash.
    #[error("there are several sources, and the destination `{0}` is not a directory")]
    NotADirectory(String),
    /// COPY of a URL.
    #[error("`{0}` is on another machine, which `COPY` does not reach")]
    Remote(String),
    /// A digest for something else than one file of another machine.
    #[error("`--checksum` is for one file or repository of another machine")]
    Checksum,
    /// Values that grow and grow.
    #[error("the instructions expand to more than {} MiB", MAX_EXPANDED >> 20)]
    TooMuch,
}
