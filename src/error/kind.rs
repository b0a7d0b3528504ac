//! What kind of failure an error is, in a word, for programs that have to decide what to do about it.

use std::fmt;
use std::io;

use super::{Error, InstructionError, OptionsError};
use crate::{base, cache, context, output, registry, rootfs, runner, step};

/// The kind of an [`Error`]. Its word ([`as_str`](Self::as_str)) is part of the API, as are the kinds themselves:
/// programs in other languages know errors by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `build-file`: the build file is wrong or cannot be read, or its snapshot.
    BuildFile,
    /// `options`: what was asked for cannot be, whatever the build file says.
    Options,
    /// `no-image`: an image that was named is not there.
    NoImage,
    /// `sources`: a file or a repository cannot be had, or not be put where it should be.
    Sources,
    /// `base`: the base cannot be had, or is none to build upon.
    Base,
    /// `step`: a command in the image failed; [`Error::tail`] has what it printed last.
    Step,
    /// `sandbox`: steps cannot be run here.
    Sandbox,
    /// `push`: a registry did not take the image or the login.
    Push,
    /// `storage`: the store, a layer, an output or another file cannot be read or written.
    Storage,
    /// `interrupted`: it was told to stop.
    Interrupted,
}

impl Kind {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuildFile => "build-file",
            Self::Options => "options",
            Self::NoImage => "no-image",
            Self::Sources => "sources",
            Self::Base => "base",
            Self::Step => "step",
            Self::Sandbox => "sandbox",
            Self::Push => "push",
            Self::Storage => "storage",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::BuildFile(_) => Kind::BuildFile,
            Self::Context(error) => of_context(error),
            Self::Base(error) => of_base(error),
            Self::Find(error) => match of_base(error) {
                Kind::Base => Kind::NoImage,
                other => other,
            },
            Self::Runner(error) => of_runner(error),
            Self::Rootfs(error) => of_rootfs(error),
            Self::Step(error) => of_step(error),
            Self::Push { source, .. } | Self::Login { source, .. } => {
                of_registry(source).unwrap_or(Kind::Push)
            }
            Self::Logins(_) => Kind::Push,
            Self::Options(OptionsError::UnknownImage(_) | OptionsError::NotStored(_)) => {
                Kind::NoImage
            }
            Self::Options(_) => Kind::Options,
            Self::Instruction(error) => of_instruction(error),
            Self::Cancelled(_) | Self::Output(output::Error::Cancelled(_)) => Kind::Interrupted,
            Self::Layer(_) | Self::Image(_) | Self::Output(_) | Self::Store(_) | Self::Io(_) => {
                Kind::Storage
            }
        }
    }
}

fn of_context(error: &context::Error) -> Kind {
    match error {
        context::Error::Entry { source, .. } => of_source(source),
        context::Error::Snapshot(_) | context::Error::Glob { .. } => Kind::BuildFile,
        context::Error::Root {
            source: context::RootProblem::Io(_),
            ..
        }
        | context::Error::Store(_)
        | context::Error::Io(_) => Kind::Storage,
        context::Error::Root { .. } => Kind::Options,
        context::Error::Cancelled(_) => Kind::Interrupted,
    }
}

fn of_source(problem: &context::Problem) -> Kind {
    match problem {
        context::Problem::Store(_) => Kind::Storage,
        context::Problem::Copy { source, .. } | context::Problem::Io(source) if is_full(source) => {
            Kind::Storage
        }
        context::Problem::Cancelled(_) => Kind::Interrupted,
        _ => Kind::Sources,
    }
}

fn of_base(error: &base::Error) -> Kind {
    match error {
        base::Error::Pull { source, .. } | base::Error::Layers(source) => {
            of_registry(source).unwrap_or(Kind::Base)
        }
        base::Error::Store(_) => Kind::Storage,
        base::Error::Io(source) if is_full(source) => Kind::Storage,
        base::Error::Cancelled(_) => Kind::Interrupted,
        _ => Kind::Base,
    }
}

/// Nothing where it is the registry's own failure.
fn of_registry(error: &registry::Error) -> Option<Kind> {
    match error {
        registry::Error::Store(_) | registry::Error::Io(_) => Some(Kind::Storage),
        registry::Error::Cancelled(_) => Some(Kind::Interrupted),
        _ => None,
    }
}

fn of_runner(error: &runner::Error) -> Kind {
    match error {
        // It is about trees and layers.
        runner::Error::Task { .. } => Kind::Storage,
        runner::Error::UnknownRung { .. } | runner::Error::UnsupportedRung { .. } => Kind::Options,
        runner::Error::Cancelled => Kind::Interrupted,
        _ => Kind::Sandbox,
    }
}

fn of_rootfs(error: &rootfs::Error) -> Kind {
    match error {
        rootfs::Error::Call { source, .. } => of_runner(source),
        rootfs::Error::Base(source) => of_base(source),
        rootfs::Error::NoLayers => Kind::Base,
        rootfs::Error::Cancelled(_) => Kind::Interrupted,
        _ => Kind::Storage,
    }
}

fn of_step(error: &step::Error) -> Kind {
    match error {
        step::Error::Failed { .. } => Kind::Step,
        step::Error::NoShell => Kind::Base,
        step::Error::Sandbox { source, .. } => of_runner(source),
        step::Error::Tree(source) => of_rootfs(source),
        step::Error::Cancelled(_) | step::Error::Key(cache::Error::Cancelled(_)) => {
            Kind::Interrupted
        }
        _ => Kind::Storage,
    }
}

fn of_instruction(error: &InstructionError) -> Kind {
    match error {
        InstructionError::Evaluate { .. } | InstructionError::NoFileName(_) => Kind::BuildFile,
        InstructionError::Failed { source, .. } => source.kind(),
        InstructionError::Fetch { source, .. } => of_source(source),
        InstructionError::Select { .. }
        | InstructionError::Commit { .. }
        | InstructionError::NoDirectory(_) => Kind::Sources,
        InstructionError::NoSecret(_) => Kind::Options,
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}
