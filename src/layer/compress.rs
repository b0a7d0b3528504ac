//! Uncompressed bytes in, a stored blob out; on all cores, and with the same bytes on any number.
//!
//! gzip: the input is cut into blocks of fixed size. Each is deflated on its own, with the end of the
//! block before it as its dictionary, and ends on a byte boundary (a sync flush), so that the pieces
//! joined in order are one member (RFC 1952), as pigz writes it. zstd has the same built in.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZero;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::{Compress, Crc, FlushCompress, Status};
use serde::{Deserialize, Serialize};
use zstd::stream::raw::CParameter;

use crate::manifest::media_type;

/// How layers that are made here are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Level 1 to 9.
    Gzip(u32),
    /// Level 1 to 22.
    Zstd(i32),
    /// A plain tar.
    None,
}

/// A text that is not a compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a compression: write `gzip`, `zstd` or `none`, with a level such as `gzip:9` (1 to 9) or `zstd:19` (1 to 22)")]
pub struct InvalidCompression(pub String);

impl Compression {
    /// The OCI media type of a layer.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip(_) => media_type::OCI_LAYER_GZIP,
            Self::Zstd(_) => media_type::OCI_LAYER_ZSTD,
            Self::None => media_type::OCI_LAYER,
        }
    }

    /// Docker's media type of a layer.
    #[must_use]
    pub fn docker_media_type(self) -> &'static str {
        match self {
            Self::Gzip(_) => media_type::DOCKER_LAYER_GZIP,
            Self::Zstd(_) => media_type::DOCKER_LAYER_ZSTD,
            Self::None => media_type::DOCKER_LAYER,
        }
    }
}

impl Default for Compression {
    /// Every registry and runtime reads gzip.
    fn default() -> Self {
        Self::Gzip(6)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip(level) => write!(f, "gzip:{level}"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl FromStr for Compression {
    type Err = InvalidCompression;

    fn from_str(text: &str) -> Result<Self, InvalidCompression> {
        let invalid = || InvalidCompression(text.to_owned());
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<u32>().map_err(|_| invalid())?)),
            None => (text, None),
        };
        match (name, level) {
            ("gzip", None) => Ok(Self::default()),
            ("gzip", Some(level @ 1..=9)) => Ok(Self::Gzip(level)),
            // zstd's own default.
            ("zstd", None) => Ok(Self::Zstd(3)),
            ("zstd", Some(level @ 1..=22)) => Ok(Self::Zstd(level.cast_signed())),
            ("none", None) => Ok(Self::None),
            _ => Err(invalid()),
        }
    }
}

/// Changing it changes the bytes, and so the digest, of every gzip layer.
const GZIP_BLOCK: usize = 1 << 20;
/// Deflate's window: what a dictionary can be at most.
const GZIP_WINDOW: usize = 1 << 15;
/// Changing it changes the bytes of every zstd layer. At high levels zstd raises it by itself.
const ZSTD_JOB: u32 = 1 << 21;
/// Each thread holds about four blocks; more threads than this would hold more than layers are worth.
const MAX_THREADS: usize = 16;

/// Compresses what is written to it, into `W`.
pub(super) enum Compressor<W: Write> {
    Gzip(Gzip<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    None(W),
}

impl<W: Write + Send + 'static> Compressor<W> {
    /// Uses all cores.
    pub(super) fn new(output: W, compression: Compression) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::with_threads(output, compression, cores.min(MAX_THREADS))
    }

    fn with_threads(output: W, compression: Compression, threads: usize) -> io::Result<Self> {
        Ok(match compression {
            Compression::Gzip(level) => Self::Gzip(Gzip::new(output, level, threads)),
            Compression::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(output, level)?;
                // Without workers zstd takes another path, with other bytes.
                encoder.multithread(u32::try_from(threads.max(1)).unwrap_or(1))?;
                encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
                Self::Zstd(encoder)
            }
            Compression::None => Self::None(output),
        })
    }

    /// Writes the end and gives the output back.
    pub(super) fn complete(self) -> io::Result<W> {
        match self {
            Self::Gzip(gzip) => gzip.complete(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::None(output) => Ok(output),
        }
    }
}

