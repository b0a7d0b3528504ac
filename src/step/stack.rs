//! The stack of layers that steps run upon. As long as all that is asked for is known from the cache there is no tree;
//! then there is one: an overlay over what is unpacked, or, where no overlay can be had, a copy that is written in
//! place. Both give the same layers.
//!
//! # Steps above the workspace
//!
//! Every step of `cmds` runs in a tree that has the workspace, as in a Dockerfile. Whether its result depends on it is
//! found out while it runs ([`runner::Watch`]): a step that looks at nothing in the workspace is remembered under a key
//! with the workspace's outline in place of its layer, and so is not run again when a file there changes. The outline
//! has what such a step may still have learned: the names in `/workspace` and in `/workspace/installation`, since it may
//! have looked for one that is not there; the requirements, which are no secret to the step that installs them; and all
//! that the layer has outside of the workspace. Which way a step is remembered changes no image, only what is run: the
//! step's layer is the same, and so is its place above the workspace's.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{
    Counts, SYSTEM_PACKAGES, Seen, Step, Task, failed, is_full, left_out, plain, relative, visible,
};
use crate::buildfile::{INSTALLATION, Layout};
use crate::cache::{self, Cache, Entry, Key};
use crate::digest::{ChainId, DiffId, Digest};
use crate::error::{Error, Wrap as _};
use crate::layer::{
    Changes, ChangesRequest, Compression, OWNER_ATTRIBUTE, RecordedOwners, Times, UnpackRequest,
};
use crate::manifest::{Layer, Platform};
use crate::progress::Progress;
use crate::registry;
use crate::rootfs;
use crate::runner::{self, Command, Outcome, Owners, RootFs, Runner, Watch};
use crate::secret::Secret;
use crate::store::{self, Store};

/// Lines of a failed command that its error shows.
const TAIL: usize = 30;

/// What every step of a build gets.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// How steps are run; absent, none is, and it is only found out what is known of them.
    pub runner: Option<Runner>,
    /// What the base is built for.
    pub platform: Platform,
    /// Takes the layers.
    pub store: &'a Store,
    /// Have the layers that are not in the store.
    pub registries: &'a registry::Client,
    /// What steps made before.
    pub cache: Cache,
    /// A folder of the build's own, on the store's file system.
    pub scratch: &'a Path,
    /// Shown to the steps, in no layer and no key.
    pub ca_bundle: Option<PathBuf>,
    /// See [`Times`].
    pub times: Times,
    /// See [`Compression`].
    pub compression: Compression,
    /// What no step's output shows, line by line.
    pub hidden: Vec<Secret>,
    /// Where lines of output go, and whether to stop.
    pub progress: &'a Progress,
}

/// The stack.
#[derive(Debug)]
pub struct Stack<'a> {
    inputs: Inputs<'a>,
    /// Lowest first.
    layers: Vec<Layer>,
    /// How many of them are the base's.
    base: usize,
    /// Of the user's files, once they are among them.
    workspace: Option<Workspace>,
    /// Of all these layers, once a step had to be run.
    tree: Option<Tree>,
    /// What was begun in the scratch folder so far.
    folders: usize,
    /// What became of the steps so far.
    fates: Vec<(String, Fate)>,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// What it makes was known, and nothing was run.
    Cached,
    /// It was run, or has to be: this has changed since the last time, if there was one.
    Run(Option<Vec<String>>),
    /// It depends on a step that has to be run first.
    Unknown,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What it changed, if that is anything.
    pub layer: Option<Layer>,
    /// Whether it was known, and nothing was run.
    pub is_cached: bool,
}

/// The user's files: a layer that holds no programs of the system's.
#[derive(Debug)]
struct Workspace {
    diff_id: DiffId,
    /// Of all that is not watched, see the module's documentation.
    outline: Digest,
    /// See [`Watch::directories`].
    directories: Vec<PathBuf>,
    /// See [`Watch::names`].
    names: Vec<PathBuf>,
}

