//! A tree of objects becomes a directory.
//!
//! Whoever wrote the tree may be hostile. Each directory and file is made anew here and nothing that exists
//! is followed or replaced, so that names and links cannot lead out. Files are as they were committed:
//! attributes (`eol`, `ident`, `filter`) are not applied, and no program runs. Modes are 0644 and 0755.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use git2::{Odb, Oid, Repository, Tree, TreeEntry};

use super::error::too_large;
use super::objects::Objects;
use crate::error::Error;
use crate::files::make_directory;
use crate::progress::Progress;
use crate::sources::error::source;

/// More files and directories than these are an attack: few objects can stand for any number.
const MOST_ENTRIES: u64 = 2_000_000;

/// More bytes than these, too.
const MOST_BYTES: u64 = 64 << 30;

/// Deeper trees have paths that nobody can open.
const DEEPEST: usize = 500;

/// The longest path that Linux knows, and so the longest target of a link.
const LONGEST_TARGET: usize = 4095;

/// How a file begins whose content lies elsewhere (specification of Git LFS), and its size at most.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const LARGEST_POINTER: usize = 1024;

/// What was left out.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Directories that are other repositories.
    pub(super) submodules: Vec<String>,
    /// Files whose content lies elsewhere.
    pub(super) pointers: Vec<String>,
}

/// Makes the directory `into` from the tree `id`.
pub(super) fn check_out(
    objects: &Objects,
    id: Oid,
    into: &Path,
    progress: &Progress,
) -> Result<LeftOut, Error> {
    let repository = objects.repository();
    let mut checkout = Checkout {
        repository,
        objects,
        database: repository.odb()?,
        progress,
        measured: HashMap::new(),
        left_out: LeftOut::default(),
    };
    let size = checkout.measure(id, 0)?;
    if size.entries > MOST_ENTRIES {
        return Err(too_large("it has more than two million files"));
    }
    if size.bytes > MOST_BYTES {
        return Err(too_large("its files have more than 64 GiB"));
    }
    checkout.directory(&repository.find_tree(id)?, into, &PathBuf::new())?;
    Ok(checkout.left_out)
}

struct Checkout<'a> {
    repository: &'a Repository,
    objects: &'a Objects,
    database: Odb<'a>,
    progress: &'a Progress,
    measured: HashMap<Oid, Size>,
    left_out: LeftOut,
}

/// Of a tree, with all that is below.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    entries: u64,
    bytes: u64,
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File { mode: u32 },
    Link,
    Submodule,
}

impl Checkout<'_> {
    /// Looks at each tree once, however often it stands for something.
    fn measure(&mut self, id: Oid, depth: usize) -> Result<Size, Error> {
        if let Some(size) = self.measured.get(&id) {
            return Ok(*size);
        }
        if depth > DEEPEST {
            return Err(too_large("its directories are nested too deep"));
        }
        self.progress.check()?;
        let mut sum = Size::default();
        let tree = self.repository.find_tree(id)?;
        for entry in &tree {
            let size = match kind(&entry) {
                Some(Kind::Directory) => self.measure(entry.id(), depth + 1)?,
                Some(Kind::File { .. }) => Size {
                    entries: 0,
                    bytes: self.database.read_header(entry.id())?.0 as u64,
                },
                _ => Size::default(),
            };
            sum.entries = sum.entries.saturating_add(size.entries).saturating_add(1);
            sum.bytes = sum.bytes.saturating_add(size.bytes);
        }
        self.measured.insert(id, sum);
        Ok(sum)
    }

    /// `inside` is the path in the repository.
    fn directory(&mut self, tree: &Tree<'_>, to: &Path, inside: &Path) -> Result<(), Error> {
        make_directory(to)?;
        for entry in tree {
            self.progress.check()?;
            let name = OsStr::from_bytes(entry.name_bytes());
            let inside = inside.join(name);
            let bad = || bad_path(&inside);
            if !is_plain(entry.name_bytes()) {
                return Err(bad());
            }
            let to = to.join(name);
            let made = match kind(&entry).ok_or_else(bad)? {
                Kind::Directory => {
                    let tree = self.repository.find_tree(entry.id())?;
                    self.directory(&tree, &to, &inside)
                }
                Kind::File { mode } => self.file(entry.id(), &to, &inside, mode),
                Kind::Link => self.link(entry.id(), &to, &inside),
                Kind::Submodule => {
                    self.left_out.submodules.push(short(&inside));
                    make_directory(&to).map_err(Error::from)
                }
            };
            // Two entries of one name, of which the first may be a link.
            made.map_err(|error| match error.io_kind() {
                Some(io::ErrorKind::AlreadyExists) => bad(),
                _ => error,
            })?;
        }
        Ok(())
    }

    fn file(&mut self, id: Oid, to: &Path, inside: &Path, mode: u32) -> Result<(), Error> {
        let size = self.database.read_header(id)?.0;
        if size <= LARGEST_POINTER && self.database.read(id)?.data().starts_with(POINTER) {
            self.left_out.pointers.push(short(inside));
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        self.objects.write(id, size, &mut file, self.progress)?;
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        Ok(())
    }

    fn link(&self, id: Oid, to: &Path, inside: &Path) -> Result<(), Error> {
        let bad = || bad_path(inside);
        if self.database.read_header(id)?.0 > LONGEST_TARGET {
            return Err(bad());
        }
        let target = self.database.read(id)?;
        let target = target.data();
        if target.is_empty() || target.contains(&0) {
            return Err(bad());
        }
        fs_err::os::unix::fs::symlink(OsStr::from_bytes(target), to)?;
        Ok(())
    }
}

/// `None` for modes that git does not write.
fn kind(entry: &TreeEntry<'_>) -> Option<Kind> {
    let mode = entry.filemode_raw().cast_unsigned();
    match mode & 0o170_000 {
        0o040_000 => Some(Kind::Directory),
        // Old versions of git also wrote 0664.
        0o100_000 if mode & 0o100 == 0 => Some(Kind::File { mode: 0o644 }),
        0o100_000 => Some(Kind::File { mode: 0o755 }),
        0o120_000 => Some(Kind::Link),
        0o160_000 => Some(Kind::Submodule),
        _ => None,
    }
}

/// Whether git would check out a file of this name; `.git` in any letter case is its own.
fn is_plain(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && !name.contains(&b'/')
        && !name.contains(&0)
        && !name.eq_ignore_ascii_case(b".git")
}

/// A name that would lead out of the destination, or into git's own files.
fn bad_path(path: &Path) -> Error {
    let path = short(path);
    source(format!(
        "it holds the path `{path}`, which cannot be checked out"
    ))
}

fn short(path: &Path) -> String {
    path.to_string_lossy().chars().take(200).collect()
}
