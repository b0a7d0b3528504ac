//! Instructions of `cmds` and Debian packages, in whole builds.

use fs_err as fs;
use serde_json::json;

use crate::support::{Bench, User, is_root, serve_base, verify};

const PACKAGES: &str = "tag: image:1\npython: 3.11\n";

/// Instructions of every kind.
const INSTRUCTIONS: &str = r#"
tag: image:1
python: 3.11
system-packages: []
files: [note.txt]
cmds:
  pre: |
    # A comment, a continuation, and variables.
    ENV GREETING="hello world" \
        OTHER=$PATH
    ARG WHO=you
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

#[test]
fn instructions_are_carried_out() {
    if !is_root() {
        return;
    }
    let Some((registry, base)) = serve_base() else {
        return;
    };
    for user in User::ALL {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        bench.write("note.txt", "a note\n");
        bench.write("token", "pa55-of-token");
        let host = registry.host();
        let port = host.rsplit(':').next().expect("it has a port");
        bench.write("build.yaml", INSTRUCTIONS.replace("REGISTRY", port));
        let build = || {
            bench.run([
                "build.yaml",
                "-v",
                "--base",
                &base,
                "-o",
                "oci-dir:out",
                "--secret",
                "id=token,src=token",
            ])
        };
        bench.path("out");
        let run = build();
        run.line();
        assert!(!run.stderr().contains("pa55"), "{}", run.stderr());
        let image = verify(&bench.path("out"), "1");
        for (path, text) in [
            ("etc/greeting", "hello world, you\n"),
            ("etc/inline", "hello world\n"),
            ("etc/where", "/workspace/below\n"),
            ("workspace/below/copied/note.txt", "a note\n"),
            ("etc/lines", "1\n"),
        ] {
            assert_eq!(cat(&bench, path), text, "{user:?}: {path}");
        }
        assert!(image.find("usr/bin/.wh.perl").is_some(), "it was removed");
        for path in [
            "memory/gone",
            "cache/kept",
            "run/secrets/token",
            "seen/note.txt",
        ] {
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
        // The cache is there again.
        build().line();
        assert_eq!(cat(&bench, "etc/lines"), "2\n", "{user:?}");
    }
}

/// What a file of the image holds.
fn cat(bench: &Bench, path: &str) -> String {
    let run = bench.run(["run", "-q", "--rm", "image:1", "cat", &format!("/{path}")]);
    run.stdout().to_owned()
}

#[test]
fn the_usual_packages_reach_devices() {
    if !is_root() {
        return;
    }
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    for user in User::ALL {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        bench.write("build.yaml", PACKAGES);
        bench.run(["build.yaml", "--base", &base]).line();
        for command in [
            "ssh -V",
            "telnet --version",
            "ping -V",
            "getcap /usr/bin/ping",
        ] {
            let words: Vec<&str> = ["run", "-q", "--rm", "image:1", "sh", "-c", command].into();
            let run = bench.run(words);
            let said = format!("{}{}", run.stdout(), run.stderr());
            let expected = match command {
                "ssh -V" => "OpenSSH",
                "telnet --version" => "telnet",
                "ping -V" => "iputils",
                _ => "cap_net_raw=ep",
            };
            assert!(said.contains(expected), "{user:?}: {command}: {said}");
        }
        let run = bench.run(["inspect", "image:1"]);
        assert!(run.stdout().contains("/usr/bin/tini"), "{}", run.stdout());
    }
}

#[test]
fn what_cannot_be_carried_out_is_told() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    for (instruction, words) in [
        (
            "RUN echo out; exit 7",
            &["`RUN /bin/sh -c echo out; exit 7`", "status 7", "out"][..],
        ),
        ("COPY none /x", &["the context has no `none`", "hint:"]),
        ("USER nobody-here\n    RUN true", &["no user `nobody-here`"]),
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
