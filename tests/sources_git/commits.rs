//! Every name of a commit, and how much is moved for it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use fs_err as fs;
use serde_json::json;

use super::{FAILED, Suite, USAGE, begin, record, refused, same_tree, stage};
use crate::support::{GitDaemon, GitProtocol, GitRepository, Tree, git_clone};

#[test]
fn every_name_of_a_commit() {
    let Some((bench, folder)) = begin() else {
        return;
    };
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
            ("HEAD~1", &suite.second, &[]),
            ("@^^", &suite.first, &[]),
            ("v1^{}~2", &suite.first, &[]),
            ("v1^0", &suite.tip, &["main"]),
            (&format!("{}~1", &suite.dev[..7]), &suite.second, &[]),
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
fn names_that_are_wrong() {
    let Some((bench, folder)) = begin() else {
        return;
    };
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
            ("HEAD~9", &["`HEAD~9`"]),
            ("v1^2", &["`v1^2`"]),
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
    let entry = format!("  suite: {{url: '{local}', commit_id: '~1'}}\n");
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
    let Some((bench, folder)) = begin() else {
        return;
    };
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
fn one_commit_moves_little() {
    let Some((bench, folder)) = begin() else {
        return;
    };
    let repository = GitRepository::new(folder.join("long.git"));
    let tip = repository.commits("main", 5000, |number| {
        // Lines that do not compress well, of one of fifty files.
        let noise = (0..40).map(|line| format!("{:x}\n", noise_of(number * 40 + line)));
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

#[test]
fn what_did_not_change_is_not_moved_again() {
    let Some((bench, folder)) = begin() else {
        return;
    };
    let suite = Suite::new(&folder);
    let mut big = String::new();
    for number in 0..20_000 {
        writeln!(big, "{:x}", noise_of(number)).expect("a string takes all");
    }
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

/// Numbers that look random.
fn noise_of(number: usize) -> u128 {
    let mut state = number as u128 + 1;
    for _ in 0..4 {
        state = state
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            .wrapping_add(0x9e37_79b9);
        state ^= state >> 61;
    }
    state
}
