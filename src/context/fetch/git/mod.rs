//! Repositories by git.

use std::path::Path;

use crate::buildfile::Repository;

use super::{Answer, Fetch, Validator};

/// Why a repository could not be cloned.
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

/// Clones `repository` into the directory `into`, without `.git`. The validator is what `repos.json` says of
/// the repository: `commit`, `heads`, `tags`, `remotes`.
pub(super) fn fetch(
    _repository: &Repository,
    _into: &Path,
    _known: Option<&Validator>,
    _fetch: Fetch<'_>,
) -> Result<Answer, Error> {
    todo!()
}
