//! The stack of trees that steps run upon: an overlay over the base, or, where no overlay can be had, a
//! copy of the base that is written in place. Both give the same layers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};

use super::{Error, Step, Task, is_full, plain, printable, relative};
use crate::layer::{
    Changes, ChangesRequest, Compression, OWNER_ATTRIBUTE, RecordedOwners, Times, UnpackRequest,
};
use crate::manifest::Layer;
use crate::progress::Progress;
use crate::rootfs::{self, Rootfs};
use crate::runner::{self, Command, Mount, Outcome, Owners, RootFs, Rung};
use crate::secret::Secret;
use crate::store::Store;

/// Lines of a failed command that its error shows.
const TAIL: usize = 30;

/// How a line begins by which a step tells the user something; `packages.sh` writes such.
const WARNING: &str = "pyats-image-build: warning: ";

/// What every step of a build gets.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// How steps are run.
    pub rung: Rung,
    /// Takes the layers.
    pub store: &'a Store,
    /// A folder of the build's own, on the store's file system.
    pub scratch: &'a Path,
    /// Shown to the steps, in no layer.
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

/// The stack of trees.
#[derive(Debug)]
pub struct Stack<'a> {
    inputs: Inputs<'a>,
    owners: Option<PathBuf>,
    tree: Tree,
    steps: usize,
}

#[derive(Debug)]
enum Tree {
    /// Topmost first.
    Overlay(Vec<PathBuf>),
    InPlace(PathBuf),
}

impl<'a> Stack<'a> {
    /// Stands on `base`, which no step changes.
    pub fn new(base: &Rootfs, inputs: Inputs<'a>) -> Result<Self, Error> {
        let lower = [base.path.clone()];
        let tree = match rootfs::writable(inputs.rung, &lower, inputs.scratch, inputs.progress)? {
            // Each step gets an overlay of its own, see `prepare`.
            RootFs::Overlay { lower, .. } => Tree::Overlay(lower),
            RootFs::Directory(copy) => Tree::InPlace(copy),
        };
        Ok(Self {
            inputs,
            owners: base.owners.clone(),
            tree,
            steps: 0,
        })
    }

    /// Puts a tree of the host's (owned by the user, shown as root's) on the stack, whose layer is there.
    pub fn push(&mut self, directory: &Path, layer: &Layer) -> Result<(), Error> {
        match &mut self.tree {
            Tree::Overlay(lower) => lower.insert(0, directory.to_owned()),
            Tree::InPlace(root) => {
                let request = UnpackRequest {
                    layers: vec![(
                        self.inputs.store.blob_path(&layer.descriptor.digest),
                        layer.clone(),
                    )],
                    rootfs: root.clone(),
                    // The layer has no owner but 0:0; what is recorded of the base must stay.
                    owners: self
                        .owners
                        .as_ref()
                        .map(|_| self.inputs.scratch.join("owners-of-workspace")),
                };
                rootfs::call_unpack(self.inputs.rung, &request, self.inputs.progress)?;
            }
        }
        Ok(())
    }

    /// Runs a step; what it changed becomes a layer, or `None` if that is nothing.
    pub fn run(
        &mut self,
        step: &Step,
        env: &[(OsString, OsString)],
        mounts: &[Mount],
    ) -> Result<Option<Layer>, Error> {
        let tasks: Vec<Task> = step
            .commands
            .iter()
            .map(|argv| Task {
                argv: argv.clone(),
                env: env.to_vec(),
                mounts: mounts.to_vec(),
                emulate: step.emulate,
                ..Task::default()
            })
            .collect();
        self.perform(step.name, &tasks)
    }

    /// Does tasks, one after the other; what they changed becomes a layer, or `None` if that is nothing.
    /// `name` is for people.
    pub fn perform(&mut self, name: &str, tasks: &[Task]) -> Result<Option<Layer>, Error> {
        let directory = self.inputs.scratch.join(format!("step-{}", self.steps));
        self.steps += 1;
        fs::create_dir(&directory)?;
        let (rootfs, changes) = self.prepare(&directory)?;
        let set = directory.join("owners-changed");
        let after = directory.join("owners");
        let mut ignore: Vec<PathBuf> = Vec::new();
        for task in tasks {
            let command = Command {
                rootfs: rootfs.clone(),
                mounts: task.mounts.clone(),
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
                owners: self.owners.as_ref().map(|known| Owners {
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
            self.execute(name, task, &command)?;
        }
        ignore.sort();
        ignore.dedup();
        let request = ChangesRequest {
            changes,
            ignore,
            owners: self.owners.as_ref().map(|before| RecordedOwners {
                before: before.clone(),
                changed: Some(set),
                after: Some(after.clone()),
            }),
            times: self.inputs.times.clone(),
            compression: self.inputs.compression,
            store: self.inputs.store.root().to_owned(),
        };
        let layer = rootfs::write_changes(self.inputs.rung, &request, self.inputs.progress)?;
        if let Some(owners) = &mut self.owners {
            *owners = after;
        }
        if let (Tree::Overlay(lower), RootFs::Overlay { upper, .. }) = (&mut self.tree, rootfs) {
            lower.insert(0, upper);
        }
        Ok(layer)
    }

    /// Whether an executable file lies at `path`, relative to the root.
    #[must_use]
    pub fn has_program(&self, path: &str) -> bool {
        let trees = match &self.tree {
            Tree::Overlay(lower) => lower.as_slice(),
            Tree::InPlace(root) => std::slice::from_ref(root),
        };
        // What lies in the topmost tree counts; a mark of a deletion there is no program.
        let found = trees.iter().find_map(|tree| find(tree, path));
        found.is_some_and(|stat| {
            FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_mode & 0o111 != 0
        })
    }

    fn prepare(&self, directory: &Path) -> Result<(RootFs, Changes), Error> {
        Ok(match &self.tree {
            Tree::Overlay(lower) => {
                let rootfs = rootfs::overlay(lower, directory)?;
                let RootFs::Overlay { lower, upper, .. } = rootfs.clone() else {
                    unreachable!()
                };
                (rootfs, Changes::Overlay { lower, upper })
            }
            Tree::InPlace(root) => {
                let snapshot = directory.join("snapshot");
                rootfs::snapshot(self.inputs.rung, root, &snapshot, self.inputs.progress)?;
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

    fn execute(&self, step: &str, task: &Task, command: &Command) -> Result<(), Error> {
        let progress = self.inputs.progress;
        let mut tail = std::collections::VecDeque::with_capacity(TAIL);
        let hidden = task.hidden.iter().chain(&self.inputs.hidden);
        let hidden: Vec<_> = hidden
            .map(|secret| printable(secret.reveal()))
            .filter(|secret| !secret.is_empty())
            .collect();
        let outcome = runner::run(
            self.inputs.rung,
            command,
            &mut |line| {
                let line = plain(line, &hidden);
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line.clone());
                if let Some(warning) = line.strip_prefix(WARNING) {
                    progress.warn(warning);
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

/// What lies at `path` in the tree at `root`; links count, as long as they stay in it.
fn find(root: &Path, path: &str) -> Option<Stat> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).ok()?;
    let confined = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&root, path, flags, Mode::empty(), confined).ok()?;
    rustix::fs::fstat(found).ok()
}
