//! Which words each instruction has.

use super::*;

fn shell(line: &str) -> Kind {
    Kind::Run(RunWords {
        command: Command::Shell(line.to_owned()),
        heredocs: Vec::new(),
        mounts: Vec::new(),
        network: Network::Default,
    })
}

fn heredoc(name: &str, text: &str) -> Heredoc {
    Heredoc {
        name: name.to_owned(),
        text: text.to_owned(),
        expand: true,
        strip_tabs: false,
    }
}

/// "Format", "Parser directives", "escape".
#[test]
fn lines_become_instructions() {
    for (text, line) in [
        ("RUN a b", "a b"),
        ("run a", "a"),
        ("  RUN   a  ", "a"),
        ("# x\n\n  # y\nRUN a\n# z\n", "a"),
        ("RUN a\r\n", "a"),
        ("RUN a \\\n  b", "a   b"),
        ("RUN a \\\r\n b", "a  b"),
        ("RUN a \\ \t\n b", "a  b"),
        ("RUN a \\\n# x\n\n  # y\n b", "a  b"),
        ("RUN \\\n a", "a"),
        ("RUN a \\", "a"),
        ("RUN a \\\n\n", "a"),
        ("RUN a\\\\", "a\\\\"),
        ("RUN a # b", "a # b"),
        ("RU\\\nN a", "a"),
        ("# escape=`\nRUN a `\n b \\", "a  b \\"),
        ("# Escape = `\nRUN a `\n b", "a  b"),
        ("# syntax=x\n# escape=`\nRUN a `\n b", "a  b"),
        // Below a comment or a blank line it is a comment.
        ("# x\n# escape=`\nRUN a `", "a `"),
        ("\n# escape=`\nRUN a `", "a `"),
        ("RUN echo \"it's\" <<x", "echo \"it's\" <<x"),
    ] {
        let text = if line.ends_with("<<x") {
            format!("{text}\nx")
        } else {
            text.to_owned()
        };
        let Kind::Run(words) = one(&text).kind else {
            panic!("{text}")
        };
        assert_eq!(words.command, Command::Shell(line.to_owned()), "{text}");
    }
    let instructions = good("\nRUN a \\\n  b\n\nUSER c\n");
    let places: Vec<_> = instructions
        .iter()
        .map(|one| (one.line, one.source.as_str()))
        .collect();
    assert_eq!(places, [(2, "RUN a \\\n  b"), (5, "USER c")]);
    assert_eq!(good(""), []);
    assert_eq!(good("# only a comment"), []);
}

/// "Shell and exec form".
#[test]
fn commands_have_two_forms() {
    for (arguments, command) in [
        ("echo a", Command::Shell("echo a".to_owned())),
        (
            "[\"echo\", \"a b\"]",
            Command::Exec(strings(&["echo", "a b"])),
        ),
        ("  [ \"a\\n\\u00e9\" ] ", Command::Exec(strings(&["a\né"]))),
        ("[]", Command::Exec(Vec::new())),
        ("['echo']", Command::Shell("['echo']".to_owned())),
        ("[ -f x ] && y", Command::Shell("[ -f x ] && y".to_owned())),
        ("[\"a\",]", Command::Shell("[\"a\",]".to_owned())),
        ("[\"a\"] b", Command::Shell("[\"a\"] b".to_owned())),
        ("$A 'b", Command::Shell("$A 'b".to_owned())),
    ] {
        assert_eq!(
            one(&format!("CMD {arguments}")).kind,
            Kind::Cmd(command.clone())
        );
        assert_eq!(
            one(&format!("ENTRYPOINT {arguments}")).kind,
            Kind::Entrypoint(command)
        );
    }
}

/// "ENV", "LABEL", "ARG".
#[test]
fn names_have_values() {
    for (arguments, expected) in [
        ("A=b", &[("A", "b")][..]),
        ("A=b C=d", &[("A", "b"), ("C", "d")]),
        ("A=", &[("A", "")]),
        ("A=b=c", &[("A", "b=c")]),
        ("A=\"b c\" D='e f'", &[("A", "\"b c\""), ("D", "'e f'")]),
        ("A=b\\ c", &[("A", "b\\ c")]),
        ("A=b \\\n  C=d", &[("A", "b"), ("C", "d")]),
        ("\"A b\"=c", &[("\"A b\"", "c")]),
        ("A b  c", &[("A", "b  c")]),
        ("A b=c", &[("A", "b=c")]),
        ("A   \"b c\"", &[("A", "\"b c\"")]),
    ] {
        assert_eq!(
            one(&format!("ENV {arguments}")).kind,
            Kind::Env(pairs(expected)),
            "{arguments}"
        );
        assert_eq!(
            one(&format!("LABEL {arguments}")).kind,
            Kind::Label(pairs(expected))
        );
    }
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        one("ARG A B=c D=\"e f\" G=").kind,
        Kind::Arg(vec![
            ("A".to_owned(), None),
            ("B".to_owned(), text("c")),
            ("D".to_owned(), text("\"e f\"")),
            ("G".to_owned(), text("")),
        ])
    );
}

