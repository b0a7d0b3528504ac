//! What an image's config says, as far as instructions can change it.
//!
//! OCI image specification, `config.md`; `Shell`, `Healthcheck` and `OnBuild` are Docker's.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The part of an image's config that instructions read and write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `Env`: names and values, each name there once.
    pub env: Vec<(String, String)>,
    /// `WorkingDir`; empty is `/`.
    pub working_dir: String,
    /// `User`: a name or a number, with or without `:group`; empty is root.
    pub user: String,
    /// `Shell`; empty is `/bin/sh -c`.
    pub shell: Vec<String>,
    /// `Entrypoint`
    pub entrypoint: Vec<String>,
    /// `Cmd`
    pub cmd: Vec<String>,
    /// `Labels`
    pub labels: BTreeMap<String, String>,
    /// `ExposedPorts`, such as `80/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// `Volumes`
    pub volumes: BTreeSet<String>,
    /// `StopSignal`
    pub stop_signal: String,
    /// `Healthcheck`
    pub healthcheck: Option<Healthcheck>,
    /// `OnBuild`: instructions for whoever builds upon the image.
    pub on_build: Vec<String>,
    /// `author`, beside the config proper.
    pub author: String,
}

/// How a runtime finds out whether a container works. Zero means that the runtime's default holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, `CMD` and words, or `CMD-SHELL` and a line.
    pub test: Vec<String>,
    /// Nanoseconds between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// Nanoseconds that a check may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// Nanoseconds in which failures do not count yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Nanoseconds between two checks in that time.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// Failures in a row that make a container unhealthy.
    #[serde(skip_serializing_if = "is_none")]
    pub retries: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(time: &u64) -> bool {
    *time == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_none(number: &u32) -> bool {
    *number == 0
}

impl Config {
    /// Reads an image's config: the whole document. What is not there, or malformed, is empty.
    #[must_use]
    pub fn read(document: &Value) -> Self {
        fn field<T: DeserializeOwned + Default>(config: &Value, name: &str) -> T {
            T::deserialize(&config[name]).unwrap_or_default()
        }
        let config = &document["config"];
        let mut env: Vec<(String, String)> = Vec::new();
        for line in field::<Vec<String>>(config, "Env") {
            let (name, value) = line.split_once('=').unwrap_or((&line, ""));
            env.push((name.to_owned(), value.to_owned()));
        }
        let keys = |name: &str| {
            let keys: BTreeMap<String, Value> = field(config, name);
            keys.into_keys().collect()
        };
        Self {
            env,
            working_dir: field(config, "WorkingDir"),
            user: field(config, "User"),
            shell: field(config, "Shell"),
            entrypoint: field(config, "Entrypoint"),
            cmd: field(config, "Cmd"),
            labels: field(config, "Labels"),
            exposed_ports: keys("ExposedPorts"),
            volumes: keys("Volumes"),
            stop_signal: field(config, "StopSignal"),
            healthcheck: field(config, "Healthcheck"),
            on_build: field(config, "OnBuild"),
            author: field(document, "author"),
        }
    }

    /// Writes it into an image's config: the whole document. Keys that no instruction knows stay, and
    /// empty values are left out.
    pub fn write(&self, document: &mut Value) {
        let env = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let keys = |keys: &BTreeSet<String>| -> Value {
            keys.iter()
                .map(|key| (key.clone(), json!({})))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let fields = [
            ("Env", json!(env.collect::<Vec<_>>())),
            ("WorkingDir", json!(self.working_dir)),
            ("User", json!(self.user)),
            ("Shell", json!(self.shell)),
            ("Entrypoint", json!(self.entrypoint)),
            ("Cmd", json!(self.cmd)),
            ("Labels", json!(self.labels)),
            ("ExposedPorts", keys(&self.exposed_ports)),
            ("Volumes", keys(&self.volumes)),
            ("StopSignal", json!(self.stop_signal)),
            ("Healthcheck", json!(self.healthcheck)),
            ("OnBuild", json!(self.on_build)),
        ];
        let config = object(document, Some("config"));
        for (name, value) in fields {
            set(config, name, value);
        }
        set(object(document, None), "author", json!(self.author));
    }
}

/// The object at `key` of a document, or the document itself; made if it is none.
fn object<'d>(document: &'d mut Value, key: Option<&str>) -> &'d mut Value {
    if !document.is_object() {
        *document = json!({});
    }
    let Some(key) = key else { return document };
    let value = &mut document[key];
    if !value.is_object() {
        *value = json!({});
    }
    value
}

fn set(object: &mut Value, name: &str, value: Value) {
    let empty = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    if !empty {
        object[name] = value;
    } else if let Some(fields) = object.as_object_mut() {
        fields.remove(name);
    }
}
