//! Keys whose work is not done yet: they are checked like all others, and then refused by name.
//!
//! Nothing of a build file is silently ignored. Empty values ask for nothing and are fine.

use super::node::Node;
use super::shape::Decoder;

impl Decoder<'_, '_> {
    /// Checks the value of such a key, and refuses it if it asks for anything.
    pub(super) fn later(&mut self, name: &Node, value: &Node) {
        let key = name.key();
        let names = self.lines(value, key);
        for (node, name) in &names {
            self.system_package(node, name);
        }
        if !names.is_empty() {
            let hint = "write `system-packages: []`, or use a `base` that has them";
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
