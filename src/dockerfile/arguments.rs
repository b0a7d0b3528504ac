//! The arguments of each instruction but COPY, ADD and HEALTHCHECK.

use std::ops::Range;

use super::error::{list, quoted};
use super::instruction::{Command, Network, RunWords};
use super::mount::MountOptions;
use super::parse::{NAMES, Parser, first_word, json, not_a_port, usage};
use super::{flags, value};

impl Parser<'_> {
    pub(super) fn command(&mut self) -> Option<Command> {
        Some(match self.array().ok()? {
            Some(words) => Command::Exec(words),
            None => Command::Shell(self.rest().to_owned()),
        })
    }

    pub(super) fn run(&mut self) -> Option<RunWords> {
        let mut mounts = Vec::new();
        for flag in std::mem::take(&mut self.flags.0) {
            let text = flag.value.as_deref().unwrap_or_default();
            match flag.name.as_str() {
                "mount" => match MountOptions::parse(text) {
                    Ok(mount) => {
                        for value in mount.values() {
                            self.check_flag(value, flag.at.clone());
                        }
                        mounts.push(mount);
                    }
                    Err(error) => {
                        let hint = error.hint().unwrap_or_default();
                        self.add(flag.at.clone(), error.to_string(), hint);
                    }
                },
                "security" if text != "sandbox" => {
                    let message = "a step cannot have more privileges than others";
                    self.add(flag.at.clone(), message, "leave `--security` out");
                }
                _ => {}
            }
            self.flags.0.push(flag);
        }
        let network = self.flags.get("network");
        let network = match network.and_then(|flag| flag.value.clone()).as_deref() {
            None | Some("default") => Network::Default,
            Some("none") => Network::None,
            Some("host") => Network::Host,
            Some(other) => {
                let at = self
                    .flags
                    .get("network")
                    .map_or(0..0, |flag| flag.at.clone());
                let message = format!("there is no network `{}`", quoted(other));
                self.add(at, message, "the networks are `default`, `none` and `host`");
                Network::Default
            }
        };
        let command = self.command()?;
        if command == Command::Exec(Vec::new()) {
            self.add(self.rest_at(), "the array is empty", usage("RUN"));
        }
        Some(RunWords {
            command,
            heredocs: self.statement.heredocs.clone(),
            mounts,
            network,
        })
    }

    /// The names and values of ENV and LABEL, in the new form or the old one.
    pub(super) fn pairs(&mut self) -> Option<Vec<(String, String)>> {
        let words = self.words();
        let first = words.first()?.clone();
        if !self.text[first].contains('=') {
            return self.old_pair();
        }
        let mut pairs = Vec::new();
        for at in words {
            let Some((name, value)) = self.text[at.clone()].split_once('=') else {
                let message = format!("`{}` has no `=`", quoted(&self.text[at.clone()]));
                let hint = "write `NAME=VALUE`, and put a value with blanks in quotes";
                self.add(at, message, hint);
                continue;
            };
            let pair = (name.to_owned(), value.to_owned());
            self.named_value(&pair.0, at);
            pairs.push(pair);
        }
        Some(pairs)
    }

    /// `ENV NAME value with blanks`
    fn old_pair(&mut self) -> Option<Vec<(String, String)>> {
        let (name, value) = first_word(self.rest());
        let pair = (name.to_owned(), value.trim_start().to_owned());
        if pair.1.is_empty() {
            let message = format!("`{}` has no value", quoted(&pair.0));
            self.add(self.rest_at(), message, usage(self.name));
            return None;
        }
        let start = self.arguments;
        self.check(start..start + pair.0.len());
        self.check(self.text.len() - pair.1.len()..self.text.len());
        Some(vec![pair])
    }

    /// Checks `name=value`: that there is a name, and both can be read.
    fn named_value(&mut self, name: &str, at: Range<usize>) {
        if name.is_empty() {
            self.add(at, "there is no name before the `=`", usage(self.name));
            return;
        }
        let value = (at.start + name.len() + 1).min(at.end);
        self.check(at.start..at.start + name.len());
        self.check(value..at.end);
    }

    pub(super) fn arg(&mut self) -> Vec<(String, Option<String>)> {
        let mut arguments = Vec::new();
        for at in self.words() {
            let word = &self.text[at.clone()];
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            };
            self.named_value(&name, at);
            arguments.push((name, value));
        }
        arguments
    }

    pub(super) fn expose(&mut self) -> Vec<String> {
        let mut ports = Vec::new();
        for at in self.split() {
            let word = self.text[at.clone()].to_owned();
            self.check(at.clone());
            if !word.contains(['$', '"', '\'', self.escape]) && value::ports(&word).is_none() {
                let (message, hint) = not_a_port(&word);
                self.add(at, message, hint);
            }
            ports.push(word);
        }
        ports
    }

    /// The words of VOLUME, in either form.
    pub(super) fn list(&mut self) -> Option<Vec<String>> {
        if let Some(words) = self.array().ok()? {
            if words.is_empty() || words.iter().any(String::is_empty) {
                self.add(self.rest_at(), "a path is missing", usage(self.name));
            }
            for word in &words {
                self.check_flag(word, self.rest_at());
            }
            return Some(words);
        }
        let places = self.split();
        for at in &places {
            self.check(at.clone());
        }
        let word = |at: Range<usize>| self.text[at].to_owned();
        Some(places.into_iter().map(word).collect())
    }

    pub(super) fn shell(&mut self) -> Option<Vec<String>> {
        let words = self.array().ok()?.unwrap_or_default();
        if words.is_empty() {
            let message = "`SHELL` takes a JSON array of words";
            self.add(self.rest_at(), message, usage("SHELL"));
            return None;
        }
        Some(words)
    }

    pub(super) fn signal(&mut self) -> String {
        let signal = self.one();
        if !signal.contains(['$', '"', '\'', self.escape]) && !value::is_signal(&signal) {
            let message = format!("`{}` is not a signal", quoted(&signal));
            self.add(self.rest_at(), message, usage("STOPSIGNAL"));
        }
        signal
    }

    /// The instruction behind ONBUILD, with its heredocs, as text.
    pub(super) fn on_build(&mut self) -> Option<String> {
        let (trigger, _) = first_word(self.rest());
        let trigger = trigger.to_ascii_uppercase();
        let at = self.arguments..self.arguments + trigger.len();
        if matches!(trigger.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            let message = format!("`ONBUILD {trigger}` is not allowed");
            let allowed = NAMES
                .iter()
                .filter(|name| !matches!(**name, "ONBUILD" | "MAINTAINER"));
            let allowed: Vec<&str> = allowed.copied().collect();
            self.add(at, message, format!("it takes {}", list(&allowed)));
            return None;
        }
        if !NAMES.contains(&trigger.as_str()) {
            self.name_at = at;
            self.named(&trigger)?;
        }
        let takes_array = ["ADD", "CMD", "COPY", "ENTRYPOINT", "RUN", "SHELL", "VOLUME"];
        let (_, rest) = first_word(self.rest());
        let arguments = flags::cut(rest, 0, self.escape).map_or(0, |(_, at)| at);
        let arguments = &rest[arguments..];
        if takes_array.contains(&trigger.as_str()) && json(arguments) == Some(Err(())) {
            self.not_of_strings(self.text.len() - arguments.len()..self.text.len());
            return None;
        }
        let mut text = self.rest().to_owned();
        for heredoc in &self.statement.heredocs {
            text.push('\n');
            text.push_str(&heredoc.text);
            text.push_str(&heredoc.name);
        }
        Some(text)
    }
}
