//! The small languages of ssh's files: quoted words, patterns, `%` tokens.

use std::path::{Path, PathBuf};

use fs_err as fs;

/// Splits the values of a line, with quotes, backslashes and a comment at the end. `None` if a quote is not
/// closed.
pub(super) fn words(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        if letters.peek().is_none_or(|letter| *letter == '#') {
            return Some(found);
        }
        let (mut word, mut quote) = (String::new(), None);
        while let Some(letter) = letters.next_if(|c| quote.is_some() || !c.is_whitespace()) {
            let escapable =
                |c: &char| matches!(c, '"' | '\'' | '\\') || (*c == ' ' && quote.is_none());
            match letter {
                '\\' => match letters.next_if(escapable) {
                    Some(escaped) => word.push(escaped),
                    None => word.push(letter),
                },
                '"' | '\'' if quote.is_none() => quote = Some(letter),
                _ if quote == Some(letter) => quote = None,
                _ => word.push(letter),
            }
        }
        if quote.is_some() {
            return None;
        }
        found.push(word);
    }
}

/// Whether `text` is what the pattern says, in which `*` and `?` stand for others.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut from) = (0, 0);
    // Where to go on if what follows the last `*` does not fit here.
    let mut retry = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, from));
                at += 1;
            }
            Some(letter) if *letter == b'?' || *letter == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((after, start)) = retry else {
                    return false;
                };
                retry = Some((after, start + 1));
                (at, from) = (after, start + 1);
            }
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

/// Whether one of the patterns, which commas separate, matches and none that begins with `!` does.
pub(super) fn matches_list(patterns: &str, text: &str) -> bool {
    let mut positive = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern, text) => return false,
            Some(_) => {}
            None => positive |= matches(pattern, text),
        }
    }
    positive
}

/// The files that a path with `*` and `?` in its names means, sorted. Hidden ones have to be named.
pub(super) fn glob(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern {
        let name = component.to_string_lossy();
        if !name.contains(['*', '?']) {
            for path in &mut found {
                path.push(component);
            }
            continue;
        }
        found = found
            .iter()
            .flat_map(|folder| list(folder, &name))
            .collect();
    }
    found.retain(|path| path.is_file());
    found
}

fn list(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            matches(pattern, &name) && (pattern.starts_with('.') || !name.starts_with('.'))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// `text` with its `%` tokens replaced; the letter of one that `tokens` does not have is the error.
pub(super) fn expand(text: &str, tokens: &[(char, &str)]) -> Result<String, char> {
    let mut expanded = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            expanded.push(letter);
            continue;
        }
        match letters.next().unwrap_or('%') {
            '%' => expanded.push('%'),
            name => {
                let token = tokens.iter().find(|(known, _)| *known == name);
                expanded.push_str(token.ok_or(name)?.1);
            }
        }
    }
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split() {
        for (text, expected) in [
            ("a  b", &["a", "b"][..]),
            (r#""a b"c 'd "e'"#, &["a bc", "d \"e"]),
            (r#"a\"b c\ d "e\ f""#, &["a\"b", "c d", "e\\ f"]),
            ("a # b", &["a"]),
            ("a#b", &["a#b"]),
            ("", &[]),
        ] {
            assert_eq!(words(text).as_deref().unwrap(), expected, "{text}");
        }
        assert_eq!(words("a \"b"), None);
    }

    #[test]
    fn patterns_match() {
        for (pattern, text, holds) in [
            ("*", "", true),
            ("*", "any", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("192.168.?.*", "192.168.1.20", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), holds, "{pattern} {text}");
        }
        assert!(matches_list("a,*.b", "x.b"));
        assert!(!matches_list("*,!x", "x"));
        assert!(!matches_list("!y", "x"));
    }

    #[test]
    fn tokens_are_replaced() {
        let tokens = [('h', "host"), ('p', "22")];
        assert_eq!(expand("%h:%p %%", &tokens).as_deref(), Ok("host:22 %"));
        assert_eq!(expand("50%", &tokens).as_deref(), Ok("50%"));
        assert_eq!(expand("%z", &tokens), Err('z'));
    }
}
