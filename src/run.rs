//! A command in a built image, with the meanings of `docker run`. What it writes goes to a scratch folder
//! and is gone when it ends; only mounted paths keep what is written to them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::base;
use crate::error::{Error, OptionsError};
use crate::image::Image;
use crate::images::{client, find};
use crate::progress::Progress;
use crate::runner::{self, Command, Mount, Outcome, Owners, Rung};
use crate::store::{Scratch, Store};
use crate::{layer, rootfs, step};

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// What [`find`] understands.
    pub image: String,
    /// The store's folder.
    pub store: PathBuf,
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

/// Parses `HOST:IMAGE[:ro|:rw]`.
pub fn volume(text: &str) -> Result<Mount, OptionsError> {
    let invalid = || OptionsError::Mount(text.to_owned());
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err(invalid()),
    };
    let nowhere = target.trim_matches('/').is_empty();
    if !source.starts_with('/') || !target.starts_with('/') || nowhere {
        return Err(invalid());
    }
    if !Path::new(source).exists() {
        return Err(OptionsError::MountSource(source.into()));
    }
    Ok(Mount {
        source: source.into(),
        target: target.into(),
        read_only,
    })
}

/// Runs the command to its end.
pub fn run(options: &Options, progress: &Progress) -> Result<Outcome, Error> {
    let _session = Store::open(&options.store)?.session()?;
    let (image, _, store) = find(&options.image, &options.store, progress)?;
    let argv = argv(options, &image)?;
    let rung = runner::choose(options.runner, &store.scratch_root())?.0;
    rootfs::sweep(rung, &store.scratch_root())?;
    if !rootfs::is_unpacked(&image.layers, rung, &store) {
        base::bring(&image.layers, &client()?, &store, progress)?;
    }
    let base = rootfs::unpack(&image.layers, rung, &store, progress)?;
    let scratch = Scratch::new_in(&store.scratch_root())?;
    let ended = (|| -> Result<Outcome, Error> {
        let command = Command {
            rootfs: rootfs::writable(rung, &[base.path], scratch.path(), progress)?,
            mounts: options.volumes.clone(),
            tmpfs: Vec::new(),
            user: image.text("User").to_owned(),
            network: true,
            placement: None,
            argv,
            env: environment(options, &image),
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
            owners: base.owners.map(|known| Owners {
                attribute: layer::OWNER_ATTRIBUTE.to_owned(),
                known: Some(known),
                record: scratch.path().join("owners"),
                emulate: true,
            }),
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
