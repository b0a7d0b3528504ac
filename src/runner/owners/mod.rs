//! Owners where only one id exists: what a step asks of chown(2) is written down instead of done.
//!
//! Pid 1 gets every call of the chown family by a seccomp user notification and answers it. It changes the
//! owner from root to root, which it may: the kernel then clears setuid, setgid and capabilities, copies the
//! file up in an overlay, and refuses what cannot be changed, all as chown(2) does. What the step asked for
//! goes into an extended attribute of the file, so that it follows the file through renames, hard links and
//! later copies, and is gone with it. Links, pipes and devices can have no such attribute; theirs are kept
//! here (`links.rs`), and written to a file by path at the end.
//!
//! With [`Owners::emulate`] calls that ask for owners or ids get answers that fit (`identity.rs`,
//! `status.rs`), and files that somebody else than root makes are that one's (`create.rs`).
//!
//! Nothing that is found by a process's number is used before the kernel has said that the process still
//! waits for its answer. Files are found by descriptors (`caller.rs`) and never outside of the root file
//! system. If pid 1 ends, however that is, so do all who could ask.

mod caller;
mod create;
mod identity;
mod links;
mod status;

use std::collections::HashMap;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use self::caller::{Caller, Root};
use self::identity::Identities;
use self::links::Links;
use super::place::{self, Place};
use super::sys::{self, Answer, Notice};
use super::{Command, Failure, Owners, RootFs, Runner, init};

/// User and group.
type Owner = (u32, u32);
/// Owners by path, relative to the root.
type ByPath = HashMap<Vec<u8>, Owner>;

/// More than this, and the file is none of ours.
const MAX_RECORD: u64 = 1 << 30;

/// Files to open while the host's file system is in sight.
pub(super) struct Prepared {
    owners: Owners,
    known: ByPath,
    record: std::fs::File,
    recorded: ByPath,
    /// The directory that takes the step's writes, without the mounts upon it.
    under: OwnedFd,
}

impl Prepared {
    /// `None` where owners are not recorded.
    pub(super) fn open(runner: Runner, command: &Command) -> Result<Option<Self>, Failure> {
        let Some(owners) = command
            .owners
            .as_ref()
            .filter(|_| runner == Runner::UsernsSingle)
        else {
            return Ok(None);
        };
        let at = |path: &Path| {
            let call = format!("open({})", path.display());
            move |error: io::Error| Failure::new(call, error)
        };
        let known = match &owners.known {
            Some(path) => {
                let file = fs_err::File::open(path).map_err(at(path))?;
                read_record(&mut file.into_file()).map_err(at(path))?
            }
            None => ByPath::new(),
        };
        let mut record = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&owners.record)
            .map_err(at(&owners.record))?
            .into_file();
        let recorded = read_record(&mut record).map_err(at(&owners.record))?;
        let under = match &command.rootfs {
            RootFs::Overlay { upper, .. } => upper,
            RootFs::Directory(path) => path,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(under, flags, Mode::empty())
            .map_err(|error| at(under)(error.into()))?;
        Ok(Some(Self {
            owners: owners.clone(),
            known,
            record,
            recorded,
            under: opened,
        }))
    }
}