/// The cache keys of a step.
#[derive(Debug)]
struct Keys {
    /// All that it can read.
    whole: Key,
    /// The same but for what it would have been seen to look at, if there is such.
    outline: Option<Key>,
}

#[derive(Debug)]
struct Tree {
    kind: TreeKind,
    /// See [`rootfs::Rootfs::owners`].
    owners: Option<PathBuf>,
}

#[derive(Debug)]
enum TreeKind {
    /// Topmost first.
    Overlay(Vec<PathBuf>),
    InPlace(PathBuf),
}

impl<'a> Stack<'a> {
    /// Stands on the layers of a base, lowest first, which no step changes.
    #[must_use]
    pub fn new(base: &[Layer], inputs: Inputs<'a>) -> Self {
        Self {
            inputs,
            layers: base.to_vec(),
            base: base.len(),
            workspace: None,
            tree: None,
            folders: 0,
            fates: Vec::new(),
        }
    }

    /// Puts the user's files (owned by the user, shown as root's) on the stack, whose layer is there.
    pub fn push(&mut self, directory: &Path, layer: &Layer, layout: Layout) -> Result<(), Error> {
        self.layers.push(layer.clone());
        let progress = self.inputs.progress;
        let workspace = Workspace::open(directory, layer.diff_id, layout, progress)?;
        self.workspace = Some(workspace);
        let (Some(tree), Some(runner)) = (&mut self.tree, self.inputs.runner) else {
            return Ok(());
        };
        match &mut tree.kind {
            TreeKind::Overlay(lower) => {
                let Inputs {
                    store, progress, ..
                } = self.inputs;
                let place = self.inputs.scratch.join("workspace");
                let tree = rootfs::unpack_into(&place, layer, runner, store, progress)?;
                rootfs::put_on(lower, vec![tree], &place)?;
            }
            TreeKind::InPlace(root) => {
                let request = UnpackRequest {
                    layers: vec![(
                        self.inputs.store.blob_path(&layer.descriptor.digest),
                        layer.clone(),
                    )],
                    rootfs: root.clone(),
                    // The layer has no owner but 0:0; what is recorded of the base must stay.
                    owners: tree
                        .owners
                        .as_ref()
                        .map(|_| self.inputs.scratch.join("owners-of-workspace")),
                    coming: None,
                    is_alone: false,
                };
                rootfs::call_unpack(runner, &request, self.inputs.progress)?;
            }
        }
        Ok(())
    }

