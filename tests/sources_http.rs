//! Files by http and https from nginx, directly and through proxies.

use std::path::PathBuf;
use std::time::Duration;

use fs_err as fs;

use crate::support::{
    Bench, Proxy, SelfSigned, Stage, Web, base_layout, free_ports, serve_base, verify,
    without_proxies,
};

/// The request itself is wrong.
const USAGE: i32 = 2;

/// A web server, where bases are to be had too; or the test is skipped.
fn start() -> Option<Web> {
    base_layout()?;
    Web::start()
}

#[test]
fn files_come_by_http_and_https() {
    let Some(web) = start() else { return };
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
    web.write("big", &content);
    web.write("empty", "");
    web.write("private/secret", "told");
    web.write("a b", "spaces");
    let bench = Bench::current();
    let workspace = Stage::new(&bench).trusting(&web).workspace(&format!(
        "files:\n  - {}\n  - tls: {}\n  - {}\n  - data/moved: {}\n  - up: {}\n  - private: {}\n  - {}",
        web.url("big"),
        web.tls_url("big"),
        web.url("empty"),
        web.url("moved/big"),
        web.url("secure/big"),
        web.tls_url("private/secret").replace("//", &format!("//{}@", Web::LOGIN)),
        web.url("a%20b"),
    ));
    for name in ["big", "tls", "data/moved", "up"] {
        assert!(
            fs::read(workspace.join(name)).expect("it was staged") == content,
            "{name}"
        );
    }
    let text = |name: &str| fs::read_to_string(workspace.join(name)).expect("it was staged");
    assert_eq!(text("empty"), "");
    assert_eq!(text("private"), "told");
    assert_eq!(text("a b"), "spaces");
}

#[test]
fn a_second_build_asks_whether_a_file_changed() {
    let Some(web) = start() else { return };
    web.write("file", "first");
    let bench = Bench::current();
    let stage = Stage::new(&bench);
    let files = format!("files:\n  - {}", web.url("file"));
    for (content, status) in [("first", " 200 "), ("first", " 304 "), ("second!", " 200 ")] {
        web.write("file", content);
        // nginx tells states of a file apart by time and size.
        let file = fs::File::options()
            .write(true)
            .open(web.write("file", content))
            .expect("ours");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        file.file().set_modified(time).expect("ours");
        let workspace = stage.workspace(&files);
        let found = fs::read_to_string(workspace.join("file")).expect("it was staged");
        assert_eq!(found, content);
        let log = web.log();
        assert!(
            log.lines().last().is_some_and(|line| line.contains(status)),
            "{log}"
        );
    }
}

#[test]
fn credentials_come_from_netrc_and_go_to_their_own_server_only() {
    let Some(web) = start() else { return };
    web.write("private/secret", "told");
    let bench = Bench::current();
    let files = format!("files:\n  - {}", web.url("private/secret"));
    let netrc = bench.root().join("home/.netrc");
    fs::write(
        &netrc,
        "machine 127.0.0.1 login user password \"pa55-of-web\"\n",
    )
    .expect("ours");
    bench.give(&netrc);
    let workspace = Stage::new(&bench).workspace(&files);
    assert_eq!(
        fs::read_to_string(workspace.join("secret")).expect("staged"),
        "told"
    );

    let other = bench.root().join("tmp/netrc");
    fs::write(&other, "machine 127.0.0.1\nlogin user\npa55word x\n").expect("ours");
    let path = other.to_str().expect("plain").to_owned();
    let stage = Stage::new(&bench).env("NETRC", path);
    stage.refused(&files, &["netrc` cannot be understood at line 3", "hint:"]);
    fs::write(
        &other,
        "machine elsewhere login user password pa55-of-web\n",
    )
    .expect("ours");
    stage.refused(
        &files,
        &["answered 401", "hint: give a name and a password"],
    );
    fs::remove_file(&other).expect("ours");

    // The other port is another server.
    let away = web
        .url("secure/private/secret")
        .replace("//", &format!("//{}@", Web::LOGIN));
    Stage::new(&bench).trusting(&web).refused(
        &format!("files: ['{away}']"),
        &["answered 401", "a redirect leads to", "https://", "***@"][..2],
    );
    let log = web.log();
    // The server may write the redirect down after it.
    let asked = log
        .lines()
        .rfind(|line| line.contains("/private/secret 401"));
    assert!(asked.is_some_and(|line| line.ends_with("\"-\"")), "{log}");
}

