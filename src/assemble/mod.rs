//! The pipeline: [`build`] names every stage in order and holds no detail.

mod dockerfile;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;

use crate::base::{self, Base, Pull, Source};
use crate::buildfile::{self, BuildFile};
use crate::context::{self, Context, ContextRoot};
use crate::error::{Error, OptionsError};
use crate::image::{self, Format, Image, NewLayer, Settings};
use crate::layer::{self, Compression, Times};
use crate::manifest::Platform;
use crate::output::{self, Kind, Output};
use crate::progress::Progress;
use crate::registry::{self, Reference};
use crate::rootfs::{self, Rootfs};
use crate::runner::{self, Mount, Rung};
use crate::step::{self, Inputs, Stack, Step};
use crate::store::{Scratch, Store};

/// What the user means.
#[derive(Debug, Clone)]
pub struct Options {
    /// The build file; `-` is standard input.
    pub file: PathBuf,
    /// Replace the build file's tag; the first is the main one.
    pub tags: Vec<String>,
    /// Where the context is staged.
    pub path: Option<PathBuf>,
    /// Whether the context stays.
    pub keep_context: bool,
    /// Stage and plan, but build nothing.
    pub dry_run: bool,
    /// What is written beside the store.
    pub outputs: Vec<Output>,
    /// Replaces `python:X-slim`.
    pub base: Option<String>,
    /// Replaces the build file's, or this machine's.
    pub platform: Option<Platform>,
    /// Of the layers that are made here.
    pub compression: Compression,
    /// Forces a rung.
    pub runner: Option<Rung>,
    /// The store's folder.
    pub store: PathBuf,
    /// Where steps work; absent, in the store.
    pub work_dir: Option<PathBuf>,
    /// When the registry is asked.
    pub pull: Pull,
    /// How registries are reached.
    pub registry: registry::Options,
    /// Added to the build file's.
    pub labels: Vec<(String, String)>,
    /// Added to the build file's.
    pub annotations: Vec<(String, String)>,
    /// Whose media types are written.
    pub format: Format,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What the image is built from, and how.
    pub plan: Plan,
    /// The image; absent after a dry run.
    pub image: Option<Image>,
    /// The layers that were made here, lowest first.
    pub layers: Vec<NewLayer>,
}

/// What a build does.
#[derive(Debug)]
pub struct Plan {
    /// The base's name and digest.
    pub base: String,
    /// What is run, in order.
    pub steps: Vec<Step>,
    /// The tags, completed; the first is the main one.
    pub references: Vec<String>,
    /// Where it is written, beside the store.
    pub outputs: Vec<(Kind, PathBuf)>,
    /// Where the context is, if it stays.
    pub context: Option<PathBuf>,
    /// Number of files in the context, and their bytes.
    pub staged: (u64, u64),
}

/// The time of files whose own time means nothing: 1980-01-02T00:00:00Z. Zip, and so a wheel that is
/// built in the image, cannot store times before 1980 in any time zone.
const SETTLED: i64 = 315_619_200;

