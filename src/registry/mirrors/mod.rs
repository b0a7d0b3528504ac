//! Where images really are: mirrors, other places, and what is blocked.
//!
//! A reference is what an image is called, and stays that. Before it is pulled or pushed, [`Registries`]
//! says which registries to speak to for it, by the files that podman, buildah and skopeo read too, and by
//! `--registry-mirror`. For a reference one entry counts: the one with the longest prefix of its name.
//!
//! Follows containers-registries.conf(5).
//!
//! | file | holds |
//! |---|---|
//! | `search.rs` | which files there are |
//! | `file.rs` | what a file says |
//! | `prefix.rs` | which images an entry is for |
//! | `error.rs` | what can be wrong |

mod error;
mod file;
mod prefix;
mod search;

use std::collections::BTreeMap;

use fs_err as fs;

use super::Reference;
use super::reference::{DOCKER_HUB, canonical, checked_place, masked};
use prefix::Prefix;

pub use error::{PolicyError, PolicyProblem, Whence};
pub(crate) use search::Search;

/// Where images are really fetched from and pushed to. The default knows of nothing: every image is where
/// its reference says.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    /// By their prefixes.
    entries: BTreeMap<String, Entry>,
    /// Of `--registry-mirror`, with the registry that each stands for.
    added: Vec<(String, Mirror)>,
}

/// A place to speak to for a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Registry and repository to speak to, with the tag and digest of what was named.
    pub reference: Reference,
    /// Whether it may be spoken to without verification, and by plain HTTP.
    pub insecure: bool,
    /// Whether it is only a copy of the place that counts.
    pub is_mirror: bool,
}

/// `[[registry]]`
#[derive(Debug, Clone)]
struct Entry {
    prefix: Prefix,
    /// What takes the prefix's place; `None` if nothing does.
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
    whence: Whence,
}

/// `[[registry.mirror]]`
#[derive(Debug, Clone)]
struct Mirror {
    location: String,
    insecure: bool,
    pulls: Pulls,
    whence: Whence,
}

/// What a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pulls {
    All,
    ByDigest,
    ByTag,
}

impl Registries {
    /// Reads `registries.conf` and its drop-ins, and adds `mirrors`: values of `--registry-mirror`, which are
    /// `[REGISTRY=][http[s]://]HOST[:PORT][/PATH]`. Without a registry they are for Docker Hub; they are asked
    /// before those of the files, in their order.
    ///
    /// The files are the one of `CONTAINERS_REGISTRIES_CONF` alone, or else the main file of
    /// `$XDG_CONFIG_HOME/containers` with its drop-ins, or else the main file and the drop-ins of
    /// `/etc/containers` with the user's drop-ins; and the one of `CONTAINERS_REGISTRIES_CONF_OVERRIDE` after
    /// them. A later entry takes the place of an earlier one with the same prefix.
    pub fn load(mirrors: &[String]) -> Result<Self, PolicyError> {
        Self::load_from(&Search::from_env(), mirrors)
    }

    /// As [`load`](Self::load), from other places.
    pub(crate) fn load_from(search: &Search, mirrors: &[String]) -> Result<Self, PolicyError> {
        let mut registries = Self::default();
        for value in mirrors {
            registries.added.push(added(value)?);
        }
        for found in search.files()? {
            let text = fs::read_to_string(&found.path)?;
            registries.add(file::parse(&text, &found.path, found.is_drop_in)?);
        }
        Ok(registries)
    }

    /// Adds the entries of a file. Backwards, so that of its own entries the first remains.
    fn add(&mut self, entries: Vec<Entry>) {
        for entry in entries.into_iter().rev() {
            self.entries.insert(entry.prefix.text().to_owned(), entry);
        }
    }

    /// Where to pull `reference` from, in order. What counts comes last, which is what `location` makes of
    /// the reference; if that is blocked, only mirrors are left.
    pub fn sources(&self, reference: &Reference) -> Result<Vec<Place>, PolicyError> {
        let (name, entry) = self.entry(reference);
        let mut places: Vec<Place> = Vec::new();
        let mut add = |place: Place| {
            let is_known = places
                .iter()
                .any(|known| known.reference == place.reference);
            if !is_known && self.blocking(&place.reference).is_none() {
                places.push(place);
            }
        };
        for (registry, mirror) in &self.added {
            if registry.eq_ignore_ascii_case(reference.registry()) {
                let rest = format!("/{}", reference.repository());
                add(mirror.place(reference, &rest)?);
            }
        }
        let rest = entry.and_then(|entry| entry.prefix.rest(reference, &name));
        if let (Some(entry), Some(rest)) = (entry, rest) {
            for mirror in entry
                .mirrors
                .iter()
                .filter(|mirror| mirror.holds(reference))
            {
                add(mirror.place(reference, rest)?);
            }
        }
        let origin = Place {
            reference: match (entry, rest) {
                (
                    Some(Entry {
                        location: Some(location),
                        whence,
                        ..
                    }),
                    Some(rest),
                ) => moved(reference, location, rest, whence)?,
                _ => reference.clone(),
            },
            insecure: entry.is_some_and(|entry| entry.insecure),
            is_mirror: false,
        };
        let blocking = entry.filter(|entry| entry.blocked);
        match blocking.or_else(|| self.blocking(&origin.reference)) {
            None => places.push(origin),
            Some(entry) if places.is_empty() => return Err(entry.refuse(reference)),
            Some(_) => {}
        }
        Ok(places)
    }

