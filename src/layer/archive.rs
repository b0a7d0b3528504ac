//! A strict reader of layer tars: what two readers could understand differently is refused.
//!
//! Reads what layers are made of (OCI image specification, `layer.md`): ustar, GNU long names, PAX
//! records. It reads blocks itself and not through [`tar::Archive`], because that one ignores a PAX
//! `size` when it is asked for raw entries, and splits PAX values at line breaks when it is not.
//! Sparse files and multi-volume archives are refused by name; no image builder writes them.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::layer::node;
use crate::layer::pax;

/// More entries than any image has; each costs an inode and some bytes of memory.
const MAX_ENTRIES: u64 = 10_000_000;
/// The kernel's PATH_MAX, without its final NUL.
const MAX_PATH: usize = 4095;
/// The kernel allows 64 KiB for an extended attribute; GNU tar and Go accept about as much.
const MAX_RECORDS: u64 = 1 << 20;
/// A layer may always unpack to this much, so that small layers of zeros pass.
const ALWAYS_ALLOWED: u64 = 1 << 30;
/// Deflate cannot exceed 1,032; text reaches 20, and files of zeros in real layers about 100.
const MAX_RATIO: u64 = 200;

const BLOCK: usize = 512;

/// Why a layer's tar was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The stream could not be decompressed, or read at all.
    #[error("its stream is broken")]
    Stream(#[source] io::Error),
    /// The archive ends within an entry.
    #[error("it ends in the middle of an entry")]
    Truncated,
    /// A header's checksum is wrong; the bytes are no tar, or are damaged.
    #[error("the header at byte {at} is not one of a tar archive")]
    Checksum {
        /// Where in the uncompressed layer.
        at: u64,
    },
    /// A number of a header cannot be read.
    #[error("the {field} of `{path}` is not a number that a layer can have")]
    Number {
        /// Which.
        field: &'static str,
        /// The entry, as far as it is known.
        path: String,
    },
    /// Extended header records that readers would understand differently.
    #[error("the extended header at byte {at} is not well-formed")]
    Records {
        /// Where in the uncompressed layer.
        at: u64,
    },
    /// A kind of entry that layers do not have.
    #[error("`{path}` is {kind}, which layers do not have")]
    Unsupported {
        /// The entry.
        path: String,
        /// What it is.
        kind: String,
    },
    /// A name that points out of the root.
    #[error("`{path}` leads out of the root")]
    Escapes {
        /// The name, or the target of a hard link.
        path: String,
    },
    /// A name that the kernel does not take.
    #[error("the name `{path}` is empty, has a NUL byte, or is longer than {MAX_PATH} bytes")]
    Name {
        /// Its beginning.
        path: String,
    },
    /// A deletion that means nothing, or its own directory.
    #[error("`{path}` is not a deletion that a layer can have")]
    Whiteout {
        /// The entry.
        path: String,
    },
    /// An entry below something that is not a directory.
    #[error("a parent of `{path}` is not a directory")]
    Parent {
        /// The entry.
        path: String,
    },
    /// A hard link to something that is not there.
    #[error("`{path}` is a hard link to `{target}`, which is not there or cannot be linked to")]
    Link {
        /// The entry.
        path: String,
        /// Its target.
        target: String,
    },
    /// Too many entries.
    #[error("it has more than {limit} entries")]
    TooMany {
        /// How many are allowed.
        limit: u64,
    },
    /// Too many bytes for its size.
    #[error("it unpacks to more than {limit} bytes, {MAX_RATIO} times its size")]
    Bomb {
        /// How many bytes are allowed.
        limit: u64,
    },
}

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
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    seen_records: bool,
}

impl Extended {
    fn is_empty(&self) -> bool {
        !self.seen_records && self.path.is_none() && self.link.is_none()
    }
}

/// Reads entries one after the other.
pub(super) struct Archive<R> {
    input: R,
    /// Bytes read so far.
    at: u64,
    limit: u64,
    entries: u64,
    /// Of the current entry: bytes not read yet, and the padding after them.
    remaining: u64,
    padding: u64,
}