/// Builds the image that `options.file` describes.
pub fn build(options: &Options, progress: &Progress) -> Result<Outcome, Error> {
    let buildfile = BuildFile::load(&options.file)?;
    let references = references(options, &buildfile)?;
    let outputs = outputs(options, &references)?;
    let store = Store::open(&options.store)?;
    let rung = if options.dry_run {
        None
    } else {
        Some(choose(options, &store, progress)?)
    };
    let base = pull(options, &buildfile, &store, progress)?;
    let mut settings = settings(options, &buildfile, &base)?;

    let scratch = Scratch::new_in(&work_dir(options, &store)?)?;
    let built = (|| -> Result<Outcome, Error> {
        let root = ContextRoot::open(
            options.path.as_deref(),
            scratch.path(),
            options.keep_context,
            progress,
        )?;
        let own = [store.root(), scratch.path()];
        let context = context::stage(&buildfile, &settings.env, root.path(), &own, progress)?;
        let steps = steps(&buildfile, settled(options));
        write_dockerfile(&context, &base, &settings, &steps)?;
        let mut layers = Vec::new();
        let mut image = None;
        if let Some(rung) = rung {
            let rootfs = rootfs::unpack(&base.layers, rung, &store, progress)?;
            settings.entrypoint = entrypoint(&rootfs);
            write_dockerfile(&context, &base, &settings, &steps)?;
            let inputs = inputs(options, rung, &settings, &store, &scratch, progress)?;
            layers = run(&context, &steps, &rootfs, inputs)?;
            image = Some(image::append(&base, &layers, &settings, &store)?);
        }
        if let Some(image) = &image {
            publish(image, &references, &outputs, &store, progress)?;
        }
        let staged = (context.files, context.bytes);
        let plan = Plan {
            base: format!("{}@{}", base.name, base.manifest.digest),
            steps,
            references,
            outputs,
            context: options.keep_context.then(|| root.path().to_owned()),
            staged,
        };
        root.complete()?;
        Ok(Outcome {
            plan,
            image,
            layers,
        })
    })();
    let cleaned = clean(rung, scratch);
    let outcome = built?;
    cleaned?;
    Ok(outcome)
}

/// The tags, completed as Docker does.
fn references(options: &Options, buildfile: &BuildFile) -> Result<Vec<String>, Error> {
    let given = if options.tags.is_empty() {
        buildfile.tag.as_slice()
    } else {
        &options.tags
    };
    given.iter().map(|tag| complete_tag(tag)).collect()
}

/// A tag as Docker completes it: `name` is `docker.io/library/name:latest`.
pub fn complete_tag(tag: &str) -> Result<String, Error> {
    let invalid = |problem: String| OptionsError::Tag {
        tag: tag.to_owned(),
        problem,
    };
    let reference: Reference = tag
        .parse()
        .map_err(|error: registry::InvalidReference| invalid(error.problem.to_string()))?;
    if reference.digest().is_some() {
        return Err(invalid("a tag cannot name a digest".to_owned()).into());
    }
    Ok(reference.to_string())
}

/// Where the image is written, checked before anything is done.
fn outputs(options: &Options, references: &[String]) -> Result<Vec<(Kind, PathBuf)>, Error> {
    let name = match references.first() {
        Some(reference) => {
            let last = reference.rsplit('/').next().unwrap_or(reference);
            last.split(':').next().unwrap_or(last).to_owned()
        }
        None => match options.file.file_stem() {
            Some(stem) if options.file != Path::new("-") => stem.to_string_lossy().into_owned(),
            _ => "image".to_owned(),
        },
    };
    let outputs: Vec<_> = options
        .outputs
        .iter()
        .map(|output| (output.kind, output.path(&name)))
        .collect();
    for (kind, path) in &outputs {
        output::check(*kind, path)?;
    }
    Ok(outputs)
}

fn choose(options: &Options, store: &Store, progress: &Progress) -> Result<Rung, Error> {
    let rung = runner::choose(options.runner)?;
    progress.note(format!(
        "steps run on the rung `{rung}`. {}",
        runner::isolation(rung)
    ));
    rootfs::sweep(rung, &work_dir(options, store)?)?;
    rootfs::sweep(rung, &store.scratch_root())?;
    Ok(rung)
}

fn work_dir(options: &Options, store: &Store) -> Result<PathBuf, Error> {
    let Some(directory) = &options.work_dir else {
        return Ok(store.scratch_root());
    };
    fs::create_dir_all(directory)?;
    Ok(std::path::absolute(directory)?)
}