    /// Where to push to: what was named, since neither mirrors nor `location` are for that.
    pub fn target(&self, reference: &Reference) -> Result<Place, PolicyError> {
        let (_, entry) = self.entry(reference);
        match entry {
            Some(entry) if entry.blocked => Err(entry.refuse(reference)),
            entry => Ok(Place {
                reference: reference.clone(),
                insecure: entry.is_some_and(|entry| entry.insecure),
                is_mirror: false,
            }),
        }
    }

    /// The name of `reference`, and the entry for it.
    fn entry(&self, reference: &Reference) -> (String, Option<&Entry>) {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let mut best: Option<&Entry> = None;
        for entry in self.entries.values() {
            let length = |entry: &Entry| entry.prefix.text().len();
            let is_longer = best.is_none_or(|best| length(entry) > length(best));
            if is_longer && entry.prefix.rest(reference, &name).is_some() {
                best = Some(entry);
            }
        }
        (name, best)
    }

    fn blocking(&self, reference: &Reference) -> Option<&Entry> {
        self.entry(reference).1.filter(|entry| entry.blocked)
    }
}

/// For [`crate::fuzz`]: a `registries.conf` and a drop-in, asked for images.
pub(crate) fn fuzz(text: &str, images: &[Reference]) {
    for is_drop_in in [false, true] {
        let mut registries = Registries::default();
        let path = std::path::Path::new("registries.conf");
        match file::parse(text, path, is_drop_in) {
            Ok(entries) => registries.add(entries),
            Err(error) => drop((error.to_string(), error.hint())),
        }
        for image in images {
            let _ = (registries.sources(image), registries.target(image));
        }
    }
}

impl Entry {
    fn refuse(&self, reference: &Reference) -> PolicyError {
        PolicyError::Blocked {
            reference: reference.to_string(),
            prefix: self.prefix.text().to_owned(),
            whence: self.whence.clone(),
        }
    }
}

impl Mirror {
    fn holds(&self, reference: &Reference) -> bool {
        match self.pulls {
            Pulls::All => true,
            Pulls::ByDigest => reference.digest().is_some(),
            Pulls::ByTag => reference.digest().is_none(),
        }
    }

    fn place(&self, reference: &Reference, rest: &str) -> Result<Place, PolicyError> {
        Ok(Place {
            reference: moved(reference, &self.location, rest, &self.whence)?,
            insecure: self.insecure,
            is_mirror: true,
        })
    }
}

/// `reference` with `rest` of its name below `location`.
fn moved(
    reference: &Reference,
    location: &str,
    rest: &str,
    whence: &Whence,
) -> Result<Reference, PolicyError> {
    let moved = reference.at(&format!("{location}{rest}"));
    moved.map_err(|source| PolicyError::Astray {
        reference: reference.to_string(),
        whence: whence.clone(),
        source,
    })
}

/// A value of `--registry-mirror`: the registry, and its mirror.
fn added(value: &str) -> Result<(String, Mirror), PolicyError> {
    let invalid = |problem| PolicyError::Mirror {
        value: masked(value),
        problem,
    };
    let (registry, place) = value.split_once('=').unwrap_or((DOCKER_HUB, value));
    let (insecure, place) = match place.strip_prefix("http://") {
        Some(place) => (true, place),
        None => (false, place.strip_prefix("https://").unwrap_or(place)),
    };
    let place = place.trim_end_matches('/');
    checked_place(place).map_err(invalid)?;
    let (registry, path) = checked_place(registry).map_err(invalid)?;
    if !path.is_empty() {
        return Err(invalid(super::Problem::Host(format!("{registry}/{path}"))));
    }
    let mirror = Mirror {
        location: place.to_owned(),
        insecure,
        pulls: Pulls::All,
        whence: Whence::Option,
    };
    Ok((canonical(registry).to_owned(), mirror))
}
