//! A host with everything that has to be known before it is reached: what was typed, joined with what the
//! configuration says and with the defaults.

use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::process::geteuid;

use super::super::error::source;
use super::Options;
use super::config::{Proxy, Query, Settings};
use super::words::expand;
use crate::buildfile::SshLocation;
use crate::error::Error;
use crate::files;
use crate::progress::Progress;

const PORT: u16 = 22;

/// What ssh calls keys that no configuration names, in the order in which they are tried.
const DEFAULT_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// A host as somebody names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) user: Option<String>,
    /// A name, an address without brackets, or a `Host` of the configuration.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

/// A host, and how to get there and in.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) user: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) way: Way,
    /// The keys to try, in their order.
    pub(super) identities: Vec<PathBuf>,
    /// Whether the configuration names them, so that one that is not there is told of.
    pub(super) named: bool,
    /// Whether keys of the agent that are not among them stay unused.
    pub(super) only: bool,
    /// Where the agent listens.
    pub(super) agent: Option<PathBuf>,
    /// What `known_hosts` calls the host, and by which port.
    pub(super) known_as: (String, u16),
    /// Where its key is looked for; a new one is added to the first.
    pub(super) known_hosts: Vec<PathBuf>,
    /// Whether an unknown host is believed, and remembered.
    pub(super) accept_new: bool,
}

/// How a host is reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    /// The standard input and output of a command.
    Command(String),
    /// From one host to the next.
    Jumps(Vec<Address>),
}

impl From<&SshLocation> for Address {
    fn from(location: &SshLocation) -> Self {
        Self {
            user: location.user.clone(),
            host: location.host.clone(),
            port: location.port,
        }
    }
}

impl Address {
    /// Parses `[user@]host[:port]`, perhaps with `ssh://` before it.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text
            .strip_prefix("ssh://")
            .unwrap_or(text)
            .trim_end_matches('/');
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':'))
            }
            // More colons than one are an address of version 6.
            None => match rest.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (rest, None),
            },
        };
        let port = port.map(str::parse).transpose().ok()?;
        (!host.is_empty()).then(|| Self {
            user,
            host: host.to_owned(),
            port,
        })
    }
}

