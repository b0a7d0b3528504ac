//! The layers that are made here: the steps' and the workspace's, in their order.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use super::Build;
use crate::context::{self, Context};
use crate::error::Error;
use crate::image::{NewLayer, Settings};
use crate::layer::{self, Times};
use crate::net::StepProxies;
use crate::rootfs::Rootfs;
use crate::runner::{Mount, Rung};
use crate::secret::Secret;
use crate::step::{self, Inputs, Stack, Step};

/// The time of files whose own time means nothing: 1980-01-02T00:00:00Z. Zip, and so a wheel that is
/// built in the image, cannot store times before 1980 in any time zone.
const SETTLED: i64 = 315_619_200;

/// What is run in the image.
pub(super) fn steps(build: Build<'_>, context: &Context) -> Vec<Step> {
    let settled = build.options.epoch.unwrap_or(SETTLED);
    let mut steps = vec![step::virtual_environment(settled)];
    if !context.requirements.is_empty() {
        steps.push(step::packages(&context.requirements, settled));
    }
    steps
}

/// Runs the steps. The workspace's layer lies above the packages', so that a changed test script rebuilds
/// one small layer, unless pip reads the workspace.
pub(super) fn make(
    build: Build<'_>,
    rung: Rung,
    context: &Context,
    settings: &Settings,
    steps: &[Step],
    rootfs: &Rootfs,
) -> Result<Vec<NewLayer>, Error> {
    let Build {
        options,
        store,
        scratch,
        progress,
        ..
    } = build;
    let proxies = StepProxies::open(build.net, progress)?;
    let inputs = Inputs {
        rung,
        store,
        scratch,
        env: step::environment(&settings.env, proxies.variables(), options.epoch),
        ca_bundle: step::ca_bundle(options.ca_cert.as_deref(), scratch)?,
        times: Times {
            fixed_under: vec![PathBuf::from("venv"), PathBuf::from("workspace")],
            fixed: options.epoch.unwrap_or(SETTLED),
            clamp: options.epoch,
        },
        compression: options.compression,
        progress,
    };
    let tree = context.root.join("image");
    let workspace = NewLayer {
        layer: layer::write_tree(&tree, &inputs.times, inputs.compression, store)?,
        created_by: "COPY image/ /".to_owned(),
    };
    let pip_sees_workspace = context::pip_sees_workspace(build.buildfile, &settings.env);
    let mounts = mounts(build, context, pip_sees_workspace)?;

    let mut stack = Stack::new(rootfs, inputs)?;
    let mut layers = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        if number == 1 && pip_sees_workspace {
            stack.push(&tree, &workspace.layer)?;
            layers.push(workspace.clone());
        }
        let part = progress.start(step.name);
        // The virtual environment is made without pip's settings and requirements.
        let layer = stack.run(step, if number == 0 { &[] } else { &mounts })?;
        part.finish(
            layer
                .as_ref()
                .map_or(String::new(), |layer| size(layer.descriptor.size)),
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
fn mounts(
    build: Build<'_>,
    context: &Context,
    pip_sees_workspace: bool,
) -> Result<Vec<Mount>, Error> {
    let scratch = build.scratch;
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
        write_secret(&requirements, secret.reveal())?;
    } else {
        let staged = step::REQUIREMENTS.trim_start_matches('/');
        fs::copy(context.root.join("image").join(staged), &requirements)?;
    }
    if !pip_sees_workspace {
        mount(shown.clone(), step::WORKSPACE);
    } else if context.secret_requirements.is_some() {
        mount(requirements, step::REQUIREMENTS);
    }
    let secret = context.secret_pip_conf.as_ref().map(Secret::reveal);
    if let Some(text) = secret.or(context.pip_conf.as_deref()) {
        let pip_conf = scratch.join("pip.conf");
        write_secret(&pip_conf, text)?;
        mount(pip_conf, &format!("{}/pip.conf", step::VIRTUAL_ENV));
    }
    Ok(mounts)
}

fn write_secret(path: &Path, text: &str) -> Result<(), Error> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn size(bytes: u64) -> String {
    if bytes < 1_000_000 {
        format!("{}.{} kB", bytes / 1_000, bytes / 100 % 10)
    } else {
        format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
    }
}
