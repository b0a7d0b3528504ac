//! The command line: what the user typed. Turned into [`Options`], what is meant, before anything is done.

mod registries;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use pyats_image_builder::assemble::invalid_epoch;
use pyats_image_builder::base::InvalidSource;
use pyats_image_builder::prune::Limits;
use pyats_image_builder::{
    Again, CacheMode, CachePolicy, CacheRepo, Compression, Error, Installer, Options, Output,
    Platform, Pull, Reference, Runner, Seal, SshOptions, doctor, images,
};

use registries::FormatName;
pub(crate) use registries::{Login, Logout, Push, Registries, ask_login};

/// Builds container images for pyATS jobs from one YAML file: no daemon, no root.
#[derive(Debug, Parser)]
#[command(name = "pyats-image-build", version, about, max_term_width = 100)]
#[command(subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) build: Build,

    #[command(flatten)]
    pub(crate) global: Global,
}

/// Bytes in a key that nobody guesses.
const LEAST_KEY: usize = 16;

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The folder with images, bases and cache [env: PYATS_IMAGE_BUILD_STORE] [default: pyats-image-build in the user's
    /// cache folder]
    // The variable is read with the default: clap takes an empty one for a value.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,

    /// Force the technique by which steps are run
    #[arg(long, global = true, value_name = "RUNNER", value_parser = runner)]
    #[arg(
        help = "How steps are run: auto, root, userns-range, userns-single or chroot [default: auto]"
    )]
    runner: Option<Choice>,

    /// How progress is shown
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub(crate) progress: ProgressMode,

    /// Show nothing but errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// `auto`, or one runner.
#[derive(Debug, Clone, Copy)]
struct Choice(Option<Runner>);

fn runner(text: &str) -> Result<Choice, String> {
    if text == "auto" {
        return Ok(Choice(None));
    }
    text.parse()
        .map(|runner| Choice(Some(runner)))
        .map_err(|error| format!("{error}"))
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// Bars on a terminal, else lines
    Auto,
    /// Bars
    Tty,
    /// Lines with times
    Plain,
    /// One JSON object a line, on standard error
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show an image as `docker image inspect` does
    Inspect(Inspect),
    /// Give an image of the store further tags
    Tag(Tag),
    /// Run a command in an image
    Run(Run),
    /// Say what this machine allows, and the remedy for what it does not
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Of this command
        #[arg(value_name = "COMMAND", value_parser = page)]
        page: Option<String>,
    },
    /// Push an image to a registry
    Push(Push),
    /// Keep a login for a registry, once it did
    Login(Login),
    /// Forget the login for a registry
    Logout(Logout),
    /// Look at what the store holds, and remove what is not needed
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Print a JSON Schema of the build file, for editors
    Schema,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List what the store holds, and when it was last used
    Ls {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what was not used for a while; never what a running build uses
    Prune(Prune),
    /// Write what steps made to a folder, for a CI system that keeps it
    Export(Carry),
    /// Take what steps made from such a folder; nothing there is nothing to take
    Import(Carry),
}

#[derive(Debug, Args)]
pub(crate) struct Carry {
    /// The folder: an OCI image layout
    pub(crate) folder: PathBuf,

    /// Sign entries with the key in this file, and take none that is not signed with it
    #[arg(long, value_name = "FILE")]
    cache_key_file: Option<PathBuf>,
}

impl Carry {
    pub(crate) fn seal(&self) -> Result<Seal, Error> {
        seal(self.cache_key_file.as_deref())
    }
}

/// The key in a file, if one is named.
fn seal(file: Option<&Path>) -> Result<Seal, Error> {
    let Some(file) = file else {
        return Ok(Seal::default());
    };
    let key = fs_err::read(file).map_err(|error| bad_key(&error))?;
    if key.len() < LEAST_KEY {
        let file = file.display();
        return Err(bad_key(&format!(
            "`{file}` has less than {LEAST_KEY} bytes"
        )));
    }
    Ok(Seal::with_key(&key))
}

