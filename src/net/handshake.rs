//! How a proxy is asked for a connection: CONNECT (RFC 9110, section 9.3.6) and SOCKS5 (RFC 1928 and
//! 1929).
//!
//! Both are a few bytes each way on a connection that belongs to the other machine from then on, so not a
//! byte more than the proxy's own is read.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::words::short;
use crate::secret::Secret;

/// Whose head is longer than this does not speak HTTP.
const LONGEST_HEAD: usize = 1 << 14;

/// The value of `Authorization` and `Proxy-Authorization`, RFC 7617.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{password}"))
    )
}

/// Asks an HTTP proxy for a connection to `host`, which is a name or an address without brackets.
pub(super) fn http(
    stream: &mut (impl Read + Write),
    host: &str,
    port: u16,
    credentials: Option<&(String, Secret)>,
) -> io::Result<()> {
    let target = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let login = credentials.map_or_else(String::new, |(user, password)| {
        format!(
            "Proxy-Authorization: {}\r\n",
            basic(user, password.reveal())
        )
    });
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n");
    stream.write_all(request.as_bytes())?;
    let head = read_head(stream)?;
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..));
    match status {
        Some(status) if status.starts_with('2') => Ok(()),
        Some(status) if status.starts_with("407") => {
            Err(io::Error::other("it wants a user name and a password"))
        }
        Some(status) => Err(io::Error::other(format!("it answered {}", short(status)))),
        None => Err(io::Error::other("it does not speak HTTP")),
    }
}

/// Reads the first line and the headers of a message of HTTP, to the empty line.
pub(super) fn read_head(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read::<1>(stream)?);
        if head.len() > LONGEST_HEAD {
            return Err(io::Error::other("it does not speak HTTP"));
        }
    }
    Ok(head)
}

/// Asks a SOCKS5 proxy for a connection to `host`; a name is looked up by the proxy.
pub(super) fn socks5(
    stream: &mut (impl Read + Write),
    host: &str,
    port: u16,
    credentials: Option<&(String, Secret)>,
) -> io::Result<()> {
    match credentials {
        Some(_) => stream.write_all(&[5, 2, 0, 2])?,
        None => stream.write_all(&[5, 1, 0])?,
    }
    let [version, method] = read(stream)?;
    if version != 5 {
        return Err(io::Error::other("it does not speak SOCKS5"));
    }
    match (method, credentials) {
        (0, _) => {}
        (2, Some((user, password))) => {
            let mut login = vec![1];
            push_short(&mut login, user)?;
            push_short(&mut login, password.reveal())?;
            stream.write_all(&login)?;
            let [_, status] = read(stream)?;
            if status != 0 {
                return Err(io::Error::other("it refused the user name or the password"));
            }
        }
        _ => return Err(io::Error::other("it wants a user name and a password")),
    }
    let mut request = vec![5, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(3);
            push_short(&mut request, host)?;
        }
    }
    request.extend(port.to_be_bytes());
    stream.write_all(&request)?;
    let [_, status, _, kind] = read(stream)?;
    if status != 0 {
        return Err(io::Error::other(refusal(status)));
    }
    // The address that the proxy uses itself, and its port.
    let length = match kind {
        1 => 4,
        4 => 16,
        _ => usize::from(read::<1>(stream)?[0]),
    };
    stream.read_exact(&mut vec![0; length + 2])
}

fn read<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A text after its length in one byte.
fn push_short(bytes: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length = u8::try_from(text.len()).map_err(|_| io::Error::other("a name is too long"))?;
    bytes.push(length);
    bytes.extend(text.as_bytes());
    Ok(())
}

fn refusal(status: u8) -> &'static str {
    match status {
        2 => "it does not allow this connection",
        3 => "the network cannot be reached from there",
        4 => "the host cannot be reached from there",
        5 => "connection refused",
        6 => "no answer in time",
        _ => "it cannot make this connection",
    }
}
