//! How often, and after which pause, something that failed is tried again.
//!
//! `Retry-After` follows RFC 9110, section 10.2.3.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::Timing;

/// Where the doubling of pauses ends.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// Counts attempts without progress.
#[derive(Debug)]
pub(crate) struct Retry {
    failures: u32,
    timing: Timing,
}

impl Retry {
    /// Nothing failed yet; each pause will be about twice as long as the one before.
    pub(crate) fn new(timing: Timing) -> Self {
        Self {
            failures: 0,
            timing,
        }
    }

    /// Something came of the last attempt, though it failed in the end.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// The pause before the next attempt, where the last one's failure is worth `attempts` all in all and
    /// the server asked for a pause itself; `None` if there should be no other.
    pub(crate) fn pause(&mut self, attempts: u32, asked: Option<Duration>) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= attempts.min(self.timing.attempts) {
            return None;
        }
        let pause = match asked {
            Some(asked) if asked > self.timing.pause => return None,
            Some(asked) => asked,
            None => self
                .timing
                .backoff
                .saturating_mul(1 << (self.failures - 1).min(16))
                .min(LONGEST_BACKOFF),
        };
        Some(pause.mul_f64(1.0 + jitter() / 2.0))
    }
}

/// From 0 to 1: clients that failed together should not come back together.
fn jitter() -> f64 {
    f64::from(u16::try_from(RandomState::new().build_hasher().finish() >> 48).unwrap_or(0))
        / 65536.0
}

/// Whether a refusal may be over soon.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    match status.as_u16() {
        408 | 425 | 429 => true,
        // What a server does not know how to do, it will not learn in a minute.
        501 | 505 => false,
        _ => status.is_server_error(),
    }
}

/// How long a server wants to be left alone: a number of seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    let date = UNIX_EPOCH + Duration::from_secs(date.timestamp().try_into().ok()?);
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_read() {
        let asked = |text: &str| {
            let value = (RETRY_AFTER, text.parse().unwrap());
            retry_after(&HeaderMap::from_iter([value]))
        };
        assert_eq!(asked(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let distant = asked("Thu, 01 Jan 2099 00:00:00 GMT").unwrap();
        assert!(distant > Duration::from_secs(30 * 365 * 86_400));
        for text in ["", "-1", "soon", "1.5"] {
            assert_eq!(asked(text), None, "{text}");
        }
    }

    #[test]
    fn pauses_grow_and_attempts_end() {
        let timing = Timing {
            backoff: Duration::from_secs(1),
            ..Timing::default()
        };
        let mut retry = Retry::new(timing);
        let seconds: Vec<_> = std::iter::from_fn(|| retry.pause(8, None))
            .map(|pause| pause.as_secs_f64())
            .collect();
        assert_eq!(seconds.len(), 7);
        for (pause, least) in seconds.iter().zip([1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]) {
            assert!((least..=least * 1.5).contains(pause), "{seconds:?}");
        }
        retry.progressed();
        assert!(retry.pause(2, Some(Duration::from_secs(120))).is_some());
        retry.progressed();
        assert!(retry.pause(2, Some(Duration::from_secs(121))).is_none());
        let attempts = 2;
        let mut hurried = Retry::new(Timing { attempts, ..timing });
        assert!(hurried.pause(8, None).is_some());
        assert!(hurried.pause(8, None).is_none());
    }
}
