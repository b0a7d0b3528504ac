//! The stack of layers that steps run upon. As long as all that is asked for is known from the cache there is no tree;
//! then there is one: an overlay over what is unpacked, or, where no overlay can be had, a copy that is written in
//! place. Both give the same layers.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{
    Counts, Error, SYSTEM_PACKAGES, Seen, Step, Task, is_full, left_out, plain, relative, visible,
};
use crate::cache::{Cache, Entry, Key};
use crate::digest::{ChainId, DiffId};
use crate::layer::{
    self, Changes, ChangesRequest, Compression, OWNER_ATTRIBUTE, RecordedOwners, Times,
    UnpackRequest,
};
use crate::manifest::{Layer, Platform};
use crate::progress::Progress;
use crate::registry;
use crate::rootfs;
use crate::runner::{self, Command, Outcome, Owners, RootFs, Rung};
use crate::secret::Secret;
use crate::store::{self, Store};

/// Lines of a failed command that its error shows.
const TAIL: usize = 30;

/// What every step of a build gets.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// How steps are run; absent, none is, and it is only found out what is known of them.
    pub rung: Option<Rung>,
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
    /// Which of them hold the user's files, and no programs of the system's.
    pushed: Vec<DiffId>,
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
            pushed: Vec::new(),
            tree: None,
            folders: 0,
            fates: Vec::new(),
        }
    }

    /// Puts a tree of the host's (owned by the user, shown as root's) on the stack, whose layer is there.
    pub fn push(&mut self, directory: &Path, layer: &Layer) -> Result<(), Error> {
        self.layers.push(layer.clone());
        self.pushed.push(layer.diff_id);
        let (Some(tree), Some(rung)) = (&mut self.tree, self.inputs.rung) else {
            return Ok(());
        };
        match &mut tree.kind {
            TreeKind::Overlay(lower) => {
                // Steps see what they would see of the unpacked layer.
                layer::settle(directory, &self.inputs.times)?;
                if let Some(below) = lower.first() {
                    rootfs::like(below, directory)?;
                }
                lower.insert(0, directory.to_owned());
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
                };
                rootfs::call_unpack(rung, &request, self.inputs.progress)?;
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
        let rung = self.rung();
        let Inputs {
            store,
            progress,
            registries,
            ..
        } = self.inputs;
        let below = rootfs::pull(&self.layers, rung, registries, store, progress)?;
        let lower = [below.path];
        let kind = match rootfs::writable(rung, &lower, &directory, progress)? {
            // Each step gets an overlay of its own, see `prepare`.
            RootFs::Overlay { lower, .. } => TreeKind::Overlay(lower),
            RootFs::Directory(copy) => TreeKind::InPlace(copy),
        };
        Ok(Tree {
            kind,
            owners: below.owners,
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
        let key = self.key(tasks)?;
        let cache = self.inputs.cache.clone();
        let number = self.fates.len();
        let progress = self.inputs.progress;
        let mut found = cache.find(&key, progress);
        let mut turn = None;
        if found.is_none() && self.inputs.rung.is_some() && cache.is_used() {
            let (own, has_waited) = cache.turn(&key, progress)?;
            turn = Some(own);
            if has_waited {
                found = cache.find(&key, progress);
            }
        }
        let fate = match &found {
            Some(_) => Fate::Cached,
            None => Fate::Run(cache.changes(number, &key)),
        };
        self.fates.push((name.to_owned(), fate));
        if self.inputs.rung.is_some() {
            cache.keep(number, &key)?;
        }
        if let Some(Entry { layer, .. }) = found {
            if let Some(layer) = &layer {
                self.layers.push(layer.clone());
                // A tree that a step was run in does not have this layer.
                self.tree = None;
            }
            made.layer = layer;
            made.is_cached = true;
        } else if self.inputs.rung.is_some() {
            made.layer = self.make(name, before, tasks)?;
            let entry = Entry::new(name).with_layer(made.layer.clone());
            cache.remember(&key, &entry, progress)?;
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
        self.inputs.rung.is_none() && self.fates.iter().any(is_run)
    }

    fn rung(&self) -> Rung {
        let rung = self.inputs.rung;
        rung.expect("without a rung no step is run, and there is no tree")
    }

    /// What the tasks can read, in the tree as it is now.
    fn key(&self, tasks: &[Task]) -> Result<Key, Error> {
        let mut key = Key::default();
        key.add("the layers below", self.chain(|_| true));
        key.add("the platform", self.inputs.platform.to_string());
        key.add("times", store::json(&self.inputs.times));
        key.add("the compression", self.inputs.compression.to_string());
        for task in tasks {
            task.add_to(&mut key, self.inputs.progress)?;
        }
        Ok(key)
    }

    /// Names the layers that `counts` holds of.
    fn chain(&self, counts: impl Fn(&DiffId) -> bool) -> String {
        let diff_ids = self.layers.iter().map(|layer| layer.diff_id);
        let diff_ids: Vec<_> = diff_ids.filter(counts).collect();
        ChainId::of(&diff_ids).map_or_else(String::new, |chain| chain.to_string())
    }

    fn make(
        &mut self,
        name: &str,
        before: &[Task],
        tasks: &[Task],
    ) -> Result<Option<Layer>, Error> {
        let directory = self.folder("step")?;
        self.tree()?;
        let Some(tree) = &self.tree else {
            unreachable!("it was made just now")
        };
        let (rootfs, changes) = self.prepare(tree, &directory)?;
        let set = directory.join("owners-changed");
        let after = directory.join("owners");
        let mut ignore: Vec<PathBuf> = Vec::new();
        for task in before.iter().chain(tasks) {
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
        let layer = rootfs::write_changes(self.rung(), &request, self.inputs.progress)?;
        let tree = self.tree()?;
        if let Some(owners) = &mut tree.owners {
            *owners = after;
        }
        if let (TreeKind::Overlay(lower), RootFs::Overlay { upper, .. }) = (&mut tree.kind, rootfs)
        {
            lower.insert(0, upper);
        }
        Ok(layer)
    }

    /// The first of `paths` (relative to the root) where the system has an executable file; without a rung, if that is
    /// known.
    pub fn find_program(&mut self, paths: &[&str]) -> Result<Option<String>, Error> {
        let mut key = Key::default();
        key.add("programs", store::json(&paths));
        // The user's files are none of the system's; with them each change would have to be looked at.
        let chain = self.chain(|diff_id| !self.pushed.contains(diff_id));
        key.add("the layers below", chain);
        let cache = self.inputs.cache.clone();
        if self.tree.is_none()
            && let Some(entry) = cache.find(&key, self.inputs.progress)
        {
            return Ok(entry.answer.filter(|path| paths.contains(&path.as_str())));
        }
        if self.inputs.rung.is_none() {
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
                rootfs::snapshot(self.rung(), root, &snapshot, self.inputs.progress)?;
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
        Ok(rootfs::disarm(self.rung(), &caches)?)
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
            self.rung(),
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
        let step = step.to_owned();
        match outcome.map_err(|source| Error::Sandbox {
            step: step.clone(),
            source,
        })? {
            Outcome::Exited(0) => Ok(()),
            outcome => Err(Error::Failed {
                step,
                command: task.shown(),
                outcome,
                tail: tail.into(),
                full: is_full(self.inputs.scratch),
            }),
        }
    }
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

/// What lies at `path` in a stack of trees; a mark of a deletion hides what lies below it.
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
