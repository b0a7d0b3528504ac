//! The files that hold logins, in the order in which they are asked, and the variables behind them.
//!
//! Follows containers-auth.json(5), the defaults of podman, and Docker's `DOCKER_CONFIG` and
//! `DOCKER_AUTH_CONFIG`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::secret::Secret;

/// How long a helper, or another process that changes a file, is waited for. People who have to unlock
/// their store need some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the surroundings of the process say. The only place that reads them, since tests run side by
/// side and cannot set variables.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// `REGISTRY_AUTH_FILE`.
    pub(crate) authfile: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`; without it the folder in `/run` that podman takes instead.
    pub(crate) runtime: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub(crate) config: Option<PathBuf>,
    /// `DOCKER_CONFIG`.
    pub(crate) docker: Option<PathBuf>,
    /// `DOCKER_AUTH_CONFIG`.
    pub(crate) text: Option<Secret>,
    /// `HOME`.
    pub(crate) home: Option<PathBuf>,
    /// `PATH`.
    pub(crate) path: OsString,
    /// How long a helper may take.
    pub(crate) patience: Duration,
}

impl Environment {
    /// That of this process.
    pub(super) fn of_process() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = |name| set(name).map(PathBuf::from);
        // The base directory specification: a relative path is invalid, and ignored.
        let xdg = |name| path(name).filter(|path| path.is_absolute());
        Self {
            authfile: path("REGISTRY_AUTH_FILE"),
            runtime: xdg("XDG_RUNTIME_DIR").map_or_else(
                || {
                    let user = rustix::process::geteuid().as_raw();
                    Some(format!("/run/containers/{user}").into())
                },
                |folder| Some(folder.join("containers")),
            ),
            config: xdg("XDG_CONFIG_HOME"),
            docker: path("DOCKER_CONFIG"),
            text: set("DOCKER_AUTH_CONFIG").map(|text| Secret::new(text.to_string_lossy())),
            home: path("HOME"),
            path: set("PATH").unwrap_or_default(),
            patience: PATIENCE,
        }
    }

    /// The files of a search; `authfile` is the user's.
    pub(super) fn places(&self, authfile: Option<&Path>) -> Vec<Place> {
        if let Some(path) = authfile {
            return vec![Place::named(path, "`--authfile`")];
        }
        if let Some(path) = &self.authfile {
            return vec![Place::named(path, "`REGISTRY_AUTH_FILE`")];
        }
        let of_containers = |folder: PathBuf| Place {
            path: folder.join("auth.json"),
            kind: Kind::Containers,
            origin: None,
        };
        let config = self.config.clone().or_else(|| self.in_home(".config"));
        let old = self.in_home(".dockercfg").map(|path| Place {
            path,
            kind: Kind::Old,
            origin: None,
        });
        let runtime = self.runtime.clone();
        [
            runtime.map(of_containers),
            config.map(|folder| of_containers(folder.join("containers"))),
            self.docker_place(),
            old,
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// What is asked after all files, and never changed: a variable that holds what Docker's file would. CI
    /// systems set it for their own pulls, so a login that a job keeps goes before it.
    pub(super) fn variable(&self, authfile: Option<&Path>) -> Option<(Place, &Secret)> {
        let text = self.text.as_ref()?;
        let place = Place {
            path: PathBuf::from("DOCKER_AUTH_CONFIG"),
            kind: Kind::Docker,
            origin: None,
        };
        (authfile.is_none() && self.authfile.is_none()).then_some((place, text))
    }

    /// Docker's file, where a login goes that has no other place.
    pub(super) fn docker_place(&self) -> Option<Place> {
        let folder = self.docker.clone().or_else(|| self.in_home(".docker"))?;
        Some(Place {
            path: folder.join("config.json"),
            kind: Kind::Docker,
            origin: None,
        })
    }

    fn in_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }
}

/// A file that may hold logins.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// By what the user named it, if it is not a default.
    pub(super) origin: Option<&'static str>,
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `config.json`, which calls Docker Hub by its URL.
    Docker,
    /// `auth.json` of podman, skopeo and buildah.
    Containers,
    /// `.dockercfg`: what is `auths` elsewhere, alone.
    Old,
}

impl Place {
    fn named(path: &Path, origin: &'static str) -> Self {
        let kind = match path.file_name().and_then(|name| name.to_str()) {
            Some("config.json") => Kind::Docker,
            Some(".dockercfg") => Kind::Old,
            _ => Kind::Containers,
        };
        Self {
            path: path.to_owned(),
            kind,
            origin: Some(origin),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.path.display())
    }
}
