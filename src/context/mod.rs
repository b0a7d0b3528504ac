//! Stages the files of a build: `CONTEXT/image/{workspace,venv}` becomes `/workspace` and `/venv`.
//!
//! The one idea: what lies in the staged tree is what the image gets. Modes, links and names are
//! the source's, whatever the umask says; owners and times are settled when the tree becomes a
//! layer. Follows "Context" and "Build file" of the specification.
//!
//! | file | holds |
//! |---|---|
//! | `root.rs` | where a context lies and whether it stays |
//! | `destination.rs` | where an entry of `files` may go |
//! | `local.rs` | local files and directories into the context |
//! | `jobs.rs`, `glob.rs` | which staged files are pyATS jobs |
//! | `pip.rs` | `requirements.txt`, `pip.conf`, and whether pip can see the workspace |

mod destination;
mod error;
mod glob;
mod jobs;
mod local;
mod pip;
mod root;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

use crate::buildfile::BuildFile;
use crate::progress::Progress;
use crate::secret::{self, Secret};

use destination::Workspace;
use local::Copier;

pub use error::{Error, Problem, RootProblem};
pub use root::ContextRoot;

/// What `$WORKSPACE` is in the image.
const WORKSPACE: &str = "/workspace";

/// What `$VIRTUAL_ENV` is in the image.
const VIRTUAL_ENV: &str = "/venv";

/// The folder of the workspace that holds the files of the build.
const INSTALLATION: &str = "installation";

/// Names in `installation` that are the tool's, now or in a build with repositories or a snapshot.
const RESERVED: [&str; 7] = [
    "build.yaml",
    "entrypoint.sh",
    "jobfiles.txt",
    "manifest.json",
    "repos.json",
    "requirements.txt",
    "snapshot.yaml",
];

/// The image's entrypoint: activates the virtual environment, enters the workspace, and becomes its
/// arguments or a shell.
const ENTRYPOINT: &str = include_str!("entrypoint.sh");

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
    /// Number of files and symlinks that `files` brought, for the summary.
    pub files: u64,
    /// Bytes in the staged files.
    pub bytes: u64,
}

/// Whether a requirement, `pip.conf` or a `PIP_*` variable of `env` (the image's environment, expanded)
/// names the workspace or a path in it.
///
/// It is true whenever that cannot be ruled out: a relative path, a `file:` URL, the name of an
/// archive, or an option that takes a file (`-r`, `-c`, `-e`, `-f`) are enough. Wrongly true
/// costs a rebuild of pip's layer; wrongly false would give a stale one.
#[must_use]
pub fn pip_sees_workspace(buildfile: &BuildFile, env: &[(String, String)]) -> bool {
    let requirements = pip::requirements(&buildfile.packages);
    pip::sees_workspace(&requirements, buildfile.pip_config.as_deref(), env)
}

/// Stages everything that `buildfile` names under `root`, which exists and holds no `image`.
/// Directories of the tool's own, such as the store, are given as `leave_out`: they stay out of the
/// image when a source holds them.
pub fn stage(
    buildfile: &BuildFile,
    root: &Path,
    leave_out: &[&Path],
    progress: &Progress,
) -> Result<Context, Error> {
    let part = progress.start("stage files");
    let root = fs::canonicalize(root).map_err(Error::Io)?;
    let image = root.join("image");
    let installation = image.join("workspace").join(INSTALLATION);
    for directory in [
        &image,
        &image.join("workspace"),
        &image.join("venv"),
        &installation,
    ] {
        make_directory(directory).map_err(Error::Io)?;
    }

    let mut workspace = Workspace::new(image.join("workspace"));
    let mut copier = Copier::new(&root, leave_out, progress, &part).map_err(Error::Io)?;
    for entry in &buildfile.files {
        local::stage(entry, &mut workspace, &mut copier)
            .map_err(|problem| Error::entry(&entry.name, problem))?;
    }
    let jobs = jobs::discover(&buildfile.jobfiles, workspace.path(), progress)?;

    let requirements = pip::requirements(&buildfile.packages);
    let (shown_requirements, removed) = secret::split_credentials(&requirements);
    let secret_requirements = removed.then(|| Secret::new(&*requirements));
    if removed {
        progress.warn(
            "credentials in `packages` are for the installation alone: `requirements.txt` in the \
             image goes without them",
        );
    }
    let pip_conf = buildfile
        .pip_config
        .as_deref()
        .map(secret::split_credentials);
    let secret_pip_conf = match (&pip_conf, &buildfile.pip_config) {
        (Some((_, true)), Some(text)) => Some(Secret::new(text)),
        _ => None,
    };
    if secret_pip_conf.is_some() {
        progress.warn(
            "credentials in `pip-config` are for the installation alone: `pip.conf` in the image \
             goes without them",
        );
    }
    let pip_conf = pip_conf.map(|(text, _)| text);

    let mut files = vec![
        (installation.join("build.yaml"), &*buildfile.masked, 0o644),
        (
            installation.join("requirements.txt"),
            &shown_requirements,
            0o644,
        ),
        (installation.join("entrypoint.sh"), ENTRYPOINT, 0o755),
    ];
    let jobs = jobs::json(&jobs);
    if let Some(jobs) = &jobs {
        files.push((installation.join("jobfiles.txt"), jobs, 0o644));
    }
    if let Some(text) = &pip_conf {
        files.push((image.join("venv/pip.conf"), text, 0o644));
    }
    for (path, text, mode) in files {
        write_file(&path, text, mode).map_err(Error::Io)?;
    }

    let (files, bytes) = copier.complete().map_err(Error::Io)?;
    part.finish(if files == 1 {
        "1 file".to_owned()
    } else {
        format!("{files} files")
    });
    Ok(Context {
        root,
        pip_conf,
        secret_pip_conf,
        secret_requirements,
        files,
        bytes,
    })
}

/// Makes a directory of mode 0755, whatever the umask and the parent's set-group-id bit say.
fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o755))
}

/// Writes a file that is not there yet, with exactly this mode.
fn write_file(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(PermissionsExt::from_mode(mode))
}
