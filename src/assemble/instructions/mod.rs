//! Carries out the instructions of `cmds`: what [`dockerfile::State`] says is run or copied becomes tasks of
//! the stack, each instruction's in one layer.

mod copy;
mod run;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::buildfile::Instructions;
use crate::dockerfile::{self, Action, Config, Instruction};
use crate::error::{Error, Kind, Wrap as _};
use crate::image::Entry;
use crate::manifest::Layer;
use crate::progress::Progress;
use crate::runner::{Mount, Placement};
use crate::secret::Secret;
use crate::sources::Sources;
use crate::step::{Stack, Task};

/// What instructions have said so far: what is so, and what may be shown of it.
#[derive(Debug)]
pub(super) struct State {
    real: dockerfile::State,
    shown: dockerfile::State,
}

/// What carries instructions out.
#[derive(Debug, Clone, Copy)]
pub struct Instructor<'a> {
    /// The root of the context.
    pub context: &'a Path,
    /// A folder of the build's own, on the store's file system.
    pub scratch: &'a Path,
    /// How files of other machines are reached, and the store.
    pub sources: Sources<'a>,
    /// Secrets that RUN may ask for: their ids, and the files that hold them.
    pub secrets: &'a [(String, PathBuf)],
    /// Variables for the steps alone.
    pub proxies: &'a [(String, Secret)],
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
    /// Where events go.
    pub progress: &'a Progress,
}

/// Carries out instructions upon `stack`, and does nothing else of a build: no virtual environment, no
/// packages, no workspace. Gives what they make of the base's config, and their entries of the history.
pub fn carry_out(
    instructions: &[Instruction],
    base: Config,
    stack: &mut Stack<'_>,
    instructor: Instructor<'_>,
) -> Result<(Config, Vec<Entry>), Error> {
    let instructions = Instructions {
        text: String::new(),
        parsed: instructions.to_vec(),
        shown: instructions.to_vec(),
    };
    let mut state = State::new(base, &[]);
    let entries = instructor.carry_out("cmds", &instructions, &mut state, stack)?;
    Ok((state.config().clone(), entries))
}

impl State {
    /// Begins with a config, and the values that ARG has for a platform.
    pub(super) fn new(config: Config, given: &[(String, String)]) -> Self {
        let real = dockerfile::State::new(config, given.iter().cloned());
        Self {
            shown: real.clone(),
            real,
        }
    }

    /// What the config says now.
    pub(super) fn config(&self) -> &Config {
        self.real.config()
    }

    /// What a command sees now.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        self.real.environment()
    }
}

impl Instructor<'_> {
    /// Carries out the instructions of the key `name` (`cmds.pre`, `cmds.post`); gives their entries of the
    /// history.
    pub(super) fn carry_out(
        self,
        name: &str,
        instructions: &Instructions,
        state: &mut State,
        stack: &mut Stack<'_>,
    ) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for (instruction, shown) in instructions.parsed.iter().zip(&instructions.shown) {
            let evaluated = |error: dockerfile::Error| {
                let at = format!("`{name}`, line {}", error.line);
                Error::from(error).or_kind(Kind::BuildFile).wrap(at)
            };
            let shown = state.shown.apply(shown).map_err(evaluated)?;
            let applied = state.real.apply(instruction).map_err(evaluated)?;
            let title = shown.history.as_ref().map_or_else(
                || instruction.kind.name().to_owned(),
                |history| shorten(&history.created_by),
            );
            let layer = self.layer(&applied.action, &title, stack);
            let layer = layer.wrap(|| format!("`{name}`, line {}", instruction.line))?;
            entries.extend(shown.history.map(|history| Entry {
                layer,
                created_by: history.created_by,
            }));
        }
        Ok(entries)
    }

    /// The layer of one action, if it changes files.
    fn layer(
        self,
        action: &Action,
        title: &str,
        stack: &mut Stack<'_>,
    ) -> Result<Option<Layer>, Error> {
        if *action == Action::Config {
            return Ok(None);
        }
        let part = self.progress.start(title);
        let prepared = match action {
            Action::Config => Prepared::default(),
            Action::Run(run) => self.run(run, title)?,
            Action::Copy(copy) => Prepared::of(self.copy(copy, title)?),
            Action::Workdir(workdir) => Prepared::of(vec![make(workdir, title)]),
        };
        let made = stack.perform(title, &prepared.before, &prepared.tasks)?;
        part.finish(super::layers::outcome(&made));
        Ok(made.layer)
    }

    /// A new folder, for this build alone.
    fn scratch_folder(self, name: &str) -> Result<PathBuf, Error> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(self.scratch)?;
        Ok(folder.keep())
    }

    fn scratch_file(self, name: &str, bytes: &[u8], mode: u32) -> Result<PathBuf, Error> {
        let path = self.scratch_folder(name)?.join("file");
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        Ok(path)
    }
}

/// Tasks, and what has to be held while they are done.
#[derive(Default)]
struct Prepared {
    /// What has to be done before, if anything is.
    before: Vec<Task>,
    tasks: Vec<Task>,
    locks: Vec<fs::File>,
}

impl Prepared {
    fn of(tasks: Vec<Task>) -> Self {
        Self {
            tasks,
            ..Self::default()
        }
    }
}

/// Makes the directory of a WORKDIR.
fn make(workdir: &dockerfile::Workdir, title: &str) -> Task {
    Task {
        placement: Some(Placement {
            destination: OsString::from(&workdir.path),
            owner: workdir.user.clone(),
            ..Placement::default()
        }),
        shown: Some(title.to_owned()),
        ..Task::default()
    }
}

fn mount(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        source: source.to_owned(),
        below: PathBuf::new(),
        target: PathBuf::from(target),
        read_only,
    }
}

/// An instruction in one line, for people.
fn shorten(created_by: &str) -> String {
    let text = created_by.trim_end_matches(" # buildkit");
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// What failed, where an instruction did.
pub(super) fn failed(title: &str) -> String {
    format!("failed to carry out `{title}`")
}
