//! Instructions of `cmds` and Debian packages, in whole builds.

use std::process::Stdio;
use std::time::Duration;

use fs_err as fs;
use rustix::fs::{CWD, FileType};
use serde_json::json;

use crate::support::{
    Bench, User, base_layout, is_root, processes, run_bundle, send, serve_base, umoci_unpack,
    verify,
};

/// Instructions of every kind.
const INSTRUCTIONS: &str = r#"
tag: image:1
python: 3.11
system-packages: []
files: [note.txt, pib_hello-1.0-py3-none-any.whl]
packages: ['${WORKSPACE}/pib_hello-${VERSION}-py3-none-any.whl']
cmds:
  pre: |
    # A comment, a continuation, and variables.
    ENV GREETING="hello world" \
        OTHER=$PATH
    ARG WHO=you VERSION=1.0
    RUN echo "$GREETING, $WHO" >/etc/greeting && \
        useradd -m app
    WORKDIR below
    COPY image/workspace/note.txt copied/
    COPY <<END /etc/inline
    $GREETING
    END
    RUN <<END
    set -e
    pwd >/etc/where
    rm /usr/bin/perl
    END
    USER app
    RUN id -u >~/id && echo "$HOME" >>~/id
  post: |
    USER root
    RUN --mount=type=secret,id=token,required cat /run/secrets/token && test "$(cat /run/secrets/token)" = pa55-of-token
    RUN --mount=type=bind,source=image/workspace,target=/seen grep -q note /seen/note.txt
    RUN --mount=type=tmpfs,target=/memory touch /memory/gone
    RUN --mount=type=cache,target=/cache echo more >>/cache/kept && wc -l </cache/kept >/etc/lines
    RUN --network=none ! python3 -c "import socket; socket.create_connection(('127.0.0.1', REGISTRY), 2)"
    LABEL one=1 two="2 3"
    EXPOSE 80 90-91/udp
    VOLUME /data
    STOPSIGNAL SIGINT
    HEALTHCHECK --interval=5s CMD true
    CMD ["--version"]
    USER app
"#;

/// The time of everything in these images.
const EPOCH: &str = "1700000000";

/// Builds `build.yaml` in the folder of the bench, gives its digest.
fn build(bench: &Bench, base: &str, more: &[&str]) -> String {
    let mut command = bench.tool(["build.yaml", "-v", "--base", base]);
    let run = bench.finish(command.args(more).env("SOURCE_DATE_EPOCH", EPOCH));
    let (_, digest) = run.line().split_once('@').expect("reference@digest");
    digest.to_owned()
}

/// Runs a command in the image; gives both of its outputs.
fn in_image(bench: &Bench, command: &str) -> String {
    let run = bench.run(["run", "-q", "--rm", "image:1", "sh", "-c", command]);
    format!("{}{}", run.stdout(), run.stderr())
}

/// Does the same as each of the users; the digests that come of it are equal.
fn on_every_runner(work: impl Fn(User, &Bench) -> String) {
    let benches = User::ALL
        .into_iter()
        .filter_map(|user| Some((user, Bench::new(user)?)));
    let mut digests: Vec<_> = benches.map(|(user, bench)| work(user, &bench)).collect();
    digests.dedup();
    assert_eq!(digests.len(), 1, "the runners differ: {digests:?}");
}

#[test]
fn instructions_are_carried_out() {
    let Some((registry, base)) = serve_base() else {
        return;
    };
    on_every_runner(|user, bench| {
        bench.write("note.txt", "a note\n");
        bench.write_wheel(&[]);
        bench.write("token", "pa55-of-token");
        let host = registry.host();
        let port = host.rsplit(':').next().expect("it has a port");
        bench.write("build.yaml", INSTRUCTIONS.replace("REGISTRY", port));
        bench.path("out");
        let more = ["-o", "oci-dir:out", "--secret", "id=token,src=token"];
        let digest = build(bench, &base, &more);
        let image = verify(&bench.path("out"), "1");
        let files = "cd /etc && cat greeting inline where /workspace/below/copied/note.txt lines";
        assert_eq!(
            in_image(bench, files),
            "hello world, you\nhello world\n/workspace/below\na note\n1\n",
            "{user:?}"
        );
        assert!(image.find("usr/bin/.wh.perl").is_some(), "it was removed");
        assert!(image.find("venv/bin/pib-hello").is_some(), "pip knows ARG");
        for path in ["memory", "cache", "run/secrets", "seen"] {
            assert!(image.find(path).is_none(), "{path} is in the image");
        }
        let config = &image.config["config"];
        assert_eq!(config["Cmd"], json!(["--version"]));
        assert_eq!(config["User"], json!("app"));
        assert_eq!(config["WorkingDir"], json!("/workspace"));
        assert_eq!(config["Labels"]["two"], json!("2 3"));
        assert_eq!(config["StopSignal"], json!("SIGINT"));
        assert_eq!(
            config["ExposedPorts"],
            json!({"80/tcp": {}, "90/udp": {}, "91/udp": {}})
        );
        assert_eq!(config["Volumes"], json!({"/data": {}}));
        assert_eq!(config["Healthcheck"]["Interval"], json!(5_000_000_000_u64));
        assert_eq!(image.env("GREETING"), Some("hello world"));
        assert_eq!(image.env("WHO"), None);
        if user == User::current() {
            // The cache is there again, for who runs the step again.
            build(bench, &base, &[&more[..], &["--no-cache"]].concat());
            assert_eq!(in_image(bench, "cat /etc/lines"), "2\n", "{user:?}");
        }
        digest
    });
}

