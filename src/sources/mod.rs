//! Remote sources: what `files` and `repositories` name elsewhere is fetched side by side, and copied into
//! the context afterwards, in the order of the build file.
//!
//! Each kind of source is one function of the same shape: it is given a path that does not exist, and
//! what is known of an earlier fetch; it either says that nothing changed, or makes a file or directory
//! there and says by what its next change is to be seen. What was fetched is kept in the store (`kept.rs`).
//!
//! Neither the result nor the error depends on the order of arrival: a failure ends what comes after it in
//! the build file, and what comes before it may still fail, and is reported then.

pub(crate) mod error;
pub(crate) mod ftp;
pub(crate) mod git;
pub(crate) mod http;
mod kept;
pub(crate) mod scp;
pub(crate) mod ssh;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::buildfile::{FileEntry, Location, Malformed, Origin, Repository, Source};
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::files::remove_tree;
use crate::net;
use crate::progress::{Part, Progress};
use crate::secret::Secret;
use crate::store::{self, Scratch, Store};

use error::source;
use kept::Kept;

pub use ssh::Options as SshOptions;

/// By what a change is seen, such as an `ETag` or the id of a commit. Each kind of source writes its own;
/// nothing in it is secret.
pub(crate) type Validator = Value;

/// What came of asking a source.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is what it was when the known validator was made.
    Unchanged,
    /// It was fetched.
    Fetched(Validator),
}

/// Whether a source that was fetched before is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Again {
    /// It is asked whether it changed.
    #[default]
    Ask,
    /// It is fetched anew.
    Anew,
    /// It is taken from the store, and nobody is asked.
    Offline,
}

/// How remote sources are reached, and where they are kept.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Connects to other machines.
    pub net: &'a net::Client,
    /// How ssh decides whom to trust.
    pub ssh: &'a ssh::Options,
    /// Keeps what was fetched.
    pub store: &'a Store,
    /// Fetches side by side.
    pub jobs: usize,
    /// What is done about sources that were fetched before.
    pub again: Again,
}

/// What every fetch needs. Cheap to clone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch<'a> {
    /// Connects to other machines.
    pub(crate) net: &'a net::Client,
    /// How ssh decides whom to trust.
    pub(crate) ssh: &'a ssh::Options,
    /// Whether to stop; warnings.
    pub(crate) progress: &'a Progress,
    /// Bytes on their way.
    pub(crate) part: &'a Part,
}

/// Something to fetch.
#[derive(Debug, Clone, Copy)]
enum Wanted<'a> {
    File(&'a FileEntry),
    Repository(&'a Repository),
}

/// What was fetched, by the name of its entry. Its folders live as long as this value.
#[derive(Debug)]
pub(crate) struct Fetched {
    entries: BTreeMap<String, Entry>,
    scratch: Option<Scratch>,
}

/// One source that was fetched, now or before.
#[derive(Debug)]
struct Entry {
    /// The file or directory.
    path: PathBuf,
    validator: Validator,
    kept: Kept,
    fresh: bool,
}

/// Fetches all of these that lie elsewhere.
pub(crate) fn all(
    repositories: &[Repository],
    files: &[FileEntry],
    sources: Sources<'_>,
    progress: &Progress,
) -> Result<Fetched, Error> {
    let repositories = repositories.iter().map(Wanted::Repository);
    let files = files.iter().map(Wanted::File);
    let wanted: Vec<Wanted<'_>> = repositories
        .chain(files)
        .filter(|wanted| !wanted.is_local_file())
        .collect();
    let mut fetched = Fetched {
        entries: BTreeMap::new(),
        scratch: None,
    };
    if wanted.is_empty() {
        return Ok(fetched);
    }
    let scratch = Scratch::new_in(&sources.store.scratch_root())?;
    let into = scratch.path().to_owned();
    fetched.scratch = Some(scratch);
    for (wanted, result) in side_by_side(&wanted, sources, &into, progress) {
        let name = wanted.name();
        let entry = result.map_err(|error| error::remote_entry(name, error))?;
        fetched.entries.insert(name.to_owned(), entry);
    }
    Ok(fetched)
}

/// A fetched file or repository. It is there for as long as the value lives.
#[derive(Debug)]
pub struct Added(Entry);

impl Added {
    /// The file, or the directory of a repository.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The id of a repository's commit.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        self.0.validator["commit"].as_str()
    }

    /// Whether the id of a repository's commit, or of the tag that names it, begins so.
    #[must_use]
    pub fn is_at(&self, start: &str) -> bool {
        let start = start.to_ascii_lowercase();
        let ids = ["commit", "tag"].map(|key| self.0.validator[key].as_str());
        ids.into_iter().flatten().any(|id| id.starts_with(&start))
    }

    /// When the server says that the file changed last, in seconds since 1970.
    #[must_use]
    pub fn modified(&self) -> Option<i64> {
        let text = self.0.validator["last_modified"].as_str()?;
        let time = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        Some(time.timestamp())
    }

    /// Keeps it in the store for the next build.
    pub fn complete(self) -> Result<(), store::Error> {
        if self.0.fresh {
            self.0.kept.replace(&self.0.path, &self.0.validator)?;
        }
        Ok(())
    }
}

