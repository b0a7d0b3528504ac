use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flate2::write::GzEncoder;

use super::server::Server;
use super::{Place, blob, client, client_with, fetch, noise, reference};
use crate::net;
use crate::progress::Progress;
use crate::registry::{Error, Fault, Options};

#[test]
fn a_blob_that_is_cut_again_and_again_is_resumed_where_it_was_cut() {
    let bytes = noise(3_000_000);
    let (total, content) = (Arc::new(AtomicUsize::new(0)), bytes.clone());
    let count = total.clone();
    let server = Server::start(move |request, reply| {
        // Twelve cuts are more than the attempts that are made without progress.
        let length = if request.number < 12 {
            1 + 7919 * request.number * request.number % 250_000
        } else {
            usize::MAX
        };
        count.fetch_add(
            length.min(content.len() - request.from()),
            Ordering::Relaxed,
        );
        reply.cut(request, &content, length);
    });
    fetch(&client(), &server, &blob(&bytes)).unwrap();
    assert_eq!(server.requests().len(), 13);
    assert!(
        server
            .requests()
            .iter()
            .skip(1)
            .any(|request| request.from() > 0)
    );
    assert_eq!(
        total.load(Ordering::Relaxed),
        bytes.len(),
        "some bytes were fetched twice"
    );
}

#[test]
fn a_blob_that_is_compressed_on_its_way_is_decoded() {
    let bytes = noise(300_000);
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&bytes).unwrap();
    let coded = encoder.finish().unwrap();
    let server = Server::start(move |request, reply| {
        let length = format!("Content-Length: {}", coded.len());
        let lines = [length.as_str(), "Content-Encoding: gzip"];
        let end = if request.number == 0 {
            coded.len() / 2
        } else {
            coded.len()
        };
        reply.raw("200 OK", &lines, &coded[..end]);
    });
    fetch(&client(), &server, &blob(&bytes)).unwrap();
    let requests = server.requests();
    assert_eq!(requests[0].header("accept-encoding"), Some("identity"));
    assert_eq!(requests[1].from(), 0, "a coded body cannot be resumed");
}

#[test]
fn a_compressed_blob_that_says_so_itself_is_taken_as_it_is() {
    let bytes = noise(10_000);
    let content = bytes.clone();
    let server = Server::start(move |_, reply| {
        reply.send("200 OK", &["Content-Encoding: gzip"], &content);
    });
    fetch(&client(), &server, &blob(&bytes)).unwrap();
}

#[test]
fn a_server_without_ranges_is_asked_for_all_of_it_again() {
    let bytes = noise(200_000);
    let content = bytes.clone();
    let server = Server::start(move |request, reply| {
        let length = format!("Content-Length: {}", content.len());
        let end = if request.number < 2 {
            50_000 * (request.number + 1)
        } else {
            content.len()
        };
        reply.raw("200 OK", &[&length], &content[..end]);
    });
    fetch(&client(), &server, &blob(&bytes)).unwrap();
    let from: Vec<_> = server
        .requests()
        .iter()
        .map(super::server::Request::from)
        .collect();
    assert_eq!(from, [0, 50_000, 100_000]);
}

#[test]
fn a_range_that_cannot_be_served_begins_anew() {
    let bytes = noise(100_000);
    let content = bytes.clone();
    let server = Server::start(move |request, reply| match request.number {
        0 => reply.cut(request, &content, 10_000),
        1 => reply.send("416 Range Not Satisfiable", &[], b""),
        _ => reply.send("200 OK", &[], &content[request.from()..]),
    });
    fetch(&client(), &server, &blob(&bytes)).unwrap();
    assert_eq!(server.requests()[2].from(), 0);
}

