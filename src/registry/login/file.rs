//! What a file with logins says: its keys, its entries, and the helpers that it names.
//!
//! Follows containers-auth.json(5), with the keys that Docker wrote over the years: URLs, and several
//! names for Docker Hub. Only the entry that is asked for has to be right.

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use fs_err as fs;
use serde::Deserialize;

use super::places::{Kind, Place};
use super::{Credentials, LoginError};
use crate::registry::reference;
use crate::secret::{Secret, mask};

/// Docker Hub in the keys of Docker's file, and towards helpers.
pub(super) const HUB_URL: &str = "https://index.docker.io/v1/";
/// Docker Hub in references, and in the keys of podman's files.
pub(super) use crate::registry::reference::DOCKER_HUB as HUB;

/// Files that people and other tools wrote: padding may be missing or not, unused bits may be set.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a file says. `null` is the same as nothing, as it is to Docker.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Content {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

/// A login as it is filed.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

/// What a key of `auths` or `credHelpers` is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// With the port if there is one; Docker Hub is `docker.io`.
    pub(super) host: String,
    /// The namespace; empty for the whole of the registry.
    pub(super) path: String,
}

/// Reads a file; `None` if it is not there.
pub(super) fn load(place: &Place) -> Result<Option<Content>, LoginError> {
    read(place)?.map(|bytes| parse(place, &bytes)).transpose()
}

