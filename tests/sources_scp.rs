//! Files and directories by scp, from OpenSSH's own server.

mod files;
mod hostile;
mod hosts;
mod large;
mod logins;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use crate::support::{Bench, Run, Sshd, Stage, base_layout, ssh_folder};

/// Exit status of a build that failed.
const FAILED: i32 = 1;

/// A bench, and a server that lets its user in.
struct Setup {
    bench: Bench,
    server: Sshd,
}

impl Setup {
    fn new() -> Option<Self> {
        Self::with(&[])
    }

    /// With more lines of `sshd_config`.
    fn with(config: &[&str]) -> Option<Self> {
        base_layout()?;
        let bench = Bench::current();
        let server = Sshd::start_for(&bench, config)?;
        // All that the server serves.
        fs::create_dir(server.path("data")).expect("ours");
        Some(Self { bench, server })
    }

    /// Puts a file on the server.
    fn serve(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.server.path("data").join(name);
        fs::write(&path, content).expect("ours");
        path
    }

    /// `scp://127.0.0.1:PORT` and the path of a file of the server's.
    fn url(&self, name: &str) -> String {
        self.url_by(&self.server.host(), name)
    }

    /// The same by another host or user.
    fn url_by(&self, host: &str, name: &str) -> String {
        format!(
            "scp://{host}{}",
            self.server.path("data").join(name).display()
        )
    }

    /// Writes the user's `~/.ssh/config`.
    fn configure(&self, text: &str) {
        let path = ssh_folder(&self.bench).join("config");
        fs::write(&path, text).expect("ours");
        self.bench.give(&path);
    }

    fn known_hosts(&self) -> PathBuf {
        ssh_folder(&self.bench).join("known_hosts")
    }

    /// Stages these entries of `files` with more options.
    fn command(&self, files: &[&str], more: &[&str]) -> Command {
        let stage = Stage::new(&self.bench);
        let stage = more
            .iter()
            .fold(stage, |stage, option| stage.option(*option));
        let files: String = files.iter().flat_map(|file| ["\n  - ", file]).collect();
        stage.command(&format!("python: 3.11\nfiles:{files}"))
    }

    fn run(&self, files: &[&str], more: &[&str]) -> Run {
        self.bench.finish(&mut self.command(files, more))
    }

    /// Stages and gives the workspace; the progress is returned, too.
    fn stage(&self, files: &[&str], more: &[&str]) -> (PathBuf, String) {
        staged(&self.bench, &self.run(files, more))
    }

    /// Holds that a file comes by this URL.
    fn fetches(&self, url: &str) {
        let (workspace, _) = self.stage(&[&format!("fetched: {url}")], &[]);
        assert!(workspace.join("fetched").exists(), "{url}");
    }

    /// Holds that the source is refused with one error that has the words and a hint; gives it.
    fn refused(&self, file: &str, more: &[&str], words: &[&str]) -> String {
        refusal(&self.run(&[file], more), words)
    }
}

fn staged(bench: &Bench, run: &Run) -> (PathBuf, String) {
    assert_eq!(run.status(), Some(0), "{}", run.stderr());
    run.stdout();
    (
        bench.path("context/image/workspace"),
        run.stderr().to_owned(),
    )
}

fn refusal(run: &Run, words: &[&str]) -> String {
    let errors = run.refusal(FAILED).to_owned();
    let count = errors
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    assert_eq!(count, 1, "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    for word in words {
        assert!(errors.contains(word), "`{word}` is missing in:\n{errors}");
    }
    errors
}

/// Kind, mode and content of everything below a directory.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        let mode = metadata.mode() & 0o7777;
        let text = if metadata.is_symlink() {
            format!(
                "link to {}",
                fs::read_link(&path).expect("a link").display()
            )
        } else if metadata.is_dir() {
            let entries = fs::read_dir(&path).expect("root or the owner may");
            waiting.extend(entries.map(|entry| entry.expect("readable").path()));
            format!("directory {mode:o}")
        } else {
            format!("file {mode:o} {:?}", fs::read(&path).expect("readable"))
        };
        let name = path.strip_prefix(root).expect("it is below").to_owned();
        found.insert(name, text);
    }
    found
}
