//! Which files of a context COPY and ADD take: the patterns of sources (Go's `filepath.Match`, which the
//! Dockerfile reference names), `.dockerignore` and `--exclude`, and where each file goes, relative to the
//! destination.
//!
//! A source may be a link, which is followed inside the context; links below a directory are copied.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use regex::Regex;
use rustix::fs::{Mode, OFlags};

/// What an instruction copies.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A directory comes before what is in it.
    pub entries: Vec<Selected>,
    /// Whether it is a single file, which takes the destination's name unless that is a directory.
    pub is_one_file: bool,
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

/// Why a source cannot be selected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// Nothing has this name.
    #[error("the context has no `{name}`")]
    Missing {
        /// As it was typed.
        name: String,
        /// Whether `.dockerignore` hides what has.
        ignored: bool,
    },
    /// A pattern is malformed.
    #[error("`{pattern}` is not a pattern: {reason}")]
    Pattern {
        /// As it was typed.
        pattern: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file system's own words.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SelectError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { ignored: true, .. } => "`.dockerignore` hides it".to_owned(),
            Self::Missing { .. } => "sources are relative to the context, where your files are in \
                                     `image/workspace`; `--keep-context` leaves it to be looked at"
                .to_owned(),
            Self::Pattern { .. } => "`\\` takes the meaning from `*`, `?` and `[`".to_owned(),
            Self::Io(_) => return None,
        })
    }
}

/// Selects what `sources` name in the context at `root`. `exclude` has the patterns of `--exclude`; with
/// `parents` the directories that lead to a source are copied too, those after `/./` if it has that.
pub fn select(
    root: &Path,
    sources: &[String],
    exclude: &[String],
    parents: bool,
) -> Result<Selection, SelectError> {
    let ignore = match fs::read_to_string(root.join(".dockerignore")) {
        Ok(text) => Ignore::parse(text.lines())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ignore::default(),
        Err(error) => return Err(error.into()),
    };
    let mut selector = Selector {
        root: fs::canonicalize(root)?,
        ignore,
        exclude: Ignore::parse(exclude.iter().map(String::as_str))?,
        selection: Selection::default(),
        made: BTreeSet::new(),
    };
    let mut files = 0;
    for source in sources {
        files += selector.source(source, parents)?;
    }
    let entries = &selector.selection.entries;
    selector.selection.is_one_file = files == 1 && entries.len() == 1 && !parents;
    Ok(selector.selection)
}

struct Selector {
    root: PathBuf,
    ignore: Ignore,
    exclude: Ignore,
    selection: Selection,
    /// Directories that lead to sources, with `--parents`.
    made: BTreeSet<PathBuf>,
}

impl Selector {
    /// Selects what one source names; gives the number of sources that are no directories.
    fn source(&mut self, text: &str, parents: bool) -> Result<usize, SelectError> {
        let (base, rest) = match text.split_once("/./") {
            Some((base, rest)) if parents => (plain(base), plain(rest)),
            _ => (PathBuf::new(), plain(text)),
        };
        let pattern = base.join(&rest);
        let mut found = Vec::new();
        let names = pattern
            .iter()
            .map(|name| name.to_string_lossy().into_owned());
        let names: Vec<String> = names.collect();
        self.matching(Path::new(""), &names, text, &mut found)?;
        let (mut files, mut hidden) = (0, 0);
        let depth = base.components().count();
        for path in &found {
            let host = self.resolve(path)?;
            let is_directory = fs::symlink_metadata(&host)?.is_dir();
            let is_hidden = !self.is_shown(path);
            if is_hidden && !is_directory {
                hidden += 1;
                continue;
            }
            let before = self.selection.entries.len();
            let target = if parents {
                let below: PathBuf = path.iter().skip(depth).collect();
                self.lead_to(&below, depth, path);
                below
            } else if is_directory {
                PathBuf::new()
            } else {
                path.file_name().map(PathBuf::from).unwrap_or_default()
            };
            if is_directory {
                self.directory(&host, path, Path::new(""), &target)?;
                // It is there for what is taken back in.
                if is_hidden && self.selection.entries.len() == before + 1 {
                    self.selection.entries.truncate(before);
                    hidden += 1;
                }
            } else {
                files += 1;
                let name = path.file_name().map_or(path.as_path(), Path::new);
                if !self.exclude.holds(name) {
                    self.selection.entries.push(Selected {
                        source: host,
                        target,
                        is_named: true,
                    });
                }
            }
        }
        if hidden == found.len() {
            return Err(SelectError::Missing {
                name: text.to_owned(),
                ignored: hidden > 0,
            });
        }
        Ok(files)
    }

