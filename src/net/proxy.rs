//! Which proxy leads to a machine: the variables that curl knows, in both letter cases, and `NO_PROXY`.
//!
//! Values may hold credentials, so nothing here prints one: a [`Proxy`] prints its host and port.

use std::fmt;

use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::no_proxy::NoProxy;
use crate::error::{self, Error};
use crate::secret::Secret;

/// The variables that are read; of two that differ in nothing but case the later one wins.
pub(crate) const PROXY_VARIABLES: [&str; 12] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "SOCKS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "socks_proxy",
    "all_proxy",
    "no_proxy",
];

/// Proxies by scheme, and the machines that are reached without one.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    ftp: Option<Proxy>,
    socks: Option<Proxy>,
    all: Option<Proxy>,
    except: NoProxy,
}

/// A machine that leads to others. Printed, it has no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(super) kind: Kind,
    /// IPv6 addresses are without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) credentials: Option<(String, Secret)>,
    /// The same with what stands between `//` and `@`, as it was typed.
    url: Secret,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Http,
    /// HTTP within TLS.
    Https,
    /// Names are looked up here.
    Socks5,
    /// Names are looked up by the proxy.
    Socks5h,
}

/// The value of a variable is not a proxy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{variable}` is not the URL of a proxy")]
pub struct InvalidProxy {
    /// In capital letters; its value is not shown.
    pub variable: &'static str,
}

impl From<InvalidProxy> for Error {
    fn from(invalid: InvalidProxy) -> Self {
        Self::from_enum(error::Kind::Options, Some(invalid.hint()), invalid).usage()
    }
}

impl InvalidProxy {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        "write `http://[USER:PASSWORD@]HOST:PORT` or `socks5h://HOST:PORT`, with special characters percent-encoded"
    }
}

impl Proxies {
    /// From variables such as `HTTPS_PROXY`, in either letter case. Of those that differ in nothing else
    /// the last wins; an empty value takes back an earlier one. Other variables are passed over.
    pub fn new(variables: &[(String, Secret)]) -> Result<Self, InvalidProxy> {
        Self::default().with(variables)
    }

    /// From the environment of this process, where small letters win, as everywhere.
    pub fn from_env() -> Result<Self, InvalidProxy> {
        let value = |name: &&str| {
            let value = std::env::var(name).ok()?;
            Some(((*name).to_owned(), Secret::new(value)))
        };
        Self::new(&PROXY_VARIABLES.iter().filter_map(value).collect::<Vec<_>>())
    }

    /// These, but for what `variables` say.
    pub fn with(mut self, variables: &[(String, Secret)]) -> Result<Self, InvalidProxy> {
        for (name, value) in variables {
            let known = PROXY_VARIABLES
                .iter()
                .find(|known| known.eq_ignore_ascii_case(name));
            let (Some(&variable), value) = (known, value.reveal().trim()) else {
                continue;
            };
            let invalid = || InvalidProxy { variable };
            if variable == "NO_PROXY" {
                self.except = NoProxy::parse(value);
                continue;
            }
            let proxy = match value {
                "" => None,
                value => Some(Proxy::parse(value, variable).ok_or_else(invalid)?),
            };
            match variable {
                "HTTP_PROXY" => self.http = proxy,
                "HTTPS_PROXY" => self.https = proxy,
                "FTP_PROXY" => self.ftp = proxy,
                "SOCKS_PROXY" => self.socks = proxy,
                _ => self.all = proxy,
            }
        }
        // A port speaks TLS or it does not: `https://` was meant for what is asked for by the proxy.
        if let (Some(http), Some(https)) = (&self.http, &mut self.https)
            && (http.kind, https.kind) == (Kind::Http, Kind::Https)
            && (&http.host, http.port) == (&https.host, https.port)
        {
            https.set_kind(Kind::Http);
        }
        Ok(self)
    }

    /// The variables for a step, in both letter cases. A SOCKS proxy is `ALL_PROXY` as well, since hardly
    /// a program knows the other name. `relay` is the URL of the HTTP proxy that stands for a SOCKS one.
    pub(super) fn variables(&self, relay: Option<&Secret>) -> Vec<(String, Secret)> {
        let all = self.all.as_ref().or(self.socks.as_ref());
        let url = |proxy: Option<&Proxy>| proxy.map(|proxy| proxy.url.clone());
        let by_http = |scheme: &str, own: &Option<Proxy>| match (relay, self.by_scheme(scheme)) {
            (Some(relay), Some(proxy)) if proxy.is_socks() => Some(relay.clone()),
            _ => url(own.as_ref()),
        };
        let proxies = [
            by_http("http", &self.http),
            by_http("https", &self.https),
            url(self.ftp.as_ref()),
            url(self.socks.as_ref()),
            url(all),
        ];
        let except = self.except.text();
        let except = (!except.is_empty()).then(|| Secret::new(except));
        PROXY_VARIABLES
            .into_iter()
            .zip(proxies.into_iter().chain([except]))
            .filter_map(|(name, value)| Some((name, value?)))
            .flat_map(|(name, value)| {
                [
                    (name.to_owned(), value.clone()),
                    (name.to_ascii_lowercase(), value),
                ]
            })
            .collect()
    }

