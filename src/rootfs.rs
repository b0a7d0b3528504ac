//! Unpacked images, and the calls of [`crate::layer`] that run in the runner's user namespace.
//!
//! A root file system is kept in the store, named by its chainID, for the next build. Only the helper
//! process (see [`runner::call`]) can set owners in it, read what is unreadable to the user, or remove it.
//!
//! # What is kept
//!
//! Where overlays work the base is one tree, and each layer above it another, by itself, named by its diffID
//! ([`stack`]): a layer lies on the disk once, however many images have it, and whatever lies below it. A layer that
//! cannot be unpacked by itself (only other tools make such) is unpacked with all below it. Elsewhere only whole trees
//! can be used, and steps work on copies of them: there a build keeps its base alone, and unpacks what lies above it
//! into its own copy ([`copy_of`]).
//!
//! Of both kinds only those that were used last are kept (`MOST_BASES`, `MOST_LAYERS`), and those that running
//! builds use. They come back by themselves, so `cache prune` begins with them.

use std::path::{Path, PathBuf};
use std::thread;

use fs_err as fs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base;
use crate::digest::{ChainId, DiffId};
use crate::error::{Error, Kind};
use crate::layer::{self, ChangesRequest, Coming, UnpackRequest, Unpacked};
use crate::manifest::Layer;
use crate::progress::Progress;
use crate::registry;
use crate::runner::{self, Call, RootFs, Runner};
use crate::store::{self, Scratch, Store};

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

/// Trees of whole stacks of layers that are kept, by variant: those of bases, and where overlays do not work of images
/// that were run.
const MOST_BASES: usize = 4;
/// Trees of single layers that are kept, by variant.
const MOST_LAYERS: usize = 32;
/// Layers that an overlay gets by themselves.
const TALLEST: usize = 100;

/// Unpacks `layers`, lowest first, for an overlay. Returns the tree of the lowest `base` layers, and those of the single
/// layers above it, topmost first, for [`put_on`]. `passing` is a layer that no other build has, with the place for its
/// tree.
pub fn stack(
    layers: &[Layer],
    base: usize,
    passing: Option<(DiffId, &Path)>,
    runner: Runner,
    registries: &registry::Client,
    store: &Store,
    progress: &Progress,
) -> Result<(Rootfs, Vec<PathBuf>), Error> {
    let is_passing = |layer: &Layer| passing.is_some_and(|(known, _)| known == layer.diff_id);
    // Of a stack of other layers the owners would have to be put together; and the options of a mount have to fit on a page.
    let is_tall = layers.len().saturating_sub(base) > TALLEST;
    let base = if owners_are_recorded(runner) || is_tall {
        layers.len() - usize::from(layers.last().is_some_and(is_passing))
    } else {
        base
    };
    let (below, above) = layers.split_at(base.max(1).min(layers.len()));
    let below = pull(below, runner, registries, store, progress)?;
    let mut trees = Vec::new();
    for (number, layer) in above.iter().enumerate() {
        // An overlay takes no directory twice. What a layer says holds where it comes last, and nothing of it is seen before.
        if above[number + 1..]
            .iter()
            .any(|later| later.diff_id == layer.diff_id)
        {
            continue;
        }
        let tree = match passing.filter(|_| is_passing(layer)) {
            Some((_, directory)) => unpack_into(directory, layer, runner, store, progress),
            None => unpack_alone(layer, runner, registries, store, progress),
        };
        let tree = match tree {
            Err(error) if error.find::<runner::Error>().is_some() => {
                progress.check()?;
                let whole = pull(layers, runner, registries, store, progress)?;
                return Ok((whole, Vec::new()));
            }
            tree => tree?,
        };
        trees.insert(0, tree);
    }
    Ok((below, trees))
}

/// Puts trees of single layers (topmost first) upon those of an overlay, whose root stays as it is: such trees say nothing
/// of it, and the topmost directory decides. `directory` takes one for that.
pub fn put_on(
    lower: &mut Vec<PathBuf>,
    trees: Vec<PathBuf>,
    directory: &Path,
) -> Result<(), Error> {
    if let Some(topmost) = lower.first().filter(|_| !trees.is_empty()) {
        let root = like(topmost, &directory.join("root"))?;
        lower.splice(0..0, std::iter::once(root).chain(trees));
    }
    Ok(())
}

/// How many of `layers`, from the lowest on, are unpacked already as one tree.
#[must_use]
pub fn kept_below(layers: &[Layer], runner: Runner, store: &Store) -> usize {
    let counts = (1..=layers.len()).rev();
    let is_kept = |count: &usize| is_unpacked(&layers[..*count], runner, store);
    counts.into_iter().find(is_kept).unwrap_or(0)
}

