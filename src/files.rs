//! Small things done to files of this machine, for staging and fetching.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use fs_err as fs;

use crate::error::{Error, Kind};

/// `~` and `~user` become home directories; a trailing slash goes.
pub(crate) fn expand(text: &str) -> Result<PathBuf, Error> {
    let Some(rest) = text.strip_prefix('~') else {
        return Ok(Path::new(text).components().collect());
    };
    let (user, tail) = rest.split_once('/').unwrap_or((rest, ""));
    let home = if user.is_empty() {
        std::env::home_dir()
    } else {
        home_of(user)
    };
    let home = home.filter(|home| home.is_absolute()).ok_or_else(|| {
        Error::new(
            Kind::Sources,
            format!("the home directory in `{text}` is not known"),
        )
    })?;
    Ok(home
        .join(tail.trim_start_matches('/'))
        .components()
        .collect())
}

/// From `/etc/passwd`, else from the system's name services.
fn home_of(user: &str) -> Option<PathBuf> {
    let find = |database: Vec<u8>| {
        database.split(|byte| *byte == b'\n').find_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
            let home = (fields.len() >= 7 && fields[0] == user.as_bytes()).then(|| fields[5])?;
            Some(PathBuf::from(OsString::from_vec(home.to_vec())))
        })
    };
    fs::read("/etc/passwd").ok().and_then(find).or_else(|| {
        let output = Command::new("getent")
            .args(["--", "passwd", user])
            .output()
            .ok()?;
        find(output.stdout)
    })
}

/// Makes a directory of mode 0755, whatever the umask and the parent's set-group-id bit say.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o755))
}

/// Removes whatever is at `path`, also out of directories that its owner may not write to.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !metadata.is_dir() {
        return fs::remove_file(path);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn open_up(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, PermissionsExt::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