/// Fetches the file that ADD names; `sha256` is its digest, if that is known. `into` is a path that does not
/// exist.
pub fn add_file(
    url: &str,
    sha256: Option<&str>,
    into: &Path,
    sources: Sources<'_>,
    progress: &Progress,
) -> Result<Added, Error> {
    let url = match sha256 {
        Some(sha256) => format!("{}#sha256={sha256}", url.split('#').next().unwrap_or(url)),
        None => url.to_owned(),
    };
    let file = FileEntry {
        destination: None,
        source: Source::parse(&url).map_err(|reason| malformed(&url, reason))?,
        exclude: Vec::new(),
        name: "ADD".to_owned(),
    };
    Ok(Added(Wanted::File(&file).fetch(sources, into, progress)?))
}

/// Fetches the repository that ADD names, at the commit that `name` stands for. `into` is a path that does not
/// exist.
pub fn add_repository(
    url: &str,
    name: Option<&str>,
    keep_git_dir: bool,
    into: &Path,
    sources: Sources<'_>,
    progress: &Progress,
) -> Result<Added, Error> {
    let origin = Origin::parse(url).map_err(|reason| malformed(url, reason))?;
    let repository = Repository {
        commit: name.map(str::to_owned),
        keep_git_dir,
        branch_first: true,
        ..Repository::new(origin, "ADD")
    };
    let fetched = Wanted::Repository(&repository).fetch(sources, into, progress)?;
    Ok(Added(fetched))
}

fn malformed(url: &str, malformed: Malformed) -> Error {
    let (url, reason) = (crate::secret::mask(url), malformed.message);
    source(format!("`{url}` cannot be used: {reason}"))
}

/// The credentials of a URL; a password that it leaves out, or all of it, is looked for in `~/.netrc`.
fn credentials(location: &Location) -> Result<Option<(String, Secret)>, Error> {
    let own = location.credentials();
    if location.url().password().is_some() {
        return Ok(own);
    }
    let host = location.url().host_str().unwrap_or_default();
    let user = own.as_ref().map(|(user, _)| user.as_str());
    let found = net::netrc(host, user).map_err(|error| {
        Error::from_source(Kind::Sources, error)
            .with_hint("correct the file, or name another one in `NETRC`")
    })?;
    Ok(found.or(own))
}

/// Fetches in threads. Gives the results in order, up to the first failure and with it.
fn side_by_side<'a>(
    wanted: &[Wanted<'a>],
    sources: Sources<'_>,
    into: &Path,
    progress: &Progress,
) -> Vec<(Wanted<'a>, Result<Entry, Error>)> {
    let stops: Vec<Arc<AtomicBool>> = wanted.iter().map(|_| Arc::default()).collect();
    let results: Vec<Mutex<Option<Result<Entry, Error>>>> =
        wanted.iter().map(|_| Mutex::default()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = wanted.get(number) else {
                return;
            };
            let progress = progress.branch(stops[number].clone());
            let result = one.fetch(sources, &into.join(number.to_string()), &progress);
            if result.is_err() {
                for later in &stops[number + 1..] {
                    later.store(true, Ordering::Relaxed);
                }
            }
            *results[number]
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..sources.jobs.clamp(1, wanted.len()) {
            scope.spawn(work);
        }
    });
    let mut failed = false;
    let results = results.into_iter().zip(wanted);
    results
        .filter_map(|(result, one)| {
            let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
            Some((*one, result?))
        })
        .take_while(|(_, result)| !std::mem::replace(&mut failed, result.is_err()))
        .collect()
}

