//! Manifests (`*.tem`), for `installation/manifest.json`: what the jobs in the workspace are, how they are
//! run, and on which devices.
//!
//! The file that is written has the form that the newest ancestor gives it, sorted. A manifest that cannot
//! be read, or has another shape than it should, is left out with a warning. Git work trees are found on
//! the same walk, since a manifest names the repository that it lies in.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Map, Value, json};

use crate::buildfile::{self, INSTALLATION, Invalid, Layout};
use crate::progress::Progress;

use super::destination::normalise;
use super::worktrees;
use crate::error::Error;
use crate::sources::error::filling;

type Object = Map<String, Value>;

/// What makes a file a manifest.
const ENDING: &str = ".tem";
/// More than `buildfile::json` takes.
const MAX_SIZE: u64 = 2 << 20;
/// What is copied from a testbed's devices, as it is there.
const DEVICE: [&str; 7] = [
    "os",
    "platform",
    "model",
    "pid",
    "type",
    "logical",
    "device_id",
];

/// Finds the manifests in `workspace`, which is canonical, and gives the text of `manifest.json`, if there
/// are any. Work trees that are found are added to `repositories`, by their paths in the image.
pub(super) fn discover(
    workspace: &Path,
    layout: Layout,
    repositories: &mut BTreeMap<String, Value>,
    progress: &Progress,
) -> Result<Option<String>, Error> {
    let (manifests, trees) = walk(workspace, progress)?;
    for tree in trees {
        let Some(path) = in_image(&tree, layout).filter(|path| !repositories.contains_key(path))
        else {
            continue;
        };
        match worktrees::describe(workspace, &workspace.join(&tree), &path) {
            Some(description) => drop(repositories.insert(path, description)),
            None => progress.warn(format!(
                "`{path}` has a `.git`, but is no repository that can be described"
            )),
        }
    }
    let mut jobs = Vec::new();
    for manifest in manifests {
        progress.check()?;
        match job(workspace, layout, &manifest, repositories, progress) {
            Ok(job) => jobs.push(Value::Object(job)),
            Err(reason) => progress.warn(format!(
                "the manifest `{}` is left out: {reason}",
                manifest.display()
            )),
        }
    }
    Ok((!jobs.is_empty()).then(|| ascii(&json!({ "version": 1, "jobs": jobs }))))
}

/// The text of a JSON file in ASCII, since old Pythons read it by the locale.
pub(super) fn ascii(value: &Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            // Such characters stand in strings only.
            for unit in character.encode_utf16(&mut [0; 2]) {
                // A string takes all that is written.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// The manifests and the work trees, sorted; paths are relative to the workspace.
fn walk(workspace: &Path, progress: &Progress) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
    let (mut manifests, mut trees) = (Vec::new(), Vec::new());
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        progress.check()?;
        for entry in fs::read_dir(workspace.join(&directory)).map_err(filling)? {
            let entry = entry.map_err(filling)?;
            let name = entry.file_name();
            let path = directory.join(&name);
            if name == ".git" {
                trees.push(directory.clone());
            } else if entry.file_type().map_err(filling)?.is_dir() {
                if path != Path::new(INSTALLATION) {
                    directories.push(path);
                }
            } else if name.to_string_lossy().ends_with(ENDING) {
                manifests.push(path);
            }
        }
    }
    manifests.sort();
    trees.sort();
    Ok((manifests, trees))
}

