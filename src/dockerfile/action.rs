//! What instructions ask for: the actions that are carried out in an image.

use super::git::Git;
use super::instruction::Network;
use super::mount::Mount;
use crate::mode::Mode;

/// What an instruction asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What is to be done in the image.
    pub action: Action,
    /// Its entry in the history; ONBUILD has none.
    pub history: Option<History>,
}

/// What is to be done in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the config alone has changed.
    Config,
    /// A command is run.
    Run(Run),
    /// Files are copied.
    Copy(Copy),
    /// A directory is made, if it is not there.
    Workdir(Workdir),
}

/// A command that is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// The image's environment, then the values of ARG that it does not hold. Defaults for `PATH` and
    /// `HOME` are not in it.
    pub env: Vec<(String, String)>,
    /// Where it starts, absolute.
    pub cwd: String,
    /// Whom it runs as: names or numbers, with or without `:group`; empty is root.
    pub user: String,
    /// In the order of the instruction.
    pub mounts: Vec<Mount>,
    /// `--network`
    pub network: Network,
    /// The heredoc that is itself the program, as `argv` names it.
    pub script: Option<Script>,
}

/// A heredoc that begins with `#!`: a file that is there for one RUN, read-only and with mode 0755.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Where it appears, absolute.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// Files that are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// ADD: local archives are unpacked, and files may come from other machines.
    pub is_add: bool,
    /// At least one; files that stand in the instruction come last.
    pub sources: Vec<Source>,
    /// Absolute; it ends with a slash if it names a directory.
    pub destination: String,
    /// Names or numbers, with or without `:group`; absent, root.
    pub chown: Option<String>,
    /// Of all files and directories; absent, they keep theirs.
    pub chmod: Option<Mode>,
    /// Patterns of paths that are left out.
    pub exclude: Vec<String>,
    /// Whether the directories above a source come along.
    pub parents: bool,
    /// Whether the copy ignores what lies below: symbolic links of the destination are replaced.
    pub link: bool,
    /// The digits of the SHA-256 of the one downloaded file.
    pub sha256: Option<String>,
    /// Whether archives are unpacked; absent, local ones are and downloaded ones are not.
    pub unpack: Option<bool>,
}

/// Where copied files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path of the context, or a pattern of paths; empty for the context itself.
    Path(String),
    /// A file of another machine, by http or https.
    Url(String),
    /// A repository.
    Git(Git),
    /// A file that stands in the instruction.
    Inline {
        /// Its name, if the destination is a directory.
        name: String,
        /// What it holds.
        text: String,
    },
}

/// A directory that WORKDIR makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workdir {
    /// Absolute.
    pub path: String,
    /// Who owns what is made: names or numbers, with or without `:group`; empty is root.
    pub user: String,
}

/// An entry of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// `created_by`
    pub created_by: String,
    /// `empty_layer`; WORKDIR has no layer either if its directory is there.
    pub empty_layer: bool,
}
