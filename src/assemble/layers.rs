//! The layers that are made here: the steps' and the workspace's, in their order.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use super::instructions::{Instructor, State};
use super::{Build, settings};
use crate::base::Base;
use crate::buildfile::{Cmds, Instructions, Layout};
use crate::cache::{self, Cache, Key};
use crate::context::{self, Context, Requirements};
use crate::digest::Digest;
use crate::error::Error;
use crate::image::{Entry, Settings};
use crate::layer::{self, Times};
use crate::manifest::Layer;
use crate::net::{self, StepProxies};
use crate::progress::Progress;
use crate::runner::{Mount, Runner};
use crate::secret::{self, Secret};
use crate::step::{self, Counts, Fate, Inputs, Kept, Made, Seen, Stack, Step};
use crate::store;

/// The time of files whose own time means nothing: 1980-01-02T00:00:00Z. Zip, and so a wheel that is
/// built in the image, cannot store times before 1980 in any time zone.
const SETTLED: i64 = 315_619_200;

/// What makes a layer.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Something that is run.
    Step(Step),
    /// The same, and it is shown what pip and uv read.
    Packages(Step),
    /// The staged files are copied.
    Workspace,
    /// Instructions of the build file's, by the key that holds them.
    Instructions(&'static str, Instructions),
}

/// The stages of a build, in order. The workspace's layer lies above the packages', so that a changed test
/// script rebuilds one small layer, unless pip reads the workspace.
pub(super) fn stages(build: Build<'_>, context: &Context, settings: &Settings) -> Vec<Stage> {
    let settled = build.options.epoch.unwrap_or(SETTLED);
    let layout = build.buildfile.layout;
    let mut stages = Vec::new();
    let system = build.buildfile.system_packages.as_deref();
    if system.is_none_or(|names| !names.is_empty()) {
        stages.push(Stage::Step(step::system_packages(system, layout)));
    }
    stages.push(Stage::Step(step::virtual_environment(settled, layout)));
    let Cmds { pre, post } = &build.buildfile.cmds;
    let is_below = lies_below(build, settings);
    if is_below {
        stages.push(Stage::Workspace);
    }
    if !pre.parsed.is_empty() {
        stages.push(Stage::Instructions("cmds.pre", pre.clone()));
    }
    if !context.requirements.is_empty() {
        let files = context.requirements.iter();
        let files: Vec<_> = files.map(|file| file.path.clone()).collect();
        let clones = &context.clones;
        let packages = step::packages(build.installer, &files, clones, settled, layout);
        stages.push(Stage::Packages(packages));
    }
    if !is_below {
        stages.push(Stage::Workspace);
    }
    if !post.parsed.is_empty() {
        stages.push(Stage::Instructions("cmds.post", post.clone()));
    }
    stages
}

/// Whether the workspace lies below the packages: pip reads it, or instructions may.
fn lies_below(build: Build<'_>, settings: &Settings) -> bool {
    !build.buildfile.cmds.pre.parsed.is_empty()
        || context::pip_sees_workspace(build.buildfile, &settings.env)
}

/// Whether one of the stages installs the Debian package `name`.
fn install(stages: &[Stage], name: &str) -> bool {
    stages.iter().any(|stage| match stage {
        Stage::Step(step) if step.name == step::SYSTEM_PACKAGES => {
            step.commands.iter().flatten().any(|word| word == name)
        }
        _ => false,
    })
}

/// What is run, in order, as the history says it.
pub(super) fn steps(stages: Vec<Stage>) -> Vec<String> {
    let step = |stage| match stage {
        Stage::Step(step) | Stage::Packages(step) => Some(step.created_by),
        Stage::Workspace | Stage::Instructions(..) => None,
    };
    stages.into_iter().filter_map(step).collect()
}

