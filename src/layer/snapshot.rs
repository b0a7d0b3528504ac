//! The state of a tree in a file, for finding out what a step that writes in place has changed.
//!
//! Records follow each other in the order of the walk, so that a tree and its snapshot are compared
//! without holding either. Numbers are 64 bits, little-endian; byte strings have their length before
//! them. An end mark tells a file that was cut short.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::digest::{Digest, Hashing};
use crate::layer::Error;
use crate::layer::node::{self, Kind, Node, Xattrs};
use crate::layer::{leftout, tree, walk, writer};

const MAGIC: &[u8] = b"pyats-image-builder snapshot 2\n";
const END: u64 = u64::MAX;
/// Longer than any path, target or attribute.
const MAX_BYTES: u64 = 1 << 20;

/// One path of a tree as it was.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) path: Vec<u8>,
    pub(super) node: Node,
    /// Of a file's content.
    pub(super) digest: Option<Digest>,
}

/// Writes the state of the tree at `root`, after making hard links files of their own.
pub(super) fn write(root: &Path, file: &Path) -> Result<(), Error> {
    let mut output = BufWriter::new(fs::File::create(file)?);
    output.write_all(MAGIC)?;
    for entry in walk::Walk::new(root) {
        let (path, mut node) = entry?;
        let host = walk::at(root, &path);
        let mut digest = None;
        if node.nlink > 1 && matches!(node.kind, Kind::File | Kind::Symlink | Kind::Fifo) {
            tree::unshare(&host, &node)?;
            node = Node::read(&host)?.ok_or_else(|| Error::Changed { path: host.clone() })?;
        }
        if node.kind == Kind::File {
            digest = Some(content_digest(&host)?);
            if leftout::is_left_out(&path) {
                fs::create_dir_all(keep(file))?;
                tree::restore(&kept(file, &path), &node, &host)?;
            }
        }
        write_record(&mut output, &Record { path, node, digest })?;
    }
    output.write_all(&END.to_le_bytes())?;
    output
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    Ok(())
}

/// Where a snapshot keeps a file that stays out of layers: whatever a step does to it, the next one sees this.
pub(super) fn kept(file: &Path, path: &[u8]) -> PathBuf {
    keep(file).join(Digest::of(path).hex())
}

fn keep(file: &Path) -> PathBuf {
    file.with_extension("kept")
}

/// The digest of a file's content.
pub(super) fn content_digest(path: &Path) -> Result<Digest, Error> {
    let mut hashing = Hashing::new(io::sink());
    let file = writer::open(path)?;
    let size = file.metadata()?.len();
    let mut buffer = vec![0; 1 << 17];
    if !writer::copy_content(&file, size, &mut buffer, &mut hashing)? {
        return Err(Error::Changed {
            path: path.to_owned(),
        });
    }
    let (_, digest, _) = hashing.complete();
    Ok(digest)
}

fn write_record(output: &mut impl Write, record: &Record) -> io::Result<()> {
    let node = &record.node;
    put_bytes(output, &record.path)?;
    for number in [
        KINDS
            .iter()
            .position(|&kind| kind == node.kind)
            .unwrap_or(0) as u64,
        node.mode.into(),
        node.uid.into(),
        node.gid.into(),
        node.size,
        node.mtime.0.cast_unsigned(),
        node.mtime.1.into(),
        node.ctime.0.cast_unsigned(),
        node.ctime.1.into(),
        node.dev,
        node.ino,
        node.nlink,
        node.rdev,
    ] {
        output.write_all(&number.to_le_bytes())?;
    }
    put_bytes(output, &node.target)?;
    output.write_all(&(node.xattrs.len() as u64).to_le_bytes())?;
    for (name, value) in &node.xattrs {
        put_bytes(output, name)?;
        put_bytes(output, value)?;
    }
    let owner = node.recorded.map(node::owner_value).unwrap_or_default();
    put_bytes(output, owner.as_bytes())?;
    put_bytes(
        output,
        record.digest.map_or(String::new(), String::from).as_bytes(),
    )
}

const KINDS: [Kind; 7] = [
    Kind::File,
    Kind::Directory,
    Kind::Symlink,
    Kind::Fifo,
    Kind::Char,
    Kind::Block,
    Kind::Socket,
];

fn put_bytes(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    output.write_all(&(bytes.len() as u64).to_le_bytes())?;
    output.write_all(bytes)
}

/// Reads records one after the other.
pub(super) struct Reader {
    input: BufReader<fs::File>,
    path: PathBuf,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let mut reader = Self {
            input: BufReader::new(fs::File::open(path)?),
            path: path.to_owned(),
        };
        let mut magic = vec![0; MAGIC.len()];
        if reader.input.read_exact(&mut magic).is_err() || magic != MAGIC {
            return Err(reader.broken());
        }
        Ok(reader)
    }

    pub(super) fn next(&mut self) -> Result<Option<Record>, Error> {
        self.read_record().map_err(|_| self.broken())
    }

    fn broken(&self) -> Error {
        Error::Record {
            path: self.path.clone(),
        }
    }

    fn read_record(&mut self) -> io::Result<Option<Record>> {
        let length = self.number()?;
        if length == END {
            return Ok(None);
        }
        let path = self.bytes_of(length)?;
        let kind = usize::try_from(self.number()?)
            .ok()
            .and_then(|kind| KINDS.get(kind).copied());
        let mut small = || u32::try_from(self.number()?).map_err(io::Error::other);
        let (mode, uid, gid) = (small()?, small()?, small()?);
        let mut node = Node {
            kind: kind.ok_or(io::ErrorKind::InvalidData)?,
            mode,
            uid,
            gid,
            size: self.number()?,
            mtime: self.time()?,
            ctime: self.time()?,
            dev: self.number()?,
            ino: self.number()?,
            nlink: self.number()?,
            rdev: self.number()?,
            target: self.bytes()?,
            xattrs: Xattrs::new(),
            recorded: None,
        };
        for _ in 0..self.number()? {
            let name = self.bytes()?;
            node.xattrs.insert(name, self.bytes()?);
        }
        node.recorded = node::parse_owner(&self.bytes()?);
        let digest = String::from_utf8(self.bytes()?).map_err(io::Error::other)?;
        let digest = match digest.as_str() {
            "" => None,
            text => Some(text.parse().map_err(io::Error::other)?),
        };
        Ok(Some(Record { path, node, digest }))
    }

    fn time(&mut self) -> io::Result<(i64, u32)> {
        let seconds = self.number()?.cast_signed();
        Ok((
            seconds,
            u32::try_from(self.number()?).map_err(io::Error::other)?,
        ))
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let length = self.number()?;
        self.bytes_of(length)
    }

    fn bytes_of(&mut self, length: u64) -> io::Result<Vec<u8>> {
        if length > MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
