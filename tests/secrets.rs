//! Credentials reach pip, and nothing that stays: no layer, config, context, log, error or store.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use fs_err as fs;

use crate::support::{Bench, User, serve_base, verify};

/// In all forms that anybody would write them.
const SECRETS: [&str; 5] = [
    "pa55-of-conf",
    "pa55-of-line",
    "dXNlcjpwYTU1LW9mLWNvbmY=", // base64 of `user:pa55-of-conf`
    "dXNlcjpwYTU1LW9mLWxpbmU=", // base64 of `user:pa55-of-line`
    "pa55%2Dof",
];

#[test]
fn credentials_reach_pip_and_nothing_else() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    for user in User::ALL {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        let index = serve_index(fs::read(bench.write_wheel(&[])).expect("it was just made"));
        bench.write(
            "build.yaml",
            format!(
                "tag: image:1\npython: 3.11\n\
                 packages:\n  - --extra-index-url http://user:%ENV{{LINE}}@{index}/extra/simple\n  - pib-hello\n\
                 pip-config:\n  global:\n    index-url: http://user:pa55-of-conf@{index}/main/simple\n"
            ),
        );
        let run = bench.finish(
            bench
                .tool(["build.yaml", "-v", "-k", "-p", "context", "--base", &base])
                .args(["-o", "oci-dir:out", "--metadata-file", "metadata"])
                .env("LINE", "pa55-of-line"),
        );
        let log = format!("{}{}", run.line(), run.stderr());
        let image = verify(&bench.path("out"), "1");
        assert!(image.find("venv/bin/pib-hello").is_some(), "pip was let in");
        for name in ["workspace/installation/requirements.txt", "venv/pip.conf"] {
            assert!(image.find(name).is_some(), "{name}");
        }
        bench.path("context");
        bench.path("metadata");
        fs::write(bench.root().join("log"), log).expect("the bench can be written");

        // The build file is the user's own, and the only place where they are.
        let found = search(bench.root());
        let own = bench.path("build.yaml");
        let others: Vec<_> = found.iter().filter(|path| **path != own).collect();
        assert!(
            others.is_empty(),
            "{user:?}: there are secrets in {others:?}"
        );
        assert!(found.contains(&own), "the search finds what is there");
        // Also in a compressed blob.
        let planted = bench.root().join("planted");
        let mut file = flate2::write::GzEncoder::new(
            fs::File::create(&planted).expect("ours"),
            flate2::Compression::default(),
        );
        file.write_all(b"some text, pa55-of-line, more text")
            .expect("ours");
        file.finish().expect("ours");
        assert!(search(bench.root()).contains(&planted));
    }
}

/// The files below `root` that hold a secret, as they are or decompressed.
fn search(root: &Path) -> Vec<std::path::PathBuf> {
    let secrets =
        regex::bytes::Regex::new(&SECRETS.map(regex::escape).join("|")).expect("plain text");
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let kind = entry.file_type().expect("it is there");
            // What was unpacked of the base is not this build's.
            if kind.is_dir() && entry.file_name() != "rootfs" {
                directories.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).expect("root and owners may read");
                let mut plain = Vec::new();
                if bytes.starts_with(&[0x1f, 0x8b]) {
                    let mut gzip = flate2::read::MultiGzDecoder::new(&bytes[..]);
                    gzip.read_to_end(&mut plain).expect("blobs are whole");
                }
                if secrets.is_match(&bytes) || secrets.is_match(&plain) {
                    found.push(path);
                }
            }
        }
    }
    found
}

/// A package index with one wheel that wants a login, one for each of its halves; gives its address.
fn serve_index(wheel: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let wheel = wheel.clone();
            std::thread::spawn(move || answer(stream, &wheel));
        }
    });
    address.to_string()
}

fn answer(mut stream: TcpStream, wheel: &[u8]) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut login = String::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line
            .to_ascii_lowercase()
            .strip_prefix("authorization: basic ")
        {
            line[line.len() - value.len()..].clone_into(&mut login);
        }
    }
    let expected = if path.starts_with("/main/") {
        SECRETS[2]
    } else {
        SECRETS[3]
    };
    let page = br#"<a href="pib_hello-1.0-py3-none-any.whl">pib_hello-1.0-py3-none-any.whl</a>"#;
    let (status, kind, body): (_, _, &[u8]) = match path.as_str() {
        _ if login != expected => (
            "401 Unauthorized\r\nWWW-Authenticate: Basic",
            "text/html",
            b"",
        ),
        // Only the second index has it, so both logins are needed.
        "/main/simple/pib-hello/" => ("200 OK", "text/html", b""),
        "/extra/simple/pib-hello/" => ("200 OK", "text/html", page),
        "/extra/simple/pib-hello/pib_hello-1.0-py3-none-any.whl" => {
            ("200 OK", "application/octet-stream", wheel)
        }
        _ => ("404 Not Found", "text/html", b""),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}
