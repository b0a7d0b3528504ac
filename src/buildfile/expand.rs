//! Expands variables in the values of `env`, as a Dockerfile's `ENV NAME=VALUE` does.
//!
//! A value is one word, already delimited by YAML, so blanks need no quotes. `$NAME`, `${NAME}`,
//! `${NAME:-word}`, `${NAME-word}`, `${NAME:+word}` and `${NAME+word}` expand, words may nest, and an
//! unset variable is empty. Since people quoted values for the line of a Dockerfile, a value that is
//! quoted as a whole loses its quotes (and expands nothing between single ones); any other quote is
//! an ordinary character. A backslash takes the meaning from `$`, `\`, a quote or a blank, and is an
//! ordinary character before anything else. Follows the Dockerfile reference, "Environment
//! replacement" and "ENV".

use crate::error::{Error, Kind};

/// What is wrong with a value that should expand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandError {
    /// `${NAME` without its `}`.
    #[error("`${{` is not closed by `}}`")]
    Unterminated,
    /// `${` with something else than a name behind it.
    #[error("`${{` is not followed by the name of a variable")]
    Name,
    /// Something else than `:-`, `-`, `:+` or `+` behind a name.
    #[error("`${{{name}{modifier}…}}` is not supported")]
    Modifier {
        /// The variable.
        name: String,
        /// What stands behind it, one or two characters.
        modifier: String,
    },
    /// Words in words in words.
    #[error("variables are nested more than {MAX_DEPTH} deep")]
    Depth,
}

impl ExpandError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Modifier { .. } => Some("use `${NAME:-default}` or `${NAME:+replacement}`"),
            Self::Depth => None,
            Self::Unterminated | Self::Name => {
                Some("write `\\$` for a dollar sign that is meant literally")
            }
        }
    }
}

/// How deep `${A:-${B:-…}}` may nest; deeper text is an attack on the stack.
const MAX_DEPTH: usize = 64;

/// `text` with its variables replaced by what `lookup` says.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let characters: Vec<char> = text.chars().collect();
    let mut scanner = Scanner {
        text: &characters,
        at: 0,
        lookup,
    };
    scanner.word(None, 0)
}

/// The environment of the image: `base`, and above it `entries`, each expanded against everything
/// before it. A name that is there keeps its place and gets the new value, as Docker does it.
pub fn environment(
    base: &[(String, String)],
    entries: &[(String, String)],
) -> Result<Vec<(String, String)>, Error> {
    let mut environment = base.to_vec();
    for (name, value) in entries {
        let lookup = |wanted: &str| {
            let found = environment.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone())
        };
        let value = expand(value, &lookup).map_err(|source| {
            let hint = source.hint();
            let message = format!("failed to expand `env.{name}`");
            let error = Error::new(Kind::BuildFile, message)
                .usage()
                .with_source(source);
            match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        })?;
        match environment.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => environment.push((name.clone(), value)),
        }
    }
    Ok(environment)
}

