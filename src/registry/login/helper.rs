//! Programs that keep logins: `docker-credential-NAME`.
//!
//! Follows the protocol of Docker's credential helpers: the action is the argument, the server or the
//! login comes on standard input, the answer is JSON. A helper is somebody else's program, so it gets a
//! limit for its time and for its words, and what may hold a secret is never repeated.

use std::ffi::OsStr;
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use super::file::server;
use super::places::Environment;
use super::{Credentials, LoginError};
use crate::secret::{Secret, mask};

const PREFIX: &str = "docker-credential-";
/// What a helper may print. Tokens of cloud providers have some thousand bytes.
const MOST: usize = 64 << 10;
/// Between two looks at a helper. Most take some ten milliseconds.
const TICK: Duration = Duration::from_millis(2);
/// Characters of its own words that an error repeats.
const SAID: usize = 200;
/// The name of the user when the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// By these words, in whatever sentence, a helper says that it has no login.
const NOT_FOUND: &str = "credentials not found";

/// A helper that a file names.
#[derive(Debug)]
pub(super) struct Helper<'a> {
    /// The program's name.
    program: String,
    /// The file that names it.
    named_by: &'a Path,
    environment: &'a Environment,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret,
}

#[derive(Serialize)]
struct Request<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    #[serde(rename = "Username")]
    user: &'a str,
    #[serde(rename = "Secret")]
    secret: &'a Secret,
}

/// How a helper ended, and what it printed.
struct Outcome {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl<'a> Helper<'a> {
    /// The helper that `named_by` calls `name`.
    pub(super) fn new(
        name: &str,
        named_by: &'a Path,
        environment: &'a Environment,
    ) -> Result<Self, LoginError> {
        if name.trim().is_empty() || name.contains(['/', '\0']) {
            return Err(LoginError::HelperName {
                path: named_by.to_owned(),
                name: short(name),
            });
        }
        Ok(Self {
            program: format!("{PREFIX}{name}"),
            named_by,
            environment,
        })
    }

    /// Where its logins are, for people.
    pub(super) fn origin(&self) -> String {
        format!(
            "the helper `{}`, named by `{}`",
            short(&self.program),
            self.named_by.display()
        )
    }

    /// The login of a registry, if it has one.
    pub(super) fn get(&self, registry: &str) -> Result<Option<Credentials>, LoginError> {
        let outcome = self.run("get", server(registry).as_bytes())?;
        if !outcome.status.success() {
            if outcome.says_not_found() {
                return Ok(None);
            }
            return Err(self.failed(&outcome, "get", registry, None));
        }
        let answer: Answer =
            serde_json::from_slice(&outcome.stdout).map_err(|_| LoginError::HelperAnswer {
                helper: short(&self.program),
                path: self.named_by.to_owned(),
            })?;
        Ok(match answer {
            answer if answer.secret.reveal().is_empty() => None,
            answer if answer.username == TOKEN_USER => {
                Some(Credentials::IdentityToken(answer.secret))
            }
            Answer { username, secret } => Some(Credentials::Password {
                user: username,
                password: secret,
            }),
        })
    }

    /// Gives it a login to keep.
    pub(super) fn store(
        &self,
        registry: &str,
        user: &str,
        password: &Secret,
    ) -> Result<(), LoginError> {
        let server = server(registry);
        let request = Request {
            server: &server,
            user,
            secret: password,
        };
        let request = serde_json::to_vec(&request).map_err(io::Error::from)?;
        let outcome = self.run("store", &request)?;
        if outcome.status.success() {
            return Ok(());
        }
        Err(self.failed(&outcome, "store", registry, Some(password)))
    }

    /// Makes it forget a login.
    pub(super) fn erase(&self, registry: &str) -> Result<(), LoginError> {
        let outcome = self.run("erase", server(registry).as_bytes())?;
        if outcome.status.success() || outcome.says_not_found() {
            return Ok(());
        }
        Err(self.failed(&outcome, "erase", registry, None))
    }

    fn failed(
        &self,
        outcome: &Outcome,
        action: &str,
        registry: &str,
        secret: Option<&Secret>,
    ) -> LoginError {
        let helper = short(&self.program);
        LoginError::HelperFailed {
            path: self.named_by.to_owned(),
            status: outcome.status,
            said: outcome.words(secret),
            by_hand: if action == "store" {
                format!("{helper} list")
            } else {
                format!("echo {} | {helper} get", server(registry))
            },
            helper,
        }
    }

