//! A tree in the order of its paths: a directory comes right before what is in it, names in the
//! order of their bytes.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::layer::Error;
use crate::layer::node::{Kind, Node};

/// Yields every path of a tree, relative to its root, beginning with the root itself (an empty path).
pub(super) struct Walk {
    root: PathBuf,
    begun: bool,
    /// Directories from the root to the current one: path, and names to come, last one first.
    open: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
}

impl Walk {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), begun: false, open: Vec::new() }
    }

    fn enter(&mut self, path: Vec<u8>) -> Result<(Vec<u8>, Node), Error> {
        let host = at(&self.root, &path);
        let node = Node::read(&host)?.ok_or_else(|| Error::Changed { path: host.clone() })?;
        if node.kind == Kind::Directory {
            let mut names = names(&host)?;
            names.reverse();
            self.open.push((path.clone(), names));
        }
        Ok((path, node))
    }
}

impl Iterator for Walk {
    type Item = Result<(Vec<u8>, Node), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.begun {
            self.begun = true;
            return Some(self.enter(Vec::new()));
        }
        loop {
            let (directory, names) = self.open.last_mut()?;
            if let Some(name) = names.pop() {
                let path = join(directory, &name);
                return Some(self.enter(path));
            }
            self.open.pop();
        }
    }
}

/// The names in a directory, in order.
pub(super) fn names(directory: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().into_vec());
    }
    names.sort_unstable();
    Ok(names)
}

/// A path below a directory of the tree.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_owned() } else { [directory, b"/", name].concat() }
}

/// Where a path of the tree lies on this machine.
pub(super) fn at(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(path)) }
}

/// The order of the walk.
pub(super) fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let parts = |path| <[u8]>::split(path, |&byte| byte == b'/');
    // The root is above everything, and an empty name is below every other.
    parts(one).cmp(parts(other))
}

/// Whether `path` is `directory` or below it.
pub(super) fn is_within(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
