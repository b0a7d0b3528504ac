//! Files and directories by `scp`, which is SFTP nowadays: no shell is needed on the other side, and none can
//! be deceived by a name.
//!
//! The one idea: a tree is listed as a whole before anything is fetched. The list says whether something
//! changed, and what the server lists is checked there, once: past it, every name is a plain one, no name
//! comes twice, and so whatever is created lies below a directory that this program has just made.

mod list;

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::{OpenOptionsExt as _, symlink};
use ssh2::{ErrorCode, Sftp};

use super::error::source;
use super::{Answer, Fetch, Validator, ssh};
use crate::buildfile::SshLocation;
use crate::error::Error;
use list::{Entry, Kind};

/// Bytes of a file that are asked for at a time. The library asks for some more ahead; with less, large files
/// wait for the network.
const BUFFER: usize = 256 << 10;

/// Bytes between two events.
const TOLD: u64 = 1 << 20;

/// A server's refusal in the middle of a file, the reason of which the library keeps to itself.
const REFUSED: ErrorCode = ErrorCode::Session(-31);

/// The status codes of SFTP (draft-ietf-secsh-filexfer-02, section 7) that are errors of their own here.
const NO_SUCH_FILE: ErrorCode = ErrorCode::SFTP(2);
const PERMISSION_DENIED: ErrorCode = ErrorCode::SFTP(3);

/// Fetches what lies at `location`. Links in a directory stay links; one that is named itself is followed.
pub(super) fn fetch(
    location: &SshLocation,
    into: &Path,
    known: Option<&Validator>,
    fetch: Fetch<'_>,
) -> Result<Answer, Error> {
    let session = ssh::connect(location, None, fetch)?;
    let sftp = session.ssh.sftp().map_err(|error| {
        let message = format!("the server of `{location}` offers no SFTP");
        session
            .failure_of(&message, error, fetch)
            .with_hint("turn it on there: `Subsystem sftp internal-sftp` in `sshd_config`")
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
            Some(_) => Err(source(format!(
                "`{}` begins with the home directory of a user, which SFTP does not know",
                self.location
            ))
            .with_hint("write the path from the root, or from `~/`")),
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
        let mut remote = self
            .sftp
            .open(from)
            .map_err(|error| self.failure(from, error))?;
        let mut buffer = vec![0; BUFFER.min(usize::try_from(entry.size).unwrap_or(BUFFER))];
        let mut left = entry.size;
        while left > 0 {
            self.fetch.progress.check()?;
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(BUFFER));
            let length = match remote.read(&mut buffer[..wanted]) {
                Ok(0) => {
                    let message = format!(
                        "`{}` ended after {} of {} bytes",
                        self.place(from),
                        entry.size - left,
                        entry.size
                    );
                    return Err(
                        source(message).with_hint("it changed while it was fetched: try again")
                    );
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
        let path = self.place(path);
        source(format!("`{path}` is a {kind}, which cannot be fetched"))
            .with_hint("name the files beside it one by one")
    }

    fn failure(&self, path: &Path, error: ssh2::Error) -> Error {
        let place = self.place(path);
        match error.code() {
            NO_SUCH_FILE => source(format!("`{place}` does not exist"))
                .with_hint("write the absolute path behind the host: `scp://host/path/to/file`"),
            PERMISSION_DENIED => source(format!(
                "`{place}` may not be read by the user of the login"
            )),
            ErrorCode::SFTP(_) => self.unreadable(path, error),
            ErrorCode::Session(_) => self.session.failure(error, self.fetch),
        }
    }

    /// As [`failure`](Self::failure), for a read, whose error has lost its code.
    fn broken(&self, path: &Path) -> Error {
        match ssh2::Error::last_session_error(&self.session.ssh) {
            Some(error) if error.code() != REFUSED => self.failure(path, error),
            _ => {
                let error = ssh2::Error::new(REFUSED, "the server refuses to read on");
                self.unreadable(path, error)
            }
        }
    }

    fn unreadable(&self, path: &Path, error: ssh2::Error) -> Error {
        ssh::failed(&format!("`{}` cannot be read", self.place(path)), error)
    }
}

/// Makes a directory that only its owner can enter until it is complete.
fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o700))
}
