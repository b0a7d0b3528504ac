//! Conversions of the enums that are still to go.

use std::io;

use crate::error::{Error, Kind};
use crate::{context, dockerfile};

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
    context::Error: of_context;
    context::Problem: |problem: &_| Some(of_source(problem));
    context::SelectError: |_: &_| Some(Kind::Sources);
    dockerfile::Error: |_: &_| Some(Kind::BuildFile);
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

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}
