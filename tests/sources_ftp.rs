//! Files by `ftp` and `ftps` from real servers. What servers do wrong is in `src/context/fetch/ftp/tests.rs`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;

use crate::support::{Bench, Ftpd, Proxy, Stage, free_ports};

/// The user of pyftpdlib, as a URL says it.
const LOGIN: &str = "me%40x:pa55%2Fof%20ftp";

#[test]
fn files_come_by_name_and_port() {
    let Some(server) = Ftpd::pyftpdlib(true, false) else {
        return;
    };
    // Bytes that a transfer of text would change.
    let bytes = b"a\nb\r\nc\0\xff\r".repeat(100_000);
    fs::create_dir(server.root().join("path")).expect("ours");
    fs::write(server.root().join("path/to file"), &bytes).expect("ours");
    fs::write(server.root().join("empty"), "").expect("ours");
    let bench = Bench::current();
    let address = server.address();
    let files = format!(
        "files:\n  - ftp://{address}/path/to%20file\n  - sub/renamed: ftp://{address}/path/to%20file\n  \
         - by_login: ftp://{LOGIN}@{address}/path/to%20file\n  - ftp://{address}/empty\n"
    );
    let stage = Stage::new(&bench);
    let workspace = stage.workspace(&files);
    for name in ["to file", "sub/renamed", "by_login"] {
        assert_eq!(staged(&workspace, name), bytes, "{name}");
    }
    assert_eq!(staged(&workspace, "empty"), b"");
    assert_eq!(server.sent(), 4);

    // Again: nothing changed, so nothing is sent; then one file did.
    let workspace = stage.workspace(&files);
    assert_eq!(staged(&workspace, "by_login"), bytes);
    assert_eq!(server.sent(), 4);
    fs::write(server.root().join("empty"), "no more").expect("ours");
    let workspace = stage.workspace(&files);
    assert_eq!(staged(&workspace, "empty"), b"no more");
    assert_eq!(server.sent(), 5);
}

#[test]
fn what_cannot_be_fetched_is_told() {
    let Some(server) = Ftpd::pyftpdlib(false, false) else {
        return;
    };
    fs::create_dir(server.root().join("folder")).expect("ours");
    fs::write(server.root().join("file"), "x").expect("ours");
    let bench = Bench::current();
    let address = server.address();
    let masked = format!("`ftp://***@{address}/folder`");
    for (url, words) in [
        (
            format!("ftp://{LOGIN}@{address}/folder"),
            &[&*masked, "it is a directory", "name one file"] as &[&str],
        ),
        (
            format!("ftp://{LOGIN}@{address}/gone"),
            &["does not give the file: `550", "the path is absolute"],
        ),
        (
            format!("ftp://{address}/file"),
            &["the login was refused: `530", "user:password@"],
        ),
        (
            format!("ftp://me%40x:wrong-pa55@{address}/file"),
            &["the login was refused: `530", "check user and password"],
        ),
        (
            format!("ftps://{LOGIN}@{address}/file"),
            &["the server offers no TLS", "`ftp://` fetches without"],
        ),
        (
            format!("ftp://{}/file", free_address()),
            &["cannot be reached", "refused"],
        ),
        (
            "ftp://unknown.invalid/file".to_owned(),
            &["`unknown.invalid:21` cannot be reached"],
        ),
    ] {
        Stage::new(&bench).refused(&format!("files: ['{url}']"), words);
    }
}

#[test]
fn tls_is_asked_for_and_sessions_are_resumed() {
    let Some(server) = Ftpd::vsftpd(&free_address(), false) else {
        return;
    };
    let bytes = b"0123456789\r\n".repeat(300_000);
    fs::write(server.root().join("file"), &bytes).expect("ours");
    holds_with_tls(&server, &bytes);
    // Without encryption this server wants nobody.
    let bench = Bench::current();
    let file = format!("files: ['ftp://{}/file']", server.address());
    Stage::new(&bench).refused(&file, &["the login was refused: `530"]);
}

