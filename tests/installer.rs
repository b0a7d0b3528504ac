//! `installer: uv`: what pip installs, faster; nothing of uv in the image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fs_err as fs;
use insta::assert_snapshot;

use crate::support::{
    Bench, GitRepository, GitWeb, Tree, User, base_layout, have, serve_base, umoci_unpack, verify,
};

/// Where the tree of an image that uv made may differ from pip's, as patterns with reasons.
const ALLOWED: [(&str, &str); 4] = [
    (
        "venv/lib/**/*.dist-info/{INSTALLER,RECORD}",
        "one says who it was; the other lists that, and the scripts, with their digests",
    ),
    (
        "venv/lib/**/*.dist-info/direct_url.json",
        "uv does not keep the digest of a file of this machine",
    ),
    (
        "venv/lib/**/*.libs",
        "uv makes folders that are empty in a wheel",
    ),
    (
        "venv/bin/{normalizer,idna,pib-hello}",
        "scripts that call the same functions in other words",
    ),
];

/// A wheel of the workspace, one of `PyPI`'s with a script and dependencies, and one with compiled code.
const PACKAGES: &str = "packages: ['${WORKSPACE}/pib_hello-1.0-py3-none-any.whl', requests==2.31.0, MarkupSafe==2.1.5, \
    charset-normalizer==3.3.2, idna==3.6, urllib3==2.2.1, certifi==2024.2.2]\n";

fn buildfile(more: &str) -> String {
    format!(
        "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [pib_hello-1.0-py3-none-any.whl]\n{PACKAGES}{more}"
    )
}

#[test]
fn uv_installs_what_pip_does_and_is_not_in_the_image() {
    let Some(layout) = base_layout().filter(|_| have(&["umoci"])) else {
        return;
    };
    let base = format!("oci:{}", layout.display());
    let bench = Bench::current();
    bench.write_wheel(&[]);
    bench.write("build.yaml", buildfile("installer: uv\n"));
    let build = |installer: &str| {
        let out = bench.path(installer);
        let output = format!("oci-dir:{}", out.display());
        let run = bench.run([
            "build.yaml",
            "--base",
            &base,
            "--installer",
            installer,
            "-o",
            &output,
        ]);
        run.line();
        let unpacked = umoci_unpack(&bench, &out, "1", &format!("{installer}-tree"));
        let tree = Tree::of(&unpacked.join("rootfs"));
        (run.stderr().to_owned(), verify(&out, "1"), tree)
    };
    let (_, _, by_pip) = build("pip");
    let (said, image, by_uv) = build("uv");
    // Only the step of the packages is another one.
    assert_eq!(said.matches("cached").count(), 1, "{said}");
    assert_eq!(by_uv.differences(&by_pip, &ALLOWED), [""; 0]);
    assert!(image.find("venv/bin/pib-hello").is_some());
    let is_uvs = |name: &&String| {
        let name = name.rsplit('/').next().unwrap_or_default();
        name.starts_with("uv") || name == ".lock"
    };
    let names = image
        .own_layers(3)
        .iter()
        .flatten()
        .map(|entry| &entry.name);
    let of_uv: Vec<_> = names.filter(is_uvs).collect();
    assert_eq!(of_uv, [""; 0]);
    let history = image.config["history"].to_string();
    let command = "uv pip install -r /workspace/installation/requirements.txt";
    assert!(history.contains(command), "{history}");

    // The key of the build file says the same as the option.
    let run = bench.run(["build.yaml", "--base", &base, "--dry-run", "-v"]);
    let _ = run.stderr();
    let plan = run.stdout();
    assert!(plan.contains("step: packages: cached"), "{plan}");
    assert!(plan.contains(&format!("run: {command}")), "{plan}");
}

