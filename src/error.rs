//! The one error of this program. It is made where something fails, with its kind and hint, and each
//! caller that knows more [wraps](Error::wrap) it. An enum exists only where code steers by its
//! variants (`registry::Error`, `store::Error`, `net::Fault`, `runner::Error`); it converts into
//! [`Error`] where it leaves that code.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::progress::{Cancelled, Progress};
use crate::secret::printable;

/// The result of nearly everything here.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a build, or something else, failed.
///
/// Its `Display` text and its sources are for people. Programs read its [kind](Self::kind).
///
/// ```
/// use std::error::Error as _;
/// use pyats_image_builder::{Kind, Options, Progress, build};
///
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("build.yaml");
/// # fs_err::write(&file, "files: [notes]")?;
/// # let store = Some(folder.path().join("store"));
/// let options = Options {
///     dry_run: true,
/// #   store,
///     ..Options::new(&file)
/// };
/// let error = build(&options, &Progress::silent()).unwrap_err();
/// assert_eq!(error.kind(), Kind::Sources);
/// assert_eq!(error.to_string(), "failed to stage `files[0]`");
/// assert_eq!(error.source().unwrap().to_string(), "`notes` does not exist");
/// assert_eq!(error.hint().unwrap(), "local paths are relative to the current directory");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Error(Box<Inner>);

/// Boxed, since a result should not be large for the sake of a failure.
struct Inner {
    /// None for an error of the file system, until a caller knows what the file was for.
    kind: Option<Kind>,
    /// None shows the source in its place.
    message: Option<String>,
    hint: Option<String>,
    tail: Vec<String>,
    /// Whether the request itself is wrong.
    is_usage: bool,
    /// Whether the message is laid out in lines by us, and printable.
    is_laid_out: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kind of an [`Error`]. The kinds and their words ([`as_str`](Self::as_str)) are part of the
/// API: programs in other languages tell errors apart by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `build-file`: the build file or its snapshot is wrong or cannot be read.
    BuildFile,
    /// `options`: the request is impossible, whatever the build file says.
    Options,
    /// `no-image`: the named image does not exist.
    NoImage,
    /// `sources`: a file or a repository cannot be fetched, or not be put where it belongs.
    Sources,
    /// `base`: the base cannot be pulled, or nothing can be built on it.
    Base,
    /// `step`: a command in the image failed; [`Error::tail`] has its last output.
    Step,
    /// `sandbox`: steps cannot run here.
    Sandbox,
    /// `push`: a registry refused the image or the credentials.
    Push,
    /// `storage`: the store, a layer, an output or another file cannot be read or written.
    Storage,
    /// `interrupted`: the caller stopped it.
    Interrupted,
}

