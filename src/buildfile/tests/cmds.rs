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
    assert_snapshot!(bad("cmds:\n  pre: |\n\n    RUN a \\\n      b\n\n    RNU c\n    ENV É=é B=\"c\n  post: |-\n    COPY --from=x a b\n    RUN cat <<EOF\n"), @r#"
    build.yaml:7:5: unknown instruction `RNU`
      7 |     RNU c
        |     ^^^
      hint: did you mean `RUN`?
    build.yaml:8:15: the quote `"` is not closed
      8 |     ENV É=é B="c
        |               ^^
      hint: close it by another one, or put a backslash before it
    build.yaml:10:10: `COPY --from` cannot stand here: the image has one stage
      10 |     COPY --from=x a b
         |          ^^^^^^^^
      hint: copy from the context, or fetch with `files`, `repositories` or `ADD`
    build.yaml:11:13: the heredoc `EOF` is not closed
      11 |     RUN cat <<EOF
         |             ^^^^^
      hint: end it by a line that holds `EOF` alone
    "#);
    assert_snapshot!(bad("cmds: {pre: RNU x, post: 'FROM x'}\n"), @r#"
    build.yaml:1:13: unknown instruction `RNU`
      1 | cmds: {pre: RNU x, post: 'FROM x'}
        |             ^^^
      hint: did you mean `RUN`?
    build.yaml:1:27: `FROM` cannot stand here: the image has one base and one stage
      1 | cmds: {pre: RNU x, post: 'FROM x'}
        |                           ^^^^
      hint: name the base by the key `base` of the build file, or by `python`
    "#);
    assert_snapshot!(bad("cmds:\n  pre: \"USER x\\nRNU y\"\n  post: >\n    RNU a\n\n    RUN b\n"), @r#"
    build.yaml:2:8: unknown instruction `RNU`
      2 |   pre: "USER x\nRNU y"
        |        ^^^^^^^^^^^^^^^
      hint: did you mean `RUN`?
    build.yaml:4:5: unknown instruction `RNU`
      4 |     RNU a
        |     ^^^^^
      hint: did you mean `RUN`?
    "#);
    assert_snapshot!(bad("cmds:\n  pre: |2\n      RUN a\n      FROM b\n"), @r#"
    build.yaml:4:7: `FROM` cannot stand here: the image has one base and one stage
      4 |       FROM b
        |       ^^^^
      hint: name the base by the key `base` of the build file, or by `python`
    "#);
    assert_snapshot!(bad("cmds: RUN x\n"), @r#"
    build.yaml:1:7: `cmds` must be a mapping, not text
      1 | cmds: RUN x
        |       ^^^^^
      hint: write `name: value` lines, indented below the key
    "#);
    assert_snapshot!(bad("cmds: {pre: [RUN x], past: x}\n"), @r#"
    build.yaml:1:13: `cmds.pre` must be text, not a list
      1 | cmds: {pre: [RUN x], past: x}
        |             ^
    build.yaml:1:22: unknown key `past`
      1 | cmds: {pre: [RUN x], past: x}
        |                      ^^^^
      hint: did you mean `post`?
    "#);
}

#[test]
fn values_of_variables_stay_values() {
    // `LINES` has two lines.
    assert_snapshot!(bad("cmds:\n  pre: |\n    USER a\n    ENV A=%ENV{LINES}\n"), @r#"
    build.yaml:3:5: `cmds.pre` is wrong once `%ENV{…}` is replaced
      3 |     USER a
        |     ^^^^^^
      hint: look at its line 3: a value may need quotes
    "#);
    assert_snapshot!(bad("cmds:\n  pre: |\n    USRE %ENV{TOKEN}\n"), @r#"
    build.yaml:3:5: unknown instruction `USRE`
      3 |     USRE %ENV{TOKEN}
        |     ^^^^^^^^^^^^^^^^
      hint: did you mean `USER`?
    "#);
}