/// Reads `UID GID PATH\0` as often as it comes.
fn read_record(file: &mut std::fs::File) -> io::Result<ByPath> {
    let mut bytes = vec![];
    file.take(MAX_RECORD).read_to_end(&mut bytes)?;
    let mut owners = ByPath::new();
    for record in bytes.split(|byte| *byte == 0).filter(|r| !r.is_empty()) {
        let mut parts = record.splitn(3, |byte| *byte == b' ');
        let mut id = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
        let (Some(uid), Some(gid), Some(path)) = (id(), id(), parts.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        owners.insert(path.to_owned(), (uid, gid));
    }
    Ok(owners)
}

/// Answers the calls of a step. Lives in pid 1, inside the root file system.
pub(super) struct Recorder {
    listener: OwnedFd,
    owners: Owners,
    root: Root,
    under: OwnedFd,
    is_overlay: bool,
    known: ByPath,
    links: Links,
    identities: Identities,
    record: std::fs::File,
}

impl Recorder {
    /// Begins to serve those whose calls arrive at `listener`.
    pub(super) fn new(
        prepared: Prepared,
        listener: OwnedFd,
        rootfs: &RootFs,
    ) -> Result<Self, Failure> {
        sys::answer_on_same_processor(&listener);
        let root = Root::open().map_err(|error| Failure::new("open(/proc)", error))?;
        let mut recorder = Self {
            listener,
            owners: prepared.owners,
            root,
            under: prepared.under,
            is_overlay: matches!(rootfs, RootFs::Overlay { .. }),
            known: prepared.known,
            links: Links::default(),
            identities: Identities::default(),
            record: prepared.record,
        };
        // A command before this one, of the same step.
        for (path, owner) in prepared.recorded {
            if let Ok(Some(file)) = links::find(&recorder.under, &path) {
                let _ = recorder.links.set(&file, owner);
            }
        }
        Ok(recorder)
    }

    /// Becomes readable when a call waits.
    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// Serves one call, if one waits.
    pub(super) fn serve(&mut self) -> Result<(), Failure> {
        let notice = sys::receive_notice(&self.listener)
            .map_err(|error| Failure::new("ioctl(SECCOMP_IOCTL_NOTIF_RECV)", error))?;
        if let Some(notice) = notice {
            let answer = match self.answer(&notice) {
                Ok(Some(answer)) => answer,
                // Answered already.
                Ok(None) => return Ok(()),
                Err(error) => Answer::Error(error),
            };
            sys::answer_notice(&self.listener, notice.id, answer);
        }
        Ok(())
    }

    /// Ends what is left of the step and writes down what no file could carry.
    pub(super) fn complete(mut self) -> Result<(), Failure> {
        // Whoever still writes would do so while the tree is looked through.
        init::end_others();
        let paths = self.links.paths(&self.under)?;
        let mut text = vec![];
        for (path, (uid, gid)) in paths {
            text.extend_from_slice(format!("{uid} {gid} ").as_bytes());
            text.extend_from_slice(&path);
            text.push(0);
        }
        self.record
            .rewind()
            .and_then(|()| self.record.set_len(0))
            .and_then(|()| self.record.write_all(&text))
            .map_err(|error| {
                Failure::new(format!("write({})", self.owners.record.display()), error)
            })
    }

    fn answer(&mut self, notice: &Notice) -> Result<Option<Answer>, Errno> {
        let caller = Caller::new(&self.root, &self.listener, notice);
        if let Some(target) = Chown::of(notice) {
            let fd = target.find(&caller)?;
            caller.check()?;
            self.may_chown(notice, &fd, &target)?;
            return self
                .set_owner(&fd, target.uid, target.gid)
                .map(|()| Some(Answer::Value(0)));
        }
        if let Some(answer) = self.identities.answer(notice, &caller) {
            return answer.map(|value| Some(Answer::Value(value)));
        }
        if let Some(answer) = self.answer_status(notice)? {
            return Ok(Some(answer));
        }
        self.answer_creation(notice)
    }

    /// Refuses what the emulated user of the caller may not do.
    fn may_chown(&self, notice: &Notice, fd: &OwnedFd, target: &Chown) -> Result<(), Errno> {
        let Some(identity) = self.identities.of(notice.thread) else {
            return Ok(());
        };
        let owner = self.owner_of(fd)?;
        if identity.may_chown(owner, target.uid, target.gid) {
            Ok(())
        } else {
            Err(Errno::PERM)
        }
    }

    /// Changes the owner of a file as chown(2) does; what is `None` stays.
    fn set_owner(&mut self, fd: &OwnedFd, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let file = Place::of(fd)?;
        let inside = file.mount == self.root.mount;
        let before = if uid.is_some() && gid.is_some() && has_attributes(&file) {
            (0, 0)
        } else {
            self.owner(fd, &file)?
        };
        let root = (uid.map(|_| Uid::ROOT), gid.map(|_| Gid::ROOT));
        match rustix::fs::chownat(fd, "", root.0, root.1, AtFlags::EMPTY_PATH) {
            Ok(()) => {}
            // What the host shows to the step, such as /dev/null, is in no layer.
            Err(Errno::PERM) if !inside => return Ok(()),
            Err(error) => return Err(error),
        }
        let after = (uid.unwrap_or(before.0), gid.unwrap_or(before.1));
        if uid.is_none() && gid.is_none() {
            return Ok(());
        }
        if has_attributes(&file) {
            let value = format!("{}:{}", after.0, after.1);
            let attribute = self.owners.attribute.as_str();
            match rustix::fs::setxattr(
                place::name(fd),
                attribute,
                value.as_bytes(),
                XattrFlags::empty(),
            ) {
                Ok(()) => return Ok(()),
                // A file system without attributes.
                Err(Errno::NOTSUP) => {}
                Err(_) if !inside => {}
                Err(error) => return Err(error),
            }
        }
        if !inside || (before == (0, 0) && after == (0, 0)) {
            return Ok(());
        }
        match links::find_under(&self.under, fd)? {
            Some(file) => self.links.set(&file, after),
            None => Ok(()),
        }
    }

    /// Whose a file is, as far as the step may know.
    fn owner_of(&self, fd: &OwnedFd) -> Result<Owner, Errno> {
        self.owner(fd, &Place::of(fd)?)
    }

    fn owner(&self, fd: &OwnedFd, file: &Place) -> Result<Owner, Errno> {
        if has_attributes(file) {
            let mut value = [0; 32];
            match rustix::fs::getxattr(
                place::name(fd),
                self.owners.attribute.as_str(),
                &mut value[..],
            ) {
                Ok(length) => return Ok(parse_owner(&value[..length]).unwrap_or((0, 0))),
                Err(Errno::NODATA) => {}
                Err(Errno::NOTSUP) if file.mount == self.root.mount => {
                    return self.owner_aside(fd);
                }
                Err(_) => return Ok((0, 0)),
            }
            return Ok((0, 0));
        }
        if file.mount == self.root.mount {
            return self.owner_aside(fd);
        }
        Ok((0, 0))
    }

    /// The owner of what has no attribute: recorded now, or known of the base.
    fn owner_aside(&self, fd: &OwnedFd) -> Result<Owner, Errno> {
        if self.links.is_empty() && self.known.is_empty() {
            return Ok((0, 0));
        }
        let under = links::find_under(&self.under, fd)?;
        if let Some(owner) = under.as_ref().and_then(|file| self.links.get(file)) {
            return Ok(owner);
        }
        if under.is_some() && self.is_overlay {
            // Made by this step, or touched without a change of owner.
            return Ok((0, 0));
        }
        let path = links::path_of(fd)?;
        Ok(path
            .and_then(|path| self.known.get(path.as_os_str().as_bytes()).copied())
            .unwrap_or((0, 0)))
    }
}

/// See xattr(7).
fn has_attributes(file: &Place) -> bool {
    matches!(file.kind, FileType::RegularFile | FileType::Directory)
}

fn parse_owner(value: &[u8]) -> Option<Owner> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// One call of the chown family.
struct Chown {
    directory: i32,
    /// `None` means the descriptor itself.
    path: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    flags: u32,
}

impl Chown {
    fn of(notice: &Notice) -> Option<Self> {
        let [a, b, c, d, flags, _] = notice.arguments;
        let follow = |path, uid, gid, flags| Self {
            directory: libc::AT_FDCWD,
            path: Some(path),
            uid: id(uid),
            gid: id(gid),
            flags,
        };
        match notice.number {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chown => Some(follow(a, b, c, 0)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lchown => Some(follow(a, b, c, NOFOLLOW)),
            libc::SYS_fchown => Some(Self {
                directory: number(a),
                path: None,
                ..follow(0, b, c, 0)
            }),
            libc::SYS_fchownat => Some(Self {
                directory: number(a),
                ..follow(b, c, d, low(flags))
            }),
            _ => None,
        }
    }

    fn find(&self, caller: &Caller<'_>) -> Result<OwnedFd, Errno> {
        let Some(address) = self.path else {
            return caller.open_file(self.directory);
        };
        if self.flags & !(NOFOLLOW | EMPTY_PATH) != 0 {
            return Err(Errno::INVAL);
        }
        let empty = self.flags & EMPTY_PATH != 0;
        caller.lookup(self.directory, address, self.flags & NOFOLLOW == 0, empty)
    }
}

const NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
const EMPTY_PATH: u32 = libc::AT_EMPTY_PATH.cast_unsigned();

/// The kernel looks at the lower half of an argument that is an `int`.
fn low(argument: u64) -> u32 {
    u32::try_from(argument & u64::from(u32::MAX)).unwrap_or(0)
}

fn number(argument: u64) -> i32 {
    low(argument).cast_signed()
}

/// An id; -1 leaves what is there.
fn id(argument: u64) -> Option<u32> {
    Some(low(argument)).filter(|id| *id != u32::MAX)
}

/// The error of one of this module's calls on behalf of a step.
fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
