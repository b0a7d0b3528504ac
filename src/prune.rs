//! What a store holds, and what of it can go: mark and sweep.
//!
//! Images under their tags stay unless they are asked for. All else comes again by itself when it is needed: bases,
//! unpacked trees, what steps made, sources, caches. A blob goes when nothing that stays names it. Nothing goes that a
//! build uses which runs meanwhile, see [`Store::session`].

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_err as fs;
use serde::Serialize;

use crate::cache::Entry;
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::{Descriptor, Manifest, REF_NAME};
use crate::progress::Progress;
use crate::rootfs;
use crate::store::{Resolved, Scratch, Store};

/// What something of a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An image that was built here.
    Image,
    /// An image that was pulled to be built upon.
    Base,
    /// What a step made.
    Step,
    /// Layers, unpacked.
    Tree,
    /// A source that was fetched.
    Source,
    /// A cache that steps write to.
    Cache,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Base => "base",
            Self::Step => "step",
            Self::Tree => "tree",
            Self::Source => "source",
            Self::Cache => "cache",
        }
    }
}

/// Something that a store holds.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// For people.
    pub name: String,
    /// On the disk, in bytes. Blobs that several items name count for each.
    pub bytes: u64,
    /// When it was last used, in seconds since 1970.
    pub used: u64,
    /// What is removed with it; absent for an image, which is an entry of the index.
    #[serde(skip)]
    path: Option<PathBuf>,
    #[serde(skip)]
    blobs: Vec<Digest>,
}

/// What may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What was not used for so long.
    pub unused_for: Duration,
    /// What was not used for longest, until the store has no more bytes than that.
    pub size: Option<u64>,
    /// Images under their tags, too.
    pub images: bool,
    /// Nothing goes; it is only found out what would.
    pub dry_run: bool,
}

/// What went.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Pruned {
    /// Except for the blobs that nothing names.
    pub items: Vec<Item>,
    /// All in all.
    pub bytes: u64,
}

/// All that the store holds, by kind, what was used last first; and how many bytes all of it has.
pub fn list(store: &Store) -> Result<(Vec<Item>, u64), Error> {
    let mut items = naming(store)?;
    for (kind, folder) in [
        (Kind::Tree, store.trees_path()),
        (Kind::Source, store.root().join("sources")),
        (Kind::Cache, store.caches_path()),
    ] {
        for path in entries(&folder)? {
            let name = path.file_name().unwrap_or_default().display().to_string();
            items.push(Item::of(kind, name, &path));
        }
    }
    items.sort_by(|one, other| (one.kind, other.used).cmp(&(other.kind, one.used)));
    let others = items
        .iter()
        .filter(|item| matches!(item.kind, Kind::Tree | Kind::Source | Kind::Cache));
    let total = others.map(|item| item.bytes).sum::<u64>() + size_of(&blobs(store));
    Ok((items, total))
}

/// Removes what the limits name, and blobs that nothing names any more.
pub fn prune(store: &Store, limits: Limits, progress: &Progress) -> Result<Pruned, Error> {
    let session = store.oldest_session()?;
    let limit = SystemTime::now()
        .checked_sub(limits.unused_for)
        .unwrap_or(UNIX_EPOCH)
        .min(session);
    let (mut items, mut total) = list(store)?;
    items.retain(|item| limits.images || item.kind != Kind::Image);
    // Trees come back by themselves from what stays.
    items.sort_by_key(|item| (item.kind != Kind::Tree, item.used));
    let scratch = Scratch::new_in(&store.scratch_root())?;
    let mut pruned = Pruned::default();
    let mut trees = Vec::new();
    for item in items {
        progress.check()?;
        let is_too_much = limits.size.is_some_and(|size| total > size);
        let before = if is_too_much { session } else { limit };
        if UNIX_EPOCH + Duration::from_secs(item.used) >= before {
            continue;
        }
        let place = scratch.path().join(pruned.items.len().to_string());
        let is_taken = limits.dry_run
            || match &item.path {
                Some(path) => store.take_away(path, before, &place)?,
                None => store.untag(&item.name)?,
            };
        if !is_taken {
            continue;
        }
        if item.kind == Kind::Tree {
            trees.extend(
                item.path
                    .as_deref()
                    .and_then(runner)
                    .map(|runner| (runner, place)),
            );
        }
        // Blobs may be named by others; that is counted when they go.
        if item.blobs.is_empty() {
            pruned.bytes += item.bytes;
        }
        total = total.saturating_sub(item.bytes);
        pruned.items.push(item);
    }
    // Only in its user namespace can a tree be removed by who is not root.
    for (runner, tree) in trees {
        if tree.exists() && rootfs::remove(runner, &tree).is_err() {
            progress.warn(format!(
                "a tree of the runner `{runner}` cannot be removed here; a build on that runner does it"
            ));
        }
    }
    pruned.bytes += sweep(store, &pruned.items, session, limits, &scratch)?;
    // What could not be removed is left to the next build.
    let _ = fs::remove_dir_all(scratch.path());
    Ok(pruned)
}

