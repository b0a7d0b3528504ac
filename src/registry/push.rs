//! A whole image on its way to registries: what is there already is found out, and not sent.
//!
//! A tag is set last, when all that it stands for is there, so nothing half-pushed is ever seen. Blobs that the
//! registry has in another repository are mounted, if it lets us: the store knows where each blob was seen.
//!
//! Follows the OCI distribution specification 1.1, "Push".

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};

use super::auth::Access;
use super::connection::{Request, Target};
use super::document::{content_digest, refuse_web_page};
use super::transfer::label;
use super::upload::Upload;
use super::{Client, Error, Reference, pause};
use crate::confined;
use crate::digest::{Digest, Hashing};
use crate::manifest::{Descriptor, Manifest};
use crate::net::{Body, host};
use crate::progress::Progress;
use crate::store::{self, Store};

/// Repositories that are asked for a blob before it is sent.
const MOST_MOUNTS: usize = 2;

/// What is pushed: an image, or an index with its images.
#[derive(Debug, Clone)]
pub struct Content {
    /// Manifests and indexes, each after what it names; the last one is what a tag will name.
    pub documents: Vec<(Descriptor, Vec<u8>)>,
    /// Configs and layers.
    pub blobs: Vec<Blob>,
}

/// A blob on this machine.
#[derive(Debug, Clone)]
pub struct Blob {
    /// What it is.
    pub descriptor: Descriptor,
    /// Where its bytes are.
    pub place: BlobPlace,
}

/// The file that holds a blob.
#[derive(Debug, Clone)]
pub enum BlobPlace {
    /// A file of the store. May be missing: then it is fetched from where it was seen.
    Store(PathBuf),
    /// A layout that somebody else made, and the file's path in it. No link leads out, and the bytes are verified
    /// before they are sent.
    Layout(PathBuf, PathBuf),
}

impl Content {
    /// The image of a manifest in the store.
    pub fn stored(manifest: &Descriptor, store: &Store) -> Result<Self, store::Error> {
        let bytes = store.read(manifest)?;
        let document: Manifest = store.read_json(manifest)?;
        let blobs = document.layers.iter().chain([&document.config]);
        Ok(Self {
            blobs: blobs.map(|blob| Blob::stored(blob, store)).collect(),
            documents: vec![(manifest.clone(), bytes)],
        })
    }

    /// What a tag will name.
    ///
    /// # Panics
    ///
    /// If there is no document.
    #[must_use]
    pub fn root(&self) -> &Descriptor {
        &self.documents.last().expect("an image has a manifest").0
    }
}

impl Blob {
    /// A blob of the store.
    #[must_use]
    pub fn stored(descriptor: &Descriptor, store: &Store) -> Self {
        Self {
            descriptor: descriptor.clone(),
            place: BlobPlace::Store(store.blob_path(&descriptor.digest)),
        }
    }

    /// Opens the blob, if it has as many bytes as it should have.
    pub(super) fn open(&self) -> Result<File, Error> {
        let file = match &self.place {
            BlobPlace::Store(path) => fs_err::File::open(path)?.into_file(),
            BlobPlace::Layout(root, path) => {
                let named = |error: io::Error| {
                    let path = root.join(path);
                    let reason = format!("failed to open file `{}`: {error}", path.display());
                    io::Error::new(error.kind(), reason)
                };
                confined::file(root, path).map_err(named)?
            }
        };
        let Descriptor { digest, size, .. } = self.descriptor;
        let found = file.metadata()?.len();
        if found == size {
            return Ok(file);
        }
        let expected = size;
        Err(store::Error::Size {
            digest,
            expected,
            found,
        }
        .into())
    }