#[test]
fn uv_is_fetched_once_and_is_not_run_unless_it_is_uv() {
    let Some(layout) = base_layout() else { return };
    let base = format!("oci:{}", layout.display());
    let bench = Bench::current();
    let build_with = |packages: &str, proxy: &str| {
        let text =
            format!("python: 3.11\nsystem-packages: []\ninstaller: uv\npackages: [{packages}]\n");
        bench.write("build.yaml", text);
        let mut command = bench.tool(["build.yaml", "-v", "--base", &base]);
        let run = bench.finish(command.env("HTTPS_PROXY", proxy));
        run.line();
        run.stderr().to_owned()
    };
    let build = |packages: &str| build_with(packages, "");
    if build("six==1.16.0").contains("the runner `chroot`") {
        return;
    }
    let folder = bench.store().join("caches/uv");
    let names = fs::read_dir(&folder).expect("uv has a cache");
    let names = names.map(|entry| entry.expect("readable").file_name().into_string());
    let ours = |name: &String| name.starts_with("uv-") || name.starts_with("tmp");
    let programs: Vec<_> = names.flatten().filter(ours).collect();
    let [program] = &programs[..] else {
        panic!("there is one program: {programs:?}")
    };
    let program = folder.join(program);
    let began = fs::metadata(&program).expect("it is there").modified().ok();
    let said = build("six==1.16.0, idna==3.6");
    assert!(said.contains("idna==3.6"), "{said}");
    let now = fs::metadata(&program).expect("it is there").modified().ok();
    assert_eq!(now, began, "it was not fetched again");
    // PyPI says for how long its answers hold, even if a proxy of this network does not let it: nobody is asked.
    let said = build_with("idna==3.6, six==1.16.0", "http://127.0.0.1:1");
    assert!(said.contains("+ six==1.16.0"), "{said}");
    fs::write(&program, "#!/bin/sh\necho pwned\n").expect("ours");
    let said = build("idna==3.6");
    assert!(
        said.contains("idna==3.6") && !said.contains("pwned"),
        "{said}"
    );
}

#[test]
fn what_uv_installs_is_compiled_once() {
    let Some(layout) = base_layout() else { return };
    let base = format!("oci:{}", layout.display());
    let build = |bench: &Bench, packages: &str| {
        let text =
            format!("python: 3.11\nsystem-packages: []\ninstaller: uv\npackages: [{packages}]\n");
        bench.write("build.yaml", text);
        let mut command = bench.tool(["build.yaml", "--base", &base]);
        let run = bench.finish(command.env("SOURCE_DATE_EPOCH", "1700000000"));
        (run.line().to_owned(), run.stderr().to_owned())
    };
    let cold = |packages: &str| build(&Bench::current(), packages).0;
    let bench = Bench::current();
    let (_, said) = build(&bench, "six==1.16.0, idna==3.6");
    if said.contains("the runner `chroot`") {
        return;
    }
    let kept = || -> BTreeMap<PathBuf, SystemTime> {
        let entries = fs::read_dir(bench.store().join("caches/uv/bytecode")).expect("it is kept");
        let entries = entries.map(|entry| entry.expect("readable").path());
        let with_time = |path: PathBuf| {
            (
                path.clone(),
                fs::metadata(path).unwrap().modified().unwrap(),
            )
        };
        entries.map(with_time).collect()
    };
    let before = kept();
    assert_eq!(before.len(), 2, "one a package");
    let more = "six==1.16.0, idna==3.6, certifi==2024.2.2";
    assert_eq!(build(&bench, more).0, cold(more));
    let mut after = kept();
    assert_eq!(after.len(), 3);
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(after, before, "what was known was not compiled again");
    // What is kept there is no bytecode, or not whole: it is compiled again.
    for (number, path) in kept().keys().enumerate() {
        let content = fs::read(path).unwrap();
        let half = content[..content.len() / 2].to_vec();
        let broken = [b"no bytecode".to_vec(), half, Vec::new()];
        fs::write(path, &broken[number]).unwrap();
    }
    let other = "certifi==2024.2.2, six==1.16.0, idna==3.6";
    assert_eq!(build(&bench, other).0, cold(other));
}

