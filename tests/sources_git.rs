//! Repositories: every way to them, every name of a commit, and whatever a server may send.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use serde_json::{Value, json};

use crate::support::{
    Bench, GitDaemon, GitProtocol, GitRepository, GitWeb, Proxy, Run, Sshd, Stage, Tree, Web,
    base_layout, git_clone, is_root, keygen, ssh_folder, succeed,
};

/// The request itself is wrong.
const USAGE: i32 = 2;
/// The build failed.
const FAILED: i32 = 1;

/// The repository that most tests clone: a branch with three commits, another branch, tags of both kinds.
struct Suite {
    repository: GitRepository,
    first: String,
    second: String,
    tip: String,
    dev: String,
}

impl Suite {
    fn new(folder: &Path) -> Self {
        let repository = GitRepository::new(folder.join("suite.git"));
        let first = repository.commit("main", &[("100644", "a.txt", "one")]);
        let second = repository.commit("main", &[("100644", "a.txt", "two")]);
        repository.git(&["tag", "light", &second]);
        let tip = repository.commit(
            "main",
            &[
                ("100644", "a.txt", "three"),
                ("100755", "bin/run me.sh", "#!/bin/sh\n"),
                ("100644", "deep/er/файл", "x"),
                ("120000", "to-a", "a.txt"),
                ("120000", "out", "/etc/passwd"),
                ("100644", "crlf.txt", "one\r\ntwo\n"),
                ("100644", "empty", ""),
            ],
        );
        repository.git(&["tag", "-a", "-m", "a release", "v1", &tip]);
        repository.git(&["branch", "dev", &second]);
        let dev = repository.commit("dev", &[("100644", "dev.txt", "dev")]);
        Self {
            repository,
            first,
            second,
            tip,
            dev,
        }
    }

    /// What git itself checks out.
    fn tree(&self, bench: &Bench) -> Tree {
        let path = bench.root().join("clone");
        git_clone(&self.repository.path().display().to_string(), &path);
        fs::remove_dir_all(path.join(".git")).expect("ours");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("ours");
        Tree::of(&path)
    }
}

/// A build file with `repositories`, the text below that key.
fn build_file(repositories: &str) -> String {
    format!("python: 3.11\nrepositories:\n{repositories}")
}

/// Stages `repositories` and nothing else; the workspace.
fn stage(bench: &Bench, repositories: &str) -> PathBuf {
    Stage::new(bench).workspace(&build_file(repositories))
}

fn try_stage(bench: &Bench, repositories: &str, options: &[&str]) -> Run {
    let options = options.iter();
    let stage = options.fold(Stage::new(bench), |stage, option| stage.option(*option));
    stage.run(&build_file(repositories))
}

/// Holds that a run staged everything.
fn succeeded(run: &Run) {
    let errors = run.stderr();
    assert_eq!(run.status(), Some(0), "{errors}");
    run.stdout();
}

/// Holds that the only repository is refused with these words.
fn refused(bench: &Bench, repository: &str, status: i32, words: &[&str]) -> String {
    let run = try_stage(bench, repository, &[]);
    let errors = run.refusal(status).to_owned();
    let count = errors
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    assert_eq!(count, 1, "{repository}: {errors}");
    for word in words {
        assert!(
            errors.contains(word),
            "{repository}: `{word}` is missing in: {errors}"
        );
    }
    errors
}

/// What `repos.json` says of the only repository.
fn record(workspace: &Path) -> Value {
    let text = fs::read(workspace.join("installation/repos.json")).expect("there is one");
    let document: Value = serde_json::from_slice(&text).expect("it is JSON");
    let entry = match &document {
        Value::Array(entries) => entries.first().cloned(),
        Value::Object(entries) => entries.values().next().cloned(),
        _ => None,
    };
    entry.expect("it names a repository")
}

fn same_tree(found: &Path, expected: &Tree, name: &str) {
    let differences = expected.differences(&Tree::of(found), &[]);
    assert_eq!(differences, [""; 0], "{name}");
}

