//! A command in a built image, with the meanings of `docker run`. What it writes goes to a scratch folder
//! and is gone when it ends; only mounted paths keep what is written to them.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::error::Error;
use crate::image::Image;
use crate::images;
use crate::progress::Progress;
use crate::runner::{self, Command, Mount, Outcome, Owners, RootFs, Runner};
use crate::store::{Scratch, Store};
use crate::{layer, rootfs, step};

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// What [`find`](images::find) understands.
    pub image: String,
    /// The store's folder; absent, the [default](images::default_store).
    pub store: Option<PathBuf>,
    /// Forces a runner.
    pub runner: Option<Runner>,
    /// What [`volume`] returns.
    pub volumes: Vec<Mount>,
    /// Added to the image's environment.
    pub env: Vec<(String, OsString)>,
    /// Whether the command reads the caller's standard input.
    pub interactive: bool,
    /// Replaces the image's: `USER[:GROUP]`, names of the image or numbers.
    pub user: Option<String>,
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
            user: None,
            working_dir: None,
            entrypoint: None,
            command: Vec::new(),
        }
    }
}

/// Parses `HOST:IMAGE[:ro|:rw]`, a mount for [`run`]. `HOST` must exist; a relative path begins with `./` or `../`, as
/// Docker has it, so that it cannot be taken for the name of a volume.
pub fn volume(text: &str) -> Result<Mount, Error> {
    let invalid = || {
        Error::options(format!(
            "`{text}` is not a mount: use `HOST:IMAGE` or `HOST:IMAGE:ro`, where HOST begins with `/`, `./` or `../`, and IMAGE with `/` and is not `/` itself"
        ))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err(invalid()),
    };
    let nowhere = target.trim_matches('/').is_empty();
    let first = Path::new(source).components().next();
    let is_path = matches!(
        first,
        Some(Component::RootDir | Component::CurDir | Component::ParentDir)
    );
    if !is_path || !target.starts_with('/') || nowhere {
        return Err(invalid());
    }
    if !Path::new(source).exists() {
        let message = format!("`{source}` cannot be mounted: it does not exist");
        return Err(Error::options(message)
            .with_hint("make it first; the left side of `-v` is a path of this machine"));
    }
    Ok(Mount {
        source: std::path::absolute(source)?,
        below: PathBuf::new(),
        target: target.into(),
        read_only,
    })
}

/// Reads a file of environment variables for [`run`], as `docker run --env-file` does: one `NAME=VALUE` per line, and
/// `NAME` alone for the value that it has here, if it has one. Values are taken as they stand, quotes included. Empty
/// lines and those that begin with `#` are skipped.
pub fn env_file(path: &Path) -> Result<Vec<(String, OsString)>, Error> {
    let text = fs_err::read_to_string(path)?;
    let mut variables = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.into())),
            None => (line.trim_end(), std::env::var_os(line.trim_end())),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Error::options(format!(
                "`{}`, line {}: a variable has a name without white space, as in `NAME=VALUE`",
                path.display(),
                index + 1
            )));
        }
        variables.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(variables)
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
    let mut runner = runner::choose(options.runner, &store.scratch_root())?.0;
    rootfs::sweep(runner, &store.scratch_root())?;
    loop {
        let error = match run_on(runner, options, &image, &argv, &store, progress) {
            Err(error) if rootfs::is_of_owner(&error) && options.runner.is_none() => error,
            result => return result,
        };
        runner = runner::next(runner, &store.scratch_root()).ok_or(error)?;
    }
}

fn run_on(
    runner: Runner,
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
        let (rootfs, owners) = if rootfs::can_overlay(runner, scratch.path(), progress) {
            let base = rootfs::kept_below(layers, runner, store);
            let (below, above) =
                rootfs::stack(layers, base, None, runner, &registries, store, progress)?;
            let mut lower = vec![below.path];
            rootfs::put_on(&mut lower, above, scratch.path())?;
            (rootfs::overlay(&lower, scratch.path())?, below.owners)
        } else {
            let all = layers.len();
            let copy = rootfs::copy_of(
                layers,
                all,
                scratch.path(),
                runner,
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
            user: options
                .user
                .clone()
                .unwrap_or_else(|| image.text("User").to_owned()),
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
            runner,
            &command,
            &mut |_| (),
            progress.cancelled(),
        )?)
    })();
    let removed = rootfs::remove(runner, scratch.path());
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
        let message = "the image has neither an entrypoint nor a command, and none was given";
        Err(Error::options(message).with_hint("give a command after the image"))
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
