//! The `Dockerfile` beside the context: it builds the same image with Docker or Buildah.

use std::fmt::Write as _;

use fs_err as fs;

use super::layers::Stage;
use crate::base::Base;
use crate::buildfile::Layout;
use crate::context::Context;
use crate::dockerfile::Kind;
use crate::error::Error;
use crate::image::Settings;
use crate::step::OVERRIDES;

/// Writes the `Dockerfile` beside the staged files.
pub(super) fn write(
    context: &Context,
    base: &Base,
    layout: Layout,
    settings: &Settings,
    stages: &[Stage],
) -> Result<(), Error> {
    let text = dockerfile(base, layout, settings, stages);
    Ok(fs::write(context.root.join("Dockerfile"), text)?)
}

/// The text of the `Dockerfile`. `base` is a reference.
fn dockerfile(base: &Base, layout: Layout, settings: &Settings, stages: &[Stage]) -> String {
    let context = match layout {
        Layout::Split => "this file's directory".to_owned(),
        Layout::Pyats => format!(
            "the directory `image{}` beside this file",
            layout.workspace()
        ),
    };
    let mut text =
        format!("# Builds the same image with Docker or Buildah; the context is {context}.\n");
    let mut line = |arguments: std::fmt::Arguments| {
        text.write_fmt(arguments)
            .expect("writing to a string cannot fail");
        text.push('\n');
    };
    line(format_args!("FROM {}", base.name));
    for (name, value) in &settings.env {
        line(format_args!("ENV {name}={}", quoted(value)));
    }
    match layout {
        Layout::Split => line(format_args!("COPY image /")),
        Layout::Pyats => line(format_args!("COPY . {}", layout.workspace())),
    }
    // Everything is done as root until an instruction says something else, whoever the base's user is.
    let of_base = base.config["config"]["User"]
        .as_str()
        .filter(|user| !user.is_empty());
    if of_base.is_some() {
        line(format_args!("USER root"));
    }
    if let Some((link, target)) = layout.link() {
        let words = ["ln", "-s", target, link].map(str::to_owned);
        line(format_args!("RUN {}", json(&words)));
    }
    let mut user = None;
    for stage in stages {
        match stage {
            Stage::Workspace => {}
            Stage::Step(step) | Stage::Packages(step) => {
                if user.is_some() {
                    line(format_args!("USER root"));
                }
                for command in &step.commands {
                    line(format_args!("RUN {}", json(&with_overrides(command))));
                }
                if let Some(user) = &user {
                    line(format_args!("USER {user}"));
                }
            }
            Stage::Instructions(_, instructions) => {
                line(format_args!("WORKDIR {}", settings.working_dir));
                for instruction in &instructions.parsed {
                    line(format_args!("{}", instruction.source.trim_end()));
                    if let Kind::User(name) = &instruction.kind {
                        user = Some(name.clone());
                    }
                }
            }
        }
    }
    for (name, value) in &settings.labels {
        line(format_args!("LABEL {}={}", quoted(name), quoted(value)));
    }
    if let (Some(of_base), None) = (of_base, &user) {
        line(format_args!("USER {of_base}"));
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
