//! Files by `ftp` and `ftps`.

use std::path::Path;

use crate::buildfile::Location;

use super::{Answer, Fetch, Validator};

/// Why nothing was fetched.
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

/// Fetches what lies at `location`.
pub(super) fn fetch(
    _location: &Location,
    _into: &Path,
    _known: Option<&Validator>,
    _fetch: Fetch<'_>,
) -> Result<Answer, Error> {
    todo!()
}
