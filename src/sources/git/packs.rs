//! Large files out of packs, piece by piece: libgit2 gives what lies in a pack only as a whole.
//!
//! Follows "pack-*.pack files have the following format" and "Version 2 pack-*.idx files" of git's
//! `gitformat-pack`. Whatever looks otherwise is left to libgit2, and to what it says of it.

use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use flate2::bufread::ZlibDecoder;
use fs_err as fs;
use fs_err::os::unix::fs::FileExt as _;
use git2::Oid;

/// How an index of version 2 begins.
const MAGIC: [u8; 8] = *b"\xfftOc\0\0\0\x02";

/// Where the numbers of ids by their first byte end, and the ids begin.
const IDS: u64 = 8 + 256 * 4;

/// The length of an id.
const ID: u64 = 20;

/// The type of an entry of a pack that is a whole file and not a delta.
const BLOB: u8 = 3;

/// The content of the file `id`, if a pack in `folder` holds it as a whole and says that it has `size` bytes.
pub(super) fn blob(folder: &Path, id: Oid, size: u64) -> io::Result<Option<impl Read + use<>>> {
    for entry in fs::read_dir(folder)? {
        let index = entry?.path();
        if index.extension().is_none_or(|name| name != "idx") {
            continue;
        }
        if let Some(offset) = offset(&index, id)? {
            return open(&index.with_extension("pack"), offset, size);
        }
    }
    Ok(None)
}

/// Where the pack of an index has an object.
fn offset(index: &Path, id: Oid) -> io::Result<Option<u64>> {
    let file = fs::File::open(index)?;
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0)?;
    if magic != MAGIC {
        return Ok(None);
    }
    let number = |at: u64| -> io::Result<u64> {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at)?;
        Ok(u32::from_be_bytes(bytes).into())
    };
    let first = u64::from(id.as_bytes()[0]);
    let mut low = match first {
        0 => 0,
        first => number(8 + (first - 1) * 4)?,
    };
    let mut high = number(8 + first * 4)?;
    let count = number(IDS - 4)?;
    while low < high {
        let middle = low.midpoint(high);
        let mut found = [0; 20];
        file.read_exact_at(&mut found, IDS + middle * ID)?;
        match found.as_slice().cmp(id.as_bytes()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => {
                // Behind the ids lie checksums, then the offsets, then those that need eight bytes.
                let offsets = IDS + count * (ID + 4);
                let offset = number(offsets + middle * 4)?;
                let Some(large) = offset.checked_sub(1 << 31) else {
                    return Ok(Some(offset));
                };
                let at = offsets + count * 4 + large * 8;
                return Ok(Some(number(at)? << 32 | number(at + 4)?));
            }
        }
    }
    Ok(None)
}

/// The content of the entry at `offset` of a pack.
fn open(pack: &Path, offset: u64, size: u64) -> io::Result<Option<impl Read + use<>>> {
    let mut file = fs::File::open(pack)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = BufReader::new(file);
    let mut next = || -> io::Result<u8> {
        let mut byte = [0];
        bytes.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    // The kind, and the size in groups of bits, the lowest first.
    let mut byte = next()?;
    let kind = byte >> 4 & 7;
    let (mut told, mut shift) = (u64::from(byte & 15), 4);
    while byte & 0x80 != 0 && shift < 60 {
        byte = next()?;
        told |= u64::from(byte & 0x7f) << shift;
        shift += 7;
    }
    let is_whole = kind == BLOB && told == size;
    Ok(is_whole.then(|| ZlibDecoder::new(bytes).take(size)))
}