#[test]
fn a_cache_that_the_image_asks_for_is_uvs_alone() {
    let Some(layout) = base_layout() else { return };
    let base = format!("oci:{}", layout.display());
    let bench = Bench::current();
    let out = bench.path("out");
    let output = format!("oci-dir:{}", out.display());
    for (installer, is_there) in [("uv", true), ("pip", false)] {
        let text = format!(
            "tag: image:1\npython: 3.11\nsystem-packages: []\ninstaller: {installer}\npackages: [six==1.16.0]\nenv: {{UV_CACHE_DIR: /opt/cache}}\n"
        );
        bench.write("build.yaml", text);
        bench
            .run(["build.yaml", "--base", &base, "-o", &output])
            .line();
        let image = verify(&out, "1");
        assert_eq!(image.find("opt/cache").is_some(), is_there, "{installer}");
        assert!(image.find("opt/cache/bytecode").is_none(), "{installer}");
        fs::remove_dir_all(&out).expect("ours");
    }
}

#[test]
fn cold_builds_give_the_same_digest_on_every_runner() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let mut digests = Vec::new();
    for (user, runner) in [
        (User::Root, "auto"),
        (User::Root, "chroot"),
        (User::Subids, "auto"),
        (User::Plain, "auto"),
    ] {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        bench.write_wheel(&[]);
        bench.write("build.yaml", buildfile("installer: uv\n"));
        let mut command = bench.tool(["build.yaml", "--base", &base, "--runner", runner]);
        let run = bench.finish(command.env("SOURCE_DATE_EPOCH", "1700000000"));
        let (_, digest) = run.line().split_once('@').expect("reference@digest");
        digests.push((user, runner, digest.to_owned()));
    }
    for (user, runner, digest) in &digests {
        assert_eq!(*digest, digests[0].2, "{user:?} on {runner}");
    }
}

