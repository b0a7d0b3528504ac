//! An image of the store, of a layout or of an archive goes to registries.

use std::path::PathBuf;

use crate::access::Access;
use crate::base::{self, Source};
use crate::error::{Error, Kind, Wrap as _};
use crate::image::{self, Format};
use crate::images;
use crate::manifest::Descriptor;
use crate::progress::Progress;
use crate::registry::{Client, Content, Reference};
use crate::store::Store;

/// What to push, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// What [`find`](images::find) understands.
    pub image: String,
    /// Where; none means the image's own tag.
    pub references: Vec<String>,
    /// The store's folder; absent, the [default](images::default_store).
    pub store: Option<PathBuf>,
    /// Changes the media types.
    pub format: Option<Format>,
    /// Layers that are sent side by side.
    pub jobs: usize,
    /// How registries are reached.
    pub access: Access,
}

impl Options {
    /// The image as it is, under its own tag.
    #[must_use]
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            image: image.into(),
            references: Vec::new(),
            store: None,
            format: None,
            jobs: images::JOBS,
            access: Access::default(),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Pushed {
    /// Where the image is now.
    pub references: Vec<Reference>,
    /// What the references name.
    pub root: Descriptor,
    /// Bytes of all blobs.
    pub size: u64,
}

/// Pushes an image: only what the registry does not have.
///
/// ```no_run
/// use pyats_image_builder::{Progress, PushOptions, push};
///
/// # let _ = || -> Result<(), pyats_image_builder::Error> {
/// let options = PushOptions {
///     references: vec!["registry.example.com/team/tests:1".to_owned()],
///     ..PushOptions::new("mypyatsimage")
/// };
/// let pushed = push(&options, &Progress::silent())?;
/// println!("{}@{}", pushed.references[0], pushed.root.digest);
/// # Ok(()) };
/// ```
pub fn push(options: &Options, progress: &Progress) -> Result<Pushed, Error> {
    let store = images::open(options.store.as_deref())?;
    let _session = store.session()?;
    let (mut content, own) = find(options, &store, progress)?;
    let targets = match (&options.references[..], own) {
        ([], Some(own)) => vec![own],
        ([], None) => return Err(no_target(&options.image)),
        (given, _) => references(given)?,
    };
    if let Some(format) = options.format {
        content = image::convert(content, format)?.ok_or_else(|| {
            Error::options(format!(
                "`{}` is an index of several images: its media types cannot be changed",
                options.image
            ))
            .with_hint("leave `--format` out")
        })?;
    }
    let client = options.access.client(options.jobs, &registries(&targets))?;
    send(&client, &content, &targets, &store, progress)?;
    Ok(Pushed {
        size: content.blobs.iter().map(|blob| blob.descriptor.size).sum(),
        root: content.root().clone(),
        references: targets,
    })
}

/// Pushes `content` under `targets`.
pub(crate) fn send(
    client: &Client,
    content: &Content,
    targets: &[Reference],
    store: &Store,
    progress: &Progress,
) -> Result<(), Error> {
    for target in targets {
        let part = progress.start(format!("push `{target}`"));
        client
            .push(content, target, store, progress)
            .wrap(|| format!("failed to push to `{target}`"))
            .map_err(|error| error.or_kind(Kind::Push))?;
        part.finish("");
    }
    Ok(())
}

/// An error if `targets` cannot be pushed to, one repository each.
pub(crate) fn check(
    client: &Client,
    targets: &[Reference],
    progress: &Progress,
) -> Result<(), Error> {
    let mut seen = Vec::new();
    for target in targets {
        let repository = (target.registry(), target.repository());
        if seen.contains(&repository) {
            continue;
        }
        seen.push(repository);
        client
            .check(target, progress)
            .wrap(|| format!("failed to push to `{target}`"))
            .map_err(|error| error.or_kind(Kind::Push))?;
    }
    Ok(())
}

/// The registries of references.
pub(crate) fn registries(references: &[Reference]) -> Vec<&str> {
    references.iter().map(Reference::registry).collect()
}

/// References as the user types them.
pub(crate) fn references(given: &[String]) -> Result<Vec<Reference>, Error> {
    given.iter().map(|text| images::parse_tag(text)).collect()
}

/// The error for a name that leads to no registry.
pub(crate) fn no_target(name: &str) -> Error {
    Error::options(format!("`{name}` says nothing about where to push it")).with_hint(
        "give a reference such as `registry.example.com/team/image:1.0`, by `--tag` for a build",
    )
}

/// What is pushed, and its own name if it has one.
fn find(
    options: &Options,
    store: &Store,
    progress: &Progress,
) -> Result<(Content, Option<Reference>), Error> {
    let name = &options.image;
    if images::is_outside(name) {
        let source: Source = name.parse()?;
        let content = base::content(&source, store, progress)
            .map_err(|error| error.map_kind(Kind::Base, Kind::NoImage))?;
        return Ok((content, None));
    }
    let image = images::find_in(store, name, progress)?;
    let own = name
        .parse()
        .ok()
        .filter(|own: &Reference| image.tags.contains(&own.to_string()));
    Ok((Content::stored(&image.manifest, store)?, own))
}
