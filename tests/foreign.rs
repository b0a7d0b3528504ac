//! What registries, archives and steps write cannot drive a terminal, and cannot speak as the tool.

use std::io::Write as _;

use fs_err as fs;
use serde_json::{Value, json};

use crate::support::{Bench, Noise, Run, base_layout, noise};

/// A title for the window, a bell, lines as the tool has them, an escape sequence in one character, and characters that
/// turn or hide what follows.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\r\nerror: forged\n[   0.1s] warning: forged\n  caused by: forged\u{9b}2J\u{202e}\u{200b}\u{2028}";

/// Images that are refused with words of their own: what is hostile in each.
const IMAGES: [&str; 8] = [
    "the type of the config",
    "the type of a layer",
    "a digest",
    "the architecture",
    "a tag of the index",
    "a name of the archive",
    "a name in a layer",
    "the user",
];

#[test]
fn images_cannot_drive_a_terminal() {
    for what in IMAGES {
        let bench = Bench::current();
        let image = hostile(&bench, what);
        bench.write("build.yaml", "tag: x:1");
        let command = match what {
            "a name in a layer" | "the user" => vec!["run", &image, "/noise"],
            // Any may be inspected.
            "the architecture" => vec!["build.yaml", "--base", &image],
            _ => vec!["inspect", &image],
        };
        for mode in ["plain", "json", "tty"] {
            let run = bench.run([&["--progress", mode], &command[..]].concat());
            assert_ne!(run.status(), Some(0), "{what}");
            is_clean(run.stderr(), what);
            assert!(run.stderr().contains('␛'), "{what}: {}", run.stderr());
            // Of that `run` tells in the command's place.
            if mode == "json" && what != "the user" {
                let last = run.stderr().lines().last().expect("an event");
                let event: Value = serde_json::from_str(last).expect("JSON");
                let messages = [&event["message"]].into_iter();
                let causes = event["causes"].as_array().expect("a list");
                for text in messages.chain(causes) {
                    is_clean(text.as_str().expect("a text"), what);
                    assert!(!text.as_str().expect("a text").contains('\n'), "{what}");
                }
            }
        }
    }
}

/// Holds that a text has no character that a terminal takes for more than a letter, and no line of the tool's that
/// somebody else wrote.
fn is_clean(text: &str, what: &str) {
    let hidden = |c: &char| {
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || (c.is_control() && *c != '\n')
    };
    assert_eq!(text.chars().find(hidden), None, "{what}: {text:?}");
    for line in text.lines() {
        let is_forged = [
            "error: forged",
            "[   0.1s] warning: forged",
            "  caused by: forged",
        ]
        .iter()
        .any(|forged| line.starts_with(forged));
        assert!(!is_forged, "{what}: {text}");
    }
}

/// An image that has [`HOSTILE`] there.
fn hostile(bench: &Bench, what: &str) -> String {
    let made = noise(&bench.path("layout"), "x", &[(1, 10)]);
    let mut manifest: Value = serde_json::from_slice(&made.manifest).expect("made here");
    let mut image = made.image();
    match what {
        "the type of the config" => manifest["config"]["mediaType"] = HOSTILE.into(),
        "the type of a layer" => manifest["layers"][0]["mediaType"] = HOSTILE.into(),
        "a digest" => manifest["config"]["digest"] = format!("sha512:{HOSTILE}").into(),
        "the architecture" => {
            config(&made, &mut manifest, |config| {
                config["architecture"] = HOSTILE.into();
            });
        }
        "the user" => config(&made, &mut manifest, |config| {
            config["config"]["User"] = HOSTILE.into();
        }),
        "a name in a layer" => {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::new(b'S'));
            header.as_gnu_mut().expect("it is one").name[..HOSTILE.len()]
                .copy_from_slice(HOSTILE.as_bytes());
            header.set_size(0);
            header.set_mode(0o644);
            header.set_cksum();
            let layer = [header.as_bytes().as_slice(), &[0; 1024]].concat();
            let id = put(&made, &layer);
            manifest["layers"] = json!([{
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": id, "size": layer.len(),
            }]);
            config(&made, &mut manifest, |config| {
                config["rootfs"]["diff_ids"] = json!([id]);
            });
        }
        "a tag of the index" => {
            let index = made.layout.join("index.json");
            let text = fs::read_to_string(&index).expect("made here");
            let mut value: Value = serde_json::from_str(&text).expect("made here");
            value["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] =
                HOSTILE.into();
            fs::write(index, value.to_string()).expect("ours");
            image = format!("oci:{}:another", made.layout.display());
        }
        "a name of the archive" => {
            let mut archive = tar::Builder::new(Vec::new());
            let text = json!([{"Config": HOSTILE, "RepoTags": [HOSTILE], "Layers": [HOSTILE]}])
                .to_string();
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            let added = archive.append_data(&mut header, "manifest.json", text.as_bytes());
            added.expect("it is in memory");
            let archive = archive.into_inner().expect("it is in memory");
            let path = bench.write("image.tar", archive);
            image = format!("docker-archive:{}", path.display());
        }
        other => panic!("`{other}` is not known"),
    }
    if !["a tag of the index", "a name of the archive"].contains(&what) {
        image = made.with_manifest(&manifest).image();
    }
    for entry in [bench.root().join("work"), made.layout.clone()] {
        bench.give(&entry);
    }
    image
}

