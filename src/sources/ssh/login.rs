//! Who the user is: by a key that was given, a password of the location, the agent, or keys in files. Nobody is
//! asked for anything.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fs_err as fs;
use ssh2::{ErrorCode, KeyboardInteractivePrompt, Prompt, PublicKey};

use super::super::error::source;
use super::key::{self, KeyProblem};
use super::target::Target;
use crate::error::Error;
use crate::secret::Secret;

/// What libssh2 says when the server refuses a login; it has no name in the crate.
const REFUSED: [ErrorCode; 2] = [ErrorCode::Session(-18), ErrorCode::Session(-19)];

/// And when the server ended the connection, as it does after some tries.
const ENDED: [ErrorCode; 3] = [
    ErrorCode::Session(-7),
    ErrorCode::Session(-13),
    ErrorCode::Session(-43),
];

fn has_ended(error: &ssh2::Error) -> bool {
    // The library takes an answer that never came for a refusal, but for its words.
    ENDED.contains(&error.code()) || error.message().starts_with("Waiting for")
}

/// What there is besides the agent and files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given<'a> {
    /// The text of a private key, which is then the only thing that is tried.
    pub(super) key: Option<&'a Secret>,
    /// A password.
    pub(super) password: Option<&'a Secret>,
}

/// Logs in.
pub(super) fn log_in(
    session: &ssh2::Session,
    target: &Target,
    given: Given<'_>,
) -> Result<(), Error> {
    let mut login = Login {
        session,
        target,
        tried: Vec::new(),
        ended: false,
    };
    let done = match given.key {
        Some(key) => login.given_key(key)?,
        None => {
            given
                .password
                .is_some_and(|password| login.password(password))
                || (!login.ended && login.keys())
        }
    };
    if done {
        return Ok(());
    }
    let tried = if login.tried.is_empty() {
        "there is no key to try".to_owned()
    } else {
        format!("tried {}", login.tried.join(", "))
    };
    let message = format!("`{}` is refused; {tried}", target.login());
    Err(source(message).with_hint(if login.ended {
        "servers end a connection after some tries: name the key of this host with `IdentityFile` in \
         `~/.ssh/config`"
    } else {
        "set up a login without a password: `ssh-copy-id`, or a key in the agent by `ssh-add`"
    }))
}

struct Login<'a> {
    session: &'a ssh2::Session,
    target: &'a Target,
    tried: Vec<String>,
    /// Whether the server has ended the connection.
    ended: bool,
}

