//! What is done to images: built, inspected, tagged, run, pushed. This is the library's API at work: of the library
//! nothing else is used here, which `tests/architecture.rs` holds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use pyats_image_builder::{
    Ended, Error, Fate, Image, Outcome, Plan, Progress, Reference, RunOptions, env_file, find,
    printable_json, volume,
};
use serde_json::json;

use super::{Result, print, write};
use crate::cli::{Build, Global, Inspect, Push, Run, Tag};
use crate::report::Report;

pub(crate) fn build(
    build: &Build,
    global: &Global,
    report: &Report,
    progress: &Progress,
) -> Result {
    let began = Instant::now();
    let options = build.options(global)?;
    let outcome = pyats_image_builder::build(&options, progress)?;
    let Some(image) = &outcome.image else {
        print(&plan(&outcome.plan, build.verbose))?;
        return Ok(ExitCode::SUCCESS);
    };
    let digest = image.manifest.digest.to_string();
    let id = image.config_descriptor.digest.to_string();
    if let Some(path) = &build.digest_file {
        write(path, digest.as_bytes())?;
    }
    if let Some(path) = &build.iidfile {
        write(path, id.as_bytes())?;
    }
    let metadata = metadata(&outcome, image);
    if let Some(path) = &build.metadata_file {
        let text = serde_json::to_vec_pretty(&metadata).unwrap_or_default();
        write(path, &text)?;
    }
    report.built(&metadata);
    for line in summary(&outcome, image, began) {
        report.line(&line);
    }
    let name = match outcome.plan.references.first() {
        Some(reference) => format!("{reference}@{digest}"),
        None => digest,
    };
    if outcome.plan.streams() {
        report.tell(&name);
    } else {
        print(&format!("{name}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn plan(plan: &Plan, verbose: bool) -> String {
    let mut lines = vec![format!("base: {}", plan.base)];
    lines.extend(plan.steps.iter().map(|step| format!("run: {step}")));
    let fates = plan.fates.iter().filter(|_| verbose);
    lines.extend(fates.map(|(name, fate)| format!("step: {name}: {}", words(fate))));
    lines.push(format!(
        "copy: {} files, {} bytes",
        plan.staged.0, plan.staged.1
    ));
    lines.extend(
        plan.references
            .iter()
            .map(|reference| format!("tag: {reference}")),
    );
    lines.extend(
        plan.pushed
            .iter()
            .map(|reference| format!("push: {reference}")),
    );
    let outputs = plan.outputs.iter();
    lines.extend(outputs.map(|(kind, path)| format!("output: {kind}:{}", path.display())));
    lines.extend(
        plan.context
            .iter()
            .map(|context| format!("context: {}", context.display())),
    );
    super::lines(&lines) + "\n"
}

fn words(fate: &Fate) -> String {
    match fate {
        Fate::Cached => "cached".to_owned(),
        Fate::Run(None) => "runs, as it never did here".to_owned(),
        Fate::Run(Some(changes)) if changes.is_empty() => {
            "runs, as what it made is too old, or gone".to_owned()
        }
        Fate::Run(Some(changes)) => format!("runs, since this has changed: {}", changes.join(", ")),
        Fate::Unknown => "depends on a step that runs".to_owned(),
    }
}

fn metadata(outcome: &Outcome, image: &Image) -> serde_json::Value {
    json!({
        "references": outcome.plan.references,
        "digest": image.manifest.digest,
        "mediaType": image.manifest.media_type,
        "id": image.config_descriptor.digest,
        "size": image.size(),
        "platform": image.platform(),
        "base": outcome.plan.base,
        "layers": image.layers,
        "pushed": outcome.plan.pushed.iter().map(Reference::to_string).collect::<Vec<_>>(),
        "outputs": outcome.plan.outputs.iter()
            .map(|(kind, path)| json!({ "kind": kind.to_string(), "path": text(path) })).collect::<Vec<_>>(),
        "context": outcome.plan.context.as_deref().map(text),
    })
}

fn summary(outcome: &Outcome, image: &Image, began: Instant) -> Vec<String> {
    let mut lines = vec![String::new()];
    for reference in &outcome.plan.references {
        lines.push(format!("image    {reference}"));
    }
    lines.push(format!("digest   {}", image.manifest.digest));
    lines.push(format!("base     {}", outcome.plan.base));
    for entry in &outcome.entries {
        let Some(layer) = &entry.layer else { continue };
        let size = indicatif::DecimalBytes(layer.descriptor.size);
        let words = entry.created_by.lines().next().unwrap_or_default();
        lines.push(format!("layer    {size:>10}  {words}"));
    }
    lines.push(format!(
        "size     {} in {} layers",
        indicatif::DecimalBytes(image.size()),
        image.layers.len()
    ));
    for (kind, path) in &outcome.plan.outputs {
        lines.push(format!("output   {kind}:{}", path.display()));
    }
    for reference in &outcome.plan.pushed {
        lines.push(format!("pushed   {reference}"));
    }
    if let Some(context) = &outcome.plan.context {
        lines.push(format!("context  {}", context.display()));
    }
    lines.push(format!("time     {:.1} s", began.elapsed().as_secs_f64()));
    lines
}

pub(crate) fn inspect(inspect: &Inspect, global: &Global, progress: &Progress) -> Result {
    let image = find(&inspect.image, global.store.as_deref(), progress)?;
    let text = serde_json::to_string_pretty(&image.inspect()).unwrap_or_default();
    print(&format!("{}\n", printable_json(&text)))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn tag(tag: &Tag, global: &Global) -> Result {
    pyats_image_builder::tag(&tag.image, &tag.references, global.store.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(arguments: &Run, global: &Global, progress: &Progress) -> Result {
    let options = RunOptions {
        image: arguments.image.clone(),
        store: global.store.clone(),
        runner: global.runner(),
        volumes: arguments
            .volumes
            .iter()
            .map(|text| volume(text))
            .collect::<std::result::Result<_, _>>()?,
        env: environment(arguments)?,
        interactive: arguments.interactive,
        user: arguments.user.clone(),
        working_dir: arguments.workdir.clone(),
        entrypoint: arguments.entrypoint.clone(),
        command: arguments.command.clone(),
    };
    Ok(match pyats_image_builder::run(&options, progress)? {
        Ended::Exited(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Ended::Signalled(signal) => {
            ExitCode::from(128_u8.saturating_add(u8::try_from(signal).unwrap_or(0)))
        }
    })
}

/// A path as JSON can hold it.
fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The variables of `--env-file` and `--env`. Later ones win.
fn environment(arguments: &Run) -> std::result::Result<Vec<(String, OsString)>, Error> {
    let mut variables = BTreeMap::new();
    for path in &arguments.env_files {
        variables.extend(env_file(path)?);
    }
    variables.extend(arguments.env.iter().filter_map(|text| variable(text)));
    Ok(variables.into_iter().collect())
}

/// `NAME=VALUE`, or `NAME` with the value that it has here, if it has one.
fn variable(text: &str) -> Option<(String, OsString)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.into())),
        None => Some((text.to_owned(), std::env::var_os(text)?)),
    }
}

pub(crate) fn push(arguments: &Push, global: &Global, progress: &Progress) -> Result {
    let pushed = pyats_image_builder::push(&arguments.options(global)?, progress)?;
    let digest = pushed.root.digest;
    if let Some(path) = &arguments.digest_file {
        write(path, digest.to_string().as_bytes())?;
    }
    if let Some(path) = &arguments.metadata_file {
        let metadata = json!({
            "references": pushed.references.iter().map(Reference::to_string).collect::<Vec<_>>(),
            "digest": digest,
            "mediaType": pushed.root.media_type,
            "size": pushed.size,
        });
        write(
            path,
            &serde_json::to_vec_pretty(&metadata).unwrap_or_default(),
        )?;
    }
    let references = pushed.references.iter();
    let lines = references.map(|reference| format!("{}@{digest}\n", without_digest(reference)));
    print(&lines.collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn without_digest(reference: &Reference) -> String {
    let text = reference.to_string();
    text.split('@').next().unwrap_or_default().to_owned()
}