#[test]
fn an_endless_cutter_is_given_up() {
    let bytes = noise(10_000);
    let content = bytes.clone();
    let server = Server::start(move |_, reply| {
        reply.raw("200 OK", &["Content-Length: 10000"], &content[..5000]);
    });
    let error = fetch(&client(), &server, &blob(&bytes)).unwrap_err();
    assert!(
        matches!(error, Error::Net(net::Error::Broken { .. })),
        "{error}"
    );
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn a_busy_registry_is_asked_again_after_the_time_it_names() {
    let bytes = noise(1000);
    let content = bytes.clone();
    let server = Server::start(move |request, reply| match request.number {
        0 => reply.send("429 Too Many Requests", &["Retry-After: 1"], b""),
        1 | 2 => reply.send("503 Service Unavailable", &[], b""),
        _ => reply.send("200 OK", &[], &content),
    });
    let began = Instant::now();
    fetch(&client(), &server, &blob(&bytes)).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_rate_limit_is_reported_in_the_words_of_the_registry() {
    let server = Server::start(|_, reply| {
        let words = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull\u001b[31m rate limit"}]}"#;
        reply.send(
            "429 Too Many Requests",
            &["Content-Type: application/json"],
            words,
        );
    });
    let error = fetch(&client(), &server, &blob(b"x")).unwrap_err();
    assert_eq!(server.requests().len(), 5);
    // Whoever prints it cleans it.
    assert!(
        error
            .to_string()
            .ends_with("You have reached your pull\u{1b}[31m rate limit"),
        "{error}"
    );
    assert!(error.is_unreachable() && error.hint().is_some());

    let patient = Server::start(|_, reply| {
        reply.send(
            "429 Too Many Requests",
            &["Retry-After: 21600"],
            b"come back tomorrow\n",
        );
    });
    let error = fetch(&client(), &patient, &blob(b"x")).unwrap_err();
    assert_eq!(patient.requests().len(), 1, "nobody waits for six hours");
    assert!(error.to_string().ends_with("come back tomorrow"), "{error}");
}

#[test]
fn other_bytes_than_promised_are_refused() {
    let bytes = noise(50_000);
    let wrong = noise(50_001)[1..].to_vec();
    let server = Server::start(move |_, reply| reply.send("200 OK", &[], &wrong));
    let error = fetch(&client(), &server, &blob(&bytes)).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_body_of_another_length_is_refused_at_once() {
    for announced in [true, false] {
        let long = noise(60_000);
        let server = Server::start(move |_, reply| {
            let headers: &[&str] = if announced {
                &["Content-Length: 9999999999999"]
            } else {
                &[]
            };
            reply.raw("200 OK", headers, &long);
        });
        let error = fetch(&client(), &server, &blob(&noise(50_000))).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Size {
                    expected: 50_000,
                    ..
                }
            ),
            "{error}"
        );
    }
    let server = Server::start(|_, reply| reply.send("200 OK", &[], b"short"));
    let error = fetch(&client(), &server, &blob(&noise(50_000))).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Size {
                expected: 50_000,
                found: 5,
                ..
            }
        ),
        "{error}"
    );
    // Without a length, the end of the connection is the end of the body.
    let server = Server::start(|_, reply| reply.raw("200 OK", &[], b"short"));
    let error = fetch(&client(), &server, &blob(&noise(50_000))).unwrap_err();
    assert!(
        matches!(error, Error::Net(net::Error::Broken { .. })),
        "{error}"
    );
}

#[test]
fn a_stalled_server_is_left_as_soon_as_the_build_is_told_to_stop() {
    let server = Server::start(|_, reply| {
        reply.raw("200 OK", &["Content-Length: 1000"], b"not all");
        std::thread::sleep(Duration::from_secs(4));
    });
    let place = Place::new();
    let progress = Progress::silent();
    let handle = progress.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        handle.stop();
        Instant::now()
    });
    let error = client()
        .fetch(
            &reference(&server),
            &[blob(&noise(1000))],
            &place.store,
            &progress,
        )
        .unwrap_err();
    let told = stopper.join().unwrap();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
    assert!(
        told.elapsed() < Duration::from_millis(500),
        "{:?}",
        told.elapsed()
    );
    place.assert_clean();
}

#[test]
fn a_stalled_server_is_asked_again_for_the_rest() {
    let bytes = noise(1000);
    let content = bytes.clone();
    let server = Server::start(move |request, reply| {
        let stalls = request.number == 0;
        reply.cut(request, &content, if stalls { 400 } else { 1000 });
        if stalls {
            std::thread::sleep(Duration::from_secs(2));
        }
    });
    let client = client_with(net::Options::default(), Duration::from_millis(200));
    fetch(&client, &server, &blob(&bytes)).unwrap();
    assert_eq!(server.requests()[1].from(), 400);
}

#[test]
fn many_blobs_come_side_by_side_but_none_twice() {
    let blobs: Vec<Vec<u8>> = (0..12).map(|length| noise(10_000 + length)).collect();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (content, running, peak) = (blobs.clone(), now.clone(), most.clone());
    let server = Server::start(move |request, reply| {
        peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        let wanted = content
            .iter()
            .find(|bytes| request.path.contains(&blob(bytes).digest.hex()));
        running.fetch_sub(1, Ordering::SeqCst);
        reply.send("200 OK", &[], wanted.unwrap());
    });
    let place = Place::new();
    let mut wanted: Vec<_> = blobs.iter().map(|bytes| blob(bytes)).collect();
    wanted.extend(wanted.clone());
    let client = client();
    for _ in 0..2 {
        client
            .fetch(
                &reference(&server),
                &wanted,
                &place.store,
                &Progress::silent(),
            )
            .unwrap();
    }
    assert!(wanted.iter().all(|blob| place.store.has(blob)));
    assert_eq!(
        server
            .requests()
            .iter()
            .filter(|request| request.path.contains("/blobs/"))
            .count(),
        12
    );
    assert_eq!(most.load(Ordering::SeqCst), Options::default().jobs);
    place.assert_clean();
}

#[test]
fn nobody_at_home_is_said_plainly() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ask = |host: &str| {
        let reference = format!("{host}/x").parse().unwrap();
        client()
            .document(&reference, None, &Progress::silent())
            .unwrap_err()
    };
    let error = ask(&free.to_string());
    assert!(
        matches!(
            &error,
            Error::Net(net::Error::Unreachable {
                fault: Fault::Refused,
                ..
            })
        ),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        format!("`{free}` cannot be reached: connection refused")
    );
    let error = ask("registry.invalid:5000");
    assert!(
        matches!(
            &error,
            Error::Net(net::Error::Unreachable {
                fault: Fault::Lookup(_),
                ..
            })
        ),
        "{error:?}"
    );
}
