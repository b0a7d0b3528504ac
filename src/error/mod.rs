//! The error of a build: one variant a stage. Messages are the stages' own. The variants are not part of the API, since
//! they change with the stages.

mod kind;

use crate::buildfile::SnapshotError;
use crate::context::SelectError;
use crate::progress::{Cancelled, Progress};
use crate::secret::printable;
use crate::{
    base, buildfile, context, dockerfile, image, layer, net, output, registry, rootfs, runner,
    step, store,
};

pub use kind::Kind;

/// Why a build, or something else, failed.
///
/// It says so itself for people, and its sources say why. For programs there is its [kind](Self::kind).
///
/// ```
/// use std::error::Error as _;
/// use pyats_image_builder::{Kind, Options, Progress, build};
///
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("build.yaml");
/// # fs_err::write(&file, "files: [notes]")?;
/// # let store = Some(folder.path().join("store"));
/// let options = Options {
///     dry_run: true,
/// #   store,
///     ..Options::new(&file)
/// };
/// let error = build(&options, &Progress::silent()).unwrap_err();
/// assert_eq!(error.kind(), Kind::Sources);
/// assert_eq!(error.to_string(), "failed to stage `files[0]`");
/// assert_eq!(error.source().unwrap().to_string(), "`notes` does not exist");
/// assert_eq!(error.hint().unwrap(), "local paths are relative to the current directory");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[doc(hidden)]
    #[error(transparent)]
    BuildFile(#[from] buildfile::Error),
    #[doc(hidden)]
    #[error(transparent)]
    Context(#[from] context::Error),
    #[doc(hidden)]
    #[error(transparent)]
    Base(#[from] base::Error),
    #[doc(hidden)]
    #[error(transparent)]
    Find(base::Error),
    #[doc(hidden)]
    #[error(transparent)]
    Runner(#[from] runner::Error),
    #[doc(hidden)]
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    #[doc(hidden)]
    #[error(transparent)]
    Step(#[from] step::Error),
    #[doc(hidden)]
    #[error(transparent)]
    Layer(#[from] crate::layer::Error),
    #[doc(hidden)]
    #[error(transparent)]
    Image(#[from] image::Error),
    #[doc(hidden)]
    #[error(transparent)]
    Output(#[from] output::Error),
    #[doc(hidden)]
    #[error("the store failed")]
    Store(#[from] store::Error),
    #[doc(hidden)]
    #[error("failed to push to `{reference}`")]
    Push {
        reference: String,
        source: registry::Error,
    },
    #[doc(hidden)]
    #[error("failed to log in to `{registry}`")]
    Login {
        registry: String,
        source: registry::Error,
    },
    #[doc(hidden)]
    #[error(transparent)]
    Logins(#[from] registry::LoginError),
    #[doc(hidden)]
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[doc(hidden)]
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[doc(hidden)]
    #[error(transparent)]
    Instruction(#[from] InstructionError),
    #[doc(hidden)]
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    /// Whether a layer that is not in the store is not to be had elsewhere either.
    #[must_use]
    pub(crate) fn is_of_lost_layer(&self) -> bool {
        let first: &dyn std::error::Error = self;
        let mut causes = std::iter::successors(Some(first), |error| error.source());
        causes.any(|error| matches!(error.downcast_ref(), Some(registry::Error::Lost { .. })))
    }

    /// Whether an owner cannot be set in the runner's user namespace, which another runner may keep beside the files.
    #[must_use]
    pub(crate) fn is_of_owner(&self) -> bool {
        let first: &dyn std::error::Error = self;
        let mut causes = std::iter::successors(Some(first), |error| error.source());
        causes.any(|error| error.to_string().contains(layer::UNMAPPED))
            || self
                .tail()
                .iter()
                .any(|line| line.starts_with(runner::NO_OWNER) && line.contains("Invalid argument"))
    }
}

/// An instruction of `cmds` that cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstructionError {
    /// It makes no sense with the values that its variables have.
    #[error("`{key}`, line {}", source.line)]
    Evaluate {
        /// `cmds.pre` or `cmds.post`.
        key: String,
        /// What is wrong.
        source: dockerfile::Error,
    },
    /// It failed.
    #[error("`{key}`, line {line}")]
    Failed {
        /// `cmds.pre` or `cmds.post`.
        key: String,
        /// The line in it, from 1.
        line: usize,
        /// How.
        source: Box<Error>,
    },
    /// Its files cannot be found.
    #[error("failed to carry out `{instruction}`")]
    Select {
        /// As the history has it.
        instruction: String,
        /// What is wrong.
        source: SelectError,
    },
    /// What it adds cannot be fetched.
    #[error("failed to carry out `{instruction}`")]
    Fetch {
        /// As the history has it.
        instruction: String,
        /// What is wrong.
        source: context::Problem,
    },
    /// A URL that gives a file no name.
    #[error("`{0}` has no file name for the destination, which is a directory")]
    NoFileName(String),
    /// What is to be copied of a repository is no directory.
    #[error("`{0}` is not a directory of the repository")]
    NoDirectory(String),
    /// A repository is not at the commit that it should be.
    #[error("`{url}` is at the commit `{found}`, not at `{expected}`")]
    Commit {
        /// Masked.
        url: String,
        /// What `--checksum` says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A step asks for a secret that nobody gave.
    #[error("there is no secret `{0}`")]
    NoSecret(String),
}

impl InstructionError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Evaluate { source, .. } => source.hint(),
            Self::Failed { source, .. } => source.hint(),
            Self::Select { source, .. } => source.hint(),
            // What other sources say in the URL.
            Self::Fetch { source, .. } => {
                let hint = source.hint();
                hint.map(|hint| hint.replace("`#sha256=`", "`--checksum`"))
            }
            Self::NoFileName(_) => Some(
                "name the file in the destination, which then has no slash at its end".to_owned(),
            ),
            Self::NoDirectory(_) => Some("name a directory behind the `:` of the URL".to_owned()),
            Self::Commit { .. } => {
                Some("check `--checksum`, and the branch or tag behind `#`".to_owned())
            }
            Self::NoSecret(id) => Some(format!("give it with `--secret id={id},src=FILE`")),
        }
    }
}

/// A request that cannot be met, found before anything was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// `SOURCE_DATE_EPOCH` is not a number, or too large a one.
    #[error("`SOURCE_DATE_EPOCH` is `{0}`, which is not a number of seconds up to the year 9999")]
    SourceDateEpoch(String),
    /// A tag that is no reference.
    #[error("`{tag}` is not a valid tag: {problem}")]
    Tag {
        /// As given.
        tag: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A base, or an image outside the store, that is no reference and no path.
    #[error(transparent)]
    Base(base::InvalidSource),
    /// A variable that names no proxy.
    #[error(transparent)]
    Proxy(net::InvalidProxy),
    /// Two outputs that would overwrite each other.
    #[error("two outputs would be written to `{}`", .0.display())]
    SameOutput(std::path::PathBuf),
    /// No place for the steps' work.
    #[error("nothing can be written in the work directory `{}`", .directory.display())]
    WorkDir {
        /// As given.
        directory: std::path::PathBuf,
        /// The file system's own words.
        source: std::io::Error,
    },
    /// A path that cannot be handed on as text.
    #[error("the path `{}` is not UTF-8", .0.display())]
    NotUtf8(std::path::PathBuf),
    /// A file without a certificate.
    #[error("`{}` holds no PEM certificate", .0.display())]
    CaCert(std::path::PathBuf),
    /// Options of a build beside another command.
    #[error("`{option}` is an option of a build, and means nothing to `{command}`")]
    Misplaced {
        /// The option.
        option: String,
        /// The command.
        command: String,
    },
    /// Steps for another platform cannot run here.
    #[error("this machine cannot execute programs for `{0}`")]
    Platform(crate::manifest::Platform),
    /// An image that is neither in the store nor a path.
    #[error("there is no image `{0}` in the store")]
    UnknownImage(String),
    /// An image that only one of the store could be.
    #[error("the store has no image `{0}`, and others cannot be tagged")]
    NotStored(String),
    /// A key for a shared cache that cannot be had, or is too short.
    #[error("the key of the cache cannot be used: {0}")]
    CacheKey(String),
    /// No place for the store.
    #[error("there is no place for the store: neither `XDG_CACHE_HOME` nor `HOME` is set")]
    NoStore,
    /// What is said about registries cannot be read.
    #[error(transparent)]
    Policy(registry::PolicyError),
    /// Half of a login.
    #[error("`{0}` is set, but `{1}` is not")]
    HalfLogin(&'static str, &'static str),
    /// Nobody to ask for a user name or a password.
    #[error("there is no terminal to ask for the {0}")]
    NoTerminal(&'static str),
    /// A name without a place in a registry.
    #[error("`{0}` says nothing about where to push it")]
    NoTarget(String),
    /// A registry that is no host.
    #[error("`{0}` is not a registry")]
    Registry(String),
    /// One login, and tags in several registries.
    #[error("{0} is a login for one registry, but the image is pushed to several")]
    SeveralRegistries(&'static str),
    /// An index of several images keeps its media types.
    #[error("`{0}` is an index of several images: its media types cannot be changed")]
    FormatOfIndex(String),
    /// Nothing to run.
    #[error("the image has neither an entrypoint nor a command, and none was given")]
    NoCommand,
    /// A mount that is not `HOST:IMAGE[:ro]`.
    #[error(
        "`{0}` is not a mount: use `HOST:IMAGE` or `HOST:IMAGE:ro`, where HOST begins with `/`, `./` or `../`, and IMAGE with `/` and is not `/` itself"
    )]
    Mount(String),
    /// A line of `--env-file` that is no variable.
    #[error("`{}`, line {line}: a variable has a name without white space, as in `NAME=VALUE`", path.display())]
    EnvFile {
        /// As the user typed it.
        path: std::path::PathBuf,
        /// From 1 on.
        line: usize,
    },
    /// A mount of what is not there.
    #[error("`{}` cannot be mounted: it does not exist", .0.display())]
    MountSource(std::path::PathBuf),
}

impl OptionsError {
    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::SourceDateEpoch(_) => "set it to seconds since 1970, or unset it",
            Self::Tag { .. } => {
                "use a form such as `name:latest` or `registry.example.com/team/name:1.0`"
            }
            Self::Base(_) => {
                "use a registry reference, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE`"
            }
            Self::Platform(_) => {
                "build on a machine of that platform, or register an emulator (`apt-get install qemu-user-static`)"
            }
            Self::UnknownImage(_) => {
                "build it without `--output`, or name an image as `oci:DIR[:TAG]`, `oci-archive:FILE` or `docker-archive:FILE`"
            }
            Self::NotStored(_) => {
                "give a tag or an id that the store has, as `pyats-image-build cache ls` lists them"
            }
            Self::Proxy(error) => error.hint(),
            Self::HalfLogin(..) => "set both, or neither",
            Self::NoTerminal(_) => "give `--username`, and the password by `--password-stdin`",
            Self::NoTarget(_) => {
                "give a reference such as `registry.example.com/team/image:1.0`, by `--tag` for a build"
            }
            Self::Registry(_) => {
                "use a host with an optional port, such as `registry.example.com:5000`"
            }
            Self::SeveralRegistries(_) => "keep the logins with `pyats-image-build login`",
            Self::FormatOfIndex(_) => "leave `--format` out",
            Self::CacheKey(_) => {
                "name a file of random bytes, such as `head -c 32 /dev/urandom` gives"
            }
            Self::NoStore => "set `--store DIR` or `PYATS_IMAGE_BUILD_STORE`",
            Self::NoCommand => "give a command after the image",
            Self::SameOutput(_) => "give each a path of its own, such as `-o oci-archive:PATH`",
            Self::WorkDir { .. } => {
                "make the directory first, or choose another one with `--work-dir DIR`"
            }
            Self::NotUtf8(_) => "choose another path",
            Self::CaCert(_) => "name a file with lines such as `-----BEGIN CERTIFICATE-----`",
            Self::Misplaced { .. } => "leave it out",
            Self::MountSource(_) => {
                "make it first; the left side of `-v` is a path of this machine"
            }
            // Its words are made up for each case.
            Self::Policy(_) | Self::Mount(_) | Self::EnvFile { .. } => return None,
        })
    }
}

impl Error {
    /// A push that failed, unless the user wants to stop.
    pub(crate) fn push(target: &registry::Reference, source: registry::Error) -> Self {
        match source {
            registry::Error::Cancelled(cancelled) => Self::Cancelled(cancelled),
            source => Self::Push {
                reference: target.to_string(),
                source,
            },
        }
    }

    /// Whatever failed after the wish to stop failed of it.
    pub(crate) fn or_cancelled(self, progress: &Progress) -> Self {
        match progress.check() {
            Ok(()) => self,
            Err(cancelled) => Self::Cancelled(cancelled),
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BuildFile(error) => error.hint(),
            Self::Context(error) => error.hint(),
            Self::Base(error) | Self::Find(error) => error.hint(),
            Self::Runner(error) => error.hint(),
            Self::Rootfs(error) => error.hint(),
            Self::Step(error) => error.hint(),
            Self::Layer(error) => error.hint(),
            Self::Output(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Push { source, .. } | Self::Login { source, .. } => source.hint(),
            Self::Logins(error) => error.hint(),
            Self::Options(OptionsError::Policy(error)) => error.hint(),
            Self::Options(error) => error.hint().map(str::to_owned),
            Self::Instruction(error) => error.hint(),
            Self::Image(_) | Self::Io(_) | Self::Cancelled(_) => None,
        }
    }

    /// What it says and why, outermost first, each fit for a terminal: see [`printable`]. The problems of a build file
    /// are laid out in lines, and stay so; all others are one line each.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        let first: &dyn std::error::Error = self;
        let causes = std::iter::successors(Some(first), |error| error.source());
        let mut messages: Vec<String> = causes.map(|cause| printable(&cause.to_string())).collect();
        if let Self::BuildFile(buildfile::Error::Invalid(_))
        | Self::Context(context::Error::Snapshot(SnapshotError::Invalid(_))) = self
        {
            messages[0] = self.to_string();
        }
        messages
    }

    /// The last lines that a failed step printed.
    #[must_use]
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Step(step::Error::Failed { tail, .. }) => tail,
            Self::Instruction(InstructionError::Failed { source, .. }) => source.tail(),
            _ => &[],
        }
    }

    /// Whether the request itself is wrong: the command line, the build file or its snapshot.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::BuildFile(_) | Self::Options(_) | Self::Context(context::Error::Snapshot(_))
        )
    }
}