/// The bytes of a file, if it is there.
pub(super) fn read(place: &Place) -> Result<Option<Vec<u8>>, LoginError> {
    match fs::read(&place.path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Understands a file. An empty one, such as `/dev/null`, holds no login.
pub(super) fn parse(place: &Place, bytes: &[u8]) -> Result<Content, LoginError> {
    if is_blank(bytes) {
        return Ok(Content::default());
    }
    let content = match place.kind {
        Kind::Old => serde_json::from_slice(bytes).map(|auths| Content {
            auths,
            ..Content::default()
        }),
        Kind::Docker | Kind::Containers => serde_json::from_slice(bytes),
    };
    content.map_err(|error| LoginError::Malformed {
        path: place.path.clone(),
        line: error.line(),
    })
}

/// For [`crate::fuzz`]: a file of each kind, asked for logins.
pub(crate) fn fuzz(bytes: &[u8]) {
    for kind in [Kind::Docker, Kind::Containers, Kind::Old] {
        let place = Place {
            path: "auth.json".into(),
            kind,
            origin: None,
        };
        let Ok(content) = parse(&place, bytes) else {
            continue;
        };
        content.store();
        for registry in content.registries() {
            content.knows(&registry);
            let _ = content.login(&place, &registry, "team/project/image");
        }
    }
}

pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

/// The names of a registry that mean the same, as one.
pub(super) fn canonical(registry: &str) -> String {
    reference::canonical(&registry.to_ascii_lowercase()).to_owned()
}

/// What a registry is called towards helpers.
pub(super) fn server(registry: &str) -> String {
    if canonical(registry) == HUB {
        HUB_URL.to_owned()
    } else {
        registry.to_owned()
    }
}

impl Key {
    /// Reads a key: a URL, whose path says nothing, or a host that a namespace may follow.
    pub(super) fn of(text: &str) -> Self {
        let url = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        let rest = url.unwrap_or(text);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // Docker dropped the scheme of its URLs for a while.
        let is_url = url.is_some() || matches!(path, "v1/" | "v2/");
        let path = if is_url {
            ""
        } else {
            path.trim_end_matches('/')
        };
        Self {
            host: canonical(host),
            path: path.to_owned(),
        }
    }

    /// Whether it is for the whole of a registry.
    pub(super) fn is_for(&self, registry: &str) -> bool {
        self.path.is_empty() && self.host == canonical(registry)
    }
}

impl Content {
    /// The helper that is to be asked for a registry before the file.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        let helpers = self.cred_helpers.iter().flatten();
        let fitting = helpers.filter(|(key, _)| Key::of(key).is_for(registry));
        let best = fitting.min_by_key(|(key, _)| rank(key, registry))?;
        Some(best.1)
    }

    /// The helper that is to be asked for all that the file does not hold.
    pub(super) fn store(&self) -> Option<&str> {
        self.creds_store.as_deref().filter(|name| !name.is_empty())
    }

    /// The registries that the file has something for, `docker.io` for Docker Hub.
    pub(super) fn registries(&self) -> Vec<String> {
        let helpers = self.cred_helpers.iter().flatten().map(|(key, _)| key);
        let auths = self.auths.iter().flatten().map(|(key, _)| key);
        let mut hosts: Vec<_> = helpers.chain(auths).map(|key| Key::of(key).host).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// Whether the file has something for a registry as a whole, be it without content.
    pub(super) fn knows(&self, registry: &str) -> bool {
        let auths = self.auths.iter().flatten();
        self.helper(registry).is_some()
            || auths
                .map(|(key, _)| Key::of(key))
                .any(|key| key.is_for(registry))
    }

    /// The keys of entries with content that `fits`.
    pub(super) fn filled(&self, fits: impl Fn(&Key) -> bool) -> Vec<String> {
        let auths = self.auths.iter().flatten();
        auths
            .filter(|(key, entry)| {
                fits(&Key::of(key)) && entry.as_ref().is_some_and(|entry| !entry.is_empty())
            })
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// The login for a repository: that of the longest namespace.
    pub(super) fn login(
        &self,
        place: &Place,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credentials>, LoginError> {
        let host = canonical(registry);
        for path in namespaces(repository) {
            let wanted = if path.is_empty() {
                registry.to_owned()
            } else {
                format!("{registry}/{path}")
            };
            let keys = self.filled(|key| key.host == host && key.path == path);
            let Some(best) = keys.into_iter().min_by_key(|key| rank(key, &wanted)) else {
                continue;
            };
            let entry = self.auths.as_ref().and_then(|auths| auths.get(&best));
            let Some(Some(entry)) = entry else { continue };
            let credentials = entry.credentials().map_err(|problem| LoginError::Entry {
                path: place.path.clone(),
                key: mask(&best),
                problem,
            })?;
            return Ok(Some(credentials));
        }
        Ok(None)
    }
}

/// Of several keys that mean the same, the one that looks most like what is sought is the newest.
fn rank(key: &str, wanted: &str) -> u8 {
    match key {
        _ if key == wanted => 0,
        HUB_URL => 1,
        _ if key.starts_with("https://") => 3,
        _ if key.starts_with("http://") => 4,
        _ => 2,
    }
}

/// `a/b/c`, `a/b`, `a` and nothing.
fn namespaces(repository: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(repository), |path| {
        let end = path.rfind('/').unwrap_or(0);
        (!path.is_empty()).then(|| &path[..end])
    })
}

impl Entry {
    /// Whether it says nothing, as what Docker leaves behind when a helper has the login.
    fn is_empty(&self) -> bool {
        let has = |secret: &Option<Secret>| filled(secret.as_ref()).is_some();
        let is_colon = |auth: &Secret| auth.reveal().trim().trim_end_matches('=') == "Og";
        let has_auth = has(&self.auth) && !self.auth.as_ref().is_some_and(is_colon);
        let has_user = self.username.as_ref().is_some_and(|user| !user.is_empty());
        !(has_auth || has_user || has(&self.identitytoken) || has(&self.registrytoken))
    }

    fn credentials(&self) -> Result<Credentials, &'static str> {
        if let Some(token) = filled(self.registrytoken.as_ref()) {
            return Ok(Credentials::RegistryToken(token.clone()));
        }
        if let Some(token) = filled(self.identitytoken.as_ref()) {
            return Ok(Credentials::IdentityToken(token.clone()));
        }
        if let Some(auth) = filled(self.auth.as_ref()) {
            let (user, password) = decode(auth.reveal())?;
            return Ok(Credentials::Password { user, password });
        }
        match (&self.username, &self.password) {
            (Some(user), Some(password)) => Ok(Credentials::Password {
                user: user.clone(),
                password: password.clone(),
            }),
            _ => Err("it has a user name and no password"),
        }
    }
}

fn filled(secret: Option<&Secret>) -> Option<&Secret> {
    secret.filter(|secret| !secret.reveal().trim().is_empty())
}

/// Takes `auth` apart: the base64 of a user name, a colon and a password.
pub(crate) fn decode(auth: &str) -> Result<(String, Secret), &'static str> {
    let bytes = BASE64.decode(auth.trim());
    let bytes = bytes.map_err(|_| "`auth` is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "`auth` holds no text")?;
    let (user, password) = text
        .split_once(':')
        .ok_or("`auth` holds no colon between a user name and a password")?;
    // Docker once filled its buffers up.
    let password = password.trim_end_matches('\0');
    Ok((user.to_owned(), Secret::new(password)))
}

/// Puts `auth` together.
pub(super) fn encode(user: &str, password: &Secret) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.reveal()))
}