fn bad_key(problem: &dyn std::fmt::Display) -> Error {
    Error::options(format!("the key of the cache cannot be used: {problem}"))
        .with_hint("name a file of random bytes, such as `head -c 32 /dev/urandom` gives")
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// What was not used for so long, such as 12h or 14d
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "14d")]
    older_than: Duration,

    /// And what was not used for longest, until the store has no more than this, such as 500MB or 20GB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,

    /// Whatever was not used since the oldest running build began, images under their tags included
    #[arg(long, short, conflicts_with_all = ["older_than", "max_size"])]
    all: bool,

    /// Say what would be removed, and remove nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

impl Prune {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            unused_for: if self.all {
                Duration::ZERO
            } else {
                self.older_than
            },
            size: self.max_size,
            images: self.all,
            dry_run: self.dry_run,
        }
    }
}

/// The options of a build.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub(crate) struct Build {
    /// YAML file defining the image to be built; `-` is standard input
    #[arg(required = true)]
    file: Option<PathBuf>,

    /// Tag for the image. Overrides any tag defined in the YAML; the first is the main one
    #[arg(long = "tag", short, value_name = "TAG")]
    tags: Vec<String>,

    /// A folder to use as the context while building
    #[arg(long, short, value_name = "PATH")]
    path: Option<PathBuf>,

    /// Do not use the cache when building the image
    #[arg(long, short = 'c')]
    no_cache: bool,

    /// Use nothing of the cache that is older, such as 12h or 14d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    cache_ttl: Option<Duration>,

    /// Prevents the context from being deleted once the image is built
    #[arg(long, short)]
    keep_context: bool,

    /// Set up the context and show the plan, but do not build the image
    #[arg(long, short = 'n')]
    dry_run: bool,

    /// Print the output of the build's steps
    #[arg(long, short)]
    pub(crate) verbose: bool,

    /// Write the image: oci-dir, oci-archive or docker-archive. Without it, the image stays in the store
    #[arg(long = "output", short, value_name = "KIND[:PATH]")]
    outputs: Vec<Output>,

    /// Base image instead of `python:X-slim`: a registry reference, oci:DIR[:TAG], oci-archive:FILE[:TAG]
    /// or docker-archive:FILE
    #[arg(long, value_name = "REFERENCE")]
    base: Option<String>,

    /// Who installs the packages: pip or uv. Overrides the YAML's `installer` [default: pip]
    #[arg(long, value_name = "NAME")]
    installer: Option<Installer>,

    /// What to pull and build for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,

    /// Compression of the layers that are made here: gzip, zstd or none
    #[arg(long, value_name = "KIND[:LEVEL]", default_value_t)]
    compression: Compression,

    /// Media types of the image
    #[arg(long, value_enum, default_value = "oci")]
    format: FormatName,

    /// When to ask the registry for a newer base: always, missing or never [default: once an hour]
    #[arg(long, value_name = "WHEN")]
    pull: Option<Pull>,

    /// Use only what the store has
    #[arg(long, conflicts_with_all = ["pull", "no_cache"])]
    offline: bool,

    /// Sources and layers that are fetched side by side
    #[arg(long, short, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,

    /// Push the image once it is built, under all of its tags
    #[arg(long, short = 'P')]
    push: bool,

    /// Do not find out first whether pushing is allowed
    #[arg(long)]
    skip_push_check: bool,

    /// Share what steps make through this repository of a registry
    #[arg(long, value_name = "REFERENCE")]
    cache_repo: Option<Reference>,

    /// What is done with it: both, read or write
    #[arg(
        long,
        value_name = "MODE",
        default_value = "both",
        requires = "cache_repo"
    )]
    cache_mode: CacheMode,

    /// Sign what is put there with the key in this file, and use nothing that is not signed with it
    #[arg(long, value_name = "FILE", requires = "cache_repo")]
    cache_key_file: Option<PathBuf>,

    /// Give steps a secret: RUN by `--mount=type=secret`; pip gets `pip.conf` and `netrc`
    #[arg(long = "secret", value_name = "id=ID,src=FILE", value_parser = secret)]
    secrets: Vec<(String, PathBuf)>,

    /// Add a label to the image's config
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,

    /// Add an annotation to the image's manifest
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = pair)]
    annotations: Vec<(String, String)>,

    /// Where steps do their work [default: in the store]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,

    #[command(flatten)]
    registries: Registries,

    /// Ask this mirror before the registry, which is docker.io without a name
    #[arg(long = "registry-mirror", value_name = "[REGISTRY=]HOST[/PATH]")]
    mirrors: Vec<String>,

    /// Take the host key of an ssh server that is not known yet for its own, and remember it
    #[arg(long)]
    accept_new_host_keys: bool,

    /// Host keys of ssh servers [default: the user's file and the system's]
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,

    /// Write the manifest's digest to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) digest_file: Option<PathBuf>,

    /// Write the image's id (the config's digest) to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,

    /// Write what was built to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A tag or id in the store, oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE
    pub(crate) image: String,
}