#[test]
fn every_way_leads_to_the_same_tree() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    let suite = Suite::new(&folder);
    let expected = suite.tree(&bench);
    let daemon = GitDaemon::start(&folder, GitProtocol::Current);
    let old = GitDaemon::start(&folder, GitProtocol::Old);
    let path = suite.repository.path().display().to_string();
    git_clone(&path, &bench.root().join("home/worktree"));
    for url in [
        path.clone(),
        format!("file://{path}"),
        format!("file://localhost{path}"),
        "~/worktree".to_owned(),
        "~/worktree/.git".to_owned(),
        daemon.url("suite.git"),
        old.url("suite.git"),
    ] {
        let workspace = stage(&bench, &format!("  dir/name: {{url: '{url}'}}\n"));
        same_tree(&workspace.join("dir/name"), &expected, &url);
        let record = record(&workspace);
        assert_eq!(record["commit"], json!(suite.tip), "{url}");
        assert_eq!(record["heads"], json!(["main"]), "{url}");
        assert_eq!(record["tags"], json!(["v1"]), "{url}");
    }
}

#[test]
fn by_http() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    let suite = Suite::new(&folder);
    let expected = suite.tree(&bench);
    let Some(server) = GitWeb::start(&folder) else {
        return;
    };
    let web = &server.web;
    let authority = web.authority().display().to_string();
    for url in [
        web.url("git/suite.git"),
        web.url("git/suite.git/"),
        web.url("old/git/suite.git"),
        web.url("moved/git/suite.git"),
        web.tls_url("git/suite.git"),
        web.url("secure/git/suite.git"),
    ] {
        let entry = format!("  suite: {{url: '{url}'}}\n");
        let run = try_stage(&bench, &entry, &["--ca-cert", &authority]);
        succeeded(&run);
        let workspace = bench.path("context/image/workspace");
        same_tree(&workspace.join("suite"), &expected, &url);
        assert_eq!(record(&workspace)["remotes"]["origin"], json!(url));
        let entry = format!("  suite: {{url: '{url}', commit_id: {}}}\n", suite.first);
        succeeded(&try_stage(&bench, &entry, &["--ca-cert", &authority]));
        let text = fs::read_to_string(workspace.join("suite/a.txt")).expect("it is there");
        assert_eq!(text, "one", "{url}");
    }
    let dumb = authority.replace("authority.pem", "www/dumb/info");
    fs::create_dir_all(&dumb).expect("ours");
    fs::write(format!("{dumb}/refs"), "not git's\n").expect("ours");
    for (url, words) in [
        (web.url("git/none.git"), "the server has no such repository"),
        (web.url("nothing"), "the server has no such repository"),
        (web.url("dumb"), "there is no git server"),
        (web.url("circle"), "redirects"),
    ] {
        refused(
            &bench,
            &format!("  suite: {{url: '{url}'}}\n"),
            FAILED,
            &[words, &url],
        );
    }
}

#[test]
fn certificates_are_verified_but_for_one_repository() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    Suite::new(&folder);
    let Some(server) = GitWeb::start(&folder) else {
        return;
    };
    let url = server.web.tls_url("git/suite.git");
    let verified = format!("  verified: {{url: '{url}'}}\n");
    let trusting = format!("  trusting: {{url: '{url}', GIT_SSL_NO_VERIFY: true}}\n");
    let words = [
        "`repositories.verified`",
        "certificate is not trusted",
        "--ca-cert",
    ];
    refused(&bench, &verified, FAILED, &words);
    let workspace = stage(&bench, &trusting);
    assert!(workspace.join("trusting/a.txt").exists());
    for both in [
        format!("{trusting}{verified}"),
        format!("{verified}{trusting}"),
    ] {
        refused(&bench, &both, FAILED, &words);
    }
}

