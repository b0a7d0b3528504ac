//! Why a layer's tar is refused.

use std::io;

/// Why a layer's tar was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The stream could not be decompressed, or read at all.
    #[error("its stream is broken")]
    Stream(#[source] io::Error),
    /// The archive ends within an entry.
    #[error("it ends in the middle of an entry")]
    Truncated,
    /// A header's checksum is wrong; the bytes are no tar, or are damaged.
    #[error("the header at byte {at} is not one of a tar archive")]
    Checksum {
        /// Where in the uncompressed layer.
        at: u64,
    },
    /// A number of a header cannot be read.
    #[error("the {field} of `{path}` is not a number that a layer can have")]
    Number {
        /// Which.
        field: &'static str,
        /// The entry, as far as it is known.
        path: String,
    },
    /// Extended header records that readers would understand differently.
    #[error("the extended header at byte {at} is not well-formed")]
    Records {
        /// Where in the uncompressed layer.
        at: u64,
    },
    /// A kind of entry that layers do not have.
    #[error("`{path}` is {kind}, which layers do not have")]
    Unsupported {
        /// The entry.
        path: String,
        /// What it is.
        kind: String,
    },
    /// A name that points out of the root.
    #[error("`{path}` leads out of the root")]
    Escapes {
        /// The name, or the target of a hard link.
        path: String,
    },
    /// A name that the kernel does not take.
    #[error("the name `{path}` is empty, has a NUL byte, or is longer than 4095 bytes")]
    Name {
        /// Its beginning.
        path: String,
    },
    /// A deletion that means nothing, or its own directory.
    #[error("`{path}` is not a deletion that a layer can have")]
    Whiteout {
        /// The entry.
        path: String,
    },
    /// An entry below something that is not a directory.
    #[error("a parent of `{path}` is not a directory")]
    Parent {
        /// The entry.
        path: String,
    },
    /// A hard link to something that is not there.
    #[error("`{path}` is a hard link to `{target}`, which is not there or cannot be linked to")]
    Link {
        /// The entry.
        path: String,
        /// Its target.
        target: String,
    },
    /// Too many entries.
    #[error("it has more than {limit} entries")]
    TooMany {
        /// How many are allowed.
        limit: u64,
    },
    /// Too many bytes for its size.
    #[error("it unpacks to more than {limit} bytes, which is far too much for its size")]
    Bomb {
        /// How many bytes are allowed.
        limit: u64,
    },
}
