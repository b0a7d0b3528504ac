//! Owners that no file of the tree can have, since the user namespace has one id: what each path's is.
//!
//! Files and directories have an attribute, which follows them through whatever a step does. Of everything
//! else the owner is known by path, before the step and as the step changed it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::layer::node::{Kind, Node};
use crate::layer::walk::is_within;
use crate::layer::{Error, RecordedOwners};

type Owner = (u32, u32);
type ByPath = BTreeMap<Vec<u8>, Owner>;

/// The bit of a directory that gives its group to what is made in it.
const SETGID: u32 = 0o2000;

/// What is known of the owners of a tree.
pub(super) struct Owners {
    before: ByPath,
    changed: ByPath,
    after: ByPath,
    output: Option<PathBuf>,
    inherits_groups: bool,
}

impl Owners {
    pub(super) fn read(recorded: &RecordedOwners) -> Result<Self, Error> {
        let before = read(&recorded.before)?;
        let changed = match &recorded.changed {
            Some(path) if path.exists() => read(path)?,
            _ => ByPath::new(),
        };
        Ok(Self {
            after: before.clone(),
            before,
            changed,
            output: recorded.after.clone(),
            inherits_groups: recorded.inherits_groups,
        })
    }

    /// Both nodes with their recorded owners. `above` is the directory's mode and owner.
    pub(super) fn apply(
        &mut self,
        path: &[u8],
        before: Option<&Node>,
        after: &Node,
        above: Option<(u32, Owner)>,
    ) -> (Option<Node>, Node) {
        let known = self.before.get(path).copied();
        let was = before.map(|node| node.recorded.or(known).unwrap_or((0, 0)));
        let owner = after
            .recorded
            .or_else(|| self.changed.get(path).copied())
            .unwrap_or_else(|| match before {
                Some(before) if before.recorded.is_none() && is_kept(before, after) => {
                    known.unwrap_or((0, 0))
                }
                // With the attribute the file is gone that had it.
                Some(_) => (0, 0),
                None => match above {
                    Some((mode, (_, gid))) if self.inherits_groups && mode & SETGID != 0 => {
                        (0, gid)
                    }
                    _ => (0, 0),
                },
            });
        if before.is_some_and(|node| node.kind == Kind::Directory) && after.kind != Kind::Directory
        {
            self.forget_all(path);
        }
        if after.recorded.is_some() || owner == (0, 0) {
            self.after.remove(path);
        } else {
            self.after.insert(path.to_owned(), owner);
        }
        let with = |node: &Node, (uid, gid): Owner| Node {
            uid,
            gid,
            ..node.clone()
        };
        let before = before.zip(was).map(|(before, owner)| with(before, owner));
        (before, with(after, owner))
    }

    /// A path is gone, with all that was below it.
    pub(super) fn forget_all(&mut self, path: &[u8]) {
        let below: Vec<_> = self
            .after
            .range(path.to_owned()..)
            .take_while(|(name, _)| name.starts_with(path))
            .filter(|(name, _)| is_within(name, path))
            .map(|(name, _)| name.clone())
            .collect();
        for name in below {
            self.after.remove(&name);
        }
    }

    /// Writes what holds after the step.
    pub(super) fn write(&self) -> Result<(), Error> {
        let Some(path) = &self.output else {
            return Ok(());
        };
        let mut text = Vec::new();
        for (path, (uid, gid)) in &self.after {
            text.extend_from_slice(format!("{uid} {gid} ").as_bytes());
            text.extend_from_slice(path);
            text.push(0);
        }
        let mut file = fs::File::create(path)?;
        Ok(file.write_all(&text)?)
    }
}

/// Whether a path without an attribute may be the same file as before. A link or a device has nothing else that
/// could have changed.
fn is_kept(before: &Node, after: &Node) -> bool {
    before.kind == after.kind && before.target == after.target && before.rdev == after.rdev
}

fn read(path: &Path) -> Result<ByPath, Error> {
    let mut owners = ByPath::new();
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
