//! The options of `RUN --mount=type=…,key=value,…`.
//!
//! Reference, "RUN --mount". Values may hold variables, so options become a [`Mount`] when the instruction
//! is evaluated; those without variables are checked when they are read.

use super::error::{list, quoted, suggest};
use super::expand_error::ExpandError;
use super::value;

/// A mount that lasts for one RUN. Targets are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Files of the context.
    Bind {
        /// In the context, absolute: its root is `/`.
        source: String,
        /// Where they appear.
        target: String,
        /// Otherwise what is written there is gone afterwards.
        read_only: bool,
    },
    /// A folder that other builds see again.
    Cache {
        /// Which one; the target, unless it is named.
        id: String,
        /// What of it is shown, absolute: its root is `/`.
        source: String,
        /// Where it appears.
        target: String,
        /// Nothing is written.
        read_only: bool,
        /// What other builds may do meanwhile.
        sharing: Sharing,
        /// Permission bits. With another mode or owner it is another cache.
        mode: u32,
        /// See `mode`.
        uid: u32,
        /// See `mode`.
        gid: u32,
    },
    /// A folder in memory.
    Tmpfs {
        /// Where it appears.
        target: String,
        /// Bytes that fit.
        size: Option<u64>,
    },
    /// A secret of whoever builds.
    Secret {
        /// Its name.
        id: String,
        /// The file that holds it.
        target: Option<String>,
        /// The variable that holds it.
        env: Option<String>,
        /// Whether it must be there.
        required: bool,
        /// Of the file.
        mode: u32,
        /// Of the file.
        uid: u32,
        /// Of the file.
        gid: u32,
    },
}

/// What other builds may do with a cache meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Use it, too.
    #[default]
    Shared,
    /// Use another one.
    Private,
    /// Wait.
    Locked,
}

/// Options that are not a mount yet: their values may hold variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Keys in their long form, each there once.
    options: Vec<(&'static str, Option<String>)>,
}

/// What is wrong with the options of a mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// A key that no mount has.
    #[error("a mount has no option `{0}`")]
    Unknown(String),
    /// A key of other mounts.
    #[error("a mount of type `{kind}` has no option `{key}`")]
    Misplaced {
        /// The mount's type.
        kind: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A type that there is not.
    #[error("there is no mount of type `{0}`")]
    Type(String),
    /// `type=ssh`
    #[error("mounts of type `ssh` are not supported")]
    Ssh,
    /// `from=…`
    #[error("a mount cannot come from another image or stage")]
    From,
    /// A key that is there twice.
    #[error("the option `{0}` of the mount is there twice")]
    Twice(&'static str),
    /// A key without a value.
    #[error("the option `{0}` of the mount has no value")]
    NoValue(&'static str),
    /// A value that does not fit.
    #[error("`{value}` is no value for the option `{key}` of a mount")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// A key that must be there.
    #[error("a mount of type `{kind}` needs `{key}`")]
    Missing {
        /// The mount's type.
        kind: &'static str,
        /// The key.
        key: &'static str,
    },
    /// `source` beside `id`: both name the secret.
    #[error("`id` and `source` both name the secret")]
    TwoNames,
    /// The root.
    #[error("nothing can be mounted on `/`")]
    Root,
    /// A value that cannot be read.
    #[error(transparent)]
    Expand(#[from] ExpandError),
}

/// The keys of each type, and of all of them.
const BIND: [&str; 5] = ["type", "source", "target", "readonly", "readwrite"];
const CACHE: [&str; 10] = [
    "type",
    "id",
    "source",
    "target",
    "readonly",
    "readwrite",
    "sharing",
    "mode",
    "uid",
    "gid",
];
const TMPFS: [&str; 3] = ["type", "target", "size"];
const SECRET: [&str; 10] = [
    "type", "id", "source", "target", "env", "required", "mode", "uid", "gid", "readonly",
];
const KEYS: [&str; 14] = [
    "type",
    "source",
    "target",
    "readonly",
    "readwrite",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "size",
    "required",
    "env",
    "from",
];
const TYPES: [&str; 4] = ["bind", "cache", "tmpfs", "secret"];

impl MountError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unknown(key) => return Some(suggest(key, &KEYS[..13], "the options are")),
            Self::Misplaced { kind, .. } => {
                return Some(format!("its options are {}", list(keys(kind))));
            }
            Self::Type(kind) => return Some(suggest(kind, &TYPES, "the types are")),
            Self::Ssh => "fetch with `repositories`, which knows ssh, or mount a key as a secret",
            Self::From => "there is one image only; `source` names files of the context",
            Self::Twice(_) | Self::TwoNames => "keep one of them",
            Self::NoValue(key) | Self::Missing { key, .. } => {
                return Some(format!("write `{key}=…`"));
            }
            Self::Value { key, .. } => match *key {
                "sharing" => "it is `shared`, `private` or `locked`",
                "mode" => "it is an octal number such as `0755`",
                "uid" | "gid" => "it is a number",
                "size" => "it is a number of bytes such as `64m`",
                _ => "it is `true` or `false`",
            },
            Self::Root => "choose a folder below it",
            Self::Expand(error) => return error.hint().map(str::to_owned),
        };
        Some(hint.to_owned())
    }
}

