//! The errors of fetching and staging that are made in several places.

use std::io;

use crate::error::{Error, Kind};
use crate::net;

/// The entry `name` of the build file, such as `files[2]`, cannot be fetched.
pub(super) fn remote_entry(name: &str, error: Error) -> Error {
    error
        .or_kind(Kind::Sources)
        .wrap(format!("failed to stage `{name}`"))
}

/// The entry `name` cannot be staged, from a path of this machine or into the context.
pub(crate) fn entry(name: &str, error: Error) -> Error {
    let error = if error.io_kind() == Some(io::ErrorKind::PermissionDenied) {
        error.with_hint("make it readable for the user who builds")
    } else {
        on_disk(error)
    };
    remote_entry(name, error)
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

/// An entry that cannot be fetched or staged.
pub(crate) fn source(message: impl Into<String>) -> Error {
    Error::new(Kind::Sources, message)
}

/// The store's disk cannot take what is fetched.
pub(super) fn no_space(message: String) -> Error {
    Error::new(Kind::Storage, message)
        .with_hint("free some space, or put the store elsewhere with `--store DIR`")
}

impl From<net::Error> for Error {
    fn from(error: net::Error) -> Self {
        match error {
            net::Error::Cancelled(cancelled) => cancelled.into(),
            error => Self::from_enum(Kind::Sources, error.hint(), error),
        }
    }
}

impl From<net::ConnectError> for Error {
    fn from(error: net::ConnectError) -> Self {
        match error {
            net::ConnectError::Cancelled(cancelled) => cancelled.into(),
            error => Self::from_enum(Kind::Sources, error.hint(), error),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Cancelled;

    #[test]
    fn a_full_disk_is_the_stores_or_the_contexts() {
        let full = || Error::from(io::Error::from(io::ErrorKind::StorageFull));
        for (error, option) in [
            (remote_entry("files[0]", full()), "--store"),
            (entry("files[0]", full()), "--path"),
            (remote_entry("files[0]", no_space(String::new())), "--store"),
        ] {
            assert_eq!(error.kind(), Kind::Storage);
            assert_eq!(error.to_string(), "failed to stage `files[0]`");
            assert!(error.hint().is_some_and(|hint| hint.contains(option)));
        }
    }

    #[test]
    fn an_interruption_is_not_wrapped() {
        for error in [
            Error::from(net::Error::from(Cancelled)),
            Error::from(net::ConnectError::from(Cancelled)),
        ] {
            let error = remote_entry("files[0]", error);
            assert_eq!(error.kind(), Kind::Interrupted);
            assert_eq!(error.messages(), [Cancelled.to_string()]);
        }
    }
}
