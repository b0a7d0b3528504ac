//! What can go wrong while files are staged.

use std::io;
use std::path::PathBuf;

use super::fetch::{ftp, git, http, scp};
use super::select::SelectError;
use crate::progress::Cancelled;
use crate::store;

/// What can go wrong while files are staged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An entry of `files` cannot be staged.
    #[error("failed to stage `{name}`")]
    Entry {
        /// Where the entry stands, such as `files[2]`.
        name: String,
        /// Why.
        source: Problem,
    },
    /// The directory cannot be the context.
    #[error("failed to use `{}` as the context", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: RootProblem,
    },
    /// The snapshot cannot be used.
    #[error(transparent)]
    Snapshot(#[from] crate::error::Error),
    /// A glob of `jobfiles` cannot be understood.
    #[error("`jobfiles` has the glob `{glob}`, which does not stay in the workspace")]
    Glob {
        /// As typed.
        glob: String,
    },
    /// What was fetched cannot be kept.
    #[error("the store failed")]
    Store(#[source] store::Error),
    /// A file of the tool's own, or a directory of the context, cannot be read or written.
    #[error("failed to fill the context")]
    Io(#[source] io::Error),
    /// The build was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Why an entry of `files` cannot be staged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// What ADD names is no place.
    #[error("`{url}` cannot be used: {reason}")]
    Url {
        /// Masked.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no such file.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// The source.
        path: PathBuf,
        /// The name beside it that is nearest.
        similar: Option<String>,
    },
    /// The source is a symlink to nothing.
    #[error("`{}` is a symlink to `{}`, which does not exist", path.display(), target.display())]
    Dangling {
        /// The source.
        path: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// `~user` for a user that the machine does not know, or `~` without a home.
    #[error("the home directory in `{path}` is not known")]
    NoHome {
        /// As typed.
        path: String,
    },
    /// The entry has no key, and its source no last component to take the name from.
    #[error("`{}` has no name that it could have in the workspace", path.display())]
    NoName {
        /// The source or the destination.
        path: PathBuf,
    },
    /// The destination is absolute or climbs out.
    #[error("the destination `{}` lies outside the workspace", destination.display())]
    Outside {
        /// As typed.
        destination: PathBuf,
    },
    /// The destination leads through a staged symlink that leaves the workspace.
    #[error(
        "the destination `{}` leaves the workspace through the symlink `{}`",
        destination.display(), link.display()
    )]
    Escapes {
        /// As typed.
        destination: PathBuf,
        /// In the workspace.
        link: PathBuf,
    },
    /// Something of that name is there already.
    #[error("the destination `{}` is taken{}", destination.display(), by(owner.as_ref()))]
    Taken {
        /// In the workspace.
        destination: PathBuf,
        /// The entry that put it there.
        owner: Option<String>,
    },
    /// Something on the way to the destination is a file.
    #[error("`{}` on the way to the destination is not a directory, but what {} put there", path.display(), put(owner.as_ref()))]
    NotDirectory {
        /// In the workspace.
        path: PathBuf,
        /// The entry that put it there.
        owner: Option<String>,
    },
    /// The destination is a file of the tool's own.
    #[error("the destination `{}` belongs to the build itself", destination.display())]
    Reserved {
        /// In the workspace.
        destination: PathBuf,
    },
    /// It would replace a folder of the virtual environment, which has the same place.
    #[error("`{name}` is a folder of the virtual environment, and only a folder can join it")]
    VirtualEnv {
        /// In the workspace.
        name: &'static str,
    },
    /// A device, a named pipe or a socket.
    #[error("`{}` is a {kind}, which an image cannot take from a context", path.display())]
    Special {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The source is the context, a part of what is being staged, or another directory of the build.
    #[error("`{}` is a directory of the build itself", path.display())]
    OwnDirectory {
        /// The source.
        path: PathBuf,
    },
    /// Something is to be left out of a file.
    #[error("`{}` is no folder, so that nothing can be excluded from it", path.display())]
    Exclude {
        /// The source.
        path: PathBuf,
    },
    /// A pattern of what is to be left out is malformed.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// Nothing may be fetched, and nothing is kept.
    #[error("`{what}` is not in the store, and nothing may be fetched with `--offline`")]
    Offline {
        /// Where it lies, masked.
        what: String,
    },
    /// What was fetched before cannot be looked at.
    #[error("the store failed")]
    Store(#[from] store::Error),
    /// A download failed.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// A transfer by ftp failed.
    #[error(transparent)]
    Ftp(#[from] ftp::Error),
    /// A copy by scp failed.
    #[error(transparent)]
    Scp(#[from] scp::Error),
    /// A repository could not be cloned.
    #[error(transparent)]
    Git(#[from] git::Error),
    /// The contents cannot be copied.
    #[error("failed to copy `{}` to `{}`", from.display(), to.display())]
    Copy {
        /// The source.
        from: PathBuf,
        /// In the context.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A source cannot be read, or the context not be written; names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The build was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Why a directory cannot be the context.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootProblem {
    /// It exists and is something else.
    #[error("it is not a directory")]
    NotDirectory,
    /// It is a link, which may lead elsewhere by the time that the build writes there.
    #[error("it is a symbolic link")]
    Link,
    /// Its owner could replace what the build writes there.
    #[error("it belongs to the user {owner}, and not to {user}")]
    Owner {
        /// Whose it is.
        owner: u32,
        /// Who runs the tool.
        user: u32,
    },
    /// What lies there could not be named to other processes.
    #[error("its path `{}` is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// It holds something that the build would overwrite.
    #[error("it holds `{name}`, which no build of this tool has put there")]
    Foreign {
        /// In the directory.
        name: &'static str,
    },
    /// Another build stages into it.
    #[error("another build is using it")]
    Busy,
    /// It cannot be made, read or removed; names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// Says of which entry a problem is.
    pub(super) fn entry(name: &str, problem: Problem) -> Self {
        match problem {
            Problem::Cancelled(cancelled) => Self::Cancelled(cancelled),
            source => Self::Entry {
                name: name.to_owned(),
                source,
            },
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Entry { source, .. } => source.hint(),
            Self::Root {
                source: RootProblem::Foreign { name },
                ..
            } => Some(format!(
                "move `{name}` away, or give `--path` another directory"
            )),
            Self::Root {
                source:
                    RootProblem::NotDirectory
                    | RootProblem::Link
                    | RootProblem::Owner { .. }
                    | RootProblem::Busy,
                ..
            } => Some("give `--path` another directory".to_owned()),
            Self::Root {
                source: RootProblem::NotUtf8(_),
                ..
            } => Some("give `--path` a directory whose path is UTF-8".to_owned()),
            Self::Snapshot(error) => error.hint().map(str::to_owned),
            Self::Glob { .. } => {
                Some("write it relative to the workspace, such as `jobs/*.py`".to_owned())
            }
            Self::Io(error)
            | Self::Root {
                source: RootProblem::Io(error),
                ..
            } => disk_hint(error),
            Self::Store(error) => error.hint(),
            Self::Cancelled(_) => None,
        }
    }
}

impl Problem {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Missing {
                similar: Some(name),
                ..
            } => format!("did you mean `{name}`?"),
            Self::Missing {
                path,
                similar: None,
            } if path.is_relative() => {
                "local paths are relative to the current directory".to_owned()
            }
            Self::NoName { .. } => "give it a name: `- NAME: PATH`".to_owned(),
            Self::Outside { .. } => {
                "destinations are relative to the workspace, such as `data/file`".to_owned()
            }
            Self::Taken { .. } | Self::Reserved { .. } | Self::VirtualEnv { .. } => {
                "give the entry another name: `- NAME: PATH`".to_owned()
            }
            Self::Special { .. } => "name the files beside it one by one".to_owned(),
            Self::OwnDirectory { .. } => {
                "leave it out, or give `--path` or `--store` another directory".to_owned()
            }
            Self::Exclude { .. } => "remove `exclude`".to_owned(),
            Self::Select(error) => return error.hint(),
            Self::Offline { .. } => {
                "build once without `--offline`, with the same `--store`".to_owned()
            }
            Self::Store(error) => return error.hint(),
            Self::Http(error) => return error.hint(),
            Self::Ftp(error) => return error.hint(),
            Self::Scp(error) => return error.hint(),
            Self::Git(error) => return error.hint(),
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "make it readable for the user who builds".to_owned()
            }
            Self::Copy { source: error, .. } | Self::Io(error) => return disk_hint(error),
            _ => return None,
        };
        Some(text)
    }
}

fn disk_hint(error: &io::Error) -> Option<String> {
    (error.kind() == io::ErrorKind::StorageFull)
        .then(|| "free space there, or choose another place with `--path`".to_owned())
}

fn put(owner: Option<&String>) -> String {
    owner.map_or_else(|| "somebody".to_owned(), |owner| format!("`{owner}`"))
}

fn by(owner: Option<&String>) -> String {
    owner.map_or_else(String::new, |owner| format!(" by `{owner}`"))
}