#[test]
fn credentials_by_http() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    Suite::new(&folder);
    let Some(server) = GitWeb::start(&folder) else {
        return;
    };
    let url = server.web.url("private/git/suite.git");
    let with = |user: &str| url.replace("://", &format!("://{user}@"));
    let given = |password: &str| {
        format!(
            "  suite: {{url: '{url}', credentials: {{username: user, password: '{password}'}}}}\n"
        )
    };
    let plain = format!("  suite: {{url: '{url}'}}\n");
    let netrc = bench.root().join("home/.netrc");
    let shown = format!("failed to clone `{url}`");
    refused(
        &bench,
        &plain,
        FAILED,
        &[&shown, "authentication required", "`credentials`"],
    );
    refused(
        &bench,
        &given("wr0ng"),
        FAILED,
        &[&shown, "does not accept the credentials", "hint:"],
    );
    let wrong = format!("  suite: {{url: '{}'}}\n", with("user:wr0ng"));
    let errors = refused(
        &bench,
        &wrong,
        FAILED,
        &["does not accept the credentials", "://***@"],
    );
    assert!(!errors.contains("wr0ng"), "{errors}");

    let mut accepted = vec![
        given("pa55-of-web"),
        format!("  suite: {{url: '{}'}}\n", with(Web::LOGIN)),
    ];
    // The build file's own win over those of the URL.
    accepted.push(given("pa55-of-web").replace(&url, &with("user:wr0ng")));
    for entry in accepted {
        let run = try_stage(&bench, &entry, &["--no-cache"]);
        succeeded(&run);
        assert!(!run.stderr().contains("pa55-of-web"), "{}", run.stderr());
        let workspace = bench.path("context/image/workspace");
        assert_eq!(record(&workspace)["remotes"]["origin"], json!(url));
        let build = fs::read_to_string(workspace.join("installation/build.yaml")).expect("there");
        assert!(!build.contains("pa55-of-web"), "{build}");
    }
    fs::write(
        &netrc,
        "machine 127.0.0.1 login user password pa55-of-web\n",
    )
    .expect("ours");
    succeeded(&try_stage(&bench, &plain, &["--no-cache"]));
}

#[test]
fn credentials_stay_at_home() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    Suite::new(&folder);
    let Some(server) = GitWeb::start(&folder) else {
        return;
    };
    // From one port to another, which is another origin.
    let url = server.web.url("secure/git/suite.git");
    let entry = format!(
        "  suite: {{url: '{url}', GIT_SSL_NO_VERIFY: true, credentials: {{username: user, password: pa55-of-web}}}}\n"
    );
    stage(&bench, &entry);
    let log = server.web.log();
    let shown: Vec<_> = log.lines().filter(|line| line.contains("Basic ")).collect();
    assert!(
        log.contains("POST /git/suite.git/git-upload-pack 200"),
        "{log}"
    );
    assert_eq!(shown.len(), 1, "{log}");
    assert!(shown[0].contains(" /secure/"), "{log}");
}

#[test]
fn by_ssh() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    let suite = Suite::new(&folder);
    let expected = suite.tree(&bench);
    let path = suite.repository.path().display().to_string();
    for config in [&[][..], &["AcceptEnv GIT_PROTOCOL"]] {
        let Some(server) = Sshd::start_for(&bench, config) else {
            return;
        };
        let url = format!("ssh://{}{path}", server.host());
        let workspace = stage(
            &bench,
            &format!("  suite: {{url: '{url}', commit_id: {}}}\n", suite.second),
        );
        let text = fs::read_to_string(workspace.join("suite/a.txt")).expect("it is there");
        assert_eq!(text, "two");
        let workspace = stage(&bench, &format!("  suite: {{url: '{url}'}}\n"));
        same_tree(&workspace.join("suite"), &expected, &url);
        assert_eq!(record(&workspace)["remotes"]["origin"], json!(url));
    }
    // By a name of the configuration, as `host:path`.
    let server = Sshd::start_for(&bench, &[]).expect("there was one before");
    let config = format!(
        "Host forge\n  HostName 127.0.0.1\n  Port {}\n",
        server.port()
    );
    fs::write(ssh_folder(&bench).join("config"), config).expect("ours");
    let workspace = stage(&bench, &format!("  suite: {{url: 'forge:{path}'}}\n"));
    same_tree(&workspace.join("suite"), &expected, "forge");

    let words = [
        "`repositories.suite`",
        "no/such",
        "does not appear to be a git repository",
        "hint:",
    ];
    refused(&bench, "  suite: {url: 'forge:/no/such'}\n", FAILED, &words);
}