impl<W: Write + Send + 'static> Write for Compressor<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(gzip) => gzip.write(buffer),
            Self::Zstd(encoder) => encoder.write(buffer),
            Self::None(output) => output.write(buffer),
        }
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Block `i` goes to worker `i % n`, and the collector asks the workers in the same order: no
/// numbering and no reordering.
pub(super) struct Gzip<W> {
    block: Vec<u8>,
    window: Vec<u8>,
    workers: Vec<SyncSender<Job>>,
    next: usize,
    collector: Option<JoinHandle<io::Result<W>>>,
}

struct Job {
    window: Vec<u8>,
    block: Vec<u8>,
    is_last: bool,
}

struct Piece {
    bytes: io::Result<Vec<u8>>,
    crc: Crc,
    is_last: bool,
}

impl<W: Write + Send + 'static> Gzip<W> {
    fn new(output: W, level: u32, threads: usize) -> Self {
        let mut workers = Vec::new();
        let mut pieces = Vec::new();
        for _ in 0..threads.max(1) {
            let (jobs, worker_jobs) = sync_channel::<Job>(1);
            let (worker_pieces, piece) = sync_channel(1);
            std::thread::spawn(move || {
                for job in worker_jobs {
                    if worker_pieces.send(deflate(&job, level)).is_err() {
                        break;
                    }
                }
            });
            workers.push(jobs);
            pieces.push(piece);
        }
        let collector = std::thread::spawn(move || collect(output, level, &pieces));
        Self {
            block: Vec::with_capacity(GZIP_BLOCK),
            window: Vec::new(),
            workers,
            next: 0,
            collector: Some(collector),
        }
    }

    fn send(&mut self, is_last: bool) -> io::Result<()> {
        let tail = self.block.len().saturating_sub(GZIP_WINDOW);
        let window = self.block[tail..].to_owned();
        let job = Job {
            window: std::mem::replace(&mut self.window, window),
            block: std::mem::replace(&mut self.block, Vec::with_capacity(GZIP_BLOCK)),
            is_last,
        };
        let worker = self.next % self.workers.len();
        self.next += 1;
        match self.workers[worker].send(job) {
            Ok(()) => Ok(()),
            // The collector ended early, and knows why.
            Err(_) => self.join().and(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn join(&mut self) -> io::Result<W> {
        self.workers.clear();
        match self.collector.take() {
            Some(collector) => {
                collector.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn complete(mut self) -> io::Result<W> {
        self.send(true)?;
        self.join()
    }
}

impl<W: Write + Send + 'static> Write for Gzip<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.workers.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let length = buffer.len().min(GZIP_BLOCK - self.block.len());
        self.block.extend_from_slice(&buffer[..length]);
        if self.block.len() == GZIP_BLOCK {
            self.send(false)?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn deflate(job: &Job, level: u32) -> Piece {
    let mut crc = Crc::new();
    crc.update(&job.block);
    Piece { bytes: deflate_block(job, level), crc, is_last: job.is_last }
}

fn deflate_block(job: &Job, level: u32) -> io::Result<Vec<u8>> {
    let mut deflater = Compress::new(flate2::Compression::new(level), false);
    if !job.window.is_empty() {
        deflater.set_dictionary(&job.window)?;
    }
    // A block that does not compress grows by a few bytes in each 16 KiB.
    let mut bytes = Vec::with_capacity(job.block.len() + job.block.len() / 1000 + 1024);
    let flush = if job.is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let consumed = usize::try_from(deflater.total_in()).unwrap_or(usize::MAX);
        let status = deflater.compress_vec(&job.block[consumed..], &mut bytes, flush)?;
        // With room left, all that was pending has been written.
        if status == Status::StreamEnd || (!job.is_last && bytes.len() < bytes.capacity()) {
            return Ok(bytes);
        }
        bytes.reserve(1 << 16);
    }
}

fn collect<W: Write>(mut output: W, level: u32, pieces: &[Receiver<Piece>]) -> io::Result<W> {
    // No name and no time; the flags say what zlib says: 2 for the best compression, 4 for the
    // fastest. 255 is an unknown operating system (RFC 1952, 2.3).
    let extra = match level {
        9 => 2,
        1 => 4,
        _ => 0,
    };
    output.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, extra, 255])?;
    let mut crc = Crc::new();
    let mut size = 0_u32;
    for piece in pieces.iter().cycle() {
        // A writer that was dropped: the output is dropped as well.
        let piece = piece.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
        output.write_all(&piece.bytes?)?;
        size = size.wrapping_add(piece.crc.amount());
        crc.combine(&piece.crc);
        if piece.is_last {
            break;
        }
    }
    output.write_all(&crc.sum().to_le_bytes())?;
    output.write_all(&size.to_le_bytes())?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Text that compresses about as well as programs do, without a pattern as long as a block.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut bytes = Vec::with_capacity(length + 32);
        while bytes.len() < length {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.extend_from_slice(format!("line {} of {}\n", state >> 20, state >> 8).as_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    fn compress(data: &[u8], compression: Compression, threads: usize, chunk: usize) -> Vec<u8> {
        let mut compressor = Compressor::with_threads(Vec::new(), compression, threads).unwrap();
        for part in data.chunks(chunk) {
            compressor.write_all(part).unwrap();
        }
        compressor.complete().unwrap()
    }

    #[test]
    fn bytes_depend_neither_on_threads_nor_on_the_size_of_writes() {
        let data = sample(9 << 20);
        for compression in [Compression::Gzip(6), Compression::Gzip(1), Compression::Zstd(3), Compression::Zstd(9)] {
            let one = compress(&data, compression, 1, data.len());
            for (threads, chunk) in [(1, 512), (2, 10_240), (3, 1 << 16), (7, 3_000_000)] {
                let many = compress(&data, compression, threads, chunk);
                assert!(one == many, "{compression} on {threads} threads, {chunk} bytes a write");
            }
        }
    }

    #[test]
    fn every_length_is_read_back_by_one_member() {
        let data = sample((2 << 20) + 1);
        for length in [0, 1, GZIP_BLOCK - 1, GZIP_BLOCK, GZIP_BLOCK + 1, 2 << 20, data.len()] {
            let compressed = compress(&data[..length], Compression::Gzip(6), 2, 1 << 16);
            let mut read = Vec::new();
            // This decoder stops after the first member, and checks length and CRC.
            let mut decoder = flate2::bufread::GzDecoder::new(&compressed[..]);
            decoder.read_to_end(&mut read).unwrap();
            assert!(read == data[..length], "{length} bytes");
            assert!(decoder.into_inner().is_empty(), "{length} bytes: something follows the member");
        }
    }

    #[test]
    fn noise_and_zeros_are_read_back() {
        let mut noise = vec![0; 3 << 20];
        rustix::rand::getrandom(&mut noise[..1 << 20], rustix::rand::GetRandomFlags::empty()).unwrap();
        noise.copy_within(..1 << 20, 2 << 20);
        for level in 1..=9 {
            let compressed = compress(&noise, Compression::Gzip(level), 2, 1 << 16);
            let mut read = Vec::new();
            flate2::bufread::GzDecoder::new(&compressed[..]).read_to_end(&mut read).unwrap();
            assert!(read == noise, "level {level}");
        }
    }

    /// A new version of the deflate code may give other bytes, and so other digests: that has to be
    /// seen, and told in the changelog.
    #[test]
    fn the_bytes_are_those_of_the_last_release() {
        let digest = |compression| {
            crate::digest::Digest::of(&compress(&sample(3 << 20), compression, 2, 1 << 16)).to_string()
        };
        insta::assert_snapshot!(digest(Compression::Gzip(6)), @"sha256:7f148feb6b15dd4dc1627c98d7767c4bdba3f31bcc310e1e395181710d863dac");
        insta::assert_snapshot!(digest(Compression::Zstd(3)), @"");
    }

    #[test]
    fn a_full_disk_is_reported() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(buffer.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(buffer.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let data = sample(20 << 20);
        for compression in [Compression::Gzip(6), Compression::Zstd(3), Compression::None] {
            let mut compressor = Compressor::with_threads(Full(100_000), compression, 2).unwrap();
            let written = compressor.write_all(&data);
            let result = written.and_then(|()| compressor.complete().map(drop));
            assert_eq!(result.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        }
    }

    #[test]
    fn a_compression_is_read_as_it_is_written() {
        for compression in [Compression::Gzip(1), Compression::Gzip(9), Compression::Zstd(22), Compression::None] {
            assert_eq!(compression.to_string().parse(), Ok(compression));
        }
        assert_eq!("gzip".parse(), Ok(Compression::Gzip(6)));
        assert_eq!("zstd".parse(), Ok(Compression::Zstd(3)));
        for wrong in ["", "gz", "gzip:", "gzip:0", "gzip:10", "zstd:23", "zstd:-1", "none:1", "GZIP"] {
            assert_eq!(wrong.parse::<Compression>(), Err(InvalidCompression(wrong.to_owned())));
        }
    }
}
