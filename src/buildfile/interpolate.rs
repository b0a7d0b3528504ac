//! Replaces `%ENV{NAME}` by an environment variable of whoever builds, in any text of a build file.
//!
//! A value is inserted as it is, after YAML was read: it cannot become a list or a number. Beside the
//! text goes the same text with the values masked, for whatever is shown or stored.

/// Text with its variables replaced, and what may be shown of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interpolated {
    pub(super) text: String,
    pub(super) shown: String,
    pub(super) problems: Vec<Unresolved>,
}

/// A `%ENV{…}` that has no value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    /// The placeholder as it was typed.
    pub(super) placeholder: String,
    /// The variable that is not set, or `None` if the placeholder is malformed.
    pub(super) variable: Option<String>,
}

const OPEN: &str = "%ENV{";

/// Replaces every `%ENV{NAME}` of `text`; blanks around the name are allowed.
pub(super) fn interpolate(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Interpolated {
    let mut result = Interpolated {
        text: String::new(),
        shown: String::new(),
        problems: Vec::new(),
    };
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        result.text.push_str(&rest[..at]);
        result.shown.push_str(&rest[..at]);
        let name = &rest[at + OPEN.len()..];
        let close = name
            .find(['}', '\n'])
            .filter(|close| name[*close..].starts_with('}'));
        let length = OPEN.len() + close.map_or(0, |close| close + 1);
        let placeholder = &rest[at..at + length];
        rest = &rest[at + length..];
        let name = name[..close.unwrap_or(0)].trim_matches(' ');
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let well_formed = !name.is_empty() && name.chars().all(valid);
        if let Some(value) = lookup(name).filter(|_| well_formed) {
            result.text.push_str(&value);
            result.shown.push_str("***");
            continue;
        }
        result.text.push_str(placeholder);
        result.shown.push_str(placeholder);
        result.problems.push(Unresolved {
            placeholder: placeholder.to_owned(),
            variable: well_formed.then(|| name.to_owned()),
        });
    }
    result.text.push_str(rest);
    result.shown.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpolated(text: &str) -> Interpolated {
        interpolate(text, &|name| match name {
            "A" => Some("1".to_owned()),
            "NESTED" => Some("%ENV{A}".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn variables_are_replaced_and_masked() {
        for (text, replaced, shown) in [
            ("none", "none", "none"),
            ("a%ENV{A}b%ENV{ A }", "a1b1", "a***b***"),
            ("%ENV{NESTED}", "%ENV{A}", "***"),
            ("100%ENV", "100%ENV", "100%ENV"),
        ] {
            let result = interpolated(text);
            assert_eq!(
                (result.text.as_str(), result.shown.as_str()),
                (replaced, shown)
            );
            assert_eq!(result.problems, []);
        }
    }

    #[test]
    fn what_has_no_value_is_reported() {
        let result = interpolated("%ENV{B} %ENV{A} %ENV{B-C} %ENV{} %ENV{x\n}");
        let found: Vec<_> = result
            .problems
            .iter()
            .map(|problem| (problem.placeholder.as_str(), problem.variable.as_deref()))
            .collect();
        let expected = [
            ("%ENV{B}", Some("B")),
            ("%ENV{B-C}", None),
            ("%ENV{}", None),
            ("%ENV{", None),
        ];
        assert_eq!(found, expected);
    }
}