/// "Here-Documents".
#[test]
fn heredocs_are_read() {
    let Kind::Run(words) = one("RUN <<EOF\na\n b \\\n# c\nEOF").kind else {
        panic!()
    };
    assert_eq!(words.command, Command::Shell("<<EOF".to_owned()));
    assert_eq!(words.heredocs, [heredoc("EOF", "a\n b \\\n# c\n")]);

    let Kind::Run(words) = one("RUN cat <<-\"A\" 3<< B > x\n\ta\n\tA\nb\nB\n").kind else {
        panic!()
    };
    let quoted = Heredoc {
        expand: false,
        strip_tabs: true,
        ..heredoc("A", "\ta\n")
    };
    assert_eq!(quoted.content(), "a\n");
    assert_eq!(words.heredocs, [quoted, heredoc("B", "b\n")]);

    let instructions = good("COPY <<a <<'b' x /y/\n$A\na\nEOF\nb\nUSER me");
    let Kind::Copy(copy) = &instructions[0].kind else {
        panic!()
    };
    assert_eq!(copy.sources, ["x"]);
    assert_eq!(
        copy.heredocs,
        [
            heredoc("a", "$A\n"),
            Heredoc {
                expand: false,
                ..heredoc("b", "EOF\n")
            },
        ]
    );
    assert_eq!(instructions[1].line, 6);
    assert_eq!(
        instructions[0].source,
        "COPY <<a <<'b' x /y/\n$A\na\nEOF\nb"
    );

    // What is no heredoc.
    for line in [
        "cat <<<x",
        "echo '<<EOF'",
        "echo \"<<EOF\"",
        "echo $((1<<2))",
        "cat<<EOF",
        "a << <x",
    ] {
        assert_eq!(one(&format!("RUN {line}")).kind, shell(line), "{line}");
    }
    assert_eq!(one("USER <<x").kind, Kind::User("<<x".to_owned()));
    let exec = one("RUN [\"cat\", \"<<EOF\"]").kind;
    assert!(matches!(exec, Kind::Run(RunWords { heredocs, .. }) if heredocs.is_empty()));
    assert_eq!(
        one("ONBUILD RUN cat <<EOF\n a\nEOF").kind,
        Kind::OnBuild("RUN cat <<EOF\n a\nEOF".to_owned())
    );
}

/// "RUN --mount", "RUN --network", "COPY", "ADD", "HEALTHCHECK".
#[test]
fn flags_are_read() {
    let Kind::Run(words) =
        one("RUN --network=none --mount=type=tmpfs,dst=/x \\\n --mount=dst=/y -- --a").kind
    else {
        panic!()
    };
    assert_eq!((words.network, words.mounts.len()), (Network::None, 2));
    assert_eq!(words.command, Command::Shell("--a".to_owned()));

    let copy = "COPY --chown=\"me\":us --chmod=0644 --link --parents=false --exclude=*.a --exclude='b c' a b c/";
    let Kind::Copy(words) = one(copy).kind else {
        panic!()
    };
    assert_eq!(
        words,
        CopyWords {
            is_add: false,
            sources: strings(&["a", "b"]),
            heredocs: Vec::new(),
            destination: "c/".to_owned(),
            chown: Some("me:us".to_owned()),
            chmod: Some("0644".to_owned()),
            exclude: strings(&["*.a", "b c"]),
            parents: false,
            link: true,
            checksum: None,
            keep_git_dir: None,
            unpack: None,
        }
    );
    let Kind::Copy(words) = one("ADD --keep-git-dir --unpack=false [\"a b\", \"/c d\"]").kind
    else {
        panic!()
    };
    assert!(words.is_add);
    assert_eq!(
        (words.keep_git_dir, words.unpack),
        (Some(true), Some(false))
    );
    assert_eq!(
        (words.sources, words.destination),
        (strings(&["a b"]), "/c d".to_owned())
    );

    let check =
        "HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=500ms --retries=3 cmd curl x";
    let test = |words: &[&str]| Healthcheck {
        test: strings(words),
        ..Healthcheck::default()
    };
    assert_eq!(
        one(check).kind,
        Kind::Healthcheck(Healthcheck {
            interval: 90_000_000_000,
            timeout: 1_500_000_000,
            start_period: 500_000_000,
            start_interval: 0,
            retries: 3,
            ..test(&["CMD-SHELL", "curl x"])
        })
    );
    assert_eq!(
        one("HEALTHCHECK CMD [\"a\", \"b\"]").kind,
        Kind::Healthcheck(test(&["CMD", "a", "b"]))
    );
    assert_eq!(
        one("HEALTHCHECK none").kind,
        Kind::Healthcheck(test(&["NONE"]))
    );
}

#[test]
fn the_other_instructions_are_read() {
    for (text, kind) in [
        ("WORKDIR a b", Kind::Workdir("a b".to_owned())),
        ("USER me:us", Kind::User("me:us".to_owned())),
        (
            "EXPOSE 80 53/udp $P",
            Kind::Expose(strings(&["80", "53/udp", "$P"])),
        ),
        ("VOLUME /a /b", Kind::Volume(strings(&["/a", "/b"]))),
        ("VOLUME [\"/a b\"]", Kind::Volume(strings(&["/a b"]))),
        (
            "STOPSIGNAL SIGRTMIN+3",
            Kind::StopSignal("SIGRTMIN+3".to_owned()),
        ),
        (
            "SHELL [\"/bin/bash\", \"-c\"]",
            Kind::Shell(strings(&["/bin/bash", "-c"])),
        ),
        (
            "MAINTAINER Me <me@example.com>",
            Kind::Maintainer("Me <me@example.com>".to_owned()),
        ),
        (
            "ONBUILD COPY --from=x a b",
            Kind::OnBuild("COPY --from=x a b".to_owned()),
        ),
        ("onbuild run a", Kind::OnBuild("run a".to_owned())),
    ] {
        assert_eq!(one(text).kind, kind, "{text}");
    }
}