    /// The directories above `target`, which are copied without what is in them.
    fn lead_to(&mut self, target: &Path, depth: usize, path: &Path) {
        let above: Vec<&Path> = target.ancestors().skip(1).collect();
        for directory in above.into_iter().rev() {
            if !directory.as_os_str().is_empty() && self.made.insert(directory.to_owned()) {
                let count = depth + directory.components().count();
                let source: PathBuf = path.iter().take(count).collect();
                self.push(self.root.join(source), directory.to_owned());
            }
        }
    }

    /// Adds the paths that match the names from `at` on.
    fn matching(
        &self,
        at: &Path,
        names: &[String],
        text: &str,
        found: &mut Vec<PathBuf>,
    ) -> Result<(), SelectError> {
        let Some((name, rest)) = names.split_first() else {
            if self.exists(at) {
                found.push(at.to_owned());
            }
            return Ok(());
        };
        if !name.contains(['*', '?', '[', '\\']) {
            return self.matching(&at.join(name), rest, text, found);
        }
        let pattern = expression(name, false).map_err(|reason| SelectError::Pattern {
            pattern: text.to_owned(),
            reason,
        })?;
        let Ok(directory) = self.resolve(at) else {
            return Ok(());
        };
        for name in names_in(&directory)? {
            if pattern.is_match(&name.to_string_lossy()) {
                self.matching(&at.join(name), rest, text, found)?;
            }
        }
        Ok(())
    }

    /// Adds a directory and what is in it. `path` is relative to the context, `inside` to the source.
    fn directory(
        &mut self,
        host: &Path,
        path: &Path,
        inside: &Path,
        target: &Path,
    ) -> Result<(), SelectError> {
        let at = self.selection.entries.len();
        self.push(host.to_owned(), target.to_owned());
        for name in names_in(host)? {
            let (host, path, inside, target) = (
                host.join(&name),
                path.join(&name),
                inside.join(&name),
                target.join(&name),
            );
            let is_directory = fs::symlink_metadata(&host)?.is_dir();
            let is_out = !self.is_shown(&path) || self.exclude.holds(&inside);
            if is_directory {
                let before = self.selection.entries.len();
                self.directory(&host, &path, &inside, &target)?;
                // A directory that is left out is there for what is taken back in.
                if is_out && self.selection.entries.len() == before + 1 {
                    self.selection.entries.truncate(before);
                }
            } else if !is_out {
                self.push(host, target);
            }
        }
        debug_assert!(self.selection.entries.len() > at, "the directory is there");
        Ok(())
    }

    fn push(&mut self, source: PathBuf, target: PathBuf) {
        self.selection.entries.push(Selected {
            source,
            target,
            is_named: false,
        });
    }

    fn is_shown(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || !self.ignore.holds(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.resolve(path).is_ok()
    }

    fn resolve(&self, path: &Path) -> Result<PathBuf, SelectError> {
        confined(&self.root, path)
    }
}

/// Where `path` of the context at `root` lies on this machine, with links followed as if the context were the
/// root.
pub fn resolve(root: &Path, path: &Path) -> Result<PathBuf, SelectError> {
    let path = plain(&path.to_string_lossy());
    confined(root, &path).map_err(|_| SelectError::Missing {
        name: path.display().to_string(),
        ignored: false,
    })
}

fn confined(root: &Path, path: &Path) -> Result<PathBuf, SelectError> {
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

fn names_in(directory: &Path) -> Result<Vec<std::ffi::OsString>, SelectError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name());
    }
    names.sort();
    Ok(names)
}

/// The patterns of a `.dockerignore`, or of `--exclude`.
#[derive(Debug, Default)]
struct Ignore(Vec<(Regex, bool)>);

