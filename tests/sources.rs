//! Sources of all kinds together: side by side, which error is told, again and offline.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use serde_json::Value;

use crate::support::{Bench, Stage, base_layout, succeed};

/// A server whose every answer takes its time: `/NUMBER/…` that many milliseconds, and a file that says
/// so, or `404 Not Found` for `/NUMBER/missing`.
struct Slow {
    address: std::net::SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Slow {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let requests = Arc::<AtomicUsize>::default();
        let counted = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = counted.clone();
                std::thread::spawn(move || answer(stream, &counted));
            }
        });
        Self { address, requests }
    }

    fn url(&self, milliseconds: u64, name: &str) -> String {
        format!("http://{}/{milliseconds}/{name}", self.address)
    }
}

fn answer(mut stream: TcpStream, requests: &AtomicUsize) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    while !lines.next()?.ok()?.is_empty() {}
    requests.fetch_add(1, Ordering::Relaxed);
    let milliseconds = path.split('/').nth(1)?.parse().ok()?;
    std::thread::sleep(Duration::from_millis(milliseconds));
    let status = if path.ends_with("/missing") {
        "404 Not Found"
    } else {
        "200 OK\r\nETag: \"it\""
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        path.len()
    );
    stream.write_all((head + &path).as_bytes()).ok()?;
    stream.flush().ok()
}

/// A folder with an entry of every kind that patterns have to tell apart.
fn folder(bench: &Bench) {
    for name in [
        "top.pyc",
        "keep.py",
        "sub/deep.pyc",
        "sub/kept.py",
        ".git/config",
        "out/a/b",
        "out/a/c",
        "out/d",
    ] {
        bench.write(&format!("jobs/{name}"), name);
    }
    // What is left out is not looked at.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bench.path("jobs/.git/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("ours");
}

/// Files below a folder, sorted.
fn listed(folder: &Path) -> Vec<String> {
    let mut command = Command::new("find");
    command.args([".", "-mindepth", "1"]).current_dir(folder);
    let mut names: Vec<String> = succeed(&mut command)
        .lines()
        .map(|line| line[2..].to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn folders_are_copied_but_for_what_is_excluded() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    folder(&bench);
    let stage = Stage::new(&bench);
    let workspace = stage.workspace(
        "files:\n  - {path: jobs, exclude: [.git, '*.pyc', out]}\n  - other/name: {path: jobs, exclude: [.git, '**/*.pyc', out, '!out/a/b']}",
    );
    let kept = ["keep.py", "sub", "sub/deep.pyc", "sub/kept.py"];
    assert_eq!(listed(&workspace.join("jobs")), kept);
    let kept = ["keep.py", "out", "out/a", "out/a/b", "sub", "sub/kept.py"];
    assert_eq!(listed(&workspace.join("other/name")), kept);

    // The folder's own file counts as well, and the build file has the last word.
    bench.write("jobs/.dockerignore", "# comment\n.git\nout\n**/*.pyc\n");
    let run = stage.run("files: [jobs]");
    let said = run.stderr();
    assert_eq!(run.status(), Some(0), "{said}");
    assert!(
        said.contains("`jobs/.dockerignore` leaves out 4 files and folders"),
        "{said}"
    );
    let _ = run.stdout();
    let jobs = bench.path("context/image/workspace/jobs");
    let kept = [".dockerignore", "keep.py", "sub", "sub/kept.py"];
    assert_eq!(listed(&jobs), kept);
    stage.workspace("files: [{path: jobs, exclude: [.dockerignore, '!top.pyc']}]");
    assert_eq!(listed(&jobs), ["keep.py", "sub", "sub/kept.py", "top.pyc"]);
}

#[test]
fn exclusions_that_mean_nothing_are_refused() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    folder(&bench);
    let stage = Stage::new(&bench);
    stage.refused(
        "files: [{path: jobs/keep.py, exclude: ['*.pyc']}]",
        &[
            "`files[0]`",
            "`jobs/keep.py` is no folder",
            "remove `exclude`",
        ],
    );
    stage.refused(
        "files: [{path: jobs, exclude: ['a[']}]",
        &["`files[0]`", "`a[` is not a pattern", "no `]`"],
    );
    bench.write("jobs/.dockerignore", "out/a[\n");
    stage.refused(
        "files: [jobs]",
        &["`files[0]`", "`.dockerignore` is malformed", "`out/a[`"],
    );
    for (text, words) in [
        ("[{path: jobs, exlude: [a]}]", "did you mean `exclude`?"),
        ("[{exclude: [a]}]", "`files[0]` has no `path`"),
        (
            "[{path: 'http://h/f', exclude: [a]}]",
            "nothing can be excluded",
        ),
    ] {
        let run = stage.run(&format!("files: {text}"));
        let error = run.refusal(2);
        assert!(error.contains(words), "{text}: {error}");
    }
}

