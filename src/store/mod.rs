//! The content-addressed store: one folder that *is* an OCI image layout, with unpacked root file
//! systems and scratch space beside it.
//!
//! ```text
//! STORE/              mode 0700, as all folders below: trees, scratch and caches are for nobody else
//!   oci-layout, index.json, blobs/sha256/…    images, bases and layers (image-spec `image-layout.md`)
//!   resolved/…        which digest a tag had, and when the registry said so
//!   rootfs/…          unpacked bases, named by chainID, and unpacked layers upon them, named by diffID
//!   seen/…            which repositories of registries have a blob
//!   steps/…           what steps made, and facts about images, by the key of all that counts
//!   sources/…         files and repositories that were fetched, named by where they came from
//!   caches/…          what steps keep for later ones, see `Store::make_cache`
//!   turns/…           held while a step is run, one file a step
//!   tmp/…             scratch, one folder a running build, each with a locked file in it
//!   usage             held while something is used, or removed
//!   lock              held while index.json is replaced
//! ```
//!
//! A blob is written to a temporary file, verified, and renamed: nothing half-written is ever visible
//! under its digest. Reads verify too, so a blob damaged on disk is an error and not a wrong image.

mod blob;
mod coming;
mod folders;
mod places;
mod scratch;
mod turn;
mod usage;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, DiffId, Digest, Hashing};
use crate::manifest::{Descriptor, Index, Platform, REF_NAME};

pub use blob::{BlobReader, BlobWriter};
pub use coming::{ComingBlob, Pending};
pub use scratch::{Scratch, abandoned};
pub use turn::Turn;
pub use usage::Session;

pub(crate) use folders::{close as close_folder, make as make_folder};
pub(crate) use scratch::{flock, open_lock};

use crate::error::Kind;
use scratch::{temporary, temporary_of};

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system's own words, with the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Stored bytes are not those that their name promises.
    #[error("blob `{expected}` holds other bytes: `{found}`")]
    Damaged {
        /// The digest asked for.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },
    /// Stored or received bytes are not as many as the descriptor says.
    #[error("blob `{digest}` has {found} bytes instead of {expected}")]
    Size {
        /// The digest asked for.
        digest: Digest,
        /// Bytes promised.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// The store is another user's: files of ours in it would lock that user out.
    #[error("the store `{path}` belongs to the user {owner}, and not to {user}")]
    Foreign {
        /// The store's folder.
        path: String,
        /// Whose it is.
        owner: u32,
        /// Who runs the tool.
        user: u32,
    },
    /// Other users of the machine could use what lies in the store.
    #[error("other users can enter the folder `{path}`, and {reason}")]
    Exposed {
        /// The store's folder.
        path: String,
        /// Why it is not closed.
        reason: &'static str,
    },
    /// A document of the store that is not what it should be.
    #[error("`{path}` is not readable as JSON")]
    Json {
        /// The file, or the digest of a blob.
        path: String,
        /// What the parser says.
        source: serde_json::Error,
    },
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        Self::from_enum(Kind::Storage, error.hint(), error)
    }
}

impl Error {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                Some("make room, or choose another place with `--store DIR`".to_owned())
            }
            Self::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Some("choose a place that you may write to with `--store DIR`".to_owned())
            }
            Self::Foreign { .. } => Some(
                "choose another place with `--store DIR`, or run as that user; `sudo` keeps `HOME` on some systems"
                    .to_owned(),
            ),
            Self::Exposed { path, .. } => Some(format!(
                "choose a new folder with `--store DIR`, or close this one: `chmod 700 {path}`"
            )),
            Self::Json { path, .. } => Some(format!("remove `{path}` if it is damaged")),
            Self::Damaged { .. } | Self::Size { .. } => {
                Some("remove the store and build again: its disk may be faulty".to_owned())
            }
            _ => None,
        }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// Documents (manifests, configs, indexes) larger than this are refused; registries use the same limit.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Tells a layer that was unpacked by itself from a whole tree.
const UPPER_PREFIX: &str = "layer-";

/// An open store. Cheap to clone; several processes may have the same one open.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Which digest a tag had.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resolved {
    /// The reference that was asked for.
    pub reference: String,
    /// The platform that was asked for.
    pub platform: Platform,
    /// The manifest that it named.
    pub manifest: Descriptor,
    /// When the registry said so, in seconds since 1970.
    pub at: u64,
}

impl Resolved {
    /// How long ago the registry said so; zero if the clock was set back.
    #[must_use]
    pub fn age(&self) -> Duration {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(self.at);
        SystemTime::now().duration_since(then).unwrap_or_default()
    }
}

