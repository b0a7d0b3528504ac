//! A real registry: Debian's docker-registry on a free port of the loopback interface.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::tokens::Tokens;
use super::{have, succeed};

/// A running registry, empty at first; it ends with the value, or with the tests.
#[derive(Debug)]
pub(crate) struct Registry {
    directory: tempfile::TempDir,
    data: PathBuf,
    process: Child,
    port: u16,
}

/// What is special about a registry.
#[derive(Debug, Default)]
pub(crate) struct Settings<'a> {
    /// Who may come in.
    pub(crate) login: Login<'a>,
    /// What it does with pushes.
    pub(crate) mode: Mode<'a>,
    /// The path that it believes to be under, such as `/registry/`; empty for none.
    pub(crate) prefix: &'a str,
    /// Whether its `Location` headers are paths and not whole URLs.
    pub(crate) relative: bool,
    /// Another one's data, for a second way to the same images.
    pub(crate) data: Option<&'a Registry>,
    /// Where its images lie, if that counts.
    pub(crate) place: Option<&'a Path>,
    /// Whether its images lie in memory, if that has room for a gigabyte: a slow disk would be the same to all
    /// whose time is taken.
    pub(crate) is_in_memory: bool,
}

/// Who may come in.
#[derive(Debug, Default)]
pub(crate) enum Login<'a> {
    /// Everybody.
    #[default]
    Open,
    /// [`Registry::USER`] with [`Registry::PASSWORD`], by Basic authentication.
    Password,
    /// Whom the token server lets in.
    Tokens(&'a Tokens),
}

/// What a registry does with pushes.
#[derive(Debug, Default)]
pub(crate) enum Mode<'a> {
    /// It takes them.
    #[default]
    ReadWrite,
    /// It refuses them, as during maintenance.
    ReadOnly,
    /// It refuses them, and fetches what it lacks from another registry.
    MirrorOf(&'a Registry),
}

/// One request, as the registry's access log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    /// `GET`, `PUT` and so on.
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// Of the answer.
    pub(crate) status: u16,
}

impl Registry {
    /// The user name that a registry with a password wants.
    pub(crate) const USER: &str = "tester";
    /// Its password.
    pub(crate) const PASSWORD: &str = "pa55:of registry";

    /// Starts an open registry; `None` (and the test is skipped) if the programs are not there.
    pub(crate) fn start() -> Option<Self> {
        Self::with(&Settings::default())
    }

    /// One that lets in who has this login.
    pub(crate) fn with_login(login: Login<'_>) -> Option<Self> {
        Self::with(&Settings {
            login,
            ..Settings::default()
        })
    }

    /// An open one with the images of another.
    pub(crate) fn beside(other: &Self) -> Option<Self> {
        Self::with(&Settings {
            data: Some(other),
            ..Settings::default()
        })
    }

    /// An open one whose images lie in memory.
    pub(crate) fn in_memory() -> Option<Self> {
        Self::with(&Settings {
            is_in_memory: true,
            ..Settings::default()
        })
    }

    /// One with what is special about it.
    pub(crate) fn with(settings: &Settings<'_>) -> Option<Self> {
        if !have(&["docker-registry", "skopeo", "setpriv"]) {
            return None;
        }
        let memory = Path::new("/dev/shm");
        let room = || {
            let disk = rustix::fs::statvfs(memory);
            disk.is_ok_and(|disk| disk.f_bavail * disk.f_frsize > 1 << 30)
        };
        let place = if settings.is_in_memory && room() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let directory = tempfile::Builder::new()
            .prefix("pib-registry-")
            .tempdir_in(place)
            .expect("a folder");
        let own = settings.place.unwrap_or(directory.path()).join("data");
        let data = settings.data.map_or(own, |other| other.data.clone());
        let config = directory.path().join("config.yml");
        let text = configuration(settings, directory.path(), &data);
        fs::write(&config, text).expect("the folder is ours");
        let log = fs::File::create(directory.path().join("log")).expect("the folder is ours");
        let both = log.file().try_clone().expect("descriptors are not used up");
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(both)
            .stderr(log.into_parts().0)
            .spawn()
            .expect("docker-registry starts");
        let mut registry = Self {
            directory,
            data,
            process,
            port: 0,
        };
        registry.port = registry.wait();
        Some(registry)
    }