/// A tree of `layers` in `directory`, to be written in place; `base` of them are kept in the store.
pub fn copy_of(
    layers: &[Layer],
    base: usize,
    directory: &Path,
    runner: Runner,
    registries: &registry::Client,
    store: &Store,
    progress: &Progress,
) -> Result<Rootfs, Error> {
    // The owners of what lies above would be taken down apart from the others.
    let base = if owners_are_recorded(runner) {
        layers.len()
    } else {
        base
    };
    let (below, above) = layers.split_at(base.max(1).min(layers.len()));
    let below = pull(below, runner, registries, store, progress)?;
    let path = make(&directory.join("tree"))?;
    copy(runner, &below.path, &path, progress)?;
    if !above.is_empty() {
        base::bring(above, registries, store, progress)?;
        call_unpack(runner, &request(above, &path, None, store), progress)?;
    }
    Ok(Rootfs { path, ..below })
}

/// Unpacks one layer by itself into a new directory.
pub fn unpack_into(
    directory: &Path,
    layer: &Layer,
    runner: Runner,
    store: &Store,
    progress: &Progress,
) -> Result<PathBuf, Error> {
    fs::create_dir(directory)?;
    let tree = unpacked_in(directory, runner);
    make(&tree.path)?;
    let request = UnpackRequest {
        is_alone: true,
        ..request(std::slice::from_ref(layer), &tree.path, tree.owners, store)
    };
    call_unpack(runner, &request, progress)?;
    Ok(tree.path)
}

/// Unpacks one layer by itself, or finds it unpacked.
fn unpack_alone(
    layer: &Layer,
    runner: Runner,
    registries: &registry::Client,
    store: &Store,
    progress: &Progress,
) -> Result<PathBuf, Error> {
    let kept = store.upper_path(&layer.diff_id, &variant(runner));
    if !store.uses(&kept) {
        let layers = std::slice::from_ref(layer);
        base::bring(layers, registries, store, progress)?;
        keep(&kept, layers, runner, store, progress, |request| {
            UnpackRequest {
                is_alone: true,
                ..request
            }
        })?;
    }
    Ok(unpacked_in(&kept, runner).path)
}

/// Unpacks `layers`, lowest first, or finds them unpacked already.
pub fn unpack(
    layers: &[Layer],
    runner: Runner,
    store: &Store,
    progress: &Progress,
) -> Result<Rootfs, Error> {
    unpack_from(layers, runner, store, None, progress)
}

/// The same of layers some of which may be missing. They are fetched from registries where they were seen, and unpacked
/// as they come.
pub fn pull(
    layers: &[Layer],
    runner: Runner,
    registries: &registry::Client,
    store: &Store,
    progress: &Progress,
) -> Result<Rootfs, Error> {
    let is_there = |layer: &Layer| store.has(&layer.descriptor);
    if is_unpacked(layers, runner, store) || layers.iter().all(is_there) {
        return unpack(layers, runner, store, progress);
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
        let unpacked = unpack_from(layers, runner, store, Some(coming), progress);
        let pulled = pulled.join();
        let pulled = pulled.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (pulled, unpacked)
    });
    progress.check()?;
    pulled?;
    match unpacked {
        // What came first may have been thrown away, and fetched again.
        Err(error) if error.find::<runner::Error>().is_some() => {
            unpack(layers, runner, store, progress)
        }
        unpacked => unpacked,
    }
}

fn unpack_from(
    layers: &[Layer],
    runner: Runner,
    store: &Store,
    coming: Option<Coming>,
    progress: &Progress,
) -> Result<Rootfs, Error> {
    let kept = kept(layers, runner, store).ok_or_else(|| {
        Error::new(Kind::Base, "the image has no layers")
            .with_hint("choose a base with a Python in it")
    })?;
    if !store.uses(&kept) {
        keep(&kept, layers, runner, store, progress, |request| {
            UnpackRequest { coming, ..request }
        })?;
    }
    Ok(unpacked_in(&kept, runner))
}

/// The tree in a directory in which layers are unpacked.
fn unpacked_in(directory: &Path, runner: Runner) -> Rootfs {
    Rootfs {
        path: directory.join("rootfs"),
        owners: owners_are_recorded(runner).then(|| directory.join("owners")),
    }
}

fn request(
    layers: &[Layer],
    rootfs: &Path,
    owners: Option<PathBuf>,
    store: &Store,
) -> UnpackRequest {
    let layers = layers.iter();
    UnpackRequest {
        layers: layers
            .map(|layer| (store.blob_path(&layer.descriptor.digest), layer.clone()))
            .collect(),
        rootfs: rootfs.to_owned(),
        owners,
        coming: None,
        is_alone: false,
    }
}

