//! The step cache: what a step made, under a [`Key`] of all that it can read.
//!
//! An entry is a small file of the store that names the step's layer; the layer itself is a blob like any other. What
//! is damaged, or names a layer that is not there, counts as absent: a cache can make a build slow, and never wrong.
//!
//! The same entries can lie in a repository of a registry (`remote.rs`), for other machines.

mod key;
mod remote;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_err as fs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::key::{Error, Key, digest_of, digests_of};
pub use self::remote::{Mode, Remote};
use crate::digest::Digest;
use crate::manifest::Layer;
use crate::progress::Progress;
use crate::store::{self, Store};

/// The cache of one build. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache<'a> {
    store: Store,
    policy: Policy,
    remote: Option<Remote<'a>>,
    /// Tells the builds of one store apart, for [`Cache::changes`].
    build: String,
}

/// What is taken from a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Whether anything is.
    pub is_used: bool,
    /// Nothing that is older.
    pub ttl: Option<Duration>,
}

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The step's, for people.
    pub name: String,
    /// `None` if it changed nothing.
    pub layer: Option<Layer>,
    /// In seconds since 1970.
    pub at: u64,
}

impl Entry {
    /// Reads an entry, unless the file is something else.
    #[must_use]
    pub fn open(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

impl<'a> Cache<'a> {
    /// The cache in `store`; `build` is any name that the same build has the next time.
    #[must_use]
    pub fn new(store: &Store, policy: Policy, build: &str) -> Self {
        Self {
            store: store.clone(),
            policy,
            remote: None,
            build: build.to_owned(),
        }
    }

    /// The same, with the entries of a registry as well.
    #[must_use]
    pub fn with(self, remote: Option<Remote<'a>>) -> Self {
        Self { remote, ..self }
    }

    /// What a step with this key made, if that is known, and its layer is in the store or can be had.
    #[must_use]
    pub fn find(&self, key: &Key, progress: &Progress) -> Option<Option<Layer>> {
        if !self.policy.is_used {
            return None;
        }
        let key = key.digest();
        let path = self.path(&key);
        let is_there = |layer: &Layer| self.store.has(&layer.descriptor);
        let own: Option<Entry> = self.read(&path);
        let own = own.filter(|entry| entry.layer.as_ref().is_none_or(is_there));
        if let Some(entry) = own.filter(|entry| self.is_young(entry)) {
            return Some(entry.layer);
        }
        let found = self.remote.as_ref()?.find(&key, &self.store, progress);
        let entry = found.filter(|entry| self.is_young(entry))?;
        // It is as good as one that was made here, once its layer is here.
        let _ = self.write(&path, &entry);
        Some(entry.layer)
    }

    fn is_young(&self, entry: &Entry) -> bool {
        // Zero, if the clock was set back.
        let age = Duration::from_secs(now().saturating_sub(entry.at));
        self.policy.ttl.is_none_or(|ttl| age <= ttl)
    }

    /// Remembers what a step made.
    pub fn remember(
        &self,
        key: &Key,
        name: &str,
        layer: Option<&Layer>,
        progress: &Progress,
    ) -> Result<(), store::Error> {
        let entry = Entry {
            name: name.to_owned(),
            layer: layer.cloned(),
            at: now(),
        };
        let key = key.digest();
        self.write(&self.path(&key), &entry)?;
        if let Some(remote) = &self.remote {
            remote.put(&key, &entry, &self.store, progress);
        }
        Ok(())
    }

    /// Something that was found out once and holds forever, such as whether an image has a program.
    #[must_use]
    pub fn fact<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        self.read(&self.path(&key.digest()))
    }

    /// Remembers it.
    pub fn remember_fact(&self, key: &Key, fact: &impl Serialize) -> Result<(), store::Error> {
        self.write(&self.path(&key.digest()), fact)
    }

    /// What has changed since this build's step `number` was last run or found; `None` if it never was.
    #[must_use]
    pub fn changes(&self, number: usize, key: &Key) -> Option<Vec<String>> {
        let before: Key = self.read(&self.last(number))?;
        let changes = key.changes_since(&before).into_iter();
        Some(changes.map(str::to_owned).collect())
    }

    /// Keeps a key for [`changes`](Self::changes).
    pub fn keep(&self, number: usize, key: &Key) -> Result<(), store::Error> {
        self.write(&self.last(number), key)
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.store.steps_path().join(key.hex())
    }

    fn last(&self, number: usize) -> PathBuf {
        let mut key = Key::default();
        key.add("last", format!("{number} {}", self.build));
        self.path(&key.digest())
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        if !self.store.uses(path) {
            return None;
        }
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn write(&self, path: &Path, value: &impl Serialize) -> Result<(), store::Error> {
        self.store.replace(path, &store::json(value))
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> Progress {
        Progress::silent()
    }

    fn key(inputs: &[(&str, &str)]) -> Key {
        let mut key = Key::default();
        for (name, text) in inputs {
            key.add(*name, text);
        }
        key
    }

    #[test]
    fn entries_count_while_they_are_young_and_their_layer_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let policy = |is_used, seconds: Option<u64>| Policy {
            is_used,
            ttl: seconds.map(Duration::from_secs),
        };
        let cache = |policy| Cache::new(&store, policy, "build");
        let used = cache(policy(true, None));
        let one = key(&[("a", "b")]);
        assert_eq!(used.find(&one, &silent()), None);
        let blob = store.put("application/octet-stream", b"layer").unwrap();
        let layer = Layer {
            diff_id: crate::digest::DiffId(blob.digest),
            descriptor: blob.clone(),
        };
        used.remember(&one, "step", Some(&layer), &silent())
            .unwrap();
        assert_eq!(used.find(&one, &silent()), Some(Some(layer.clone())));
        assert_eq!(
            cache(policy(true, Some(60))).find(&one, &silent()),
            Some(Some(layer))
        );
        assert_eq!(cache(policy(false, None)).find(&one, &silent()), None);
        let entry = used.path(&one.digest());
        let text = fs::read_to_string(&entry).unwrap();
        let (head, _) = text.split_once("\"at\":").unwrap();
        fs::write(&entry, format!("{head}\"at\":1}}")).unwrap();
        assert!(used.find(&one, &silent()).is_some());
        assert_eq!(cache(policy(true, Some(60))).find(&one, &silent()), None);
        // A clock that was set back makes nothing old.
        fs::write(&entry, format!("{head}\"at\":99999999999}}")).unwrap();
        assert!(
            cache(policy(true, Some(60)))
                .find(&one, &silent())
                .is_some()
        );
        fs::remove_file(store.blob_path(&blob.digest)).unwrap();
        assert_eq!(used.find(&one, &silent()), None);
        fs::write(&entry, "{").unwrap();
        assert_eq!(used.find(&one, &silent()), None);
        let nothing = key(&[]);
        used.remember(&nothing, "step", None, &silent()).unwrap();
        assert_eq!(used.find(&nothing, &silent()), Some(None));
    }

    #[test]
    fn what_changed_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let cache = Cache::new(&store, Policy::default(), "build");
        assert_eq!(cache.changes(0, &key(&[("a", "1")])), None);
        cache.keep(0, &key(&[("a", "1")])).unwrap();
        assert_eq!(cache.changes(0, &key(&[("a", "1")])), Some(vec![]));
        let changes = cache.changes(0, &key(&[("a", "2")]));
        assert_eq!(changes, Some(vec!["a".to_owned()]));
        assert_eq!(cache.changes(1, &key(&[("a", "1")])), None);
    }
}