    /// The tree of all layers, made if there is none.
    fn tree(&mut self) -> Result<&mut Tree, Error> {
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None => self.unpack()?,
        };
        Ok(self.tree.insert(tree))
    }

    fn unpack(&mut self) -> Result<Tree, Error> {
        let directory = self.folder("stack")?;
        let runner = self.runner();
        let Inputs {
            store,
            progress,
            registries,
            ..
        } = self.inputs;
        let layers = &self.layers;
        if rootfs::can_overlay(runner, &directory, progress) {
            // Each step gets an overlay of its own, see `prepare`.
            let place = directory.join("workspace");
            let workspace = self.workspace.as_ref();
            let workspace = workspace.map(|workspace| (workspace.diff_id, &*place));
            let (below, above) = rootfs::stack(
                layers, self.base, workspace, runner, registries, store, progress,
            )?;
            let mut lower = vec![below.path];
            rootfs::put_on(&mut lower, above, &directory)?;
            return Ok(Tree {
                kind: TreeKind::Overlay(lower),
                owners: below.owners,
            });
        }
        let copy = rootfs::copy_of(
            layers, self.base, &directory, runner, registries, store, progress,
        )?;
        Ok(Tree {
            kind: TreeKind::InPlace(copy.path),
            owners: copy.owners,
        })
    }

    /// A new folder in the scratch.
    fn folder(&mut self, name: &str) -> Result<PathBuf, Error> {
        let directory = self.inputs.scratch.join(format!("{name}-{}", self.folders));
        self.folders += 1;
        store::make_folder(&directory)?;
        Ok(directory)
    }

    /// Runs a step, unless what it makes is known.
    pub fn run(
        &mut self,
        step: &Step,
        env: &[(OsString, OsString)],
        private: &[OsString],
        mounts: &[Seen],
    ) -> Result<Made, Error> {
        let tasks: Vec<Task> = step
            .commands
            .iter()
            .map(|argv| Task {
                argv: argv.clone(),
                env: env.to_vec(),
                private: private.to_vec(),
                mounts: mounts.to_vec(),
                emulate: step.emulate,
                ..Task::default()
            })
            .collect();
        self.perform(step.name, &[], &tasks)
    }

    /// Does tasks, one after the other, unless what they change is known; that becomes one layer. `before` is done
    /// only if they are, and is no part of what they are known by. `name` is for people.
    pub fn perform(&mut self, name: &str, before: &[Task], tasks: &[Task]) -> Result<Made, Error> {
        let mut made = Made {
            layer: None,
            is_cached: false,
        };
        if self.is_lost() {
            self.fates.push((name.to_owned(), Fate::Unknown));
            return Ok(made);
        }
        let keys = self.keys(tasks)?;
        let cache = self.inputs.cache.clone();
        let number = self.fates.len();
        let progress = self.inputs.progress;
        let mut found = keys.find(&cache, progress);
        let mut turn = None;
        if found.is_none() && self.inputs.runner.is_some() && cache.is_used() {
            let (own, has_waited) = cache.turn(keys.narrowest(), progress)?;
            turn = Some(own);
            if has_waited {
                found = keys.find(&cache, progress);
            }
        }
        let fate = match &found {
            Some(_) => Fate::Cached,
            None => Fate::Run(cache.changes(number, &keys.whole)),
        };
        self.fates.push((name.to_owned(), fate));
        if self.inputs.runner.is_some() {
            cache.keep(number, &keys.whole)?;
        }
        if let Some(Entry { layer, .. }) = found {
            if let Some(layer) = &layer {
                self.layers.push(layer.clone());
                // A tree that a step was run in does not have this layer.
                self.tree = None;
            }
            made.layer = layer;
            made.is_cached = true;
        } else if self.inputs.runner.is_some() {
            let has_looked;
            (made.layer, has_looked) = self.make(name, before, tasks)?;
            let entry = Entry::new(name).with_layer(made.layer.clone());
            let key = if has_looked {
                &keys.whole
            } else {
                keys.narrowest()
            };
            cache.remember(key, &entry, progress)?;
            self.layers.extend(made.layer.clone());
        }
        drop(turn);
        Ok(made)
    }

    /// What became of the steps, in order, by their names.
    #[must_use]
    pub fn fates(&self) -> &[(String, Fate)] {
        &self.fates
    }

    /// Whether a step was not run that had to be: what lies above it cannot be known.
    fn is_lost(&self) -> bool {
        let is_run = |(_, fate): &(String, Fate)| matches!(fate, Fate::Run(_));
        self.inputs.runner.is_none() && self.fates.iter().any(is_run)
    }

    fn runner(&self) -> Runner {
        let runner = self.inputs.runner;
        runner.expect("without a runner no step is run, and there is no tree")
    }

    /// What the tasks can read, in the tree as it is now.
    fn keys(&self, tasks: &[Task]) -> Result<Keys, Error> {
        let mut beside = Key::default();
        beside.add("the platform", self.inputs.platform.to_string());
        beside.add("times", store::json(&self.inputs.times));
        beside.add("the compression", self.inputs.compression.to_string());
        for task in tasks {
            task.add_to(&mut beside, self.inputs.progress)?;
        }
        let key = |chain: String| {
            let mut key = Key::default();
            key.add("the layers below", chain);
            key.extend(&beside);
            key
        };
        let outline = self.workspace.as_ref().map(|workspace| {
            let chain = self.chain(|diff_id| {
                let is_workspace = diff_id == workspace.diff_id;
                Some(if is_workspace {
                    DiffId(workspace.outline)
                } else {
                    diff_id
                })
            });
            // No layer has a digest that begins like that.
            key(format!("outline of {chain}"))
        });
        Ok(Keys {
            whole: key(self.chain(Some)),
            outline,
        })
    }

    /// Names the layers, each as what `name` gives for it.
    fn chain(&self, name: impl Fn(DiffId) -> Option<DiffId>) -> String {
        let diff_ids = self.layers.iter().map(|layer| layer.diff_id);
        let diff_ids: Vec<_> = diff_ids.filter_map(name).collect();
        ChainId::of(&diff_ids).map_or_else(String::new, |chain| chain.to_string())
    }

    /// Gives what the tasks changed, and whether they may have looked at the workspace.
    fn make(
        &mut self,
        name: &str,
        before: &[Task],
        tasks: &[Task],
    ) -> Result<(Option<Layer>, bool), Error> {
        let directory = self.folder("step")?;
        self.tree()?;
        let Some(tree) = &self.tree else {
            unreachable!("it was made just now")
        };
        let (rootfs, changes) = self.prepare(tree, &directory)?;
        let set = directory.join("owners-changed");
        let after = directory.join("owners");
        let mut ignore: Vec<PathBuf> = Vec::new();
        let mut has_looked = false;
        for (number, task) in before.iter().chain(tasks).enumerate() {
            let report = directory.join(format!("looked-{number}"));
            let workspace = self.workspace.as_ref();
            let watch = workspace
                .filter(|_| number >= before.len())
                .map(|seen| Watch {
                    directories: seen.directories.clone(),
                    names: seen.names.clone(),
                    report,
                });
            let command = Command {
                rootfs: rootfs.clone(),
                mounts: task.mounts.iter().map(|seen| seen.mount.clone()).collect(),
                tmpfs: task.tmpfs.clone(),
                user: task.user.clone(),
                network: !task.is_offline,
                placement: task.placement.clone(),
                argv: task.argv.iter().map(Into::into).collect(),
                env: task.env.clone(),
                cwd: Path::new("/").join(&task.cwd),
                ca_bundle: self.inputs.ca_bundle.clone(),
                interactive: false,
                inherit_output: false,
                owners: tree.owners.as_ref().map(|known| Owners {
                    attribute: OWNER_ATTRIBUTE.to_owned(),
                    known: Some(known.clone()),
                    record: set.clone(),
                    emulate: task.emulate,
                }),
                watch,
            };
            ignore.extend(
                runner::mount_points(&command)
                    .iter()
                    .map(|path| relative(path).to_owned()),
            );
            let executed = self.execute(name, task, &command);
            let disarmed = self.disarm(task);
            executed?;
            disarmed?;
            has_looked |= command.watch.is_some_and(|watch| !watch.is_unseen());
        }
        ignore.sort();
        ignore.dedup();
        let request = ChangesRequest {
            changes,
            ignore,
            owners: tree.owners.as_ref().map(|known| RecordedOwners {
                before: known.clone(),
                changed: Some(set),
                after: Some(after.clone()),
                inherits_groups: before.iter().chain(tasks).any(|task| !task.emulate),
            }),
            times: self.inputs.times.clone(),
            compression: self.inputs.compression,
            store: self.inputs.store.root().to_owned(),
        };
        let layer = rootfs::write_changes(self.runner(), &request, self.inputs.progress)?;
        let tree = self.tree()?;
        if let Some(owners) = &mut tree.owners {
            *owners = after;
        }
        if let (TreeKind::Overlay(lower), RootFs::Overlay { upper, .. }) = (&mut tree.kind, rootfs)
        {
            lower.insert(0, upper);
        }
        Ok((layer, has_looked))
    }

    /// The first of `paths` (relative to the root) where the system has an executable file; without a runner, if that is
    /// known.
    pub fn find_program(&mut self, paths: &[&str]) -> Result<Option<String>, Error> {
        let mut key = Key::default();
        key.add("programs", store::json(&paths));
        // The user's files are none of the system's; with them each change would have to be looked at.
        let workspace = self.workspace.as_ref().map(|workspace| workspace.diff_id);
        let chain = self.chain(|diff_id| (Some(diff_id) != workspace).then_some(diff_id));
        key.add("the layers below", chain);
        let cache = self.inputs.cache.clone();
        if self.tree.is_none()
            && let Some(entry) = cache.find(&key, self.inputs.progress)
        {
            return Ok(entry.answer.filter(|path| paths.contains(&path.as_str())));
        }
        if self.inputs.runner.is_none() {
            return Ok(None);
        }
        let tree = self.tree()?;
        let trees = match &tree.kind {
            TreeKind::Overlay(lower) => lower.as_slice(),
            TreeKind::InPlace(root) => std::slice::from_ref(root),
        };
        let is_program = |path: &&&str| is_program(trees, Path::new(path));
        let found = paths.iter().find(is_program).map(|path| (*path).to_owned());
        let entry = Entry::new("programs").with_answer(found.as_deref().unwrap_or_default());
        cache.remember(&key, &entry, self.inputs.progress)?;
        Ok(found)
    }

    fn prepare(&self, tree: &Tree, directory: &Path) -> Result<(RootFs, Changes), Error> {
        Ok(match &tree.kind {
            TreeKind::Overlay(lower) => {
                let rootfs = rootfs::overlay(lower, directory)?;
                let RootFs::Overlay { lower, upper, .. } = rootfs.clone() else {
                    unreachable!()
                };
                (rootfs, Changes::Overlay { lower, upper })
            }
            TreeKind::InPlace(root) => {
                let snapshot = directory.join("snapshot");
                rootfs::snapshot(self.runner(), root, &snapshot, self.inputs.progress)?;
                (
                    RootFs::Directory(root.clone()),
                    Changes::Walk {
                        root: root.clone(),
                        snapshot,
                    },
                )
            }
        })
    }

    /// Makes the caches harmless that a task wrote to.
    fn disarm(&self, task: &Task) -> Result<(), Error> {
        let is_cache = |seen: &&Seen| matches!(seen.counts, Counts::Cache(_));
        let caches = task.mounts.iter().filter(is_cache);
        let caches: Vec<_> = caches.map(|seen| seen.mount.source.clone()).collect();
        if caches.is_empty() {
            return Ok(());
        }
        rootfs::disarm(self.runner(), &caches)
    }

    fn execute(&self, step: &str, task: &Task, command: &Command) -> Result<(), Error> {
        let progress = self.inputs.progress;
        let mut tail = std::collections::VecDeque::with_capacity(TAIL);
        let hidden = task.hidden.iter().chain(&self.inputs.hidden);
        let mut hidden: Vec<_> = hidden.map(|secret| visible(secret.reveal())).collect();
        hidden.retain(|secret| !secret.trim().is_empty());
        // One secret may begin with another one.
        hidden.sort_by_key(|secret| Reverse(secret.len()));
        let mut warnings = Vec::new();
        let outcome = runner::run(
            self.runner(),
            command,
            &mut |line| {
                let line = plain(line, &hidden);
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line.clone());
                if step == SYSTEM_PACKAGES
                    && let Some(warning) = left_out(&line)
                    && !warnings.contains(&warning)
                {
                    progress.warn(warning.clone());
                    warnings.push(warning);
                }
                progress.output(line);
            },
            progress.cancelled(),
        );
        progress.check()?;
        match outcome.wrap(|| format!("step `{step}` could not be run"))? {
            Outcome::Exited(0) => Ok(()),
            outcome => {
                let is_full = is_full(self.inputs.scratch);
                Err(failed(step, &task.shown(), outcome, tail.into(), is_full))
            }
        }
    }
}

