//! A law: of documents of any shape the schema and the decoder say the same.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value as Json, json};

use super::schema::accepts;
use super::*;
use crate::buildfile::decode::{JOBFILES, KEYS};
use crate::buildfile::json as read;
use crate::net::PROXY_VARIABLES;

/// Values of each key that both accept; the order is that of the messages.
fn values(key: &str) -> Vec<Json> {
    match key {
        "tag" | "base" | "snapshot" => vec![json!("a"), json!(5), json!(true)],
        "python" => vec![json!(3.11), json!("3")],
        "platform" => vec![json!("linux/amd64")],
        "env" => vec![
            json!({ "A": "b", "C": 1, "D": null }),
            json!({ "WORK": "${A}" }),
        ],
        "files" => vec![
            json!(["a", { "b": "c" }, 5]),
            json!([{ "d/e": true }]),
            json!([{ "path": "a", "exclude": ["b", 1] }, { "f": { "path": "g", "exclude": null } }, { "path": 1 }]),
        ],
        "packages" => vec![json!(["a", 1]), json!(["b"])],
        "pip-config" => vec![
            json!({ "global": { "a": "b", "c": ["d", 1], "e": null }, "f": null }),
            json!("[global]\na = b\n"),
        ],
        "installer" => vec![json!("pip"), json!("uv")],
        "layout" => vec![json!("split"), json!("pyats")],
        "repositories" => vec![
            json!({ "r": { "url": "https://host/r" }, "s": { "url": "t", "commit_id": 1 } }),
            json!({ "u": {
                "url": "v", "commit_id": "w", "requirements_file": true, "ssh_key": "x",
                "credentials": { "username": "y", "password": 0 }, "GIT_SSL_NO_VERIFY": "no",
            } }),
        ],
        "proxy" => vec![json!({ "HTTP_PROXY": "a", "no_proxy": null })],
        "cmds" => vec![
            json!({ "pre": "RUN a", "post": null }),
            json!({ "post": "USER b" }),
        ],
        "jobfiles" => vec![
            json!({ "paths": "a", "match": ["b", 5], "glob": null }),
            json!({ "glob": ["c"], "paths": [true] }),
        ],
        "labels" | "annotations" => vec![json!({ "a": "b", "c": null, "d": 1.5 })],
        "system-packages" => vec![json!(["git", 7]), json!([])],
        _ => unreachable!("`KEYS` has no other"),
    }
}

/// A build file that both accept.
fn document() -> impl Strategy<Value = Json> {
    let pair = |key: &'static str| {
        let value = prop::option::weighted(
            0.3,
            prop_oneof![4 => select(values(key)), 1 => Just(Json::Null)],
        );
        value.prop_map(move |value| Some((key.to_owned(), value?)))
    };
    let pairs: Vec<_> = KEYS.into_iter().map(pair).collect();
    pairs.prop_map(|pairs| Json::Object(pairs.into_iter().flatten().collect()))
}

fn leaf() -> impl Strategy<Value = Json> {
    select(vec![
        json!(null),
        json!(""),
        json!(" "),
        json!("a"),
        json!("yes"),
        json!(true),
        json!(5),
        json!(1.5),
        json!("linux/amd64"),
        json!("RUN a"),
        json!("pip"),
        json!("pyats"),
    ])
}