#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// A tag or id in the store
    pub(crate) image: String,

    /// The tags, completed as those of a build
    #[arg(required = true, value_name = "REFERENCE")]
    pub(crate) references: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Mount a file or directory of this machine, named by an absolute path or one that begins with `./`; `:ro` for
    /// read-only
    #[arg(long = "volume", short, value_name = "HOST:IMAGE[:ro]")]
    pub(crate) volumes: Vec<String>,

    /// Set an environment variable; without a value, the one of this environment
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,

    /// Set the environment variables in a file, one `NAME[=VALUE]` per line; `--env` wins
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,

    /// Run the command as this user of the image, by name or number
    #[arg(long, short, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,

    /// Let the command read standard input
    #[arg(long, short)]
    pub(crate) interactive: bool,

    /// Give the command this terminal
    #[arg(long, short)]
    pub(crate) tty: bool,

    /// Where the command starts
    #[arg(long, short, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,

    /// Replace the image's entrypoint; empty for none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,

    /// Accepted for Docker's sake: what a command writes never stays
    #[arg(long)]
    pub(crate) rm: bool,

    /// A tag or id in the store, oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE
    pub(crate) image: String,

    /// The command and its arguments; without one, the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Look whether this base can be had
    #[arg(long, value_name = "REFERENCE", default_value = "python:3.11-slim")]
    base: String,

    /// Ask no other machine
    #[arg(long)]
    offline: bool,

    #[command(flatten)]
    registries: Registries,
}

impl Doctor {
    /// What is meant.
    pub(crate) fn options(&self, global: &Global) -> Result<doctor::Options, Error> {
        let base: Reference = self.base.parse().map_err(InvalidSource::Reference)?;
        Ok(doctor::Options {
            store: images::place(global.store.as_deref())?,
            runner: global.runner(),
            base,
            access: self.registries.access(&[])?,
            offline: self.offline,
        })
    }
}

/// `id=ID,src=FILE`; an empty text among them is not there.
fn secret(text: &str) -> Result<(String, PathBuf), String> {
    let (mut id, mut source) = (None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("id", value)) if !value.is_empty() => id = Some(value.to_owned()),
            Some(("src" | "source", value)) if !value.is_empty() => {
                source = Some(PathBuf::from(value));
            }
            Some(("type", "file")) => {}
            _ => return Err(format!("`{part}` is neither `id=ID` nor `src=FILE`")),
        }
    }
    match (id, source) {
        (Some(_), Some(path)) if !path.is_file() => Err(format!("`{}` is no file", path.display())),
        (Some(id), Some(path)) => Ok((id, path)),
        _ => Err("write `id=ID,src=FILE`".to_owned()),
    }
}

/// `90s`, `30m`, `12h`, `14d`
fn duration(text: &str) -> Result<Duration, String> {
    let error = || "use a number and a unit: s, m, h or d".to_owned();
    let unit = text.chars().last().ok_or_else(error)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        _ => return Err(error()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| error())?;
    let seconds = number.checked_mul(seconds).ok_or_else(error)?;
    Ok(Duration::from_secs(seconds))
}