/// Seconds from the beginning of the first fetch to the end of the last.
fn fetching(events: &str) -> f64 {
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).expect("events are JSON"))
        .collect();
    let is_fetch = |event: &&Value| {
        event["label"]
            .as_str()
            .is_some_and(|label| label.starts_with("fetch `"))
    };
    let began: Vec<&Value> = events.iter().filter(is_fetch).collect();
    let ids: Vec<&Value> = began.iter().map(|event| &event["id"]).collect();
    let ended = events
        .iter()
        .filter(|event| event["event"] == "finished" && ids.contains(&&event["id"]));
    let time = |event: &Value| event["time"].as_f64().expect("events have times");
    let first = began
        .iter()
        .map(|event| time(event))
        .fold(f64::MAX, f64::min);
    ended.map(time).fold(0.0, f64::max) - first
}

#[test]
fn twenty_slow_sources_take_less_than_a_quarter_of_the_time() {
    let server = Slow::start();
    let bench = Bench::current();
    let files: Vec<String> = (0..20)
        .map(|number| format!("  - {}\n", server.url(100, &format!("file{number}"))))
        .collect();
    let text = format!("files:\n{}", files.concat());
    let time = |options: &[&str]| {
        let mut stage = Stage::new(&bench).option("--no-cache");
        for option in ["--progress", "json"].iter().chain(options) {
            stage = stage.option(*option);
        }
        let run = stage.run(&text);
        assert_eq!(run.status(), Some(0), "{}", run.stderr());
        run.stdout();
        fetching(run.stderr())
    };
    let one_by_one = time(&["--jobs", "1"]);
    let side_by_side = time(&[]);
    assert!(
        one_by_one >= 2.0,
        "20 times 100 ms cannot take {one_by_one} s"
    );
    assert!(
        side_by_side < one_by_one / 4.0,
        "{side_by_side} s side by side, {one_by_one} s one by one"
    );
    let workspace = bench.path("context/image/workspace");
    for number in 0..20 {
        let name = format!("file{number}");
        let text = fs::read_to_string(workspace.join(&name)).expect("it was staged");
        assert_eq!(text, format!("/100/{name}"));
    }
}

#[test]
fn the_first_failure_of_the_build_file_is_told_whichever_comes_first() {
    let server = Slow::start();
    let bench = Bench::current();
    let url = |milliseconds, name| server.url(milliseconds, name);
    let files = format!(
        "files:\n  - {}\n  - a: {}\n  - b: {}\n  - {}\n",
        url(0, "fine"),
        url(700, "missing"),
        url(0, "missing"),
        url(20_000, "late"),
    );
    let began = Instant::now();
    let run = Stage::new(&bench).run(&files);
    let error = run.refusal(1);
    assert!(error.contains("`files[1]`"), "{error}");
    assert!(error.contains("/700/missing"), "{error}");
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "what comes after a failure is not waited for"
    );
    let context = bench.path("context");
    assert!(
        context
            .join("image/workspace/fine")
            .symlink_metadata()
            .is_err(),
        "nothing is staged before all is there"
    );
}

#[test]
fn what_was_fetched_is_kept() {
    let server = Slow::start();
    let bench = Bench::current();
    let text = format!("files: ['{}']\n", server.url(0, "file"));
    let requests = || server.requests.swap(0, Ordering::Relaxed);

    // Nothing is there, and nobody may be asked.
    Stage::new(&bench).option("--offline").refused(
        &text,
        &["`files[0]`", "/0/file", "--offline", "hint: build once"],
    );
    assert_eq!(requests(), 0);
    let workspace = Stage::new(&bench).workspace(&text);
    assert_eq!(requests(), 1);
    Stage::new(&bench).option("--offline").workspace(&text);
    assert_eq!(requests(), 0);
    assert_eq!(
        fs::read_to_string(workspace.join("file")).expect("it was staged"),
        "/0/file"
    );
    Stage::new(&bench).option("--no-cache").workspace(&text);
    assert_eq!(requests(), 1);
    // What is kept is no longer whole: it is fetched anew.
    let sources = bench.store().join("sources");
    for entry in fs::read_dir(sources).expect("the store has it") {
        fs::remove_file(entry.expect("readable").path().join("validator")).expect("ours");
    }
    let workspace = Stage::new(&bench).workspace(&text);
    assert_eq!(requests(), 1);
    let mut content = String::new();
    fs::File::open(workspace.join("file"))
        .and_then(|mut file| file.read_to_string(&mut content))
        .expect("it was staged");
    assert_eq!(content, "/0/file");
}
