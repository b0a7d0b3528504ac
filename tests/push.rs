//! Pushes, and pulls of what was pushed, against registries as people have them.

/// Bad days: cuts, lies, lost sessions, tokens that end.
mod days;
/// Every kind of image; what is there already is not sent again.
mod images;
/// Where logins come from, and who may do what.
mod logins;
/// Faults at random points.
pub(crate) mod matrix;
/// Mirrors and policy.
mod mirrors;
/// The proxy of bad days.
mod proxy;
/// What is refused: one clear error, and nothing under the tag.
mod refusals;
/// The servers themselves, shown to do what they promise by other people's clients.
mod servers;
/// Every kind of registry.
mod setups;

use std::process::Command;

use fs_err as fs;

use crate::support::{
    Account, Bench, Noise, Policy, Registry, Run, noise, skopeo_manifest, verify, without_proxies,
};

/// The push failed.
const FAILED: i32 = 1;
/// The request itself is wrong.
const USAGE: i32 = 2;

/// A small image of three layers.
fn small(bench: &Bench) -> Noise {
    let image = noise(
        &bench.path("noise"),
        "1",
        &[(1, 5000), (2, 70_000), (3, 300_000)],
    );
    assert_eq!(verify(&image.layout, "1").digest, image.digest);
    image
}

/// The tool, without the machine's proxies.
fn tool(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = bench.tool(arguments);
    without_proxies(&mut command);
    command
}

/// Pushes an image that has to arrive as it is, with `options`.
fn push(bench: &Bench, options: &[&str], image: &Noise, reference: &str) {
    let source = image.image();
    let arguments = [&["push"], options, &[&source, reference]].concat();
    let run = bench.finish(&mut tool(bench, &arguments));
    assert_eq!(run.line(), format!("{reference}@{}", image.digest));
}

/// Holds that a registry has exactly the image, by the bytes of its manifest, through an open way to it.
fn arrived(bench: &Bench, image: &Noise, reference: &str) {
    let manifest = skopeo_manifest(bench, &format!("docker://{reference}"));
    assert_eq!(manifest, image.manifest, "{reference}");
}

/// Pulls what has to be exactly the image, into a new store: as a base, in which no step can be run.
fn pull(options: &[&str], image: &Noise, reference: &str) {
    let bench = Bench::current();
    let run = pull_run(&bench, options, reference);
    let said = run.refusal(FAILED);
    assert!(said.contains("`virtual environment`"), "{said}");
    let blob = |digest: &str| bench.store().join("blobs").join(digest.replace(':', "/"));
    let manifest = fs::read(blob(&image.digest)).expect("the manifest is in the store");
    assert_eq!(manifest, image.manifest);
    // The bench looks at their bytes when it goes.
    assert!(image.layers.iter().all(|layer| blob(layer).exists()));
}

/// A pull that may fail.
fn pull_run(bench: &Bench, options: &[&str], reference: &str) -> Run {
    bench.write(
        "build.yaml",
        "tag: x:1\npython: 3.11\nsystem-packages: []\n",
    );
    let base = ["build.yaml", "--pull", "always", "--base", reference];
    bench.finish(&mut tool(bench, &[&base, options].concat()))
}

/// Holds that a run failed with one error that has the words, and with no secret (all hold `pa55`); returns
/// what it said.
fn refused(run: &Run, status: i32, words: &[&str]) -> String {
    let said = run.refusal(status).to_owned();
    let errors = said.lines().filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{said}");
    assert!(
        !said.contains("panicked") && !said.contains("pa55"),
        "{said}"
    );
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in:\n{said}");
    }
    said
}

/// A push that has to be refused, and that leaves nothing under the tag.
fn push_refused(
    bench: &Bench,
    options: &[&str],
    image: &Noise,
    (registry, reference): (&Registry, &str),
    words: &[&str],
) -> String {
    let source = image.image();
    let arguments = [&["push"], options, &[&source, reference]].concat();
    let run = bench.finish(&mut tool(bench, &arguments));
    let (repository, tag) = reference.rsplit_once(':').expect("it has a tag");
    let (_, repository) = repository.split_once('/').expect("it has a host");
    let said = refused(&run, FAILED, words);
    assert_eq!(registry.tagged(repository, tag), None, "{said}");
    said
}

/// A writer and a reader of `team/image`, and everybody's `public/image`.
fn policy(past: u64) -> Policy {
    let account = |name, password, actions| Account {
        name,
        password,
        rights: vec![("team/image", actions), ("team/base", "pull")],
    };
    Policy {
        users: vec![
            account("writer", "pa55-w", "pull,push"),
            account("reader", "pa55-r", "pull"),
        ],
        anonymous: vec![("public/image", "pull")],
        past,
    }
}
