//! HEALTHCHECK: its flags, and its two forms.

use std::ops::Range;

use super::config::Healthcheck;
use super::error::quoted;
use super::instruction::Command;
use super::parse::{Parser, blanks, first_word, usage};
use super::value;

/// Docker's shortest interval, in nanoseconds.
const MIN_DURATION: u64 = 1_000_000;

impl Parser<'_> {
    pub(super) fn healthcheck(&mut self) -> Option<Healthcheck> {
        let (kind, _) = first_word(self.rest());
        let kind = kind.to_owned();
        let at = self.arguments..self.arguments + kind.len();
        self.arguments = at.end + blanks(&self.text[at.end..]);
        if kind.eq_ignore_ascii_case("NONE") {
            if !self.rest().is_empty() {
                self.add(
                    self.rest_at(),
                    "`HEALTHCHECK NONE` takes no arguments",
                    "leave them out",
                );
            }
            if let Some(flag) = self.flags.0.first() {
                let place = flag.at.clone();
                self.add(place, "`HEALTHCHECK NONE` takes no flags", "leave them out");
            }
            return Some(Healthcheck {
                test: vec!["NONE".to_owned()],
                ..Healthcheck::default()
            });
        }
        if !kind.eq_ignore_ascii_case("CMD") {
            let message = format!("`HEALTHCHECK` has no `{}`", quoted(&kind));
            self.add(at, message, usage("HEALTHCHECK"));
            return None;
        }
        let mut test = vec!["CMD".to_owned()];
        match self.command()? {
            Command::Exec(words) if !words.is_empty() => test.extend(words),
            Command::Shell(line) if !line.is_empty() => test = vec!["CMD-SHELL".to_owned(), line],
            _ => {
                self.add(
                    at,
                    "there is no command behind `HEALTHCHECK CMD`",
                    usage("HEALTHCHECK"),
                );
            }
        }
        Some(Healthcheck {
            test,
            interval: self.duration("interval"),
            timeout: self.duration("timeout"),
            start_period: self.duration("start-period"),
            start_interval: self.duration("start-interval"),
            retries: self.retries(),
        })
    }

    /// The nanoseconds of a flag of HEALTHCHECK; none means that the runtime's default holds.
    fn duration(&mut self, name: &str) -> u64 {
        let Some((text, at)) = self.flag(name) else {
            return 0;
        };
        let nanoseconds =
            value::duration(&text).and_then(|time| u64::try_from(time.as_nanos()).ok());
        match nanoseconds {
            Some(time) if time == 0 || time >= MIN_DURATION => time,
            Some(_) => {
                let message = format!("`--{name}` is shorter than a millisecond");
                self.add(at, message, "write a longer time, such as `30s`");
                0
            }
            None => {
                let message = format!("`{}` is not a duration", quoted(&text));
                self.add(
                    at,
                    message,
                    "write numbers with units, such as `1m30s` or `500ms`",
                );
                0
            }
        }
    }

    fn retries(&mut self) -> u32 {
        let Some((text, at)) = self.flag("retries") else {
            return 0;
        };
        let number = text
            .parse::<i32>()
            .ok()
            .and_then(|number| u32::try_from(number).ok());
        if number.is_none() {
            let message = format!("`{}` is not a number of retries", quoted(&text));
            self.add(at, message, "write a number, such as `--retries=3`");
        }
        number.unwrap_or(0)
    }

    fn flag(&self, name: &str) -> Option<(String, Range<usize>)> {
        Some((self.flags.text(name)?, self.flags.get(name)?.at.clone()))
    }
}
