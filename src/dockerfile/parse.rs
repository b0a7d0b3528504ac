//! Statements become instructions: which words each takes, and in which form.
//!
//! Reference, the section of each instruction, and "Shell and exec form".

use std::ops::Range;

use serde_json::Value;

use super::config::Healthcheck;
use super::error::{SyntaxError, Wrong, list, nearest, quoted};
use super::flags::{self, Flags, Shape};
use super::heredoc;
use super::instruction::{Command, Instruction, Kind, Network, RunWords};
use super::lines::{Lines, Statement};
use super::mount::MountOptions;
use super::{value, word};

const NAMES: [&str; 17] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses instructions, or says all that is wrong with them, in the order of their places.
pub fn parse(text: &str) -> Result<Vec<Instruction>, Vec<SyntaxError>> {
    let mut lines = Lines::new(text);
    let mut instructions = Vec::new();
    while let Some(statement) = lines.statement() {
        let mut parser = Parser {
            statement: &statement,
            text: statement.text.trim_end(),
            name: "",
            name_at: 0..0,
            arguments: 0,
            flags: Flags::default(),
            escape: lines.escape,
            wrong: Vec::new(),
        };
        let kind = parser.instruction();
        for wrong in parser.wrong {
            lines.wrong(&statement, wrong);
        }
        instructions.extend(kind.map(|kind| Instruction {
            kind,
            source: statement.source.to_owned(),
            line: statement.line,
            escape: lines.escape,
        }));
    }
    if lines.errors.is_empty() {
        return Ok(instructions);
    }
    lines.errors.sort_by_key(|error| (error.line, error.column));
    Err(lines.errors)
}

/// Whether a statement is an instruction that may open heredocs: RUN, COPY or ADD, not in JSON form.
pub(super) fn takes_heredocs(text: &str) -> bool {
    let (mut name, mut rest) = first_word(text);
    if name.eq_ignore_ascii_case("ONBUILD") {
        (name, rest) = first_word(rest);
    }
    let takes = ["RUN", "COPY", "ADD"];
    if !rest.contains("<<") || !takes.iter().any(|taker| name.eq_ignore_ascii_case(taker)) {
        return false;
    }
    let arguments = flags::cut(rest, 0).map_or(0, |(_, at)| at);
    !matches!(json(&rest[arguments..]), Some(Ok(_)))
}

fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

/// A JSON array of strings; an error if it is an array of anything else, nothing if it is none.
fn json(text: &str) -> Option<Result<Vec<String>, ()>> {
    if !text.starts_with('[') {
        return None;
    }
    let values: Vec<Value> = serde_json::from_str(text).ok()?;
    let words = values.into_iter().map(|value| match value {
        Value::String(word) => Ok(word),
        _ => Err(()),
    });
    Some(words.collect())
}

/// One statement while it is read.
pub(super) struct Parser<'s> {
    pub(super) statement: &'s Statement<'s>,
    pub(super) text: &'s str,
    pub(super) name: &'static str,
    name_at: Range<usize>,
    /// Where the arguments begin, behind the flags.
    arguments: usize,
    pub(super) flags: Flags,
    pub(super) escape: char,
    pub(super) wrong: Vec<Wrong>,
}

