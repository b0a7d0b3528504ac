//! What `~/.ssh/config` and `/etc/ssh/ssh_config` say of a host, by the rules of `ssh_config(5)`.
//!
//! The one idea: the files are read from top to bottom for one host, and the first value counts; only
//! `IdentityFile` collects. Keywords that do not bear on reaching a host and logging in are passed over.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use fs_err as fs;
use rustix::process::geteuid;

use super::super::error::source;
use super::words::{glob, matches, matches_list, words};
use crate::error::Error;
use crate::progress::Progress;

/// Files that include each other deeper than this are taken for a loop, as OpenSSH does.
const INCLUDE_DEPTH: usize = 16;

/// What the files say of one host. Nothing is expanded yet.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) host_name: Option<String>,
    pub(super) user: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) identity_files: Vec<String>,
    pub(super) identities_only: Option<bool>,
    pub(super) identity_agent: Option<String>,
    /// `ProxyJump` or `ProxyCommand`: whichever comes first counts, and the other one does not.
    pub(super) proxy: Option<Proxy>,
    pub(super) host_key_alias: Option<String>,
    pub(super) user_known_hosts: Option<Vec<String>>,
    pub(super) global_known_hosts: Option<Vec<String>>,
    pub(super) strict_host_keys: Option<String>,
}

/// How a host is reached that is not reached directly.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    /// Hosts in the order of the way, separated by commas; or `none`.
    Jump(String),
    /// A command for the shell; or `none`.
    Command(String),
}

/// For whom the files are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a> {
    /// As typed, which is what `Host` looks at.
    pub(super) host: &'a str,
    /// The user name of the location, if it has one.
    pub(super) user: Option<&'a str>,
    /// Who asks.
    pub(super) local_user: &'a str,
}

/// Where a file belongs to.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    /// What relative paths of `Include` are relative to.
    folder: &'a Path,
    /// Whether nobody but its owner may be able to write it, since it can name commands.
    private: bool,
}

impl Settings {
    /// Reads the user's file, in the home directory `home`, and the system's.
    pub(super) fn load(query: Query<'_>, home: &Path, progress: &Progress) -> Result<Self, Error> {
        let mut reader = Reader {
            query,
            home,
            progress,
            settings: Self::default(),
        };
        for (folder, name, private) in [
            (&*home.join(".ssh"), "config", true),
            (Path::new("/etc/ssh"), "ssh_config", false),
        ] {
            let path = folder.join(name);
            match fs::metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                _ => reader.file(&path, Origin { folder, private }, true, 0)?,
            }
        }
        Ok(reader.settings)
    }
}

/// For [`crate::fuzz`]: what a file that includes no other one says of a host.
pub(crate) fn fuzz(text: &str) {
    let path = Path::new("config");
    let mut reader = Reader {
        query: Query {
            host: "host.example.com",
            user: None,
            local_user: "me",
        },
        home: path,
        progress: &Progress::silent(),
        settings: Settings::default(),
    };
    let origin = Origin {
        folder: path,
        private: false,
    };
    let _ = reader.text(text, path, origin, true, INCLUDE_DEPTH);
}

struct Reader<'a> {
    query: Query<'a>,
    home: &'a Path,
    progress: &'a Progress,
    settings: Settings,
}

