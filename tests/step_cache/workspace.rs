//! Which steps depend on the workspace, and what is kept of trees.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::*;

/// Everything has the time of the build file's choice, so that builds can be compared.
const EPOCH: (&str, &str) = ("SOURCE_DATE_EPOCH", "1700000000");

/// Commands that look at nothing in the workspace, though it is their directory.
const BLIND: [&str; 5] = [
    "echo text >/blind",
    "cd / && ls",
    "stat . /workspace",
    "test -e nothere || true",
    "bash -c 'pwd; exec true'",
];

/// Commands that do, each in another way. None changes anything that depends on it.
const LOOKING: [&str; 9] = [
    "cat job.py",
    "ls",
    "echo *",
    "test -f /workspace/job.py",
    "find / -xdev -name none",
    "cat installation/build.yaml",
    "ln -s $PWD/job.py /tmp/l; stat -L /tmp/l; rm /tmp/l",
    "(sleep 0.2; exec head -n1 job.py) & wait",
    "mkdir new && rmdir new",
];

fn build(ground: &Ground, more: &[&str]) -> (String, String) {
    let fixed = ["build.yaml", "--base", &ground.base, "-o", "oci-dir:out"];
    let mut command = ground.bench.tool([&fixed[..], more].concat());
    let run = ground.bench.finish(command.env(EPOCH.0, EPOCH.1));
    let (_, digest) = run.line().split_once('@').expect("reference@digest");
    assert_eq!(verify(&ground.bench.path("out"), "1").digest, digest);
    (digest.to_owned(), run.stderr().to_owned())
}

/// The runners that work here, and whether an overlay does.
pub(super) fn runners(ground: &Ground) -> Vec<(&'static str, bool)> {
    let run = ground.bench.run(["doctor", "--offline"]);
    let said = run.stdout().to_owned();
    let names = ["root", "userns-range", "userns-single", "chroot"];
    let works = |name: &&str| said.contains(&format!("\n{name}: works"));
    let overlay = said.contains("steps work on an overlay");
    let works = names.into_iter().filter(works);
    works
        .map(|name| (name, overlay && name != "chroot"))
        .collect()
}

/// Whether a step was taken from the cache.
fn is_cached(said: &str, command: &str) -> bool {
    let title = format!("] RUN /bin/sh -c {command}: ");
    let mut lines = said.lines();
    let line = lines.find(|line| line.contains(&title));
    line.unwrap_or_else(|| panic!("no `{command}` in {said}"))
        .contains("cached")
}

#[test]
fn a_step_depends_on_the_workspace_if_it_looks_there() {
    let Some(ground) = Ground::new() else { return };
    let commands: Vec<&str> = BLIND.into_iter().chain(LOOKING).collect();
    let runs = commands.join("\n    RUN ");
    let write = |runner: &str, files: &str| {
        let head = "tag: image:1\npython: 3.11\nsystem-packages: []\n";
        let text = format!(
            "{head}files: [{files}]\ncmds:\n  post: |\n    ENV RUNNER={runner}\n    RUN {runs}\n"
        );
        ground.bench.write("build.yaml", text);
    };
    ground.bench.write("nothere", "");
    let runners = runners(&ground);
    assert!(!runners.is_empty());
    for (number, (runner, has_overlay)) in runners.into_iter().enumerate() {
        write(runner, "job.py");
        let option = ["--runner", runner];
        ground
            .bench
            .write("job.py", format!("print('before {runner}')\n"));
        build(&ground, &option);
        ground
            .bench
            .write("job.py", format!("print('after {runner}')\n"));
        let (touched, said) = build(&ground, &option);
        for command in BLIND {
            assert_eq!(
                is_cached(&said, command),
                has_overlay,
                "{runner}: {command}"
            );
        }
        for command in LOOKING {
            assert!(!is_cached(&said, command), "{runner}: {command}");
        }
        if number == 0 {
            let (fresh, said) = build(&ground, &[&option[..], &["--no-cache"]].concat());
            assert_eq!(touched, fresh, "{said}");
        }
        // Whoever looked for what was not there did look.
        write(runner, "job.py, nothere");
        let (_, said) = build(&ground, &option);
        assert!(!is_cached(&said, "test -e nothere || true"), "{runner}");
    }
}

