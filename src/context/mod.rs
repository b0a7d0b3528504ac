//! Stages the files of a build: `CONTEXT/image/{workspace,venv}` becomes `/workspace` and `/venv`, or
//! `CONTEXT/image/pyats` becomes `/pyats`, as the [`Layout`] says.
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
//! | `select/` | which files of the context COPY and ADD take |
//! | `manifests.rs`, `worktrees.rs` | manifests of jobs, and git work trees that came with local files |
//! | `pip.rs` | `requirements.txt`, `pip.conf`, and whether pip can see the workspace |
//! | `clones.rs` | requirements that git brings |

mod clones;
mod destination;
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

use crate::buildfile::{BuildFile, INSTALLATION, Layout, Repository, Snapshot};
use crate::error::Error;
use crate::files::{self, make_directory};
use crate::progress::Progress;
use crate::secret::{self, Secret};
use crate::sources::error::{self, filling};
use crate::sources::{self, Fetched, Sources};

use destination::Workspace;
use local::Copier;

pub use clones::Cloned;
pub use local::copy_plainly;
pub use root::ContextRoot;
pub use select::{Selected, Selection, resolve, select, select_all};

/// Names in `installation` that are the tool's, now or in a build with repositories or a snapshot.
const RESERVED: [&str; 9] = [
    "build.yaml",
    DEFAULT_REQUIREMENTS,
    "entrypoint.sh",
    "jobfiles.txt",
    "manifest.json",
    "repos.json",
    REQUIREMENTS,
    SNAPSHOT_REQUIREMENTS,
    "snapshot.yaml",
];

/// The settings of pip, in the virtual environment.
const PIP_CONF: &str = "pip.conf";

/// The requirements of `packages`.
const REQUIREMENTS: &str = "requirements.txt";

/// The requirements of the layout.
const DEFAULT_REQUIREMENTS: &str = "default-requirements.txt";

/// The requirements of a snapshot.
const SNAPSHOT_REQUIREMENTS: &str = "snapshot-requirements.txt";

/// The image's entrypoint: activates the virtual environment, enters the workspace, and becomes its
/// arguments or a shell.
const ENTRYPOINT: &str = include_str!("entrypoint.sh");

/// The staged files of a build.
#[derive(Debug)]
pub struct Context {
    /// The context's root, absolute. `image/` and `Dockerfile` lie in it.
    pub root: PathBuf,
    /// The folder that paths of instructions are relative to.
    pub copied_from: PathBuf,
    /// `pip.conf` as it is in the image, without credentials.
    pub pip_conf: Option<String>,
    /// `pip.conf` for the step alone, where it differs from the image's.
    pub secret_pip_conf: Option<Secret>,
    /// The files of requirements that pip installs, one after the other.
    pub requirements: Vec<Requirements>,
    /// Files that those include, where the step is to read something else than the image has.
    pub included: Vec<Requirements>,
    /// Clones of the git repositories that they name.
    pub clones: Vec<Cloned>,
    /// Number of files and symlinks that `files` brought, for the summary.
    pub files: u64,
    /// Bytes in the staged files.
    pub bytes: u64,
}

/// A file of requirements. pip installs each in a run of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// Where the image has it.
    pub path: String,
    /// Its text for the step alone, without credentials, where that is another one than the image's.
    pub replaced: Option<String>,
    /// The same with credentials, where it has some.
    pub secret: Option<Secret>,
}

impl Requirements {
    /// A file that the step reads as the image has it.
    fn new(path: String) -> Self {
        Self {
            path,
            replaced: None,
            secret: None,
        }
    }
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
    let lines = [&buildfile.snapshot_packages[..], &buildfile.packages].concat();
    let requirements = pip::requirements(&lines, buildfile.layout);
    pip::sees_workspace(&requirements, buildfile.pip_config.as_deref(), env)
}

