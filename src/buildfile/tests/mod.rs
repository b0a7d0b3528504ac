//! What is read from a build file. What is said about a wrong one is in `messages`, and what others
//! say about the same text in `oracles`; files of other programs are in `foreign`.

mod cmds;
mod foreign;
mod locations;
mod messages;
mod oracles;
mod schema;
mod shapes;

use std::path::PathBuf;

use insta::assert_snapshot;

use super::*;

fn variables(name: &str) -> Option<String> {
    match name {
        "NAME" => Some("value".to_owned()),
        "TOKEN" => Some("PLANTED".to_owned()),
        "LINES" => Some("one\ntwo: [".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

/// What is accepted anywhere in these tests, the schema accepts too.
fn parse(text: &str) -> Result<BuildFile, Error> {
    let parsed = BuildFile::parse("build.yaml", text, &variables);
    if parsed.is_ok() && text.len() < 10_000 {
        schema::agrees(text);
    }
    parsed
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
        source: Source::Local(source.to_owned()),
        exclude: Vec::new(),
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
    for text in ["{}", "---\n{}\n...\n", "tag:\npackages: ~\nenv: null\n"] {
        let buildfile = good(text);
        assert!(
            buildfile.tag.is_none() && buildfile.packages.is_empty() && buildfile.env.is_empty()
        );
        assert!(buildfile.jobfiles.is_match("my_job_1.py") && !buildfile.jobfiles.is_match("x.py"));
    }
    assert_eq!(good("{}").masked, "{}\n");
    for text in ["", "---\n...\n", "\u{feff}", "~"] {
        assert!(bad(text).contains("the build file is empty"), "{text}");
    }
    assert_eq!(
        good("\u{feff}tag: a\r\npython: 3\r\n").python.as_deref(),
        Some("3")
    );
}

/// The value of a variable of `%ENV{…}` may be empty, or have several lines.
#[test]
fn what_the_original_tool_accepts_is_accepted() {
    let buildfile = good(
        "tag: ''\nplatform: '%ENV{EMPTY}'\npackages: ['%ENV{EMPTY}', ' ', \"a\\n\\n  b \\\\\\r\\n --hash=x\", c]\n\
         env: {my.setting: 1, a-b: 2, 1a: 3}\n\
         files: [{jobs/: a}, {b//c: d}]\n\
         repositories:\n  one/: {url: x, commit_id: '%ENV{EMPTY}', ssh_key: ''}\n  \
         two: {url: x, commit_id: 'HEAD~1'}\n  three: {url: x, commit_id: 'v1^{}^2~^{commit}'}\n\
         jobfiles: {paths: ['', a.py], match: '', matches: x, 1: y}\n",
    );
    assert_eq!((buildfile.tag, buildfile.platform), (None, None));
    assert_eq!(buildfile.packages, ["a", "b \\", "--hash=x", "c"]);
    let env = [("my.setting", "1"), ("a-b", "2"), ("1a", "3")];
    assert_eq!(buildfile.env, pairs(&env));
    let files = buildfile.files.iter();
    let destinations: Vec<_> = files
        .filter_map(|entry| entry.destination.as_deref())
        .collect();
    assert_eq!(destinations, ["jobs", "b/c"]);
    let repositories = buildfile.repositories.iter();
    let commits: Vec<_> = repositories
        .map(|one| {
            (
                &*one.destination,
                one.commit.as_deref(),
                one.ssh_key.is_some(),
            )
        })
        .collect();
    let expected = [
        ("one", None, false),
        ("two", Some("HEAD~1"), false),
        ("three", Some("v1^{}^2~^{commit}"), false),
    ];
    assert_eq!(commits, expected);
    assert_eq!(buildfile.jobfiles.paths, ["a.py"]);
    assert!(buildfile.jobfiles.matches.is_empty());
    let warnings = [
        "unknown key `matches` in `jobfiles` is ignored: did you mean `match`?",
        "unknown key `1` in `jobfiles` is ignored: the keys here are `paths`, `match`, `glob`",
    ];
    assert_eq!(buildfile.warnings, warnings);
    for commit in [
        "~1",
        "HEAD^{tree}",
        "HEAD~x",
        "a..b",
        "-x",
        "HEAD^^{/x}",
        "HEAD@{1}",
    ] {
        let text = format!("repositories: {{a: {{url: x, commit_id: '{commit}'}}}}");
        assert!(bad(&text).contains("is not the name of a commit"), "{text}");
    }
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
    assert_eq!(
        buildfile.files[0].source,
        Source::Local("value/y".to_owned())
    );
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
    let root = events::parse(text, Dialect::BuildFile(&variables), &mut problems).unwrap();
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

#[test]
fn hostile_files_cost_little() {
    let bomb: Vec<String> = (1..40)
        .map(|n| format!("  a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(9)))
        .collect();
    let texts = [
        format!("labels:\n  a0: &a0 [x]\n{}", bomb.concat()),
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
    // Of this thread alone: the machine may have other work.
    let spent = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        std::time::Duration::try_from(time).unwrap()
    };
    for text in texts {
        let start = spent();
        let error = bad(&text);
        assert!(error.len() < 20_000, "{error}");
        let took = spent().saturating_sub(start);
        assert!(took.as_secs() < 10, "{} took {took:?}", &text[..20]);
    }
    let numbers = |line: &dyn Fn(usize) -> String| (0..45_000).map(line).collect::<String>();
    let start = spent();
    bad(&numbers(&|n| format!("k{n}: x\n")));
    bad(&format!("env:\n{}", numbers(&|n| format!("  {n} x: x\n"))));
    bad(&format!("{}: x", "k".repeat(1000)));
    bad(&format!("jobfiles: {{match: [{}]}}", "x,".repeat(10_000)));
    bad("jobfiles: {match: '\\w{1000}{1000}'}");
    good(&format!(
        "labels:\n{}",
        numbers(&|n| format!("  k{n}: x\n"))
    ));
    good(&format!(
        "pip-config: |\n  [global]\n{}",
        numbers(&|n| format!("  k{n}= x\n"))
    ));
    let took = spent().saturating_sub(start);
    assert!(took.as_secs() < 10, "took {took:?}");
    let large = "#".repeat(MAX_SIZE + 1);
    let error = parse(&large).unwrap_err();
    assert!(error.to_string().contains("is larger than"), "{error}");
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
        let error = load().unwrap_err();
        let place = format!("build.yaml:{line}:{column}: the build file is not UTF-8 text");
        assert!(error.to_string().ends_with(&place), "{error}");
        let is_told = error.hint().is_some_and(|hint| hint.contains("UTF-16"));
        assert_eq!(is_told, is_utf16);
    }
    fs::write(&path, vec![b'#'; MAX_SIZE + 1]).unwrap();
    let error = load().unwrap_err();
    assert!(error.to_string().contains("is larger than"), "{error}");
    fs::write(&path, "python: 3.11\n").unwrap();
    assert_eq!(load().unwrap().python.as_deref(), Some("3.11"));
}
