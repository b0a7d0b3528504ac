//! Repositories: every way to them, every name of a commit, and whatever a server may send.

mod commits;
mod trees;
mod ways;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::Value;

use crate::support::{Bench, GitRepository, Run, Stage, Tree, base_layout, git_clone};

/// The request itself is wrong.
const USAGE: i32 = 2;
/// The build failed.
const FAILED: i32 = 1;

/// The repository that most tests clone: a branch with three commits, another branch, tags of both kinds.
struct Suite {
    repository: GitRepository,
    first: String,
    second: String,
    tip: String,
    dev: String,
}

impl Suite {
    fn new(folder: &Path) -> Self {
        let repository = GitRepository::new(folder.join("suite.git"));
        let first = repository.commit("main", &[("100644", "a.txt", "one")]);
        let second = repository.commit("main", &[("100644", "a.txt", "two")]);
        repository.git(&["tag", "light", &second]);
        let tip = repository.commit(
            "main",
            &[
                ("100644", "a.txt", "three"),
                ("100755", "bin/run me.sh", "#!/bin/sh\n"),
                ("100644", "deep/er/файл", "x"),
                ("120000", "to-a", "a.txt"),
                ("120000", "out", "/etc/passwd"),
                ("100644", "crlf.txt", "one\r\ntwo\n"),
                ("100644", "empty", ""),
            ],
        );
        repository.git(&["tag", "-a", "-m", "a release", "v1", &tip]);
        repository.git(&["branch", "dev", &second]);
        let dev = repository.commit("dev", &[("100644", "dev.txt", "dev")]);
        Self {
            repository,
            first,
            second,
            tip,
            dev,
        }
    }

    /// What git itself checks out.
    fn tree(&self, bench: &Bench) -> Tree {
        let path = bench.root().join("clone");
        git_clone(&self.repository.path().display().to_string(), &path);
        fs::remove_dir_all(path.join(".git")).expect("ours");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("ours");
        Tree::of(&path)
    }
}

/// A bench, and the folder whose repositories are served; or the test is skipped.
fn begin() -> Option<(Bench, PathBuf)> {
    base_layout()?;
    let bench = Bench::current();
    let folder = bench.root().join("served");
    Some((bench, folder))
}

/// A build file with `repositories`, the text below that key.
fn build_file(repositories: &str) -> String {
    format!("python: 3.11\nrepositories:\n{repositories}")
}

/// Stages `repositories` and nothing else; the workspace.
fn stage(bench: &Bench, repositories: &str) -> PathBuf {
    Stage::new(bench).workspace(&build_file(repositories))
}

fn try_stage(bench: &Bench, repositories: &str, options: &[&str]) -> Run {
    let options = options.iter();
    let stage = options.fold(Stage::new(bench), |stage, option| stage.option(*option));
    stage.run(&build_file(repositories))
}

/// Holds that a run staged everything.
fn succeeded(run: &Run) {
    let errors = run.stderr();
    assert_eq!(run.status(), Some(0), "{errors}");
    run.stdout();
}

/// Holds that the only repository is refused with these words.
fn refused(bench: &Bench, repository: &str, status: i32, words: &[&str]) -> String {
    let run = try_stage(bench, repository, &[]);
    let errors = run.refusal(status).to_owned();
    let count = errors
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    assert_eq!(count, 1, "{repository}: {errors}");
    for word in words {
        assert!(
            errors.contains(word),
            "{repository}: `{word}` is missing in: {errors}"
        );
    }
    errors
}

/// What `repos.json` says of the only repository.
fn record(workspace: &Path) -> Value {
    let text = fs::read(workspace.join("installation/repos.json")).expect("there is one");
    let document: Value = serde_json::from_slice(&text).expect("it is JSON");
    let entry = match &document {
        Value::Array(entries) => entries.first().cloned(),
        Value::Object(entries) => entries.values().next().cloned(),
        _ => None,
    };
    entry.expect("it names a repository")
}

fn same_tree(found: &Path, expected: &Tree, name: &str) {
    let differences = expected.differences(&Tree::of(found), &[]);
    assert_eq!(differences, [""; 0], "{name}");
}