#[test]
fn keys_of_the_build_file() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    let suite = Suite::new(&folder);
    let Some(server) = Sshd::start(&[]) else {
        return;
    };
    server.introduce(&bench);
    let url = format!(
        "ssh://{}{}",
        server.host(),
        suite.repository.path().display()
    );
    refused(
        &bench,
        &format!("  suite: {{url: '{url}'}}\n"),
        FAILED,
        &["`repositories.suite`", "hint:"],
    );

    let keys = bench.root().join("keys");
    fs::create_dir(&keys).expect("ours");
    for (kind, pem) in [
        ("ed25519", false),
        ("rsa", false),
        ("rsa", true),
        ("ecdsa", true),
    ] {
        let path = keys.join(format!("{kind}-{pem}"));
        keygen(&bench, &path, kind, "");
        if pem {
            let mut command = Command::new("ssh-keygen");
            command
                .args(["-q", "-p", "-P", "", "-N", "", "-m", "PEM", "-f"])
                .arg(&path);
            succeed(&mut command);
        }
        server.authorize(&path);
        let text = fs::read_to_string(&path).expect("ours");
        let begin = text.lines().next().expect("lines");
        assert_eq!(begin.contains("OPENSSH"), !pem, "{begin}");
        let lines: String = text.lines().map(|line| format!("      {line}\n")).collect();
        // As it is; as one folded line; and as YAML folds it.
        for (style, lines) in [("|", lines.clone()), (">", lines.clone()), ("", lines)] {
            let entry = format!("  suite:\n    url: '{url}'\n    ssh_key: {style}\n{lines}");
            let workspace = stage(&bench, &entry);
            assert!(
                workspace.join("suite/a.txt").exists(),
                "{kind} {pem} {style}"
            );
            let build =
                fs::read_to_string(workspace.join("installation/build.yaml")).expect("there");
            let line = text.lines().nth(2).expect("a line of the key");
            assert!(!build.contains(line), "{kind} {pem} {style}");
        }
        server.forget_keys();
    }
}

#[test]
fn host_keys_are_checked() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let suite = Suite::new(&bench.root().join("served"));
    let Some(server) = Sshd::start_for(&bench, &[]) else {
        return;
    };
    fs::remove_file(ssh_folder(&bench).join("known_hosts")).expect("ours");
    let url = format!(
        "ssh://{}{}",
        server.host(),
        suite.repository.path().display()
    );
    let entry = format!("  suite: {{url: '{url}'}}\n");
    refused(
        &bench,
        &entry,
        FAILED,
        &["--accept-new-host-keys", "SHA256:"],
    );
    let run = try_stage(&bench, &entry, &["--accept-new-host-keys"]);
    succeeded(&run);
}

#[test]
fn every_name_of_a_commit() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    let suite = Suite::new(&folder);
    // The same name for a tag and a branch: git takes the tag.
    suite.repository.git(&["tag", "both", &suite.first]);
    suite.repository.git(&["branch", "both", &suite.second]);
    suite
        .repository
        .git(&["update-ref", "refs/changes/1", &suite.dev]);
    let daemon = GitDaemon::start(&folder, GitProtocol::Current);
    let old = GitDaemon::start(&folder, GitProtocol::Old);
    for url in [
        suite.repository.path().display().to_string(),
        daemon.url("suite.git"),
        old.url("suite.git"),
    ] {
        for (name, commit, heads) in [
            ("HEAD", &suite.tip, &["main"][..]),
            ("main", &suite.tip, &["main"]),
            ("origin/main", &suite.tip, &["main"]),
            ("dev", &suite.dev, &["dev"]),
            ("refs/heads/dev", &suite.dev, &["dev"]),
            ("v1", &suite.tip, &["main"]),
            ("light", &suite.second, &[]),
            ("tags/light", &suite.second, &[]),
            ("both", &suite.first, &[]),
            ("heads/both", &suite.second, &["both"]),
            ("refs/changes/1", &suite.dev, &[]),
            (&suite.first, &suite.first, &[]),
            (&suite.tip, &suite.tip, &["main"]),
            (&suite.first[..9], &suite.first, &[]),
            (&suite.dev[..7], &suite.dev, &[]),
        ] {
            let entry = format!("  suite: {{url: '{url}', commit_id: '{name}'}}\n");
            let workspace = stage(&bench, &entry);
            let record = record(&workspace);
            assert_eq!(record["commit"], json!(commit), "{url} {name}");
            assert_eq!(record["heads"], json!(heads), "{url} {name}");
            assert!(!workspace.join("suite/.git").exists());
            let content = suite.repository.git(&["show", &format!("{commit}:a.txt")]);
            let found = fs::read_to_string(workspace.join("suite/a.txt")).expect("it is there");
            assert_eq!(found, content, "{url} {name}");
        }
    }
}