impl Kind {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuildFile => "build-file",
            Self::Options => "options",
            Self::NoImage => "no-image",
            Self::Sources => "sources",
            Self::Base => "base",
            Self::Step => "step",
            Self::Sandbox => "sandbox",
            Self::Push => "push",
            Self::Storage => "storage",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Error {
    /// An error with a message of ours: lowercase, names in backticks, no full stop.
    #[doc(hidden)]
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind: Some(kind),
            message: Some(message.into()),
            hint: None,
            tail: Vec::new(),
            is_usage: false,
            is_laid_out: false,
            source: None,
        }))
    }

    /// A request that is impossible, whatever the build file says.
    #[doc(hidden)]
    #[must_use]
    pub fn options(message: impl Into<String>) -> Self {
        Self::new(Kind::Options, message).usage()
    }

    /// The request itself is wrong: found before anything was done, and no use to try again.
    pub(crate) fn usage(mut self) -> Self {
        self.0.is_usage = true;
        self
    }

    /// Somebody else's error as it is, with its own message and sources.
    pub(crate) fn from_source(
        kind: impl Into<Option<Kind>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Box::new(Inner {
            kind: kind.into(),
            message: None,
            hint: None,
            tail: Vec::new(),
            is_usage: false,
            is_laid_out: false,
            source: Some(source.into()),
        }))
    }

    /// An enum's value where it leaves the code that steers by it: as it is, with its hint.
    pub(crate) fn from_enum<S: Into<String>>(
        kind: impl Into<Option<Kind>>,
        hint: Option<S>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let mut error = Self::from_source(kind, source);
        error.0.hint = hint.map(Into::into);
        error
    }

    /// Problems of a file, which its message lays out in lines, each of which is printable.
    pub(crate) fn laid_out(
        kind: Kind,
        problems: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let mut error = Self::from_source(kind, problems);
        error.0.is_laid_out = true;
        error
    }

    /// Says what the user can do: a command, or an edit.
    #[doc(hidden)]
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Says why.
    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds the last lines that a step printed.
    pub(crate) fn with_tail(mut self, tail: Vec<String>) -> Self {
        self.0.tail = tail;
        self
    }

    /// Gives an error of the file system its kind. One of a full disk has one already.
    #[doc(hidden)]
    #[must_use]
    pub fn or_kind(mut self, kind: Kind) -> Self {
        self.0.kind.get_or_insert(kind);
        self
    }

    /// Gives an error of one kind another one, where a caller knows better.
    pub(crate) fn map_kind(mut self, from: Kind, to: Kind) -> Self {
        if self.0.kind == Some(from) {
            self.0.kind = Some(to);
        }
        self
    }

    /// Says what failed because of this one. Kind, hint and tail stay, and so does an interruption,
    /// which is nobody's fault.
    #[doc(hidden)]
    #[must_use]
    pub fn wrap(mut self, message: impl Into<String>) -> Self {
        if self.0.kind == Some(Kind::Interrupted) {
            return self;
        }
        Self(Box::new(Inner {
            kind: self.0.kind,
            message: Some(message.into()),
            hint: self.0.hint.take(),
            tail: std::mem::take(&mut self.0.tail),
            is_usage: false,
            is_laid_out: false,
            source: Some(self.into()),
        }))
    }

    /// Whatever failed after the caller stopped it failed because of that.
    pub(crate) fn or_cancelled(self, progress: &Progress) -> Self {
        match progress.check() {
            Ok(()) => self,
            Err(cancelled) => cancelled.into(),
        }
    }

    /// The first error of type `E` among this one's causes.
    pub(crate) fn find<E: StdError + 'static>(&self) -> Option<&E> {
        self.causes().find_map(|cause| cause.downcast_ref())
    }

    /// All errors behind this one, outermost first. An error that is shown as its source is not
    /// among them, but the source is.
    pub(crate) fn causes(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        let first: Option<&(dyn StdError + 'static)> =
            self.0.source.as_deref().map(|source| source as _);
        std::iter::successors(first, |error| {
            let error: &(dyn StdError + 'static) = *error;
            match error.downcast_ref::<Self>() {
                Some(error) => error.0.source.as_deref().map(|source| source as _),
                None => error.source(),
            }
        })
    }

    /// The file system's kind, if it is one of its errors and nothing more.
    pub(crate) fn io_kind(&self) -> Option<io::ErrorKind> {
        let source = self.0.source.as_ref()?.downcast_ref::<io::Error>()?;
        self.0.message.is_none().then(|| source.kind())
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind.unwrap_or(Kind::Storage)
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The last lines that a failed step printed.
    #[must_use]
    pub fn tail(&self) -> &[String] {
        &self.0.tail
    }

    /// Whether the request itself is wrong: the command line, the build file or its snapshot.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        self.0.is_usage
    }

    /// Its message and those of its sources, outermost first, each fit for a terminal: see
    /// [`printable`]. The problems of a build file are laid out in lines; all others are one line.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        let mut messages = vec![self.to_string()];
        if !self.0.is_laid_out {
            messages[0] = printable(&messages[0]);
        }
        let mut source = self.source();
        while let Some(error) = source {
            messages.push(printable(&error.to_string()));
            source = error.source();
        }
        messages
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.message, &self.0.source) {
            (Some(message), _) => f.write_str(message),
            (None, Some(source)) => source.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("messages", &self.messages())
            .field("hint", &self.0.hint)
            .field("tail", &self.0.tail)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref()?;
        match self.0.message {
            Some(_) => Some(source),
            None => source.source(),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::from_source(Kind::Storage, error)
                    .with_hint("free some space, or put the store elsewhere with `--store DIR`")
            }
            _ => Self::from_source(None, error),
        }
    }
}

impl From<Cancelled> for Error {
    fn from(cancelled: Cancelled) -> Self {
        Self::from_source(Kind::Interrupted, cancelled)
    }
}

/// [`Error::wrap`] for results.
pub(crate) trait Wrap<T> {
    /// Says what failed, if anything did.
    fn wrap(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Wrap<T> for std::result::Result<T, E> {
    fn wrap(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().wrap(message()))
    }
}
