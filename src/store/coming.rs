//! A blob that is read while it is being fetched, by another process too.

use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;

use super::scratch::{incoming, temporary};
use super::{Result, Store};
use crate::digest::Digest;

/// Between two looks at whether there is more.
const TICK: Duration = Duration::from_millis(5);

/// Reads a blob that is there, or comes. Nothing is verified: the bytes are those that were received, and if those were
/// thrown away and fetched again there may be some of both.
#[derive(Debug)]
pub struct ComingBlob {
    blob: PathBuf,
    folder: PathBuf,
    digest: Digest,
    pending: PathBuf,
    file: Option<fs::File>,
    at: u64,
    is_whole: bool,
}

/// Says that blobs may come, for as long as it lives.
#[derive(Debug)]
pub struct Pending {
    file: tempfile::NamedTempFile,
}

impl Pending {
    /// A file that is there as long.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Store {
    /// Says that blobs may come.
    pub fn pending(&self) -> Result<Pending> {
        let file = temporary(&self.scratch_root())?;
        Ok(Pending { file })
    }

    /// Opens a blob that may be on its way; what does not come is waited for as long as there is a file `pending`.
    #[must_use]
    pub fn open_coming(&self, digest: &Digest, pending: &Path) -> ComingBlob {
        ComingBlob {
            blob: self.blob_path(digest),
            folder: self.scratch_root(),
            digest: *digest,
            pending: pending.to_owned(),
            file: None,
            at: 0,
            is_whole: false,
        }
    }
}

impl ComingBlob {
    /// Looks for the file anew: it may have been moved to its place, or begun again.
    fn find(&mut self) -> io::Result<()> {
        // Asked first: what comes right before its end is there.
        let is_pending = self.pending.exists();
        match fs::File::open(&self.blob) {
            Ok(file) => {
                self.file = Some(file);
                self.is_whole = true;
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound || !is_pending => {
                return Err(error);
            }
            Err(_) => self.file = incoming(&self.folder, &self.digest)?,
        }
        Ok(())
    }
}

impl Read for ComingBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &self.file {
                let length = file.file().read_at(buffer, self.at)?;
                self.at += length as u64;
                if length > 0 || self.is_whole {
                    return Ok(length);
                }
            }
            self.find()?;
            if !self.is_whole {
                std::thread::sleep(TICK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::manifest::Descriptor;

    const TEXT: &[u8] = b"a blob that comes in pieces";

    fn read(blob: ComingBlob) -> std::thread::JoinHandle<io::Result<Vec<u8>>> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            { blob }.read_to_end(&mut bytes).map(|_| bytes)
        })
    }

    #[test]
    fn a_blob_is_read_as_it_comes_even_if_it_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let blob = Descriptor::new("text/plain", Digest::of(TEXT), TEXT.len() as u64);
        let pending = store.pending().unwrap();
        let mut coming = store.open_coming(&blob.digest, pending.path());
        let mut given_up = store.writer_of(&blob.digest).unwrap();
        given_up.write_all(&TEXT[..9]).unwrap();
        let mut begin = [0; 20];
        assert_eq!(coming.read(&mut begin).unwrap(), 9);
        assert_eq!(begin[..9], TEXT[..9]);
        let rest = read(coming);
        drop(given_up);
        let mut writer = store.writer_of(&blob.digest).unwrap();
        for piece in TEXT.chunks(5) {
            writer.write_all(piece).unwrap();
            std::thread::sleep(2 * TICK);
        }
        writer.complete_as(&blob).unwrap();
        drop(pending);
        assert_eq!(rest.join().unwrap().unwrap(), TEXT[9..]);
    }

    #[test]
    fn what_does_not_come_is_not_waited_for_forever() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let pending = store.pending().unwrap();
        let coming = read(store.open_coming(&Digest::of(TEXT), pending.path()));
        std::thread::sleep(2 * TICK);
        assert!(!coming.is_finished());
        drop(pending);
        let error = coming.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
