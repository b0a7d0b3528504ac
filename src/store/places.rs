//! Which repositories of registries have a blob, as far as this store has seen. A registry that is asked for a
//! blob of another repository of its own need not be sent it.

use fs_err as fs;

use super::{Result, Store, json};
use crate::digest::Digest;

/// The newest places of a blob; older ones are forgotten.
const MOST_PLACES: usize = 8;

impl Store {
    /// Where the blob was seen, newest first: `registry/repository`. May be out of date.
    #[must_use]
    pub fn seen(&self, digest: &Digest) -> Vec<String> {
        let bytes = fs::read(self.root.join("seen").join(digest.hex())).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Remembers that `place` (`registry/repository`) has the blob.
    pub fn saw(&self, digest: &Digest, place: &str) -> Result<()> {
        let mut places = self.seen(digest);
        if places.first().is_some_and(|first| first == place) {
            return Ok(());
        }
        places.retain(|known| known != place);
        places.insert(0, place.to_owned());
        places.truncate(MOST_PLACES);
        self.replace(&self.root.join("seen").join(digest.hex()), &json(&places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_places_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let digest = Digest::of(b"blob");
        assert_eq!(store.seen(&digest), [""; 0]);
        for number in 0..10 {
            store.saw(&digest, &format!("r/{number}")).unwrap();
        }
        store.saw(&digest, "r/8").unwrap();
        let seen = store.seen(&digest);
        assert_eq!(seen.len(), MOST_PLACES);
        assert_eq!(seen[..3], ["r/8", "r/9", "r/7"]);
        fs::write(directory.path().join("seen").join(digest.hex()), "{").unwrap();
        assert_eq!(store.seen(&digest), [""; 0]);
    }
}
