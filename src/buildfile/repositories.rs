//! The keys `repositories`, `snapshot` and `proxy`.

use std::sync::LazyLock;

use regex::Regex;

use super::Repository;
use super::location::{self, Malformed, Origin};
use super::node::Node;
use super::shape::Decoder;
use crate::net::PROXY_VARIABLES;
use crate::secret::{Secret, regex};

/// Steps from a commit to an ancestor, or from a tag to its commit, as git writes them.
static STEPS: LazyLock<Regex> = LazyLock::new(|| regex(r"^([~^][0-9]{0,9}|\^\{(commit)?\})*$"));

/// The name of a commit, and the steps behind it.
pub(crate) fn split_steps(commit: &str) -> (&str, &str) {
    commit.split_at(commit.find(['~', '^']).unwrap_or(commit.len()))
}

/// The keys of an entry of `repositories`, in the order in which messages name them.
pub(super) const REPOSITORY: [&str; 6] = [
    "url",
    "commit_id",
    "requirements_file",
    "ssh_key",
    "credentials",
    "GIT_SSL_NO_VERIFY",
];

/// The keys of `credentials`, both of which have to be there.
pub(super) const CREDENTIALS: [&str; 2] = ["username", "password"];

impl Decoder<'_, '_> {
    /// Reads `repositories`: destinations, each with what is cloned there.
    pub(super) fn repositories(&mut self, node: &Node) -> Vec<Repository> {
        let pairs = self.mapping(node, "repositories");
        pairs
            .iter()
            .filter_map(|(key, value)| self.repository(key, value))
            .collect()
    }

    fn repository(&mut self, key: &Node, value: &Node) -> Option<Repository> {
        let destination = self.destination(key);
        if let Some(destination) = &destination {
            self.take(destination.clone(), key.shown_key(), key.span);
        }
        let name = format!("repositories.{}", key.shown_key());
        let mut origin = None;
        let mut repository = Repository {
            destination: destination.clone().unwrap_or_default(),
            ..Repository::new(Origin::Local(String::new()), name.as_str())
        };
        let record = self.record(value, &name, &REPOSITORY);
        if !record.iter().any(|(name, _)| name.key() == "url") {
            let message = format!("`{name}` has no `url`");
            self.problem(key.span, message, "name the repository: `url: …`");
        }
        for (field, value) in record {
            let what = format!("{name}.{}", field.key());
            match field.key() {
                "url" => origin = self.origin(value, &what),
                "commit_id" => repository.commit = self.commit(value, &what),
                "requirements_file" => {
                    repository.requirements = self.truth(value, &what).unwrap_or_default();
                }
                "ssh_key" => {
                    let text = self.scalar(value, &what).map(|scalar| &scalar.text);
                    let text = text.filter(|text| !text.trim().is_empty());
                    repository.ssh_key = text.map(Secret::new);
                }
                "credentials" => repository.credentials = self.credentials(value, &what),
                _ => repository.no_verify = self.truth(value, &what).unwrap_or_default(),
            }
        }
        repository.origin = origin?;
        destination.map(|_| repository)
    }

    fn origin(&mut self, node: &Node, what: &str) -> Option<Origin> {
        match Origin::parse(self.line(node, what)?) {
            Ok(origin) => Some(origin),
            Err(problem) => {
                self.malformed(node, &problem);
                None
            }
        }
    }

    pub(super) fn malformed(&mut self, node: &Node, problem: &Malformed) {
        self.problem(node.span, &problem.message, problem.hint);
    }

    /// A name that may stand on the way to a server (no option, and no pattern of names), perhaps with steps
    /// from there to an ancestor.
    fn commit(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.line_or_blank(node, what)?;
        let (name, steps) = split_steps(text);
        let wrong = |c: char| c.is_whitespace() || c.is_control() || ":?*[\\".contains(c);
        let is_name = !name.is_empty()
            && !name.starts_with('-')
            && !["..", "@{"].iter().any(|part| name.contains(part));
        if !is_name || name.contains(wrong) || !STEPS.is_match(steps) {
            let message = format!("`{what}` is not the name of a commit");
            let hint = "write its id, a tag or a branch, with `~1` behind it for its parent";
            self.problem(node.span, message, hint);
            return None;
        }
        Some(text.to_owned())
    }

    fn credentials(&mut self, node: &Node, what: &str) -> Option<(String, Secret)> {
        let record = self.record(node, what, &CREDENTIALS);
        let [username, password] = CREDENTIALS.map(|name| {
            let Some((_, value)) = record.iter().find(|(found, _)| found.key() == name) else {
                self.problem(node.span, format!("`{what}` has no `{name}`"), "");
                return None;
            };
            let scalar = self.scalar(value, &format!("{what}.{name}"))?;
            Some(scalar.text.clone())
        });
        Some((username?, Secret::new(password?)))
    }

    /// Reads `snapshot`: a path of this machine.
    pub(super) fn snapshot(&mut self, node: &Node) -> Option<String> {
        let text = self.line(node, "snapshot")?;
        if location::scheme(text).is_some() {
            let hint = "fetch the file first, and name its path";
            self.problem(node.span, "`snapshot` must be a path of this machine", hint);
            return None;
        }
        Some(text.to_owned())
    }

    /// Reads `proxy`: variables and their values.
    pub(super) fn proxy(&mut self, node: &Node) -> Vec<(String, Secret)> {
        let record = self.record(node, "proxy", &PROXY_VARIABLES);
        record
            .into_iter()
            .filter_map(|(name, value)| {
                let scalar = self.scalar(value, &format!("proxy.{}", name.key()))?;
                Some((name.key().to_owned(), Secret::new(scalar.text.trim())))
            })
            .collect()
    }
}
