//! What a server lists: a tree as a whole, checked, before anything of it is fetched.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use ssh2::{ErrorCode, FileStat};

use super::super::Validator;
use super::super::error::source;
use super::Remote;
use crate::digest::Hashing;
use crate::error::Error;

/// Entries that a directory may have, all in all: a server could list without end.
pub(super) const ENTRIES: usize = 1_000_000;

/// How deep directories may lie in each other. A deeper path would be too long for the system soon, too.
pub(super) const DEPTH: usize = 256;

/// "No more files": this is how the library ends a list.
const END: ErrorCode = ErrorCode::Session(-16);

/// What a server lists. Directories come before what is in them.
#[derive(Debug)]
pub(super) struct Entry {
    /// How many directories it lies in, below the one that is fetched; 0 for that itself.
    pub(super) depth: usize,
    pub(super) name: OsString,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) modified: u64,
    pub(super) mode: u32,
    /// Of a symlink.
    pub(super) target: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
}

impl Kind {
    /// What something else is called is the error.
    pub(super) fn of(stat: &FileStat) -> Result<Self, &'static str> {
        match stat.file_type() {
            ssh2::FileType::RegularFile => Ok(Self::File),
            ssh2::FileType::Directory => Ok(Self::Directory),
            ssh2::FileType::Symlink => Ok(Self::Symlink),
            ssh2::FileType::NamedPipe => Err("named pipe"),
            ssh2::FileType::Socket => Err("socket"),
            ssh2::FileType::CharDevice | ssh2::FileType::BlockDevice => Err("device"),
            ssh2::FileType::Other(_) => Err("file of an unknown kind"),
        }
    }
}

impl Entry {
    pub(super) fn new(depth: usize, name: OsString, stat: &FileStat, kind: Kind) -> Self {
        // The owner is not kept, so what runs with his rights would run with those of somebody else.
        let kept = if kind == Kind::Directory {
            0o1777
        } else {
            0o777
        };
        Self {
            depth,
            name,
            kind,
            size: stat.size.unwrap_or(0),
            modified: stat.mtime.unwrap_or(0),
            mode: stat.perm.unwrap_or(0o755) & kept,
            target: None,
        }
    }

    /// By what a change is seen: a file by its size, time and mode, a directory by those of all that is in it.
    pub(super) fn validator(&self, entries: &[Self]) -> io::Result<Validator> {
        let (size, modified, mode) = (self.size, self.modified, self.mode);
        if self.kind != Kind::Directory {
            return Ok(json!({"size": size, "modified": modified, "mode": mode}));
        }
        let mut digest = Hashing::new(io::sink());
        for entry in entries {
            let Self {
                depth,
                kind,
                size,
                modified,
                mode,
                ..
            } = entry;
            // Of a directory these depend on the file system, or on what is in it.
            let (size, modified) = match kind {
                Kind::Directory => (&0, &0),
                _ => (size, modified),
            };
            write!(digest, "{depth} {kind:?} {size} {modified} {mode:o} ")?;
            digest.write_all(entry.name.as_bytes())?;
            digest.write_all(b"\0")?;
            let target = entry.target.as_deref().unwrap_or(Path::new(""));
            digest.write_all(target.as_os_str().as_bytes())?;
            digest.write_all(b"\0")?;
        }
        let (_, digest, _) = digest.complete();
        Ok(json!({"entries": digest.to_string(), "mode": mode}))
    }
}

impl Remote<'_> {
    /// All that lies below `directory`, sorted by name, with what is in a directory right behind it.
    pub(super) fn list(&self, directory: &Path) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let mut path = directory.to_owned();
        self.list_into(&mut entries, &mut path, 1)?;
        Ok(entries)
    }

    fn list_into(
        &self,
        entries: &mut Vec<Entry>,
        path: &mut PathBuf,
        depth: usize,
    ) -> Result<(), Error> {
        let mut names = self.names(path, depth, ENTRIES - entries.len())?;
        names.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        if let Some(twice) = names.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(source(format!(
                "the server lists `{}` in `{}` twice",
                twice[0].name.to_string_lossy(),
                self.place(path)
            )));
        }
        for mut entry in names {
            path.push(&entry.name);
            let is_directory = entry.kind == Kind::Directory;
            if entry.kind == Kind::Symlink {
                let target = self.sftp.readlink(path);
                entry.target = Some(target.map_err(|error| self.failure(path, error))?);
            }
            entries.push(entry);
            if is_directory {
                self.list_into(entries, path, depth + 1)?;
            }
            path.pop();
        }
        Ok(())
    }

    /// The entries of one directory, which are at most `limit`.
    fn names(&self, path: &Path, depth: usize, limit: usize) -> Result<Vec<Entry>, Error> {
        let mut names = Vec::new();
        let failure = |error| self.failure(path, error);
        let mut list = self.sftp.opendir(path).map_err(failure)?;
        loop {
            self.fetch.progress.check()?;
            let (name, stat) = match list.readdir() {
                Ok(entry) => entry,
                Err(error) if error.code() == END => return Ok(names),
                Err(error) => return Err(failure(error)),
            };
            let name = name.into_os_string();
            if name == "." || name == ".." {
                continue;
            }
            if name.is_empty() || name.as_bytes().iter().any(|byte| matches!(byte, 0 | b'/')) {
                return Err(source(format!(
                    "the server lists `{}` in `{}`, which is no name of a file",
                    name.to_string_lossy(),
                    self.place(path)
                )));
            }
            if names.len() == limit || depth > DEPTH {
                return Err(source(format!(
                    "`{}` has more than {ENTRIES} entries, or directories more than {DEPTH} deep",
                    self.location
                )));
            }
            // Some servers list names alone.
            let stat = match stat.perm {
                Some(_) => stat,
                None => self.sftp.lstat(&path.join(&name)).map_err(failure)?,
            };
            let kind = Kind::of(&stat).map_err(|kind| self.special(&path.join(&name), kind))?;
            names.push(Entry::new(depth, name, &stat, kind));
        }
    }
}
