//! Which keys a host is known by: the `known_hosts` files of `sshd(8)`, section
//! "`SSH_KNOWN_HOSTS` FILE FORMAT".
//!
//! Certificates are not used, so the lines of authorities (`@cert-authority`) count for nothing.

use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use ssh2::{HashType, KnownHostFileKind, Session};

use super::words::matches;
use crate::confined;

/// The port that a line without one stands for.
const PORT: u16 = 22;

/// A key that a host has shown.
#[derive(Debug)]
pub(super) struct HostKey {
    /// As in `known_hosts`: `ssh-ed25519`.
    pub(super) kind: String,
    /// In base64.
    text: String,
    /// As `ssh-keygen -l` prints it.
    pub(super) fingerprint: String,
}

/// A line of a `known_hosts` file that names a host.
#[derive(Debug)]
pub(super) struct Known {
    kind: String,
    text: String,
    revoked: bool,
    /// Whether the line names the host without its port, which is not 22.
    portless: bool,
    pub(super) file: PathBuf,
    pub(super) line: usize,
}

/// What the files say of a key.
#[derive(Debug)]
pub(super) enum Verdict<'a> {
    /// It is the host's.
    Trusted,
    /// The host has another one.
    Changed(&'a Known),
    /// It must not be used any more.
    Revoked(&'a Known),
    /// The host is not known.
    Unknown,
}

impl HostKey {
    /// The key that the other side of `session` has proved to have.
    pub(super) fn of(session: &Session) -> Option<Self> {
        let (blob, _) = session.host_key()?;
        let digest = session
            .host_key_hash(HashType::Sha256)
            .map_or_else(|| Sha256::digest(blob).to_vec(), <[u8]>::to_vec);
        // A key begins with the length and the letters of its kind.
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let kind = String::from_utf8(rest.get(..length)?.to_vec()).ok()?;
        // It may be written into a file that is read by words.
        let valid = kind
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-@.".contains(&c));
        valid.then(|| Self {
            kind,
            text: STANDARD.encode(blob),
            fingerprint: format!("SHA256:{}", STANDARD_NO_PAD.encode(digest)),
        })
    }
}

/// What the files say of a host. Files that are not there say nothing.
pub(super) fn look_up(
    files: &[PathBuf],
    host: &str,
    port: u16,
    session: &Session,
) -> io::Result<Vec<Known>> {
    let mut known = Vec::new();
    for file in files {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        read(
            &String::from_utf8_lossy(&text),
            file,
            host,
            port,
            session,
            &mut known,
        );
    }
    Ok(known)
}

fn read(text: &str, file: &Path, host: &str, port: u16, session: &Session, known: &mut Vec<Known>) {
    let name = name(host, port);
    for (index, line) in text.lines().enumerate() {
        let mut fields = line.split_whitespace().peekable();
        let marker = fields.next_if(|field| field.starts_with('@'));
        let (Some(names), Some(kind), Some(key)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if names.starts_with('#') || !matches!(marker, None | Some("@revoked")) {
            continue;
        }
        let exact = is_named(names, &name, session);
        if exact || (port != PORT && is_named(names, &host.to_lowercase(), session)) {
            known.push(Known {
                kind: kind.to_owned(),
                text: key.to_owned(),
                revoked: marker.is_some(),
                portless: !exact,
                file: file.to_owned(),
                line: index + 1,
            });
        }
    }
}

/// For [`crate::fuzz`]: what a file says of hosts, and of a key that one shows.
pub(crate) fn fuzz(text: &str) {
    let Ok(session) = Session::new() else { return };
    let key = HostKey {
        kind: "ssh-ed25519".to_owned(),
        text: "A".to_owned(),
        fingerprint: String::new(),
    };
    for (host, port) in [("host.example.com", PORT), ("10.0.0.1", 2222)] {
        let mut known = Vec::new();
        let file = Path::new("known_hosts");
        read(text, file, host, port, &session, &mut known);
        judge(&known, &key);
        algorithms(&known, &["ssh-ed25519", "rsa-sha2-512"]);
    }
}

/// What a line calls a host: `host`, or `[host]:port`.
pub(super) fn name(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    match port {
        PORT => host,
        _ => format!("[{host}]:{port}"),
    }
}

/// Whether the first field of a line names a host: by patterns that commas separate, or by the digest of the
/// name.
fn is_named(names: &str, name: &str, session: &Session) -> bool {
    if names.starts_with('|') {
        return is_hashed(names, name, session);
    }
    let mut positive = false;
    for pattern in names.split(',') {
        let pattern = pattern.to_lowercase();
        match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern, name) => return false,
            Some(_) => {}
            None => positive |= matches(&pattern, name),
        }
    }
    positive
}

/// Whether `|1|SALT|DIGEST` stands for the name. libssh2 has the HMAC that it takes; the key is no matter.
fn is_hashed(hashed: &str, name: &str, session: &Session) -> bool {
    let line = format!("{hashed} ssh-rsa {}", STANDARD.encode([0; 18]));
    let Ok(mut hosts) = session.known_hosts() else {
        return false;
    };
    hosts.read_str(&line, KnownHostFileKind::OpenSSH).is_ok()
        && !name.contains('\0')
        && matches!(
            hosts.check(name, &[0; 18]),
            ssh2::CheckResult::Match | ssh2::CheckResult::Mismatch
        )
}