impl Ignore {
    fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, SelectError> {
        let mut patterns = Vec::new();
        for line in lines.map(str::trim) {
            let (text, out) = match line.strip_prefix('!') {
                Some(rest) => (rest.trim(), false),
                None => (line, true),
            };
            let path = plain(text);
            if line.is_empty() || line.starts_with('#') || path.as_os_str().is_empty() {
                continue;
            }
            let pattern = expression(&path.to_string_lossy(), true);
            let pattern = pattern.map_err(|reason| SelectError::Pattern {
                pattern: line.to_owned(),
                reason,
            })?;
            patterns.push((pattern, out));
        }
        Ok(Self(patterns))
    }

    /// Whether the last pattern that matches the path, or a directory above it, leaves it out.
    fn holds(&self, path: &Path) -> bool {
        let matching = |(pattern, _): &&(Regex, bool)| {
            path.ancestors()
                .any(|path| pattern.is_match(&path.to_string_lossy()))
        };
        let last = self.0.iter().rfind(matching);
        last.is_some_and(|(_, out)| *out)
    }
}

/// A pattern as a regular expression; with `deep`, `**` stands for any number of directories.
fn expression(pattern: &str, deep: bool) -> Result<Regex, &'static str> {
    let mut regex = String::from("(?s)^");
    let mut rest = pattern.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '*' if deep && rest.peek() == Some(&'*') => {
                rest.next();
                if rest.peek() == Some(&'/') {
                    rest.next();
                    regex.push_str("(?:.*/)?");
                } else {
                    regex.push_str(".*");
                }
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '\\' => push(&mut regex, rest.next().ok_or("it ends with `\\`")?),
            '[' => {
                let negated = rest.next_if(|letter| matches!(letter, '^' | '!')).is_some();
                regex.push_str(if negated { "[^/" } else { "[" });
                let mut count = 0;
                loop {
                    let mut next = || match rest.next().ok_or("a `[` has no `]`")? {
                        '\\' => rest
                            .next()
                            .ok_or("a `[` has no `]`")
                            .map(|letter| (letter, true)),
                        letter => Ok((letter, false)),
                    };
                    let (low, escaped) = next()?;
                    if low == ']' && !escaped && count > 0 {
                        break;
                    }
                    count += 1;
                    let mut high = low;
                    if rest.next_if_eq(&'-').is_some() {
                        high = match rest.next().ok_or("a `[` has no `]`")? {
                            '\\' => rest.next().ok_or("a `[` has no `]`")?,
                            letter => letter,
                        };
                    }
                    if low > high {
                        return Err("a range in it runs backwards");
                    }
                    let (low, high) = (u32::from(low), u32::from(high));
                    // A string takes all that is written.
                    let _ = write!(regex, "\\x{{{low:x}}}-\\x{{{high:x}}}");
                }
                regex.push(']');
            }
            other => push(&mut regex, other),
        }
    }
    regex.push('$');
    Regex::new(&regex).map_err(|_| "it is too long")
}