#[test]
fn one_commit_moves_little() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    let repository = GitRepository::new(folder.join("long.git"));
    let tip = repository.commits("main", 5000, |number| {
        // Lines that do not compress well, of one of fifty files.
        let noise = (0..40).map(|line| format!("{:x}\n", md5ish(number * 40 + line)));
        let path = format!("file-{}", number % 50);
        vec![("100644".to_owned(), path, noise.collect())]
    });
    repository.git(&["repack", "-adq"]);
    let middle = repository.git(&["rev-parse", "main~2500"]);
    let daemon = GitDaemon::start(&folder, GitProtocol::Current);
    let old = GitDaemon::start(&folder, GitProtocol::Old);

    git_clone(&daemon.url("long.git"), &bench.root().join("whole"));
    let whole = daemon.sent();
    let moved = |daemon: &GitDaemon, commit: &str| {
        daemon.sent();
        let url = daemon.url("long.git");
        let workspace = stage(
            &bench,
            &format!("  long: {{url: '{url}', commit_id: {commit}}}\n"),
        );
        assert!(workspace.join("long/file-0").exists());
        daemon.sent()
    };
    for (daemon, commit) in [(&daemon, "main"), (&daemon, &*middle), (&old, &*tip)] {
        let bytes = moved(daemon, commit);
        assert!(bytes * 10 < whole, "{commit}: {bytes} of {whole}");
    }
    // An old server does not give what is not at the end of a branch, unless it is told to.
    let bytes = moved(&old, &middle);
    assert!(bytes * 10 > whole * 9, "{bytes} of {whole}");
    repository.git(&["config", "uploadpack.allowReachableSHA1InWant", "true"]);
    // What was fetched is kept, so that another commit is asked for.
    let other = repository.git(&["rev-parse", "main~2000"]);
    let bytes = moved(&old, &other);
    assert!(bytes * 10 < whole, "{bytes} of {whole}");
}

/// Numbers that look random.
fn md5ish(number: usize) -> u128 {
    let mut state = number as u128 + 1;
    for _ in 0..4 {
        state = state
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            .wrapping_add(0x9e37_79b9);
        state ^= state >> 61;
    }
    state
}

#[test]
fn what_did_not_change_is_not_moved_again() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    let suite = Suite::new(&folder);
    let big: String = (0..20_000)
        .map(|number| format!("{:x}\n", md5ish(number)))
        .collect();
    suite.repository.commit("main", &[("100644", "big", &big)]);
    for protocol in [GitProtocol::Current, GitProtocol::Old] {
        let daemon = GitDaemon::start(&folder, protocol);
        let url = daemon.url("suite.git");
        for (commit, silent) in [("main", false), ("light", false), (&*suite.tip, true)] {
            let entry = format!("  suite: {{url: '{url}', commit_id: {commit}}}\n");
            let workspace = stage(&bench, &entry);
            let first = Tree::of(&workspace);
            daemon.sent();
            same_tree(&stage(&bench, &entry), &first, commit);
            let bytes = daemon.sent();
            assert!(bytes < 4096, "{commit}: {bytes} bytes were moved again");
            assert_eq!(bytes == 0, silent, "{commit}");
        }
        // And what changed, is.
        let entry = format!("  suite: {{url: '{url}'}}\n");
        stage(&bench, &entry);
        let text = format!("{protocol:?}");
        let id = suite.repository.commit("main", &[("100644", "new", &text)]);
        let workspace = stage(&bench, &entry);
        assert_eq!(record(&workspace)["commit"], json!(id));
        let found = fs::read_to_string(workspace.join("suite/new")).expect("it is new");
        assert_eq!(found, text);
    }
}