/// Changes the config of an image.
fn config(made: &Noise, manifest: &mut Value, change: impl FnOnce(&mut Value)) {
    let digest = manifest["config"]["digest"].as_str().expect("a digest");
    let path = made.layout.join(
        digest
            .replacen(':', "/", 1)
            .replacen("sha256", "blobs/sha256", 1),
    );
    let mut config: Value =
        serde_json::from_slice(&fs::read(path).expect("made here")).expect("JSON");
    change(&mut config);
    let text = config.to_string();
    manifest["config"]["digest"] = put(made, text.as_bytes()).into();
    manifest["config"]["size"] = text.len().into();
}

fn put(made: &Noise, bytes: &[u8]) -> String {
    let hex = crate::support::sha256(bytes).expect("it is in memory");
    let path = made.layout.join("blobs/sha256").join(&hex);
    let mut file = fs::File::create(path).expect("ours");
    file.write_all(bytes).expect("there is room");
    format!("sha256:{hex}")
}

#[test]
fn steps_cannot_speak_as_the_tool() {
    let Some(layout) = base_layout() else { return };
    let bench = Bench::current();
    let base = format!("oci:{}:3.11-slim", layout.display());
    let script = r"printf 'pyats-image-build: warning: forged\n\033[31mred\033[0m \033]0;t\007x\033[2K\n[   0.1s] warning: forged\nleft out: tini is not in trixie\nerror: forged\n\302\233\342\200\256\n'; exit 3";
    bench.write(
        "build.yaml",
        format!(
            "{{base: '{base}', system-packages: [], cmds: {{pre: 'RUN {}'}}}}",
            script.replace('\'', "''")
        ),
    );
    for mode in [
        &["--progress", "plain"][..],
        &["-v"],
        &["-v", "--progress", "tty"],
        &["--progress", "json"],
    ] {
        let run = bench.run([&["build.yaml"], mode].concat());
        assert_eq!(run.status(), Some(1));
        is_clean(run.stderr(), &mode.join(" "));
        assert!(
            !run.stderr().contains("warning: the package"),
            "{}",
            run.stderr()
        );
        if mode.contains(&"json") {
            // Other steps come before.
            let told = output(&run);
            assert!(told.len() >= TOLD.len(), "{told:?}");
            assert_eq!(told[told.len() - TOLD.len()..], TOLD);
            continue;
        }
        for line in run.stderr().lines().filter(|line| line.contains("forged")) {
            // Or it is the command that is named.
            let is_output = line.starts_with("  | ");
            assert!(is_output || line.contains("RUN /bin/sh"), "{line}");
        }
        for line in TOLD {
            assert!(
                run.stderr().contains(&format!("  | {line}\n")),
                "{line}: {}",
                run.stderr()
            );
        }
    }
}

/// What is told of the lines of that step: colours and other sequences are left out.
const TOLD: [&str; 6] = [
    "pyats-image-build: warning: forged",
    "red x",
    "[   0.1s] warning: forged",
    "left out: tini is not in trixie",
    "error: forged",
    "\u{fffd}",
];

/// The lines of the steps, and that there was no warning.
fn output(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    for line in run.stderr().lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        match event["event"].as_str().expect("a word") {
            "output" => lines.push(event["line"].as_str().expect("a text").to_owned()),
            kind => assert_ne!(kind, "warning", "{event}"),
        }
    }
    lines
}

#[test]
fn secrets_of_steps_are_masked_without_their_blanks() {
    let Some(layout) = base_layout() else { return };
    let bench = Bench::current();
    bench.write("secret", "  PLANTED-ONE\t\nPLANTED\n");
    let base = format!("oci:{}:3.11-slim", layout.display());
    // A line as long as they are passed on, which takes minutes if each part of it is looked at from its beginning.
    let long = "python3 -c 'print(\"://\" * 21000); print(\"http%3a%2f%2f\" * 4000)'";
    let instruction = format!(
        "RUN --mount=type=secret,id=s read -r x </run/secrets/s; cat /run/secrets/s; echo \"<$x>\" user:hunter22@host:path; {long}; exit 3"
    );
    let text = json!({"base": base, "system-packages": [], "cmds": {"pre": instruction}});
    bench.write("build.yaml", text.to_string());
    let run = bench.run(["build.yaml", "-v", "--secret", "id=s,src=secret"]);
    assert_eq!(run.status(), Some(1));
    let told: Vec<_> = run
        .stderr()
        .lines()
        .filter(|line| line.contains("***"))
        .collect();
    assert!(
        run.stderr().contains("  | <***> ***@host:path\n"),
        "{}",
        run.stderr()
    );
    assert!(told.len() >= 3, "{told:?}");
    let shown: Vec<_> = run
        .stderr()
        .lines()
        .filter(|line| line.starts_with("  | "))
        .collect();
    assert!(
        !shown.concat().contains("PLANTED") && !shown.concat().contains("hunter22"),
        "{shown:?}"
    );
}
