//! The schema and the decoder: what the decoder accepts, the schema accepts; what has the wrong shape, both refuse. The
//! law about that is in `shapes`.

use std::sync::LazyLock;

use boon::{Compiler, SchemaIndex, Schemas};
use regex::Captures;
use serde_json::{Value as Json, json};

use super::*;
use crate::buildfile::decode::{JOBFILES, KEYS};
use crate::buildfile::{json as read, schema};
use crate::net::PROXY_VARIABLES;

static SCHEMA: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("schema.json", schema()).unwrap();
    // The draft's own schema has to accept it as well.
    let index = compiler.compile("schema.json", &mut schemas);
    (schemas, index.unwrap_or_else(|error| panic!("{error:#}")))
});

/// Whether the schema accepts a document.
pub(super) fn accepts(document: &Json) -> Result<(), String> {
    let (schemas, index) = &*SCHEMA;
    let verdict = schemas.validate(document, *index);
    verdict.map_err(|error| format!("{error}\n{document:#}"))
}

/// A text as editors read it: with the types of YAML 1.1, and with those of 1.2.
fn readings(text: &str) -> Vec<Json> {
    let core: Result<serde_yaml::Value, _> = serde_yaml::from_str(text);
    let core = core.ok().and_then(|mut value| {
        value.apply_merge().ok()?;
        serde_json::to_value(value).ok()
    });
    read("x", text).ok().into_iter().chain(core).collect()
}

/// Holds that the schema accepts a text that the decoder accepts.
pub(super) fn agrees(text: &str) {
    for document in readings(text) {
        accepts(&document).unwrap_or_else(|error| panic!("{text}\n{error}"));
    }
}

#[test]
fn every_key_is_explained() {
    fn visit(schema: &Json, path: &str, count: &mut usize) {
        for (name, value) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if !value.is_boolean() {
                let words = value["description"].as_str().unwrap_or_default();
                assert!(words.ends_with('.'), "{path}: {words}");
                assert!(!words.contains("  "), "{path}: {words}");
                *count += 1;
            }
            visit(value, &path, count);
        }
        let inner = ["additionalProperties", "items"].map(|inner| schema.get(inner));
        for schema in inner.into_iter().flatten() {
            visit(schema, path, count);
        }
    }
    let mut count = 0;
    visit(&schema(), "", &mut count);
    let tables = KEYS.len() + JOBFILES.len() + PROXY_VARIABLES.len();
    assert!(count > tables, "{count}");
}

#[test]
fn what_an_editor_offers_is_right() {
    let schema = schema();
    let mut offered = 0;
    for (name, value) in schema["properties"].as_object().unwrap() {
        let examples = value["examples"].as_array().into_iter().flatten();
        for example in examples.chain(value.get("default")) {
            let document = json!({ name: example });
            good(&document.to_string());
            accepts(&document).unwrap();
            offered += 1;
        }
    }
    assert!(offered > 5, "{offered}");
    let matches = &schema["properties"]["jobfiles"]["properties"]["match"]["default"];
    let [default] = &JobFiles::default().matches[..] else {
        panic!("there is one")
    };
    assert_eq!(matches, default.as_str());
}

/// Language servers hold it to the form of names, as if it were one.
#[test]
fn the_merge_key_may_stand_among_names() {
    let entry = json!({ "url": "x" });
    for document in [
        json!({ "env": { "<<": "x" }, "labels": { "<<": "x" } }),
        json!({ "pip-config": { "<<": entry }, "repositories": { "<<": entry } }),
    ] {
        accepts(&document).unwrap();
    }
}

/// All string literals of Rust code, in order, as they stand and as `format!` reads them.
fn literals(code: &str) -> Vec<String> {
    let token = Regex::new(
        r##"(?s)//[^\n]*|'(?:\\.[^']*|[^\\'])'|r#"(?<hashed>.*?)"#|r"(?<raw>[^"]*)"|"(?<plain>(?:[^"\\]|\\.)*)""##,
    );
    let escape = Regex::new(r"(?s)\\(?:\n\s*|u\{([0-9a-f]+)\}|x(..)|(.))").unwrap();
    let unescaped = |found: &Captures<'_>| {
        let code = found.get(1).or(found.get(2)).map(|code| code.as_str());
        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
        match found.get(3).map(|c| c.as_str()) {
            Some("n") => "\n".to_owned(),
            Some("t") => "\t".to_owned(),
            Some("r") => "\r".to_owned(),
            Some(other) => other.to_owned(),
            None => code.and_then(char::from_u32).into_iter().collect(),
        }
    };
    let literal = |found: Captures<'_>| {
        let raw = found.name("hashed").or(found.name("raw"));
        let plain = |text| escape.replace_all(text, unescaped).into_owned();
        raw.map(|text| text.as_str().to_owned())
            .or(found.name("plain").map(|text| plain(text.as_str())))
    };
    let texts: Vec<String> = token
        .unwrap()
        .captures_iter(code)
        .filter_map(literal)
        .collect();
    let formatted: Vec<String> = texts
        .iter()
        .filter(|text| text.contains("{{"))
        .map(|text| text.replace("{{", "{").replace("}}", "}"))
        .collect();
    texts.into_iter().chain(formatted).collect()
}

