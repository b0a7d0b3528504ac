//! Faults at random points: pushes and pulls through a proxy that lets things go wrong. What succeeds is
//! exactly the image; what fails says why; a tag never names anything else.
//!
//! This runs in one process, through the library: starting the tool thousands of times would be most of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyats_image_builder::digest::Digest;
use pyats_image_builder::manifest::Descriptor;
use pyats_image_builder::net::{self, Timing};
use pyats_image_builder::progress::Progress;
use pyats_image_builder::registry::{Blob, BlobPlace, Client, Content, Error, Options, Reference};
use pyats_image_builder::store::Store;
use serde_json::Value;

use crate::support::{Faults, Kind, Noise, Plan, Registry, noise};

/// The seed of the short run; the long one takes others.
const SEED: u64 = 20_240_501;

#[test]
fn a_hundred_faults() {
    run(100, SEED);
}

/// Pushes and pulls until so many faults have happened.
#[expect(clippy::print_stdout, reason = "it is what the test measured")]
pub(crate) fn run(wanted: u32, seed: u64) {
    let Some(registry) = Registry::start() else {
        return;
    };
    let directory = tempfile::tempdir().expect("a folder");
    let layers = [(1, 900), (2, 20_000), (3, 120_000), (4, 700_000)];
    let images = [1, 3, 4].map(|count| {
        let tag = count.to_string();
        noise(&directory.path().join("noise"), &tag, &layers[..count])
    });
    let stall = Duration::from_millis(1500);
    let plan = Plan {
        seed,
        chance: 350,
        kinds: Kind::ALL.to_vec(),
        calm: 4,
        silence: stall * 3 / 2,
    };
    let faults = Faults::start(registry.port(), plan);
    let (mut done, mut failed) = (0, Vec::new());
    let began = Instant::now();
    for round in 0.. {
        let hurt = faults.total() - faults.done().get(&Kind::Redirect).copied().unwrap_or(0);
        if hurt >= wanted {
            break;
        }
        let image = &images[round % images.len()];
        // Of blobs that are sent side by side one could meet with all the faults, so these get more pause.
        let (jobs, calm) = if round % 3 == 2 { (4, 40) } else { (1, 4) };
        faults.calm(calm);
        let client = client(stall, jobs);
        let scene = format!("seed {seed}, round {round}");
        let repository = format!("team/round{round}");
        let at = |host: String| -> Reference {
            let name = format!("{host}/{repository}:1");
            name.parse().expect("a reference")
        };
        let (far, near) = (at(faults.host()), at(registry.host()));
        let store = |name: &str| {
            let path = directory.path().join(format!("{name}{round}"));
            Store::open(&path).expect("the folder is ours")
        };

        let told = |what: &str, error: &Error| {
            let requests = registry.requests();
            let own = requests
                .iter()
                .filter(|one| one.path.contains(&format!("{repository}/")));
            let lines = own.map(|one| {
                let path = one.path.split("_state=").next().unwrap_or_default();
                format!("  {} {path} {}", one.method, one.status)
            });
            let lines: Vec<String> = lines.collect();
            format!("{scene}: {what}: {}\n{}", words(error), lines.join("\n"))
        };
        let pushed = push(&client, image, &far, &store("push"));
        let tagged = registry.tagged(&repository, "1");
        assert!(
            pushed.is_err() || tagged.is_some(),
            "{scene}: nothing is there"
        );
        if tagged.is_some() {
            // Without any fault, so that what is there is what is seen.
            let calm = self::client(Duration::from_secs(30), 4);
            let right = pull(&calm, image, &near, &store("check"));
            right.unwrap_or_else(|error| panic!("{scene}: a tag names half an image: {error}"));
            let pulled = pull(&client, image, &far, &store("pull"));
            done += 1;
            failed.extend(pulled.err().map(|error| told("pull", &error)));
        }
        done += 1;
        failed.extend(pushed.err().map(|error| told("push", &error)));
        for name in ["push", "check", "pull"] {
            let _ = fs_err::remove_dir_all(directory.path().join(format!("{name}{round}")));
        }
    }
    println!(
        "seed {seed}: {done} pushes and pulls in {} s, {:?}",
        began.elapsed().as_secs(),
        faults.done()
    );
    println!("{}", failed.join("\n"));
    assert_eq!(faults.leaks(), 0, "a login went elsewhere");
    assert!(
        failed.len() * 100 <= done,
        "seed {seed}: {} of {done} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

fn client(stall: Duration, jobs: usize) -> Client {
    let timing = Timing {
        connect: Duration::from_secs(5),
        stall,
        backoff: Duration::from_millis(2),
        ..Timing::default()
    };
    let net = net::Client::with_timing(net::Options::default(), timing);
    let options = Options {
        jobs,
        ..Options::default()
    };
    Client::new(options, Arc::new(net))
}

/// An error as people see it.
fn words(error: &Error) -> String {
    let text = error.to_string();
    assert!(
        text.contains("localhost:"),
        "an error does not say where: {text}"
    );
    text
}

fn descriptor(value: &Value) -> Descriptor {
    serde_json::from_value(value.clone()).expect("a descriptor")
}

fn root(image: &Noise) -> (Descriptor, Vec<Descriptor>) {
    let manifest: Value = serde_json::from_slice(&image.manifest).expect("JSON");
    let layers = manifest["layers"].as_array().expect("layers");
    let blobs = layers.iter().chain([&manifest["config"]]).map(descriptor);
    let media_type = manifest["mediaType"].as_str().expect("it has one");
    let digest: Digest = image.digest.parse().expect("a digest");
    let root = Descriptor::new(media_type, digest, image.manifest.len() as u64);
    (root, blobs.collect())
}

fn push(client: &Client, image: &Noise, to: &Reference, store: &Store) -> Result<(), Error> {
    let (root, blobs) = root(image);
    let path = |blob: &Descriptor| -> std::path::PathBuf {
        let blobs: &Path = &image.layout.join("blobs/sha256");
        blobs.join(blob.digest.hex())
    };
    let content = Content {
        documents: vec![(root, image.manifest.clone())],
        blobs: blobs
            .iter()
            .map(|blob| Blob {
                descriptor: blob.clone(),
                place: BlobPlace::Store(path(blob)),
            })
            .collect(),
    };
    client.push(&content, to, store, &Progress::silent())
}

/// Pulls; what succeeds is exactly the image.
fn pull(client: &Client, image: &Noise, from: &Reference, store: &Store) -> Result<(), Error> {
    let (_, blobs) = root(image);
    let document = client.document(from, None, &Progress::silent())?;
    assert_eq!(document.bytes, image.manifest, "{from}");
    client.fetch(from, &blobs, store, &Progress::silent())?;
    for blob in &blobs {
        let mut reader = store.open_blob(blob).expect("it was fetched");
        std::io::copy(&mut reader, &mut std::io::sink()).expect("its digest is right");
    }
    Ok(())
}