/// Unpacks layers to the place where they are kept, and removes others that were not used for long.
fn keep(
    kept: &Path,
    layers: &[Layer],
    runner: Runner,
    store: &Store,
    progress: &Progress,
    with: impl FnOnce(UnpackRequest) -> UnpackRequest,
) -> Result<(), Error> {
    let part = progress.start("unpack layers");
    for layer in layers {
        let _ = store.uses(&store.blob_path(&layer.descriptor.digest));
    }
    let scratch = Scratch::new_in(&store.scratch_root())?;
    let fresh = scratch.path().join("kept");
    store::make_folder(&fresh)?;
    let new = unpacked_in(&fresh, runner);
    make(&new.path)?;
    let request = with(request(layers, &new.path, new.owners, store));
    let unpacked = call_unpack(runner, &request, progress).map_err(|error| {
        if request.coming.is_some() {
            return error;
        }
        let blobs: Vec<_> = layers.iter().map(|layer| &layer.descriptor).collect();
        match store.discard_damaged(&blobs) {
            Ok(count) if count > 0 => {
                let message = format!(
                    "{count} of the image's blobs were damaged in the store, and are removed from it now"
                );
                error.wrap(message).with_hint(
                    "run it again: a base is pulled anew, another image has to be built again",
                )
            }
            _ => error,
        }
    });
    let renamed = unpacked.and_then(|unpacked| match fs::rename(&fresh, kept) {
        // Another build may have been faster.
        Err(error) if !kept.exists() => Err(error.into()),
        _ => Ok(unpacked),
    });
    let evicted = evict(runner, store, scratch.path());
    remove(runner, scratch.path())?;
    part.finish(format!("{} entries", renamed?.entries));
    evicted
}

/// Moves to `scratch` what is kept of trees beyond the limits, but for what a running build uses.
fn evict(runner: Runner, store: &Store, scratch: &Path) -> Result<(), Error> {
    let before = store.oldest_session()?;
    let mut bases = Vec::new();
    let mut alone = Vec::new();
    for entry in fs::read_dir(store.trees_path())?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| runner_of(name) == Some(runner)) else {
            continue;
        };
        let Ok(used) = entry.metadata().and_then(|metadata| metadata.modified()) else {
            continue;
        };
        let list = if store::is_upper(name) {
            &mut alone
        } else {
            &mut bases
        };
        list.push((used, entry.path()));
    }
    for (list, most) in [(&mut bases, MOST_BASES), (&mut alone, MOST_LAYERS)] {
        list.sort_unstable();
        let excess = list.len().saturating_sub(most);
        for (number, (_, path)) in list.iter().take(excess).enumerate() {
            store.take_away(
                path,
                before,
                &scratch.join(format!("evicted-{most}-{number}")),
            )?;
        }
    }
    Ok(())
}

/// Whether the layers are unpacked already; then [`unpack`] does without them.
#[must_use]
pub fn is_unpacked(layers: &[Layer], runner: Runner, store: &Store) -> bool {
    kept(layers, runner, store).is_some_and(|kept| store.uses(&kept))
}

/// Where the layers are kept, or would be.
fn kept(layers: &[Layer], runner: Runner, store: &Store) -> Option<PathBuf> {
    let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
    let chain = ChainId::of(&diff_ids)?;
    Some(store.rootfs_path(&chain, &variant(runner)))
}

/// Tells trees apart that differ in how owners were set.
fn variant(runner: Runner) -> String {
    if owners_are_recorded(runner) {
        // Trees of the first version have no attributes.
        format!("{runner}-2")
    } else {
        runner.to_string()
    }
}

/// The runner of a tree that is kept, by its name in the store.
#[must_use]
pub fn runner_of(name: &str) -> Option<Runner> {
    let (_, kept) = name.split_once('.')?;
    Runner::ALL
        .into_iter()
        .find(|runner| variant(*runner) == kept)
}

fn owners_are_recorded(runner: Runner) -> bool {
    runner == Runner::UsernsSingle
}

/// [`layer::unpack`] in the runner's user namespace.
pub fn call_unpack(
    runner: Runner,
    request: &UnpackRequest,
    progress: &Progress,
) -> Result<Unpacked, Error> {
    call(runner, Task::Unpack, request, progress)
}

/// [`layer::write_changes`] in the runner's user namespace.
pub fn write_changes(
    runner: Runner,
    request: &ChangesRequest,
    progress: &Progress,
) -> Result<Option<Layer>, Error> {
    call(runner, Task::WriteChanges, request, progress)
}

