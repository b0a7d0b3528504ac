//! Repositories by git, without the `git` program and without a clone: the names of the repository are
//! asked for, then the one commit, and its tree is written out.
//!
//! The protocol is spoken here and not by libgit2, for two reasons: all connections go the way of the other
//! sources (certificates, proxies, patience, ssh), and version 2 of the protocol, which libgit2 does not
//! know, gives any commit without its history. libgit2 unpacks what comes, and reads local repositories.
//!
//! | file | holds |
//! |---|---|
//! | `link.rs` | the ways to a server: HTTP, `git://`, ssh |
//! | `packet.rs`, `server.rs` | what is said there |
//! | `refs.rs` | which commit a name stands for |
//! | `objects.rs` | where objects are kept and found |
//! | `packs.rs` | large files out of packs |
//! | `checkout.rs` | a tree becomes a directory |
//! | `keep.rs` | its `.git`, where that is wanted |

mod checkout;
mod error;
mod keep;
mod link;
mod objects;
mod packet;
mod packs;
mod refs;
mod server;

#[cfg(test)]
mod tests;

use std::path::Path;

use git2::Oid;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::json;

use crate::buildfile::{self, Origin, Repository, SshLocation};
use crate::error::{Error, Wrap as _};
use crate::files;

use super::{Answer, Fetch, Validator};
use link::Link;
use objects::Objects;
use refs::{Refs, Wanted, full_id};
use server::{Depth, Server};

use error::Problem;

/// The commit that steps to an ancestor begin at, in a validator alone.
pub(crate) const FROM: &str = "from";

/// Clones `repository` into the directory `into`, without `.git` unless that is wanted. The validator is what `repos.json` says of
/// the repository: `commit`, `heads`, `tags`, `remotes`.
pub(super) fn fetch(
    repository: &Repository,
    into: &Path,
    known: Option<&Validator>,
    fetch: Fetch<'_>,
) -> Result<Answer, Error> {
    clone(repository, into, known, fetch)
        .map_err(Problem::into_error)
        .wrap(|| format!("failed to clone `{}`", repository.origin))
}

fn clone(
    repository: &Repository,
    into: &Path,
    known: Option<&Validator>,
    fetch: Fetch<'_>,
) -> Result<Answer, Problem> {
    let name = repository.commit.as_deref();
    let known_commit = known.and_then(|known| Oid::from_str(known["commit"].as_str()?).ok());
    if known_commit.is_some() && known_commit == name.and_then(full_id) {
        return Ok(Answer::Unchanged);
    }
    let (name, steps) = name.map_or((None, ""), |name| {
        let (name, steps) = buildfile::split_steps(name);
        (Some(name), steps)
    });
    let source = Source::open(repository, fetch)?;
    let wanted = source.refs().resolve(name, repository.branch_first)?;
    let branch = match &wanted {
        Wanted::Named { branch, .. } if steps.is_empty() => branch.clone(),
        _ => None,
    };
    let tag = match &wanted {
        // What ADD checks; `repos.json` says nothing of it.
        Wanted::Named { id, .. } if repository.branch_first => Some(id.to_string()),
        _ => None,
    };
    let validator = |refs: &Refs, commit: Oid| {
        let mut validator = json!({
            "commit": commit.to_string(),
            "heads": refs.heads(commit, branch.as_deref()),
            "tags": refs.tags(commit),
            "remotes": { "origin": public(&repository.origin) },
        });
        if let Some(tag) = &tag {
            validator["tag"] = json!(tag);
        }
        if let (false, Wanted::Named { commit, .. }) = (steps.is_empty(), &wanted) {
            validator[FROM] = commit.to_string().into();
        }
        validator
    };
    let expected = match &wanted {
        // The way from a commit to an ancestor never changes.
        Wanted::Named { commit, .. } if !steps.is_empty() => {
            let from = known.and_then(|known| known[FROM].as_str());
            known_commit.filter(|_| from == Some(&*commit.to_string()))
        }
        _ if !steps.is_empty() => None,
        Wanted::Named { commit, .. } => Some(*commit),
        Wanted::Id(id) => Some(*id),
        Wanted::Abbreviated(start) => {
            known_commit.filter(|commit| commit.to_string().starts_with(start))
        }
    };
    if expected.is_some_and(|commit| known == Some(&validator(source.refs(), commit))) {
        source.leave();
        return Ok(Answer::Unchanged);
    }
    let parent = into.parent().unwrap_or(Path::new("."));
    let with_history = !steps.is_empty();
    let (objects, refs) = source.objects(repository, &wanted, with_history, parent, fetch)?;
    let commit = match &wanted {
        Wanted::Named { id, .. } | Wanted::Id(id) => objects.commit(*id)?,
        Wanted::Abbreviated(start) => objects.abbreviated(start)?,
    };
    let mut commit = commit.ok_or_else(|| refs.no_commit(name.unwrap_or("HEAD")))?;
    if with_history {
        let ancestor = objects.ancestor(&commit, steps)?;
        commit = ancestor
            .ok_or_else(|| refs.no_commit(repository.commit.as_deref().unwrap_or("HEAD")))?;
    }
    let left_out = checkout::check_out(&objects, commit.tree_id(), into, fetch.progress)?;
    if repository.keep_git_dir {
        let reference = match &wanted {
            Wanted::Named { id, .. } => refs.kept_name(name, *id, branch.as_deref()),
            _ => None,
        };
        let reference = reference.as_ref().map(|(name, id)| (name.as_str(), *id));
        let origin = public(&repository.origin);
        keep::write(&commit, &objects, reference, &origin, into, fetch.progress)?;
    }
    tell(&left_out, &repository.name, fetch);
    Ok(Answer::Fetched(validator(&refs, commit.id())))
}

