//! The newest ancestor as the oracle: the same files in the workspace, the same jobs.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use super::Build;
use crate::buildfile::{JobFiles, Source};

/// Stages the build file given as JSON and prints the directory.
const STAGE: &str = "
import json, logging, sys
logging.disable()
from pyatsimagebuilder.builder import ImageBuilder
builder = ImageBuilder(json.loads(sys.argv[1]))
builder.run(keep_context=True, dry_run=True)
print('CONTEXT=%s' % builder.context.path)
";

/// The Python of a virtual environment that has the ancestor; kept beside the build's other files. Says
/// loudly that there is none, and why.
#[expect(clippy::print_stderr, reason = "a skip is loud")]
pub(super) fn python() -> Option<PathBuf> {
    let python = install();
    if python.is_none() {
        assert!(
            std::env::var_os("REQUIRE_ALL").is_none(),
            "the ancestor cannot be installed"
        );
        eprintln!("SKIPPED: the ancestor cannot be installed (no python3, pip or network)");
    }
    python
}

fn install() -> Option<PathBuf> {
    // Tests run side by side, also as processes of their own: one of them installs.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock();
    let exe = std::env::current_exe().unwrap();
    let target = exe.ancestors().nth(3).unwrap();
    let venv = target.join("tmp/ancestor-26.9");
    let python = venv.join("bin/python");
    let works = || {
        let mut check = Command::new(&python);
        check
            .args(["-c", "import pyatsimagebuilder.builder"])
            .env("GIT_PYTHON_REFRESH", "quiet");
        check.output().is_ok_and(|output| output.status.success())
    };
    if !works() {
        let run = |program: &Path, arguments: &[&str]| {
            Command::new(program)
                .args(arguments)
                .output()
                .is_ok_and(|output| output.status.success())
        };
        let made = run(
            Path::new("python3"),
            &["-m", "venv", venv.to_str().unwrap()],
        ) && run(
            &python,
            &[
                "-m",
                "pip",
                "install",
                "-q",
                "setuptools<81",
                "pyats-image-builder==26.9",
            ],
        );
        if !(made && works()) {
            return None;
        }
    }
    Some(python)
}

/// Everything in a tree but the installation: mode, and link target or contents.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let contents = if metadata.is_symlink() {
                use std::os::unix::ffi::OsStringExt;
                fs::read_link(&path).unwrap().into_os_string().into_vec()
            } else if metadata.is_dir() {
                if path == root.join("installation") {
                    continue;
                }
                directories.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            let relative = path.strip_prefix(root).unwrap().to_owned();
            found.insert(relative, (metadata.mode(), contents));
        }
    }
    found
}

