//! Repositories that ADD names: `URL?query#name:directory`.
//!
//! Reference, "Adding files from a Git repository" and "URL queries". A query and a fragment, or a query and a
//! flag, that contradict each other are an error: whoever wrote them wants two different things.

use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::error::quoted;
use super::problem::Problem;
use super::value;
use crate::secret;

/// The keys of a query, for hints.
const KEYS: &str = "the keys are `ref`, `branch`, `tag`, `commit`, `checksum`, `subdir`, `keep-git-dir`, \
                    `submodules`, `mtime` and `fetch-by-commit`";

/// The length of a commit's id, with SHA-1 and with SHA-256.
const ID_LENGTHS: [usize; 2] = [40, 64];

/// A repository that ADD clones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Git {
    /// Where it lies, without query and fragment.
    pub url: String,
    /// A branch, a tag or a commit; absent, the server's `HEAD`.
    pub name: Option<String>,
    /// The directory in it that is copied; empty for all of it.
    pub directory: String,
    /// How the commit's id begins.
    pub checksum: Option<String>,
    /// Whether `.git` comes along.
    pub keep_git_dir: bool,
}

/// What is wrong with the query of a repository's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// A key that means nothing.
    #[error("there is no key `{0}`")]
    Unknown(String),
    /// A key without its value.
    #[error("`{0}` has no value")]
    Missing(String),
    /// A key with several values.
    #[error("`{0}` is there twice")]
    Twice(String),
    /// A value that the key does not take.
    #[error("`{key}` cannot be `{value}`")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// Two that say different things.
    #[error("{one} and {other} contradict each other")]
    Contradiction {
        /// What says one thing.
        one: String,
        /// What says another.
        other: String,
    },
    /// A commit that is fetched by its id needs the id.
    #[error("`fetch-by-commit` needs the whole id of a commit")]
    NoCommit,
}

impl QueryError {
    /// What to do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Unknown(_) => KEYS,
            Self::Missing(_) => "write `KEY=VALUE`",
            Self::Twice(_) | Self::Contradiction { .. } => "keep one of them",
            Self::Value {
                key: "submodules", ..
            } => "submodules are not fetched: `ADD` each of them",
            Self::Value { key: "mtime", .. } => "leave `mtime` out: the tool sets the times",
            Self::Value { .. } => "write `true` or `false`",
            Self::NoCommit => "add `commit=` and the id",
        }
    }
}

/// Whether a word names a repository.
pub(super) fn is_git(word: &str) -> bool {
    let location = word.split(['#', '?']).next().unwrap_or(word);
    if let Some((scheme, _)) = word.split_once("://") {
        return match scheme {
            "http" | "https" => location.strip_suffix(".git").is_some(),
            "git" | "ssh" => true,
            _ => false,
        };
    }
    // `user@host:path`
    let is_part = |text: &str, also: char| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == also;
        !text.is_empty() && text.chars().all(plain)
    };
    word.split_once('@').is_some_and(|(user, rest)| {
        let host = rest.split_once(':').map(|(host, _)| host);
        is_part(user, '_') && host.is_some_and(|host| is_part(host, '.'))
    })
}

/// Reads a word that names a repository; `keep_git_dir` and `checksum` are what the flags say.
pub(super) fn parse(
    word: &str,
    keep_git_dir: Option<bool>,
    checksum: Option<&str>,
) -> Result<Git, Problem> {
    let (location, fragment) = word.split_once('#').unwrap_or((word, ""));
    let (url, query) = location.split_once('?').unwrap_or((location, ""));
    // The form without a scheme is no URL, and nothing in it is encoded.
    let fragment = if url.contains("://") {
        percent_decode_str(fragment)
            .decode_utf8_lossy()
            .into_owned()
    } else {
        fragment.to_owned()
    };
    let (name, directory) = fragment.split_once(':').unwrap_or((&fragment, ""));
    let mut reader = Reader {
        git: Git {
            url: url.to_owned(),
            name: Some(name.to_owned()).filter(|name| !name.is_empty()),
            directory: inside(directory),
            checksum: checksum.map(str::to_owned),
            keep_git_dir: keep_git_dir.unwrap_or(false),
        },
        keep_git_dir,
        by_commit: false,
    };
    let read = reader.query(query);
    read.map_err(|error| Problem::Query {
        url: quoted(&secret::mask(url)),
        error,
    })?;
    let git = reader.git;
    if let Some(checksum) = git.checksum.as_deref().filter(|text| !is_start_of_id(text)) {
        return Err(Problem::Commit(quoted(checksum)));
    }
    Ok(git)
}

