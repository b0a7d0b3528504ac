//! Instructions become actions upon an image, one after the other.
//!
//! A [`State`] holds what an instruction sees of those above it: the config, and the values of ARG. What
//! happens in the image, such as whether a user or a file is there, is found out by whoever carries an
//! action out.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write as _;

use super::action::{Action, Applied, History, Run, Script, Workdir};
use super::config::Config;
use super::error::quoted;
use super::instruction::{Command, Instruction, Kind, RunWords};
use super::problem::{Error, MAX_EXPANDED, Problem};
use super::{heredoc, history, value, word};

/// Bytes that a port counts as: with its name and its place in a set, it takes about as many.
const PORT_WORK: usize = 64;

/// What an instruction sees of those above it.
#[derive(Debug, Clone)]
pub struct State {
    config: Config,
    /// Places in `config.env`.
    variables: HashMap<String, usize>,
    /// In the order of their first ARG. One with a value hides the variable of that name; a later ENV takes the value
    /// away.
    args: Vec<(String, Option<String>)>,
    /// Places in `args`.
    arg_places: HashMap<String, usize>,
    /// What an ARG of that name gets without a default.
    given: HashMap<String, String>,
    /// Whether a CMD of these instructions set the command.
    own_cmd: bool,
    /// Bytes that words expanded to so far.
    expanded: usize,
}

impl State {
    /// Begins above a base. `given` are values for ARG without a default, such as `TARGETARCH`.
    #[must_use]
    pub fn new(config: Config, given: impl IntoIterator<Item = (String, String)>) -> Self {
        let names = config.env.iter().enumerate();
        Self {
            variables: names.map(|(at, (name, _))| (name.clone(), at)).collect(),
            config,
            args: Vec::new(),
            arg_places: HashMap::new(),
            given: given.into_iter().collect(),
            own_cmd: false,
            expanded: 0,
        }
    }