#[test]
fn what_uv_cannot_do_is_told() {
    let bench = Bench::current();
    bench.write(
        "build.yaml",
        "python: 3.11\npip-config:\n  global:\n    index-url: https://example.com\n    prefer-binary: true\n",
    );
    let run = bench.run(["build.yaml", "--installer", "uv"]);
    assert_snapshot!(run.refusal(2), @r#"
    error: build.yaml:5:5: uv has nothing like pip's setting `prefer-binary`
      5 |     prefer-binary: true
        |     ^^^^^^^^^^^^^
      hint: remove it, or write `installer: pip`, which goes by it
    "#);
    let run = bench.run(["build.yaml", "--installer", "poetry"]);
    assert!(
        run.refusal(2).contains("use pip or uv"),
        "{}",
        run.refusal(2)
    );

    let Some(layout) = base_layout() else { return };
    let base = format!("oci:{}", layout.display());
    let refusal = |more: &str, options: &[&str]| {
        let text = format!("python: 3.11\nsystem-packages: []\ninstaller: uv\n{more}");
        bench.write("build.yaml", text);
        let run = bench.run([&["build.yaml", "--base", &base], options].concat());
        run.refusal(1).to_owned()
    };
    let said = refusal("packages: ['six==1.16.1.999']\n", &[]);
    assert!(
        said.contains("there is no version of six==1.16.1.999"),
        "{said}"
    );
    assert!(
        said.contains("hint: check the name and the version in `packages`"),
        "{said}"
    );
    let said = refusal("packages: [six]\nenv: {PIP_TARGET: /x}\n", &[]);
    assert!(
        said.contains("error: uv has nothing like pip's setting `target`"),
        "{said}"
    );
    // A cache of its own, which has no uv yet.
    let no_index = "packages: [six]\npip-config: {global: {no-index: 1}}\n";
    let said = refusal(no_index, &["--no-cache"]);
    assert!(said.contains("hint: `installer: uv` takes uv "), "{said}");
}

/// Writes a project, which needs nothing to be built, below `folder` of the working directory. Its backend
/// writes a note of each build into the project.
fn write_project(bench: &Bench, folder: &str, name: &str) {
    for (file, text) in project(name) {
        bench.write(&format!("{folder}/{file}"), text);
    }
}

/// The files of such a project.
fn project(name: &str) -> [(String, String); 3] {
    let backend = format!(
        r#"
import os, zipfile

def write(directory, files):
    open("built", "w").close()
    name = "{name}-1.0-py3-none-any.whl"
    files["{name}-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files["{name}-1.0.dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "{name}-1.0.dist-info/RECORD"
    files[record] = "".join(file + ",,\n" for file in [*files, record])
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return name

def build_wheel(directory, settings=None, metadata=None):
    return write(directory, {{"{name}.py": open("{name}.py").read()}})

def build_editable(directory, settings=None, metadata=None):
    return write(directory, {{"{name}.pth": os.getcwd()}})
"#
    );
    let pyproject = format!(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n\
         [project]\nname = '{name}'\nversion = '1.0'\n"
    );
    [
        ("backend.py".to_owned(), backend),
        ("pyproject.toml".to_owned(), pyproject),
        (format!("{name}.py"), "x = 1\n".to_owned()),
    ]
}

#[test]
fn snapshots_are_overridden_and_relative_paths_are_in_the_workspace() {
    let Some(layout) = base_layout() else { return };
    let base = format!("oci:{}", layout.display());
    let bench = Bench::current();
    bench.write("snapshot.yaml", "packages: [idna==3.6, six==1.16.0]\n");
    write_project(&bench, "theirs/fixed", "fixed");
    write_project(&bench, "theirs/edited", "edited");
    // The workspace's modules are none of Python's own.
    bench.write("theirs/zipfile.py", "raise SystemExit('shadowed')\n");
    for installer in ["pip", "uv"] {
        let text = format!(
            "tag: image:1\npython: 3.11\nsystem-packages: []\ninstaller: {installer}\nsnapshot: snapshot.yaml\n\
             files: [theirs/fixed, theirs/edited, theirs/zipfile.py]\n\
             packages: [idna==3.7, ./fixed, -e ./edited]\n"
        );
        bench.write("build.yaml", text);
        let out = bench.path(installer);
        let output = format!("oci-dir:{}", out.display());
        bench
            .run(["build.yaml", "--base", &base, "-o", &output])
            .line();
        let image = verify(&out, "1");
        let installed = |name: &str| {
            let path = format!("venv/lib/python3.11/site-packages/{name}");
            image.find(&path).is_some()
        };
        assert!(installed("idna-3.7.dist-info"), "{installer}");
        assert!(!installed("idna-3.6.dist-info"), "{installer}");
        assert!(installed("six-1.16.0.dist-info"), "{installer}");
        assert!(
            installed("fixed.py") && installed("edited.pth"),
            "{installer}"
        );
        assert!(
            image.find("workspace/edited/built").is_some(),
            "{installer}"
        );
        let listed = image.find("workspace/installation/snapshot-requirements.txt");
        assert!(listed.is_some(), "{installer}");
    }
}

/// A repository with a project in a folder; gives the commit's id.
fn write_repository(path: &Path, name: &str, folder: &str) -> String {
    let files = project(name).map(|(file, text)| (format!("{folder}{file}"), text));
    let files = files.each_ref();
    let files = files.map(|(path, text)| ("100644", path.as_str(), text.as_str()));
    GitRepository::new(path).commit("main", &files)
}

#[test]
fn requirements_of_git_need_no_git_in_the_image() {
    let Some(layout) = base_layout() else { return };
    let base = format!("oci:{}", layout.display());
    let bench = Bench::current();
    let folder = bench.root().join("theirs");
    let named = write_repository(&folder.join("named.git"), "named", "");
    write_repository(&folder.join("nested.git"), "nested", "in/side/");
    write_repository(&folder.join("edited.git"), "edited", "");
    write_repository(&folder.join("included.git"), "included", "");
    write_repository(&folder.join("required.git"), "required", "");
    let Some(web) = GitWeb::start(&folder) else {
        return;
    };
    let url = |path: &str| web.web.url(path);
    let private = url("private/git/named.git").replace("://", "://user:pa55-of-web@");
    let suite = GitRepository::new(folder.join("suite.git"));
    let lines = format!("# theirs\ngit+{}#egg=required\n", url("git/required.git"));
    suite.commit("main", &[("100644", "requirements.txt", &lines)]);
    bench.write("more.txt", format!("git+{}\n", url("git/included.git")));
    for installer in ["pip", "uv"] {
        let text = format!(
            "tag: image:1\npython: 3.11\nsystem-packages: []\ninstaller: {installer}\nfiles: [more.txt]\n\
             repositories:\n  suite: {{url: '{}', requirements_file: true}}\n\
             packages:\n  - named @ git+{private}@main ; python_version > '3'\n  \
             - git+{}#subdirectory=in/side&egg=nested\n  - -e git+{}#egg=edited\n  \
             - -r ${{WORKSPACE}}/more.txt\n",
            url("git/suite.git"),
            url("git/nested.git"),
            url("git/edited.git"),
        );
        bench.write("build.yaml", text);
        let out = bench.path(installer);
        let output = format!("oci-dir:{}", out.display());
        let run = bench.run(["build.yaml", "--base", &base, "-o", &output]);
        run.line();
        assert!(
            run.stderr().contains("credentials in `packages`"),
            "{installer}"
        );
        let image = verify(&out, "1");
        for file in [
            "named.py",
            "nested.py",
            "included.py",
            "required.py",
            "edited.pth",
        ] {
            let path = format!("venv/lib/python3.11/site-packages/{file}");
            assert!(image.find(&path).is_some(), "{installer}: {file}");
        }
        assert!(
            image.find("venv/src/edited/edited.py").is_some(),
            "{installer}"
        );
        let script = "cd /venv/lib/python3.11/site-packages && cat n*.dist-info/direct_url.json && \
            grep -c 'direct_url.json,sha256=' n*.dist-info/RECORD && cat /workspace/installation/requirements.txt";
        let said = bench.run(["run", "-q", "image:1", "sh", "-c", script]);
        let said = said.stdout();
        for words in [
            format!(
                r#"{{"url": "{}", "vcs_info": {{"commit_id": "{named}", "requested_revision": "main", "vcs": "git"}}}}"#,
                url("private/git/named.git")
            ),
            r#"{"subdirectory": "in/side", "url": "#.to_owned(),
            "named-1.0.dist-info/RECORD:1\n".to_owned(),
            format!("named @ git+{}@main ;", url("private/git/named.git")),
        ] {
            assert!(said.contains(&words), "{installer}: {words}\n{said}");
        }
        assert!(!said.contains("pa55-of-web"), "{said}");
    }
    // Without mounts the clones are shown, and written to, as well.
    if bench.user() == User::Root {
        let digest = |runner: &str| {
            let arguments = [
                "build.yaml",
                "--no-cache",
                "--installer",
                "pip",
                "--base",
                &base,
                "--runner",
                runner,
            ];
            let mut command = bench.tool(arguments);
            let run = bench.finish(command.env("SOURCE_DATE_EPOCH", "1700000000"));
            run.line().to_owned()
        };
        assert_eq!(digest("chroot"), digest("auto"));
    }
    new_commits_are_seen(&bench, &base, &folder, &url("git/none.git"));
}

/// A new commit is seen, and nothing else makes the step run again; what git has to say is said.
fn new_commits_are_seen(bench: &Bench, base: &str, folder: &Path, missing: &str) {
    let build = || bench.run(["build.yaml", "--base", base]).line().to_owned();
    let before = build();
    assert_eq!(build(), before);
    let more = ("100644", "named.py", "x = 2\n");
    GitRepository::new(folder.join("named.git")).commit("main", &[more]);
    assert_ne!(build(), before);
    let text = format!("python: 3.11\npackages: ['git+{missing}']\n");
    bench.write("build.yaml", text);
    let run = bench.run(["build.yaml", "--base", base]);
    let said = run.refusal(1);
    assert!(
        said.contains("failed to clone") && said.contains("none.git"),
        "{said}"
    );
}