/// [`layer::snapshot`] in the runner's user namespace.
pub fn snapshot(
    runner: Runner,
    root: &Path,
    file: &Path,
    progress: &Progress,
) -> Result<(), Error> {
    call(runner, Task::Snapshot, &(root, file), progress)
}

/// [`layer::copy`] in the runner's user namespace.
pub fn copy(runner: Runner, from: &Path, to: &Path, progress: &Progress) -> Result<(), Error> {
    call(runner, Task::Copy, &(from, to), progress)
}

/// [`layer::remove`] in the runner's user namespace. Not interrupted by a wish to stop: it is what cleans
/// up after one.
pub fn remove(runner: Runner, path: &Path) -> Result<(), Error> {
    call(runner, Task::Remove, &path, &Progress::silent())
}

/// [`layer::disarm`] in the runner's user namespace, for each of `folders`. Not interrupted, as [`remove`].
pub fn disarm(runner: Runner, folders: &[PathBuf]) -> Result<(), Error> {
    call(runner, Task::Disarm, &folders, &Progress::silent())
}

/// Whether an overlay can take writes in `directory`; says it if not.
#[must_use]
pub fn can_overlay(runner: Runner, directory: &Path, progress: &Progress) -> bool {
    let Err(refusal) = runner::probe_overlay(runner, directory) else {
        return true;
    };
    progress.note(format!(
        "working on a copy, since `{}` fails here: {}",
        refusal.call, refusal.reason
    ));
    false
}

/// An overlay over `lower` (topmost first, and as the root is) whose own directories are made in `directory`.
pub fn overlay(lower: &[PathBuf], directory: &Path) -> Result<RootFs, Error> {
    let upper = directory.join("upper");
    let upper = match lower.first() {
        Some(root) => like(root, &upper)?,
        None => make(&upper)?,
    };
    Ok(RootFs::Overlay {
        lower: lower.to_vec(),
        upper,
        work: make(&directory.join("work"))?,
    })
}

/// Makes a directory with the mode and the time of another: of an overlay's directories, the topmost one's are the root's.
fn like(other: &Path, directory: &Path) -> Result<PathBuf, Error> {
    let metadata = fs::metadata(other)?;
    let directory = make(directory)?;
    let opened = fs::File::open(&directory)?;
    opened.set_permissions(metadata.permissions())?;
    opened.set_modified(metadata.modified()?)?;
    Ok(directory)
}

fn make(directory: &Path) -> Result<PathBuf, Error> {
    fs::create_dir(directory)?;
    fs::set_permissions(
        directory,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    Ok(directory.to_owned())
}

/// Removes the scratch that killed builds left behind. What another runner or user made may have to stay.
pub fn sweep(runner: Runner, directory: &Path) -> Result<(), Error> {
    for path in store::abandoned(directory)? {
        // Another process may sweep at the same time.
        let _ = remove(runner, &path);
    }
    Ok(())
}

fn call<I: Serialize, O: DeserializeOwned>(
    runner: Runner,
    task: Task,
    input: &I,
    progress: &Progress,
) -> Result<O, Error> {
    let name = serde_json::to_string(&task).expect("a task is a string");
    // A path in it that is not UTF-8 is no JSON.
    let input = serde_json::to_vec(input).map_err(std::io::Error::from)?;
    let answer = runner::call(runner, &name, &input, progress.cancelled());
    progress.check()?;
    let bytes = answer.map_err(|source| {
        let text = source.to_string();
        let error = Error::from(source).wrap(format!("failed to {task}"));
        if text.contains(FULL) {
            error.with_hint(
                "make room, or choose another place with `--store DIR` or `--work-dir DIR`",
            )
        } else if text.contains(layer::TOO_MUCH) {
            error.with_hint(layer::REMOVE)
        } else {
            error
        }
    })?;
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

impl From<runner::Error> for Error {
    fn from(error: runner::Error) -> Self {
        let kind = match error {
            // It is about trees and layers.
            runner::Error::Task { .. } => Kind::Storage,
            runner::Error::UnknownRunner { .. } | runner::Error::UnsupportedRunner { .. } => {
                Kind::Options
            }
            runner::Error::Cancelled => Kind::Interrupted,
            _ => Kind::Sandbox,
        };
        Self::from_enum(kind, error.hint(), error)
    }
}

/// Whether an owner cannot be set in the runner's user namespace. Another runner may keep owners beside the files.
pub(crate) fn is_of_owner(error: &Error) -> bool {
    let no_id =
        |line: &String| line.starts_with(runner::NO_OWNER) && line.contains("Invalid argument");
    let messages = error.messages();
    let mut messages = messages.iter();
    messages.any(|message| message.contains(layer::UNMAPPED)) || error.tail().iter().any(no_id)
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
