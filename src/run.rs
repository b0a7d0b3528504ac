//! A command in a built image, with the meanings of `docker run`. What it writes goes to a scratch folder
//! and is gone when it ends; only mounted paths keep what is written to them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{self, Layers, Pull, Source};
use crate::error::{Error, OptionsError};
use crate::image::{self, Image};
use crate::manifest::{Index, Platform, REF_NAME};
use crate::net::Proxies;
use crate::progress::Progress;
use crate::runner::{self, Command, Mount, Outcome, Owners, Rung};
use crate::store::{Scratch, Store};
use crate::{assemble, layer, net, registry, rootfs, step};

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

/// Whether a name is a layout's or an archive's.
pub(crate) fn is_outside(name: &str) -> bool {
    ["oci:", "oci-archive:", "docker-archive:"]
        .iter()
        .any(|kind| name.starts_with(kind))
}

/// Finds an image: a tag or an id (of the manifest or the config) in the store, or a layout or archive. Also
/// returns its tags, and the store.
pub fn find(
    name: &str,
    store: &Path,
    progress: &Progress,
) -> Result<(Image, Vec<String>, Store), Error> {
    let store = Store::open(store)?;
    if is_outside(name) {
        let source: Source = name.parse().map_err(OptionsError::Base)?;
        let base = base::pull(
            &source,
            &Platform::host(),
            Pull::Never,
            Layers::Now,
            &client()?,
            &store,
            progress,
        )?;
        return Ok((image::load(&base.manifest, &store)?, Vec::new(), store));
    }
    let index = store.index()?;
    let tag = assemble::complete_tag(name).unwrap_or_default();
    let image = match store.tagged(&tag)? {
        Some(manifest) => image::load(&manifest, &store)?,
        None => by_id(name, &index, &store)?,
    };
    let named = index
        .manifests
        .iter()
        .filter(|entry| entry.digest == image.manifest.digest);
    let tags = named
        .filter_map(|entry| entry.annotations.get(REF_NAME).cloned())
        .collect();
    Ok((image, tags, store))
}

/// Reaches registries as this machine does: an image may have layers that were not needed so far.
fn client() -> Result<registry::Client, Error> {
    let proxies = Proxies::from_env().map_err(OptionsError::Proxy)?;
    let net = net::Client::new(net::Options::of_system(None, proxies));
    let registries = registry::Registries::load(&[]).map_err(OptionsError::Policy)?;
    let options = registry::Options {
        registries,
        ..registry::Options::default()
    };
    Ok(registry::Client::new(options, Arc::new(net)))
}

/// An image by the digest of its manifest or config, or at least twelve of its leading digits.
fn by_id(name: &str, index: &Index, store: &Store) -> Result<Image, Error> {
    let unknown = || OptionsError::UnknownImage(name.to_owned());
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    if digits.len() < 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(unknown().into());
    }
    for entry in &index.manifests {
        let image = image::load(entry, store)?;
        let ids = [image.manifest.digest, image.config_descriptor.digest];
        if ids.iter().any(|id| id.hex().starts_with(digits)) {
            return Ok(image);
        }
    }
    Err(unknown().into())
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
