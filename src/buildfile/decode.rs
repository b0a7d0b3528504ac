//! The tree of a build file becomes a [`BuildFile`]: every key that there is, its shape and its sense.

use regex::{Regex, RegexBuilder};

use super::expand::expand;
use super::node::{Node, Value};
use super::shape::Decoder;
use super::{BuildFile, JobFiles, Layout};
use crate::manifest::Platform;
use crate::registry::Reference;

/// The keys of a build file, in the order in which messages name them.
pub(super) const KEYS: [&str; 18] = [
    "tag",
    "python",
    "base",
    "platform",
    "layout",
    "env",
    "files",
    "packages",
    "pip-config",
    "installer",
    "repositories",
    "snapshot",
    "proxy",
    "cmds",
    "jobfiles",
    "labels",
    "annotations",
    "system-packages",
];

/// The keys of `jobfiles`, in the order in which messages name them.
pub(super) const JOBFILES: [&str; 3] = ["paths", "match", "glob"];

/// Variables that `env` may not set.
pub(super) const OURS: [&str; 2] = ["WORKSPACE", "VIRTUAL_ENV"];

/// Patterns in `jobfiles.match`, and bytes of each once it is compiled: together 50 MiB.
const MAX_PATTERNS: usize = 50;
const MAX_PATTERN_SIZE: usize = 1 << 20;

impl Decoder<'_, '_> {
    /// Reads the whole file. What it gives means something only if there is no problem.
    pub(super) fn buildfile(&mut self, root: &Node, masked: String) -> BuildFile {
        let mut buildfile = BuildFile {
            masked,
            ..BuildFile::default()
        };
        if !matches!(root.value, Value::Mapping(_)) {
            let message = if root.is_null() {
                "the build file is empty".to_owned()
            } else {
                format!("a build file must be a mapping, not {}", root.kind())
            };
            let hint = "write keys such as `python: 3.11` and `packages:`";
            self.problem(root.span, message, hint);
            return buildfile;
        }
        let record = self.record(root, "the build file", &KEYS);
        // Other keys speak of paths in it.
        let layout = record.iter().find(|(name, _)| name.key() == "layout");
        let layout = layout.and_then(|(_, value)| self.layout(value));
        buildfile.layout = layout.unwrap_or_default();
        let layout = buildfile.layout;
        for (name, value) in record {
            let key = name.key();
            match key {
                "tag" => buildfile.tag = self.tag(value),
                "python" => buildfile.python = self.python(value),
                "base" => buildfile.base = self.line(value, key).map(str::to_owned),
                "platform" => buildfile.platform = self.platform(value),
                "layout" => {}
                "env" => buildfile.env = self.env(value, layout),
                "files" => buildfile.files = self.files(value),
                "packages" => buildfile.packages = self.requirements(value, key),
                "pip-config" => buildfile.pip_config = self.pip_config(value),
                "installer" => buildfile.installer = self.installer(value),
                "repositories" => buildfile.repositories = self.repositories(value),
                "snapshot" => buildfile.snapshot = self.snapshot(value),
                "proxy" => buildfile.proxy = self.proxy(value),
                "system-packages" => buildfile.system_packages = self.system_packages(value),
                "cmds" => buildfile.cmds = self.cmds(value),
                "jobfiles" => buildfile.jobfiles = self.jobfiles(value, layout),
                "labels" => buildfile.labels = self.names(value, key),
                "annotations" => buildfile.annotations = self.names(value, key),
                _ => unreachable!("`record` knows no other key"),
            }
        }
        buildfile.warnings = std::mem::take(&mut self.warnings);
        buildfile
    }

