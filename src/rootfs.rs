//! Unpacked images, and the calls of [`crate::layer`] that run in the rung's user namespace.
//!
//! A root file system is kept in the store, named by its chainID, for the next build. Only the helper
//! process (see [`runner::call`]) can set owners in it, read what is unreadable to the user, or remove it.

use std::path::{Path, PathBuf};
use std::thread;

use fs_err as fs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base;
use crate::digest::{ChainId, DiffId};
use crate::layer::{self, ChangesRequest, Coming, UnpackRequest, Unpacked};
use crate::manifest::Layer;
use crate::progress::{Cancelled, Progress};
use crate::registry;
use crate::runner::{self, Call, RootFs, Rung};
use crate::store::{self, Scratch, Store};

/// What can go wrong with a root file system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The helper process failed, or what it was asked to do.
    #[error("failed to {task}")]
    Call {
        /// What was asked.
        task: Task,
        /// The rung.
        rung: Rung,
        /// The runner's or the task's own words.
        source: runner::Error,
    },
    /// Blobs of the image were damaged on disk.
    #[error("{count} of the image's blobs were damaged in the store, and are removed from it now")]
    Damaged {
        /// How many.
        count: usize,
        /// How it was found.
        source: Box<Self>,
    },
    /// Layers could not be fetched.
    #[error(transparent)]
    Base(#[from] base::Error),
    /// The store's own words.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The file system's own words.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// An image without layers has no root file system.
    #[error("the image has no layers")]
    NoLayers,
    /// The user wants to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Call { source, .. } if source.to_string().contains(FULL) => Some(
                "make room, or choose another place with `--store DIR` or `--work-dir DIR`"
                    .to_owned(),
            ),
            Self::Call { source, .. } if source.to_string().contains(layer::TOO_MUCH) => {
                Some(layer::REMOVE.to_owned())
            }
            Self::Call { source, .. } => source.hint(),
            Self::Damaged { .. } => Some(
                "run it again: a base is pulled anew, another image has to be built again"
                    .to_owned(),
            ),
            Self::Base(source) => source.hint(),
            Self::Store(source) => source.hint(),
            Self::NoLayers => Some("choose a base with a Python in it".to_owned()),
            _ => None,
        }
    }
}

/// How the C library says `ENOSPC`. From the helper process only words come.
const FULL: &str = "No space left on device";

/// What a helper process can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// [`layer::unpack`]
    Unpack,
    /// [`layer::write_changes`]
    WriteChanges,
    /// [`layer::snapshot`]
    Snapshot,
    /// [`layer::copy`]
    Copy,
    /// [`layer::remove`]
    Remove,
    /// [`layer::disarm`]
    Disarm,
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unpack => "unpack layers",
            Self::WriteChanges => "write a layer",
            Self::Snapshot => "record a tree",
            Self::Copy => "copy a tree",
            Self::Remove => "remove a tree",
            Self::Disarm => "clean a cache",
        })
    }
}

/// An unpacked image.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// Its root.
    pub path: PathBuf,
    /// The owners that could not be set; see [`UnpackRequest::owners`].
    pub owners: Option<PathBuf>,
}

/// Unpacks `layers`, lowest first, or finds them unpacked already.
pub fn unpack(
    layers: &[Layer],
    rung: Rung,
    store: &Store,
    progress: &Progress,
) -> Result<Rootfs, Error> {
    unpack_from(layers, rung, store, None, progress)
}

/// The same of layers some of which may be missing. They are fetched from registries where they were seen, and unpacked
/// as they come.
pub fn pull(
    layers: &[Layer],
    rung: Rung,
    registries: &registry::Client,
    store: &Store,
    progress: &Progress,
) -> Result<Rootfs, Error> {
    let is_there = |layer: &Layer| store.has(&layer.descriptor);
    if is_unpacked(layers, rung, store) || layers.iter().all(is_there) {
        return unpack(layers, rung, store, progress);
    }
    let pending = store.pending()?;
    let coming = Coming {
        store: store.root().to_owned(),
        pending: pending.path().to_owned(),
    };
    let (pulled, unpacked) = thread::scope(|scope| {
        let pulled = scope.spawn(move || {
            let pulled = base::bring(layers, registries, store, progress);
            drop(pending);
            pulled
        });
        let unpacked = unpack_from(layers, rung, store, Some(coming), progress);
        let pulled = pulled.join();
        let pulled = pulled.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (pulled, unpacked)
    });
    progress.check()?;
    pulled?;
    match unpacked {
        // What came first may have been thrown away, and fetched again.
        Err(Error::Call { .. }) => unpack(layers, rung, store, progress),
        unpacked => unpacked,
    }
}

