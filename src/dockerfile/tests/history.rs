//! The history's entries: `BuildKit`'s words.

use super::super::history::duration;
use super::*;

/// Holds what the last instruction of a text leaves in the history.
fn written(text: &str, created_by: &str, empty_layer: bool) {
    let history = run(text).1.pop().and_then(|applied| applied.history);
    let expected = History {
        created_by: created_by.to_owned(),
        empty_layer,
    };
    assert_eq!(history, Some(expected), "{text}");
}

#[test]
fn copies_are_written_as_buildkit_writes_them() {
    for (text, created_by) in [
        ("COPY a b", "COPY a b # buildkit"),
        (
            "COPY --link --chmod=0644 --parents --chown=me:us a* b/",
            "COPY --parents --chown=me:us --chmod=0644 a* b/ # buildkit",
        ),
        ("ENV D=x\nCOPY <<a $D $D/\na", "COPY x <<a x/ # buildkit"),
        ("ADD http://h/a /b", "ADD http://h/a /b # buildkit"),
        (
            "ADD --chown=5:6 --chmod=a-w,u+X --keep-git-dir a.tar http://h/%66?q=1 /x/",
            "ADD --chown=5:6 --chmod=a-w,u+X a.tar http://h/%66?q=1 /x/ # buildkit",
        ),
        (
            "COPY --chown=app:staff --chmod=755 a.txt <<one <<two /x/\none\ntwo",
            "COPY --chown=app:staff --chmod=755 a.txt <<one <<two /x/ # buildkit",
        ),
        (
            "COPY --parents --exclude=b deep/./er/note deep/**/a /x/",
            "COPY --parents deep/./er/note deep/**/a /x/ # buildkit",
        ),
        ("COPY $NONE a", "COPY  a # buildkit"),
    ] {
        written(text, created_by, false);
    }
}

#[test]
fn entries_are_as_buildkit_writes_them() {
    for (text, created_by, empty) in [
        ("RUN echo a", "RUN /bin/sh -c echo a # buildkit", false),
        ("RUN [\"a\", \"b c\"]", "RUN a b c # buildkit", false),
        (
            "ARG A=b\nRUN x",
            "RUN |1 A=b /bin/sh -c x # buildkit",
            false,
        ),
        (
            "ARG A=b\nARG C\nARG LANG\nARG A=d E=f\nRUN x",
            "RUN |4 A=d C= LANG=C E=f /bin/sh -c x # buildkit",
            false,
        ),
        (
            "ARG HTTP_PROXY\nRUN x",
            "RUN |1 HTTP_PROXY= /bin/sh -c x # buildkit",
            false,
        ),
        (
            "RUN <<EOF\na\nb\nEOF",
            "RUN /bin/sh -c a\nb\n # buildkit",
            false,
        ),
        (
            "RUN cat <<EOF\na\nEOF",
            "RUN /bin/sh -c cat <<EOF\na\nEOF # buildkit",
            false,
        ),
        ("RUN a \\\n  b", "RUN /bin/sh -c a   b # buildkit", false),
        ("WORKDIR a", "WORKDIR /srv/a", false),
        // BuildKit has `WORKDIR /x//y/../z/.` here: a difference that README names.
        ("WORKDIR /x//y/../z/.", "WORKDIR /x/z", false),
        ("WORKDIR /", "WORKDIR /", true),
        ("ENV A=\"b c\" D=$PATH", "ENV A=b c D=/bin", true),
        ("ENV A b", "ENV A=b", true),
        ("ARG A B=$PATH", "ARG A B=/bin", true),
        ("LABEL a=b c=\"d e\"", "LABEL a=b c=d e", true),
        ("USER me", "USER me", true),
        ("EXPOSE 80 53/udp", "EXPOSE [53/udp 80/tcp]", true),
        ("EXPOSE 9-10 10", "EXPOSE [10/tcp 9/tcp 10/tcp]", true),
        ("EXPOSE $NONE", "EXPOSE []", true),
        ("VOLUME /a /b", "VOLUME [/a /b]", true),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGTERM", true),
        (
            "SHELL [\"/bin/bash\", \"-c\"]",
            "SHELL [/bin/bash -c]",
            true,
        ),
        (
            "CMD a \"b\"",
            "CMD [\"/bin/sh\" \"-c\" \"a \\\"b\\\"\"]",
            true,
        ),
        (
            "CMD [\"a\\n\\\\\\u0001\", \"é\"]",
            "CMD [\"a\\n\\\\\\x01\" \"é\"]",
            true,
        ),
        (
            "ENTRYPOINT [\"a\", \"b\"]",
            "ENTRYPOINT [\"a\" \"b\"]",
            true,
        ),
        ("MAINTAINER me", "MAINTAINER me", true),
        (
            "HEALTHCHECK --interval=5m --retries=3 CMD a b",
            "HEALTHCHECK {Test:[CMD-SHELL a b] Interval:5m0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}",
            true,
        ),
        (
            "HEALTHCHECK NONE",
            "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            true,
        ),
    ] {
        written(text, created_by, empty);
    }
    assert_eq!(run("ONBUILD RUN x").1[0].history, None);
}

#[test]
fn durations_are_written_as_go_does() {
    for (nanoseconds, text) in [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (300_000_000, "300ms"),
        (1_000_000_000, "1s"),
        (1_050_000_000, "1.05s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (5_405_250_000_000, "1h30m5.25s"),
    ] {
        assert_eq!(duration(nanoseconds), text);
        let read = super::super::value::duration(text).map(|time| time.as_nanos());
        assert_eq!(read, Some(u128::from(nanoseconds)));
    }
    for text in [
        "",
        "+",
        "-1s",
        "1",
        "s",
        "1.s.",
        "1x",
        "1s2",
        ".",
        "9999999999h",
    ] {
        assert_eq!(super::super::value::duration(text), None, "{text}");
    }
}