    /// What the image's config says now.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The variables that a command sees: those of the config, and the values of ARG.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut env = self.config.env.clone();
        for (name, value) in &self.args {
            match (value, self.variables.get(name)) {
                (Some(value), Some(at)) => env[*at].1.clone_from(value),
                (Some(value), None) => env.push((name.clone(), value.clone())),
                (None, _) => {}
            }
        }
        env
    }

    /// Takes the next instruction.
    pub fn apply(&mut self, instruction: &Instruction) -> Result<Applied, Error> {
        self.evaluate(instruction).map_err(|problem| Error {
            line: instruction.line,
            source_text: instruction.source.clone(),
            problem,
        })
    }

    fn evaluate(&mut self, instruction: &Instruction) -> Result<Applied, Problem> {
        let escape = instruction.escape;
        let created_by = match &instruction.kind {
            Kind::Run(words) => return self.run(words, escape),
            Kind::Copy(words) => return self.copy(words, escape),
            Kind::Workdir(path) => return self.workdir(path, escape),
            Kind::OnBuild(text) => {
                self.config.on_build.push(text.clone());
                return Ok(Applied {
                    action: Action::Config,
                    history: None,
                });
            }
            Kind::Env(pairs) => self.env(pairs, escape)?,
            Kind::Arg(args) => self.arg(args, escape)?,
            Kind::Label(pairs) => {
                let pairs = self.pairs(pairs, escape)?;
                let text = listed("LABEL", &pairs);
                self.config.labels.extend(pairs);
                text
            }
            Kind::User(user) => {
                self.config.user = self.expand(user, escape)?;
                format!("USER {}", self.config.user)
            }
            Kind::Expose(words) => self.expose(words, escape)?,
            Kind::Volume(words) => {
                let words = self.all(words, escape)?;
                if words.iter().any(String::is_empty) {
                    return Err(Problem::Empty("path of a volume"));
                }
                let text = format!("VOLUME {}", history::words(&words));
                self.config.volumes.extend(words);
                text
            }
            Kind::StopSignal(word) => {
                let signal = self.expand(word, escape)?;
                if !value::is_signal(&signal) {
                    return Err(Problem::Signal(quoted(&signal)));
                }
                self.config.stop_signal = signal;
                format!("STOPSIGNAL {}", self.config.stop_signal)
            }
            Kind::Shell(words) => {
                self.config.shell.clone_from(words);
                format!("SHELL {}", history::words(words))
            }
            Kind::Healthcheck(check) => {
                self.config.healthcheck = Some(check.clone());
                format!("HEALTHCHECK {}", history::healthcheck(check))
            }
            Kind::Entrypoint(command) => {
                self.config.entrypoint = self.argv(command);
                // The base's command would become the arguments of the new entrypoint.
                if !self.own_cmd {
                    self.config.cmd.clear();
                }
                format!("ENTRYPOINT {}", history::quoted(&self.config.entrypoint))
            }
            Kind::Cmd(command) => {
                self.config.cmd = self.argv(command);
                self.own_cmd = true;
                format!("CMD {}", history::quoted(&self.config.cmd))
            }
            Kind::Maintainer(name) => {
                self.config.author.clone_from(name);
                format!("MAINTAINER {name}")
            }
        };
        Ok(Applied {
            action: Action::Config,
            history: Some(History {
                created_by,
                empty_layer: true,
            }),
        })
    }

    /// The value of a variable: of ENV and ARG, the later one counts.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let argument = self.arg_places.get(name);
        if let Some(value) = argument.and_then(|at| self.args[*at].1.as_deref()) {
            return Some(value);
        }
        let at = self.variables.get(name)?;
        Some(&self.config.env[*at].1)
    }

    pub(super) fn expand(&mut self, word: &str, escape: char) -> Result<String, Problem> {
        let expanded = word::expand(word, escape, &|name| self.value(name))?;
        self.spend(expanded.text.len() + expanded.work)?;
        Ok(expanded.text)
    }

    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Problem> {
        self.expanded = self.expanded.saturating_add(bytes);
        if self.expanded > MAX_EXPANDED {
            return Err(Problem::TooMuch);
        }
        Ok(())
    }

    pub(super) fn all(&mut self, words: &[String], escape: char) -> Result<Vec<String>, Problem> {
        words.iter().map(|word| self.expand(word, escape)).collect()
    }

    pub(super) fn optional(
        &mut self,
        word: Option<&String>,
        escape: char,
    ) -> Result<Option<String>, Problem> {
        let text = word.map(|word| self.expand(word, escape)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// All pairs of an instruction see what is above it, and not each other.
    fn pairs(
        &mut self,
        pairs: &[(String, String)],
        escape: char,
    ) -> Result<Vec<(String, String)>, Problem> {
        let mut expanded = Vec::new();
        for (name, value) in pairs {
            let pair = (self.expand(name, escape)?, self.expand(value, escape)?);
            if pair.0.is_empty() {
                return Err(Problem::Empty("name before a `=`"));
            }
            expanded.push(pair);
        }
        Ok(expanded)
    }

    fn env(&mut self, pairs: &[(String, String)], escape: char) -> Result<String, Problem> {
        let pairs = self.pairs(pairs, escape)?;
        let text = listed("ENV", &pairs);
        for (name, value) in pairs {
            if let Some(at) = self.arg_places.get(&name) {
                self.args[*at].1 = None;
            }
            if let Some(at) = self.variables.get(&name) {
                self.config.env[*at].1 = value;
            } else {
                self.variables.insert(name.clone(), self.config.env.len());
                self.config.env.push((name, value));
            }
        }
        Ok(text)
    }

    /// Unlike ENV, each argument sees those before it.
    fn arg(&mut self, args: &[(String, Option<String>)], escape: char) -> Result<String, Problem> {
        let mut text = String::from("ARG");
        for (name, default) in args {
            let value = match default {
                Some(default) => Some(self.expand(default, escape)?),
                None => self.given.get(name).cloned(),
            };
            text.push(' ');
            text.push_str(name);
            if let Some(value) = &value {
                text.push('=');
                text.push_str(value);
            }
            match self.arg_places.get(name) {
                None => {
                    self.arg_places.insert(name.clone(), self.args.len());
                    self.args.push((name.clone(), value));
                }
                // Named once more, it keeps its value.
                Some(at) if value.is_some() => self.args[*at].1 = value,
                Some(_) => {}
            }
        }
        Ok(text)
    }

    fn expose(&mut self, words: &[String], escape: char) -> Result<String, Problem> {
        let mut ports = Vec::new();
        let mut words: Vec<&String> = words.iter().collect();
        words.sort();
        for word in words {
            let expanded = word::expand(word, escape, &|name| self.value(name))?;
            self.spend(expanded.text.len() + expanded.work)?;
            for word in expanded.words {
                let named = value::ports(&word);
                let (named, protocol) = named.ok_or_else(|| Problem::Port(quoted(&word)))?;
                self.spend(PORT_WORK * named.len())?;
                ports.extend(named.map(|port| format!("{port}/{protocol}")));
            }
        }
        let text = format!("EXPOSE {}", history::words(&ports));
        self.config.exposed_ports.extend(ports);
        Ok(text)
    }

    /// A command as its program and arguments.
    fn argv(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => self.in_shell(line),
        }
    }

    fn in_shell(&self, line: &str) -> Vec<String> {
        let mut words = self.config.shell.clone();
        if words.is_empty() {
            words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
        }
        words.push(line.to_owned());
        words
    }

    /// The directory that relative paths start from.
    pub(super) fn cwd(&self) -> String {
        value::absolute("/", &self.config.working_dir)
    }

    fn run(&mut self, words: &RunWords, escape: char) -> Result<Applied, Problem> {
        let (argv, script) = self.program(words);
        let cwd = self.cwd();
        let mut mounts = Vec::new();
        for options in &words.mounts {
            let spent = Cell::new(0);
            let expand = |word: &str| {
                let expanded = word::expand(word, escape, &|name| self.value(name))?;
                spent.set(spent.get() + expanded.text.len() + expanded.work);
                Ok(expanded.text)
            };
            mounts.push(options.mount(&cwd, &expand)?);
            self.spend(spent.get())?;
        }
        let history = History {
            created_by: format!(
                "RUN {}{} # buildkit",
                self.args_in_history(),
                argv.join(" ")
            ),
            empty_layer: false,
        };
        let run = Run {
            argv,
            env: self.environment(),
            cwd,
            user: self.config.user.clone(),
            mounts,
            network: words.network,
            script,
        };
        Ok(Applied {
            action: Action::Run(run),
            history: Some(history),
        })
    }

    /// What is run. A heredoc alone is itself the script; heredocs behind a command go to the shell.
    fn program(&self, words: &RunWords) -> (Vec<String>, Option<Script>) {
        let (Command::Shell(line), Some(first)) = (&words.command, words.heredocs.first()) else {
            return (self.argv(&words.command), None);
        };
        if heredoc::word(line).is_none() {
            let mut text = line.clone();
            for heredoc in &words.heredocs {
                text.push('\n');
                text.push_str(&heredoc.text);
                text.push_str(&heredoc.name);
            }
            return (self.in_shell(&text), None);
        }
        let text = first.content();
        if !text.starts_with("#!") {
            return (self.in_shell(&text), None);
        }
        let path = format!("/dev/pipes/{}", first.name);
        (self.in_shell(&path), Some(Script { path, text }))
    }

    /// The arguments in front of a command in the history: `|2 A=1 B= `.
    fn args_in_history(&self) -> String {
        if self.args.is_empty() {
            return String::new();
        }
        let mut text = format!("|{} ", self.args.len());
        for (name, _) in &self.args {
            let _ = write!(text, "{name}={} ", self.value(name).unwrap_or_default());
        }
        text
    }

    fn workdir(&mut self, path: &str, escape: char) -> Result<Applied, Problem> {
        let path = self.expand(path, escape)?;
        let path = value::absolute(&self.cwd(), &path);
        self.config.working_dir.clone_from(&path);
        let history = History {
            created_by: format!("WORKDIR {path}"),
            empty_layer: path == "/",
        };
        let user = self.config.user.clone();
        Ok(Applied {
            action: Action::Workdir(Workdir { path, user }),
            history: Some(history),
        })
    }
}

/// An instruction and its pairs, as the history tells them: `ENV A=b C=d`.
fn listed(name: &str, pairs: &[(String, String)]) -> String {
    let mut text = name.to_owned();
    for (name, value) in pairs {
        let _ = write!(text, " {name}={value}");
    }
    text
}
