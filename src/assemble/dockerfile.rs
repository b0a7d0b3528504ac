//! The `Dockerfile` beside the context: it builds the same image with Docker or Buildah.

use std::fmt::Write as _;

use fs_err as fs;

use crate::base::Base;
use crate::context::Context;
use crate::error::Error;
use crate::image::Settings;
use crate::step::{OVERRIDES, Step};

/// Writes the `Dockerfile` beside the staged files.
pub(super) fn write(
    context: &Context,
    base: &Base,
    settings: &Settings,
    steps: &[Step],
) -> Result<(), Error> {
    let text = dockerfile(base, settings, steps);
    Ok(fs::write(context.root.join("Dockerfile"), text)?)
}

/// The text of the `Dockerfile`. `base` is a reference, `steps` are run in order.
fn dockerfile(base: &Base, settings: &Settings, steps: &[Step]) -> String {
    let mut text = String::from(
        "# Builds the same image with Docker or Buildah; the context is this file's directory.\n",
    );
    let mut line = |arguments: std::fmt::Arguments| {
        text.write_fmt(arguments)
            .expect("writing to a string cannot fail");
        text.push('\n');
    };
    line(format_args!("FROM {}", base.name));
    for (name, value) in &settings.env {
        line(format_args!("ENV {name}={}", quoted(value)));
    }
    line(format_args!("COPY image /"));
    // Steps run as root, whoever the base's user is.
    let user = base.config["config"]["User"]
        .as_str()
        .filter(|user| !user.is_empty());
    if user.is_some() {
        line(format_args!("USER root"));
    }
    for command in steps.iter().flat_map(|step| &step.commands) {
        line(format_args!("RUN {}", json(&with_overrides(command))));
    }
    for (name, value) in &settings.labels {
        line(format_args!("LABEL {}={}", quoted(name), quoted(value)));
    }
    if let Some(user) = user {
        line(format_args!("USER {user}"));
    }
    line(format_args!("WORKDIR {}", settings.working_dir));
    line(format_args!("ENTRYPOINT {}", json(&settings.entrypoint)));
    text
}

fn with_overrides(command: &[String]) -> Vec<String> {
    let unset = OVERRIDES.iter().filter(|(_, value)| value.is_none());
    let set = OVERRIDES
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
    std::iter::once("env".to_owned())
        .chain(unset.flat_map(|(name, _)| ["-u".to_owned(), (*name).to_owned()]))
        .chain(set)
        .chain(command.iter().cloned())
        .collect()
}

fn json(words: &[String]) -> String {
    serde_json::to_string(words).expect("strings always serialise")
}

/// A word in double quotes, by the rules of the Dockerfile reference.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for character in value.chars() {
        if matches!(character, '"' | '\\' | '$') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
    text
}
