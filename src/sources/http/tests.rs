//! Downloads from a server that misbehaves on purpose.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use std::time::{Duration, Instant};

use flate2::write::{GzEncoder, ZlibEncoder};
use fs_err as fs;
use sha2::{Digest as _, Sha256};

use super::{Answer, Fetch, Validator};
use crate::buildfile::{BuildFile, Source};
use crate::net::{self, Timing};
use crate::progress::Progress;
use crate::registry::tests::server::{Reply, Request, Server};
use crate::sources::ssh;

const ETAG: &str = "ETag: \"one\"";

fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// Fetches `path` of the server, with more or less patience and with what is known of it.
struct Get<'a> {
    server: &'a Server,
    path: &'a str,
    known: Option<&'a Validator>,
    stall: Duration,
    progress: Progress,
}

impl<'a> Get<'a> {
    fn new(server: &'a Server, path: &'a str) -> Self {
        Self {
            server,
            path,
            known: None,
            stall: Duration::from_secs(10),
            progress: Progress::silent(),
        }
    }

    /// The validator and the bytes; none if nothing changed. An error is its whole chain and its hint.
    fn run(self) -> Result<Option<(Validator, Vec<u8>)>, String> {
        let timing = Timing {
            stall: self.stall,
            backoff: Duration::from_millis(1),
            ..Timing::default()
        };
        let net = net::Client::with_timing(net::Options::default(), timing);
        let url = format!("http://{}/{}", self.server.address, self.path);
        let text = format!("files: ['{url}']");
        let buildfile = BuildFile::parse("build.yaml", &text, &|_| None).unwrap();
        let Source::Http(location) = &buildfile.files[0].source else {
            panic!("{url} is http");
        };
        let directory = tempfile::tempdir().unwrap();
        let into = directory.path().join("file");
        let part = self.progress.start("test");
        let fetch = Fetch {
            net: &net,
            ssh: &ssh::Options::default(),
            progress: &self.progress,
            part: &part,
        };
        let answer = super::fetch(location, &into, self.known, fetch);
        assert_eq!(into.exists(), matches!(answer, Ok(Answer::Fetched(_))));
        match answer {
            Ok(Answer::Unchanged) => Ok(None),
            Ok(Answer::Fetched(validator)) => {
                let mode = fs::metadata(&into).unwrap().permissions().mode();
                assert_eq!(mode & 0o7777, 0o644);
                Ok(Some((validator, fs::read(&into).unwrap())))
            }
            Err(error) => {
                let hint = error.hint().unwrap_or_default();
                let mut text = error.to_string();
                let mut cause: &dyn std::error::Error = &error;
                while let Some(source) = cause.source() {
                    text.push_str(": ");
                    text.push_str(&source.to_string());
                    cause = source;
                }
                Err(format!("{text}; {hint}"))
            }
        }
    }
}

fn get(server: &Server, path: &str) -> Result<Vec<u8>, String> {
    let (_, bytes) = Get::new(server, path).run()?.expect("nothing is known");
    Ok(bytes)
}

/// A part of the content as it was asked for, or all of it, cut after `bytes`.
fn part(request: &Request, reply: &mut Reply<'_>, bytes: usize, headers: &[&str]) {
    let (content, from) = (content(), request.from());
    let rest = &content[from..];
    let length = format!("Content-Length: {}", rest.len());
    let range = format!(
        "Content-Range: bytes {from}-{}/{}",
        content.len() - 1,
        content.len()
    );
    let mut lines = vec![length.as_str()];
    lines.extend(headers);
    let status = if from > 0 {
        lines.push(&range);
        "206 Partial Content"
    } else {
        "200 OK"
    };
    reply.raw(status, &lines, &rest[..bytes.min(rest.len())]);
}

#[test]
fn a_file_that_is_cut_is_resumed_where_it_was_cut() {
    let server = Server::start(|request, reply| {
        let bytes = if request.number < 8 {
            1000 + request.number
        } else {
            usize::MAX
        };
        part(request, reply, bytes, &[ETAG]);
    });
    assert!(get(&server, "x").unwrap() == content());
    let requests = server.requests();
    assert_eq!(requests.len(), 9);
    assert_eq!(requests[0].header("range"), None);
    assert_eq!(requests[1].header("range"), Some("bytes=1000-"));
    assert_eq!(requests[2].header("range"), Some("bytes=2001-"));
    assert_eq!(requests[2].header("if-range"), Some("\"one\""));
    assert_eq!(requests[2].header("accept-encoding"), Some("identity"));
}

