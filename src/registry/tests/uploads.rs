//! Pushing to registries that have their ways, good and bad.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::server::{Reply, Request, Server};
use super::{Place, client, client_with, noise, reference};
use crate::digest::Digest;
use crate::manifest::{Descriptor, media_type};
use crate::net;
use crate::progress::Progress;
use crate::registry::{Blob, BlobPlace, Content, Error};
use crate::store;

const MEBI: usize = 1 << 20;

/// What a registry of one upload has and was sent.
#[derive(Default)]
struct Shelf {
    upload: Vec<u8>,
    sent: usize,
    tag: Option<Vec<u8>>,
    sessions: usize,
    failures: usize,
}

/// How a registry is odd: what it does in place of the usual, if it returns true.
type Oddity = dyn Fn(&Request, &mut Reply<'_>, &mut Shelf) -> bool + Send + Sync;

/// A registry of the distribution specification, but for what `oddity` does.
fn registry(
    oddity: impl Fn(&Request, &mut Reply<'_>, &mut Shelf) -> bool + Send + Sync + 'static,
) -> (Server, Arc<Mutex<Shelf>>) {
    let shelf = Arc::<Mutex<Shelf>>::default();
    let (state, oddity): (_, Box<Oddity>) = (shelf.clone(), Box::new(oddity));
    let server = Server::start(move |request, reply| {
        let shelf = &mut *state.lock().unwrap();
        if oddity(request, reply, shelf) {
            return;
        }
        match request.method.as_str() {
            "HEAD" => reply.send("404 Not Found", &[], b""),
            "POST" => {
                shelf.upload.clear();
                shelf.sessions += 1;
                let location = format!("Location: /session/{}?state=hush", shelf.sessions);
                reply.send("202 Accepted", &[&location], b"");
            }
            "GET" => {
                let range = format!("Range: 0-{}", shelf.upload.len().saturating_sub(1));
                reply.send("204 No Content", &[&range], b"");
            }
            "PATCH" => {
                let body = reply.body(request, usize::MAX);
                take(shelf, request, &body);
                let range = format!("Range: 0-{}", shelf.upload.len() - 1);
                let location = format!("Location: {}", request.path);
                reply.send("202 Accepted", &[&range, &location], b"");
            }
            "PUT" if request.path.contains("/manifests/") => {
                shelf.tag = Some(reply.body(request, usize::MAX));
                reply.send("201 Created", &[], b"");
            }
            "PUT" => {
                assert!(request.path.contains("state=hush&digest=sha256%3A"));
                let body = reply.body(request, usize::MAX);
                take(shelf, request, &body);
                let digest = Digest::of(&shelf.upload).to_string();
                if request.path.ends_with(&digest.replace(':', "%3A")) {
                    let digest = format!("Docker-Content-Digest: {digest}");
                    reply.send("201 Created", &[&digest], b"");
                } else {
                    let words = br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#;
                    reply.send("400 Bad Request", &[], words);
                }
            }
            _ => reply.send("204 No Content", &[], b""),
        }
    });
    (server, shelf)
}

fn take(shelf: &mut Shelf, request: &Request, body: &[u8]) {
    if let Some(range) = request.header("content-range") {
        let expected = format!(
            "{}-{}",
            shelf.upload.len(),
            shelf.upload.len() + body.len() - 1
        );
        assert_eq!(range, expected);
    } else if request.method == "PATCH" {
        assert!(shelf.upload.is_empty());
    }
    shelf.sent += body.len();
    shelf.upload.extend_from_slice(body);
}

/// Whether bytes of a blob may come with it.
fn sends(request: &Request) -> bool {
    matches!(request.method.as_str(), "PATCH" | "PUT") && !request.path.contains("/manifests/")
}

/// An image of one blob.
fn image(place: &Place, bytes: &[u8]) -> Content {
    let path = place.store.root().join("tmp/blob");
    fs_err::write(&path, bytes).unwrap();
    let size = bytes.len() as u64;
    let manifest = b"{}".to_vec();
    let digest = Digest::of(&manifest);
    Content {
        blobs: vec![Blob {
            descriptor: Descriptor::new(media_type::OCI_LAYER, Digest::of(bytes), size),
            place: BlobPlace::Store(path),
        }],
        documents: vec![(
            Descriptor::new(media_type::OCI_MANIFEST, digest, 2),
            manifest,
        )],
    }
}

fn push(server: &Server, place: &Place, content: &Content) -> Result<(), Error> {
    let target = reference(server);
    client().push(content, &target, &place.store, &Progress::silent())
}

/// Pushes `bytes`, which have to arrive.
fn arrives(server: &Server, shelf: &Mutex<Shelf>, bytes: &[u8]) {
    let place = Place::new();
    push(server, &place, &image(&place, bytes)).unwrap();
    let shelf = shelf.lock().unwrap();
    assert!(shelf.upload == bytes);
    assert_eq!(shelf.tag.as_deref(), Some(&b"{}"[..]));
}

#[test]
fn blobs_take_one_request_and_after_a_failure_large_ones_can_be_resumed() {
    for size in [0, 1, 2, 1000, MEBI, MEBI + 1, 3 * MEBI] {
        for failures in [0, 1] {
            let (server, shelf) = registry(move |request, reply, shelf| {
                let fails = sends(request) && shelf.failures < failures;
                if fails {
                    shelf.failures += 1;
                    reply.body(request, usize::MAX);
                    reply.send("503 Service Unavailable", &[], b"");
                }
                fails
            });
            arrives(&server, &shelf, &noise(size));
            assert_eq!(shelf.lock().unwrap().sent, size);
            let requests = server.requests();
            let patches = requests.iter().filter(|request| request.method == "PATCH");
            let expected = usize::from(size > MEBI && failures > 0);
            assert_eq!(patches.count(), expected, "{size}");
            let sent = requests.iter().filter(|request| sends(request));
            assert_eq!(sent.count(), 1 + failures + expected, "{size}");
        }
    }
}

#[test]
fn large_requests_are_cut_where_they_are_refused() {
    let (server, shelf) = registry(|request, reply, _| {
        let length = request.header("content-length").unwrap_or("0");
        let refused = length.parse::<usize>().unwrap() > 4 * MEBI;
        if refused {
            reply.send("413 Payload Too Large", &[], b"");
        }
        refused
    });
    arrives(&server, &shelf, &noise(9 * MEBI));

    let (server, _) = registry(|request, reply, _| {
        let refused = sends(request);
        if refused {
            reply.body(request, usize::MAX);
            reply.send("413 Payload Too Large", &[], b"");
        }
        refused
    });
    let place = Place::new();
    let error = push(&server, &place, &image(&place, &noise(9 * MEBI))).unwrap_err();
    assert!(error.to_string().contains("413"), "{error}");
    assert!(error.hint().unwrap().contains("larger limit"));
}

#[test]
fn an_upload_that_is_cut_goes_on_where_it_was() {
    let (server, shelf) = registry(|request, reply, shelf| {
        let cut = sends(request) && shelf.upload.len() < 4 * MEBI;
        if cut {
            let body = reply.body(request, MEBI);
            let range = request.header("content-range").unwrap_or("0-");
            assert!(range.starts_with(&format!("{}-", shelf.upload.len())));
            shelf.sent += body.len();
            shelf.upload.extend(body);
        }
        cut
    });
    let place = Place::new();
    // More cuts than there are attempts, but each one after new ground.
    let bytes = noise(8 * MEBI);
    push(&server, &place, &image(&place, &bytes)).unwrap();
    let shelf = shelf.lock().unwrap();
    assert!(shelf.upload == bytes);
    assert_eq!((shelf.sent, shelf.sessions), (8 * MEBI, 1));
}

#[test]
fn slowness_is_borne_and_silence_is_not() {
    let stall = Duration::from_millis(300);
    let place = Place::new();
    let bytes = noise(8 * MEBI);
    let content = image(&place, &bytes);
    let client = || client_with(net::Options::default(), stall);
    let push = |server: &Server| {
        let target = reference(server);
        client().push(&content, &target, &place.store, &Progress::silent())
    };
    // All in all it takes much longer than a silence may.
    let (server, shelf) = registry(|request, reply, shelf| {
        if sends(request) {
            for _ in 0..32 {
                std::thread::sleep(Duration::from_millis(30));
                shelf.upload.extend(reply.part(MEBI / 4));
            }
            reply.send("201 Created", &[], b"");
        }
        sends(request)
    });
    push(&server).unwrap();
    assert!(shelf.lock().unwrap().upload == bytes);
    let requests = server.requests();
    assert_eq!(requests.iter().filter(|request| sends(request)).count(), 1);

    let (server, _) = registry(move |request, reply, _| {
        if sends(request) {
            reply.part(MEBI);
            std::thread::sleep(stall * 10);
        }
        sends(request)
    });
    let error = push(&server).unwrap_err();
    assert!(error.to_string().contains("no answer in time"), "{error}");
}

#[test]
fn a_lost_session_is_begun_anew() {
    let cases = [
        ("PATCH", "404 Not Found"),
        ("PATCH", "416 Range Not Satisfiable"),
        ("PATCH", "400 Bad Request"),
        ("PUT", "404 Not Found"),
        ("PUT", "416 Range Not Satisfiable"),
    ];
    for (method, status) in cases {
        let (server, shelf) = registry(move |request, reply, shelf| {
            // The first attempt is one request, the second one is more.
            let ends = shelf.sessions == 1 || (shelf.sessions == 2 && request.method == method);
            let lost = sends(request) && ends;
            if lost {
                let words = br#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#;
                reply.body(request, usize::MAX);
                reply.send(status, &[], words);
            }
            lost
        });
        arrives(&server, &shelf, &noise(2 * MEBI));
        assert_eq!(shelf.lock().unwrap().sessions, 3, "{method} {status}");
    }
}

#[test]
fn bytes_that_are_wrong_here_are_not_sent_again() {
    let (server, shelf) = registry(|_, _, _| false);
    let place = Place::new();
    let mut content = image(&place, &noise(2 * MEBI));
    content.blobs[0].descriptor.digest = Digest::of(b"other");
    let error = push(&server, &place, &content).unwrap_err();
    let damaged = matches!(error, Error::Store(store::Error::Damaged { .. }));
    assert!(damaged, "{error}");
    content.blobs[0].descriptor.size += 1;
    let error = push(&server, &place, &content).unwrap_err();
    let short = matches!(error, Error::Store(store::Error::Size { .. }));
    assert!(short, "{error}");
    let shelf = shelf.lock().unwrap();
    assert_eq!((shelf.sent, shelf.tag.is_none()), (2 * MEBI, true));
}

#[test]
fn a_registry_that_takes_something_else_is_not_believed() {
    let (server, shelf) = registry(|request, reply, _| {
        let wrong = request.method == "PUT" && !request.path.contains("/manifests/");
        if wrong {
            reply.body(request, usize::MAX);
            let other = format!("Docker-Content-Digest: {}", Digest::of(b"other"));
            reply.send("201 Created", &[&other], b"");
        }
        wrong
    });
    let place = Place::new();
    let error = push(&server, &place, &image(&place, &noise(10))).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    assert!(shelf.lock().unwrap().tag.is_none());
}

#[test]
fn an_upload_elsewhere_takes_no_login_along() {
    let requests = AtomicUsize::new(0);
    let elsewhere = Server::start(move |request, reply| {
        assert!(request.header("authorization").is_none());
        reply.body(request, usize::MAX);
        let location = format!("Location: {}", request.path);
        let status = match request.method.as_str() {
            "PUT" if requests.fetch_add(1, Ordering::Relaxed) == 0 => "503 Service Unavailable",
            "PUT" => "201 Created",
            "GET" => "204 No Content",
            _ => "202 Accepted",
        };
        reply.send(status, &[&location], b"");
    });
    let location = format!("Location: http://{}/session?signature=x", elsewhere.address);
    let (server, _) = registry(move |request, reply, _| {
        if request.path.starts_with("/token") {
            reply.send("200 OK", &[], br#"{"token":"hush"}"#);
        } else if request.header("authorization").is_none() {
            let host = request.header("host").unwrap();
            let challenge = format!(r#"WWW-Authenticate: Bearer realm="http://{host}/token""#);
            reply.send("401 Unauthorized", &[&challenge], b"");
        } else if request.method == "POST" {
            reply.send("202 Accepted", &[&location], b"");
        } else {
            return false;
        }
        true
    });
    let place = Place::new();
    push(&server, &place, &image(&place, &noise(2 * MEBI))).unwrap();
    // All in one, where it is, and the rest in two.
    assert_eq!(elsewhere.requests().len(), 4);
}

#[test]
fn blobs_are_mounted_from_where_they_were_seen() {
    for (status, uploads) in [
        ("201 Created", 0),
        ("202 Accepted", 1),
        ("405 Method Not Allowed", 2),
    ] {
        let (server, shelf) = registry(move |request, reply, _| {
            let mount = request.method == "POST" && request.path.contains("mount=");
            if mount {
                assert!(request.path.ends_with("&from=other%2Fimage"));
                reply.send(status, &["Location: /session/9?state=hush"], b"");
            }
            mount
        });
        let place = Place::new();
        let content = image(&place, &noise(2 * MEBI));
        let digest = content.blobs[0].descriptor.digest;
        let registry = reference(&server).registry().to_owned();
        for seen in ["elsewhere/image", &format!("{registry}/other/image")] {
            place.store.saw(&digest, seen).unwrap();
        }
        push(&server, &place, &content).unwrap();
        let requests = server.requests();
        let posts = requests.iter().filter(|request| request.method == "POST");
        assert_eq!(posts.count(), uploads.max(1), "{status}");
        let sent = shelf.lock().unwrap().sent;
        assert_eq!(sent, if uploads == 0 { 0 } else { 2 * MEBI }, "{status}");
    }
}

fn refuse_change(request: &Request, reply: &mut Reply<'_>) {
    reply.body(request, usize::MAX);
    let words = br#"{"errors":[{"message":"the tag is immutable"}]}"#;
    reply.send("400 Bad Request", &[], words);
}

#[test]
fn a_tag_that_cannot_be_changed_may_be_right_already() {
    let named = format!("Docker-Content-Digest: {}", Digest::of(b"{}"));
    for set_before in [true, false] {
        let named = named.clone();
        let (server, shelf) = registry(move |request, reply, shelf| {
            let is_tag = request.path.ends_with("/manifests/1");
            match request.method.as_str() {
                "HEAD" if is_tag && (set_before || shelf.tag.is_some()) => {
                    reply.send("200 OK", &[&named], b"");
                }
                // The first answer is lost, and then the tag is there for good.
                "PUT" if is_tag && shelf.tag.is_none() => {
                    shelf.tag = Some(reply.body(request, usize::MAX));
                }
                "PUT" if is_tag => refuse_change(request, reply),
                _ => return false,
            }
            true
        });
        let place = Place::new();
        push(&server, &place, &image(&place, &noise(10))).unwrap();
        let puts = server.requests();
        let puts = puts.iter().filter(|request| request.method == "PUT");
        assert_eq!(puts.count(), if set_before { 0 } else { 3 });
        assert_eq!(shelf.lock().unwrap().tag.is_none(), set_before);
    }

    let (server, _) = registry(|request, reply, _| {
        let is_tag = request.path.ends_with("/manifests/1");
        match request.method.as_str() {
            "HEAD" if is_tag => {
                let other = format!("Docker-Content-Digest: {}", Digest::of(b"other"));
                reply.send("200 OK", &[&other], b"");
            }
            "PUT" if is_tag => refuse_change(request, reply),
            _ => return false,
        }
        true
    });
    let place = Place::new();
    let error = push(&server, &place, &image(&place, &noise(10))).unwrap_err();
    assert!(
        error.to_string().ends_with("the tag is immutable"),
        "{error}"
    );
}

#[test]
fn asking_for_permission_leaves_nothing() {
    let (server, shelf) = registry(|_, _, _| false);
    let target = reference(&server);
    client().check(&target, &Progress::silent()).unwrap();
    let methods: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.method.clone())
        .collect();
    assert_eq!(methods[methods.len() - 2..], ["POST", "DELETE"]);
    assert!(shelf.lock().unwrap().tag.is_none());

    let (server, _) = registry(|request, reply, _| {
        let refused = request.method == "POST";
        if refused {
            let words = br#"{"errors":[{"message":"requested access is denied"}]}"#;
            reply.send("403 Forbidden", &[], words);
        }
        refused
    });
    let target = reference(&server);
    let error = client().check(&target, &Progress::silent()).unwrap_err();
    assert!(
        error.to_string().ends_with("requested access is denied"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("pyats-image-build login"));
}
