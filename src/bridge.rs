//! Conversions of the enums that are still to go.

use std::io;

use crate::error::{Error, Kind};
use crate::{base, buildfile, context, dockerfile, layer, net, registry, runner, store};

struct Hint(Option<String>);

impl From<Option<String>> for Hint {
    fn from(hint: Option<String>) -> Self {
        Self(hint)
    }
}

impl From<&'static str> for Hint {
    fn from(hint: &'static str) -> Self {
        Self(Some(hint.to_owned()))
    }
}

macro_rules! bridge {
    ($($type:ty: $kind:expr;)*) => {$(
        impl From<$type> for Error {
            fn from(error: $type) -> Self {
                #[allow(clippy::redundant_closure_call)]
                let kind: Option<Kind> = ($kind)(&error).into();
                let hint: Option<String> = Hint::from(error.hint()).0;
                let converted = Error::from_source(kind, error);
                match hint {
                    Some(hint) => converted.with_hint(hint),
                    None => converted,
                }
            }
        }
    )*};
}

bridge! {
    buildfile::SnapshotError: |_: &_| Some(Kind::BuildFile);
    context::Error: of_context;
    context::Problem: |problem: &_| Some(of_source(problem));
    context::SelectError: |_: &_| Some(Kind::Sources);
    dockerfile::Error: |_: &_| Some(Kind::BuildFile);
    registry::Error: of_registry;
    registry::LoginError: |_: &_| Some(Kind::Push);
    registry::PolicyError: |_: &_| Some(Kind::Options);
    net::InvalidProxy: |_: &_| Some(Kind::Options);
    runner::Error: |error: &_| Some(of_runner(error));
    layer::Error: |_: &_| Some(Kind::Storage);
    store::Error: |_: &_| Some(Kind::Storage);
}

impl From<base::InvalidSource> for Error {
    fn from(error: base::InvalidSource) -> Self {
        Self::from_source(Kind::Options, error).with_hint(
            "use a registry reference, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE`",
        )
    }
}

impl From<buildfile::Error> for Error {
    fn from(error: buildfile::Error) -> Self {
        if let buildfile::Error::Invalid(_) = error {
            return Self::laid_out(Kind::BuildFile, error.to_string());
        }
        let hint = error.hint();
        let error = Self::from_source(Kind::BuildFile, error);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
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

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}
