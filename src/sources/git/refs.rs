//! What the names of a repository stand for.

use std::collections::{BTreeMap, BTreeSet};

use git2::{Oid, Reference};

use crate::error::Error;
use crate::sources::error::source;

/// Where names of branches and of tags begin.
const HEADS: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";

/// The least that is taken for an abbreviated id; git's own limit.
const SHORTEST: usize = 4;

/// Names and what they stand for.
#[derive(Debug, Default)]
pub(super) struct Refs {
    names: BTreeMap<String, Ref>,
    /// The branch that `HEAD` stands for, such as `refs/heads/main`.
    default: Option<String>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
struct Ref {
    id: Oid,
    /// What an annotated tag is for.
    peeled: Option<Oid>,
}

/// Which commit is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What a name stands for.
    Named {
        /// A commit, or the tag that leads to it.
        id: Oid,
        /// The commit, as far as the server says.
        commit: Oid,
        /// The branch that is checked out with it, such as `refs/heads/main`.
        branch: Option<String>,
    },
    /// The commit of this id.
    Id(Oid),
    /// The only commit whose id begins so; in lower case.
    Abbreviated(String),
}

/// The id in `text`, if it is one that is not abbreviated.
pub(super) fn full_id(text: &str) -> Option<Oid> {
    (text.len() == 40).then(|| Oid::from_str(text).ok())?
}

impl Refs {
    /// Adds a name. Strange ones, which git itself would not make, are passed over.
    pub(super) fn insert(&mut self, name: &str, id: Oid) {
        if !id.is_zero() && Reference::is_valid_name(name) {
            self.names.insert(name.to_owned(), Ref { id, peeled: None });
        }
    }

    /// Says what an annotated tag is for.
    pub(super) fn peel(&mut self, name: &str, id: Oid) {
        if let Some(reference) = self.names.get_mut(name) {
            reference.peeled = Some(id);
        }
    }

    /// Says which branch `HEAD` stands for.
    pub(super) fn set_default(&mut self, branch: &str) {
        self.default = Some(branch.to_owned());
    }

    /// Whether one of the names stands for `id`.
    pub(super) fn contains(&self, id: Oid) -> bool {
        self.names.values().any(|reference| reference.id == id)
    }

    /// Everything that a clone has: the ids of all branches and tags.
    pub(super) fn all(&self) -> Vec<Oid> {
        let cloned = self.names.iter().filter(|(name, _)| {
            name.starts_with(HEADS) || name.starts_with(TAGS) || *name == "HEAD"
        });
        let ids: BTreeSet<Oid> = cloned.map(|(_, reference)| reference.id).collect();
        ids.into_iter().collect()
    }

    /// What `name` stands for, as for `git checkout` in a fresh clone: a full id, a complete name
    /// (`HEAD`, `refs/…`), the default branch, `heads/…` or `tags/…`, a tag, a branch, `origin/…`, and
    /// an abbreviated id, in this order; with `branch_first`, branches come before tags. No name means `HEAD`.
    pub(super) fn resolve(&self, name: Option<&str>, branch_first: bool) -> Result<Wanted, Error> {
        if self.names.is_empty() {
            return Err(source("the repository is empty"));
        }
        let Some(name) = name else {
            return self.named("HEAD").ok_or_else(|| {
                source("the repository has no default branch")
                    .with_hint("name a branch, a tag or an id in `commit_id`")
            });
        };
        if let Some(id) = full_id(name) {
            return Ok(Wanted::Id(id));
        }
        let name = if name == "@" { "HEAD" } else { name };
        let branch = format!("{HEADS}{name}");
        let default = self.default.as_ref().filter(|default| **default == branch);
        let remote = name.strip_prefix("origin/");
        let candidates = [
            Some(name.to_owned()),
            default.cloned(),
            Some(format!("refs/{name}")),
            branch_first.then(|| branch.clone()),
            Some(format!("{TAGS}{name}")),
            Some(branch),
            remote.map(|name| format!("{HEADS}{name}")),
        ];
        let mut candidates = candidates.into_iter().flatten();
        if let Some(named) = candidates.find_map(|candidate| self.named(&candidate)) {
            return Ok(named);
        }
        let is_hex = name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex && (SHORTEST..40).contains(&name.len()) {
            return Ok(self.abbreviated(&name.to_ascii_lowercase()));
        }
        Err(self.no_commit(name))
    }

