//! The upper directory of an overlay as a list of paths that may have changed.
//!
//! Follows the kernel's `Documentation/filesystems/overlayfs.rst` for mounts with `userxattr`, where
//! neither `redirect_dir` nor `metacopy` can be on: a deletion is a character device 0:0, and a
//! directory that hides the one below carries `user.overlay.opaque`.

use std::ffi::CString;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::layer::changes::Changeset;
use crate::layer::node::{self, Kind, Node};
use crate::layer::walk::{at, join, names};
use crate::layer::{Error, writer};

/// Offers the paths of the upper directory, in the order of the walk.
pub(super) fn visit(
    lower: &[PathBuf],
    upper: &Path,
    changeset: &mut Changeset<'_>,
) -> Result<(), Error> {
    let lower = Lower::open(lower, upper)?;
    changeset.find_mounts(&lower.root)?;
    let after = Node::read(upper)?.ok_or_else(|| Error::Changed {
        path: upper.to_owned(),
    })?;
    visit_path(&lower.root, upper, b"", &after, false, changeset)
}

fn visit_path(
    lower: &Path,
    upper: &Path,
    path: &[u8],
    after: &Node,
    is_hidden: bool,
    changeset: &mut Changeset<'_>,
) -> Result<(), Error> {
    let host = at(upper, path);
    let below = at(lower, path);
    let before = Node::read(&below)?;
    changeset.visit(path, before.as_ref(), after, [&host, &below], || {
        have_same_content(&below, &host, after.size)
    })?;
    if after.kind != Kind::Directory {
        return Ok(());
    }
    let mut children = names(&host)?;
    let was_directory = before.is_some_and(|node| node.kind == Kind::Directory);
    // Only the topmost directory of those that hide what is below them is marked.
    let is_hidden = is_hidden || is_opaque(&host)?;
    if was_directory && is_hidden {
        children.extend(names(&below)?);
        children.sort_unstable();
        children.dedup();
    }
    for name in children {
        let path = join(path, &name);
        if let Some(after) = Node::read(&at(upper, &path))? {
            // Below something that was no directory there was nothing, whatever a link leads to.
            let none = Path::new("/dev/null/none");
            let lower = if was_directory { lower } else { none };
            visit_path(lower, upper, &path, &after, is_hidden, changeset)?;
        } else if let Some(before) = Node::read(&at(lower, &path))? {
            changeset.visit_gone(&path, &before)?;
        }
    }
    Ok(())
}

/// Has an overlay show nothing of what directories below have there.
pub(super) fn hide_below(directory: impl AsFd) -> io::Result<()> {
    let name = "user.overlay.opaque";
    Ok(rustix::fs::fsetxattr(
        directory,
        name,
        b"y",
        XattrFlags::empty(),
    )?)
}

fn is_opaque(directory: &Path) -> Result<bool, Error> {
    for name in ["user.overlay.opaque", "trusted.overlay.opaque"] {
        if node::xattr(directory, name.as_bytes())?.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn have_same_content(one: &Path, other: &Path, size: u64) -> Result<bool, Error> {
    let (mut one, mut other) = (writer::open(one)?, writer::open(other)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut rest = size;
    while rest > 0 {
        let length = usize::try_from(rest).unwrap_or(usize::MAX).min(left.len());
        one.read_exact(&mut left[..length])?;
        other.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
        rest -= length as u64;
    }
    Ok(true)
}

/// The tree below the upper directory; several directories are merged by a read-only overlay.
struct Lower {
    root: PathBuf,
    mount: Option<tempfile::TempDir>,
}

impl Lower {
    fn open(lower: &[PathBuf], upper: &Path) -> Result<Self, Error> {
        if let [one] = lower {
            return Ok(Self {
                root: one.clone(),
                mount: None,
            });
        }
        let beside = upper.parent().unwrap_or(Path::new("/"));
        let target = tempfile::Builder::new()
            .prefix("lower-")
            .tempdir_in(beside)?;
        let open = |path: &PathBuf| {
            rustix::fs::open(
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(Error::file("open the directory", path))
        };
        let directories: Vec<OwnedFd> = lower.iter().map(open).collect::<Result<_, _>>()?;
        // Numbers instead of names: no commas or colons to escape, and all fit on the one page that
        // mount options may fill.
        let names: Vec<String> = directories
            .iter()
            .map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .collect();
        let options = format!("lowerdir={},userxattr", names.join(":"));
        let options = CString::new(options).map_err(std::io::Error::other)?;
        rustix::mount::mount(
            "overlay",
            target.path(),
            "overlay",
            MountFlags::RDONLY,
            options.as_c_str(),
        )
        .map_err(Error::file("mount an overlay at", target.path()))?;
        Ok(Self {
            root: target.path().to_owned(),
            mount: Some(target),
        })
    }
}

impl Drop for Lower {
    fn drop(&mut self) {
        if let Some(target) = &self.mount {
            // Nothing can be done about a failure; the mount ends with the helper's namespace at the
            // latest, and its directory is scratch.
            rustix::mount::unmount(target.path(), UnmountFlags::DETACH).ok();
        }
    }
}