#[test]
fn tls_may_begin_with_the_first_byte() {
    // One port has that meaning, but the interface has many addresses.
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let address = format!("127.{}.{b}.{c}:990", a | 128);
    let Some(server) = Ftpd::vsftpd(&address, true) else {
        return;
    };
    let bytes = b"0123456789\r\n".repeat(300_000);
    fs::write(server.root().join("file"), &bytes).expect("ours");
    holds_with_tls(&server, &bytes);
}

#[test]
fn logins_may_need_tls() {
    let Some(server) = Ftpd::pyftpdlib(true, true) else {
        return;
    };
    fs::write(server.root().join("file"), "by a user").expect("ours");
    let bench = Bench::current();
    let file = format!("files: ['ftps://{LOGIN}@{}/file']", server.address());
    let workspace = trusting(&bench, &server).workspace(&file);
    assert_eq!(staged(&workspace, "file"), b"by a user");
}

#[test]
fn proxies_lead_to_both_connections() {
    let servers = (Ftpd::pyftpdlib(true, true), Proxy::http(), Proxy::socks());
    let (Some(server), Some(http), Some(socks)) = servers else {
        return;
    };
    fs::write(server.root().join("file"), "by a proxy").expect("ours");
    for (proxy, key, url) in [
        (&http, "FTP_PROXY", format!("http://{}", http.authority())),
        (&socks, "SOCKS_PROXY", socks.authority()),
    ] {
        let bench = Bench::current();
        let file = format!(
            "proxy: {{{key}: '{url}'}}\nfiles: ['ftps://{}/file']",
            server.address()
        );
        let before = proxy.log().len();
        let workspace = trusting(&bench, &server).workspace(&file);
        assert_eq!(staged(&workspace, "file"), b"by a proxy");
        assert!(proxy.log().len() > before, "{key} was passed by");
    }
}

#[test]
#[ignore = "long: downloads two gigabytes"]
fn a_file_of_two_gigabytes_takes_little_memory() {
    let Some(server) = Ftpd::pyftpdlib(true, false) else {
        return;
    };
    let file = fs::File::create(server.root().join("large")).expect("ours");
    file.set_len(2 << 30).expect("a sparse file");
    let bench = Bench::current();
    let files = format!("files: ['ftp://{}/large']", server.address());
    let peak = Stage::new(&bench).peak(&files);
    let staged = bench.path("context/image/workspace/large");
    assert_eq!(fs::metadata(staged).expect("it was staged").len(), 2 << 30);
    assert!(peak > 0 && peak < 60 << 10, "{peak} KiB");
}

/// The bytes of a staged file, which has the mode of all files that come by ftp.
fn staged(workspace: &Path, name: &str) -> Vec<u8> {
    let path = workspace.join(name);
    let metadata = fs::metadata(&path).expect("it is staged");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o644, "{name}");
    fs::read(path).expect("it is readable")
}

fn free_address() -> String {
    let [port] = free_ports();
    format!("127.0.0.1:{port}")
}

/// With the authority of a server.
fn trusting<'a>(bench: &'a Bench, server: &Ftpd) -> Stage<'a> {
    let authority = server.authority().display().to_string();
    Stage::new(bench).option("--ca-cert").option(authority)
}

/// Whoever knows the authority gets the file; nobody else does.
fn holds_with_tls(server: &Ftpd, bytes: &[u8]) {
    let bench = Bench::current();
    let file = format!("files: ['ftps://{}/file']", server.address());
    let workspace = trusting(&bench, server).workspace(&file);
    assert_eq!(staged(&workspace, "file"), bytes);
    let authority = server.authority().display().to_string();
    let stage = Stage::new(&bench).option("--no-cache");
    let workspace = stage.env("SSL_CERT_FILE", authority).workspace(&file);
    assert_eq!(staged(&workspace, "file"), bytes);
    let words = ["its certificate is not trusted", "--ca-cert"];
    Stage::new(&bench).refused(&file, &words);
}