impl Store {
    /// Opens the store at `root`, and makes it if it is not there.
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root)?;
        folders::prepare(&root)?;
        // Whoever may change a link on the way cannot lead this build elsewhere any more.
        let root = fs::canonicalize(root)?;
        let store = Self { root };
        let marker = store.root.join("oci-layout");
        if !marker.exists() {
            store.replace(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        let index = store.root.join("index.json");
        if !index.exists() {
            let _lock = store.lock()?;
            if !index.exists() {
                store.replace(&index, &json(&Index::empty()))?;
            }
        }
        Ok(store)
    }

    /// The store's folder, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the blob is, or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_path().join(digest.hex())
    }

    /// Where the blobs are.
    #[must_use]
    pub fn blobs_path(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Whether the blob is there with the size that its descriptor says; if so, it will be used.
    #[must_use]
    pub fn has(&self, descriptor: &Descriptor) -> bool {
        let path = self.blob_path(&descriptor.digest);
        let is_right =
            |metadata: std::fs::Metadata| metadata.is_file() && metadata.len() == descriptor.size;
        fs::metadata(&path).is_ok_and(is_right) && self.uses(&path)
    }

    /// A writer for a blob whose digest is not known yet.
    pub fn writer(&self) -> Result<BlobWriter> {
        Ok(BlobWriter {
            store: self.clone(),
            file: Hashing::new(temporary(&self.scratch_root())?),
        })
    }

    /// A writer for a blob that others may read as it comes, see [`Store::open_coming`].
    pub fn writer_of(&self, digest: &Digest) -> Result<BlobWriter> {
        Ok(BlobWriter {
            store: self.clone(),
            file: Hashing::new(temporary_of(&self.scratch_root(), digest)?),
        })
    }

    /// Stores `bytes`.
    pub fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        if !self.has(&descriptor) {
            let mut writer = self.writer()?;
            writer.write_all(bytes)?;
            writer.complete(media_type)?;
        }
        Ok(descriptor)
    }

    /// Stores `value` as JSON with ordered keys.
    pub fn put_json(&self, media_type: &str, value: &impl Serialize) -> Result<Descriptor> {
        self.put(media_type, &json(value))
    }

    /// Opens a blob for reading; the reader fails at the end if the bytes were not the promised ones.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<BlobReader> {
        let file = fs::File::open(self.blob_path(&descriptor.digest))?;
        Ok(BlobReader::new(file, descriptor.clone()))
    }

    /// Reads a whole document, verified; at most [`MAX_DOCUMENT`] bytes.
    pub fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let file = fs::File::open(self.blob_path(&descriptor.digest))?;
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT).read_to_end(&mut bytes)?;
        let found = Digest::of(&bytes);
        if found != descriptor.digest {
            return Err(Error::Damaged {
                expected: descriptor.digest,
                found,
            });
        }
        Ok(bytes)
    }

    /// Reads and parses a document.
    pub fn read_json<T: serde::de::DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T> {
        let bytes = self.read(descriptor)?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            path: descriptor.digest.to_string(),
            source,
        })
    }

    /// Removes the blobs among `descriptors` whose bytes are not the promised ones, so that they can be fetched
    /// again; gives how many there were.
    pub fn discard_damaged(&self, descriptors: &[&Descriptor]) -> Result<usize> {
        let mut damaged = 0;
        for descriptor in descriptors {
            let read = self.open_blob(descriptor).and_then(|mut reader| {
                io::copy(&mut reader, &mut io::sink())?;
                Ok(())
            });
            if read.is_err() {
                fs::remove_file(self.blob_path(&descriptor.digest))?;
                damaged += 1;
            }
        }
        Ok(damaged)
    }

    /// The images of the store, under their tags.
    pub fn index(&self) -> Result<Index> {
        let path = self.root.join("index.json");
        let bytes = fs::read(&path)?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            path: path.display().to_string(),
            source,
        })
    }

    /// Puts `manifest` under `tag`, which names nothing else from then on.
    pub fn tag(&self, manifest: &Descriptor, tag: Option<&str>) -> Result<()> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        tag_in(&mut index, manifest, tag);
        self.replace(&self.root.join("index.json"), &json(&index))
    }

    /// Forgets an image by its tag, or by its digest if it has none; gives whether there was one.
    pub fn untag(&self, name: &str) -> Result<bool> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        let count = index.manifests.len();
        index
            .manifests
            .retain(|entry| match entry.annotations.get(REF_NAME) {
                Some(tag) => tag != name,
                None => entry.digest.to_string() != name,
            });
        self.replace(&self.root.join("index.json"), &json(&index))?;
        Ok(index.manifests.len() < count)
    }

    /// What `tag` names.
    pub fn tagged(&self, tag: &str) -> Result<Option<Descriptor>> {
        let index = self.index()?;
        Ok(index.manifests.into_iter().find(|entry| {
            entry
                .annotations
                .get(REF_NAME)
                .is_some_and(|name| name == tag)
        }))
    }

    /// What a tag of a registry named when it was last asked.
    #[must_use]
    pub fn resolved(&self, reference: &str, platform: &Platform) -> Option<Resolved> {
        let bytes = fs::read(self.resolved_path(reference, platform)).ok()?;
        let resolved: Resolved = serde_json::from_slice(&bytes).ok()?;
        (resolved.reference == reference && &resolved.platform == platform).then_some(resolved)
    }

    /// Remembers what a tag of a registry names now.
    pub fn remember(
        &self,
        reference: &str,
        platform: &Platform,
        manifest: &Descriptor,
    ) -> Result<()> {
        let at = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let resolved = Resolved {
            reference: reference.to_owned(),
            platform: platform.clone(),
            manifest: manifest.clone(),
            at: at.as_secs(),
        };
        self.replace(&self.resolved_path(reference, platform), &json(&resolved))
    }

    fn resolved_path(&self, reference: &str, platform: &Platform) -> PathBuf {
        let name = Digest::of(format!("{reference}\n{platform}").as_bytes()).hex();
        self.root.join("resolved").join(name)
    }

    /// Where the unpacked layers of a chain are kept. `variant` tells trees apart that differ in how
    /// owners were set, since a tree unpacked by an ordinary user cannot carry them.
    #[must_use]
    pub fn rootfs_path(&self, chain: &ChainId, variant: &str) -> PathBuf {
        self.trees_path()
            .join(format!("{}.{variant}", chain.0.hex()))
    }

    /// Where one unpacked layer is kept, for an overlay to put it upon others; `variant` as above.
    #[must_use]
    pub fn upper_path(&self, layer: &DiffId, variant: &str) -> PathBuf {
        self.trees_path()
            .join(format!("{UPPER_PREFIX}{}.{variant}", layer.0.hex()))
    }

    /// Where unpacked layers are kept.
    #[must_use]
    pub fn trees_path(&self) -> PathBuf {
        self.root.join("rootfs")
    }

    /// Where a source that was fetched is kept.
    #[must_use]
    pub fn source_path(&self, key: &Digest) -> PathBuf {
        self.root.join("sources").join(key.hex())
    }

    /// Where entries of the step cache are kept, see [`crate::cache`].
    #[must_use]
    pub fn steps_path(&self) -> PathBuf {
        self.root.join("steps")
    }

    /// Where caches of steps are kept.
    #[must_use]
    pub fn caches_path(&self) -> PathBuf {
        self.root.join("caches")
    }

    /// The folder of one cache (an installer's, or one of `RUN --mount=type=cache`), made if it is not there.
    pub fn make_cache(&self, name: &str) -> Result<PathBuf> {
        let folder = self.caches_path().join(name);
        folders::make(&folder)?;
        Ok(folder)
    }

    /// Where scratch folders and temporary files are made, unless the user chose another place.
    #[must_use]
    pub fn scratch_root(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn lock(&self) -> Result<fs::File> {
        flock(
            open_lock(&self.root.join("lock"))?,
            FlockOperation::LockExclusive,
        )
    }

    /// Writes a file of the store, whole or not at all.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = temporary(&self.scratch_root())?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Whether a tree of [`Store::trees_path`], by its name, is of a layer by itself.
#[must_use]
pub fn is_upper(name: &str) -> bool {
    name.starts_with(UPPER_PREFIX)
}

/// Puts `manifest` into `index` under `tag`; without a tag, once.
pub fn tag_in(index: &mut Index, manifest: &Descriptor, tag: Option<&str>) {
    let name = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
    index.manifests.retain(|entry| match (tag, name(entry)) {
        (Some(tag), Some(name)) => name != tag,
        (None, None) => entry.digest != manifest.digest,
        _ => true,
    });
    let mut entry = manifest.clone();
    entry.annotations = tag
        .map(|tag| (REF_NAME.to_owned(), tag.to_owned()))
        .into_iter()
        .collect::<BTreeMap<_, _>>();
    index.manifests.push(entry);
}

/// Canonical JSON: no white space, and keys in the order of the types or of their names.
///
/// # Panics
///
/// If a map has keys that are not strings; none of this crate's types has one.
pub fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("values with string keys always serialise")
}