/// What `manifest.json` says of one manifest, or why it says nothing.
fn job(
    workspace: &Path,
    layout: Layout,
    manifest: &Path,
    repositories: &BTreeMap<String, Value>,
    progress: &Progress,
) -> Result<Object, String> {
    let file = in_image(manifest, layout).ok_or("its path is not UTF-8")?;
    let Value::Object(mut job) = load(workspace, manifest)? else {
        return Err("it is not a mapping".to_owned());
    };
    if let Some(repository) = innermost(repositories, &file) {
        job.insert("repo_path".to_owned(), repository.into());
    }
    let kind = job.remove("type").filter(truthy);
    let kind = kind.ok_or("it has no `type`")?;
    let mut profiles = profiles(&mut job)?;
    for profile in &mut profiles {
        look_up(workspace, layout, manifest, profile, progress);
    }
    let profiles: Vec<Value> = profiles.into_iter().map(Value::Object).collect();
    for (key, value) in [
        ("file", file.into()),
        ("run_type", "manifest".into()),
        ("job_type", kind),
        ("profiles", profiles.into()),
    ] {
        job.insert(key.to_owned(), value);
    }
    Ok(job)
}

/// Takes `profiles`, `runtimes` and `arguments` out of a manifest. Gives the profiles, each with its name
/// and all that holds for it, among them `DEFAULT`, which is the manifest's own; leaves the runtimes as a
/// list.
fn profiles(job: &mut Object) -> Result<Vec<Object>, String> {
    let runtimes = mappings(job, "runtimes")?;
    let mut profiles = mappings(job, "profiles")?;
    let environment = |runtime: &str| runtimes.get(runtime)?.get("environment").cloned();
    let default = json!({
        "runtime": "system",
        "arguments": job.remove("arguments").unwrap_or_else(|| json!({})),
        "environment": environment("system").unwrap_or_else(|| json!({})),
    });
    if let Value::Object(default) = default {
        profiles.insert("DEFAULT".to_owned(), default);
    }
    let common = tags(job)?.to_vec();
    for (name, profile) in &mut profiles {
        let runtime = profile.get("runtime").map_or("system".to_owned(), text);
        if let Some(environment) = environment(&runtime).filter(truthy) {
            profile.insert("environment".to_owned(), environment);
        }
        let tags = [&common, tags(profile)?].concat();
        if !tags.is_empty() {
            profile.insert("tags".to_owned(), tags.into());
        }
        profile.insert("name".to_owned(), name.as_str().into());
    }
    let runtimes = runtimes.into_iter().map(|(name, mut runtime)| {
        runtime.insert("name".to_owned(), name.into());
        Value::Object(runtime)
    });
    let runtimes: Vec<Value> = runtimes.collect();
    job.insert("runtimes".to_owned(), runtimes.into());
    Ok(profiles.into_values().collect())
}

/// A mapping of mappings, taken out.
fn mappings(job: &mut Object, key: &str) -> Result<BTreeMap<String, Object>, String> {
    let wrong = || format!("`{key}` is not a mapping of mappings");
    let pairs = match job.remove(key) {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(pairs)) => pairs,
        Some(_) => return Err(wrong()),
    };
    let pairs = pairs.into_iter().map(|(name, value)| match value {
        Value::Object(inner) => Ok((name, inner)),
        _ => Err(wrong()),
    });
    pairs.collect()
}

fn tags(object: &Object) -> Result<&[Value], String> {
    match object.get("tags") {
        Some(Value::Array(tags)) => Ok(tags),
        Some(other) if truthy(other) => Err("`tags` is not a list".to_owned()),
        _ => Ok(&[]),
    }
}

/// Adds to a profile what the files say that its arguments name: the devices of testbeds, and what brings
/// them up.
fn look_up(
    workspace: &Path,
    layout: Layout,
    manifest: &Path,
    profile: &mut Object,
    progress: &Progress,
) {
    let arguments = profile.get("arguments").and_then(Value::as_object);
    let named = |name: &str| arguments?.get(name)?.as_str().map(str::to_owned);
    let files =
        ["logical-testbed-file", "testbed-file", "clean-file"].map(|name| (name, named(name)));
    for (argument, file) in files {
        let Some(file) = file.filter(|file| file.to_lowercase().ends_with(".yaml")) else {
            continue;
        };
        // What a variable names is known when the job runs, and so is what lies elsewhere in the image.
        let Some(path) = beside(manifest, &file, layout) else {
            continue;
        };
        match load(workspace, &path) {
            Ok(content) if argument == "clean-file" => bring_up(profile, &content),
            Ok(content) => testbed(profile, &content),
            Err(reason) => progress.warn(format!(
                "`{file}`, which the manifest `{}` names, is not looked at: {reason}",
                manifest.display()
            )),
        }
    }
}

