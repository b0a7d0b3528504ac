//! The errors of a base that are made in several places. Their kind is [`Kind::Base`].

use std::fmt::{Display, Write as _};
use std::path::Path;

use crate::error::{Error, Kind};
use crate::manifest::Platform;
use crate::registry;
use crate::store::{self, MAX_DOCUMENT};

/// The image is for other machines; found by [`Error::find`].
#[derive(Debug, thiserror::Error)]
#[error("`{name}` is for {} only, and not for `{wanted}`", listed(.found))]
pub(crate) struct OtherPlatform {
    /// What the user would call it.
    pub(super) name: String,
    pub(super) wanted: Platform,
    /// What there is.
    pub(crate) found: Vec<Platform>,
}

impl From<OtherPlatform> for Error {
    fn from(error: OtherPlatform) -> Self {
        let hint = match error.found.first() {
            Some(platform) => format!("choose another base, or build for `--platform {platform}`"),
            None => "choose another base".to_owned(),
        };
        Self::from_source(Kind::Base, error).with_hint(hint)
    }
}

pub(super) fn base(message: String) -> Error {
    Error::new(Kind::Base, message)
}

/// A document that is not what it should be; `what` is manifest, index or config.
pub(super) fn document(name: &str, what: &str, reason: &dyn Display) -> Error {
    base(format!("the {what} of `{name}` is invalid: {reason}"))
}

/// An image that cannot be used, whatever is done.
pub(super) fn unusable(message: String) -> Error {
    base(message).with_hint("choose another base")
}

/// An image of which something is not there, or is not what it should be.
pub(super) fn broken(message: String) -> Error {
    base(message).with_hint("the image is damaged or incomplete: make or fetch it again")
}

/// Something that the image consists of is not there.
pub(super) fn incomplete(path: &Path, entry: &str) -> Error {
    let path = path.display();
    broken(format!(
        "`{path}` has no `{entry}`, which the image consists of"
    ))
}

/// A blob whose bytes are not what the image says.
pub(super) fn damaged(path: &Path, entry: &str, source: store::Error) -> Error {
    broken(format!("`{entry}` in `{}` is damaged", path.display())).with_source(source)
}

/// Layers and diffIDs do not belong together.
pub(super) fn diff_ids(name: &str, layers: usize, diff_ids: usize) -> Error {
    broken(format!(
        "`{name}` has {layers} layers, but its config names {diff_ids}"
    ))
}

/// A directory or an archive of another kind than `kind`, which has its article; `entry` should be in there.
pub(super) fn kind(path: &Path, kind: &str, entry: &str) -> Error {
    base(format!(
        "`{}` is not {kind}: it has no `{entry}`",
        path.display()
    ))
    .with_hint(format!("check the path; what is asked for is {kind}"))
}

/// A document beyond the limit.
pub(super) fn too_large(path: &Path, entry: &str) -> Error {
    let path = path.display();
    base(format!(
        "`{entry}` in `{path}` has more than {MAX_DOCUMENT} bytes"
    ))
}

/// The tag is not there.
pub(super) fn no_tag(path: &Path, tag: &str, tags: &[String]) -> Error {
    let (path, tags) = (path.display(), named(tags));
    base(format!("`{path}` has no image `{tag}`; it has {tags}")).with_hint(NAME_ONE)
}

/// No tag was given, and there are several.
pub(super) fn several_images(path: &Path, tags: &[String]) -> Error {
    let (path, tags) = (path.display(), named(tags));
    base(format!("`{path}` has several images: {tags}")).with_hint(NAME_ONE)
}

const NAME_ONE: &str = "name one of them after the path, as in `PATH:NAME`";

/// What a registry failed at.
pub(super) fn pull(message: String, error: registry::Error) -> Error {
    Error::from(error).or_kind(Kind::Base).wrap(message)
}

fn listed(platforms: &[Platform]) -> String {
    let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        return "no platform at all".to_owned();
    }
    named(&names)
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
