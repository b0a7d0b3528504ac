use insta::assert_snapshot;
use proptest::prelude::*;

use super::print::{Yaml, print};
use super::*;

fn variables(name: &str) -> Option<String> {
    match name {
        "NAME" => Some("value".to_owned()),
        "TOKEN" => Some("PLANTED".to_owned()),
        "LINES" => Some("one\ntwo: [".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<BuildFile, Error> {
    BuildFile::parse("build.yaml", text, &variables)
}

fn good(text: &str) -> BuildFile {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn bad(text: &str) -> String {
    match parse(text) {
        Ok(buildfile) => panic!("{text}\nis taken for {buildfile:?}"),
        Err(error) => error.to_string(),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn every_key_is_read() {
    let buildfile = good(
        r#"
tag: "registry.example.com:5000/team/image:1.0"
python: 3.10
base: oci:./base:latest
platform: linux/arm64
env:
  DEBUG: yes
  OCTAL: 0755
  EMPTY:
  PYTHONPATH: ${WORKSPACE}/a:${PYTHONPATH:-x}
files:
  - /path/to/file1
  - myfile_2: ~/file2
  - ./dir/./file3: "c d"
packages: [ "pyats[full]", other==1.0 ]
pip-config:
  global:
    format: columns
    no-cache-dir: false
    trusted-host:
      - pypi.python.org
      - example.com
repositories: {}
snapshot:
proxy: {}
cmds:
  pre:
  post: ""
jobfiles:
  paths: [a/job.py]
  match: ".*test.*"
  glob:
    - "*.job"
labels: { org.example.one: 1.10 }
annotations: { b: x, a: }
system-packages: []
"#,
    );
    assert_eq!(
        buildfile.tag.as_deref(),
        Some("registry.example.com:5000/team/image:1.0")
    );
    assert_eq!(buildfile.python.as_deref(), Some("3.10"));
    assert_eq!(buildfile.base.as_deref(), Some("oci:./base:latest"));
    assert_eq!(
        buildfile
            .platform
            .map(|platform| platform.to_string())
            .as_deref(),
        Some("linux/arm64")
    );
    let env = [
        ("DEBUG", "yes"),
        ("OCTAL", "0755"),
        ("EMPTY", ""),
        ("PYTHONPATH", "${WORKSPACE}/a:${PYTHONPATH:-x}"),
    ];
    assert_eq!(buildfile.env, pairs(&env));
    let entry = |at: usize, destination: Option<&str>, source: &str| FileEntry {
        destination: destination.map(str::to_owned),
        source: source.to_owned(),
        name: format!("files[{at}]"),
    };
    let files = [
        entry(0, None, "/path/to/file1"),
        entry(1, Some("myfile_2"), "~/file2"),
        entry(2, Some("dir/file3"), "c d"),
    ];
    assert_eq!(buildfile.files, files);
    assert_eq!(buildfile.packages, ["pyats[full]", "other==1.0"]);
    assert_eq!(
        buildfile.pip_config.as_deref(),
        Some(
            "[global]\nformat = columns\nno-cache-dir = false\n\
             trusted-host = pypi.python.org\n    example.com\n"
        )
    );
    assert_eq!(buildfile.jobfiles.paths, ["a/job.py"]);
    assert_eq!(buildfile.jobfiles.globs, ["*.job"]);
    assert!(buildfile.jobfiles.is_match("a_test_b") && !buildfile.jobfiles.is_match("a_job.py"));
    assert_eq!(buildfile.labels, pairs(&[("org.example.one", "1.10")]));
    assert_eq!(buildfile.annotations, pairs(&[("b", "x"), ("a", "")]));
}

#[test]
fn nothing_is_required() {
    for text in [
        "",
        "# only a comment\n",
        "{}",
        "---\n...\n",
        "\u{feff}",
        "tag:\npackages: ~\nenv: null\n",
    ] {
        let buildfile = good(text);
        assert!(
            buildfile.tag.is_none() && buildfile.packages.is_empty() && buildfile.env.is_empty()
        );
        assert!(buildfile.jobfiles.is_match("my_job_1.py") && !buildfile.jobfiles.is_match("x.py"));
    }
    assert_eq!(good("").masked, "{}\n");
    assert_eq!(
        good("\u{feff}tag: a\r\npython: 3\r\n").python.as_deref(),
        Some("3")
    );
}

#[test]
fn patterns_match_names_from_their_beginning() {
    let jobfiles = good("jobfiles: {match: [job]}").jobfiles;
    assert!(jobfiles.is_match("job.py") && !jobfiles.is_match("myjob.py"));
    assert!(good("jobfiles: {match: []}").jobfiles.matches.is_empty());
}

#[test]
fn anchors_and_merge_keys_work_as_in_pyyaml() {
    let buildfile = good(
        "labels: &a {x: 1, y: 2}\nannotations: &b {y: 3, z: 4}\n\
         env: {z: 0, <<: [*a, *b], own: &t text}\npackages: [*t]\n",
    );
    // What `list(yaml.safe_load(…)["env"].items())` gives.
    assert_eq!(
        buildfile.env,
        pairs(&[("y", "2"), ("z", "0"), ("x", "1"), ("own", "text")])
    );
    assert_eq!(buildfile.packages, ["text"]);
    assert_eq!(good("labels: {\"<<\": a}").labels, pairs(&[("<<", "a")]));
}

#[test]
fn variables_are_replaced_everywhere() {
    let buildfile = good(
        "tag: '%ENV{NAME}:1'\nfiles: [{'%ENV{NAME}/x': '%ENV{ NAME }/y'}]\n\
         env: {A: 'a%ENV{LINES}'}\npackages: ['%ENV{NAME}']\n",
    );
    assert_eq!(buildfile.tag.as_deref(), Some("value:1"));
    assert_eq!(buildfile.files[0].destination.as_deref(), Some("value/x"));
    assert_eq!(buildfile.files[0].source, "value/y");
    assert_eq!(buildfile.env, pairs(&[("A", "aone\ntwo: [")]));
    assert_eq!(buildfile.packages, ["value"]);
    assert_snapshot!(buildfile.masked, @r#"
    tag: "***:1"
    files:
      - "***/x": "***/y"
    env:
      A: a***
    packages:
      - "***"
    "#);
}

#[test]
fn pip_text_is_kept() {
    let text =
        "[global]\nformat = columns\ntrusted-host = a\n        b\n\n# note\n[search]\nindex: x\n";
    let yaml = format!("pip-config: |\n  {}", text.replace('\n', "\n  "));
    assert_eq!(good(&yaml).pip_config.as_deref(), Some(text));
    assert_eq!(good("pip-config: ''").pip_config, None);
}

#[test]
fn the_masked_file_keeps_texts_and_no_secret() {
    let buildfile = good(
        r#"
# a comment
python: 3.10
env:
  DEBUG: yes
  TIME: 12:30:45
  URL: https://user:PLANTED@host/x
  TOKEN: shown
  HTTPS_PROXY: user:PLANTED@proxy:3128
  TEXT: |
    one
      two

  EMPTY:
  STRING: ""
packages:
  - --index-url https://user:PLANTED@host/simple
  - a @ https://PLANTED@host/a.whl
  - b @ git+ssh://git@host/b.git@v1
  - https://${USER}:${TOKEN}@host/c.whl
  - '%ENV{TOKEN}x'
pip-config:
  global:
    index-url: https://u:PLANTED@host
    proxy: u:PLANTED@host:1
    password: PLANTED
"#,
    );
    assert_snapshot!(buildfile.masked, @r#"
    python: "3.10"
    env:
      DEBUG: "yes"
      TIME: "12:30:45"
      URL: https://***@host/x
      TOKEN: shown
      HTTPS_PROXY: "***@proxy:3128"
      TEXT: |
        one
          two
      EMPTY: null
      STRING: ""
    packages:
      - "--index-url https://***@host/simple"
      - a @ https://***@host/a.whl
      - b @ git+ssh://git@host/b.git@v1
      - https://${USER}:${TOKEN}@host/c.whl
      - "***x"
    pip-config:
      global:
        index-url: https://***@host
        proxy: "***@host:1"
        password: "***"
    "#);
    let text = good(
        "pip-config: |\n  [global]\n  index-url = https://u:PLANTED@h/\n  password: PLANTED\n    PLANTED\n  \
         proxy=u:PLANTED@h:1\n  format = columns\n",
    );
    assert_snapshot!(text.masked, @r#"
    pip-config: |
      [global]
      index-url = https://***@h/
      password: ***
        ***
      proxy=***@h:1
      format = columns
    "#);
}

#[test]
fn credentials_of_repositories_are_masked() {
    let text = "repositories:\n  a/credentials:\n    url: https://u:PLANTED@h/r.git\n    \
                ssh_key: |\n      PLANTED\n      PLANTED\n    credentials: {username: PLANTED, password: PLANTED}\n\
                proxy:\n  HTTP_PROXY: u:PLANTED@h:1\n";
    let mut problems = Problems::new("build.yaml", text);
    let root = node::parse(text, &variables, &mut problems).unwrap();
    assert_snapshot!(mask::masked(&root), @r#"
    repositories:
      a/credentials:
        url: https://***@h/r.git
        ssh_key: "***"
        credentials:
          username: "***"
          password: "***"
    proxy:
      HTTP_PROXY: "***@h:1"
    "#);
}

/// Every rule with the words that a person gets.
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
      hint: the keys here are `tag`, `python`, `base`, `platform`, `env`, `files`, `packages`, `pip-config`, `repositories`, `snapshot`, `proxy`, `cmds`, `jobfiles`, `labels`, `annotations`, `system-packages`
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
    assert_snapshot!(bad("packages:\n  - \n  - a: b\n  - ''\n  - \"a\\nb\"\n  - [x]\n"), @r#"
    build.yaml:2:5: `packages[0]` is empty
      2 |   -
        |     ^
    build.yaml:3:5: `packages[1]` must be text, not a mapping
      3 |   - a: b
        |     ^
      hint: put text that contains `: ` in quotes
    build.yaml:4:5: `packages[2]` is empty
      4 |   - ''
        |     ^^
    build.yaml:5:5: `packages[3]` has several lines
      5 |   - "a\nb"
        |     ^^^^^^
      hint: write each on a line of its own, as an item of the list
    build.yaml:6:5: `packages[4]` must be text, not a list
      6 |   - [x]
        |     ^
    "#);
    assert_snapshot!(bad("env:\n  1A: x\n  WORKSPACE: /x\n  B: [1]\n  C: ${B\n  D: ${B/x/y}\n"), @r#"
    build.yaml:2:3: `1A` is not the name of a variable
      2 |   1A: x
        |   ^^
      hint: use letters, digits and underscores, no digit first
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
    assert_snapshot!(bad("just text\n"), @r#"
    build.yaml:1:1: a build file must be a mapping, not text
      1 | just text
        | ^^^^^^^^^
      hint: write keys such as `python: 3.11` and `packages:`
    "#);
}

#[test]
fn problems_of_files_are_shown() {
    assert_snapshot!(bad("files:\n  - /abs: a\n  - ../b: b\n  - c//d: c\n  - d/: d\n  - .: e\n  - installation: f\n  - installation/x: f\n"), @r#"
    build.yaml:2:5: the destination `/abs` is absolute
      2 |   - /abs: a
        |     ^^^^
      hint: destinations are relative to the workspace
    build.yaml:3:5: the destination `../b` leaves its folder
      3 |   - ../b: b
        |     ^^^^
      hint: a destination stays inside the workspace: remove `..`
    build.yaml:4:5: the destination `c//d` has an empty part
      4 |   - c//d: c
        |     ^^^^
    build.yaml:5:5: the destination `d/` ends with `/`
      5 |   - d/: d
        |     ^^
      hint: name the file or folder itself, such as `folder/file`
    build.yaml:6:5: the destination `.` is the workspace
      6 |   - .: e
        |     ^
      hint: name the file or folder itself
    build.yaml:7:5: the destination `installation` is reserved for files of the build
      7 |   - installation: f
        |     ^^^^^^^^^^^^
      hint: choose another name: `- name: path`
    build.yaml:8:5: the destination `installation` is reserved for files of the build
      8 |   - installation/x: f
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
    assert_snapshot!(bad("files:\n  - {a: b, c: d}\n  - x:\n  -\n  - https://u:pw@host/f\n  - f: scp://host/f\n"), @r#"
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
    build.yaml:5:5: `https://` sources are not supported yet
      5 |   - https://***@host/f
        |     ^^^^^^^^^^^^^^^^^^
      hint: fetch the file first and name its local path
    build.yaml:6:8: `scp://` sources are not supported yet
      6 |   - f: scp://host/f
        |        ^^^^^^^^^^^^
      hint: fetch the file first and name its local path
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
      hint: a build file is one document: remove what follows `---`
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
      1 | tag: a�b
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
    build.yaml:4:5: `packages[1]` has several lines
      4 |     x
        |     ^
      hint: write each on a line of its own, as an item of the list
    build.yaml:5:5: the environment variable `OTHER` is not set
      5 |     %ENV{OTHER}
        |     ^^^^^^^^^^^
      hint: set it before building, such as `export OTHER=…`
    "#);
    // The value itself is nobody's business.
    assert_snapshot!(bad("python: '%ENV{TOKEN}'\npackages: ['%ENV{LINES}']\njobfiles: {match: '(%ENV{TOKEN}'}\n"), @r#"
    build.yaml:1:9: `python` must be a version
      1 | python: '%ENV{TOKEN}'
        |         ^^^^^^^^^^^^^
      hint: write digits and dots, such as `python: 3.11`; `base` chooses any other image
    build.yaml:2:12: `packages[0]` has several lines
      2 | packages: ['%ENV{LINES}']
        |            ^^^^^^^^^^^^^
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
    assert_snapshot!(bad("jobfiles:\n  match: ['(', '(?=a)b', '(a)\\1']\n  glob: /a\n  regex: x\n"), @r#"
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
    build.yaml:4:3: unknown key `regex`
      4 |   regex: x
        |   ^^^^^
      hint: the keys here are `paths`, `match`, `glob`
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
fn what_comes_later_is_refused_by_name() {
    assert_snapshot!(bad("repositories:\n  a:\n    url: x\nsnapshot: a.yaml\nproxy: {HTTP_PROXY: x}\ncmds: {pre: RUN x}\nsystem-packages: [git]\n"), @r#"
    build.yaml:1:1: `repositories` is not supported yet
      1 | repositories:
        | ^^^^^^^^^^^^
      hint: clone them first and name the folders in `files`
    build.yaml:4:1: `snapshot` is not supported yet
      4 | snapshot: a.yaml
        | ^^^^^^^^
      hint: list its packages in `packages`
    build.yaml:5:1: `proxy` is not supported yet
      5 | proxy: {HTTP_PROXY: x}
        | ^^^^^
      hint: set the proxy in the environment of the build
    build.yaml:6:1: `cmds` is not supported yet
      6 | cmds: {pre: RUN x}
        | ^^^^
      hint: use a `base` that was prepared this way
    build.yaml:7:1: `system-packages` is not supported yet
      7 | system-packages: [git]
        | ^^^^^^^^^^^^^^^
      hint: write `system-packages: []`, or use a `base` that has them
    "#);
    assert_snapshot!(bad("repositories:\n  /a:\n    commit_id: [x]\n    requirements_file: maybe\n    credentials: {user: x}\nproxy: {PROXY: x}\ncmds: RUN x\nsystem-packages: [Git, 'a b']\n"), @r#"
    build.yaml:1:1: `repositories` is not supported yet
      1 | repositories:
        | ^^^^^^^^^^^^
      hint: clone them first and name the folders in `files`
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
    build.yaml:5:19: unknown key `user`
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
    build.yaml:8:1: `system-packages` is not supported yet
      8 | system-packages: [Git, 'a b']
        | ^^^^^^^^^^^^^^^
      hint: write `system-packages: []`, or use a `base` that has them
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
        "files: ['https://PLANTED@host/x']\n",
        "files: [{'https://PLANTED@host': x}, {'https://PLANTED@host': x}]\n",
        "proxy: {HTTP_PROXY: 'http://u:PLANTED@h:1'}\n",
        "https://u:PLANTED@host: x\n",
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
    let many: String = (0..30).map(|n| format!("unknown{n}: x\n")).collect();
    assert!(
        bad(&many).ends_with("and 10 more problems"),
        "{}",
        bad(&many)
    );
}

#[test]
fn hostile_files_cost_little() {
    let bomb: String = (1..40)
        .map(|n| format!("  a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(9)))
        .collect();
    let texts = [
        format!("labels:\n  a0: &a0 [x]\n{bomb}"),
        "[".repeat(MAX_SIZE),
        "- ".repeat(MAX_SIZE / 2),
        "? ".repeat(MAX_SIZE / 2),
        "a: ".repeat(MAX_SIZE / 3),
        "{a: ".repeat(MAX_SIZE / 4),
        format!("packages: [{}]", "a,".repeat(MAX_SIZE / 2 - 10)),
        format!("packages: [{}]", "&a [".repeat(10_000)),
        "&a ".repeat(MAX_SIZE / 3),
        "\"".repeat(MAX_SIZE),
        format!("tag: {}", "%ENV{".repeat(MAX_SIZE / 6)),
    ];
    for text in texts {
        let start = std::time::Instant::now();
        let error = bad(&text);
        assert!(error.len() < 20_000, "{error}");
        assert!(
            start.elapsed().as_secs() < 10,
            "{} took {:?}",
            &text[..20],
            start.elapsed()
        );
    }
    let large = "#".repeat(MAX_SIZE + 1);
    assert!(matches!(parse(&large), Err(Error::TooLarge { .. })));
}

#[test]
fn files_are_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("build.yaml");
    let load = || BuildFile::load(&path);
    let show = |error: Error| {
        let text = format!("{error}\nhint: {}", error.hint().unwrap_or_default());
        text.replace(&folder.path().display().to_string(), "FOLDER")
    };
    assert_snapshot!(show(load().unwrap_err()), @r#"
    there is no build file `FOLDER/build.yaml`
    hint: name the YAML file that says what the image holds, or `-` for standard input
    "#);
    assert_snapshot!(show(BuildFile::load(folder.path()).unwrap_err()), @r#"
    the build file `FOLDER` is a directory
    hint: name the file in it, such as `FOLDER/build.yaml`
    "#);
    for (bytes, line, column, is_utf16) in [
        (&b"tag: a\npython: \xff\n"[..], 2, 9, false),
        (&b"\xff\xfet\0a\0g\0"[..], 1, 1, true),
    ] {
        fs::write(&path, bytes).unwrap();
        match load().unwrap_err() {
            Error::Encoding {
                line: l,
                column: c,
                utf16,
                ..
            } => assert_eq!((l, c, utf16), (line, column, is_utf16)),
            other => panic!("{other}"),
        }
    }
    fs::write(&path, vec![b'#'; MAX_SIZE + 1]).unwrap();
    assert!(matches!(load(), Err(Error::TooLarge { .. })));
    fs::write(&path, "python: 3.11\n").unwrap();
    assert_eq!(load().unwrap().python.as_deref(), Some("3.11"));
}

fn yaml() -> impl Strategy<Value = Yaml> {
    let text = prop_oneof![
        "\\PC{0,12}",
        "[a-zA-Z0-9 .:_+~#&*!|>'\"%@`,\\[\\]{}\n\t-]{0,20}",
        "(.|\n| |\r|\u{85}|\u{2028}|\u{feff}|\u{7f}|\u{9f}){0,8}",
        "yes|No|on|null|~|0755|1_000|12:30|2001-01-01|1e3|[.]inf|=|<<|---|[.]{3}|- a|a: b|a #b",
    ];
    let leaf = prop_oneof![
        Just(Yaml::Null),
        text.clone()
            .prop_filter("NUL", |text| !text.contains('\0'))
            .prop_map(Yaml::Text)
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        let key = "[a-z0-9]{1,3}|yes|<<|~|a b|1[.]0|\\PC{1,5}|[a-z]{190,210}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Yaml::List),
            prop::collection::btree_map(key, inner, 0..4)
                .prop_map(|pairs| Yaml::Mapping(pairs.into_iter().collect())),
        ]
    })
}

fn tree(node: &node::Node) -> Yaml {
    match &node.value {
        node::Value::Scalar(scalar) if scalar.null => Yaml::Null,
        node::Value::Scalar(scalar) => Yaml::Text(scalar.text.clone()),
        node::Value::Sequence(items) => Yaml::List(items.iter().map(tree).collect()),
        node::Value::Mapping(pairs) => Yaml::Mapping(
            pairs
                .iter()
                .map(|(key, value)| (key.key().to_owned(), tree(value)))
                .collect(),
        ),
    }
}

/// The same value as another YAML crate reads it.
fn foreign(yaml: &Yaml) -> serde_yaml::Value {
    match yaml {
        Yaml::Null => serde_yaml::Value::Null,
        Yaml::Text(text) => text.clone().into(),
        Yaml::List(items) => serde_yaml::Value::Sequence(items.iter().map(foreign).collect()),
        Yaml::Mapping(pairs) => serde_yaml::Value::Mapping(
            pairs
                .iter()
                .map(|(key, value)| (key.clone().into(), foreign(value)))
                .collect(),
        ),
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "([a-z]{1,4}: |\n|  |- |[\\[\\]{},&*!|>'\"%@#?:<~-]|\\PC|\t|\r){0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_text_is_read_or_refused_at_length(text in "(.|\n){0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn printed_yaml_reads_the_same(yaml in yaml()) {
        let text = print(&yaml);
        let mut problems = Problems::new("x", &text);
        let root = node::parse(&text, &|_| None, &mut problems);
        prop_assert!(root.is_some(), "{}\n{}", text, render(&problems.complete()));
        prop_assert_eq!(root.as_ref().map(tree), Some(yaml.clone()), "{}", text);
        let other: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        prop_assert_eq!(other, foreign(&yaml), "{}", text);
    }

    #[test]
    fn masked_files_hold_no_secret(
        user in "[a-z]{0,5}", tail in "[!$-.0-9;=A-Z_a-z~]{0,8}", host in "[a-z]{1,8}",
    ) {
        let secret = format!("{user}:PLANTED{tail}").replace('\'', "''");
        let text = format!(
            "env: {{A: 'x http://{secret}@{host}/'}}\npackages: ['--index-url https://{secret}@{host}']\n\
             pip-config: {{global: {{extra-index-url: ['https://{secret}@{host}', 'https://{secret}@{host}/x']}}}}\n\
             labels: {{L: '%ENV{{TOKEN}}'}}\nfiles: ['./https:/a']\n",
        );
        let buildfile = good(&text);
        prop_assert!(!buildfile.masked.contains("PLANTED"), "{}", buildfile.masked);
        prop_assert!(buildfile.pip_config.unwrap().contains("PLANTED"));
    }
}
