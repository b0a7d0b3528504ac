//! gzip on all cores: members (RFC 1952) that are made side by side.
//!
//! The input is cut into blocks of fixed size, and each becomes a member of its own; a gzip file is members one after the
//! other. Nothing in it depends on the number of threads. libdeflate takes about half as long as zlib for the same size, and
//! wants whole blocks.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor};

/// Changing it changes the bytes, and so the digest, of every gzip layer.
pub(super) const GZIP_BLOCK: usize = 1 << 20;

/// Block `i` goes to worker `i % n`, and the collector asks the workers in the same order: no
/// numbering and no reordering.
pub(super) struct Gzip<W> {
    block: Vec<u8>,
    workers: Vec<SyncSender<Vec<u8>>>,
    next: usize,
    collector: Option<JoinHandle<io::Result<(W, usize)>>>,
}

impl<W: Write + Send + 'static> Gzip<W> {
    pub(super) fn new(output: W, level: u32, threads: usize) -> Self {
        let mut workers = Vec::new();
        let mut members = Vec::new();
        for _ in 0..threads.max(1) {
            let (blocks, worker_blocks) = sync_channel::<Vec<u8>>(1);
            let (worker_members, member) = sync_channel(1);
            std::thread::spawn(move || {
                let mut deflater = Compressor::new(libdeflate_level(level));
                for block in worker_blocks {
                    if worker_members
                        .send(compress(&mut deflater, &block))
                        .is_err()
                    {
                        break;
                    }
                }
            });
            workers.push(blocks);
            members.push(member);
        }
        let collector = std::thread::spawn(move || collect(output, &members));
        Self {
            block: Vec::with_capacity(GZIP_BLOCK),
            workers,
            next: 0,
            collector: Some(collector),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(GZIP_BLOCK));
        let worker = self.next % self.workers.len();
        self.next += 1;
        match self.workers[worker].send(block) {
            Ok(()) => Ok(()),
            // The collector ended early, and knows why.
            Err(_) => self.join().and(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn join(&mut self) -> io::Result<W> {
        self.workers.clear();
        let collector = self.collector.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let joined = collector.join();
        let (output, members) = joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if members == self.next {
            Ok(output)
        } else {
            Err(io::Error::other("a worker ended early"))
        }
    }

    pub(super) fn complete(mut self) -> io::Result<W> {
        // Nothing is a member, too.
        if self.next == 0 || !self.block.is_empty() {
            self.send()?;
        }
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
            self.send()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Its levels mean about what zlib's mean.
fn libdeflate_level(level: u32) -> CompressionLvl {
    let level = i32::try_from(level).ok();
    level
        .and_then(|level| CompressionLvl::new(level).ok())
        .unwrap_or_default()
}

/// The header has no name and no time.
fn compress(deflater: &mut Compressor, block: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = vec![0; deflater.gzip_compress_bound(block.len())];
    let length = deflater
        .gzip_compress(block, &mut member)
        .map_err(io::Error::other)?;
    member.truncate(length);
    Ok(member)
}

/// Writes the members in order, until a worker has no more: the others have none either. Counts them.
fn collect<W: Write>(
    mut output: W,
    members: &[Receiver<io::Result<Vec<u8>>>],
) -> io::Result<(W, usize)> {
    let mut count = 0;
    for member in members.iter().cycle() {
        let Ok(member) = member.recv() else { break };
        output.write_all(&member?)?;
        count += 1;
    }
    Ok((output, count))
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