    /// The full name of what `name` stands for, if a repository of this commit alone can have it.
    pub(super) fn kept_name(
        &self,
        name: Option<&str>,
        id: Oid,
        branch: Option<&str>,
    ) -> Option<(String, Oid)> {
        let tag = name.map(|name| format!("{TAGS}{}", name.trim_start_matches(TAGS)));
        let full = branch.map(str::to_owned).or(tag)?;
        let is_named = self.names.get(&full).is_some_and(|known| known.id == id);
        is_named.then_some((full, id))
    }

    /// The error for a name that is not known.
    pub(super) fn no_commit(&self, name: &str) -> Error {
        let limit = (name.chars().count() / 3).min(3);
        let short = self.names.keys().filter_map(|full| {
            let short = full.strip_prefix(HEADS).or(full.strip_prefix(TAGS));
            short.map(str::to_owned)
        });
        let nearest = short
            .map(|other| (strsim::osa_distance(name, &other), other))
            .filter(|(distance, _)| *distance <= limit)
            .min();
        let error = source(format!("it has no commit, tag or branch `{name}`"));
        match nearest {
            Some((_, similar)) => error.with_hint(format!("did you mean `{similar}`?")),
            None => {
                error.with_hint("check `commit_id`: it is an id, a tag or a branch, and was pushed")
            }
        }
    }

    /// The branches for `commit` that a clone has: the default one, and the one that was checked out.
    pub(super) fn heads(&self, commit: Oid, branch: Option<&str>) -> Vec<String> {
        let branches: BTreeSet<&str> = self.default.as_deref().into_iter().chain(branch).collect();
        let here = branches.into_iter().filter(|name| {
            let reference = self.names.get(*name);
            reference.is_some_and(|reference| reference.id == commit)
        });
        here.filter_map(|name| name.strip_prefix(HEADS).map(str::to_owned))
            .collect()
    }

    /// The tags for `commit`, sorted.
    pub(super) fn tags(&self, commit: Oid) -> Vec<String> {
        let tags = self.names.iter().filter_map(|(name, reference)| {
            let tag = name.strip_prefix(TAGS)?;
            (reference.commit() == commit).then(|| tag.to_owned())
        });
        tags.collect()
    }

    fn named(&self, name: &str) -> Option<Wanted> {
        let reference = self.names.get(name)?;
        let branch = if name == "HEAD" {
            self.default.clone()
        } else {
            name.starts_with(HEADS).then(|| name.to_owned())
        };
        Some(Wanted::Named {
            id: reference.id,
            commit: reference.commit(),
            branch,
        })
    }

    /// An abbreviation of what a name stands for costs no history. That another commit begins so too is
    /// then not seen.
    fn abbreviated(&self, start: &str) -> Wanted {
        let ids = self
            .names
            .values()
            .flat_map(|reference| [reference.id, reference.commit()]);
        let commits = ids.filter(|id| id.to_string().starts_with(start));
        let mut found: BTreeSet<Oid> = commits.collect();
        match (found.pop_first(), found.pop_first()) {
            (Some(id), None) => Wanted::Id(id),
            _ => Wanted::Abbreviated(start.to_owned()),
        }
    }
}

