//! Logins: where people and other tools keep them, and which one is for a repository.
//!
//! The one idea: a search goes through the files of podman and Docker in their order, then
//! `DOCKER_AUTH_CONFIG`, and the first one with a login wins. Each file may name a helper, a program that
//! has the logins instead.
//!
//! Follows containers-auth.json(5), and Docker's `config.json` for what that leaves open.
//!
//! | file | holds |
//! |---|---|
//! | `places.rs` | which files there are, by which variables |
//! | `file.rs` | what a file says |
//! | `helper.rs` | programs that keep logins |
//! | `keep.rs` | how a file is changed |
//! | `error.rs` | what can go wrong |

mod error;
pub(crate) mod file;
mod helper;
mod keep;
mod places;

use std::fmt;
use std::path::PathBuf;

use crate::secret::Secret;
use file::Key;
use helper::Helper;
use places::Place;

pub use error::LoginError;

#[cfg(test)]
pub(super) use file::decode;
pub(super) use places::Environment;

/// Where logins come from.
#[derive(Debug, Clone, Default)]
pub struct Logins {
    /// The only file to look into (`--authfile`).
    pub authfile: Option<PathBuf>,
    /// What the user gave with the command; it goes before every file.
    pub given: Option<Given>,
}

/// A login that the user gave with the command, for one registry only.
#[derive(Debug, Clone)]
pub struct Given {
    /// The registry, as in a reference.
    pub registry: String,
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// What it was given with, in backticks.
    pub origin: &'static str,
}

/// A login, and where it is from.
#[derive(Debug, Clone)]
pub struct Login {
    /// What is shown to the registry.
    pub credentials: Credentials,
    /// Where it was found, for people: a file or an option in backticks, or a helper.
    pub origin: String,
}

impl fmt::Display for Login {
    /// Whose it is, and where it is from: ``user `me` of `~/.docker/config.json` ``.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.credentials {
            Credentials::Password { user, .. } => write!(f, "user `{user}` of {}", self.origin),
            Credentials::IdentityToken(_) | Credentials::RegistryToken(_) => {
                write!(f, "the token of {}", self.origin)
            }
        }
    }
}

/// What a registry, or its token server, is shown.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// For basic authentication, or to get a token.
    Password {
        /// The user's name.
        user: String,
        /// The password; may be empty.
        password: Secret,
    },
    /// A refresh token of `OAuth2`, by which tokens are got.
    IdentityToken(Secret),
    /// A bearer token for the registry itself.
    RegistryToken(Secret),
}

/// What a search came to.
#[derive(Debug, Clone)]
pub struct Found {
    /// The login, if there is one.
    pub login: Option<Login>,
    /// The files that the search goes through, there or not, and the variable that holds what a file would; none
    /// if the login was given.
    pub searched: Vec<PathBuf>,
}

impl Logins {
    /// The login for a repository of a registry, both as in a [`Reference`](super::Reference). Reads
    /// files and may run a helper, so it blocks, for half a minute at most.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Found, LoginError> {
        self.find_in(&Environment::of_process(), registry, repository)
    }

    /// Keeps a login for all of a registry: in the first file of the search that knows the registry,
    /// else in the file that the user named, else in Docker's; or with the helper that this file names.
    /// Gives where it is now, for people.
    pub fn save(
        &self,
        registry: &str,
        user: &str,
        password: &Secret,
    ) -> Result<String, LoginError> {
        self.save_in(&Environment::of_process(), registry, user, password)
    }

    /// Removes the logins of a registry, those of its namespaces too, from all files of the search and
    /// from the helpers that these name. Gives where they were, for people; nothing if there were none.
    pub fn remove(&self, registry: &str) -> Result<Vec<String>, LoginError> {
        self.remove_in(&Environment::of_process(), Some(registry))
    }

    /// Removes the logins of all registries that the files of the search know, as [`remove`](Self::remove)
    /// does.
    pub fn remove_all(&self) -> Result<Vec<String>, LoginError> {
        self.remove_in(&Environment::of_process(), None)
    }

    pub(super) fn find_in(
        &self,
        environment: &Environment,
        registry: &str,
        repository: &str,
    ) -> Result<Found, LoginError> {
        if let Some(given) = &self.given
            && file::canonical(&given.registry) == file::canonical(registry)
        {
            return Ok(Found {
                login: Some(given.login()),
                searched: Vec::new(),
            });
        }
        let places = environment.places(self.authfile.as_deref());
        let mut login = None;
        for place in &places {
            login = find_at(place, environment, registry, repository)?;
            if login.is_some() {
                break;
            }
        }
        let mut searched: Vec<_> = places.into_iter().map(|place| place.path).collect();
        if login.is_none()
            && let Some((place, text)) = environment.variable(self.authfile.as_deref())
        {
            // As Docker reads it: helpers in it are not this job's.
            let content = file::parse(&place, text.reveal().as_bytes())?;
            let credentials = content.login(&place, registry, repository)?;
            login = credentials.map(|credentials| Login {
                credentials,
                origin: place.to_string(),
            });
            searched.push(place.path);
        }
        Ok(Found { login, searched })
    }

    pub(super) fn save_in(
        &self,
        environment: &Environment,
        registry: &str,
        user: &str,
        password: &Secret,
    ) -> Result<String, LoginError> {
        if user.is_empty() || user.contains(':') || user.contains(char::is_control) {
            let user = helper::short(user);
            return Err(LoginError::User { user });
        }
        let place = self.place_for(environment, registry)?;
        let content = file::load(&place)?.unwrap_or_default();
        let own = content.helper(registry);
        let Some(name) = own.or(content.store()) else {
            keep::put(&place, environment, registry, (user, password))?;
            return Ok(place.to_string());
        };
        let helper = Helper::new(name, &place.path, environment)?;
        helper.store(registry, user, password)?;
        // Entries are asked before `credsStore`, so an old one would hide the new login.
        keep::hand_over(&place, environment, registry, own.is_none())?;
        Ok(helper.origin())
    }

    /// Where a login is to be kept.
    fn place_for(&self, environment: &Environment, registry: &str) -> Result<Place, LoginError> {
        let places = environment.places(self.authfile.as_deref());
        for place in places {
            if place.origin.is_some()
                || file::load(&place)?.is_some_and(|content| content.knows(registry))
            {
                return Ok(place);
            }
        }
        environment.docker_place().ok_or(LoginError::NoHome)
    }

    /// For all registries if none is given. A failure keeps nothing else from being removed.
    pub(super) fn remove_in(
        &self,
        environment: &Environment,
        registry: Option<&str>,
    ) -> Result<Vec<String>, LoginError> {
        let mut removal = Removal::default();
        for place in environment.places(self.authfile.as_deref()) {
            let result = removal.go_through(&place, environment, registry);
            removal.note(result);
        }
        removal.failure.map_or(Ok(removal.removed), Err)
    }
}