impl Keys {
    /// The key that fits the most workspaces.
    fn narrowest(&self) -> &Key {
        self.outline.as_ref().unwrap_or(&self.whole)
    }

    fn find(&self, cache: &Cache, progress: &Progress) -> Option<Entry> {
        let outline = self.outline.as_ref();
        let found = outline.and_then(|key| cache.find(key, progress));
        found.or_else(|| cache.find(&self.whole, progress))
    }
}

impl Workspace {
    /// `root` has a directory for the workspace, and may have others.
    fn open(
        root: &Path,
        diff_id: DiffId,
        layout: Layout,
        progress: &Progress,
    ) -> Result<Self, Error> {
        let workspace = PathBuf::from(layout.workspace());
        let installation = workspace.join(INSTALLATION);
        let directories = [&workspace, &installation].map(Clone::clone);
        let mut names = Vec::new();
        let mut outline = Key::default();
        for path in directories
            .iter()
            .flat_map(|directory| children(root, directory))
        {
            let host = root.join(relative(&path));
            let metadata = fs::symlink_metadata(&host)?;
            let name = path.display().to_string();
            if path.starts_with(&installation) && is_requirements(&path) {
                outline.add_digest(name, cache::digest_of(&host, progress)?);
            } else if directories.contains(&path) {
                outline.add(name, metadata.mode().to_be_bytes());
            } else {
                let is_directory = u8::from(metadata.is_dir());
                outline.add(
                    "a name",
                    [path.as_os_str().as_bytes(), &[0, is_directory]].concat(),
                );
                names.push(path);
            }
        }
        for path in children(root, Path::new("/")) {
            let host = root.join(relative(&path));
            let name = path.display().to_string();
            if path == workspace {
                outline.add(name, fs::symlink_metadata(host)?.mode().to_be_bytes());
            } else {
                outline.add_digest(name, cache::digest_of(&host, progress)?);
            }
        }
        Ok(Self {
            diff_id,
            outline: outline.digest(),
            directories: directories.into(),
            names,
        })
    }
}