/// Adds what the snapshot says that `buildfile` names, if it names one.
pub fn join_snapshot(buildfile: &mut BuildFile) -> Result<(), Error> {
    let Some(path) = &buildfile.snapshot else {
        return Ok(());
    };
    let path = files::expand(path).map_err(|error| error::entry("snapshot", error))?;
    buildfile.join(Snapshot::load(&path)?)
}

/// Stages everything that `buildfile` names under `root`, which exists and holds no `image`.
/// Directories of the tool's own, such as the store, are given as `leave_out`: they stay out of the
/// image when a source holds them. What git brings for requirements is put into `clones`, which does not exist.
pub fn stage(
    buildfile: &BuildFile,
    root: &Path,
    leave_out: &[&Path],
    clones: &Path,
    sources: Sources<'_>,
    progress: &Progress,
) -> Result<Context, Error> {
    let fetched = sources::all(&buildfile.repositories, &buildfile.files, sources, progress)?;
    let layout = buildfile.layout;
    let part = progress.start("stage files");
    let root = fs::canonicalize(root).map_err(filling)?;
    let image = root.join("image");
    make_image(&image, layout).map_err(filling)?;
    let workspace = in_image(&image, layout.workspace());
    let installation = workspace.join(INSTALLATION);
    let mut workspace = Workspace::new(workspace, of_virtual_env(buildfile));
    let mut copier = Copier::new(&root, leave_out, progress, &part).map_err(filling)?;
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
        .map_err(|error| error::entry(name, error))?;
    }
    for entry in &buildfile.files {
        local::stage(
            entry,
            fetched.path(&entry.name),
            &mut workspace,
            &mut copier,
        )
        .map_err(|error| error::entry(&entry.name, error))?;
    }
    workspace.check_folders(folders_of_virtual_env(layout))?;
    let jobs = jobs::discover(&buildfile.jobfiles, layout, workspace.path(), progress)?;
    let mut repos = repos(buildfile, &fetched);
    let manifest = manifests::discover(workspace.path(), layout, &mut repos, progress)?;

    let pip_conf = buildfile
        .pip_config
        .as_deref()
        .map(|text| without_credentials(text, ["pip-config", "pip.conf"], progress));
    let (pip_conf, secret_pip_conf) = pip_conf.unzip();

    let mut texts = vec![("build.yaml", buildfile.masked.clone())];
    let mut requirements = Vec::new();
    for (key, name, text) in own_requirements(buildfile) {
        if name == REQUIREMENTS {
            requirements.extend(repository_requirements(buildfile, &image, progress));
        }
        let (shown, secret) = without_credentials(&text, [key, name], progress);
        if !shown.is_empty() {
            requirements.push(Requirements {
                secret,
                ..Requirements::new(layout.installation(name))
            });
        }
        if name == REQUIREMENTS || !shown.is_empty() {
            texts.push((name, shown));
        }
    }
    texts.extend(jobs::json(&jobs, layout).map(|text| ("jobfiles.txt", text)));
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
        write_file(&installation.join(name), &text, 0o644).map_err(filling)?;
    }
    let entrypoint = entrypoint(layout);
    write_file(&installation.join("entrypoint.sh"), &entrypoint, 0o755).map_err(filling)?;
    if let Some(text) = &pip_conf {
        let path = in_image(&image, layout.virtual_env()).join(PIP_CONF);
        write_file(&path, text, 0o644).map_err(filling)?;
    }

    let (files, bytes) = copier.complete().map_err(filling)?;
    part.finish(if files == 1 {
        "1 file".to_owned()
    } else {
        format!("{files} files")
    });
    fetched.complete()?;
    let (included, clones) =
        clones::provide(&mut requirements, layout, &image, clones, sources, progress)?;
    Ok(Context {
        copied_from: copied_from(&root, workspace.path(), layout),
        root,
        included,
        clones,
        pip_conf,
        secret_pip_conf: secret_pip_conf.flatten(),
        requirements,
        files,
        bytes,
    })
}