fn unpack_from(
    layers: &[Layer],
    rung: Rung,
    store: &Store,
    coming: Option<Coming>,
    progress: &Progress,
) -> Result<Rootfs, Error> {
    let kept = kept(layers, rung, store).ok_or(Error::NoLayers)?;
    let in_place = |directory: &Path| Rootfs {
        path: directory.join("rootfs"),
        owners: owners_are_recorded(rung).then(|| directory.join("owners")),
    };
    if store.uses(&kept) {
        return Ok(in_place(&kept));
    }
    let part = progress.start("unpack layers");
    for layer in layers {
        let _ = store.uses(&store.blob_path(&layer.descriptor.digest));
    }
    let scratch = Scratch::new_in(&store.scratch_root())?;
    let fresh = scratch.path().join("kept");
    store::make_folder(&fresh)?;
    let new = in_place(&fresh);
    make(&new.path)?;
    let request = UnpackRequest {
        layers: layers
            .iter()
            .map(|layer| (store.blob_path(&layer.descriptor.digest), layer.clone()))
            .collect(),
        rootfs: new.path,
        owners: new.owners,
        coming,
    };
    let unpacked = call_unpack(rung, &request, progress).map_err(|error| {
        if request.coming.is_some() {
            return error;
        }
        let blobs: Vec<_> = layers.iter().map(|layer| &layer.descriptor).collect();
        match store.discard_damaged(&blobs) {
            Ok(count) if count > 0 => Error::Damaged {
                count,
                source: Box::new(error),
            },
            _ => error,
        }
    });
    let renamed = unpacked.and_then(|unpacked| match fs::rename(&fresh, &kept) {
        // Another build may have been faster.
        Err(error) if !kept.exists() => Err(error.into()),
        _ => Ok(unpacked),
    });
    remove(rung, scratch.path())?;
    part.finish(format!("{} entries", renamed?.entries));
    Ok(in_place(&kept))
}

/// Whether the layers are unpacked already; then [`unpack`] does without them.
#[must_use]
pub fn is_unpacked(layers: &[Layer], rung: Rung, store: &Store) -> bool {
    kept(layers, rung, store).is_some_and(|kept| store.uses(&kept))
}

/// Where the layers are kept, or would be.
fn kept(layers: &[Layer], rung: Rung, store: &Store) -> Option<PathBuf> {
    let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
    let chain = ChainId::of(&diff_ids)?;
    Some(store.rootfs_path(&chain, &variant(rung)))
}

/// Tells trees apart that differ in how owners were set.
fn variant(rung: Rung) -> String {
    if owners_are_recorded(rung) {
        // Trees of the first version have no attributes.
        format!("{rung}-2")
    } else {
        rung.to_string()
    }
}

/// The rung of a tree that is kept, by its name in the store.
#[must_use]
pub fn rung_of(name: &str) -> Option<Rung> {
    let (_, kept) = name.split_once('.')?;
    Rung::ALL.into_iter().find(|rung| variant(*rung) == kept)
}

fn owners_are_recorded(rung: Rung) -> bool {
    rung == Rung::UsernsSingle
}

/// [`layer::unpack`] in the rung's user namespace.
pub fn call_unpack(
    rung: Rung,
    request: &UnpackRequest,
    progress: &Progress,
) -> Result<Unpacked, Error> {
    call(rung, Task::Unpack, request, progress)
}

/// [`layer::write_changes`] in the rung's user namespace.
pub fn write_changes(
    rung: Rung,
    request: &ChangesRequest,
    progress: &Progress,
) -> Result<Option<Layer>, Error> {
    call(rung, Task::WriteChanges, request, progress)
}

/// [`layer::snapshot`] in the rung's user namespace.
pub fn snapshot(rung: Rung, root: &Path, file: &Path, progress: &Progress) -> Result<(), Error> {
    call(rung, Task::Snapshot, &(root, file), progress)
}

/// [`layer::copy`] in the rung's user namespace.
pub fn copy(rung: Rung, from: &Path, to: &Path, progress: &Progress) -> Result<(), Error> {
    call(rung, Task::Copy, &(from, to), progress)
}

/// [`layer::remove`] in the rung's user namespace. Not interrupted by a wish to stop: it is what cleans
/// up after one.
pub fn remove(rung: Rung, path: &Path) -> Result<(), Error> {
    call(rung, Task::Remove, &path, &Progress::silent())
}

