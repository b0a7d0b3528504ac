//! `cmds`: what is read, and where errors point in the file.

use insta::assert_snapshot;

use super::*;

#[test]
fn instructions_are_read() {
    let cmds = good("cmds:\n  pre: |\n    # first\n    RUN a \\\n      b\n    ENV C=%ENV{TOKEN}\n  post: USER me\n").cmds;
    let sources = |instructions: &[Instruction]| -> Vec<String> {
        let source = |instruction: &Instruction| instruction.source.clone();
        instructions.iter().map(source).collect()
    };
    assert_eq!(cmds.pre.text, "# first\nRUN a \\\n  b\nENV C=PLANTED\n");
    assert_eq!(sources(&cmds.pre.parsed), ["RUN a \\\n  b", "ENV C=***"]);
    assert_eq!(sources(&cmds.pre.shown), ["RUN a \\\n  b", "ENV C=***"]);
    assert!(format!("{:?}", cmds.pre.parsed[1].kind).contains("PLANTED"));
    assert!(!format!("{:?}", cmds.pre.shown).contains("PLANTED"));
    assert_eq!(sources(&cmds.post.parsed), ["USER me"]);
    assert!(!cmds.is_empty());

    for nothing in [
        "cmds:\n",
        "cmds: {pre: , post: ''}\n",
        "cmds:\n  pre: |\n    # a comment\n",
    ] {
        assert!(good(nothing).cmds.is_empty(), "{nothing}");
    }
}

#[test]
fn errors_point_into_the_file() {
    assert_snapshot!(bad("cmds:\n  pre: |\n\n    RUN a \\\n      b\n\n    RNU c\n    ENV É=é B=\"c\n  post: |-\n    COPY --from=x a b\n    RUN cat <<EOF\n"), @"");
    assert_snapshot!(bad("cmds: {pre: RNU x, post: 'FROM x'}\n"), @"");
    assert_snapshot!(bad("cmds:\n  pre: \"USER x\\nRNU y\"\n  post: >\n    RNU a\n\n    RUN b\n"), @"");
    assert_snapshot!(bad("cmds:\n  pre: |2\n      RUN a\n      FROM b\n"), @"");
    assert_snapshot!(bad("cmds: RUN x\n"), @"");
    assert_snapshot!(bad("cmds: {pre: [RUN x], past: x}\n"), @"");
}

#[test]
fn values_of_variables_stay_values() {
    // `LINES` has two lines.
    assert_snapshot!(bad("cmds:\n  pre: |\n    USER a\n    ENV A=%ENV{LINES}\n"), @"");
    assert_snapshot!(bad("cmds:\n  pre: |\n    USRE %ENV{TOKEN}\n"), @"");
}
