//! A stored layer as a stream of its uncompressed bytes, verified.
//!
//! What the blob is compressed with is read from its first bytes: media types lie more often than
//! those do, and all of OCI's and Docker's mean one of the three.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::digest::{DiffId, Digest, Hashing};
use crate::layer::Error;
use crate::layer::malformed::Malformed;
use crate::manifest::Layer;

/// Bytes that pass between the threads at once; a few of them are all that is held in memory.
const CHUNK: usize = 1 << 18;
const CHUNKS: usize = 4;

/// Frames of zstd that need a larger window than 2^27 bytes are refused, as zstd itself does.
const MAX_WINDOW: u32 = 27;

/// Gives the uncompressed bytes of a layer to `apply`. A blob that is damaged is reported as that,
/// whatever `apply` made of it.
pub(super) fn read_layer(
    blob: impl Read + Send,
    layer: &Layer,
    apply: impl FnOnce(&mut Chunks) -> Result<(), Error>,
) -> Result<(), Error> {
    let (applied, read) = std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(CHUNKS);
        let reader = scope.spawn(move || read(blob, sender));
        let mut chunks = Chunks {
            receiver,
            current: Vec::new(),
            at: 0,
        };
        let applied = apply(&mut chunks);
        drop(chunks);
        let read = reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (applied, read)
    });
    let Verified {
        digest: found,
        size,
        diff_id,
    } = read?;
    let expected = &layer.descriptor;
    if size != expected.size {
        return Err(Error::Size {
            digest: expected.digest,
            expected: expected.size,
            found: size,
        });
    }
    if found != expected.digest {
        return Err(Error::Damaged {
            expected: expected.digest,
            found,
        });
    }
    applied?;
    match diff_id {
        Ok(Some(found)) if found == layer.diff_id => Ok(()),
        Ok(Some(found)) => Err(Error::DiffId {
            digest: expected.digest,
            expected: layer.diff_id,
            found,
        }),
        Ok(None) => Err(Error::Malformed {
            digest: expected.digest,
            source: Malformed::Truncated,
        }),
        Err(source) => Err(Error::Malformed {
            digest: expected.digest,
            source: Malformed::Stream(source),
        }),
    }
}

struct Verified {
    digest: Digest,
    size: u64,
    /// `None` if not all was asked for.
    diff_id: io::Result<Option<DiffId>>,
}

fn read(
    blob: impl Read + Send,
    sender: SyncSender<io::Result<Vec<u8>>>,
) -> Result<Verified, Error> {
    let mut blob = BufReader::with_capacity(CHUNK, Hashing::new(blob));
    let diff_id = decompress(&mut blob, &sender);
    if let Err(error) = &diff_id {
        // The receiver may be gone, and then knows a reason of its own.
        sender
            .send(Err(io::Error::new(error.kind(), error.to_string())))
            .ok();
    }
    drop(sender);
    io::copy(&mut blob, &mut io::sink())?;
    let (_, digest, size) = blob.into_inner().complete();
    Ok(Verified {
        digest,
        size,
        diff_id,
    })
}

fn decompress(
    blob: &mut (impl BufRead + Send),
    sender: &SyncSender<io::Result<Vec<u8>>>,
) -> io::Result<Option<DiffId>> {
    let magic = blob.fill_buf()?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        send(flate2::bufread::MultiGzDecoder::new(blob), sender)
    } else if is_zstd(magic) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
        decoder.window_log_max(MAX_WINDOW)?;
        send(decoder, sender)
    } else {
        send(blob, sender)
    }
}

/// A frame, or one that decoders skip (RFC 8878, 3.1).
fn is_zstd(magic: &[u8]) -> bool {
    magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (magic.len() >= 4 && magic[0] & 0xf0 == 0x50 && magic[1..4] == [0x2a, 0x4d, 0x18])
}

fn send(
    mut input: impl Read,
    sender: &SyncSender<io::Result<Vec<u8>>>,
) -> io::Result<Option<DiffId>> {
    let mut hashing = Hashing::new(io::sink());
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        input.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            let (_, digest, _) = hashing.complete();
            return Ok(Some(DiffId(digest)));
        }
        hashing.write_all(&chunk)?;
        if sender.send(Ok(chunk)).is_err() {
            return Ok(None);
        }
    }
}

/// The receiving end of a layer's stream.
pub(super) struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len() - self.at);
        buffer[..length].copy_from_slice(&self.current[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
