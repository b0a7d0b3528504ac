//! A program that is not the tool's own builds by the library: several builds at once in one process, one of which is
//! stopped.
//!
//! It has no test harness, since its `main` has to be the runner's helper process as well.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "this is a test harness"
)]

#[expect(
    dead_code,
    unused_imports,
    reason = "the integration tests need all of it"
)]
mod support;

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use pyats_image_builder::{
    Ended, Event, Kind, Options, Progress, RunOptions, build, find, helper, run, tag,
};

use support::{base_layout, verify};

/// What nextest lists and asks for.
const TEST: &str = "builds_side_by_side";

fn main() {
    helper();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    if has("--list") {
        if !has("--ignored") {
            println!("{TEST}: test");
        }
    } else if let Some(layout) = base_layout() {
        builds_side_by_side(&layout);
    }
}

fn builds_side_by_side(layout: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let [good, other, stopped] = [
        ("good", "RUN echo 1"),
        ("other", "RUN echo 2"),
        ("stopped", "RUN echo step-$((40 + 2)) && sleep 600"),
    ]
    .map(|(name, steps)| options(folder.path(), layout, name, steps));
    let (runs, its_step) = mpsc::channel();
    let progress = Progress::new(move |event| {
        if matches!(event, Event::Output { line } if line == "step-42") {
            runs.send(()).unwrap();
        }
    });
    let silent = Progress::silent();
    thread::scope(|scope| {
        let builds = [(&good, &silent), (&other, &silent), (&stopped, &progress)];
        let [good, other, stopped] =
            builds.map(|(options, progress)| scope.spawn(|| build(options, progress)));
        its_step.recv().unwrap();
        progress.stop();
        let error = stopped.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted, "{error}");
        for build in [good, other] {
            let outcome = build.join().unwrap().unwrap();
            assert_eq!(outcome.image.unwrap().tags, outcome.plan.references);
        }
    });

    // The images are there, one under two names, and nothing else is.
    let store = good.store.as_deref();
    tag("good", &["again:2".to_owned()], store).unwrap();
    let image = find("again:2", store, &silent).unwrap();
    let tags = ["good:latest", "again:2"];
    assert_eq!(
        image.tags,
        tags.map(|name| format!("docker.io/library/{name}"))
    );
    assert_eq!(image.inspect()["RepoTags"], serde_json::json!(tags));
    let written = verify(&folder.path().join("good.oci"), "latest");
    assert_eq!(written.digest, image.manifest.digest.to_string());
    let error = find("stopped", store, &silent).unwrap_err();
    assert_eq!(error.kind(), Kind::NoImage);
    let scratch = fs_err::read_dir(folder.path().join("store/tmp")).unwrap();
    assert_eq!(scratch.count(), 0);

    let options = RunOptions {
        store: good.store.clone(),
        command: ["sh", "-c", "exit 3"].map(Into::into).to_vec(),
        ..RunOptions::new("again:2")
    };
    assert_eq!(run(&options, &silent).unwrap(), Ended::Exited(3));
    // The wish to stop stays.
    let error = build(&good, &progress).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted, "{error}");
}

fn options(folder: &Path, layout: &Path, name: &str, steps: &str) -> Options {
    let file = folder.join(format!("{name}.yaml"));
    let text = format!("{{tag: {name}, system-packages: [], cmds: {{pre: '{steps}'}}}}");
    fs_err::write(&file, text).unwrap();
    let output = format!("oci-dir:{}/{name}.oci", folder.display());
    Options {
        base: Some(format!("oci:{}:3.11-slim", layout.display())),
        outputs: vec![output.parse().unwrap()],
        store: Some(folder.join("store")),
        ..Options::new(file)
    }
}