impl Given {
    fn login(&self) -> Login {
        Login {
            credentials: Credentials::Password {
                user: self.user.clone(),
                password: self.password.clone(),
            },
            origin: self.origin.to_owned(),
        }
    }
}

fn find_at(
    place: &Place,
    environment: &Environment,
    registry: &str,
    repository: &str,
) -> Result<Option<Login>, LoginError> {
    let Some(content) = file::load(place)? else {
        return match place.origin {
            Some(origin) => Err(LoginError::Absent {
                path: place.path.clone(),
                origin,
            }),
            None => Ok(None),
        };
    };
    let ask = |name| {
        let helper = Helper::new(name, &place.path, environment)?;
        let credentials = helper.get(registry)?;
        Ok(credentials.map(|credentials| Login {
            credentials,
            origin: helper.origin(),
        }))
    };
    // By the manual, entries do not count for a registry that has a helper of its own.
    if let Some(name) = content.helper(registry) {
        return ask(name);
    }
    if let Some(credentials) = content.login(place, registry, repository)? {
        return Ok(Some(Login {
            credentials,
            origin: place.to_string(),
        }));
    }
    content.store().map_or(Ok(None), ask)
}

/// What came of removing logins.
#[derive(Default)]
struct Removal {
    /// Where they were.
    removed: Vec<String>,
    /// The first failure.
    failure: Option<LoginError>,
}

impl Removal {
    fn note(&mut self, result: Result<Option<String>, LoginError>) {
        match result {
            Ok(place) => self.removed.extend(place),
            Err(error) => drop(self.failure.get_or_insert(error)),
        }
    }

    /// Helpers first, since what a file says about them goes with its entries.
    fn go_through(
        &mut self,
        place: &Place,
        environment: &Environment,
        registry: Option<&str>,
    ) -> Result<Option<String>, LoginError> {
        let Some(content) = file::load(place)? else {
            return Ok(None);
        };
        let registries = match registry {
            Some(registry) => vec![registry.to_owned()],
            None => content.registries(),
        };
        for registry in registries {
            if let Some(name) = content.helper(&registry).or(content.store()) {
                self.note(erase(name, place, environment, &registry));
            }
        }
        let wanted = registry.map(file::canonical);
        let fits = |key: &Key| wanted.as_ref().is_none_or(|host| key.host == *host);
        let keys = keep::remove(place, environment, fits)?;
        Ok((!keys.is_empty()).then(|| place.to_string()))
    }
}

/// Makes a helper forget a login, if it has it.
fn erase(
    name: &str,
    place: &Place,
    environment: &Environment,
    registry: &str,
) -> Result<Option<String>, LoginError> {
    let helper = Helper::new(name, &place.path, environment)?;
    if helper.get(registry)?.is_none() {
        return Ok(None);
    }
    helper.erase(registry)?;
    Ok(Some(helper.origin()))
}
