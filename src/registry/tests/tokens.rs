use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::server::{Reply, Request, Server};
use super::{Place, blob, client, fetch, noise, reference};
use crate::net;
use crate::progress::Progress;
use crate::registry::{Client, Error, Logins, Options};

/// A registry whose tokens hold for a given number of requests, whatever it says about seconds.
fn registry(content: Vec<u8>, limit: usize, expires_in: u64) -> (Server, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let (tokens, used) = (given.clone(), AtomicUsize::new(0));
    let answer = move |request: &Request, reply: &mut Reply<'_>| {
        if request.path.starts_with("/token?") {
            assert!(request.header("authorization").is_none());
            assert!(
                request.path.contains("service=a+service"),
                "{}",
                request.path
            );
            assert!(
                request
                    .path
                    .contains("scope=repository%3Ateam%2Fimage%3Apull"),
                "{}",
                request.path
            );
            let number = tokens.fetch_add(1, Ordering::SeqCst) + 1;
            used.store(0, Ordering::SeqCst);
            let body = format!(r#"{{"token":"hush-{number}","expires_in":{expires_in}}}"#);
            return reply.send("200 OK", &[], body.as_bytes());
        }
        let good = format!("Bearer hush-{}", tokens.load(Ordering::SeqCst));
        let is_known = request.header("authorization") == Some(&good);
        if is_known && used.fetch_add(1, Ordering::SeqCst) < limit {
            return reply.cut(request, &content, usize::MAX);
        }
        let challenge = format!(
            r#"WWW-Authenticate: Bearer realm="http://{}/token",service="a service",scope="repository:team/image:pull""#,
            request.header("host").unwrap()
        );
        reply.send(
            "401 Unauthorized",
            &[&challenge],
            br#"{"errors":[{"message":"authentication required"}]}"#,
        );
    };
    (Server::start(answer), given)
}

#[test]
fn one_token_serves_many_requests() {
    let bytes = noise(1000);
    let (server, given) = registry(bytes.clone(), usize::MAX, 300);
    let client = client();
    for _ in 0..5 {
        fetch(&client, &server, &blob(&bytes)).unwrap();
    }
    assert_eq!(given.load(Ordering::SeqCst), 1);
    let refused = server
        .requests()
        .iter()
        .filter(|request| request.path.contains("/blobs/"))
        .count();
    assert_eq!(refused, 6, "only the first request goes without a token");
}

#[test]
fn a_token_is_renewed_when_its_time_is_over_or_the_registry_says_so() {
    let bytes = noise(1000);
    let (server, given) = registry(bytes.clone(), 2, 300);
    let client = client();
    for _ in 0..6 {
        fetch(&client, &server, &blob(&bytes)).unwrap();
    }
    assert_eq!(given.load(Ordering::SeqCst), 3);

    let (server, given) = registry(bytes.clone(), usize::MAX, 1);
    fetch(&client, &server, &blob(&bytes)).unwrap();
    std::thread::sleep(Duration::from_millis(950));
    fetch(&client, &server, &blob(&bytes)).unwrap();
    assert_eq!(given.load(Ordering::SeqCst), 2);
}

#[test]
fn a_registry_that_never_lets_us_in_is_asked_twice_and_quoted() {
    let (server, given) = registry(noise(10), 0, 300);
    let error = fetch(&client(), &server, &blob(&noise(10))).unwrap_err();
    assert_eq!(given.load(Ordering::SeqCst), 1);
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains("401") && shown.contains("authentication required"),
        "{shown}"
    );
    assert!(!shown.contains("hush"), "{shown}");
    assert!(error.hint().unwrap().contains("public"));
}

#[test]
fn a_redirect_to_another_host_takes_no_token_along() {
    let bytes = noise(100_000);
    let content = bytes.clone();
    let elsewhere = Server::start(move |request, reply| {
        assert!(request.path.ends_with("?signature=hush"));
        // The first answer is cut: the way back leads through the registry again.
        reply.cut(
            request,
            &content,
            if request.number == 0 {
                1000
            } else {
                usize::MAX
            },
        );
    });
    let location = format!(
        "Location: http://user:hush@{}/blob?signature=hush",
        elsewhere.address
    );
    let server = Server::start(move |request, reply| {
        if request.path.starts_with("/token") {
            return reply.send("200 OK", &[], br#"{"access_token":"hush"}"#);
        }
        if request.header("authorization").is_none() {
            let host = request.header("host").unwrap();
            let challenge = format!(r#"WWW-Authenticate: Bearer realm="http://{host}/token""#);
            return reply.send("401 Unauthorized", &[&challenge], b"");
        }
        reply.send("307 Temporary Redirect", &[&location], b"");
    });
    fetch(&client(), &server, &blob(&bytes)).unwrap();
    assert_eq!(elsewhere.requests().len(), 2);
    assert!(
        elsewhere
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
    assert_eq!(elsewhere.requests()[1].from(), 1000);
}

#[test]
fn an_identity_token_goes_to_its_server_alone() {
    let token = br#"{"token":"hush"}"#;
    let elsewhere = Server::start(move |_, reply| reply.send("200 OK", &[], token));
    let location = format!("Location: http://{}/token", elsewhere.address);
    let server = Server::start(move |request, reply| {
        if request.path.starts_with("/token") {
            let form = String::from_utf8(reply.body(request, usize::MAX)).unwrap();
            assert!(form.contains("refresh_token=pa55"), "{form}");
            return reply.send("307 Temporary Redirect", &[&location], b"");
        }
        let host = request.header("host").unwrap();
        let challenge = format!(r#"WWW-Authenticate: Bearer realm="http://{host}/token""#);
        reply.send("401 Unauthorized", &[&challenge], b"");
    });
    let directory = tempfile::tempdir().unwrap();
    let authfile = directory.path().join("auth.json");
    let entry = format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"pa55"}}}}}}"#,
        server.address
    );
    fs_err::write(&authfile, entry).unwrap();
    let logins = Logins {
        authfile: Some(authfile),
        given: None,
    };
    let options = Options {
        logins,
        ..Options::default()
    };
    let net = net::Client::new(net::Options::default());
    let client = Client::new(options, Arc::new(net));
    let error = fetch(&client, &server, &blob(b"x")).unwrap_err();
    let redirected = matches!(error, Error::Net(net::Error::Redirect { .. }));
    assert!(
        redirected && !format!("{error:?}").contains("pa55"),
        "{error}"
    );
    assert_eq!(elsewhere.requests().len(), 0);
    assert_eq!(server.requests().len(), 2);
}

