//! An entry as an OCI artifact: its only layer is the step's own blob, annotations say the rest.
//!
//! Whoever can write where artifacts lie can have any layer taken for a step's, unless entries have to be signed with a
//! key that only trusted builds have ([`Seal`]).

use std::collections::BTreeMap;

use ring::hmac;

use super::{Entry, Origin};
use crate::digest::{DiffId, Digest};
use crate::manifest::{Descriptor, Layer, Manifest, media_type};
use crate::store;

/// Says what the artifact is (image-spec `manifest.md`, "artifactType").
const ARTIFACT_TYPE: &str = "application/vnd.pyats-image-build.step.v1";
/// The blob of an artifact that has nothing to say in one.
pub const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// Annotations of an entry.
const NAME: &str = oci_spec::image::ANNOTATION_TITLE;
const DIFF_ID: &str = "io.github.pyats-image-build.diff-id";
const ANSWER: &str = "io.github.pyats-image-build.answer";
const AT: &str = "io.github.pyats-image-build.created";
const SIGNATURE: &str = "io.github.pyats-image-build.signature";

/// How entries are signed, if they are. Without a key all are written unsigned, and taken as they are.
#[derive(Debug, Clone, Default)]
pub struct Seal {
    key: Option<SealKey>,
}

#[derive(Debug, Clone)]
struct SealKey {
    hmac: hmac::Key,
    /// Tells keys apart, and nothing else of them.
    id: String,
}

impl Seal {
    /// Signs entries with a key (HMAC-SHA-256), and takes no others.
    #[must_use]
    pub fn with_key(key: &[u8]) -> Self {
        let hmac = hmac::Key::new(hmac::HMAC_SHA256, key);
        let id = hmac::sign(&hmac, b"pyats-image-build key id");
        let id = hex::encode(&id.as_ref()[..16]);
        Self {
            key: Some(SealKey { hmac, id }),
        }
    }

    /// Names the key, if there is one.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.id.as_str())
    }

    /// Whether an entry of the store counts, and may be signed: with a key, only if it was made here or signed with that key.
    #[must_use]
    pub(crate) fn trusts(&self, entry: &Entry) -> bool {
        match (self.key_id(), &entry.origin) {
            (None, _) | (Some(_), Some(Origin::Made)) => true,
            (Some(own), Some(Origin::Verified(id))) => own == id,
            (Some(_), None) => false,
        }
    }

    /// The artifact of an entry. [`EMPTY`] may be one of its blobs. Only what the seal [trusts](Self::trusts) is to be written.
    #[must_use]
    pub(crate) fn write(&self, key: &Digest, entry: &Entry) -> Manifest {
        let mut annotations = BTreeMap::from([
            (NAME.to_owned(), entry.name.clone()),
            (AT.to_owned(), entry.at.to_string()),
        ]);
        let mut annotate = |name: &str, value| annotations.insert(name.to_owned(), value);
        if let Some(layer) = &entry.layer {
            annotate(DIFF_ID, layer.diff_id.to_string());
        }
        if let Some(answer) = &entry.answer {
            annotate(ANSWER, answer.clone());
        }
        if let Some(own) = &self.key {
            let signature = hmac::sign(&own.hmac, &words(key, entry));
            annotate(SIGNATURE, hex::encode(signature));
        }
        let empty = Descriptor::new(EMPTY_TYPE, Digest::of(EMPTY), EMPTY.len() as u64);
        let layer = entry.layer.as_ref().map(|layer| layer.descriptor.clone());
        Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: Some(ARTIFACT_TYPE.to_owned()),
            config: empty.clone(),
            layers: vec![layer.unwrap_or(empty)],
            annotations,
        }
    }

    /// The entry of an artifact, if it is one for this key, and is to be trusted.
    #[must_use]
    pub(crate) fn read(&self, key: &Digest, manifest: &Manifest) -> Option<Entry> {
        let annotation = |name: &str| manifest.annotations.get(name);
        let layer = match &manifest.layers[..] {
            [empty] if empty.media_type == EMPTY_TYPE => None,
            [descriptor] => Some(Layer {
                descriptor: descriptor.clone(),
                diff_id: DiffId(annotation(DIFF_ID)?.parse().ok()?),
            }),
            _ => return None,
        };
        let entry = Entry {
            name: annotation(NAME)?.clone(),
            layer,
            answer: annotation(ANSWER).cloned(),
            at: annotation(AT)?.parse().ok()?,
            origin: None,
        };
        let Some(own) = &self.key else {
            return Some(entry);
        };
        let signature = hex::decode(annotation(SIGNATURE)?).ok()?;
        hmac::verify(&own.hmac, &words(key, &entry), &signature).ok()?;
        Some(Entry {
            origin: Some(Origin::Verified(own.id.clone())),
            ..entry
        })
    }
}

/// What is signed: all that is taken from an entry, and the key that it is for.
fn words(key: &Digest, entry: &Entry) -> Vec<u8> {
    let entry = Entry {
        origin: None,
        ..entry.clone()
    };
    store::json(&("pyats-image-build step", key, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_written_and_signed_for_this_key() {
        let key = Digest::of(b"key");
        let blob = Digest::of(b"blob");
        let layer = Layer {
            descriptor: Descriptor::new(media_type::OCI_LAYER_GZIP, blob, 4),
            diff_id: DiffId(Digest::of(b"tar")),
        };
        let entries = [
            Entry::new("step").with_layer(Some(layer)),
            Entry::new("nothing"),
            Entry::new("question").with_answer(""),
        ];
        let (open, sealed) = (Seal::default(), Seal::with_key(&[7; 32]));
        let id = sealed.key_id().unwrap().to_owned();
        for entry in entries {
            let with = |origin| Entry {
                origin,
                ..entry.clone()
            };
            let manifest = open.write(&key, &entry);
            assert_eq!(open.read(&key, &manifest), Some(with(None)));
            assert_eq!(sealed.read(&key, &manifest), None);
            let manifest = sealed.write(&key, &entry);
            let verified = with(Some(Origin::Verified(id.clone())));
            assert_eq!(sealed.read(&key, &manifest).as_ref(), Some(&verified));
            assert!(sealed.trusts(&verified) && sealed.trusts(&entry));
            assert!(!Seal::with_key(&[8; 32]).trusts(&verified));
            assert!(!sealed.trusts(&with(None)) && open.trusts(&with(None)));
            assert_eq!(sealed.read(&Digest::of(b"other"), &manifest), None);
            assert_eq!(Seal::with_key(&[8; 32]).read(&key, &manifest), None);
            // Each thing that is taken from an artifact is signed.
            for name in manifest.annotations.keys() {
                let mut changed = manifest.clone();
                changed.annotations.insert(name.clone(), "1".to_owned());
                assert_eq!(sealed.read(&key, &changed), None, "{name}");
            }
            let mut changed = manifest.clone();
            changed.layers[0].digest = Digest::of(b"evil");
            let is_empty = entry.layer.is_none();
            assert_eq!(sealed.read(&key, &changed).is_some(), is_empty);
        }
    }
}
