//! Opens what lies at a path inside a root that nobody vouches for: no link in it leads out, as if the root were the
//! root of the process. And finds the end of links that lead where nobody else wants. Imports nothing of this crate.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;

/// Opens a directory, or with `O_PATH` anything, following links as a process in the root would. The empty path is the
/// root.
pub(crate) fn open(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = flags | OFlags::CLOEXEC;
    let confined = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(&root, path, flags, Mode::empty(), confined) {
            // Something was renamed while the kernel walked over a `..`.
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Linux before 5.6, or the filter of an outer container that knows no newer one.
            Err(Errno::NOSYS | Errno::PERM) => return walk(root, path, flags),
            result => return result,
        }
    }
}

/// The path at the end of all links at `path`, of which none may belong to another user: in a folder that others may write
/// to, it would lead where they want.
pub(crate) fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let metadata = match fs_err::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => metadata,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(path),
        };
        if ![user, 0].contains(&metadata.uid()) {
            let text = format!("`{}` is a link of another user's", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let to = fs_err::read_link(&path)?;
        path = path.parent().map_or(to.clone(), |folder| folder.join(&to));
    }
    Err(Errno::LOOP.into())
}

/// Opens a regular file inside `root` for reading. Anything else there is an error: a pipe would never end.
pub(crate) fn file(root: &Path, path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let found = open(&root, path, flags)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::RegularFile {
        let reason = "it is not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    // Whatever the name leads to by now.
    let found = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(found, flags, Mode::empty())?.into())
}

/// [`open`], step by step. Nobody else may change the tree meanwhile.
fn walk(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let here = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The directories from the root to where the walk is.
    let mut above = vec![rustix::fs::openat(&root, ".", here, Mode::empty())?];
    let mut rest = Vec::new();
    push(&mut rest, path);
    let mut links = 0;
    while let Some(step) = rest.pop() {
        let name = match step {
            Step::Root => {
                above.truncate(1);
                continue;
            }
            Step::Up => {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            Step::Into(name) => name,
        };
        let directory = &above[above.len() - 1];
        let next = rustix::fs::openat(directory, &name, here, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode);
        if kind == FileType::Symlink && !(rest.is_empty() && flags.contains(OFlags::NOFOLLOW)) {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&next, "", Vec::new())?.into_bytes();
            push(&mut rest, Path::new(&OsString::from_vec(target)));
            continue;
        }
        let is_directory = kind == FileType::Directory;
        let must_be = !rest.is_empty() || flags.contains(OFlags::DIRECTORY);
        if must_be && !is_directory {
            return Err(Errno::NOTDIR);
        }
        above.push(next);
    }
    let found = above.pop().ok_or(Errno::NOENT)?;
    if flags.contains(OFlags::PATH) {
        Ok(found)
    } else {
        rustix::fs::openat(&found, ".", flags | OFlags::DIRECTORY, Mode::empty())
    }
}

enum Step {
    Root,
    Up,
    Into(OsString),
}

/// Puts the steps of a path before those that are left; the next one is the last.
fn push(rest: &mut Vec<Step>, path: &Path) {
    let steps = path.components().rev().filter_map(|component| {
        Some(match component {
            Component::RootDir => Step::Root,
            Component::ParentDir => Step::Up,
            Component::Normal(name) => Step::Into(name.to_owned()),
            Component::CurDir | Component::Prefix(_) => return None,
        })
    });
    rest.extend(steps);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use fs_err as fs;

    use super::*;

    #[test]
    fn a_walk_leads_where_the_kernel_leads() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(directory.path().join("outside")).unwrap();
        fs::write(root.join("a/file"), "").unwrap();
        for (target, link) in [
            ("a", "to-a"),
            ("/a/b", "absolute"),
            ("../../../a", "a/b/up"),
            ("../outside", "out"),
            ("/outside", "out-too"),
            ("loop", "loop"),
            ("nowhere", "dangling"),
            ("to-a/../absolute/up/file", "long"),
            ("/", "top"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let opened = rustix::fs::open(&root, OFlags::PATH, Mode::empty()).unwrap();
        let inode =
            |found: Result<OwnedFd, Errno>| found.map(|fd| rustix::fs::fstat(fd).unwrap().st_ino);
        for path in [
            ".",
            "a",
            "a/b",
            "a/file",
            "to-a",
            "to-a/b",
            "absolute/..",
            "a/b/up",
            "a/b/up/file",
            "out",
            "out-too",
            "loop",
            "dangling",
            "long",
            "top/top/a",
            "../..",
            "../../a",
            "/",
            "/a/../..//a/",
            "a/file/x",
            "none",
            "a/none",
            "top/out",
            "long/x",
            "a/file/..",
        ] {
            for flags in [
                OFlags::empty(),
                OFlags::NOFOLLOW,
                OFlags::DIRECTORY,
                OFlags::DIRECTORY | OFlags::NOFOLLOW,
            ] {
                let path = Path::new(path);
                let flags = flags | OFlags::PATH;
                let kernels = inode(open(&opened, path, flags));
                assert_eq!(
                    inode(walk(&opened, path, flags)),
                    kernels,
                    "{path:?} {flags:?}"
                );
            }
        }
    }
}