/// A path as a manifest writes it, relative to the workspace; `None` if it is meant to lie elsewhere.
fn beside(manifest: &Path, file: &str, layout: Layout) -> Option<PathBuf> {
    if file.starts_with('$') {
        return None;
    }
    if file.starts_with('/') {
        return layout.in_workspace(file).map(PathBuf::from);
    }
    Some(manifest.parent()?.join(file))
}

fn testbed(profile: &mut Object, content: &Value) {
    let Some(devices) = content.get("devices").and_then(Value::as_object) else {
        return;
    };
    let mut found = Object::new();
    for (name, device) in devices {
        let Some(device) = device.as_object() else {
            continue;
        };
        let known = DEVICE.iter().filter_map(|&key| {
            let value = device.get(key).filter(|value| truthy(value))?;
            Some((key.to_owned(), value.clone()))
        });
        let mut known: Object = known.collect();
        let console = device.get("connections").and_then(|all| all.get("a"));
        let part = |name: &str| console?.get(name).filter(|part| truthy(part)).map(text);
        if let (Some(ip), Some(port)) = (part("ip"), part("port")) {
            known.insert("console".to_owned(), format!("{ip}:{port}").into());
        }
        found.insert(name.clone(), known.into());
    }
    if !devices.is_empty() {
        add(profile, "testbed_info", found);
    }
}

fn bring_up(profile: &mut Object, content: &Value) {
    let module = content.pointer("/bringup/BringUpWorker/module");
    if let Some(module) = module.filter(|module| truthy(module)) {
        let found = Object::from_iter([("bringup_module".to_owned(), module.clone())]);
        add(profile, "clean_info", found);
    }
}

/// Adds to the mapping at `key`; what else a manifest may have there stays.
fn add(profile: &mut Object, key: &str, found: Object) {
    let there = profile.entry(key).or_insert_with(|| json!({}));
    if let Some(there) = there.as_object_mut() {
        there.extend(found);
    }
}

/// Reads a YAML file of the workspace; never one that a link or `..` finds elsewhere.
fn load(workspace: &Path, relative: &Path) -> Result<Value, String> {
    let path = normalise(relative).ok_or("it does not lie in the workspace")?;
    let path = fs::canonicalize(workspace.join(path)).map_err(|_| "it does not exist")?;
    if !path.starts_with(workspace) {
        return Err("it does not lie in the workspace".to_owned());
    }
    let unreadable = |_| "it cannot be read";
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?.take(MAX_SIZE);
    { file }.read_to_end(&mut bytes).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text")?;
    let name = relative.display().to_string();
    buildfile::json(&name, &text).map_err(|error| match error.find::<Invalid>() {
        Some(Invalid(problems)) => problems.first().map_or_else(String::new, |first| {
            format!("line {}: {}", first.line, first.message)
        }),
        None => "it is larger than a mebibyte".to_owned(),
    })
}

/// The innermost repository that holds a file of the image.
fn innermost<'a>(repositories: &'a BTreeMap<String, Value>, file: &str) -> Option<&'a str> {
    let holds = |path: &&String| Path::new(file).starts_with(path.as_str());
    let paths = repositories.keys().filter(holds);
    paths.max_by_key(|path| path.len()).map(String::as_str)
}

/// What the image calls a path of the workspace.
fn in_image(relative: &Path, layout: Layout) -> Option<String> {
    let path = Path::new(layout.workspace()).join(relative);
    Some(path.to_str()?.trim_end_matches('/').to_owned())
}

/// Whether Python takes it for true.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(pairs) => !pairs.is_empty(),
    }
}

/// A scalar as text.
fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
