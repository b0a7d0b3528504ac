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
//!
//! On the way the tree becomes what the layer makes of it: the next step must not see what it would not see
//! if this one came from the cache. What is in no layer is removed, and times are those of the layer.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{Mode, OFlags};

use crate::confined;
use crate::layer::node::{Kind, Node, Xattrs};
use crate::layer::owners::Owners;
use crate::layer::walk::{self, is_within};
use crate::layer::writer::{Content, Header, LayerWriter};
use crate::layer::{
    Changes, ChangesRequest, Error, leftout, overlay, root, snapshot, tree, whiteout,
};
use crate::manifest::Layer;
use crate::store::Store;

/// Writes the layer; `None` if nothing changed.
pub(super) fn write(request: &ChangesRequest) -> Result<Option<Layer>, Error> {
    let store = Store::open(&request.store)?;
    let mut changeset = Changeset {
        request,
        mounts: Vec::new(),
        owners: request.owners.as_ref().map(Owners::read).transpose()?,
        writer: LayerWriter::new(&store, request.compression)?,
        parents: Vec::new(),
        inodes: HashMap::new(),
        gone: None,
        is_empty: true,
    };
    match &request.changes {
        Changes::Overlay { lower, upper } => overlay::visit(lower, upper, &mut changeset)?,
        Changes::Walk { root, snapshot } => visit_walk(root, snapshot, &mut changeset)?,
    }
    while let Some(directory) = changeset.parents.pop() {
        changeset.settle(&directory)?;
    }
    if let Some(owners) = &changeset.owners {
        owners.write()?;
    }
    if changeset.is_empty {
        Ok(None)
    } else {
        changeset.writer.complete().map(Some)
    }
}