fn pull(
    options: &Options,
    buildfile: &BuildFile,
    store: &Store,
    progress: &Progress,
) -> Result<Base, Error> {
    let name = match (
        options.base.as_ref().or(buildfile.base.as_ref()),
        &buildfile.python,
    ) {
        (Some(base), _) => base.clone(),
        (None, Some(python)) => format!("python:{python}-slim"),
        (None, None) => {
            progress.warn(
                "the build file names no `python`: using 3.6.9, which gets no security updates any more; \
                 choose another one with a line such as `python: 3.11`",
            );
            "python:3.6.9-slim".to_owned()
        }
    };
    let source: Source = name.parse().map_err(OptionsError::Base)?;
    let platform = options
        .platform
        .clone()
        .or_else(|| buildfile.platform.clone())
        .unwrap_or_else(Platform::host);
    if !options.dry_run && !can_execute(&platform) {
        return Err(OptionsError::Platform(platform).into());
    }
    let client = registry::Client::new(options.registry.clone());
    Ok(base::pull(
        &source,
        &platform,
        options.pull,
        &client,
        store,
        progress,
    )?)
}

/// Whether this machine runs programs for `platform`: by itself, or by an emulator that the kernel knows
/// and that works in other root file systems (flag `F`).
fn can_execute(platform: &Platform) -> bool {
    let host = Platform::host();
    if platform.os == host.os && platform.architecture == host.architecture {
        return true;
    }
    let emulator = match platform.architecture.as_str() {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i386",
        other => other,
    };
    fs::read_to_string(format!("/proc/sys/fs/binfmt_misc/qemu-{emulator}")).is_ok_and(|entry| {
        platform.os == host.os
            && entry.starts_with("enabled")
            && entry
                .lines()
                .any(|line| line.starts_with("flags:") && line.contains('F'))
    })
}

fn settings(options: &Options, buildfile: &BuildFile, base: &Base) -> Result<Settings, Error> {
    let own = [
        ("WORKSPACE", step::WORKSPACE),
        ("VIRTUAL_ENV", step::VIRTUAL_ENV),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env = buildfile::environment(&image::env(&base.config), &own)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Ok(Settings {
        env: buildfile::environment(&env, &buildfile.env)?,
        entrypoint: vec![ENTRYPOINT.to_owned()],
        working_dir: step::WORKSPACE.to_owned(),
        labels: [&buildfile.labels[..], &options.labels[..]].concat(),
        annotations: [&buildfile.annotations[..], &options.annotations[..]].concat(),
        created: options
            .epoch
            .unwrap_or(i64::try_from(now.as_secs()).unwrap_or(i64::MAX)),
        format: options.format,
    })
}

const ENTRYPOINT: &str = "/workspace/installation/entrypoint.sh";

/// `tini` and the script, or the script alone where the image has no `tini`.
fn entrypoint(rootfs: &Rootfs) -> Vec<String> {
    let tini = ["usr/bin/tini", "sbin/tini", "usr/local/bin/tini"]
        .into_iter()
        .find(|path| {
            fs::symlink_metadata(rootfs.path.join(path)).is_ok_and(|metadata| metadata.is_file())
        });
    match tini {
        Some(tini) => vec![format!("/{tini}"), "--".to_owned(), ENTRYPOINT.to_owned()],
        None => vec![ENTRYPOINT.to_owned()],
    }
}

fn settled(options: &Options) -> i64 {
    options.epoch.unwrap_or(SETTLED)
}

fn steps(buildfile: &BuildFile, settled: i64) -> Vec<Step> {
    let mut steps = vec![step::virtual_environment(settled)];
    if !buildfile.packages.is_empty() {
        steps.push(step::packages(settled));
    }
    steps
}

fn write_dockerfile(
    context: &Context,
    base: &Base,
    settings: &Settings,
    steps: &[Step],
) -> Result<(), Error> {
    let text = dockerfile::dockerfile(&base.name, settings, steps);
    Ok(fs::write(context.root.join("Dockerfile"), text)?)
}

fn inputs<'a>(
    options: &Options,
    rung: Rung,
    settings: &Settings,
    store: &'a Store,
    scratch: &'a Scratch,
    progress: &'a Progress,
) -> Result<Inputs<'a>, Error> {
    Ok(Inputs {
        rung,
        store,
        scratch: scratch.path(),
        env: step::environment(&settings.env, options.epoch),
        ca_bundle: step::ca_bundle(options.registry.ca_cert.as_deref(), scratch.path())?,
        times: Times {
            fixed_under: vec![PathBuf::from("venv"), PathBuf::from("workspace")],
            fixed: settled(options),
            clamp: options.epoch,
        },
        compression: options.compression,
        progress,
    })
}

