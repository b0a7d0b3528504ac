//! The step cache in a folder, for CI systems that keep nothing but files from job to job.
//!
//! The folder is an OCI image layout, whose index names an artifact for each entry under the entry's key. It holds what
//! the store held when it was written and nothing else, so it does not grow for ever: what was pruned is gone from it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_err as fs;

use crate::base::Layout;
use crate::cache::{EMPTY, Entry, Seal};
use crate::digest::Digest;
use crate::error::{self, Error};
use crate::manifest::{Descriptor, Manifest, REF_NAME, media_type};
use crate::output::{self, Kind, LayoutWriter};
use crate::progress::Progress;
use crate::store::{self, Store};

/// When an entry was last used, in seconds since 1970; on its descriptor in the index.
const USED: &str = "io.github.pyats-image-build.used";

/// What was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// What steps made, and what was found out about images.
    pub entries: usize,
    /// Of their layers, whether they had to be copied or not.
    pub bytes: u64,
}

impl Carried {
    fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        self.bytes += entry
            .layer
            .as_ref()
            .map_or(0, |layer| layer.descriptor.size);
    }
}

/// Writes what the store knows of steps, with their layers, into a folder; what else a layout there held goes.
pub fn export(
    store: &Store,
    folder: &Path,
    seal: &Seal,
    progress: &Progress,
) -> Result<Carried, Error> {
    let _session = store.session()?;
    output::check(Kind::OciDir, folder)?;
    let part = progress.start(format!("write the cache to `{}`", folder.display()));
    let mut layout = LayoutWriter::open(folder, store)?;
    let mut carried = Carried::default();
    let mut untrusted = 0;
    for file in fs::read_dir(store.steps_path())? {
        progress.check()?;
        let file = file?;
        let key = key_of(&file.file_name().to_string_lossy());
        let (Some(key), Some(entry)) = (key, Entry::open(&file.path())) else {
            continue;
        };
        if !seal.trusts(&entry) {
            untrusted += 1;
            continue;
        }
        let layer = entry.layer.as_ref();
        if !layer.is_none_or(|layer| store.has(&layer.descriptor)) {
            continue;
        }
        let manifest = seal.write(&key, &entry);
        if let Some(layer) = layer {
            layout.copy(&layer.descriptor)?;
        }
        layout.put(&manifest.config.media_type, EMPTY)?;
        let mut named = layout.put(media_type::OCI_MANIFEST, &store::json(&manifest))?;
        let used = file.metadata()?.mtime();
        named.annotations = [(REF_NAME, key.hex()), (USED, used.to_string())]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        layout.enter(named);
        carried.add(&entry);
    }
    layout.complete()?;
    part.finish("");
    if untrusted > 0 {
        progress.warn(format!(
            "{untrusted} entries of the store are left out: they were neither made here nor signed with this key"
        ));
    }
    Ok(carried)
}

/// Takes what a folder holds into the store. Nothing there is nothing to take; what is damaged, or not signed as it has
/// to be, is left out with a warning.
pub fn import(
    store: &Store,
    folder: &Path,
    seal: &Seal,
    progress: &Progress,
) -> Result<Carried, Error> {
    let _session = store.session()?;
    let name = folder.display().to_string();
    let is_empty = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(error.into()),
    };
    let mut carried = Carried::default();
    if is_empty {
        progress.note(format!("`{name}` holds no cache yet"));
        return Ok(carried);
    }
    let part = progress.start(format!("read the cache in `{name}`"));
    let layout = Layout::Dir(folder.to_owned());
    let mut untrusted = 0;
    for artifact in layout.index(&name, progress)?.manifests {
        progress.check()?;
        match take(&layout, &artifact, store, seal, progress) {
            Ok(Some(entry)) => carried.add(&entry),
            Ok(None) => untrusted += 1,
            Err(error) if error.kind() == error::Kind::Base => {
                progress.warn(format!("an entry is left out: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    if untrusted > 0 {
        progress.warn(format!(
            "{untrusted} entries of `{name}` are no entries of a cache that are to be trusted"
        ));
    }
    part.finish("");
    Ok(carried)
}

/// Takes one entry; none if it is not to be trusted.
fn take(
    layout: &Layout,
    artifact: &Descriptor,
    store: &Store,
    seal: &Seal,
    progress: &Progress,
) -> Result<Option<Entry>, Error> {
    let annotation = |name| artifact.annotations.get(name);
    let Some(key) = annotation(REF_NAME).and_then(|name| key_of(name)) else {
        return Ok(None);
    };
    let bytes = layout.blob(artifact, progress)?;
    let manifest: Option<Manifest> = serde_json::from_slice(&bytes).ok();
    let Some(entry) = manifest.and_then(|manifest| seal.read(&key, &manifest)) else {
        return Ok(None);
    };
    let path = Entry::path(store, &key);
    let known = Entry::open(&path).filter(|known| known.at >= entry.at && seal.trusts(known));
    if let Some(layer) = &entry.layer {
        layout.bring(std::slice::from_ref(&layer.descriptor), store, progress)?;
    }
    if known.is_none() {
        store.replace(&path, &store::json(&entry))?;
        // It does not become younger by being carried.
        let used = annotation(USED).and_then(|text| text.parse().ok());
        let used = used.and_then(|used| UNIX_EPOCH.checked_add(Duration::from_secs(used)));
        if let Some(used) = used {
            let file = fs::File::options().write(true).open(&path)?;
            // What claims to be of the future would never be pruned.
            file.set_modified(used.min(SystemTime::now()))?;
        }
    }
    Ok(Some(entry))
}

/// The key that a file, or an artifact, is called by.
fn key_of(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}
