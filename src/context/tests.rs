//! Real trees, and the ancestor's newest release as the oracle for what a context holds.

mod ancestor;
mod entrypoint;
mod manifests;
mod roots;
mod trees;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use fs_err as fs;

use crate::buildfile::{BuildFile, FileEntry, Layout, Source};
use crate::net;
use crate::progress::{Event, Progress};

use super::{Context, pip_sees_workspace};
use crate::error::{Error, Kind};
use crate::sources::{Again, Sources, SshOptions};
use crate::store::Store;

/// A source directory and a context.
struct Build {
    directory: tempfile::TempDir,
    file: BuildFile,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Build {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("source")).unwrap();
        fs::create_dir(directory.path().join("context")).unwrap();
        let file = BuildFile {
            masked: "python: 3.11\n".to_owned(),
            ..BuildFile::default()
        };
        Self {
            directory,
            file,
            events: Arc::default(),
        }
    }

    /// A path in the source directory.
    fn source(&self, name: &str) -> String {
        self.directory
            .path()
            .join("source")
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// A path in the staged image.
    fn image(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("context/image").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.source(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Adds an entry of `files`; `source` is absolute or in the source directory.
    fn entry(&mut self, destination: Option<&str>, source: &str) {
        self.file.files.push(FileEntry {
            destination: destination.map(str::to_owned),
            source: Source::Local(if source.starts_with('~') {
                source.to_owned()
            } else {
                self.source(source)
            }),
            exclude: Vec::new(),
            name: format!("files[{}]", self.file.files.len()),
        });
    }

    fn stage(&self) -> Result<Context, Error> {
        let events = Arc::clone(&self.events);
        let sink = move |event| events.lock().unwrap().push(event);
        let progress = Progress::new(sink);
        self.stage_in(&self.directory.path().join("context"), &progress)
    }

    /// Stages in another folder. The store lies beside it, as a part of the build itself.
    fn stage_in(&self, root: &Path, progress: &Progress) -> Result<Context, Error> {
        let store = Store::open(&self.directory.path().join("kept")).unwrap();
        let sources = Sources {
            net: &net::Client::new(net::Options::default()),
            ssh: &SshOptions::default(),
            store: &store,
            jobs: 2,
            again: Again::Ask,
        };
        let own = self.directory.path().join("store");
        let clones = self.directory.path().join("git");
        super::stage(&self.file, root, &[&own], &clones, sources, progress)
    }

    fn warnings(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let warning = |event: &Event| match event {
            Event::Warning(text) => Some(text.clone()),
            _ => None,
        };
        events.iter().filter_map(warning).collect()
    }

    fn notes(&self) -> usize {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter(|event| matches!(event, Event::Note(_)))
            .count()
    }

    /// The error's messages, outermost first, with the directory's own name left out, and the hint.
    fn failure(&self) -> String {
        let error = self.stage().unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text.extend(["\n", &error.to_string()]);
            source = error.source();
        }
        if let Some(hint) = error.hint() {
            text.extend(["\nhint: ", hint]);
        }
        text.replace(self.directory.path().to_str().unwrap(), "…")
    }
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path.as_ref())
        .unwrap()
        .permissions()
        .mode()
        & 0o7777
}

