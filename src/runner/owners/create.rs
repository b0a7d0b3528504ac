//! What somebody else than root makes is that one's: pid 1 makes it in the caller's stead, since a file has its
//! owner from the start, and the caller may be gone right after.
//!
//! Root is served where a directory with setgid gives its group to what is made in it; else the calls of root go on
//! as they are. To the kernel all are root, so it is here that a directory or file refuses whom its mode does not name.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::place::Place;
use super::super::sys::{self, Answer, Notice};
use super::caller::{Caller, field};
use super::identity::Identity;
use super::{Recorder, low, number};

/// A call that makes something.
struct Creation {
    directory: i32,
    path: u64,
    what: What,
}

enum What {
    /// With these flags and mode.
    File(u32, u32),
    Directory(u32),
    /// The address of its text.
    Link(u64),
    /// A pipe, a socket or a file, by type and mode.
    Node(u32),
}

impl Creation {
    fn of(notice: &Notice) -> Option<Self> {
        let [a, b, c, d, ..] = notice.arguments;
        let (directory, path, what) = match notice.number {
            libc::SYS_openat => (number(a), b, What::File(low(c), low(d))),
            libc::SYS_mkdirat => (number(a), b, What::Directory(low(c))),
            libc::SYS_symlinkat => (number(b), c, What::Link(a)),
            libc::SYS_mknodat => (number(a), b, What::Node(low(c))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => (libc::AT_FDCWD, a, What::File(low(b), low(c))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                let what = What::File(flags.cast_unsigned(), low(b));
                (libc::AT_FDCWD, a, what)
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir => (libc::AT_FDCWD, a, What::Directory(low(b))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_symlink => (libc::AT_FDCWD, b, What::Link(a)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mknod => (libc::AT_FDCWD, a, What::Node(low(b))),
            _ => return None,
        };
        Some(Self {
            directory,
            path,
            what,
        })
    }
}

impl Recorder {
    /// Answers a call that makes something. `None` if it was answered.
    pub(super) fn answer_creation(&mut self, notice: &Notice) -> Result<Option<Answer>, Errno> {
        let who = self.identities.of(notice.thread).cloned();
        let who = who.unwrap_or_default();
        let Some(creation) = Creation::of(notice) else {
            return Ok(Some(Answer::Continue));
        };
        match self.create(notice, &creation, &who) {
            Err(Errno::ACCESS) => Err(Errno::ACCESS),
            // The kernel finds out by itself what is in the way.
            Err(_) => Ok(Some(Answer::Continue)),
            Ok(None) => Ok(Some(Answer::Value(0))),
            Ok(Some((fd, close_on_exec))) => {
                sys::answer_descriptor(&self.listener, notice.id, &fd, close_on_exec)
                    .map_err(|error| super::errno(&error))?;
                Ok(None)
            }
        }
    }

    fn create(
        &mut self,
        notice: &Notice,
        creation: &Creation,
        who: &Identity,
    ) -> Result<Option<(OwnedFd, bool)>, Errno> {
        let caller = Caller::new(&self.root, &self.listener, notice);
        let path = caller.path(creation.path)?;
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..=slash], &path[slash + 1..]),
            None => (&b"."[..], &path[..]),
        };
        if matches!(name, b"" | b"." | b"..") {
            return Err(Errno::EXIST);
        }
        let name = OsStr::from_bytes(name);
        let parent = caller.resolve(creation.directory, parent, true)?;
        let (uid, gid) = who.owner();
        let group = self.group_for(&parent, gid)?;
        if (uid, group) == (0, 0) {
            // What the kernel makes has this owner.
            return Err(Errno::EXIST);
        }
        if let What::File(flags, _) = creation.what {
            let flags = OFlags::from_bits_retain(flags);
            let follow = !flags.contains(OFlags::NOFOLLOW);
            // A file that is there is opened by the caller itself, which may have to wait for it.
            if let Ok(there) = caller.resolve(creation.directory, &path, follow) {
                let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
                self.admit(
                    who,
                    if writes { 2 } else { 4 },
                    &there,
                    FileType::RegularFile,
                )?;
                return Err(Errno::EXIST);
            }
        }
        if rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(Errno::EXIST);
        }
        self.admit(who, 3, &parent, FileType::Directory)?;
        let text = match creation.what {
            What::Link(address) => caller.path(address)?,
            _ => vec![],
        };
        let umask = field(&caller.status()?, "Umask:")
            .and_then(|mask| u32::from_str_radix(mask, 8).ok())
            .unwrap_or(0o022);
        caller.check()?;
        let mode = |mode: u32| Mode::from_raw_mode(mode & 0o7777 & !umask);
        let mut given = None;
        let here = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match creation.what {
            What::File(flags, bits) => {
                let flags = OFlags::from_bits_retain(flags);
                let only_new = flags | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&parent, name, only_new, mode(bits))?;
                given = Some((fd, flags.contains(OFlags::CLOEXEC)));
            }
            What::Directory(bits) => rustix::fs::mkdirat(&parent, name, mode(bits))?,
            What::Link(_) => {
                rustix::fs::symlinkat(OsStr::from_bytes(&text), &parent, name)?;
            }
            What::Node(bits) => {
                let kind = match FileType::from_raw_mode(bits & libc::S_IFMT) {
                    FileType::Unknown => FileType::RegularFile,
                    kind => kind,
                };
                rustix::fs::mknodat(&parent, name, kind, mode(bits), 0)?;
            }
        }
        let new = rustix::fs::openat(&parent, name, here, Mode::empty())?;
        self.set_owner(&new, Some(uid), Some(group))?;
        Ok(given)
    }

    /// Refuses somebody whom the mode of a file of the image does not give `wanted`, see [`Identity::may`].
    fn admit(
        &self,
        who: &Identity,
        wanted: u32,
        fd: &OwnedFd,
        kind: FileType,
    ) -> Result<(), Errno> {
        let file = Place::of(fd)?;
        if file.kind != kind || file.mount != self.root.mount {
            return Ok(());
        }
        let mode = rustix::fs::fstat(fd)?.st_mode;
        if who.may(wanted, self.owner(fd, &file)?, mode) {
            Ok(())
        } else {
            Err(Errno::ACCESS)
        }
    }

    /// In a directory with setgid all has the directory's group.
    fn group_for(&self, parent: &OwnedFd, group: u32) -> Result<u32, Errno> {
        if rustix::fs::fstat(parent)?.st_mode & libc::S_ISGID == 0 {
            return Ok(group);
        }
        Ok(self.owner_of(parent)?.1)
    }
}