    /// Whether the bytes of an open file are those of the digest.
    pub(super) fn verify(&self, file: &File, progress: &Progress) -> Result<(), Error> {
        let mut hashing = Hashing::new(io::sink());
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            progress.check()?;
            let length = file.read_at(&mut buffer, at)?;
            if length == 0 {
                break;
            }
            hashing.write_all(&buffer[..length])?;
            at += length as u64;
        }
        let (_, found, _) = hashing.complete();
        if found == self.descriptor.digest {
            return Ok(());
        }
        let expected = self.descriptor.digest;
        Err(store::Error::Damaged { expected, found }.into())
    }

    /// Verifies a blob that somebody else may have written; other work goes on meanwhile.
    async fn verify_foreign(&self, file: &Arc<File>, progress: &Progress) -> Result<(), Error> {
        if let BlobPlace::Store(_) = self.place {
            return Ok(());
        }
        let (blob, file, progress) = (self.clone(), file.clone(), progress.clone());
        let verified = tokio::task::spawn_blocking(move || blob.verify(&file, &progress)).await;
        verified.map_err(|error| Error::Setup {
            reason: error.to_string(),
        })?
    }
}

impl Client {
    pub(super) async fn push_image(
        &self,
        content: &Content,
        target: &Reference,
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        let (root, bytes) = content.documents.last().expect("an image has a manifest");
        if target.digest().is_some_and(|digest| digest != root.digest) {
            return Err(Error::OtherDigest {
                reference: target.to_string(),
                found: root.digest,
            });
        }
        let target = &self.target(target)?;
        if self.found(target, name(target)).await? == Some(root.digest) {
            progress.note(format!("`{target}` is there already"));
            return Ok(());
        }
        let is_there = self.found(target, root.digest.to_string()).await? == Some(root.digest);
        if !is_there {
            self.push_content(content, target, store, progress).await?;
        }
        match self.put(target, name(target), root, bytes).await {
            // A registry may have lost what its manifest names.
            Err(error) if is_there && error.is_lost() => {
                self.push_content(content, target, store, progress).await?;
                self.put(target, name(target), root, bytes).await?;
            }
            // A tag that cannot be changed is right if it was set by an attempt whose answer was lost.
            Err(error) if error.status().is_some() => {
                if self.found(target, name(target)).await? != Some(root.digest) {
                    return Err(error);
                }
            }
            result => result?,
        }
        for blob in &content.blobs {
            store.saw(&blob.descriptor.digest, &target.place())?;
        }
        Ok(())
    }

    /// Everything but the tag.
    async fn push_content(
        &self,
        content: &Content,
        target: &Reference,
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let blobs = content
            .blobs
            .iter()
            .filter(|blob| seen.insert(blob.descriptor.digest));
        // Cancelled by `block`, which drops all of them.
        stream::iter(blobs)
            .map(|blob| self.push_blob(target, blob, store, progress))
            .buffer_unordered(self.options.jobs.max(1))
            .try_collect::<()>()
            .await?;
        let (_, children) = content
            .documents
            .split_last()
            .expect("an image has a manifest");
        for (descriptor, bytes) in children {
            let digest = descriptor.digest.to_string();
            if self.found(target, digest.clone()).await? != Some(descriptor.digest) {
                self.put(target, digest, descriptor, bytes).await?;
            }
        }
        Ok(())
    }

    async fn push_blob(
        &self,
        target: &Reference,
        blob: &Blob,
        store: &Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        let digest = blob.descriptor.digest;
        if self.has_blob(target, &digest).await? {
            return Ok(());
        }
        let mut session = None;
        let registry = format!("{}/", target.registry());
        let places = store.seen(&digest);
        let others = places
            .iter()
            .filter_map(|place| place.strip_prefix(&registry))
            .filter(|repository| *repository != target.repository());
        for from in others.take(MOST_MOUNTS) {
            match self.mount(target, &digest, from).await? {
                Mount::Done => return Ok(()),
                Mount::Session(url) => {
                    session = Some(url);
                    break;
                }
                Mount::Refused => {}
            }
        }
        if let BlobPlace::Store(path) = &blob.place
            && !path.exists()
        {
            self.bring_blob(&blob.descriptor, store, progress).await?;
        }
        let file = Arc::new(blob.open()?);
        blob.verify_foreign(&file, progress).await?;
        let part = Arc::new(progress.transfer(label(&blob.descriptor), Some(blob.descriptor.size)));
        let mut upload = Upload::new(target, (blob, file), part.clone(), session);
        self.upload(&mut upload, progress).await?;
        drop(upload);
        part.advance(blob.descriptor.size);
        if let Some(part) = Arc::into_inner(part) {
            part.finish("");
        }
        Ok(())
    }