#[test]
fn names_that_are_wrong() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    let suite = Suite::new(&folder);
    GitRepository::new(folder.join("empty.git"));
    let blob = suite.repository.blob(b"just a file");
    suite.repository.git(&["tag", "file", &blob]);
    let daemon = GitDaemon::start(&folder, GitProtocol::Current);
    let old = GitDaemon::start(&folder, GitProtocol::Old);
    let missing = "0123456789012345678901234567890123456789";
    for server in [&daemon, &old] {
        let url = server.url("suite.git");
        for (commit, words) in [
            (
                "mian",
                &["no commit, tag or branch `mian`", "did you mean `main`?"][..],
            ),
            (missing, &[missing, "hint:"]),
            ("abcdef01", &["`abcdef01`", "hint:"]),
            ("file", &["is not a commit"]),
            ("refs/heads/none", &["`refs/heads/none`"]),
        ] {
            let entry = format!("  suite: {{url: '{url}', commit_id: '{commit}'}}\n");
            let errors = refused(&bench, &entry, FAILED, words);
            assert!(
                errors.contains(&format!("failed to clone `{url}`")),
                "{errors}"
            );
        }
        let entry = format!("  suite: {{url: '{}'}}\n", server.url("empty.git"));
        refused(&bench, &entry, FAILED, &["the repository is empty"]);
    }
    let entry = format!("  suite: {{url: '{}'}}\n", daemon.url("none.git"));
    refused(&bench, &entry, FAILED, &["the server refuses", "hint:"]);
    refused(
        &bench,
        "  suite: {url: no/such/path}\n",
        FAILED,
        &["`no/such/path` is not a git repository", "hint:"],
    );
    let local = suite.repository.path().display();
    let entry = format!("  suite: {{url: '{local}', commit_id: 'abcdef01'}}\n");
    refused(&bench, &entry, FAILED, &["`abcdef01`"]);
    let entry = format!("  suite: {{url: '{local}', commit_id: '../x'}}\n");
    refused(&bench, &entry, USAGE, &["commit_id"]);
    // Somebody who listens and says something else, and nobody at all.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = nobody.local_addr().expect("it is bound");
    drop(nobody);
    refused(
        &bench,
        &format!("  suite: {{url: 'git://{address}/x'}}\n"),
        FAILED,
        &["cannot be reached", "hint:"],
    );
}

#[test]
fn ambiguous_abbreviations() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    let repository = GitRepository::new(folder.join("many.git"));
    repository.commits("main", 2000, |number| {
        vec![("100644".to_owned(), "n".to_owned(), number.to_string())]
    });
    let ids = repository.git(&["rev-list", "main"]);
    let mut seen = BTreeSet::new();
    let start = ids
        .lines()
        .map(|id| &id[..4])
        .find(|start| !seen.insert(*start));
    let start = start.expect("2000 ids share their first four digits now and then");
    let daemon = GitDaemon::start(&folder, GitProtocol::Current);
    for url in [
        daemon.url("many.git"),
        repository.path().display().to_string(),
    ] {
        let entry = format!("  many: {{url: '{url}', commit_id: '{start}'}}\n");
        refused(
            &bench,
            &entry,
            FAILED,
            &["more than one commit begins with", start, "hint:"],
        );
    }
}

