//! Keys whose work is not done yet: they are checked like all others, and then refused by name.
//!
//! Nothing of a build file is silently ignored. Empty values ask for nothing and are fine.

use super::node::Node;
use super::shape::Decoder;

const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "SOCKS_PROXY",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "socks_proxy",
];

const REPOSITORY: [&str; 6] = [
    "url",
    "commit_id",
    "requirements_file",
    "ssh_key",
    "credentials",
    "GIT_SSL_NO_VERIFY",
];

impl Decoder<'_, '_> {
    /// Checks the value of such a key, and refuses it if it asks for anything.
    pub(super) fn later(&mut self, name: &Node, value: &Node) {
        let key = name.key();
        let asks = match key {
            "repositories" => self.repositories(value),
            "snapshot" => self.line(value, key).is_some(),
            "proxy" => {
                let record = self.record(value, key, &PROXIES);
                for (name, value) in &record {
                    self.scalar(value, &format!("proxy.{}", name.key()));
                }
                !record.is_empty()
            }
            "cmds" => {
                let record = self.record(value, key, &["pre", "post"]);
                let what = |name: &Node| format!("cmds.{}", name.key());
                let texts = record
                    .iter()
                    .map(|(name, value)| self.scalar(value, &what(name)));
                texts
                    .flatten()
                    .filter(|text| !text.text.trim().is_empty())
                    .count()
                    > 0
            }
            _ => {
                let names = self.lines(value, key);
                for (node, name) in &names {
                    self.system_package(node, name);
                }
                !names.is_empty()
            }
        };
        if asks {
            let hint = match key {
                "system-packages" => "write `system-packages: []`, or use a `base` that has them",
                "repositories" => "clone them first and name the folders in `files`",
                "snapshot" => "list its packages in `packages`",
                "proxy" => "set the proxy in the environment of the build",
                _ => "use a `base` that was prepared this way",
            };
            self.problem(name.span, format!("`{key}` is not supported yet"), hint);
        }
    }

    fn repositories(&mut self, node: &Node) -> bool {
        let pairs = self.mapping(node, "repositories");
        for (key, value) in pairs {
            self.destination(key);
            let what = format!("repositories.{}", key.shown_key());
            let record = self.record(value, &what, &REPOSITORY);
            if !record.iter().any(|(name, _)| name.key() == "url") {
                self.problem(
                    key.span,
                    format!("`{what}` has no `url`"),
                    "name the repository: `url: …`",
                );
            }
            for (name, value) in record {
                let what = format!("{what}.{}", name.key());
                match name.key() {
                    "requirements_file" | "GIT_SSL_NO_VERIFY" => {
                        self.truth(value, &what);
                    }
                    "credentials" => self.credentials(value, &what),
                    "ssh_key" => {
                        self.text(value, &what);
                    }
                    _ => {
                        self.line(value, &what);
                    }
                }
            }
        }
        !pairs.is_empty()
    }

    fn credentials(&mut self, node: &Node, what: &str) {
        let names = ["username", "password"];
        let record = self.record(node, what, &names);
        for name in names {
            match record.iter().find(|(found, _)| found.key() == name) {
                Some((_, value)) => {
                    self.scalar(value, &format!("{what}.{name}"));
                }
                None => self.problem(node.span, format!("`{what}` has no `{name}`"), ""),
            }
        }
    }

    /// Debian's names, with the `:architecture` and `=version` that apt takes.
    fn system_package(&mut self, node: &Node, name: &str) {
        let end = name.find([':', '=']).unwrap_or(name.len());
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(name.starts_with(first) && name[..end].chars().all(valid)) || name.contains(' ') {
            let message = "this is not the name of a Debian package";
            self.problem(
                node.span,
                message,
                "write one package an item, such as `- git`",
            );
        }
    }
}
