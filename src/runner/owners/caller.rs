//! A process whose call waits for its answer: its memory, and the files that it means.
//!
//! A path means to pid 1 what it means to the caller: pid 1 starts from the caller's own root and working
//! directory, which it has as descriptors, and the kernel does the lookup. Only links of /proc that lead
//! somewhere by themselves (`/proc/self/fd/1`, and so `/dev/stdout`) would lead from pid 1 to its own files:
//! where one is met the lookup is done here, and leads only to what is the caller's.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::super::place::{self, Place};
use super::super::sys::{self, Notice};
use super::errno;

/// With its final zero, as the kernel has it.
const MAX_PATH: usize = 4096;
/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;
/// `PROC_SUPER_MAGIC` of `linux/magic.h`, and `PROC_ROOT_INO` of `linux/proc_ns.h`.
const PROC: (u64, u64) = (0x9fa0, 1);

const HERE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Pid 1's own root, and its view of the processes.
pub(super) struct Root {
    fd: OwnedFd,
    proc: OwnedFd,
    place: Place,
    /// The mount that the layer is made of.
    pub(super) mount: u64,
    /// Whether /proc numbers processes as pid 1's namespace does; else it is the outer one.
    is_own_proc: bool,
}

impl Root {
    pub(super) fn open() -> Result<Self, Errno> {
        let flags = HERE | OFlags::DIRECTORY;
        let fd = rustix::fs::open("/", flags, Mode::empty())?;
        let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
        let place = Place::of(&fd)?;
        let me = rustix::fs::readlinkat(&proc, "self", vec![])?;
        Ok(Self {
            is_own_proc: me.to_bytes()
                == rustix::process::getpid()
                    .as_raw_nonzero()
                    .to_string()
                    .as_bytes(),
            fd,
            proc,
            mount: place.mount,
            place,
        })
    }
}

/// Who called.
pub(super) struct Caller<'a> {
    root: &'a Root,
    listener: &'a OwnedFd,
    notice: &'a Notice,
}

impl<'a> Caller<'a> {
    pub(super) fn new(root: &'a Root, listener: &'a OwnedFd, notice: &'a Notice) -> Self {
        Self {
            root,
            listener,
            notice,
        }
    }

    /// An error unless the call still waits. If it does, what was looked up before by the number of its thread
    /// was that thread's.
    pub(super) fn check(&self) -> Result<(), Errno> {
        if sys::is_waiting(self.listener, self.notice.id) {
            Ok(())
        } else {
            Err(Errno::SRCH)
        }
    }