/// A registry names a token server with a user of its own, and rights that nobody asked for.
#[test]
fn a_challenge_changes_neither_the_login_nor_the_rights() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = noise(100);
    for login in [None, Some("bWU6cGE1NQ==")] {
        let content = bytes.clone();
        let expected = login.map(|login| format!("Basic {login}"));
        let server = Server::start(move |request, reply| {
            if request.path.starts_with("/token") {
                assert_eq!(request.header("authorization"), expected.as_deref());
                let scopes: Vec<_> = request.path.match_indices("scope=").collect();
                assert_eq!(scopes.len(), 1, "{}", request.path);
                let own = "scope=repository%3Ateam%2Fimage%3Apull";
                assert!(request.path.ends_with(own), "{}", request.path);
                return reply.send("200 OK", &[], br#"{"token":"hush"}"#);
            }
            if request.header("authorization") == Some("Bearer hush") {
                return reply.cut(request, &content, usize::MAX);
            }
            let host = request.header("host").unwrap();
            let challenge = format!(
                r#"WWW-Authenticate: Bearer realm="http://other:word@{host}/token",scope="repository:team/image:pull,push,delete repository:other/secret:pull registry:catalog:*""#
            );
            reply.send("401 Unauthorized", &[&challenge], b"");
        });
        let authfile = directory.path().join("auth.json");
        let auths = login.map_or_else(String::new, |login| {
            format!(r#""{}":{{"auth":"{login}"}}"#, server.address)
        });
        fs_err::write(&authfile, format!(r#"{{"auths":{{{auths}}}}}"#)).unwrap();
        let logins = Logins {
            authfile: Some(authfile),
            given: None,
        };
        let options = Options {
            logins,
            ..Options::default()
        };
        let net = net::Client::new(net::Options::default());
        let client = Client::new(options, Arc::new(net));
        fetch(&client, &server, &blob(&bytes)).unwrap();
        assert_eq!(server.requests().len(), 3);
    }
}

#[test]
fn errors_from_behind_a_redirect_show_no_signature() {
    let elsewhere = Server::start(|_, reply| reply.send("403 Forbidden", &[], b"expired"));
    let location = format!("Location: http://{}/blob?signature=hush", elsewhere.address);
    let server = Server::start(move |_, reply| reply.send("302 Found", &[&location], b""));
    let error = fetch(&client(), &server, &blob(b"x")).unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains("403") && shown.contains("expired") && !shown.contains("hush"),
        "{shown}"
    );
    drop(elsewhere);
    let error = fetch(&client(), &server, &blob(b"x")).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
}

#[test]
fn a_circle_of_redirects_ends() {
    let server = Server::start(|request, reply| {
        reply.send("302 Found", &[&format!("Location: {}x", request.path)], b"");
    });
    let error = fetch(&client(), &server, &blob(b"x")).unwrap_err();
    assert!(
        matches!(error, Error::Net(net::Error::Redirect { .. })),
        "{error}"
    );
    assert!(server.requests().len() <= 20);
}

#[test]
fn answers_of_token_servers_are_not_trusted() {
    for answer in ["{}", "not json", r#"{"token":""}"#, r#"{"token":"a\nb"}"#] {
        let server = Server::start(move |request, reply| {
            if request.path.starts_with("/token") {
                return reply.send("200 OK", &[], answer.as_bytes());
            }
            let host = request.header("host").unwrap();
            let challenge = format!(r#"WWW-Authenticate: Bearer realm="http://{host}/token""#);
            reply.send("401 Unauthorized", &[&challenge], b"");
        });
        let error = fetch(&client(), &server, &blob(b"x")).unwrap_err();
        assert!(matches!(error, Error::NoToken { .. }), "{error}");
    }
}

#[test]
fn documents_are_held_against_their_digest_and_their_limit() {
    let ask = |client: &Client, server: &Server| {
        client.document(&reference(server), None, &Progress::silent())
    };
    let server = Server::start(|_, reply| {
        let other = format!(
            "Docker-Content-Digest: {}",
            crate::digest::Digest::of(b"other")
        );
        reply.send("200 OK", &[&other], b"{}");
    });
    let error = ask(&client(), &server).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let server = Server::start(|_, reply| reply.send("200 OK", &[], &vec![b' '; (4 << 20) + 1]));
    let error = ask(&client(), &server).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let server = Server::start(|_, reply| {
        let words = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        reply.send("404 Not Found", &["Content-Type: application/json"], words);
    });
    let error = ask(&client(), &server).unwrap_err();
    assert!(error.to_string().ends_with("manifest unknown"), "{error}");
    assert!(
        error.hint().unwrap().contains("/team/image:1`"),
        "{:?}",
        error.hint()
    );
    assert_eq!(
        client()
            .head(&reference(&server), &Progress::silent())
            .unwrap(),
        None
    );
    Place::new().assert_clean();
}