/// `500MB`, `20GB`, `1GiB`, or bytes
fn size(text: &str) -> Result<u64, String> {
    let error = || "use a number and a unit: kB, MB, GB, KiB, MiB or GiB".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(unit).ok_or_else(error)
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("use NAME=VALUE".to_owned()),
    }
}

impl Global {
    /// The runner that the user forces.
    pub(crate) fn runner(&self) -> Option<Runner> {
        self.runner.and_then(|choice| choice.0)
    }
}

impl Build {
    fn cache_repo(&self) -> Result<Option<CacheRepo>, Error> {
        let Some(repository) = &self.cache_repo else {
            return Ok(None);
        };
        Ok(Some(CacheRepo {
            repository: repository.clone(),
            mode: self.cache_mode,
            seal: seal(self.cache_key_file.as_deref())?,
        }))
    }

    /// What is meant.
    pub(crate) fn options(&self, global: &Global) -> Result<Options, Error> {
        Ok(Options {
            files: [&self.digest_file, &self.iidfile, &self.metadata_file]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            file: self.file.clone().unwrap_or_default(),
            tags: self.tags.clone(),
            path: self.path.clone(),
            keep_context: self.keep_context,
            dry_run: self.dry_run,
            outputs: self.outputs.clone(),
            base: self.base.clone(),
            installer: self.installer,
            platform: self.platform.clone(),
            compression: self.compression,
            runner: global.runner(),
            store: global.store.clone(),
            work_dir: self.work_dir.clone(),
            pull: if self.offline {
                Pull::Never
            } else {
                self.pull.unwrap_or(Pull::Default)
            },
            again: match (self.offline, self.no_cache) {
                (true, _) => Again::Offline,
                (false, true) => Again::Anew,
                (false, false) => Again::Ask,
            },
            cache: CachePolicy {
                is_used: !self.no_cache,
                ttl: self.cache_ttl,
            },
            cache_repo: self.cache_repo()?,
            jobs: usize::from(self.jobs),
            ssh: SshOptions {
                accept_new_host_keys: self.accept_new_host_keys,
                known_hosts: self.known_hosts.clone(),
            },
            access: self.registries.access(&self.mirrors)?,
            push: match (self.push, self.skip_push_check) {
                (false, _) => pyats_image_builder::Push::No,
                (true, false) => pyats_image_builder::Push::Checked,
                (true, true) => pyats_image_builder::Push::Unchecked,
            },
            secrets: self.secrets.clone(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            format: self.format.into(),
            epoch: epoch()?,
        })
    }
}

/// The command line, and the first option of a build that stands beside another command.
pub(crate) fn parse() -> (Cli, Option<(String, String)>) {
    let matches = Cli::command().get_matches();
    let misplaced = matches.subcommand_name().and_then(|command| {
        let build = Build::augment_args(clap::Command::new("build"));
        let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let option = build
            .get_arguments()
            .find(|argument| given(argument.get_id().as_str()))?;
        let name = option
            .get_long()
            .map_or_else(|| "FILE".to_owned(), |long| format!("--{long}"));
        Some((name, command.to_owned()))
    });
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    (cli, misplaced)
}

/// `SOURCE_DATE_EPOCH`; empty counts as unset.
fn epoch() -> Result<Option<i64>, Error> {
    match std::env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => {
            let text = value.to_string_lossy();
            let parsed = text.parse().ok().filter(|seconds| *seconds >= 0);
            parsed.map(Some).ok_or_else(|| invalid_epoch(&text))
        }
    }
}

/// The completion script for a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pyats-image-build", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The manual page, or that of a command, as troff.
pub(crate) fn man(page: Option<&str>) -> std::io::Result<String> {
    let mut command = Cli::command();
    command.build();
    let of_command = page.and_then(|name| command.find_subcommand(name));
    let mut text = Vec::new();
    clap_mangen::Man::new(of_command.unwrap_or(&command).clone()).render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn page(name: &str) -> Result<String, String> {
    match Cli::command().find_subcommand(name) {
        Some(command) => Ok(command.get_name().to_owned()),
        None => Err("there is no such command".to_owned()),
    }
}