#[test]
#[ignore = "long: installs packages three times, as the quickstart does"]
fn the_usual_packages_reach_devices() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    on_every_runner(|user, bench| {
        bench.write("build.yaml", "tag: image:1\npython: 3.11\n");
        bench.path("out");
        let digest = build(bench, &base, &["-o", "oci-dir:out"]);
        for (command, expected) in [
            ("ssh -V", "OpenSSH"),
            ("telnet --version", "telnet"),
            ("ping -V", "iputils"),
            ("getcap /usr/bin/ping", "/usr/bin/ping cap_net_raw=ep"),
        ] {
            let said = in_image(bench, command);
            assert!(said.contains(expected), "{user:?}: {command}: {said}");
        }
        if user == User::Root {
            let bundle = umoci_unpack(bench, &bench.path("out"), "1", "bundle");
            let entrypoint = "/workspace/installation/entrypoint.sh";
            let first = ["/usr/bin/tini", "--", entrypoint, "cat", "/proc/1/comm"];
            let image = verify(&bench.path("out"), "1");
            assert_eq!(image.config["config"]["Entrypoint"], json!(&first[..3]));
            if let Some(output) = run_bundle(bench, &bundle, &first) {
                assert_eq!(output, "tini\n");
            }
        }
        digest
    });
}

/// What upsets a builder without privileges: accounts, owners, capabilities, and a change of user.
const ACCOUNTS: &str = r#"
tag: image:1
python: 3.11
system-packages: []
cmds:
  pre: |
    RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libcap2-bin &&         rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/aux-cache
    RUN useradd --create-home app && mkdir /data && touch /data/file && chown -R app: /data
    RUN printf 'int main(void) { return 0; }' | gcc -x c -o /data/program - &&         cp /usr/bin/true /data/capable && setcap cap_net_bind_service=ep /data/capable
    RUN su app -c 'id -un >/data/by-app && test "$(stat -c %U:%G /data/file)" = app:app'
"#;

#[test]
#[ignore = "long: installs a compiler three times"]
fn a_compiler_and_accounts_on_every_runner() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    on_every_runner(|user, bench| {
        bench.write("build.yaml", ACCOUNTS);
        bench.path("out");
        let digest = build(bench, &base, &["-o", "oci-dir:out"]);
        let image = verify(&bench.path("out"), "1");
        let owner = |path: &str| {
            let entry = image.find(path).unwrap_or_else(|| panic!("no {path}"));
            entry.owner
        };
        let app = owner("home/app");
        assert!(app.0 >= 1000, "{app:?}");
        for path in ["data", "data/file", "data/by-app"] {
            assert_eq!(owner(path), app, "{user:?}: {path}");
        }
        assert_eq!(owner("data/program"), (0, 0));
        assert_eq!(owner("etc/shadow"), (0, 42), "{user:?}: as in the base");
        let said = in_image(
            bench,
            "getcap /data/capable; cat /data/by-app; /data/program",
        );
        assert_eq!(said, "/data/capable cap_net_bind_service=ep\napp\n");
        digest
    });
}

