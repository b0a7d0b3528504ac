//! Parse, call, report. The only place that prints or exits.

mod cli;
mod commands;
mod report;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use pyats_image_builder::{Error, Kind, Progress};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use cli::{Command, ProgressMode};
use report::Report;

fn main() -> ExitCode {
    pyats_image_builder::helper();
    // Where even this is refused there is nothing to protect it from.
    let _ = pyats_image_builder::harden();
    let (cli, misplaced) = cli::parse();
    let report = Report::new(
        cli.global.progress,
        cli.global.quiet,
        cli.build.verbose,
        matches!(
            cli.command,
            None | Some(Command::Push(_) | Command::Cache(_))
        ),
    );
    let interactive = matches!(&cli.command, Some(Command::Run(run)) if run.interactive)
        && io::stdin().is_terminal();
    let drawn = report.clone();
    let progress = Progress::new(move |event| drawn.event(event));
    stop_at_signals(progress.clone(), interactive);
    if cli.global.progress == ProgressMode::Json {
        stop_when_nobody_reads(progress.clone());
    }

    let result = match &cli.command {
        Some(_) if misplaced.is_some() => commands::misplaced(misplaced),
        None => commands::build(&cli.build, &cli.global, &report, &progress),
        Some(Command::Inspect(inspect)) => commands::inspect(inspect, &cli.global, &progress),
        Some(Command::Tag(tag)) => commands::tag(tag, &cli.global),
        Some(Command::Run(run)) => commands::run(run, &cli.global, &progress),
        Some(Command::Doctor(doctor)) => commands::doctor(doctor, &cli.global, &progress),
        Some(Command::Completions { shell }) => commands::completions(*shell),
        Some(Command::Man { page }) => commands::man(page.as_deref()),
        Some(Command::Push(push)) => commands::push(push, &cli.global, &progress),
        Some(Command::Login(login)) => commands::login(login, &report, &progress),
        Some(Command::Logout(logout)) => commands::logout(logout, &report),
        Some(Command::Cache(cache)) => commands::cache(cache, &cli.global, &progress),
        Some(Command::Schema) => commands::schema(),
    };
    match (result, progress.signal()) {
        (Ok(code), _) => code,
        (Err(_), Some(signal)) => {
            report.error(Kind::Interrupted, &["interrupted".to_owned()], None, &[]);
            ExitCode::from(128_u8.saturating_add(u8::try_from(signal).unwrap_or(0)))
        }
        (Err(error), None) => {
            show(&error, &report);
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn show(error: &Error, report: &Report) {
    let hint = error.hint();
    report.error(error.kind(), &error.messages(), hint, error.tail());
}

/// Stops what is done at SIGINT, SIGTERM or SIGHUP. A second one ends the process at once. With `interactive`, SIGINT
/// is left to the command that has the terminal.
fn stop_at_signals(progress: Progress, interactive: bool) {
    let signals = [SIGINT, SIGTERM, SIGHUP];
    let Ok(mut arriving) = signal_hook::iterator::Signals::new(signals) else {
        return;
    };
    std::thread::spawn(move || {
        let mut has_come = false;
        for signal in arriving.forever() {
            if interactive && signal == SIGINT {
                continue;
            }
            if has_come {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            has_come = true;
            progress.stop_by(signal);
        }
    });
}

/// Stops what is done once nobody can read standard error any more, as if by SIGHUP: a program that started this one to
/// follow its events and has ended does not want what comes of it.
fn stop_when_nobody_reads(progress: Progress) {
    std::thread::spawn(move || {
        let stderr = io::stderr();
        loop {
            // poll(2) tells these two unasked, of a pipe or a socket, and of a file nothing.
            let mut polled = [PollFd::new(&stderr, PollFlags::empty())];
            match poll(&mut polled, None) {
                Err(Errno::INTR) => {}
                Ok(_)
                    if polled[0]
                        .revents()
                        .intersects(PollFlags::ERR | PollFlags::HUP) =>
                {
                    return progress.stop_by(SIGHUP);
                }
                _ => return,
            }
        }
    });
}