/// Runs one test of this binary again, through a command that prepares its process.
fn again(test: &str, mut command: std::process::Command) {
    let output = command
        .args(["--exact", test, "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{output:?}"
    );
}

#[test]
fn installation_holds_what_the_specification_says() {
    let mut build = Build::new();
    build.file.packages = vec!["pyats[full]".to_owned(), "$WORKSPACE/x.whl".to_owned()];
    build.file.pip_config =
        Some("[global]\nindex-url = https://a:b@pypi.example.com/simple\n".to_owned());
    build.write("dir/my_job.py", "");
    build.entry(Some("deep/er/dir"), "dir");
    let context = build.stage().unwrap();
    let read = |name: &str| fs::read_to_string(build.image(name)).unwrap();
    assert_eq!(read("workspace/installation/build.yaml"), "python: 3.11\n");
    assert_eq!(
        read("workspace/installation/requirements.txt"),
        "pyats[full]\n/workspace/x.whl\n"
    );
    assert_eq!(
        read("workspace/installation/jobfiles.txt"),
        r#"{"jobs": ["/workspace/deep/er/dir/my_job.py"]}"#
    );
    assert_eq!(
        read("venv/pip.conf"),
        "[global]\nindex-url = https://pypi.example.com/simple\n"
    );
    assert_eq!(context.pip_conf.as_deref(), Some(&*read("venv/pip.conf")));
    assert_eq!(
        context.secret_pip_conf.unwrap().reveal(),
        "[global]\nindex-url = https://a:b@pypi.example.com/simple\n"
    );
    assert_eq!(context.requirements[0].secret, None);
    assert!(pip_sees_workspace(&build.file, &[]));
    let warnings = build.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("pip-config") && !warnings[0].contains("a:b"));
    for directory in [
        "",
        "workspace",
        "venv",
        "workspace/installation",
        "workspace/deep/er",
    ] {
        assert_eq!(mode(build.image(directory)), 0o755, "{directory}");
    }
    for file in ["build.yaml", "requirements.txt", "jobfiles.txt"] {
        assert_eq!(
            mode(build.image("workspace/installation").join(file)),
            0o644,
            "{file}"
        );
    }
    assert_eq!(
        mode(build.image("workspace/installation/entrypoint.sh")),
        0o755
    );
    assert_eq!(mode(build.image("venv/pip.conf")), 0o644);
}

#[test]
fn the_umask_does_not_matter() {
    let exe = std::env::current_exe().unwrap();
    for umask in ["077", "000"] {
        let mut command = std::process::Command::new("sh");
        command
            .arg("-c")
            .arg(format!("umask {umask}; exec \"$0\" \"$@\""))
            .arg(&exe);
        again(
            "context::tests::installation_holds_what_the_specification_says",
            command,
        );
    }
}

#[test]
fn an_empty_build_file_gives_the_files_that_are_always_there() {
    let build = Build::new();
    let context = build.stage().unwrap();
    let mut names: Vec<_> = fs::read_dir(build.image("workspace/installation"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["build.yaml", "entrypoint.sh", "requirements.txt"]);
    assert_eq!(
        fs::read(build.image("workspace/installation/requirements.txt")).unwrap(),
        b""
    );
    assert!(!build.image("venv/pip.conf").exists());
    assert!(!pip_sees_workspace(&build.file, &[]));
    assert_eq!((context.files, context.bytes), (0, 0));
}

#[test]
fn credentials_of_requirements_go_to_pip_alone() {
    let mut build = Build::new();
    build.file.packages = vec![
        "--extra-index-url https://user:s3cret@pypi.example.com/simple".to_owned(),
        "a @ https://${USER}:${TOKEN}@example.com/a.whl".to_owned(),
        "b @ git+ssh://git@${HOST}/b.git".to_owned(),
    ];
    let context = build.stage().unwrap();
    let shown = fs::read_to_string(build.image("workspace/installation/requirements.txt")).unwrap();
    assert_eq!(
        shown,
        "--extra-index-url https://pypi.example.com/simple\n\
         a @ https://${USER}:${TOKEN}@example.com/a.whl\n\
         b @ git+ssh://git@${HOST}/b.git\n"
    );
    let secret = context.requirements[0].secret.as_ref().unwrap();
    assert_eq!(
        secret.reveal(),
        shown.replace("//pypi", "//user:s3cret@pypi")
    );
    assert_eq!(build.warnings().len(), 1);
    assert!(!build.warnings()[0].contains("s3cret"));
}

#[test]
fn a_build_that_is_told_to_stop_stops() {
    let mut build = Build::new();
    build.write("a", "");
    build.entry(None, "a");
    let progress = Progress::silent();
    progress.stop();
    let root = build.directory.path().join("context");
    let error = build.stage_in(&root, &progress).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted, "{error:?}");
}

