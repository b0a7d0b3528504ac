//! Statements become instructions: which words each takes, and in which form.
//!
//! Reference, the section of each instruction, and "Shell and exec form".

use std::ops::Range;

use serde_json::Value;

use super::error::{MAX_ERRORS, SyntaxError, Wrong, nearest, quoted};
use super::flags::{self, Flags, Shape};
use super::instruction::{Instruction, Kind};
use super::lines::{Reader, Statement};
use super::{heredoc, word};

/// The instructions that there are; FROM is refused.
pub(super) const NAMES: [&str; 17] = [
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
    let mut reader = Reader::new(text);
    let mut instructions = Vec::new();
    while let Some(statement) = reader.statement() {
        let mut parser = Parser {
            statement: &statement,
            text: statement.text.trim_end(),
            name: "",
            name_at: 0..0,
            arguments: 0,
            flags: Flags::default(),
            escape: reader.escape,
            wrong: Vec::new(),
        };
        let kind = parser.instruction();
        for wrong in parser.wrong {
            reader.wrong(&statement, wrong);
        }
        instructions.extend(kind.map(|kind| Instruction {
            kind,
            source: statement.source.to_owned(),
            line: statement.line,
            escape: reader.escape,
        }));
    }
    if reader.errors.is_empty() {
        return Ok(instructions);
    }
    reader
        .errors
        .sort_by_key(|error| (error.line, error.column));
    Err(reader.errors)
}

/// Whether a statement is an instruction that may open heredocs: RUN, COPY or ADD, not in JSON form.
pub(super) fn takes_heredocs(text: &str, escape: char) -> bool {
    let (mut name, mut rest) = first_word(text);
    if name.eq_ignore_ascii_case("ONBUILD") {
        (name, rest) = first_word(rest);
    }
    let takes = ["RUN", "COPY", "ADD"];
    if !rest.contains("<<") || !takes.iter().any(|taker| name.eq_ignore_ascii_case(taker)) {
        return false;
    }
    let arguments = flags::cut(rest, 0, escape).map_or(0, |(_, at)| at);
    !matches!(json(&rest[arguments..]), Some(Ok(_)))
}

pub(super) fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

/// A JSON array of strings; an error if it is an array of anything else, nothing if it is none.
pub(super) fn json(text: &str) -> Option<Result<Vec<String>, ()>> {
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
    pub(super) name_at: Range<usize>,
    /// Where the arguments begin, behind the flags.
    pub(super) arguments: usize,
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
        (self.flags.0, self.arguments) = match flags::cut(self.text, self.name_at.end, self.escape)
        {
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
            "ARG" => Kind::Arg(self.arg()),
            "COPY" | "ADD" => Kind::Copy(self.copy()?),
            "WORKDIR" => Kind::Workdir(self.one()),
            "USER" => Kind::User(self.one()),
            "STOPSIGNAL" => Kind::StopSignal(self.signal()),
            "MAINTAINER" => Kind::Maintainer(self.rest().to_owned()),
            "EXPOSE" => Kind::Expose(self.expose()),
            "VOLUME" => Kind::Volume(self.list()?),
            "SHELL" => Kind::Shell(self.shell()?),
            "HEALTHCHECK" => Kind::Healthcheck(self.healthcheck()?),
            "ENTRYPOINT" => Kind::Entrypoint(self.command()?),
            "CMD" => Kind::Cmd(self.command()?),
            _ => Kind::OnBuild(self.on_build()?),
        })
    }

    pub(super) fn named(&mut self, typed: &str) -> Option<&'static str> {
        let name = NAMES.iter().find(|name| name.eq_ignore_ascii_case(typed));
        if name.is_some() {
            return name.copied();
        }
        let (message, hint) = if typed.eq_ignore_ascii_case("FROM") {
            let hint = "name the base by the key `base` of the build file, or by `python`";
            (
                "`FROM` cannot stand here: the image has one base and one stage".to_owned(),
                hint.to_owned(),
            )
        } else {
            let message = format!("unknown instruction `{}`", quoted(typed));
            let hint = match nearest(typed, &NAMES) {
                Some(name) => format!("did you mean `{name}`?"),
                None => {
                    "write `RUN` in front of a command; a line that goes on ends with a backslash"
                        .to_owned()
                }
            };
            (message, hint)
        };
        self.add(self.name_at.clone(), message, hint);
        None
    }

    pub(super) fn add(
        &mut self,
        at: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.wrong.len() < MAX_ERRORS {
            self.wrong.push(Wrong::new(at, message, hint));
        }
    }

    /// The arguments, behind the flags.
    pub(super) fn rest(&self) -> &str {
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
    pub(super) fn one(&mut self) -> String {
        self.check(self.rest_at());
        self.rest().to_owned()
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
    pub(super) fn words(&self) -> Vec<Range<usize>> {
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
            self.not_of_strings(self.rest_at());
        }
        array.transpose()
    }

    pub(super) fn not_of_strings(&mut self, at: Range<usize>) {
        let message = "the array holds something else than strings";
        self.add(at, message, "put each word in double quotes");
    }

    /// Whether a word is a heredoc of this statement.
    pub(super) fn heredoc(&self, word: &str) -> Option<&heredoc::Heredoc> {
        let name = heredoc::word(word)?.name;
        self.statement
            .heredocs
            .iter()
            .find(|heredoc| heredoc.name == name)
    }
}

pub(super) fn blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// What is said about a word that names no port.
pub(super) fn not_a_port(word: &str) -> (String, &'static str) {
    let hint =
        "write a port, or a range, with or without its protocol: `80`, `53/udp`, `8000-8010/tcp`";
    (format!("`{}` is not a port", quoted(word)), hint)
}

/// How an instruction is written.
pub(super) fn usage(name: &str) -> &'static str {
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