#[test]
fn what_may_have_changed_begins_anew() {
    // Without a strong mark nothing says that the rest belongs to what is there.
    for mark in ["X: y", "ETag: W/\"weak\""] {
        let server = Server::start(move |request, reply| {
            let bytes = if request.number == 0 {
                5000
            } else {
                usize::MAX
            };
            part(request, reply, bytes, &[mark]);
        });
        assert!(get(&server, "x").unwrap() == content());
        assert_eq!(server.requests()[1].header("range"), None, "{mark}");
    }
    // A server that knows no ranges, or whose file is another one by now, sends all of it.
    let server = Server::start(|request, reply| match request.number {
        0 => part(request, reply, 5000, &[ETAG]),
        _ => reply.send("200 OK", &[], b"another"),
    });
    assert_eq!(get(&server, "x").unwrap(), b"another");
    // Parts that do not fit are not put together.
    for range in [
        "bytes 4999-399999/400000",
        "bytes 5000-399999/400001",
        "5000-",
        "bytes */400000",
    ] {
        let server = Server::start(move |request, reply| match request.number {
            0 => part(request, reply, 5000, &[ETAG]),
            1 => {
                let range = format!("Content-Range: {range}");
                reply.send("206 Partial Content", &[&range], &content()[5000..]);
            }
            _ => part(request, reply, usize::MAX, &[ETAG]),
        });
        assert!(get(&server, "x").unwrap() == content());
        assert_eq!(server.requests()[2].header("range"), None, "{range}");
    }
    let server = Server::start(|request, reply| match request.number {
        0 => part(
            request,
            reply,
            5000,
            &["Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"],
        ),
        1 => reply.send("416 Range Not Satisfiable", &[], b""),
        _ => part(request, reply, usize::MAX, &[]),
    });
    assert!(get(&server, "x").unwrap() == content());
    let requests = server.requests();
    assert_eq!(
        requests[1].header("if-range"),
        Some("Thu, 01 Jan 2026 00:00:00 GMT")
    );
    assert_eq!(requests[2].header("range"), None);
}

#[test]
fn the_length_is_verified() {
    // The rest is shorter than what was announced at first, and says so itself.
    let server = Server::start(|request, reply| match request.number {
        0 => part(request, reply, 5000, &[ETAG]),
        1 => reply.send(
            "206 Partial Content",
            &["Content-Range: bytes 5000-5999/400000"],
            &content()[5000..6000],
        ),
        _ => part(request, reply, usize::MAX, &[ETAG]),
    });
    assert!(get(&server, "x").unwrap() == content());
    assert_eq!(server.requests()[2].header("range"), Some("bytes=6000-"));

    let server = Server::start(|_, reply| {
        reply.raw("200 OK", &["Content-Length: 10", ETAG], b"12345");
    });
    let error = get(&server, "x").unwrap_err();
    assert!(error.contains("broke"), "{error}");
    assert!(server.requests().len() > 4, "it was tried again");

    let server = Server::start(|_, reply| {
        reply.raw("200 OK", &["Transfer-Encoding: chunked"], b"5\r\n12345\r\n");
    });
    assert!(get(&server, "x").unwrap_err().contains("broke"));
}