#[test]
fn literals_are_found() {
    let code = r#"f("a\"b\n\
        c", 'x', '"', r"\d"); // "not this"
        g::<'static>(r@"raw "text""@, '\'', "{{é\u{e9}}}")"#;
    let texts = ["a\"b\nc", "\\d", "raw \"text\"", "{{éé}}", "{éé}"];
    assert_eq!(literals(&code.replace('@', "#")), texts);
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Whatever text of the repository the decoder takes for a build file, so does the schema.
#[test]
fn the_build_files_of_the_repository_are_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("README.md")];
    for folder in ["tests", "testdata", "src/buildfile/tests"] {
        files(&root.join(folder), &mut paths);
    }
    let (mut taken, mut whole) = (0, 0);
    for path in paths {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let extension = path.extension().and_then(|name| name.to_str());
        let texts = match extension {
            Some("rs") => literals(&text),
            Some("md") => text.split("```yaml").skip(1).map(fenced).collect(),
            Some("yaml" | "yml") => vec![text],
            _ => continue,
        };
        for text in texts {
            let lookup = |_: &str| Some("x".to_owned());
            if !text.contains(':') {
                continue;
            }
            if BuildFile::parse("x", &text, &lookup).is_ok_and(|file| file.masked != "{}\n") {
                taken += 1;
                whole += usize::from(extension != Some("rs"));
                agrees(&text);
            }
        }
    }
    assert!(
        taken > 100 && whole >= 4,
        "{taken} and {whole} are build files"
    );
}

fn fenced(rest: &str) -> String {
    rest.split("```").next().unwrap_or_default().to_owned()
}

/// What neither may accept: wrong shapes, unknown keys, and texts that cannot mean anything.
const WRONG: [&str; 123] = [
    "- a",
    "just text",
    "5",
    "tags: x",
    "Tag: x",
    "tag: [x]",
    "tag: {x: y}",
    "tag: \"a\\nb\"",
    "python: three",
    "python: yes",
    "python: 3.11-slim",
    "python: '3.11.0.1'",
    "python: [3.11]",
    "python: {version: 3.11}",
    "base: [x]",
    "base: ''",
    "platform: linux",
    "platform: 64",
    "platform: on",
    "platform: linux/arm/v7/x",
    "env: [A]",
    "env: A=b",
    "env: {A: [b]}",
    "env: {A: {b: c}}",
    "env: {A B: x}",
    "env: {'': x}",
    "env: {A=B: x}",
    "env: {WORKSPACE: /x}",
    "env: {VIRTUAL_ENV: }",
    "files: a",
    "files: {a: b}",
    "files: ['']",
    "files: [~]",
    "files: [[a]]",
    "files: [{}]",
    "files: [{a: b, c: d}]",
    "files: [{a: }]",
    "files: [{a: ''}]",
    "files: [{a: [b]}]",
    "files: [{a: {b: c}}]",
    "files: [{exclude: [a]}]",
    "files: [{path: a, exlude: [b]}]",
    "files: [{path: a, exclude: [[b]]}]",
    "files: [{path: [a]}]",
    "files: [{b: {path: a, exclude: {c: d}}}]",
    "files: [{b: {exclude: [a]}}]",
    "files: [{/a: b}]",
    "files: [{'': b}]",
    "files: [{installation: b}]",
    "packages: pyats",
    "packages: {pyats: 1.0}",
    "packages: [pyats: 1.0]",
    "packages: [[pyats]]",
    "packages: [a, ]\npackages2: []",
    "packages: [a, ~]",
    "pip-config: [global]",
    "pip-config: 5",
    "pip-config: {index-url: x}",
    "pip-config: {global: [x]}",
    "pip-config: {global: {a: {b: c}}}",
    "pip-config: {global: {a: [[b]]}}",
    "pip-config: {global: {a: [~]}}",
    "pip-config: {global: {a=b: c}}",
    "pip-config: {'a]b': {}}",
    "pip-config: {'': {}}",
    "installer: poetry",
    "layout: flat",
    "layout: [split]",
    "installer: UV",
    "installer: 5",
    "installer: [uv]",
    "repositories: [x]",
    "repositories: x",
    "repositories: {a: x}",
    "repositories: {a: }",
    "repositories: {a: [x]}",
    "repositories: {a: {}}",
    "repositories: {a: {url: }}",
    "repositories: {a: {url: ''}}",
    "repositories: {a: {url: [x]}}",
    "repositories: {/a: {url: x}}",
    "repositories: {installation: {url: x}}",
    "repositories: {a: {url: x, branch: y}}",
    "repositories: {a: {url: x, commit_id: [y]}}",
    "repositories: {a: {url: x, requirements_file: 1}}",
    "repositories: {a: {url: x, requirements_file: maybe}}",
    "repositories: {a: {url: x, requirements_file: ''}}",
    "repositories: {a: {url: x, GIT_SSL_NO_VERIFY: [true]}}",
    "repositories: {a: {url: x, git_ssl_no_verify: true}}",
    "repositories: {a: {url: x, ssh_key: [y]}}",
    "repositories: {a: {url: x, credentials: me}}",
    "repositories: {a: {url: x, credentials: {username: me}}}",
    "repositories: {a: {url: x, credentials: {username: me, password: }}}",
    "repositories: {a: {url: x, credentials: {username: [me], password: x}}}",
    "repositories: {a: {url: x, credentials: {username: a, password: b, token: c}}}",
    "snapshot: [x]",
    "snapshot: ''",
    "proxy: http://proxy:3128",
    "proxy: {PROXY: x}",
    "proxy: {Http_Proxy: x}",
    "proxy: {HTTP_PROXY: [x]}",
    "cmds: RUN x",
    "cmds: [RUN x]",
    "cmds: {before: RUN x}",
    "cmds: {pre: [RUN x]}",
    "cmds: {pre: 5}",
    "jobfiles: [x]",
    "jobfiles: {paths: {a: b}}",
    "jobfiles: {match: [[x]]}",
    "jobfiles: {glob: {}}",
    "labels: [x]",
    "labels: {a b: c}",
    "labels: {a=b: c}",
    "labels: {'': c}",
    "labels: {a: [b]}",
    "annotations: x",
    "annotations: {a: {b: c}}",
    "system-packages: git",
    "system-packages: {git: }",
    "system-packages: [Git]",
    "system-packages: ['a b']",
    "system-packages: [a/b]",
    "system-packages: [[git]]",
];

