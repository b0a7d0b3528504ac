//! What each command of the binary does: calls the library, and prints what scripts want to standard output.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pyats_image_builder::assemble::{self, Outcome, Plan};
use pyats_image_builder::carry::{self, Carried};
use pyats_image_builder::error::{Error, OptionsError};
use pyats_image_builder::image::Image;
use pyats_image_builder::net::{self, Proxies};
use pyats_image_builder::progress::Progress;
use pyats_image_builder::prune::{self, Item};
use pyats_image_builder::registry::{Client, Given, Logins, Reference};
use pyats_image_builder::runner::Outcome as Ended;
use pyats_image_builder::step::Fate;
use pyats_image_builder::store::Store;
use pyats_image_builder::{doctor, images, output, push, run};
use serde_json::json;

use crate::cli::{
    self, Build, CacheCommand, Doctor, Global, Inspect, Login, Logout, Push, Run, Tag,
};
use crate::report::Report;

type Result = std::result::Result<ExitCode, Error>;

pub(crate) fn build(
    build: &Build,
    global: &Global,
    report: &Report,
    progress: &Progress,
) -> Result {
    let began = Instant::now();
    let options = build.options(global)?;
    let outcome = assemble::build(&options, progress)?;
    let Some(image) = &outcome.image else {
        print(&plan(&outcome.plan, build.verbose))?;
        return Ok(ExitCode::SUCCESS);
    };
    let digest = image.manifest.digest.to_string();
    let id = image.config_descriptor.digest.to_string();
    if let Some(path) = &build.digest_file {
        output::replace(path, digest.as_bytes())?;
    }
    if let Some(path) = &build.iidfile {
        output::replace(path, id.as_bytes())?;
    }
    if let Some(path) = &build.metadata_file {
        output::replace(
            path,
            &serde_json::to_vec_pretty(&metadata(&outcome, image)).unwrap_or_default(),
        )?;
    }
    for line in summary(&outcome, image, began) {
        report.line(&line);
    }
    print(&match outcome.plan.references.first() {
        Some(reference) => format!("{reference}@{digest}\n"),
        None => format!("{digest}\n"),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn plan(plan: &Plan, verbose: bool) -> String {
    let mut lines = vec![format!("base: {}", plan.base)];
    lines.extend(
        plan.steps
            .iter()
            .map(|step| format!("run: {}", step.created_by)),
    );
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
    lines.join("\n") + "\n"
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
            .map(|(kind, path)| json!({ "kind": kind.to_string(), "path": path })).collect::<Vec<_>>(),
        "context": outcome.plan.context,
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
    let (image, tags, _store) = images::find(&inspect.image, &global.store()?, progress)?;
    let text = serde_json::to_string_pretty(&image.inspect(&tags)).unwrap_or_default();
    print(&format!("{text}\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn tag(tag: &Tag, global: &Global) -> Result {
    images::tag(&tag.image, &tag.references, &global.store()?)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(arguments: &Run, global: &Global, progress: &Progress) -> Result {
    let options = run::Options {
        image: arguments.image.clone(),
        store: global.store()?,
        runner: global.runner(),
        volumes: arguments
            .volumes
            .iter()
            .map(|text| run::volume(text))
            .collect::<std::result::Result<_, _>>()?,
        env: arguments
            .env
            .iter()
            .filter_map(|text| variable(text))
            .collect(),
        interactive: arguments.interactive,
        working_dir: arguments.workdir.clone(),
        entrypoint: arguments.entrypoint.clone(),
        command: arguments.command.clone(),
    };
    Ok(match run::run(&options, progress)? {
        Ended::Exited(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Ended::Signalled(signal) => {
            ExitCode::from(128_u8.saturating_add(u8::try_from(signal).unwrap_or(0)))
        }
    })
}

/// `NAME=VALUE`, or `NAME` with the value that it has here, if it has one.
fn variable(text: &str) -> Option<(String, OsString)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.into())),
        None => Some((text.to_owned(), std::env::var_os(text)?)),
    }
}

pub(crate) fn push(arguments: &Push, global: &Global, progress: &Progress) -> Result {
    let pushed = push::push(&arguments.options(global)?, progress)?;
    let digest = pushed.root.digest;
    if let Some(path) = &arguments.digest_file {
        output::replace(path, digest.to_string().as_bytes())?;
    }
    if let Some(path) = &arguments.metadata_file {
        let metadata = json!({
            "references": pushed.references.iter().map(Reference::to_string).collect::<Vec<_>>(),
            "digest": digest,
            "mediaType": pushed.root.media_type,
            "size": pushed.size,
        });
        output::replace(
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

pub(crate) fn login(arguments: &Login, report: &Report, progress: &Progress) -> Result {
    let (mut options, ca_cert) = arguments.options()?;
    let registry = registry_of(&arguments.registry)?;
    let given = match options.logins.given.take() {
        Some(given) if arguments.username.is_none() => given,
        _ => cli::ask_login(arguments)?,
    };
    let (user, password) = (given.user.clone(), given.password.clone());
    options.logins.given = Some(Given {
        registry: registry.clone(),
        ..given
    });
    let logins = Logins {
        given: None,
        ..options.logins.clone()
    };
    let proxies = Proxies::from_env().map_err(OptionsError::Proxy)?;
    let net = net::Client::new(net::Options::of_system(ca_cert, proxies));
    Client::new(options, Arc::new(net))
        .check_login(&registry, progress)
        .map_err(|source| Error::Login {
            registry: registry.clone(),
            source,
        })?;
    let place = logins.save(&registry, &user, &password)?;
    report.tell(&format!("`{user}` is logged in to `{registry}`: {place}"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn logout(arguments: &Logout, report: &Report) -> Result {
    let logins = Logins {
        authfile: arguments.authfile.clone(),
        given: None,
    };
    let (registry, places) = if arguments.all {
        ("any registry".to_owned(), logins.remove_all()?)
    } else {
        let registry = registry_of(&arguments.registry)?;
        let places = logins.remove(&registry)?;
        (format!("`{registry}`"), places)
    };
    if places.is_empty() {
        report.tell(&format!("nobody is logged in to {registry}"));
    }
    for place in places {
        report.tell(&format!("removed from {place}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A registry as logins are kept for it: `https://index.docker.io/v1/` is `docker.io`.
fn registry_of(text: &str) -> std::result::Result<String, OptionsError> {
    let host = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let reference: std::result::Result<Reference, _> = format!("{host}/x/x").parse();
    match reference {
        // Without a dot, a port or an upper-case letter it would be a part of a name.
        Ok(reference) if reference.repository() == "x/x" => Ok(reference.registry().to_owned()),
        _ => Err(OptionsError::Registry(text.to_owned())),
    }
}

pub(crate) fn doctor(arguments: &Doctor, global: &Global, progress: &Progress) -> Result {
    let findings = doctor::examine(&arguments.options(global)?, progress)?;
    let text = if arguments.json {
        serde_json::to_string_pretty(&findings).unwrap_or_default()
    } else {
        findings.lines().join("\n")
    };
    print(&format!("{text}\n"))?;
    Ok(if findings.rung.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(crate) fn completions(shell: clap_complete::Shell) -> Result {
    print(&cli::completions(shell))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man() -> Result {
    print(&cli::man()?)?;
    Ok(ExitCode::SUCCESS)
}

/// An option of a build beside another command.
pub(crate) fn misplaced(found: Option<(String, String)>) -> Result {
    let (option, command) = found.unwrap_or_default();
    Err(OptionsError::Misplaced { option, command }.into())
}

pub(crate) fn cache(cache: &CacheCommand, global: &Global, progress: &Progress) -> Result {
    let store = Store::open(&global.store()?)?;
    let text = match cache {
        CacheCommand::Ls { json } => {
            let (items, bytes) = prune::list(&store)?;
            if *json {
                let document = json!({ "items": items, "bytes": bytes });
                format!("{document:#}\n")
            } else {
                let total = indicatif::DecimalBytes(bytes);
                format!("{}all       {total:>10}\n", table(&items))
            }
        }
        CacheCommand::Prune(options) => {
            let limits = options.limits();
            let pruned = prune::prune(&store, limits, progress)?;
            let bytes = indicatif::DecimalBytes(pruned.bytes);
            let done = if limits.dry_run {
                "would go"
            } else {
                "removed"
            };
            format!("{}{done}   {bytes:>10}\n", table(&pruned.items))
        }
        CacheCommand::Export(to) => {
            let carried = carry::export(&store, &to.folder, &to.seal()?, progress)?;
            told("written", &carried, &to.folder)
        }
        CacheCommand::Import(from) => {
            let carried = carry::import(&store, &from.folder, &from.seal()?, progress)?;
            told("read", &carried, &from.folder)
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn told(done: &str, carried: &Carried, folder: &Path) -> String {
    let bytes = indicatif::DecimalBytes(carried.bytes);
    let (entries, folder) = (carried.entries, folder.display());
    format!("{done} {entries} entries with {bytes} of layers: {folder}\n")
}

fn table(items: &[Item]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let line = |item: &Item| {
        let size = indicatif::DecimalBytes(item.bytes);
        let age = Duration::from_secs(now.saturating_sub(item.used));
        let age = indicatif::HumanDuration(age).to_string();
        let kind = item.kind.name();
        format!("{kind:<8}  {size:>10}  {age:>11} ago  {}\n", item.name)
    };
    items.iter().map(line).collect()
}

/// A command that a later version has.
pub(crate) fn later(name: &str) -> Result {
    Err(OptionsError::NotYet(name.to_owned()).into())
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // `… | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
