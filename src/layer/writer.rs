//! A changeset as a tar, the same bytes for the same entries.
//!
//! ustar headers with numeric owners and no names of users; PAX records only where ustar has no room
//! (POSIX.1-2017, pax), chosen as Go's `archive/tar` chooses them, so that every reader agrees.

use fs_err::os::unix::fs::FileExt as _;
use std::ffi::OsStr;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use fs_err as fs;

use crate::digest::{DiffId, Hashing};
use crate::layer::compress::{Compression, Compressor};
use crate::layer::node::{Kind, Node, Xattrs};
use crate::layer::{Error, MAX_LAYER, holes, pax};
use crate::manifest::Layer;
use crate::store::{BlobWriter, Store};

const BLOCK: usize = 512;

/// What the header of one entry says.
#[derive(Debug)]
pub(super) struct Header<'a> {
    /// Relative to the root; of a directory without its final slash, empty for the root.
    pub(super) path: &'a [u8],
    pub(super) content: Content<'a>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    pub(super) xattrs: &'a Xattrs,
}

/// What an entry is, and what belongs to that.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    /// Read from this path, of the host.
    File {
        size: u64,
        from: &'a Path,
    },
    /// A file without content, such as a whiteout.
    Empty,
    Directory,
    Symlink(&'a [u8]),
    /// To this path of the changeset.
    HardLink(&'a [u8]),
    Fifo,
    Char(u64),
    Block(u64),
}

impl<'a> Content<'a> {
    /// Of a node that lies at `from`; `None` for sockets.
    pub(super) fn of(node: &'a Node, from: &'a Path) -> Option<Self> {
        Some(match node.kind {
            Kind::File => Self::File {
                size: node.size,
                from,
            },
            Kind::Directory => Self::Directory,
            Kind::Symlink => Self::Symlink(&node.target),
            Kind::Fifo => Self::Fifo,
            Kind::Char => Self::Char(node.rdev),
            Kind::Block => Self::Block(node.rdev),
            Kind::Socket => return None,
        })
    }
}

/// Writes a layer into a store: tar, diffID, compression, digest, file, all at once.
pub(super) struct LayerWriter {
    tar: BufWriter<Hashing<Compressor<BlobWriter>>>,
    compression: Compression,
    buffer: Vec<u8>,
    /// Bytes of the tar so far.
    size: u64,
}

impl LayerWriter {
    /// Begins a layer; dropped before it is complete it leaves nothing behind.
    pub(super) fn new(store: &Store, compression: Compression) -> Result<Self, Error> {
        let compressor = Compressor::new(store.writer()?, compression)?;
        let tar = BufWriter::with_capacity(1 << 16, Hashing::new(compressor));
        Ok(Self {
            tar,
            compression,
            buffer: vec![0; 1 << 17],
            size: 0,
        })
    }

    /// Appends an entry. A file that is not as long as its header says is an error.
    pub(super) fn append(&mut self, header: &Header<'_>) -> Result<(), Error> {
        let blocks = headers(header);
        let own = match header.content {
            Content::File { size, .. } => size,
            _ => 0,
        };
        let before = blocks.iter().map(|block| block.len() as u64).sum::<u64>();
        self.size = self.size.saturating_add(before).saturating_add(own);
        if self.size > MAX_LAYER {
            return Err(Error::TooLarge {
                path: Path::new("/").join(OsStr::from_bytes(header.path)),
                size: own,
            });
        }
        for block in blocks {
            self.tar.write_all(&block)?;
        }
        if let Content::File { size, from } = header.content {
            self.append_content(size, from)?;
        }
        Ok(())
    }

    fn append_content(&mut self, size: u64, from: &Path) -> Result<(), Error> {
        let file = open(from)?;
        if !copy_content(&file, size, &mut self.buffer, &mut self.tar)? {
            return Err(Error::Changed {
                path: from.to_owned(),
            });
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        self.tar
            .write_all(&[0; BLOCK][..usize::try_from(padding).unwrap_or(0)])?;
        Ok(())
    }

    /// Makes the layer's blob visible.
    pub(super) fn complete(mut self) -> Result<Layer, Error> {
        self.tar.write_all(&[0; 2 * BLOCK])?;
        let hashing = self
            .tar
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?;
        let (compressor, diff_id, _) = hashing.complete();
        let descriptor = compressor
            .complete()?
            .complete(self.compression.media_type())?;
        Ok(Layer {
            descriptor,
            diff_id: DiffId(diff_id),
        })
    }
}

/// Copies the content of a file without reading its holes; says whether it had exactly `size` bytes.
pub(super) fn copy_content(
    file: &fs::File,
    size: u64,
    buffer: &mut [u8],
    to: &mut impl Write,
) -> std::io::Result<bool> {
    let mut at = 0;
    for part in holes::data(file, size) {
        let part = part?;
        fill(part.start - at, to)?;
        at = part.start;
        while at < part.end {
            let wanted = usize::try_from(part.end - at).unwrap_or(usize::MAX);
            let wanted = wanted.min(buffer.len());
            let length = file.read_at(&mut buffer[..wanted], at)?;
            if length == 0 {
                return Ok(false);
            }
            to.write_all(&buffer[..length])?;
            at += length as u64;
        }
    }
    fill(size - at, to)?;
    Ok(file.metadata()?.len() == size)
}

/// Writes as many zeros.
fn fill(mut count: u64, to: &mut impl Write) -> std::io::Result<()> {
    while count > 0 {
        let length = usize::try_from(count).unwrap_or(usize::MAX);
        let length = length.min(holes::ZEROS.len());
        to.write_all(&holes::ZEROS[..length])?;
        count -= length as u64;
    }
    Ok(())
}

/// Opens a file of a tree for reading, and never what a link points to.
pub(super) fn open(path: &Path) -> Result<fs::File, Error> {
    use fs_err::os::unix::fs::OpenOptionsExt as _;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    Ok(fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?)
}

/// The blocks before an entry's content.
fn headers(header: &Header<'_>) -> Vec<Vec<u8>> {
    let mut path = header.path.to_owned();
    if path.is_empty() {
        path.push(b'.');
    }
    if matches!(header.content, Content::Directory) {
        path.push(b'/');
    }
    let (flag, size, link, device) = match header.content {
        Content::File { size, .. } => (b'0', size, &b""[..], 0),
        Content::Empty => (b'0', 0, &b""[..], 0),
        Content::HardLink(target) => (b'1', 0, target, 0),
        Content::Symlink(target) => (b'2', 0, target, 0),
        Content::Char(device) => (b'3', 0, &b""[..], device),
        Content::Block(device) => (b'4', 0, &b""[..], device),
        Content::Directory => (b'5', 0, &b""[..], 0),
        Content::Fifo => (b'6', 0, &b""[..], 0),
    };

    // Sorted by their keys, as Go sorts them.
    let mut records = std::collections::BTreeMap::<Vec<u8>, Vec<u8>>::new();
    let mut record = |key: &str, value: &[u8]| records.insert(key.into(), value.to_owned());
    let mut tar = tar::Header::new_ustar();
    {
        let Some(ustar) = tar.as_ustar_mut() else {
            return Vec::new();
        };
        ustar.typeflag = [flag];
        if let Some((prefix, name)) = split(&path) {
            ustar.prefix[..prefix.len()].copy_from_slice(prefix);
            ustar.name[..name.len()].copy_from_slice(name);
        } else {
            put_ascii(&mut ustar.name, &path);
            record("path", &path);
        }
        put_ascii(&mut ustar.linkname, link);
        if link.len() > ustar.linkname.len() || !link.is_ascii() {
            record("linkpath", link);
        }
        put_octal(&mut ustar.mode, u64::from(header.mode));
        let major = u64::from(rustix::fs::major(device));
        let minor = u64::from(rustix::fs::minor(device));
        put_octal(&mut ustar.dev_major, major);
        put_octal(&mut ustar.dev_minor, minor);
        let mtime = u64::try_from(header.mtime).unwrap_or(u64::MAX);
        let numbers: [(&str, &mut [u8], u64); 4] = [
            ("uid", &mut ustar.uid, u64::from(header.uid)),
            ("gid", &mut ustar.gid, u64::from(header.gid)),
            ("size", &mut ustar.size, size),
            ("mtime", &mut ustar.mtime, mtime),
        ];
        for (key, field, value) in numbers {
            if !put_octal(field, value) {
                let text = if key == "mtime" {
                    header.mtime.to_string()
                } else {
                    value.to_string()
                };
                record(key, text.as_bytes());
            }
        }
    }
    for (name, value) in header.xattrs {
        records.insert([b"SCHILY.xattr.", &name[..]].concat(), value.clone());
    }
    tar.set_cksum();
    let mut blocks = Vec::new();
    if !records.is_empty() {
        blocks.push(extended(&path, &records));
    }
    blocks.push(tar.as_bytes().to_vec());
    blocks
}

fn extended(path: &[u8], records: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let mut block = Vec::new();
    for (key, value) in records {
        pax::append(&mut block, key, value);
    }
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let base = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let mut tar = tar::Header::new_ustar();
    if let Some(ustar) = tar.as_ustar_mut() {
        ustar.typeflag = [b'x'];
        put_ascii(&mut ustar.name, &[b"PaxHeaders.0/", base].concat());
        put_octal(&mut ustar.mode, 0o644);
        put_octal(&mut ustar.uid, 0);
        put_octal(&mut ustar.gid, 0);
        put_octal(&mut ustar.size, block.len() as u64);
        put_octal(&mut ustar.mtime, 0);
        put_octal(&mut ustar.dev_major, 0);
        put_octal(&mut ustar.dev_minor, 0);
    }
    tar.set_cksum();
    block.resize(block.len().next_multiple_of(BLOCK), 0);
    [tar.as_bytes(), &block[..]].concat()
}

/// A path as ustar's prefix and name; `None` if it has no room there, or is not ASCII.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The last slash that leaves a name, and a prefix that is not too long.
    let end = path.len().min(156);
    let end = if path.len() == end { end - 1 } else { end };
    let slash = path[..end].iter().rposition(|&byte| byte == b'/')?;
    let (prefix, name) = (&path[..slash], &path[slash + 1..]);
    (!prefix.is_empty() && !name.is_empty() && name.len() <= 100).then_some((prefix, name))
}

/// For readers that do not know PAX: as much as there is room for, without what is not ASCII.
fn put_ascii(field: &mut [u8], text: &[u8]) {
    let ascii = text.iter().filter(|byte| byte.is_ascii());
    for (place, byte) in field.iter_mut().zip(ascii) {
        *place = *byte;
    }
}

/// Octal digits and a NUL; zero if they do not fit, which is told.
fn put_octal(field: &mut [u8], value: u64) -> bool {
    let width = field.len() - 1;
    let fits = value < 1 << (3 * width);
    let text = format!("{:0width$o}", if fits { value } else { 0 });
    field[..width].copy_from_slice(text.as_bytes());
    field[width] = 0;
    fits
}
