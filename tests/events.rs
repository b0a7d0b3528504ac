//! What `--progress json` gives programs that watch: kinds of errors; and what becomes of a build that nobody
//! watches any more.

use std::io::{BufRead, BufReader, Read, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Bench, User, base_layout, send, serve_base};

/// Builds and commands that fail, and the kinds of their errors; `BASE` is an image.
const FAILURES: [(&str, &str, &[&str]); 13] = [
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
    ("no-image", "", &["inspect", "oci:missing"]),
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
fn a_runner_that_cannot_be_had_is_an_error_of_the_sandbox() {
    let Some(bench) = Bench::new(User::Plain) else {
        return;
    };
    bench.write("build.yaml", "tag: a");
    let arguments = ["build.yaml", "--runner", "root"].map(str::to_owned);
    let error = error_of(&bench, arguments);
    assert_eq!(error["kind"], "sandbox", "{error}");
    assert!(error["hint"].is_string(), "{error}");
}

#[test]
fn an_interruption_is_a_kind_of_its_own() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    let (reader, writer) = pipe().expect("pipes can be had");
    let mut reader = BufReader::new(reader);
    let mut child = start(&bench, &base, ["600", "json"], &mut reader, writer.into());
    send(&child, "TERM");
    let last = reader.lines().map_while(Result::ok).last();
    let last: Value = serde_json::from_str(&last.expect("a line")).expect("JSON");
    assert_eq!(last["event"], "error", "{last}");
    assert_eq!(last["kind"], "interrupted", "{last}");
    assert_eq!(child.wait().expect("ours").code(), Some(143));
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

#[test]
fn a_build_that_nobody_watches_any_more_stops() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    for (user, is_socket) in User::ALL.into_iter().zip([false, true, false]) {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        let build = |reader: Box<dyn Read>, writer: OwnedFd| {
            start_and_leave(&bench, &base, ["600", "json"], reader, writer)
        };
        let mut child = if is_socket {
            let (reader, writer) = UnixStream::pair().expect("sockets can be had");
            build(Box::new(reader), writer.into())
        } else {
            let (reader, writer) = pipe().expect("pipes can be had");
            build(Box::new(reader), writer.into())
        };
        let began = Instant::now();
        let status = child.wait().expect("ours").code();
        assert_eq!(status, Some(129), "{user:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{user:?}");
        // Scratch in the store the bench finds when it goes.
        bench.is_deserted(&format!("{user:?}"));
    }
}

#[test]
fn a_signal_to_a_build_that_stops_already_is_its_first() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    let (reader, writer) = pipe().expect("pipes can be had");
    let (times, reader) = (["600", "json"], Box::new(reader));
    let mut child = start_and_leave(&bench, &base, times, reader, writer.into());
    // Long enough to be seen, and too short for all to be cleared.
    std::thread::sleep(Duration::from_millis(10));
    send(&child, "TERM");
    let status = child.wait().expect("ours").code();
    assert!(matches!(status, Some(129 | 143)), "{status:?}");
    bench.is_deserted("after SIGTERM");
}

#[test]
fn a_build_whose_lines_nobody_reads_goes_on() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    let (reader, writer) = pipe().expect("pipes can be had");
    let (times, reader) = (["1", "plain"], Box::new(reader));
    let mut child = start_and_leave(&bench, &base, times, reader, writer.into());
    assert_eq!(child.wait().expect("ours").code(), Some(0));
}

/// Starts a build whose step takes some seconds, and closes its standard error once that runs.
fn start_and_leave(
    bench: &Bench,
    base: &str,
    how: [&str; 2],
    reader: Box<dyn Read>,
    writer: OwnedFd,
) -> Child {
    start(bench, base, how, &mut BufReader::new(reader), writer)
}

/// Starts a build whose step takes some `seconds`, and reads its standard error until that runs.
fn start(
    bench: &Bench,
    base: &str,
    [seconds, progress]: [&str; 2],
    reader: &mut impl BufRead,
    writer: OwnedFd,
) -> Child {
    let build = format!(
        "{{system-packages: [], cmds: {{pre: 'RUN echo step-$((40 + 2)) && sleep {seconds}'}}}}"
    );
    bench.write("build.yaml", build);
    let child = bench
        .tool(["build.yaml", "--base", base, "-v", "--progress", progress])
        .stdout(Stdio::null())
        .stderr(writer)
        .spawn()
        .expect("it starts");
    let mut seen = String::new();
    for line in reader.lines().map_while(Result::ok) {
        seen += &(line + "\n");
        if seen.contains("step-42") {
            break;
        }
    }
    assert!(seen.contains("step-42"), "no step runs:\n{seen}");
    child
}