impl Reader<'_> {
    /// Reads a file that may set something only if `enclosing` holds, which is false where it is included
    /// for another host.
    fn file(
        &mut self,
        path: &Path,
        origin: Origin<'_>,
        enclosing: bool,
        depth: usize,
    ) -> Result<(), Error> {
        if origin.private {
            check_owner(path)?;
        }
        let text = fs::read(path)?;
        let text = String::from_utf8_lossy(&text);
        self.text(&text, path, origin, enclosing, depth)
    }

    fn text(
        &mut self,
        text: &str,
        path: &Path,
        origin: Origin<'_>,
        enclosing: bool,
        depth: usize,
    ) -> Result<(), Error> {
        let mut active = enclosing;
        for (index, line) in text.lines().enumerate() {
            let Some((keyword, rest)) = split(line) else {
                continue;
            };
            let malformed = |problem: &str| {
                source(format!(
                    "`{}`, line {}: {problem}",
                    path.display(),
                    index + 1
                ))
            };
            // The command is the rest of its line, whatever is in it.
            if keyword == "proxycommand" {
                if active && !rest.is_empty() {
                    let command = Proxy::Command(rest.to_owned());
                    self.settings.proxy.get_or_insert(command);
                }
                continue;
            }
            let values = words(rest).ok_or_else(|| malformed("a quote is not closed"))?;
            match keyword.as_str() {
                "host" => active = enclosing && self.is_host(&values),
                "match" => active = enclosing && self.is_match(&values, path, index + 1),
                "include" if depth == INCLUDE_DEPTH => {
                    return Err(malformed("files include each other without end"));
                }
                "include" => {
                    for value in &values {
                        for included in glob(&self.absolute(value, origin.folder)) {
                            self.file(&included, origin, active, depth + 1)?;
                        }
                    }
                }
                _ if active => self
                    .set(&keyword, values)
                    .map_err(|problem| malformed(&problem))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn absolute(&self, value: &str, folder: &Path) -> PathBuf {
        match value.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None => folder.join(value),
        }
    }

    fn is_host(&self, patterns: &[String]) -> bool {
        let host = self.query.host;
        let mut positive = false;
        for pattern in patterns {
            match pattern.strip_prefix('!') {
                Some(pattern) if matches(pattern, host) => return false,
                Some(_) => {}
                None => positive |= matches(pattern, host),
            }
        }
        positive
    }

    /// Whether all criteria hold. One that is not understood does not hold, which a warning tells.
    fn is_match(&self, criteria: &[String], path: &Path, line: usize) -> bool {
        let Query {
            host,
            user,
            local_user,
        } = self.query;
        let set = &self.settings;
        let mut all = true;
        let mut rest = criteria.iter();
        while let Some(word) = rest.next() {
            let (wanted, name) = match word.strip_prefix('!') {
                Some(name) => (false, name),
                None => (true, word.as_str()),
            };
            let mut list = |value: &str| {
                rest.next()
                    .is_some_and(|patterns| matches_list(patterns, value))
            };
            let holds = match name.to_ascii_lowercase().as_str() {
                // The files are read once only, so this is also the last time.
                "all" | "final" => true,
                "canonical" => false,
                "host" => list(set.host_name.as_deref().unwrap_or(host)),
                "originalhost" => list(host),
                "user" => list(user.or(set.user.as_deref()).unwrap_or(local_user)),
                "localuser" => list(local_user),
                _ => {
                    self.progress.warn(format!(
                        "`Match {word}` in `{}`, line {line}, is not understood, and taken not to match",
                        path.display()
                    ));
                    return false;
                }
            };
            all &= holds == wanted;
        }
        all && !criteria.is_empty()
    }

    /// The problem is in words that follow the place.
    fn set(&mut self, keyword: &str, values: Vec<String>) -> Result<(), String> {
        let set = &mut self.settings;
        let text = match keyword {
            "hostname" => &mut set.host_name,
            "user" => &mut set.user,
            "identityagent" => &mut set.identity_agent,
            "hostkeyalias" => &mut set.host_key_alias,
            "stricthostkeychecking" => &mut set.strict_host_keys,
            "userknownhostsfile" => {
                set.user_known_hosts.get_or_insert(values);
                return Ok(());
            }
            "globalknownhostsfile" => {
                set.global_known_hosts.get_or_insert(values);
                return Ok(());
            }
            "identityfile" | "port" | "identitiesonly" | "proxyjump" => {
                let value = values.into_iter().next();
                let value = value.ok_or_else(|| format!("`{keyword}` has no value"))?;
                return self.set_other(keyword, value);
            }
            _ => return Ok(()),
        };
        let value = values.into_iter().next();
        text.get_or_insert(value.ok_or_else(|| format!("`{keyword}` has no value"))?);
        Ok(())
    }

    fn set_other(&mut self, keyword: &str, value: String) -> Result<(), String> {
        let set = &mut self.settings;
        match keyword {
            "identityfile" => {
                if !set.identity_files.contains(&value) {
                    set.identity_files.push(value);
                }
            }
            "port" => {
                let port = u16::from_str(&value).ok().filter(|port| *port != 0);
                let port = port.ok_or_else(|| format!("`{value}` is no port"))?;
                set.port.get_or_insert(port);
            }
            "identitiesonly" => {
                let only = matches!(value.to_ascii_lowercase().as_str(), "yes" | "true");
                set.identities_only.get_or_insert(only);
            }
            _ => {
                set.proxy.get_or_insert(Proxy::Jump(value));
            }
        }
        Ok(())
    }
}

/// The keyword in lower case, and what follows it; `None` for empty lines and comments.
fn split(line: &str) -> Option<(String, &str)> {
    let line = line.trim();
    let end = line.find(|c: char| c.is_whitespace() || c == '=');
    let (keyword, rest) = line.split_at(end.unwrap_or(line.len()));
    if keyword.is_empty() || keyword.starts_with('#') {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    Some((keyword.to_ascii_lowercase(), rest))
}

/// Holds that nobody else could have written the file.
fn check_owner(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path)?;
    let ours = metadata.uid() == 0 || metadata.uid() == geteuid().as_raw();
    if ours && metadata.mode() & 0o022 == 0 {
        Ok(())
    } else {
        let path = path.display();
        Err(source(format!(
            "`{path}` can be written by other users, or belongs to one"
        ))
        .with_hint(format!(
            "own it, and take the right from others: `chmod go-w {path}`"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, host: &str) -> Result<Settings, Error> {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".ssh")).unwrap();
        fs::write(home.path().join(".ssh/config"), text).unwrap();
        let query = Query {
            host,
            user: None,
            local_user: "me",
        };
        Settings::load(query, home.path(), &Progress::silent())
    }

    #[test]
    fn the_first_value_counts() {
        let text = "# a comment\n\
            Host web* !web9\n  User=first\n  User second\n  Port = 2222\n  IdentityFile \"~/my key\" # why\n\
            HOST *\n  User third\n  IdentityFile ~/b\n  HostName %h.example.com\n\
            ProxyCommand nc -X \"a  b\" %h %p # not a comment\n  ProxyJump late\n";
        let set = load(text, "web1").unwrap();
        assert_eq!(set.user.as_deref(), Some("first"));
        assert_eq!(set.port, Some(2222));
        assert_eq!(set.identity_files, ["~/my key", "~/b"]);
        assert_eq!(set.host_name.as_deref(), Some("%h.example.com"));
        let command = r#"nc -X "a  b" %h %p # not a comment"#;
        assert_eq!(set.proxy, Some(Proxy::Command(command.to_owned())));
        let set = load(text, "web9").unwrap();
        assert_eq!((set.user.as_deref(), set.port), (Some("third"), None));
    }

    #[test]
    fn blocks_match_or_are_passed_over() {
        for (criteria, holds) in [
            ("all", true),
            ("final all", true),
            ("canonical all", false),
            ("host real*", true),
            ("host typed", false),
            ("originalhost typed", true),
            ("originalhost other,typed user me", true),
            ("user root", false),
            ("!user root localuser me", true),
            ("host real,!real", false),
            ("exec true", false),
        ] {
            let text = format!(
                "Host typed\n HostName real\nMatch {criteria}\n User a\nHost other\n User b\n"
            );
            let user = load(&text, "typed").unwrap().user;
            assert_eq!(user.is_some(), holds, "{criteria}: {user:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (text, words) in [
            ("Host *\nPort 70000\n", "line 2"),
            ("User \"me\nPort 1", "line 1"),
            ("\nHostName\n", "line 2"),
            ("Include config\n", "without end"),
        ] {
            let error = load(text, "x").unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
