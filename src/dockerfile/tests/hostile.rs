//! Texts that are made to cost much.

use std::time::Duration;

use super::*;

/// A quarter of what a build file may be: what takes quadratic time shows, and the others take little.
const SIZE: usize = 1 << 18;

/// Of this thread alone: the machine may have other work.
fn spent() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

fn cheap(name: &str, work: impl FnOnce()) {
    let start = spent();
    work();
    let took = spent().saturating_sub(start);
    assert!(took.as_secs() < 5, "{name} took {took:?}");
}

/// Parses, and evaluates as far as it goes.
fn try_all(text: &str) {
    let mut state = State::new(base(), []);
    match parse(text) {
        Ok(instructions) => {
            for instruction in &instructions {
                if state.apply(instruction).is_err() {
                    break;
                }
            }
        }
        Err(errors) => assert!(errors.len() <= 110, "{}", errors.len()),
    }
}

/// An instruction for each of many names.
fn numbered(instruction: &str) -> String {
    let lines: Vec<String> = (0..20_000)
        .map(|n| format!("{instruction} A{n}=b\n"))
        .collect();
    lines.concat()
}

#[test]
fn long_texts_cost_little() {
    let repeat = |part: &str| part.repeat(SIZE / part.len());
    for (name, text) in [
        ("one line", format!("RUN {}", repeat("x"))),
        ("continuation", format!("RUN x {}", repeat("\\\n"))),
        ("comments", repeat("#\n")),
        ("comments between", format!("RUN x \\\n{}", repeat("#\n"))),
        ("unknown instructions", repeat("a\n")),
        ("no arguments", repeat("RUN\n")),
        ("dollars", format!("ENV A={}", repeat("$"))),
        ("variables", format!("ENV A={}", repeat("$PATH"))),
        ("braces", format!("ENV A={}", repeat("${"))),
        ("nested", format!("ENV A={}", repeat("${A:-"))),
        (
            "nested and closed",
            format!("ENV A={}{}", "${A:-".repeat(SIZE / 6), repeat("}")),
        ),
        ("quotes", format!("ENV A={}", repeat("\"\""))),
        ("open quotes", repeat("ENV A=\"\n")),
        ("escapes", format!("ENV A={}", repeat("\\a"))),
        ("pairs", format!("ENV {}", repeat("A=b "))),
        ("names", numbered("ENV")),
        ("arguments", numbered("ARG")),
        ("flags", format!("RUN {} x", repeat("--mount=x "))),
        ("other flags", format!("RUN {} x", repeat("--m "))),
        ("a long flag", format!("RUN --{} x", repeat("m"))),
        ("options", format!("RUN --mount={} x", repeat("id=x,"))),
        ("heredocs", format!("RUN {}\n", repeat("<<A "))),
        ("open heredocs", repeat("RUN <<A\n")),
        ("closed heredocs", repeat("RUN <<A\nA\n")),
        (
            "a heredoc",
            format!("COPY <<A /x\n{}A\n", repeat("$PATH\n")),
        ),
        ("arrays", format!("CMD {}", repeat("["))),
        ("an array", format!("CMD [{}\"a\"]", repeat("\"a\","))),
        ("ports", repeat("EXPOSE 1-65535\n")),
        ("patterns", format!("ENV A={}", repeat("${PATH#*b}"))),
        ("a pattern", format!("ENV A=${{PATH#{}}}", repeat("*"))),
        (
            "patterns of large values",
            format!(
                "ENV A={}\n{}",
                "a".repeat(SIZE / 2),
                "USER ${A##*b*c}\n".repeat(30_000)
            ),
        ),
        (
            "large mounts",
            format!(
                "ENV A={}\nRUN {} x",
                "a".repeat(SIZE / 2),
                "--mount=target=$A ".repeat(30_000)
            ),
        ),
        ("directives", repeat("# escape=x\n")),
        ("onbuild", format!("ONBUILD {}", repeat("ONBUILD "))),
        ("sources", format!("COPY {} /x/", repeat("a "))),
        ("signals", format!("STOPSIGNAL {}", repeat("9"))),
        (
            "durations",
            format!("HEALTHCHECK --interval={} CMD x", repeat("1s")),
        ),
    ] {
        cheap(name, || try_all(&text));
    }
}

#[test]
fn values_that_double_are_bounded() {
    let doubling = format!("ENV A=aaaaaaaa\n{}", "ENV A=$A$A\n".repeat(60));
    assert_eq!(
        problem(&doubling),
        "19: failed to evaluate `ENV A=$A$A`: the word is longer than 1024 KiB once its variables are \
         replaced -- "
    );
    let many = format!(
        "ENV A={}\n{}",
        "a".repeat(1 << 19),
        "LABEL x=$A\n".repeat(1000)
    );
    cheap("labels", || {
        assert!(problem(&many).contains("the instructions expand to more than 64 MiB"));
    });
}