/// Offers all paths of a tree and of its snapshot.
fn visit_walk(root: &Path, file: &Path, changeset: &mut Changeset<'_>) -> Result<(), Error> {
    changeset.find_mounts(root)?;
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
            None => changeset.visit(&path, None, &after, [&host, &host], || Ok(false))?,
            Some(before) => {
                let kept = snapshot::kept(file, &path);
                changeset.visit(&path, Some(&before.node), &after, [&host, &kept], || {
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
    /// See [`ChangesRequest::ignore`]; where links lead, and not through them.
    mounts: Vec<Vec<u8>>,
    owners: Option<Owners>,
    writer: LayerWriter,
    /// The directories from the root to the current path.
    parents: Vec<Parent>,
    /// Files of the layer with several names: their first one.
    inodes: HashMap<(u64, u64), Vec<u8>>,
    /// A path that is not a directory any more: what was below it is gone with it.
    gone: Option<Vec<u8>>,
    is_empty: bool,
}

struct Parent {
    path: Vec<u8>,
    node: Node,
    owner: (u32, u32),
    is_written: bool,
    place: Place,
}

/// What a path is on this machine: there owners are what they are, not what is recorded of them.
struct Place {
    host: PathBuf,
    before: Option<Node>,
    after: Node,
    /// Where the content of before is, if that is needed.
    old: PathBuf,
    /// Whether it stays out of the layer, though it changed.
    is_left_out: bool,
}

impl Changeset<'_> {
    /// Finds out where the runner mounted in the tree at `root`: links in it lead on, as for the runner.
    pub(super) fn find_mounts(&mut self, root: &Path) -> Result<(), Error> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened = rustix::fs::open(root, flags, Mode::empty())
            .map_err(Error::file("open the directory", root))?;
        let place = |fd: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let top = place(&opened)?;
        for mount in &self.request.ignore {
            let mount = mount.strip_prefix("/").unwrap_or(mount);
            for above in mount.ancestors() {
                let Ok(found) = confined::open(&opened, above, flags) else {
                    continue;
                };
                let found = place(&found)?;
                let below = mount.strip_prefix(above).unwrap_or(mount);
                let found = found.strip_prefix(&top).unwrap_or(above).join(below);
                self.mounts.push(relative(&found).to_owned());
                break;
            }
        }
        Ok(())
    }

    /// Takes a path that is there, and lies at `host`; of a file that stays out of the layer the content of before
    /// lies at `old`. `has_same_content` is asked for a file of which a layer says the same as before.
    pub(super) fn visit(
        &mut self,
        path: &[u8],
        before: Option<&Node>,
        after: &Node,
        [host, old]: [&Path; 2],
        has_same_content: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let before = before.filter(|node| is_something(node));
        if !is_something(after) {
            if after.kind == Kind::Socket {
                self.remove(host, before.is_some())?;
            }
            return before.map_or(Ok(()), |before| self.visit_gone(path, before));
        }
        self.leave_directories(path)?;
        let place = Place {
            host: host.to_owned(),
            before: before.cloned(),
            after: after.clone(),
            old: old.to_owned(),
            is_left_out: false,
        };
        // Where owners are recorded, the file system has but one.
        let both;
        let (before, after) = if let Some(owners) = &mut self.owners {
            let above = self
                .parents
                .last()
                .map(|parent| (parent.node.mode, parent.owner));
            both = owners.apply(path, before, after, above);
            (both.0.as_ref(), &both.1)
        } else {
            (before, after)
        };
        let is_made = before.is_none() && self.is_made_to_mount(path, after);
        if before.is_some_and(|node| node.kind == Kind::Directory) && after.kind != Kind::Directory
        {
            self.gone = Some(path.to_owned());
        }
        let is_changed = match before {
            // What the command has put into such a directory brings it along.
            None => !is_made,
            Some(before) => {
                !before.says_the_same(after) || (after.kind == Kind::File && !has_same_content()?)
            }
        };
        let is_written = is_changed && !leftout::is_left_out(path);
        let owner = (after.uid, after.gid);
        if is_written {
            self.write_parents()?;
            self.write_entry(path, after, owner, host)?;
        }
        let entry = Parent {
            path: path.to_owned(),
            node: after.clone(),
            owner,
            is_written,
            place: Place {
                is_left_out: is_changed && !is_written,
                ..place
            },
        };
        if after.kind == Kind::Directory {
            self.parents.push(entry);
            return Ok(());
        }
        self.settle(&entry)
    }

    /// Takes a path that is not there any more.
    pub(super) fn visit_gone(&mut self, path: &[u8], before: &Node) -> Result<(), Error> {
        if !is_something(before) || self.gone.as_ref().is_some_and(|gone| is_within(path, gone)) {
            return Ok(());
        }
        self.gone = Some(path.to_owned());
        if let Some(owners) = &mut self.owners {
            owners.forget_all(path);
        }
        self.leave_directories(path)?;
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

    /// Whether something new may be there for the sake of a mount alone: a directory that leads to it, or what
    /// was mounted upon, if it is empty.
    fn is_made_to_mount(&self, path: &[u8], after: &Node) -> bool {
        let mut mounts = self.mounts.iter();
        match after.kind {
            Kind::Directory => mounts.any(|mount| is_within(mount, path)),
            Kind::File => after.size == 0 && mounts.any(|mount| mount == path),
            _ => false,
        }
    }

    fn leave_directories(&mut self, path: &[u8]) -> Result<(), Error> {
        while let Some(left) = self.parents.pop_if(|parent| !is_within(path, &parent.path)) {
            self.settle(&left)?;
        }
        Ok(())
    }

    /// Makes of a path what the layer makes of it; of a directory when all that is in it was visited.
    fn settle(&mut self, entry: &Parent) -> Result<(), Error> {
        let Place {
            host,
            before,
            after,
            old,
            is_left_out,
        } = &entry.place;
        if entry.is_written {
            let time = (self.request.times.of(&entry.path, after.mtime.0), 0);
            return tree::settle_time(host, time);
        }
        let Some(before) = before else {
            if let Some(owners) = &mut self.owners {
                owners.forget_all(&entry.path);
            }
            return self.remove(host, false);
        };
        if *is_left_out {
            return tree::restore(host, before, old);
        }
        if after.kind == Kind::Directory {
            return tree::settle_time(host, before.mtime);
        }
        if after.nlink > 1 {
            // Its new name is a file of its own.
            return tree::unshare(host, before);
        }
        if after.mtime == before.mtime {
            return Ok(());
        }
        tree::settle_time(host, before.mtime)
    }

    /// Removes something of which the layer says nothing, or that it is gone.
    fn remove(&self, host: &Path, is_gone: bool) -> Result<(), Error> {
        tree::remove(host)?;
        if is_gone && matches!(self.request.changes, Changes::Overlay { .. }) {
            return tree::hide(host);
        }
        Ok(())
    }

    fn write_parents(&mut self) -> Result<(), Error> {
        let is_missing = |parent: &&mut Parent| !parent.is_written && !parent.path.is_empty();
        for parent in self.parents.iter_mut().filter(is_missing) {
            parent.is_written = true;
            let entry = (&parent.path[..], &parent.node, parent.owner);
            write_node(&mut self.writer, self.request, entry, Content::Directory)?;
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
        write_node(&mut self.writer, self.request, (path, node, owner), content)
    }
}

fn write_node(
    writer: &mut LayerWriter,
    request: &ChangesRequest,
    (path, node, (uid, gid)): (&[u8], &Node, (u32, u32)),
    content: Content<'_>,
) -> Result<(), Error> {
    writer.append(&Header {
        path,
        content,
        mode: if node.kind == Kind::Symlink {
            0o777
        } else {
            node.mode
        },
        uid,
        gid,
        mtime: request.times.of(path, node.mtime.0),
        xattrs: &node.xattrs,
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
