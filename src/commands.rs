//! What each command of the binary does: calls the library, and prints what scripts want to standard output.

mod images;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyats_image_builder::carry::{self, Carried};
use pyats_image_builder::prune::{self, Item};
use pyats_image_builder::registry::Logins;
use pyats_image_builder::store::Store;
use pyats_image_builder::{
    Error, Kind, Progress, Reference, buildfile, doctor, output, printable, printable_json,
};
use serde_json::json;

use crate::cli::{self, CacheCommand, Doctor, Global, Login, Logout};
use crate::report::Report;
pub(crate) use images::{build, inspect, push, run, tag};

type Result = std::result::Result<ExitCode, Error>;

pub(crate) fn login(arguments: &Login, report: &Report, progress: &Progress) -> Result {
    let mut access = arguments.access()?;
    let registry = registry_of(&arguments.registry)?;
    let login = match access.login.take() {
        Some(login) if arguments.username.is_none() => login,
        _ => cli::ask_login(arguments)?,
    };
    let (user, password) = (login.user.clone(), login.password.clone());
    access.login = Some(login);
    let logins = Logins {
        authfile: access.authfile.clone(),
        given: None,
    };
    access
        .client(1, &[&registry])?
        .check_login(&registry, progress)
        .map_err(|error| {
            Error::from(error)
                .or_kind(Kind::Push)
                .wrap(format!("failed to log in to `{registry}`"))
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
fn registry_of(text: &str) -> std::result::Result<String, Error> {
    let host = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let reference: std::result::Result<Reference, _> = format!("{host}/x/x").parse();
    match reference {
        // Without a dot, a port or an upper-case letter it would be a part of a name.
        Ok(reference) if reference.repository() == "x/x" => Ok(reference.registry().to_owned()),
        _ => Err(Error::options(format!("`{text}` is not a registry"))
            .with_hint("use a host with an optional port, such as `registry.example.com:5000`")),
    }
}

pub(crate) fn doctor(arguments: &Doctor, global: &Global, progress: &Progress) -> Result {
    let findings = doctor::examine(&arguments.options(global)?, progress)?;
    let text = if arguments.json {
        printable_json(&serde_json::to_string_pretty(&findings).unwrap_or_default())
    } else {
        lines(&findings.lines())
    };
    print(&format!("{text}\n"))?;
    Ok(if findings.runner.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(crate) fn completions(shell: clap_complete::Shell) -> Result {
    print(&cli::completions(shell))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn schema() -> Result {
    print(&format!("{:#}\n", buildfile::schema()))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man(page: Option<&str>) -> Result {
    print(&cli::man(page)?)?;
    Ok(ExitCode::SUCCESS)
}

/// An option of a build beside another command.
pub(crate) fn misplaced(found: Option<(String, String)>) -> Result {
    let (option, command) = found.unwrap_or_default();
    let message = format!("`{option}` is an option of a build, and means nothing to `{command}`");
    Err(Error::options(message).with_hint("leave it out"))
}

pub(crate) fn cache(cache: &CacheCommand, global: &Global, progress: &Progress) -> Result {
    let store = Store::open(&pyats_image_builder::images::place(
        global.store.as_deref(),
    )?)?;
    let text = match cache {
        CacheCommand::Ls { json } => {
            let (items, bytes) = prune::list(&store)?;
            if *json {
                let document = json!({ "items": items, "bytes": bytes });
                printable_json(&format!("{document:#}\n"))
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
    printable(&format!(
        "{done} {entries} entries with {bytes} of layers: {folder}"
    )) + "\n"
}

fn table(items: &[Item]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let line = |item: &Item| {
        let size = indicatif::DecimalBytes(item.bytes);
        let age = Duration::from_secs(now.saturating_sub(item.used));
        let age = indicatif::HumanDuration(age).to_string();
        let kind = item.kind.name();
        let name = printable(&item.name);
        format!("{kind:<8}  {size:>10}  {age:>11} ago  {name}\n")
    };
    items.iter().map(line).collect()
}

/// Lines, whatever is in them.
fn lines(lines: &[String]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| printable(line)).collect();
    lines.join("\n")
}

/// Writes a small file for scripts.
fn write(path: &Path, bytes: &[u8]) -> std::result::Result<(), Error> {
    output::replace(path, bytes)
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
