//! COPY and ADD: which files are put where.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use percent_encoding::percent_decode_str;
use url::Url;

use super::{Instructor, failed, mount};
use crate::context;
use crate::dockerfile::{self, Source};
use crate::error::{Error, Kind, Wrap as _};
use crate::runner::{Destination, FILES, Item, Placement};
use crate::secret;
use crate::sources;
use crate::step::{Counts, Seen, Task};

impl Instructor<'_> {
    pub(super) fn copy(self, copy: &dockerfile::Copy, title: &str) -> Result<Vec<Task>, Error> {
        let mut tasks = Vec::new();
        let is_path = |source: &Source| matches!(source, Source::Path(_));
        // Sources are copied in their order, and those of the context that stand together in one go.
        for sources in copy
            .sources
            .chunk_by(|one, next| is_path(one) && is_path(next))
        {
            tasks.extend(match &sources[0] {
                Source::Path(_) => self.copy_paths(copy, sources, title)?,
                Source::Inline { name, text } => {
                    let file = self.scratch_file("inline", text.as_bytes(), 0o644)?;
                    Some(copy_file(copy, &file, name, title))
                }
                Source::Url(url) => Some(self.copy_url(copy, url, title)?),
                Source::Git(git) => Some(self.copy_repository(copy, git, title)?),
            });
        }
        Ok(tasks)
    }

    fn copy_paths(
        self,
        copy: &dockerfile::Copy,
        sources: &[Source],
        title: &str,
    ) -> Result<Option<Task>, Error> {
        let paths: Vec<String> = sources
            .iter()
            .filter_map(|source| match source {
                Source::Path(path) => Some(path.clone()),
                _ => None,
            })
            .collect();
        let selection = context::select(self.context, &paths, &copy.exclude, copy.parents);
        let selection = selection.wrap(|| failed(title))?;
        if let Some(first) = selection.sockets.first() {
            let (first, count) = (first.display(), selection.sockets.len());
            let text = format!("`{first}` is a socket, which is left out");
            self.progress.warn(match count {
                1 => text,
                count => format!("{text} ({count} sockets in all)"),
            });
        }
        if selection.entries.is_empty() {
            return Ok(None);
        }
        let kind = match (selection.files, selection.directories) {
            _ if copy.destination.ends_with('/') => Destination::Directory,
            (0, _) => Destination::Directory,
            (1, 0) => Destination::Name,
            _ => Destination::Existing,
        };
        let root = fs::canonicalize(self.context)?;
        let unpack = copy.unpack.unwrap_or(copy.is_add);
        let items = items(&root, &selection, unpack);
        Ok(Some(task(copy, &root, items, kind, title)))
    }

    fn copy_url(self, copy: &dockerfile::Copy, url: &str, title: &str) -> Result<Task, Error> {
        let name = url_name(url);
        if name.is_empty() && copy.destination.ends_with('/') {
            let message = format!(
                "`{}` has no file name for the destination, which is a directory",
                secret::mask(url)
            );
            return Err(Error::new(Kind::BuildFile, message).with_hint(
                "name the file in the destination, which then has no slash at its end",
            ));
        }
        let folder = self.scratch_folder("fetched")?;
        let (sha256, into) = (copy.sha256.as_deref(), folder.join("file"));
        let added = sources::add_file(url, sha256, &into, self.sources, self.progress);
        let added = added.map_err(|error| not_fetched(title, error))?;
        // A copy, since what is kept in the store is not ours to change.
        let path = folder.join("copy");
        fs::copy(added.path(), &path)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
        set_time(&path, added.modified().unwrap_or(0))?;
        added.complete()?;
        Ok(copy_file(copy, &path, &name, title))
    }

    fn copy_repository(
        self,
        copy: &dockerfile::Copy,
        git: &dockerfile::Git,
        title: &str,
    ) -> Result<Task, Error> {
        let path = self.clone(git, title)?;
        let all = context::select_all(&path, &copy.exclude);
        let all = all.wrap(|| failed(title))?;
        let root = fs::canonicalize(&path)?;
        let items = items(&root, &all, false);
        Ok(task(copy, &root, items, Destination::Directory, title))
    }

    /// Clones a repository; gives a copy of the directory in it that is wanted.
    fn clone(self, git: &dockerfile::Git, title: &str) -> Result<PathBuf, Error> {
        let folder = self.scratch_folder("cloned")?;
        let added = sources::add_repository(
            &git.url,
            git.name.as_deref(),
            // A directory is no repository.
            git.keep_git_dir && git.directory.is_empty(),
            &folder.join("tree"),
            self.sources,
            self.progress,
        );
        let added = added.map_err(|error| not_fetched(title, error))?;
        if let Some(expected) = git.checksum.as_ref().filter(|id| !added.is_at(id)) {
            let message = format!(
                "`{}` is at the commit `{}`, not at `{expected}`",
                secret::mask(&git.url),
                added.commit().unwrap_or_default()
            );
            return Err(Error::new(Kind::Sources, message)
                .with_hint("check `--checksum`, and the branch or tag behind `#`"));
        }
        let found = context::resolve(added.path(), Path::new(&git.directory));
        let found = found.ok().filter(|found| found.is_dir());
        let found = found.ok_or_else(|| {
            let message = format!("`{}` is not a directory of the repository", git.directory);
            Error::new(Kind::Sources, message)
                .with_hint("name a directory behind the `:` of the URL")
        })?;
        let copy = folder.join("copy");
        context::copy_plainly(&found, &copy)?;
        added.complete()?;
        Ok(copy)
    }
}

/// What other sources say in the URL, ADD says in an option.
fn not_fetched(title: &str, error: Error) -> Error {
    let hint = error
        .hint()
        .map(|hint| hint.replace("`#sha256=`", "`--checksum`"));
    let error = error.or_kind(Kind::Sources).wrap(failed(title));
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Puts items of the folder `root` where the instruction says.
fn task(
    copy: &dockerfile::Copy,
    root: &Path,
    items: Vec<Item>,
    kind: Destination,
    title: &str,
) -> Task {
    Task {
        placement: Some(Placement {
            items,
            destination: OsString::from(&copy.destination),
            kind,
            owner: copy.chown.clone().unwrap_or_default(),
            mode: copy.chmod.clone(),
            link: copy.link,
        }),
        mounts: vec![Seen {
            mount: mount(root, FILES, true),
            counts: Counts::Items,
        }],
        shown: Some(title.to_owned()),
        ..Task::default()
    }
}

/// Puts a file of our own there, under this name if the destination is a directory.
fn copy_file(copy: &dockerfile::Copy, file: &Path, name: &str, title: &str) -> Task {
    let item = Item {
        source: file.file_name().unwrap_or_default().to_owned(),
        target: OsString::from(name),
        unpack: copy.unpack.unwrap_or(false),
    };
    let kind = if copy.destination.ends_with('/') || copy.sources.len() > 1 {
        Destination::Directory
    } else {
        Destination::Name
    };
    let root = file.parent().unwrap_or(Path::new("/"));
    task(copy, root, vec![item], kind, title)
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

/// The name of a downloaded file: the last part of the URL's path; empty if it has none.
fn url_name(url: &str) -> String {
    let path = Url::parse(url).map(|url| url.path().trim_end_matches('/').to_owned());
    let path = path.unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let name = percent_decode_str(name).decode_utf8_lossy();
    // What decodes to a path is no name.
    name.rsplit('/').next().unwrap_or_default().to_owned()
}