    /// Reads all of `buffer`.
    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        match sys::read_memory(self.notice.thread, address, buffer) {
            Ok(length) if length == buffer.len() => self.check(),
            Ok(_) => Err(Errno::FAULT),
            Err(error) => Err(errno(&error)),
        }
    }

    /// Writes into the caller's memory. To be preceded by a [`Self::check`].
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        sys::write_memory(self.notice.thread, address, bytes).map_err(|error| errno(&error))
    }

    /// Reads a path, up to its zero.
    pub(super) fn path(&self, address: u64) -> Result<Vec<u8>, Errno> {
        let mut path = vec![];
        while path.len() < MAX_PATH {
            let start = path.len();
            let at = address
                .checked_add(u64::try_from(start).unwrap_or(u64::MAX))
                .ok_or(Errno::FAULT)?;
            // The next page may not be there.
            let length = usize::try_from(4096 - at % 4096).unwrap_or(1);
            path.resize((start + length).min(MAX_PATH), 0);
            let read = sys::read_memory(self.notice.thread, at, &mut path[start..])
                .map_err(|error| errno(&error))?;
            path.truncate(start + read);
            if let Some(end) = path[start..].iter().position(|byte| *byte == 0) {
                path.truncate(start + end);
                self.check()?;
                return Ok(path);
            }
            if read == 0 {
                return Err(Errno::FAULT);
            }
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Something of the caller's directory in /proc.
    fn open(&self, entry: &str) -> Result<OwnedFd, Errno> {
        let path = format!("{}/{entry}", self.number()?);
        rustix::fs::openat(&self.root.proc, path, HERE, Mode::empty())
    }

    /// How /proc calls the thread.
    fn number(&self) -> Result<i32, Errno> {
        if self.root.is_own_proc {
            return Ok(self.notice.thread);
        }
        // The outer /proc has other numbers, and knows a descriptor's.
        let thread = Pid::from_raw(self.notice.thread).ok_or(Errno::SRCH)?;
        let of_thread = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());
        let pidfd = match rustix::process::pidfd_open(thread, of_thread) {
            // Before Linux 6.9 only of a process's first thread.
            Err(Errno::INVAL) => rustix::process::pidfd_open(thread, PidfdFlags::empty()),
            result => result,
        }?;
        let info = place::name(&pidfd).replace("/fd/", "/fdinfo/");
        field(
            &fs_err::read_to_string(info).map_err(|error| errno(&error))?,
            "Pid:",
        )
        .and_then(|number| number.parse().ok())
        .ok_or(Errno::SRCH)
    }

    /// The lines of /proc/PID/status.
    pub(super) fn status(&self) -> Result<String, Errno> {
        let path = format!("{}/status", self.number()?);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.root.proc, path, flags, Mode::empty())?;
        let text =
            std::io::read_to_string(std::fs::File::from(fd)).map_err(|error| errno(&error))?;
        self.check()?;
        Ok(text)
    }

    /// An open file, for fchown: one opened with `O_PATH` is none.
    pub(super) fn open_file(&self, fd: i32) -> Result<OwnedFd, Errno> {
        let path = format!("{}/fd/{fd}", self.number()?);
        let link = rustix::fs::statat(&self.root.proc, &*path, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|_| Errno::BADF)?;
        // The link can be read, or written, as the file can.
        if link.st_mode & 0o600 == 0 {
            return Err(Errno::BADF);
        }
        self.file(fd)
    }

    /// What a descriptor names.
    pub(super) fn file(&self, fd: i32) -> Result<OwnedFd, Errno> {
        if fd < 0 {
            return Err(Errno::BADF);
        }
        self.open(&format!("fd/{fd}")).map_err(|_| Errno::BADF)
    }

    /// What a path of the caller's means; with `empty`, what `directory` names if the path is empty.
    pub(super) fn lookup(
        &self,
        directory: i32,
        address: u64,
        follow: bool,
        empty: bool,
    ) -> Result<OwnedFd, Errno> {
        let path = self.path(address)?;
        if path.is_empty() {
            return if empty {
                self.start(directory)
            } else {
                Err(Errno::NOENT)
            };
        }
        self.resolve(directory, &path, follow)
    }

    fn start(&self, directory: i32) -> Result<OwnedFd, Errno> {
        if directory == libc::AT_FDCWD {
            self.open("cwd")
        } else {
            self.file(directory)
        }
    }

    /// What a path means to the caller.
    pub(super) fn resolve(
        &self,
        directory: i32,
        path: &[u8],
        follow: bool,
    ) -> Result<OwnedFd, Errno> {
        let root = self.open("root")?;
        let start = if path.starts_with(b"/") {
            // Not used by the kernel.
            self.open("root")?
        } else {
            self.start(directory)?
        };
        self.check()?;
        let found = if Place::of(&root)? == self.root.place {
            open_path(&start, path, follow)
        } else {
            self.inside(&root, || open_path(&start, path, follow))?
        };
        match found {
            // Linux before 5.6 has no openat2.
            Err(Errno::LOOP | Errno::XDEV | Errno::NOSYS | Errno::PERM) => {
                self.walk(&root, start, path, follow)
            }
            result => result,
        }
    }

    /// Works with another root. Pid 1 has one thread, and may always come back.
    fn inside<T>(&self, root: &OwnedFd, work: impl FnOnce() -> T) -> Result<T, Errno> {
        let enter = |root: &OwnedFd| {
            rustix::process::fchdir(root).and_then(|()| rustix::process::chroot("."))
        };
        enter(root)?;
        let result = work();
        // Without its own root pid 1 is of no use.
        if enter(&self.root.fd).is_err() {
            sys::exit(1);
        }
        Ok(result)
    }

    /// The lookup by hand, see `path_resolution(7)`.
    fn walk(
        &self,
        root: &OwnedFd,
        start: OwnedFd,
        path: &[u8],
        follow: bool,
    ) -> Result<OwnedFd, Errno> {
        let again = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        let mut here = if path.starts_with(b"/") {
            again(root)?
        } else {
            start
        };
        let mut rest = reversed(path);
        let mut links = 0;
        while let Some(part) = rest.pop() {
            // What comes after a final slash is "here".
            let is_last = rest.is_empty();
            if part.is_empty() || part == b"." {
                if !place::is_directory(&here).map_err(|error| errno(&error))? {
                    return Err(Errno::NOTDIR);
                }
                continue;
            }
            if part == b".." {
                if Place::of(&here)? != Place::of(root)? {
                    here = step(&here, b"..")?;
                }
                continue;
            }
            let own = self.own_name(&here, &part)?;
            let next = step(&here, own.as_deref().unwrap_or(&part))?;
            let status = rustix::fs::fstat(&next)?;
            let is_link = FileType::from_raw_mode(status.st_mode) == FileType::Symlink;
            if !is_link || (is_last && !follow) {
                here = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            if is_proc(&here)? && rustix::fs::fstat(&here)?.st_ino != PROC.1 {
                if !self.is_own(&here)? {
                    return Err(Errno::ACCESS);
                }
                here = rustix::fs::openat(&here, OsStr::from_bytes(&part), HERE, Mode::empty())?;
                continue;
            }
            let text = rustix::fs::readlinkat(&next, "", vec![])?;
            if text.to_bytes().starts_with(b"/") {
                here = again(root)?;
            }
            rest.extend(reversed(text.to_bytes()));
        }
        Ok(here)
    }

    /// What `self` and `thread-self` are in /proc to the caller.
    fn own_name(&self, directory: &OwnedFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        if name != b"self" && name != b"thread-self" {
            return Ok(None);
        }
        if !is_proc(directory)? || rustix::fs::fstat(directory)?.st_ino != PROC.1 {
            return Ok(None);
        }
        let process = self.process()?;
        Ok(Some(if name == b"self" {
            process.to_string().into_bytes()
        } else {
            format!("{process}/task/{}", self.number()?).into_bytes()
        }))
    }

    /// Whether a directory in /proc is of the caller.
    fn is_own(&self, directory: &OwnedFd) -> Result<bool, Errno> {
        let path = rustix::fs::readlink(place::name(directory), vec![])?;
        let own = format!("/proc/{}", self.process()?);
        let rest = path.to_bytes().strip_prefix(own.as_bytes());
        Ok(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")))
    }

    /// The process of the thread, as /proc calls it.
    fn process(&self) -> Result<i32, Errno> {
        field(&self.status()?, "Tgid:")
            .and_then(|number| number.parse().ok())
            .ok_or(Errno::SRCH)
    }
}

/// A line of a file in /proc.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = path
        .split(|byte| *byte == b'/')
        .enumerate()
        // The first one of an absolute path is empty.
        .filter(|(number, part)| *number > 0 || !part.is_empty())
        .map(|(_, part)| part.to_owned())
        .collect();
    parts.reverse();
    parts
}

fn is_proc(fd: &OwnedFd) -> Result<bool, Errno> {
    Ok(u64::try_from(rustix::fs::fstatfs(fd)?.f_type) == Ok(PROC.0))
}

fn step(directory: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        directory,
        OsStr::from_bytes(name),
        HERE | OFlags::NOFOLLOW,
        Mode::empty(),
    )
}

fn open_path(start: &OwnedFd, path: &[u8], follow: bool) -> Result<OwnedFd, Errno> {
    let flags = if follow {
        HERE
    } else {
        HERE | OFlags::NOFOLLOW
    };
    rustix::fs::openat2(
        start,
        OsStr::from_bytes(path),
        flags,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    )
}
