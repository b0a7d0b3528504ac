//! An HTTP server that does what a test tells it, faults included: it writes bytes, not responses.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    /// How many requests came before.
    pub(crate) number: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Where a range begins; 0 without one.
    pub(crate) fn from(&self) -> usize {
        let range = self
            .header("range")
            .and_then(|range| range.strip_prefix("bytes="));
        range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap())
    }
}

/// What goes out, on a connection that is closed afterwards.
pub(crate) struct Reply<'a>(&'a mut TcpStream);

impl Reply<'_> {
    /// What came with the request; at most `most` bytes of it.
    pub(crate) fn body(&mut self, request: &Request, most: usize) -> Vec<u8> {
        let length = request.header("content-length").unwrap_or("0");
        self.part(length.parse::<usize>().unwrap().min(most))
    }

    /// The next `length` bytes of what comes with the request.
    pub(crate) fn part(&mut self, length: usize) -> Vec<u8> {
        let mut part = vec![0; length];
        self.0.read_exact(&mut part).unwrap();
        part
    }

    /// A whole response; `headers` are lines.
    pub(crate) fn send(&mut self, status: &str, headers: &[&str], body: &[u8]) {
        let length = format!("Content-Length: {}", body.len());
        let mut lines = vec![length.as_str()];
        lines.extend(headers);
        self.raw(status, &lines, body);
    }

    /// A response as it is.
    pub(crate) fn raw(&mut self, status: &str, headers: &[&str], body: &[u8]) {
        let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        for line in headers {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        // The client may have gone, which some tests are about.
        let _ = self.0.write_all(text.as_bytes());
        let _ = self.0.write_all(body);
        let _ = self.0.flush();
    }

    /// A blob, or what is missing of it, cut after `bytes` of it.
    pub(crate) fn cut(&mut self, request: &Request, blob: &[u8], bytes: usize) {
        let from = request.from();
        let rest = &blob[from..];
        let length = format!("Content-Length: {}", rest.len());
        let range = format!(
            "Content-Range: bytes {from}-{}/{}",
            blob.len() - 1,
            blob.len()
        );
        let status = if from > 0 {
            "206 Partial Content"
        } else {
            "200 OK"
        };
        self.raw(status, &[&length, &range], &rest[..bytes.min(rest.len())]);
    }
}

/// Runs until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request, &mut Reply<'_>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (log, stop) = (
            Arc::<Mutex<Vec<Request>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (requests, stopped, answer) = (log.clone(), stop.clone(), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (requests, answer) = (requests.clone(), answer.clone());
                std::thread::spawn(move || {
                    let Some(mut request) = read_request(&mut stream) else {
                        return;
                    };
                    {
                        let mut requests = requests.lock().unwrap();
                        request.number = requests.len();
                        requests.push(request.clone());
                    }
                    answer(&request, &mut Reply(&mut stream));
                });
            }
        });
        Self {
            address,
            log,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// `None` for what is not HTTP, such as the first bytes of TLS.
fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
        if !head[0].is_ascii_uppercase() {
            return None;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let (method, path) = (first.next()?, first.next()?);
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Some(Request {
        method,
        path,
        headers,
        number: 0,
    })
}