/// Runs the steps. The workspace's layer lies above the packages', so that a changed test script rebuilds
/// one small layer, unless pip reads the workspace.
fn run(
    context: &Context,
    steps: &[Step],
    rootfs: &Rootfs,
    inputs: Inputs<'_>,
) -> Result<Vec<NewLayer>, Error> {
    let tree = context.root.join("image");
    let mounts = mounts(context, inputs.scratch)?;
    let progress = inputs.progress;
    let workspace = NewLayer {
        layer: layer::write_tree(&tree, "", &inputs.times, inputs.compression, inputs.store)?,
        created_by: "COPY image/ /".to_owned(),
    };
    let mut stack = Stack::new(rootfs, inputs)?;
    let mut layers = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        if number == 1 && context.pip_sees_workspace {
            stack.push(&tree, &workspace.layer)?;
            layers.push(workspace.clone());
        }
        let part = progress.start(step.name);
        // The virtual environment is made without pip's settings and requirements.
        let layer = stack.run(step, if number == 0 { &[] } else { &mounts })?;
        part.finish(
            layer
                .as_ref()
                .map_or(String::new(), |layer| megabytes(layer.descriptor.size)),
        );
        layers.extend(layer.map(|layer| NewLayer {
            layer,
            created_by: step.created_by.clone(),
        }));
    }
    if !layers.contains(&workspace) {
        layers.push(workspace);
    }
    Ok(layers)
}

/// What pip is shown: its settings, and the requirements, with credentials where there are some. Of the
/// workspace it sees nothing else, unless its layer lies below.
fn mounts(context: &Context, scratch: &Path) -> Result<Vec<Mount>, Error> {
    let shown = scratch.join("shown");
    fs::create_dir_all(shown.join("installation"))?;
    let mut mounts = Vec::new();
    let mut mount = |source: PathBuf, target: &str| {
        mounts.push(Mount {
            source,
            target: PathBuf::from(target),
            read_only: true,
        });
    };
    let requirements = shown.join("installation/requirements.txt");
    if let Some(secret) = &context.secret_requirements {
        fs::write(&requirements, secret.reveal())?;
    } else {
        let staged = step::REQUIREMENTS.trim_start_matches('/');
        fs::copy(context.root.join("image").join(staged), &requirements)?;
    }
    if !context.pip_sees_workspace {
        mount(shown.clone(), step::WORKSPACE);
    } else if context.secret_requirements.is_some() {
        mount(requirements, step::REQUIREMENTS);
    }
    let secret = context
        .secret_pip_conf
        .as_ref()
        .map(crate::secret::Secret::reveal);
    if let Some(text) = secret.or(context.pip_conf.as_deref()) {
        let pip_conf = scratch.join("pip.conf");
        fs::write(&pip_conf, text)?;
        mount(pip_conf, &format!("{}/pip.conf", step::VIRTUAL_ENV));
    }
    Ok(mounts)
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

fn publish(
    image: &Image,
    references: &[String],
    outputs: &[(Kind, PathBuf)],
    store: &Store,
    progress: &Progress,
) -> Result<(), Error> {
    for reference in references {
        store.tag(&image.manifest, Some(reference))?;
    }
    if references.is_empty() {
        store.tag(&image.manifest, None)?;
    }
    for (kind, path) in outputs {
        output::write(image, references, *kind, path, store, progress)?;
    }
    Ok(())
}

/// Removes the scratch, in the user namespace that made its files.
fn clean(rung: Option<Rung>, scratch: Scratch) -> Result<(), Error> {
    match rung {
        Some(rung) => rootfs::remove(rung, scratch.path())?,
        None => fs::remove_dir_all(scratch.path())?,
    }
    drop(scratch);
    Ok(())
}
