//! A command in a built image, with the meanings of `docker run`. What it writes goes to a scratch folder
//! and is gone when it ends; only mounted paths keep what is written to them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, OptionsError};
use crate::image::Image;
use crate::images;
use crate::progress::Progress;
use crate::runner::{self, Command, Mount, Outcome, Owners, RootFs, Rung};
use crate::store::{Scratch, Store};
use crate::{layer, rootfs, step};

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// What [`find`](images::find) understands.
    pub image: String,
    /// The store's folder; absent, the [default](images::default_store).
    pub store: Option<PathBuf>,
    /// Forces a rung.
    pub runner: Option<Rung>,
    /// What [`volume`] returns.
    pub volumes: Vec<Mount>,
    /// Added to the image's environment.
    pub env: Vec<(String, OsString)>,
    /// Whether the command reads the caller's standard input.
    pub interactive: bool,
    /// Replaces the image's.
    pub working_dir: Option<PathBuf>,
    /// Replaces the image's; empty for none.
    pub entrypoint: Option<String>,
    /// Replaces the image's command.
    pub command: Vec<OsString>,
}

impl Options {
    /// The image's own command, as Docker runs it without options.
    #[must_use]
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            store: None,
            runner: None,
            volumes: Vec::new(),
            env: Vec::new(),
            interactive: false,
            working_dir: None,
            entrypoint: None,
            command: Vec::new(),
        }
    }
}

/// Parses `HOST:IMAGE[:ro|:rw]`, a mount for [`run`]. What is mounted must be there.
pub fn volume(text: &str) -> Result<Mount, Error> {
    let invalid = || OptionsError::Mount(text.to_owned());
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err(invalid().into()),
    };
    let nowhere = target.trim_matches('/').is_empty();
    if !source.starts_with('/') || !target.starts_with('/') || nowhere {
        return Err(invalid().into());
    }
    if !Path::new(source).exists() {
        return Err(OptionsError::MountSource(source.into()).into());
    }
    Ok(Mount {
        source: source.into(),
        target: target.into(),
        read_only,
    })
}

/// Runs a command in an image to its end, with the meanings of `docker run`. It has this process's standard output and
/// error, and what it writes elsewhere than to mounted paths is gone afterwards.
///
/// ```no_run
/// use pyats_image_builder::{Ended, Progress, RunOptions, run};
///
/// # let _ = || -> Result<(), pyats_image_builder::Error> {
/// let options = RunOptions {
///     command: ["pyats", "version", "check"].map(Into::into).to_vec(),
///     ..RunOptions::new("mypyatsimage")
/// };
/// assert_eq!(run(&options, &Progress::silent())?, Ended::Exited(0));
/// # Ok(()) };
/// ```
pub fn run(options: &Options, progress: &Progress) -> Result<Outcome, Error> {
    let store = images::open(options.store.as_deref())?;
    let _session = store.session()?;
    let image = images::find_in(&store, &options.image, progress)?;
    let argv = argv(options, &image)?;
    let mut rung = runner::choose(options.runner, &store.scratch_root())?.0;
    rootfs::sweep(rung, &store.scratch_root())?;
    loop {
        let error = match run_on(rung, options, &image, &argv, &store, progress) {
            Err(error) if error.is_of_owner() && options.runner.is_none() => error,
            result => return result,
        };
        rung = runner::next(rung, &store.scratch_root()).ok_or(error)?;
    }
}

fn run_on(
    rung: Rung,
    options: &Options,
    image: &Image,
    argv: &[OsString],
    store: &Store,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let registries = images::client()?;
    let layers = &image.layers;
    let scratch = Scratch::new_in(&store.scratch_root())?;
    let ended = (|| -> Result<Outcome, Error> {
        let (rootfs, owners) = if rootfs::can_overlay(rung, scratch.path(), progress) {
            let base = rootfs::kept_below(layers, rung, store);
            let (lower, owners) =
                rootfs::stack(layers, base, None, rung, &registries, store, progress)?;
            (rootfs::overlay(&lower, scratch.path())?, owners)
        } else {
            let all = layers.len();
            let copy = rootfs::copy_of(
                layers,
                all,
                scratch.path(),
                rung,
                &registries,
                store,
                progress,
            )?;
            (RootFs::Directory(copy.path), copy.owners)
        };
        let command = Command {
            rootfs,
            mounts: options.volumes.clone(),
            tmpfs: Vec::new(),
            user: image.text("User").to_owned(),
            network: true,
            placement: None,
            argv: argv.to_vec(),
            env: environment(options, image),
            cwd: options
                .working_dir
                .clone()
                .unwrap_or_else(|| match image.text("WorkingDir") {
                    "" => PathBuf::from("/"),
                    directory => PathBuf::from(directory),
                }),
            ca_bundle: None,
            interactive: options.interactive,
            inherit_output: true,
            owners: owners.map(|known| Owners {
                attribute: layer::OWNER_ATTRIBUTE.to_owned(),
                known: Some(known),
                record: scratch.path().join("owners"),
                emulate: true,
            }),
            watch: None,
        };
        Ok(runner::run(
            rung,
            &command,
            &mut |_| (),
            progress.cancelled(),
        )?)
    })();
    let removed = rootfs::remove(rung, scratch.path());
    let ended = ended?;
    removed?;
    Ok(ended)
}

fn argv(options: &Options, image: &Image) -> Result<Vec<OsString>, Error> {
    let words = |key: &str| {
        image
            .words(key)
            .into_iter()
            .map(OsString::from)
            .collect::<Vec<_>>()
    };
    let mut argv = match &options.entrypoint {
        None => words("Entrypoint"),
        Some(entrypoint) if entrypoint.is_empty() => Vec::new(),
        Some(entrypoint) => vec![entrypoint.into()],
    };
    if !options.command.is_empty() {
        argv.extend(options.command.iter().cloned());
    } else if options.entrypoint.is_none() {
        argv.extend(words("Cmd"));
    }
    if argv.is_empty() {
        Err(OptionsError::NoCommand.into())
    } else {
        Ok(argv)
    }
}

fn environment(options: &Options, image: &Image) -> Vec<(OsString, OsString)> {
    let mut env = step::with_defaults(&image.env());
    env.retain(|(name, _)| !options.env.iter().any(|(set, _)| name == set.as_str()));
    env.extend(
        options
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.clone())),
    );
    env
}