    pub(super) async fn has_blob(
        &self,
        target: &Reference,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let request = Request::new(Method::HEAD, target, path, Access::Push);
        match self.insist(&request).await {
            Ok(response) => refuse_web_page(&response, &request.what).map(|()| true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the registry to take a blob from another repository of its own.
    async fn mount(&self, target: &Reference, digest: &Digest, from: &str) -> Result<Mount, Error> {
        let path = format!("blobs/uploads/?mount={digest}&from={}", escape(from));
        let access = Access::Mount(from.to_owned());
        let request = Request::new(Method::POST, target, path, access);
        match self.send(&request).await {
            Ok(response) if response.status() == StatusCode::CREATED => Ok(Mount::Done),
            // Not there, or not for us: the session is as good as any.
            Ok(response) => Ok(Mount::Session(self.next_location(&response)?)),
            Err(Error::Cancelled(cancelled)) => Err(Error::Cancelled(cancelled)),
            // Whatever it was, the upload will meet it again or be spared it.
            Err(_) => Ok(Mount::Refused),
        }
    }

    /// The digest of what a tag or a digest names in the repository; `None` if it names nothing.
    async fn found(&self, target: &Reference, name: String) -> Result<Option<Digest>, Error> {
        let mut request = Request::new(
            Method::HEAD,
            target,
            format!("manifests/{name}"),
            Access::Push,
        );
        request.headers = super::document::accept();
        match self.insist(&request).await {
            Ok(response) => {
                refuse_web_page(&response, &request.what)?;
                Ok(content_digest(response.headers()))
            }
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a document under a tag or its digest.
    async fn put(
        &self,
        target: &Reference,
        name: String,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let path = format!("manifests/{name}");
        let mut request = Request::new(Method::PUT, target, path, Access::Push);
        let media_type =
            HeaderValue::from_str(&descriptor.media_type).map_err(|_| Error::MediaType {
                digest: descriptor.digest,
            })?;
        request.headers.insert(CONTENT_TYPE, media_type);
        request.body = Body::Bytes(bytes.to_vec().into());
        let mut retry = self.retry();
        loop {
            let error = match self.send(&request).await {
                Ok(response) => match content_digest(response.headers()) {
                    Some(found) if found != descriptor.digest => Error::Mismatch {
                        host: host(response.url()),
                        expected: descriptor.digest,
                        found,
                    },
                    _ => return refuse_web_page(&response, &request.what),
                },
                Err(error) => error,
            };
            pause(&mut retry, error).await?;
        }
    }

    /// Asks for the right to push by beginning an upload, which is then given up.
    pub(super) async fn check_target(&self, target: &Reference) -> Result<(), Error> {
        let mut retry = self.retry();
        let url = loop {
            match self.open_session(target, &target.to_string()).await {
                Ok(url) => break url,
                Err(error) => pause(&mut retry, error).await?,
            }
        };
        let mut request = Request::new(Method::DELETE, target, "", Access::Push);
        request.target = Target::Url(&url);
        // Not all registries can do that; they forget it by themselves.
        let _ = self.send(&request).await;
        Ok(())
    }
}

/// What came of asking for a mount.
enum Mount {
    Done,
    Session(Url),
    Refused,
}

/// What the document is put under.
fn name(target: &Reference) -> String {
    match (target.tag(), target.digest()) {
        (Some(tag), _) => tag.to_owned(),
        (None, Some(digest)) => digest.to_string(),
        (None, None) => unreachable!("a reference has a tag or a digest"),
    }
}

/// A repository's name in a query: all of its characters but the slash may stand there.
fn escape(repository: &str) -> String {
    repository.replace('/', "%2F")
}
