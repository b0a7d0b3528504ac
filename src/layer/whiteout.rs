//! Deletions in layers: the names that stand for them.
//!
//! OCI image specification, `layer.md`, "Whiteouts": an empty file `.wh.NAME` deletes `NAME` of the
//! layers below, and `.wh..wh..opq` deletes all that the layers below have in its directory. This is
//! the only file that knows the prefix. We write whiteouts by name only; both kinds are read.

use crate::layer::archive::Malformed;

const PREFIX: &[u8] = b".wh.";

/// Names with this prefix were aufs's own; only the opaque marker among them means anything.
const META_PREFIX: &[u8] = b".wh..wh.";

const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's name says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An ordinary entry.
    Entry,
    /// The path is deleted.
    Delete(Vec<u8>),
    /// All that the layers below have in this directory is deleted.
    Opaque(Vec<u8>),
    /// A file of aufs's own, which every runtime leaves out.
    Ignored,
}

/// Reads a normalised path of a layer.
pub(super) fn classify(path: &[u8]) -> Result<Meaning, Malformed> {
    let split = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let (directory, name) = path.split_at(split);
    if path.split(|&byte| byte == b'/').any(|part| part.starts_with(META_PREFIX) && part != OPAQUE) {
        return Ok(Meaning::Ignored);
    }
    let refused = || Malformed::Whiteout { path: String::from_utf8_lossy(path).into_owned() };
    if directory.split(|&byte| byte == b'/').any(is_reserved) {
        return Err(refused());
    }
    if name == OPAQUE {
        return Ok(Meaning::Opaque(directory.strip_suffix(b"/").unwrap_or(directory).to_owned()));
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Meaning::Entry),
        Some(b"" | b"." | b"..") => Err(refused()),
        Some(victim) => Ok(Meaning::Delete([directory, victim].concat())),
    }
}

/// Whether a layer cannot hold a file of this name.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// The name of the entry that deletes `path`.
pub(super) fn name_for(path: &[u8]) -> Vec<u8> {
    let split = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let (directory, name) = path.split_at(split);
    [directory, PREFIX, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_specification_says() {
        let read = |path: &str| classify(path.as_bytes()).ok();
        assert_eq!(read("a/b"), Some(Meaning::Entry));
        assert_eq!(read("a/.wh.b"), Some(Meaning::Delete(b"a/b".to_vec())));
        assert_eq!(read(".wh.b"), Some(Meaning::Delete(b"b".to_vec())));
        assert_eq!(read("a/.wh..wh..opq"), Some(Meaning::Opaque(b"a".to_vec())));
        assert_eq!(read(".wh..wh..opq"), Some(Meaning::Opaque(Vec::new())));
        assert_eq!(read(".wh..wh.plnk/1.2"), Some(Meaning::Ignored));
        assert_eq!(read("a/.wh..wh.aufs"), Some(Meaning::Ignored));
        assert_eq!(read("a/.wh...hidden"), Some(Meaning::Delete(b"a/..hidden".to_vec())));
    }

    #[test]
    fn names_that_would_delete_something_else_are_refused() {
        for path in [".wh.", "a/.wh.", "a/.wh..", "a/.wh...", ".wh.a/b", ".wh..wh..opq/b"] {
            assert!(matches!(classify(path.as_bytes()), Err(Malformed::Whiteout { .. })), "{path}");
        }
    }

    #[test]
    fn a_deletion_is_read_as_it_is_written() {
        for path in ["a", "a/b", "a/.b"] {
            let name = name_for(path.as_bytes());
            assert_eq!(classify(&name).ok(), Some(Meaning::Delete(path.into())));
        }
    }
}
