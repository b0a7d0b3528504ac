use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::client;
use super::server::Server;
use crate::net::{self, Trust, next_hop};
use crate::progress::Progress;
use crate::registry::auth::Access;
use crate::registry::{Client, Error, Fault, Options};

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

#[test]
fn only_listed_and_local_hosts_are_trusted_without_verification() {
    let options = Options {
        insecure: vec![
            "Lab.example".to_owned(),
            "other.example:5000".to_owned(),
            "[fd00::1]:80".to_owned(),
        ],
        ..Options::default()
    };
    let client = Client::new(options, Arc::new(net::Client::new(net::Options::default())));
    for (text, expected) in [
        ("https://docker.io/", Trust::Verified),
        ("https://localhost.example/", Trust::Verified),
        ("https://128.0.0.1/", Trust::Verified),
        ("https://other.example/", Trust::Verified),
        ("https://other.example:5000/", Trust::Unverified),
        ("https://lab.example:8443/", Trust::Unverified),
        ("http://[fd00::1]/", Trust::Unverified),
        ("https://localhost:5000/", Trust::Local),
        ("https://127.8.9.1/", Trust::Local),
        ("https://[::1]:5000/", Trust::Local),
    ] {
        assert_eq!(client.trust(&url(text)), expected, "{text}");
    }
}

#[test]
fn redirects_do_not_lead_down_to_plain_http() {
    let client = client();
    let hop = |from: &str, to: &'static str| {
        let to = next_hop(&url(from), Some(&HeaderValue::from_static(to)))?;
        let refused = || net::Error::Redirect {
            host: String::new(),
            reason: "",
        };
        client.may_lead(&url(from), &to).ok_or_else(refused)?;
        Ok::<_, Error>(to.to_string())
    };
    assert!(matches!(
        hop("https://a.example/", "http://localhost:631/"),
        Err(Error::Net(net::Error::Redirect { .. }))
    ));
    assert!(hop("https://127.0.0.1:1/", "http://localhost:2/").is_ok());
    assert!(matches!(
        hop("https://a.example/", "http://a.example/"),
        Err(Error::Net(net::Error::Redirect { .. }))
    ));
    assert!(matches!(
        hop("https://a.example/", "ftp://a.example/"),
        Err(Error::Net(net::Error::Redirect { .. }))
    ));
    assert!(matches!(
        hop("https://a.example/", "http://"),
        Err(Error::Net(net::Error::Redirect { .. }))
    ));
    assert_eq!(
        hop("https://a.example/x", "/y").unwrap(),
        "https://a.example/y"
    );
    assert_eq!(
        hop("http://a.example/x", "http://u:p@b.example/y").unwrap(),
        "http://b.example/y"
    );
}

#[test]
fn a_registry_with_tls_gets_no_token_from_a_server_without() {
    let client = client();
    let mut challenge = HeaderMap::new();
    challenge.insert(
        WWW_AUTHENTICATE,
        HeaderValue::from_static(r#"Bearer realm="http://auth.example/""#),
    );
    let reference = "registry.example/x".parse().unwrap();
    let ask = |origin: &str| {
        let origin = url(origin);
        let renewed = client.renew(&origin, &reference, &Access::Pull, &challenge, None);
        client.net.block(&Progress::silent(), renewed).unwrap_err()
    };
    assert!(matches!(
        ask("https://registry.example/"),
        Error::InsecureRealm { .. }
    ));
    challenge.insert(
        WWW_AUTHENTICATE,
        HeaderValue::from_static(r#"Bearer realm="file:///etc/passwd""#),
    );
    let origin = url("http://registry.example/");
    let renewed = client.renew(&origin, &reference, &Access::Pull, &challenge, None);
    let error = client.net.block(&Progress::silent(), renewed).unwrap_err();
    assert!(matches!(error, Error::Challenge { .. }), "{error}");
}

#[test]
fn plain_http_where_tls_should_be_is_recognised() {
    let server = Server::start(|_, reply| reply.send("200 OK", &[], b""));
    // A server that answers something, as web servers do; the test's own only hangs up.
    let talker = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = url(&format!("https://{}/", talker.local_addr().unwrap()));
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = talker.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(200));
    });
    let client = client();
    let http = client.net.make(Trust::Unverified).unwrap();
    let work = async {
        let answer = http.get(at.clone()).send().await;
        answer.map_err(|error| net::Error::unanswered(&at, &error).into())
    };
    let error = client.net.block(&Progress::silent(), work).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Net(net::Error::Unreachable {
                fault: Fault::NotTls,
                ..
            })
        ),
        "{error}"
    );
    assert!(
        error
            .hint()
            .unwrap()
            .contains("--insecure-registry 127.0.0.1:")
    );
    thread.join().unwrap();
    drop(server);
}

struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn certificates_are_verified_by_the_system_and_by_the_file_given() {
    if !crate::base::tests::has(&["docker-registry", "openssl"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (key, certificate) = (
        directory.path().join("key.pem"),
        directory.path().join("cert.pem"),
    );
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = directory.path().join("config.yml");
    let storage = directory.path().join("registry");
    fs_err::write(&config, format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n  tls:\n    certificate: {}\n    key: {}\n",
        storage.display(), certificate.display(), key.display(),
    )).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _registry = Registry(child);
    crate::base::tests::wait_for(port);
    let at = url(&format!("https://127.0.0.1:{port}/v2/"));
    let ask = |ca_cert: Option<&Path>| {
        let net = net::Client::new(net::Options {
            ca_cert: ca_cert.map(Path::to_owned),
            ..net::Options::default()
        });
        let http = net.make(Trust::Verified)?;
        net.block(&Progress::silent(), async {
            let answer = http.get(at.clone()).send().await;
            answer
                .map(|answer| answer.status().as_u16())
                .map_err(|error| net::Error::unanswered(&at, &error).into())
        })
    };
    let error = ask(None).unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Net(net::Error::Unreachable {
                fault: Fault::Certificate(_),
                ..
            })
        ),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("--ca-cert"));
    assert_eq!(ask(Some(&certificate)).unwrap(), 200);
    assert!(matches!(
        ask(Some(&config)),
        Err(Error::Net(net::Error::Certificate { .. }))
    ));
    // As everywhere on this machine, TLS is used but not verified; the answer is the registry's own.
    let reference = format!("127.0.0.1:{port}/nothing").parse().unwrap();
    let error = client()
        .document(&reference, None, &Progress::silent())
        .unwrap_err();
    assert!(
        error.to_string().contains("404") && error.to_string().contains("manifest unknown"),
        "{error}"
    );
}
