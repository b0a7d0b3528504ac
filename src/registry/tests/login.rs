//! Logins, in real files and with real helpers.

mod entries;
mod files;
mod helpers;
mod keeping;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::registry::login::Environment;
use crate::registry::{Credentials, Found, LoginError, Logins};
use crate::secret::Secret;

/// A word that nothing may show.
const PLANTED: &str = "PLANTED";

/// A user with a home, and the folders that the variables name.
struct Home {
    folder: tempfile::TempDir,
    environment: Environment,
    logins: Logins,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let environment = Environment {
            authfile: None,
            runtime: Some(path("run/containers")),
            config: Some(path("config")),
            docker: None,
            text: None,
            home: Some(path("home")),
            path: format!("{}:/usr/bin:/bin", path("bin").display()).into(),
            patience: Duration::from_secs(60),
        };
        Self {
            folder,
            environment,
            logins: Logins::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&fs_err::read(self.path(name)).unwrap()).unwrap()
    }

    /// Installs a helper. Another process writes it: a file that this one has open for writing, and any
    /// child that another test starts at that moment with it, cannot be executed.
    fn helper(&self, name: &str, script: &str) {
        self.install(name, "755", &format!("#!/bin/sh\n{script}\n"));
    }

    fn install(&self, name: &str, mode: &str, text: &str) {
        fs_err::create_dir_all(self.path("bin")).unwrap();
        let mut child = Command::new("install")
            .args(["-m", mode, "/dev/stdin"])
            .arg(self.path("bin").join(format!("docker-credential-{name}")))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, text.as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }

    fn find(&self, registry: &str, repository: &str) -> Result<Found, LoginError> {
        self.logins.find_in(&self.environment, registry, repository)
    }

    /// What was found, and where, in one line.
    fn found(&self, registry: &str, repository: &str) -> String {
        match self.find(registry, repository).unwrap().login {
            None => "nothing".to_owned(),
            Some(login) => {
                let what = match &login.credentials {
                    Credentials::Password { user, password } => {
                        format!("{user}:{}", password.reveal())
                    }
                    Credentials::IdentityToken(token) => format!("identity {}", token.reveal()),
                    Credentials::RegistryToken(token) => format!("registry {}", token.reveal()),
                };
                format!("{what} in {}", self.masked(&login.origin))
            }
        }
    }

    /// The user whose login was found.
    fn user(&self, registry: &str, repository: &str) -> Option<String> {
        match self.find(registry, repository).unwrap().login?.credentials {
            Credentials::Password { user, .. } => Some(user),
            other => panic!("{other:?}"),
        }
    }

    fn save(&self, registry: &str, user: &str, password: &str) -> Result<String, LoginError> {
        let password = Secret::new(password);
        let place = self
            .logins
            .save_in(&self.environment, registry, user, &password);
        place.map(|place| self.masked(&place))
    }

    fn remove(&self, registry: Option<&str>) -> Result<Vec<String>, LoginError> {
        let places = self.logins.remove_in(&self.environment, registry)?;
        Ok(places.iter().map(|place| self.masked(place)).collect())
    }

    fn masked(&self, text: &str) -> String {
        text.replace(self.folder.path().to_str().unwrap(), "")
    }

    /// An error with its cause and its hint, which show nothing that is secret.
    fn told(&self, error: &LoginError) -> String {
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            text = format!("{text}: {source}");
        }
        if let Some(hint) = error.hint() {
            text = format!("{text} | {hint}");
        }
        assert!(!format!("{text} {error:?}").contains(PLANTED), "{error:?}");
        self.masked(&text)
    }

    /// What searching for a login of `h.example` fails with.
    fn refused(&self) -> String {
        self.told(&self.find("h.example", "team/image").unwrap_err())
    }
}

fn auth(user: &str) -> String {
    STANDARD.encode(format!("{user}:{PLANTED}"))
}

/// A file with one login for each key, whose user is called like the key, colons left out.
fn auths(keys: &[&str]) -> String {
    let entry = |key: &&str| {
        (
            (*key).to_owned(),
            serde_json::json!({"auth": auth(&name(key))}),
        )
    };
    let entries: serde_json::Map<_, _> = keys.iter().map(entry).collect();
    serde_json::json!({ "auths": entries }).to_string()
}

fn name(key: &str) -> String {
    key.replace(':', "")
}

const HUB: &str = "https://index.docker.io/v1/";
const CONFIG: &str = "home/.docker/config.json";

/// The user whose login skopeo finds.
fn skopeo_user(home: &Home, registry: &str) -> Option<String> {
    let output = Command::new("skopeo")
        .args(["login", "--get-login", registry])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home.path("home"))
        .env("XDG_RUNTIME_DIR", home.path("run"))
        .env("XDG_CONFIG_HOME", home.path("config"))
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| stdout.trim().to_owned())
}
