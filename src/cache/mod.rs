//! The step cache: what a step made, under a [`Key`] of all that it can read.
//!
//! An entry is a small file of the store that names the step's layer; the layer itself is a blob like any other. What
//! is damaged, or names a layer that is not there, counts as absent: a cache can make a build slow, and never wrong.
//! An entry remembers its [`Origin`]. Where a key is given ([`Seal`]), entries that anybody could have made do not count.
//!
//! For other machines the same entries can lie in a repository of a registry (`remote.rs`), as artifacts (`artifact.rs`).

mod artifact;
mod key;
mod remote;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fs_err as fs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::artifact::{EMPTY, Seal};
pub use self::key::{Key, digest_of, digests_of};
pub use self::remote::{Mode, Remote, TIMING};
use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::Layer;
use crate::progress::Progress;
use crate::store::{self, Store, Turn};

/// The cache of one build. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache {
    store: Store,
    policy: Policy,
    remote: Option<Remote>,
    /// Says which entries count.
    seal: Seal,
    /// Tells the builds of one store apart, for [`Cache::changes`].
    build: String,
}

/// Between two looks whether another build has ended.
const PAUSE: Duration = Duration::from_millis(50);
/// How far the clock of another machine may be ahead, in seconds.
const SKEW: u64 = 300;

/// What is taken from a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether anything is.
    pub is_used: bool,
    /// Nothing that is older.
    pub ttl: Option<Duration>,
}

/// What a step made, or the answer to a question about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The step's, for people.
    pub name: String,
    /// Absent if it changed nothing.
    pub layer: Option<Layer>,
    /// Of a question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// In seconds since 1970.
    pub at: u64,
    /// Absent if anybody could have made it; earlier versions remembered none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Why an entry is to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It was made in this store.
    Made,
    /// It was signed with the key that has this id.
    Verified(String),
}

