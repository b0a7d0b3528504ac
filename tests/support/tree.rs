//! A directory tree as a value: what two builds of the same image must agree on.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use globset::Glob;

use super::sha256;

/// Names, types, modes, owners, link targets, devices, contents and extended attributes. Times are
/// left out, and so are sizes of directories.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<PathBuf, Node>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    /// A link's target, a file's digest, a device's numbers.
    content: String,
    /// The first name of the same file, for hard links.
    same_as: Option<PathBuf>,
    attributes: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// Reads the tree under `root`, without crossing into mounts or following links.
    pub(crate) fn of(root: &Path) -> Self {
        let mut nodes = BTreeMap::new();
        let mut names = BTreeMap::new();
        let mut waiting = vec![PathBuf::new()];
        while let Some(name) = waiting.pop() {
            let path = root.join(&name);
            let metadata = fs::symlink_metadata(&path).expect("the tree does not change");
            if metadata.is_dir() {
                for entry in fs::read_dir(&path).expect("the tree is readable") {
                    let entry = entry.expect("the tree is readable");
                    waiting.push(name.join(entry.file_name()));
                }
            } else if metadata.nlink() > 1 {
                names
                    .entry((metadata.dev(), metadata.ino()))
                    .or_insert_with(BTreeSet::new)
                    .insert(name.clone());
            }
            nodes.insert(
                name,
                Node::of(&path, &metadata).expect("the tree is readable"),
            );
        }
        for group in names.values() {
            let first = group.first().expect("each group has a name");
            for name in group.iter().skip(1) {
                nodes.get_mut(name).expect("it was read").same_as = Some(first.clone());
            }
        }
        Self(nodes)
    }

    /// What differs from `other`, one line a path, but for paths that match an `allowed` pattern, each
    /// of which comes with the reason.
    pub(crate) fn differences(&self, other: &Self, allowed: &[(&str, &str)]) -> Vec<String> {
        let allowed: Vec<_> = allowed
            .iter()
            .map(|(pattern, _reason)| Glob::new(pattern).expect("a pattern").compile_matcher())
            .collect();
        let names: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        names
            .into_iter()
            .filter(|name| !allowed.iter().any(|pattern| pattern.is_match(name)))
            .filter_map(|name| match (self.0.get(name), other.0.get(name)) {
                (Some(one), Some(two)) if one == two => None,
                (Some(one), Some(two)) => {
                    Some(format!("{}: {}", shown(name), one.differences(two)))
                }
                (Some(one), None) => {
                    Some(format!("{}: only in the first ({})", shown(name), one.kind))
                }
                (None, two) => Some(format!(
                    "{}: only in the second ({})",
                    shown(name),
                    two?.kind
                )),
            })
            .collect()
    }

    /// Whether there is something at this path.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(Path::new(name))
    }
}

/// A name in one line, whatever its bytes are.
fn shown(name: &Path) -> String {
    format!("/{}", name.as_os_str().as_bytes().escape_ascii())
}

impl Node {
    fn of(path: &Path, metadata: &std::fs::Metadata) -> io::Result<Self> {
        let kind = metadata.file_type();
        let (kind, content) = if kind.is_symlink() {
            ("link", fs::read_link(path)?.to_string_lossy().into_owned())
        } else if kind.is_dir() {
            ("directory", String::new())
        } else if kind.is_file() {
            ("file", sha256(fs::File::open(path)?)?)
        } else if kind.is_fifo() {
            ("fifo", String::new())
        } else if kind.is_socket() {
            ("socket", String::new())
        } else {
            let name = if kind.is_char_device() {
                "character device"
            } else {
                "block device"
            };
            (name, format!("{:x}", metadata.rdev()))
        };
        let mode = metadata.mode() & 0o7777;
        let owner = (metadata.uid(), metadata.gid());
        Ok(Self {
            kind,
            mode,
            owner,
            content,
            same_as: None,
            attributes: attributes(path)?,
        })
    }

    fn differences(&self, other: &Self) -> String {
        let mut found = Vec::new();
        let mut compare = |what: &str, one: String, two: String| {
            if one != two {
                found.push(format!("{what} {one} and {two}"));
            }
        };
        compare("type", self.kind.to_owned(), other.kind.to_owned());
        compare(
            "mode",
            format!("{:04o}", self.mode),
            format!("{:04o}", other.mode),
        );
        compare(
            "owner",
            format!("{:?}", self.owner),
            format!("{:?}", other.owner),
        );
        compare("content", self.content.clone(), other.content.clone());
        compare(
            "hard link",
            format!("{:?}", self.same_as),
            format!("{:?}", other.same_as),
        );
        compare(
            "attributes",
            format!("{:?}", self.attributes),
            format!("{:?}", other.attributes),
        );
        found.join(", ")
    }
}

/// Extended attributes that an image can carry.
fn attributes(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
        value.truncate(length);
        found.insert(name.to_string_lossy().into_owned(), value);
    }
    Ok(found)
}