/// What the lines for a host say of the key that it has shown.
pub(super) fn judge<'a>(known: &'a [Known], key: &HostKey) -> Verdict<'a> {
    let mut same = known.iter().filter(|line| line.text == key.text);
    if let Some(line) = same.clone().find(|line| line.revoked) {
        return Verdict::Revoked(line);
    }
    if same.next().is_some() {
        return Verdict::Trusted;
    }
    // A key of another kind than those that are known is no less strange: they were asked for first. What a
    // line says of the host's other ports binds this one only if it agrees.
    let mut others = known.iter().filter(|line| !line.revoked && !line.portless);
    let first = others.clone().find(|line| line.kind == key.kind);
    match first.or_else(|| others.next()) {
        Some(line) => Verdict::Changed(line),
        None => Verdict::Unknown,
    }
}

/// The algorithms for host keys in the order of preference: first those by which the host is known, since
/// it shows one key only.
pub(super) fn algorithms(known: &[Known], supported: &[&str]) -> String {
    let is_known = |algorithm: &str| {
        let kind = match algorithm {
            "rsa-sha2-512" | "rsa-sha2-256" => "ssh-rsa",
            other => other,
        };
        known.iter().any(|line| !line.revoked && line.kind == kind)
    };
    // Certificates would have to be judged by their authorities.
    let plain = supported.iter().filter(|name| !name.contains("-cert-"));
    let (mut first, rest): (Vec<&str>, Vec<&str>) = plain.partition(|name| is_known(name));
    first.extend(rest);
    first.join(",")
}

/// Adds a host by its [`name`] to the file, which is made if it is not there, unless somebody else has done so
/// by now.
pub(super) fn remember(file: &Path, host: &str, key: &HostKey) -> io::Result<()> {
    if let Some(folder) = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        && !folder.exists()
    {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, PermissionsExt::from_mode(0o700))?;
    }
    let file = confined::end_of_links(file)?;
    let mut options = fs::OpenOptions::new();
    let mut opened = options
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(file)?;
    // Held until the file is closed: many sources may lie on one host.
    opened.file().lock()?;
    let line = format!("{host} {} {}\n", key.kind, key.text);
    let mut text = Vec::new();
    opened.rewind()?;
    opened.read_to_end(&mut text)?;
    if text
        .split_inclusive(|byte| *byte == b'\n')
        .any(|other| other == line.as_bytes())
    {
        return Ok(());
    }
    let line_break = if text.is_empty() || text.ends_with(b"\n") {
        ""
    } else {
        "\n"
    };
    opened.write_all(format!("{line_break}{line}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str, host: &str, port: u16) -> Vec<Known> {
        let mut known = Vec::new();
        let session = Session::new().unwrap();
        read(text, Path::new("file"), host, port, &session, &mut known);
        known
    }

    fn key(kind: &str, text: &str) -> HostKey {
        HostKey {
            kind: kind.to_owned(),
            text: text.to_owned(),
            fingerprint: String::new(),
        }
    }

    #[test]
    fn lines_name_hosts() {
        // Made with `ssh-keygen -H`.
        let text = "# a comment\n\
            plain,10.0.0.1 ssh-ed25519 A\n\
            [plain]:2222 ssh-ed25519 B comment\n\
            *.example.com,!bad.example.com ssh-rsa C\n\
            @cert-authority * ssh-rsa D\n\
            broken\n\
            |1|Id7EhPzz5p7CP216SwQgGFjqq2E=|2MEXeyTtskY1iKAywZwUiIm05JU= ssh-ed25519 E\n";
        for (host, port, expected) in [
            ("plain", 22, &["A"][..]),
            ("PLAIN", 22, &["A"]),
            ("10.0.0.1", 22, &["A"]),
            ("plain", 2222, &["A", "B"]),
            ("a.example.com", 22, &["C"]),
            ("bad.example.com", 22, &[]),
            ("other", 22, &[]),
            ("hashed.host", 22, &["E"]),
            ("hashed.host", 23, &["E"]),
        ] {
            let known = known(text, host, port);
            let keys: Vec<&str> = known.iter().map(|line| &*line.text).collect();
            assert_eq!(keys, expected, "{host}:{port}");
        }
    }

    #[test]
    fn keys_are_judged() {
        let text =
            "h ssh-ed25519 A\nh ssh-rsa B\n@revoked * ssh-rsa R\n[p]:22 ssh-rsa X\np ssh-rsa C\n";
        let lines = known(text, "h", 22);
        assert!(matches!(
            judge(&lines, &key("ssh-ed25519", "A")),
            Verdict::Trusted
        ));
        assert!(matches!(
            judge(&lines, &key("ssh-rsa", "B")),
            Verdict::Trusted
        ));
        assert!(
            matches!(judge(&lines, &key("ssh-rsa", "R")), Verdict::Revoked(line) if line.line == 3)
        );
        assert!(
            matches!(judge(&lines, &key("ssh-rsa", "Z")), Verdict::Changed(line) if line.line == 2)
        );
        assert!(
            matches!(judge(&lines, &key("ecdsa", "Z")), Verdict::Changed(line) if line.line == 1)
        );
        // The line without a port vouches for a key on any, and speaks against none.
        let lines = known(text, "p", 2222);
        assert!(matches!(
            judge(&lines, &key("ssh-rsa", "C")),
            Verdict::Trusted
        ));
        assert!(matches!(
            judge(&lines, &key("ssh-rsa", "Z")),
            Verdict::Unknown
        ));
        let lines = known(text, "new", 22);
        assert!(matches!(
            judge(&lines, &key("ssh-rsa", "Z")),
            Verdict::Unknown
        ));
    }

    #[test]
    fn known_kinds_come_first() {
        let lines = known("h ssh-rsa A\n@revoked h ssh-ed25519 B\n", "h", 22);
        let supported = [
            "ssh-ed25519",
            "rsa-sha2-512",
            "ssh-rsa-cert-v01@openssh.com",
            "ssh-rsa",
        ];
        assert_eq!(
            algorithms(&lines, &supported),
            "rsa-sha2-512,ssh-rsa,ssh-ed25519"
        );
    }
}
