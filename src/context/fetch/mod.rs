//! Remote sources: what `files` and `repositories` name elsewhere is fetched into the store, side by
//! side, and copied into the context from there, in the order of the build file.
//!
//! Each kind of source is one function of the same shape: it is given a path that does not exist, and
//! what is known of an earlier fetch; it either says that nothing changed, or makes a file or directory
//! there and says by what its next change is to be seen.

pub(super) mod ftp;
pub(super) mod git;
pub(super) mod http;
pub(super) mod scp;
pub(super) mod ssh;

use std::path::Path;

use serde_json::Value;

use crate::buildfile::Source;
use crate::net;
use crate::progress::{Part, Progress};

use super::error::Problem;

/// By what a change is seen, such as an ETag or the id of a commit. Each kind of source writes its own;
/// nothing in it is secret.
pub(super) type Validator = Value;

/// What came of asking a source.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is what it was when the known validator was made.
    Unchanged,
    /// It was fetched.
    Fetched(Validator),
}

/// What every fetch needs. Cheap to clone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetch<'a> {
    /// Connects to other machines.
    pub(super) net: &'a net::Client,
    /// How ssh decides whom to trust.
    pub(super) ssh: &'a ssh::Options,
    /// Whether to stop; warnings.
    pub(super) progress: &'a Progress,
    /// Bytes on their way.
    pub(super) part: &'a Part,
}

/// Fetches a file or directory into `into`, which does not exist; its parent does.
fn file(
    source: &Source,
    into: &Path,
    known: Option<&Validator>,
    fetch: Fetch<'_>,
) -> Result<Answer, Problem> {
    match source {
        Source::Http(location) => Ok(http::fetch(location, into, known, fetch)?),
        Source::Ftp(location) => Ok(ftp::fetch(location, into, known, fetch)?),
        Source::Scp(location) => Ok(scp::fetch(location, into, known, fetch)?),
        Source::Local(_) => unreachable!("it is on this machine"),
    }
}