fn push(regex: &mut String, letter: char) {
    regex.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4])));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A context with these files; links are `name -> target`.
    fn context(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            let (name, target) = match name.split_once(" -> ") {
                Some((name, target)) => (name, Some(target)),
                None => (*name, None),
            };
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match target {
                Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
                None if name.ends_with('/') => fs::create_dir_all(path).unwrap(),
                None => fs::write(path, name).unwrap(),
            }
        }
        root
    }

    /// `target=source` of each entry, both relative.
    fn selected(root: &Path, sources: &[&str], exclude: &[&str], parents: bool) -> String {
        let owned = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        match select(root, &owned(sources), &owned(exclude), parents) {
            Ok(selection) => {
                let root = fs::canonicalize(root).unwrap();
                let show = |entry: &Selected| {
                    let source = entry.source.strip_prefix(&root).unwrap().display();
                    format!("{}={source}", entry.target.display())
                };
                let mut text: Vec<String> = selection.entries.iter().map(show).collect();
                if selection.is_one_file {
                    text.push("one".to_owned());
                }
                text.join(" ")
            }
            Err(error) => format!("{error}"),
        }
    }

    #[test]
    fn sources_are_found_as_the_reference_says() {
        let root = context(&[
            "a.txt",
            "b.txt",
            "hom.rs",
            "home.rs",
            "arr[0].txt",
            "d/x",
            "d/e/y",
            "d/e/link -> /a.txt",
            "to-d -> d",
            "to-a -> ../../../../a.txt",
            "empty/",
        ]);
        for (sources, expected) in [
            (&["a.txt"][..], "a.txt=a.txt one"),
            (&["/a.txt"], "a.txt=a.txt one"),
            (&["../../a.txt"], "a.txt=a.txt one"),
            (&["./d/../a.txt"], "a.txt=a.txt one"),
            (&["a.txt", "b.txt"], "a.txt=a.txt b.txt=b.txt"),
            (&["*.txt"], "a.txt=a.txt arr[0].txt=arr[0].txt b.txt=b.txt"),
            (&["ho?.rs"], "hom.rs=hom.rs one"),
            (&["hom*"], "hom.rs=hom.rs home.rs=home.rs"),
            (&["[a-a].txt"], "a.txt=a.txt one"),
            (&["[^a].txt"], "b.txt=b.txt one"),
            (&["arr[[]0].txt"], "arr[0].txt=arr[0].txt one"),
            (&["arr\\[0].txt"], "arr[0].txt=arr[0].txt one"),
            (&["d"], "=d e=d/e e/link=d/e/link e/y=d/e/y x=d/x"),
            (&["d/"], "=d e=d/e e/link=d/e/link e/y=d/e/y x=d/x"),
            (&["d/*"], "=d/e link=d/e/link y=d/e/y x=d/x"),
            (&["to-d"], "=d e=d/e e/link=d/e/link e/y=d/e/y x=d/x"),
            (&["to-a"], "to-a=a.txt one"),
            (&["to-d/e/y"], "y=d/e/y one"),
            (&["empty"], "=empty"),
            (&["none"], "the context has no `none`"),
            (&["*.none"], "the context has no `*.none`"),
            (&["a.txt/x"], "the context has no `a.txt/x`"),
            (&["[a.txt"], "`[a.txt` is not a pattern: a `[` has no `]`"),
            (
                &["[b-a].txt"],
                "`[b-a].txt` is not a pattern: a range in it runs backwards",
            ),
        ] {
            assert_eq!(
                selected(root.path(), sources, &[], false),
                expected,
                "{sources:?}"
            );
        }
    }

    #[test]
    fn parents_are_kept() {
        let root = context(&["x/a.txt", "x/y/b.txt", "z/c.txt"]);
        for (source, expected) in [
            ("x/a.txt", "x=x x/a.txt=x/a.txt"),
            ("x/*/b.txt", "x=x x/y=x/y x/y/b.txt=x/y/b.txt"),
            ("x/./y/b.txt", "y=x/y y/b.txt=x/y/b.txt"),
            ("x/./*", "a.txt=x/a.txt y=x/y y/b.txt=x/y/b.txt"),
        ] {
            assert_eq!(
                selected(root.path(), &[source], &[], true),
                expected,
                "{source}"
            );
        }
    }

    #[test]
    fn what_is_ignored_or_excluded_is_not_there() {
        let root = context(&[
            "a.txt",
            "a.md",
            "README.md",
            "d/a.txt",
            "d/b.md",
            "d/e/c.md",
            "out/x",
            "out/keep/y",
        ]);
        assert_eq!(
            selected(root.path(), &["d"], &["**/*.md"], false),
            "=d a.txt=d/a.txt e=d/e"
        );
        assert_eq!(
            selected(root.path(), &["a*"], &["*.md"], false),
            "a.txt=a.txt"
        );
        fs::write(
            root.path().join(".dockerignore"),
            "# comment\n\n*.md\n!README.md\n**/c.md\nout\n!out/keep\n/d/a.txt\n",
        )
        .unwrap();
        for (source, expected) in [
            ("a.md", "the context has no `a.md`"),
            ("README.md", "README.md=README.md one"),
            ("d", "=d b.md=d/b.md e=d/e"),
            ("out", "=out keep=out/keep keep/y=out/keep/y"),
            ("out/keep", "=out/keep y=out/keep/y"),
            ("*.md", "README.md=README.md one"),
        ] {
            assert_eq!(
                selected(root.path(), &[source], &[], false),
                expected,
                "{source}"
            );
        }
    }
}
