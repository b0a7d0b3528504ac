//! What ends up in the image: files with their modes, links and new names, packages from local wheels,
//! `pip.conf`, environment, and `run` with its options.

use std::os::unix::fs::{PermissionsExt, symlink};

use fs_err as fs;

use crate::support::{Bench, base_layout, serve_base, verify};

#[test]
fn files_packages_and_settings_arrive() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write_wheel(&[]);
    let script = bench.write("tree/bin/go.sh", "#!/bin/sh\necho went\n");
    fs::set_permissions(script, PermissionsExt::from_mode(0o755)).expect("ours");
    bench.write("tree/data.txt", "data");
    symlink("bin/go.sh", bench.path("tree/link")).expect("ours");
    let home = bench.root().join("home/note.txt");
    fs::write(&home, "from home").expect("ours");
    bench.give(&home);
    bench.write(
        "build.yaml",
        r#"
tag: image:1
python: 3.11
system-packages: []
files:
  - tree
  - sub/renamed.txt: tree/data.txt
  - "~/note.txt"
  - pib_hello-1.0-py3-none-any.whl
packages:
  - ${WORKSPACE}/pib_hello-1.0-py3-none-any.whl
env:
  PIP_NO_INDEX: "1"
  VERSION: 3.10
  SWITCH: yes
  JOINED: ${WORKSPACE}/tree:${VERSION}
  SECRETLY: "%ENV{FROM_OUTSIDE}"
pip-config:
  global:
    disable-pip-version-check: 1
    trusted-host: [one.example.com, two.example.com]
"#,
    );
    let mut command = bench.tool(["build.yaml", "--base", &base, "-o", "oci-dir:out"]);
    let run = bench.finish(command.env("FROM_OUTSIDE", "outer value"));
    run.line();
    let image = verify(&bench.path("out"), "1");

    let find = |name: &str| {
        image
            .find(name)
            .unwrap_or_else(|| panic!("{name} is not in the image"))
    };
    assert_eq!(find("workspace/tree/bin/go.sh").mode, 0o755);
    assert_eq!(
        find("workspace/tree/link").target.as_deref(),
        Some("bin/go.sh")
    );
    assert_eq!(
        find("workspace/tree/data.txt").owner,
        (0, 0),
        "files belong to root"
    );
    for name in [
        "workspace/sub/renamed.txt",
        "workspace/note.txt",
        "venv/bin/pib-hello",
    ] {
        find(name);
    }
    assert_eq!(image.env("VERSION"), Some("3.10"));
    assert_eq!(image.env("SWITCH"), Some("yes"));
    assert_eq!(image.env("JOINED"), Some("/workspace/tree:3.10"));
    assert_eq!(image.env("SECRETLY"), Some("outer value"));

    let shell = |script: &str| {
        let run = bench.run(["run", "-q", "--rm", "image:1", "sh", "-c", script]);
        run.stdout().to_owned()
    };
    insta::assert_snapshot!(shell("pib-hello; pwd; tree/link; cat sub/renamed.txt; echo; cat note.txt"), @r"
    hello
    /workspace
    went
    data
    from home
    ");
    assert_eq!(
        shell("cat $VIRTUAL_ENV/pip.conf").trim_end(),
        "[global]\ndisable-pip-version-check = 1\ntrusted-host = one.example.com\n    two.example.com"
    );
    // The value from outside is masked where the build file is kept.
    let kept = shell("cat installation/build.yaml");
    assert!(
        !kept.contains("outer value") && kept.contains("SECRETLY"),
        "{kept}"
    );
    // Bytecode was compiled with times that are valid in the layer: Python does not write it anew.
    let fresh = shell(
        "touch /tmp/now; python -c 'import pib_hello, pip'; find /venv -name '*.pyc' -newer /tmp/now",
    );
    assert_eq!(fresh, "");
}

#[test]
fn run_has_dockers_meanings() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write(
        "build.yaml",
        "tag: image:1\npython: 3.11\nsystem-packages: []\nenv: {PIP_NO_INDEX: '1', A: image}\n",
    );
    bench.run(["build.yaml", "--base", &base]).line();
    let note = bench.write("note.txt", "mounted");
    let mount = format!("{}:/mnt/note.txt:ro", note.display());
    let folder = bench.path("shared");
    fs::create_dir(&folder).expect("ours");
    let shared = format!("{}:/mnt/shared", folder.display());
    let script = "cat /mnt/note.txt; echo \" $A $B $(pwd)\"; id -u; echo new > /mnt/shared/made; \
                  (echo no > /mnt/note.txt) 2>/dev/null || echo read-only";
    let run = bench.run([
        "run", "-q", "--rm", "-v", &mount, "-v", &shared, "-e", "A=option", "-e", "B=too", "-w",
        "/tmp", "image:1", "sh", "-c", script,
    ]);
    // The entrypoint enters the workspace, so `-w` matters only with another one.
    insta::assert_snapshot!(run.stdout(), @r"
    mounted option too /workspace
    0
    read-only
    ");
    assert_eq!(
        fs::read_to_string(folder.join("made")).expect("it was made"),
        "new\n"
    );

    users_variables_and_relative_paths(&bench);

    // Standard input only with -i.
    let feed = |options: &[&str]| {
        let mut command = bench.tool(
            ["run", "-q"]
                .iter()
                .chain(options)
                .chain(&["image:1", "cat"]),
        );
        let input = fs::File::open(&note).expect("there").into_parts().0;
        bench.finish(command.stdin(input)).stdout().to_owned()
    };
    assert_eq!(feed(&["-i"]), "mounted");
    assert_eq!(feed(&[]), "");
    // A directory would lead out of the image.
    let mut command = bench.tool(["run", "-q", "-i", "image:1", "true"]);
    let input = fs::File::open(&folder).expect("there").into_parts().0;
    let run = bench.finish(command.stdin(input));
    let said = run.refusal(1);
    assert!(said.contains("standard input is a directory"), "{said}");

    let run = bench.run(["run", "-q", "image:1", "sh", "-c", "kill -9 $$"]);
    assert_eq!(run.status(), Some(137));
    let run = bench.run(["run", "-q", "image:1", "no-such-command"]);
    assert_eq!(run.status(), Some(127));
    assert!(run.stderr().contains("no-such-command"), "{}", run.stderr());
    let run = bench.run(["run", "unknown:1", "true"]);
    assert!(
        run.refusal(2).contains("there is no image"),
        "{}",
        run.stderr()
    );
}

