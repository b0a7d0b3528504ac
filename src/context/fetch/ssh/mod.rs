//! Sessions by ssh: configuration, jumps, host keys, logins.

use std::path::PathBuf;

use crate::buildfile::SshLocation;
use crate::secret::Secret;

use super::Fetch;

/// How ssh decides whom to trust.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether a key of an unknown host is taken for its own, and remembered.
    pub accept_new_host_keys: bool,
    /// Replaces `~/.ssh/known_hosts` and the system's file.
    pub known_hosts: Option<PathBuf>,
}

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        None
    }
}

/// A session after login. It ends with the value.
pub(super) struct Session {
    /// The session itself.
    pub(super) ssh: ssh2::Session,
}

/// Opens a session with the host of `location`, by `key` (the text of a private key) if there is one.
pub(super) fn connect(
    _location: &SshLocation,
    _key: Option<&Secret>,
    _fetch: Fetch<'_>,
) -> Result<Session, Error> {
    todo!()
}
