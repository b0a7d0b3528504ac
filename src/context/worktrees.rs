//! Git work trees that came with local files: what `repos.json` says of them, as of repositories that are
//! cloned.
//!
//! A work tree is somebody else's data. Only files inside the workspace are read, no configuration but
//! the URLs of remotes, and nothing is executed: refs and tags are read here, objects by libgit2.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use git2::{ObjectType, Odb, Oid};
use serde_json::{Value, json};

use crate::secret;

/// Bytes of a file of git that are read: of packed refs there may be many, of all else there are few.
const MAX_FILE: u64 = 16 << 20;
/// Tags of tags, and refs in folders, that are followed.
const MAX_DEPTH: usize = 20;

/// Describes the work tree at `directory`, which the image has as `path`; `None` if it is not one, or if
/// something in it leads out of `workspace`, which is canonical.
pub(super) fn describe(workspace: &Path, directory: &Path, path: &str) -> Option<Value> {
    let git = git_directory(workspace, directory)?;
    let common = match read(&git.join("commondir")) {
        Some(text) => inside(workspace, &git.join(text.trim_end()))?,
        None => git.clone(),
    };
    if !(holds_no_way_out(workspace, &git) && holds_no_way_out(workspace, &common)) {
        return None;
    }
    let refs = refs(&common);
    let head = read(&git.join("HEAD"))?;
    let commit = match head.trim_end().strip_prefix("ref: ") {
        Some(name) => refs.get(name)?.clone(),
        None => id(head.trim_end())?,
    };
    let objects = Odb::new().ok()?;
    objects
        .add_disk_alternate(common.join("objects").to_str()?)
        .ok()?;
    let here = |kind: &str, points_here: &dyn Fn(&str) -> bool| -> Vec<String> {
        let named = refs.iter().filter_map(|(name, id)| {
            let name = name.strip_prefix(kind)?;
            points_here(id).then(|| name.to_owned())
        });
        named.collect()
    };
    Some(json!({
        "commit": commit,
        "heads": here("refs/heads/", &|id| id == commit),
        "tags": here("refs/tags/", &|id| peel(&objects, id) == commit),
        "remotes": remotes(&read(&common.join("config")).unwrap_or_default()),
        "path": path,
    }))
}

/// Where git's own files are: `.git`, or what a file of this name says.
fn git_directory(workspace: &Path, directory: &Path) -> Option<PathBuf> {
    let git = inside(workspace, &directory.join(".git"))?;
    if git.is_dir() {
        return Some(git);
    }
    let text = read(&git)?;
    let named = text.trim_end().strip_prefix("gitdir: ")?;
    inside(workspace, &directory.join(named)).filter(|git| git.is_dir())
}

/// The canonical path, if it lies in the workspace.
fn inside(workspace: &Path, path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path)
        .ok()
        .filter(|path| path.starts_with(workspace))
}

/// Whether no link below `git` leads out of the workspace, and no objects are borrowed from elsewhere.
fn holds_no_way_out(workspace: &Path, git: &Path) -> bool {
    if fs::symlink_metadata(git.join("objects/info/alternates")).is_ok() {
        return false;
    }
    let mut directories = vec![git.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind) if kind.is_symlink() && inside(workspace, &entry.path()).is_none() => {
                    return false;
                }
                _ => {}
            }
        }
    }
    true
}

fn read(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(MAX_FILE).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// All refs with the ids that they name; loose ones hide packed ones.
fn refs(git: &Path) -> BTreeMap<String, String> {
    let packed = read(&git.join("packed-refs")).unwrap_or_default();
    let mut refs: BTreeMap<String, String> = packed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(text, name)| Some((name.to_owned(), id(text)?)))
        .collect();
    let mut directories = vec![("refs".to_owned(), 0)];
    while let Some((directory, depth)) = directories.pop() {
        for entry in fs::read_dir(git.join(&directory))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = format!("{directory}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                if depth < MAX_DEPTH {
                    directories.push((name, depth + 1));
                }
            } else if let Some(id) = read(&entry.path()).and_then(|text| id(text.trim_end())) {
                refs.insert(name, id);
            }
        }
    }
    refs
}

/// An id as git writes it: of SHA-1, or of SHA-256.
fn id(text: &str) -> Option<String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (matches!(text.len(), 40 | 64) && digits).then(|| text.to_ascii_lowercase())
}

/// The id that an annotated tag stands for; of anything else its own.
fn peel(objects: &Odb<'_>, start: &str) -> String {
    let mut found = start.to_owned();
    for _ in 0..MAX_DEPTH {
        let Some(next) = tagged(objects, &found) else {
            break;
        };
        found = next;
    }
    found
}

fn tagged(objects: &Odb<'_>, tag: &str) -> Option<String> {
    let oid = Oid::from_str(tag).ok()?;
    let (size, kind) = objects.read_header(oid).ok()?;
    if kind != ObjectType::Tag || size as u64 > MAX_FILE {
        return None;
    }
    let object = objects.read(oid).ok()?;
    let text = String::from_utf8_lossy(object.data());
    id(text.lines().next()?.strip_prefix("object ")?)
}

/// The remotes of a configuration file and their URLs, without credentials.
fn remotes(config: &str) -> BTreeMap<String, String> {
    let mut remotes = BTreeMap::new();
    let mut remote = None;
    for line in config.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            remote = section
                .split_once(' ')
                .filter(|(kind, _)| kind.eq_ignore_ascii_case("remote"))
                .and_then(|(_, name)| name.trim_start().strip_prefix('"')?.strip_suffix("\"]"));
        } else if let (Some(name), Some((key, value))) = (remote, line.split_once('='))
            && key.trim_end().eq_ignore_ascii_case("url")
        {
            let (url, _) = secret::split_credentials(&unquoted(value.trim_start()));
            remotes.insert(name.to_owned(), url);
        }
    }
    remotes
}

/// A value without its quotes, escapes and comment.
fn unquoted(value: &str) -> String {
    let mut text = String::new();
    let mut quoted = false;
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '\\' => text.extend(characters.next()),
            '#' | ';' if !quoted => break,
            other => text.push(other),
        }
    }
    text.trim_end().to_owned()
}
