//! Logins that come and go: what `login` and `logout` change in a file.
//!
//! The one idea: a file is read, changed and replaced while its folder is locked, so that of two
//! processes neither undoes what the other did. What a file says besides logins is kept.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::fs::FlockOperation;
use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::LoginError;
use super::file::{self, Content, HUB, HUB_URL, Key, canonical};
use super::places::{Environment, Kind, Place};
use crate::confined;
use crate::secret::Secret;

/// Between two looks at a lock.
const TICK: Duration = Duration::from_millis(10);

/// Files a login in place of all others for the whole of the registry.
pub(super) fn put(
    place: &Place,
    environment: &Environment,
    registry: &str,
    (user, password): (&str, &Secret),
) -> Result<(), LoginError> {
    let entry = json!({ "auth": file::encode(user, password) });
    set(place, environment, registry, Some(entry))
}

/// Takes the logins for the whole of a registry out of a file, after a helper got a new one. Docker
/// leaves an empty entry behind where `marked`.
pub(super) fn hand_over(
    place: &Place,
    environment: &Environment,
    registry: &str,
    marked: bool,
) -> Result<(), LoginError> {
    set(place, environment, registry, marked.then(|| json!({})))
}

fn set(
    place: &Place,
    environment: &Environment,
    registry: &str,
    entry: Option<Value>,
) -> Result<(), LoginError> {
    edit(place, environment, |_, auths| {
        auths.retain(|key, _| !Key::of(key).is_for(registry));
        if let Some(entry) = entry {
            auths.insert(key(place, registry), entry);
        }
    })
}

/// Takes logins out of a file; gives the keys of those that were there, the empty ones left out.
pub(super) fn remove(
    place: &Place,
    environment: &Environment,
    fits: impl Fn(&Key) -> bool,
) -> Result<Vec<String>, LoginError> {
    edit(place, environment, |content, auths| {
        auths.retain(|key, _| !fits(&Key::of(key)));
        content.filled(&fits)
    })
}

/// What a registry as a whole is filed under.
fn key(place: &Place, registry: &str) -> String {
    let name = match (canonical(registry) == HUB, place.kind) {
        (true, Kind::Docker | Kind::Old) => HUB_URL,
        (true, Kind::Containers) => HUB,
        (false, _) => registry,
    };
    name.to_owned()
}

/// Changes the entries of a file.
fn edit<T>(
    place: &Place,
    environment: &Environment,
    change: impl FnOnce(&Content, &mut Map<String, Value>) -> T,
) -> Result<T, LoginError> {
    let target = target(&place.path)?;
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    if !folder.is_dir() {
        builder.create(folder).map_err(|error| {
            let kind = error.kind();
            io::Error::new(
                kind,
                format!("failed to make `{}`: {error}", folder.display()),
            )
        })?;
    }
    let _lock = lock(folder, &target, environment.patience)?;
    let bytes = file::read(place)?.unwrap_or_default();
    let content = file::parse(place, &bytes)?;
    let malformed = || LoginError::Malformed {
        path: place.path.clone(),
        line: 1,
    };
    let mut root = match serde_json::from_slice(&bytes) {
        Ok(Value::Object(root)) => root,
        Ok(Value::Null) => Map::new(),
        Err(_) if file::is_blank(&bytes) => Map::new(),
        _ => return Err(malformed()),
    };
    let before = root.clone();
    let result = match place.kind {
        Kind::Old => change(&content, &mut root),
        Kind::Docker | Kind::Containers => {
            let mut auths = match root.remove("auths") {
                Some(Value::Object(auths)) => auths,
                None | Some(Value::Null) => Map::new(),
                Some(_) => return Err(malformed()),
            };
            let result = change(&content, &mut auths);
            if !auths.is_empty() || before.contains_key("auths") {
                root.insert("auths".to_owned(), Value::Object(auths));
            }
            result
        }
    };
    if root != before {
        replace(folder, &target, &root)?;
    }
    Ok(result)
}

/// The file that is to be replaced, at the end of all symbolic links.
fn target(path: &Path) -> Result<PathBuf, LoginError> {
    let path = confined::end_of_links(path)?;
    match fs::symlink_metadata(&path) {
        Ok(metadata) if !metadata.is_file() => Err(LoginError::NotAFile { path }),
        _ => Ok(path),
    }
}

/// Locks a folder as long as the value lives. A lock file would stay behind, and the file itself is
/// replaced.
fn lock(folder: &Path, target: &Path, patience: Duration) -> Result<fs::File, LoginError> {
    let file = fs::File::open(folder)?;
    let deadline = Instant::now() + patience;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        if Instant::now() >= deadline {
            return Err(LoginError::Locked {
                path: target.to_owned(),
                limit: patience,
            });
        }
        std::thread::sleep(TICK);
    }
}

/// Writes a file beside its place and renames it.
fn replace(folder: &Path, target: &Path, root: &Map<String, Value>) -> Result<(), LoginError> {
    // Docker's own indentation.
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    root.serialize(&mut serializer).map_err(io::Error::from)?;
    text.push(b'\n');
    let mut file = tempfile::Builder::new()
        .prefix(".pyats-image-build-login-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .tempfile_in(folder)?;
    file.write_all(&text)?;
    if let (Ok(old), Ok(folder)) = (fs::metadata(target), fs::metadata(folder))
        && old.uid() != rustix::process::geteuid().as_raw()
        && old.uid() == folder.uid()
    {
        // Root changes somebody's file in a folder of theirs: it stays theirs, or at least that is tried.
        let user = rustix::fs::Uid::from_raw(old.uid());
        let group = rustix::fs::Gid::from_raw(old.gid());
        let _ = rustix::fs::fchown(file.as_file(), Some(user), Some(group));
    }
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    Ok(())
}
