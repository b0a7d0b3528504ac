//! The client against a server that misbehaves on purpose.

pub(crate) mod server;

mod blobs;
mod login;
mod mirrors;
mod names;
mod tokens;
mod trust;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use super::{Client, Error, Options, Reference};
use crate::digest::Digest;
use crate::manifest::{Descriptor, media_type};
use crate::net::{self, Timing};
use crate::progress::Progress;
use crate::store::Store;
use server::Server;

/// A client that is as persistent as the real one, but in a hurry.
pub(crate) fn client() -> Client {
    client_with(net::Options::default(), Timing::default().stall)
}

fn client_with(options: net::Options, stall: Duration) -> Client {
    let timing = Timing {
        backoff: Duration::from_millis(1),
        stall,
        ..Timing::default()
    };
    let net = net::Client::with_timing(options, timing);
    Client::new(Options::default(), Arc::new(net))
}

fn reference(server: &Server) -> Reference {
    format!("{}/team/image:1", server.address).parse().unwrap()
}

/// Bytes that no compression or repetition makes easy, the same in each run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, Digest::of(bytes), bytes.len() as u64)
}

/// A store, and what is left in its scratch space.
struct Place {
    _directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Self {
            _directory: directory,
            store,
        }
    }

    fn assert_clean(&self) {
        let left: Vec<_> = fs_err::read_dir(self.store.root().join("tmp"))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// Fetches one blob; checks that it is whole or absent, and that nothing is left behind.
fn fetch(client: &Client, server: &Server, blob: &Descriptor) -> Result<(), Error> {
    let place = Place::new();
    let result = client.fetch(
        &reference(server),
        std::slice::from_ref(blob),
        &place.store,
        &Progress::silent(),
    );
    place.assert_clean();
    assert_eq!(place.store.blob_path(&blob.digest).exists(), result.is_ok());
    if result.is_ok() {
        std::io::copy(
            &mut place.store.open_blob(blob).unwrap(),
            &mut std::io::sink(),
        )
        .unwrap();
    }
    result
}
