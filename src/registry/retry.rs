//! How often, and after which pause, something that failed is tried again.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use super::Error;

/// A registry that asks for a longer pause than this is reported instead: nobody waits hours for a
/// rate limit without a word.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Where the doubling of pauses ends.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// Counts attempts without progress.
#[derive(Debug)]
pub(super) struct Retry {
    failures: u32,
    backoff: Duration,
}

impl Retry {
    /// Nothing failed yet; the first pause is about `backoff`, and each further one twice as long.
    pub(super) fn new(backoff: Duration) -> Self {
        Self {
            failures: 0,
            backoff,
        }
    }

    /// Something came of the last attempt, though it failed in the end.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt, or gives `error` back if there should be none.
    pub(super) async fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        if self.failures >= error.attempts() {
            return Err(error);
        }
        let pause = match error.retry_after() {
            Some(asked) if asked > LONGEST_PAUSE => return Err(error),
            Some(asked) => asked,
            None => self
                .backoff
                .saturating_mul(1 << (self.failures - 1).min(16))
                .min(LONGEST_BACKOFF),
        };
        tokio::time::sleep(pause.mul_f64(1.0 + jitter() / 2.0)).await;
        Ok(())
    }
}

/// From 0 to 1: clients that failed together should not come back together.
fn jitter() -> f64 {
    f64::from(u16::try_from(RandomState::new().build_hasher().finish() >> 48).unwrap_or(0))
        / 65536.0
}
