//! Stages the files of a build: `CONTEXT/image/{workspace,venv}` becomes `/workspace` and `/venv`.

use std::path::{Path, PathBuf};

use crate::buildfile::BuildFile;
use crate::progress::Progress;
use crate::secret::Secret;

/// The staged files of a build.
#[derive(Debug)]
pub struct Context {
    /// The context's root, absolute. `image/` and `Dockerfile` lie in it.
    pub root: PathBuf,
    /// `pip.conf` as it is in the image, without credentials.
    pub pip_conf: Option<String>,
    /// `pip.conf` for the step alone, where it differs from the image's.
    pub secret_pip_conf: Option<Secret>,
    /// `requirements.txt` for the step alone, where it differs from the image's.
    pub secret_requirements: Option<Secret>,
    /// Whether a requirement, `pip.conf` or a `PIP_*` variable names the workspace or a path in it.
    pub pip_sees_workspace: bool,
    /// Number of files staged and bytes in them, for the summary.
    pub files: u64,
    /// Bytes in the staged files.
    pub bytes: u64,
}

/// What can go wrong while files are staged.
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct Error;

/// Stages everything that `buildfile` names under `root`, which exists. `env` is the image's
/// environment with everything expanded.
pub fn stage(
    _buildfile: &BuildFile,
    _env: &[(String, String)],
    _root: &Path,
    _progress: &Progress,
) -> Result<Context, Error> {
    unimplemented!()
}
