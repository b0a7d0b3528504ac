//! Layers into a tree: each entry of each layer applied in turn, as container runtimes do.
//!
//! Follows the OCI image specification, `layer.md`, "Applying Changesets". One thread reads, digests
//! and decompresses, the other one writes files. Deletions count for the layers below only, so the
//! inodes that the current layer made are remembered. Owners that cannot be set, and the times of
//! directories, are kept by inode as well, and settled by one walk at the end: that way renames and
//! links of a layer need no thought.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use fs_err as fs;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::layer::archive::Archive;
use crate::layer::entry::{Entry, Kind};
use crate::layer::malformed::Malformed;
use crate::layer::overlay;
use crate::layer::root::{self, Root};
use crate::layer::stream;
use crate::layer::whiteout::{self, Meaning};
use crate::layer::{Coming, Error, OWNER_ATTRIBUTE, UnpackRequest, Unpacked};
use crate::layer::{holes, node};
use crate::manifest::Layer;
use crate::store::Store;

/// Unpacks, verifying digests, sizes and diffIDs.
pub(super) fn unpack(request: &UnpackRequest) -> Result<Unpacked, Error> {
    let mut tree = Tree::open(request)?;
    let coming = match &request.coming {
        Some(Coming { store, pending }) => Some((Store::open(store)?, pending)),
        None => None,
    };
    for (path, layer) in &request.layers {
        if let Some((store, pending)) = &coming {
            let blob = store.open_coming(&layer.descriptor.digest, pending);
            tree.apply_layer(blob, layer)?;
        } else {
            tree.apply_layer(fs::File::open(path)?, layer)?;
        }
    }
    tree.settle(request.owners.as_deref())
}

pub(super) struct Tree {
    pub(super) root: Root,
    /// Whether owners are set, and not only recorded.
    pub(super) sets_owners: bool,
    /// See [`UnpackRequest::is_alone`].
    pub(super) is_alone: bool,
    /// Inodes of the current layer, so that its own deletions spare them.
    pub(super) current: HashSet<u64>,
    /// Names (inode of the directory, name) that the current layer linked to files of lower layers.
    pub(super) current_links: HashSet<(u64, Vec<u8>)>,
    /// The times of directories, which change with every file that is put into them.
    pub(super) times: HashMap<u64, (i64, u32)>,
    /// Owners other than 0:0 that were not set.
    pub(super) owners: HashMap<u64, (u32, u32)>,
    /// Bytes on the disk, when it was last asked, less what was written since.
    pub(super) available: u64,
    pub(super) unpacked: Unpacked,
    pub(super) buffer: Vec<u8>,
}

impl Tree {
    fn open(request: &UnpackRequest) -> Result<Self, Error> {
        let root = Root::open(&request.rootfs)?;
        // Images seldom say anything about the root; programs of users other than root need to enter it.
        rustix::fs::fchmod(root.fd(), Mode::from_raw_mode(0o755))
            .map_err(Error::file("set the mode of", &request.rootfs))?;
        let inode = rustix::fs::fstat(root.fd())
            .map_err(Error::file("read the metadata of", &request.rootfs))?
            .st_ino;
        Ok(Self {
            root,
            sets_owners: request.owners.is_none(),
            is_alone: request.is_alone,
            current: HashSet::new(),
            current_links: HashSet::new(),
            // Not the time of unpacking, which would make equal trees differ.
            times: HashMap::from([(inode, (0, 0))]),
            owners: HashMap::new(),
            available: 0,
            unpacked: Unpacked::default(),
            buffer: vec![0; 1 << 17],
        })
    }

    fn apply_layer(&mut self, blob: impl Read + Send, layer: &Layer) -> Result<(), Error> {
        self.current.clear();
        self.current_links.clear();
        let digest = layer.descriptor.digest;
        let malformed = |source| Error::Malformed { digest, source };
        stream::read_layer(blob, layer, |input| {
            let mut archive = Archive::new(input, layer.descriptor.size);
            while let Some(entry) = archive.next().map_err(malformed)? {
                self.apply(&entry, &mut archive)
                    .map_err(|failure| match failure {
                        Failure::Malformed(source) => malformed(source),
                        Failure::Other(error) => error,
                        Failure::Call(action, source) => {
                            let path = OsStr::from_bytes(&entry.path).into();
                            Error::File {
                                action,
                                path,
                                source,
                            }
                        }
                    })?;
            }
            self.unpacked.entries += archive.entries();
            Ok(())
        })
    }