#[test]
fn hostile_trees_stay_inside() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let repository = GitRepository::new(bench.root().join("hostile.git"));
    let blob = repository.blob(b"planted");
    let target = repository.blob(
        bench
            .root()
            .join("home")
            .to_str()
            .expect("plain")
            .as_bytes(),
    );
    let empty = repository.blob(b"");
    let inner = repository.raw_tree(&[("100644", "planted", &blob)]);
    let link = ("120000", "link", &*target);
    let mut nested = inner.clone();
    for _ in 0..30 {
        nested = repository.raw_tree(&[("40000", "a", &nested), ("40000", "b", &nested)]);
    }
    let mut deep = inner.clone();
    for _ in 0..600 {
        deep = repository.raw_tree(&[("40000", "d", &deep)]);
    }
    let trees: [(&str, Vec<(&str, &str, &str)>); 13] = [
        ("`..`", vec![("40000", "..", &inner)]),
        ("`.`", vec![("40000", ".", &inner)]),
        ("`../planted`", vec![("100644", "../planted", &blob)]),
        ("/planted`", vec![("100644", "/planted", &blob)]),
        ("`.git`", vec![("40000", ".git", &inner)]),
        ("`.GiT`", vec![("100644", ".GiT", &blob)]),
        ("parse filename", vec![("100644", "", &blob)]),
        ("`link`", vec![link, ("40000", "link", &inner)]),
        ("`link`", vec![link, ("100644", "link", &blob)]),
        ("`link`", vec![("120000", "link", &empty)]),
        ("`fifo`", vec![("10000", "fifo", &blob)]),
        ("two million", vec![("40000", "bomb", &nested)]),
        ("too deep", vec![("40000", "deep", &deep)]),
    ];
    for (word, entries) in trees {
        let tree = repository.raw_tree(&entries);
        repository.commit_tree("main", &tree);
        let entry = format!("  suite: {{url: '{}'}}\n", repository.path().display());
        let errors = refused(&bench, &entry, FAILED, &[word]);
        let home = fs::read_dir(bench.root().join("home"))
            .expect("ours")
            .count();
        assert_eq!(home, 0, "{word}: {errors}");
        assert!(!bench.root().join("planted").exists() && !Path::new("/planted").exists());
    }
    // These are strange, and harmless.
    let tree = repository.raw_tree(&[
        ("100664", "back\\slash", &blob),
        ("104755", "git~1", &blob),
        ("120000", "out", &target),
    ]);
    repository.commit_tree("main", &tree);
    let url = repository.path().display();
    let workspace = stage(&bench, &format!("  suite: {{url: '{url}'}}\n"));
    let mode = |name: &str| {
        let metadata = fs::symlink_metadata(workspace.join("suite").join(name));
        metadata.expect("it is there").permissions().mode() & 0o7777
    };
    assert_eq!((mode("back\\slash"), mode("git~1")), (0o644, 0o755));
    assert!(
        fs::symlink_metadata(workspace.join("suite/out"))
            .expect("there")
            .is_symlink()
    );
}