    /// Whether a SOCKS proxy is to lead what speaks HTTP.
    pub(super) fn lead_http_by_socks(&self) -> bool {
        let mut schemes = ["http", "https"].into_iter();
        schemes.any(|scheme| self.by_scheme(scheme).is_some_and(Proxy::is_socks))
    }

    /// The proxy for a URL.
    #[must_use]
    pub fn for_url(&self, url: &Url) -> Option<&Proxy> {
        let port = url.port_or_known_default().unwrap_or_default();
        self.find(url.scheme(), url.host_str()?, port)
    }

    /// The proxy for `host` (a name or an address, with brackets or without), to be spoken to by
    /// `scheme`, such as `http`, `ftp`, `ssh` or `git`.
    #[must_use]
    pub fn find(&self, scheme: &str, host: &str, port: u16) -> Option<&Proxy> {
        self.by_scheme(scheme)
            .filter(|_| !self.except.holds(host, port))
    }

    /// The proxy for a scheme, wherever it leads.
    fn by_scheme(&self, scheme: &str) -> Option<&Proxy> {
        let (all, socks) = (self.all.as_ref(), self.socks.as_ref());
        match scheme {
            "http" => self.http.as_ref().or(all).or(socks),
            "https" => self.https.as_ref().or(all).or(socks),
            "ftp" | "ftps" => self.ftp.as_ref().or(socks).or(all),
            _ => socks.or(all),
        }
    }
}

impl Proxy {
    /// Parses `[scheme://][user[:password]@]host[:port]`; what the variable is says how a proxy without a
    /// scheme is spoken to.
    fn parse(text: &str, variable: &str) -> Option<Self> {
        let default = if variable == "SOCKS_PROXY" {
            "socks5h"
        } else {
            "http"
        };
        let (scheme, rest) = text.split_once("://").unwrap_or((default, text));
        let kind = match scheme.to_ascii_lowercase().as_str() {
            // Nobody speaks FTP to a proxy; the scheme is what is asked for by it.
            "http" | "ftp" => Kind::Http,
            "https" => Kind::Https,
            "socks5" => Kind::Socks5,
            "socks5h" | "socks" => Kind::Socks5h,
            _ => return None,
        };
        let url = Url::parse(&format!("http://{rest}")).ok()?;
        // The parser keeps back a port that is the scheme's own.
        let other = Url::parse(&format!("https://{rest}")).ok()?;
        let host = url.host_str()?;
        let port = url.port().or(other.port()).unwrap_or(match kind {
            Kind::Http => 80,
            Kind::Https => 443,
            Kind::Socks5 | Kind::Socks5h => 1080,
        });
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (url.username(), url.password());
        let has_user = !user.is_empty() || password.is_some();
        let mut proxy = Self {
            kind,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            credentials: has_user.then(|| {
                (
                    decode(user),
                    Secret::new(decode(password.unwrap_or_default())),
                )
            }),
            url: Secret::default(),
        };
        let credentials = match password {
            _ if !has_user => String::new(),
            Some(password) => format!("{user}:{password}@"),
            None => format!("{user}@"),
        };
        proxy.url = Secret::new(format!(
            "{}://{credentials}{}",
            proxy.scheme(),
            proxy.authority()
        ));
        Some(proxy)
    }

    fn set_kind(&mut self, kind: Kind) {
        let before = self.scheme();
        self.kind = kind;
        let rest = self.url.reveal().trim_start_matches(before).to_owned();
        self.url = Secret::new(self.scheme().to_owned() + &rest);
    }

    /// For the HTTP library; holds the credentials.
    pub(super) fn url(&self) -> Url {
        Url::parse(self.url.reveal()).expect("it was put together of what was parsed")
    }

    /// Whether certificates matter on the way to it.
    pub(super) fn speaks_tls(&self) -> bool {
        self.kind == Kind::Https
    }

    fn is_socks(&self) -> bool {
        matches!(self.kind, Kind::Socks5 | Kind::Socks5h)
    }

    fn scheme(&self) -> &'static str {
        match self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks5 => "socks5",
            Kind::Socks5h => "socks5h",
        }
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
