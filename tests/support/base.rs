//! The base that tests build upon: the stand-in of `testdata/base`, made once for each machine.

use std::path::PathBuf;
use std::process::Command;

use super::{Registry, have, repository, succeed};

/// The stand-in's layout, with the tag `3.11-slim`; `None` (and the test is skipped) where it cannot
/// be made.
pub(crate) fn base_layout() -> Option<PathBuf> {
    if !have(&["apt-get", "dpkg-deb", "python3"]) {
        return None;
    }
    let script = repository().join("testdata/base/make.sh");
    Some(PathBuf::from(
        succeed(Command::new("bash").arg(script)).trim(),
    ))
}

/// A registry with the stand-in in it, and its reference.
pub(crate) fn serve_base() -> Option<(Registry, String)> {
    let registry = Registry::start()?;
    let reference = registry.push(&base_layout()?, "3.11-slim", "library/python:3.11-slim");
    Some((registry, reference))
}
