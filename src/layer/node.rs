//! What a path is, apart from its content: all that a layer says about it, and what tells that it
//! was touched.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use fs_err as fs;
use rustix::fs::{AtFlags, CWD, FileType, Stat};
use rustix::io::Errno;

use crate::layer::{Error, OWNER_ATTRIBUTE};

/// Extended attributes by name.
pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Char,
    Block,
    /// Layers do not have them.
    Socket,
}

/// One path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// The twelve permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes of a file; 0 for everything else.
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) ctime: (i64, u32),
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) nlink: u64,
    pub(super) rdev: u64,
    /// A symbolic link's text.
    pub(super) target: Vec<u8>,
    /// Those that layers carry.
    pub(super) xattrs: Xattrs,
    /// What [`OWNER_ATTRIBUTE`] says, where owners are recorded instead of set.
    pub(super) recorded: Option<(u32, u32)>,
}

impl Node {
    /// Reads what lies at `path`, not following a link; `None` where there is nothing.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let stat = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(Error::file("read the metadata of", path)(error)),
        };
        let mut node = Self::of(&stat);
        match node.kind {
            Kind::Symlink => node.target = fs::read_link(path)?.into_os_string().into_vec(),
            Kind::File | Kind::Directory => {
                node.xattrs = xattrs(path)?;
                // Not among those that layers carry.
                if let Some(owner) = node.xattrs.remove(OWNER_ATTRIBUTE.as_bytes()) {
                    node.recorded = parse_owner(&owner);
                }
            }
            _ => {}
        }
        Ok(Some(node))
    }

    pub(super) fn of(stat: &Stat) -> Self {
        let kind = kind(stat);
        Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: if kind == Kind::File {
                stat.st_size.cast_unsigned()
            } else {
                0
            },
            mtime: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            ctime: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
            dev: stat.st_dev,
            ino: stat.st_ino,
            #[expect(
                clippy::useless_conversion,
                reason = "the width differs between architectures"
            )]
            nlink: stat.st_nlink.into(),
            rdev: if matches!(kind, Kind::Char | Kind::Block) {
                stat.st_rdev
            } else {
                0
            },
            target: Vec::new(),
            xattrs: Xattrs::new(),
            recorded: None,
        }
    }

    /// Whether a layer says the same of both, content and a directory's time left aside. Layers have
    /// whole seconds.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && (self.mode == other.mode || self.kind == Kind::Symlink)
            && (self.uid, self.gid) == (other.uid, other.gid)
            && self.size == other.size
            && (self.mtime.0 == other.mtime.0 || self.kind == Kind::Directory)
            && self.rdev == other.rdev
            && self.target == other.target
            && self.xattrs == other.xattrs
    }

    /// Whether the kernel saw no write to the same inode: then its content is the same.
    pub(super) fn is_untouched(&self, before: &Self) -> bool {
        (self.ino, self.size, self.mtime, self.ctime)
            == (before.ino, before.size, before.mtime, before.ctime)
    }

    /// An overlay's mark of a deletion. No real device has this number, and unpacked it would be one.
    pub(super) fn is_overlay_whiteout(&self) -> bool {
        self.kind == Kind::Char && self.rdev == 0
    }
}

/// What a `stat` is of.
pub(super) fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Socket => Kind::Socket,
        _ => Kind::File,
    }
}

fn nanoseconds(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(0)
}

/// Whether layers carry the extended attribute. Others belong to the machine (`security.selinux`,
/// `system.posix_acl_access`), or to the overlay below, where a layer must not speak to the kernel.
/// A PAX key cannot hold an equals sign.
pub(super) fn is_carried(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.")
            && !name.starts_with(b"user.overlay.")
            && name != OWNER_ATTRIBUTE.as_bytes()
            && !name.contains(&b'='))
}

/// The value of [`OWNER_ATTRIBUTE`].
pub(super) fn owner_value((uid, gid): (u32, u32)) -> String {
    format!("{uid}:{gid}")
}

/// The owner that a value of [`OWNER_ATTRIBUTE`] says; `None` if it is none.
pub(super) fn parse_owner(value: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// The carried extended attributes of a file or directory, and [`OWNER_ATTRIBUTE`].
fn xattrs(path: &Path) -> Result<Xattrs, Error> {
    let mut found = Xattrs::new();
    for name in xattr_names(path)? {
        if (is_carried(&name) || name == OWNER_ATTRIBUTE.as_bytes())
            && let Some(value) = xattr(path, &name)?
        {
            found.insert(name, value);
        }
    }
    Ok(found)
}

fn xattr_names(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let mut list = vec![0; 1024];
    let length = loop {
        match rustix::fs::llistxattr(path, &mut list[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) if list.len() < MAX_XATTR => list = vec![0; MAX_XATTR],
            Err(Errno::NOTSUP) => break 0,
            Err(error) => return Err(Error::file("list the extended attributes of", path)(error)),
        }
    };
    let names = list[..length].split(|&byte| byte == 0);
    Ok(names
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_owned)
        .collect())
}

/// The kernel's limit for a list of names and for a value.
const MAX_XATTR: usize = 1 << 16;

/// One extended attribute.
pub(super) fn xattr(path: &Path, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < MAX_XATTR => value = vec![0; MAX_XATTR],
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(error) => return Err(Error::file("read an extended attribute of", path)(error)),
        }
    }
}
