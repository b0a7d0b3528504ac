//! Reference, "Environment replacement".

use proptest::prelude::*;

use super::super::word::{check, expand, expand_heredoc};
use super::*;

fn value(name: &str) -> Option<&'static str> {
    match name {
        "A" => Some("a"),
        "EMPTY" => Some(""),
        "BLANKS" => Some("x  y"),
        "FILE" => Some("/usr/lib/name.tar.gz"),
        "DOLLAR" => Some("$A"),
        _ => None,
    }
}

fn text(word: &str) -> Result<String, ExpandError> {
    expand(word, '\\', &value).map(|expanded| expanded.text)
}

#[test]
fn words_expand() {
    for (word, expanded) in [
        ("", ""),
        ("plain", "plain"),
        ("$A", "a"),
        ("${A}b", "ab"),
        ("$A_$A-$UNSET|", "a-|"),
        ("$1$9x", "x"),
        // With and without the colon: whether empty is as good as unset.
        ("${A:-x}${UNSET:-x}${EMPTY:-x}", "axx"),
        ("${A-x}${UNSET-x}${EMPTY-x}", "ax"),
        ("${A:+x}${UNSET:+x}${EMPTY:+x}", "x"),
        ("${A+x}${UNSET+x}${EMPTY+x}", "xx"),
        ("${A:?no}${A?no}${EMPTY?no}", "aa"),
        ("${UNSET:-${EMPTY:-$A/${A}}}", "a/a"),
        ("${UNSET:-}", ""),
        ("${UNSET:-a b}", "a b"),
        ("${UNSET:-'}'\"}\"\\}}", "}}}"),
        // The shortest beginning or end, and the longest.
        ("${FILE#*/}", "usr/lib/name.tar.gz"),
        ("${FILE##*/}", "name.tar.gz"),
        ("${FILE%.*}", "/usr/lib/name.tar"),
        ("${FILE%%.*}", "/usr/lib/name"),
        ("${FILE#/usr/}", "lib/name.tar.gz"),
        ("${FILE#nothing}", "/usr/lib/name.tar.gz"),
        ("${FILE%.g?}", "/usr/lib/name.tar"),
        ("${FILE%\\*}", "/usr/lib/name.tar.gz"),
        ("${FILE#[u]}", "/usr/lib/name.tar.gz"),
        ("${UNSET#x}", ""),
        // The first match, and all of them.
        ("${FILE/\\//:}", ":usr/lib/name.tar.gz"),
        ("${FILE//\\//:}", ":usr:lib:name.tar.gz"),
        ("${FILE/lib*/x}", "/usr/x"),
        ("${FILE/nothing/x}", "/usr/lib/name.tar.gz"),
        ("${FILE//[.]/x}", "/usr/lib/name.tar.gz"),
        ("${FILE//./$A}", "/usr/lib/nameataragz"),
        ("${FILE//a/\\}}", "/usr/lib/n\\}me.t\\}r.gz"),
        ("${FILE/usr/}", "//lib/name.tar.gz"),
        ("${FILE//a/$1}", "/usr/lib/nme.tr.gz"),
        // Escapes and quotes.
        ("\\$A", "$A"),
        ("\\a\\\\", "a\\"),
        ("a\\", "a"),
        ("'$A \\'", "$A \\"),
        ("\"$A \\$A \\\" \\a\"", "a $A \" \\a"),
        ("\"it's\"'\"'x", "it's\"x"),
        ("a\"b\"c", "abc"),
        ("$", "$"),
        ("$ $/", "$ $/"),
        ("$DOLLAR", "$A"),
        ("é${A}é", "éaé"),
    ] {
        assert_eq!(text(word).as_deref(), Ok(expanded), "{word}");
    }
}

#[test]
fn another_character_escapes() {
    let text = |word| expand(word, '`', &value).map(|expanded| expanded.text);
    assert_eq!(text("`$A C:\\$A \"`\"\"").as_deref(), Ok("$A C:\\a \""));
}