/// [`layer::disarm`] in the rung's user namespace, for each of `folders`. Not interrupted, as [`remove`].
pub fn disarm(rung: Rung, folders: &[PathBuf]) -> Result<(), Error> {
    call(rung, Task::Disarm, &folders, &Progress::silent())
}

/// A root file system over `lower` (topmost first) that takes writes in `directory`: an overlay, or a copy
/// of the one lower tree where no overlay can be had.
pub fn writable(
    rung: Rung,
    lower: &[PathBuf],
    directory: &Path,
    progress: &Progress,
) -> Result<RootFs, Error> {
    if let Err(refusal) = runner::probe_overlay(rung, directory) {
        progress.note(format!(
            "working on a copy, since `{}` fails here: {}",
            refusal.call, refusal.reason
        ));
        let copy = make(&directory.join("tree"))?;
        for tree in lower.iter().rev() {
            self::copy(rung, tree, &copy, progress)?;
        }
        return Ok(RootFs::Directory(copy));
    }
    overlay(lower, directory)
}

/// An overlay over `lower` (topmost first) whose own directories are made in `directory`.
pub fn overlay(lower: &[PathBuf], directory: &Path) -> Result<RootFs, Error> {
    let upper = make(&directory.join("upper"))?;
    if let Some(below) = lower.first() {
        like(below, &upper)?;
    }
    Ok(RootFs::Overlay {
        lower: lower.to_vec(),
        upper,
        work: make(&directory.join("work"))?,
    })
}

/// Gives a directory the mode and the time of another: of an overlay's directories, the topmost one's are the root's.
pub fn like(other: &Path, directory: &Path) -> Result<(), Error> {
    let metadata = fs::metadata(other)?;
    let opened = fs::File::open(directory)?;
    opened.set_permissions(metadata.permissions())?;
    Ok(opened.set_modified(metadata.modified()?)?)
}

fn make(directory: &Path) -> Result<PathBuf, Error> {
    fs::create_dir(directory)?;
    fs::set_permissions(
        directory,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    Ok(directory.to_owned())
}

/// Removes the scratch that killed builds left behind. What another rung or user made may have to stay.
pub fn sweep(rung: Rung, directory: &Path) -> Result<(), Error> {
    for path in store::abandoned(directory)? {
        // Another process may sweep at the same time.
        let _ = remove(rung, &path);
    }
    Ok(())
}

fn call<I: Serialize, O: DeserializeOwned>(
    rung: Rung,
    task: Task,
    input: &I,
    progress: &Progress,
) -> Result<O, Error> {
    let name = serde_json::to_string(&task).expect("a task is a string");
    // A path in it that is not UTF-8 is no JSON.
    let input = serde_json::to_vec(input).map_err(std::io::Error::from)?;
    let answer = runner::call(rung, &name, &input, progress.cancelled());
    progress.check()?;
    let bytes = answer.map_err(|source| Error::Call { task, rung, source })?;
    Ok(serde_json::from_slice(&bytes).expect("the helper process is the same program"))
}

/// Does what the caller in the other process asked for, answers, and ends the process.
pub fn serve(call: Call) -> ! {
    let answer = perform(&call);
    call.answer(answer)
}

fn perform(call: &Call) -> Result<Vec<u8>, String> {
    fn input<T: DeserializeOwned>(call: &Call) -> Result<T, String> {
        serde_json::from_slice(&call.input).map_err(|error| error.to_string())
    }
    fn output<T: Serialize>(result: Result<T, layer::Error>) -> Result<Vec<u8>, String> {
        result
            .map(|value| store::json(&value))
            .map_err(|error| chain(&error))
    }
    match serde_json::from_str(&call.task).map_err(|error| error.to_string())? {
        Task::Unpack => output(layer::unpack(&input(call)?)),
        Task::WriteChanges => output(layer::write_changes(&input(call)?)),
        Task::Snapshot => {
            let (root, file): (PathBuf, PathBuf) = input(call)?;
            output(layer::snapshot(&root, &file))
        }
        Task::Copy => {
            let (from, to): (PathBuf, PathBuf) = input(call)?;
            output(layer::copy(&from, &to))
        }
        Task::Remove => output(layer::remove(&input::<PathBuf>(call)?)),
        Task::Disarm => {
            let folders: Vec<PathBuf> = input(call)?;
            output(folders.iter().try_for_each(|folder| layer::disarm(folder)))
        }
    }
}

/// An error and its sources in one line, since only text goes from process to process.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
