//! Proxies for steps. pip speaks no SOCKS by itself, so that steps see an HTTP proxy in the place of a
//! SOCKS one: a port of the loopback interface, open while they run, that leads on.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Url;

use super::{Client, handshake};
use crate::progress::Progress;
use crate::secret::{Secret, printable};

/// The user that the relay lets in.
const USER: &str = "step";

/// The proxies as steps see them. What leads through this tool does so for as long as the value lives.
#[derive(Debug)]
pub struct StepProxies {
    variables: Vec<(String, Secret)>,
    _relay: Option<Door>,
}

/// Where the relay listens, until the value goes.
#[derive(Debug)]
struct Door {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
}

/// What the relay's threads share.
struct Relay {
    client: Arc<Client>,
    progress: Progress,
    /// The value of `Proxy-Authorization`: the machine may have other users.
    login: String,
}

impl StepProxies {
    /// Those of `client`.
    pub fn open(client: &Arc<Client>, progress: &Progress) -> io::Result<Self> {
        let proxies = &client.options.proxies;
        if !proxies.lead_http_by_socks() {
            return Ok(Self {
                variables: proxies.variables(None),
                _relay: None,
            });
        }
        let mut bytes = [0; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let password = hex::encode(bytes);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let url = Secret::new(format!("http://{USER}:{password}@{address}"));
        let relay = Arc::new(Relay {
            client: client.clone(),
            progress: progress.clone(),
            login: handshake::basic(USER, &password),
        });
        let closed = Arc::new(AtomicBool::new(false));
        let over = closed.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let relay = relay.clone();
                // Who is not served any more hears it by the end of the connection.
                std::thread::spawn(move || relay.serve(stream));
            }
        });
        Ok(Self {
            variables: proxies.variables(Some(&url)),
            _relay: Some(Door { address, closed }),
        })
    }

    /// The variables for a step, in both letter cases.
    #[must_use]
    pub fn variables(&self) -> &[(String, Secret)] {
        &self.variables
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // It waits for a connection, and looks only then.
        let _ = TcpStream::connect(self.address);
    }
}

/// What a step asks the relay for.
enum Wish {
    /// A connection.
    Tunnel(Url),
    /// The answer to a request whose head, for the server, is this; so many bytes of it follow.
    Answer(Url, String, u64),
}

impl Relay {
    /// Serves one connection of a step.
    fn serve(&self, mut step: TcpStream) -> io::Result<()> {
        let stall = Some(self.client.timing.stall);
        step.set_read_timeout(stall)?;
        step.set_write_timeout(stall)?;
        let head = handshake::read_head(&mut step)?;
        let wish = match self.wish(&head) {
            Ok(wish) => wish,
            Err(status) => return refuse(&mut step, status),
        };
        let (scheme, url) = match &wish {
            Wish::Tunnel(url) => ("https", url),
            Wish::Answer(url, ..) => ("http", url),
        };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = url.port_or_known_default().unwrap_or_default();
        let connection = match self.client.connect(scheme, host, port, &self.progress) {
            Ok(connection) => connection,
            Err(error) => {
                return refuse(&mut step, &format!("502 {}", printable(&error.to_string())));
            }
        };
        let mut server = &connection.stream;
        match wish {
            Wish::Tunnel(_) => {
                step.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                // Either may be silent while the other talks; the step ends it if both are.
                step.set_read_timeout(None)?;
                server.set_read_timeout(None)?;
                let (mut from, mut to) = (step.try_clone()?, server.try_clone()?);
                std::thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    to.shutdown(Shutdown::Write)
                });
            }
            Wish::Answer(_, head, length) => {
                server.write_all(head.as_bytes())?;
                io::copy(&mut (&step).take(length), &mut server)?;
            }
        }
        let copied = io::copy(&mut server, &mut step);
        // Also ends the other direction.
        let _ = step.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        copied.map(drop)
    }

    /// Understands the head of a request (RFC 9112), or gives the status that refuses it.
    fn wish(&self, head: &[u8]) -> Result<Wish, &'static str> {
        const BAD: &str = "400 Bad Request";
        let head = std::str::from_utf8(head).map_err(|_| BAD)?;
        let mut lines = head.trim_end().split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(BAD);
        };
        let headers: Vec<(&str, &str)> = lines
            .map(|line| line.split_once(':').ok_or(BAD))
            .collect::<Result<_, _>>()?;
        let find = |wanted: &str| {
            let found = headers
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.trim())
        };
        if find("Proxy-Authorization") != Some(&self.login) {
            return Err("407 Proxy Authentication Required");
        }
        if method == "CONNECT" {
            let url = Url::parse(&format!("https://{target}")).map_err(|_| BAD)?;
            return Ok(Wish::Tunnel(url));
        }
        let url = Url::parse(target).map_err(|_| BAD)?;
        if url.scheme() != "http" || !url.has_host() {
            return Err(BAD);
        }
        if find("Transfer-Encoding").is_some() {
            return Err("411 Length Required");
        }
        let length = find("Content-Length").map_or(Ok(0), str::parse);
        let length = length.map_err(|_| BAD)?;
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut head = format!("{method} {path} {version}\r\n");
        for (name, value) in &headers {
            // The connection is for one answer: the next request may be for another server.
            let hop = [
                "Connection",
                "Keep-Alive",
                "Proxy-Connection",
                "Proxy-Authorization",
            ];
            if !hop.iter().any(|hop| hop.eq_ignore_ascii_case(name)) {
                // A string takes all that is written.
                let _ = write!(head, "{name}:{value}\r\n");
            }
        }
        head += "Connection: close\r\n\r\n";
        Ok(Wish::Answer(url, head, length))
    }
}

/// Answers with a status and nothing else.
fn refuse(step: &mut TcpStream, status: &str) -> io::Result<()> {
    let login = if status.starts_with("407") {
        "Proxy-Authenticate: Basic realm=\"step\"\r\n"
    } else {
        ""
    };
    let text =
        format!("HTTP/1.1 {status}\r\n{login}Content-Length: 0\r\nConnection: close\r\n\r\n");
    step.write_all(text.as_bytes())
}