    fn wait(&mut self) -> u16 {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let log = self.log();
            let said = log.split("listening on 127.0.0.1:").nth(1);
            if let Some(port) =
                said.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
            {
                return port.parse().expect("a port");
            }
            let ended = self.process.try_wait().expect("it is our child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "docker-registry did not start: {log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `host:port`
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The port on the loopback interface.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What a user would call the image `name`, such as `library/python:3.11-slim`.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Pushes an image of a layout with skopeo, and returns its reference.
    pub(crate) fn push(&self, layout: &Path, tag: &str, name: &str) -> String {
        let source = format!("oci:{}:{tag}", layout.display());
        let reference = self.reference(name);
        let mut command = Command::new("skopeo");
        command.args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &source,
        ]);
        succeed(command.arg(format!("docker://{reference}")));
        reference
    }

    /// Where the registry keeps the blob, to be tampered with.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let blobs = self.data.join("docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// The digest under a tag of a repository; `None` if there is nothing.
    pub(crate) fn tagged(&self, repository: &str, tag: &str) -> Option<String> {
        let tags = self.data.join("docker/registry/v2/repositories");
        let tags = tags.join(repository).join("_manifests/tags");
        fs::read_to_string(tags.join(tag).join("current/link")).ok()
    }

    /// Everything it has logged: one line a request.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The requests that it has answered.
    pub(crate) fn requests(&self) -> Vec<Logged> {
        // host - - [time] "METHOD path HTTP/1.1" status …, between lines of another form.
        let request = |line: &str| {
            let mut parts = line.split('"').skip(1);
            let mut request = parts.next()?.split(' ');
            let status = parts.next()?.trim().split(' ').next()?;
            Some(Logged {
                method: request.next()?.to_owned(),
                path: request.next()?.to_owned(),
                status: status.parse().ok()?,
            })
        };
        let log = self.log();
        let access = log.lines().filter(|line| line.contains(" HTTP/1.1\" "));
        access.filter_map(request).collect()
    }

    /// The requests that send bytes of blobs, or announce them; a mount that worked is none.
    pub(crate) fn uploads(&self) -> Vec<Logged> {
        let mut requests = self.requests();
        requests.retain(|request| {
            let sends = matches!(request.method.as_str(), "POST" | "PATCH" | "PUT");
            sends && request.path.contains("/blobs/uploads/") && !request.is_mount()
        });
        requests
    }

    /// Stops it; the port refuses connections from then on.
    pub(crate) fn stop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Logged {
    /// Whether it made a blob of another repository appear here.
    pub(crate) fn is_mount(&self) -> bool {
        self.method == "POST" && self.path.contains("mount=sha256") && self.status == 201
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn configuration(settings: &Settings<'_>, at: &Path, data: &Path) -> String {
    let Settings {
        prefix, relative, ..
    } = settings;
    let prefix = match *prefix {
        "" => String::new(),
        prefix => format!("prefix: '{prefix}', "),
    };
    let login = match settings.login {
        Login::Open => String::new(),
        Login::Password => {
            let path = at.join("htpasswd");
            let line = format!("{}:{}\n", Registry::USER, bcrypt(Registry::PASSWORD));
            fs::write(&path, line).expect("the folder is ours");
            format!(
                "auth: {{htpasswd: {{realm: tests, path: '{}'}}}}\n",
                path.display()
            )
        }
        Login::Tokens(tokens) => format!(
            "auth: {{token: {{realm: '{}', service: '{}', issuer: '{}', rootcertbundle: '{}'}}}}\n",
            tokens.realm(),
            Tokens::SERVICE,
            Tokens::ISSUER,
            tokens.certificate().display()
        ),
    };
    let (read_only, mirror) = match settings.mode {
        Mode::ReadWrite => (false, String::new()),
        Mode::ReadOnly => (true, String::new()),
        Mode::MirrorOf(origin) => {
            let url = format!("http://{}", origin.host());
            (false, format!("proxy: {{remoteurl: '{url}'}}\n"))
        }
    };
    // Port 0: the system picks a free one, and the log says which.
    format!(
        "version: 0.1\nlog: {{level: info}}\n\
         http: {{{prefix}relativeurls: {relative}, addr: '127.0.0.1:0'}}\n\
         storage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}, \
         maintenance: {{readonly: {{enabled: {read_only}}}}}}}\n{login}{mirror}",
        data.display()
    )
}

/// The only kind of password that docker-registry takes; Perl reaches the C library's.
fn bcrypt(password: &str) -> String {
    let script = r"print crypt($ARGV[0], '$2b$04$pyatspyatspyatspyatspu')";
    let text = succeed(Command::new("perl").args(["-e", script, password]));
    assert!(text.starts_with("$2b$"), "bcrypt is not known here");
    text
}
