//! What is asked of a build, and what comes of it.

use std::path::PathBuf;

use crate::access::Access;
use crate::base::Pull;
use crate::buildfile::Installer;
use crate::cache::{self, Policy, Seal};
use crate::image::{Entry, Format, Image};
use crate::images;
use crate::layer::Compression;
use crate::manifest::Platform;
use crate::output::{self, Kind, Output};
use crate::registry::Reference;
use crate::runner::Runner;
use crate::sources::{Again, SshOptions};
use crate::step::Fate;

/// What is asked of a build.
///
/// [`new`](Self::new) gives what the program does when only the build file is named; all else are fields:
///
/// ```
/// use pyats_image_builder::{Compression, Options};
///
/// # let _ = || -> Result<Options, Box<dyn std::error::Error>> {
/// let options = Options {
///     tags: vec!["registry.example.com/team/tests:1".to_owned()],
///     outputs: vec!["oci-archive:tests.tar".parse()?],
///     compression: Compression::Zstd(3),
///     ..Options::new("build.yaml")
/// };
/// # Ok(options) };
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    /// The build file; `-` is standard input. Relative paths in it are relative to the current directory.
    pub file: PathBuf,
    /// Tags, in place of the build file's; the first is the main one.
    pub tags: Vec<String>,
    /// Where the context is staged; absent, in a folder of its own.
    pub path: Option<PathBuf>,
    /// Whether the context stays.
    pub keep_context: bool,
    /// Stage and plan, but build nothing.
    pub dry_run: bool,
    /// What is written beside the store.
    pub outputs: Vec<Output>,
    /// Small files that the caller will write: whether they can be is found out before anything is done.
    pub files: Vec<PathBuf>,
    /// The base, in place of the build file's: a registry reference, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or
    /// `docker-archive:FILE`.
    pub base: Option<String>,
    /// Who installs the packages, in place of the build file's.
    pub installer: Option<Installer>,
    /// What to build for, in place of the build file's, or this machine's.
    pub platform: Option<Platform>,
    /// Of the layers that are made here.
    pub compression: Compression,
    /// How steps are run; absent, in the best way that works here.
    pub runner: Option<Runner>,
    /// The store's folder; absent, the [default](images::default_store).
    pub store: Option<PathBuf>,
    /// Where steps work; absent, in the store.
    pub work_dir: Option<PathBuf>,
    /// When the registry is asked for a newer base.
    pub pull: Pull,
    /// What is done about sources that were fetched before.
    pub again: Again,
    /// What is done about steps that were run before.
    pub cache: Policy,
    /// Where other machines keep what steps made.
    pub cache_repo: Option<CacheRepo>,
    /// Sources, and layers, that are moved side by side.
    pub jobs: usize,
    /// How ssh decides whom to trust.
    pub ssh: SshOptions,
    /// How registries and other machines are reached.
    pub access: Access,
    /// Whether the image is pushed under all of its tags.
    pub push: Push,
    /// Secrets that steps may ask for: their ids, and the files that hold them.
    pub secrets: Vec<(String, PathBuf)>,
    /// Added to the build file's.
    pub labels: Vec<(String, String)>,
    /// Added to the build file's.
    pub annotations: Vec<(String, String)>,
    /// Whose media types are written.
    pub format: Format,
    /// The time of everything in the image, in seconds since 1970, by which the same input gives the same digest. The
    /// program takes it from `SOURCE_DATE_EPOCH`; the library reads no such variable.
    pub epoch: Option<i64>,
}

impl Options {
    /// What the program does when only the build file is named.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            tags: Vec::new(),
            path: None,
            keep_context: false,
            dry_run: false,
            outputs: Vec::new(),
            files: Vec::new(),
            base: None,
            installer: None,
            platform: None,
            compression: Compression::default(),
            runner: None,
            store: None,
            work_dir: None,
            pull: Pull::Default,
            again: Again::Ask,
            cache: Policy {
                is_used: true,
                ttl: None,
            },
            cache_repo: None,
            jobs: images::JOBS,
            ssh: SshOptions::default(),
            access: Access::default(),
            push: Push::No,
            secrets: Vec::new(),
            labels: Vec::new(),
            annotations: Vec::new(),
            format: Format::Oci,
            epoch: None,
        }
    }
}

/// A step cache in a registry.
#[derive(Debug, Clone)]
pub struct CacheRepo {
    /// The repository; tag and digest mean nothing.
    pub repository: Reference,
    /// What is done with it.
    pub mode: cache::Mode,
    /// How entries are signed.
    pub seal: Seal,
}

/// Whether an image is pushed once it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Push {
    /// It stays here.
    #[default]
    No,
    /// It is, if that is allowed, which is found out first.
    Checked,
    /// It is, and nobody is asked before.
    Unchecked,
}

/// What came of a build.
#[derive(Debug)]
pub struct Outcome {
    /// What the image is built from, and how.
    pub plan: Plan,
    /// The image; absent after a dry run.
    pub image: Option<Image>,
    /// The entries of the history that were made here, lowest first.
    pub entries: Vec<Entry>,
}

/// What a build does.
#[derive(Debug)]
pub struct Plan {
    /// The base's name and digest.
    pub base: String,
    /// What is run, in order, as the history says it; instructions of `cmds` are not among it.
    pub steps: Vec<String>,
    /// What became of each step, or would, by its name.
    pub fates: Vec<(String, Fate)>,
    /// The tags, completed; the first is the main one.
    pub references: Vec<String>,
    /// Where it is pushed.
    pub pushed: Vec<Reference>,
    /// Where it is written, beside the store.
    pub outputs: Vec<(Kind, PathBuf)>,
    /// Where the context is, if it stays.
    pub context: Option<PathBuf>,
    /// Number of files in the context, and their bytes.
    pub staged: (u64, u64),
}

impl Plan {
    /// Whether an output goes to standard output, which nothing else can go to then.
    #[must_use]
    pub fn streams(&self) -> bool {
        let mut outputs = self.outputs.iter();
        outputs.any(|(_, path)| output::is_stdout(path))
    }
}
