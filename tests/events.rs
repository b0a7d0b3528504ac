//! What `--progress json` gives programs that watch: kinds of errors.

use serde_json::Value;

use crate::support::{Bench, User, base_layout};

/// Builds and commands that fail, and the kinds of their errors; `BASE` is an image.
const FAILURES: [(&str, &str, &[&str]); 12] = [
    ("build-file", "pakages: [a]", &["build.yaml"]),
    ("build-file", "snapshot: missing", &["build.yaml"]),
    (
        "build-file",
        "cmds: {post: 'COPY --from=other a b'}",
        &["build.yaml"],
    ),
    ("options", "tag: a", &["build.yaml", "-t", "No Tag"]),
    (
        "options",
        "tag: a",
        &["build.yaml", "--ca-cert", "build.yaml"],
    ),
    ("no-image", "", &["inspect", "nothing:1"]),
    ("no-image", "", &["push", "sha256:0123456789abcdef"]),
    ("sources", "files: [missing]", &["build.yaml"]),
    ("base", "tag: a", &["build.yaml", "--base", "oci:missing"]),
    (
        "step",
        "{base: 'BASE', system-packages: [], cmds: {pre: 'RUN echo some words && exit 3'}}",
        &["build.yaml"],
    ),
    ("push", "", &["push", "BASE", "127.0.0.1:1/image:1"]),
    (
        "storage",
        "tag: a",
        &["build.yaml", "-o", "oci-archive:missing/image.tar"],
    ),
];

#[test]
fn errors_have_kinds() {
    let Some(layout) = base_layout() else { return };
    let base = format!("oci:{}:3.11-slim", layout.display());
    let bench = Bench::current();
    for (kind, text, arguments) in FAILURES {
        bench.write("build.yaml", text.replace("BASE", &base));
        let arguments = arguments.iter().map(|word| word.replace("BASE", &base));
        let error = error_of(&bench, arguments);
        assert_eq!(error["kind"], kind, "{error}");
        assert!(!error["message"].as_str().expect("a text").is_empty());
        assert!(error["causes"].is_array() && error["tail"].is_array());
        assert!(error["hint"].is_string() || error["hint"].is_null());
        if kind == "step" {
            assert_eq!(error["tail"], serde_json::json!(["some words"]));
        }
    }
}

#[test]
fn a_rung_that_cannot_be_had_is_an_error_of_the_sandbox() {
    let Some(bench) = Bench::new(User::Plain) else {
        return;
    };
    bench.write("build.yaml", "tag: a");
    let arguments = ["build.yaml", "--runner", "root"].map(str::to_owned);
    let error = error_of(&bench, arguments);
    assert_eq!(error["kind"], "sandbox", "{error}");
    assert!(error["hint"].is_string(), "{error}");
}

/// The last event of a command that fails.
fn error_of(bench: &Bench, arguments: impl IntoIterator<Item = String>) -> Value {
    let progress = ["--progress", "json"].map(str::to_owned);
    let run = bench.run(progress.into_iter().chain(arguments));
    assert_ne!(run.status(), Some(0));
    let event = |line| serde_json::from_str::<Value>(line).expect("every line is JSON");
    let events: Vec<_> = run.stderr().lines().map(event).collect();
    let is_error = |event: &&Value| event["event"] == "error";
    assert_eq!(events.iter().filter(is_error).count(), 1, "{events:?}");
    events.last().filter(is_error).expect("an error").clone()
}
