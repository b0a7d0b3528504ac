//! `NO_PROXY`: the machines that are reached without a proxy.
//!
//! No standard says what it may hold. This is what curl, Go and Python understand together: domains,
//! which stand for their subdomains too, addresses, networks, ports, and stars.

use std::net::IpAddr;

use ipnet::IpNet;

/// The machines that are reached without a proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct NoProxy {
    text: String,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    hosts: Hosts,
    /// Any, if it names none.
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum Hosts {
    /// An address is a network of one.
    Network(IpNet),
    /// In small letters, without the dots around it; the domain itself and all below.
    Domain(String),
    /// With stars in it, each for any characters.
    Pattern(String),
}

impl NoProxy {
    /// Entries are separated by commas or spaces.
    pub(super) fn parse(text: &str) -> Self {
        let entries = text.split(|c: char| c == ',' || c.is_whitespace());
        Self {
            text: text.to_owned(),
            entries: entries.filter_map(Entry::parse).collect(),
        }
    }

    /// As it was typed.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether `host` (a name or an address, with brackets or without) is reached without a proxy.
    pub(super) fn holds(&self, host: &str, port: u16) -> bool {
        let host = host
            .trim_matches(['[', ']'])
            .trim_end_matches('.')
            .to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        self.entries.iter().any(|entry| {
            entry.port.is_none_or(|wanted| wanted == port)
                && entry
                    .hosts
                    .hold(&host, address.map(|address| address.to_canonical()))
        })
    }
}

impl Entry {
    /// `None` for an empty entry.
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (host, port) = split_port(&text);
        let bare = host.trim_matches(['[', ']']);
        let network = bare
            .parse()
            .or_else(|_| bare.parse::<IpAddr>().map(IpNet::from));
        let domain = bare.strip_prefix('*').filter(|rest| rest.starts_with('.'));
        let domain = domain.unwrap_or(bare).trim_matches('.');
        let hosts = match network {
            Ok(network) => Hosts::Network(network),
            Err(_) if domain.is_empty() => return None,
            Err(_) if domain.contains('*') => Hosts::Pattern(domain.to_owned()),
            Err(_) => Hosts::Domain(in_ascii(domain)),
        };
        Some(Self { hosts, port })
    }
}

impl Hosts {
    fn hold(&self, host: &str, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Network(network), Some(address)) => network.contains(&address),
            (Self::Network(_), None) => false,
            (Self::Domain(domain), _) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('.')),
            (Self::Pattern(pattern), _) => matches(pattern, host),
        }
    }
}

/// `host:port`, `[v6]:port`, `network:port`; an IPv6 address without brackets has no port.
fn split_port(text: &str) -> (&str, Option<u16>) {
    let Some((host, port)) = text.rsplit_once(':') else {
        return (text, None);
    };
    match port.parse() {
        Ok(port) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// A domain with other letters is written in ASCII where it is looked up.
fn in_ascii(domain: &str) -> String {
    url::Host::parse(domain).map_or_else(|_| domain.to_owned(), |host| host.to_string())
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == text;
    };
    text.strip_prefix(before).is_some_and(|rest| {
        let mut ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
        ends.any(|at| matches(after, &rest[at..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_hold_what_they_name() {
        for (list, host, port, expected) in [
            ("example.com", "example.com", 80, true),
            ("example.com", "a.b.EXAMPLE.com", 80, true),
            ("example.com", "notexample.com", 80, false),
            ("example.com", "example.com.", 80, true),
            (".example.com", "a.example.com", 80, true),
            (".example.com", "example.com", 80, true),
            ("*.example.com", "a.example.com", 80, true),
            (
                "*.test.example.com,.example2.com",
                "a.example2.com",
                80,
                true,
            ),
            ("*.test.example.com,.example2.com", "example.com", 80, false),
            ("a b\tc", "b", 80, true),
            ("*", "anything", 80, true),
            ("*", "[::1]", 80, true),
            ("10.1.*", "10.1.2.3", 80, true),
            ("10.1.*", "10.2.2.3", 80, false),
            ("*lab*", "my-lab.example", 80, true),
            ("host:8080", "host", 8080, true),
            ("host:8080", "host", 80, false),
            ("10.0.0.0/8", "10.255.0.1", 80, true),
            ("10.0.0.0/8", "11.0.0.1", 80, false),
            ("10.0.0.0/8", "10.example.com", 80, false),
            ("10.0.0.0/8:8080", "10.1.1.1", 8080, true),
            ("10.0.0.0/8:8080", "10.1.1.1", 80, false),
            ("127.0.0.1", "127.0.0.1", 80, true),
            ("127.0.0.1", "127.0.0.11", 80, false),
            ("127.0.0.1", "::ffff:127.0.0.1", 80, true),
            ("::1", "[::1]", 80, true),
            ("[::1]", "::1", 80, true),
            ("[::1]:8080", "[::1]", 8080, true),
            ("[::1]:8080", "[::1]", 80, false),
            ("fd00::/8", "[fd12::1]", 80, true),
            ("fd00::/8", "fe80::1", 80, false),
            ("bücher.example", "www.xn--bcher-kva.example", 80, true),
            ("", "host", 80, false),
            (" , ,.", "host", 80, false),
            ("localhost", "127.0.0.1", 80, false),
        ] {
            assert_eq!(
                NoProxy::parse(list).holds(host, port),
                expected,
                "`{list}` and {host}:{port}"
            );
        }
    }
}