impl Parser<'_> {
    fn instruction(&mut self) -> Option<Kind> {
        let start = self.text.len() - self.text.trim_start().len();
        let (typed, _) = first_word(self.text);
        self.name_at = start..start + typed.len();
        self.name = self.named(typed)?;
        // An unclosed quote may stand in a flag alone if the instruction has flags at all.
        (self.flags.0, self.arguments) = match flags::cut(self.text, self.name_at.end) {
            Ok(cut) => cut,
            Err(wrong) => {
                self.wrong.push(wrong);
                return None;
            }
        };
        let known: &[(&str, Shape)] = match self.name {
            "RUN" => &[
                ("mount", Shape::Texts),
                ("network", Shape::Text),
                ("security", Shape::Text),
            ],
            "COPY" => &super::copy::COPY_FLAGS,
            "ADD" => &super::copy::ADD_FLAGS,
            "HEALTHCHECK" => &[
                ("interval", Shape::Text),
                ("timeout", Shape::Text),
                ("start-period", Shape::Text),
                ("start-interval", Shape::Text),
                ("retries", Shape::Text),
            ],
            // Its flags are the triggered instruction's, and stay in the text.
            "ONBUILD" => {
                self.arguments = self.name_at.end + blanks(&self.text[self.name_at.end..]);
                self.flags.0.clear();
                &[]
            }
            _ => &[],
        };
        let flags = std::mem::take(&mut self.flags.0);
        self.flags = Flags::check(flags, self.name, known, &mut self.wrong);
        if self.rest().is_empty() {
            let message = format!("`{}` has no arguments", self.name);
            self.add(self.name_at.clone(), message, usage(self.name));
            return None;
        }
        Some(match self.name {
            "RUN" => Kind::Run(self.run()?),
            "ENV" => Kind::Env(self.pairs()?),
            "LABEL" => Kind::Label(self.pairs()?),
            "ARG" => Kind::Arg(self.arg()?),
            "COPY" | "ADD" => Kind::Copy(self.copy()?),
            "WORKDIR" => Kind::Workdir(self.one()?),
            "USER" => Kind::User(self.one()?),
            "STOPSIGNAL" => Kind::StopSignal(self.signal()?),
            "MAINTAINER" => Kind::Maintainer(self.rest().to_owned()),
            "EXPOSE" => Kind::Expose(self.expose()?),
            "VOLUME" => Kind::Volume(self.list()?),
            "SHELL" => Kind::Shell(self.shell()?),
            "HEALTHCHECK" => Kind::Healthcheck(self.healthcheck()?),
            "ENTRYPOINT" => Kind::Entrypoint(self.command()?),
            "CMD" => Kind::Cmd(self.command()?),
            _ => Kind::OnBuild(self.on_build()?),
        })
    }

    fn named(&mut self, typed: &str) -> Option<&'static str> {
        let name = NAMES.iter().find(|name| name.eq_ignore_ascii_case(typed));
        if name.is_some() {
            return name.copied();
        }
        let (message, hint) = if typed.eq_ignore_ascii_case("FROM") {
            let hint = "name the base by the key `base` of the build file, or by `python`";
            ("`FROM` cannot stand here: the image has one base and one stage".to_owned(), hint.to_owned())
        } else {
            let message = format!("unknown instruction `{}`", quoted(typed));
            let hint = match nearest(typed, &NAMES) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "write `RUN` in front of a command; a line that goes on ends with a backslash"
                    .to_owned(),
            };
            (message, hint)
        };
        self.add(self.name_at.clone(), message, hint);
        None
    }

    pub(super) fn add(&mut self, at: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.wrong.push(Wrong::new(at, message, hint));
    }

    /// The arguments, behind the flags.
    fn rest(&self) -> &str {
        self.text.get(self.arguments..).unwrap_or_default()
    }

    pub(super) fn rest_at(&self) -> Range<usize> {
        self.arguments.min(self.text.len())..self.text.len()
    }

    /// Checks that a word of the text can be read, whatever its variables hold.
    pub(super) fn check(&mut self, at: Range<usize>) {
        if let Err((offset, error)) = word::check(&self.text[at.clone()], self.escape) {
            let hint = error.hint().unwrap_or_default();
            self.add(at.start + offset..at.end, error.to_string(), hint);
        }
    }

    /// Checks the same of a flag's value, which has lost its quotes.
    pub(super) fn check_flag(&mut self, value: &str, at: Range<usize>) {
        if let Err((_, error)) = word::check(value, self.escape) {
            self.add(at, error.to_string(), error.hint().unwrap_or_default());
        }
    }

    /// The arguments as one word.
    fn one(&mut self) -> Option<String> {
        self.check(self.rest_at());
        Some(self.rest().to_owned())
    }

    /// The arguments as words between blanks, whatever quotes they hold.
    pub(super) fn split(&self) -> Vec<Range<usize>> {
        let mut words = Vec::new();
        let mut at = self.rest_at().start;
        for part in self.rest().split_inclusive(char::is_whitespace) {
            let word = part.trim_end();
            if !word.is_empty() {
                words.push(at..at + word.len());
            }
            at += part.len();
        }
        words
    }

    /// The arguments as words between blanks that stand in no quotes; quotes and escapes stay in them.
    fn words(&self) -> Vec<Range<usize>> {
        let mut words = Vec::new();
        let (mut start, mut quote) = (None, None);
        let offset = self.rest_at().start;
        let mut characters = self.rest().char_indices();
        while let Some((at, character)) = characters.next() {
            if quote.is_none() && character.is_whitespace() {
                words.extend(start.take().map(|start| start..offset + at));
                continue;
            }
            start.get_or_insert(offset + at);
            if character == self.escape && quote != Some('\'') {
                characters.next();
            } else if quote == Some(character) {
                quote = None;
            } else if quote.is_none() && matches!(character, '\'' | '"') {
                quote = Some(character);
            }
        }
        words.extend(start.map(|start| start..self.text.len()));
        words
    }

    /// The array of the exec form, if the arguments are one.
    pub(super) fn array(&mut self) -> Result<Option<Vec<String>>, ()> {
        let array = json(self.rest());
        if let Some(Err(())) = array {
            let hint = "put each word in double quotes";
            self.add(self.rest_at(), "the array holds something else than strings", hint);
        }
        array.transpose()
    }

    fn command(&mut self) -> Option<Command> {
        Some(match self.array().ok()? {
            Some(words) => Command::Exec(words),
            None => Command::Shell(self.rest().to_owned()),
        })
    }

    fn run(&mut self) -> Option<RunWords> {
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
        let network = match self.flags.text("network").as_deref() {
            None | Some("default") => Network::Default,
            Some("none") => Network::None,
            Some("host") => Network::Host,
            Some(other) => {
                let at = self.flags.get("network").map_or(0..0, |flag| flag.at.clone());
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
    fn pairs(&mut self) -> Option<Vec<(String, String)>> {
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

    fn arg(&mut self) -> Option<Vec<(String, Option<String>)>> {
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
        Some(arguments)
    }

    fn expose(&mut self) -> Option<Vec<String>> {
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
        Some(ports)
    }

    /// The words of VOLUME, in either form.
    fn list(&mut self) -> Option<Vec<String>> {
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

    fn shell(&mut self) -> Option<Vec<String>> {
        let words = self.array().ok()?.unwrap_or_default();
        if words.is_empty() {
            let message = "`SHELL` takes a JSON array of words";
            self.add(self.rest_at(), message, usage("SHELL"));
            return None;
        }
        Some(words)
    }

    fn signal(&mut self) -> Option<String> {
        let signal = self.one()?;
        if !signal.contains(['$', '"', '\'', self.escape]) && !value::is_signal(&signal) {
            let message = format!("`{}` is not a signal", quoted(&signal));
            self.add(self.rest_at(), message, usage("STOPSIGNAL"));
        }
        Some(signal)
    }

    fn healthcheck(&mut self) -> Option<Healthcheck> {
        let (kind, _) = first_word(self.rest());
        let kind = kind.to_owned();
        let at = self.arguments..self.arguments + kind.len();
        self.arguments = at.end + blanks(&self.text[at.end..]);
        if kind.eq_ignore_ascii_case("NONE") {
            if !self.rest().is_empty() {
                self.add(self.rest_at(), "`HEALTHCHECK NONE` takes no arguments", "leave them out");
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
                self.add(at, "there is no command behind `HEALTHCHECK CMD`", usage("HEALTHCHECK"));
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
        let nanoseconds = value::duration(&text).and_then(|time| u64::try_from(time.as_nanos()).ok());
        match nanoseconds {
            Some(time) if time == 0 || time >= MIN_DURATION => time,
            Some(_) => {
                let message = format!("`--{name}` is shorter than a millisecond");
                self.add(at, message, "write a longer time, such as `30s`");
                0
            }
            None => {
                let message = format!("`{}` is not a duration", quoted(&text));
                self.add(at, message, "write numbers with units, such as `1m30s` or `500ms`");
                0
            }
        }
    }

    fn retries(&mut self) -> u32 {
        let Some((text, at)) = self.flag("retries") else {
            return 0;
        };
        let number = text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok());
        if number.is_none() {
            let message = format!("`{}` is not a number of retries", quoted(&text));
            self.add(at, message, "write a number, such as `--retries=3`");
        }
        number.unwrap_or(0)
    }

    fn flag(&self, name: &str) -> Option<(String, Range<usize>)> {
        Some((self.flags.text(name)?, self.flags.get(name)?.at.clone()))
    }

    /// The instruction behind ONBUILD, with its heredocs, as text.
    fn on_build(&mut self) -> Option<String> {
        let (trigger, _) = first_word(self.rest());
        let trigger = trigger.to_ascii_uppercase();
        let at = self.arguments..self.arguments + trigger.len();
        if matches!(trigger.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            let message = format!("`ONBUILD {trigger}` is not allowed");
            let allowed = NAMES.iter().filter(|name| !matches!(**name, "ONBUILD" | "MAINTAINER"));
            let allowed: Vec<&str> = allowed.copied().collect();
            self.add(at, message, format!("it takes {}", list(&allowed)));
            return None;
        }
        if !NAMES.contains(&trigger.as_str()) {
            self.name_at = at;
            self.named(&trigger)?;
        }
        let mut text = self.rest().to_owned();
        for heredoc in &self.statement.heredocs {
            text.push('\n');
            text.push_str(&heredoc.text);
            text.push_str(&heredoc.name);
        }
        Some(text)
    }

    /// Whether a word is a heredoc of this statement.
    pub(super) fn heredoc(&self, word: &str) -> Option<&heredoc::Heredoc> {
        let name = heredoc::word(word)?.name;
        self.statement.heredocs.iter().find(|heredoc| heredoc.name == name)
    }
}

/// Docker's shortest interval.
const MIN_DURATION: u64 = 1_000_000;

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// What is said about a word that names no port.
pub(super) fn not_a_port(word: &str) -> (String, &'static str) {
    let hint = if word.contains(':') {
        "name the port of the image alone; whoever runs the image maps it"
    } else {
        "write a port, or a range, with or without its protocol: `80`, `53/udp`, `8000-8010/tcp`"
    };
    (format!("`{}` is not a port", quoted(word)), hint)
}

/// How an instruction is written.
fn usage(name: &str) -> &'static str {
    match name {
        "RUN" => "write `RUN COMMAND`, such as `RUN apt-get update`",
        "ENV" => "write `ENV NAME=VALUE`",
        "LABEL" => "write `LABEL NAME=VALUE`",
        "ARG" => "write `ARG NAME` or `ARG NAME=DEFAULT`",
        "COPY" => "write `COPY SOURCE DESTINATION`",
        "ADD" => "write `ADD SOURCE DESTINATION`",
        "WORKDIR" => "write `WORKDIR DIRECTORY`",
        "USER" => "write `USER NAME` or `USER NAME:GROUP`",
        "STOPSIGNAL" => "write the name or the number of a signal, such as `STOPSIGNAL SIGTERM`",
        "MAINTAINER" => "write `MAINTAINER NAME`",
        "EXPOSE" => "write `EXPOSE PORT`",
        "VOLUME" => "write `VOLUME DIRECTORY`, or `VOLUME [\"DIRECTORY\"]`",
        "SHELL" => "write `SHELL [\"/bin/bash\", \"-c\"]`",
        "HEALTHCHECK" => "write `HEALTHCHECK CMD COMMAND` or `HEALTHCHECK NONE`",
        "ENTRYPOINT" => "write `ENTRYPOINT [\"PROGRAM\", \"ARGUMENT\"]`",
        "CMD" => "write `CMD [\"PROGRAM\", \"ARGUMENT\"]`",
        _ => "write `ONBUILD INSTRUCTION`",
    }
}
