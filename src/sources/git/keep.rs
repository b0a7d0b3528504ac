//! The `.git` of a checkout: a repository of one commit, without its history.
//!
//! Every byte follows from the commit, its name and the URL, so the same source gives the same layer: objects
//! lie each in a file of its own, however the server packed them, and `HEAD` is the commit itself.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fs_err as fs;
use git2::{Commit, Index, ObjectType, Odb, Oid, Repository, Tree};

use super::objects::{LARGE, Objects};
use crate::error::Error;
use crate::progress::Progress;

/// Makes `.git` in the directory `into`, whose files are those of `commit`. `reference` is what its name stands
/// for, such as `refs/tags/v1`, and the object that it names.
pub(super) fn write(
    commit: &Commit<'_>,
    objects: &Objects,
    reference: Option<(&str, Oid)>,
    origin: &str,
    into: &Path,
    progress: &Progress,
) -> Result<(), Error> {
    let folder = into.join(".git");
    for name in ["objects", "refs/heads", "refs/tags"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let id = commit.id();
    fs::write(folder.join("HEAD"), format!("{id}\n"))?;
    let origin = origin.replace('\\', "\\\\").replace('"', "\\\"");
    let config = format!(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\
         [remote \"origin\"]\n\turl = \"{origin}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
    );
    fs::write(folder.join("config"), config)?;
    if commit.parent_count() > 0 {
        fs::write(folder.join("shallow"), format!("{id}\n"))?;
    }
    let made = Repository::open_bare(&folder)?;
    let repository = objects.repository();
    let mut writer = Writer {
        objects,
        from: repository.odb()?,
        to: made.odb()?,
        known: HashSet::new(),
        progress,
    };
    if let Some((name, target)) = reference {
        let file = folder.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&folder))?;
        fs::write(file, format!("{target}\n"))?;
        writer.tag(repository, target)?;
    }
    writer.object(id)?;
    let tree = commit.tree()?;
    writer.tree(repository, &tree)?;
    let mut index = Index::open(&folder.join("index"))?;
    index.read_tree(&tree)?;
    index.write()?;
    settle(&folder)?;
    Ok(())
}

struct Writer<'a> {
    objects: &'a Objects,
    from: Odb<'a>,
    to: Odb<'a>,
    known: HashSet<Oid>,
    progress: &'a Progress,
}

impl Writer<'_> {
    /// Whether the object is new.
    fn object(&mut self, id: Oid) -> Result<bool, Error> {
        self.progress.check()?;
        let is_new = self.known.insert(id);
        if is_new {
            let (size, kind) = self.from.read_header(id)?;
            if size > LARGE && kind == ObjectType::Blob {
                let mut to = self.to.writer(size, kind)?;
                self.objects.write(id, size, &mut to, self.progress)?;
                to.finalize()?;
            } else {
                self.to.write(kind, self.from.read(id)?.data())?;
            }
        }
        Ok(is_new)
    }

    /// An annotated tag, and those that it is for.
    fn tag(&mut self, objects: &Repository, id: Oid) -> Result<(), Error> {
        let mut next = Some(id);
        while let Some(id) = next {
            next = match objects.find_tag(id) {
                Ok(tag) => self.object(id)?.then(|| tag.target_id()),
                Err(_) => None,
            };
        }
        Ok(())
    }

    fn tree(&mut self, objects: &Repository, tree: &Tree<'_>) -> Result<(), Error> {
        if !self.object(tree.id())? {
            return Ok(());
        }
        for entry in tree {
            match entry.kind() {
                Some(ObjectType::Tree) => self.tree(objects, &objects.find_tree(entry.id())?)?,
                Some(ObjectType::Blob) => drop(self.object(entry.id())?),
                // The commit of a submodule lies in another repository.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Gives all of it modes that no umask changes.
fn settle(path: &Path) -> Result<(), Error> {
    let is_directory = fs::symlink_metadata(path)?.is_dir();
    if is_directory {
        for entry in fs::read_dir(path)? {
            settle(&entry?.path())?;
        }
    }
    let mode = if is_directory { 0o755 } else { 0o644 };
    fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(())
}
