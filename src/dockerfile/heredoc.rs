//! Heredocs: words such as `<<EOF` whose text stands on the lines below, up to a line that is the name.
//!
//! Reference, "Here-Documents". A name in quotes keeps variables from being replaced, and `<<-` takes the
//! tabs off the beginning of each line.

/// A heredoc with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The name, without quotes: the line that ends it, and the file's name.
    pub name: String,
    /// The lines in between, as they were typed.
    pub text: String,
    /// Whether variables in the text are replaced: its name stands in no quotes.
    pub expand: bool,
    /// Whether the tabs at the beginning of lines go: `<<-`.
    pub strip_tabs: bool,
}

impl Heredoc {
    /// The text, without the tabs that `<<-` takes off.
    #[must_use]
    pub fn content(&self) -> String {
        if !self.strip_tabs {
            return self.text.clone();
        }
        let lines = self.text.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    }

    /// Whether this line ends it.
    pub(super) fn is_end(&self, line: &str) -> bool {
        let line = if self.strip_tabs {
            line.trim_start_matches('\t')
        } else {
            line
        };
        line == self.name
    }
}

/// The heredocs that a line opens, with the place of each. A quote that is not closed opens none.
pub(super) fn opened(line: &str) -> Vec<(usize, Heredoc)> {
    let mut found = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut characters = line.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => {
                start.get_or_insert(at);
                characters.next();
            }
            ('\'' | '"', None) => {
                start.get_or_insert(at);
                quote = Some(character);
            }
            (_, Some(open)) => quote = (character != open).then_some(open),
            (blank, None) if blank.is_whitespace() => {
                // The name may stand apart: `<< EOF`.
                let bare = start.is_some_and(|start| is_bare(&line[start..at]));
                if let Some(begun) = start.take_if(|_| !bare) {
                    found.extend(word(&line[begun..at]).map(|doc| (begun, doc)));
                }
            }
            _ => {
                start.get_or_insert(at);
            }
        }
    }
    if quote.is_some() {
        return Vec::new();
    }
    found.extend(start.and_then(|start| Some((start, word(&line[start..])?))));
    found
}

/// Whether a word is `<<`, `<<-` or these behind a number, and blanks: a heredoc without its name.
fn is_bare(word: &str) -> bool {
    matches!(operator(word), Some((_, rest)) if rest.trim().is_empty())
}

/// What stands behind `<<`, and whether that is `<<-`.
fn operator(word: &str) -> Option<(bool, &str)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("<<")?;
    Some(match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    })
}

/// The heredoc that a word opens: `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF`; its text is still empty.
pub(super) fn word(word: &str) -> Option<Heredoc> {
    let (strip_tabs, rest) = operator(word)?;
    let rest = rest.trim_start();
    let mut name = String::new();
    let (mut quote, mut expand) = (None, true);
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('<', _) => return None,
            (blank, None) if blank.is_whitespace() => return None,
            ('\'' | '"', None) => {
                quote = Some(character);
                expand = false;
            }
            (_, Some(open)) if character == open => quote = None,
            ('\\', None) => name.extend(characters.next()),
            _ => name.push(character),
        }
    }
    (quote.is_none() && !name.is_empty()).then_some(Heredoc {
        name,
        text: String::new(),
        expand,
        strip_tabs,
    })
}
