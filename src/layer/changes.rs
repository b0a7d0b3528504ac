//! What a step changed, as a layer: one comparison of the tree before with the tree after, whoever
//! found the paths.
//!
//! OCI image specification, `layer.md`, "Determining Changes". The overlay's upper directory and the
//! walk both offer paths in the order of the walk, with what was there before and what is there now;
//! the layer follows from these two alone, so that both ways give the same bytes:
//!
//! - a path is in the layer if it is new, or if a layer would say something else about it; a new time
//!   alone counts for everything but directories,
//! - the directories above it are in the layer too, the root only if it changed itself,
//! - a path that is gone is a whiteout; a directory that was removed and made again has whiteouts for
//!   what is no longer in it, never an opaque marker, so that it does not matter how it came to be,
//! - files of the layer that are one inode are one file and hard links to it, the first name in order
//!   being the file. A file that was only linked to is not changed, so its new name is a file.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use fs_err as fs;

use crate::layer::node::{Kind, Node, Xattrs};
use crate::layer::walk::{self, is_within};
use crate::layer::writer::{Content, Header, LayerWriter};
use crate::layer::{Changes, ChangesRequest, Error, leftout, overlay, root, snapshot, whiteout};
use crate::manifest::Layer;
use crate::store::Store;

/// Writes the layer; `None` if nothing changed.
pub(super) fn write(request: &ChangesRequest) -> Result<Option<Layer>, Error> {
    let store = Store::open(&request.store)?;
    let mut changeset = Changeset {
        request,
        owners: request.owners.as_deref().map(read_owners).transpose()?,
        writer: LayerWriter::new(&store, request.compression)?,
        parents: Vec::new(),
        inodes: HashMap::new(),
        ignored: None,
        gone: None,
        is_empty: true,
    };
    match &request.changes {
        Changes::Overlay { lower, upper } => overlay::visit(lower, upper, &mut changeset)?,
        Changes::Walk { root, snapshot } => visit_walk(root, snapshot, &mut changeset)?,
    }
    if changeset.is_empty {
        Ok(None)
    } else {
        changeset.writer.complete().map(Some)
    }
}

/// Owners other than 0:0, by path.
type Owners = HashMap<Vec<u8>, (u32, u32)>;

fn read_owners(path: &Path) -> Result<Owners, Error> {
    let mut owners = Owners::new();
    for record in BufReader::new(fs::File::open(path)?).split(0) {
        let record = record?;
        let mut parts = record.splitn(3, |&byte| byte == b' ');
        let mut id = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
        let (Some(uid), Some(gid), Some(name)) = (id(), id(), parts.next()) else {
            return Err(Error::Record {
                path: path.to_owned(),
            });
        };
        owners.insert(name.to_owned(), (uid, gid));
    }
    Ok(owners)
}

/// Offers all paths of a tree and of its snapshot.
fn visit_walk(root: &Path, file: &Path, changeset: &mut Changeset<'_>) -> Result<(), Error> {
    let mut records = snapshot::Reader::open(file)?;
    let mut record = records.next()?;
    for entry in walk::Walk::new(root) {
        let (path, after) = entry?;
        while let Some(gone) = record.take_if(|record| walk::compare(&record.path, &path).is_lt()) {
            changeset.visit_gone(&gone.path, &gone.node)?;
            record = records.next()?;
        }
        let host = walk::at(root, &path);
        match record.take_if(|record| record.path == path) {
            None => changeset.visit(&path, None, &after, &host, || Ok(false))?,
            Some(before) => {
                changeset.visit(&path, Some(&before.node), &after, &host, || {
                    Ok(after.is_untouched(&before.node)
                        || Some(snapshot::content_digest(&host)?) == before.digest)
                })?;
                record = records.next()?;
            }
        }
    }
    while let Some(gone) = record {
        changeset.visit_gone(&gone.path, &gone.node)?;
        record = records.next()?;
    }
    Ok(())
}

/// A layer that is being written, and what the next path needs to know of those before it.
pub(super) struct Changeset<'a> {
    request: &'a ChangesRequest,
    owners: Option<Owners>,
    writer: LayerWriter,
    /// The directories from the root to the current path.
    parents: Vec<Parent>,
    /// Files of the layer with several names: their first one.
    inodes: HashMap<(u64, u64), Vec<u8>>,
    /// A path that is ignored with all that is below it.
    ignored: Option<Vec<u8>>,
    /// A path that is not a directory any more: what was below it is gone with it.
    gone: Option<Vec<u8>>,
    is_empty: bool,
}

struct Parent {
    path: Vec<u8>,
    node: Node,
    owner: (u32, u32),
    is_written: bool,
}