#[test]
fn pip_sees_the_workspace_where_something_may_lie_in_it() {
    use super::pip::{requirements, sees_workspace};
    let line = |line: &str| sees_workspace(&requirements(&[line], Layout::Split), None, &[]);
    for seen in [
        "$WORKSPACE/x.whl",
        "${WORKSPACE}/x.whl",
        "/workspace/x",
        "./x",
        "../x",
        ".",
        "x/y",
        "x.whl",
        "X.WHL",
        "x-1.0.tar.gz",
        "x @ file:///workspace/x.whl",
        "x @ file:x",
        "-r more.txt",
        "-rmore.txt",
        "-c limits.txt",
        "-e .",
        "-e src",
        "-f wheels",
        "--find-links=wheels",
        "--find-links wheels",
        "--requirement a",
        "--editable=a",
        "git+file:///workspace/repo",
        "--find-links \\\nwheels",
        "x[extra] @ file:///workspace/x",
        "--index-url file:///workspace/i",
    ] {
        assert!(line(seen), "{seen}");
    }
    for unseen in [
        "",
        "pyats",
        "pyats[full]==24.1",
        "a>=1,<2; python_version < '3.8'",
        "# ./comment",
        "a  # see ./x",
        "-i https://pypi.example.com/simple",
        "--index-url=https://a.example/simple",
        "a @ https://a.example/a/b.whl",
        "https://a.example/a.whl",
        "-f https://a.example/links/",
        "-e git+https://a.example/a.git#egg=a",
        "/opt/a.whl",
        "$VIRTUAL_ENV/a.whl",
        "--pre",
        "--no-binary :all:",
        "a --hash=sha256:0123",
        "-r https://a.example/r.txt",
    ] {
        assert!(!line(unseen), "{unseen}");
    }
    let configuration = |text: &str| sees_workspace("", Some(text), &[]);
    for seen in [
        "[global]\nfind-links = /workspace/wheels\n",
        "[global]\nfind-links = wheels\n",
        "[install]\nfind-links =\n    https://a.example/\n    wheels\n",
        "[install]\nconstraint: c\n",
        "[global]\nindex-url = file:///srv\n",
        "[global]\nsrc = ./src\n",
    ] {
        assert!(configuration(seen), "{seen}");
    }
    for unseen in [
        "[global]\nformat = columns\nno-cache-dir = false\ntrusted-host = pypi.python.org\n        b.c\n\
         index-url = http://a.example/simple\ndisable-pip-version-check = 1\n\n[search]\nindex = http://a.example\n",
        "[global]\ncert = /etc/ssl/ca.pem\n# wheels in ./x\n",
        "",
    ] {
        assert!(!configuration(unseen), "{unseen}");
    }
    let variable = |name: &str, value: &str| {
        sees_workspace(
            "${DIR}/a.whl\n",
            None,
            &[(name.to_owned(), value.to_owned())],
        )
    };
    assert!(variable("PIP_FIND_LINKS", "wheels"));
    assert!(variable("PIP_CONSTRAINT", "/workspace/c.txt"));
    assert!(!sees_workspace(
        "a\n",
        None,
        &[("PIP_INDEX_URL".into(), "https://a.example/b".into())]
    ));
    assert!(!sees_workspace(
        "a\n",
        None,
        &[("JOB".into(), "/workspace/job.py".into())]
    ));
    // pip replaces variables itself, with the environment of the image.
    assert!(variable("DIR", "/workspace/wheels"));
    assert!(!sees_workspace(
        "${DIR}\n",
        None,
        &[("DIR".into(), "/opt/a.whl".into())]
    ));
}

#[test]
fn directories_in_requirements_are_replaced_in_both_forms() {
    let replaced = |text: &str| super::pip::requirements(&[text], Layout::Split);
    assert_eq!(replaced("${WORKSPACE}/a.whl"), "/workspace/a.whl\n");
    assert_eq!(
        replaced("a @ file://$WORKSPACE/a.whl\n"),
        "a @ file:///workspace/a.whl\n"
    );
    assert_eq!(replaced("$VIRTUAL_ENV/a"), "/venv/a\n");
    assert_eq!(
        replaced("$WORKSPACES $WORKSPACE_X ${TOKEN}"),
        "$WORKSPACES $WORKSPACE_X ${TOKEN}\n"
    );
}