    /// Lines of requirements. As in a file of them, an item can hold several lines or none: what a variable
    /// of `%ENV{…}` stands for may be empty.
    pub(super) fn requirements(&mut self, node: &Node, what: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, item) in self.list(node, what).iter().enumerate() {
            if let Some(scalar) = self.scalar(item, &format!("{what}[{at}]")) {
                let some = scalar.text.split(['\n', '\r']).map(str::trim);
                lines.extend(some.filter(|line| !line.is_empty()).map(str::to_owned));
            }
        }
        lines
    }

    fn tag(&mut self, node: &Node) -> Option<String> {
        let text = self.line_or_blank(node, "tag")?;
        let hint = "write `[registry/]name[:version]` in lower case, such as `mypyatsimage:latest`";
        match text.parse::<Reference>() {
            Ok(reference) if reference.digest().is_none() => return Some(text.to_owned()),
            Ok(_) => self.problem(node.span, "`tag` may not name a digest", hint),
            Err(_) => self.problem(node.span, "`tag` is not the name of an image", hint),
        }
        None
    }

    fn python(&mut self, node: &Node) -> Option<String> {
        let text = self.line(node, "python")?;
        let parts: Vec<&str> = text.split('.').collect();
        let number =
            |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if parts.len() <= 3 && parts.iter().all(number) {
            return Some(text.to_owned());
        }
        let hint = "write digits and dots, such as `python: 3.11`; `base` chooses any other image";
        self.problem(node.span, "`python` must be a version", hint);
        None
    }

    /// Names of Debian packages, with the `:architecture` and `=version` that apt takes. The key without
    /// a value is the key that is not there.
    fn system_packages(&mut self, node: &Node) -> Option<Vec<String>> {
        if node.is_null() {
            return None;
        }
        let mut packages = Vec::new();
        for (node, name) in self.lines(node, "system-packages") {
            let start = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let end = name.find([':', '=']).unwrap_or(name.len());
            let name_can_have = |c: char| start(c) || "+-.".contains(c);
            let rest_can_have = |c: char| c.is_ascii_graphic();
            if name.starts_with(start)
                && name[..end].chars().all(name_can_have)
                && name[end..].chars().all(rest_can_have)
            {
                packages.push(name.to_owned());
            } else {
                let message = "this is not the name of a Debian package";
                let hint = "write one package an item, such as `- git`";
                self.problem(node.span, message, hint);
            }
        }
        Some(packages)
    }

    fn platform(&mut self, node: &Node) -> Option<Platform> {
        let text = self.line_or_blank(node, "platform")?;
        let platform = text.parse::<Platform>().ok();
        if platform.is_none() {
            let message = "`platform` must be `os/architecture` or `os/architecture/variant`";
            self.problem(
                node.span,
                message,
                "write `platform: linux/amd64`, for example",
            );
        }
        platform
    }

    fn env(&mut self, node: &Node, layout: Layout) -> Vec<(String, String)> {
        let mut env = Vec::new();
        for (key, value) in self.mapping(node, "env") {
            let name = key.key();
            let shown = format!("env.{}", key.shown_key());
            let wrong = |c: char| c.is_whitespace() || c.is_control() || "=\"'$\\".contains(c);
            if name.is_empty() || name.contains(wrong) {
                let message = format!("`{}` is not the name of a variable", key.shown_key());
                let hint = "use letters, digits and underscores";
                self.problem(key.span, message, hint);
                continue;
            }
            let mut ours = layout.variables().into_iter();
            if let Some((_, place)) = ours.find(|(ours, _)| *ours == name) {
                let message =
                    format!("`{name}` may not be set: the image is built around `{place}`");
                self.problem(key.span, message, "remove it; other values can use it");
                continue;
            }
            if value.is_null() {
                env.push((name.to_owned(), String::new()));
                continue;
            }
            let Some(scalar) = self.scalar(value, &shown) else {
                continue;
            };
            if let Err(error) = expand(&scalar.text, &|_| None) {
                // The message may quote the text, so it is made from what may be shown.
                let error = expand(&scalar.shown, &|_| None).err().unwrap_or(error);
                self.problem(
                    value.span,
                    error.to_string(),
                    error.hint().unwrap_or_default(),
                );
            }
            env.push((name.to_owned(), scalar.text.clone()));
        }
        env
    }

    fn jobfiles(&mut self, node: &Node, layout: Layout) -> JobFiles {
        let mut jobfiles = JobFiles::default();
        // The original tool ignores keys that it does not know here, and only here.
        for (key, value) in self.lenient_record(node, "jobfiles", &JOBFILES) {
            let key = key.key();
            let what = format!("jobfiles.{key}");
            let lines = self.lines_or_line(value, &what);
            let owned = |(_, line): &(&Node, &str)| (*line).to_owned();
            match key {
                "paths" => jobfiles.paths = lines.iter().map(owned).collect(),
                "match" => {
                    let lines = lines.into_iter();
                    if lines.len() > MAX_PATTERNS {
                        let message = format!("`{what}` has more than {MAX_PATTERNS} patterns");
                        self.problem(value.span, message, "join them by `|`");
                        continue;
                    }
                    jobfiles.matches = lines
                        .filter_map(|(node, line)| self.pattern(node, line))
                        .collect();
                }
                _ => {
                    let leaves = |line: &str| {
                        line.split('/').any(|part| part == "..")
                            || line.starts_with('/') && layout.in_workspace(line).is_none()
                    };
                    for (node, _) in lines.iter().filter(|(_, line)| leaves(line)) {
                        let hint = "patterns are relative to the workspace and every folder in it";
                        self.problem(node.span, "the glob pattern leaves the workspace", hint);
                    }
                    jobfiles.globs = lines.iter().map(owned).collect();
                }
            }
        }
        jobfiles
    }

    fn pattern(&mut self, node: &Node, text: &str) -> Option<Regex> {
        let built = RegexBuilder::new(text).size_limit(MAX_PATTERN_SIZE).build();
        let error = match built {
            Ok(regex) => return Some(regex),
            Err(error) => error.to_string(),
        };
        // The message shows the pattern again, which may hold a masked value; its last line says why.
        let reason = error.lines().last().unwrap_or_default().trim();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        let hint = if error.contains("look-around") || error.contains("backreference") {
            "patterns are matched in linear time, without lookaround and backreferences; `glob` and `paths` add files too"
        } else if text.contains("\\Z") {
            "write `$` or `\\z` for the end"
        } else {
            "put a backslash before a character that is meant literally"
        };
        self.problem(
            node.span,
            format!("this is not a regular expression: {reason}"),
            hint,
        );
        None
    }

    /// The pairs of `labels` or `annotations`.
    fn names(&mut self, node: &Node, what: &str) -> Vec<(String, String)> {
        let mut names = Vec::new();
        for (key, value) in self.mapping(node, what) {
            let name = key.key();
            if name.is_empty() || name.contains(char::is_whitespace) || name.contains('=') {
                let message = format!("`{}` is not a name for one of `{what}`", key.shown_key());
                self.problem(key.span, message, "use letters, digits, dots and dashes");
            } else if value.is_null() {
                names.push((name.to_owned(), String::new()));
            } else if let Some(value) = self.scalar(value, &format!("{what}.{}", key.shown_key())) {
                names.push((name.to_owned(), value.text.clone()));
            }
        }
        names
    }
}
