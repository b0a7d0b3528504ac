//! Directories and changesets: unpacking layers, finding what a step changed, writing it as a layer.
//!
//! The functions here that take a `…Request` run in a helper process, in the user namespace of the
//! rung (see [`crate::runner::call`]), so that they see owners and modes as a step does.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::manifest::{Descriptor, Layer};
use crate::digest::DiffId;

/// How layers that are made here are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Level 1 to 9.
    Gzip(u32),
    /// Level 1 to 22.
    Zstd(i32),
    /// A plain tar.
    None,
}

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
    /// A file to be written: the owners that are not 0:0, where they could not be set.
    pub owners: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Unpacked {
    /// Entries in the layers.
    pub entries: u64,
    /// Bytes in the files.
    pub bytes: u64,
    /// Devices that could not be made, relative to the root.
    pub skipped_devices: Vec<PathBuf>,
}

/// Writes what a step changed as a layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangesRequest {
    /// Where the changes are.
    pub changes: Changes,
    /// Paths (relative to the root) that the runner made to mount upon: neither they nor what is below
    /// them is in the layer, nor a directory that is there for their sake alone.
    pub ignore: Vec<PathBuf>,
    /// What [`UnpackRequest::owners`] wrote.
    pub owners: Option<PathBuf>,
    /// See [`Times`].
    pub times: Times,
    /// See [`Compression`].
    pub compression: Compression,
    /// The root of the store that takes the blob.
    pub store: PathBuf,
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
    /// In a tree that was written in place, found by a walk against an earlier [`snapshot`].
    Walk {
        /// The tree.
        root: PathBuf,
        /// The file that [`snapshot`] wrote.
        snapshot: PathBuf,
    },
}

/// What is wrong with a layer, or with a tree.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct Error;

/// Unpacks, verifying digests, sizes and diffIDs. Nothing leaves `rootfs`.
pub fn unpack(_request: &UnpackRequest) -> Result<Unpacked, Error> {
    unimplemented!()
}

/// Writes the layer; `None` if nothing changed.
pub fn write_changes(_request: &ChangesRequest) -> Result<Option<Layer>, Error> {
    unimplemented!()
}

/// Records the state of the tree at `root` in `file`, for [`Changes::Walk`].
pub fn snapshot(_root: &std::path::Path, _file: &std::path::Path) -> Result<(), Error> {
    unimplemented!()
}

/// Copies a tree with everything that a layer can carry. Hard links become files of their own, as an
/// overlay would make them when one name is written to.
pub fn copy(_from: &std::path::Path, _to: &std::path::Path) -> Result<(), Error> {
    unimplemented!()
}

/// Removes a tree, unreadable directories included.
pub fn remove(_path: &std::path::Path) -> Result<(), Error> {
    unimplemented!()
}

/// Writes the tree at `root` as a layer in which it is called `name` (such as `workspace`), owned by
/// 0:0. Runs in the caller's own process.
pub fn write_tree(
    _root: &std::path::Path,
    _name: &str,
    _times: &Times,
    _compression: Compression,
    _store: &crate::store::Store,
) -> Result<Layer, Error> {
    let _: Option<(DiffId, Descriptor)> = None;
    unimplemented!()
}