#[test]
fn a_touched_file_runs_nothing_though_there_are_commands_before_and_after() {
    let Some(ground) = Ground::new() else { return };
    if runners(&ground).iter().all(|(_, has_overlay)| !has_overlay) {
        return;
    }
    let text = BUILD.replace("  post: |", "  pre: |\n    RUN echo pre >/pre\n  post: |");
    ground.bench.write("build.yaml", text);
    ground.build(&[]);
    ground.bench.write("job.py", "print('another job')\n");
    let (_, said) = ground.build(&[]);
    assert_eq!(said.matches("cached").count(), 7, "{said}");
    assert!(!said.contains("unpack layers"), "{said}");
}

#[test]
fn a_layer_may_come_twice() {
    let Some(ground) = Ground::new() else { return };
    let head = "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [job.py]\n";
    let steps = "cmds:\n  post: |\n    RUN echo same >/x\n    RUN rm /x\n    RUN echo same >/x\n    RUN cat job.py /x >/y\n";
    ground.bench.write("build.yaml", format!("{head}{steps}"));
    build(&ground, &[]);
    ground.bench.write("job.py", "print('another job')\n");
    let (digest, said) = build(&ground, &[]);
    if runners(&ground)[0].1 {
        assert!(!is_cached(&said, "cat job.py /x >/y"), "{said}");
        assert!(is_cached(&said, "rm /x"), "{said}");
    }
    ground.forget();
    assert_eq!(build(&ground, &[]).0, digest);
}

/// What a folder has on the disk.
fn size(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).expect("ours");
    let below = if metadata.is_dir() {
        let entries = fs::read_dir(path).expect("ours");
        entries
            .map(|entry| size(&entry.expect("ours").path()))
            .sum()
    } else {
        0
    };
    below + metadata.blocks() * 512
}

fn stays_within_twice_its_size(edits: usize, command: &str) {
    let Some(ground) = Ground::new() else { return };
    let bench = &ground.bench;
    let head = "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [job.py]\n";
    let steps = format!("cmds:\n  pre: RUN {command}\n  post: RUN {command} >/post\n");
    bench.write("build.yaml", format!("{head}{steps}"));
    let build = |number: usize| {
        bench.write("job.py", format!("print({number})\n"));
        bench
            .run(["build.yaml", "-q", "--base", &ground.base])
            .line();
    };
    build(0);
    let first = size(&bench.store());
    for number in 1..=edits {
        build(number);
        let now = size(&bench.store());
        assert!(
            now <= 2 * first,
            "{now} bytes after {number} edits, {first} before"
        );
    }
    // An image that is run adds what it has beyond the base, once.
    for number in 0..2 {
        let tag = ["run", "-q", "image:1", "true"];
        assert_eq!(bench.run(tag).status(), Some(0), "{number}");
    }
    let now = size(&bench.store());
    assert!(now <= 2 * first, "{now} bytes after `run`, {first} before");

    // What comes back by itself goes first.
    std::thread::sleep(Duration::from_secs(1));
    let listed = bench.run(["cache", "ls", "--json"]);
    let listed: Value = serde_json::from_str(listed.stdout()).expect("it is JSON");
    let total = listed["bytes"].as_u64().expect("a number");
    let most = format!("{}", total - 1);
    let run = bench.run(["cache", "prune", "--max-size", &most]);
    let said = run.stdout();
    assert!(said.contains("tree"), "{said}");
    assert!(!said.contains("step") && !said.contains("base"), "{said}");
    bench.run(["run", "-q", "image:1", "true"]).stdout();
}

#[test]
fn edits_do_not_fill_the_store() {
    stays_within_twice_its_size(6, "ls");
}

#[test]
#[ignore = "long: 400 builds"]
fn two_hundred_edits_do_not_fill_the_store() {
    for command in ["true", "ls"] {
        stays_within_twice_its_size(200, command);
    }
}