/// Removes the blobs that nothing names; gives their bytes.
fn sweep(
    store: &Store,
    gone: &[Item],
    before: SystemTime,
    limits: Limits,
    scratch: &Scratch,
) -> Result<u64, Error> {
    let items = naming(store)?;
    // In a dry run they are still there.
    let is_gone = |item: &Item| {
        gone.iter()
            .any(|gone| (gone.kind, &gone.name, &gone.path) == (item.kind, &item.name, &item.path))
    };
    let stays = items
        .iter()
        .filter(|item| !limits.dry_run || !is_gone(item));
    let named: BTreeSet<String> = stays
        .flat_map(|item| item.blobs.iter().map(Digest::hex))
        .collect();
    let mut bytes = 0;
    for blob in blobs(store) {
        let name = blob.file_name().unwrap_or_default().to_string_lossy();
        if named.contains(&*name) {
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(&blob) else {
            continue;
        };
        let place = scratch.path().join("blob");
        let is_old = metadata.modified().is_ok_and(|used| used < before);
        if is_old && (limits.dry_run || store.take_away(&blob, before, &place)?) {
            bytes += size(&metadata);
            if !limits.dry_run {
                fs::remove_file(&place)?;
            }
        }
    }
    Ok(bytes)
}

/// What names blobs.
fn naming(store: &Store) -> Result<Vec<Item>, Error> {
    let mut items = images(store)?;
    items.extend(bases(store)?);
    items.extend(steps(store)?);
    Ok(items)
}

fn images(store: &Store) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    for entry in store.index()?.manifests {
        let tag = entry.annotations.get(REF_NAME);
        let name = tag.cloned().unwrap_or_else(|| entry.digest.to_string());
        let mut item = Item::of(Kind::Image, name, &store.blob_path(&entry.digest));
        item.path = None;
        item.bytes = 0;
        item.add(&entry, store);
        items.push(item);
    }
    Ok(items)
}

fn bases(store: &Store) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    for path in entries(&store.root().join("resolved"))? {
        let text = fs::read(&path).unwrap_or_default();
        let resolved: Option<Resolved> = serde_json::from_slice(&text).ok();
        let name = resolved.as_ref().map_or_else(String::new, |resolved| {
            format!("{} ({})", resolved.reference, resolved.platform)
        });
        let mut item = Item::of(Kind::Base, name, &path);
        if let Some(resolved) = resolved {
            item.add(&resolved.manifest, store);
        }
        items.push(item);
    }
    Ok(items)
}

fn steps(store: &Store) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    for path in entries(&store.steps_path())? {
        let entry = Entry::open(&path);
        let layer = entry.as_ref().and_then(|entry| entry.layer.as_ref());
        let name = entry.as_ref().map_or("", |entry| &entry.name).to_owned();
        let mut item = Item::of(Kind::Step, name, &path);
        if let Some(layer) = layer {
            item.bytes += layer.descriptor.size;
            item.blobs.push(layer.descriptor.digest);
        }
        items.push(item);
    }
    Ok(items)
}

impl Item {
    fn of(kind: Kind, name: String, path: &Path) -> Self {
        let used = fs::symlink_metadata(path)
            .and_then(|metadata| metadata.modified())
            .unwrap_or(UNIX_EPOCH)
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            kind,
            name,
            bytes: disk_usage(path),
            used: used.as_secs(),
            path: Some(path.to_owned()),
            blobs: Vec::new(),
        }
    }

    /// Adds the blobs of an image.
    fn add(&mut self, manifest: &Descriptor, store: &Store) {
        let mut add = |blob: &Descriptor| {
            self.bytes += blob.size;
            self.blobs.push(blob.digest);
        };
        add(manifest);
        let document: Option<Manifest> = store.read_json(manifest).ok();
        if let Some(document) = document {
            add(&document.config);
            document.layers.iter().for_each(add);
        }
    }
}

fn runner(tree: &Path) -> Option<crate::runner::Runner> {
    rootfs::runner_of(tree.file_name()?.to_str()?)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn blobs(store: &Store) -> Vec<PathBuf> {
    entries(&store.blobs_path()).unwrap_or_default()
}

fn size_of(files: &[PathBuf]) -> u64 {
    let metadata = files.iter().flat_map(fs::symlink_metadata);
    metadata.map(|metadata| size(&metadata)).sum()
}

fn size(metadata: &std::fs::Metadata) -> u64 {
    metadata.blocks() * 512
}

/// What a tree takes; folders of other ids, which cannot be looked into, are left out.
fn disk_usage(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let below = if metadata.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| disk_usage(&entry.path())).sum()
    } else {
        0
    };
    below + size(&metadata)
}