fn keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "cache" => &CACHE,
        "tmpfs" => &TMPFS,
        "secret" => &SECRET,
        _ => &BIND,
    }
}

impl MountOptions {
    /// Reads the value of a flag `--mount`.
    pub(super) fn parse(text: &str) -> Result<Self, MountError> {
        let mut options: Vec<(&'static str, Option<String>)> = Vec::new();
        for field in fields(text) {
            let (typed, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (field.as_str(), None),
            };
            let key = match typed.to_ascii_lowercase().as_str() {
                "src" => "source",
                "dst" | "destination" => "target",
                "ro" => "readonly",
                "rw" => "readwrite",
                key => *KEYS
                    .iter()
                    .find(|known| **known == key)
                    .ok_or_else(|| MountError::Unknown(quoted(typed)))?,
            };
            if key == "from" {
                return Err(MountError::From);
            }
            if options.iter().any(|(other, _)| *other == key) {
                return Err(MountError::Twice(key));
            }
            if value.is_none() && !matches!(key, "readonly" | "readwrite" | "required") {
                return Err(MountError::NoValue(key));
            }
            options.push((key, value));
        }
        let options = Self { options };
        let mut values = options.options.iter().flat_map(|(_, value)| value);
        if !values.any(|value| value.contains('$')) {
            options.mount("/", &|value| Ok(value.to_owned()))?;
        }
        Ok(options)
    }

    /// The values, for those who check whether they can be read.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.options
            .iter()
            .filter_map(|(_, value)| value.as_deref())
    }