impl Target {
    /// Joins what was typed with the configuration.
    pub(super) fn resolve(
        address: &Address,
        options: &Options,
        progress: &Progress,
    ) -> Result<Self, Error> {
        check_host(&address.host)?;
        let home = std::env::home_dir()
            .filter(|home| home.is_absolute())
            .ok_or_else(|| {
                source("the home directory, and so `~/.ssh`, is not known").with_hint("set `HOME`")
            })?;
        let local_user = local_user();
        let query = Query {
            host: &address.host,
            user: address.user.as_deref(),
            local_user: &local_user,
        };
        let settings = Settings::load(query, &home, progress)?;
        let typed = [('h', &*address.host), ('n', &*address.host)];
        let host = match &settings.host_name {
            Some(name) => expanded(name, &typed)?,
            None => address.host.clone(),
        };
        check_host(&host)?;
        let port = address.port.or(settings.port).unwrap_or(PORT);
        let user = address.user.as_ref().or(settings.user.as_ref());
        let user = user.unwrap_or(&local_user).clone();
        check_user(&user)?;

        let (port_text, home_text) = (port.to_string(), home.display().to_string());
        let tokens = [
            ('h', &*host),
            ('n', &*address.host),
            ('p', &*port_text),
            ('r', &*user),
            ('u', &*local_user),
            ('d', &*home_text),
        ];
        let path = |text: &str| {
            let text = expanded(text, &tokens)?;
            // `~user` of somebody whom this machine does not know stays as it is, and is not found.
            let path = files::expand(&text).unwrap_or_else(|_| PathBuf::from(&text));
            Ok::<_, Error>(path)
        };
        let named = !settings.identity_files.is_empty();
        let identities = settings
            .identity_files
            .iter()
            .filter(|name| *name != "none");
        let mut identities = identities
            .map(|name| path(name))
            .collect::<Result<Vec<_>, _>>()?;
        if !named {
            identities.extend(DEFAULT_KEYS.map(|name| home.join(".ssh").join(name)));
        }
        let alias = settings.host_key_alias.as_deref();
        let known_as = match alias {
            Some(alias) => (expanded(alias, &tokens)?, PORT),
            None => (host.clone(), port),
        };
        let set = |name: &str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        };
        let agent = match settings.identity_agent.as_deref() {
            Some("none") => None,
            None | Some("SSH_AUTH_SOCK") => set("SSH_AUTH_SOCK"),
            Some(name) => match name.strip_prefix('$') {
                Some(variable) => set(variable.trim_matches(['{', '}'])),
                None => Some(path(name)?),
            },
        };
        Ok(Self {
            way: Way::of(settings.proxy.as_ref(), &tokens)?,
            known_hosts: known_hosts(options, &settings, &home, path)?,
            accept_new: options.accept_new_host_keys
                || matches!(
                    settings.strict_host_keys.as_deref(),
                    Some("no" | "off" | "accept-new")
                ),
            only: settings.identities_only.unwrap_or(false),
            agent: agent.filter(|path| !path.as_os_str().is_empty()),
            user,
            host,
            port,
            identities,
            named,
            known_as,
        })
    }

    /// `user@host:port`
    pub(super) fn login(&self) -> String {
        format!("{}@{}", self.user, self.place())
    }

    /// `host:port`
    pub(super) fn place(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl Way {
    fn of(proxy: Option<&Proxy>, tokens: &[(char, &str)]) -> Result<Self, Error> {
        match proxy {
            Some(Proxy::Command(command)) if !command.eq_ignore_ascii_case("none") => {
                Ok(Self::Command(expanded(command, tokens)?))
            }
            Some(Proxy::Jump(jumps)) if !jumps.eq_ignore_ascii_case("none") => {
                let parse = |jump: &str| Address::parse(jump).ok_or_else(|| unusable_name(jump));
                Ok(Self::Jumps(
                    jumps.split(',').map(parse).collect::<Result<_, _>>()?,
                ))
            }
            _ => Ok(Self::Direct),
        }
    }
}

/// The files that say which key a host has.
fn known_hosts(
    options: &Options,
    settings: &Settings,
    home: &Path,
    path: impl Fn(&str) -> Result<PathBuf, Error>,
) -> Result<Vec<PathBuf>, Error> {
    if let Some(file) = &options.known_hosts {
        return Ok(vec![file.clone()]);
    }
    let files = |names: &Option<Vec<String>>, defaults: Vec<PathBuf>| match names {
        Some(names) => names
            .iter()
            .filter(|name| *name != "none")
            .map(|name| path(name))
            .collect(),
        None => Ok::<_, Error>(defaults),
    };
    let ours = ["known_hosts", "known_hosts2"].map(|name| home.join(".ssh").join(name));
    let system =
        ["ssh_known_hosts", "ssh_known_hosts2"].map(|name| Path::new("/etc/ssh").join(name));
    let mut all = files(&settings.user_known_hosts, ours.into())?;
    all.extend(files(&settings.global_known_hosts, system.into())?);
    Ok(all)
}

fn expanded(text: &str, tokens: &[(char, &str)]) -> Result<String, Error> {
    expand(text, tokens).map_err(|token| {
        source(format!(
            "`%{token}` in `{text}` of the ssh configuration has no meaning"
        ))
    })
}

/// Who runs this program.
fn local_user() -> String {
    let variable = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    variable("USER")
        .or_else(|| variable("LOGNAME"))
        .or_else(|| {
            let uid = geteuid().as_raw().to_string();
            let users = fs::read_to_string("/etc/passwd").ok()?;
            users.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                (fields.nth(1) == Some(&uid)).then(|| name.to_owned())
            })
        })
        .unwrap_or_else(|| "root".to_owned())
}

/// Host names come into commands for a shell and into `known_hosts`.
fn check_host(host: &str) -> Result<(), Error> {
    let valid = |c: char| c.is_alphanumeric() || ".-_:%+".contains(c);
    check(host, !host.is_empty() && host.chars().all(valid))
}

/// User names come into commands for a shell.
fn check_user(user: &str) -> Result<(), Error> {
    let invalid = |c: char| c.is_whitespace() || c.is_control() || "'`\"$;&<>|(){}".contains(c);
    check(user, !user.contains(invalid) && !user.ends_with('\\'))
}

fn check(name: &str, valid: bool) -> Result<(), Error> {
    if valid && !name.starts_with('-') {
        return Ok(());
    }
    Err(unusable_name(name))
}

fn unusable_name(name: &str) -> Error {
    source(format!("`{name}` cannot be the name of a host or user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_parsed() {
        for (text, user, host, port) in [
            ("h", None, "h", None),
            ("u@h:1", Some("u"), "h", Some(1)),
            ("ssh://u@h:1/", Some("u"), "h", Some(1)),
            ("[::1]:2", None, "::1", Some(2)),
            ("::1", None, "::1", None),
            ("a@b@h", Some("a@b"), "h", None),
        ] {
            let expected = Address {
                user: user.map(str::to_owned),
                host: host.to_owned(),
                port,
            };
            assert_eq!(Address::parse(text), Some(expected), "{text}");
        }
        for text in ["", "u@", "h:x", "[h", "h:70000"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_harmless() {
        for host in ["a.b-c_d", "::1", "fe80::1%eth0", "münchen"] {
            assert!(check_host(host).is_ok(), "{host}");
        }
        for host in ["", "-x", "a b", "$(x)", "a;b", "a\nb", "a,b", "*"] {
            assert!(check_host(host).is_err(), "{host}");
        }
        for user in ["git", "DOMAIN\\me", "me@example.com"] {
            assert!(check_user(user).is_ok(), "{user}");
        }
        for user in ["-x", "a b", "`x`", "$x", "a\\"] {
            assert!(check_user(user).is_err(), "{user}");
        }
    }
}