struct Scanner<'a> {
    text: &'a [char],
    at: usize,
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    /// Expands up to `stop` and leaves it unread, or up to the end.
    fn word(&mut self, stop: Option<char>, depth: usize) -> Result<String, ExpandError> {
        if depth > MAX_DEPTH {
            return Err(ExpandError::Depth);
        }
        match (self.peek(), self.closing_quote(stop)) {
            (Some('\''), Some(close)) => {
                let word = self.text[self.at + 1..close].iter().collect();
                self.at = close + 1;
                Ok(word)
            }
            (Some('"'), Some(close)) => {
                self.at += 1;
                let mut inner = Scanner {
                    text: &self.text[..close],
                    at: self.at,
                    lookup: self.lookup,
                };
                let word = inner.plain(None, "$\\\"", depth)?;
                self.at = close + 1;
                Ok(word)
            }
            _ => self.plain(stop, "$\\\"' }", depth),
        }
    }

    fn plain(
        &mut self,
        stop: Option<char>,
        escaped: &str,
        depth: usize,
    ) -> Result<String, ExpandError> {
        let mut word = String::new();
        while let Some(character) = self.peek().filter(|character| Some(*character) != stop) {
            self.at += 1;
            match character {
                '\\' => match self.peek().filter(|next| escaped.contains(*next)) {
                    Some(next) => {
                        self.at += 1;
                        word.push(next);
                    }
                    None => word.push('\\'),
                },
                '$' => self.dollar(&mut word, depth)?,
                other => word.push(other),
            }
        }
        Ok(word)
    }

    /// Where the quote at the current place closes, if it quotes the whole word.
    fn closing_quote(&self, stop: Option<char>) -> Option<usize> {
        let quote = self
            .peek()
            .filter(|character| matches!(character, '\'' | '"'))?;
        let mut at = self.at + 1;
        while let Some(&character) = self.text.get(at) {
            match character {
                '\\' if quote == '"' => at += 1,
                _ if character == quote => {
                    return (self.text.get(at + 1).copied() == stop).then_some(at);
                }
                _ => {}
            }
            at += 1;
        }
        None
    }

    /// What stands behind a `$`.
    fn dollar(&mut self, word: &mut String, depth: usize) -> Result<(), ExpandError> {
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braces(word, depth);
        }
        let name = self.name();
        if name.is_empty() {
            word.push('$');
        } else {
            word.push_str(&(self.lookup)(&name).unwrap_or_default());
        }
        Ok(())
    }

    fn braces(&mut self, word: &mut String, depth: usize) -> Result<(), ExpandError> {
        let name = self.name();
        let value = (self.lookup)(&name);
        if name.is_empty() {
            return Err(if self.peek().is_none() {
                ExpandError::Unterminated
            } else {
                ExpandError::Name
            });
        }
        let colon = self.peek() == Some(':');
        let operator = self.text.get(self.at + usize::from(colon)).copied();
        match operator {
            None => return Err(ExpandError::Unterminated),
            Some('}') if !colon => word.push_str(&value.unwrap_or_default()),
            Some(operator @ ('-' | '+')) => {
                self.at += 1 + usize::from(colon);
                let alternative = self.word(Some('}'), depth + 1)?;
                let set = value.filter(|value| !(colon && value.is_empty()));
                match (operator, set) {
                    ('-', Some(value)) => word.push_str(&value),
                    ('-', None) | ('+', Some(_)) => word.push_str(&alternative),
                    _ => {}
                }
                if self.peek() != Some('}') {
                    return Err(ExpandError::Unterminated);
                }
            }
            Some(operator) => {
                let modifier = if colon {
                    format!(":{operator}")
                } else {
                    operator.to_string()
                };
                return Err(ExpandError::Modifier { name, modifier });
            }
        }
        self.at += 1;
        Ok(())
    }

    /// A variable's name, a number, or one of the shell's special parameters; empty if none is here.
    fn name(&mut self) -> String {
        let rest = &self.text[self.at..];
        let length = match rest.first() {
            Some(c) if c.is_ascii_alphabetic() || *c == '_' => rest
                .iter()
                .take_while(|c| c.is_ascii_alphanumeric() || **c == '_')
                .count(),
            Some(c) if c.is_ascii_digit() => rest.iter().take_while(|c| c.is_ascii_digit()).count(),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => 0,
        };
        self.at += length;
        rest[..length].iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "WORKSPACE" => Some("/workspace".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn values_expand_as_in_a_dockerfile() {
        for (text, expanded) in [
            ("", ""),
            ("plain text", "plain text"),
            (
                "${WORKSPACE}/one:$WORKSPACE/two",
                "/workspace/one:/workspace/two",
            ),
            ("$A_$A-${A}b", "a-ab"),
            ("$UNSET|${UNSET}|", "||"),
            ("${A:-x} ${UNSET:-x} ${EMPTY:-x}", "a x x"),
            ("${A-x} ${UNSET-x} ${EMPTY-x}", "a x "),
            ("${A:+x} ${UNSET:+x} ${EMPTY:+x}", "x  "),
            ("${A+x} ${UNSET+x} ${EMPTY+x}", "x  x"),
            ("${UNSET:-${EMPTY:-$A/${A}}}", "a/a"),
            ("${UNSET:-}", ""),
            ("${UNSET:-a b}", "a b"),
            ("${UNSET:-\"a } $A\"}", "a } a"),
            ("${UNSET:-a\\}b}", "a}b"),
            ("\\$A \\${A}", "$A ${A}"),
            ("\\\\$A", "\\a"),
            ("^\\d+$", "^\\d+$"),
            ("C:\\dir\\", "C:\\dir\\"),
            ("cost: 5$", "cost: 5$"),
            ("$ $/", "$ $/"),
            ("$1$$x", "x"),
            ("\"a  $A\"", "a  a"),
            ("'a  $A'", "a  $A"),
            ("\"say \\\"$A\\\"\"", "say \"a\""),
            ("it's $A", "it's a"),
            ("\"$A\" and \"b\"", "\"a\" and \"b\""),
            ("{\"a\": \"$A\"}", "{\"a\": \"a\"}"),
            ("{\\\"a\\\":1}", "{\"a\":1}"),
            ("a\\ b", "a b"),
            ("'", "'"),
            ("é$A", "éa"),
        ] {
            assert_eq!(expand(text, &lookup).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn broken_variables_are_errors() {
        let modifier = |name: &str, modifier: &str| ExpandError::Modifier {
            name: name.to_owned(),
            modifier: modifier.to_owned(),
        };
        for (text, error) in [
            ("${", ExpandError::Unterminated),
            ("${A", ExpandError::Unterminated),
            ("${A:", ExpandError::Unterminated),
            ("${A:-x", ExpandError::Unterminated),
            ("${A:-${B}", ExpandError::Unterminated),
            ("${}", ExpandError::Name),
            ("${ A}", ExpandError::Name),
            ("${:-x}", ExpandError::Name),
            ("${A:?x}", modifier("A", ":?")),
            ("${A:}", modifier("A", ":}")),
            ("${A%x}", modifier("A", "%")),
            ("${A:+${B/x/y}}", modifier("B", "/")),
        ] {
            assert_eq!(expand(text, &lookup), Err(error), "{text}");
        }
        let deep = "${X:-".repeat(100_000);
        assert_eq!(expand(&deep, &lookup), Err(ExpandError::Depth));
    }

    #[test]
    fn entries_see_what_is_above_them() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let base = pairs(&[("PATH", "/bin"), ("LANG", "C")]);
        let entries = pairs(&[
            ("A", "$B"),
            ("PATH", "/venv/bin:$PATH"),
            ("B", "1"),
            ("C", "$B$LANG$PATH"),
        ]);
        let expected = pairs(&[
            ("PATH", "/venv/bin:/bin"),
            ("LANG", "C"),
            ("A", ""),
            ("B", "1"),
            ("C", "1C/venv/bin:/bin"),
        ]);
        assert_eq!(environment(&base, &entries).unwrap(), expected);
        let error = environment(&base, &pairs(&[("X", "${")])).unwrap_err();
        assert_eq!(error.to_string(), "failed to expand `env.X`");
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "([$\\\\{}:+'\"A -]|\\PC){0,40}") {
            let _ = expand(&text, &lookup);
        }

        #[test]
        fn text_without_specials_stays(text in "[a-zA-Z0-9 :/.,{}()'é-]{0,30}[a-z]") {
            prop_assert_eq!(expand(&text, &lookup), Ok(text));
        }
    }
}
