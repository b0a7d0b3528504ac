//! Text that must not be shown, and the masking of credentials in text that will be.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// A value that no message, log or file shows. `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The text without the user names and passwords in its URLs, and whether there were any.
///
/// To be replaced by the fuller one. A name without a password stays in an ssh URL, and what is
/// made of `${NAME}` alone stays everywhere, since it is no secret.
#[must_use]
pub fn split_credentials(text: &str) -> (String, bool) {
    static URL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"([A-Za-z][A-Za-z0-9+.-]*)://([^\s/?#'"]*)@"#).expect("a constant")
    });
    static VARIABLES: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(?:\$\{[A-Za-z0-9_]+\}|:)*$").expect("a constant"));
    let mut removed = false;
    let text = URL.replace_all(text, |found: &regex::Captures<'_>| {
        let (scheme, user) = (&found[1], &found[2]);
        let ssh = scheme.ends_with("ssh") && !user.contains(':');
        if ssh || VARIABLES.is_match(user) {
            return found[0].to_owned();
        }
        removed = true;
        format!("{scheme}://")
    });
    (text.into_owned(), removed)
}
