//! The pipeline: [`build`] names every stage in order and holds no detail.

mod dockerfile;
mod instructions;
mod layers;
mod options;
mod settings;

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;

use crate::base::{self, Base, Layers};
use crate::buildfile::{BuildFile, Installer};
use crate::cache::{self, Cache, Key, Remote};
use crate::context::{self, Context, ContextRoot};
use crate::error::Error;
use crate::image::{self, Entry, Image, Settings};
use crate::images;
use crate::net;
use crate::output::{self, Kind};
use crate::progress::Progress;
use crate::push;
use crate::registry::{Client, Content, Reference};
use crate::rootfs;
use crate::runner::{self, Runner};
use crate::sources::Sources;
use crate::step::Fate;
use crate::store::{self, Scratch, Store};

pub use instructions::{Instructor, carry_out};
pub use options::{CacheRepo, Options, Outcome, Plan, Push};
pub use settings::invalid_epoch;

use layers::Stage;

/// Builds the image that a build file describes. It is in the store then, under its tags, and wherever the options say.
///
/// Several builds may run at once, in this process or in others, with one store or with several.
pub fn build(options: &Options, progress: &Progress) -> Result<Outcome, Error> {
    for path in options.work_dir.iter().chain(&options.path) {
        images::require_utf8(path)?;
    }
    settings::check_epoch(options)?;
    let mut buildfile = BuildFile::load(&options.file)?;
    for warning in &buildfile.warnings {
        progress.warn(warning);
    }
    let installer = buildfile.installer(options.installer)?;
    context::join_snapshot(&mut buildfile)?;
    let references = settings::references(options, &buildfile)?;
    let outputs = settings::outputs(options, &references)?;
    for file in &options.files {
        output::check_file(file)?;
    }
    let pushed = settings::targets(options, &references)?;
    let net = settings::net(options, &buildfile)?;
    let registries = Client::new(
        settings::registry(options, &buildfile, &pushed)?,
        net.clone(),
    );
    let store = images::open(options.store.as_deref())?;
    let _session = store.session()?;
    let work_dir = work_dir(options, &store)?;
    let runner = choose(options, &store, &work_dir, progress)?;
    // Nobody wants to learn at the end of a long build that its image goes nowhere.
    if runner.is_some() && options.push == Push::Checked {
        push::check(&registries, &pushed, progress)?;
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
    let targets = Targets {
        references,
        outputs,
        pushed,
    };
    let outcome = build.stage_and_assemble(runner, targets);
    let cleaned = clean(runner, &scratch);
    if options.work_dir.is_some() {
        // Unless another build works in it.
        let _ = fs::remove_dir(&work_dir);
    }
    let outcome = outcome.map_err(|error| error.or_cancelled(progress))?;
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

/// Where the image goes.
struct Targets {
    references: Vec<String>,
    outputs: Vec<(Kind, PathBuf)>,
    pushed: Vec<Reference>,
}

/// What the image is made of, before anything is run.
struct Parts {
    context: Context,
    base: Base,
    settings: Settings,
    stages: Vec<Stage>,
}

/// What came of them.
struct Made {
    image: Option<Image>,
    entries: Vec<Entry>,
    fates: Vec<(String, Fate)>,
}

impl<'a> Build<'a> {
    /// Without a runner the build is a dry run.
    fn stage_and_assemble(
        self,
        runner: Option<Runner>,
        targets: Targets,
    ) -> Result<Outcome, Error> {
        let Self {
            options,
            buildfile,
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
        let clones = scratch.join("git");
        let (root_path, sources) = (root.path(), self.sources());
        let context = context::stage(buildfile, root_path, &own, &clones, sources, progress)?;
        let base = self.pull()?;
        if base.config["config"]["OnBuild"]
            .as_array()
            .is_some_and(|triggers| !triggers.is_empty())
        {
            progress.warn("the base has `ONBUILD` instructions, which are not run");
        }
        let settings = settings::settings(options, buildfile, &base)?;
        let stages = layers::stages(self, &context, &settings);
        let parts = Parts {
            context,
            base,
            settings,
            stages,
        };
        let Made {
            image,
            entries,
            fates,
        } = self.assemble_on_some_runner(runner, &parts, &targets)?;
        let Parts {
            context,
            base,
            stages,
            ..
        } = parts;
        let plan = Plan {
            base: format!("{}@{}", base.name, base.manifest.digest),
            steps: layers::steps(stages),
            fates,
            references: targets.references,
            pushed: targets.pushed,
            outputs: targets.outputs,
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

    /// A runner that has no id for an owner in the image gives way to the next one, unless it was asked for.
    fn assemble_on_some_runner(
        self,
        runner: Option<Runner>,
        parts: &Parts,
        targets: &Targets,
    ) -> Result<Made, Error> {
        let error = match self.assemble_and_publish(runner, parts, targets) {
            Err(error) if rootfs::is_of_owner(&error) && self.options.runner.is_none() => error,
            result => return result,
        };
        let next = runner.and_then(|runner| Some((runner, runner::next(runner, self.scratch)?)));
        let Some((runner, next)) = next else {
            return Err(error);
        };
        self.progress.note(format!(
            "steps run with the runner `{next}`, since `{runner}` cannot hold an owner in the image. {}",
            runner::isolation(next)
        ));
        let scratch = self.scratch.join(next.to_string());
        fs::create_dir(&scratch)?;
        let build = Build {
            scratch: &scratch,
            ..self
        };
        build.assemble_on_some_runner(Some(next), parts, targets)
    }

    /// A layer that a cache in a registry promises, and that cannot be had, is made here.
    fn assemble_and_publish(
        self,
        runner: Option<Runner>,
        parts: &Parts,
        targets: &Targets,
    ) -> Result<Made, Error> {
        let cache = self.cache()?;
        let attempt = |build: Build<'_>, cache: &Cache| -> Result<Made, Error> {
            let mut made = build.assemble(runner, parts, cache)?;
            if let Some(image) = &mut made.image {
                build.publish(image, targets)?;
                image.tags.clone_from(&targets.references);
            }
            Ok(made)
        };
        let error = match attempt(self, &cache) {
            Err(error) if matches!(error.find(), Some(crate::registry::Error::Lost { .. })) => {
                error
            }
            result => return result,
        };
        let Some(own) = cache.without_remote() else {
            return Err(error);
        };
        self.progress.warn(format!(
            "what the cache in the registry names cannot be had, so it is made here: {error}"
        ));
        let scratch = self.scratch.join("again");
        fs::create_dir(&scratch)?;
        let build = Build {
            scratch: &scratch,
            ..self
        };
        attempt(build, &own)
    }

    fn assemble(self, runner: Option<Runner>, parts: &Parts, cache: &Cache) -> Result<Made, Error> {
        let Parts {
            context,
            base,
            stages,
            ..
        } = parts;
        let mut settings = parts.settings.clone();
        let (entries, fates) =
            layers::make(self, runner, cache, context, &mut settings, stages, base)?;
        let mut image = None;
        if runner.is_some() {
            settings.created = self.created(base, &entries, &settings, cache)?;
            image = Some(image::append(base, &entries, &settings, self.store)?);
        }
        dockerfile::write(context, base, self.buildfile.layout, &settings, stages)?;
        Ok(Made {
            image,
            entries,
            fates,
        })
    }

    fn publish(self, image: &Image, targets: &Targets) -> Result<(), Error> {
        let Self {
            registries,
            store,
            progress,
            ..
        } = self;
        let Targets {
            references,
            outputs,
            pushed,
        } = targets;
        if !outputs.is_empty() {
            base::bring(&image.layers, registries, store, progress)?;
        }
        for reference in references {
            store.tag(&image.manifest, Some(reference))?;
        }
        if references.is_empty() {
            store.tag(&image.manifest, None)?;
        }
        for (kind, path) in outputs {
            output::write(image, references, *kind, path, store, progress)?;
        }
        if !pushed.is_empty() {
            let stored = Content::stored(&image.manifest, store)?;
            push::send(registries, &stored, pushed, store, progress)?;
        }
        Ok(())
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
    fn cache(self) -> Result<Cache, Error> {
        let options = self.options;
        // Builds of one file with another tag are as good as others.
        let file = std::path::absolute(&options.file)?;
        let name = format!("{} {:?}", file.display(), options.tags);
        let remote = options.cache_repo.as_ref().map(|repo| {
            let net = net::Client::with_timing(self.net.options().clone(), cache::TIMING);
            let client = Client::new(self.registries.options().clone(), Arc::new(net));
            Remote::new(client, &repo.repository, repo.mode, repo.seal.clone())
        });
        Ok(Cache::new(self.store, options.cache, &name).with(remote))
    }

    /// When the image was made: what is the same as before was made before.
    fn created(
        self,
        base: &Base,
        entries: &[Entry],
        settings: &Settings,
        cache: &Cache,
    ) -> Result<i64, Error> {
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
        if let Some(before) = cache.find(&key, self.progress) {
            return Ok(i64::try_from(before.at).unwrap_or(created));
        }
        let at = u64::try_from(created).unwrap_or_default();
        let entry = cache::Entry {
            at,
            ..cache::Entry::new("created")
        };
        cache.remember(&key, &entry, self.progress)?;
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
        base::pull(
            &source,
            &platform,
            options.pull,
            Layers::Later,
            self.registries,
            store,
            progress,
        )
    }
}

/// The runner of a build, after what killed builds left is removed; none for a dry run.
fn choose(
    options: &Options,
    store: &Store,
    work_dir: &Path,
    progress: &Progress,
) -> Result<Option<Runner>, Error> {
    if options.dry_run {
        return Ok(None);
    }
    let (runner, refused) = runner::choose(options.runner, work_dir)?;
    // That a user is not root is nothing to tell.
    let is_news = |runner: Runner| runner != Runner::Root || rustix::process::geteuid().is_root();
    let better = refused.iter().rfind(|(runner, _)| is_news(*runner));
    let since = better.map_or(String::new(), |(better, refusal)| {
        format!(", since `{better}` cannot be had ({refusal}; `doctor` says more)")
    });
    progress.note(format!(
        "steps run on the runner `{runner}`{since}. {}",
        runner::isolation(runner)
    ));
    rootfs::sweep(runner, work_dir)?;
    rootfs::sweep(runner, &store.scratch_root())?;
    Ok(Some(runner))
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
        Err(source) => return Err(not_writable(directory, source)),
        Ok(()) => {}
    }
    let metadata = fs::symlink_metadata(&own)?;
    if !metadata.is_dir() || metadata.uid() != user {
        let source = std::io::Error::other("it holds something of another user's by our name");
        return Err(not_writable(directory, source));
    }
    // As the store's folders, it holds set-id files.
    store::close_folder(&own)?;
    Ok(own)
}

fn not_writable(directory: &Path, source: std::io::Error) -> Error {
    let directory = directory.display();
    let message = format!("nothing can be written in the work directory `{directory}`");
    Error::options(message)
        .with_hint("make the directory first, or choose another one with `--work-dir DIR`")
        .with_source(source)
}

/// Removes the scratch, in the user namespace that made its files.
fn clean(runner: Option<Runner>, scratch: &Scratch) -> Result<(), Error> {
    match runner {
        Some(runner) => Ok(rootfs::remove(runner, scratch.path())?),
        None => Ok(fs::remove_dir_all(scratch.path())?),
    }
}
