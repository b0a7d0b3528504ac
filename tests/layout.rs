//! `layout: pyats`: workspace and virtual environment are one folder, as in images of the original tool since 22.11.

use crate::support::{
    Bench, Tree, User, base_layout, buildah_build, serve_base, umoci_unpack, verify,
};

const BUILD: &str = "
tag: image:1
python: 3.11
layout: pyats
system-packages: []
files: [testbed.yaml, {tools/x.py: job.py}, job.py, pib_hello-1.0-py3-none-any.whl]
packages: ['/pyats/pib_hello-1.0-py3-none-any.whl']
pip-config: {global: {disable-pip-version-check: 1}}
jobfiles: {paths: [/pyats/tools/x.py, none.py]}
cmds:
  pre: |
    COPY testbed.yaml /etc/
    RUN /pyats/bin/pip --version > /etc/pip-version && ls /workspace/job.py > /etc/listed
";

/// Where trees of this tool and of Buildah may differ, as patterns with reasons.
const ALLOWED: [(&str, &str); 5] = [
    ("{dev,proc,sys,run}{,/**}", "where Buildah mounts"),
    (
        "etc/{hosts,resolv.conf,hostname}",
        "Buildah leaves empty files",
    ),
    (
        "**/__pycache__{,/**}",
        "this tool compiles after it settled the times",
    ),
    (
        "pyats/**/*.dist-info/RECORD",
        "lists the bytecode files above",
    ),
    (
        "var/{lib/apt/lists,cache/apt,log}/**",
        "stay out of this tool's layers",
    ),
];

#[test]
fn one_folder_holds_it_all() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write_wheel(&[]);
    bench.write("testbed.yaml", "devices: {}\n");
    bench.write("job.py", "print('job')\n");
    bench.write("build.yaml", BUILD);
    let context = bench.path("context");
    let run = bench.run([
        "build.yaml",
        "--base",
        &base,
        "-o",
        "oci-dir:out",
        "-p",
        "context",
        "-k",
    ]);
    run.line();
    let warning = "`jobfiles` names `none.py`, which is not a file in the workspace";
    assert!(run.stderr().contains(warning), "{}", run.stderr());
    let out = bench.path("out");
    let image = verify(&out, "1");
    for name in ["WORKSPACE", "VIRTUAL_ENV"] {
        assert_eq!(image.env(name), Some("/pyats"));
    }
    assert_eq!(image.config["config"]["WorkingDir"], "/pyats");
    let link = image
        .find("workspace")
        .and_then(|entry| entry.target.as_deref());
    assert_eq!(link, Some("/pyats"));
    assert!(image.find("venv").is_none());
    for name in ["etc/testbed.yaml", "pyats/bin/pib-hello", "pyats/pip.conf"] {
        assert!(image.find(name).is_some(), "{name}");
    }
    let script = "pwd; command -v python; cat /etc/pip-version /etc/listed installation/jobfiles.txt; echo; \
        pip list --format=freeze | grep psutil; cat installation/default-requirements.txt";
    let run = bench.run(["run", "-q", "image:1", "sh", "-c", script]);
    let said = run.stdout();
    for words in [
        "/pyats\n/pyats/bin/python\npip ",
        "/workspace/job.py\n{\"jobs\": [\"/pyats/job.py\", \"/pyats/tools/x.py\"]}\npsutil==",
        "\npsutil\n",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }

    // Without `pre` a changed script changes the workspace's layer alone.
    let (text, _) = BUILD.split_once("cmds:").expect("it has some");
    let text = text.replace(
        "packages: ['/pyats/pib_hello-1.0-py3-none-any.whl']",
        "packages: [six==1.16.0]",
    );
    bench.write("build.yaml", &text);
    bench.run(["build.yaml", "--base", &base]).line();
    bench.write("job.py", "print('another')\n");
    let run = bench.run(["build.yaml", "--base", &base, "-n", "-v"]);
    let _ = run.stderr();
    assert!(
        run.stdout().contains("step: packages: cached"),
        "{}",
        run.stdout()
    );

    if bench.user() == User::Root {
        let name = "image/pyats";
        let Some((other, built)) = buildah_build(&bench, &context, name, "buildah") else {
            return;
        };
        assert_eq!(
            image.config["config"]["Entrypoint"],
            built.config["config"]["Entrypoint"]
        );
        assert_eq!(image.config["config"]["Env"], built.config["config"]["Env"]);
        let ours = Tree::of(&umoci_unpack(&bench, &out, "1", "ours").join("rootfs"));
        let theirs = Tree::of(&umoci_unpack(&bench, &other, "latest", "theirs").join("rootfs"));
        assert_eq!(ours.differences(&theirs, &ALLOWED), [""; 0]);
    }
}

#[test]
fn the_layout_has_packages_and_names_of_its_own() {
    let Some(layout) = base_layout() else { return };
    let base = format!("oci:{}", layout.display());
    let bench = Bench::current();
    bench.write("build.yaml", "python: 3.11\nlayout: pyats\n");
    let run = bench.run(["build.yaml", "--base", &base, "-n"]);
    let _ = run.stderr();
    let packages = "git iputils-ping net-tools openssh-client telnet tini";
    assert!(run.stdout().contains(packages), "{}", run.stdout());
    bench.write("pyvenv.cfg", "");
    bench.write("src/job.py", "");
    std::os::unix::fs::symlink("src", bench.path("lib")).expect("ours");
    for (more, words) in [
        (
            "files: [pyvenv.cfg]",
            "`pyvenv.cfg` belongs to the build itself",
        ),
        (
            "files: [pyvenv.cfg, {bin: src/job.py}]",
            "`pyvenv.cfg` belongs to the build itself",
        ),
        (
            "files: [{bin: src/job.py}]",
            "failed to stage `files[0]`\n  caused by: `bin` is a folder of the virtual environment",
        ),
        ("files: [lib, {include: src}, {bin/job.py: src/job.py}]", ""),
        ("env: {WORKSPACE: /x}", "the image is built around `/pyats`"),
        ("jobfiles: {glob: /workspace/x}", ""),
        (
            "jobfiles: {glob: /venv/x}",
            "the glob pattern leaves the workspace",
        ),
    ] {
        bench.write(
            "build.yaml",
            format!("python: 3.11\nlayout: pyats\n{more}\n"),
        );
        let run = bench.run(["build.yaml", "--base", &base, "-n"]);
        let said = run.stderr();
        assert_eq!(run.status() == Some(0), words.is_empty(), "{more}: {said}");
        assert!(said.contains(words), "{more}: {said}");
        let _ = run.stdout();
    }
    bench.write("build.yaml", "layout: flat\n");
    let run = bench.run(["build.yaml"]);
    assert!(
        run.refusal(2)
            .contains("`layout` must be `split` or `pyats`"),
        "{}",
        run.stderr()
    );
}
