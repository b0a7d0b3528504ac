//! The documents that name blobs: descriptors, manifests and indexes.
//!
//! They are read and written through the types of `oci-spec`, the OCI image specification's. The types
//! here hold what this tool uses of them, with digests that are sha256 by construction. Docker's schema
//! 2 documents have the same shape under other media types. Keys are sorted, so that equal values
//! serialise to equal bytes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use oci_spec::image as oci;
use serde::{Deserialize, Serialize, Serializer};

use crate::digest::{DiffId, Digest, InvalidDigest};

/// Media types, as the OCI image specification and Docker's image manifest V2 schema 2 spell them.
pub mod media_type {
    #![expect(missing_docs, reason = "each name says what it is")]
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
}

/// What names a blob everywhere: its media type, digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "oci::Descriptor")]
pub struct Descriptor {
    /// One of [`media_type`] for everything that this tool makes.
    pub media_type: String,
    /// Of the stored bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Set on the entries of an index.
    pub platform: Option<Platform>,
    /// In the order of their keys.
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor without platform and annotations.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// A layer as the stages pass it on: the stored blob and its uncompressed identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The stored blob.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
}

impl TryFrom<oci::Descriptor> for Descriptor {
    type Error = InvalidDigest;

    fn try_from(read: oci::Descriptor) -> Result<Self, InvalidDigest> {
        Ok(Self {
            media_type: read.media_type().to_string(),
            digest: read.digest().as_ref().parse()?,
            size: read.size(),
            platform: read.platform().as_ref().map(Platform::from),
            annotations: sorted(read.annotations().as_ref()),
        })
    }
}

impl From<&Descriptor> for oci::Descriptor {
    fn from(written: &Descriptor) -> Self {
        let digest = written.digest.to_string().parse::<oci::Digest>();
        let digest = digest.expect("a sha256 digest is a digest");
        let mut descriptor = Self::new(written.media_type.as_str().into(), written.size, digest);
        descriptor.set_platform(written.platform.as_ref().map(Into::into));
        descriptor.set_annotations(unless_empty(&written.annotations));
        descriptor
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(&oci::Descriptor::from(self), serializer)
    }
}

fn sorted(annotations: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    annotations.cloned().into_iter().flatten().collect()
}

fn unless_empty(annotations: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!annotations.is_empty()).then(|| annotations.clone().into_iter().collect())
}

/// Serialises with sorted keys; the maps of `oci-spec` have no order.
fn write<S: Serializer>(value: &impl Serialize, serializer: S) -> Result<S::Ok, S::Error> {
    let value = serde_json::to_value(value).map_err(serde::ser::Error::custom)?;
    value.serialize(serializer)
}

/// What an image runs on, as `os/architecture[/variant]`, in Go's names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux` for every image that this tool builds.
    pub os: String,
    /// `amd64`, `arm64`, ….
    pub architecture: String,
    /// `v7`, `v8`, …; absent for most architectures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl From<&oci::Platform> for Platform {
    fn from(read: &oci::Platform) -> Self {
        Self {
            os: read.os().to_string(),
            architecture: read.architecture().to_string(),
            variant: read.variant().clone(),
        }
    }
}

impl From<&Platform> for oci::Platform {
    fn from(written: &Platform) -> Self {
        let mut platform = Self::default();
        platform.set_os(written.os.as_str().into());
        platform.set_architecture(written.architecture.as_str().into());
        platform.set_variant(written.variant.clone());
        platform
    }
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a platform of the form `os/architecture[/variant]`, such as `linux/amd64`, or an architecture, such as `arm64`"
)]
pub struct InvalidPlatform(pub String);

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Whether an image for `other` runs on `self`: one for an older variant of the architecture does, and an absent
    /// variant on either side matches.
    #[must_use]
    pub fn accepts(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && match (&self.variant, &other.variant) {
                (Some(wanted), Some(given)) => {
                    wanted == given || level(given).is_some_and(|given| Some(given) < level(wanted))
                }
                _ => true,
            }
    }

    /// The order of what this platform [accepts](Self::accepts), best first: the same variant, then the newest older one.
    /// Where no variant is wanted that is the usual one, and after all others come newer ones, the oldest first: which
    /// of them is taken depends on no machine's CPU, and runs on most.
    pub(crate) fn rank(&self, other: &Self) -> (bool, bool, u32) {
        let usual = match self.architecture.as_str() {
            "arm" => "v7",
            "arm64" => "v8",
            _ => "v1",
        };
        let level = |platform: &Self| level(platform.variant.as_deref().unwrap_or(usual));
        let (wanted, given) = (
            level(self).unwrap_or_default(),
            level(other).unwrap_or(u32::MAX),
        );
        let is_same = self.variant == other.variant;
        (!is_same, given > wanted, given.abs_diff(wanted))
    }
}

/// The number in `v7` or `v8.1`, in hundredths.
fn level(variant: &str) -> Option<u32> {
    let number = variant.strip_prefix('v')?;
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    let (major, minor): (u16, u8) = (major.parse().ok()?, minor.parse().ok()?);
    Some(u32::from(major) * 100 + u32::from(minor))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// What may stand alone, as Docker has it: Go's names, and the kernel's for two of them.
const ARCHITECTURES: [&str; 11] = [
    "386", "aarch64", "amd64", "arm", "arm64", "loong64", "ppc64le", "riscv64", "s390x", "x86-64",
    "x86_64",
];

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] if ARCHITECTURES.contains(&architecture) => {
                ("linux", architecture, None)
            }
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(InvalidPlatform(text.to_owned())),
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }
}

