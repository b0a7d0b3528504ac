//! What instructions ask for, and what they make of the config.

use super::*;
use crate::dockerfile::Git;
use crate::mode::Mode;

fn a_run(text: &str) -> Run {
    match action(text) {
        Action::Run(run) => run,
        other => panic!("{text}: {other:?}"),
    }
}

fn a_copy(text: &str) -> super::Copy {
    match action(text) {
        Action::Copy(copy) => copy,
        other => panic!("{text}: {other:?}"),
    }
}

/// "ENV", "Environment replacement".
#[test]
fn all_values_of_an_instruction_see_what_is_above_it() {
    for (text, name, value) in [
        ("ENV A=b", "A", Some("b")),
        ("ENV A=\"b c\" D=e", "A", Some("b c")),
        ("ENV A b  'c'", "A", Some("b  c")),
        ("ENV abc=hello\nENV abc=bye def=$abc", "def", Some("hello")),
        (
            "ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc",
            "ghi",
            Some("bye"),
        ),
        ("ENV PATH=/x:$PATH", "PATH", Some("/x:/bin")),
        ("ENV N=A\nENV $N=b", "A", Some("b")),
        ("ENV A=\\$PATH", "A", Some("$PATH")),
        ("# escape=`\nENV A=`$PATH B=\\x", "A", Some("$PATH")),
        ("ENV A=", "A", Some("")),
        ("ARG A=b", "A", None),
        ("ARG A=b\nENV A=c$A", "A", Some("cb")),
    ] {
        let (state, _) = run(text);
        let found = state.config().env.iter().find(|(known, _)| known == name);
        assert_eq!(found.map(|(_, value)| value.as_str()), value, "{text}");
    }
    let (state, _) = run("ENV LANG=x NEW=1");
    assert_eq!(
        state.config().env,
        pairs(&[("PATH", "/bin"), ("LANG", "x"), ("NEW", "1")])
    );
}

/// "ARG", "Using ARG variables"; of an ENV and an ARG of one name the later one counts, as with `BuildKit`.
#[test]
fn arguments_are_seen_by_what_is_below() {
    for (text, env) in [
        ("RUN x", &[][..]),
        ("ARG A=1 B=$A\nRUN x", &[("A", "1"), ("B", "1")]),
        ("ARG A\nRUN x", &[]),
        ("ARG A=1\nARG A=2\nRUN x", &[("A", "2")]),
        ("ARG A=1\nARG A\nRUN x", &[("A", "1")]),
        ("ARG LANG\nRUN x", &[]),
        (
            "ARG TARGETARCH=x OTHER=\"a b\"\nRUN x",
            &[("TARGETARCH", "x"), ("OTHER", "a b")],
        ),
        ("ARG TARGETARCH\nRUN x", &[("TARGETARCH", "amd64")]),
        ("ARG HTTP_PROXY\nRUN x", &[]),
        (
            "ARG http_proxy=http://p:1\nRUN x",
            &[("http_proxy", "http://p:1")],
        ),
    ] {
        let env = [pairs(&[("PATH", "/bin"), ("LANG", "C")]), pairs(env)].concat();
        assert_eq!(a_run(text).env, env, "{text}");
    }
    assert_eq!(
        run("ARG V=1\nENV V=2\nWORKDIR /$V").0.config().working_dir,
        "/2"
    );
    let (state, _) = run("ENV V=2\nARG V=1\nWORKDIR /$V");
    assert_eq!(state.config().working_dir, "/1");
    assert!(state.config().env.contains(&("V".into(), "2".into())));
    assert_eq!(
        a_run("ARG LANG=x\nRUN x").env,
        pairs(&[("PATH", "/bin"), ("LANG", "x")])
    );
    assert_eq!(run("ARG V=1\nWORKDIR /$V").0.config().working_dir, "/1");
}

