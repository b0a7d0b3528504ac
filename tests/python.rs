//! The Python package: installed from its wheel for each Python here, called by scripts, and as a command of pyATS.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fs_err as fs;

use crate::support::{
    Bench, Login, Registry, Run, base_layout, binary, repository, serve_base, skip, succeed,
};

/// A wheel with the program that the tests run; nothing that is linked into it comes along. None if this machine cannot
/// make one.
fn wheel() -> Option<PathBuf> {
    let script = repository().join("tests/python/wheel.sh");
    let mut command = cargo_from_outside("bash");
    command.arg(script).arg(env!("CARGO_TARGET_TMPDIR"));
    let output = command.output().expect("bash runs");
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        skip(&format!("no wheel can be made here: {said}"));
        return None;
    }
    let path = String::from_utf8(output.stdout).expect("a path");
    Some(PathBuf::from(path.trim()))
}

/// A command that may run cargo: what is told to tests would have it compile everything anew.
fn cargo_from_outside(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_HOME" && text != "CARGO_TARGET_DIR" {
            command.env_remove(&name);
        }
    }
    command
}

/// A mirror of Docker Hub, for scripts that ask it for their base.
fn mirror_of_hub(mirror: &Registry) -> String {
    let host = mirror.host();
    format!(
        "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"{host}\"\ninsecure = true\n"
    )
}

