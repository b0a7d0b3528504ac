//! Proxies and redirects, with servers that keep what they are told.

mod certificates;
mod variables;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;

use super::{Client, ConnectError, Error, Fault, Options, Proxies, Request, Timing};
use crate::progress::Progress;
use crate::registry::tests::server::Server;
use crate::secret::Secret;

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, Secret)> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new(*value));
    pairs.iter().map(pair).collect()
}

fn proxies(pairs: &[(&str, &str)]) -> Proxies {
    Proxies::new(&variables(pairs)).unwrap()
}

fn client(pairs: &[(&str, &str)]) -> Client {
    let options = Options {
        proxies: proxies(pairs),
        ..Options::default()
    };
    let timing = Timing {
        connect: Duration::from_secs(5),
        ..Timing::default()
    };
    Client::with_timing(options, timing)
}

fn get(url: &str) -> Request {
    Request::get(url.parse().unwrap())
}

/// A proxy of one connection: answers what `answers` say, piece by piece, each after it got as many bytes
/// as the piece before it expects; what came is returned.
fn proxy(script: Vec<(usize, &'static [u8])>) -> (String, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut came = Vec::new();
        for (expected, answer) in script {
            let mut bytes = vec![0; expected];
            stream.read_exact(&mut bytes).unwrap();
            came.extend(bytes);
            stream.write_all(answer).unwrap();
        }
        came
    });
    (host, thread)
}