#[test]
fn what_passes_is_tried_again() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let server = Server::start(move |request, reply| match request.number {
            0 => reply.send(&format!("{status} Trouble"), &["Retry-After: 0"], b""),
            1 => reply.raw("", &[], b""),
            _ => reply.send("200 OK", &[], b"there"),
        });
        assert_eq!(get(&server, "x").unwrap(), b"there", "{status}");
    }
    for status in [400, 401, 403, 404, 410, 501] {
        let server = Server::start(move |_, reply| {
            reply.send(&format!("{status} No"), &[], b"not \x1b[31mhere\nand more");
        });
        let error = get(&server, "x?secret=signature").unwrap_err();
        assert!(error.contains(&format!("answered {status}")), "{error}");
        assert!(error.contains(": not \u{1b}[31mhere; "), "{error}");
        assert!(!error.contains("signature"), "{error}");
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[test]
fn a_server_may_ask_for_a_pause() {
    let date = |ahead: i64| {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let seconds = i64::try_from(now.as_secs()).unwrap() + ahead;
        let date = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
        date.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    for (pause, least) in [("1".to_owned(), 1000), (date(-100), 0)] {
        let server = Server::start(move |request, reply| match request.number {
            0 => reply.send("429 Too Many", &[&format!("Retry-After: {pause}")], b""),
            _ => reply.send("200 OK", &[], b"there"),
        });
        let began = Instant::now();
        assert_eq!(get(&server, "x").unwrap(), b"there");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(least), "{took:?}");
        assert!(took < Duration::from_millis(least * 4 + 1000), "{took:?}");
    }
    for pause in ["121".to_owned(), "99999999999".to_owned(), date(1000)] {
        let server = Server::start(move |_, reply| {
            reply.send(
                "429 Too Many",
                &[&format!("Retry-After: {pause}")],
                b"slow down",
            );
        });
        let error = get(&server, "x").unwrap_err();
        assert!(
            error.contains("slow down") && error.contains("wait"),
            "{error}"
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn silence_is_not_borne_for_ever() {
    for sent in [None, Some(5000)] {
        let server = Server::start(move |request, reply| {
            if let Some(bytes) = sent {
                part(request, reply, bytes, &[]);
            }
            std::thread::sleep(Duration::from_millis(900));
        });
        let began = Instant::now();
        let mut get = Get::new(&server, "x");
        get.stall = Duration::from_millis(100);
        let error = get.run().unwrap_err();
        assert!(error.contains("no answer in time"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn it_ends_when_the_build_is_told_to_stop() {
    let server = Server::start(|request, reply| {
        part(request, reply, 5000, &[]);
        std::thread::sleep(Duration::from_secs(3));
    });
    let get = Get::new(&server, "x");
    let handle = get.progress.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        handle.stop();
    });
    let began = Instant::now();
    let error = get.run().unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(1), "{error}");
    thread.join().unwrap();
}

#[test]
fn a_body_is_limited() {
    let server = Server::start(|_, reply| {
        reply.raw("200 OK", &["Content-Length: 68719476737"], b"endless");
    });
    let error = get(&server, "x").unwrap_err();
    assert!(error.contains("more than 64 GiB"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn digests_are_verified() {
    let digest = hex::encode(Sha256::digest(content()));
    let server = Server::start(|request, reply| part(request, reply, usize::MAX, &[]));
    for fragment in [digest.clone(), digest.to_uppercase()] {
        let path = format!("x#sha256={fragment}");
        let (validator, bytes) = Get::new(&server, &path).run().unwrap().unwrap();
        assert!(bytes == content());
        assert_eq!(validator["sha256"], digest.as_str());
        assert_eq!(validator["length"], content().len());
        // What is known to be right is not asked for.
        let before = server.requests().len();
        let again = Get {
            known: Some(&validator),
            ..Get::new(&server, &path)
        };
        assert_eq!(again.run(), Ok(None));
        assert_eq!(server.requests().len(), before);
    }
    assert!(get(&server, "x#egg=name").unwrap() == content());
    let wrong = "0".repeat(64);
    let error = get(&server, &format!("x#sha256={wrong}")).unwrap_err();
    assert!(error.contains(&wrong) && error.contains(&digest), "{error}");
    for fragment in [
        "sha256=",
        "sha256=12",
        &format!("sha256={}", "g".repeat(64)),
    ] {
        let error = get(&server, &format!("x#{fragment}")).unwrap_err();
        assert!(error.contains("64 hexadecimal digits"), "{error}");
    }
}

#[test]
fn a_file_is_asked_whether_it_changed() {
    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
    let server = Server::start(move |request, reply| {
        let known = request.header("if-none-match") == Some("\"one\"")
            || request.header("if-modified-since") == Some(date);
        match request.path.as_str() {
            _ if known => reply.send("304 Not Modified", &[], b""),
            "/etag" => reply.send("200 OK", &[ETAG], b"with a tag"),
            "/date" => reply.send(
                "200 OK",
                &[&format!("Last-Modified: {date}")],
                b"with a date",
            ),
            "/none" => reply.send("200 OK", &[], b"with nothing"),
            _ => reply.send("304 Not Modified", &[], b""),
        }
    });
    for path in ["etag", "date"] {
        let (validator, _) = Get::new(&server, path).run().unwrap().unwrap();
        let again = Get {
            known: Some(&validator),
            ..Get::new(&server, path)
        };
        assert_eq!(again.run(), Ok(None), "{path}");
        let mut other = validator.clone();
        other["etag"] = "\"two\"".into();
        other["last_modified"] = "Fri, 02 Jan 2026 00:00:00 GMT".into();
        let anew = Get {
            known: Some(&other),
            ..Get::new(&server, path)
        };
        assert_eq!(anew.run().unwrap().unwrap().0, validator);
    }
    let (validator, _) = Get::new(&server, "none").run().unwrap().unwrap();
    let again = Get {
        known: Some(&validator),
        ..Get::new(&server, "none")
    };
    assert!(
        again.run().unwrap().is_some(),
        "nothing tells whether it changed"
    );
    // What did not ask cannot be told that nothing changed.
    assert!(get(&server, "other").unwrap_err().contains("304"));
}

#[test]
fn a_body_compressed_on_the_way_is_decoded() {
    let server = Server::start(|request, reply| {
        let bytes = content();
        let (name, bytes) = if request.path.contains("deflate") {
            let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            ("deflate", encoder.finish().unwrap())
        } else {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            ("gzip", encoder.finish().unwrap())
        };
        let bytes = if request.path.contains("half") {
            &bytes[..bytes.len() / 2]
        } else {
            &bytes
        };
        let coding = format!("Content-Encoding: {name}");
        reply.send("200 OK", &[&coding, ETAG], bytes);
    });
    for name in ["gzip", "deflate"] {
        assert_eq!(get(&server, name).unwrap(), content(), "{name}");
        let digest = hex::encode(Sha256::digest(content()));
        let path = format!("{name}#sha256={digest}");
        assert_eq!(get(&server, &path).unwrap(), content(), "{name}");
        get(&server, &format!("half-{name}")).unwrap_err();
    }
    // The archive itself is meant.
    assert_ne!(get(&server, "x.tar.gz").unwrap(), content());
}

#[test]
fn an_unknown_coding_is_refused() {
    let server = Server::start(|_, reply| {
        reply.send("200 OK", &["Content-Encoding: br"], b"x");
    });
    let error = get(&server, "x.txt").unwrap_err();
    assert!(error.contains("compressed as `br`"), "{error}");
}