/// A repository whose names are known.
enum Source<'a> {
    Local(Objects, Refs),
    Remote(Server<'a>),
}

impl<'a> Source<'a> {
    fn open(repository: &Repository, fetch: Fetch<'a>) -> Result<Self, Problem> {
        let link = match &repository.origin {
            Origin::Http(location) => Link::http(location, repository, fetch)?,
            Origin::Git(location) => Link::git(location, fetch)?,
            Origin::Ssh(location) => Link::ssh(location, repository.ssh_key.as_ref(), fetch)?,
            Origin::Local(path) => {
                let path = files::expand(path)?;
                let (objects, refs) = Objects::open(&path)?;
                return Ok(Self::Local(objects, refs));
            }
        };
        Ok(Self::Remote(Server::greet(
            link,
            repository.commit.as_deref(),
        )?))
    }

    fn refs(&self) -> &Refs {
        match self {
            Self::Local(_, refs) => refs,
            Self::Remote(server) => server.refs(),
        }
    }

    fn leave(self) {
        if let Self::Remote(server) = self {
            server.leave();
        }
    }

    /// The objects of the wanted commit: without its history if that is not asked for and the server gives it
    /// so, else with that of all branches and tags.
    fn objects(
        self,
        repository: &Repository,
        wanted: &Wanted,
        with_history: bool,
        parent: &Path,
        fetch: Fetch<'a>,
    ) -> Result<(Objects, Refs), Problem> {
        let mut server = match self {
            Self::Local(objects, refs) => return Ok((objects, refs)),
            Self::Remote(server) => server,
        };
        match wanted {
            Wanted::Named { id, .. } if !with_history => {
                let objects = Objects::store(server.objects(&[*id], Depth::One)?, parent, fetch)?;
                return Ok((objects, server.into_refs()));
            }
            Wanted::Id(id) if !with_history && server.may_give(*id) => {
                let pack = server.objects(&[*id], Depth::One);
                match pack.and_then(|pack| Objects::store(pack, parent, fetch)) {
                    Ok(objects) => return Ok((objects, server.into_refs())),
                    // It has no such commit, or does not give it by its id: that ends the conversation.
                    Err(Problem::Refused(_) | Problem::Broken(_)) => {
                        let Self::Remote(again) = Self::open(repository, fetch)? else {
                            unreachable!("it was remote before");
                        };
                        server = again;
                    }
                    Err(problem) => return Err(problem),
                }
            }
            _ => {}
        }
        let all = server.refs().all();
        let objects = Objects::store(server.objects(&all, Depth::All)?, parent, fetch)?;
        Ok((objects, server.into_refs()))
    }
}

/// What is not there, as in a clone without options.
fn tell(left_out: &checkout::LeftOut, name: &str, fetch: Fetch<'_>) {
    for (paths, what, stays) in [
        (&left_out.submodules, "submodules", "stay empty"),
        (&left_out.pointers, "files of Git LFS", "stay pointers"),
    ] {
        if let Some(first) = paths.first() {
            let count = paths.len();
            let text = format!("`{name}` has {what}, which {stays}: `{first}` ({count} in all)");
            fetch.progress.warn(text);
        }
    }
}

/// A location as a URL that git takes, without secrets.
fn public(origin: &Origin) -> String {
    match origin {
        Origin::Http(location) | Origin::Git(location) => {
            let mut url = location.public();
            // It may be a signature.
            url.set_query(None);
            url.set_fragment(None);
            url.into()
        }
        Origin::Ssh(location) => ssh_url(location),
        Origin::Local(path) => path.clone(),
    }
}

/// What a path in a URL cannot hold as it is.
const IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?');

fn ssh_url(location: &SshLocation) -> String {
    let user = location
        .user
        .as_ref()
        .map_or_else(String::new, |user| format!("{user}@"));
    let host = if location.host.contains(':') {
        format!("[{}]", location.host)
    } else {
        location.host.clone()
    };
    let path = &location.path;
    let is_absolute = path.starts_with('/');
    if !is_absolute && location.port.is_none() {
        return format!("{user}{host}:{path}");
    }
    let port = location
        .port
        .map_or_else(String::new, |port| format!(":{port}"));
    let slash = if is_absolute { "" } else { "/" };
    let path = utf8_percent_encode(path, IN_PATH);
    format!("ssh://{user}{host}{port}{slash}{path}")
}