#[test]
fn what_cannot_be_downloaded_is_told() {
    let Some(web) = start() else { return };
    web.write("file", "x");
    web.write("private/secret", "told");
    let bench = Bench::current();
    let trusting = || Stage::new(&bench).trusting(&web);
    let with = |url: &str, login: &str| url.replace("//", &format!("//{login}@"));
    let [closed] = free_ports();
    for (url, words) in [
        (
            with(&web.url("missing?token=pa55"), "u:pa55"),
            &[
                "`http://***@127.0.0.1",
                "answered 404",
                "hint: check the path",
            ][..],
        ),
        (
            with(&web.url("private/secret"), "user:pa55-wrong"),
            &["answered 401", "hint: give a name"],
        ),
        (web.url("circle"), &["redirects in a circle"]),
        (web.url("ftp"), &["redirects to nowhere"]),
        (web.tls_url("plain/file"), &["from HTTPS to plain HTTP"]),
        (web.expired_url("file"), &["has expired", "--ca-cert"]),
        (
            web.url("file").replace("http:", "https:"),
            &["does not speak TLS"],
        ),
        (
            format!("http://127.0.0.1:{closed}/x"),
            &["connection refused", "hint: check host and port"],
        ),
        (
            "http://host.invalid/x".to_owned(),
            &["`host.invalid`", "name cannot be resolved", "hint:"],
        ),
        (
            format!("{}#sha256={}", web.url("file"), "0".repeat(64)),
            &["its digest is `sha256:2d711642", "hint:"],
        ),
    ] {
        trusting().refused(
            &format!("files:\n  - '{url}'"),
            &[words, &["failed to stage `files[0]`"]].concat(),
        );
    }
    // The authority is not known here.
    Stage::new(&bench).refused(
        &format!("files: ['{}']", web.tls_url("file")),
        &[
            "its issuer is not known",
            "hint: if the certificate is right",
        ],
    );
    let run = Stage::new(&bench).run("files: ['http://h:port/x']");
    assert!(run.refusal(USAGE).contains("not a URL"));
}

#[test]
fn proxies_lead_to_servers() {
    let (Some(web), Some(http), Some(socks)) = (start(), Proxy::http(), Proxy::socks()) else {
        return;
    };
    web.write("file", "x");
    let bench = Bench::current();
    let files = format!(
        "files:\n  - plain: {}\n  - tls: {}\n",
        web.url("file"),
        web.tls_url("file")
    );
    let (http_url, socks_url) = (format!("http://{}", http.authority()), socks.authority());
    let mut uses = (0, 0);
    for (key, env, by_http, by_socks) in [
        (
            format!("proxy: {{HTTP_PROXY: '{http_url}', HTTPS_PROXY: '{http_url}'}}"),
            vec![],
            true,
            false,
        ),
        (
            String::new(),
            vec![("http_proxy", &http_url), ("HTTPS_PROXY", &http_url)],
            true,
            false,
        ),
        (
            format!("proxy: {{socks_proxy: '{socks_url}'}}"),
            vec![],
            false,
            true,
        ),
        (
            format!("proxy: {{all_proxy: 'socks5://{socks_url}'}}"),
            vec![],
            false,
            true,
        ),
        (
            "proxy: {no_proxy: '127.0.0.0/8'}".to_owned(),
            vec![("all_proxy", &http_url)],
            false,
            false,
        ),
    ] {
        let mut stage = Stage::new(&bench).trusting(&web);
        stage = stage.option("--no-cache");
        for (name, value) in env {
            stage = stage.env(name, value.clone());
        }
        stage.workspace(&format!("{files}{key}"));
        let now = (http.log().len(), socks.log().len());
        assert_eq!(
            (now.0 > uses.0, now.1 > uses.1),
            (by_http, by_socks),
            "{key}"
        );
        uses = now;
    }
    assert!(http.log().contains(&format!(
            "CONNECT {}",
            web.tls_url("")
                .trim_start_matches("https://")
                .trim_end_matches('/')
        )));

    // No proxy there, and a wrong password, of which tinyproxy says in plain HTTP that the server refused it.
    let [closed] = free_ports();
    for (proxy, words) in [
        (
            format!("http://u:pa55@127.0.0.1:{closed}"),
            &["connection refused", "hint: check `proxy`"][..],
        ),
        (format!("http://u:pa55@{}", http.host()), &[]),
        (format!("socks5h://u:pa55@{}", socks.host()), &[]),
    ] {
        let shown = format!("the proxy `{}`", proxy.replace("u:pa55@", ""));
        let url = web.tls_url("file");
        Stage::new(&bench).trusting(&web).refused(
            &format!("files: ['{url}']\nproxy: {{all_proxy: '{proxy}'}}"),
            &[words, &[shown.as_str()]].concat(),
        );
    }
    let run = Stage::new(&bench)
        .env("https_proxy", "gopher://u:pa55@h")
        .run("packages: []");
    let error = run.refusal(USAGE);
    assert!(
        error.contains("`HTTPS_PROXY` is not the URL of a proxy"),
        "{error}"
    );
    assert!(
        error.contains("hint: write") && !error.contains("pa55"),
        "{error}"
    );
}

