//! Every rule with the words that a person gets.

use insta::assert_snapshot;

use super::*;

#[test]
fn problems_are_shown() {
    assert_snapshot!(bad("python: 3.11\n\n\npakages:\n  - pyats\n"), @r#"
    build.yaml:4:1: unknown key `pakages`
      4 | pakages:
        | ^^^^^^^
      hint: did you mean `packages`?
    "#);
    assert_snapshot!(bad("something: 1\n"), @r#"
    build.yaml:1:1: unknown key `something`
      1 | something: 1
        | ^^^^^^^^^
      hint: the keys here are `tag`, `python`, `base`, `platform`, `layout`, `env`, `files`, `packages`, `pip-config`, `installer`, `repositories`, `snapshot`, `proxy`, `cmds`, `jobfiles`, `labels`, `annotations`, `system-packages`
    "#);
    assert_snapshot!(bad("tag: a\npython: 3\ntag: b\n"), @r#"
    build.yaml:3:1: duplicate key `tag`
      3 | tag: b
        | ^^^
      1 | tag: a
        | --- first used here
    "#);
    assert_snapshot!(bad("python: three\n"), @r#"
    build.yaml:1:9: `python` must be a version
      1 | python: three
        |         ^^^^^
      hint: write digits and dots, such as `python: 3.11`; `base` chooses any other image
    "#);
    assert_snapshot!(bad("python: 3.11-slim\nbase: ''\nplatform: x86\ntag: My Image\n"), @r#"
    build.yaml:1:9: `python` must be a version
      1 | python: 3.11-slim
        |         ^^^^^^^^^
      hint: write digits and dots, such as `python: 3.11`; `base` chooses any other image
    build.yaml:2:7: `base` is empty
      2 | base: ''
        |       ^^
    build.yaml:3:11: `platform` must be `os/architecture` or `os/architecture/variant`
      3 | platform: x86
        |           ^^^
      hint: write `platform: linux/amd64`, for example
    build.yaml:4:6: `tag` is not the name of an image
      4 | tag: My Image
        |      ^^^^^^^^
      hint: write `[registry/]name[:version]` in lower case, such as `mypyatsimage:latest`
    "#);
}

#[test]
fn problems_of_shapes_and_values_are_shown() {
    assert_snapshot!(bad("packages: pyats\nenv: [A=b]\nfiles: {a: b}\n"), @r#"
    build.yaml:1:11: `packages` must be a list, not text
      1 | packages: pyats
        |           ^^^^^
      hint: write `- ` in front of each item
    build.yaml:2:6: `env` must be a mapping, not a list
      2 | env: [A=b]
        |      ^
      hint: write `name: value` lines, indented below the key
    build.yaml:3:8: `files` must be a list, not a mapping
      3 | files: {a: b}
        |        ^
      hint: write `- ` in front of each item
    "#);
    assert_snapshot!(bad("packages:\n  - \n  - a: b\n  - [x]\n"), @r#"
    build.yaml:2:5: `packages[0]` is empty
      2 |   -
        |     ^
    build.yaml:3:5: `packages[1]` must be text, not a mapping
      3 |   - a: b
        |     ^
      hint: put text that contains `: ` in quotes
    build.yaml:4:5: `packages[2]` must be text, not a list
      4 |   - [x]
        |     ^
    "#);
    assert_snapshot!(bad("env:\n  a b: x\n  WORKSPACE: /x\n  B: [1]\n  C: ${B\n  D: ${B/x/y}\n"), @r#"
    build.yaml:2:3: `a b` is not the name of a variable
      2 |   a b: x
        |   ^^^
      hint: use letters, digits and underscores
    build.yaml:3:3: `WORKSPACE` may not be set: the image is built around `/workspace`
      3 |   WORKSPACE: /x
        |   ^^^^^^^^^
      hint: remove it; other values can use it
    build.yaml:4:6: `env.B` must be text, not a list
      4 |   B: [1]
        |      ^
    build.yaml:5:6: `${` is not closed by `}`
      5 |   C: ${B
        |      ^^^
      hint: write `\$` for a dollar sign that is meant literally
    build.yaml:6:6: `${B/…}` is not supported
      6 |   D: ${B/x/y}
        |      ^^^^^^^^
      hint: use `${NAME:-default}` or `${NAME:+replacement}`
    "#);
    assert_snapshot!(bad("- a\n- b\n"), @r#"
    build.yaml:1:1: a build file must be a mapping, not a list
      1 | - a
        | ^
      hint: write keys such as `python: 3.11` and `packages:`
    "#);
    assert_snapshot!(bad("# a comment\n"), @r#"
    build.yaml:1:1: the build file is empty
      1 | # a comment
        | ^
      hint: write keys such as `python: 3.11` and `packages:`
    "#);
    assert_snapshot!(bad("just text\n"), @r#"
    build.yaml:1:1: a build file must be a mapping, not text
      1 | just text
        | ^^^^^^^^^
      hint: write keys such as `python: 3.11` and `packages:`
    "#);
}

#[test]
fn problems_of_files_are_shown() {
    assert_snapshot!(bad("files:\n  - /abs: a\n  - ../b: b\n  - .: e\n  - installation: f\n  - installation/x: f\n"), @r#"
    build.yaml:2:5: the destination `/abs` is absolute
      2 |   - /abs: a
        |     ^^^^
      hint: destinations are relative to the workspace
    build.yaml:3:5: the destination `../b` leaves its folder
      3 |   - ../b: b
        |     ^^^^
      hint: a destination stays inside the workspace: remove `..`
    build.yaml:4:5: the destination `.` is the workspace
      4 |   - .: e
        |     ^
      hint: name the file or folder itself
    build.yaml:5:5: the destination `installation` is reserved for files of the build
      5 |   - installation: f
        |     ^^^^^^^^^^^^
      hint: choose another name: `- name: path`
    build.yaml:6:5: the destination `installation` is reserved for files of the build
      6 |   - installation/x: f
        |     ^^^^^^^^^^^^^^
      hint: choose another name: `- name: path`
    "#);
    assert_snapshot!(bad("files:\n  - a/x\n  - x: b\n  - b/x/\n  - c/installation\n"), @r#"
    build.yaml:3:5: the destination `x` is taken
      3 |   - x: b
        |     ^
      2 |   - a/x
        |     --- by this entry
    build.yaml:4:5: the destination `x` is taken
      4 |   - b/x/
        |     ^^^^
      2 |   - a/x
        |     --- by this entry
    build.yaml:5:5: the destination `installation` is reserved for files of the build
      5 |   - c/installation
        |     ^^^^^^^^^^^^^^
      hint: choose another name: `- name: path`
    "#);
    assert_snapshot!(bad("files:\n  - {a: b, c: d}\n  - x:\n  -\n  - https://u:pw@host/f\n  - gopher://host/f\n  - f: scp://u:pw@host:x/f\n  - http://host/\n  - ftp://host\n"), @r#"
    build.yaml:2:5: `files[0]` must have one destination, not 2
      2 |   - {a: b, c: d}
        |     ^
      hint: write `- destination: source`, and `- ` in front of each entry
    build.yaml:3:6: `files[1]` is empty
      3 |   - x:
        |      ^
    build.yaml:4:4: `files[2]` must be a path or `destination: source`, not nothing
      4 |   -
        |    ^
    build.yaml:6:5: files do not come by this scheme
      6 |   - gopher://host/f
        |     ^^^^^^^^^^^^^^^
      hint: use a path, `http://`, `https://`, `ftp://`, `ftps://` or `scp://`
    build.yaml:7:8: this is not a URL that can be used: invalid port number
      7 |   - f: scp://***@host:x/f
        |        ^^^^^^^^^^^^^^^^^^
      hint: write `scheme://host/path`, with special characters percent-encoded
    build.yaml:8:5: the URL ends without a file name
      8 |   - http://host/
        |     ^^^^^^^^^^^^
      hint: name it: `- name: URL`
    build.yaml:9:5: the URL names no file
      9 |   - ftp://host
        |     ^^^^^^^^^^
      hint: write the absolute path behind the host
    "#);
}

#[test]
fn problems_of_yaml_are_shown() {
    assert_snapshot!(bad("packages:\n\t- pyats\n"), @r#"
    build.yaml:2:1: invalid YAML: a tab in the indentation
      2 | →- pyats
        | ^
      hint: YAML does not allow tabs for indentation: use spaces
    "#);
    assert_snapshot!(bad("env:\n  A: b\n\tB: c\n"), @r#"
    build.yaml:3:1: invalid YAML: a tab in the indentation
      3 | →B: c
        | ^
      hint: YAML does not allow tabs for indentation: use spaces
    "#);
    assert_snapshot!(bad("tag: [a\npython: 3\n"), @r#"
    build.yaml:2:7: invalid YAML: illegal placement of ':' indicator
      2 | python: 3
        |       ^
      hint: look for a missing colon, quote or bracket here or just above
    "#);
    assert_snapshot!(bad("tag: a: b\n"), @r#"
    build.yaml:1:7: invalid YAML: mapping values are not allowed in this context
      1 | tag: a: b
        |       ^
      hint: put text that contains `: ` in quotes, and indent keys of one mapping equally
    "#);
    assert_snapshot!(bad("tag: %ENV{X}\n"), @r#"
    build.yaml:1:6: invalid YAML: unexpected character: `%'
      1 | tag: %ENV{X}
        |      ^
      hint: put text that begins with `%` in quotes
    "#);
    assert_snapshot!(bad("tag: \"open\n"), @r#"
    build.yaml:1:6: invalid YAML: while scanning a quoted scalar, found unexpected end of stream
      1 | tag: "open
        |      ^
      hint: close the quotes, with the quote that opened them
    "#);
    assert_snapshot!(bad("packages:\n  - *.whl\n"), @r#"
    build.yaml:2:5: invalid YAML: while parsing node, found unknown anchor
      2 |   - *.whl
        |     ^
      hint: put text that begins with `*` in quotes
    "#);
    assert_snapshot!(bad("tag: a\n---\ntag: b\n"), @r#"
    build.yaml:2:1: the file has several YAML documents
      2 | ---
        | ^^^
      hint: keep one document: remove what follows `---`
    "#);
    assert_snapshot!(bad("tag: !custom a\n"), @r#"
    build.yaml:1:6: the tag `!custom` is not supported here
      1 | tag: !custom a
        |      ^^^^^^^^^
      hint: remove the tag: text, lists and mappings need none
    "#);
    assert_snapshot!(bad("? [a]\n: b\n"), @r#"
    build.yaml:1:3: a key must be text, not a list
      1 | ? [a]
        |   ^
    "#);
    assert_snapshot!(bad("env: &e\n  A: *e\n"), @r#"
    build.yaml:2:6: the alias stands inside the value that it names
      2 |   A: *e
        |      ^^
    "#);
    assert_snapshot!(bad("env:\n  <<: text\n"), @r#"
    build.yaml:2:7: `<<` merges mappings, not text
      2 |   <<: text
        |       ^^^^
      hint: name a mapping: `<<: *anchor`
    "#);
    assert_snapshot!(bad("tag: a\u{7}b\n"), @r#"
    build.yaml:1:7: YAML does not allow this control character
      1 | tag: a␇b
        |       ^
      hint: remove it; quoted text can name it, such as `"\x07"`
    "#);
    assert_snapshot!(bad("env: {A: \"x\\0y\"}\n"), @r#"
    build.yaml:1:10: text may not hold a NUL character
      1 | env: {A: "x\0y"}
        |          ^^^^^^
    "#);
}

#[test]
fn problems_of_variables_are_shown() {
    assert_snapshot!(bad("packages:\n  - \"a %ENV{UNSET} b %ENV{NO-NAME}\"\n  - |\n    x\n    %ENV{OTHER}\n"), @r#"
    build.yaml:2:8: the environment variable `UNSET` is not set
      2 |   - "a %ENV{UNSET} b %ENV{NO-NAME}"
        |        ^^^^^^^^^^^
      hint: set it before building, such as `export UNSET=…`
    build.yaml:2:22: `%ENV{` is not followed by a name and `}`
      2 |   - "a %ENV{UNSET} b %ENV{NO-NAME}"
        |                      ^^^^^^^^^^^^^
      hint: write `%ENV{NAME}`; a name has letters, digits and underscores
    build.yaml:5:5: the environment variable `OTHER` is not set
      5 |     %ENV{OTHER}
        |     ^^^^^^^^^^^
      hint: set it before building, such as `export OTHER=…`
    "#);
    // The value itself is nobody's business.
    assert_snapshot!(bad("python: '%ENV{TOKEN}'\nfiles: ['%ENV{LINES}']\njobfiles: {match: '(%ENV{TOKEN}'}\n"), @r#"
    build.yaml:1:9: `python` must be a version
      1 | python: '%ENV{TOKEN}'
        |         ^^^^^^^^^^^^^
      hint: write digits and dots, such as `python: 3.11`; `base` chooses any other image
    build.yaml:2:9: `files[0]` has several lines
      2 | files: ['%ENV{LINES}']
        |         ^^^^^^^^^^^^^
      hint: write each on a line of its own, as an item of the list
    build.yaml:3:19: this is not a regular expression: unclosed group
      3 | jobfiles: {match: '(%ENV{TOKEN}'}
        |                   ^^^^^^^^^^^^^^
      hint: put a backslash before a character that is meant literally
    "#);
}

#[test]
fn problems_of_pip_config_are_shown() {
    assert_snapshot!(bad("pip-config:\n  index-url: https://u:pw@host\n  a]b: {x: 1}\n  g:\n    x=y: 1\n    no_cache: 1\n    no-cache: 2\n    l: ['a', '#b']\n    m: {a: b}\n"), @r#"
    build.yaml:2:3: `pip-config.index-url` must be a section, not text
      2 |   index-url: https://***@host
        |   ^^^^^^^^^
      hint: write `global:` above it, and indent `index-url` below that
    build.yaml:3:3: the name of a pip section has a bracket or a delimiter
      3 |   a]b: {x: 1}
        |   ^^^
    build.yaml:5:5: the name of a pip option has a bracket or a delimiter
      5 |     x=y: 1
        |     ^^^
    build.yaml:7:5: duplicate option `no-cache`: to pip both are one
      7 |     no-cache: 2
        |     ^^^^^^^^
      6 |     no_cache: 1
        |     -------- first used here
    build.yaml:8:14: a line of `pip-config.g.l[1]` begins as a comment, so pip would not see it
      8 |     l: ['a', '#b']
        |              ^^^^
      hint: move it to the first line of the value
    build.yaml:9:8: `pip-config.g.m` must be text or a list, not a mapping
      9 |     m: {a: b}
        |        ^
      hint: `pip-config` has sections, and options in them
    "#);
    assert_snapshot!(bad("pip-config: |\n  index-url = x\n"), @r#"
    build.yaml:2:3: an option of `pip-config` stands before any section
      2 |   index-url = x
        |   ^^^^^^^^^^^^^
      hint: begin with a section, such as `[global]`
    "#);
    assert_snapshot!(bad("pip-config: |\n\n  [global]\n  a = b\n  nonsense\n  A = c\n"), @r#"
    build.yaml:5:3: this line of `pip-config` is no option
      5 |   nonsense
        |   ^^^^^^^^
      hint: write `name = value`; lines that continue a value are indented deeper
    build.yaml:6:3: `pip-config` has this option twice
      6 |   A = c
        |   ^^^^^
      hint: write it once; several values go on indented lines below it
    "#);
    assert_snapshot!(bad("pip-config: [a]\n"), @r#"
    build.yaml:1:13: `pip-config` must be a mapping or text, not a list
      1 | pip-config: [a]
        |             ^
      hint: write `global:` below it, and options such as `index-url: …` below that
    "#);
}

#[test]
fn problems_of_jobfiles_and_names_are_shown() {
    assert_snapshot!(bad("jobfiles:\n  match: ['(', '(?=a)b', '(a)\\1']\n  glob: /a\n"), @r#"
    build.yaml:2:11: this is not a regular expression: unclosed group
      2 |   match: ['(', '(?=a)b', '(a)\1']
        |           ^^^
      hint: put a backslash before a character that is meant literally
    build.yaml:2:16: this is not a regular expression: look-around, including look-ahead and look-behind, is not supported
      2 |   match: ['(', '(?=a)b', '(a)\1']
        |                ^^^^^^^^
      hint: patterns are matched in linear time, without lookaround and backreferences; `glob` and `paths` add files too
    build.yaml:2:26: this is not a regular expression: backreferences are not supported
      2 |   match: ['(', '(?=a)b', '(a)\1']
        |                          ^^^^^^^
      hint: patterns are matched in linear time, without lookaround and backreferences; `glob` and `paths` add files too
    build.yaml:3:9: the glob pattern leaves the workspace
      3 |   glob: /a
        |         ^^
      hint: patterns are relative to the workspace and every folder in it
    "#);
    assert_snapshot!(bad("labels: {a b: c, d: [e]}\nannotations: [x=y]\n"), @r#"
    build.yaml:1:10: `a b` is not a name for one of `labels`
      1 | labels: {a b: c, d: [e]}
        |          ^^^
      hint: use letters, digits, dots and dashes
    build.yaml:1:21: `labels.d` must be text, not a list
      1 | labels: {a b: c, d: [e]}
        |                     ^
    build.yaml:2:14: `annotations` must be a mapping, not a list
      2 | annotations: [x=y]
        |              ^
      hint: write `name: value` lines, indented below the key
    "#);
}

#[test]
fn everything_is_told_at_once() {
    assert_snapshot!(bad("repositories:\n  /a:\n    commit_id: [x]\n    requirements_file: maybe\n    credentials: {user: x}\nproxy: {PROXY: x}\ncmds: RUN x\nsystem-packages: [Git, 'a b']\n"), @r#"
    build.yaml:2:3: the destination `/a` is absolute
      2 |   /a:
        |   ^^
      hint: destinations are relative to the workspace
    build.yaml:2:3: `repositories./a` has no `url`
      2 |   /a:
        |   ^^
      hint: name the repository: `url: …`
    build.yaml:3:16: `repositories./a.commit_id` must be text, not a list
      3 |     commit_id: [x]
        |                ^
    build.yaml:4:24: `repositories./a.requirements_file` must be `true` or `false`, not `maybe`
      4 |     requirements_file: maybe
        |                        ^^^^^
    build.yaml:5:18: `repositories./a.credentials` has no `username`
      5 |     credentials: ***
        |                  ^^^
    build.yaml:5:18: `repositories./a.credentials` has no `password`
      5 |     credentials: ***
        |                  ^^^
    build.yaml:5:19: unknown key `***`
      5 |     credentials: ***
        |                     ^
      hint: the keys here are `username`, `password`
    build.yaml:6:9: unknown key `PROXY`
      6 | proxy: {PROXY: x}
        |         ^^^^^
      hint: did you mean `NO_PROXY`?
    build.yaml:7:7: `cmds` must be a mapping, not text
      7 | cmds: RUN x
        |       ^^^^^
      hint: write `name: value` lines, indented below the key
    build.yaml:8:19: this is not the name of a Debian package
      8 | system-packages: [Git, 'a b']
        |                   ^^^
      hint: write one package an item, such as `- git`
    build.yaml:8:24: this is not the name of a Debian package
      8 | system-packages: [Git, 'a b']
        |                        ^^^^^
      hint: write one package an item, such as `- git`
    "#);
}

#[test]
fn no_secret_is_in_a_message() {
    for text in [
        "repositories:\n  a:\n    url: https://u:PLANTED@h\n    urll: https://u:PLANTED@h\n",
        "repositories:\n  a:\n    url: x\n    credentials: {username: PLANTED, pasword: PLANTED}\n",
        "repositories:\n  a:\n    credentials:\n      username: PLANTED\n      pasword: PLANTED\n",
        "repositories:\n  a:\n    ssh_key:\n    - PLANTED\n",
        "repositories:\n  a:\n    ssh_key: |\n      PLANTED\n     PLANTED\n",
        "repositories:\n  a:\n    ssh_key: |\n      %ENV{UNSET}PLANTED\n",
        "repositories:\n  a:\n    credentials:\n      password: \"PLANTED\n",
        "pip-config:\n  global:\n    password: {PLANTED: PLANTED}\n",
        "pip-config: |\n  [global]\n  password = x\n  password = PLANTED\n",
        "files: ['https://PLANTED@host:x/x', 'gopher://PLANTED@host/x', 'scp://u:PLANTED@host']\n",
        "files: [{'https://PLANTED@host': x}, {'https://PLANTED@host': x}]\n",
        "proxy: {HTTP_PROXI: 'http://u:PLANTED@h:1'}\n",
        "https://u:PLANTED@host: x\n",
        "labels: {a: ['https://u:PLANTED@h'], b: 'https://token=PLANTED:x@h', password: [x]}\n",
        "labels: ['https://u:PLANTEDtoken=@h']\n",
        "repositories: {a: {url: x, credentials: {PLANTED}}}\n",
        "repositories:\n  a:\n    credentials: {\n      username: PLANTED,\n      PLANTED: x}\n",
        "env: {'%ENV{TOKEN}!': x, A: '${%ENV{TOKEN}/x}', B: '${%ENV{TOKEN}'}\n",
        "files: [{'/%ENV{TOKEN}': x}, '%ENV{TOKEN}', '%ENV{TOKEN}', '%ENV{TOKEN}://x']\n",
        "labels: {'%ENV{TOKEN}': [x], '%ENV{TOKEN}': y}\n",
        "pip-config: {'%ENV{TOKEN}': {'%ENV{TOKEN}': {a: b}}}\n",
        "pip-config: |\n  %ENV{TOKEN}\n",
        "jobfiles: {match: '(%ENV{TOKEN}', glob: '/%ENV{TOKEN}'}\nsystem-packages: ['%ENV{TOKEN}']\n",
        "repositories: {'%ENV{TOKEN}': {GIT_SSL_NO_VERIFY: '%ENV{TOKEN}'}}\n",
        "'%ENV{TOKEN}': x\n",
    ] {
        let shown = bad(text);
        assert!(!shown.contains("PLANTED"), "{shown}");
    }
}

#[test]
fn long_lines_and_many_problems_are_cut() {
    let long = format!(
        "packages: ['{}', [x], '{}']\n",
        "a".repeat(300),
        "b".repeat(300)
    );
    assert_snapshot!(bad(&long), @r#"
    build.yaml:1:316: `packages[1]` must be text, not a list
      1 | …aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', [x], 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb…
        |                                         ^
    "#);
    let many: Vec<String> = (0..30).map(|n| format!("unknown{n}: x\n")).collect();
    let many = many.concat();
    assert!(
        bad(&many).ends_with("and 10 more problems"),
        "{}",
        bad(&many)
    );
}

#[test]
fn what_speaks_against_uv_is_shown_if_it_is_the_installer() {
    let against = |text: &str| {
        let buildfile = good(text);
        assert_eq!(
            buildfile.installer(Some(Installer::Pip)).unwrap(),
            Installer::Pip
        );
        buildfile.installer(None).unwrap_err().to_string()
    };
    let mapping = "installer: uv\npip-config:\n  global:\n    Index_URL: https://a\n    prefer-binary: 1\n    target:\n  \
                   install:\n    user: 1\n  search:\n    index: b\n";
    assert_snapshot!(against(mapping), @r#"
    build.yaml:5:5: uv has nothing like pip's setting `prefer-binary`
      5 |     prefer-binary: 1
        |     ^^^^^^^^^^^^^
      hint: remove it, or write `installer: pip`, which goes by it
    build.yaml:8:5: uv has nothing like pip's setting `user`
      8 |     user: 1
        |     ^^^^
      hint: remove it, or write `installer: pip`, which goes by it
    "#);
    let text = "pip-config: |\n  [global]\n  timeout = 5\n  # target = x\n  root = /x\n    y = 1\ninstaller: uv\n";
    assert_snapshot!(against(text), @r#"
    build.yaml:5:3: uv has nothing like pip's setting `root`
      5 |   root = /x
        |   ^^^^^^^^^
      hint: remove it, or write `installer: pip`, which goes by it
    "#);
    assert_snapshot!(bad("installer: poetry\n"), @r#"
    build.yaml:1:12: `installer` must be `pip` or `uv`
      1 | installer: poetry
        |            ^^^^^^
    "#);
    assert_eq!(
        good("python: 3.11\n").installer(None).unwrap(),
        Installer::Pip
    );
}