impl Wanted<'_> {
    /// Whether it is a path of this machine that is copied, not fetched.
    fn is_local_file(&self) -> bool {
        matches!(self, Self::File(entry) if matches!(entry.source, Source::Local(_)))
    }

    /// Where the entry stands in the build file.
    fn name(&self) -> &str {
        match self {
            Self::File(entry) => &entry.name,
            Self::Repository(repository) => &repository.name,
        }
    }

    /// What tells it apart from all else that can be fetched, without credentials.
    fn key(&self) -> Digest {
        let (kind, commit) = match self {
            Self::File(_) => ("file", None),
            Self::Repository(repository) => {
                let kind = match (repository.keep_git_dir, repository.branch_first) {
                    (true, _) => "repository with .git",
                    (false, true) => "repository, branches first",
                    (false, false) => "repository",
                };
                (kind, repository.commit.as_deref())
            }
        };
        // Neither part can hold a line break: a build file allows none there.
        Digest::of(
            format!(
                "1\n{kind}\n{}\n{}",
                self.public(),
                commit.unwrap_or_default()
            )
            .as_bytes(),
        )
    }

    /// Where it lies, whole but for credentials.
    fn public(&self) -> String {
        match self {
            Self::File(entry) => match &entry.source {
                Source::Http(location) | Source::Ftp(location) => location.public().to_string(),
                Source::Scp(location) => format!("scp://{location}"),
                Source::Local(path) => path.clone(),
            },
            Self::Repository(repository) => match &repository.origin {
                Origin::Http(location) | Origin::Git(location) => location.public().to_string(),
                Origin::Ssh(location) => format!("ssh://{location}"),
                Origin::Local(path) => path.clone(),
            },
        }
    }

    /// Fetches it into `into`, unless it is kept and has not changed.
    fn fetch(self, sources: Sources<'_>, into: &Path, progress: &Progress) -> Result<Entry, Error> {
        progress.check()?;
        let part = progress.start(format!("fetch `{self}`"));
        let kept = Kept::open(sources.store, self.key())?;
        let known = match sources.again {
            Again::Anew => None,
            Again::Ask | Again::Offline => kept.validator(),
        };
        let answer = if sources.again == Again::Offline && !self.is_local_repository() {
            if known.is_none() {
                return Err(source(format!(
                    "`{self}` is not in the store, and nothing may be fetched with `--offline`"
                ))
                .with_hint("build once without `--offline`, with the same `--store`"));
            }
            Answer::Unchanged
        } else {
            let fetch = Fetch {
                net: sources.net,
                ssh: sources.ssh,
                progress,
                part: &part,
            };
            self.ask(into, known.as_ref(), fetch)
                // Whatever a cut connection looks like, the user knows why it was cut.
                .map_err(|error| error.or_cancelled(progress))?
        };
        Ok(match (answer, known) {
            (Answer::Fetched(validator), _) => {
                part.finish("");
                Entry {
                    path: into.to_owned(),
                    validator,
                    kept,
                    fresh: true,
                }
            }
            (Answer::Unchanged, Some(validator)) => {
                part.finish("unchanged");
                Entry {
                    path: kept.content(),
                    validator,
                    kept,
                    fresh: false,
                }
            }
            (Answer::Unchanged, None) => unreachable!("nothing was known"),
        })
    }

    fn ask(
        self,
        into: &Path,
        known: Option<&Validator>,
        fetch: Fetch<'_>,
    ) -> Result<Answer, Error> {
        match self {
            Self::Repository(repository) => git::fetch(repository, into, known, fetch),
            Self::File(entry) => match &entry.source {
                Source::Http(location) => http::fetch(location, into, known, fetch),
                Source::Ftp(location) => ftp::fetch(location, into, known, fetch),
                Source::Scp(location) => scp::fetch(location, into, known, fetch),
                Source::Local(_) => unreachable!("it is on this machine"),
            },
        }
    }

    /// Whether it is a repository of this machine, for which no network is needed.
    fn is_local_repository(&self) -> bool {
        matches!(self, Self::Repository(repository) if matches!(repository.origin, Origin::Local(_)))
    }
}

impl fmt::Display for Wanted<'_> {
    /// Where it lies, as messages may show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(entry) => entry.source.fmt(f),
            Self::Repository(repository) => repository.origin.fmt(f),
        }
    }
}

impl Fetched {
    /// The file or directory that the entry `name` fetched.
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        self.entries.get(name).map(|entry| entry.path.as_path())
    }

    /// By what a change of the entry `name` is seen; of a repository, what `repos.json` says of it.
    pub(crate) fn validator(&self, name: &str) -> Option<&Validator> {
        self.entries.get(name).map(|entry| &entry.validator)
    }

    /// Keeps what was fetched in the store, and removes what is left. Call it when all was copied.
    pub(crate) fn complete(mut self) -> Result<(), store::Error> {
        for entry in std::mem::take(&mut self.entries).into_values() {
            if entry.fresh {
                entry.kept.replace(&entry.path, &entry.validator)?;
            }
        }
        Ok(())
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        if let Some(scratch) = &self.scratch {
            // What cannot be removed now is removed by the next build.
            let _ = remove_tree(scratch.path());
        }
    }
}