#[test]
fn wrong_build_files_are_refused_by_both() {
    for text in WRONG {
        bad(text);
        let documents = readings(text);
        assert!(!documents.is_empty(), "{text}");
        for document in documents {
            assert!(accepts(&document).is_err(), "{text}");
        }
    }
}

#[test]
fn odd_build_files_are_accepted_by_both() {
    // `good` asks both.
    for text in [
        "tag: 5\nsnapshot: 1.5\nbase: on",
        "tag: ' x '\npython: \" 3.11\\n\"\nplatform: ' linux/amd64 '\ninstaller: \" uv\\n\"",
        "tag: |\n  x\npackages:\n  - |\n    pyats\n  - \"\\n \\u2003\\npyats\\u0085\\u2028\"\n",
        "tag: '%ENV{NAME}'\npython: 3.%ENV{NINE}\nplatform: linux/%ENV{NAME}\ninstaller: '%ENV{PIP}'",
        "env: {yes: 1, 'A%ENV{ NINE }': x, null: y, ON: }\nlabels: {1.10: x, '%ENV{NAME}': y, ~: z}",
        "files: [1, 2.5: 3, '%ENV{NAME}/x': y, x/.y: no, {path: 8, exclude: [2, ' ']}, {exclude: {path: 7}}]\npackages: [1, true]\nsystem-packages: [7, ' git ', '%ENV{NAME}', g++-x.y:i386=1:2~3]",
        "pip-config: {global: {a: [1, true, ''], b: 1.5, c: '', '%ENV{NAME}': }, other: }",
        "repositories: {1: {url: 2, commit_id: 1234567, requirements_file: YES, GIT_SSL_NO_VERIFY: oFF, credentials: }}",
        "repositories: {'%ENV{NAME}': {url: x, requirements_file: '%ENV{YES}', credentials: {username: 1, password: ''}}}",
        "proxy: {NO_PROXY: 10, http_proxy: '', HTTP_PROXY: }\ncmds: {pre: , post: ''}",
        "jobfiles: {paths: 5, match: x, glob: [1, x]}",
        "labels: &a {x: 1}\nannotations: {<<: *a, y: 2}\nenv: {<<: [*a, {B: 2}]}",
        "system-packages:\njobfiles:\n  match:\n",
    ] {
        let lookup = |name: &str| match name {
            "NINE" => Some("9".to_owned()),
            "PIP" => Some("pip".to_owned()),
            "YES" => Some("yes".to_owned()),
            other => variables(other),
        };
        BuildFile::parse("x", text, &lookup).unwrap_or_else(|error| panic!("{error}"));
        agrees(text);
    }
}
