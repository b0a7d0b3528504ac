//! Real ftp servers: Debian's vsftpd, strict about TLS sessions, and pyftpdlib, which has users of its own.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fs_err as fs;

use super::{base_layout, have, is_root, skip, succeed};

/// A running server. It ends with the value.
#[derive(Debug)]
pub(crate) struct Ftpd {
    directory: tempfile::TempDir,
    child: Child,
    address: String,
}

/// Serves a folder by pyftpdlib, and notes each file that was sent as a whole.
const PYFTPDLIB: &str = r#"
import logging, sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer

logging.disable()
folder, certificate, anonymous = sys.argv[1:]
authorizer = DummyAuthorizer()
authorizer.add_user("me@x", "pa55/of ftp", folder + "/root", perm="elr")
if anonymous:
    authorizer.add_anonymous(folder + "/root")

class Handler(TLS_FTPHandler if certificate else FTPHandler):
    auth_failed_timeout = 0
    def on_file_sent(self, file):
        print(file, file=open(folder + "/sent", "a"))

Handler.authorizer = authorizer
if certificate:
    Handler.certfile = certificate
    Handler.tls_control_required = Handler.tls_data_required = True
server = FTPServer(("127.0.0.1", 0), Handler)
print(server.address[1], flush=True)
server.serve_forever()
"#;

impl Ftpd {
    /// Debian's vsftpd at `address`, for anonymous users who come by TLS; they have to resume the session of
    /// the control connection in each data connection. `None` (and the test is skipped) if it is not there.
    pub(crate) fn vsftpd(address: &str, implicit: bool) -> Option<Self> {
        if !(have(&["vsftpd", "openssl", "setpriv"]) && base_layout().is_some() && is_root()) {
            return None;
        }
        let (host, port) = address.split_once(':').expect("host and port");
        let directory = folder();
        certify(directory.path(), host);
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::create_dir(directory.path().join("empty")).expect("ours");
        let (root, empty, pem) = (path("root"), path("empty"), path("server.pem"));
        let implicit = if implicit { "YES" } else { "NO" };
        let lines = [
            ("listen", "YES"),
            ("listen_ipv6", "NO"),
            ("listen_address", host),
            ("listen_port", port),
            ("background", "NO"),
            ("anonymous_enable", "YES"),
            ("anon_root", &root),
            ("secure_chroot_dir", &empty),
            ("seccomp_sandbox", "NO"),
            ("isolate", "NO"),
            ("isolate_network", "NO"),
            ("ssl_enable", "YES"),
            ("allow_anon_ssl", "YES"),
            ("force_anon_logins_ssl", "YES"),
            ("force_anon_data_ssl", "YES"),
            ("require_ssl_reuse", "YES"),
            ("ssl_ciphers", "HIGH"),
            ("implicit_ssl", implicit),
            ("rsa_cert_file", &pem),
            ("rsa_private_key_file", &pem),
        ];
        let lines = lines.map(|(key, value)| format!("{key}={value}\n"));
        let file = directory.path().join("vsftpd.conf");
        fs::write(&file, lines.concat()).expect("ours");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "/usr/sbin/vsftpd"]);
        let child = command.arg(file).stdin(Stdio::null()).spawn();
        let server = Self {
            directory,
            child: child.expect("vsftpd starts"),
            address: address.to_owned(),
        };
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("vsftpd does not listen at {address}");
    }

    /// pyftpdlib with the user `me@x`, whose password is `pa55/of ftp`, and perhaps the anonymous one.
    pub(crate) fn pyftpdlib(anonymous: bool, tls: bool) -> Option<Self> {
        if !(have(&["openssl", "setpriv"]) && base_layout().is_some()) {
            return None;
        }
        if !Path::new("/usr/lib/python3/dist-packages/pyftpdlib").exists() {
            skip("not installed: python3-pyftpdlib");
            return None;
        }
        let directory = folder();
        certify(directory.path(), "127.0.0.1");
        let pem = directory.path().join("server.pem");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "/usr/bin/python3", "-c", PYFTPDLIB])
            .arg(directory.path())
            .arg(if tls { pem.as_os_str() } else { "".as_ref() })
            .arg(if anonymous { "yes" } else { "" })
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("Python starts");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        output.read_line(&mut line).expect("it is readable");
        let port: u16 = line.trim().parse().expect("pyftpdlib says its port");
        Some(Self {
            directory,
            child,
            address: format!("127.0.0.1:{port}"),
        })
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The folder that is served.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// The authority that signed the server's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// How many files pyftpdlib has sent.
    pub(crate) fn sent(&self) -> usize {
        let text = fs::read_to_string(self.directory.path().join("sent"));
        text.unwrap_or_default().lines().count()
    }
}

impl Drop for Ftpd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with `root`, which every user may read.
fn folder() -> tempfile::TempDir {
    let directory = tempfile::Builder::new()
        .prefix("pib-ftpd-")
        .tempdir()
        .expect("a temporary folder");
    fs::create_dir(directory.path().join("root")).expect("ours");
    for folder in [directory.path(), &directory.path().join("root")] {
        fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("ours");
    }
    directory
}

/// Makes an authority and a certificate of it for `host`, with its key, in `server.pem`.
fn certify(folder: &Path, host: &str) {
    let path = |name: &str| folder.join(name).display().to_string();
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(folder).args(arguments.split(' '));
        succeed(&mut command);
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc";
    openssl(&format!(
        "req -x509 {key} -keyout authority.key -out authority.pem -days 2 -subj /CN=pib-authority"
    ));
    openssl(&format!(
        "req -x509 {key} -keyout server.key -out server.crt -days 2 -subj /CN=pib-server \
         -addext subjectAltName=IP:{host} -addext basicConstraints=critical,CA:FALSE \
         -CA authority.pem -CAkey authority.key"
    ));
    let pem =
        ["server.key", "server.crt"].map(|name| fs::read_to_string(path(name)).expect("ours"));
    fs::write(path("server.pem"), pem.concat()).expect("ours");
}