/// Goes through the stages; gives the entries of the history, and what became of each step. Says in `settings` what
/// instructions made of the config, and what the entrypoint is.
pub(super) fn make(
    build: Build<'_>,
    runner: Option<Runner>,
    cache: &Cache,
    context: &Context,
    settings: &mut Settings,
    stages: &[Stage],
    base: &Base,
) -> Result<(Vec<Entry>, Fates), Error> {
    let Build {
        options,
        store,
        scratch,
        ..
    } = build;
    // Nothing begins, and ends in no time, that is only looked at.
    let silent = Progress::silent();
    let progress = runner.map_or(&silent, |_| build.progress);
    let mut mounts = mounts(build, context, lies_below(build, settings))?;
    let pip_secrets = pip_secrets(build)?;
    mounts.extend(pip_secrets.mounts);
    let kept = step::kept(build.installer);
    mounts.push(installer_cache(build, runner, kept)?);
    let proxies = StepProxies::open(build.net, progress)?;
    let hidden = hidden(context, &proxies, pip_secrets.hidden);
    let inputs = Inputs {
        runner,
        platform: base.platform.clone(),
        store,
        registries: build.registries,
        cache: cache.clone(),
        scratch,
        ca_bundle: step::ca_bundle(options.access.ca_cert.as_deref(), scratch)?,
        hidden,
        times: Times {
            fixed_under: fixed_under(build.buildfile.layout),
            fixed: options.epoch.unwrap_or(SETTLED),
            clamp: options.epoch,
        },
        compression: options.compression,
        progress,
    };
    let tree = context.root.join("image");
    let workspace = workspace(&tree, &inputs)?;
    let instructor = Instructor {
        context: &context.copied_from,
        scratch,
        sources: build.sources(),
        secrets: &options.secrets,
        proxies: proxies.variables(),
        epoch: options.epoch,
        progress,
    };
    // Everything is done as root until an instruction says something else.
    let user = std::mem::take(&mut settings.config.user);
    let mut state = State::new(
        settings.config.clone(),
        &settings::arguments(options, build.buildfile)?,
    );

    let mut stack = Stack::new(&base.layers, inputs);
    let mut entries = Vec::new();
    for stage in stages {
        // The virtual environment is made without pip's settings and requirements.
        let (step, mounts) = match stage {
            Stage::Step(step) => (step, &[][..]),
            Stage::Packages(step) => (step, &mounts[..]),
            Stage::Workspace => {
                stack.push(&tree, &workspace, build.buildfile.layout)?;
                entries.push(Entry {
                    layer: Some(workspace.clone()),
                    created_by: match build.buildfile.layout {
                        Layout::Split => "COPY image/ /".to_owned(),
                        Layout::Pyats => "COPY . /pyats".to_owned(),
                    },
                });
                continue;
            }
            Stage::Instructions(key, instructions) => {
                entries.extend(instructor.carry_out(key, instructions, &mut state, &mut stack)?);
                continue;
            }
        };
        let part = progress.start(step.name);
        let mut env = step::environment(&state.environment(), proxies.variables(), options.epoch);
        let names = proxies.variables().iter().map(|(name, _)| name.into());
        let mut private: Vec<OsString> = names.collect();
        let mut step = step.clone();
        if matches!(stage, Stage::Packages(_)) {
            env.extend(pip_secrets.env.iter().cloned());
            private.extend(step.use_cache(kept, &mut env));
        }
        let made = stack.run(&step, &env, &private, mounts)?;
        part.finish(outcome(&made));
        if made.layer.is_some() {
            entries.push(Entry {
                layer: made.layer,
                created_by: step.created_by.clone(),
            });
        }
    }
    settings.config = state.config().clone();
    if settings.config.user.is_empty() {
        settings.config.user = user;
    }
    settings.entrypoint = entrypoint(build, runner, stages, &settings.config.env, &mut stack)?;
    Ok((entries, stack.fates().to_vec()))
}

/// The secrets that the output of steps must not show.
fn hidden(context: &Context, proxies: &StepProxies, of_pip: Vec<Secret>) -> Vec<Secret> {
    let files = context.requirements.iter().chain(&context.included);
    let requirements = files.filter_map(|file| file.secret.as_ref());
    let proxy_urls = proxies.variables().iter().map(|(_, url)| url);
    let texts = requirements
        .chain(&context.secret_pip_conf)
        .chain(proxy_urls);
    let found = texts.flat_map(|text| secret::credentials(text.reveal()));
    of_pip.into_iter().chain(found).collect()
}

