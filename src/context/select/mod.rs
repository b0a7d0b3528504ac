//! Which files of a context COPY and ADD take: the patterns of sources (Go's `filepath.Match`, which the
//! Dockerfile reference names), `.dockerignore` and `--exclude`, and where each file goes, relative to the
//! destination.
//!
//! A source may be a link, which is followed inside the context; links below a directory are copied.

mod pattern;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use regex::Regex;
use rustix::fs::{Mode, OFlags};

pub(super) use pattern::Ignore;
use pattern::{expression, is_pattern, is_pattern_name, unescaped};

use crate::error::{Error, Kind};

/// What an instruction copies.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A directory comes before what is in it.
    pub entries: Vec<Selected>,
    /// Sources that are no directories: a single one takes the destination's name, unless that is a directory.
    pub files: usize,
    /// Sources that are directories.
    pub directories: usize,
    /// What was left out, relative to the destination.
    pub sockets: Vec<PathBuf>,
    /// Whether any source has something, left out or not.
    is_anything: bool,
}

/// A file, a directory or a link.
#[derive(Debug, PartialEq, Eq)]
pub struct Selected {
    /// On this machine, absolute; no link leads to it.
    pub source: PathBuf,
    /// Relative to the destination; empty for the destination itself.
    pub target: PathBuf,
    /// Whether a source names it, and not a directory that it lies in.
    pub is_named: bool,
}

/// The error for a source of which the context has nothing; or `.dockerignore` hides it.
fn missing(name: &str, is_ignored: bool) -> Error {
    let error = Error::new(Kind::Sources, format!("the context has no `{name}`"));
    error.with_hint(if is_ignored {
        "`.dockerignore` hides it"
    } else {
        "sources are relative to the context, where your files are in `image/workspace` (at its top with \
         `layout: pyats`); `--keep-context` leaves it to be looked at"
    })
}

fn not_a_pattern(pattern: &str, reason: &str) -> Error {
    let message = format!("`{pattern}` is not a pattern: {reason}");
    Error::new(Kind::Sources, message).with_hint("`\\` takes the meaning from `*`, `?` and `[`")
}

/// Selects what `sources` name in the context at `root`. `exclude` has the patterns of `--exclude`; with
/// `parents` the directories that lead to a source are copied too, those after `/./` if it has that.
pub fn select(
    root: &Path,
    sources: &[String],
    exclude: &[String],
    parents: bool,
) -> Result<Selection, Error> {
    let mut selector = Selector::new(root, ignored(root)?, exclude)?;
    let mut unmatched = None;
    for source in sources {
        let found = if parents {
            selector.with_parents(source)?
        } else {
            selector.source(source)?
        };
        if !found {
            unmatched = Some(source);
        }
    }
    let selection = selector.selection;
    match unmatched {
        // A pattern may match nothing, if anything else is there to be copied.
        Some(source) if !selection.is_anything => Err(missing(source, false)),
        _ => Ok(selection),
    }
}

/// Selects all that is in a directory which is no context, such as a repository.
pub fn select_all(root: &Path, exclude: &[String]) -> Result<Selection, Error> {
    let mut selector = Selector::new(root, Ignore::default(), exclude)?;
    selector.source("")?;
    Ok(selector.selection)
}

/// The patterns of a folder's `.dockerignore`, if it has one.
pub(super) fn ignored(root: &Path) -> Result<Ignore, Error> {
    let path = root.join(".dockerignore");
    let bytes = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => fs::read(&path)?,
        // A folder has no patterns, and a named pipe might never give any.
        Ok(_) => return Ok(Ignore::default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ignore::default()),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ignore::parse(lines).map_err(|error| error.wrap("`.dockerignore` is malformed"))
}

struct Selector {
    root: PathBuf,
    ignore: Ignore,
    exclude: Ignore,
    selection: Selection,
    /// What `--parents` has put somewhere.
    made: BTreeSet<PathBuf>,
}

impl Selector {
    fn new(root: &Path, ignore: Ignore, exclude: &[String]) -> Result<Self, Error> {
        Ok(Self {
            root: fs::canonicalize(root)?,
            ignore,
            exclude: Ignore::parse(exclude.iter().map(String::as_str))?,
            selection: Selection::default(),
            made: BTreeSet::new(),
        })
    }

    /// Selects what one source names; whether there is anything.
    fn source(&mut self, text: &str) -> Result<bool, Error> {
        let paths = self.named(&plain(text), text)?;
        for path in &paths {
            let found = self.find(path, text)?;
            self.selection.is_anything = true;
            if fs::symlink_metadata(&found.host)?.is_dir() {
                self.directory(&found, Path::new(""))?;
                self.selection.directories += 1;
                continue;
            }
            self.selection.files += 1;
            let name = path.file_name().map(PathBuf::from).unwrap_or_default();
            if !self.exclude.holds(&name) {
                self.push(found.host, name, true);
            }
        }
        Ok(!paths.is_empty())
    }

