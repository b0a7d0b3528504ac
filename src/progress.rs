//! What a build tells while it runs, as events, and how it is told to stop.
//!
//! The library prints nothing. Whoever calls it passes a [`Progress`] down; the binary draws bars,
//! lines or JSON from the events.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One thing that happened. Its texts may hold what others wrote: see [`printable`](crate::printable).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A part of the build began; `label` is for people, such as ``pull `python:3.11-slim` ``.
    Started {
        /// Tells the parts apart that run side by side.
        id: u64,
        /// What it does.
        label: String,
        /// Bytes to come, where that is known.
        total: Option<u64>,
        /// Whether it is a part of another one, such as one layer of a pull.
        nested: bool,
    },
    /// Bytes done so far, all in all.
    Advanced {
        /// Of the part.
        id: u64,
        /// Bytes.
        done: u64,
    },
    /// How many bytes there are to come became known after the part began.
    Sized {
        /// Of the part.
        id: u64,
        /// Bytes, all in all.
        total: u64,
    },
    /// A part of the build ended well.
    Finished {
        /// Of the part.
        id: u64,
        /// How long it took.
        elapsed: Duration,
        /// What came of it, in a few words; may be empty.
        outcome: String,
    },
    /// A line that a step printed.
    Output {
        /// Without its line break.
        line: String,
    },
    /// Something that the user may want to change.
    Warning(String),
    /// Something that the user may want to know.
    Note(String),
}

/// The build was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Cancelled;

/// Where the events of a build go, and whether it should stop. Cheap to clone; what one clone is told they all know, so
/// that a build can be stopped from another thread.
///
/// ```
/// use pyats_image_builder::{Event, Progress, printable};
///
/// let progress = Progress::new(|event| match event {
///     Event::Started { label, nested: false, .. } => eprintln!("{}", printable(&label)),
///     Event::Output { line } => eprintln!("  | {}", printable(&line)),
///     Event::Warning(text) => eprintln!("warning: {}", printable(&text)),
///     _ => {}
/// });
/// let handle = progress.clone();
/// std::thread::spawn(move || handle.stop()).join().unwrap();
/// assert!(progress.signal().is_some());
/// ```
#[derive(Clone)]
pub struct Progress {
    sink: Arc<dyn Fn(Event) + Send + Sync>,
    cancelled: Arc<AtomicI32>,
    /// Set when one branch of the build is not needed any more.
    stopped: Option<Arc<AtomicBool>>,
    next: Arc<AtomicU64>,
}

impl Progress {
    /// Sends events to `sink`, from several threads, and waits until it returns.
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self {
            sink: Arc::new(sink),
            cancelled: Arc::default(),
            stopped: None,
            next: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Tells nobody.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Tells whatever was given this, or a clone, to stop, as by SIGTERM: it ends soon, leaves nothing behind and gives an
    /// error of the kind [`Interrupted`](crate::Kind::Interrupted). For good: what is begun with it later stops too.
    pub fn stop(&self) {
        self.stop_by(libc::SIGTERM);
    }

    /// The same as by this signal, which a running command gets; 0 is none. The first wish counts.
    pub fn stop_by(&self, signal: i32) {
        let order = Ordering::Relaxed;
        let _ = self.cancelled.compare_exchange(0, signal, order, order);
    }

    /// The signal by which it was told to stop, if it was.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        Some(self.cancelled.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }

    /// The same for one of several things that are done side by side: it stops when `stopped` is set, too.
    #[must_use]
    pub(crate) fn branch(&self, stopped: Arc<AtomicBool>) -> Self {
        Self {
            stopped: Some(stopped),
            ..self.clone()
        }
    }

    /// An error if the build was told to stop.
    pub(crate) fn check(&self) -> Result<(), Cancelled> {
        let stopped = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        if self.signal().is_some() || self.stopped.as_ref().is_some_and(stopped) {
            Err(Cancelled)
        } else {
            Ok(())
        }
    }

    /// The number of that signal, or 0, as it is and as it will be.
    #[must_use]
    pub(crate) fn cancelled(&self) -> &AtomicI32 {
        &self.cancelled
    }

    /// Begins a part of the build.
    #[must_use]
    pub(crate) fn start(&self, label: impl Into<String>) -> Part {
        self.begin(label.into(), None, false)
    }

    /// Begins a part of a part, of `total` bytes where that is known.
    #[must_use]
    pub(crate) fn transfer(&self, label: impl Into<String>, total: Option<u64>) -> Part {
        self.begin(label.into(), total, true)
    }

    fn begin(&self, label: String, total: Option<u64>, nested: bool) -> Part {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.send(Event::Started {
            id,
            label,
            total,
            nested,
        });
        Part {
            progress: self.clone(),
            id,
            began: Instant::now(),
        }
    }

    /// Something that the user may want to change.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.send(Event::Warning(text.into()));
    }

    /// Something that the user may want to know.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.send(Event::Note(text.into()));
    }

    /// A line that a step printed.
    pub(crate) fn output(&self, line: impl Into<String>) {
        self.send(Event::Output { line: line.into() });
    }

    fn send(&self, event: Event) {
        (self.sink)(event);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress")
            .field("cancelled", &self.cancelled)
            .finish_non_exhaustive()
    }
}

/// A part of the build that is under way.
#[derive(Debug)]
pub(crate) struct Part {
    progress: Progress,
    id: u64,
    began: Instant,
}

impl Part {
    /// `done` bytes are done, all in all.
    pub(crate) fn advance(&self, done: u64) {
        self.progress.send(Event::Advanced { id: self.id, done });
    }

    /// There are `total` bytes to come, all in all.
    pub(crate) fn expect(&self, total: u64) {
        self.progress.send(Event::Sized { id: self.id, total });
    }

    /// The part ended well; `outcome` says in a few words what came of it.
    pub(crate) fn finish(self, outcome: impl Into<String>) {
        let event = Event::Finished {
            id: self.id,
            elapsed: self.began.elapsed(),
            outcome: outcome.into(),
        };
        self.progress.send(event);
    }
}
