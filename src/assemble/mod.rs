//! The pipeline: [`build`] names every stage in order and holds no detail.

mod dockerfile;
mod instructions;
mod layers;
mod settings;

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use crate::base::{self, Base, Layers, Pull};
use crate::buildfile::{BuildFile, Installer};
use crate::cache::{self, Cache, Key, Policy, Remote};
use crate::context::{self, Again, ContextRoot, Sources, SshOptions};
use crate::error::{Error, OptionsError};
use crate::image::{self, Entry, Format, Image, Settings};
use crate::layer::Compression;
use crate::manifest::Platform;
use crate::net;
use crate::output::{self, Kind, Output};
use crate::progress::Progress;
use crate::push;
use crate::registry::{self, Client, Content, Reference};
use crate::rootfs;
use crate::runner::{self, Rung};
use crate::step::{Fate, Step};
use crate::store::{self, Scratch, Store};

pub use instructions::{Instructor, carry_out};
pub use settings::complete_tag;

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
    /// Small files that the caller will write, checked before anything is done.
    pub files: Vec<PathBuf>,
    /// Replaces `python:X-slim`.
    pub base: Option<String>,
    /// Replaces the build file's.
    pub installer: Option<Installer>,
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
    /// What is done about sources that were fetched before.
    pub again: Again,
    /// What is done about steps that were run before.
    pub cache: Policy,
    /// Where other machines keep what steps made.
    pub cache_repo: Option<CacheRepo>,
    /// Sources, and layers, that are fetched side by side.
    pub jobs: usize,
    /// How ssh decides whom to trust.
    pub ssh: SshOptions,
    /// A PEM file with authorities that are trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
    /// How registries are reached.
    pub registry: registry::Options,
    /// Whether the image is pushed under all of its tags.
    pub push: Push,
    /// Secrets that steps may ask for: their ids, and the files that hold them.
    pub secrets: Vec<(String, PathBuf)>,
    /// Added to the build file's.
    pub labels: Vec<(String, String)>,
    /// Added to the build file's.
    pub annotations: Vec<(String, String)>,
    /// Whose media types are written.
    pub format: Format,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
}

/// A step cache in a registry.
#[derive(Clone)]
pub struct CacheRepo {
    /// The repository; tag and digest mean nothing.
    pub repository: Reference,
    /// What is done with it.
    pub mode: cache::Mode,
    /// The key that entries are signed with.
    pub key: Option<Vec<u8>>,
}

impl std::fmt::Debug for CacheRepo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheRepo")
            .field("repository", &self.repository.place())
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Whether an image is pushed once it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Push {
    /// It stays here.
    #[default]
    No,
    /// It is, if that is allowed, which is found out first.
    Checked,
    /// It is, and nobody is asked before.
    Unchecked,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What the image is built from, and how.
    pub plan: Plan,
    /// The image; absent after a dry run.
    pub image: Option<Image>,
    /// The entries of the history that were made here, lowest first.
    pub entries: Vec<Entry>,
}

/// What a build does.
#[derive(Debug)]
pub struct Plan {
    /// The base's name and digest.
    pub base: String,
    /// What is run, in order.
    pub steps: Vec<Step>,
    /// What became of each step, or would, by its name.
    pub fates: Vec<(String, Fate)>,
    /// The tags, completed; the first is the main one.
    pub references: Vec<String>,
    /// Where it is pushed.
    pub pushed: Vec<Reference>,
    /// Where it is written, beside the store.
    pub outputs: Vec<(Kind, PathBuf)>,
    /// Where the context is, if it stays.
    pub context: Option<PathBuf>,
    /// Number of files in the context, and their bytes.
    pub staged: (u64, u64),
}

