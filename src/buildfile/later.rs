//! Keys whose work is not done yet: they are checked like all others, and then refused by name.
//!
//! Nothing of a build file is silently ignored. Empty values ask for nothing and are fine.

use super::node::Node;
use super::shape::Decoder;

impl Decoder<'_, '_> {
    /// Checks the value of `cmds`, and refuses it if it asks for anything.
    pub(super) fn later(&mut self, name: &Node, value: &Node) {
        let key = name.key();
        let record = self.record(value, key, &["pre", "post"]);
        let what = |name: &Node| format!("cmds.{}", name.key());
        let texts = record
            .iter()
            .map(|(name, value)| self.scalar(value, &what(name)));
        // All of them are checked, also those after one that asks for something.
        let asking = texts.flatten().filter(|text| !text.text.trim().is_empty());
        if asking.count() > 0 {
            let hint = "use a `base` that was prepared this way";
            self.problem(name.span, format!("`{key}` is not supported yet"), hint);
        }
    }
}