#[test]
fn a_release_past_its_end_gets_its_packages_from_the_archive() {
    let Some(layout) = base_layout() else {
        return;
    };
    let bench = Bench::current();
    bench.write(
        "build.yaml",
        "tag: image:1\npython: 3.11\nsystem-packages: []\ncmds:\n  pre: |\n             RUN sed -i s/bookworm/buster/g /usr/lib/os-release /etc/apt/sources.list.d/debian.sources\n             RUN echo 'deb http://security.debian.org/ buster/updates main' >/etc/apt/sources.list.d/old.list\n",
    );
    bench.path("old");
    build(
        &bench,
        &format!("oci:{}", layout.display()),
        &["-o", "oci-dir:old"],
    );
    bench.write(
        "build.yaml",
        "tag: image:2\npython: 3.11\nsystem-packages: [telnet]\n",
    );
    let run = bench.run(["build.yaml", "-v", "--base", "oci:old"]);
    // Where the archive can be reached there is nothing to complain of.
    let status = run.status();
    let _ = run.stdout();
    let log = run.stderr();
    for line in [
        "packages come from archive.debian.org, since buster is past its end of life:",
        "URIs: http://archive.debian.org/debian\n",
        "URIs: http://archive.debian.org/debian-security\n",
        "deb http://archive.debian.org/debian-security buster/updates main",
    ] {
        assert!(log.contains(line), "`{line}` is missing: {log}");
    }
    assert!(!log.contains("buster-updates"), "{log}");
    if status != Some(0) {
        assert_eq!(status, Some(1));
        for words in [
            "error: the package lists cannot be fetched",
            "hint: check the names",
        ] {
            assert!(log.contains(words), "`{words}` is missing: {log}");
        }
    }
}

#[test]
fn a_step_ends_with_all_that_it_began() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    // Known by its number.
    let sleep = format!("sleep {}", 100_000 + std::process::id());
    let is_asleep = || {
        let words = sleep.replace(' ', "\0");
        processes().any(|process| {
            let line = fs::read_to_string(format!("/proc/{process}/cmdline"));
            line.is_ok_and(|line| line.trim_end_matches('\0') == words)
        })
    };
    for user in [User::current(), User::Plain] {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        let write = |instruction: &str| {
            let head = "tag: image:1\npython: 3.11\nsystem-packages: []\ncmds:\n  pre: |\n";
            bench.write("build.yaml", format!("{head}    {instruction}\n"));
        };
        // It is over when its command is over, whatever that has begun, and goes on beginning.
        write(&format!(
            "RUN for i in $(seq 100); do {sleep} & done; (while :; do {sleep} & sleep 0.01; done) & true"
        ));
        build(&bench, &base, &[]);
        assert!(!is_asleep(), "{user:?}: something is left of the step");
        bench.is_deserted("a fork bomb");

        write(&format!("RUN echo it begins; {sleep}"));
        let path = bench.path("log");
        let log = fs::File::create(&path).expect("ours").into_parts().0;
        let mut child = bench
            .tool(["build.yaml", "-v", "--base", &base])
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let read = || fs::read_to_string(&path).expect("ours");
        while !is_asleep() {
            let ended = child.try_wait().expect("ours");
            assert_eq!(ended, None, "it should wait: {}", read());
            std::thread::sleep(Duration::from_millis(20));
        }
        send(&child, "INT");
        let status = child.wait().expect("ours");
        assert_eq!(status.code(), Some(130), "{user:?}: {}", read());
        assert!(!is_asleep(), "{user:?}: the step goes on");
        bench.is_deserted("an interrupted step");
    }
}

#[test]
fn sockets_stay_behind_and_malformed_patterns_are_told() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write(
        "build.yaml",
        "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [dir]\ncmds:\n  pre: |\n    COPY other /other/\n",
    );
    bench.write("dir/file", "");
    bench.write("ctx/other/file", "");
    for socket in ["dir/socket", "ctx/other/socket"] {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let socket = bench.path(socket);
        rustix::fs::mknodat(CWD, socket, FileType::Socket, mode, 0).expect("ours");
    }
    let arguments = ["build.yaml", "--base", &base, "--path", "ctx"];
    let run = bench.run(arguments);
    assert_eq!(run.status(), Some(0), "{}", run.stderr());
    let _ = run.stdout();
    for socket in ["dir/socket` is", "`socket` is"] {
        let words = format!("{socket} a socket, which is left out");
        assert!(run.stderr().contains(&words), "{}", run.stderr());
    }
    assert_eq!(
        in_image(&bench, "ls /other /workspace/dir"),
        "/other:\nfile\n\n/workspace/dir:\nfile\n"
    );
    // A pattern that cannot be read would hide nothing.
    bench.write("ctx/.dockerignore", "other/secret[\n");
    let run = bench.run(arguments);
    let error = run.refusal(1);
    for words in ["`.dockerignore` is malformed", "`other/secret[`", "no `]`"] {
        assert!(error.contains(words), "`{words}` is missing: {error}");
    }
}

