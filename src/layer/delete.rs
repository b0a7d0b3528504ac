//! Deletions of a layer, applied: they count for the layers below only, wherever they stand.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use crate::layer::unpack::Tree;
use crate::layer::{node, overlay, root};

impl Tree {
    /// Deletes what lower layers have at a path.
    pub(super) fn delete(&mut self, victim: &[u8]) -> io::Result<()> {
        let (directory, name) = root::split(victim);
        if let Some(directory) = self.root.directory(directory)? {
            if self.is_alone {
                return mark(directory.as_fd(), name);
            }
            self.delete_lower(directory.as_fd(), name)?;
            self.root.forget();
        } else if self.is_alone {
            return Err(io::Error::other("the layer says nothing of its directory"));
        }
        Ok(())
    }

    /// Deletes what lower layers have in a directory.
    pub(super) fn empty(&mut self, directory: &[u8]) -> io::Result<()> {
        if let Some(directory) = self.root.directory(directory)? {
            if self.is_alone {
                return overlay::hide_below(&directory);
            }
            for name in root::names(directory.as_fd())? {
                self.delete_lower(directory.as_fd(), &name)?;
            }
            self.root.forget();
        } else if self.is_alone {
            return Err(io::Error::other("the layer says nothing of it"));
        }
        Ok(())
    }

    /// Removes what lower layers have under a name; tells whether the current layer has anything there.
    fn delete_lower(&self, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
        let stat =
            match rustix::fs::statat(parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
        let mut kept = self.current.contains(&stat.st_ino);
        if node::kind(&stat) != node::Kind::Directory {
            if !kept && !self.current_links.is_empty() {
                let directory = rustix::fs::fstat(parent)?.st_ino;
                kept = self.current_links.contains(&(directory, name.to_owned()));
            }
            if !kept {
                root::unlink(parent, name, AtFlags::empty())?;
            }
            return Ok(kept);
        }
        let directory = root::open_child(parent, name)?;
        for child in root::names(directory.as_fd())? {
            kept |= self.delete_lower(directory.as_fd(), &child)?;
        }
        drop(directory);
        if !kept {
            root::unlink(parent, name, AtFlags::REMOVEDIR)?;
        }
        Ok(kept)
    }
}

/// Marks a name as deleted, as an overlay does, unless the layer has something there.
fn mark(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match root::kind_of(parent, name)? {
        Some(node::Kind::Directory) => overlay::hide_below(&root::open_child(parent, name)?),
        Some(_) => Ok(()),
        None => {
            let name = OsStr::from_bytes(name);
            let kind = FileType::CharacterDevice;
            Ok(rustix::fs::mknodat(parent, name, kind, Mode::empty(), 0)?)
        }
    }
}
