//! Files that appear at once or not at all: written beside their place, then renamed.

use std::io::{self, Write};
use std::path::Path;

use fs_err as fs;
use rustix::fs::FlockOperation;

use super::Error;

/// Writes a file beside `path` and renames it when it is complete.
pub(super) fn write_file(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    let mode = 0o666 & !umask();
    let mut file = tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        .tempfile_in(parent(path))?;
    lock(file.as_file())?;
    content(&mut file)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The mode bits that new files of this process lack.
pub(super) fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o022)
}

/// What temporary neighbours of outputs are called, before six random characters. They are locked as long as
/// they are written, so that the next build can tell which ones a killed one left behind.
pub(super) const PREFIX: &str = ".pyats-image-build-output-";

pub(super) fn lock(file: impl std::os::fd::AsFd) -> io::Result<()> {
    Ok(rustix::fs::flock(
        file,
        FlockOperation::NonBlockingLockExclusive,
    )?)
}

/// Removes what a killed build left beside `path`, or in it: what has exactly such a name and is this user's.
pub(super) fn sweep(path: &Path) {
    for directory in [
        parent(path).to_owned(),
        path.to_owned(),
        path.join("blobs/sha256"),
    ] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let left = entry.path();
            let name = entry.file_name();
            let random = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
            let ours = fs::symlink_metadata(&left).is_ok_and(|metadata| {
                let owner = std::os::unix::fs::MetadataExt::uid(&metadata);
                (metadata.is_file() || metadata.is_dir())
                    && owner == rustix::process::geteuid().as_raw()
            });
            let named = random.is_some_and(|random| random.len() == 6);
            if !named || !ours || !fs::File::open(&left).is_ok_and(|file| lock(file).is_ok()) {
                continue;
            }
            let _ = if left.is_dir() {
                fs::remove_dir_all(left)
            } else {
                fs::remove_file(left)
            };
        }
    }
}

/// The directory of a path.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
