//! Directories and changesets: unpacking layers, finding what a step changed, writing it as a layer.
//!
//! The functions here that take a `…Request` run in a helper process, in the user namespace of the
//! runner (see [`crate::runner::call`]), so that they see owners and modes as a step does.

mod archive;
mod changes;
mod compress;
mod delete;
mod disarm;
mod entry;
mod error;
mod gzip;
mod holes;
mod leftout;
mod malformed;
mod node;
mod overlay;
mod owners;
mod pax;
mod root;
mod settle;
mod snapshot;
mod stream;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
mod walk;
mod whiteout;
mod writer;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use crate::layer::compress::{Compression, InvalidCompression};
pub use crate::layer::error::Error;
pub(crate) use crate::layer::error::{REMOVE, TOO_MUCH, UNMAPPED};
pub use crate::layer::malformed::Malformed;
use crate::layer::node::{Kind, Xattrs};
use crate::layer::writer::{Content, Header, LayerWriter};
use crate::manifest::Layer;
use crate::store::Store;

/// Bytes that the tar of a layer may have. Nothing that images hold comes near; a sparse file of terabytes, which costs a
/// step nothing, would be compressed for days.
pub const MAX_LAYER: u64 = 100 << 30;

/// The extended attribute that holds `UID:GID` of a file or directory where owners cannot be set. Trees that
/// are kept in a store have it, and [`ChangesRequest::owners`] says whether it means anything.
pub const OWNER_ATTRIBUTE: &str = "user.pyats-image-build.owner";

/// Which times the entries of a layer carry, in seconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Times {
    /// Entries under these paths (relative to the root, such as `venv`) carry exactly `fixed`.
    pub fixed_under: Vec<PathBuf>,
    /// See `fixed_under`.
    pub fixed: i64,
    /// Other entries carry their own time, but none later than this.
    pub clamp: Option<i64>,
}

/// Unpacks layers, lowest first, into one tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnpackRequest {
    /// The blobs' files with their descriptors and diffIDs, lowest first.
    pub layers: Vec<(PathBuf, Layer)>,
    /// A directory that exists and is empty.
    pub rootfs: PathBuf,
    /// A file to be written, where owners cannot be set: those that are not 0:0, as `UID GID PATH\0`. Files
    /// and directories get [`OWNER_ATTRIBUTE`] as well.
    pub owners: Option<PathBuf>,
    /// Where blobs that are not there yet come from.
    pub coming: Option<Coming>,
    /// Whether the one layer is unpacked by itself, for an overlay to put it upon those below: deletions are marked.
    /// A layer that says nothing of a directory it needs, or links to a file below, is an error.
    pub is_alone: bool,
}

/// Blobs are on their way into a store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Coming {
    /// The root of the store.
    pub store: PathBuf,
    /// A file that is there for as long as blobs may come.
    pub pending: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Unpacked {
    /// Entries in the layers.
    pub entries: u64,
    /// Bytes in the files.
    pub bytes: u64,
    /// Devices that could not be made, relative to the root. Not sent to other processes: names of a layer need not be
    /// text.
    #[serde(skip)]
    pub skipped_devices: Vec<PathBuf>,
}

/// Writes what a step changed as a layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangesRequest {
    /// Where the changes are.
    pub changes: Changes,
    /// Paths (relative to the root) that the runner may have made to mount upon. An empty file there that is
    /// new is not in the layer, nor is a new directory there, or above, that nothing was put into.
    pub ignore: Vec<PathBuf>,
    /// Where owners are recorded instead of set.
    pub owners: Option<RecordedOwners>,
    /// See [`Times`].
    pub times: Times,
    /// See [`Compression`].
    pub compression: Compression,
    /// The root of the store that takes the blob.
    pub store: PathBuf,
}

/// The owners of what can have no [`OWNER_ATTRIBUTE`], in files of `UID GID PATH\0`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordedOwners {
    /// Before the step: what [`UnpackRequest::owners`] or an earlier step wrote.
    pub before: PathBuf,
    /// What the step changed; need not be there.
    pub changed: Option<PathBuf>,
    /// To be written: after the step.
    pub after: Option<PathBuf>,
    /// Whether the step's new files of which no owner was recorded have the group of a directory with setgid. Else
    /// every such group was recorded, and what has none was moved there.
    pub inherits_groups: bool,
}