/// "RUN", "SHELL", "Here-Documents".
#[test]
fn commands_are_run() {
    for (text, argv) in [
        ("RUN echo $A 'b'", &["/bin/sh", "-c", "echo $A 'b'"][..]),
        ("RUN [\"echo\", \"$A\"]", &["echo", "$A"]),
        (
            "SHELL [\"/bin/bash\", \"-ec\"]\nRUN a",
            &["/bin/bash", "-ec", "a"],
        ),
        ("RUN <<EOF\na $B\nc\nEOF", &["/bin/sh", "-c", "a $B\nc\n"]),
        ("RUN <<-EOF\n\ta\n\tEOF", &["/bin/sh", "-c", "a\n"]),
        (
            "RUN cat <<A <<-'B'\na\nA\n\tb\nB",
            &["/bin/sh", "-c", "cat <<A <<-'B'\na\nA\n\tb\nB"],
        ),
        (
            "SHELL [\"/bin/bash\", \"-c\"]\nRUN <<EOF\na\nEOF",
            &["/bin/bash", "-c", "a\n"],
        ),
    ] {
        let run = a_run(text);
        assert_eq!((run.argv, run.script), (strings(argv), None), "{text}");
    }
    let run = a_run("RUN <<-EOF\n\t#!/usr/bin/env python3\n\tprint(1)\nEOF");
    assert_eq!(run.argv, ["/bin/sh", "-c", "/dev/pipes/EOF"]);
    let script = Script {
        path: "/dev/pipes/EOF".to_owned(),
        text: "#!/usr/bin/env python3\nprint(1)\n".to_owned(),
    };
    assert_eq!(run.script, Some(script));

    let run = a_run("USER me:us\nWORKDIR a\nRUN --network=host x");
    assert_eq!(
        (run.user.as_str(), run.cwd.as_str(), run.network),
        ("me:us", "/srv/a", Network::Host)
    );
}

fn secret(id: &str, target: Option<&str>, env: Option<&str>) -> Mount {
    Mount::Secret {
        id: id.to_owned(),
        target: target.map(str::to_owned),
        env: env.map(str::to_owned),
        required: false,
        mode: 0o400,
        uid: 0,
        gid: 0,
    }
}

/// "RUN --mount".
#[test]
fn mounts_have_defaults() {
    let text = |text: &str| text.to_owned();
    for (options, mount) in [
        (
            "target=/x",
            Mount::Bind {
                source: text("/"),
                target: text("/x"),
                read_only: true,
            },
        ),
        (
            "type=bind,src=a/../b,dst=x,rw",
            Mount::Bind {
                source: text("/b"),
                target: text("/srv/x"),
                read_only: false,
            },
        ),
        (
            "type=cache,target=$LANG/x",
            Mount::Cache {
                id: text("/srv/C/x"),
                source: text("/"),
                target: text("/srv/C/x"),
                read_only: false,
                sharing: Sharing::Shared,
                mode: 0o755,
                uid: 0,
                gid: 0,
            },
        ),
        (
            "type=cache,id=y,src=a/../b,destination=/x,sharing=locked,mode=4700,uid=1,gid=2,readonly=true",
            Mount::Cache {
                id: text("y"),
                source: text("/b"),
                target: text("/x"),
                read_only: true,
                sharing: Sharing::Locked,
                mode: 0o700,
                uid: 1,
                gid: 2,
            },
        ),
        (
            "type=tmpfs,target=/x",
            Mount::Tmpfs {
                target: text("/x"),
                size: None,
            },
        ),
        (
            "type=tmpfs,target=/x,size=1.5m",
            Mount::Tmpfs {
                target: text("/x"),
                size: Some(3 << 19),
            },
        ),
        (
            "type=secret,id=a",
            secret("a", Some("/run/secrets/a"), None),
        ),
        (
            "type=secret,src=a/b",
            secret("a/b", Some("/run/secrets/b"), None),
        ),
        (
            "type=secret,target=/x/b,required=0",
            secret("b", Some("/x/b"), None),
        ),
        ("type=secret,id=a,env=A", secret("a", None, Some("A"))),
        (
            "type=secret,id=a,required,mode=0444,uid=1,gid=2",
            Mount::Secret {
                id: text("a"),
                target: Some(text("/run/secrets/a")),
                env: None,
                required: true,
                mode: 0o444,
                uid: 1,
                gid: 2,
            },
        ),
    ] {
        assert_eq!(
            a_run(&format!("RUN --mount={options} x")).mounts,
            [mount],
            "{options}"
        );
    }
}