/// Whether this is one of the files of requirements that the tool writes.
fn is_requirements(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_bytes().ends_with(b"requirements.txt")
}

/// The paths of what is in a directory of the tree at `root`, in order; none if there is no such directory.
fn children(root: &Path, directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(relative(directory)))
        .into_iter()
        .flatten();
    let names = entries
        .flatten()
        .map(|entry| directory.join(entry.file_name()));
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;

/// Whether an executable file is at `path` in a stack of trees, topmost first, as a process in it would find it.
fn is_program(trees: &[PathBuf], path: &Path) -> bool {
    let steps = |path: &Path| {
        let steps = path
            .components()
            .rev()
            .map(|step| step.as_os_str().to_owned());
        steps.collect::<Vec<_>>()
    };
    let mut rest = steps(path);
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(step) = rest.pop() {
        match step.to_str() {
            Some("/") => at.clear(),
            Some("..") => drop(at.pop()),
            Some(".") => {}
            _ => at.push(step),
        }
        let Some(found) = look_up(trees, &at) else {
            return false;
        };
        let Ok(stat) = rustix::fs::fstat(&found) else {
            return false;
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink if links < MAX_LINKS => {
                links += 1;
                let Ok(target) = rustix::fs::readlinkat(&found, "", Vec::new()) else {
                    return false;
                };
                at.pop();
                rest.extend(steps(Path::new(&OsString::from_vec(target.into_bytes()))));
            }
            FileType::RegularFile if rest.is_empty() => return stat.st_mode & 0o111 != 0,
            FileType::Directory => {}
            _ => return false,
        }
    }
    false
}

/// The file at `path` in a stack of trees; a whiteout hides the trees below it.
fn look_up(trees: &[PathBuf], path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    for tree in trees {
        let root = rustix::fs::open(tree, flags, Mode::empty()).ok()?;
        match crate::confined::open(&root, path, flags | OFlags::NOFOLLOW) {
            Ok(found) => return Some(found),
            Err(Errno::NOENT) => {}
            Err(_) => return None,
        }
    }
    None
}
