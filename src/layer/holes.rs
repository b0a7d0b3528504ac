//! Which parts of a file hold data. The rest are holes: zeros that take no room, and need not be read.

use std::io;
use std::ops::Range;

use fs_err::File;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Smaller files are read as a whole: asking would take longer.
const SMALL: u64 = 1 << 20;

/// Zeros in place of a hole.
pub(super) static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The parts of a file of `size` bytes that hold data, in order.
pub(super) fn data(file: &File, size: u64) -> impl Iterator<Item = io::Result<Range<u64>>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let part = next(file, at, size);
        // After an error there is nothing more.
        at = part.as_ref().map_or(size, |part| part.end);
        part.map(|part| (!part.is_empty()).then_some(part))
            .transpose()
    })
}

/// The first part at or after `at`; empty if there is none.
fn next(file: &File, at: u64, size: u64) -> io::Result<Range<u64>> {
    if size <= SMALL || at >= size {
        return Ok(at..size);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start.min(size),
        Err(Errno::NXIO) => size,
        // A file system that does not know of holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(at..size),
        Err(error) => return Err(error.into()),
    };
    if start == size {
        return Ok(size..size);
    }
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    Ok(start..end.min(size))
}

/// Whether bytes are as good as a hole.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let mut parts = bytes.chunks(ZEROS.len());
    parts.all(|part| part == &ZEROS[..part.len()])
}
