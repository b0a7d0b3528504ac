//! Variables that name proxies: what they mean here, and what a step sees of them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Url;

use super::{client, proxies, variables};
use crate::net::{Proxies, StepProxies};
use crate::progress::Progress;

#[test]
fn each_scheme_has_its_proxy() {
    let all = [
        ("http_proxy", "http://h:1"),
        ("HTTPS_PROXY", "https://s:2"),
        ("FTP_PROXY", "ftp://f:3"),
        ("SOCKS_PROXY", "k:4"),
        ("ALL_PROXY", "socks5://a"),
        ("NO_PROXY", "direct.example"),
    ];
    let find = |pairs: &[(&str, &str)], url: &str| {
        let proxy = proxies(pairs)
            .for_url(&url.parse::<Url>().unwrap())
            .map(ToString::to_string);
        proxy.unwrap_or_default()
    };
    for (url, expected) in [
        ("http://x.example/", "http://h:1"),
        ("https://x.example/", "https://s:2"),
        ("ftp://x.example/", "http://f:3"),
        ("ftps://x.example/", "http://f:3"),
        ("ssh://x.example/", "socks5h://k:4"),
        ("git://x.example/", "socks5h://k:4"),
        ("http://direct.example/", ""),
        ("ssh://a.direct.example/", ""),
    ] {
        assert_eq!(find(&all, url), expected, "{url}");
    }
    assert_eq!(find(&all[3..], "https://x.example/"), "socks5://a:1080");
    assert_eq!(find(&all[3..4], "https://x.example/"), "socks5h://k:4");
    assert_eq!(find(&all[..1], "ssh://x.example/"), "");
    // The last one wins, and an empty one takes back.
    let twice = [
        ("HTTP_PROXY", "a:1"),
        ("http_proxy", "b:80"),
        ("HTTP_PROXY", "[::1]"),
    ];
    assert_eq!(find(&twice[..2], "http://x.example/"), "http://b:80");
    assert_eq!(find(&twice, "http://x.example/"), "http://[::1]:80");
    assert_eq!(
        find(&[twice[0], ("http_proxy", "")], "http://x.example/"),
        ""
    );
    // As the seed's own example has it: one port does not speak both.
    let seed = [
        ("HTTP_PROXY", "http://u:p@p:1111"),
        ("HTTPS_PROXY", "https://u:p@p:1111"),
    ];
    assert_eq!(find(&seed, "https://x.example/"), "http://p:1111");
}

#[test]
fn a_step_gets_both_letter_cases() {
    let proxies = proxies(&[
        ("http_proxy", "user:p%40ss@h"),
        ("SOCKS_PROXY", "socks://k"),
        ("No_Proxy", "a, b"),
    ]);
    let variables = proxies.variables(None);
    let values: Vec<_> = variables
        .iter()
        .map(|(name, value)| format!("{name}={}", value.reveal()))
        .collect();
    assert_eq!(
        values,
        [
            "HTTP_PROXY=http://user:p%40ss@h:80",
            "http_proxy=http://user:p%40ss@h:80",
            "SOCKS_PROXY=socks5h://k:1080",
            "socks_proxy=socks5h://k:1080",
            "ALL_PROXY=socks5h://k:1080",
            "all_proxy=socks5h://k:1080",
            "NO_PROXY=a, b",
            "no_proxy=a, b",
        ]
    );
    let shown = format!("{proxies:?}");
    assert!(
        shown.contains("h:80") && !shown.contains("p%40ss") && !shown.contains("user"),
        "{shown}"
    );
    assert!(Proxies::default().variables(None).is_empty());
    // What a step gets is read again as what it was.
    assert_eq!(Proxies::new(&variables).unwrap().variables(None), variables);
}

#[test]
fn a_step_sees_http_in_the_place_of_socks() {
    let open = |pairs: &[(&str, &str)]| {
        StepProxies::open(&Arc::new(client(pairs)), &Progress::silent()).unwrap()
    };
    let value = |proxies: &StepProxies, name: &str| {
        let found = proxies.variables().iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.reveal().to_owned())
    };
    let [own, socks] = ["http://own:1", "socks5://u:pa55@127.0.0.1:1"];
    assert_eq!(value(&open(&[("HTTP_PROXY", own)]), "HTTPS_PROXY"), None);
    let proxies = open(&[("HTTP_PROXY", own), ("SOCKS_PROXY", socks)]);
    assert_eq!(value(&proxies, "http_proxy").unwrap(), own);
    assert_eq!(value(&proxies, "all_proxy").unwrap(), socks);
    let relay: Url = value(&proxies, "https_proxy").unwrap().parse().unwrap();
    let login = BASE64_STANDARD.encode(format!("step:{}", relay.password().unwrap()));
    let login = format!("Proxy-authorization: Basic {login}");
    let port = relay.port().unwrap();
    let ask = |lines: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(format!("{lines}\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    for (lines, expected) in [
        ("CONNECT x.example:443 HTTP/1.1".to_owned(), "407 "),
        (
            format!("CONNECT x.example:443 HTTP/1.1\r\n{login}x"),
            "407 ",
        ),
        (
            format!("CONNECT x.example:443 HTTP/1.1\r\n{login}"),
            "502 `x.example:443` cannot be reached",
        ),
        (format!("GET ftp://x.example/ HTTP/1.1\r\n{login}"), "400 "),
        (format!("GET /x HTTP/1.1\r\n{login}"), "400 "),
        (format!("GET\r\n{login}"), "400 "),
        (
            format!("POST http://x.example/ HTTP/1.1\r\n{login}\r\nContent-Length: x"),
            "400 ",
        ),
        (
            format!("POST http://x.example/ HTTP/1.1\r\n{login}\r\nTransfer-Encoding: chunked"),
            "411 ",
        ),
    ] {
        let answer = ask(&lines).unwrap();
        let start = format!("HTTP/1.1 {expected}");
        assert!(answer.starts_with(&start), "{lines}: {answer}");
        assert!(!answer.contains("pa55"), "{answer}");
    }
    drop(proxies);
    // It is woken to close.
    let end = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < end, "the port is still open");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_is_no_proxy_is_refused_without_being_shown() {
    for value in [
        "http://",
        "socks4://h:1",
        "http://user:pa55@h:port",
        "gopher://user:pa55@h",
        "http://u:pa55@",
    ] {
        let error = Proxies::new(&variables(&[("https_proxy", value)])).unwrap_err();
        assert_eq!(error.variable, "HTTPS_PROXY", "{value}");
        assert!(!format!("{error} {error:?} {}", error.hint()).contains("pa55"));
    }
}
