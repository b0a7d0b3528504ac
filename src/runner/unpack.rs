//! Unpacks the archives of ADD, entry by entry, as `tar -x` does: what is there gives way, and only directories
//! are merged. The destination is the root for every name and every link, so nothing in an archive leads out.

use std::io::{self, Read, Write as _};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use rustix::fs::Timespec;
use tar::EntryType;

use super::files::{chown, make_fifo, other, remove_unless_directory, rooted, set_mode, set_time};

/// Where an archive is unpacked.
pub(super) struct Unpacker<'a> {
    /// A directory, with no link in its path.
    pub(super) into: &'a Path,
    /// In place of the owners that the archive names.
    pub(super) owner: Option<(u32, u32)>,
    /// Whether links that lead to an entry are replaced.
    pub(super) link: bool,
}

impl Unpacker<'_> {
    pub(super) fn all(&self, mut archive: tar::Archive<impl Read>) -> io::Result<()> {
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(self.owner.is_none());
        archive.set_unpack_xattrs(true);
        // What is put into a directory changes its time.
        let mut directories = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.into_owned();
            let placed = self.entry(&mut entry, &name);
            let placed = placed.map_err(|error| other(format!("`{}`: {error}", name.display())))?;
            if let (true, Some(to)) = (entry.header().entry_type().is_dir(), placed) {
                directories.push((to, entry.header().mtime()?));
            }
        }
        for (path, seconds) in directories {
            let time = Timespec {
                tv_sec: i64::try_from(seconds).unwrap_or(0),
                tv_nsec: 0,
            };
            set_time(&path, time)?;
        }
        Ok(())
    }

    /// Where the entry was put, if it is one that is put somewhere.
    fn entry(
        &self,
        entry: &mut tar::Entry<'_, impl Read>,
        name: &Path,
    ) -> io::Result<Option<PathBuf>> {
        let kind = entry.header().entry_type();
        let inside = self.inside(name);
        let (Some(parent), Some(last)) = (inside.parent(), inside.file_name()) else {
            // The destination itself, which keeps its mode and its owner.
            return Ok(None);
        };
        if kind.is_pax_global_extensions() {
            return Ok(None);
        }
        let to = self.parent(parent)?.join(last);
        match fs::symlink_metadata(&to) {
            Ok(there) if there.is_dir() && kind.is_dir() => {}
            Ok(there) if there.is_dir() => fs::remove_dir_all(&to)?,
            Ok(_) => fs::remove_file(&to)?,
            Err(_) => {}
        }
        match kind {
            EntryType::Link => self.hard_link(entry, &to)?,
            EntryType::Fifo => {
                make_fifo(&to)?;
                self.describe(entry, &to)?;
            }
            EntryType::Char | EntryType::Block => {
                return Err(other("devices cannot be unpacked".to_owned()));
            }
            _ => {
                entry.unpack(&to)?;
                if self.owner.is_some() {
                    self.describe(entry, &to)?;
                }
            }
        }
        Ok(Some(to))
    }

    /// A name inside the destination. One that leads out is told: it is put where it would lie if the destination
    /// were the root.
    fn inside(&self, name: &Path) -> PathBuf {
        let mut inside = PathBuf::new();
        let mut leads_out = false;
        for component in name.components() {
            match component {
                Component::Normal(part) => inside.push(part),
                Component::ParentDir => leads_out |= !inside.pop(),
                _ => {}
            }
        }
        if leads_out {
            let to = self.into.join(&inside);
            let (name, to) = (name.display(), to.display());
            // Nobody may be listening.
            let _ = writeln!(
                io::stderr(),
                "`{name}` leads out of the destination: it becomes `{to}`"
            );
        }
        inside
    }

    /// The directory of an entry, made if the archive does not name it.
    fn parent(&self, path: &Path) -> io::Result<PathBuf> {
        let mut found = self.into.to_owned();
        for (index, name) in path.iter().enumerate() {
            let is_there = |path: &Path| fs::metadata(path).ok().map(|there| there.is_dir());
            let here = found.join(name);
            if self.link {
                remove_unless_directory(&here)?;
            }
            let upto: PathBuf = path.iter().take(index + 1).collect();
            found = rooted(self.into, &upto)?;
            match is_there(&found) {
                Some(true) => {}
                Some(false) => {
                    return Err(other(format!("`{}` is not a directory", here.display())));
                }
                None if fs::symlink_metadata(&here).is_ok() => {
                    let reason = "is a link that leads nowhere in the destination";
                    return Err(other(format!("`{}` {reason}", here.display())));
                }
                None => {
                    fs::create_dir(&found)?;
                    set_mode(&found, 0o755)?;
                }
            }
        }
        Ok(found)
    }

    fn hard_link(&self, entry: &tar::Entry<'_, impl Read>, to: &Path) -> io::Result<()> {
        let target = entry.link_name()?.unwrap_or_default().into_owned();
        let target = self.inside(&target);
        let parent = rooted(self.into, target.parent().unwrap_or(Path::new("")))?;
        fs::hard_link(parent.join(target.file_name().unwrap_or_default()), to)?;
        // The later name's owner and mode count, as with Docker.
        self.describe(entry, to)
    }

    /// Owner before mode, since a change of owner clears bits of it.
    fn describe(&self, entry: &tar::Entry<'_, impl Read>, to: &Path) -> io::Result<()> {
        let header = entry.header();
        let id = |number: u64| u32::try_from(number).map_err(io::Error::other);
        let owner = match self.owner {
            Some(owner) => owner,
            None => (id(header.uid()?)?, id(header.gid()?)?),
        };
        chown(to, owner)?;
        if fs::symlink_metadata(to)?.is_symlink() {
            return Ok(());
        }
        set_mode(to, header.mode()? & 0o7777)
    }
}

/// What is read out of a file that is an archive of tar, plain or compressed with gzip, bzip2, xz or zstd;
/// nothing if it is none. A compressed file without an archive in it is no archive.
pub(super) fn archive(path: &Path) -> io::Result<Option<tar::Archive<impl Read>>> {
    let mut file = fs::File::open(path)?;
    let mut start = [0; 6];
    let mut length = 0;
    while length < start.len() {
        match file.read(&mut start[length..])? {
            0 => break,
            count => length += count,
        }
    }
    io::Seek::rewind(&mut file)?;
    let mut reader: Box<dyn Read> = match &start[..length] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(file)?),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::read::MultiBzDecoder::new(file)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(lzma_rust2::XzReader::new(file, true)),
        _ => Box::new(file),
    };
    // A header of tar is one block. The oldest kind has no mark, but every kind has the sum of its bytes.
    let mut block = Vec::new();
    let is_whole = (&mut reader)
        .take(512)
        .read_to_end(&mut block)
        .is_ok_and(|count| count == 512);
    Ok((is_whole && is_header(&block))
        .then(|| tar::Archive::new(io::Cursor::new(block).chain(reader))))
}

/// Whether the sum of a header's bytes is the one that it tells. It counts its own digits as blanks.
fn is_header(block: &[u8]) -> bool {
    let told = String::from_utf8_lossy(&block[148..156]);
    let told = u32::from_str_radix(told.trim_matches(['\0', ' ']), 8);
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    told == Ok(sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]))
}
