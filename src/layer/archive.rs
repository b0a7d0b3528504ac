//! A strict reader of layer tars: what two readers could understand differently is refused.
//!
//! Reads what layers are made of (OCI image specification, `layer.md`): ustar, GNU long names, PAX
//! records. It reads blocks itself and not through [`tar::Archive`], because that one ignores a PAX
//! `size` when it is asked for raw entries, and splits PAX values at line breaks when it is not.
//! Sparse files and multi-volume archives are refused by name; no image builder writes them.

use std::io::{self, Read};

use crate::layer::entry::{
    Entry, Extended, MAX_PATH, apply_records, checksum_holds, complete, invalid, number, until_nul,
};
use crate::layer::malformed::Malformed;
use crate::layer::{MAX_LAYER, holes, pax};

/// More entries than any image has; each costs an inode and some bytes of memory.
const MAX_ENTRIES: u64 = 10_000_000;
/// The kernel allows 64 KiB for an extended attribute; GNU tar and Go accept about as much.
const MAX_RECORDS: u64 = 1 << 20;
/// A layer may always unpack to this much.
const ALWAYS_ALLOWED: u64 = 1 << 30;
/// Deflate cannot exceed 1,032; text reaches 20, and files of zeros in real layers about 100.
const MAX_RATIO: u64 = 200;

const BLOCK: usize = 512;

/// Reads entries one after the other.
pub(super) struct Archive<R> {
    input: R,
    /// Bytes read so far.
    at: u64,
    /// Of these, bytes of files that become holes: they fill no disk.
    holes: u64,
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
        Self {
            input,
            at: 0,
            holes: 0,
            limit,
            entries: 0,
            remaining: 0,
            padding: 0,
        }
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
                return if extended.is_empty() {
                    Ok(None)
                } else {
                    Err(Malformed::Truncated)
                };
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
            let size = size
                .map(i64::cast_unsigned)
                .ok_or_else(|| invalid("size", raw_name))?;
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
                    let slot = if flag == b'L' {
                        &mut extended.path
                    } else {
                        &mut extended.link
                    };
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

    /// Reads from the current entry until the buffer is full; 0 at its end. A full buffer of zeros has to become a hole
    /// wherever it goes.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Malformed> {
        let wanted = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let length = self.fill_freely(&mut buffer[..wanted])?;
        if length < wanted {
            return Err(Malformed::Truncated);
        }
        if length == buffer.len() && holes::is_zero(buffer) {
            self.holes += length as u64;
        }
        self.remaining -= length as u64;
        self.check()?;
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
        if self
            .block()?
            .is_some_and(|block| block.iter().any(|&byte| byte != 0))
        {
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

    /// An error if the stream has grown too far.
    fn check(&self) -> Result<(), Malformed> {
        let limit = if self.at > MAX_LAYER {
            MAX_LAYER
        } else {
            self.limit
        };
        if self.at - self.holes > limit || self.at > MAX_LAYER {
            return Err(Malformed::Bomb { limit });
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Malformed> {
        let length = self.fill_freely(buffer)?;
        self.check()?;
        Ok(length)
    }

    /// Reads until `buffer` is full or the stream ends.
    fn fill_freely(&mut self, buffer: &mut [u8]) -> Result<usize, Malformed> {
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
        Ok(filled)
    }
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
            [header.as_bytes(), &vec![1; 100_352][..]].concat()
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
        assert!(matches!(
            drain(&file, 90_000),
            Err(Malformed::Bomb { limit: 90_000 })
        ));
        assert!(matches!(
            drain(&trailing, 150_000),
            Err(Malformed::Bomb { limit: 150_000 })
        ));
    }

    #[test]
    fn small_layers_may_be_mostly_zeros_and_large_ones_may_not() {
        assert_eq!(Archive::new(io::empty(), 100).limit, ALWAYS_ALLOWED);
        assert_eq!(
            Archive::new(io::empty(), 100 << 20).limit,
            (100 << 20) * MAX_RATIO
        );
        assert_eq!(Archive::new(io::empty(), u64::MAX).limit, u64::MAX);
    }
}
