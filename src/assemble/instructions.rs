//! Carries out the instructions of `cmds`: what [`dockerfile::State`] says is run or copied becomes tasks of
//! the stack, each instruction's in one layer.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use rustix::fs::FlockOperation;

use super::Build;
use crate::buildfile::Instructions;
use crate::context::{self, Context};
use crate::digest::Digest;
use crate::dockerfile::{self, Action, Network, Sharing, Source};
use crate::error::{Error, InstructionError};
use crate::image::Entry;
use crate::runner::{FILES, Mount, Placement, Tmpfs};
use crate::secret::{self, Secret};
use crate::step::{self, Stack, Task};
use crate::store::{flock, open_lock};

/// What instructions have said so far: what is so, and what may be shown of it.
#[derive(Debug)]
pub(super) struct State {
    real: dockerfile::State,
    shown: dockerfile::State,
}

/// What carries instructions out.
#[derive(Clone, Copy)]
pub(super) struct Instructor<'a> {
    pub(super) build: Build<'a>,
    pub(super) context: &'a Context,
    /// Variables for the steps alone.
    pub(super) proxies: &'a [(String, Secret)],
}

impl State {
    /// Begins with a config, and the values that ARG has for a platform.
    pub(super) fn new(config: dockerfile::Config, given: &[(String, String)]) -> Self {
        let real = dockerfile::State::new(config, given.iter().cloned());
        Self {
            shown: real.clone(),
            real,
        }
    }

    /// What the config says now.
    pub(super) fn config(&self) -> &dockerfile::Config {
        self.real.config()
    }
}

