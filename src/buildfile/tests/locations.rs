//! Where things lie that are not on this machine.

use super::super::location::Source;
use super::super::*;
use super::{bad, good};

fn source(text: &str) -> Source {
    Source::parse(text).unwrap()
}

fn ssh(text: &str) -> SshLocation {
    match Origin::parse(text) {
        Ok(Origin::Ssh(location)) => location,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn what_has_no_scheme_is_a_path() {
    for path in ["a", "./a:b", "/a b", "~/a", "C:\\x", "a:b", "x//y", "://a"] {
        assert_eq!(source(path), Source::Local(path.to_owned()));
    }
    for path in ["a", "/srv/git/x.git", "../x", "./a:b", "~/x"] {
        assert_eq!(Origin::parse(path).unwrap(), Origin::Local(path.to_owned()));
    }
    assert_eq!(
        Origin::parse("file:///srv/a%20b.git").unwrap(),
        Origin::Local("/srv/a b.git".to_owned())
    );
}

#[test]
fn urls_keep_the_name_of_their_file() {
    for (url, name) in [
        ("https://host/a/b.txt", Some("b.txt")),
        ("HTTP://host/a/b/?x=y#sha256=0", Some("b")),
        ("https://host/a%20b", Some("a b")),
        ("https://host/", None),
        ("https://host/a/%2e%2e", None),
        ("ftp://host:2121/path/file7", Some("file7")),
        ("scp://user@host/path/file6", Some("file6")),
        ("scp://host/dir/", Some("dir")),
    ] {
        assert_eq!(source(url).file_name().as_deref(), name, "{url}");
    }
}

#[test]
fn ssh_locations_come_in_two_forms() {
    let location = ssh("ssh://git@host:2222/srv/x.git");
    assert_eq!(location.user.as_deref(), Some("git"));
    assert_eq!((&*location.host, location.port), ("host", Some(2222)));
    assert_eq!(location.path, "/srv/x.git");
    assert_eq!(location.to_string(), "git@host:2222/srv/x.git");

    let location = ssh("git@host:group/x.git");
    assert_eq!((&*location.host, location.port), ("host", None));
    assert_eq!(location.path, "group/x.git");
    assert_eq!(location.to_string(), "git@host:group/x.git");

    assert_eq!(ssh("ssh://[::1]:22/x").host, "::1");
    assert_eq!(ssh("ssh://host/~/x").path, "~/x");
    assert_eq!(ssh("ssh://host/~user/x").path, "~user/x");
    assert_eq!(
        ssh("ssh://u%40corp@host/a%20b").user.as_deref(),
        Some("u@corp")
    );
}

#[test]
fn what_could_become_an_option_is_refused() {
    for url in [
        "ssh://-oProxyCommand=x/y",
        "-x@host:y",
        "host:-y",
        "ssh://host",
    ] {
        assert!(
            !matches!(Origin::parse(url), Ok(Origin::Ssh(_))),
            "{url} is taken for a place"
        );
    }
    assert!(
        bad("repositories: {a: {url: x, commit_id: '--upload-pack=x'}}\n").contains("commit_id")
    );
}

#[test]
fn printed_locations_hold_no_secret() {
    let urls = [
        "https://user:PLANTED@host/x",
        "https://PLANTED@host/x",
        "https://host/x?signature=PLANTED",
        "ftp://user:PLANTED@host/x",
        "scp://user:PLANTED@host/x",
    ];
    for url in urls {
        let (shown, debugged) = match source(url) {
            Source::Http(at) | Source::Ftp(at) => (at.to_string(), format!("{at:?}")),
            Source::Scp(at) => (at.to_string(), format!("{at:?}")),
            Source::Local(_) => unreachable!(),
        };
        assert!(shown.contains("host"), "{shown}");
        assert!(!shown.contains("PLANTED"), "{shown}");
        assert!(!debugged.contains("PLANTED"), "{debugged}");
    }
}

#[test]
fn repositories_are_read() {
    let buildfile = good(
        "repositories:\n  dir/suite:\n    url: https://u:p@host/x.git\n    commit_id: 0123abc\n    \
         requirements_file: yes\n    GIT_SSL_NO_VERIFY: true\n    \
         credentials: {username: me, password: 0123}\n  other: {url: 'git@host:x', ssh_key: KEY}\n\
         proxy: {http_proxy: 'http://p:1', NO_PROXY: '*'}\nsnapshot: ~/snapshot.yaml\n",
    );
    let [suite, other] = &buildfile.repositories[..] else {
        panic!("{:?}", buildfile.repositories)
    };
    assert_eq!(suite.destination, "dir/suite");
    assert_eq!(suite.commit.as_deref(), Some("0123abc"));
    assert!(suite.requirements && suite.no_verify);
    let (name, password) = suite.credentials.as_ref().unwrap();
    assert_eq!((&**name, password.reveal()), ("me", "0123"));
    assert_eq!(other.ssh_key.as_ref().unwrap().reveal(), "KEY");
    assert!(!other.requirements && !other.no_verify && other.commit.is_none());
    assert_eq!(buildfile.proxy.len(), 2);
    assert_eq!(buildfile.proxy[0].1.reveal(), "http://p:1");
    assert_eq!(buildfile.snapshot.as_deref(), Some("~/snapshot.yaml"));
}