impl<R: Read> Archive<R> {
    /// Reads the tar in `input`, whose compressed form has `compressed` bytes.
    pub(super) fn new(input: R, compressed: u64) -> Self {
        let limit = compressed.saturating_mul(MAX_RATIO).max(ALWAYS_ALLOWED);
        Self { input, at: 0, limit, entries: 0, remaining: 0, padding: 0 }
    }

    /// How many entries there were.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry; at the end of the archive `None`, when all bytes after it have been read too.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Malformed> {
        let mut extended = Extended::default();
        loop {
            self.skip_rest()?;
            let at = self.at;
            let Some(block) = self.block()? else {
                return if extended.is_empty() { Ok(None) } else { Err(Malformed::Truncated) };
            };
            if block.iter().all(|&byte| byte == 0) {
                return if extended.is_empty() {
                    self.read_end(at)?;
                    Ok(None)
                } else {
                    Err(Malformed::Truncated)
                };
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Malformed::TooMany { limit: MAX_ENTRIES });
            }
            let header = tar::Header::from_byte_slice(&block);
            if !checksum_holds(header) {
                return Err(Malformed::Checksum { at });
            }
            let old = header.as_old();
            let raw_name = until_nul(&old.name);
            let size = number(&old.size).filter(|&size| size >= 0);
            let size = size.map(i64::cast_unsigned).ok_or_else(|| invalid("size", raw_name))?;
            match old.linkflag[0] {
                b'x' => {
                    if extended.seen_records {
                        return Err(Malformed::Records { at });
                    }
                    let block = self.metadata(size, MAX_RECORDS, at)?;
                    apply_records(&block, &mut extended).ok_or(Malformed::Records { at })??;
                    extended.seen_records = true;
                }
                // Git writes a comment there; container runtimes ignore all of it, and so do we.
                b'g' => {
                    let block = self.metadata(size, MAX_RECORDS, at)?;
                    pax::parse(&block).ok_or(Malformed::Records { at })?;
                }
                flag @ (b'L' | b'K') => {
                    let block = self.metadata(size, MAX_PATH as u64 + 1, at)?;
                    let slot = if flag == b'L' { &mut extended.path } else { &mut extended.link };
                    if slot.replace(until_nul(&block).to_owned()).is_some() {
                        return Err(Malformed::Records { at });
                    }
                }
                flag => {
                    let entry = complete(header, flag, size, extended)?;
                    self.remaining = entry.size;
                    self.padding = entry.size.next_multiple_of(BLOCK as u64) - entry.size;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads from the current entry; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Malformed> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.fill(&mut buffer[..wanted])?;
        if length < wanted {
            return Err(Malformed::Truncated);
        }
        self.remaining -= length as u64;
        Ok(length)
    }

    fn skip_rest(&mut self) -> Result<(), Malformed> {
        let mut scratch = [0; 16 * BLOCK];
        while self.remaining > 0 {
            self.read(&mut scratch)?;
        }
        let padding = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or(0);
        if self.fill(&mut scratch[..padding])? < padding {
            return Err(Malformed::Truncated);
        }
        Ok(())
    }

    /// What comes after the first block of zeros: another, and nothing that could be an entry.
    fn read_end(&mut self, at: u64) -> Result<(), Malformed> {
        if self.block()?.is_some_and(|block| block.iter().any(|&byte| byte != 0)) {
            return Err(Malformed::Checksum { at });
        }
        let mut scratch = [0; 16 * BLOCK];
        while self.fill(&mut scratch)? > 0 {}
        Ok(())
    }

    fn metadata(&mut self, size: u64, limit: u64, at: u64) -> Result<Vec<u8>, Malformed> {
        if size > limit {
            return Err(Malformed::Records { at });
        }
        let padded = usize::try_from(size.next_multiple_of(BLOCK as u64)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; padded];
        if self.fill(&mut bytes)? < padded {
            return Err(Malformed::Truncated);
        }
        bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    /// The next block; `None` where the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Malformed> {
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(Malformed::Truncated),
        }
    }

    /// Reads until `buffer` is full or the stream ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Malformed> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Malformed::Stream(error)),
            }
        }
        self.at += filled as u64;
        if self.at > self.limit {
            return Err(Malformed::Bomb { limit: self.limit });
        }
        Ok(filled)
    }
}

