//! gzip on all cores: one member (RFC 1952) out of blocks that are deflated side by side.
//!
//! The input is cut into blocks of fixed size. Each is deflated on its own, with the end of the block
//! before it as its dictionary, and ends on a byte boundary (a sync flush), so that the pieces joined
//! in order are one stream, as pigz writes it. Nothing in it depends on the number of threads.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::{Compress, Crc, FlushCompress, Status};

/// Changing it changes the bytes, and so the digest, of every gzip layer.
pub(super) const GZIP_BLOCK: usize = 1 << 20;
/// Deflate's window: what a dictionary can be at most.
const GZIP_WINDOW: usize = 1 << 15;

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
    pub(super) fn new(output: W, level: u32, threads: usize) -> Self {
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
            Some(collector) => collector
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(super) fn complete(mut self) -> io::Result<W> {
        self.send(true)?;
        self.join()
    }
}

/// The output is dropped with it, and not some time later: the process may be about to end.
impl<W> Drop for Gzip<W> {
    fn drop(&mut self) {
        self.workers.clear();
        if let Some(collector) = self.collector.take() {
            let _ = collector.join();
        }
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
    Piece {
        bytes: deflate_block(job, level),
        crc,
        is_last: job.is_last,
    }
}

fn deflate_block(job: &Job, level: u32) -> io::Result<Vec<u8>> {
    let mut deflater = Compress::new(flate2::Compression::new(level), false);
    if !job.window.is_empty() {
        deflater.set_dictionary(&job.window)?;
    }
    // A block that does not compress grows by a few bytes in each 16 KiB.
    let mut bytes = Vec::with_capacity(job.block.len() + job.block.len() / 1000 + 1024);
    let flush = if job.is_last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
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
    use std::sync::Arc;

    use super::*;

    struct Output(#[expect(dead_code, reason = "it is counted")] Arc<()>);

    impl Write for Output {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            std::thread::sleep(std::time::Duration::from_millis(20));
            Ok(buffer.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_output_does_not_outlive_it() {
        let count = Arc::new(());
        drop(Gzip::new(Output(count.clone()), 6, 2));
        assert_eq!(Arc::strong_count(&count), 1);
    }
}
