//! Dockerfile instructions, as `cmds` of a build file holds them: text becomes [`Instruction`]s, and those
//! become actions upon an image.
//!
//! The one idea: everything that can be known without the image is done here, and nothing here touches a
//! file. `parse` finds all that is wrong with a text at once; [`State`] starts from the config of a base
//! and says, instruction by instruction, what is to be run or copied and what the history tells of it.
//! Follows the Dockerfile reference, and `BuildKit` where the reference is silent.
//!
//! | file | holds |
//! |---|---|
//! | `lines.rs` | lines to statements: comments, continuation, parser directives, heredocs |
//! | `heredoc.rs` | what a heredoc is in a line |
//! | `flags.rs` | `--name=value` in front of the arguments |
//! | `parse.rs`, `arguments.rs`, `copy.rs`, `healthcheck.rs` | statements to instructions |
//! | `instruction.rs` | the instructions |
//! | `word.rs`, `pattern.rs` | quotes, escapes and variables |
//! | `mount.rs` | the options of `RUN --mount` |
//! | `value.rs` | durations, ports and signals |
//! | `config.rs` | what an image's config says, and instructions change |
//! | `evaluate.rs`, `transfer.rs` | instructions to actions |
//! | `action.rs` | the actions |
//! | `git.rs` | the repositories of ADD |
//! | `error.rs`, `expand_error.rs`, `problem.rs` | what is wrong with a text, a word, and its values |
//! | `history.rs` | the words of `BuildKit`'s history entries |
//!
//! The grammar is our own: of the crates that read Dockerfiles, none finds a heredoc behind a command
//! (`RUN python3 <<EOF`), and so none tells where an instruction ends.

mod action;
mod arguments;
mod config;
mod copy;
mod error;
mod evaluate;
mod expand_error;
mod flags;
mod git;
mod healthcheck;
mod heredoc;
mod history;
mod instruction;
mod lines;
mod mount;
mod parse;
mod pattern;
mod problem;
#[cfg(test)]
mod tests;
mod transfer;
mod value;
mod word;

pub use action::{Action, Applied, Copy, History, Run, Script, Source, Workdir};
pub use config::{Config, Healthcheck};
pub use error::SyntaxError;
pub use evaluate::State;
pub use expand_error::ExpandError;
pub use git::{Git, QueryError};
pub use heredoc::Heredoc;
pub use instruction::{Command, CopyWords, Instruction, Kind, Network, RunWords};
pub use mount::{Mount, MountError, MountOptions, Sharing};
pub use parse::parse;
pub use problem::{Error, Problem};
