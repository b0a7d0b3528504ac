//! Draws the events of a build: bars on a terminal, timed lines elsewhere, or JSON lines.
//!
//! Texts are made printable here, and in what the other commands print: whatever registries, archives and steps put into
//! them, no line but the tool's own begins like one of it. JSON has the same texts, since programs show them as they are.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pyats_image_builder::{Event, Kind, printable, printable_json};
use serde_json::{Value, json};

use crate::cli::ProgressMode;

/// Where everything goes that is for people. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Report {
    state: Arc<Mutex<State>>,
}

struct State {
    mode: Mode,
    /// Whether the user wants to hear of errors only.
    silent: bool,
    verbose: bool,
    began: Instant,
    parts: HashMap<u64, Part>,
    bars: MultiProgress,
}

struct Part {
    label: String,
    nested: bool,
    bar: ProgressBar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Tty,
    Plain,
    Json,
    Quiet,
}

impl Report {
    /// Decides once how to draw. Without a terminal only a build tells its progress unasked: lines of
    /// other commands would mix with the output that they are there for.
    pub(crate) fn new(mode: ProgressMode, quiet: bool, verbose: bool, build: bool) -> Self {
        let mode = match mode {
            _ if quiet => Mode::Quiet,
            ProgressMode::Json => Mode::Json,
            ProgressMode::Plain => Mode::Plain,
            ProgressMode::Tty => Mode::Tty,
            ProgressMode::Auto if std::io::stderr().is_terminal() => Mode::Tty,
            ProgressMode::Auto if build => Mode::Plain,
            ProgressMode::Auto => Mode::Quiet,
        };
        let state = State {
            mode,
            silent: quiet,
            verbose,
            began: Instant::now(),
            parts: HashMap::new(),
            bars: MultiProgress::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Draws one event.
    pub(crate) fn event(&self, mut event: Event) {
        match &mut event {
            Event::Started { label: text, .. }
            | Event::Finished { outcome: text, .. }
            | Event::Output { line: text }
            | Event::Warning(text)
            | Event::Note(text) => *text = printable(text),
            _ => {}
        }
        self.lock().event(event);
    }

    /// A line for people, after the build.
    pub(crate) fn line(&self, text: &str) {
        let state = self.lock();
        if matches!(state.mode, Mode::Tty | Mode::Plain) {
            state.print(&printable(text));
        }
    }

    /// What was built, for programs that read the events.
    pub(crate) fn built(&self, metadata: &Value) {
        let state = self.lock();
        if state.mode == Mode::Json {
            let mut event = metadata.clone();
            event["event"] = "built".into();
            state.print(&printable_json(&event.to_string()));
        }
    }

    /// What came of a command that prints nothing else.
    pub(crate) fn tell(&self, text: &str) {
        let state = self.lock();
        match state.mode {
            // Without a terminal other commands are quiet about their progress, but not about this.
            _ if state.silent => {}
            Mode::Json => {
                let event = json!({ "event": "note", "message": printable(text) });
                state.print(&event.to_string());
            }
            _ => state.print(&printable(text)),
        }
    }

    /// An error, by its printable messages: always shown.
    pub(crate) fn error(
        &self,
        kind: Kind,
        messages: &[String],
        hint: Option<&str>,
        tail: &[String],
    ) {
        let Some((message, causes)) = messages.split_first() else {
            return;
        };
        let hint = hint.map(printable);
        let tail: Vec<_> = tail.iter().map(|line| printable(line)).collect();
        let state = self.lock();
        let _ = state.bars.clear();
        if state.mode == Mode::Json {
            let value = json!({
                "event": "error", "kind": kind.as_str(), "message": message, "causes": causes,
                "hint": hint, "tail": tail,
            });
            return state.print(&value.to_string());
        }
        if !state.shows_output() && !tail.is_empty() {
            for line in &tail {
                state.print(&format!("  | {line}"));
            }
        }
        state.print(&format!("error: {message}"));
        for cause in causes {
            state.print(&format!("  caused by: {cause}"));
        }
        if let Some(hint) = hint {
            state.print(&format!("\nhint: {hint}"));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn shows_output(&self) -> bool {
        self.mode == Mode::Json || (self.verbose && self.mode != Mode::Quiet)
    }

    fn print(&self, text: &str) {
        // Nobody can be told that standard error is closed.
        if self.mode == Mode::Tty {
            let _ = self.bars.suspend(|| writeln!(std::io::stderr(), "{text}"));
        } else {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    fn timed(&self, text: &str) {
        self.print(&format!(
            "[{:>6.1}s] {text}",
            self.began.elapsed().as_secs_f64()
        ));
    }

    fn event(&mut self, event: Event) {
        match self.mode {
            Mode::Quiet => {}
            Mode::Json => {
                if let Some(value) = self.json(&event) {
                    self.print(&value.to_string());
                }
            }
            Mode::Tty | Mode::Plain => self.draw(event),
        }
    }

    fn draw(&mut self, event: Event) {
        match event {
            Event::Started {
                id,
                label,
                total,
                nested,
            } => {
                if self.mode == Mode::Plain && !nested {
                    self.timed(&label);
                }
                let bar = if self.mode == Mode::Tty {
                    self.bar(&label, total)
                } else {
                    ProgressBar::hidden()
                };
                self.parts.insert(id, Part { label, nested, bar });
            }
            Event::Advanced { id, done } => {
                if let Some(part) = self.parts.get(&id) {
                    part.bar.set_position(done);
                }
            }
            Event::Sized { id, total } => {
                if let Some(part) = self.parts.get(&id).filter(|_| self.mode == Mode::Tty) {
                    part.bar.set_style(style(true));
                    part.bar.set_length(total);
                }
            }
            Event::Finished {
                id,
                elapsed,
                outcome,
            } => {
                let Some(part) = self.parts.remove(&id) else {
                    return;
                };
                part.bar.finish_and_clear();
                if !part.nested {
                    self.timed(&finished(&part.label, &outcome, elapsed));
                }
            }
            Event::Output { line } if self.verbose => self.print(&format!("  | {line}")),
            Event::Output { line } => {
                for part in self.parts.values().filter(|part| !part.nested) {
                    part.bar.set_message(line.clone());
                }
            }
            Event::Warning(text) => self.timed(&format!("warning: {text}")),
            Event::Note(text) => self.timed(&text),
            _ => {}
        }
    }

    fn bar(&self, label: &str, total: Option<u64>) -> ProgressBar {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        let bar = self.bars.add(
            bar.with_style(style(total.is_some()))
                .with_prefix(label.to_owned()),
        );
        if total.is_none() {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        bar
    }

    fn json(&mut self, event: &Event) -> Option<Value> {
        let time = self.began.elapsed().as_secs_f64();
        Some(match event {
            Event::Started {
                id,
                label,
                total,
                nested,
            } => {
                json!({ "event": "started", "time": time, "id": id, "label": label, "total": total, "nested": nested })
            }
            Event::Finished {
                id,
                elapsed,
                outcome,
            } => {
                json!({ "event": "finished", "time": time, "id": id, "elapsed": elapsed.as_secs_f64(), "outcome": outcome })
            }
            Event::Output { line } => json!({ "event": "output", "time": time, "line": line }),
            Event::Warning(text) => json!({ "event": "warning", "time": time, "message": text }),
            Event::Note(text) => json!({ "event": "note", "time": time, "message": text }),
            // Bytes on their way would be a line each; the totals are in the events around them.
            _ => return None,
        })
    }
}

/// A bar of bytes where it is known how many there are, else a spinner.
fn style(sized: bool) -> ProgressStyle {
    let template = if sized {
        "  {prefix:40!} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"
    } else {
        "{spinner} {prefix} {elapsed} {wide_msg:.dim}"
    };
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

fn finished(label: &str, outcome: &str, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if outcome.is_empty() {
        format!("{label}: done in {seconds:.1} s")
    } else {
        format!("{label}: {outcome} in {seconds:.1} s")
    }
}
