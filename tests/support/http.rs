//! HTTP/1.1 as far as the servers of the tests speak it: heads that keep their bytes, and bodies that are
//! passed on as they come (RFC 9112).

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;

/// The first line and the fields of a request or an answer.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Without its line break.
    pub(crate) first: String,
    /// Names as they came.
    pub(crate) fields: Vec<(String, String)>,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// After so many bytes.
    Length(u64),
    /// With an empty chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// Which end of a passage broke.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Where the bytes come from.
    From,
    /// Where they go to.
    To,
}

impl Head {
    /// Reads a head; `None` if the other side has closed, or speaks something else.
    pub(crate) fn read(from: &mut impl BufRead) -> Option<Self> {
        // The first bytes of TLS hold no line break to wait for.
        if !from.fill_buf().ok()?.first()?.is_ascii_uppercase() {
            return None;
        }
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            from.take(1 << 16).read_until(b'\n', &mut line).ok()?;
            let line = String::from_utf8(line).ok()?;
            match line.strip_suffix("\r\n")? {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let first = lines.first()?.clone();
        let fields = lines.iter().skip(1);
        let fields = fields.map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        });
        Some(Self {
            first,
            fields: fields.collect::<Option<_>>()?,
        })
    }

    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Changes the value of a field that is there.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        for (key, old) in &mut self.fields {
            if key.eq_ignore_ascii_case(name) {
                value.clone_into(old);
            }
        }
    }

    /// Takes a field away.
    pub(crate) fn remove(&mut self, name: &str) {
        self.fields
            .retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }

    /// The method of a request.
    pub(crate) fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    /// The target of a request, with its query.
    pub(crate) fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.target().parse().unwrap_or_default()
    }

    /// How the body of a request ends.
    pub(crate) fn body(&self) -> Body {
        self.body_or(Body::Length(0))
    }

    /// How the body of the answer to a request with `method` ends.
    pub(crate) fn answer_body(&self, method: &str) -> Body {
        match self.status() {
            100..=199 | 204 | 304 => Body::Length(0),
            _ if method == "HEAD" => Body::Length(0),
            _ => self.body_or(Body::Close),
        }
    }

    fn body_or(&self, otherwise: Body) -> Body {
        let is_chunked = |value: &str| value.eq_ignore_ascii_case("chunked");
        if self.field("transfer-encoding").is_some_and(is_chunked) {
            return Body::Chunked;
        }
        let length = self.field("content-length");
        length.map_or(otherwise, |length| {
            Body::Length(length.parse().expect("a length"))
        })
    }

    /// Whether the connection ends after this.
    pub(crate) fn closes(&self) -> bool {
        let closes = |value: &str| value.eq_ignore_ascii_case("close");
        self.field("connection").is_some_and(closes)
    }

    /// As it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let fields = self
            .fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        let fields: String = fields.collect();
        format!("{}\r\n{fields}\r\n", self.first).into_bytes()
    }
}

/// An answer of our own; `fields` are lines.
pub(crate) fn answer(to: &mut impl Write, status: &str, fields: &[&str], body: &[u8]) {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for line in fields {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    // The client may have gone, which some tests are about.
    let _ = to.write_all(&[text.as_bytes(), body].concat());
}

/// Passes a body on, chunks and all. `seen` gets the number of its bytes as they come.
pub(crate) fn pass(
    from: &mut impl BufRead,
    to: &mut impl Write,
    body: Body,
    seen: &mut impl FnMut(u64),
) -> Result<(), Broken> {
    match body {
        Body::Length(length) => pass_bytes(from, to, length, seen),
        Body::Close => match pass_bytes(from, to, u64::MAX, seen) {
            Err(Broken::From) => Ok(()),
            other => other,
        },
        Body::Chunked => loop {
            let line = pass_line(from, to)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| Broken::From)?;
            pass_bytes(from, to, size, seen)?;
            if size > 0 {
                pass_bytes(from, to, 2, &mut |_| ())?;
                continue;
            }
            // The trailers, which end with an empty line.
            while !pass_line(from, to)?.is_empty() {}
            return Ok(());
        },
    }
}

fn pass_line(from: &mut impl BufRead, to: &mut impl Write) -> Result<String, Broken> {
    let mut line = String::new();
    let read = from.take(1 << 16).read_line(&mut line);
    if !line.ends_with('\n') || read.is_err() {
        return Err(Broken::From);
    }
    to.write_all(line.as_bytes()).map_err(|_| Broken::To)?;
    Ok(line.trim_end().to_owned())
}

fn pass_bytes(
    from: &mut impl BufRead,
    to: &mut impl Write,
    length: u64,
    seen: &mut impl FnMut(u64),
) -> Result<(), Broken> {
    let mut left = length;
    while left > 0 {
        let bytes = from.fill_buf().map_err(|_| Broken::From)?;
        if bytes.is_empty() {
            return Err(Broken::From);
        }
        let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        seen(taken as u64);
        to.write_all(&bytes[..taken]).map_err(|_| Broken::To)?;
        from.consume(taken);
        left -= taken as u64;
    }
    Ok(())
}

/// Reads the rest of a body, up to `limit` bytes; what cannot be read is not there.
pub(crate) fn read_body(from: &mut impl BufRead, head: &Head, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Body::Length(length) = head.body() {
        let _ = from.take(length.min(limit)).read_to_end(&mut bytes);
    }
    bytes
}

/// The value of a parameter of a query or a form, decoded; the first of several.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    parameters(query, name).into_iter().next()
}

/// The values of a parameter.
pub(crate) fn parameters(query: &str, name: &str) -> Vec<String> {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// `Authorization: Basic`, taken apart.
pub(crate) fn basic(head: &Head) -> Option<(String, String)> {
    use base64::Engine as _;
    let text = head.field("authorization")?.strip_prefix("Basic ")?;
    let text = base64::prelude::BASE64_STANDARD.decode(text).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Nothing more is sent; what the other side still sends is read, so that it sees the answer and not a
/// connection that was reset.
pub(crate) fn close_gently(stream: &TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(500)));
    let mut stream = stream;
    let _ = io::copy(&mut (&mut stream).take(1 << 26), &mut io::sink());
}

/// A way that ends after some bytes, or changes one.
#[derive(Debug)]
pub(crate) struct Limited<'a> {
    to: &'a TcpStream,
    /// Bytes that still pass; `None` for all.
    pub(crate) left: Option<u64>,
    /// Which byte is changed.
    pub(crate) flip: Option<u64>,
    written: u64,
}

impl<'a> Limited<'a> {
    /// One that lets so many bytes pass.
    pub(crate) fn new(to: &'a TcpStream, left: Option<u64>) -> Self {
        Self {
            to,
            left,
            flip: None,
            written: 0,
        }
    }

    /// Whether all has passed that may.
    pub(crate) fn is_over(&self) -> bool {
        self.left == Some(0)
    }
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = self.left.unwrap_or(u64::MAX);
        let part = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        if part == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut part = bytes[..part].to_vec();
        if let Some(at) = self.flip.and_then(|flip| flip.checked_sub(self.written))
            && let Some(byte) = part.get_mut(usize::try_from(at).unwrap_or(usize::MAX))
        {
            *byte ^= 1;
        }
        self.to.write_all(&part)?;
        self.written += part.len() as u64;
        if let Some(left) = &mut self.left {
            *left -= part.len() as u64;
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