#[test]
fn what_cannot_be_carried_out_is_told() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    // More of them are in the table of fragments.
    for (instruction, words) in [
        (
            "RUN echo out; exit 7",
            &["`RUN /bin/sh -c echo out; exit 7`", "status 7", "out"][..],
        ),
        (
            "RUN --mount=type=secret,id=s,required true",
            &["no secret `s`", "--secret id=s,src=FILE"],
        ),
    ] {
        let text = format!(
            "tag: image:1\npython: 3.11\nsystem-packages: []\ncmds:\n  pre: |\n    {instruction}\n"
        );
        bench.write("build.yaml", text);
        let run = bench.run(["build.yaml", "--base", &base]);
        let error = run.refusal(1);
        for word in words {
            assert!(
                error.contains(word),
                "`{word}` is missing for {instruction}: {error}"
            );
        }
    }
    // Found before anything is done.
    for (instruction, words) in [
        ("RNU true", &["build.yaml:2:", "did you mean `RUN`?"][..]),
        ("FROM scratch", &["`FROM`"]),
        ("COPY --from=x a b", &["--from"]),
        ("COPY a", &["build.yaml:2:"]),
        ("RUN <<END", &["END"]),
        ("ENV A=\"b", &["build.yaml:2:"]),
    ] {
        bench.write("build.yaml", format!("cmds:\n  pre: {instruction:?}\n"));
        let run = bench.run(["build.yaml", "--base", &base]);
        let error = run.refusal(2);
        for word in words {
            assert!(
                error.contains(word),
                "`{word}` is missing for {instruction}: {error}"
            );
        }
    }
    assert!(fs::read_dir(bench.store().join("tmp")).is_ok_and(|entries| entries.count() == 0));
}

/// A runner that has no id for an owner gives way to the next one, and the image is the same.
#[test]
fn owners_that_a_runner_cannot_hold_are_held_by_the_next_one() {
    let epoch = ("SOURCE_DATE_EPOCH", "1700000000");
    let root = Bench::current();
    let Some(base) = base_layout().filter(|_| is_root()) else {
        return;
    };
    let head = "tag: image:1\npython: 3.11\nsystem-packages: []\n";
    let owned = "cmds:\n  pre: RUN touch /owned && chown 3000000:3000000 /owned\n";
    root.write("base.yaml", format!("{head}{owned}"));
    root.write(
        "build.yaml",
        format!("{head}cmds: {{pre: RUN stat -c %u /owned >/owner}}\n"),
    );
    let big = root.path("big");
    let base = format!("oci:{}", base.display());
    let made = root.run([
        "base.yaml",
        "--runner",
        "root",
        "--base",
        &base,
        "-o",
        "oci-dir:big",
    ]);
    if made.status() != Some(0) && made.stderr().contains("no way to run commands") {
        return;
    }
    made.line();
    let base = format!("oci:{}", big.display());
    let build = |bench: &Bench, more: &[&str]| {
        let arguments = [&["build.yaml", "--base", &base][..], more].concat();
        let run = bench.finish(bench.tool(arguments).env(epoch.0, epoch.1));
        let digest = run
            .line()
            .split_once('@')
            .expect("reference@digest")
            .1
            .to_owned();
        (digest, run.stderr().to_owned())
    };
    let (expected, _) = build(&root, &[]);
    for (user, runner) in [(User::Subids, "userns-range"), (User::Few, "userns-single")] {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        bench.write(
            "build.yaml",
            fs::read(root.path("build.yaml")).expect("ours"),
        );
        let doctor = bench.run(["doctor", "--offline"]);
        let is_chosen = format!("{runner}: works, and is chosen");
        assert!(doctor.stdout().contains(&is_chosen), "{}", doctor.stdout());
        let (digest, said) = build(&bench, &[]);
        assert_eq!(digest, expected, "{user:?}: {said}");
        let gives_way = said.contains("since `userns-range` cannot hold an owner in the image");
        assert_eq!(gives_way, user == User::Subids, "{said}");
        let run = bench.run(["run", "-q", "image:1", "cat", "/owner"]);
        assert_eq!(run.stdout(), "3000000\n");
        // Whoever asks for a runner gets that one.
        if user == User::Subids {
            let forced = [
                "build.yaml",
                "--no-cache",
                "--base",
                &base,
                "--runner",
                runner,
            ];
            let run = bench.run(forced);
            assert!(
                run.refusal(1).contains("3000000:3000000"),
                "{}",
                run.stderr()
            );
        }
    }
}