impl Changeset<'_> {
    /// Takes a path that is there, and lies at `host`. `has_same_content` is asked for a file of which a
    /// layer says the same as before.
    pub(super) fn visit(
        &mut self,
        path: &[u8],
        before: Option<&Node>,
        after: &Node,
        host: &Path,
        has_same_content: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let before = before.filter(|node| is_something(node));
        if !is_something(after) {
            return before.map_or(Ok(()), |before| self.visit_gone(path, before));
        }
        if self.is_ignored(path, before.is_some()) {
            return Ok(());
        }
        self.leave_directories(path);
        if before.is_some_and(|node| node.kind == Kind::Directory) && after.kind != Kind::Directory
        {
            self.gone = Some(path.to_owned());
        }
        let is_changed = match before {
            // A directory above a mount point may be there for its sake alone.
            None => after.kind != Kind::Directory || !self.is_above_ignored(path),
            Some(before) => {
                !before.says_the_same(after) || (after.kind == Kind::File && !has_same_content()?)
            }
        };
        let is_written = is_changed && !leftout::is_left_out(path);
        let owner = self.owner(path, before.is_some(), after);
        if is_written {
            self.write_parents()?;
            self.write_entry(path, after, owner, host)?;
        }
        if after.kind == Kind::Directory {
            let is_written = is_written || path.is_empty();
            self.parents.push(Parent {
                path: path.to_owned(),
                node: after.clone(),
                owner,
                is_written,
            });
        }
        Ok(())
    }

    /// Takes a path that is not there any more.
    pub(super) fn visit_gone(&mut self, path: &[u8], before: &Node) -> Result<(), Error> {
        if !is_something(before) || self.gone.as_ref().is_some_and(|gone| is_within(path, gone)) {
            return Ok(());
        }
        self.gone = Some(path.to_owned());
        self.leave_directories(path);
        self.write_parents()?;
        self.is_empty = false;
        self.writer.append(&Header {
            path: &whiteout::name_for(path),
            content: Content::Empty,
            mode: 0o644,
            uid: 0,
            gid: 0,
            // The time of a deletion is nobody's business, and would make equal builds differ.
            mtime: 0,
            xattrs: &Xattrs::new(),
        })
    }

    fn is_ignored(&mut self, path: &[u8], was_there: bool) -> bool {
        if self
            .ignored
            .as_ref()
            .is_some_and(|ignored| is_within(path, ignored))
        {
            return true;
        }
        let ignore = &self.request.ignore;
        if !was_there && ignore.iter().any(|ignored| relative(ignored) == path) {
            self.ignored = Some(path.to_owned());
            return true;
        }
        false
    }

    fn is_above_ignored(&self, path: &[u8]) -> bool {
        self.request
            .ignore
            .iter()
            .any(|ignored| is_within(relative(ignored), path))
    }

    fn leave_directories(&mut self, path: &[u8]) {
        while self
            .parents
            .last()
            .is_some_and(|parent| !is_within(path, &parent.path))
        {
            self.parents.pop();
        }
    }

    fn write_parents(&mut self) -> Result<(), Error> {
        for parent in self.parents.iter_mut().filter(|parent| !parent.is_written) {
            parent.is_written = true;
            write_node(&mut self.writer, self.request, parent, Content::Directory)?;
        }
        Ok(())
    }

    fn write_entry(
        &mut self,
        path: &[u8],
        node: &Node,
        owner: (u32, u32),
        host: &Path,
    ) -> Result<(), Error> {
        if whiteout::is_reserved(root::split(path).1) {
            return Err(Error::Reserved {
                path: host.to_owned(),
            });
        }
        self.is_empty = false;
        let mut target = None;
        if node.nlink > 1 && node.kind != Kind::Directory {
            let inode = (node.dev, node.ino);
            target = self.inodes.get(&inode).cloned();
            if target.is_none() {
                self.inodes.insert(inode, path.to_owned());
            }
        }
        let content = match &target {
            Some(target) => Content::HardLink(target),
            None => match Content::of(node, host) {
                Some(content) => content,
                None => return Ok(()),
            },
        };
        let parent = Parent {
            path: path.to_owned(),
            node: node.clone(),
            owner,
            is_written: true,
        };
        write_node(&mut self.writer, self.request, &parent, content)
    }

    fn owner(&self, path: &[u8], was_there: bool, after: &Node) -> (u32, u32) {
        match &self.owners {
            Some(owners) if was_there => owners.get(path).copied().unwrap_or((0, 0)),
            _ => (after.uid, after.gid),
        }
    }
}

fn write_node(
    writer: &mut LayerWriter,
    request: &ChangesRequest,
    entry: &Parent,
    content: Content<'_>,
) -> Result<(), Error> {
    writer.append(&Header {
        path: &entry.path,
        content,
        mode: if entry.node.kind == Kind::Symlink {
            0o777
        } else {
            entry.node.mode
        },
        uid: entry.owner.0,
        gid: entry.owner.1,
        mtime: request.times.of(&entry.path, entry.node.mtime.0),
        xattrs: &entry.node.xattrs,
    })
}

/// Layers hold neither sockets nor an overlay's marks of deletions.
fn is_something(node: &Node) -> bool {
    node.kind != Kind::Socket && !node.is_overlay_whiteout()
}

/// A path of the request as bytes, relative to the root.
fn relative(path: &Path) -> &[u8] {
    let path = path
        .strip_prefix("/")
        .unwrap_or(path)
        .as_os_str()
        .as_bytes();
    path.strip_suffix(b"/").unwrap_or(path)
}