/// Where a step's changes are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Changes {
    /// In the upper directory of an overlay over `lower`, topmost first.
    Overlay {
        /// Topmost first; two or more are merged by a mount of their own.
        lower: Vec<PathBuf>,
        /// The upper directory.
        upper: PathBuf,
    },
    /// In a tree that was written in place, found by a walk against an earlier `snapshot`.
    Walk {
        /// The tree.
        root: PathBuf,
        /// The file that `snapshot` wrote.
        snapshot: PathBuf,
    },
}

impl Times {
    /// The time that the entry `path` carries, whose own time is `own`.
    fn of(&self, path: &[u8], own: i64) -> i64 {
        let fixed = self
            .fixed_under
            .iter()
            .map(|path| path.as_os_str().as_bytes());
        if fixed.into_iter().any(|fixed| walk::is_within(path, fixed)) {
            return self.fixed;
        }
        self.clamp.map_or(own, |latest| own.min(latest))
    }
}

/// Unpacks, verifying digests, sizes and diffIDs. Nothing leaves `rootfs`.
///
/// After an error the tree is incomplete or wrong: the caller removes it.
pub fn unpack(request: &UnpackRequest) -> Result<Unpacked, Error> {
    unpack::unpack(request)
}

/// Writes the layer; `None` if nothing changed. The tree becomes what it is where the layer is unpacked: what is in no
/// layer is removed, and times are those of the layer.
///
/// Both kinds of [`Changes`] give the same bytes for the same change.
pub fn write_changes(request: &ChangesRequest) -> Result<Option<Layer>, Error> {
    changes::write(request)
}

/// Records the state of the tree at `root` in `file`, for [`Changes::Walk`].
///
/// Files with several names are made files of their own first: an overlay breaks a hard link when one
/// name is written to, in place all names would change.
pub fn snapshot(root: &Path, file: &Path) -> Result<(), Error> {
    snapshot::write(root, file)
}

/// Copies a tree with everything that a layer can carry. Hard links become files of their own, as an
/// overlay would make them when one name is written to. `to` may be there, if it is empty.
pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    tree::copy(from, to)
}

/// Removes a tree, unreadable directories included. Follows no link; a path that is not there is fine.
pub fn remove(path: &Path) -> Result<(), Error> {
    tree::remove(path)
}

/// Takes from a cache, which steps write to, what could harm others: set-id bits, file capabilities and device nodes.
/// Steps may write to it meanwhile.
pub fn disarm(path: &Path) -> Result<(), Error> {
    disarm::disarm(path)
}

/// Writes what is in the directory `root` as a layer, owned by 0:0; `root` itself is not in it, since the
/// root of an image is its base's. Runs in the caller's own process.
///
/// Modes and symbolic links are kept, hard links become files of their own, extended attributes of
/// this machine stay here.
pub fn write_tree(
    root: &Path,
    times: &Times,
    compression: Compression,
    store: &Store,
) -> Result<Layer, Error> {
    let mut writer = LayerWriter::new(store, compression)?;
    for entry in walk::Walk::new(root) {
        let (path, node) = entry?;
        if path.is_empty() {
            continue;
        }
        let host = walk::at(root, &path);
        if whiteout::is_reserved(root::split(&path).1) {
            return Err(Error::Reserved { path: host });
        }
        if !matches!(node.kind, Kind::File | Kind::Directory | Kind::Symlink) {
            return Err(Error::Special { path: host });
        }
        let Some(content) = Content::of(&node, &host) else {
            continue;
        };
        writer.append(&Header {
            path: &path,
            content,
            mode: if node.kind == Kind::Symlink {
                0o777
            } else {
                node.mode
            },
            uid: 0,
            gid: 0,
            mtime: times.of(&path, node.mtime.0),
            xattrs: &Xattrs::new(),
        })?;
    }
    writer.complete()
}
