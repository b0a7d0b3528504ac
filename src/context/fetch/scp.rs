//! Files and directories by `scp`, which is SFTP nowadays: no shell is needed on the other side, and none can
//! be deceived by a name.
//!
//! The one idea: a tree is listed as a whole before anything is fetched. The list says whether something
//! changed, and what the server lists is checked there, once: past it, every name is a plain one, no name
//! comes twice, and so whatever is created lies below a directory that this program has just made.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::{OpenOptionsExt as _, symlink};
use serde_json::json;
use ssh2::{ErrorCode, FileStat, Sftp};

use super::{Answer, Fetch, Validator, ssh};
use crate::buildfile::SshLocation;
use crate::digest::Hashing;
use crate::progress::Cancelled;

/// Entries that a directory may have, all in all: a server could list without end.
const ENTRIES: usize = 1_000_000;

/// How deep directories may lie in each other. A deeper path would be too long for the system soon, too.
const DEPTH: usize = 256;

/// Bytes of a file that are asked for at a time. The library asks for some more ahead; with less, large files
/// wait for the network.
const BUFFER: usize = 256 << 10;

/// Bytes between two events.
const TOLD: u64 = 1 << 20;

/// "No more files": this is how the library ends a list.
const END: ErrorCode = ErrorCode::Session(-16);

/// A server's refusal in the middle of a file, the reason of which the library keeps to itself.
const REFUSED: ErrorCode = ErrorCode::Session(-31);

