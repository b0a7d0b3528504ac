//! An image of the store, of a layout or of an archive goes to registries.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::{self, Source};
use crate::error::{Error, OptionsError};
use crate::image::{self, Format};
use crate::images;
use crate::manifest::Descriptor;
use crate::net::{self, Proxies};
use crate::progress::Progress;
use crate::registry::{self, Client, Content, Reference};
use crate::store::Store;

/// What to push, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// A tag or id in the store, or what [`Source`] understands, but for registries.
    pub image: String,
    /// Where; none means the image's own tag.
    pub references: Vec<String>,
    /// The store's folder.
    pub store: PathBuf,
    /// Changes the media types.
    pub format: Option<Format>,
    /// How registries are reached.
    pub registry: registry::Options,
    /// A PEM file with authorities that are trusted besides the system's.
    pub ca_cert: Option<PathBuf>,
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

/// Pushes an image.
pub fn push(options: &Options, progress: &Progress) -> Result<Pushed, Error> {
    let _session = Store::open(&options.store)?.session()?;
    let (mut content, own, store) = find(options, progress)?;
    let targets = match (&options.references[..], own) {
        ([], Some(own)) => vec![own],
        ([], None) => return Err(OptionsError::NoTarget(options.image.clone()).into()),
        (given, _) => references(given)?,
    };
    if let Some(format) = options.format {
        content = image::convert(content, format)?
            .ok_or_else(|| OptionsError::FormatOfIndex(options.image.clone()))?;
    }
    let proxies = Proxies::from_env().map_err(OptionsError::Proxy)?;
    let net = net::Options::of_system(options.ca_cert.clone(), proxies);
    let net = Arc::new(net::Client::new(net));
    let client = Client::new(login_for(options.registry.clone(), &targets)?, net);
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
            .map_err(|source| Error::push(target, source))?;
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
            .map_err(|source| Error::push(target, source))?;
    }
    Ok(())
}

/// The options with the given login, if there is one, for the registry of `targets`.
pub(crate) fn login_for(
    mut options: registry::Options,
    targets: &[Reference],
) -> Result<registry::Options, OptionsError> {
    let (Some(given), Some(first)) = (&mut options.logins.given, targets.first()) else {
        return Ok(options);
    };
    if targets
        .iter()
        .any(|target| target.registry() != first.registry())
    {
        return Err(OptionsError::SeveralRegistries(given.origin));
    }
    first.registry().clone_into(&mut given.registry);
    Ok(options)
}

/// References as the user types them.
pub(crate) fn references(given: &[String]) -> Result<Vec<Reference>, Error> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|error: registry::InvalidReference| OptionsError::Tag {
                tag: error.text,
                problem: error.problem.to_string(),
            })
    };
    Ok(given.iter().map(parse).collect::<Result<_, _>>()?)
}

/// What is pushed, and its own name if it has one.
fn find(
    options: &Options,
    progress: &Progress,
) -> Result<(Content, Option<Reference>, Store), Error> {
    let name = &options.image;
    if images::is_outside(name) {
        let store = Store::open(&options.store)?;
        let source: Source = name.parse().map_err(OptionsError::Base)?;
        let content = base::content(&source, &store, progress)?;
        return Ok((content, None, store));
    }
    let (image, tags, store) = images::find(name, &options.store, progress)?;
    let own = name
        .parse()
        .ok()
        .filter(|own: &Reference| tags.contains(&own.to_string()));
    let content = Content::stored(&image.manifest, &store)?;
    Ok((content, own, store))
}
