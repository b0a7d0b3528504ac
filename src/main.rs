//! Parse, call, report. The only place that prints or exits.

mod cli;
mod commands;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use clap::Parser as _;
use pyats_image_builder::error::Error;
use pyats_image_builder::progress::Progress;
use pyats_image_builder::{rootfs, runner};

use cli::{Cli, Command};
use report::Report;

fn main() -> ExitCode {
    // First of all: in a process that the runner started, this one runs the step, or does what was asked.
    if let Some(call) = runner::child() {
        rootfs::serve(call);
    }
    // Where even this is refused there is nothing to protect it from.
    let _ = runner::harden();
    let cli = Cli::parse();
    let report = Report::new(cli.global.progress, cli.global.quiet, cli.build.verbose);
    let stop = Stop::install();
    let drawn = report.clone();
    let progress = Progress::new(move |event| drawn.event(event), stop.cancelled.clone());

    let result = match &cli.command {
        None => commands::build(&cli.build, &cli.global, &report, &progress),
        Some(Command::Inspect(inspect)) => commands::inspect(inspect, &cli.global, &progress),
        Some(Command::Run(run)) => commands::run(run, &cli.global, &progress),
        Some(Command::Doctor(doctor)) => commands::doctor(doctor),
        Some(Command::Completions { shell }) => commands::completions(*shell),
        Some(Command::Man) => commands::man(),
    };
    match result {
        Ok(code) => code,
        Err(_) if stop.signal() != 0 => {
            report.error("interrupted; nothing was changed", &[], None, &[]);
            ExitCode::from(128 + u8::try_from(stop.signal()).unwrap_or(0))
        }
        Err(error) => {
            show(&error, &report);
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn show(error: &Error, report: &Report) {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    report.error(&error.to_string(), &causes, error.hint().as_deref(), error.tail());
}

/// The wish to stop: set by SIGINT, SIGTERM and SIGHUP. A second signal ends the process at once.
struct Stop {
    cancelled: Arc<AtomicBool>,
    signal: Arc<AtomicI32>,
}

impl Stop {
    fn install() -> Self {
        let stop = Self { cancelled: Arc::default(), signal: Arc::default() };
        let signals = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP];
        if let Ok(mut arriving) = signal_hook::iterator::Signals::new(signals) {
            let (cancelled, received) = (stop.cancelled.clone(), stop.signal.clone());
            std::thread::spawn(move || {
                for signal in arriving.forever() {
                    if cancelled.swap(true, Ordering::Relaxed) {
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
                    received.store(signal, Ordering::Relaxed);
                }
            });
        }
        stop
    }

    fn signal(&self) -> i32 {
        self.signal.load(Ordering::Relaxed)
    }
}