/// `image:1` is run with a user, with files of variables (`-e` wins), and with a relative path of `note.txt`.
fn users_variables_and_relative_paths(bench: &Bench) {
    bench.write(
        "variables",
        "# none\n\nA=file\nB=\"as it is\"\nUNSET_HERE\n",
    );
    let script = "id -u; id -g; echo $A $B ${UNSET_HERE-unset}; cat /mnt/note.txt";
    let run = bench.run([
        "run",
        "-q",
        "--rm",
        "-u",
        "65534:65534",
        "--env-file",
        "variables",
        "-e",
        "A=option",
        "-v",
        "./note.txt:/mnt/note.txt",
        "image:1",
        "sh",
        "-c",
        script,
    ]);
    insta::assert_snapshot!(run.stdout(), @r#"
    65534
    65534
    option "as it is" unset
    mounted
    "#);
    for (arguments, words) in [
        (
            ["--env-file", "wrong"],
            "`wrong`, line 2: a variable has a name",
        ),
        (["--env-file", "missing"], "`missing`"),
        (
            ["-v", "note.txt:/mnt/x"],
            "`note.txt:/mnt/x` is not a mount",
        ),
    ] {
        bench.write("wrong", "A=b\nB C=d\n");
        let run = bench.run([&["run"], &arguments[..], &["image:1", "true"]].concat());
        assert!(run.stderr().contains(words), "{}", run.stderr());
        assert_ne!(run.status(), Some(0));
    }
}

#[test]
fn a_step_sees_nothing_of_the_host() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write(
        "build.yaml",
        "tag: image:1\npython: 3.11\nsystem-packages: []\nenv: {PIP_NO_INDEX: '1'}\n",
    );
    bench.run(["build.yaml", "--base", &base]).line();
    let home = bench.root().join("home").display().to_string();
    let script = format!(
        "ls -d {home} /tmp/pib-* 2>/dev/null; env | grep -c OUTSIDE; ls /proc | grep -c '^[0-9]'; \
         (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo locked; \
         (mkdir /sys/made) 2>/dev/null || echo locked; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status"
    );
    let mut command = bench.tool(["run", "-q", "--rm", "image:1", "sh", "-c", &script]);
    let run = bench.finish(command.env("OUTSIDE_SECRET", "x"));
    let lines: Vec<_> = run.stdout().lines().collect();
    assert_eq!(lines[0], "0", "{lines:?}");
    assert!(
        lines[1]
            .parse::<u32>()
            .is_ok_and(|processes| processes < 10),
        "{lines:?}"
    );
    assert_eq!(&lines[2..4], ["locked", "locked"]);
    // Docker's default capabilities.
    assert_eq!(
        lines[4].split_whitespace().last(),
        Some("00000000a80425fb"),
        "{lines:?}"
    );
}

#[test]
fn the_entrypoint_keeps_all_variables_and_needs_a_shell() {
    let Some(layout) = base_layout() else { return };
    let base = format!("oci:{}", layout.display());
    let bench = Bench::current();
    let text =
        "tag: image:1\npython: 3.11\nsystem-packages: []\nenv: {my.setting: 'a b', a-b: 2}\n";
    bench.write("build.yaml", text);
    bench.run(["build.yaml", "--base", &base]).line();
    let run = bench.run(["run", "-q", "-e", "a-b=3", "image:1", "env"]);
    for wanted in ["my.setting=a b", "a-b=3"] {
        let is_there = run.stdout().lines().any(|line| line == wanted);
        assert!(is_there, "{wanted}: {}", run.stdout());
    }

    // What an instruction removes is gone, and is no shell any more.
    let remove = "cmds: {pre: 'RUN [\"python3\", \"-c\", \"import os; os.unlink(''/bin/sh'')\"]'";
    for (more, words) in [
        (
            "}",
            "error: the image has no shell at `/bin/sh`, and its entrypoint needs one",
        ),
        (", post: RUN true}", "does not exist"),
    ] {
        bench.write("build.yaml", format!("{text}{remove}{more}\n"));
        let run = bench.run(["build.yaml", "--base", &base]);
        let said = run.refusal(1);
        assert!(said.contains(words), "{said}");
        assert!(said.contains("hint: use a base that has a shell"), "{said}");
    }
    // A link to a program of the base will do.
    let link = remove.replace(
        "os.unlink(''/bin/sh'')",
        "os.unlink(''/bin/sh''); os.symlink(''bash'', ''/bin/sh'')",
    );
    bench.write("build.yaml", format!("{text}{link}, post: RUN true}}\n"));
    bench.run(["build.yaml", "--base", &base]).line();
}