/// The image's entrypoint, by the programs that it has; without a runner, by those that it will have.
fn entrypoint(
    build: Build<'_>,
    runner: Option<Runner>,
    stages: &[Stage],
    env: &[(String, String)],
    stack: &mut Stack<'_>,
) -> Result<Vec<String>, Error> {
    let init = if runner.is_none() && install(stages, "tini") {
        Some(settings::INITS[0].to_owned())
    } else {
        stack.find_program(&settings::INITS)?
    };
    let shell = match runner {
        Some(_) => entrypoint_shell(env, stack, build.progress)?,
        None => None,
    };
    let layout = build.buildfile.layout;
    Ok(settings::entrypoint(
        init.as_deref(),
        shell.as_deref(),
        layout,
    ))
}

/// The shell that runs the entrypoint: one that keeps variables with names such as `a.b`, if the image has some. An image
/// without any shell is an error.
fn entrypoint_shell(
    env: &[(String, String)],
    stack: &mut Stack<'_>,
    progress: &Progress,
) -> Result<Option<String>, Error> {
    if stack.find_program(&settings::SHELLS)?.is_none() {
        return Err(step::no_shell());
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let Some((name, _)) = env.iter().find(|(name, _)| !name.chars().all(is_plain)) else {
        return Ok(None);
    };
    let bash = stack.find_program(&settings::BASHES)?;
    if bash.is_none() {
        progress.warn(format!(
            "the image has no bash, and its shell drops variables with names such as `{name}`: commands that \
             the entrypoint runs go without them"
        ));
    }
    Ok(bash.map(|path| format!("/{path}")))
}

/// The layer of the staged files, which is not made again if there is one with the same content.
fn workspace(tree: &Path, inputs: &Inputs<'_>) -> Result<Layer, Error> {
    let Inputs {
        times,
        compression,
        store,
        cache,
        progress,
        ..
    } = inputs;
    let mut key = Key::default();
    let content = cache::digest_of(tree, progress)?;
    key.add_digest("the workspace", content);
    key.add("times", store::json(times));
    key.add("the compression", compression.to_string());
    // Another machine's is of no use: comparing it costs as much as making it.
    let cache = cache.without_remote().unwrap_or_else(|| cache.clone());
    if let Some(layer) = cache.find(&key, progress).and_then(|entry| entry.layer) {
        return Ok(layer);
    }
    let layer = layer::write_tree(tree, times, *compression, store)?;
    let entry = cache::Entry::new("workspace").with_layer(Some(layer.clone()));
    cache.remember(&key, &entry, progress)?;
    Ok(layer)
}

/// Where files have no times of their own.
fn fixed_under(layout: Layout) -> Vec<PathBuf> {
    let link = layout.link().map(|(link, _)| link);
    let places = [Some(layout.virtual_env()), Some(layout.workspace()), link];
    let mut places: Vec<_> = places.into_iter().flatten().map(relative).collect();
    places.dedup();
    places
}

fn relative(path: &str) -> PathBuf {
    PathBuf::from(path.trim_start_matches('/'))
}

/// Names of steps, and what became of them.
pub(super) type Fates = Vec<(String, Fate)>;

/// What came of a step, for people.
pub(super) fn outcome(made: &Made) -> String {
    let size = made.layer.as_ref().map(|layer| size(layer.descriptor.size));
    match (size, made.is_cached) {
        (Some(size), true) => format!("{size}, cached"),
        (None, true) => "cached".to_owned(),
        (size, false) => size.unwrap_or_default(),
    }
}

/// What pip, or uv, is shown: the settings of pip, and the requirements, with credentials where there are some. Of the
/// workspace it sees nothing else, unless its layer lies below. Its key holds all of them without credentials.
fn mounts(
    build: Build<'_>,
    context: &Context,
    workspace_is_below: bool,
) -> Result<Vec<Seen>, Error> {
    let scratch = build.scratch;
    let shown = scratch.join("shown");
    fs::create_dir_all(&shown)?;
    let mut mounts = Vec::new();
    let mut mount = |source: PathBuf, target: &str, public: &[u8]| {
        mounts.push(Seen {
            mount: Mount {
                source,
                below: PathBuf::new(),
                target: PathBuf::from(target),
                read_only: true,
            },
            counts: Counts::Known(Digest::of(public)),
        });
    };
    let mut all = Vec::new();
    let files = context.requirements.iter().chain(&context.included);
    for (number, file) in files.enumerate() {
        let Requirements {
            path,
            replaced,
            secret,
        } = file;
        let secret = secret.as_ref().map(Secret::reveal);
        let public = match replaced {
            Some(text) => text.clone().into_bytes(),
            None => fs::read(context.root.join("image").join(relative(path)))?,
        };
        let text = secret.map_or(&*public, str::as_bytes);
        if !workspace_is_below {
            // All of them are files of the tool's own.
            let name = Path::new(path).file_name().unwrap_or_default();
            write_secret(&shown.join(name), text)?;
            all.extend(store::json(&(path, Digest::of(&public).to_string())));
        } else if replaced.is_some() || secret.is_some() {
            let file = scratch.join(format!("requirements-{number}"));
            write_secret(&file, text)?;
            mount(file, path, &public);
        }
    }
    let layout = build.buildfile.layout;
    if !workspace_is_below {
        mount(shown, layout.installation("").trim_end_matches('/'), &all);
    }
    let public = context.pip_conf.as_deref();
    let secret = context.secret_pip_conf.as_ref().map(Secret::reveal);
    if let Some(text) = secret.or(public) {
        let pip_conf = scratch.join("pip.conf");
        write_secret(&pip_conf, text.as_bytes())?;
        let target = format!("{}/pip.conf", layout.virtual_env());
        mount(pip_conf, &target, public.unwrap_or_default().as_bytes());
    }
    let clones = context.clones.iter().map(|clone| {
        Seen::content(Mount {
            source: clone.source.clone(),
            target: PathBuf::from(&clone.place),
            below: PathBuf::new(),
            read_only: false,
        })
    });
    mounts.extend(clones);
    Ok(mounts)
}

/// Where the installer keeps downloads and wheels, for all builds of the store; without the cache, or where all of it would
/// have to be copied, for this build alone.
fn installer_cache(build: Build<'_>, runner: Option<Runner>, kept: Kept) -> Result<Seen, Error> {
    let name = build.installer.to_string();
    let source = if build.options.cache.is_used && runner != Some(Runner::Chroot) {
        build.store.make_cache(&name)?
    } else {
        let folder = build.scratch.join(&name);
        fs::create_dir_all(&folder)?;
        folder
    };
    Ok(Seen {
        mount: Mount {
            source,
            below: PathBuf::new(),
            target: PathBuf::from(kept.place),
            read_only: false,
        },
        counts: Counts::Cache(format!("the cache of {name}")),
    })
}

/// The secrets that pip reads of itself: settings that win over all others, and credentials by machine.
struct PipSecrets {
    mounts: Vec<Seen>,
    env: Vec<(OsString, OsString)>,
    /// The passwords in them.
    hidden: Vec<Secret>,
}

fn pip_secrets(build: Build<'_>) -> Result<PipSecrets, Error> {
    let mut secrets = PipSecrets {
        mounts: Vec::new(),
        env: Vec::new(),
        hidden: Vec::new(),
    };
    for (id, variable) in [("pip.conf", "PIP_CONFIG_FILE"), ("netrc", "NETRC")] {
        let given = &build.options.secrets;
        let Some((_, source)) = given.iter().find(|(known, _)| known == id) else {
            continue;
        };
        let copy = build.scratch.join(format!("secret-{id}"));
        let text = fs::read_to_string(source)?;
        write_secret(&copy, text.as_bytes())?;
        secrets.hidden.extend(if id == "netrc" {
            net::netrc_passwords(&text)
        } else {
            secret::credentials(&text)
        });
        let target = format!("/dev/.pyats-image-build/{id}");
        secrets.env.push((variable.into(), OsString::from(&target)));
        secrets.mounts.push(Seen {
            mount: Mount {
                source: copy,
                below: PathBuf::new(),
                target: PathBuf::from(target),
                read_only: true,
            },
            counts: Counts::Name(format!("secret {id}")),
        });
    }
    Ok(secrets)
}

fn write_secret(path: &Path, text: &[u8]) -> Result<(), Error> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text)?)
}

fn size(bytes: u64) -> String {
    if bytes < 1_000_000 {
        format!("{}.{} kB", bytes / 1_000, bytes / 100 % 10)
    } else {
        format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
    }
}
