//! A tar archive that is read in passes: no pass writes anything but what it was asked for.
//!
//! An archive's entries come in any order, and it may be compressed, so nothing can be looked up;
//! but a pass is cheap (a plain archive is skipped through, a compressed one decompresses at hundreds
//! of megabytes a second), and an image needs about four. Names are looked at, and never opened.
//!
//! Only the plain header of an entry is read (POSIX.1-1988): all names that matter here are shorter
//! than the 100 characters it has, and so no hostile extension is ever interpreted.

use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err::File;

use super::error;
use crate::error::Error;
use crate::progress::{Cancelled, Progress};
use crate::store::MAX_DOCUMENT;

const BLOCK: usize = 512;
/// Larger windows (2^26 bytes) would let an archive decide how much memory is used.
const LARGEST_WINDOW: u32 = 26;
/// The same for xz, in KiB: twice what `xz -9` needs.
const LARGEST_DICTIONARY: u32 = 1 << 17;

/// A tar archive, plain or compressed with gzip, bzip2, xz or zstd, by its first bytes.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
}

/// One entry of a pass.
pub(super) struct Entry<'a> {
    /// Relative to the archive's root, without a leading `./`.
    pub(super) name: &'a str,
    /// Where it leads, for a symbolic or hard link, relative to the archive's root.
    pub(super) link: Option<String>,
    /// In bytes.
    pub(super) size: u64,
    /// The bytes; what is left of them is skipped.
    pub(super) content: &'a mut dyn Read,
}

/// Whether a pass has seen what it wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    GoesOn,
    Ends,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let metadata = fs_err::metadata(path)?;
        if !metadata.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(unreadable(path, source));
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Shows every regular file and link to `visit`, in the order of the archive.
    pub(super) fn pass(
        &self,
        progress: &Progress,
        visit: &mut dyn FnMut(&mut Entry<'_>) -> Result<Pass, Error>,
    ) -> Result<(), Error> {
        let unreadable = |source| self.broken(source);
        let mut input = Input::open(&self.path).map_err(unreadable)?;
        let mut block = [0; BLOCK];
        while input.header(&mut block).map_err(unreadable)? {
            progress.check()?;
            let header = tar::Header::from_byte_slice(&block);
            let size = header.entry_size().map_err(unreadable)?;
            let kind = header.entry_type();
            let name = String::from_utf8(header.path_bytes().into_owned()).unwrap_or_default();
            let name = name.trim_start_matches("./").to_owned();
            let is_link = kind.is_symlink() || kind.is_hard_link();
            let mut content = (&mut input).take(size);
            if kind.is_file() || is_link {
                let link = header
                    .link_name_bytes()
                    .filter(|_| is_link)
                    .and_then(|target| {
                        let target = String::from_utf8(target.into_owned()).ok()?;
                        inside(if kind.is_symlink() { &name } else { "" }, &target)
                    });
                let mut entry = Entry {
                    name: &name,
                    link,
                    size,
                    content: &mut content,
                };
                if visit(&mut entry)? == Pass::Ends {
                    return Ok(());
                }
            }
            let rest = content.limit();
            let padding = size.next_multiple_of(BLOCK as u64) - size;
            input
                .skip(rest.saturating_add(padding), progress)
                .map_err(unreadable)?;
        }
        Ok(())
    }

    /// The whole of the entry `name`, a document; `None` if there is none.
    pub(super) fn document(
        &self,
        name: &str,
        progress: &Progress,
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut found = None;
        self.pass(progress, &mut |entry| {
            if entry.name != name || entry.link.is_some() {
                return Ok(Pass::GoesOn);
            }
            if entry.size > MAX_DOCUMENT {
                return Err(error::too_large(&self.path, name));
            }
            let mut bytes = Vec::new();
            entry
                .content
                .read_to_end(&mut bytes)
                .map_err(|source| self.broken(source))?;
            if bytes.len() as u64 != entry.size {
                return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
            }
            found = Some(bytes);
            Ok(Pass::Ends)
        })?;
        Ok(found)
    }

    /// An error for what went wrong while reading; a skip that was told to stop comes back so too.
    pub(super) fn broken(&self, source: io::Error) -> Error {
        if source
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Cancelled>)
        {
            return Cancelled.into();
        }
        unreadable(&self.path, source)
    }
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    let path = path.display();
    error::broken(format!("`{path}` is not readable as a tar archive")).with_source(source)
}

/// Where a link in an archive leads, relative to the root; `None` if it leads out.
fn inside(name: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// Bytes that tell a [`Packing`].
pub(super) const MAGIC: usize = 6;

impl Packing {
    /// By the first bytes.
    pub(super) fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    pub(super) fn unpack<'a>(self, reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(reader),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
                reader,
                true,
                LARGEST_DICTIONARY,
            )),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(reader)?;
                decoder.window_log_max(LARGEST_WINDOW)?;
                Box::new(decoder)
            }
        })
    }
}

enum Input {
    Plain(BufReader<File>),
    Packed(Box<dyn Read>),
}

impl Input {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut magic = [0; MAGIC];
        let length = read_fully(&mut file, &mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        let reader = BufReader::with_capacity(1 << 17, file);
        Ok(match Packing::of(&magic[..length]) {
            Packing::Plain => Self::Plain(reader),
            packing => Self::Packed(packing.unpack(reader)?),
        })
    }

    /// Reads the next header; false at the archive's end.
    fn header(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        match read_fully(self, block)? {
            // Some writers leave out the two blocks of zeros.
            0 => return Ok(false),
            BLOCK => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(false);
        }
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let field: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
        let is_right = tar::Header::from_byte_slice(block)
            .cksum()
            .is_ok_and(|written| written == sum - field + 8 * u32::from(b' '));
        if is_right {
            Ok(true)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a header is damaged",
            ))
        }
    }

    fn skip(&mut self, mut count: u64, progress: &Progress) -> io::Result<()> {
        if let Self::Plain(reader) = self {
            let count = i64::try_from(count).map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "an entry has an impossible size",
                )
            })?;
            return reader.seek_relative(count);
        }
        while count > 0 {
            progress.check().map_err(io::Error::other)?;
            let passed = io::copy(&mut (&mut *self).take(count.min(1 << 24)), &mut io::sink())?;
            if passed == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            count -= passed;
        }
        Ok(())
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Packed(reader) => reader.read(buffer),
        }
    }
}

/// Reads until `buffer` is full or the input ends.
pub(super) fn read_fully(
    reader: &mut (impl Read + ?Sized),
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