fn said(client: &Client, scheme: &str, host: &str, port: u16) -> String {
    let connection = client
        .connect(scheme, host, port, &Progress::silent())
        .unwrap();
    let mut text = String::new();
    (&connection.stream).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn connections_come_about_through_proxies() {
    // Names are looked up by the proxy: `.invalid` has no address anywhere.
    let request = "CONNECT far.invalid:22 HTTP/1.1\r\nHost: far.invalid:22\r\n\
                   Proxy-Authorization: Basic dTpwQA==\r\n\r\n";
    let (host, thread) = proxy(vec![(
        request.len(),
        b"HTTP/1.0 200 Fine\r\nX: y\r\n\r\nbanner",
    )]);
    let client_by = |url: String| client(&[("ALL_PROXY", url.as_str())]);
    assert_eq!(
        said(
            &client_by(format!("http://u:p%40@{host}")),
            "ssh",
            "far.invalid",
            22
        ),
        "banner"
    );
    assert_eq!(String::from_utf8(thread.join().unwrap()).unwrap(), request);

    let (host, thread) = proxy(vec![
        (4, b"\x05\x02"),
        (6, b"\x01\x00"),
        (18, b"\x05\x00\x00\x03\x04name\x00\x01banner"),
    ]);
    assert_eq!(
        said(
            &client_by(format!("socks5h://u:pw@{host}")),
            "git",
            "far.invalid",
            22
        ),
        "banner"
    );
    assert_eq!(
        thread.join().unwrap(),
        b"\x05\x02\x00\x02\x01\x01u\x02pw\x05\x01\x00\x03\x0bfar.invalid\x00\x16"
    );

    let (host, thread) = proxy(vec![
        (3, b"\x05\x00"),
        (10, b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00banner"),
    ]);
    assert_eq!(
        said(
            &client_by(format!("socks5://{host}")),
            "ftp",
            "127.0.0.1",
            258
        ),
        "banner"
    );
    assert_eq!(
        thread.join().unwrap(),
        b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x01\x02"
    );

    let (host, thread) = proxy(vec![(0, b"banner")]);
    let port = host.rsplit_once(':').unwrap().1.parse().unwrap();
    let direct = client(&[("ALL_PROXY", "127.0.0.1:1"), ("NO_PROXY", "127.0.0.0/8")]);
    assert_eq!(said(&direct, "ssh", "127.0.0.1", port), "banner");
    thread.join().unwrap();
}

#[test]
fn a_proxy_may_refuse() {
    let request = "CONNECT far.invalid:22 HTTP/1.1\r\nHost: far.invalid:22\r\n\r\n".len();
    for (scheme, script, words) in [
        (
            "http",
            vec![(request, &b"HTTP/1.1 403 Filtered\r\n\r\n"[..])],
            "403 Filtered",
        ),
        (
            "http",
            vec![(request, b"HTTP/1.1 407 Auth\r\n\r\n")],
            "wants a user name",
        ),
        (
            "http",
            vec![(request, b"SSH-2.0-x\r\n\r\n")],
            "does not speak HTTP",
        ),
        ("http", vec![(request, b"")], "closed the connection"),
        ("socks5h", vec![(3, b"\x05\xff")], "wants a user name"),
        ("socks5h", vec![(3, b"HT")], "does not speak SOCKS5"),
        (
            "socks5h",
            vec![(3, b"\x05\x00"), (10, b"\x05\x05\x00\x01")],
            "connection refused",
        ),
        ("https", vec![], "are for HTTP alone"),
    ] {
        let (host, thread) = proxy(script);
        let client = client(&[("SOCKS_PROXY", &format!("{scheme}://{host}"))]);
        let error = client
            .connect("ssh", "far.invalid", 22, &Progress::silent())
            .unwrap_err();
        assert!(matches!(error, ConnectError::Proxy { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(&host), "{text}");
        assert!(error.hint().is_some());
        drop(TcpStream::connect(&host));
        // It may have been left in the middle of what it would say.
        let _ = thread.join();
    }
}

#[test]
fn connecting_ends_in_time_and_when_told() {
    // It accepts, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let options = Options {
        proxies: proxies(&[("ALL_PROXY", &host)]),
        ..Options::default()
    };
    let timing = Timing {
        connect: Duration::from_millis(200),
        ..Timing::default()
    };
    let hurried = Client::with_timing(options, timing);
    let began = Instant::now();
    let error = hurried
        .connect("ssh", "x.example", 22, &Progress::silent())
        .unwrap_err();
    assert!(error.to_string().contains("no answer in time"), "{error}");
    let progress = Progress::silent();
    progress.stop();
    let error = client(&[("ALL_PROXY", &host)])
        .connect("ssh", "x.example", 22, &progress)
        .unwrap_err();
    assert!(matches!(error, ConnectError::Cancelled(_)), "{error}");

    let server = Server::start(|_, _| std::thread::sleep(Duration::from_secs(3)));
    let progress = Progress::silent();
    let handle = progress.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        handle.stop();
    });
    let url = format!("http://{}/", server.address);
    let error = client(&[]).request(get(&url), &progress).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2));

    let [port] = [TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()];
    let error = client(&[])
        .connect("ssh", "127.0.0.1", port, &Progress::silent())
        .unwrap_err();
    assert!(
        error.to_string().to_lowercase().contains("refused"),
        "{error}"
    );
}