#[test]
fn words_are_split_at_blanks_that_are_not_quoted() {
    for (word, words) in [
        ("a b", &["a", "b"][..]),
        ("$BLANKS", &["x", "y"]),
        ("\"$BLANKS\"", &["x  y"]),
        ("a\\ b c", &["a b", "c"]),
        ("'a b'c $A", &["a bc", "a"]),
        ("1$BLANKS", &["1x", "y"]),
        (" $UNSET ", &[]),
    ] {
        assert_eq!(expand(word, '\\', &value).unwrap().words, words, "{word}");
    }
}

#[test]
fn heredocs_keep_their_quotes() {
    let text = "a '$A' \"$A\" \\$A\n";
    assert_eq!(
        expand_heredoc(text, &value)
            .map(|expanded| expanded.text)
            .as_deref(),
        Ok("a 'a' \"a\" $A\n")
    );
}

#[test]
fn words_that_cannot_be_read_are_refused() {
    for (word, error, at) in [
        ("a'", "the quote `'` is not closed", 1),
        ("ab\"$A", "the quote `\"` is not closed", 2),
        ("${", "`${` is not closed by `}`", 0),
        ("x${A", "`${` is not closed by `}`", 1),
        ("${A:", "`${` is not closed by `}`", 0),
        ("${A:-x", "`${` is not closed by `}`", 0),
        ("${A:-${B}", "`${` is not closed by `}`", 5),
        ("${A#x", "`${` is not closed by `}`", 0),
        ("${}", "`${` is not followed by the name of a variable", 0),
        (
            "${{A}}",
            "`${` is not followed by the name of a variable",
            0,
        ),
        ("${ A}", "`${` is not followed by the name of a variable", 0),
        (
            "${:-x}",
            "`${` is not followed by the name of a variable",
            0,
        ),
        ("${A:}", "`${A:}…}` has no meaning", 0),
        ("${A^^}", "`${A^…}` has no meaning", 0),
        ("${A:0:1}", "`${A:0…}` has no meaning", 0),
        ("${A/x}", "`${A/…` has no second `/`", 0),
        ("${A/x/y", "`${` is not closed by `}`", 0),
    ] {
        assert_eq!(
            text(word).map_err(|error| error.to_string()),
            Err(error.to_owned()),
            "{word}"
        );
        let found = check(word, '\\').map_err(|(at, error)| (at, error.to_string()));
        assert_eq!(found, Err((at, error.to_owned())), "{word}");
    }
    // What depends on values is not known before.
    for (word, error) in [
        ("${UNSET?}", "`UNSET` is not set"),
        ("${UNSET:?give it}", "`UNSET` is not set: give it"),
        ("${EMPTY:?}", "`EMPTY` is empty"),
        ("${A#\\a}", "`\\a` is not a pattern"),
    ] {
        assert_eq!(
            text(word).map_err(|error| error.to_string()),
            Err(error.to_owned()),
            "{word}"
        );
        assert_eq!(check(word, '\\'), Ok(()), "{word}");
    }
}

/// What a word says, quoted so that nothing in it is special.
fn in_quotes(text: &str) -> String {
    let mut word = String::from("\"");
    for character in text.chars() {
        if matches!(character, '"' | '\\' | '$') {
            word.push('\\');
        }
        word.push(character);
    }
    word + "\""
}

proptest! {
    #[test]
    fn any_word_ends(word in "([$\\\\{}:+?#%/*'\"A -]|\\PC){0,40}") {
        let expanded = text(&word);
        // What cannot be read is found without values, too.
        if check(&word, '\\').is_err() {
            prop_assert!(expanded.is_err());
        }
    }

    #[test]
    fn quoted_text_stays(word in "\\PC{0,30}") {
        prop_assert_eq!(text(&in_quotes(&word)), Ok(word));
    }

    #[test]
    fn a_value_is_its_beginning_and_the_rest(value in "[a-c.]{0,12}", pattern in "[a-c.*?]{0,4}") {
        let lookup = |name: &str| (name == "V").then_some(value.as_str());
        let rest = |operator: &str| {
            let word = format!("${{V{operator}{pattern}}}");
            expand(&word, '\\', &lookup).unwrap().text
        };
        let (short, long) = (rest("#"), rest("##"));
        prop_assert!(value.ends_with(&short) && short.ends_with(&long));
        let (short, long) = (rest("%"), rest("%%"));
        prop_assert!(value.starts_with(&short) && short.starts_with(&long));
    }
}
