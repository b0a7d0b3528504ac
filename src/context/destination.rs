//! Where an entry of `files` may go: inside the workspace, where nothing is yet.
//!
//! Links that were staged earlier are followed as the image would follow them, but never out of the
//! workspace: an absolute link means another place on the host than in the image.

use std::io;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;

use crate::buildfile::INSTALLATION;

use super::RESERVED;
use crate::error::Error;
use crate::files::make_directory;
use crate::sources::error::{self, no_name, source, taken};

/// The staged workspace, and which entry put what into it.
#[derive(Debug)]
pub(super) struct Workspace {
    path: PathBuf,
    taken: Vec<(PathBuf, String)>,
    /// Names that are not the user's, beside those in `installation`.
    reserved: Vec<&'static str>,
}

fn reserved(destination: &Path) -> Error {
    taken(format!(
        "the destination `{}` belongs to the build itself",
        destination.display()
    ))
}

impl Workspace {
    /// `path` is canonical and exists.
    pub(super) fn new(path: PathBuf, reserved: Vec<&'static str>) -> Self {
        Self {
            path,
            taken: Vec::new(),
            reserved,
        }
    }

    /// The workspace on the host.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives `destination` to the entry `name`: makes the directories on its way, and returns the
    /// path to write, which does not exist.
    pub(super) fn claim(&mut self, destination: &Path, name: &str) -> Result<PathBuf, Error> {
        let relative = normalise(destination).ok_or_else(|| {
            let destination = destination.display();
            source(format!(
                "the destination `{destination}` lies outside the workspace"
            ))
            .with_hint("destinations are relative to the workspace, such as `data/file`")
        })?;
        let (Some(parent), Some(last)) = (relative.parent(), relative.file_name()) else {
            return Err(no_name(destination));
        };
        let mut directory = self.path.clone();
        for component in parent.components() {
            directory.push(component);
            self.check_reserved(&directory)?;
            directory = self.enter(directory, destination)?;
        }
        let target = directory.join(last);
        self.check_reserved(&target)?;
        if target == self.path.join(INSTALLATION) {
            return Err(reserved(&self.relative(&target)));
        }
        match fs::symlink_metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let by = self.owner(&target).map(|owner| format!(" by `{owner}`"));
                return Err(taken(format!(
                    "the destination `{}` is taken{}",
                    self.relative(&target).display(),
                    by.unwrap_or_default()
                )));
            }
        }
        self.taken.push((self.relative(&target), name.to_owned()));
        Ok(target)
    }

    /// The directory itself, made if it is not there, or the one that the symlink leads to.
    fn enter(&self, directory: PathBuf, destination: &Path) -> Result<PathBuf, Error> {
        let metadata = match fs::symlink_metadata(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(&directory)?;
                return Ok(directory);
            }
            other => other?,
        };
        let found = if metadata.is_symlink() {
            match fs::canonicalize(&directory) {
                Ok(found) if found.starts_with(&self.path) => found,
                _ => {
                    return Err(source(format!(
                        "the destination `{}` leaves the workspace through the symlink `{}`",
                        destination.display(),
                        self.relative(&directory).display()
                    )));
                }
            }
        } else {
            directory
        };
        if fs::metadata(&found)?.is_dir() {
            Ok(found)
        } else {
            let owner = self.owner(&found).map(|owner| format!("`{owner}`"));
            Err(source(format!(
                "`{}` on the way to the destination is not a directory, but what {} put there",
                self.relative(&found).display(),
                owner.as_deref().unwrap_or("somebody")
            )))
        }
    }

    /// `installation` may be passed through, but neither it nor the tool's own files in it be taken.
    fn check_reserved(&self, path: &Path) -> Result<(), Error> {
        let relative = self.relative(path);
        let is_reserved = RESERVED
            .iter()
            .any(|name| relative == Path::new(INSTALLATION).join(name));
        let mut own = self.reserved.iter();
        if is_reserved || own.any(|name| relative == Path::new(name)) {
            Err(reserved(&relative))
        } else {
            Ok(())
        }
    }

    /// An error if anything but a folder has one of these names.
    pub(super) fn check_folders(&self, names: &[&'static str]) -> Result<(), Error> {
        for name in names {
            let path = self.path.join(name);
            if fs::symlink_metadata(&path).is_ok_and(|there| !there.is_dir()) {
                let owner = self.owner(&path).unwrap_or_else(|| "files".to_owned());
                let message = format!(
                    "`{name}` is a folder of the virtual environment, and only a folder can join it"
                );
                return Err(error::entry(&owner, taken(message)));
            }
        }
        Ok(())
    }

    fn owner(&self, path: &Path) -> Option<String> {
        let relative = self.relative(path);
        let owns = |taken: &Path| relative.starts_with(taken) || taken.starts_with(&relative);
        self.taken
            .iter()
            .rev()
            .find(|(taken, _)| owns(taken))
            .map(|(_, name)| name.clone())
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.path).unwrap_or(path).to_owned()
    }
}

/// A relative path without `.` and `..`; `None` if it is absolute or climbs above its start.
pub(super) fn normalise(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::CurDir => (),
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}