    /// The paths that a source names: itself, or those that its pattern matches, in which no link is followed
    /// from the first pattern on.
    fn named(&self, path: &Path, text: &str) -> Result<Vec<PathBuf>, Error> {
        let names: Vec<String> = path
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let Some(first) = names.iter().position(|name| is_pattern(name)) else {
            return Ok(vec![names.iter().map(|name| unescaped(name)).collect()]);
        };
        let base: PathBuf = names[..first].iter().map(|name| unescaped(name)).collect();
        let patterns = names[first..].iter();
        let patterns: Result<Vec<Regex>, _> =
            patterns.map(|name| expression(name, false)).collect();
        let patterns = patterns.map_err(|reason| not_a_pattern(text, reason))?;
        let mut found = Vec::new();
        if let Ok(host) = self.resolve(&base) {
            self.matching(&host, &base, &patterns, &mut found)?;
        }
        Ok(found)
    }

    /// Adds the paths below `at` that match the patterns, one for each name.
    fn matching(
        &self,
        host: &Path,
        at: &Path,
        patterns: &[Regex],
        found: &mut Vec<PathBuf>,
    ) -> Result<(), Error> {
        let Some((pattern, rest)) = patterns.split_first() else {
            found.push(at.to_owned());
            return Ok(());
        };
        if !fs::symlink_metadata(host)?.is_dir() {
            return Ok(());
        }
        for name in names_in(host)? {
            let (host, at) = (host.join(&name), at.join(&name));
            let matches = pattern.is_match(&name.to_string_lossy());
            if matches && (!rest.is_empty() || self.exists(&host, &at)?) {
                self.matching(&host, &at, rest, found)?;
            }
        }
        Ok(())
    }

    /// Selects what one source names, with the directories that lead to it; whether there is anything.
    fn with_parents(&mut self, text: &str) -> Result<bool, Error> {
        let (base, pattern) = match text.split_once("/./") {
            Some((base, pattern)) => (plain(base), plain(pattern)),
            None => (PathBuf::new(), plain(text)),
        };
        let names: Vec<String> = pattern
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let literal: Vec<_> = names.iter().take_while(|name| !is_pattern(name)).collect();
        let whole = expression(&pattern.to_string_lossy(), true);
        let whole = whole.map_err(|reason| not_a_pattern(text, reason))?;
        let search = Search {
            literal: literal.iter().map(|name| unescaped(name).into()).collect(),
            whole: (!names.is_empty()).then_some(whole),
        };
        let is_literal = literal.len() == names.len() && !base.iter().any(is_pattern_name);
        let mut is_anything = false;
        for base in self.named(&base, text)? {
            let Ok(base) = self.find(&base, text) else {
                continue;
            };
            is_anything |= self.search(&search, &base, Path::new(""), false, &mut Vec::new())?;
        }
        self.selection.is_anything |= is_anything;
        if is_literal && !is_anything {
            return Err(self.missing(&base.join(&pattern), text));
        }
        self.selection.directories += 1;
        Ok(is_anything)
    }

    /// Adds what matches below a directory; `inside` is relative to the base. `above` are the directories that
    /// lead there and have not been added.
    fn search(
        &mut self,
        search: &Search,
        here: &Found,
        inside: &Path,
        is_matched: bool,
        above: &mut Vec<(PathBuf, PathBuf)>,
    ) -> Result<bool, Error> {
        if !fs::symlink_metadata(&here.host)?.is_dir() {
            return Ok(false);
        }
        let is_matched = is_matched || search.whole.is_none();
        let names = match search.literal.get(inside.components().count()) {
            Some(name) if !is_matched => vec![name.clone()],
            _ => names_in(&here.host)?,
        };
        let mut is_anything = search.whole.is_none();
        for name in names {
            let (below, inside) = (here.join(&name), inside.join(&name));
            let Ok(metadata) = fs::symlink_metadata(&below.host) else {
                continue;
            };
            let matches = |regex: &Regex| regex.is_match(&inside.to_string_lossy());
            let is_matched = is_matched || search.whole.as_ref().is_some_and(matches);
            let is_out = !self.is_shown(&below) || self.exclude.holds(&inside);
            let is_added = is_matched && !is_out;
            if is_added {
                for (host, target) in above.drain(..) {
                    self.add(host, target);
                }
                is_anything = true;
                if !metadata.is_dir() {
                    self.add(below.host, inside);
                    continue;
                }
            }
            if metadata.is_dir() {
                // Directories that lead to something come with it, and only then.
                let count = above.len();
                above.push((below.host.clone(), inside.clone()));
                if is_added {
                    for (host, target) in above.drain(..) {
                        self.add(host, target);
                    }
                }
                is_anything |= self.search(search, &below, &inside, is_matched, above)?;
                above.truncate(count);
            }
        }
        Ok(is_anything)
    }

