//! A proxy before a registry that lets things go wrong: at random, by a seed, or where a test says so.
//!
//! It passes bytes on as they come, so that a connection can be cut at each of them. What it does not
//! spoil it does not change.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::chance::{Chance, Fault};
use super::http::{Body, Broken, Head, Limited, answer, close_gently, pass};
use super::sessions::Sessions;

mod replies;

pub(crate) use super::chance::{Kind, Plan};

/// A running proxy; it ends with the value.
#[derive(Debug)]
pub(crate) struct Faults {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    upstream: u16,
    /// Of the proxy, and of the host elsewhere that blobs are redirected to.
    ports: [u16; 2],
    silence: Duration,
    chance: Mutex<Chance>,
    done: Mutex<BTreeMap<Kind, u32>>,
    /// What is redirected: path and login, by number.
    moved: Mutex<HashMap<u64, (String, Option<String>)>>,
    sessions: Sessions,
    next: AtomicU64,
    /// Bytes of blobs that clients have sent.
    sent: AtomicU64,
    /// Logins that came along to the host elsewhere.
    leaks: AtomicU64,
    stop: AtomicBool,
}

/// Whether a connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    End,
}

impl Faults {
    /// Starts a proxy before what listens on the port `upstream`.
    pub(crate) fn start(upstream: u16, plan: Plan) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let ports = [0, 1].map(|at: usize| {
            let address = listeners[at].local_addr();
            address.expect("it is bound").port()
        });
        let state = Arc::new(State {
            upstream,
            ports,
            silence: plan.silence,
            chance: Mutex::new(Chance::new(plan)),
            done: Mutex::default(),
            moved: Mutex::default(),
            sessions: Sessions::default(),
            next: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            leaks: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let threads = listeners.into_iter().enumerate().map(|(number, listener)| {
            let state = state.clone();
            std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if state.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let state = state.clone();
                    std::thread::spawn(move || state.serve(&stream, number == 1));
                }
            })
        });
        let threads = threads.collect();
        Self { state, threads }
    }

    /// `host:port`
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.state.ports[0])
    }

    /// What the next requests of a method (`PATCH|PUT` are either) and with a part of a path suffer, one after the other, before
    /// chance has a say; `at` is where in the bytes, from the head's first on.
    pub(crate) fn expect(&self, method: &'static str, part: &str, kind: Kind, at: u64) {
        let mut chance = self.state.chance.lock().expect("no thread panics");
        chance.expect(method, part, Fault { kind, at });
    }

    /// From now on so many requests pass after faults in a row.
    pub(crate) fn calm(&self, requests: u32) {
        let mut chance = self.state.chance.lock().expect("no thread panics");
        chance.calm(requests);
    }

    /// From now on everything passes; faults that were asked for are forgotten.
    pub(crate) fn rest(&self) {
        self.state.chance.lock().expect("no thread panics").rest();
    }

    /// What went wrong, and how often.
    pub(crate) fn done(&self) -> BTreeMap<Kind, u32> {
        self.state.done.lock().expect("no thread panics").clone()
    }

    /// How much went wrong.
    pub(crate) fn total(&self) -> u32 {
        self.done().values().sum()
    }

    /// Bytes of blobs that clients have sent, those of chunks' frames not counted.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Logins that came along to the host that blobs are redirected to.
    pub(crate) fn leaks(&self) -> u64 {
        self.state.leaks.load(Ordering::Relaxed)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        for port in self.state.ports {
            let _ = TcpStream::connect(("127.0.0.1", port));
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn serve(&self, stream: &TcpStream, is_elsewhere: bool) {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let mut reader = BufReader::new(stream);
        while let Some(mut head) = Head::read(&mut reader) {
            if is_elsewhere && !self.find(&mut head) {
                return;
            }
            if head.target().starts_with("/token") {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let body = format!(r#"{{"token":"fresh-{number}","expires_in":300}}"#);
                answer(&mut &*stream, "200 OK", &[], body.as_bytes());
                continue;
            }
            let fault = {
                let mut chance = self.chance.lock().expect("no thread panics");
                chance.decide(&head, is_elsewhere)
            };
            let next = match fault
                .as_ref()
                .and_then(|fault| self.own_answer(&head, fault))
            {
                Some((status, fields, body)) => {
                    let fault = fault.expect("it was answered");
                    self.count(fault.kind);
                    let reply = (status, fields, body);
                    self.refuse(&head, &mut reader, stream, &reply, fault.at)
                }
                None => self.forward(head, &mut reader, stream, fault),
            };
            if next == Next::End {
                return;
            }
        }
    }

    /// Answers by itself: after the body, or before it, as registries do, and then the connection ends.
    fn refuse(
        &self,
        head: &Head,
        reader: &mut BufReader<&TcpStream>,
        stream: &TcpStream,
        (status, fields, body): &(&str, Vec<String>, String),
        at: u64,
    ) -> Next {
        let mut fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let body = if head.method() == "HEAD" { "" } else { body };
        let is_early = head.body() != Body::Length(0) && at & (1 << 20) == 0;
        if is_early {
            fields.push("Connection: close");
        } else if pass(reader, &mut io::sink(), head.body(), &mut self.seen(head)).is_err() {
            return Next::End;
        }
        answer(&mut &*stream, status, &fields, body.as_bytes());
        if is_early {
            close_gently(stream);
        }
        if is_early || head.closes() {
            Next::End
        } else {
            Next::Request
        }
    }

    /// Counts the bytes of a body that belong to a blob.
    fn seen(&self, head: &Head) -> impl FnMut(u64) + '_ {
        let is_blob = head.target().contains("/blobs/uploads/");
        move |bytes| {
            if is_blob {
                self.sent.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    fn forward(
        &self,
        mut head: Head,
        reader: &mut BufReader<&TcpStream>,
        stream: &TcpStream,
        fault: Option<Fault>,
    ) -> Next {
        let Ok(upstream) = TcpStream::connect(("127.0.0.1", self.upstream)) else {
            return Next::End;
        };
        let _ = upstream.set_nodelay(true);
        if head.field("expect").is_some() {
            head.remove("expect");
            let _ = (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if let Some(fault) = fault.filter(|fault| fault.kind == Kind::Slow) {
            self.count(fault.kind);
            std::thread::sleep(Duration::from_millis(fault.at));
        }
        self.sessions.renew(&mut head);
        if let Some(fault) = fault.filter(|fault| fault.kind == Kind::Kept)
            && let Body::Length(length @ 1..) = head.body()
        {
            let mut seen = self.seen(&head);
            self.sessions
                .keep(&head, reader, &upstream, fault.at % length, &mut seen);
            return self.strike(stream, fault);
        }
        let bytes = head.bytes();
        let spoils_request = |fault: &&Fault| match fault.kind {
            Kind::CutRequest => true,
            Kind::Stall => fault.at & 1 == 0,
            _ => false,
        };
        let stop = fault.as_ref().filter(spoils_request);
        let stop = stop.map(|fault| fault.within(bytes.len(), head.body()));
        let mut to = Limited::new(&upstream, stop);
        let body = head.body();
        let passed = to.write_all(&bytes).map_err(|_| Broken::To);
        let passed = passed.and_then(|()| pass(reader, &mut to, body, &mut self.seen(&head)));
        if to.is_over() {
            return self.strike(stream, fault.expect("it was to be stopped"));
        }
        let fault = fault.filter(|fault| !spoils_request(&fault));
        // A registry may refuse before it has read everything; its answer is there nevertheless.
        let is_whole = match passed {
            Ok(()) => true,
            Err(Broken::To) => false,
            Err(Broken::From) => return Next::End,
        };
        let next = self.give_back(&head, &upstream, stream, fault);
        if is_whole && !head.closes() {
            return next;
        }
        close_gently(stream);
        Next::End
    }

    /// Passes the answer on.
    fn give_back(
        &self,
        request: &Head,
        upstream: &TcpStream,
        stream: &TcpStream,
        fault: Option<Fault>,
    ) -> Next {
        let mut reader = BufReader::new(upstream);
        let head = loop {
            match Head::read(&mut reader) {
                Some(head) if head.status() < 200 => {}
                Some(head) => break head,
                None => return Next::End,
            }
        };
        let (mut shown, body) = (head.clone(), head.answer_body(request.method()));
        let mut to = Limited::new(stream, None);
        let length = match body {
            Body::Length(length) if head.status() < 300 => length,
            _ => 0,
        };
        let mut is_spoilt = false;
        if let Some(fault) = &fault {
            match fault.kind {
                Kind::CutAnswer | Kind::Stall => {
                    to.left = Some(fault.within(head.bytes().len(), body));
                }
                Kind::Lie
                    if head.status() < 300 && head.field("docker-content-digest").is_some() =>
                {
                    let digest = format!("sha256:{:064x}", fault.at);
                    shown.set("docker-content-digest", &digest);
                    self.count(fault.kind);
                }
                Kind::Flip if length > 0 => {
                    to.flip = Some(head.bytes().len() as u64 + fault.at % length);
                    self.count(fault.kind);
                }
                Kind::Long if length > 0 => {
                    let more = length + 1 + fault.at % 100;
                    shown.set("content-length", &more.to_string());
                    is_spoilt = true;
                }
                Kind::Short if length > 0 => {
                    to.left = Some(head.bytes().len() as u64 + fault.at % length);
                    is_spoilt = true;
                }
                _ => {}
            }
        }
        if head.status() < 300 {
            self.sessions.forget(request);
        }
        let passed = to.write_all(&shown.bytes()).map_err(|_| Broken::To);
        let passed = passed.and_then(|()| pass(&mut reader, &mut to, body, &mut |_| ()));
        match fault {
            Some(fault) if is_spoilt => {
                self.count(fault.kind);
                close_gently(stream);
                Next::End
            }
            Some(fault) if to.is_over() => self.strike(stream, fault),
            _ if passed.is_err() || head.closes() || body == Body::Close => Next::End,
            _ => Next::Request,
        }
    }

    /// Resets the connection, or leaves it without a word.
    fn strike(&self, stream: &TcpStream, fault: Fault) -> Next {
        self.count(fault.kind);
        if fault.kind == Kind::Stall {
            std::thread::sleep(self.silence);
        }
        let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        Next::End
    }

    fn count(&self, kind: Kind) {
        let mut done = self.done.lock().expect("no thread panics");
        *done.entry(kind).or_default() += 1;
    }
}
