//! The places that stand for the one that a reference names: each mirror in turn, and in the end the registry
//! itself, unless that is blocked. A mirror that failed once is not asked again by the same client, since its silence costs time.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::{Client, Error, Place, Reference};
use crate::progress::Progress;

/// What a client learned about places.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Hosts that the files of the container tools call insecure.
    insecure: Mutex<BTreeSet<String>>,
    /// Repositories of mirrors that failed.
    failed: Mutex<BTreeSet<String>>,
}

impl Places {
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        let insecure = self.insecure.lock().unwrap_or_else(PoisonError::into_inner);
        insecure.contains(host)
    }
}

impl Client {
    /// What `work` gives at the first place where it does not fail.
    pub(super) async fn of_any<T>(
        &self,
        reference: &Reference,
        progress: &Progress,
        work: impl AsyncFn(&Reference) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let places = self.options.registries.sources(reference)?;
        let failed = || {
            self.places
                .failed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let (last, mirrors) = places
            .split_last()
            .expect("there is a place, or there was an error");
        for mirror in mirrors {
            let place = mirror.reference.place();
            if failed().contains(&place) {
                continue;
            }
            match work(self.reach(mirror)).await {
                Err(error) if error.is_of_the_place() => {
                    progress.note(format!("the mirror `{place}` is passed over: {error}"));
                    failed().insert(place);
                }
                result => return result,
            }
        }
        work(self.reach(last)).await
    }

    /// Where to push to.
    pub(super) fn target(&self, reference: &Reference) -> Result<Reference, Error> {
        let target = self.options.registries.target(reference)?;
        Ok(self.reach(&target).clone())
    }

    /// What to ask for at a place, whose trust is known from now on.
    fn reach<'a>(&self, place: &'a Place) -> &'a Reference {
        if place.insecure {
            let insecure = &self.places.insecure;
            let mut insecure = insecure.lock().unwrap_or_else(PoisonError::into_inner);
            insecure.insert(place.reference.host().to_owned());
        }
        &place.reference
    }
}
