//! The end of unpacking: what could not be said of a path before all layers were applied.

use std::ffi::OsStr;
use std::io::{self, BufWriter, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use fs_err as fs;
use rustix::fs::AtFlags;

use crate::layer::unpack::{Tree, timestamps};
use crate::layer::{Error, Unpacked, node, root};

impl Tree {
    /// Sets the times of directories, and writes down the owners that were not set.
    pub(super) fn settle(mut self, owners: Option<&Path>) -> Result<Unpacked, Error> {
        let mut file = match owners {
            Some(path) => Some(BufWriter::new(fs::File::create(path)?)),
            None => None,
        };
        let root = self.root.fd().try_clone_to_owned()?;
        self.settle_directory(&root, &mut Vec::new(), &mut file)?;
        if let Some(file) = file {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
        }
        Ok(std::mem::take(&mut self.unpacked))
    }

    fn settle_directory(
        &mut self,
        directory: &OwnedFd,
        path: &mut Vec<u8>,
        owners: &mut Option<BufWriter<fs::File>>,
    ) -> Result<(), Error> {
        let stat = rustix::fs::fstat(directory).map_err(settling(path))?;
        let mut children = root::names(directory.as_fd()).map_err(settling(path))?;
        children.sort_unstable();
        let length = path.len();
        self.write_owner(path, stat.st_ino, owners)?;
        for name in children {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let name = OsStr::from_bytes(&name);
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(settling(path))?;
            if node::kind(&stat) == node::Kind::Directory {
                let child =
                    root::open_child(directory.as_fd(), name.as_bytes()).map_err(settling(path))?;
                self.settle_directory(&child, path, owners)?;
            } else {
                self.write_owner(path, stat.st_ino, owners)?;
            }
            path.truncate(length);
        }
        if let Some(&time) = self.times.get(&stat.st_ino) {
            rustix::fs::futimens(directory, &timestamps(time)).map_err(settling(path))?;
        }
        Ok(())
    }

    fn write_owner(
        &self,
        path: &[u8],
        inode: u64,
        owners: &mut Option<BufWriter<fs::File>>,
    ) -> io::Result<()> {
        if let (Some(file), Some((uid, gid))) = (owners, self.owners.get(&inode)) {
            write!(file, "{uid} {gid} ")?;
            file.write_all(path)?;
            file.write_all(b"\0")?;
        }
        Ok(())
    }
}

fn settling<E: Into<io::Error>>(path: &[u8]) -> impl FnOnce(E) -> Error {
    Error::file(
        "settle the owner and time of",
        Path::new(OsStr::from_bytes(path)),
    )
}
