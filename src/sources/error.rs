//! The errors of fetching and staging that are made in several places.

use std::io;

use crate::error::{Error, Kind};

/// The entry `name` of the build file, such as `files[2]`, cannot be staged.
pub(crate) fn entry(name: &str, error: Error) -> Error {
    let error = if error.io_kind() == Some(io::ErrorKind::PermissionDenied) {
        error.with_hint("make it readable for the user who builds")
    } else {
        on_disk(error)
    };
    error
        .or_kind(Kind::Sources)
        .wrap(format!("failed to stage `{name}`"))
}

/// A file of the tool's own, or a directory of the context, cannot be read or written.
pub(crate) fn filling(error: io::Error) -> Error {
    on_disk(error.into()).wrap("failed to fill the context")
}

/// Adds what helps if the context's disk is full.
pub(crate) fn on_disk(error: Error) -> Error {
    match error.io_kind() {
        Some(io::ErrorKind::StorageFull) => {
            error.with_hint("free space there, or choose another place with `--path`")
        }
        _ => error,
    }
}

/// An entry that cannot be staged.
pub(crate) fn source(message: String) -> Error {
    Error::new(Kind::Sources, message)
}

/// A destination that is taken.
pub(crate) fn taken(message: String) -> Error {
    source(message).with_hint("give the entry another name: `- NAME: PATH`")
}

/// An entry without a key, whose source or destination has no last component.
pub(crate) fn no_name(path: &std::path::Path) -> Error {
    let path = path.display();
    source(format!(
        "`{path}` has no name that it could have in the workspace"
    ))
    .with_hint("give it a name: `- NAME: PATH`")
}