/// The directories that every staged image has, and the link.
fn make_image(image: &Path, layout: Layout) -> io::Result<()> {
    make_directory(image)?;
    make_directory(&in_image(image, layout.workspace()))?;
    make_directory(&in_image(image, layout.workspace()).join(INSTALLATION))?;
    if layout.virtual_env() != layout.workspace() {
        make_directory(&in_image(image, layout.virtual_env()))?;
    }
    if let Some((link, target)) = layout.link() {
        fs_err::os::unix::fs::symlink(target, in_image(image, link))?;
    }
    Ok(())
}

/// The folder that paths of instructions are relative to.
fn copied_from(root: &Path, workspace: &Path, layout: Layout) -> PathBuf {
    match layout {
        Layout::Split => root.to_owned(),
        Layout::Pyats => workspace.to_owned(),
    }
}

/// Names in the workspace that are the virtual environment's.
fn of_virtual_env(buildfile: &BuildFile) -> Vec<&'static str> {
    if buildfile.layout.workspace() != buildfile.layout.virtual_env() {
        return Vec::new();
    }
    let pip_conf = buildfile.pip_config.as_ref().map(|_| PIP_CONF);
    ["lib64", "pyvenv.cfg"]
        .into_iter()
        .chain(pip_conf)
        .collect()
}

/// Folders in the workspace that the virtual environment shares.
fn folders_of_virtual_env(layout: Layout) -> &'static [&'static str] {
    if layout.workspace() == layout.virtual_env() {
        &["bin", "include", "lib"]
    } else {
        &[]
    }
}

/// Where an absolute path of the image is staged.
fn in_image(image: &Path, path: &str) -> PathBuf {
    image.join(path.trim_start_matches('/'))
}

/// The entrypoint, which also works where its variables were taken away.
fn entrypoint(layout: Layout) -> String {
    let mut text = ENTRYPOINT.to_owned();
    for (split, own) in Layout::Split.variables().iter().zip(layout.variables()) {
        text = text.replace(&format!(":={}}}", split.1), &format!(":={}}}", own.1));
    }
    text
}

/// The files of requirements that are the tool's own, in the order in which pip installs them: the key that
/// each comes from, its name, and its text.
fn own_requirements(buildfile: &BuildFile) -> [(&'static str, &'static str, String); 3] {
    let layout = buildfile.layout;
    let text = |lines: &[String]| pip::requirements(lines, layout);
    [
        (
            "layout",
            DEFAULT_REQUIREMENTS,
            pip::requirements(layout.packages(), layout),
        ),
        (
            "snapshot",
            SNAPSHOT_REQUIREMENTS,
            text(&buildfile.snapshot_packages),
        ),
        ("packages", REQUIREMENTS, text(&buildfile.packages)),
    ]
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
            let path = format!(
                "{}/{}",
                buildfile.layout.workspace(),
                repository.destination
            );
            let mut facts = fetched.validator(&repository.name)?.clone();
            facts["path"] = Value::String(path.clone());
            if let Value::Object(facts) = &mut facts {
                facts.remove(sources::git::FROM);
            }
            Some((path, facts))
        })
        .collect()
}

/// The `requirements.txt` of the repositories that ask for it.
fn repository_requirements(
    buildfile: &BuildFile,
    image: &Path,
    progress: &Progress,
) -> Vec<Requirements> {
    let mut found = Vec::new();
    for repository in &buildfile.repositories {
        let folder = &repository.destination;
        let path = format!("{}/{folder}/requirements.txt", buildfile.layout.workspace());
        if !repository.requirements {
            continue;
        }
        if fs::symlink_metadata(image.join(&path[1..])).is_ok() {
            found.push(Requirements::new(path));
        } else {
            progress.warn(format!(
                "`{}` asks for its requirements, but has no `requirements.txt`",
                repository.name
            ));
        }
    }
    found
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
