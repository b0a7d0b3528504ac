//! Permissions as chmod(1) takes them, which `--chmod` of COPY and ADD uses: octal (`755`) or symbolic
//! (`u=rwX,go=rX`, `+x`, `g=u`). The umask plays no part. Imports nothing of this crate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const ALL: u32 = 0o777;

/// Permissions, or changes to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// In place of the file's own.
    Octal(u32),
    /// Changes to the file's own, in this order.
    Symbolic(Vec<Change>),
}

/// One operation of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `+`, `-` or `=`
    operator: char,
    /// The bits that belong to the classes that it names.
    who: u32,
    /// The bits to change.
    bits: u32,
    /// Execution where `X` grants it.
    conditional: u32,
    /// A class whose bits are copied: how far they lie from those of others.
    copied: Option<u32>,
}

/// A text that is no mode.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a mode")
    }
}

impl FromStr for Mode {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let octal = u32::from_str_radix(text, 8).ok();
            let octal = octal.filter(|octal| *octal <= 0o7777);
            return octal.map(Self::Octal).ok_or(Malformed);
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            clause_changes(clause, &mut changes).ok_or(Malformed)?;
        }
        Ok(Self::Symbolic(changes))
    }
}

/// Reads a clause, such as `go=rX` or `u+r-w`.
fn clause_changes(clause: &str, changes: &mut Vec<Change>) -> Option<()> {
    let operations = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    let classes = &clause[..clause.len() - operations.len()];
    let who = match classes {
        "" => SET_ID | STICKY | ALL,
        classes => classes
            .chars()
            .map(class_bits)
            .fold(0, |all, bits| all | bits),
    };
    if !operations.starts_with(['+', '-', '=']) {
        return None;
    }
    let mut characters = operations.chars().peekable();
    while let Some(operator @ ('+' | '-' | '=')) = characters.next() {
        let mut change = Change {
            operator,
            who,
            bits: 0,
            conditional: 0,
            copied: None,
        };
        while let Some(letter) = characters.next_if(|next| !matches!(next, '+' | '-' | '=')) {
            match letter {
                'r' => change.bits |= 0o444,
                'w' => change.bits |= 0o222,
                'x' => change.bits |= 0o111,
                'X' if operator == '-' => change.bits |= 0o111,
                'X' => change.conditional |= 0o111,
                's' => change.bits |= SET_ID,
                // The class of others alone has no such bit.
                't' if who & !0o007 != 0 => {
                    change.bits |= STICKY;
                    change.who |= STICKY;
                }
                't' => {}
                'u' => change.copied = Some(6),
                'g' => change.copied = Some(3),
                'o' => change.copied = Some(0),
                _ => return None,
            }
        }
        changes.push(change);
    }
    Some(())
}

fn class_bits(class: char) -> u32 {
    match class {
        'u' => 0o4700,
        'g' => 0o2070,
        'o' => 0o007,
        _ => SET_ID | ALL,
    }
}

impl Mode {
    /// The mode of a file whose own is `mode`.
    #[must_use]
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(octal) => *octal,
            Self::Symbolic(changes) => changes
                .iter()
                .fold(mode, |now, change| change.apply(now, mode, is_directory)),
        }
    }

    /// The mode itself, if it does not depend on a file's own.
    #[must_use]
    pub fn octal(&self) -> Option<u32> {
        match self {
            Self::Octal(octal) => Some(*octal),
            Self::Symbolic(_) => None,
        }
    }
}

impl Change {
    /// `now` is the mode after the changes before this one, and `before` the one before all of them.
    fn apply(&self, now: u32, before: u32, is_directory: bool) -> u32 {
        let mut bits = self.bits;
        if is_directory || before & 0o111 != 0 {
            bits |= self.conditional;
        }
        if let Some(shift) = self.copied {
            bits |= ((now >> shift) & 0o7) * 0o111;
        }
        let bits = bits & self.who;
        match self.operator {
            '+' => now | bits,
            '-' => now & !bits,
            // A copy has no set-id bits, and the sticky bit belongs to no class: they stay.
            _ if self.copied.is_some() => (now & !(self.who & ALL)) | bits,
            _ => (now & !(self.who & !STICKY)) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_with_chmod() {
        for (text, before, file, directory) in [
            ("0", 0o755, 0, 0),
            ("755", 0o600, 0o755, 0o755),
            ("4711", 0o600, 0o4711, 0o4711),
            ("+x", 0o644, 0o755, 0o755),
            ("a+x", 0o644, 0o755, 0o755),
            ("u+x", 0o644, 0o744, 0o744),
            ("go-rwx", 0o755, 0o700, 0o700),
            ("u=rwX,go=rX", 0o600, 0o644, 0o755),
            ("u=rwX,go=rX", 0o700, 0o755, 0o755),
            ("+X", 0o654, 0o755, 0o755),
            ("+X", 0o644, 0o644, 0o755),
            ("-X", 0o755, 0o644, 0o644),
            ("g=u", 0o640, 0o660, 0o660),
            ("go=u-w", 0o640, 0o644, 0o644),
            ("o=g", 0o750, 0o755, 0o755),
            ("go=", 0o755, 0o700, 0o700),
            ("=", 0o755, 0, 0),
            ("=r", 0o755, 0o444, 0o444),
            ("u+s", 0o755, 0o4755, 0o4755),
            ("g+s", 0o755, 0o2755, 0o2755),
            ("ug+s", 0o755, 0o6755, 0o6755),
            ("o+s", 0o755, 0o755, 0o755),
            ("+t", 0o755, 0o1755, 0o1755),
            ("o+t", 0o755, 0o755, 0o755),
            ("u=rwx", 0o4755, 0o755, 0o755),
            ("a=rx", 0o7777, 0o1555, 0o1555),
            ("a-x,+X", 0o755, 0o755, 0o755),
            ("u-x+w,g+w", 0o555, 0o675, 0o675),
            ("ugo+w", 0o444, 0o666, 0o666),
        ] {
            let mode: Mode = text.parse().unwrap();
            assert_eq!(mode.apply(before, false), file, "{text} of {before:o}");
            assert_eq!(mode.apply(before, true), directory, "{text} of {before:o}");
        }
        for text in [
            "", "8", "10000", "79", "-1", "rwx", "u", "u+q", "u+x,", ",u+x", "x+u", "0x1", "+ x",
            "a", "7 ",
        ] {
            assert_eq!(text.parse::<Mode>(), Err(Malformed), "{text}");
        }
    }
}
