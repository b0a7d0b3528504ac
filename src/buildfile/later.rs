//! Keys whose work is not done yet: they are checked like all others, and then refused by name.
//!
//! Nothing of a build file is silently ignored. Empty values ask for nothing and are fine.

use super::node::Node;
use super::shape::Decoder;

impl Decoder<'_, '_> {
    /// Checks the value of such a key, and refuses it if it asks for anything.
    pub(super) fn later(&mut self, name: &Node, value: &Node) {
        let key = name.key();
        let asks = if key == "cmds" {
            let record = self.record(value, key, &["pre", "post"]);
            let what = |name: &Node| format!("cmds.{}", name.key());
            let texts = record
                .iter()
                .map(|(name, value)| self.scalar(value, &what(name)));
            // All of them are checked, also those after one that asks for something.
            let asking = texts.flatten().filter(|text| !text.text.trim().is_empty());
            asking.count() > 0
        } else {
            let names = self.lines(value, key);
            for (node, name) in &names {
                self.system_package(node, name);
            }
            !names.is_empty()
        };
        if asks {
            let hint = match key {
                "system-packages" => "write `system-packages: []`, or use a `base` that has them",
                _ => "use a `base` that was prepared this way",
            };
            self.problem(name.span, format!("`{key}` is not supported yet"), hint);
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