impl Entry {
    /// Made here and now.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            layer: None,
            answer: None,
            at: now(),
            origin: Some(Origin::Made),
        }
    }

    /// The same, with what the step made.
    #[must_use]
    pub fn with_layer(self, layer: Option<Layer>) -> Self {
        Self { layer, ..self }
    }

    /// The same, with an answer.
    #[must_use]
    pub fn with_answer(self, answer: &str) -> Self {
        Self {
            answer: Some(answer.to_owned()),
            ..self
        }
    }

    /// Where the entry of a key is, or would be.
    #[must_use]
    pub fn path(store: &Store, key: &Digest) -> PathBuf {
        store.steps_path().join(key.hex())
    }

    /// Reads an entry, unless the file is something else.
    #[must_use]
    pub fn open(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

impl Cache {
    /// The cache in `store`; `build` is any name that the same build has the next time.
    #[must_use]
    pub fn new(store: &Store, policy: Policy, build: &str) -> Self {
        Self {
            store: store.clone(),
            policy,
            remote: None,
            seal: Seal::default(),
            build: build.to_owned(),
        }
    }

    /// The same, with the entries of a registry as well. If those have to be signed, no others count here either.
    #[must_use]
    pub fn with(self, remote: Option<Remote>) -> Self {
        let seal = remote.as_ref().map(|remote| remote.seal().clone());
        Self {
            seal: seal.unwrap_or_default(),
            remote,
            ..self
        }
    }

    /// The same without a registry, if there is one.
    #[must_use]
    pub fn without_remote(&self) -> Option<Self> {
        self.remote.as_ref()?;
        Some(Self {
            remote: None,
            ..self.clone()
        })
    }

    /// What is known under this key, with a layer that is in the store or can be had.
    #[must_use]
    pub fn find(&self, key: &Key, progress: &Progress) -> Option<Entry> {
        if !self.policy.is_used {
            return None;
        }
        let key = key.digest();
        let path = self.path(&key);
        let is_there = |layer: &Layer| self.store.has(&layer.descriptor);
        let own: Option<Entry> = self.read(&path);
        let own = own.filter(|entry| self.seal.trusts(entry));
        let own = own.filter(|entry| entry.layer.as_ref().is_none_or(is_there));
        if let Some(entry) = own.filter(|entry| self.is_young(entry)) {
            // It may have been made before there was such a cache.
            let remote = self.remote.as_ref();
            if let Some(remote) = remote.filter(|remote| !remote.has_seen(&key, &self.store)) {
                remote.put(&key, &entry, &self.store, progress);
            }
            return Some(entry);
        }
        let found = self.remote.as_ref()?.find(&key, &self.store, progress);
        let entry = found.filter(|entry| self.is_young(entry))?;
        let _ = self.write(&path, &entry);
        Some(entry)
    }

    fn is_young(&self, entry: &Entry) -> bool {
        let now = now();
        let age = Duration::from_secs(now.saturating_sub(entry.at));
        // What claims to be of the future would stay young.
        let is_dated = entry.at <= now.saturating_add(SKEW);
        self.policy.ttl.is_none_or(|ttl| is_dated && age <= ttl)
    }

    /// Whether anything is taken from it.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.policy.is_used
    }

    /// Waits until no other build of the store runs the step with this key; gives whether one did, which may have
    /// remembered what it made.
    pub fn turn(&self, key: &Key, progress: &Progress) -> Result<(Turn, bool), Error> {
        let name = key.digest().hex();
        let mut has_waited = false;
        loop {
            if let Some(turn) = self.store.turn(&name)? {
                return Ok((turn, has_waited));
            }
            if !has_waited {
                progress.note("another build runs this step now, and is waited for");
            }
            has_waited = true;
            progress.check()?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Remembers an entry.
    pub fn remember(
        &self,
        key: &Key,
        entry: &Entry,
        progress: &Progress,
    ) -> Result<(), store::Error> {
        let key = key.digest();
        self.write(&self.path(&key), entry)?;
        if let Some(remote) = &self.remote {
            remote.put(&key, entry, &self.store, progress);
        }
        Ok(())
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
        Entry::path(&self.store, key)
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
    use super::key::tests::key;
    use super::*;

    fn silent() -> Progress {
        Progress::silent()
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
        let made = Entry::new("step").with_layer(Some(layer));
        used.remember(&one, &made, &silent()).unwrap();
        assert_eq!(used.find(&one, &silent()).as_ref(), Some(&made));
        assert_eq!(
            cache(policy(true, Some(60))).find(&one, &silent()),
            Some(made)
        );
        assert_eq!(cache(policy(false, None)).find(&one, &silent()), None);
        let entry = used.path(&one.digest());
        let text = fs::read_to_string(&entry).unwrap();
        let (head, _) = text.split_once("\"at\":").unwrap();
        fs::write(&entry, format!("{head}\"at\":1}}")).unwrap();
        assert!(used.find(&one, &silent()).is_some());
        assert_eq!(cache(policy(true, Some(60))).find(&one, &silent()), None);
        // The clock of another machine may be a little ahead, and what is of the future has no age.
        for (ahead, is_young) in [(SKEW / 2, true), (SKEW * 2, false)] {
            fs::write(&entry, format!("{head}\"at\":{}}}", now() + ahead)).unwrap();
            assert!(used.find(&one, &silent()).is_some());
            let found = cache(policy(true, Some(60))).find(&one, &silent());
            assert_eq!(found.is_some(), is_young, "{ahead}");
        }
        fs::remove_file(store.blob_path(&blob.digest)).unwrap();
        assert_eq!(used.find(&one, &silent()), None);
        fs::write(&entry, "{").unwrap();
        assert_eq!(used.find(&one, &silent()), None);
        let nothing = key(&[]);
        let made = Entry::new("step");
        used.remember(&nothing, &made, &silent()).unwrap();
        assert_eq!(used.find(&nothing, &silent()), Some(made));
    }

    #[test]
    fn what_changed_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let policy = Policy {
            is_used: false,
            ttl: None,
        };
        let cache = Cache::new(&store, policy, "build");
        assert_eq!(cache.changes(0, &key(&[("a", "1")])), None);
        cache.keep(0, &key(&[("a", "1")])).unwrap();
        assert_eq!(cache.changes(0, &key(&[("a", "1")])), Some(vec![]));
        let changes = cache.changes(0, &key(&[("a", "2")]));
        assert_eq!(changes, Some(vec!["a".to_owned()]));
        assert_eq!(cache.changes(1, &key(&[("a", "1")])), None);
    }
}