impl Login<'_> {
    fn given_key(&mut self, text: &Secret) -> Result<bool, Error> {
        let login = self.target.login();
        let unusable = |problem: KeyProblem| {
            source(format!("the private key for `{login}` {problem}")).with_hint(problem.hint())
        };
        let key = key::parse(text.reveal()).map_err(unusable)?;
        match self.by_key(&key) {
            Ok(()) => Ok(true),
            Err(error) if REFUSED.contains(&error.code()) || has_ended(&error) => {
                self.note("the private key that was given", &error);
                Ok(false)
            }
            Err(_) => Err(unusable(KeyProblem::Unusable)),
        }
    }

    fn by_key(&self, key: &Secret) -> Result<(), ssh2::Error> {
        // With an empty passphrase nobody is asked for one.
        let user = &self.target.user;
        self.session
            .userauth_pubkey_memory(user, None, key.reveal(), Some(""))
    }

    fn password(&mut self, password: &Secret) -> bool {
        let user = &self.target.user;
        let mut result = self.session.userauth_password(user, password.reveal());
        if result.as_ref().is_err_and(|error| !has_ended(error)) {
            // Many servers take passwords as the answer to a question only.
            let mut answers = Answers(password);
            result = self
                .session
                .userauth_keyboard_interactive(user, &mut answers);
        }
        match result {
            Ok(()) => true,
            Err(error) => {
                self.note("the password", &error);
                false
            }
        }
    }

    /// As OpenSSH does: keys of the agent that are also in files, others of the agent, and those in files.
    fn keys(&mut self) -> bool {
        let publics: Vec<Option<String>> = self
            .target
            .identities
            .iter()
            .map(|path| public(path))
            .collect();
        let is_named = |text: &String| publics.iter().flatten().any(|public| public == text);
        let mut offered = Vec::new();
        if self.agent(is_named, &mut offered) {
            return true;
        }
        for (path, public) in self.target.identities.iter().zip(&publics) {
            if self.ended {
                return false;
            }
            if !public
                .as_ref()
                .is_some_and(|public| offered.contains(public))
                && self.file(path)
            {
                return true;
            }
        }
        false
    }

    /// Tries the keys of the agent, and adds them to `offered`.
    fn agent(&mut self, is_named: impl Fn(&String) -> bool, offered: &mut Vec<String>) -> bool {
        let Some(path) = &self.target.agent else {
            return false;
        };
        let listed = || {
            let mut agent = self.session.agent()?;
            agent.set_identity_path(path)?;
            agent.connect()?;
            agent.list_identities()?;
            let keys = agent.identities()?;
            Ok::<_, ssh2::Error>((agent, keys))
        };
        let Ok((agent, keys)) = listed() else {
            self.tried.push("the agent: cannot be reached".to_owned());
            return false;
        };
        let keys: Vec<(String, PublicKey)> = keys
            .into_iter()
            .map(|key| (STANDARD.encode(key.blob()), key))
            .collect();
        let (mut first, others): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|(text, _)| is_named(text));
        if !self.target.only {
            first.extend(others);
        }
        for (text, key) in first {
            offered.push(text);
            let result = agent.userauth(&self.target.user, &key);
            match result {
                Ok(()) => return true,
                Err(error) if has_ended(&error) => {
                    self.note(&counted(offered.len()), &error);
                    return false;
                }
                Err(_) => {}
            }
        }
        self.tried
            .push(format!("{}: refused", counted(offered.len())));
        false
    }

    fn file(&mut self, path: &Path) -> bool {
        let name = format!("`{}`", path.display());
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.target.named {
                    self.tried.push(format!("{name}: does not exist"));
                }
                return false;
            }
            Err(_) => {
                self.tried.push(format!("{name}: cannot be read"));
                return false;
            }
        };
        match key::parse(&text) {
            Ok(key) => match self.by_key(&key) {
                Ok(()) => return true,
                Err(error) => self.note(&name, &error),
            },
            Err(KeyProblem::Passphrase) => self
                .tried
                .push(format!("{name}: has a passphrase, load it into an agent")),
            Err(problem) => self.tried.push(format!("{name}: {problem}")),
        }
        false
    }

    fn note(&mut self, what: &str, error: &ssh2::Error) {
        let code = error.code();
        let outcome = match code {
            _ if has_ended(error) => "the server ended the connection",
            _ if REFUSED.contains(&code) => "refused",
            _ => error.message(),
        };
        self.ended |= has_ended(error);
        self.tried.push(format!("{what}: {outcome}"));
    }
}

fn counted(keys: usize) -> String {
    match keys {
        1 => "1 key of the agent".to_owned(),
        keys => format!("{keys} keys of the agent"),
    }
}

/// The public key that belongs to the private one at `path`, in base64.
fn public(path: &Path) -> Option<String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    // The configuration may name the public one, for a key that only the agent has.
    let text = fs::read_to_string(Path::new(&beside)).or_else(|_| fs::read_to_string(path));
    Some(text.ok()?.split_whitespace().nth(1)?.to_owned())
}

/// Answers every question with the password.
struct Answers<'a>(&'a Secret);

impl KeyboardInteractivePrompt for Answers<'_> {
    fn prompt<'a>(&mut self, _: &str, _: &str, questions: &[Prompt<'a>]) -> Vec<String> {
        // What would be shown while it is typed is no password.
        let answer = |question: &Prompt<'a>| {
            if question.echo {
                String::new()
            } else {
                self.0.reveal().to_owned()
            }
        };
        questions.iter().map(answer).collect()
    }
}