    /// Adds what `--parents` has found, unless another source brought it.
    fn add(&mut self, host: PathBuf, target: PathBuf) {
        if self.made.insert(target.clone()) {
            self.push(host, target, false);
        }
    }

    /// Adds a directory and what is in it; `inside` is relative to the source.
    fn directory(&mut self, here: &Found, inside: &Path) -> Result<(), Error> {
        let at = self.selection.entries.len();
        self.push(here.host.clone(), inside.to_owned(), false);
        for name in names_in(&here.host)? {
            let (below, inside) = (here.join(&name), inside.join(&name));
            let is_directory = fs::symlink_metadata(&below.host)?.is_dir();
            let is_out = !self.is_shown(&below) || self.exclude.holds(&inside);
            if is_directory {
                let before = self.selection.entries.len();
                self.directory(&below, &inside)?;
                // A directory that is left out is there for what is taken back in.
                if is_out && self.selection.entries.len() == before + 1 {
                    self.selection.entries.truncate(before);
                }
            } else if !is_out {
                self.push(below.host, inside, false);
            }
        }
        debug_assert!(self.selection.entries.len() > at, "the directory is there");
        Ok(())
    }

    /// Sockets are left out: what listens there is not copied.
    fn push(&mut self, source: PathBuf, target: PathBuf, is_named: bool) {
        if fs::symlink_metadata(&source).is_ok_and(|there| there.file_type().is_socket()) {
            self.selection.sockets.push(target);
            return;
        }
        self.selection.entries.push(Selected {
            source,
            target,
            is_named,
        });
    }

    /// What lies at a path of the context, unless `.dockerignore` hides it, or where a link leads.
    fn find(&self, path: &Path, text: &str) -> Result<Found, Error> {
        let absent = |_| self.missing(path, text);
        let host = self.resolve(path).map_err(absent)?;
        let path = host.strip_prefix(&self.root).unwrap_or(path).to_owned();
        let found = Found { host, path };
        if self.exists(&found.host, &found.path)? {
            Ok(found)
        } else {
            Err(missing(text, true))
        }
    }

    fn missing(&self, path: &Path, text: &str) -> Error {
        missing(text, self.resolve(path).is_ok() && self.ignore.holds(path))
    }

    /// Whether `.dockerignore` shows what lies here: of a directory that it hides, something may be shown.
    fn exists(&self, host: &Path, path: &Path) -> Result<bool, Error> {
        if path.as_os_str().is_empty() || !self.ignore.holds(path) {
            return Ok(true);
        }
        if !self.ignore.has_exceptions() || !fs::symlink_metadata(host)?.is_dir() {
            return Ok(false);
        }
        for name in names_in(host)? {
            if self.exists(&host.join(&name), &path.join(&name))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_shown(&self, found: &Found) -> bool {
        !self.ignore.holds(&found.path)
    }

    fn resolve(&self, path: &Path) -> Result<PathBuf, Error> {
        confined(&self.root, path)
    }
}

/// A file, a directory or a link of the context.
struct Found {
    /// On this machine; no link leads to it.
    host: PathBuf,
    /// Relative to the context.
    path: PathBuf,
}

impl Found {
    fn join(&self, name: &OsStr) -> Self {
        Self {
            host: self.host.join(name),
            path: self.path.join(name),
        }
    }
}

/// What `--parents` looks for.
struct Search {
    /// The first names, which are no patterns.
    literal: Vec<OsString>,
    /// All of it; absent, everything matches.
    whole: Option<Regex>,
}

/// Where `path` of the context at `root` lies on this machine, with links followed as if the context were the
/// root.
pub fn resolve(root: &Path, path: &Path) -> Result<PathBuf, Error> {
    let path = plain(&path.to_string_lossy());
    confined(root, &path).map_err(|_| missing(&path.display().to_string(), false))
}

fn confined(root: &Path, path: &Path) -> Result<PathBuf, Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).map_err(io::Error::from)?;
    let found = crate::confined::open(&root, path, flags).map_err(io::Error::from)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&found);
    Ok(fs::read_link(format!("/proc/self/fd/{number}"))?)
}

/// A path without `.` and `..`, which stop at the root, and relative to it.
fn plain(text: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            _ => {}
        }
    }
    path
}

fn names_in(directory: &Path) -> Result<Vec<OsString>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name());
    }
    names.sort();
    Ok(names)
}
