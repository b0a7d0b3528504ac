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
//! | `fetch/` | files and repositories of other machines |
//! | `jobs.rs`, `glob.rs` | which staged files are pyATS jobs |
//! | `select/` | which files of the context COPY and ADD take |
//! | `manifests.rs`, `worktrees.rs` | manifests of jobs, and git work trees that came with local files |
//! | `pip.rs` | `requirements.txt`, `pip.conf`, and whether pip can see the workspace |

mod destination;
mod error;
pub(crate) mod fetch;
mod glob;
mod jobs;
mod local;
mod manifests;
mod pip;
mod root;
mod select;
mod worktrees;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use serde_json::{Value, json};

use crate::buildfile::{BuildFile, Repository, Snapshot};
use crate::progress::Progress;
use crate::secret::{self, Secret};

use destination::Workspace;
use fetch::Fetched;
use local::Copier;

pub use error::{Error, Problem, RootProblem};
pub use fetch::ssh::Options as SshOptions;
pub use fetch::{Added, Again, Sources, add_file, add_repository};
pub use root::ContextRoot;
pub use select::{SelectError, Selected, Selection, resolve, select, select_all};

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
    /// The files of requirements that pip installs, one after the other, as paths in the image.
    pub requirements: Vec<String>,
    /// Number of files and symlinks that `files` brought, for the summary.
    pub files: u64,
    /// Bytes in the staged files.
    pub bytes: u64,
}

/// Whether a requirement, `pip.conf` or a `PIP_*` or `UV_*` variable of `env` (the image's environment, expanded)
/// names the workspace or a path in it.
///
/// It is true whenever that cannot be ruled out: a relative path, a `file:` URL, the name of an
/// archive, or an option that takes a file (`-r`, `-c`, `-e`, `-f`) are enough. Wrongly true
/// costs a rebuild of pip's layer; wrongly false would give a stale one.
#[must_use]
pub fn pip_sees_workspace(buildfile: &BuildFile, env: &[(String, String)]) -> bool {
    // Requirements of a repository are a file in the workspace.
    if buildfile
        .repositories
        .iter()
        .any(|repository| repository.requirements)
    {
        return true;
    }
    let requirements = pip::requirements(&buildfile.packages);
    pip::sees_workspace(&requirements, buildfile.pip_config.as_deref(), env)
}

/// Adds what the snapshot says that `buildfile` names, if it names one.
pub fn join_snapshot(buildfile: &mut BuildFile) -> Result<(), Error> {
    let Some(path) = &buildfile.snapshot else {
        return Ok(());
    };
    let path = local::expand(path).map_err(|problem| Error::entry("snapshot", problem))?;
    Ok(buildfile.join(Snapshot::load(&path)?)?)
}

/// Stages everything that `buildfile` names under `root`, which exists and holds no `image`.
/// Directories of the tool's own, such as the store, are given as `leave_out`: they stay out of the
/// image when a source holds them.
pub fn stage(
    buildfile: &BuildFile,
    root: &Path,
    leave_out: &[&Path],
    sources: Sources<'_>,
    progress: &Progress,
) -> Result<Context, Error> {
    let fetched = fetch::all(buildfile, sources, progress)?;
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
    for Repository {
        destination, name, ..
    } in &buildfile.repositories
    {
        local::stage_fetched(
            fetched.path(name),
            destination,
            name,
            &mut workspace,
            &mut copier,
        )
        .map_err(|problem| Error::entry(name, problem))?;
    }
    for entry in &buildfile.files {
        local::stage(
            entry,
            fetched.path(&entry.name),
            &mut workspace,
            &mut copier,
        )
        .map_err(|problem| Error::entry(&entry.name, problem))?;
    }
    let jobs = jobs::discover(&buildfile.jobfiles, workspace.path(), progress)?;
    let mut repos = repos(buildfile, &fetched);
    let manifest = manifests::discover(workspace.path(), &mut repos, progress)?;

    let own_requirements = pip::requirements(&buildfile.packages);
    let (shown_requirements, secret_requirements) = without_credentials(
        &own_requirements,
        ["packages", "requirements.txt"],
        progress,
    );
    let pip_conf = buildfile
        .pip_config
        .as_deref()
        .map(|text| without_credentials(text, ["pip-config", "pip.conf"], progress));
    let (pip_conf, secret_pip_conf) = pip_conf.unzip();

    let mut texts = vec![
        ("build.yaml", buildfile.masked.clone()),
        ("requirements.txt", shown_requirements),
    ];
    texts.extend(jobs::json(&jobs).map(|text| ("jobfiles.txt", text)));
    texts.extend(
        buildfile
            .masked_snapshot
            .clone()
            .map(|text| ("snapshot.yaml", text)),
    );
    texts.extend(manifest.map(|text| ("manifest.json", text)));
    if !repos.is_empty() {
        texts.push(("repos.json", manifests::ascii(&json!(repos))));
    }
    for (name, text) in texts {
        write_file(&installation.join(name), &text, 0o644).map_err(Error::Io)?;
    }
    write_file(&installation.join("entrypoint.sh"), ENTRYPOINT, 0o755).map_err(Error::Io)?;
    if let Some(text) = &pip_conf {
        write_file(&image.join("venv/pip.conf"), text, 0o644).map_err(Error::Io)?;
    }

    let (files, bytes) = copier.complete().map_err(Error::Io)?;
    part.finish(if files == 1 {
        "1 file".to_owned()
    } else {
        format!("{files} files")
    });
    let mut requirements = repository_requirements(buildfile, &image, progress);
    if !own_requirements.is_empty() {
        requirements.push(format!("{WORKSPACE}/{INSTALLATION}/requirements.txt"));
    }
    fetched.complete().map_err(Error::Store)?;
    Ok(Context {
        root,
        pip_conf,
        secret_pip_conf: secret_pip_conf.flatten(),
        secret_requirements,
        requirements,
        files,
        bytes,
    })
}

/// `text` as the image keeps it, and as it is if that differs. `names` are what a warning calls the key, and
/// the file of the image.
fn without_credentials(
    text: &str,
    [key, file]: [&str; 2],
    progress: &Progress,
) -> (String, Option<Secret>) {
    let (public, removed) = secret::split_credentials(text);
    if removed {
        progress.warn(format!(
            "credentials in `{key}` are for the installation alone: `{file}` in the image goes without them"
        ));
    }
    (public, removed.then(|| Secret::new(text)))
}

/// What `repos.json` says: each repository by its path in the image.
fn repos(buildfile: &BuildFile, fetched: &Fetched) -> BTreeMap<String, Value> {
    let repositories = buildfile.repositories.iter();
    repositories
        .filter_map(|repository| {
            let path = format!("{WORKSPACE}/{}", repository.destination);
            let mut facts = fetched.validator(&repository.name)?.clone();
            facts["path"] = Value::String(path.clone());
            Some((path, facts))
        })
        .collect()
}

/// The `requirements.txt` of the repositories that ask for it, as paths in the image.
fn repository_requirements(
    buildfile: &BuildFile,
    image: &Path,
    progress: &Progress,
) -> Vec<String> {
    let mut found = Vec::new();
    for repository in &buildfile.repositories {
        let path = format!("{WORKSPACE}/{}/requirements.txt", repository.destination);
        if !repository.requirements {
            continue;
        }
        if fs::symlink_metadata(image.join(&path[1..])).is_ok() {
            found.push(path);
        } else {
            progress.warn(format!(
                "`{}` asks for its requirements, but has no `requirements.txt`",
                repository.name
            ));
        }
    }
    found
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
