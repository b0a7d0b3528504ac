//! The stack of trees that steps run upon: an overlay over the base, or, where no overlay can be had, a
//! copy of the base that is written in place. Both give the same layers.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Error, Step, display, is_full, plain, relative};
use crate::layer::{Changes, ChangesRequest, Compression, Times, UnpackRequest};
use crate::manifest::Layer;
use crate::progress::Progress;
use crate::rootfs::{self, Rootfs};
use crate::runner::{self, Command, Mount, Outcome, RootFs, Rung};
use crate::store::Store;

/// Lines of a failed command that its error shows.
const TAIL: usize = 30;

/// What every step of a build gets.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// How steps are run.
    pub rung: Rung,
    /// Takes the layers.
    pub store: &'a Store,
    /// A folder of the build's own, on the store's file system.
    pub scratch: &'a Path,
    /// The environment, see [`super::environment`].
    pub env: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// Shown to the steps, in no layer.
    pub ca_bundle: Option<PathBuf>,
    /// See [`Times`].
    pub times: Times,
    /// See [`Compression`].
    pub compression: Compression,
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
    pub fn run(&mut self, step: &Step, mounts: &[Mount]) -> Result<Option<Layer>, Error> {
        let directory = self.inputs.scratch.join(format!("step-{}", self.steps));
        self.steps += 1;
        fs::create_dir(&directory)?;
        let (rootfs, changes) = self.prepare(&directory)?;
        let mut ignore: Vec<PathBuf> = Vec::new();
        for argv in &step.commands {
            let command = Command {
                rootfs: rootfs.clone(),
                mounts: mounts.to_vec(),
                argv: argv.iter().map(Into::into).collect(),
                env: self.inputs.env.clone(),
                cwd: PathBuf::from("/"),
                ca_bundle: self.inputs.ca_bundle.clone(),
                interactive: false,
                inherit_output: false,
            };
            ignore.extend(
                runner::mount_points(&command)
                    .iter()
                    .map(|path| relative(path).to_owned()),
            );
            self.execute(step.name, argv, &command)?;
        }
        ignore.sort();
        ignore.dedup();
        let request = ChangesRequest {
            changes,
            ignore,
            owners: self.owners.clone(),
            times: self.inputs.times.clone(),
            compression: self.inputs.compression,
            store: self.inputs.store.root().to_owned(),
        };
        let layer = rootfs::write_changes(self.inputs.rung, &request, self.inputs.progress)?;
        if let (Tree::Overlay(lower), RootFs::Overlay { upper, .. }) = (&mut self.tree, rootfs) {
            lower.insert(0, upper);
        }
        Ok(layer)
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

    fn execute(&self, step: &'static str, argv: &[String], command: &Command) -> Result<(), Error> {
        let progress = self.inputs.progress;
        let mut tail = std::collections::VecDeque::with_capacity(TAIL);
        let outcome = runner::run(
            self.inputs.rung,
            command,
            &mut |line| {
                let line = plain(line);
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line.clone());
                progress.output(line);
            },
            progress.cancelled(),
        );
        progress.check()?;
        match outcome.map_err(|source| Error::Sandbox { step, source })? {
            Outcome::Exited(0) => Ok(()),
            outcome => Err(Error::Failed {
                step,
                command: display(argv),
                outcome,
                tail: tail.into(),
                full: is_full(self.inputs.scratch),
            }),
        }
    }
}