    fn apply(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<impl io::Read>,
    ) -> Result<(), Failure> {
        match whiteout::classify(&entry.path)? {
            Meaning::Entry => {}
            Meaning::Ignored => return Ok(()),
            Meaning::Delete(victim) => return self.delete(&victim).map_err(call("delete")),
            Meaning::Opaque(directory) => return self.empty(&directory).map_err(call("empty")),
        }
        if entry.path.is_empty() {
            return self.apply_to_root(entry);
        }
        let (directory, name) = root::split(&entry.path);
        // The inode of the directory is only needed for hard links; it is read there.
        let (current, times, owners) = (&mut self.current, &mut self.times, &mut self.owners);
        let is_alone = self.is_alone;
        let parent = self
            .root
            .make_directory(directory, |new| {
                if is_alone {
                    return Err(io::Error::other("the layer says nothing of them"));
                }
                let inode = rustix::fs::fstat(new)?.st_ino;
                current.insert(inode);
                // Not the time of unpacking, which would make equal trees differ.
                times.insert(inode, (0, 0));
                owners.remove(&inode);
                Ok(())
            })
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOTDIR | libc::ELOOP | libc::EEXIST) => {
                    Failure::Malformed(Malformed::Parent {
                        path: lossy(&entry.path),
                    })
                }
                _ => Failure::Call("make the directories above", error),
            })?;
        // Another call than `self` may borrow the root while this directory is open.
        let parent = parent
            .try_clone_to_owned()
            .map_err(call("open the directory of"))?;
        let parent = parent.as_fd();
        match entry.kind {
            Kind::Directory => self.apply_directory(entry, parent, name),
            Kind::File => self.apply_file(entry, parent, name, archive),
            Kind::HardLink => self.apply_link(entry, parent, name),
            Kind::Symlink => self.apply_symlink(entry, parent, name),
            Kind::Fifo | Kind::Char | Kind::Block => self.apply_device(entry, parent, name),
        }
    }

    fn apply_to_root(&mut self, entry: &Entry) -> Result<(), Failure> {
        if entry.kind != Kind::Directory {
            let kind = "the root itself and not a directory".to_owned();
            let path = "/".to_owned();
            return Err(Failure::Malformed(Malformed::Unsupported { path, kind }));
        }
        if self.is_alone {
            let error = io::Error::other("the root is the base's");
            return Err(call("describe the root")(error));
        }
        let fd = self.root.fd().try_clone_to_owned().map_err(call("open"))?;
        self.describe_directory(entry, &fd)
    }

    fn apply_directory(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Failure> {
        let mut is_opaque = false;
        match rustix::fs::mkdirat(parent, OsStr::from_bytes(name), Mode::RWXU) {
            Err(Errno::EXIST) => {
                // A link to a directory is replaced, as Docker and containerd do.
                if root::kind_of(parent, name).map_err(call("look at"))?
                    != Some(node::Kind::Directory)
                {
                    self.make_way(parent, name)?;
                    rustix::fs::mkdirat(parent, OsStr::from_bytes(name), Mode::RWXU)
                        .map_err(call("make the directory"))?;
                    is_opaque = self.is_alone;
                }
            }
            other => other.map_err(call("make the directory"))?,
        }
        let fd = root::open_child(parent, name).map_err(call("open the directory"))?;
        if is_opaque {
            overlay::hide_below(&fd).map_err(call("hide what is below"))?;
        }
        self.describe_directory(entry, &fd)
    }

    fn describe_directory(&mut self, entry: &Entry, fd: &OwnedFd) -> Result<(), Failure> {
        self.own(entry, fd.as_fd())?;
        rustix::fs::fchmod(fd, mode(entry)).map_err(call("set the mode of"))?;
        for name in fd_xattrs(fd.as_fd())? {
            if node::is_carried(&name) && !entry.xattrs.contains_key(&name) {
                rustix::fs::fremovexattr(fd, OsStr::from_bytes(&name))
                    .map_err(call("remove an extended attribute of"))?;
            }
        }
        set_xattrs(entry, fd.as_fd())?;
        let inode = rustix::fs::fstat(fd).map_err(call("look at"))?.st_ino;
        self.times.insert(inode, entry.mtime);
        Ok(())
    }

    fn apply_file(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
        archive: &mut Archive<impl io::Read>,
    ) -> Result<(), Failure> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || {
            rustix::fs::openat(
                parent,
                OsStr::from_bytes(name),
                flags,
                Mode::RUSR | Mode::WUSR,
            )
        };
        let fd = match create() {
            Err(Errno::EXIST) => {
                self.make_way(parent, name)?;
                create()
            }
            other => other,
        };
        let fd = fd.map_err(call("create"))?;
        let mut at = 0;
        loop {
            let length = archive.read(&mut self.buffer)?;
            if length == 0 {
                break;
            }
            if length < self.buffer.len() || !holes::is_zero(&self.buffer) {
                self.claim(entry, length as u64, parent)?;
                self.write(fd.as_fd(), length, at)?;
            }
            at += length as u64;
        }
        rustix::fs::ftruncate(&fd, entry.size).map_err(call("set the size of"))?;
        self.unpacked.bytes += entry.size;
        // Changing the owner clears the setuid bits and capabilities, writing clears them as well.
        self.own(entry, fd.as_fd())?;
        rustix::fs::fchmod(&fd, mode(entry)).map_err(call("set the mode of"))?;
        set_xattrs(entry, fd.as_fd())?;
        rustix::fs::futimens(&fd, &timestamps(entry.mtime)).map_err(call("set the time of"))
    }

    /// Writes the beginning of the buffer at a place of a file.
    fn write(&self, fd: BorrowedFd<'_>, length: usize, mut at: u64) -> Result<(), Failure> {
        let mut rest = &self.buffer[..length];
        while !rest.is_empty() {
            let written = rustix::io::pwrite(fd, rest, at).map_err(call("write"))?;
            rest = &rest[written..];
            at += written as u64;
        }
        Ok(())
    }

    /// Fails with a remedy where `length` more bytes of a file do not fit.
    fn claim(&mut self, entry: &Entry, length: u64, parent: BorrowedFd<'_>) -> Result<(), Failure> {
        if length > self.available {
            let disk = rustix::fs::fstatvfs(parent).map_err(call("ask for free space at"))?;
            self.available = disk.f_bavail.saturating_mul(disk.f_frsize);
        }
        if length > self.available {
            return Err(Failure::Other(Error::NoSpace {
                path: path_of(entry),
                needed: entry.size,
                available: self.available,
            }));
        }
        self.available -= length;
        Ok(())
    }

    fn apply_link(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Failure> {
        let missing = || {
            let target = lossy(&entry.link);
            Failure::Malformed(Malformed::Link {
                path: lossy(&entry.path),
                target,
            })
        };
        if entry.link == entry.path {
            return Err(missing());
        }
        let (directory, target) = root::split(&entry.link);
        let directory = self
            .root
            .directory(directory)
            .map_err(call("find the target of"))?;
        let directory = directory.ok_or_else(missing)?;
        let target = OsStr::from_bytes(target);
        let Ok(stat) = rustix::fs::statat(&directory, target, AtFlags::SYMLINK_NOFOLLOW) else {
            return Err(missing());
        };
        if node::kind(&stat) == node::Kind::Directory {
            return Err(missing());
        }
        let new = OsStr::from_bytes(name);
        let link = || rustix::fs::linkat(&directory, target, parent, new, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                let existing = rustix::fs::statat(parent, new, AtFlags::SYMLINK_NOFOLLOW);
                // The same file already: removing it could remove the target.
                if !existing.is_ok_and(|existing| existing.st_ino == stat.st_ino) {
                    self.make_way(parent, name)?;
                    link().map_err(|_| missing())?;
                }
            }
            Err(Errno::NOENT) => return Err(missing()),
            other => other.map_err(call("make the hard link"))?,
        }
        if !self.current.contains(&stat.st_ino) {
            let parent = rustix::fs::fstat(parent).map_err(call("look at the directory of"))?;
            self.current_links.insert((parent.st_ino, name.to_owned()));
        }
        Ok(())
    }

    fn apply_symlink(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Failure> {
        let (target, new) = (OsStr::from_bytes(&entry.link), OsStr::from_bytes(name));
        match rustix::fs::symlinkat(target, parent, new) {
            Err(Errno::EXIST) => {
                self.make_way(parent, name)?;
                rustix::fs::symlinkat(target, parent, new).map_err(call("make the link"))?;
            }
            other => other.map_err(call("make the link"))?,
        }
        self.describe_other(entry, parent, new)
    }

    fn apply_device(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Failure> {
        self.make_way(parent, name)?;
        let kind = match entry.kind {
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        // To an overlay that number is a deletion.
        let is_mark = entry.kind == Kind::Char && entry.device == (0, 0);
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let new = OsStr::from_bytes(name);
        let made = if is_mark {
            Err(Errno::PERM)
        } else {
            rustix::fs::mknodat(parent, new, kind, Mode::RUSR | Mode::WUSR, device)
        };
        match made {
            Err(Errno::PERM) if entry.kind != Kind::Fifo => {
                self.unpacked.skipped_devices.push(path_of(entry));
                return Ok(());
            }
            other => other.map_err(call("make the device"))?,
        }
        self.describe_other(entry, parent, new)?;
        rustix::fs::chmodat(parent, new, mode(entry), AtFlags::empty())
            .map_err(call("set the mode of"))?;
        set_time(entry, parent, new)
    }

    /// Owner and time of what cannot be opened.
    fn describe_other(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Failure> {
        let stat =
            rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(call("look at"))?;
        self.remember(entry, stat.st_ino);
        if self.sets_owners {
            let (uid, gid) = ids(entry);
            rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| owner_failure(entry, error))?;
        }
        set_time(entry, parent, name)
    }

    fn own(&mut self, entry: &Entry, fd: BorrowedFd<'_>) -> Result<(), Failure> {
        let stat = rustix::fs::fstat(fd).map_err(call("look at"))?;
        self.remember(entry, stat.st_ino);
        if self.sets_owners {
            let (uid, gid) = ids(entry);
            rustix::fs::fchown(fd, uid, gid).map_err(|error| owner_failure(entry, error))?;
            return Ok(());
        }
        let recorded = if (entry.uid, entry.gid) == (0, 0) {
            rustix::fs::fremovexattr(fd, OWNER_ATTRIBUTE)
        } else {
            let value = node::owner_value((entry.uid, entry.gid));
            rustix::fs::fsetxattr(fd, OWNER_ATTRIBUTE, value.as_bytes(), XattrFlags::empty())
        };
        match recorded {
            // A file system without attributes; the file of owners says it as well.
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            Err(error) => Err(call("record the owner of")(error)),
        }
    }

    fn remember(&mut self, entry: &Entry, inode: u64) {
        self.current.insert(inode);
        if !self.sets_owners {
            if (entry.uid, entry.gid) == (0, 0) {
                self.owners.remove(&inode);
            } else {
                self.owners.insert(inode, (entry.uid, entry.gid));
            }
        }
    }

    /// Removes what an entry replaces.
    fn make_way(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Failure> {
        root::remove_all(parent, name).map_err(call("replace"))?;
        self.root.forget();
        Ok(())
    }
}

/// Why an entry could not be applied; the caller knows its path.
enum Failure {
    Malformed(Malformed),
    Call(&'static str, io::Error),
    Other(Error),
}

impl From<Malformed> for Failure {
    fn from(source: Malformed) -> Self {
        Self::Malformed(source)
    }
}

fn call<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::Call(action, error.into())
}

fn owner_failure(entry: &Entry, error: Errno) -> Failure {
    match error {
        Errno::INVAL | Errno::PERM => Failure::Other(Error::Owner {
            path: path_of(entry),
            uid: entry.uid,
            gid: entry.gid,
        }),
        other => Failure::Call("set the owner of", other.into()),
    }
}

fn set_time(entry: &Entry, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Failure> {
    rustix::fs::utimensat(
        parent,
        name,
        &timestamps(entry.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(call("set the time of"))
}

fn set_xattrs(entry: &Entry, fd: BorrowedFd<'_>) -> Result<(), Failure> {
    for (name, value) in &entry.xattrs {
        rustix::fs::fsetxattr(fd, OsStr::from_bytes(name), value, XattrFlags::empty())
            .map_err(call("set an extended attribute of"))?;
    }
    Ok(())
}

fn fd_xattrs(fd: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Failure> {
    let mut list = vec![0; 1 << 16];
    match rustix::fs::flistxattr(fd, &mut list[..]) {
        Ok(length) => {
            let names = list[..length].split(|&byte| byte == 0);
            Ok(names
                .filter(|name| !name.is_empty())
                .map(<[u8]>::to_owned)
                .collect())
        }
        Err(Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(call("list the extended attributes of")(error)),
    }
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}

fn ids(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
}

pub(super) fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn path_of(entry: &Entry) -> PathBuf {
    OsStr::from_bytes(&entry.path).into()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