/// Builds the image that `options.file` describes.
pub fn build(options: &Options, progress: &Progress) -> Result<Outcome, Error> {
    let mut buildfile = BuildFile::load(&options.file)?;
    let installer = buildfile.installer(options.installer)?;
    context::join_snapshot(&mut buildfile)?;
    let references = settings::references(options, &buildfile)?;
    let outputs = settings::outputs(options, &references)?;
    for file in &options.files {
        output::check_file(file)?;
    }
    let targets = settings::targets(options, &references)?;
    let net = settings::net(options, &buildfile)?;
    let registries = Client::new(
        settings::registry(options, &buildfile, &targets)?,
        net.clone(),
    );
    let store = Store::open(&options.store)?;
    let _session = store.session()?;
    let work_dir = work_dir(options, &store)?;
    let rung = choose(options, &store, &work_dir, progress)?;
    // Nobody wants to learn at the end of a long build that its image goes nowhere.
    if rung.is_some() && options.push == Push::Checked {
        push::check(&registries, &targets, progress)?;
    }

    let scratch = Scratch::new_in(&work_dir)?;
    let build = Build {
        options,
        buildfile: &buildfile,
        installer,
        net: &net,
        registries: &registries,
        store: &store,
        scratch: scratch.path(),
        progress,
    };
    let outcome = build.stage_and_assemble(rung, references, outputs, targets);
    let cleaned = clean(rung, &scratch);
    if options.work_dir.is_some() {
        // Unless another build works in it.
        let _ = fs::remove_dir(&work_dir);
    }
    let outcome = outcome?;
    cleaned?;
    Ok(outcome)
}

/// What every part of a build needs.
#[derive(Debug, Clone, Copy)]
struct Build<'a> {
    options: &'a Options,
    buildfile: &'a BuildFile,
    installer: Installer,
    net: &'a Arc<net::Client>,
    registries: &'a Client,
    store: &'a Store,
    scratch: &'a Path,
    progress: &'a Progress,
}

impl<'a> Build<'a> {
    /// Without a rung the build is a dry run.
    fn stage_and_assemble(
        self,
        rung: Option<Rung>,
        references: Vec<String>,
        outputs: Vec<(Kind, PathBuf)>,
        pushed: Vec<Reference>,
    ) -> Result<Outcome, Error> {
        let Self {
            options,
            buildfile,
            registries,
            store,
            scratch,
            progress,
            ..
        } = self;
        let root = ContextRoot::open(
            options.path.as_deref(),
            scratch,
            options.keep_context,
            progress,
        )?;
        let own = [store.root(), scratch];
        let context = context::stage(buildfile, root.path(), &own, self.sources(), progress)?;
        let base = self.pull()?;
        if base.config["config"]["OnBuild"]
            .as_array()
            .is_some_and(|triggers| !triggers.is_empty())
        {
            progress.warn("the base has `ONBUILD` instructions, which are not run");
        }
        let mut settings = settings::settings(options, buildfile, &base)?;
        let stages = layers::stages(self, &context, &settings);

        let (entries, fates) = layers::make(self, rung, &context, &mut settings, &stages, &base)?;
        let mut image = None;
        if rung.is_some() {
            settings.created = self.created(&base, &entries, &settings)?;
            image = Some(image::append(&base, &entries, &settings, store)?);
        }
        dockerfile::write(&context, &base, &settings, &stages)?;
        let steps = layers::steps(stages);
        if let Some(image) = &image {
            if !outputs.is_empty() {
                base::bring(&image.layers, registries, store, progress)?;
            }
            publish(image, &references, &outputs, store, progress)?;
            if !pushed.is_empty() {
                let stored = Content::stored(&image.manifest, store)?;
                push::send(registries, &stored, &pushed, store, progress)?;
            }
        }
        let plan = Plan {
            base: format!("{}@{}", base.name, base.manifest.digest),
            steps,
            fates,
            references,
            pushed,
            outputs,
            context: options.keep_context.then(|| root.path().to_owned()),
            staged: (context.files, context.bytes),
        };
        root.complete()?;
        Ok(Outcome {
            plan,
            image,
            entries,
        })
    }

