//! One file: its text becomes entries that are known to be right.
//!
//! Follows containers-registries.conf(5), both versions, and where that is silent what the container tools
//! do: unknown keys are passed over, keys are the same in either letter case, and of two entries for one
//! prefix the first counts.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{PolicyError, PolicyProblem, Whence};
use super::prefix::Prefix;
use super::{Entry, Mirror, Pulls};
use crate::registry::reference::{checked_place, masked};

/// The keys of version 2, of which some mean nothing here.
const VERSION_2: [&str; 6] = [
    "registry",
    "unqualified-search-registries",
    "credential-helpers",
    "short-name-mode",
    "aliases",
    "additional-layer-store-auth-helper",
];

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    registry: Vec<Spanned<Registry>>,
    registries: Option<Spanned<Lists>>,
}

/// `[[registry]]`
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    prefix: Option<Spanned<String>>,
    location: Option<Spanned<String>>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    pull_from_mirror: Option<Spanned<String>>,
    #[serde(default)]
    mirror: Vec<Spanned<MirrorTable>>,
}

/// `[[registry.mirror]]`
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: Option<Spanned<String>>,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Spanned<String>>,
}

/// `[registries]`, of version 1.
#[derive(Deserialize)]
struct Lists {
    search: Option<List>,
    insecure: Option<List>,
    block: Option<List>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    registries: Vec<Spanned<String>>,
}

/// Reads `text`, the content of `path`.
pub(super) fn parse(text: &str, path: &Path, is_drop_in: bool) -> Result<Vec<Entry>, PolicyError> {
    let file = File { text, path };
    let syntax = |error: toml::de::Error| {
        let problem = PolicyProblem::Syntax(error.message().to_owned());
        file.invalid(error.span().unwrap_or_default(), problem)
    };
    let mut root = DeTable::parse(text).map_err(syntax)?;
    lower_keys(root.get_mut()).map_err(|(at, key)| file.invalid(at, PolicyProblem::Twin(key)))?;
    let is_new = root
        .get_ref()
        .keys()
        .any(|key| VERSION_2.contains(&key.get_ref().as_ref()));
    let document = Document::deserialize(toml::de::Deserializer::from(root)).map_err(syntax)?;
    let entries = match document.registries {
        Some(lists) if lists.get_ref().says_something() => {
            if is_drop_in {
                return Err(file.invalid(lists.span(), PolicyProblem::OldDropIn));
            }
            if is_new {
                return Err(file.invalid(lists.span(), PolicyProblem::Mixed));
            }
            file.old_entries(lists.into_inner())?
        }
        _ => {
            let tables = document.registry.into_iter();
            tables
                .map(|table| file.entry(table))
                .collect::<Result<_, _>>()?
        }
    };
    check_conflicts(&entries)?;
    Ok(entries)
}

