//! A way into a registry: Debian's nginx before docker-registry, with TLS by an authority that only the
//! tests know, and with paths as people's gateways have them.

use std::path::{Path, PathBuf};
use std::process::Child;

use fs_err as fs;

use super::web::{certificates, free_ports, nginx, temporary_paths};
use super::{Registry, have};

/// A running gateway; it ends with the value, or with the tests.
#[derive(Debug)]
pub(crate) struct Gate {
    directory: tempfile::TempDir,
    process: Child,
    port: u16,
    tls_port: u16,
    expired_port: u16,
}

/// Where a gateway leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way<'a> {
    /// To the registry, path by path.
    Straight,
    /// To a registry that believes to be under this path (as its settings have to say), and whose
    /// `Location` headers have it, too.
    Below(&'a str),
    /// To the registry, without these first parts of a repository's name: gateways that serve many
    /// registries tell them apart by these.
    Namespace(&'a str),
    /// As the first, but bodies have at most so many bytes.
    Narrow(u64),
}

impl Gate {
    /// Starts a gateway before `registry`; `None` (and the test is skipped) if the programs are not there.
    pub(crate) fn start(registry: &Registry, way: Way<'_>) -> Option<Self> {
        if !have(&["nginx", "openssl", "setpriv"]) {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("pib-gate-")
            .tempdir()
            .expect("a folder");
        let at = directory.path();
        fs::create_dir(at.join("tmp")).expect("the folder is ours");
        certificates(at);
        let [port, tls_port, expired_port] = free_ports();
        let config = config(at, [port, tls_port, expired_port], registry.port(), way);
        let process = nginx(at, &config, port);
        Some(Self {
            directory,
            process,
            port,
            tls_port,
            expired_port,
        })
    }

    /// `host:port` of plain HTTP, on a host that is trusted.
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// `host:port` of plain HTTP, on a host that is no more trusted than any other. Linux takes the
    /// address for this machine, though it is not of the loopback network.
    pub(crate) fn strange_host(&self) -> String {
        format!("0.0.0.0:{}", self.port)
    }

    /// `host:port` of TLS, on a host that is not trusted without a good certificate.
    pub(crate) fn tls_host(&self) -> String {
        format!("0.0.0.0:{}", self.tls_port)
    }

    /// The same with a certificate that has expired.
    pub(crate) fn expired_host(&self) -> String {
        format!("0.0.0.0:{}", self.expired_port)
    }

    /// The certificate of the authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// One line a request: scheme, method, path, status.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn config(at: &Path, ports: [u16; 3], registry: u16, way: Way<'_>) -> String {
    let [port, tls_port, expired_port] = ports;
    let temporary = temporary_paths(at);
    let at = at.display();
    let registry = format!("http://127.0.0.1:{registry}");
    let limit = if let Way::Narrow(bytes) = way {
        bytes
    } else {
        0
    };
    let locations = match way {
        Way::Straight | Way::Narrow(_) => format!("location /v2/ {{ proxy_pass {registry}; }}"),
        Way::Below(path) => format!(
            "location /v2/ {{ proxy_pass {registry}{path}v2/; proxy_redirect off; }}
             location {path} {{ proxy_pass {registry}; }}"
        ),
        Way::Namespace(name) => format!(
            "location = /v2/ {{ proxy_pass {registry}; }}
             location ~ ^/v2/{name}/(?<inner>.*)$ {{
                 proxy_pass {registry}/v2/$inner$is_args$args;
                 proxy_redirect ~^(?<outer>https?://[^/]+|)/v2/(?<rest>.*)$ $outer/v2/{name}/$rest;
             }}"
        ),
    };
    format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
        events {{}}
        http {{
            {temporary}
            log_format short '$scheme $request_method $request_uri $status';
            access_log {at}/access.log short;
            absolute_redirect off;
            ssl_certificate {at}/server.pem;
            ssl_certificate_key {at}/key.pem;
            client_max_body_size {limit};
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_http_version 1.1;
            proxy_read_timeout 600s;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            server {{
                listen 127.0.0.1:{port};
                listen 127.0.0.1:{tls_port} ssl;
                {locations}
            }}
            server {{
                listen 127.0.0.1:{expired_port} ssl;
                ssl_certificate {at}/expired.pem;
                {locations}
            }}
        }}\n"
    )
}