/// What the ancestor makes of the same build: its directory, which goes with the build.
pub(super) fn stage(python: &Path, build: &Build) -> PathBuf {
    let output = Command::new(python)
        .args(["-c", STAGE, &config(build).to_string()])
        .env("GIT_PYTHON_REFRESH", "quiet")
        .env("TMPDIR", build.directory.path())
        .env("PYTHONUTF8", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let theirs = text.lines().find_map(|line| line.strip_prefix("CONTEXT="));
    PathBuf::from(theirs.unwrap_or_else(|| panic!("{output:?}")))
}

/// The same build, as the ancestor reads it.
fn config(build: &Build) -> serde_json::Value {
    let entries = build.file.files.iter().map(|entry| {
        let Source::Local(path) = &entry.source else {
            panic!("`{}` is on this machine", entry.name);
        };
        match &entry.destination {
            Some(key) => serde_json::json!({ key: path }),
            None => serde_json::json!(path),
        }
    });
    let mut config = serde_json::json!({ "files": entries.collect::<Vec<_>>() });
    let given = &build.file.jobfiles;
    config["jobfiles"] = serde_json::json!({ "paths": given.paths, "glob": given.globs });
    // The ancestor's own default is the same pattern, but a key that is there has to have a value.
    if given.matches.len() != 1
        || given.matches[0].as_str() != JobFiles::default().matches[0].as_str()
    {
        let matches: Vec<_> = given.matches.iter().map(regex::Regex::as_str).collect();
        config["jobfiles"]["match"] = serde_json::json!(matches);
    }
    config
}

/// A build with names and markers of all kinds.
fn jobs_and_others() -> Build {
    let mut build = Build::new();
    for (name, text) in [
        ("tree/my_job.py", ""),
        ("tree/job.py", ""),
        ("tree/jobs.pyc", ""),
        ("tree/Job.py", ""),
        ("tree/plain.txt", "PYATS_JOBFILE"),
        ("tree/sub/run_1.py", ""),
        ("tree/sub/test_é.py", ""),
        ("tree/sub/.hidden_job.py", ""),
        ("tree/sub/deeper/deep.py", "import a\n# PYATS_JOBFILE\n"),
        ("tree/a[.py", ""),
        ("tree/[x].py", ""),
        ("tree/{a,b}.py", ""),
        ("tree/a.py", ""),
        ("tree/quote\"\\\t.txt", ""),
        ("tree/tenth.py", "\n\n\n\n\n\n\n\n\nx = 'PYATS_JOBFILE'"),
        (
            "tree/eleventh.py",
            "\n\n\n\n\n\n\n\n\n\nx = 'PYATS_JOBFILE'",
        ),
        (
            "tree/crlf.py",
            "\r\n\r\n\r\n\r\n\r\r\r\r\rPYATS_JOBFILE\r\n",
        ),
        ("tree/cr.py", "\r\r\r\r\r\r\r\r\r\rPYATS_JOBFILE\r\n"),
        ("tree-2/job.py", ""),
        ("single", "x"),
    ] {
        build.write(name, text);
    }
    fs::create_dir(build.source("tree/empty")).unwrap();
    symlink("my_job.py", build.source("tree/link.py")).unwrap();
    symlink("gone", build.source("tree/dangling_job.py")).unwrap();
    symlink("sub/deeper/deep.py", build.source("tree/marked_by_link.py")).unwrap();
    symlink("single", build.source("top-link")).unwrap();
    let set = |name: &str, mode| {
        fs::set_permissions(build.source(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    set("tree/sub", 0o1750);
    set("tree/a.py", 0o4711);
    set("single", 0o640);
    build.entry(None, "tree/");
    build.entry(None, "tree-2");
    build.entry(None, "single");
    build.entry(Some("other/name"), "single");
    build.entry(None, "top-link");
    build
}

#[test]
fn the_same_files_and_jobs() {
    let Some(python) = python() else {
        return;
    };
    let jobfiles = |paths: &[&str], matches: &[&str], globs: &[&str]| JobFiles {
        paths: paths.iter().map(|&text| text.to_owned()).collect(),
        matches: match matches {
            [] => JobFiles::default().matches,
            given => given
                .iter()
                .map(|text| regex::Regex::new(text).unwrap())
                .collect(),
        },
        globs: globs.iter().map(|&text| text.to_owned()).collect(),
    };
    let cases = [
        jobfiles(&[], &[], &[]),
        jobfiles(
            &["tree/plain.txt", "tree/none.py", "tree/link.py"],
            &[],
            &[],
        ),
        jobfiles(&[], &["run_.*", r"test.*\.py", "x|.*b"], &[]),
        jobfiles(
            &[],
            &["nothing"],
            &["*.txt", "sub/*.py", "tree/**/deep.*", "[a-cr]un_?.py"],
        ),
        jobfiles(
            &[],
            &["nothing"],
            &[
                "[!a-z]*",
                "{a,b}.py",
                "[[]x].py",
                "a[.py",
                "*/*/*/deep.p[xyz]",
            ],
        ),
        jobfiles(
            &["tree/sub/../plain.txt"],
            &["nothing"],
            &["**/sub/*", "tree/*/run_*", "\\*"],
        ),
    ];
    for jobfiles in cases {
        let mut build = jobs_and_others();
        build.file.jobfiles = jobfiles;
        build.stage().unwrap();

        let theirs = stage(&python, &build);
        let given = &build.file.jobfiles;
        assert_eq!(tree(&theirs), tree(&build.image("workspace")));
        let jobs = |path: PathBuf| -> Vec<String> {
            let Ok(text) = fs::read(&path) else {
                return Vec::new();
            };
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let jobs = value["jobs"].as_array().unwrap().iter();
            jobs.map(|job| job.as_str().unwrap().replace("/pyats/", "/workspace/"))
                .collect()
        };
        let mut expected = jobs(theirs.join("installation/jobfiles.txt"));
        // Ours leave out directories and what is in `installation`, and say paths without `..`.
        expected.retain(|job| {
            let path = build.image(&job[1..]);
            !path.is_dir() && !job.starts_with("/workspace/installation/")
        });
        for job in &mut expected {
            *job = job.replace("/sub/../", "/");
        }
        expected.sort();
        expected.dedup();
        assert_eq!(
            jobs(build.image("workspace/installation/jobfiles.txt")),
            expected,
            "{given:?}"
        );
        assert!(!expected.is_empty());
    }
}

#[test]
fn python_reads_jobs_whose_names_are_not_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let mut build = Build::new();
    fs::create_dir(build.source("dir")).unwrap();
    let name = OsStr::from_bytes(b"\xf0\x9f\x90\x8d\xff\n\"job.py");
    fs::write(Path::new(&build.source("dir")).join(name), "").unwrap();
    // A newline in front of `job` is what the dot does not match, here as in Python.
    build.file.jobfiles.globs = vec!["*job.py".to_owned()];
    build.entry(None, "dir");
    build.stage().unwrap();
    let script = "import json, os, sys\n\
                  jobs = json.load(open(sys.argv[1]))['jobs']\n\
                  print(*[os.fsencode(job).hex() for job in jobs])";
    let list = build.image("workspace/installation/jobfiles.txt");
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(list)
        .output()
        .unwrap();
    let expected = hex::encode([b"/workspace/dir/", name.as_bytes()].concat());
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), expected);
}

#[test]
fn jobs_outside_of_the_workspace_are_refused_or_told() {
    let mut build = Build::new();
    build.write("dir/run.py", "");
    symlink("/etc/passwd", build.source("dir/out")).unwrap();
    build.entry(None, "dir");
    let paths = [
        "../x",
        "/etc/passwd",
        "dir",
        "dir/out",
        "dir/gone",
        "/workspace/dir/run.py",
    ];
    build.file.jobfiles.paths = paths.map(str::to_owned).to_vec();
    build.stage().unwrap();
    let text = fs::read_to_string(build.image("workspace/installation/jobfiles.txt")).unwrap();
    assert_eq!(text, r#"{"jobs": ["/workspace/dir/run.py"]}"#);
    assert_eq!(build.warnings().len(), 5);

    for glob in ["../*", "/etc/*", "", "a/../../b"] {
        fs::remove_dir_all(build.image("")).unwrap();
        build.file.jobfiles.globs = vec![glob.to_owned()];
        assert_eq!(
            build.failure(),
            format!(
                "`jobfiles` has the glob `{glob}`, which does not stay in the workspace\n\
                 hint: write it relative to the workspace, such as `jobs/*.py`"
            )
        );
    }
}
