//! `schema`, judged by `check-jsonschema` from PyPI: another reader of schemas, of YAML and of regular expressions.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use serde_json::Value;

use crate::seed::{OTHERS, WHOLE};
use crate::support::{Bench, have, repository, succeed};

#[test]
fn another_program_goes_by_it() {
    if !have(&["python3"]) {
        return;
    }
    let bench = Bench::current();
    let run = bench.run(["schema"]);
    let text = run.stdout().to_owned();
    assert!(text.starts_with("{\n") && text.ends_with("}\n"), "{text}");
    let schema: Value = serde_json::from_str(&text).expect("it is JSON");
    let draft = "http://json-schema.org/draft-07/schema#";
    assert_eq!(schema["$schema"], draft);
    assert!(schema["title"].is_string());
    let schema = bench.write("schema.json", text);

    let program = check_jsonschema(bench.root());
    let check = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.env("HOME", bench.root()).args(arguments);
        let output = command.output().expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.code(), said)
    };
    let path = |path: &Path| path.display().to_string();
    let schema = path(&schema);
    // The schema itself, by the draft's.
    let (status, said) = check(&["--check-metaschema", &schema]);
    assert_eq!(status, Some(0), "{said}");

    let root = repository();
    let readme = fs::read_to_string(root.join("README.md")).expect("it is there");
    let examples = readme.split("\n```yaml\n").skip(1);
    let examples = examples.filter_map(|rest| rest.split("\n```").next());
    let texts: Vec<&str> = examples.chain(OTHERS).chain([WHOLE]).collect();
    assert!(texts.len() > 7, "{texts:?}");
    let mut files = vec![
        path(&root.join("testdata/quickstart/build.yaml")),
        path(&root.join("testdata/ci/image.yaml")),
    ];
    for (number, text) in texts.iter().enumerate() {
        files.push(path(&bench.write(&format!("good/{number}.yaml"), text)));
    }
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let (status, said) = check(&[&["--schemafile", &schema][..], &files].concat());
    assert_eq!(status, Some(0), "{said}");

    for (number, text) in WRONG.iter().enumerate() {
        let file = path(&bench.write(&format!("wrong/{number}.yaml"), text));
        let (status, said) = check(&["--schemafile", &schema, &file]);
        assert_eq!(status, Some(1), "{text}\n{said}");
        assert!(said.contains("Schema validation errors"), "{text}\n{said}");
    }
}

/// Build files that it must refuse.
const WRONG: [&str; 6] = [
    "- a\n",
    "pakages: [pyats]\n",
    "packages: pyats\n",
    "python: three\n",
    "env: {WORKSPACE: /x}\n",
    "repositories: {a: {commit_id: x}}\n",
];

/// The program, in a virtual environment below `folder`. It reads patterns as JavaScript does, and so as editors do.
fn check_jsonschema(folder: &Path) -> PathBuf {
    let venv = folder.join("venv");
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    let mut pip = Command::new(venv.join("bin/pip"));
    succeed(pip.args(["install", "-q", "check-jsonschema==0.39.0"]));
    venv.join("bin/check-jsonschema")
}