    /// How files of other machines are reached.
    fn sources(self) -> Sources<'a> {
        Sources {
            net: self.net,
            ssh: &self.options.ssh,
            store: self.store,
            jobs: self.options.jobs,
            again: self.options.again,
        }
    }

    /// What steps made before.
    fn cache(self) -> Result<Cache<'a>, Error> {
        let options = self.options;
        // Builds of one file with another tag are as good as others.
        let file = std::path::absolute(&options.file)?;
        let name = format!("{} {:?}", file.display(), options.tags);
        let remote = options.cache_repo.as_ref().map(|repo| {
            let remote = Remote::new(self.registries, &repo.repository, repo.mode);
            match &repo.key {
                Some(key) => remote.signed(key),
                None => remote,
            }
        });
        Ok(Cache::new(self.store, options.cache, &name).with(remote))
    }

    /// When the image was made: what is the same as before was made before.
    fn created(self, base: &Base, entries: &[Entry], settings: &Settings) -> Result<i64, Error> {
        let created = settings.created;
        if self.options.epoch.is_some() {
            return Ok(created);
        }
        let undated = Settings {
            created: 0,
            ..settings.clone()
        };
        let mut key = Key::default();
        key.add(
            "created",
            store::json(&image::config(base, entries, &undated)),
        );
        let cache = self.cache()?;
        if let (true, Some(before)) = (self.options.cache.is_used, cache.fact(&key)) {
            return Ok(before);
        }
        cache.remember_fact(&key, &created)?;
        Ok(created)
    }

    fn pull(self) -> Result<Base, Error> {
        let Self {
            options,
            store,
            progress,
            ..
        } = self;
        let source = settings::base(options, self.buildfile, progress)?;
        let platform = settings::platform(options, self.buildfile)?;
        Ok(base::pull(
            &source,
            &platform,
            options.pull,
            Layers::Later,
            self.registries,
            store,
            progress,
        )?)
    }
}

/// The rung of a build, after what killed builds left is removed; none for a dry run.
fn choose(
    options: &Options,
    store: &Store,
    work_dir: &Path,
    progress: &Progress,
) -> Result<Option<Rung>, Error> {
    if options.dry_run {
        return Ok(None);
    }
    let (rung, refused) = runner::choose(options.runner, work_dir)?;
    // That a user is not root is nothing to tell.
    let is_news = |rung: Rung| rung != Rung::Root || rustix::process::geteuid().is_root();
    let better = refused.iter().rfind(|(rung, _)| is_news(*rung));
    let since = better.map_or(String::new(), |(better, refusal)| {
        format!(", since `{better}` cannot be had ({refusal}; `doctor` says more)")
    });
    progress.note(format!(
        "steps run on the rung `{rung}`{since}. {}",
        runner::isolation(rung)
    ));
    rootfs::sweep(rung, work_dir)?;
    rootfs::sweep(rung, &store.scratch_root())?;
    Ok(Some(rung))
}

fn work_dir(options: &Options, store: &Store) -> Result<PathBuf, Error> {
    let Some(directory) = &options.work_dir else {
        return Ok(store.scratch_root());
    };
    // A folder of our own in it: what is left in there by a killed build is removed by the next one.
    let user = rustix::process::geteuid().as_raw();
    let own = std::path::absolute(directory)?.join(format!("pyats-image-build-{user}"));
    match std::fs::DirBuilder::new().mode(0o700).create(&own) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => {
            let directory = directory.clone();
            return Err(OptionsError::WorkDir { directory, source }.into());
        }
        Ok(()) => {}
    }
    let metadata = fs::symlink_metadata(&own)?;
    if !metadata.is_dir() || metadata.uid() != user {
        let source = std::io::Error::other("it holds something of another user's by our name");
        let directory = directory.clone();
        return Err(OptionsError::WorkDir { directory, source }.into());
    }
    Ok(own)
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
fn clean(rung: Option<Rung>, scratch: &Scratch) -> Result<(), Error> {
    match rung {
        Some(rung) => Ok(rootfs::remove(rung, scratch.path())?),
        None => Ok(fs::remove_dir_all(scratch.path())?),
    }
}