/// What an error needs to say where it is.
struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn whence(&self, at: &Range<usize>) -> Whence {
        let before = self.text.as_bytes().iter().take(at.start);
        Whence::File {
            path: PathBuf::from(self.path),
            line: 1 + before.filter(|byte| **byte == b'\n').count(),
        }
    }

    fn invalid(&self, at: Range<usize>, problem: PolicyProblem) -> PolicyError {
        PolicyError::Invalid {
            whence: self.whence(&at),
            problem,
        }
    }

    fn entry(&self, table: Spanned<Registry>) -> Result<Entry, PolicyError> {
        let at = table.span();
        let table = table.into_inner();
        if let Some(key) = table.pull_from_mirror {
            return Err(self.invalid(key.span(), PolicyProblem::NotAMirror));
        }
        let location = given(table.location);
        let prefix = given(table.prefix).or_else(|| location.clone());
        let no_location = || self.invalid(at.clone(), PolicyProblem::NoLocation);
        let prefix = self.prefix(&prefix.ok_or_else(no_location)?)?;
        let location = match location {
            Some(location) => Some(self.location(&location, prefix.suffix())?),
            None if prefix.is_wild() => None,
            None => return Err(no_location()),
        };
        let mut mirrors = Vec::new();
        for mirror in table.mirror {
            mirrors.push(self.mirror(mirror, table.mirror_by_digest_only, prefix.suffix())?);
        }
        Ok(Entry {
            prefix,
            location,
            insecure: table.insecure,
            blocked: table.blocked,
            mirrors,
            whence: self.whence(&at),
        })
    }

    fn mirror(
        &self,
        table: Spanned<MirrorTable>,
        by_digest_only: bool,
        suffix: &str,
    ) -> Result<Mirror, PolicyError> {
        let at = table.span();
        let table = table.into_inner();
        let location = given(table.location)
            .ok_or_else(|| self.invalid(at.clone(), PolicyProblem::NoLocation))?;
        let pulls = match given(table.pull_from_mirror) {
            Some(word) if by_digest_only => {
                return Err(self.invalid(word.span(), PolicyProblem::Twice));
            }
            None if by_digest_only => Pulls::ByDigest,
            None => Pulls::All,
            Some(word) => match word.get_ref().as_str() {
                "all" => Pulls::All,
                "digest-only" => Pulls::ByDigest,
                "tag-only" => Pulls::ByTag,
                other => {
                    let problem = PolicyProblem::PullFromMirror(other.to_owned());
                    return Err(self.invalid(word.span(), problem));
                }
            },
        };
        Ok(Mirror {
            location: self.location(&location, suffix)?,
            insecure: table.insecure,
            pulls,
            whence: self.whence(&at),
        })
    }

    /// The entries that two lists of hosts amount to.
    fn old_entries(&self, lists: Lists) -> Result<Vec<Entry>, PolicyError> {
        let mut entries: Vec<Entry> = Vec::new();
        for (list, blocks) in [(lists.block, true), (lists.insecure, false)] {
            for host in list.map(|list| list.registries).unwrap_or_default() {
                let prefix = self.prefix(&host)?;
                let known = entries.iter().position(|entry| entry.prefix == prefix);
                let at = if let Some(at) = known {
                    at
                } else {
                    entries.push(Entry {
                        location: Some(self.location(&host, "")?),
                        prefix,
                        insecure: false,
                        blocked: false,
                        mirrors: Vec::new(),
                        whence: self.whence(&host.span()),
                    });
                    entries.len() - 1
                };
                entries[at].blocked |= blocks;
                entries[at].insecure |= !blocks;
            }
        }
        Ok(entries)
    }

    fn prefix(&self, text: &Spanned<String>) -> Result<Prefix, PolicyError> {
        Prefix::parse(text.get_ref()).map_err(|problem| self.invalid(text.span(), problem))
    }

    /// A location without its trailing slashes and without `suffix`, the tag or digest of its prefix.
    fn location(&self, text: &Spanned<String>, suffix: &str) -> Result<String, PolicyError> {
        let place = text.get_ref().trim_end_matches('/');
        let place = place.strip_suffix(suffix).unwrap_or(place);
        match checked_place(place) {
            Ok(_) => Ok(place.to_owned()),
            Err(problem) => {
                let text_of = masked(text.get_ref());
                let problem = PolicyProblem::Place {
                    text: text_of,
                    problem,
                };
                Err(self.invalid(text.span(), problem))
            }
        }
    }
}

impl Lists {
    fn says_something(&self) -> bool {
        self.search.is_some() || self.insecure.is_some() || self.block.is_some()
    }
}

/// What leads to one place has to agree on whether it may be used, and how.
fn check_conflicts(entries: &[Entry]) -> Result<(), PolicyError> {
    for (number, entry) in entries.iter().enumerate() {
        let same = |other: &&Entry| match (&entry.location, &other.location) {
            (None, None) => entry.prefix == other.prefix,
            (one, other) => one == other,
        };
        let Some(other) = entries[..number].iter().find(same) else {
            continue;
        };
        let key = if entry.insecure != other.insecure {
            "insecure"
        } else if entry.blocked != other.blocked {
            "blocked"
        } else {
            continue;
        };
        let location = entry
            .location
            .as_deref()
            .unwrap_or(entry.prefix.text())
            .to_owned();
        return Err(PolicyError::Invalid {
            whence: entry.whence.clone(),
            problem: PolicyProblem::Conflict { location, key },
        });
    }
    Ok(())
}

/// What is empty counts as not given.
fn given(value: Option<Spanned<String>>) -> Option<Spanned<String>> {
    value.filter(|value| !value.get_ref().is_empty())
}

/// Makes keys lower case; an error is the place of one that is then there twice. Aliases are no keys of the
/// format.
fn lower_keys(table: &mut DeTable<'_>) -> Result<(), (Range<usize>, String)> {
    for (mut key, mut value) in std::mem::take(table) {
        let lower = key.get_ref().to_ascii_lowercase();
        if table.contains_key(lower.as_str()) {
            return Err((key.span(), lower));
        }
        match value.get_mut() {
            DeValue::Table(table) if lower != "aliases" => lower_keys(table)?,
            DeValue::Array(array) => {
                for value in array.iter_mut() {
                    if let DeValue::Table(table) = value.get_mut() {
                        lower_keys(table)?;
                    }
                }
            }
            _ => {}
        }
        *key.get_mut() = lower.into();
        table.insert(key, value);
    }
    Ok(())
}
