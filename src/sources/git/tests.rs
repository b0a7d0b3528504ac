//! Servers that misbehave on purpose, one connection at a time.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use std::time::{Duration, Instant};

use super::packet;
use crate::buildfile::BuildFile;
use crate::net::{self, Timing};
use crate::progress::Progress;
use crate::sources::{Fetch, ssh};

const ID: &str = "1111111111111111111111111111111111111111";

/// Listens, and lets `answer` treat each connection.
fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address
}

/// Says `bytes` to whoever asks for a repository, and hangs up when more is asked for.
fn say(bytes: Vec<u8>) -> SocketAddr {
    serve(move |mut stream| {
        let mut heard = [0; 1 << 12];
        let _ = stream.read(&mut heard);
        let _ = stream.write_all(&bytes);
        if !bytes.is_empty() {
            let _ = stream.read(&mut heard);
        }
    })
}

/// A greeting of the old version, which lists one branch.
fn greeting(capabilities: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet::write(&mut bytes, &format!("{ID} HEAD\0{capabilities}\n"));
    packet::write(&mut bytes, &format!("{ID} refs/heads/main\n"));
    bytes.extend_from_slice(packet::FLUSH);
    bytes
}

/// The error of a clone, with its causes; nothing is left of it.
fn clone(address: SocketAddr, stall: Duration, progress: &Progress) -> String {
    let timing = Timing {
        stall,
        ..Timing::default()
    };
    let net = net::Client::with_timing(net::Options::default(), timing);
    let text = format!("repositories: {{x: {{url: 'git://{address}/x'}}}}");
    let buildfile = BuildFile::parse("build.yaml", &text, &|_| None).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let fetch = Fetch {
        net: &net,
        ssh: &ssh::Options::default(),
        progress,
        part: &progress.start("test"),
    };
    let into = directory.path().join("x");
    let error = super::fetch(&buildfile.repositories[0], &into, None, fetch).unwrap_err();
    assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 0);
    error.messages().join(": ")
}

fn patient(address: SocketAddr) -> String {
    clone(address, Duration::from_secs(10), &Progress::silent())
}

#[test]
fn what_a_server_says_is_not_trusted() {
    let mut packs = Vec::new();
    for pack in [
        &b"0008NAK\n000d\x01garbage!0000"[..],
        b"0008NAK\n000d\x03PANIC\x1b[m0000",
        b"0008NAK\n0009\x07what0000",
        b"0008NAK\n0015\x01PACK\0\0\0\x02\0\0\0\x01",
        b"0008NAK\n0000",
    ] {
        let mut bytes = greeting("side-band-64k");
        bytes.extend_from_slice(pack);
        packs.push(bytes);
    }
    let mut without_bands = greeting("");
    without_bands.extend_from_slice(b"0008NAK\nPACK");
    let [garbage, panic, unknown, cut, empty] = &packs[..] else {
        panic!("five packs");
    };
    for (bytes, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "there is no git server",
        ),
        (b"", "it was closed too early"),
        (
            b"0032ERR see https://user:pa55@127.0.0.1/ for more\n",
            "https://***@127.0.0.1/",
        ),
        (garbage, "its objects cannot be read"),
        (panic, "the server refuses: PANIC"),
        (unknown, "there is no git server"),
        (cut, "it was closed too early"),
        (empty, "its objects cannot be read"),
        (&without_bands, "its objects cannot be read"),
    ] {
        let address = say(bytes.to_vec());
        let error = patient(address);
        assert!(
            error.starts_with("failed to clone `git://127.0.0.1:"),
            "{error}"
        );
        assert!(error.contains(words), "`{words}` is missing in: {error}");
        assert!(!error.contains("pa55"), "{error:?}");
    }
}

#[test]
fn lists_have_an_end() {
    let address = serve(|mut stream| {
        let mut bytes = greeting("");
        bytes.truncate(bytes.len() - packet::FLUSH.len());
        let names: Vec<u8> = bytes.repeat(100);
        while stream.write_all(&names).is_ok() {}
    });
    let error = patient(address);
    assert!(error.contains("more than a million names"), "{error}");
}

#[test]
fn silence_is_not_borne_for_ever() {
    for bytes in [Vec::new(), greeting("")] {
        let address = serve(move |mut stream| {
            stream.write_all(&bytes).unwrap();
            // Held open: a connection that is dropped would end the wait.
            std::mem::forget(stream);
        });
        let error = clone(address, Duration::from_millis(100), &Progress::silent());
        assert!(error.contains("nothing came for too long"), "{error}");
    }
}

#[test]
fn whoever_is_told_to_stop_does() {
    let progress = Progress::silent();
    let handle = progress.clone();
    let address = serve(move |stream| {
        handle.stop();
        std::mem::forget(stream);
    });
    let began = Instant::now();
    clone(address, Duration::from_secs(60), &progress);
    assert!(began.elapsed() < Duration::from_secs(10));
}