    /// The mount of a RUN in the directory `cwd`.
    pub(super) fn mount(
        &self,
        cwd: &str,
        expand: &dyn Fn(&str) -> Result<String, ExpandError>,
    ) -> Result<Mount, MountError> {
        let mut values = Vec::new();
        for (key, value) in &self.options {
            values.push((*key, value.as_deref().map(expand).transpose()?));
        }
        let values = Values(values);
        let kind = values.text("type").unwrap_or("bind").to_ascii_lowercase();
        let kind = match kind.as_str() {
            "ssh" => return Err(MountError::Ssh),
            kind => *TYPES
                .iter()
                .find(|known| **known == kind)
                .ok_or_else(|| MountError::Type(quoted(kind)))?,
        };
        let misplaced = values.0.iter().find(|(key, _)| !keys(kind).contains(key));
        if let Some((key, _)) = misplaced {
            return Err(MountError::Misplaced { kind, key });
        }
        let target = values
            .text("target")
            .map(|target| value::absolute(cwd, target));
        if target.as_deref() == Some("/") {
            return Err(MountError::Root);
        }
        let needed = || MountError::Missing {
            kind,
            key: "target",
        };
        Ok(match kind {
            "cache" => {
                let target = target.ok_or_else(needed)?;
                Mount::Cache {
                    id: values.text("id").unwrap_or(&target).to_owned(),
                    source: value::absolute("/", values.text("source").unwrap_or("/")),
                    target,
                    read_only: values.read_only(false)?,
                    sharing: values.sharing()?,
                    mode: values.mode(0o755)? & 0o777,
                    uid: values.number("uid")?,
                    gid: values.number("gid")?,
                }
            }
            "tmpfs" => Mount::Tmpfs {
                target: target.ok_or_else(needed)?,
                size: values.parsed("size", value::size)?,
            },
            "secret" => values.secret(target)?,
            _ => Mount::Bind {
                source: value::absolute("/", values.text("source").unwrap_or("/")),
                target: target.ok_or_else(needed)?,
                read_only: values.read_only(true)?,
            },
        })
    }
}

/// Options with their variables replaced.
struct Values(Vec<(&'static str, Option<String>)>);

impl Values {
    fn get(&self, key: &str) -> Option<&Option<String>> {
        let found = self.0.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| value)
    }

    /// The value of a key, unless it is empty.
    fn text(&self, key: &str) -> Option<&str> {
        let value = self.get(key)?.as_deref();
        value.filter(|value| !value.is_empty())
    }

    fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, MountError> {
        let Some(value) = self.get(key).and_then(Option::as_deref) else {
            return Ok(None);
        };
        let invalid = || MountError::Value {
            key,
            value: quoted(value),
        };
        parse(value).map(Some).ok_or_else(invalid)
    }

    fn truth(&self, key: &'static str) -> Result<Option<bool>, MountError> {
        match self.get(key) {
            Some(None) => Ok(Some(true)),
            _ => self.parsed(key, value::truth),
        }
    }

    fn read_only(&self, default: bool) -> Result<bool, MountError> {
        let writable = self.truth("readwrite")?.map(|writable| !writable);
        Ok(self.truth("readonly")?.or(writable).unwrap_or(default))
    }

    fn sharing(&self) -> Result<Sharing, MountError> {
        let sharing = self.parsed("sharing", |value| {
            match value.to_ascii_lowercase().as_str() {
                "shared" => Some(Sharing::Shared),
                "private" => Some(Sharing::Private),
                "locked" => Some(Sharing::Locked),
                _ => None,
            }
        })?;
        Ok(sharing.unwrap_or_default())
    }

    fn mode(&self, default: u32) -> Result<u32, MountError> {
        Ok(self.parsed("mode", value::mode)?.unwrap_or(default))
    }

    fn number(&self, key: &'static str) -> Result<u32, MountError> {
        Ok(self.parsed(key, |value| value.parse().ok())?.unwrap_or(0))
    }

    fn secret(&self, target: Option<String>) -> Result<Mount, MountError> {
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let id = match (self.text("id"), self.text("source")) {
            (Some(_), Some(_)) => return Err(MountError::TwoNames),
            (Some(id), None) | (None, Some(id)) => id.to_owned(),
            (None, None) => base(target.as_deref().ok_or(MountError::Missing {
                kind: "secret",
                key: "id",
            })?),
        };
        let env = self.text("env").map(str::to_owned);
        let usual = || format!("/run/secrets/{}", base(&id));
        Ok(Mount::Secret {
            // A variable alone needs no file.
            target: target.or_else(|| env.is_none().then(usual)),
            id,
            env,
            required: self.truth("required")?.unwrap_or(false),
            mode: self.mode(0o400)?,
            uid: self.number("uid")?,
            gid: self.number("gid")?,
        })
    }
}

/// The fields between the commas; one in double quotes may hold commas.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().map_or((), |field| field.push(other)),
        }
    }
    fields
}