/// An image manifest, OCI's or Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "oci::ImageManifest")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Absent in manifests of old OCI tools.
    pub media_type: Option<String>,
    /// What an artifact is that is no image.
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// Lowest layer first.
    pub layers: Vec<Descriptor>,
    /// In the order of their keys.
    pub annotations: BTreeMap<String, String>,
}

impl TryFrom<oci::ImageManifest> for Manifest {
    type Error = InvalidDigest;

    fn try_from(read: oci::ImageManifest) -> Result<Self, InvalidDigest> {
        let layers = read.layers().iter().cloned();
        Ok(Self {
            schema_version: read.schema_version(),
            media_type: read.media_type().as_ref().map(ToString::to_string),
            artifact_type: read.artifact_type().as_ref().map(ToString::to_string),
            config: read.config().clone().try_into()?,
            layers: layers.map(TryInto::try_into).collect::<Result<_, _>>()?,
            annotations: sorted(read.annotations().as_ref()),
        })
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut manifest = oci::ImageManifestBuilder::default()
            .schema_version(self.schema_version)
            .config(&self.config)
            .layers(self.layers.iter().map(Into::into).collect::<Vec<_>>())
            .build()
            .map_err(serde::ser::Error::custom)?;
        manifest.set_media_type(self.media_type.as_deref().map(Into::into));
        manifest.set_artifact_type(self.artifact_type.as_deref().map(Into::into));
        manifest.set_annotations(unless_empty(&self.annotations));
        write(&manifest, serializer)
    }
}

/// An image index, or Docker's manifest list; also the `index.json` of an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "oci::ImageIndex")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Absent in indexes of old OCI tools.
    pub media_type: Option<String>,
    /// One a platform or a tag.
    pub manifests: Vec<Descriptor>,
    /// In the order of their keys.
    pub annotations: BTreeMap<String, String>,
}

impl TryFrom<oci::ImageIndex> for Index {
    type Error = InvalidDigest;

    fn try_from(read: oci::ImageIndex) -> Result<Self, InvalidDigest> {
        let manifests = read.manifests().iter().cloned();
        Ok(Self {
            schema_version: read.schema_version(),
            media_type: read.media_type().as_ref().map(ToString::to_string),
            manifests: manifests.map(TryInto::try_into).collect::<Result<_, _>>()?,
            annotations: sorted(read.annotations().as_ref()),
        })
    }
}

impl Serialize for Index {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut index = oci::ImageIndexBuilder::default()
            .schema_version(self.schema_version)
            .manifests(self.manifests.iter().map(Into::into).collect::<Vec<_>>())
            .build()
            .map_err(serde::ser::Error::custom)?;
        index.set_media_type(self.media_type.as_deref().map(Into::into));
        index.set_annotations(unless_empty(&self.annotations));
        write(&index, serializer)
    }
}

impl Index {
    /// An index that names nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }
}

/// The annotation by which an OCI layout's index names a tag (image-spec `annotations.md`).
pub const REF_NAME: &str = oci::ANNOTATION_REF_NAME;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_variant_is_the_same_on_every_machine() {
        let best = |wanted: &str, given: &[&str]| {
            let wanted: Platform = wanted.parse().unwrap();
            let given = given
                .iter()
                .map(|text| text.parse::<Platform>().unwrap())
                .filter(|given| wanted.accepts(given));
            given
                .min_by_key(|given| wanted.rank(given))
                .map(|best| best.to_string())
        };
        let amd = ["linux/amd64/v4", "linux/amd64/v3", "linux/amd64/v2"];
        let with_plain = [&amd[..], &["linux/amd64"]].concat();
        let arm = [
            "linux/arm/v6",
            "linux/arm/v8",
            "linux/arm/v7",
            "linux/arm/v5",
        ];
        for (wanted, given, expected) in [
            ("linux/amd64", &amd[..], Some("linux/amd64/v2")),
            ("linux/amd64", &with_plain, Some("linux/amd64")),
            ("linux/amd64/v3", &with_plain, Some("linux/amd64/v3")),
            (
                "linux/amd64/v3",
                &[amd[0], amd[2], "linux/amd64"],
                Some("linux/amd64/v2"),
            ),
            ("linux/amd64/v1", &with_plain, Some("linux/amd64")),
            ("linux/amd64/v1", &amd, None),
            ("linux/arm", &arm, Some("linux/arm/v7")),
            ("linux/arm/v7", &arm[..2], Some("linux/arm/v6")),
            (
                "linux/arm/v7",
                &["linux/arm/v6", "linux/arm"],
                Some("linux/arm"),
            ),
            ("linux/arm/v5", &arm[..3], None),
            (
                "linux/arm64",
                &["linux/arm64/v9", "linux/arm64/v8"],
                Some("linux/arm64/v8"),
            ),
            ("linux/arm64/v8", &["linux/arm64/odd"], None),
        ] {
            assert_eq!(
                best(wanted, given).as_deref(),
                expected,
                "{wanted} of {given:?}"
            );
        }
    }

    #[test]
    fn platforms_are_read_in_every_usual_spelling() {
        let parse = |text: &str| {
            text.parse::<Platform>()
                .map(|platform| platform.to_string())
        };
        assert_eq!(parse("linux/amd64"), Ok("linux/amd64".to_owned()));
        assert_eq!(parse("Linux/x86_64"), Ok("linux/amd64".to_owned()));
        assert_eq!(parse("linux/arm/v7"), Ok("linux/arm/v7".to_owned()));
        assert_eq!(parse("arm64"), Ok("linux/arm64".to_owned()));
        assert_eq!(parse("x86_64"), Ok("linux/amd64".to_owned()));
        for wrong in ["", "linux", "amd46", "linux/", "/amd64", "linux/arm/v7/x"] {
            assert_eq!(parse(wrong), Err(InvalidPlatform(wrong.to_owned())));
        }
    }
}
