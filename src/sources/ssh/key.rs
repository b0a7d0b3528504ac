//! Private keys as text.

use std::fmt;

use crate::secret::Secret;

/// The type of a key that has lost its first and last line.
const OPENSSH: &str = "OPENSSH PRIVATE KEY";

/// The first bytes of an OpenSSH key: `openssh-key-v1`, and a NUL.
const OPENSSH_ANY: &str = "b3BlbnNzaC1rZXktdjEA";

/// What an OpenSSH key without a passphrase begins with: `openssh-key-v1`, a NUL, and the cipher `none`.
const OPENSSH_PLAIN: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU";

/// Characters in a line of base64, as OpenSSH writes it; OpenSSL takes up to 76.
const WIDTH: usize = 70;

/// Why a text is no key that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyProblem {
    NotAKey,
    Passphrase,
    /// It looks like one, and is broken or of an unknown kind.
    Unusable,
}

impl KeyProblem {
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Passphrase => {
                "load it into an agent with `ssh-add`, or make one without a passphrase for builds"
            }
            Self::NotAKey | Self::Unusable => {
                "give the whole text of a private key, as `ssh-keygen` writes it"
            }
        }
    }
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAKey => "is not a private key",
            Self::Passphrase => "has a passphrase",
            Self::Unusable => "cannot be used",
        })
    }
}

/// The text of a private key with its line breaks where they belong: YAML may have folded it into one line, and
/// variables may hold `\n` for them. An OpenSSH key may lack the lines `-----BEGIN …` and `-----END …`, which
/// masked variables of CI systems cannot hold.
pub(super) fn parse(text: &str) -> Result<Secret, KeyProblem> {
    let text = text.replace("\\n", "\n");
    let label = between(&text, "-----BEGIN ", "-----").unwrap_or(OPENSSH);
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let openssh = label == OPENSSH;
    let body = match between(&text, &begin, &end) {
        Some(body) => body,
        None if openssh => {
            let body = text.split(&end).next().unwrap_or_default();
            body.split(&begin).last().unwrap_or_default()
        }
        None => return Err(KeyProblem::NotAKey),
    };
    let digits: String = body.split_whitespace().collect();
    if !label.ends_with("PRIVATE KEY") || (openssh && !digits.starts_with(OPENSSH_ANY)) {
        return Err(KeyProblem::NotAKey);
    }
    // The older format has header lines only if it is encrypted: `Proc-Type: 4,ENCRYPTED`.
    if label.contains("ENCRYPTED")
        || digits.contains(':')
        || (openssh && !digits.starts_with(OPENSSH_PLAIN))
    {
        return Err(KeyProblem::Passphrase);
    }
    if !digits
        .bytes()
        .all(|digit| digit.is_ascii_alphanumeric() || b"+/=".contains(&digit))
    {
        return Err(KeyProblem::NotAKey);
    }
    let mut key = begin + "\n";
    for line in digits.as_bytes().chunks(WIDTH) {
        key.extend(line.iter().copied().map(char::from));
        key.push('\n');
    }
    Ok(Secret::new(key + &end + "\n"))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_come_back() {
        let body = format!("{OPENSSH_PLAIN}{}", "A".repeat(60));
        let (begin, end) = (
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "-----END OPENSSH PRIVATE KEY-----",
        );
        let key = format!("{begin}\n{}\n{}\n{end}\n", &body[..70], &body[70..]);
        for text in [
            key.clone(),
            key.replace('\n', " "),
            key.replace('\n', "\\n"),
            key.replace('\n', "\r\n"),
            format!("\n  {}", key.replace('\n', "\n  ")),
            body.clone(),
            format!(" {}\n{} ", &body[..70], &body[70..]),
            format!("{begin} {body}"),
            format!("{body}\n{end}"),
        ] {
            assert_eq!(parse(&text).unwrap().reveal(), key, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        use KeyProblem::{NotAKey, Passphrase};
        for (text, problem) in [
            ("", NotAKey),
            ("ssh-ed25519 AAAA", NotAKey),
            ("PuTTY-User-Key-File-3: ssh-ed25519", NotAKey),
            (
                "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----",
                NotAKey,
            ),
            ("-----BEGIN RSA PRIVATE KEY-----\nAA\n", NotAKey),
            (
                "-----BEGIN RSA PRIVATE KEY-----\n***\n-----END RSA PRIVATE KEY-----",
                NotAKey,
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0\n\nAA\n\
                 -----END RSA PRIVATE KEY-----",
                Passphrase,
            ),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA\n-----END ENCRYPTED PRIVATE KEY-----",
                Passphrase,
            ),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHI\n\
                 -----END OPENSSH PRIVATE KEY-----",
                Passphrase,
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), problem, "{text}");
        }
    }
}