/// Anything, and what stands elsewhere in build files.
fn anything() -> impl Strategy<Value = Json> {
    let known = select(KEYS.to_vec()).prop_flat_map(|key| select(values(key)));
    prop_oneof![leaf(), known].prop_recursive(2, 6, 3, |inner| {
        let pairs = prop::collection::btree_map(name(), inner.clone(), 0..3);
        prop_oneof![
            prop::collection::vec(inner, 0..3).prop_map(Json::Array),
            pairs.prop_map(|pairs| Json::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A key of any table, or of none.
fn name() -> impl Strategy<Value = String> {
    let tables = [
        "url",
        "commit_id",
        "credentials",
        "username",
        "pre",
        "a",
        "A",
        "unknown",
    ];
    let tables = [&KEYS[..], &JOBFILES, &PROXY_VARIABLES, &tables].concat();
    select(tables).prop_map(str::to_owned)
}

/// What is done to one place of a document.
#[derive(Debug, Clone)]
enum Change {
    Replace(Json),
    Wrap,
    Remove,
    Add(String, Json),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => leaf().prop_map(Change::Replace),
        3 => anything().prop_map(Change::Replace),
        1 => Just(Change::Wrap),
        2 => Just(Change::Remove),
        2 => (name(), anything()).prop_map(|(name, value)| Change::Add(name, value)),
    ]
}

impl Change {
    fn apply(self, document: &mut Json, place: Index) {
        let mut pointers = Vec::new();
        pointers_of(document, String::new(), &mut pointers);
        let pointer = place.get(&pointers).clone();
        let value = document.pointer_mut(&pointer).unwrap();
        match (self, value) {
            (Self::Replace(new), value) => *value = new,
            (Self::Wrap, value) => *value = json!([value.take()]),
            (Self::Add(name, new), Json::Object(pairs)) => {
                pairs.insert(name, new);
            }
            (Self::Add(_, new), Json::Array(items)) => items.push(new),
            (Self::Add(..), _) => {}
            (Self::Remove, _) => {
                let Some((above, last)) = pointer.rsplit_once('/') else {
                    return;
                };
                match document.pointer_mut(above) {
                    Some(Json::Object(pairs)) => {
                        pairs.remove(&last.replace("~1", "/"));
                    }
                    Some(Json::Array(items)) => {
                        items.remove(last.parse().unwrap());
                    }
                    _ => {}
                }
            }
        }
    }
}

fn pointers_of(value: &Json, path: String, found: &mut Vec<String>) {
    match value {
        Json::Array(items) => (0..).zip(items).for_each(|(at, item): (usize, _)| {
            pointers_of(item, format!("{path}/{at}"), found);
        }),
        Json::Object(pairs) => pairs.iter().for_each(|(name, value)| {
            let name = name.replace('/', "~1");
            pointers_of(value, format!("{path}/{name}"), found);
        }),
        _ => {}
    }
    found.push(path);
}

/// What the decoder says of shapes, and of the few texts that the schema knows as well.
const SHAPES: [&str; 13] = [
    "must be a",
    "must be text",
    "must be `true`",
    "must be `pip`",
    "must be `split`",
    "must be `os/",
    "must have one destination",
    "unknown key",
    "is empty",
    "has no `",
    "has several lines",
    "is not the name of a variable",
    "is not the name of a Debian package",
];

#[test]
fn values_are_accepted_by_both() {
    for key in KEYS {
        for value in values(key) {
            good(&json!({ key: value }).to_string());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn both_judge_shapes_alike(
        document in document(),
        changes in prop::collection::vec((change(), any::<Index>()), 0..4),
    ) {
        let mut document = document;
        for (change, place) in changes {
            change.apply(&mut document, place);
        }
        // JSON is YAML.
        let text = document.to_string();
        prop_assert_eq!(&read("x", &text).unwrap(), &document);
        let accepted = accepts(&document);
        match BuildFile::parse("x", &text, &|_| None) {
            Ok(_) => prop_assert!(accepted.is_ok(), "{}", accepted.unwrap_err()),
            Err(error) => {
                let invalid = error.find::<Invalid>();
                prop_assert!(invalid.is_some(), "{}", error);
                let problems = invalid.map(|Invalid(problems)| problems).into_iter().flatten();
                let of_shape = |problem: &Problem| SHAPES.iter().any(|words| problem.message.contains(words));
                let of_shape: Vec<_> = problems.filter(|problem| of_shape(problem)).collect();
                prop_assert!(of_shape.is_empty() || accepted.is_err(), "{:#}\n{:?}", document, of_shape);
            }
        }
    }
}