impl Ref {
    fn commit(self) -> Oid {
        self.peeled.unwrap_or(self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> Oid {
        Oid::from_str(&digit.to_string().repeat(40)).expect("an id")
    }

    fn refs() -> Refs {
        let mut refs = Refs::default();
        for (name, digit) in [
            ("HEAD", '1'),
            ("refs/heads/main", '1'),
            ("refs/heads/dev", '2'),
            ("refs/heads/both", '3'),
            ("refs/tags/both", '4'),
            ("refs/tags/main", '5'),
            ("refs/tags/v1", '6'),
            ("refs/heads/v1.0/x", '7'),
            ("refs/heads/beef", '8'),
            ("refs/pull/1/head", '9'),
            ("refs/tags/also", '1'),
            ("refs/heads/..", 'f'),
        ] {
            refs.insert(name, id(digit));
        }
        refs.peel("refs/tags/v1", id('a'));
        refs.set_default("refs/heads/main");
        refs
    }

    #[test]
    fn names_stand_for_what_git_takes_them_for() {
        for (name, wanted, head) in [
            (None, '1', Some("refs/heads/main")),
            (Some("HEAD"), '1', Some("refs/heads/main")),
            (Some("@"), '1', Some("refs/heads/main")),
            (Some("dev"), '2', Some("refs/heads/dev")),
            (Some("both"), '4', None),
            (Some("heads/both"), '3', Some("refs/heads/both")),
            (Some("main"), '1', Some("refs/heads/main")),
            (Some("tags/main"), '5', None),
            (Some("origin/both"), '3', Some("refs/heads/both")),
            (Some("v1.0/x"), '7', Some("refs/heads/v1.0/x")),
            (Some("beef"), '8', Some("refs/heads/beef")),
            (Some("refs/pull/1/head"), '9', None),
        ] {
            let found = refs().resolve(name, false).expect("it is there");
            let expected = Wanted::Named {
                id: id(wanted),
                commit: id(wanted),
                branch: head.map(str::to_owned),
            };
            assert_eq!(found, expected, "{name:?}");
        }
        let tag = Wanted::Named {
            id: id('6'),
            commit: id('a'),
            branch: None,
        };
        assert_eq!(refs().resolve(Some("v1"), false).expect("a tag"), tag);
    }

    #[test]
    fn ids_are_told_from_names() {
        let full = "c".repeat(40);
        for (name, wanted) in [
            (&*full, Wanted::Id(id('c'))),
            ("2222", Wanted::Id(id('2'))),
            ("AAAA", Wanted::Id(id('a'))),
            ("CCCC", Wanted::Abbreviated("cccc".to_owned())),
        ] {
            assert_eq!(refs().resolve(Some(name), false).expect("an id"), wanted);
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        for (name, words) in [
            ("mian", "no commit, tag or branch `mian`"),
            ("..", "no commit, tag or branch `..`"),
            ("abc", "no commit, tag or branch `abc`"),
        ] {
            let error = refs()
                .resolve(Some(name), false)
                .expect_err("it is not there");
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = refs().no_commit("mian");
        assert_eq!(error.hint(), Some("did you mean `main`?"));
        let error = Refs::default().resolve(None, false);
        let error = error.expect_err("there is nothing");
        assert_eq!(error.to_string(), "the repository is empty");
        let mut headless = Refs::default();
        headless.insert("refs/heads/x", id('1'));
        let error = headless.resolve(None, false).expect_err("no `HEAD`");
        assert_eq!(error.to_string(), "the repository has no default branch");
    }

    #[test]
    fn heads_and_tags_are_those_of_a_clone() {
        let refs = refs();
        assert_eq!(refs.heads(id('1'), None), ["main"]);
        assert_eq!(refs.heads(id('2'), Some("refs/heads/dev")), ["dev"]);
        assert_eq!(refs.heads(id('2'), None), [""; 0]);
        assert_eq!(refs.tags(id('1')), ["also"]);
        assert_eq!(refs.tags(id('a')), ["v1"]);
        assert_eq!(refs.all().len(), 8);
    }
}
