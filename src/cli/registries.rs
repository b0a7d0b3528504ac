//! The options and commands about registries: how they are reached, and who asks.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pyats_image_builder::Error;
use pyats_image_builder::{Access, Format, PushOptions, Secret};

use super::Global;

/// A login for the registry of a command, beside `--creds`.
const USERNAME: &str = "PYATS_IMAGE_BUILD_USERNAME";
const PASSWORD: &str = "PYATS_IMAGE_BUILD_PASSWORD";

/// How registries are reached, and who asks.
#[derive(Debug, Args)]
pub(crate) struct Registries {
    /// Logins for registries [default: those of podman and Docker]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,

    /// The login for the registry
    #[arg(long, value_name = "USER:PASSWORD", value_parser = creds)]
    #[arg(
        help = "The login for the registry; better hidden in PYATS_IMAGE_BUILD_USERNAME and \
                PYATS_IMAGE_BUILD_PASSWORD"
    )]
    creds: Option<(String, Secret)>,

    /// Certificates to trust, beside the system's
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,

    /// Speak to this registry by plain HTTP, or without verifying its certificate
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    insecure: Vec<String>,
}

fn creds(text: &str) -> Result<(String, Secret), String> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => Ok((user.to_owned(), Secret::new(password))),
        _ => Err("use USER:PASSWORD".to_owned()),
    }
}

impl Registries {
    /// What is meant, with these mirrors.
    pub(super) fn access(&self, mirrors: &[String]) -> Result<Access, Error> {
        Ok(Access {
            insecure: self.insecure.clone(),
            mirrors: mirrors.to_vec(),
            authfile: self.authfile.clone(),
            login: self.login()?,
            ca_cert: self.ca_cert.clone(),
        })
    }

    fn login(&self) -> Result<Option<pyats_image_builder::Login>, Error> {
        let login = |(user, password), origin| pyats_image_builder::Login {
            user,
            password,
            origin,
        };
        if let Some(creds) = self.creds.clone() {
            return Ok(Some(login(creds, "`--creds`")));
        }
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        match (set(USERNAME), set(PASSWORD)) {
            (Some(user), Some(password)) => {
                let creds = (user, Secret::new(password));
                Ok(Some(login(creds, "`PYATS_IMAGE_BUILD_USERNAME`")))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err(half_login(USERNAME, PASSWORD)),
            (None, Some(_)) => Err(half_login(PASSWORD, USERNAME)),
        }
    }
}

fn half_login(set: &str, unset: &str) -> Error {
    Error::options(format!("`{set}` is set, but `{unset}` is not"))
        .with_hint("set both, or neither")
}

/// Media types of an image.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum FormatName {
    /// The OCI image specification's
    Oci,
    /// Docker's
    Docker,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Oci => Self::Oci,
            FormatName::Docker => Self::Docker,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// A tag or id in the store, oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE
    image: String,

    /// Where to push it; without one, under the image's own name
    #[arg(value_name = "REFERENCE")]
    references: Vec<String>,

    /// Change the media types; without it they stay as they are
    #[arg(long, value_enum)]
    format: Option<FormatName>,

    #[command(flatten)]
    registries: Registries,

    /// Layers that are sent side by side
    #[arg(long, short, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,

    /// Write the manifest's digest to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) digest_file: Option<PathBuf>,

    /// Write what was pushed to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
}

impl Push {
    /// What is meant.
    pub(crate) fn options(&self, global: &Global) -> Result<PushOptions, Error> {
        Ok(PushOptions {
            image: self.image.clone(),
            references: self.references.clone(),
            store: global.store.clone(),
            format: self.format.map(Format::from),
            jobs: usize::from(self.jobs),
            access: self.registries.access(&[])?,
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The registry
    #[arg(default_value = "docker.io")]
    pub(crate) registry: String,

    /// User name; asked for without
    #[arg(long, short, value_name = "USER")]
    pub(crate) username: Option<String>,

    /// Password; others on this machine may see it
    #[arg(
        long,
        short,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    pub(crate) password: Option<String>,

    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,

    #[command(flatten)]
    registries: Registries,
}

impl Login {
    /// How the registry is reached. A login that was given with the command is taken for the one to keep.
    pub(crate) fn access(&self) -> Result<Access, Error> {
        self.registries.access(&[])
    }
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// The registry
    #[arg(default_value = "docker.io", conflicts_with = "all")]
    pub(crate) registry: String,

    /// Forget all logins of the file
    #[arg(long)]
    pub(crate) all: bool,

    /// Logins for registries [default: those of podman and Docker]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

fn no_terminal(what: &str) -> Error {
    Error::options(format!("there is no terminal to ask for the {what}"))
        .with_hint("give `--username`, and the password by `--password-stdin`")
}

/// User name and password from the command line, standard input or the terminal.
pub(crate) fn ask_login(arguments: &Login) -> Result<pyats_image_builder::Login, Error> {
    let is_terminal = std::io::stdin().is_terminal();
    let user = match &arguments.username {
        Some(user) => user.clone(),
        None if is_terminal && !arguments.password_stdin => {
            ask("User name: ").ok_or_else(|| no_terminal("user name"))?
        }
        None => return Err(no_terminal("user name")),
    };
    let password = match &arguments.password {
        Some(password) => password.clone(),
        None if arguments.password_stdin => {
            let mut text = String::new();
            std::io::stdin()
                .take(1 << 16)
                .read_to_string(&mut text)
                .map_err(|_| no_terminal("password"))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => rpassword::prompt_password("Password: ").map_err(|_| no_terminal("password"))?,
    };
    Ok(pyats_image_builder::Login {
        user,
        password: Secret::new(password),
        origin: "`login`",
    })
}

fn ask(prompt: &str) -> Option<String> {
    let mut terminal = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .ok()?;
    terminal.write_all(prompt.as_bytes()).ok()?;
    let mut line = String::new();
    BufReader::new(terminal).read_line(&mut line).ok()?;
    let name = line.trim().to_owned();
    (!name.is_empty()).then_some(name)
}