/// Every Python of this machine from 3.8 on, one of each version.
fn pythons() -> Vec<(String, PathBuf)> {
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    // Where one is of pyenv's, the others lie beside it.
    let mut command = Command::new("python3");
    let prefix = succeed(command.args(["-c", "import sys; print(sys.base_prefix)"]));
    let versions = Path::new(prefix.trim()).parent();
    let versions = versions.filter(|folder| folder.ends_with("versions"));
    let entries = versions.map(fs::read_dir).into_iter().flatten().flatten();
    folders.extend(entries.flatten().map(|entry| entry.path().join("bin")));
    let found = (8..20).filter_map(|minor| {
        let name = format!("python3.{minor}");
        let runs = |program: &PathBuf| {
            let mut command = Command::new(program);
            let output = command.args(["-c", "import ensurepip, venv"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        let mut programs = folders.iter().map(|folder| folder.join(&name));
        Some((name.clone(), programs.find(runs)?))
    });
    found.collect()
}

/// An environment of the bench's with the wheel, and nothing else.
fn install(bench: &Bench, python: &Path, wheel: &Path, name: &str) -> PathBuf {
    let venv = bench.path(name);
    // Old versions of pip leave something behind.
    let temporary = bench.path(&format!("{name}-tmp"));
    fs::create_dir(&temporary).expect("it is new");
    let mut make = bench.command(python);
    make.args(["-m", "venv"]).arg(&venv);
    succeed(make.env("TMPDIR", &temporary));
    let mut pip = bench.command(venv.join("bin/pip"));
    pip.args(["install", "--quiet", "--no-index"]).arg(wheel);
    succeed(pip.env("TMPDIR", &temporary));
    venv
}

fn tests(name: &str) -> PathBuf {
    repository().join("tests/python").join(name)
}

/// A script, run by a Python of an environment, that may use a registry with a login.
fn script(bench: &Bench, venv: &Path, path: &Path, registry: &Registry) -> Command {
    let mut command = bench.command(venv.join("bin/python"));
    command
        .arg(path)
        .env("PYATS_IMAGE_BUILD_STORE", bench.store())
        .env("REGISTRY", registry.host())
        .env(
            "REGISTRY_LOGIN",
            format!("{}:{}", Registry::USER, Registry::PASSWORD),
        )
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn said(run: &Run) -> String {
    assert_eq!(run.status(), Some(0), "{}\n{}", run.stdout(), run.stderr());
    run.stdout().to_owned() + run.stderr()
}

#[test]
fn a_script_for_the_ancestor_runs_unchanged() {
    let Some(wheel) = wheel() else { return };
    let Some((hub, _)) = serve_base() else { return };
    let Some(registry) = Registry::with_login(Login::Password) else {
        return;
    };
    let bench = Bench::current();
    let venv = install(&bench, Path::new("python3"), &wheel, "venv");
    let mirrors = bench.write("registries.conf", mirror_of_hub(&hub));
    let file = bench.write("file3", "here\n");
    let hello = bench.write_wheel(&[]);
    let _ = (bench.path("context"), bench.path("kept"));
    let mut command = script(&bench, &venv, &tests("ancestor.py"), &registry);
    command
        .env("CONTAINERS_REGISTRIES_CONF", mirrors)
        .env("FILE", file)
        .env("WHEEL", hello);
    let run = bench.finish(&mut command);
    assert!(said(&run).ends_with("unchanged\n"), "{}", run.stdout());
    assert!(registry.tagged("myrepo/custom", "latest").is_some());
}

#[test]
fn the_oldest_and_the_newest_python_can_use_it() {
    let mut pythons = pythons();
    if pythons.len() > 2 {
        pythons.drain(1..pythons.len() - 1);
    }
    can_use_it(&pythons);
}

#[test]
#[ignore = "long: a minute for each"]
fn every_python_of_this_machine_can_use_it() {
    can_use_it(&pythons());
}

fn can_use_it(pythons: &[(String, PathBuf)]) {
    let Some(wheel) = wheel() else { return };
    let Some(layout) = base_layout() else { return };
    let Some(registry) = Registry::with_login(Login::Password) else {
        return;
    };
    assert!(!pythons.is_empty(), "there is a Python");
    let bench = Bench::current();
    for (name, python) in pythons {
        let venv = install(&bench, python, &wheel, name);
        let mut command = script(&bench, &venv, &tests("test_api.py"), &registry);
        let run = bench.finish(command.env("BASE", format!("oci:{}", layout.display())));
        let said = said(&run);
        assert!(said.contains("\nOK"), "{name}: {said}");
    }
    bench.is_deserted("all tests are over");
}

/// The examples of the README's section run, one after the other, with its host replaced.
#[test]
fn the_examples_of_the_readme_run() {
    let Some(wheel) = wheel() else { return };
    let Some((hub, _)) = serve_base() else { return };
    let Some(registry) = Registry::with_login(Login::Password) else {
        return;
    };
    let bench = Bench::current();
    let venv = install(&bench, Path::new("python3"), &wheel, "venv");
    let readme = fs::read_to_string(repository().join("README.md")).expect("it is there");
    let (_, section) = readme.split_once("\n## Python\n").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("more sections");
    let blocks: Vec<_> = section.split("```python\n").skip(1).collect();
    let blocks: Vec<_> = blocks
        .iter()
        .filter_map(|block| Some(block.split_once("```")?.0))
        .collect();
    assert!(blocks.len() >= 3, "{blocks:?}");
    let text = blocks
        .concat()
        .replace("registry.example.com", &registry.host())
        // What takes a minute to install is another test's.
        .replace("pyats[full]", "six==1.16.0");
    let example = bench.write("example.py", text);
    bench.write("build.yaml", "python: 3.11\nsystem-packages: []\n");
    let _ = bench.path("out");
    let mirrors = bench.write("registries.conf", mirror_of_hub(&hub));
    let mut command = script(&bench, &venv, &example, &registry);
    command
        .env("CONTAINERS_REGISTRIES_CONF", mirrors)
        .env("REGISTRY_USER", Registry::USER)
        .env("REGISTRY_PASSWORD", Registry::PASSWORD);
    let run = bench.finish(&mut command);
    let said = said(&run);
    assert!(said.contains("['mypyatsimage:latest', '"), "{said}");
    assert!(said.contains("['one:1', 'two:1']"), "{said}");
    assert!(registry.tagged("team/mypyatsimage", "latest").is_some());
}

#[test]
#[ignore = "long: installs pyATS here and in an image"]
fn pyats_has_it_as_a_command() {
    let Some(wheel) = wheel() else { return };
    let Some(layout) = base_layout() else { return };
    let bench = Bench::current();
    let venv = install(&bench, Path::new("python3"), &wheel, "venv");
    // Without its library, pyATS cannot show its own help.
    let mut pip = bench.command(venv.join("bin/pip"));
    succeed(pip.args(["install", "--quiet", "pyats[library]"]));
    let pyats = |arguments: &[&str]| {
        let mut command = bench.command(venv.join("bin/pyats"));
        command
            .args(arguments)
            .env("PYATS_IMAGE_BUILD_STORE", bench.store());
        bench.finish(&mut command)
    };
    assert!(said(&pyats(&["--help"])).contains("    image  "));
    assert!(said(&pyats(&["image", "--help"])).contains("    build  "));
    let help = said(&pyats(&["image", "build", "--help"]));
    assert!(
        help.contains("Usage: pyats image build [OPTIONS] <FILE>"),
        "{help}"
    );
    bench.write("build.yaml", "python: 3.11\npackages: [pyats]\n");
    let base = format!("oci:{}", layout.display());
    let build = [
        "image",
        "build",
        "build.yaml",
        "-t",
        "plugin:1",
        "--base",
        &base,
    ];
    let line = said(&pyats(&build));
    assert!(
        line.starts_with("docker.io/library/plugin:1@sha256:"),
        "{line}"
    );
    assert!(said(&pyats(&["image", "inspect", "plugin:1"])).contains("\"plugin:1\""));
    let wrong = pyats(&["image", "build", "missing.yaml"]);
    assert_eq!(wrong.status(), Some(2));
    assert!(
        wrong.stderr().contains("there is no build file"),
        "{}",
        wrong.stderr()
    );
    let _ = wrong.stdout();
}

#[test]
#[ignore = "long: compiles the program twice, as it is shipped"]
fn the_wheel_to_ship_is_small_and_runs_anywhere() {
    let bench = Bench::current();
    let venv = bench.path("tools");
    succeed(bench.command("python3").args(["-m", "venv"]).arg(&venv));
    let mut pip = bench.command(venv.join("bin/pip"));
    succeed(pip.args([
        "install",
        "--quiet",
        "maturin>=1.9,<2",
        "wheel",
        "auditwheel",
    ]));
    let path = std::env::var("PATH").expect("a path");
    let path = format!("{}:{path}", venv.join("bin").display());
    let wheels = bench.path("wheels");
    let mut command = cargo_from_outside("bash");
    let script = repository().join("src/python/wheel.sh");
    succeed(command.arg(script).arg(&wheels).env("PATH", &path));
    let made = fs::read_dir(&wheels).expect("it made the folder");
    let made: Vec<_> = made.map(|entry| entry.expect("readable").path()).collect();
    let [wheel] = &made[..] else {
        panic!("one wheel: {made:?}")
    };
    let name = wheel.file_name().expect("a name").to_str().expect("plain");
    for tag in ["manylinux_2_17_x86_64", "musllinux_1_1_x86_64"] {
        assert!(name.contains(tag), "{name}");
    }
    let size = fs::metadata(wheel).expect("it is there").len();
    assert!(size < 20_000_000, "{size} bytes");
    let mut auditwheel = bench.command(venv.join("bin/auditwheel"));
    let said = succeed(auditwheel.arg("show").arg(wheel));
    // The name promises less than it could: the program is bound to no C library at all.
    for words in [
        "consistent with the following platform tag: \"manylinux_2_5_x86_64\"",
        "requires no external shared libraries",
    ] {
        assert!(
            said.split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .contains(words),
            "{said}"
        );
    }

    let fresh = bench.path("fresh");
    succeed(bench.command("python3").args(["-m", "venv"]).arg(&fresh));
    // Other tests use the machine too.
    let install = || {
        let began = Instant::now();
        let mut pip = bench.command(fresh.join("bin/pip"));
        let arguments = ["install", "--quiet", "--no-index", "--force-reinstall"];
        succeed(pip.args(arguments).arg(wheel));
        began.elapsed()
    };
    let took = (0..3).map(|_| install()).min().unwrap_or_default();
    assert!(took < Duration::from_secs(2), "{took:?}");
    for page in [
        "man/man1/pyats-image-build.1",
        "fish/vendor_completions.d/pyats-image-build.fish",
    ] {
        assert!(fresh.join("share").join(page).is_file(), "{page}");
    }

    // From a clean clone, without any of this.
    let clone = bench.path("clone");
    succeed(
        Command::new("git")
            .args(["clone", "--quiet"])
            .arg(repository())
            .arg(&clone),
    );
    let from_clone = bench.path("from-clone");
    succeed(
        bench
            .command("python3")
            .args(["-m", "venv"])
            .arg(&from_clone),
    );
    let mut pip = cargo_from_outside(from_clone.join("bin/pip"));
    succeed(pip.args(["install", "--quiet", "."]).current_dir(&clone));
    let said = succeed(
        bench
            .command(from_clone.join("bin/pyats-image-build"))
            .arg("--version"),
    );
    assert_eq!(
        said.trim(),
        concat!("pyats-image-build ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn what_the_wheel_carries_is_what_the_program_prints() {
    let folder = tempfile::tempdir().expect("a folder");
    let generate = repository().join("src/python/generate.sh");
    let mut command = Command::new("bash");
    command.arg(generate).arg(binary()).arg(folder.path());
    succeed(&mut command);
    let mut diff = Command::new("diff");
    diff.arg("-r")
        .arg(repository().join("src/python/data/data/share"))
        .arg(folder.path().join("data/share"));
    let output = diff.output().expect("diff runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "run src/python/generate.sh: {said}"
    );
}