/// Whether a commit's id can begin so.
pub(super) fn is_start_of_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

struct Reader {
    git: Git,
    /// What has been said of it so far.
    keep_git_dir: Option<bool>,
    by_commit: bool,
}

impl Reader {
    fn query(&mut self, query: &str) -> Result<(), QueryError> {
        let mut seen: Vec<String> = Vec::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if seen.iter().any(|seen| *seen == *key) {
                return Err(QueryError::Twice(quoted(&key)));
            }
            self.pair(&key, &value)?;
            seen.push(key.into_owned());
        }
        if self.by_commit {
            let whole = |text: &&String| ID_LENGTHS.contains(&text.len()) && is_start_of_id(text);
            let commit = self.git.checksum.iter().chain(&self.git.name).find(whole);
            self.git.name = Some(commit.ok_or(QueryError::NoCommit)?.clone());
        }
        Ok(())
    }

    fn pair(&mut self, key: &str, value: &str) -> Result<(), QueryError> {
        match (key, value) {
            ("keep-git-dir", _) => {
                let keeps = truth("keep-git-dir", value)?;
                if self.keep_git_dir.is_some_and(|flag| flag != keeps) {
                    return Err(contradiction("`keep-git-dir`", "`--keep-git-dir`"));
                }
                self.git.keep_git_dir = keeps;
            }
            ("fetch-by-commit", _) => self.by_commit = truth("fetch-by-commit", value)?,
            ("submodules", _) => {
                if truth("submodules", value)? {
                    return Err(not_a_value("submodules", "true"));
                }
            }
            ("ref" | "branch" | "tag" | "commit" | "checksum" | "subdir" | "mtime", "") => {
                return Err(QueryError::Missing(key.to_owned()));
            }
            ("ref", name) => self.name(name.to_owned())?,
            ("branch", name) => self.name(full(name, "refs/heads/"))?,
            ("tag", name) => self.name(full(name, "refs/tags/"))?,
            ("commit" | "checksum", id) => {
                let known = self.git.checksum.replace(id.to_owned());
                check("`--checksum` or `commit`", known.as_deref(), id)?;
            }
            ("subdir", path) => {
                let known = std::mem::replace(&mut self.git.directory, inside(path));
                let known = Some(known).filter(|known| !known.is_empty());
                check("the directory", known.as_deref(), &self.git.directory)?;
            }
            ("mtime", "checkout") => {}
            ("mtime", other) => return Err(not_a_value("mtime", other)),
            (other, _) => return Err(QueryError::Unknown(quoted(other))),
        }
        Ok(())
    }

    fn name(&mut self, name: String) -> Result<(), QueryError> {
        check("the name", self.git.name.as_deref(), &name)?;
        self.git.name = Some(name);
        Ok(())
    }
}

/// A path in a repository without `.` and `..`, which stop at its root.
fn inside(path: &str) -> String {
    value::absolute("/", path)
        .trim_start_matches('/')
        .to_owned()
}

/// Whether what is known already is the same.
fn check(what: &str, known: Option<&str>, value: &str) -> Result<(), QueryError> {
    match known.filter(|known| *known != value) {
        Some(known) => Err(contradiction(
            &format!("{what} `{}`", quoted(known)),
            &format!("`{}`", quoted(value)),
        )),
        None => Ok(()),
    }
}

fn contradiction(one: &str, other: &str) -> QueryError {
    QueryError::Contradiction {
        one: one.to_owned(),
        other: other.to_owned(),
    }
}

fn full(name: &str, prefix: &str) -> String {
    if name.starts_with(prefix) {
        name.to_owned()
    } else {
        format!("{prefix}{name}")
    }
}

/// A key alone is true.
fn truth(key: &'static str, text: &str) -> Result<bool, QueryError> {
    match text {
        "" => Ok(true),
        text => value::truth(text).ok_or_else(|| not_a_value(key, text)),
    }
}

fn not_a_value(key: &'static str, value: &str) -> QueryError {
    let value = quoted(value);
    QueryError::Value { key, value }
}
