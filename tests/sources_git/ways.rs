//! Every way to a server, and who is let in.

use std::process::Command;

use fs_err as fs;
use serde_json::json;

use super::{
    FAILED, Suite, begin, build_file, record, refused, same_tree, stage, succeeded, try_stage,
};
use crate::support::{
    GitDaemon, GitProtocol, GitWeb, Proxy, Sshd, Stage, Web, git_clone, keygen, ssh_folder, succeed,
};

#[test]
fn every_way_leads_to_the_same_tree() {
    let Some((bench, folder)) = begin() else {
        return;
    };
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
    let Some((bench, folder)) = begin() else {
        return;
    };
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
    let Some((bench, folder)) = begin() else {
        return;
    };
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
    let Some((bench, folder)) = begin() else {
        return;
    };
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
    let Some((bench, folder)) = begin() else {
        return;
    };
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
    let Some((bench, folder)) = begin() else {
        return;
    };
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
    let Some((bench, folder)) = begin() else {
        return;
    };
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
        let lines = format!("      {}\n", text.trim_end().replace('\n', "\n      "));
        // As it is; as one folded line; as YAML folds it; and what a masked variable can hold.
        let mut ways = vec![("|", lines.clone()), (">", lines.clone()), ("", lines)];
        if !pem {
            let inner = text.lines().filter(|line| !line.starts_with('-'));
            let inner: Vec<_> = inner.collect();
            ways.push(("", format!("      {}\n", inner.concat())));
        }
        for (style, lines) in ways {
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
    let Some((bench, folder)) = begin() else {
        return;
    };
    let suite = Suite::new(&folder);
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
fn by_a_proxy() {
    let Some((bench, folder)) = begin() else {
        return;
    };
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
