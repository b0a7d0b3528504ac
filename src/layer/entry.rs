//! One entry of a layer: its header, with the extended headers before it applied.

use std::collections::BTreeMap;

use crate::layer::malformed::Malformed;
use crate::layer::{node, pax};

/// The kernel's `PATH_MAX`, without its final NUL.
pub(super) const MAX_PATH: usize = 4095;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    Char,
    Block,
}

/// One entry, its extended headers applied.
#[derive(Debug)]
pub(super) struct Entry {
    /// Relative to the root, without `.` and empty components; empty for the root itself.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub(super) mtime: (i64, u32),
    /// Bytes to be read.
    pub(super) size: u64,
    /// A symbolic link's text, or a hard link's target as `path` is written.
    pub(super) link: Vec<u8>,
    pub(super) device: (u32, u32),
    /// Those that layers carry.
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Extended headers that apply to the entry to come.
#[derive(Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) seen_records: bool,
}

impl Extended {
    pub(super) fn is_empty(&self) -> bool {
        !self.seen_records && self.path.is_none() && self.link.is_none()
    }
}

/// Applies PAX records; the outer `None` means that they are not well-formed.
pub(super) fn apply_records(
    block: &[u8],
    extended: &mut Extended,
) -> Option<Result<(), Malformed>> {
    // An empty value takes an earlier record back, so records are collected before they are read.
    let mut records = BTreeMap::new();
    for (key, value) in pax::parse(block)? {
        records.insert(key, value);
    }
    for (key, value) in records {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if node::is_carried(name) {
                extended.xattrs.insert(name.to_owned(), value.to_owned());
            }
            continue;
        }
        if value.is_empty() {
            continue;
        }
        match key {
            // A GNU long name beside a PAX one: readers disagree which of them counts.
            b"path" | b"linkpath" => {
                let slot = if key == b"path" {
                    &mut extended.path
                } else {
                    &mut extended.link
                };
                if slot.replace(value.to_owned()).is_some() || value.contains(&0) {
                    return None;
                }
            }
            b"size" => extended.size = Some(decimal(value)?),
            b"uid" => extended.uid = Some(decimal(value)?),
            b"gid" => extended.gid = Some(decimal(value)?),
            b"mtime" => extended.mtime = Some(pax::parse_time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => {
                let path = extended.path.as_deref().map(String::from_utf8_lossy);
                let path = path.unwrap_or_default().into_owned();
                return Some(Err(Malformed::Unsupported {
                    path,
                    kind: "a sparse file".to_owned(),
                }));
            }
            _ => {}
        }
    }
    Some(Ok(()))
}

pub(super) fn complete(
    header: &tar::Header,
    flag: u8,
    size: u64,
    extended: Extended,
) -> Result<Entry, Malformed> {
    let old = header.as_old();
    let raw = extended.path.unwrap_or_else(|| header_name(header));
    let link = extended
        .link
        .unwrap_or_else(|| until_nul(&old.linkname).to_owned());
    let shown = String::from_utf8_lossy(&raw).into_owned();
    let kind = match flag {
        // Before ustar a directory was a file whose name ends in a slash.
        b'\0' | b'0' | b'7' if flag != b'7' && raw.ends_with(b"/") => Kind::Directory,
        b'\0' | b'0' | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Char,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'S' => {
            return Err(Malformed::Unsupported {
                path: shown,
                kind: "a sparse file".to_owned(),
            });
        }
        other => {
            let kind = format!("of type `{}`", other.escape_ascii());
            return Err(Malformed::Unsupported { path: shown, kind });
        }
    };
    let field = |field: &'static str, bytes: &[u8]| {
        number(bytes).ok_or_else(|| invalid(field, shown.as_bytes()))
    };
    let id = |name: &'static str, bytes: &[u8], extended: Option<u64>| {
        let id = match extended {
            Some(id) => id,
            None => u64::try_from(field(name, bytes)?).unwrap_or(u64::MAX),
        };
        // The last number is the kernel's "leave it as it is".
        match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(invalid(name, shown.as_bytes())),
        }
    };
    let device = |name: &'static str, bytes: Option<&[u8; 8]>| match (kind, bytes) {
        (Kind::Char | Kind::Block, Some(bytes)) => {
            u32::try_from(field(name, bytes)?).map_err(|_| invalid(name, shown.as_bytes()))
        }
        _ => Ok(0),
    };
    let ustar = header.as_ustar();
    let gnu = header.as_gnu();
    let major = ustar
        .map(|header| &header.dev_major)
        .or(gnu.map(|header| &header.dev_major));
    let minor = ustar
        .map(|header| &header.dev_minor)
        .or(gnu.map(|header| &header.dev_minor));
    let mtime = match extended.mtime {
        Some(mtime) => mtime,
        None => (field("time", &old.mtime)?, 0),
    };
    Ok(Entry {
        kind,
        mode: u32::try_from(field("mode", &old.mode)? & 0o7777).unwrap_or(0),
        uid: id("user", &old.uid, extended.uid)?,
        gid: id("group", &old.gid, extended.gid)?,
        mtime,
        // Only files have content; some writers give directories and links a size as well.
        size: if kind == Kind::File {
            extended.size.unwrap_or(size)
        } else {
            0
        },
        link: match kind {
            Kind::HardLink => normalised(&link)?,
            Kind::Symlink => checked(&link)?.to_owned(),
            _ => Vec::new(),
        },
        device: (device("device", major)?, device("device", minor)?),
        xattrs: extended.xattrs,
        path: normalised(&raw)?,
    })
}

