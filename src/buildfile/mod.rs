//! The user's YAML file becomes a [`BuildFile`] here; past this module nobody sees YAML.

use std::path::Path;

use regex::Regex;

use crate::manifest::Platform;

/// What the user wants in the image. Strings are as typed, with `%ENV{NAME}` already replaced.
#[derive(Debug, Clone)]
pub struct BuildFile {
    /// `tag`: the main tag of the image.
    pub tag: Option<String>,
    /// `python`: digits and dots; `None` if the file does not say (then it is 3.6.9).
    pub python: Option<String>,
    /// `base`: replaces `python:X-slim`.
    pub base: Option<String>,
    /// `platform`
    pub platform: Option<Platform>,
    /// `env`, in its order, not expanded yet.
    pub env: Vec<(String, String)>,
    /// `files`
    pub files: Vec<FileEntry>,
    /// `packages`: requirement lines, as pip reads them, not expanded (pip expands `${NAME}` itself).
    pub packages: Vec<String>,
    /// `pip-config` as the text of a `pip.conf`, with credentials in it.
    pub pip_config: Option<String>,
    /// `jobfiles`
    pub jobfiles: JobFiles,
    /// `labels`, in their order.
    pub labels: Vec<(String, String)>,
    /// `annotations`, in their order.
    pub annotations: Vec<(String, String)>,
    /// The build file for `installation/build.yaml`: credentials, keys and `%ENV{…}` values masked.
    pub masked: String,
}

/// One entry of `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The key, if the entry is a mapping: where it goes, relative to the workspace.
    pub destination: Option<String>,
    /// A local path, `~` not expanded yet.
    pub source: String,
    /// For errors: where the entry stands, such as `files[2]`.
    pub name: String,
}

/// `jobfiles`: which files are pyATS jobs.
#[derive(Debug, Clone, Default)]
pub struct JobFiles {
    /// `paths`: relative to the workspace, or absolute in the image.
    pub paths: Vec<String>,
    /// `match`: regular expressions over paths.
    pub matches: Vec<Regex>,
    /// `glob`: shell patterns.
    pub globs: Vec<String>,
}

/// What is wrong with a build file.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct Error;

impl BuildFile {
    /// Parses the text of a build file. `name` is what errors call it, such as its path; `lookup`
    /// gives the environment variables that `%ENV{NAME}` asks for.
    pub fn parse(_name: &str, _text: &str, _lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Reads and parses the build file at `path`; `-` is standard input.
    pub fn load(_path: &Path) -> Result<Self, Error> {
        unimplemented!()
    }
}