/// Applies PAX records; the outer `None` means that they are not well-formed.
fn apply_records(block: &[u8], extended: &mut Extended) -> Option<Result<(), Malformed>> {
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
                let slot = if key == b"path" { &mut extended.path } else { &mut extended.link };
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
                return Some(Err(Malformed::Unsupported { path, kind: "a sparse file".to_owned() }));
            }
            _ => {}
        }
    }
    Some(Ok(()))
}

fn complete(
    header: &tar::Header,
    flag: u8,
    size: u64,
    extended: Extended,
) -> Result<Entry, Malformed> {
    let old = header.as_old();
    let raw = extended.path.unwrap_or_else(|| header_name(header));
    let link = extended.link.unwrap_or_else(|| until_nul(&old.linkname).to_owned());
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
            return Err(Malformed::Unsupported { path: shown, kind: "a sparse file".to_owned() });
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
    let major = ustar.map(|header| &header.dev_major).or(gnu.map(|header| &header.dev_major));
    let minor = ustar.map(|header| &header.dev_minor).or(gnu.map(|header| &header.dev_minor));
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
        size: if kind == Kind::File { extended.size.unwrap_or(size) } else { 0 },
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

/// A path without `.`, empty components and a leading slash; `..` is refused.
fn normalised(raw: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut path = Vec::with_capacity(raw.len());
    for part in checked(raw)?.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Malformed::Escapes { path: lossy(raw) }),
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

fn checksum_holds(header: &tar::Header) -> bool {
    let bytes = header.as_bytes();
    let (before, after) = (&bytes[..148], &bytes[156..]);
    let outside = before.iter().chain(after);
    let unsigned = outside.clone().map(|&byte| i64::from(byte)).sum::<i64>() + 8 * 32;
    // Some old writers added signed bytes.
    let signed = outside.map(|&byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
    number(&bytes[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// A number of a header: octal digits between blanks and NULs, or GNU's base 256.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value = if negative { -1_i128 } else { 0 };
        for (index, &byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative { byte & 0x7f } else { byte };
            value = (value << 8) | i128::from(byte);
            if i64::try_from(value).is_err() {
                return None;
            }
        }
        return i64::try_from(value).ok();
    }
    let blank = |byte: u8| byte == b' ' || byte == 0;
    let start = field.iter().position(|&byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|&byte| blank(byte)).unwrap_or(digits.len());
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
    std::str::from_utf8(value).ok()?.parse().ok().filter(|&number| number <= i64::MAX.cast_unsigned())
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn invalid(field: &'static str, path: &[u8]) -> Malformed {
    Malformed::Number { field, path: lossy(path) }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_grows_too_far_is_stopped_wherever_the_bytes_are() {
        let file = {
            let mut header = tar::Header::new_ustar();
            header.set_size(100_000);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.as_old_mut().name[0] = b'a';
            header.set_cksum();
            [header.as_bytes(), &[0; 100_352][..]].concat()
        };
        let drain = |bytes: &[u8], limit: u64| {
            let mut archive = Archive::new(bytes, 0);
            archive.limit = limit;
            while archive.next()?.is_some() {
                while archive.read(&mut [0; 1000])? > 0 {}
            }
            Ok::<_, Malformed>(archive.entries())
        };
        let trailing = [&file[..], &vec![0; 100_000]].concat();
        assert!(matches!(drain(&file, file.len() as u64), Ok(1)));
        assert!(matches!(drain(&file, 90_000), Err(Malformed::Bomb { limit: 90_000 })));
        assert!(matches!(drain(&trailing, 150_000), Err(Malformed::Bomb { limit: 150_000 })));
    }

    #[test]
    fn small_layers_may_be_mostly_zeros_and_large_ones_may_not() {
        assert_eq!(Archive::new(io::empty(), 100).limit, ALWAYS_ALLOWED);
        assert_eq!(Archive::new(io::empty(), 100 << 20).limit, (100 << 20) * MAX_RATIO);
        assert_eq!(Archive::new(io::empty(), u64::MAX).limit, u64::MAX);
    }

    #[test]
    fn numbers_are_read_in_both_notations() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        for wrong in [&b"9"[..], b"1 2", b"-1", b"0x1", b"1\x002"] {
            assert_eq!(number(wrong), None);
        }
    }
}
