//! Laws, and other people's readers of the same text.

use proptest::prelude::*;

use super::*;
use crate::buildfile::print::{Yaml, print};

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
        let root = events::parse(&text, Dialect::BuildFile(&|_| None), &mut problems);
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

/// Runs Python's words over JSON lines, or says loudly why it cannot.
pub(super) fn python(import: &str, program: &str, input: &str) -> Option<String> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let there = Command::new("/usr/bin/python3")
        .args(["-c", &format!("import {import}")])
        .output();
    if !there.is_ok_and(|output| output.status.success()) {
        let required = std::env::var_os("REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(
            !required,
            "REQUIRE_ALL=1, but python3 with the module `{import}` is not installed"
        );
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("SKIPPED: python3 with the module `{import}` is not installed");
        }
        return None;
    }
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap())
}

fn json(yaml: &Yaml) -> serde_json::Value {
    match yaml {
        Yaml::Null => serde_json::Value::Null,
        Yaml::Text(text) => text.clone().into(),
        Yaml::List(items) => items.iter().map(json).collect(),
        Yaml::Mapping(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| (key.clone(), json(value)));
            serde_json::Value::Object(pairs.collect())
        }
    }
}

/// Random values, and those that YAML 1.1 takes for something else.
fn samples() -> Vec<Yaml> {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let texts = [
        "3.10",
        "yes",
        "No",
        "on",
        "y",
        "~",
        "null",
        "0755",
        "0x1F",
        "0b1",
        "1_000",
        "12:30:45",
        "1e3",
        ".inf",
        "2001-01-01",
        "=",
        "<<",
        "-",
        "- a",
        "a: b",
        "a #b",
        "#",
        "!x",
        "&x",
        "*x",
        "%x",
        "@x",
        "`x`",
        "|",
        ">",
        "",
        " ",
        " a",
        "a ",
        "a\n",
        "a\n\n",
        "\na",
        "a\n b",
        "a\tb\n",
        "\t",
        "a\r\nb",
        "é\u{1f600}",
        "\u{85}",
        "---",
        "...",
        "a,b",
        "[a",
        "{a",
        "a:",
        "?",
        "? a",
        "'a'",
        "\"a\"",
        "a\\nb",
        "***",
        "${A}",
        "${A} b\n  c\n",
        "a ---\n---\nb",
    ];
    let mut samples: Vec<Yaml> = texts
        .iter()
        .map(|text| Yaml::Text((*text).to_owned()))
        .collect();
    samples.push(Yaml::Mapping(
        texts
            .iter()
            .map(|text| ((*text).to_owned(), Yaml::Null))
            .collect(),
    ));
    samples.extend((0..500).map(|_| yaml().new_tree(&mut runner).unwrap().current()));
    samples
}

#[test]
fn pyyaml_reads_what_is_printed() {
    let program = "import sys, json, yaml\nfor line in sys.stdin:\n    text, value = json.loads(line)\n    \
                   got = yaml.safe_load(text)\n    if got != value: print(repr(text), got, value)\n";
    let lines: Vec<String> = samples()
        .iter()
        .map(|yaml| serde_json::json!([print(yaml), json(yaml)]).to_string() + "\n")
        .collect();
    if let Some(differences) = python("yaml", program, &lines.concat()) {
        assert_eq!(differences, "");
    }
}

/// Files whose texts `PyYAML` and this parser must read alike. They differ in one thing: a block that ends
/// the file without a line break has none for `PyYAML`, and gets one here.
#[test]
fn pyyaml_reads_the_same_from_files() {
    let texts = [
        "a: |\n  x\n   y\n\n  z\n\n\nb: >\n  x\n  y\n\n  z\n   w\nc: |-\n  x\nd: |+\n  x\n\n\ne: >-\n  x\n",
        "a: |\n  x\n  ",
        "a: |\n\n  x\n",
        "a: |2\n    x\n",
        "a: |\r\n  x\r\n  y\r\n",
        "a: x\n  y\n  z\nb: 'x\n  y'\nc: \"x\\\n  y\\tz \\u00e9\"\n",
        "a: {b: c, d: [e, f,], g: 'h'}\nb: [{c: d}, [e]]\n",
        "x: &x {a: b, c: d}\ny: {<<: *x, c: e}\nz: {c: f, <<: [*x, {a: g, h: i}]}\n",
        "a:\n- b\n- c: d\n  e: f\n-\n  - g\n",
        "? a\n: b\n",
        "a: b # c\nd: e#f\n",
        "\"a b\": c\n'd': e\n",
        "a: http://x:80/y?z#w\n",
        "%YAML 1.1\n---\na: b\n",
    ];
    let read = |text: &str| {
        let mut problems = Problems::new("x", text);
        let root = events::parse(text, Dialect::BuildFile(&|_| None), &mut problems);
        assert!(root.is_some(), "{text}\n{}", render(&problems.complete()));
        root.map(|root| json(&tree(&root)))
    };
    let program = "import sys, json, yaml\nfor line in sys.stdin:\n    text, value = json.loads(line)\n    \
                   got = yaml.load(text, yaml.BaseLoader) if '<<' not in text else yaml.safe_load(text)\n    \
                   if got != value: print(repr(text), got, value)\n";
    let lines: Vec<String> = texts
        .iter()
        .map(|text| serde_json::json!([text, read(text)]).to_string() + "\n")
        .collect();
    if let Some(differences) = python("yaml", program, &lines.concat()) {
        assert_eq!(differences, "");
    }
}

/// `configparser` is what pip reads its configuration with.
#[test]
fn python_reads_the_pip_config() {
    let buildfile = good(
        "pip-config:\n  global:\n    trusted-host: [a, b]\n    format: columns\n    text: |\n      x\n\n        y\n    \
         percent: 100%\n    empty: []\n    none:\n    hash: '#x'\n  search: {index: 'http://x'}\n  other:\n",
    );
    let program = "import sys, json, configparser\nc = configparser.RawConfigParser()\nc.read_string(sys.stdin.read())\n\
                   print(json.dumps({s: dict(c.items(s)) for s in c.sections()}))\n";
    if let Some(read) = python("configparser", program, &buildfile.pip_config.unwrap()) {
        let read: serde_json::Value = serde_json::from_str(&read).unwrap();
        let expected = serde_json::json!({
            "global": {
                "trusted-host": "a\nb", "format": "columns", "text": "x\ny", "percent": "100%", "empty": "", "hash": "#x",
            },
            "search": {"index": "http://x"},
        });
        assert_eq!(read, expected);
    }
}