#[test]
fn what_is_not_fetched_is_said() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let repository = GitRepository::new(bench.root().join("parts.git"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    let id = "1111111111111111111111111111111111111111";
    repository.commit(
        "main",
        &[
            ("100644", "big.bin", pointer),
            ("160000", "vendor/lib", id),
            (
                "100644",
                ".gitattributes",
                "*.bat text eol=crlf\n*.id ident\n",
            ),
            ("100644", "run.bat", "one\ntwo\n"),
            ("100644", "x.id", "$Id$\n"),
        ],
    );
    let entry = format!("  parts: {{url: '{}'}}\n", repository.path().display());
    let run = try_stage(&bench, &entry, &[]);
    succeeded(&run);
    for word in ["submodules", "`vendor/lib`", "LFS", "`big.bin`"] {
        assert!(run.stderr().contains(word), "{word}: {}", run.stderr());
    }
    let parts = bench.path("context/image/workspace/parts");
    assert_eq!(
        fs::read_dir(parts.join("vendor/lib"))
            .expect("a directory")
            .count(),
        0
    );
    // Files are as they were committed.
    for (name, text) in [
        ("big.bin", pointer),
        ("run.bat", "one\ntwo\n"),
        ("x.id", "$Id$\n"),
    ] {
        assert_eq!(fs::read_to_string(parts.join(name)).expect("there"), text);
    }
}

#[test]
fn neither_umask_nor_configuration_matter() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let suite = Suite::new(&bench.root().join("served"));
    let expected = suite.tree(&bench);
    let config = "[core]\n\tautocrlf = true\n\tsymlinks = false\n\tfileMode = false\n\tattributesFile = ~/attributes\n\
                  [init]\n\ttemplateDir = ~/template\n[url \"/nowhere/\"]\n\tinsteadOf = /\n";
    fs::write(bench.root().join("home/.gitconfig"), config).expect("ours");
    fs::write(bench.root().join("home/attributes"), "* text eol=crlf\n").expect("ours");
    let folder = bench.root().join("served");
    let daemon = GitDaemon::start(&folder, GitProtocol::Current);
    for url in [
        daemon.url("suite.git"),
        suite.repository.path().display().to_string(),
    ] {
        let tool = Stage::new(&bench).command(&build_file(&format!("  suite: {{url: '{url}'}}\n")));
        let mut shell = bench.command("sh");
        shell.args(["-c", "umask 077; exec \"$@\"", "sh"]);
        shell.arg(tool.get_program()).args(tool.get_args());
        shell.envs(
            tool.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let run = bench.finish(&mut shell);
        succeeded(&run);
        same_tree(
            &bench.path("context/image/workspace/suite"),
            &expected,
            &url,
        );
    }
}

#[test]
fn a_repository_of_somebody_else() {
    if !is_root() || base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let suite = Suite::new(&bench.root().join("served"));
    let path = suite.repository.path().display().to_string();
    succeed(Command::new("chown").args(["-R", "nobody", &path]));
    let entry = format!("  suite: {{url: '{path}'}}\n");
    refused(
        &bench,
        &entry,
        FAILED,
        &["belongs to another user", "safe.directory"],
    );
    // As for git itself.
    let config = format!("[safe]\n\tdirectory = {path}\n");
    fs::write(bench.root().join("home/.gitconfig"), config).expect("ours");
    stage(&bench, &entry);
}

#[test]
fn by_a_proxy() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let folder = bench.root().join("served");
    Suite::new(&folder);
    let daemon = GitDaemon::start(&folder, GitProtocol::Current);
    let (Some(server), Some(http), Some(socks)) =
        (GitWeb::start(&folder), Proxy::http(), Proxy::socks())
    else {
        return;
    };
    for (variable, proxy, url, words) in [
        // Of a wrong password tinyproxy says in plain HTTP that the server wants one.
        (
            "HTTP_PROXY",
            format!("http://{}", http.authority()),
            server.web.url("git/suite.git"),
            "authentication required",
        ),
        (
            "SOCKS_PROXY",
            format!("socks5h://{}", socks.authority()),
            daemon.url("suite.git"),
            "the proxy",
        ),
    ] {
        let text = build_file(&format!("  suite: {{url: '{url}'}}\n"));
        let wrong = proxy.replace("pa55-of", "pa55-not-of");
        let words = [&*format!("failed to clone `{url}`"), words, "hint:"];
        Stage::new(&bench)
            .env(variable, wrong)
            .refused(&text, &words);
        let workspace = Stage::new(&bench).env(variable, proxy).workspace(&text);
        assert!(workspace.join("suite/a.txt").exists(), "{url}");
    }
}

#[test]
fn a_path_that_is_taken() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let suite = Suite::new(&bench.root().join("served"));
    let url = suite.repository.path().display();
    let two = format!("  a: {{url: '{url}'}}\n  a/x: {{url: '{url}'}}\n");
    let workspace = stage(&bench, &two);
    assert!(workspace.join("a/x/a.txt").exists());
    let taken = format!("  a: {{url: '{url}'}}\n  a/bin: {{url: '{url}'}}\n");
    refused(&bench, &taken, FAILED, &["`a/bin`", "taken"]);
    let outside = format!("  ../a: {{url: '{url}'}}\n");
    refused(&bench, &outside, USAGE, &["../a"]);
}