    fn run(&self, action: &str, input: &[u8]) -> Result<Outcome, LoginError> {
        let start = |source| LoginError::HelperStart {
            helper: short(&self.program),
            path: self.named_by.to_owned(),
            source,
        };
        let program = find(&self.program, &self.environment.path).ok_or_else(|| {
            LoginError::HelperMissing {
                helper: short(&self.program),
                path: self.named_by.to_owned(),
            }
        })?;
        let child = Command::new(program)
            .arg(action)
            .env("PATH", &self.environment.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(start)?;
        let mut running = Running(child);
        let ended = running.converse(input, self.environment.patience);
        match ended.map_err(start)? {
            Ended::Itself(outcome) => Ok(outcome),
            Ended::TooSlow => Err(LoginError::HelperSlow {
                helper: short(&self.program),
                path: self.named_by.to_owned(),
                limit: self.environment.patience,
            }),
            Ended::TooLong => Err(LoginError::HelperFlood {
                helper: short(&self.program),
                path: self.named_by.to_owned(),
                limit: MOST,
            }),
        }
    }
}

impl Outcome {
    fn says_not_found(&self) -> bool {
        [&self.stdout, &self.stderr].iter().any(|said| {
            let said = String::from_utf8_lossy(said).to_ascii_lowercase();
            said.contains(NOT_FOUND)
        })
    }

    /// Its words in one line. Docker's own helpers explain their failures on standard output, where
    /// others may have begun with an answer: that is JSON, and left out.
    fn words(&self, secret: Option<&Secret>) -> String {
        let first_line = |said: &[u8]| {
            let said = String::from_utf8_lossy(said);
            let line = said.lines().map(str::trim).find(|line| !line.is_empty());
            line.map(str::to_owned)
        };
        let stdout = || first_line(&self.stdout).filter(|_| !self.stdout.contains(&b'{'));
        let line = first_line(&self.stderr).or_else(stdout).unwrap_or_default();
        let line = match secret.map(Secret::reveal) {
            Some(secret) if !secret.is_empty() => line.replace(secret, "***"),
            _ => line,
        };
        short(&mask(&line))
    }
}

/// How the conversation with a helper came to its end.
enum Ended {
    Itself(Outcome),
    TooSlow,
    TooLong,
}

/// A helper that runs, in a process group of its own that ends with the value.
struct Running(Child);

impl Running {
    fn converse(&mut self, mut input: &[u8], patience: Duration) -> io::Result<Ended> {
        let deadline = Instant::now() + patience;
        let mut stdin = self.0.stdin.take();
        let mut stdout = self.0.stdout.take();
        let mut stderr = self.0.stderr.take();
        nonblocking(stdin.as_ref())?;
        nonblocking(stdout.as_ref())?;
        nonblocking(stderr.as_ref())?;
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        loop {
            // Before its pipes are looked at: they hold all that it said by then. Who else holds them,
            // such as an agent that it started, is not waited for.
            let status = self.0.try_wait()?;
            if let Some(pipe) = &mut stdin {
                match pipe.write(input) {
                    Ok(written) => input = &input[written..],
                    Err(error) if is_not_now(&error) => {}
                    // It has no need of what is left.
                    Err(_) => input = &[],
                }
            }
            if input.is_empty() {
                stdin = None;
            }
            take(&mut stdout, &mut said)?;
            take(&mut stderr, &mut complained)?;
            if said.len() > MOST {
                return Ok(Ended::TooLong);
            }
            complained.truncate(MOST);
            if let Some(status) = status {
                return Ok(Ended::Itself(Outcome {
                    status,
                    stdout: said,
                    stderr: complained,
                }));
            }
            if Instant::now() >= deadline {
                return Ok(Ended::TooSlow);
            }
            std::thread::sleep(TICK);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // As long as it is not waited for, nobody else gets its number.
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

fn nonblocking(pipe: Option<&impl AsFd>) -> io::Result<()> {
    match pipe {
        Some(pipe) => Ok(rustix::io::ioctl_fionbio(pipe, true)?),
        None => Ok(()),
    }
}

/// Reads what is there, and little more than may be.
fn take(pipe: &mut Option<impl Read>, to: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    // Bounded by the pipe, not by `to`, of which a talkative helper's end is cut off.
    for _ in 0..=MOST / buffer.len() {
        let Some(open) = pipe else { break };
        match open.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(length) => to.extend_from_slice(&buffer[..length]),
            Err(error) if is_not_now(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Looks a program up, in absolute folders only: what lies in the current one may be anybody's.
fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|file| {
            fs::metadata(file).is_ok_and(|metadata| {
                metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
            })
        })
}

/// What a stranger said, as far as a message quotes it.
pub(super) fn short(text: &str) -> String {
    let text: String = text.trim().chars().take(SAID).collect();
    text.trim_end().to_owned()
}
