//! Uncompressed bytes in, a stored blob out; on all cores, and with the same bytes on any number.
//!
//! zstd has that built in; for gzip see [`Gzip`].

use std::fmt;
use std::io::{self, Write};
use std::num::NonZero;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zstd::stream::raw::CParameter;

use crate::layer::gzip::Gzip;
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
#[error(
    "`{0}` is not a compression: write `gzip`, `zstd` or `none`, with a level such as `gzip:9` (1 to 9) or `zstd:19` (1 to 22)"
)]
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
        Self::Gzip(4)
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::layer::gzip::GZIP_BLOCK;

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
        for compression in [
            Compression::Gzip(6),
            Compression::Gzip(1),
            Compression::Zstd(3),
            Compression::Zstd(9),
        ] {
            let one = compress(&data, compression, 1, data.len());
            for (threads, chunk) in [(1, 512), (2, 10_240), (3, 1 << 16), (7, 3_000_000)] {
                let many = compress(&data, compression, threads, chunk);
                assert!(
                    one == many,
                    "{compression} on {threads} threads, {chunk} bytes a write"
                );
            }
        }
    }

    #[test]
    fn every_length_is_read_back() {
        let data = sample((2 << 20) + 1);
        for length in [
            0,
            1,
            GZIP_BLOCK - 1,
            GZIP_BLOCK,
            GZIP_BLOCK + 1,
            2 << 20,
            data.len(),
        ] {
            let compressed = compress(&data[..length], Compression::Gzip(6), 2, 1 << 16);
            let mut read = Vec::new();
            // Of each member, it checks length and CRC.
            flate2::bufread::MultiGzDecoder::new(&compressed[..])
                .read_to_end(&mut read)
                .unwrap();
            assert!(read == data[..length], "{length} bytes");
        }
    }

    #[test]
    fn noise_and_zeros_are_read_back() {
        let mut noise = vec![0; 3 << 20];
        rustix::rand::getrandom(&mut noise[..1 << 20], rustix::rand::GetRandomFlags::empty())
            .unwrap();
        noise.copy_within(..1 << 20, 2 << 20);
        for level in 1..=9 {
            let compressed = compress(&noise, Compression::Gzip(level), 2, 1 << 16);
            let mut read = Vec::new();
            flate2::bufread::MultiGzDecoder::new(&compressed[..])
                .read_to_end(&mut read)
                .unwrap();
            assert!(read == noise, "level {level}");
        }
    }

    /// A new version of the deflate code may give other bytes, and so other digests: that has to be
    /// seen, and told in the changelog.
    #[test]
    fn the_bytes_are_those_of_the_last_release() {
        let digest = |compression| {
            crate::digest::Digest::of(&compress(&sample(3 << 20), compression, 2, 1 << 16))
                .to_string()
        };
        insta::assert_snapshot!(digest(Compression::Gzip(6)), @"sha256:c085e38a8874fc7bb1507d4fc2308f7a30c43679081b2c7394b06f1c1c6e2df8");
        insta::assert_snapshot!(digest(Compression::Zstd(3)), @"sha256:c0e9e463a886e8ec68948b3ad6e78722452caac169294026de9cfcb7374ebdfa");
    }

    #[test]
    fn a_full_disk_is_reported() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                self.0 = self
                    .0
                    .checked_sub(buffer.len())
                    .ok_or(io::ErrorKind::StorageFull)?;
                Ok(buffer.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let data = sample(20 << 20);
        for compression in [
            Compression::Gzip(6),
            Compression::Zstd(3),
            Compression::None,
        ] {
            let mut compressor = Compressor::with_threads(Full(100_000), compression, 2).unwrap();
            let written = compressor.write_all(&data);
            let result = written.and_then(|()| compressor.complete().map(drop));
            assert_eq!(
                result.map_err(|error| error.kind()),
                Err(io::ErrorKind::StorageFull)
            );
        }
    }

    #[test]
    fn a_compression_is_read_as_it_is_written() {
        for compression in [
            Compression::Gzip(1),
            Compression::Gzip(9),
            Compression::Zstd(22),
            Compression::None,
        ] {
            assert_eq!(compression.to_string().parse(), Ok(compression));
        }
        assert_eq!("gzip".parse(), Ok(Compression::default()));
        assert_eq!("zstd".parse(), Ok(Compression::Zstd(3)));
        for wrong in [
            "", "gz", "gzip:", "gzip:0", "gzip:10", "zstd:23", "zstd:-1", "none:1", "GZIP",
        ] {
            assert_eq!(
                wrong.parse::<Compression>(),
                Err(InvalidCompression(wrong.to_owned()))
            );
        }
    }
}
