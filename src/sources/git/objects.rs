//! Where objects are read from: a repository of this machine, or a pack that a server sent.
//!
//! Nothing is checked out by libgit2, no configuration is obeyed, and the user's own is not looked at but
//! for `safe.directory`.

use std::io::{self, Read, Write};
use std::path::Path;

use fs_err as fs;
use git2::{Commit, ErrorCode, Indexer, ObjectType, Odb, Oid, Repository};
use tempfile::TempDir;

use super::Problem;
use super::error::{too_large, unreadable};
use super::packet::Pack;
use super::packs;
use super::refs::Refs;
use crate::error::Error;
use crate::progress::Progress;
use crate::sources::Fetch;
use crate::sources::error::source;

/// What the indexer gets at a time. It reserves the last page of what it is given and then writes through a
/// mapping: with more than a page, a full disk would be a signal and not an error.
const PIECE: usize = 4096;

/// Larger files are written piece by piece.
pub(super) const LARGE: usize = 8 << 20;

/// Bytes of a file that is stored as a delta, which is put together in memory. git itself stores larger files as a whole
/// (`core.bigFileThreshold`).
const LARGEST_DELTA: usize = 512 << 20;

/// Objects, and where they lie as long as the value lives.
pub(super) struct Objects {
    repository: Repository,
    directory: Option<TempDir>,
}

impl Objects {
    /// Those of the repository at `path`; also its names.
    pub(super) fn open(path: &Path) -> Result<(Self, Refs), Error> {
        let shown = path.display();
        let repository = Repository::open(path).map_err(|error| match error.code() {
            ErrorCode::NotFound => source(format!("`{shown}` is not a git repository"))
                .with_hint("local paths are relative to the current directory"),
            ErrorCode::Owner => source(format!("`{shown}` belongs to another user")).with_hint(
                format!("if you trust it: git config --global --add safe.directory '{shown}'"),
            ),
            _ => error.into(),
        })?;
        let refs = names(&repository)?;
        let objects = Self {
            repository,
            directory: None,
        };
        Ok((objects, refs))
    }

    /// Those of `pack`, which are kept in a new folder of `parent`.
    pub(super) fn store<R: Read>(
        mut pack: Pack<R>,
        parent: &Path,
        fetch: Fetch<'_>,
    ) -> Result<Self, Problem> {
        let directory = tempfile::Builder::new()
            .prefix("objects-")
            .tempdir_in(parent)?;
        let folder = directory.path().join("pack");
        fs::create_dir(&folder)?;
        let mut indexer = Indexer::new(None, &folder, 0o600, false)?;
        let progress = fetch.progress.clone();
        indexer.progress(move |_| progress.check().is_ok());
        let mut received = 0;
        while let Some(bytes) = pack.next()? {
            fetch.progress.check()?;
            for piece in bytes.chunks(PIECE) {
                indexer.write_all(piece).map_err(rejected)?;
            }
            received += bytes.len() as u64;
            fetch.part.advance(received);
        }
        indexer.commit()?;
        let objects = Odb::new()?;
        let path = directory.path().to_str();
        let path = path.ok_or_else(|| unreadable("its folder has no plain name"))?;
        objects.add_disk_alternate(path)?;
        Ok(Self {
            repository: Repository::from_odb(objects)?,
            directory: Some(directory),
        })
    }

    /// The repository that they are in.
    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Writes the content of the file `id`, which has `size` bytes.
    pub(super) fn write(
        &self,
        id: Oid,
        size: usize,
        to: &mut impl Write,
        progress: &Progress,
    ) -> Result<(), Error> {
        let objects = self.repository.odb()?;
        if size > LARGE {
            let packs = match &self.directory {
                Some(directory) => directory.path().join("pack"),
                None => self.repository.commondir().join("objects/pack"),
            };
            if let Ok((mut loose, ..)) = objects.reader(id) {
                return copy(&mut loose, size, to, progress);
            }
            if let Some(mut packed) = packs::blob(&packs, id, size as u64)? {
                return copy(&mut packed, size, to, progress);
            }
        }
        if size > LARGEST_DELTA {
            return Err(too_large(
                "a file of more than 512 MiB is stored as a difference to another one",
            ));
        }
        Ok(to.write_all(objects.read(id)?.data())?)
    }

    /// The commit `id`, or the one that the tag `id` is for; `None` if it is not there.
    pub(super) fn commit(&self, id: Oid) -> Result<Option<Commit<'_>>, Error> {
        let object = match self.repository.find_object(id, None) {
            Ok(object) => object,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let not_commit = || source(format!("`{id}` is not a commit"));
        let object = object.peel(ObjectType::Commit).map_err(|_| not_commit())?;
        object.into_commit().map(Some).map_err(|_| not_commit())
    }

    /// The ancestor that `steps`, such as `~1`, lead to from a commit; `None` if there is none.
    pub(super) fn ancestor(
        &self,
        commit: &Commit<'_>,
        steps: &str,
    ) -> Result<Option<Commit<'_>>, Error> {
        let name = format!("{}{steps}", commit.id());
        match self.repository.revparse_single(&name) {
            Ok(found) => self.commit(found.id()),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The commit whose id begins with `start`; `None` if there is none.
    pub(super) fn abbreviated(&self, start: &str) -> Result<Option<Commit<'_>>, Error> {
        let objects = self.repository.odb()?;
        let mut found = Vec::new();
        objects.foreach(|id| {
            if id.to_string().starts_with(start) {
                found.push(*id);
            }
            true
        })?;
        found.sort_unstable();
        found.dedup();
        let mut commits = found
            .into_iter()
            .filter_map(|id| self.repository.find_commit(id).ok());
        match (commits.next(), commits.next()) {
            (_, Some(_)) => {
                let error = source(format!("more than one commit begins with `{start}`"));
                Err(error.with_hint("write more of the id in `commit_id`"))
            }
            (commit, None) => Ok(commit),
        }
    }
}

/// Copies what has to have `size` bytes.
fn copy(
    from: &mut impl Read,
    size: usize,
    to: &mut impl Write,
    progress: &Progress,
) -> Result<(), Error> {
    let mut left = size as u64;
    while left > 0 {
        progress.check()?;
        match io::copy(&mut from.by_ref().take(left.min(LARGE as u64)), to)? {
            0 => return Err(unreadable("a file is shorter than it says")),
            copied => left -= copied,
        }
    }
    Ok(())
}

fn names(repository: &Repository) -> Result<Refs, Error> {
    let mut refs = Refs::default();
    for reference in repository.references()? {
        let reference = reference?;
        // What leads nowhere has no name in a clone either.
        if let (Ok(name), Ok(resolved)) = (reference.name(), reference.resolve())
            && let Some(id) = resolved.target()
        {
            refs.insert(name, id);
            if let Ok(object) = resolved.peel(ObjectType::Any)
                && object.id() != id
            {
                refs.peel(name, object.id());
            }
        }
    }
    let head = repository.find_reference("HEAD")?;
    if let Ok(Some(branch)) = head.symbolic_target() {
        refs.set_default(branch);
    }
    if let Ok(resolved) = head.resolve()
        && let Some(id) = resolved.target()
    {
        refs.insert("HEAD", id);
    }
    Ok(refs)
}

fn rejected(error: std::io::Error) -> Error {
    match error.downcast::<git2::Error>() {
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}
