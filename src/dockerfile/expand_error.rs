//! What keeps a word from being read, and the bounds of what is read.

/// How deep variables may nest; deeper text is an attack on the stack.
pub(super) const MAX_DEPTH: usize = 64;
/// Bytes that come out of a word. Twenty lines of `ENV A=$A$A` would be a gigabyte.
pub(super) const MAX_LENGTH: usize = 1 << 20;

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandError {
    /// An open quote.
    #[error("the quote `{0}` is not closed")]
    Quote(char),
    /// `${NAME` without its end.
    #[error("`${{` is not closed by `}}`")]
    Brace,
    /// `${NAME/pattern` without the other slash.
    #[error("`${{{name}/…` has no second `/`")]
    Slash {
        /// The variable.
        name: String,
    },
    /// `${` with something else than a name behind it.
    #[error("`${{` is not followed by the name of a variable")]
    Name,
    /// Something behind a name that has no meaning.
    #[error("`${{{name}{modifier}…}}` has no meaning")]
    Modifier {
        /// The variable.
        name: String,
        /// What stands behind it, one or two characters.
        modifier: String,
    },
    /// `${NAME:?message}`, and the variable is not set, or empty.
    #[error("`{name}` {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message, or what is wrong.
        message: String,
    },
    /// A backslash before a character that needs none, in a pattern, or a pattern of a thousand characters.
    #[error("`{pattern}` is not a pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// Words in words in words.
    #[error("variables are nested more than {MAX_DEPTH} deep")]
    Depth,
    /// Variables that hold too much.
    #[error("the word is longer than {} KiB once its variables are replaced", MAX_LENGTH / 1024)]
    Length,
    /// Patterns upon patterns.
    #[error("the patterns of the word take too long")]
    Work,
}

impl ExpandError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Quote(_) => "close it by another one, or put a backslash before it",
            Self::Brace | Self::Name => "write `\\$` for a dollar sign that is meant literally",
            Self::Slash { .. } => "write `${NAME/pattern/replacement}`",
            Self::Modifier { .. } => {
                "use `${NAME:-default}`, `${NAME:+other}`, `${NAME:?message}`, `${NAME#prefix}`, \
                 `${NAME%suffix}` or `${NAME/pattern/replacement}`"
            }
            Self::Required { .. } => "set it by `ENV` or `ARG` above",
            Self::Pattern { .. } => {
                "a backslash stands before `*`, `?`, `\\`, `/` or `}`, and a pattern is short"
            }
            Self::Depth | Self::Length | Self::Work => return None,
        })
    }
}
