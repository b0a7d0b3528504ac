//! Files by `ftp` and `ftps` from real servers. What servers do wrong is in `src/context/fetch/ftp/tests.rs`.

use std::os::unix::fs::PermissionsExt as _;

use fs_err as fs;

use crate::support::{Bench, Ftpd, base_layout, free_address};

/// Stages `files` into `context`, with further arguments; gives the errors if that fails.
fn stage(
    bench: &Bench,
    files: &str,
    arguments: &[&str],
    env: &[(&str, &str)],
) -> Result<(), String> {
    let Some(base) = base_layout() else {
        return Err("there is no base".to_owned());
    };
    bench.write("build.yaml", format!("python: 3.11\nfiles:\n{files}"));
    let base = format!("oci:{}", base.display());
    let context = bench.path("context");
    if context.exists() {
        fs::remove_dir_all(context).expect("it is ours");
    }
    let mut command = bench.tool(["build.yaml", "-n", "-k", "-p", "context", "--base", &base]);
    let run = bench.finish(command.args(arguments).envs(env.iter().copied()));
    let status = run.status();
    run.stdout();
    let errors = run.stderr().to_owned();
    if status == Some(0) {
        return Ok(());
    }
    assert_eq!(status, Some(1), "{errors}");
    Err(errors)
}

/// Holds that staging fails with words, and shows no password.
fn refused(bench: &Bench, files: &str, arguments: &[&str], words: &[&str]) {
    let errors = stage(bench, files, arguments, &[]).expect_err("it cannot be staged");
    for word in words {
        assert!(errors.contains(word), "`{word}` is missing:\n{errors}");
    }
    for secret in ["pa55", "wrong-pa"] {
        assert!(!errors.contains(secret), "{errors}");
    }
}

fn staged(bench: &Bench, name: &str) -> Vec<u8> {
    let path = bench.path("context").join("image/workspace").join(name);
    let mode = fs::metadata(&path)
        .expect("it is staged")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o644, "{name}");
    fs::read(path).expect("it is readable")
}

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
        "  - ftp://{address}/path/to%20file\n  - sub/renamed: ftp://{address}/path/to%20file\n  \
         - by_login: ftp://me%40x:pa55%2Fof%20ftp@{address}/path/to%20file\n  - ftp://{address}/empty\n"
    );
    stage(&bench, &files, &[], &[]).expect("all of them are there");
    for name in ["to file", "sub/renamed", "by_login"] {
        assert_eq!(staged(&bench, name), bytes, "{name}");
    }
    assert_eq!(staged(&bench, "empty"), b"");
    assert_eq!(server.sent(), 4);

    // Again: nothing changed, so nothing is sent; then one file did.
    stage(&bench, &files, &[], &[]).expect("all of them are there");
    assert_eq!(staged(&bench, "by_login"), bytes);
    assert_eq!(server.sent(), 4);
    fs::write(server.root().join("empty"), "no more").expect("ours");
    stage(&bench, &files, &[], &[]).expect("all of them are there");
    assert_eq!(staged(&bench, "empty"), b"no more");
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
    let login = format!("me%40x:pa55%2Fof%20ftp@{address}");
    refused(
        &bench,
        &format!("  - ftp://{login}/folder"),
        &[],
        &[
            &format!("`ftp://***@{address}/folder`"),
            "it is a directory",
            "name one file",
        ],
    );
    refused(
        &bench,
        &format!("  - ftp://{login}/gone"),
        &[],
        &["does not give the file: `550", "the path is absolute"],
    );
    refused(
        &bench,
        &format!("  - ftp://{address}/file"),
        &[],
        &["the login was refused: `530", "user:password@"],
    );
    refused(
        &bench,
        &format!("  - ftp://me%40x:wrong-pa55@{address}/file"),
        &[],
        &["the login was refused: `530", "check user and password"],
    );
    refused(
        &bench,
        &format!("  - ftps://{login}/file"),
        &[],
        &["the server offers no TLS", "`ftp://` fetches without"],
    );
    refused(
        &bench,
        &format!("  - ftp://{}/file", free_address()),
        &[],
        &["cannot be reached", "refused"],
    );
    refused(
        &bench,
        "  - ftp://unknown.invalid/file",
        &[],
        &["`unknown.invalid:21` cannot be reached"],
    );
    let missing = bench.path("gone.pem").display().to_string();
    refused(
        &bench,
        &format!("  - ftps://{login}/file"),
        &["--ca-cert", &missing],
        &["gone.pem"],
    );
}

#[test]
fn tls_is_asked_for_and_sessions_are_resumed() {
    let Some(server) = Ftpd::vsftpd(&free_address(), false) else {
        return;
    };
    let bytes = b"0123456789\r\n".repeat(300_000);
    fs::write(server.root().join("file"), &bytes).expect("ours");
    holds_with_tls(&server, &bytes);
    let bench = Bench::current();
    // Without encryption this server wants nobody.
    refused(
        &bench,
        &format!("  - ftp://{}/file", server.address()),
        &[],
        &["the login was refused: `530"],
    );
}

#[test]
fn tls_may_begin_with_the_first_byte() {
    // Only this port has that meaning; the interface has many addresses.
    let host = format!(
        "127.{}",
        std::process::id().to_be_bytes()[1..]
            .iter()
            .map(u8::to_string)
            .collect::<Vec<_>>()
            .join(".")
    );
    let Some(server) = Ftpd::vsftpd(&format!("{host}:990"), true) else {
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
    let file = format!(
        "  - ftps://me%40x:pa55%2Fof%20ftp@{}/file",
        server.address()
    );
    let authority = server.authority().display().to_string();
    stage(&bench, &file, &["--ca-cert", &authority], &[]).expect("it is there");
    assert_eq!(staged(&bench, "file"), b"by a user");
}

/// Whoever knows the authority gets the file; the second time it is unchanged. Nobody else gets it.
fn holds_with_tls(server: &Ftpd, bytes: &[u8]) {
    let bench = Bench::current();
    let file = format!("  - ftps://{}/file", server.address());
    let authority = server.authority().display().to_string();
    stage(&bench, &file, &["--ca-cert", &authority], &[]).expect("the authority is trusted");
    assert_eq!(staged(&bench, "file"), bytes);
    stage(&bench, &file, &[], &[("SSL_CERT_FILE", &authority)]).expect("the authority is trusted");
    assert_eq!(staged(&bench, "file"), bytes);
    refused(
        &bench,
        &file,
        &[],
        &["the server's certificate is not trusted", "--ca-cert"],
    );
}