#[test]
fn proxies_lead_pip() {
    let (Some(web), Some(http), Some(socks)) = (start(), Proxy::http(), Proxy::socks()) else {
        return;
    };
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    let wheel = bench.write_wheel(&[]);
    let name = "pib_hello-1.0-py3-none-any.whl";
    let page = format!("<!DOCTYPE html><a href='{name}'>{name}</a>");
    web.write("simple/pib-hello/index.html", page);
    web.write(
        &format!("simple/pib-hello/{name}"),
        fs::read(wheel).expect("it was just made"),
    );
    for (index, proxy, scheme) in [
        (web.tls_url("simple"), &http, "http"),
        (web.tls_url("simple"), &socks, "socks5"),
        (web.url("simple"), &socks, "socks5h"),
    ] {
        bench.write(
            "build.yaml",
            format!(
                "tag: image:1\npython: 3.11\nsystem-packages: []\npackages: [pib-hello]\n\
                 pip-config: {{global: {{index-url: '{index}'}}}}\n\
                 proxy: {{ALL_PROXY: '{scheme}://{}', NO_PROXY: none.example}}\n",
                proxy.authority()
            ),
        );
        let before = proxy.log().len();
        let mut command = bench.tool(["build.yaml", "-v", "--base", &base, "-o", "oci-dir:out"]);
        command.arg("--ca-cert").arg(web.authority());
        without_proxies(&mut command);
        let run = bench.finish(&mut command);
        run.line();
        assert!(proxy.log().len() > before, "{index} by {scheme}");
        let image = verify(&bench.path("out"), "1");
        let module = "venv/lib/python3.11/site-packages/pib_hello/__init__.py";
        assert!(image.find(module).is_some(), "{index} by {scheme}");
    }
}

/// Words for `openssl req`.
const P256: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
const P521: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"];

#[test]
fn a_server_is_trusted_by_its_own_certificate() {
    if base_layout().is_none() {
        return;
    }
    for key in [P256, P521, &["rsa:2048"]] {
        let server = SelfSigned::start(key, "localhost", "2", &[]);
        let text = format!("files:\n  - '{}'", server.url());
        let certificate = server.certificate();
        let bench = Bench::current();
        let stage = Stage::new(&bench).option("--ca-cert").option(&certificate);
        let content = |workspace: PathBuf| fs::read(workspace.join("file")).expect("it was staged");
        assert_eq!(content(stage.workspace(&text)), b"served", "{key:?}");
        let bench = Bench::current();
        let stage = Stage::new(&bench).env("SSL_CERT_FILE", &certificate);
        assert_eq!(content(stage.workspace(&text)), b"served", "{key:?}");
        let words = ["certificate is not trusted", "or its own, with `--ca-cert"];
        Stage::new(&bench).refused(&text, &words);
    }
}

#[test]
fn a_certificate_that_is_named_has_to_be_right_in_all_else() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let refused = |server: &SelfSigned, certificate: String, word: &str| {
        let stage = Stage::new(&bench).option("--ca-cert").option(certificate);
        stage.refused(&format!("files:\n  - '{}'", server.url()), &[word]);
    };
    let server = SelfSigned::start(P256, "elsewhere.example", "2", &[]);
    refused(&server, server.certificate(), "for another name");
    let server = SelfSigned::start(P256, "localhost", "0", &[]);
    // It is valid for the second in which it was made.
    std::thread::sleep(Duration::from_secs(2));
    refused(&server, server.certificate(), "it has expired");
    let server = SelfSigned::start(P256, "localhost", "2", &[]);
    let another = SelfSigned::start(P521, "localhost", "2", &[]);
    refused(&server, another.certificate(), "`CA:TRUE`");
}

#[test]
fn a_handshake_that_fails_says_what_is_needed() {
    if base_layout().is_none() {
        return;
    }
    let bench = Bench::current();
    let old = ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
    let weak = ["-tls1_2", "-cipher", "AES128-SHA"];
    for (options, word) in [(old, "TLS 1.1 or older"), (weak, "`HandshakeFailure`")] {
        let server = SelfSigned::start(&["rsa:2048"], "localhost", "2", &options);
        let stage = Stage::new(&bench)
            .option("--ca-cert")
            .option(server.certificate());
        let words = [
            "the TLS handshake failed",
            word,
            "hint: the server needs TLS 1.2 or 1.3",
            "openssl s_client -connect localhost:",
        ];
        stage.refused(&format!("files:\n  - '{}'", server.url()), &words);
    }
}

#[test]
#[ignore = "long: downloads two gigabytes"]
fn a_file_of_two_gigabytes_takes_little_memory() {
    /// In KiB.
    const MOST: u64 = 60 << 10;
    let Some(web) = start() else { return };
    let path = web.write("big", "");
    let file = fs::File::options().write(true).open(&path).expect("ours");
    file.set_len(2 << 30).expect("a sparse file");
    let bench = Bench::current();
    let peak = Stage::new(&bench).peak(&format!("files:\n  - {}", web.url("big")));
    let staged = bench.path("context/image/workspace/big");
    assert_eq!(fs::metadata(staged).expect("it was staged").len(), 2 << 30);
    assert!(peak > 0 && peak < MOST, "{peak} KiB");
}