/// "COPY", "ADD".
#[test]
fn files_are_copied() {
    for (text, destination) in [
        ("COPY a b", "/srv/b"),
        ("COPY a b/", "/srv/b/"),
        ("COPY a .", "/srv/"),
        ("COPY a ./", "/srv/"),
        ("COPY a ..", "/"),
        ("COPY a /", "/"),
        ("COPY a /b/../c//d", "/c/d"),
        ("WORKDIR /x\nCOPY a y", "/x/y"),
        ("ENV D=/d\nCOPY a ${D}/", "/d/"),
        ("COPY a \"/b c\"\\ d", "/b"),
    ] {
        // A quote may not hold blanks, as blanks end words first.
        if text.contains('"') {
            assert!(parse(text).is_err());
            continue;
        }
        assert_eq!(a_copy(text).destination, destination, "{text}");
    }
    let path = |text: &str| Source::Path(text.to_owned());
    let copy = a_copy(
        "ENV A=x\nCOPY --chown=$A --chmod=644 --exclude=$A* --parents $A* ./b <<c /d/\n$A\nc",
    );
    assert_eq!(
        copy,
        super::Copy {
            is_add: false,
            sources: vec![
                path("x*"),
                path("./b"),
                Source::Inline {
                    name: "c".to_owned(),
                    text: "x\n".to_owned(),
                }
            ],
            destination: "/d/".to_owned(),
            chown: Some("x".to_owned()),
            chmod: Some(Mode::Octal(0o644)),
            exclude: strings(&["x*"]),
            parents: true,
            link: false,
            sha256: None,
            unpack: None,
        }
    );
    let inline = |text: &str| match a_copy(text).sources.remove(0) {
        Source::Inline { text, .. } => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(inline("COPY <<'EOF' /x\n$PATH \\$\nEOF"), "$PATH \\$\n");
    assert_eq!(inline("COPY <<-EOF /x\n\t$PATH 'a'\nEOF"), "/bin 'a'\n");

    let url = "https://example.com/a.tar?b";
    let git = |url: &str, name: Option<&str>, directory: &str| {
        Source::Git(Git {
            url: url.to_owned(),
            name: name.map(str::to_owned),
            directory: directory.to_owned(),
            ..Git::default()
        })
    };
    for (word, source) in [
        (url, Source::Url(url.to_owned())),
        (
            "http://h/x.git/y",
            Source::Url("http://h/x.git/y".to_owned()),
        ),
        (
            "https://h/x.git#v1:sub",
            git("https://h/x.git", Some("v1"), "sub"),
        ),
        ("git@h:x.git", git("git@h:x.git", None, "")),
        ("me_too@h-1.x:a/b", git("me_too@h-1.x:a/b", None, "")),
        ("ssh://h/x", git("ssh://h/x", None, "")),
        (
            "git://h/x?branch=a/b&subdir=/s/../t/",
            git("git://h/x", Some("refs/heads/a/b"), "t"),
        ),
        (
            "https://h/x.git?tag=refs/tags/v%201#refs/tags/v%201",
            git("https://h/x.git", Some("refs/tags/v 1"), ""),
        ),
        ("\"\"", path("")),
        ("a.git", path("a.git")),
        ("a@b/c:d", path("a@b/c:d")),
        (
            "https://h/x?y=.git",
            Source::Url("https://h/x?y=.git".to_owned()),
        ),
        ("ftp:x", path("ftp:x")),
    ] {
        assert_eq!(
            a_copy(&format!("ADD {word} /x")).sources,
            [source],
            "{word}"
        );
    }
    let digest = format!("sha256:{}", "a".repeat(64));
    assert_eq!(
        a_copy(&format!("ADD --checksum={digest} {url} /x")).sha256,
        Some("a".repeat(64))
    );
}

/// "WORKDIR", "USER", "EXPOSE", "VOLUME", "STOPSIGNAL", "LABEL", "ONBUILD", "MAINTAINER".
#[test]
fn the_config_changes() {
    for (text, path) in [
        ("WORKDIR /a", "/a"),
        ("WORKDIR a", "/srv/a"),
        ("WORKDIR $NONE", "/srv"),
        ("WORKDIR /a\nWORKDIR b\nWORKDIR c", "/a/b/c"),
        ("WORKDIR ../../x/./y//", "/x/y"),
        ("ENV D=/d\nWORKDIR $D/$UNSET", "/d"),
        ("WORKDIR \"/a b\"", "/a b"),
        ("WORKDIR /", "/"),
    ] {
        let (state, _) = run(&format!("USER me\n{text}"));
        assert_eq!(state.config().working_dir, path, "{text}");
        let expected = Workdir {
            path: path.to_owned(),
            user: "me".to_owned(),
        };
        assert_eq!(
            action(&format!("USER me\n{text}")),
            Action::Workdir(expected),
            "{text}"
        );
    }
    let (state, _) = run(
        "ENV P=80\nEXPOSE $P 53/UDP 8000-8002/tcp\nVOLUME /a $P\nVOLUME [\"/b c\", \"/$P\"]\n\
         STOPSIGNAL 9\nLABEL a=$P \"b c\"='$P'\nLABEL a=2\nONBUILD RUN $P\nONBUILD USER x\nMAINTAINER $P\nUSER $P:1",
    );
    let config = state.config();
    let ports = ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"];
    assert_eq!(config.exposed_ports, strings(&ports).into_iter().collect());
    assert_eq!(
        config.volumes,
        strings(&["/a", "80", "/b c", "/80"]).into_iter().collect()
    );
    assert_eq!(config.stop_signal, "9");
    assert_eq!(
        config.labels,
        pairs(&[("a", "2"), ("b c", "$P")]).into_iter().collect()
    );
    assert_eq!(config.on_build, ["RUN $P", "USER x"]);
    assert_eq!(
        (config.author.as_str(), config.user.as_str()),
        ("$P", "80:1")
    );
}

/// "CMD", "ENTRYPOINT", "Understand how CMD and ENTRYPOINT interact".
#[test]
fn a_new_entrypoint_drops_the_command_of_the_base() {
    for (text, entrypoint, cmd) in [
        ("USER x", &["/entry"][..], &["serve"][..]),
        ("ENTRYPOINT [\"/e\"]", &["/e"], &[]),
        ("ENTRYPOINT e f", &["/bin/sh", "-c", "e f"], &[]),
        ("ENTRYPOINT []", &[], &[]),
        ("CMD c", &["/entry"], &["/bin/sh", "-c", "c"]),
        ("CMD []", &["/entry"], &[]),
        ("CMD [\"c\"]\nENTRYPOINT [\"e\"]", &["e"], &["c"]),
        ("ENTRYPOINT [\"e\"]\nCMD [\"c\"]", &["e"], &["c"]),
        ("SHELL [\"s\"]\nCMD c", &["/entry"], &["s", "c"]),
    ] {
        let (state, _) = run(text);
        let config = state.config();
        assert_eq!(
            (&config.entrypoint, &config.cmd),
            (&strings(entrypoint), &strings(cmd)),
            "{text}"
        );
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let problems = [
        "WORKDIR ${X:?not given}",
        "EXPOSE $LANG",
        "STOPSIGNAL $LANG",
        "VOLUME $X",
        "ENV $X=a",
        "RUN --mount=type=$LANG,target=/x x",
        "COPY a b c",
        "COPY http://me:secret@h/x /x",
        "COPY --chmod=$LANG a b",
        "ADD --checksum=sha256:$LANG http://h/x /x",
        "\nADD --checksum=abcdef0 a \\\n b",
        "ENV A=${PATH#\\x}",
    ]
    .map(problem);
    insta::assert_snapshot!(problems.join("\n"), @r#"
    1: failed to evaluate `WORKDIR ${X:?not given}`: `X` is not set: not given -- set it by `ENV` or `ARG` above
    1: failed to evaluate `EXPOSE $LANG`: `C` is not a port -- write a port, or a range, with or without its protocol: `80`, `53/udp`, `8000-8010/tcp`
    1: failed to evaluate `STOPSIGNAL $LANG`: `C` is not a signal -- write the name or the number of a signal, such as `SIGTERM`
    1: failed to evaluate `VOLUME $X`: the path of a volume is empty -- check the variables in it
    1: failed to evaluate `ENV $X=a`: the name before a `=` is empty -- check the variables in it
    1: failed to evaluate `RUN --mount=type=$LANG,target=/x x`: there is no mount of type `c` -- the types are `bind`, `cache`, `tmpfs`, `secret`
    1: failed to evaluate `COPY a b c`: there are several sources, and the destination `c` is not a directory -- end the destination with a slash
    1: failed to evaluate `COPY http://***@h/x /x`: `http://***@h/x` is on another machine, which `COPY` does not reach -- use `ADD`, which fetches
    1: failed to evaluate `COPY --chmod=$LANG a b`: `C` is not a mode -- write an octal number up to `7777`, or symbols, such as `--chmod=0755` or `--chmod=u=rwX,go=rX`
    1: failed to evaluate `ADD --checksum=sha256:$LANG http://h/x /x`: `sha256:C` is not a digest -- write `--checksum=sha256:` and 64 digits, or for a repository the id of a commit
    2: failed to evaluate `ADD --checksum=abcdef0 a \`: `--checksum` is for one file or repository of another machine -- give each file an `ADD` of its own
    1: failed to evaluate `ENV A=${PATH#\x}`: `\x` is not a pattern -- a backslash stands before `*`, `?`, `\`, `/` or `}`, and a pattern is short
    "#);
}

#[test]
fn configs_are_read_and_written() {
    let document = serde_json::json!({
        "architecture": "amd64",
        "author": "me",
        "config": {
            "Env": ["A=b", "C"],
            "WorkingDir": "/w",
            "User": "u",
            "Shell": ["s"],
            "Entrypoint": ["e"],
            "Cmd": null,
            "Labels": {"l": "1"},
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/v": {}},
            "StopSignal": "9",
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5, "Retries": 2},
            "OnBuild": ["RUN x"],
            "ArgsEscaped": true,
        },
    });
    let config = Config::read(&document);
    assert_eq!(config.env, pairs(&[("A", "b"), ("C", "")]));
    assert_eq!(
        config
            .healthcheck
            .as_ref()
            .map(|check| (check.interval, check.retries)),
        Some((5, 2))
    );
    let mut written = document.clone();
    config.write(&mut written);
    let mut expected = document;
    expected["config"]["Env"][1] = "C=".into();
    expected["config"].as_object_mut().unwrap().remove("Cmd");
    assert_eq!(written, expected);
    for nothing in [
        serde_json::json!(null),
        serde_json::json!({"config": 1}),
        serde_json::json!({"config": {"Env": 1}}),
    ] {
        assert_eq!(Config::read(&nothing), Config::default());
    }
    let mut empty = serde_json::json!(null);
    Config::default().write(&mut empty);
    assert_eq!(empty, serde_json::json!({"config": {}}));
}
