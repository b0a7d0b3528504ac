//! Which files say where images are, in the order in which they are read.
//!
//! Follows containers-registries.conf(5) and containers-registries.conf.d(5); the two variables are those
//! of the newer container tools. The environment and the system's folder are looked at here only.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

const MAIN: &str = "registries.conf";
const DROP_INS: &str = "registries.conf.d";

/// Where files are looked for.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// Instead of all others but `over`.
    pub(crate) only: Option<PathBuf>,
    /// After all others.
    pub(crate) over: Option<PathBuf>,
    /// The user's folder. Its main file wins over the system's folder, drop-ins and all.
    pub(crate) user: Option<PathBuf>,
    /// The system's folder.
    pub(crate) system: PathBuf,
}

/// A file that is there, or has to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) is_drop_in: bool,
}

impl Search {
    /// As the environment says.
    pub(super) fn from_env() -> Self {
        let path = |name: &str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let config = path("XDG_CONFIG_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| Some(path("HOME")?.join(".config")));
        Self {
            only: path("CONTAINERS_REGISTRIES_CONF"),
            over: path("CONTAINERS_REGISTRIES_CONF_OVERRIDE"),
            user: config.map(|config| config.join("containers")),
            system: PathBuf::from("/etc/containers"),
        }
    }

    /// The files: what comes later wins.
    pub(super) fn files(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        if let Some(path) = &self.only {
            found.push(main(path.clone()));
        } else {
            self.usual(&mut found)?;
        }
        found.extend(self.over.clone().map(main));
        Ok(found)
    }

    fn usual(&self, found: &mut Vec<Found>) -> io::Result<()> {
        let user = self.user.as_deref();
        let of_user = user.map(|folder| folder.join(MAIN));
        if let Some(path) = of_user.filter(|path| path.exists()) {
            found.push(main(path));
        } else {
            let of_system = self.system.join(MAIN);
            if of_system.exists() {
                found.push(main(of_system));
            }
            drop_ins(&self.system, found)?;
        }
        match user {
            Some(folder) => drop_ins(folder, found),
            None => Ok(()),
        }
    }
}

fn main(path: PathBuf) -> Found {
    Found {
        path,
        is_drop_in: false,
    }
}

fn drop_ins(folder: &Path, found: &mut Vec<Found>) -> io::Result<()> {
    let entries = match fs::read_dir(folder.join(DROP_INS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_named = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().ends_with(b".conf"));
        if is_named && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    found.extend(paths.into_iter().map(|path| Found {
        path,
        is_drop_in: true,
    }));
    Ok(())
}
