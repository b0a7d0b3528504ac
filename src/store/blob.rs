//! Writing and reading one blob, verified.

use std::io::{self, BufReader, Read, Write};

use fs_err as fs;

use super::{Error, Result, Store};
use crate::digest::{Digest, Hashing};
use crate::manifest::Descriptor;

/// Writes one blob; dropped without [`complete`](Self::complete) it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    pub(super) store: Store,
    pub(super) file: Hashing<tempfile::NamedTempFile>,
}

impl BlobWriter {
    /// Makes the blob visible under its digest.
    pub fn complete(self, media_type: &str) -> Result<Descriptor> {
        let (file, digest, size) = self.file.complete();
        file.persist(self.store.blob_path(&digest))
            .map_err(|error| error.error)?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    /// Makes the blob visible if it is the one that `expected` describes.
    pub fn complete_as(self, expected: &Descriptor) -> Result<()> {
        let (file, digest, size) = self.file.complete();
        verify(expected, digest, size)?;
        file.persist(self.store.blob_path(&digest))
            .map_err(|error| error.error)?;
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads one blob; at its end, bytes that are not the promised ones are an error.
#[derive(Debug)]
pub struct BlobReader {
    inner: Option<Hashing<BufReader<fs::File>>>,
    expected: Descriptor,
}

impl BlobReader {
    pub(super) fn new(file: fs::File, expected: Descriptor) -> Self {
        let inner = Hashing::new(BufReader::with_capacity(1 << 17, file));
        Self {
            inner: Some(inner),
            expected,
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else {
            return Ok(0);
        };
        let length = inner.read(buffer)?;
        if length == 0
            && !buffer.is_empty()
            && let Some(inner) = self.inner.take()
        {
            let (_, digest, size) = inner.complete();
            verify(&self.expected, digest, size).map_err(io::Error::other)?;
        }
        Ok(length)
    }
}

fn verify(expected: &Descriptor, digest: Digest, size: u64) -> Result<()> {
    if size != expected.size {
        return Err(Error::Size {
            digest: expected.digest,
            expected: expected.size,
            found: size,
        });
    }
    if digest != expected.digest {
        return Err(Error::Damaged {
            expected: expected.digest,
            found: digest,
        });
    }
    Ok(())
}
