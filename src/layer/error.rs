//! What can be wrong with a layer, or with a tree that becomes one.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{DiffId, Digest};
use crate::error::Kind;
use crate::layer::MAX_LAYER;
use crate::layer::malformed::Malformed;

/// What [`Error::TooLarge`] says: from a helper process only words come.
pub(crate) const TOO_MUCH: &str = "which is too much for a layer";
/// What can be done about it.
pub(crate) const REMOVE: &str = "remove it in the instruction that makes it, or divide what is needed among several instructions";
/// How [`Error::Owner`] ends. From the helper process only words come.
pub(crate) const UNMAPPED: &str = "which the user namespace does not map";

/// What is wrong with a layer, or with a tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system's own words, with the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A call on one path of a tree failed.
    #[error("failed to {action} `{}`", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// Relative to the tree's root where there is one.
        path: PathBuf,
        /// The file system's own words.
        source: io::Error,
    },
    /// The layer's tar is not one that can be unpacked safely and completely.
    #[error("layer `{digest}` cannot be unpacked")]
    Malformed {
        /// Of the layer's blob.
        digest: Digest,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The layer's blob holds other bytes than its name promises.
    #[error("layer `{expected}` holds other bytes: `{found}`")]
    Damaged {
        /// The digest of the descriptor.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// The layer's blob is shorter or longer than its descriptor says.
    #[error("layer `{digest}` has {found} bytes instead of {expected}")]
    Size {
        /// Of the layer's blob.
        digest: Digest,
        /// Bytes promised.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// The uncompressed layer is not the one that the image's config names.
    #[error("layer `{digest}` has the diffID `{found}` instead of `{expected}`")]
    DiffId {
        /// Of the layer's blob.
        digest: Digest,
        /// What the config says.
        expected: DiffId,
        /// What the bytes say.
        found: DiffId,
    },
    /// A file of a layer has an owner that cannot be set here.
    #[error("`{}` belongs to {uid}:{gid}, {UNMAPPED}", path.display())]
    Owner {
        /// Relative to the root.
        path: PathBuf,
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// The disk is too small for what a layer holds.
    #[error("`{}` needs {needed} bytes and the disk has {available} left", path.display())]
    NoSpace {
        /// Relative to the root.
        path: PathBuf,
        /// Of the file.
        needed: u64,
        /// On the file system of the root.
        available: u64,
    },
    /// A step made more than a layer takes.
    #[error("`{}` has {size} bytes, {TOO_MUCH}: it takes {} GiB", path.display(), MAX_LAYER >> 30)]
    TooLarge {
        /// The first file that does not fit.
        path: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// Somebody wrote to a file while it went into a layer.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file has a name that means a deletion in a layer.
    #[error("`{}` has a name that layers reserve for deletions", path.display())]
    Reserved {
        /// The file.
        path: PathBuf,
    },
    /// A file that a layer of the workspace does not take.
    #[error("`{}` is neither a file, a directory nor a symbolic link", path.display())]
    Special {
        /// The file.
        path: PathBuf,
    },
    /// A file that `snapshot` or `unpack` wrote was
    /// cut short or written by another version.
    #[error("`{}` is not complete", path.display())]
    Record {
        /// The file.
        path: PathBuf,
    },
    /// The store could not take the layer.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        Self::from_enum(Kind::Storage, error.hint(), error)
    }
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Owner { .. } => {
                "give the user more subordinate ids in /etc/subuid and /etc/subgid (65536 are usual), \
                 or choose `--runner userns-single`, which keeps owners on the side"
            }
            Self::NoSpace { .. } => {
                "free some space, or put the store on a larger disk with `--store`"
            }
            Self::Io(error) | Self::File { source: error, .. }
                if error.kind() == io::ErrorKind::StorageFull =>
            {
                "free some space, or put the store on a larger disk with `--store`"
            }
            Self::File {
                action: "set an extended attribute of",
                ..
            } => {
                "put the store on a file system with extended attributes, such as ext4 or xfs, with `--store`"
            }
            Self::Damaged { .. } | Self::Size { .. } => {
                "remove the blob from the store and build again; it will be fetched anew"
            }
            Self::Malformed {
                source: Malformed::Bomb { .. } | Malformed::TooMany { .. },
                ..
            } => {
                "the image looks made to fill the disk; if it is known to be good, squash its layers first"
            }
            Self::Malformed { .. } | Self::DiffId { .. } => {
                "pull the image anew; if it stays, the image itself is broken: tell its maker, or choose another base"
            }
            Self::TooLarge { .. } => REMOVE,
            Self::Reserved { .. } => "rename it: an image cannot hold a file of that name",
            Self::Special { .. } => "leave it out of the files of the build",
            Self::Changed { .. } => "build again when nothing writes to it",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// For `map_err`: names the path that a call failed on.
    pub(super) fn file<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}