/// The status codes of SFTP (draft-ietf-secsh-filexfer-02, section 7) that are errors of their own here.
const NO_SUCH_FILE: ErrorCode = ErrorCode::SFTP(2);
const PERMISSION_DENIED: ErrorCode = ErrorCode::SFTP(3);

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no session.
    #[error(transparent)]
    Ssh(ssh::Error),
    /// The server does not speak SFTP.
    #[error("the server of `{location}` offers no SFTP: {}", source.message())]
    NoSftp {
        /// Whose server.
        location: String,
        /// The library's words.
        source: ssh2::Error,
    },
    /// There is no such file.
    #[error("`{path}` does not exist")]
    Missing {
        /// With the host.
        path: String,
    },
    /// The user must not read it.
    #[error("`{path}` may not be read by the user of the login")]
    Denied {
        /// With the host.
        path: String,
    },
    /// The home directory of another user.
    #[error("`{path}` begins with the home directory of a user, which SFTP does not know")]
    Home {
        /// With the host.
        path: String,
    },
    /// The server refuses something else.
    #[error("`{path}` cannot be read: {}", source.message())]
    Remote {
        /// With the host.
        path: String,
        /// The server's words.
        source: ssh2::Error,
    },
    /// A device, a named pipe or a socket.
    #[error("`{path}` is a {kind}, which cannot be fetched")]
    Special {
        /// With the host.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// The server lists a name that would lead out of its directory, or that cannot be one.
    #[error("the server lists `{name}` in `{path}`, which is no name of a file")]
    Name {
        /// With the host.
        path: String,
        /// Special characters escaped.
        name: String,
    },
    /// The server lists a name twice.
    #[error("the server lists `{name}` in `{path}` twice")]
    Twice {
        /// With the host.
        path: String,
        /// Special characters escaped.
        name: String,
    },
    /// There is no end to it.
    #[error("`{path}` has more than {ENTRIES} entries, or directories more than {DEPTH} deep")]
    TooMany {
        /// With the host.
        path: String,
    },
    /// The file ended early.
    #[error("`{path}` ended after {got} of {size} bytes")]
    Short {
        /// With the host.
        path: String,
        /// As listed.
        size: u64,
        /// Bytes that came.
        got: u64,
    },
    /// What was fetched cannot be written; names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The build was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Ssh(error) => return error.hint(),
            Self::NoSftp { .. } => {
                "turn it on there: `Subsystem sftp internal-sftp` in `sshd_config`"
            }
            Self::Missing { .. } => {
                "write the absolute path behind the host: `scp://host/path/to/file`"
            }
            Self::Home { .. } => "write the path from the root, or from `~/`",
            Self::Special { .. } => "name the files beside it one by one",
            Self::Short { .. } => "it changed while it was fetched: try again",
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                "free space there, or give `--store` another directory"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl From<ssh::Error> for Error {
    fn from(error: ssh::Error) -> Self {
        match error {
            ssh::Error::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Ssh(other),
        }
    }
}

/// Fetches what lies at `location`. Links in a directory stay links; one that is named itself is followed.
pub(super) fn fetch(
    location: &SshLocation,
    into: &Path,
    known: Option<&Validator>,
    fetch: Fetch<'_>,
) -> Result<Answer, Error> {
    let session = ssh::connect(location, None, fetch)?;
    let sftp = session
        .ssh
        .sftp()
        .map_err(|source| match session.failure(source, fetch) {
            ssh::Error::Session { source, .. } => Error::NoSftp {
                location: location.to_string(),
                source,
            },
            other => other.into(),
        })?;
    let mut remote = Remote {
        session: &session,
        sftp: &sftp,
        location,
        fetch,
        told: 0,
        bytes: 0,
    };
    let root = remote.root()?;
    let stat = sftp
        .stat(&root)
        .map_err(|error| remote.failure(&root, error))?;
    let entries = match Kind::of(&stat) {
        Ok(Kind::Directory) => remote.list(&root)?,
        Ok(_) => Vec::new(),
        Err(kind) => return Err(remote.special(&root, kind)),
    };
    let top = Entry::new(
        0,
        OsString::new(),
        &stat,
        Kind::of(&stat).unwrap_or(Kind::File),
    );
    let validator = top.validator(&entries)?;
    if known == Some(&validator) {
        return Ok(Answer::Unchanged);
    }
    match top.kind {
        Kind::Directory => remote.tree(&root, into, &top, &entries)?,
        _ => remote.file(&root, into, &top)?,
    }
    fetch.part.advance(remote.bytes);
    Ok(Answer::Fetched(validator))
}

/// What a server lists. Directories come before what is in them.
#[derive(Debug)]
struct Entry {
    /// How many directories it lies in, below the one that is fetched; 0 for that itself.
    depth: usize,
    name: OsString,
    kind: Kind,
    size: u64,
    modified: u64,
    mode: u32,
    /// Of a symlink.
    target: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink,
}

impl Kind {
    /// What something else is called is the error.
    fn of(stat: &FileStat) -> Result<Self, &'static str> {
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
    fn new(depth: usize, name: OsString, stat: &FileStat, kind: Kind) -> Self {
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
    fn validator(&self, entries: &[Self]) -> io::Result<Validator> {
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

/// The other side.
struct Remote<'a> {
    session: &'a ssh::Session,
    sftp: &'a Sftp,
    location: &'a SshLocation,
    fetch: Fetch<'a>,
    bytes: u64,
    told: u64,
}

impl Remote<'_> {
    /// The path as SFTP takes it: what is not absolute is relative to the home directory.
    fn root(&self) -> Result<PathBuf, Error> {
        let path = &self.location.path;
        match path.strip_prefix('~') {
            None => Ok(PathBuf::from(path)),
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                Ok(Path::new(".").join(rest.trim_start_matches('/')))
            }
            Some(_) => Err(Error::Home {
                path: self.location.to_string(),
            }),
        }
    }

    /// All that lies below `directory`, sorted by name, with what is in a directory right behind it.
    fn list(&self, directory: &Path) -> Result<Vec<Entry>, Error> {
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
            return Err(Error::Twice {
                path: self.place(path),
                name: escaped(&twice[0].name),
            });
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
                return Err(Error::Name {
                    path: self.place(path),
                    name: escaped(&name),
                });
            }
            if names.len() == limit || depth > DEPTH {
                return Err(Error::TooMany {
                    path: self.location.to_string(),
                });
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

    /// Fetches the directory `from`, whose list is `entries`, into `into`, which does not exist.
    fn tree(
        &mut self,
        from: &Path,
        into: &Path,
        top: &Entry,
        entries: &[Entry],
    ) -> Result<(), Error> {
        let (mut from, mut to) = (from.to_owned(), into.to_owned());
        make_directory(&to)?;
        // Directories whose own mode comes when all that is in them is there.
        let mut open = vec![(to.clone(), top.mode)];
        let mut depth = 0;
        for entry in entries {
            self.fetch.progress.check()?;
            for _ in entry.depth..=depth {
                from.pop();
                to.pop();
            }
            depth = entry.depth;
            from.push(&entry.name);
            to.push(&entry.name);
            match (entry.kind, &entry.target) {
                (Kind::Directory, _) => {
                    make_directory(&to)?;
                    open.push((to.clone(), entry.mode));
                }
                (Kind::Symlink, Some(target)) => symlink(target, &to)?,
                _ => self.file(&from, &to, entry)?,
            }
        }
        for (path, mode) in open.iter().rev() {
            fs::set_permissions(path, PermissionsExt::from_mode(*mode))?;
        }
        Ok(())
    }

    /// Fetches as many bytes as were listed: a file that grows without end ends there.
    fn file(&mut self, from: &Path, into: &Path, entry: &Entry) -> Result<(), Error> {
        let mut options = fs::OpenOptions::new();
        let mut to = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(into)?;
        let mut source = self
            .sftp
            .open(from)
            .map_err(|error| self.failure(from, error))?;
        let mut buffer = vec![0; BUFFER.min(usize::try_from(entry.size).unwrap_or(BUFFER))];
        let mut left = entry.size;
        while left > 0 {
            self.fetch.progress.check()?;
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(BUFFER));
            let length = match source.read(&mut buffer[..wanted]) {
                Ok(0) => {
                    return Err(Error::Short {
                        path: self.place(from),
                        size: entry.size,
                        got: entry.size - left,
                    });
                }
                Ok(length) => length,
                Err(_) => return Err(self.broken(from)),
            };
            to.write_all(&buffer[..length])?;
            left -= length as u64;
            self.advance(length as u64);
        }
        to.set_permissions(PermissionsExt::from_mode(entry.mode))?;
        Ok(())
    }

    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes - self.told >= TOLD {
            self.told = self.bytes;
            self.fetch.part.advance(self.bytes);
        }
    }

    /// `user@host:port/path`
    fn place(&self, path: &Path) -> String {
        let location = SshLocation {
            path: path.strip_prefix(".").map_or_else(
                |_| path.display().to_string(),
                |rest| format!("~/{}", rest.display()),
            ),
            ..self.location.clone()
        };
        location.to_string()
    }

    fn special(&self, path: &Path, kind: &'static str) -> Error {
        Error::Special {
            path: self.place(path),
            kind,
        }
    }

    fn failure(&self, path: &Path, error: ssh2::Error) -> Error {
        let path = self.place(path);
        match error.code() {
            NO_SUCH_FILE => Error::Missing { path },
            PERMISSION_DENIED => Error::Denied { path },
            ErrorCode::SFTP(_) => Error::Remote {
                path,
                source: error,
            },
            ErrorCode::Session(_) => self.session.failure(error, self.fetch).into(),
        }
    }

    /// As [`failure`](Self::failure), for a read, whose error has lost its code.
    fn broken(&self, path: &Path) -> Error {
        match ssh2::Error::last_session_error(&self.session.ssh) {
            Some(error) if error.code() != REFUSED => self.failure(path, error),
            _ => Error::Remote {
                path: self.place(path),
                source: ssh2::Error::new(REFUSED, "the server refuses to read on"),
            },
        }
    }
}

/// Makes a directory that only its owner can enter until it is complete.
fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o700))
}

fn escaped(name: &OsString) -> String {
    name.as_bytes().escape_ascii().to_string()
}
