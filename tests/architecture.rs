//! Reads the `crate::…` paths of `src/` and holds the dependency table ("one way only"): a stage never
//! imports a later stage, a shared module never imports a stage. Tests inside `src/` are exempt.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::support::repository;

/// The stages, in order: each may import those before it, and all that is shared.
const STAGES: [&str; 10] = [
    "dockerfile",
    "buildfile",
    "sources",
    "context",
    "base",
    "runner",
    "rootfs",
    "step",
    "image",
    "output",
];
/// Shared modules: each may import those after it, and no stage.
const SHARED: [&str; 13] = [
    "cache", "registry", "layer", "store", "manifest", "digest", "net", "files", "error",
    "progress", "secret", "confined", "mode",
];
/// These put the stages together, and may import everything.
const TOP: [&str; 14] = [
    "main", "cli", "commands", "report", "lib", "assemble", "access", "images", "push", "run",
    "doctor", "prune", "carry", "fuzz",
];
/// What is written in these files only; a folder ends with a slash.
const ONLY_IN: [(&str, &[&str]); 8] = [
    ("unsafe ", &["runner/sys.rs"]),
    ("\".wh.", &["layer/whiteout.rs"]),
    ("blobs/sha256", &["store/", "base/", "output/"]),
    ("clap::", &["cli.rs", "cli/", "main.rs"]),
    ("saphyr_parser", &["buildfile.rs", "buildfile/"]),
    ("serde_yaml", &["buildfile.rs", "buildfile/"]),
    ("async fn", &["registry/", "net/", "sources/http/"]),
    ("process::exit", &["main.rs", "runner/"]),
];

#[test]
fn modules_import_one_way_only() {
    let broken: Vec<_> = sources()
        .iter()
        .flat_map(|(file, code)| wrong_imports(file, code))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn some_things_are_written_in_one_place_only() {
    let mut broken = Vec::new();
    for (file, code) in sources() {
        for (text, places) in ONLY_IN {
            let allowed = places
                .iter()
                .any(|place| file == *place || (place.ends_with('/') && file.starts_with(place)));
            if !allowed && code.contains(text) {
                broken.push(format!(
                    "src/{file} has `{text}`, which belongs into {places:?}"
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_module_has_its_place_in_the_table() {
    // The Python package is none.
    for (file, _) in sources()
        .into_iter()
        .filter(|(file, _)| !file.starts_with("python/"))
    {
        let module = module_of(&file);
        let known = [&STAGES[..], &SHARED, &TOP].concat().contains(&module);
        assert!(
            known,
            "src/{file}: `{module}` is missing in the table of tests/architecture.rs"
        );
    }
}

#[test]
fn modules_are_not_part_of_the_api() {
    let root = read("lib.rs");
    for (at, _) in root.match_indices("pub mod ") {
        assert!(root[..at].ends_with("#[doc(hidden)]\n"), "{}", &root[at..]);
    }
}

/// What can be done to images the binary does by what everybody can use.
#[test]
fn the_binary_uses_the_api() {
    let code = read("commands/images.rs");
    let used: Vec<_> = uses(&code).collect();
    assert!(used.len() > 4, "{used:?}");
    for used in used {
        assert!(!used.contains("::"), "commands/images.rs uses `{used}`");
    }
    let beyond = "use pyats_image_builder::{find, store::Store};";
    assert!(uses(beyond).all(|used| used.contains("::")));
}

/// What is taken from the library: paths, and lists of them.
fn uses(code: &str) -> impl Iterator<Item = &str> {
    let paths = code.split("pyats_image_builder::").skip(1);
    paths.map(|rest| rest.split(['(', ';', '?']).next().unwrap_or_default())
}

#[test]
fn a_broken_rule_is_found() {
    let wrong = [
        ("store.rs", "use crate::base::Base;"),
        (
            "context/local.rs",
            "use crate::{buildfile::BuildFile, output};",
        ),
        ("runner/mod.rs", "fn f(_: crate::digest::Digest) {}"),
        (
            "digest.rs",
            "use crate::{\n    progress::Progress,\n    store::Store,\n};",
        ),
    ];
    for (file, code) in wrong {
        assert_eq!(wrong_imports(file, code).len(), 1, "{file}: {code}");
    }
    let fine = [
        ("store.rs", "use crate::digest::{self, Digest};"),
        (
            "output.rs",
            "use crate::{image::Image, layer, store::Store};",
        ),
        ("assemble.rs", "use crate::{base, output};"),
        (
            "runner/mod.rs",
            "use crate::runner::sys;\npub(crate) fn f() {}",
        ),
    ];
    for (file, code) in fine {
        assert_eq!(wrong_imports(file, code), [""; 0], "{file}: {code}");
    }
}

fn wrong_imports(file: &str, code: &str) -> Vec<String> {
    let from = module_of(file);
    let mut wrong: Vec<_> = imports(code)
        .into_iter()
        .filter(|to| !may_import(from, to))
        .collect();
    wrong.dedup();
    wrong
        .iter()
        .map(|to| format!("src/{file}: `{from}` must not import `{to}`"))
        .collect()
}

fn may_import(from: &str, to: &str) -> bool {
    let place = |table: &[&str], name: &str| table.iter().position(|entry| *entry == name);
    if from == to || TOP.contains(&from) {
        return true;
    }
    // It could be a crate of its own, with the modules that need nothing else.
    if from == "runner" {
        return ["confined", "mode", "secret"].contains(&to);
    }
    match (
        place(&STAGES, from),
        place(&STAGES, to),
        place(&SHARED, from),
        place(&SHARED, to),
    ) {
        (Some(stage), Some(other), ..) => other < stage,
        (Some(_), None, _, Some(_)) => true,
        (None, None, Some(shared), Some(other)) => shared < other,
        _ => false,
    }
}

/// The modules right under `crate::`, of plain paths and of `crate::{…}` lists.
fn imports(code: &str) -> Vec<&str> {
    let name = |text: &str| {
        text.len()
            - text
                .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
                .len()
    };
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push(&rest[..name(rest)]);
            continue;
        };
        let (mut depth, mut start) = (0_i32, 0);
        for (end, c) in list.char_indices() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth < 0 || (depth == 0 && c == ',') {
                let entry = list[start..end].trim();
                found.push(&entry[..name(entry)]);
                start = end + 1;
            }
            if depth < 0 {
                break;
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// The module that a file belongs to: `layer/tar.rs` is part of `layer`.
fn module_of(file: &str) -> &str {
    file.split('/')
        .next()
        .unwrap_or(file)
        .trim_end_matches(".rs")
}

fn read(name: &str) -> String {
    let mut files = sources().into_iter();
    files.find(|(file, _)| file == name).expect("it is there").1
}

/// Every file of `src/` without comments and tests.
fn sources() -> Vec<(String, String)> {
    let root = repository().join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 10, "src/ was not read");
    files
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("sources are text");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let name = path
                .strip_prefix(&root)
                .expect("it is below")
                .to_string_lossy()
                .into_owned();
            (name, lines.collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src/ is there") {
        let path = entry.expect("readable").path();
        let test = path.file_stem().is_some_and(|stem| stem == "tests");
        match path.is_dir() {
            _ if test => {}
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}
