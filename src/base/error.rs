//! What can go wrong with a base, and what the user can do about it.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::manifest::Platform;
use crate::progress::Cancelled;
use crate::registry;
use crate::store::{self, MAX_DOCUMENT};

/// What can go wrong with a base.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The build was told to stop.
    #[error("the base was not fetched to its end")]
    Cancelled(#[from] Cancelled),
    /// Layers could not be fetched when they were needed.
    #[error("failed to pull layers")]
    Layers(#[source] registry::Error),
    /// The registry failed.
    #[error("failed to pull `{name}`")]
    Pull {
        /// The complete reference.
        name: String,
        /// Why.
        source: registry::Error,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] store::Error),
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nobody may be asked, and it is not there.
    #[error("`{name}` is not in the store{}", .missing.as_ref().map(|what| format!(": {what}")).unwrap_or_default())]
    Absent {
        /// The complete reference.
        name: String,
        /// What is missing, if something is there.
        missing: Option<String>,
    },
    /// The image is for other machines.
    #[error("`{name}` is for {} only, and not for `{wanted}`", listed(.found))]
    Platform {
        /// What the user would call it.
        name: String,
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        found: Vec<Platform>,
    },
    /// A manifest of Docker's schema 1.
    #[error("`{name}` has a manifest of schema 1, which is no longer supported")]
    Schema1 {
        /// What the user would call it.
        name: String,
    },
    /// A document that is not what it should be.
    #[error("the {what} of `{name}` is invalid: {reason}")]
    Document {
        /// What the user would call it.
        name: String,
        /// Manifest, index, config.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Something else than a container image, such as a chart.
    #[error("`{name}` is not a container image: its config is `{media_type}`")]
    NotAnImage {
        /// What the user would call it.
        name: String,
        /// Of the config.
        media_type: String,
    },
    /// A layer that nobody here can unpack.
    #[error("`{name}` has a layer of the unknown type `{media_type}`")]
    LayerType {
        /// What the user would call it.
        name: String,
        /// Of the layer.
        media_type: String,
    },
    /// A layer that registries do not have.
    #[error(
        "`{name}` has the layer `{digest}`, which is not distributed with the image (`{media_type}`)"
    )]
    ForeignLayer {
        /// What the user would call it.
        name: String,
        /// Of the layer.
        digest: Digest,
        /// Of the layer.
        media_type: String,
    },
    /// sha512 and others.
    #[error("`{name}` uses the digest `{digest}`; only sha256 is supported")]
    Algorithm {
        /// What the user would call it.
        name: String,
        /// The digest, shortened.
        digest: String,
    },
    /// Layers and diffIDs do not belong together.
    #[error("`{name}` has {layers} layers, but its config names {diff_ids}")]
    DiffIds {
        /// What the user would call it.
        name: String,
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
    /// A directory or an archive of another kind.
    #[error("`{path}` is not {kind}: it has no `{entry}`")]
    Kind {
        /// The directory or file.
        path: PathBuf,
        /// What it should be, with its article.
        kind: &'static str,
        /// What should be in there.
        entry: &'static str,
    },
    /// An archive that cannot be read to its end.
    #[error("`{path}` is not readable as a tar archive")]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that the image consists of is not there.
    #[error("`{path}` has no `{entry}`, which the image consists of")]
    Incomplete {
        /// The directory or file.
        path: PathBuf,
        /// The name inside.
        entry: String,
    },
    /// A link in a layout that leads to other files of this machine.
    #[error("`{entry}` in `{path}` is a link to a file outside of it, which is not read")]
    LeadsOut {
        /// The directory.
        path: PathBuf,
        /// The name inside.
        entry: String,
    },
    /// A blob whose bytes are not what the image says.
    #[error("`{entry}` in `{path}` is damaged")]
    Damaged {
        /// The directory or file.
        path: PathBuf,
        /// The name inside.
        entry: String,
        /// What is wrong.
        source: store::Error,
    },
    /// A document beyond the limit.
    #[error("`{entry}` in `{path}` has more than {MAX_DOCUMENT} bytes")]
    TooLarge {
        /// The directory or file.
        path: PathBuf,
        /// The name inside.
        entry: String,
    },
    /// The tag is not there.
    #[error("`{path}` has no image `{tag}`; it has {}", named(.tags))]
    NoTag {
        /// The directory or file.
        path: PathBuf,
        /// What was asked for.
        tag: String,
        /// What there is.
        tags: Vec<String>,
    },
    /// No tag was given, and there are several.
    #[error("`{path}` has several images: {}", named(.tags))]
    SeveralImages {
        /// The directory or file.
        path: PathBuf,
        /// Their names.
        tags: Vec<String>,
    },
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Pull { source, .. } | Self::Layers(source) => return source.hint(),
            Self::Absent { .. } => {
                "leave out `--offline` and `--pull never` once, so that it is pulled, or give a local base such as `--base oci:DIR`".to_owned()
            }
            Self::Platform { found, .. } => match found.first() {
                Some(platform) => format!("choose another base, or build for `--platform {platform}`"),
                None => "choose another base".to_owned(),
            },
            Self::Schema1 { .. } => "push the image anew with a tool of this decade, or choose another base".to_owned(),
            Self::NotAnImage { .. } | Self::LayerType { .. } | Self::ForeignLayer { .. } | Self::Algorithm { .. } => {
                "choose another base".to_owned()
            }
            Self::DiffIds { .. } | Self::Incomplete { .. } | Self::Archive { .. } | Self::Damaged { .. } => {
                "the image is damaged or incomplete: make or fetch it again".to_owned()
            }
            Self::LeadsOut { path, .. } => {
                format!("if you trust what the link names, copy it in: `cp -rL {} COPY`", path.display())
            }
            Self::Kind { kind, .. } => format!("check the path; what is asked for is {kind}"),
            Self::NoTag { .. } | Self::SeveralImages { .. } => "name one of them after the path, as in `PATH:NAME`".to_owned(),
            Self::Store(store::Error::Io(error)) if error.kind() == io::ErrorKind::StorageFull => {
                "free some space, or keep the store elsewhere with `--store DIR`".to_owned()
            }
            _ => return None,
        })
    }

    pub(super) fn document(name: &str, what: &'static str, reason: &dyn ToString) -> Self {
        Self::Document {
            name: name.to_owned(),
            what,
            reason: reason.to_string(),
        }
    }
}

fn listed(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "no platform at all".to_owned();
    }
    named(
        &platforms
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
    )
}

fn named(names: &[String]) -> String {
    /// More than these nobody reads.
    const MOST: usize = 20;
    if names.is_empty() {
        return "none with a name".to_owned();
    }
    let mut text = names
        .iter()
        .take(MOST)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > MOST {
        let _ = write!(text, " and {} more", names.len() - MOST);
    }
    text
}
