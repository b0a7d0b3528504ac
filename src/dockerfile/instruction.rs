//! The instructions, each with its words as they were typed: quotes and variables still in them.

use super::config::Healthcheck;
use super::heredoc::Heredoc;
use super::mount::MountOptions;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it says.
    pub kind: Kind,
    /// Its text, with its continuation lines and heredocs.
    pub source: String,
    /// The line within the text that it begins on, from 1.
    pub line: usize,
    /// The character that takes another one's meaning: a backslash, or what `# escape=` says.
    pub escape: char,
}

/// The instructions of the Dockerfile reference, without FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// RUN
    Run(RunWords),
    /// ENV: names and values.
    Env(Vec<(String, String)>),
    /// ARG: names and defaults.
    Arg(Vec<(String, Option<String>)>),
    /// COPY and ADD
    Copy(CopyWords),
    /// WORKDIR
    Workdir(String),
    /// USER
    User(String),
    /// LABEL: names and values.
    Label(Vec<(String, String)>),
    /// EXPOSE: words, each of which may expand to several ports.
    Expose(Vec<String>),
    /// VOLUME
    Volume(Vec<String>),
    /// STOPSIGNAL
    StopSignal(String),
    /// SHELL
    Shell(Vec<String>),
    /// HEALTHCHECK, complete: nothing in it expands.
    Healthcheck(Healthcheck),
    /// ENTRYPOINT
    Entrypoint(Command),
    /// CMD
    Cmd(Command),
    /// MAINTAINER
    Maintainer(String),
    /// ONBUILD: the instruction as text, for whoever builds upon the image.
    OnBuild(String),
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A line for the shell.
    Shell(String),
    /// A JSON array: the words themselves.
    Exec(Vec<String>),
}

/// RUN
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunWords {
    /// What is run.
    pub command: Command,
    /// The heredocs that the command's line opens.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`
    pub mounts: Vec<MountOptions>,
    /// `--network`
    pub network: Network,
}

/// The network of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// As steps have it anyway.
    #[default]
    Default,
    /// None but the loopback interface.
    None,
    /// The host's.
    Host,
}

/// COPY or ADD
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyWords {
    /// It is ADD: sources may be URLs, and archives are unpacked.
    pub is_add: bool,
    /// Paths, patterns and URLs.
    pub sources: Vec<String>,
    /// Files whose text stands in the instruction.
    pub heredocs: Vec<Heredoc>,
    /// Where they go.
    pub destination: String,
    /// `--chown`
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<String>,
    /// `--exclude`
    pub exclude: Vec<String>,
    /// `--parents`
    pub parents: bool,
    /// `--link`
    pub link: bool,
    /// `--checksum`
    pub checksum: Option<String>,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
    /// `--unpack`; absent, local archives are unpacked and downloaded ones are not.
    pub unpack: Option<bool>,
}

impl Kind {
    /// The instruction's name, in capitals.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "RUN",
            Self::Env(_) => "ENV",
            Self::Arg(_) => "ARG",
            Self::Copy(copy) if copy.is_add => "ADD",
            Self::Copy(_) => "COPY",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Label(_) => "LABEL",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Shell(_) => "SHELL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Cmd(_) => "CMD",
            Self::Maintainer(_) => "MAINTAINER",
            Self::OnBuild(_) => "ONBUILD",
        }
    }
}