impl Instructor<'_> {
    /// Carries out the instructions of the key `name` (`cmds.pre`, `cmds.post`); gives their entries of the
    /// history.
    pub(super) fn carry_out(
        self,
        name: &str,
        instructions: &Instructions,
        state: &mut State,
        stack: &mut Stack<'_>,
    ) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for (instruction, shown) in instructions.parsed.iter().zip(&instructions.shown) {
            let evaluated = |source| InstructionError::Evaluate {
                key: name.to_owned(),
                source,
            };
            let shown = state.shown.apply(shown).map_err(evaluated)?;
            let applied = state.real.apply(instruction).map_err(evaluated)?;
            let title = shown.history.as_ref().map_or_else(
                || instruction.kind.name().to_owned(),
                |history| shorten(&history.created_by),
            );
            let layer = match &applied.action {
                Action::Config => None,
                action => {
                    let part = self.build.progress.start(title.clone());
                    let tasks = match action {
                        Action::Run(run) => self.run(run, stack, &title)?,
                        Action::Copy(copy) => Prepared::of(self.copy(copy, &title)?),
                        Action::Workdir(workdir) => Prepared::of(vec![Task {
                            placement: Some(Placement {
                                destination: OsString::from(&workdir.path),
                                is_directory: true,
                                owner: workdir.user.clone(),
                                ..Placement::default()
                            }),
                            shown: Some(title.clone()),
                            ..Task::default()
                        }]),
                        Action::Config => unreachable!("it has no tasks"),
                    };
                    let layer = stack.perform(&title, &tasks.tasks)?;
                    part.finish(super::layers::size_of(layer.as_ref()));
                    layer
                }
            };
            entries.extend(shown.history.map(|history| Entry {
                layer,
                created_by: history.created_by,
            }));
        }
        Ok(entries)
    }

    fn run(
        self,
        run: &dockerfile::Run,
        stack: &mut Stack<'_>,
        title: &str,
    ) -> Result<Prepared, Error> {
        let mut env = step::with_defaults(&run.env);
        let mut add = |name: &str, value: &str| {
            if !env.iter().any(|(known, _)| known == name) {
                env.push((name.into(), value.into()));
            }
        };
        for (name, value) in self.proxies {
            add(name, value.reveal());
        }
        if let Some(epoch) = self.build.options.epoch {
            add("SOURCE_DATE_EPOCH", &epoch.to_string());
        }
        let mut prepared = Prepared::default();
        let mut task = Task {
            argv: run.argv.clone(),
            env,
            user: run.user.clone(),
            cwd: PathBuf::from(&run.cwd),
            is_offline: run.network == Network::None,
            emulate: true,
            shown: Some(title.to_owned()),
            ..Task::default()
        };
        if let Some(script) = &run.script {
            let file = self.scratch_file("script", script.text.as_bytes(), 0o755)?;
            task.mounts.push(mount(&file, &script.path, true));
        }
        for wanted in &run.mounts {
            match wanted {
                dockerfile::Mount::Bind {
                    source,
                    target,
                    read_only,
                } => {
                    let seen = self.bind(source, *read_only, title)?;
                    task.mounts.push(mount(&seen, target, *read_only));
                }
                dockerfile::Mount::Tmpfs { target, size } => task.tmpfs.push(Tmpfs {
                    target: PathBuf::from(target),
                    size: *size,
                }),
                dockerfile::Mount::Cache {
                    id,
                    target,
                    read_only,
                    sharing,
                    mode,
                    uid,
                    gid,
                } => {
                    let (folder, lock) = self.cache(id, *sharing)?;
                    prepared.locks.extend(lock);
                    let inside = folder.join("content");
                    if !inside.exists() {
                        stack.perform(title, &[owned(&folder, None, *mode, (*uid, *gid))])?;
                    }
                    task.mounts.push(mount(&inside, target, *read_only));
                }
                dockerfile::Mount::Secret {
                    id,
                    target,
                    env,
                    required,
                    mode,
                    uid,
                    gid,
                } => {
                    let given = &self.build.options.secrets;
                    let Some((_, source)) = given.iter().find(|(known, _)| known == id) else {
                        if *required {
                            return Err(InstructionError::NoSecret(id.clone()).into());
                        }
                        continue;
                    };
                    let bytes = fs::read(source)?;
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    task.hidden.extend(text.lines().map(Secret::new));
                    if let Some(variable) = env {
                        task.env.push((variable.into(), text.into()));
                    }
                    if let Some(target) = target {
                        let mut file = self.scratch_file("secret", &bytes, *mode)?;
                        if (*uid, *gid) != (0, 0) {
                            let folder = self.scratch_folder("owned")?;
                            let owned = owned(&folder, Some(&file), *mode, (*uid, *gid));
                            stack.perform(title, &[owned])?;
                            file = folder.join("content");
                        }
                        task.mounts.push(mount(&file, target, true));
                    }
                }
            }
        }
        prepared.tasks.push(task);
        Ok(prepared)
    }

    /// Files of the context for a step to see.
    fn bind(self, source: &str, read_only: bool, title: &str) -> Result<PathBuf, Error> {
        let found = context::resolve(&self.context.root, Path::new(source));
        let found = found.map_err(|source| InstructionError::Select {
            instruction: title.to_owned(),
            source,
        })?;
        if read_only {
            return Ok(found);
        }
        // What is written there is gone afterwards.
        let copy = self.scratch_folder("bind")?.join("copy");
        copy_plainly(&found, &copy)?;
        Ok(copy)
    }

    /// The folder of a cache, and the lock that keeps others out for as long as it lives.
    fn cache(self, id: &str, sharing: Sharing) -> Result<(PathBuf, Option<fs::File>), Error> {
        let caches = self.build.store.caches_path();
        fs::create_dir_all(&caches)?;
        for number in 0_u32.. {
            let name = format!("{id}\n{number}");
            let folder = caches.join(Digest::of(name.as_bytes()).hex());
            fs::create_dir_all(&folder)?;
            match sharing {
                Sharing::Shared => return Ok((folder, None)),
                Sharing::Locked => {
                    let lock = open_lock(&folder.join("lock"))?;
                    let lock = flock(lock, FlockOperation::LockExclusive)?;
                    return Ok((folder, Some(lock)));
                }
                Sharing::Private => {
                    let lock = open_lock(&folder.join("lock"))?;
                    let exclusive = FlockOperation::NonBlockingLockExclusive;
                    if rustix::fs::flock(&lock, exclusive).is_ok() {
                        return Ok((folder, Some(lock)));
                    }
                }
            }
        }
        unreachable!("some folder is free")
    }

    /// A new folder, for this build alone.
    fn scratch_folder(self, name: &str) -> Result<PathBuf, Error> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(self.build.scratch)?;
        Ok(folder.keep())
    }

    fn scratch_file(self, name: &str, bytes: &[u8], mode: u32) -> Result<PathBuf, Error> {
        let path = self.scratch_folder(name)?.join("file");
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        Ok(path)
    }

    fn copy(self, copy: &dockerfile::Copy, title: &str) -> Result<Vec<Task>, Error> {
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
            context::select(&self.context.root, &paths, &copy.exclude, copy.parents)
                .map_err(failed)?
        };
        let is_directory = copy.destination.ends_with('/')
            || others.len() + paths.len() > 1
            || others.iter().any(|(_, _, is_tree)| *is_tree)
            || (!paths.is_empty() && !selection.is_one_file);
        let placement = |entries, unpack| Placement {
            entries,
            destination: OsString::from(&copy.destination),
            is_directory,
            owner: copy.chown.clone().unwrap_or_default(),
            mode: copy.chmod,
            unpack,
        };
        let task = |root: &Path, placement| Task {
            placement: Some(placement),
            mounts: vec![mount(root, FILES, true)],
            shown: Some(title.to_owned()),
            ..Task::default()
        };
        let mut tasks = Vec::new();
        if !selection.entries.is_empty() {
            let root = fs::canonicalize(&self.context.root)?;
            let entries = selection.entries.iter().map(|entry| {
                let source = entry.source.strip_prefix(&root).unwrap_or(&entry.source);
                (
                    source.as_os_str().to_owned(),
                    entry.target.as_os_str().to_owned(),
                )
            });
            let unpack = copy.unpack.unwrap_or(copy.is_add);
            tasks.push(task(&root, placement(entries.collect(), unpack)));
        }
        for (path, name, is_tree) in others {
            let unpack = copy.unpack.unwrap_or(false);
            if is_tree {
                let all = context::select(&path, &[".".to_owned()], &copy.exclude, false)
                    .map_err(failed)?;
                let root = fs::canonicalize(&path)?;
                let entries = all.entries.iter().map(|entry| {
                    let source = entry.source.strip_prefix(&root).unwrap_or(&entry.source);
                    (
                        source.as_os_str().to_owned(),
                        entry.target.as_os_str().to_owned(),
                    )
                });
                tasks.push(task(&root, placement(entries.collect(), false)));
            } else {
                let file = path.file_name().unwrap_or_default().to_owned();
                let entries = vec![(file, OsString::from(name))];
                let root = path.parent().unwrap_or(Path::new("/"));
                tasks.push(task(root, placement(entries, unpack)));
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
            self.build.sources(),
            self.build.progress,
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

/// Tasks, and what has to be held while they are done.
#[derive(Default)]
struct Prepared {
    tasks: Vec<Task>,
    locks: Vec<fs::File>,
}

impl Prepared {
    fn of(tasks: Vec<Task>) -> Self {
        Self {
            tasks,
            locks: Vec::new(),
        }
    }
}

/// Puts `file`, or an empty directory, into a folder of the host under the name `content`, with this owner.
fn owned(folder: &Path, file: Option<&Path>, mode: u32, (uid, gid): (u32, u32)) -> Task {
    const OUT: &str = "/dev/.pyats-image-build/out";
    let mut mounts = vec![mount(folder, OUT, false)];
    let mut entries = Vec::new();
    if let Some(file) = file {
        mounts.push(mount(file.parent().unwrap_or(file), FILES, true));
        entries.push((
            file.file_name().unwrap_or_default().to_owned(),
            OsString::new(),
        ));
    }
    Task {
        placement: Some(Placement {
            entries,
            destination: format!("{OUT}/content").into(),
            is_directory: file.is_none(),
            owner: format!("{uid}:{gid}"),
            mode: Some(mode),
            unpack: false,
        }),
        mounts,
        ..Task::default()
    }
}

fn mount(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        source: source.to_owned(),
        target: PathBuf::from(target),
        read_only,
    }
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

/// An instruction in one line, for people.
fn shorten(created_by: &str) -> String {
    let text = created_by.trim_end_matches(" # buildkit");
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Copies a tree of the user's own.
fn copy_plainly(from: &Path, to: &Path) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_symlink() {
        return fs_err::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if !metadata.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy_plainly(&from.join(&name), &to.join(&name))?;
    }
    fs::set_permissions(to, metadata.permissions())
}
