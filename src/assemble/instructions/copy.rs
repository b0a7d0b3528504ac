//! COPY and ADD: which files are put where.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;

use super::{Instructor, copy_plainly, mount};
use crate::context;
use crate::dockerfile::{self, Source};
use crate::error::{Error, InstructionError};
use crate::runner::{FILES, Item, Placement};
use crate::secret;
use crate::step::{Counts, Seen, Task};

impl Instructor<'_> {
    pub(super) fn copy(self, copy: &dockerfile::Copy, title: &str) -> Result<Vec<Task>, Error> {
        let failed = |source| InstructionError::Select {
            instruction: title.to_owned(),
            source,
        };
        let mut paths = Vec::new();
        // What does not lie in the context: fetched, or written in the instruction.
        let mut others = Vec::new();
        for source in &copy.sources {
            match source {
                Source::Path(path) => paths.push(path.clone()),
                Source::Inline { name, text } => {
                    let file = self.scratch_file("inline", text.as_bytes(), 0o644)?;
                    others.push((file, name.clone(), false));
                }
                Source::Url(url) => {
                    let folder = self.scratch_folder("fetched")?;
                    let name = url_name(url);
                    let file = folder.join("file");
                    let sha256 = copy.checksum.as_deref();
                    let sha256 = sha256.map(|digest| digest.trim_start_matches("sha256:"));
                    let added = self.add(url, false, sha256, &file, title)?;
                    // A copy, since what is kept in the store is not ours to change.
                    let path = folder.join("copy");
                    fs::copy(added.path(), &path)?;
                    fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
                    set_time(&path, added.modified().unwrap_or(0))?;
                    added.complete()?;
                    others.push((path, name, false));
                }
                Source::Git(url) => {
                    if copy.keep_git_dir {
                        return Err(InstructionError::KeepGitDir.into());
                    }
                    others.push((
                        self.clone(url, copy.checksum.as_deref(), title)?,
                        String::new(),
                        true,
                    ));
                }
            }
        }
        let selection = if paths.is_empty() {
            context::Selection::default()
        } else {
            context::select(self.context, &paths, &copy.exclude, copy.parents).map_err(failed)?
        };
        let is_directory = copy.destination.ends_with('/')
            || others.len() + paths.len() > 1
            || others.iter().any(|(_, _, is_tree)| *is_tree)
            || (!paths.is_empty() && !selection.is_one_file);
        let task = |root: &Path, items| Task {
            placement: Some(Placement {
                items,
                destination: OsString::from(&copy.destination),
                is_directory,
                owner: copy.chown.clone().unwrap_or_default(),
                mode: copy.chmod,
                link: copy.link,
            }),
            mounts: vec![Seen {
                mount: mount(root, FILES, true),
                counts: Counts::Items,
            }],
            shown: Some(title.to_owned()),
            ..Task::default()
        };
        let mut tasks = Vec::new();
        if !selection.entries.is_empty() {
            let root = fs::canonicalize(self.context)?;
            let unpack = copy.unpack.unwrap_or(copy.is_add);
            tasks.push(task(&root, items(&root, &selection, unpack)));
        }
        for (path, name, is_tree) in others {
            if is_tree {
                let all = context::select(&path, &[".".to_owned()], &copy.exclude, false)
                    .map_err(failed)?;
                let root = fs::canonicalize(&path)?;
                tasks.push(task(&root, items(&root, &all, false)));
            } else {
                let item = Item {
                    source: path.file_name().unwrap_or_default().to_owned(),
                    target: OsString::from(name),
                    unpack: copy.unpack.unwrap_or(false),
                };
                tasks.push(task(path.parent().unwrap_or(Path::new("/")), vec![item]));
            }
        }
        Ok(tasks)
    }

    fn add(
        self,
        url: &str,
        is_repository: bool,
        sha256: Option<&str>,
        into: &Path,
        title: &str,
    ) -> Result<context::Added, Error> {
        let added = context::add(
            url,
            is_repository,
            sha256,
            into,
            self.sources,
            self.progress,
        );
        Ok(added.map_err(|source| InstructionError::Fetch {
            instruction: title.to_owned(),
            source,
        })?)
    }

    /// Clones `url#name:directory`; gives a copy of the directory.
    fn clone(self, url: &str, expected: Option<&str>, title: &str) -> Result<PathBuf, Error> {
        let (place, fragment) = url.split_once('#').unwrap_or((url, ""));
        let (name, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let folder = self.scratch_folder("cloned")?;
        let added = self.add(
            &format!("{place}#{name}"),
            true,
            None,
            &folder.join("tree"),
            title,
        )?;
        let commit = added.commit().unwrap_or_default();
        if let Some(expected) = expected.filter(|expected| !commit.starts_with(expected)) {
            return Err(InstructionError::Commit {
                url: secret::mask(place),
                expected: expected.to_owned(),
                found: commit.to_owned(),
            }
            .into());
        }
        let found = context::resolve(added.path(), Path::new(directory));
        let found = found.map_err(|source| InstructionError::Select {
            instruction: title.to_owned(),
            source,
        })?;
        let copy = folder.join("copy");
        copy_plainly(&found, &copy)?;
        added.complete()?;
        Ok(copy)
    }
}

/// What a selection puts where; archives that a source names may be unpacked.
fn items(root: &Path, selection: &context::Selection, unpack: bool) -> Vec<Item> {
    let item = |entry: &context::Selected| Item {
        source: entry
            .source
            .strip_prefix(root)
            .unwrap_or(&entry.source)
            .as_os_str()
            .to_owned(),
        target: entry.target.as_os_str().to_owned(),
        unpack: unpack && entry.is_named,
    };
    selection.entries.iter().map(item).collect()
}

fn set_time(path: &Path, seconds: i64) -> Result<(), Error> {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options()
        .write(true)
        .open(path)?
        .set_modified(time)?;
    Ok(())
}

/// The name of a downloaded file, as in the reference: the last part of the path.
fn url_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    path.rsplit('/').next().unwrap_or_default().to_owned()
}
