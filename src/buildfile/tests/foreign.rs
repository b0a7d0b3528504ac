//! Files of other programs: snapshots, and YAML that becomes JSON.

use std::fmt::Write as _;

use insta::assert_snapshot;

use super::good;
use super::oracles::python;
use crate::buildfile::{Invalid, Snapshot, json};
use crate::error::Error;

const SNAPSHOT: &str = "
python: 3.10
packages:
  - pyats==26.9
  - suite @ https://me:PLANTED@example.com/suite.whl
  - '%ENV{NAME}'
repositories:
  suite:
    url: https://example.com/suite.git
    commit_id: 0123456789abcdef0123456789abcdef01234567
    branch: main
  lib/other: {url: 'git@example.com:other.git', credentials: {username: me, password: PLANTED}}
platform: {system: Linux}
";

fn snapshot(text: &str) -> Snapshot {
    Snapshot::parse("snapshot.yaml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(result: Result<Snapshot, Error>) -> String {
    let error = result.expect_err("it is no snapshot");
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

#[test]
fn a_snapshot_joins() {
    let mut buildfile = good(
        "packages: [mine]\nrepositories:\n  own: {url: /srv/own.git}\n  \
         suite: {url: 'https://me:PLANTED@example.com/suite.git', requirements_file: true, \
         commit_id: 0123456789abcdef0123456789abcdef01234567}\n",
    );
    buildfile.join(snapshot(SNAPSHOT)).unwrap();
    let packages = [
        "pyats==26.9",
        "suite @ https://me:PLANTED@example.com/suite.whl",
        "%ENV{NAME}",
    ];
    assert_eq!(buildfile.snapshot_packages, packages);
    assert_eq!(buildfile.packages, ["mine"]);
    let repositories = buildfile.repositories.iter();
    let repositories: Vec<_> = repositories
        .map(|one| (one.name.as_str(), one.requirements, one.commit.is_some()))
        .collect();
    let expected = [
        ("repositories.suite", true, true),
        ("snapshot.repositories.lib/other", false, false),
        ("repositories.own", false, false),
    ];
    assert_eq!(repositories, expected);
}

#[test]
fn the_copy_of_a_snapshot_is_masked() {
    assert_snapshot!(snapshot(SNAPSHOT).masked, @r#"
    python: "3.10"
    packages:
      - pyats==26.9
      - suite @ https://***@example.com/suite.whl
      - "%ENV{NAME}"
    repositories:
      suite:
        url: https://example.com/suite.git
        commit_id: "0123456789abcdef0123456789abcdef01234567"
        branch: main
      lib/other:
        url: git@example.com:other.git
        credentials:
          username: "***"
          password: "***"
    platform:
      system: Linux
    "#);
}

#[test]
fn repositories_that_differ_are_an_error() {
    let conflict = |entry: &str| {
        let mut buildfile = good(&format!("repositories: {{suite: {entry}}}"));
        let error = buildfile.join(snapshot(SNAPSHOT)).unwrap_err();
        format!("{error}\nhint: {}", error.hint().unwrap())
    };
    assert_snapshot!(
        conflict("{url: 'https://me:PLANTED@example.com/other.git', commit_id: v1}"),
        @"
    `suite` is `https://example.com/suite.git` at `0123456789abcdef0123456789abcdef01234567` in the snapshot, and `https://***@example.com/other.git` at `v1` in `repositories`
    hint: make both agree, or remove the repository from one of the files
    "
    );
    assert_snapshot!(conflict("{url: 'https://example.com/suite.git'}"), @"
    `suite` is `https://example.com/suite.git` at `0123456789abcdef0123456789abcdef01234567` in the snapshot, and `https://example.com/suite.git` without a `commit_id` in `repositories`
    hint: make both agree, or remove the repository from one of the files
    ");
}

#[test]
fn what_is_no_snapshot_is_refused() {
    let parse = |text: &str| refused(Snapshot::parse("snapshot.yaml", text));
    assert_snapshot!(parse("a: b\n"), @"
    snapshot.yaml:1:1: a snapshot has `packages` or `repositories`, and this file neither
      1 | a: b
        | ^
      hint: name a file that `pyats environment snapshot` made
    ");
    assert_snapshot!(parse(""), @"
    snapshot.yaml:1:1: a snapshot must be a mapping, not nothing
      1 | 
        | ^
      hint: name a file that `pyats environment snapshot` made
    ");
    assert_snapshot!(parse("- a\n"), @"
    snapshot.yaml:1:1: a snapshot must be a mapping, not a list
      1 | - a
        | ^
      hint: name a file that `pyats environment snapshot` made
    ");
    assert_snapshot!(parse("just text"), @"
    snapshot.yaml:1:1: a snapshot must be a mapping, not text
      1 | just text
        | ^^^^^^^^^
      hint: name a file that `pyats environment snapshot` made
    ");
    assert_snapshot!(parse("packages: {a: 1.0}\n"), @"
    snapshot.yaml:1:11: `packages` must be a list, not a mapping
      1 | packages: {a: 1.0}
        |           ^
      hint: write `- ` in front of each item
    ");
    assert_snapshot!(parse("repositories: {a: {commit_id: x}}\n"), @"
    snapshot.yaml:1:16: `repositories.a` has no `url`
      1 | repositories: {a: {commit_id: x}}
        |                ^
      hint: name the repository: `url: …`
    ");
    assert_snapshot!(parse("repositories: {../a: {url: 'https://me:PLANTED@h/x'}}\n"), @"
    snapshot.yaml:1:16: the destination `../a` leaves its folder
      1 | repositories: {../a: {url: 'https://***@h/x'}}
        |                ^^^^
      hint: a destination stays inside the workspace: remove `..`
    ");
    assert_snapshot!(parse("packages: [a\n"), @"
    snapshot.yaml:2:1: invalid YAML: while parsing a flow sequence, expected ',' or ']'
      2 | 
        | ^
      hint: look for a missing colon, quote or bracket here or just above
    ");
    assert_snapshot!(parse(&"x".repeat(2 << 20)), @"
    `snapshot.yaml` is not a snapshot: it is larger than a mebibyte
    hint: name a file that `pyats environment snapshot` made
    ");

    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str| {
        let text = refused(Snapshot::load(&folder.path().join(name)));
        text.replace(folder.path().to_str().unwrap(), "…")
    };
    fs_err::write(folder.path().join("binary"), b"\x7fELF\xff\xfe").unwrap();
    assert_snapshot!(load("binary"), @"
    `…/binary` is not a snapshot: it is not UTF-8 text
    hint: name a file that `pyats environment snapshot` made
    ");
    assert_snapshot!(load("gone"), @"
    there is no snapshot `…/gone`
    hint: name a file that `pyats environment snapshot` made
    ");
    assert_snapshot!(load(""), @"
    the snapshot `…/` is a directory
    hint: name a file that `pyats environment snapshot` made
    ");
    fs_err::write(folder.path().join("good"), SNAPSHOT).unwrap();
    assert_eq!(
        Snapshot::load(&folder.path().join("good"))
            .unwrap()
            .packages
            .len(),
        3
    );
}

#[test]
fn foreign_yaml_has_the_types_that_pyyaml_gives_it() {
    let texts = [
        "a: [yes, No, ON, off, y, true, 'yes', \"no\", !!str yes]\n",
        "a: [~, null, Null, NULL, '', 'null', !!null x]\nb:\n",
        "a: [0, 7, -12, +3, 0755, 0o755, 08, 0x1F, -0x1f, 0b101, 1_000, 12:30, 190:20:30, -1:00, 1:60]\n",
        "a: [1.5, -.5, .5, 1., 1.5e+3, 1e3, 1.e+3, 6.8523015e+5, 685_230.15, 190:20:30.15, 1.2.3]\n",
        "a: [18446744073709551615, -9223372036854775808]\n",
        "yes: 1\n2: 2\n3.5: 3\n~: 4\n'5': 5\n",
        "a: {b: 1, b: 2}\na: {c: 3}\n",
        "x: &x {a: b, c: d}\ny: {<<: *x, c: e}\nz: {c: f, <<: [*x, {a: g, h: i}]}\nw: [*x, *x]\n",
        "a: |\n  x\n  y\nb: >\n  x\n  y\nc: \"\\u00e9\\n\"\n",
        "a: '%ENV{NAME}'\nb: %ENV{NAME\n",
        "- a\n- [b, {c: d}]\n",
        "just text\n",
        "",
        "# nothing\n",
        "\u{feff}a: b\n",
        "--- \na: b\n...\n",
    ];
    let program = "import sys, json, yaml\nfor line in sys.stdin:\n    text, value = json.loads(line)\n    \
                   try: got = json.loads(json.dumps(yaml.safe_load(text)))\n    \
                   except yaml.YAMLError: got = 'not valid'\n    \
                   if got != value: print(repr(text), got, value)\n";
    let lines: Vec<String> = texts
        .iter()
        .map(|text| {
            let value = json("x", text).unwrap_or_else(|_| "not valid".into());
            serde_json::json!([text, value]).to_string() + "\n"
        })
        .collect();
    if let Some(differences) = python("yaml", program, &lines.concat()) {
        assert_eq!(differences, "");
    }
}

#[test]
fn what_json_has_no_form_for_stays_text() {
    for text in [
        "2026-01-02",
        "2026-01-02T03:04:05Z",
        ".inf",
        "-.Inf",
        ".nan",
        "18446744073709551616",
        "0b_",
        "=",
    ] {
        assert_eq!(json("x", &format!("a: {text}")).unwrap()["a"], text);
    }
}

#[test]
fn hostile_yaml_costs_little() {
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (before, name) in ('a'..='i').zip('b'..='j') {
        let aliases = vec![format!("*{before}"); 6].join(",");
        writeln!(bomb, "{name}: &{name} [{aliases}]").unwrap();
    }
    for text in [
        bomb,
        "[".repeat(100_000),
        "a: b\n---\nc: d\n".to_owned(),
        "!x a".to_owned(),
    ] {
        let error = json("x", &text).unwrap_err();
        assert!(error.find::<Invalid>().is_some(), "{error}");
    }
    let long = "x".repeat(2 << 20);
    let error = json("x", &long).unwrap_err();
    assert!(error.to_string().contains("is larger than"), "{error}");
}
