//! The folders of a store. Other users of the machine cannot enter them: unpacked trees and caches hold files that would
//! give those users the rights of the one who builds.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use fs_err as fs;

use super::{Error, Result};

/// Made when a store is opened.
const FOLDERS: [&str; 10] = [
    "blobs",
    "blobs/sha256",
    "caches",
    "resolved",
    "rootfs",
    "seen",
    "sources",
    "steps",
    "tmp",
    "turns",
];
/// Hold folders that earlier versions left open.
const HOLDERS: [&str; 3] = ["caches", "rootfs", "sources"];
/// A folder that file systems make by themselves.
const LOST_AND_FOUND: &str = "lost+found";
/// The permissions of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Makes the folders of the store at `root`, and closes those that are there. Nothing is made in a folder that belongs to
/// another user.
pub(super) fn prepare(root: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(root).map_err(|error| named(root, &error))?;
    check_owner(root)?;
    if is_open(root)? {
        if !is_free(root)? {
            let reason = "it holds files that are not part of a store";
            return Err(exposed(root, reason));
        }
        close(root)?;
        // Some file systems know no modes, or none but those that the mount names.
        if is_open(root)? {
            return Err(exposed(root, "its mode cannot be changed"));
        }
    }
    for folder in FOLDERS {
        let folder = root.join(folder);
        make(&folder)?;
        if is_open(&folder)? {
            close(&folder)?;
        }
    }
    for holder in HOLDERS {
        for entry in fs::read_dir(root.join(holder))? {
            // The steps that write to a cache may have given it to another id.
            let _ = close_own(&entry?.path());
        }
    }
    Ok(())
}

/// Makes a folder that only its owner can enter, unless something is there.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(named(path, &error)),
        _ => Ok(()),
    }
}

/// Takes the permissions of everybody but the owner from a folder.
pub(crate) fn close(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

fn close_own(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_dir() && is_own && metadata.mode() & OTHERS != 0 {
        close(path)?;
    }
    Ok(())
}

fn is_open(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.mode() & OTHERS != 0)
}

/// An error if the store, or the link that leads to it, belongs to another user.
fn check_owner(root: &Path) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let link = fs::symlink_metadata(root)?.uid();
    let folder = fs::metadata(root)?.uid();
    // A link of the administrator's leads where root says.
    let foreign = [(link, link == 0), (folder, false)]
        .into_iter()
        .find(|(owner, is_fine)| *owner != user && !is_fine);
    match foreign {
        None => Ok(()),
        Some((owner, _)) => Err(Error::Foreign {
            path: root.display().to_string(),
            owner,
            user,
        }),
    }
}

/// Whether a folder holds a store or nothing, so that others lose nothing when it is closed.
fn is_free(root: &Path) -> io::Result<bool> {
    if root.join("oci-layout").is_file() && root.join("rootfs").is_dir() {
        return Ok(true);
    }
    for entry in fs::read_dir(root)? {
        if entry?.file_name() != LOST_AND_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

fn exposed(root: &Path, reason: &'static str) -> Error {
    Error::Exposed {
        path: root.display().to_string(),
        reason,
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    let text = format!("failed to create directory `{}`: {error}", path.display());
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use crate::store::Store;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_store_is_closed_and_the_folder_of_others_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let open = |path: &Path| {
            fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let store = directory.path().join("store");
        fs::create_dir_all(store.join(LOST_AND_FOUND)).unwrap();
        open(&store);
        Store::open(&store).unwrap();
        assert_eq!(mode(&store), 0o700);
        // An earlier version left these open.
        fs::create_dir(store.join("caches/pip")).unwrap();
        let folders = FOLDERS.map(|folder| store.join(folder));
        let folders = folders.iter().chain([&store]);
        let old: Vec<_> = folders.cloned().chain([store.join("caches/pip")]).collect();
        for folder in &old {
            open(folder);
        }
        Store::open(&store).unwrap();
        for folder in &old {
            assert_eq!(mode(folder), 0o700, "{}", folder.display());
        }

        let shared = directory.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("file"), "text").unwrap();
        open(&shared);
        let error = Store::open(&shared).unwrap_err();
        assert!(matches!(error, Error::Exposed { .. }), "{error}");
        assert_eq!(mode(&shared), 0o755);
        assert_eq!(fs::read_dir(&shared).unwrap().count(), 1);
        close(&shared).unwrap();
        Store::open(&shared).unwrap();
    }
}