#[test]
fn http_goes_by_the_proxy() {
    let server = Server::start(
        |request, reply| match request.header("proxy-authorization") {
            Some("Basic dTpwYTU1QA==") => reply.send("200 OK", &[], b"by the proxy"),
            _ => reply.send("407 Login", &[], b""),
        },
    );
    let ask = |proxy: &str| {
        let client = client(&[("http_proxy", proxy), ("NO_PROXY", "127.0.0.1")]);
        let mut response = client.request(get("http://far.invalid/x?y"), &Progress::silent())?;
        let mut text = String::new();
        response.read_to_string(&mut text).unwrap();
        Ok::<_, Error>(text)
    };
    assert_eq!(
        ask(&format!("u:pa55%40@{}", server.address)).unwrap(),
        "by the proxy"
    );
    assert_eq!(server.requests()[0].path, "http://far.invalid/x?y");
    for proxy in [server.address.to_string(), "u:pa55@127.0.0.1:1".to_owned()] {
        let error = ask(&proxy).unwrap_err();
        let Error::Unreachable {
            host,
            fault: Fault::Proxy { .. },
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(host, "far.invalid");
        assert!(!format!("{error:?} {error} {}", error.hint().unwrap()).contains("pa55"));
    }
    // What is listed goes directly.
    let direct = client(&[("http_proxy", "127.0.0.1:1"), ("NO_PROXY", "127.0.0.1")]);
    let url = format!("http://{}/", server.address);
    let error = direct.request(get(&url), &Progress::silent()).unwrap_err();
    assert!(error.to_string().contains("wants a user name"), "{error}");
}

#[test]
fn the_registry_goes_by_the_proxy() {
    let server = Server::start(|_, reply| reply.send("502 No", &[], b""));
    let proxy = server.address.to_string();
    let ask = |reference: &str| {
        let net = Arc::new(client(&[("ALL_PROXY", proxy.as_str())]));
        let registry = crate::registry::Client::new(crate::registry::Options::default(), net);
        let reference = reference.parse().unwrap();
        registry
            .document(&reference, None, &Progress::silent())
            .unwrap_err()
            .to_string()
    };
    let error = ask("registry.invalid/team/image:1");
    assert!(
        error.contains("the proxy") && error.contains(&proxy),
        "{error}"
    );
    assert_eq!(server.requests()[0].method, "CONNECT");
    assert_eq!(server.requests()[0].path, "registry.invalid:443");
    let before = server.requests().len();
    let error = ask("127.0.0.1:1/team/image:1");
    assert!(!error.contains("proxy"), "{error}");
    assert_eq!(
        server.requests().len(),
        before,
        "this machine's own is reached directly"
    );
}

#[test]
fn credentials_stay_at_home() {
    let other = Server::start(|request, reply| {
        assert!(request.header("authorization").is_none());
        let back = request.header("host").unwrap_or_default();
        match request.path.as_str() {
            "/back" => reply.send("302 Found", &[&format!("Location: http://{back}/end")], b""),
            _ => reply.send("200 OK", &[], b"elsewhere"),
        }
    });
    let away = format!("Location: http://u:p@{}/end", other.address);
    let server = Server::start(move |request, reply| match request.path.as_str() {
        "/away" => reply.send("302 Found", &[&away], b""),
        "/stay" => reply.send("307 Temporary", &["Location: /end"], b""),
        "/post" => reply.send("302 Found", &["Location: /end"], b""),
        "/loop" => reply.send("302 Found", &["Location: /loop"], b""),
        "/ftp" => reply.send("302 Found", &["Location: ftp://127.0.0.1/"], b""),
        _ => reply.send("200 OK", &[], request.method.as_bytes()),
    });
    let client = client(&[]);
    let ask = |path: &str, method: Method, body: &[u8]| {
        let request = Request {
            method,
            body: body.to_vec(),
            credentials: Some(("u".to_owned(), Secret::new("p"))),
            ..get(&format!("http://not:this@{}{path}", server.address))
        };
        let mut response = client.request(request, &Progress::silent())?;
        let mut text = String::new();
        response.read_to_string(&mut text).unwrap();
        Ok::<_, Error>(text)
    };
    assert_eq!(ask("/away", Method::GET, b"").unwrap(), "elsewhere");
    assert_eq!(
        server.requests()[0].header("authorization"),
        Some("Basic dTpw")
    );
    assert!(other.requests()[0].header("authorization").is_none());
    assert_eq!(ask("/stay", Method::POST, b"body").unwrap(), "POST");
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.header("authorization") == Some("Basic dTpw"))
    );
    for (path, method, body, words) in [
        ("/post", Method::POST, &b"body"[..], "with a body"),
        ("/loop", Method::GET, b"", "in a circle"),
        ("/ftp", Method::GET, b"", "to nowhere"),
    ] {
        let error = ask(path, method, body).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(
        server
            .requests()
            .iter()
            .filter(|request| request.path == "/loop")
            .count(),
        11
    );
}
