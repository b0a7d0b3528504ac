//! `~/.netrc`: names and passwords by machine, for URLs that hold none.
//!
//! Follows curl, the format's most used reader: `machine`, `default`, `login`, `password`, `account`,
//! `macdef`, quoted words with backslashes, and comments. What is none of these is an error, since a
//! password that is not found shows up as a refusal far away.

use std::io;
use std::path::PathBuf;

use crate::secret::Secret;

/// Why the file says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetrcError {
    /// It cannot be read; names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what it should be.
    #[error("`{}` cannot be understood at line {line}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

/// The name and password for `host` in the file that `NETRC` names, or else `~/.netrc`; for `user`, if
/// that is given.
pub(crate) fn lookup(
    host: &str,
    user: Option<&str>,
) -> Result<Option<(String, Secret)>, NetrcError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || Some(PathBuf::from(set("HOME")?).join(".netrc"));
    let Some(path) = set("NETRC").map(PathBuf::from).or_else(home) else {
        return Ok(None);
    };
    let text = match fs_err::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    find(&text, host, user).map_err(|line| NetrcError::Malformed { path, line })
}

/// All passwords of a file, of whatever machine, for a log that must not show them; of one that cannot be understood,
/// those before that place.
pub(crate) fn passwords(text: &str) -> Vec<Secret> {
    let mut words = Words {
        rest: text,
        line: 1,
    };
    let mut found = Vec::new();
    while let Ok(Some(word)) = words.keyword() {
        if word == "password"
            && let Ok(password) = words.value()
        {
            found.push(Secret::new(password));
        }
    }
    found
}

/// A login of the file.
#[derive(Debug, Default)]
struct Login {
    /// Any, for `default`.
    machine: Option<String>,
    user: String,
    password: Secret,
}

/// The first login that fits; an error is the number of the line that does not.
fn find(text: &str, host: &str, user: Option<&str>) -> Result<Option<(String, Secret)>, usize> {
    let fits = |login: &Login| {
        let machine = login.machine.as_deref();
        machine.is_none_or(|machine| machine.eq_ignore_ascii_case(host))
            && user.is_none_or(|user| user == login.user)
    };
    let login = parse(text)?.into_iter().find(fits);
    Ok(login.map(|login| (login.user, login.password)))
}

fn parse(text: &str) -> Result<Vec<Login>, usize> {
    let mut words = Words {
        rest: text,
        line: 1,
    };
    let mut logins: Vec<Login> = Vec::new();
    while let Some(word) = words.keyword()? {
        match word.as_str() {
            "machine" => logins.push(Login {
                machine: Some(words.value()?),
                ..Login::default()
            }),
            "default" => logins.push(Login::default()),
            "macdef" => words.skip_macro(),
            key => {
                let line = words.line;
                let login = logins.last_mut().ok_or(line)?;
                match key {
                    "login" => login.user = words.value()?,
                    "password" => login.password = Secret::new(words.value()?),
                    "account" => drop(words.value()?),
                    _ => return Err(line),
                }
            }
        }
    }
    Ok(logins)
}

/// The words of the file that are still to be read.
struct Words<'a> {
    rest: &'a str,
    line: usize,
}

impl Words<'_> {
    /// The next word where a comment may stand as well.
    fn keyword(&mut self) -> Result<Option<String>, usize> {
        loop {
            self.skip_space();
            if !self.rest.starts_with('#') {
                return self.word();
            }
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.rest = &self.rest[end..];
        }
    }

    /// The word that has to come.
    fn value(&mut self) -> Result<String, usize> {
        self.skip_space();
        let line = self.line;
        self.word()?.ok_or(line)
    }

    fn word(&mut self) -> Result<Option<String>, usize> {
        if let Some(quoted) = self.rest.strip_prefix('"') {
            return self.quoted(quoted).map(Some);
        }
        let end = self
            .rest
            .find(char::is_whitespace)
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok((!word.is_empty()).then(|| word.to_owned()))
    }

    /// A word up to its closing quote, with what stands behind a backslash as it is.
    fn quoted(&mut self, text: &str) -> Result<String, usize> {
        let mut word = String::new();
        let mut characters = text.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &self.rest[1 + at + 1..];
                    return Ok(word);
                }
                '\\' => match characters.next().ok_or(self.line)?.1 {
                    'n' => word.push('\n'),
                    'r' => word.push('\r'),
                    't' => word.push('\t'),
                    other => word.push(other),
                },
                '\n' => break,
                other => word.push(other),
            }
        }
        Err(self.line)
    }

    fn skip_space(&mut self) {
        let rest = self.rest.trim_start();
        let space = &self.rest[..self.rest.len() - rest.len()];
        self.line += space.matches('\n').count();
        self.rest = rest;
    }

    /// A macro ends with an empty line.
    fn skip_macro(&mut self) {
        let end = self.rest.find("\n\n").unwrap_or(self.rest.len());
        self.line += self.rest[..end].matches('\n').count();
        self.rest = &self.rest[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found() {
        let text = "# a comment with machine in it\n\
            machine a.example login anna password \"p w\\\"#1\" account x\n\
            macdef init\nmachine evil.example\nlogin no\n\n\
            machine b.example\n\tlogin\tbob\n\tpassword #hash # and a comment\n\
            machine b.example login carl password second\n\
            default login anonymous password me@here";
        for (host, user, expected) in [
            ("a.example", None, Some(("anna", "p w\"#1"))),
            ("A.Example", None, Some(("anna", "p w\"#1"))),
            ("b.example", None, Some(("bob", "#hash"))),
            ("b.example", Some("carl"), Some(("carl", "second"))),
            ("b.example", Some("dora"), None),
            ("evil.example", None, Some(("anonymous", "me@here"))),
        ] {
            let found = find(text, host, user).unwrap();
            let found = found
                .as_ref()
                .map(|(user, password)| (user.as_str(), password.reveal()));
            assert_eq!(found, expected, "{host}");
        }
        assert_eq!(find("", "a", None), Ok(None));
    }

    #[test]
    fn passwords_are_listed() {
        let text = "machine a login b password \"p w\\\"#1\" # password of c:\nmachine c passwort d\n\
            password #hash\ndefault password last password \"open";
        let found = passwords(text);
        let found: Vec<_> = found.iter().map(Secret::reveal).collect();
        assert_eq!(found, ["p w\"#1", "#hash", "last"]);
    }

    #[test]
    fn what_is_wrong_is_found() {
        for (text, line) in [
            ("machine a login b\nmachine c\npasswort d", 3),
            ("login a", 1),
            ("machine a login", 1),
            ("\nmachine", 2),
            ("machine a password \"open\nlogin b", 1),
        ] {
            assert_eq!(find(text, "a", None), Err(line), "{text}");
        }
    }
}
