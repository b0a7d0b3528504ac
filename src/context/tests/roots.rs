//! Where a context lies, and what is left of it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use fs_err as fs;

use super::mode;
use crate::context::ContextRoot;
use crate::error::{Error, Kind};
use crate::progress::{Event, Progress};

fn open(path: Option<&Path>, scratch: &Path, keep: bool) -> Result<ContextRoot, Error> {
    ContextRoot::open(path, scratch, keep, &Progress::silent())
}

/// Why a directory cannot be the context.
fn problem(result: Result<ContextRoot, Error>) -> (Kind, String) {
    let error = result.unwrap_err();
    let messages = error.messages();
    assert!(messages[0].starts_with("failed to use `"), "{error:?}");
    (error.kind(), messages[1].clone())
}

#[test]
fn a_directory_that_was_made_goes_unless_it_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/context");
    let fill = |root: &ContextRoot| fs::create_dir_all(root.path().join("image/x")).unwrap();

    let root = open(Some(&path), directory.path(), false).unwrap();
    assert_eq!(mode(&path), 0o700);
    assert_eq!(root.path(), path.canonicalize().unwrap());
    fill(&root);
    root.complete().unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

    let root = open(Some(&path), directory.path(), false).unwrap();
    fill(&root);
    drop(root);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

    let root = open(Some(&path), directory.path(), true).unwrap();
    fill(&root);
    drop(root);
    assert!(path.join("image/x").exists());
}

#[test]
fn without_a_path_it_lies_in_the_scratch_space_or_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let root = open(None, scratch.path(), false).unwrap();
    assert_eq!(
        root.path().parent().unwrap(),
        scratch.path().canonicalize().unwrap()
    );
    assert_eq!(mode(root.path()), 0o700);
    root.complete().unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);

    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let progress = Progress::new(move |event| sink.lock().unwrap().push(event));
    let root = ContextRoot::open(None, scratch.path(), true, &progress).unwrap();
    let path = root.path().to_owned();
    root.complete().unwrap();
    assert!(path.is_dir());
    assert!(path.starts_with(std::env::temp_dir().canonicalize().unwrap()));
    fs::remove_dir_all(&path).unwrap();
    let told = Event::Note(format!("the context stays in `{}`", path.display()));
    assert_eq!(*events.lock().unwrap(), [told]);
}

#[test]
fn a_directory_that_exists_keeps_what_is_the_users() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("mine"), "mine").unwrap();
    let root = open(Some(path), path, false).unwrap();
    fs::create_dir(path.join("image")).unwrap();
    fs::write(path.join("image/old"), "old").unwrap();
    fs::write(path.join("Dockerfile"), "old").unwrap();
    root.complete().unwrap();
    assert!(path.join("image/old").exists() && path.join("mine").exists());

    // The next build replaces what was a build's, and nothing else.
    let root = open(Some(path), path, false).unwrap();
    assert!(!path.join("image").exists() && !path.join("Dockerfile").exists());
    assert!(path.join("mine").exists());

    let busy = "another build is using it".to_owned();
    assert_eq!(
        problem(open(Some(path), path, false)),
        (Kind::Options, busy)
    );
    root.complete().unwrap();
    open(Some(path), path, false).unwrap();
}

#[test]
fn what_is_not_ours_is_refused_and_stays() {
    for name in ["image", "Dockerfile"] {
        let directory = tempfile::tempdir().unwrap();
        let taken = directory.path().join(name);
        fs::write(&taken, "mine").unwrap();
        let result = open(Some(directory.path()), directory.path(), false);
        let hint = result.as_ref().unwrap_err().hint().unwrap();
        assert_eq!(
            hint,
            format!("move `{name}` away, or give `--path` another directory")
        );
        let foreign = format!("it holds `{name}`, which no build of this tool has put there");
        assert_eq!(problem(result), (Kind::Options, foreign));
        assert_eq!(fs::read_to_string(&taken).unwrap(), "mine");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let result = open(Some(&taken), directory.path(), false);
        let other = "it is not a directory".to_owned();
        assert_eq!(problem(result), (Kind::Options, other));
        let result = open(Some(&taken.join("below")), directory.path(), false);
        assert_eq!(problem(result).0, Kind::Storage);
    }
}
