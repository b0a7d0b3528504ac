//! What the options and the build file say together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use fs_err as fs;

use super::{Options, Push};
use crate::base::{Base, Source};
use crate::buildfile::{self, BuildFile, Layout};
use crate::dockerfile::Config;
use crate::error::Error;
use crate::image::{self, Settings};
use crate::images;
use crate::manifest::Platform;
use crate::net::{self, Proxies};
use crate::output::{self, Kind};
use crate::progress::Progress;
use crate::push;
use crate::registry::{self, Reference};

/// The script that an image starts with, in `installation`.
const ENTRYPOINT: &str = "entrypoint.sh";

/// The last second that documents can name: 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

/// The error for a `SOURCE_DATE_EPOCH` that is no number, or too large a one.
#[must_use]
pub fn invalid_epoch(text: &str) -> Error {
    Error::options(format!(
        "`SOURCE_DATE_EPOCH` is `{text}`, which is not a number of seconds up to the year 9999"
    ))
    .with_hint("set it to seconds since 1970, or unset it")
}

/// Holds that a time was given that documents can name.
pub(super) fn check_epoch(options: &Options) -> Result<(), Error> {
    match options.epoch {
        Some(epoch) if !(0..=LAST_SECOND).contains(&epoch) => {
            Err(invalid_epoch(&epoch.to_string()))
        }
        _ => Ok(()),
    }
}

/// The tags, completed as Docker does.
pub(super) fn references(options: &Options, buildfile: &BuildFile) -> Result<Vec<String>, Error> {
    let given = if options.tags.is_empty() {
        buildfile.tag.as_slice()
    } else {
        &options.tags
    };
    let complete = |tag: &String| images::complete_tag(tag);
    given.iter().map(complete).collect()
}

/// Where the image is written, checked before anything is done.
pub(super) fn outputs(
    options: &Options,
    references: &[String],
) -> Result<Vec<(Kind, PathBuf)>, Error> {
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
    for (number, (kind, path)) in outputs.iter().enumerate() {
        if outputs[..number].iter().any(|(_, other)| other == path) {
            let message = format!("two outputs would be written to `{}`", path.display());
            return Err(Error::options(message)
                .with_hint("give each a path of its own, such as `-o oci-archive:PATH`"));
        }
        output::check(*kind, path)?;
    }
    Ok(outputs)
}

/// Where the base comes from.
pub(super) fn base(
    options: &Options,
    buildfile: &BuildFile,
    progress: &Progress,
) -> Result<Source, Error> {
    let named = options.base.as_ref().or(buildfile.base.as_ref());
    let name = match (named, &buildfile.python) {
        (Some(base), _) => base.clone(),
        (None, Some(python)) => format!("python:{python}-slim"),
        (None, None) => {
            progress.warn(
                "the build file names no `python`: using 3.6.9, which gets no security updates any \
                 more; choose another one with a line such as `python: 3.11`",
            );
            "python:3.6.9-slim".to_owned()
        }
    };
    Ok(name.parse()?)
}

/// How other machines are reached: proxies are the environment's, unless the build file names others.
pub(super) fn net(options: &Options, buildfile: &BuildFile) -> Result<Arc<net::Client>, Error> {
    let proxies = Proxies::from_env().and_then(|proxies| proxies.with(&buildfile.proxy));
    Ok(Arc::new(net::Client::new(options.access.net(proxies?)?)))
}

/// Where the image is pushed.
pub(super) fn targets(options: &Options, references: &[String]) -> Result<Vec<Reference>, Error> {
    if options.push == Push::No {
        return Ok(Vec::new());
    }
    if references.is_empty() {
        return Err(push::no_target("--push"));
    }
    push::references(references)
}

/// How registries are reached. A login that was given is for where the image is pushed or, if it is not, for
/// where the base comes from.
pub(super) fn registry(
    options: &Options,
    buildfile: &BuildFile,
    targets: &[Reference],
) -> Result<registry::Options, Error> {
    let from = match base(options, buildfile, &Progress::silent())? {
        Source::Registry(reference) if targets.is_empty() => vec![reference],
        _ => targets.to_vec(),
    };
    let registries = push::registries(&from);
    options.access.registry(options.jobs, &registries)
}

/// What to build for; an error if this machine cannot run the steps.
pub(super) fn platform(options: &Options, buildfile: &BuildFile) -> Result<Platform, Error> {
    let named = options.platform.as_ref().or(buildfile.platform.as_ref());
    let platform = named.cloned().unwrap_or_else(Platform::host);
    if !options.dry_run && !can_execute(&platform) {
        let message = format!("this machine cannot execute programs for `{platform}`");
        return Err(Error::options(message).with_hint(
            "build on a machine of that platform, or register an emulator (`apt-get install qemu-user-static`)",
        ));
    }
    Ok(platform)
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

/// What the image says beside its layers.
pub(super) fn settings(
    options: &Options,
    buildfile: &BuildFile,
    base: &Base,
) -> Result<Settings, Error> {
    let layout = buildfile.layout;
    let own = layout.variables();
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let env = buildfile::environment(&image::env(&base.config), &own)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let of_base = Config::read(&base.config);
    let env = buildfile::environment(&env, &buildfile.env)?;
    Ok(Settings {
        config: Config {
            env: env.clone(),
            working_dir: layout.workspace().to_owned(),
            // As in a Dockerfile, the base's command does not become the arguments of a new entrypoint.
            cmd: Vec::new(),
            // Not for those who build upon this image.
            on_build: Vec::new(),
            ..of_base
        },
        env,
        entrypoint: vec![layout.installation(ENTRYPOINT)],
        working_dir: layout.workspace().to_owned(),
        labels: [&buildfile.labels[..], &options.labels[..]].concat(),
        annotations: [&buildfile.annotations[..], &options.annotations[..]].concat(),
        created: options
            .epoch
            .unwrap_or(i64::try_from(now.as_secs()).unwrap_or(i64::MAX)),
        format: options.format,
    })
}

/// What an ARG of these names has without a default: the platforms, as the reference lists them.
pub(super) fn arguments(
    options: &Options,
    buildfile: &BuildFile,
) -> Result<Vec<(String, String)>, Error> {
    let target = platform(options, buildfile)?;
    let host = Platform::host();
    let mut arguments = Vec::new();
    for (prefix, platform) in [("TARGET", target), ("BUILD", host)] {
        for (name, value) in [
            ("PLATFORM", platform.to_string()),
            ("OS", platform.os),
            ("ARCH", platform.architecture),
            ("VARIANT", platform.variant.unwrap_or_default()),
        ] {
            arguments.push((format!("{prefix}{name}"), value));
        }
    }
    Ok(arguments)
}

/// `tini`, unless the image has none, and the script, run by `shell` if it has to be that one.
pub(super) fn entrypoint(init: Option<&str>, shell: Option<&str>, layout: Layout) -> Vec<String> {
    let init = init.map(|init| [format!("/{init}"), "--".to_owned()]);
    let shell = shell.map(str::to_owned);
    init.into_iter()
        .flatten()
        .chain(shell)
        .chain([layout.installation(ENTRYPOINT)])
        .collect()
}

/// Where the shell is that the entrypoint names, and bash, relative to the root.
pub(super) const SHELLS: [&str; 2] = ["bin/sh", "usr/bin/sh"];
pub(super) const BASHES: [&str; 2] = ["bin/bash", "usr/bin/bash"];

/// Where an init may be, relative to the root; the first that is there counts.
pub(super) const INITS: [&str; 4] = [
    "usr/bin/tini",
    "bin/tini",
    "sbin/tini",
    "usr/local/bin/tini",
];