/// A path without `.`, `..`, empty components and a leading slash. Container runtimes take a component back at `..`
/// whatever it is, so a link there plays no part. A path that leads out of the root is refused.
fn normalised(raw: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut path = Vec::with_capacity(raw.len());
    for part in checked(raw)?.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if path.is_empty() => return Err(Malformed::Escapes { path: lossy(raw) }),
            b".." => {
                let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                path.truncate(end);
            }
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
            }
        }
    }
    Ok(path)
}

fn checked(name: &[u8]) -> Result<&[u8], Malformed> {
    if name.is_empty() || name.len() > MAX_PATH || name.contains(&0) {
        let shown = name.get(..80).unwrap_or(name);
        return Err(Malformed::Name { path: lossy(shown) });
    }
    Ok(name)
}

fn header_name(header: &tar::Header) -> Vec<u8> {
    let name = until_nul(&header.as_old().name);
    // GNU's own format keeps other things where ustar keeps the prefix.
    match header.as_ustar().map(|ustar| until_nul(&ustar.prefix)) {
        Some(prefix) if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_owned(),
    }
}

pub(super) fn checksum_holds(header: &tar::Header) -> bool {
    let bytes = header.as_bytes();
    let (before, after) = (&bytes[..148], &bytes[156..]);
    let outside = before.iter().chain(after);
    let unsigned = outside.clone().map(|&byte| i64::from(byte)).sum::<i64>() + 8 * 32;
    // Some old writers added signed bytes.
    let signed = outside
        .map(|&byte| i64::from(byte.cast_signed()))
        .sum::<i64>()
        + 8 * 32;
    number(&bytes[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// A number of a header: octal digits between blanks and NULs, or GNU's base 256.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value = if negative { -1_i128 } else { 0 };
        for (index, &byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative {
                byte & 0x7f
            } else {
                byte
            };
            value = (value << 8) | i128::from(byte);
            if i64::try_from(value).is_err() {
                return None;
            }
        }
        return i64::try_from(value).ok();
    }
    let blank = |byte: u8| byte == b' ' || byte == 0;
    let start = field
        .iter()
        .position(|&byte| !blank(byte))
        .unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits
        .iter()
        .position(|&byte| blank(byte))
        .unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(|&byte| blank(byte)) {
        return None;
    }
    digits.iter().try_fold(0_i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn decimal(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // More would not fit the kernel's signed sizes.
    std::str::from_utf8(value)
        .ok()?
        .parse()
        .ok()
        .filter(|&number| number <= i64::MAX.cast_unsigned())
}

pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

pub(super) fn invalid(field: &'static str, path: &[u8]) -> Malformed {
    Malformed::Number {
        field,
        path: lossy(path),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_both_notations() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(
            number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            None
        );
        for wrong in [&b"9"[..], b"1 2", b"-1", b"0x1", b"1\x002"] {
            assert_eq!(number(wrong), None);
        }
    }
}
