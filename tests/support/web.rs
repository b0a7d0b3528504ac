//! A web server: Debian's nginx on free ports of the loopback interface, with TLS by an authority that
//! only the tests know.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::{have, succeed};

/// A running web server; it ends with the value, or with the tests.
///
/// `private/` wants `user` and `pa55-of-web`, `moved/` leads to the root by a redirect, `secure/` and
/// `private-elsewhere/` lead from plain HTTP to HTTPS, `plain/` from HTTPS to plain HTTP, `ftp` to another
/// scheme, and `circle` to itself.
#[derive(Debug)]
pub(crate) struct Web {
    directory: tempfile::TempDir,
    process: Child,
    port: u16,
    tls_port: u16,
    expired_port: u16,
}

impl Web {
    /// What `private/` wants, as it stands in a URL.
    pub(crate) const LOGIN: &str = "user:pa55-of-web";

    /// Starts a server; `None` (and the test is skipped) if the programs are not there.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// The same, with more locations.
    pub(crate) fn start_with(locations: &str) -> Option<Self> {
        if !have(&["nginx", "openssl", "setpriv"]) {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("pib-web-")
            .tempdir()
            .expect("a folder");
        let at = directory.path();
        for folder in ["www", "www/private", "tmp"] {
            fs::create_dir(at.join(folder)).expect("the folder is ours");
        }
        certificates(at);
        fs::write(at.join("users"), "user:{PLAIN}pa55-of-web\n").expect("the folder is ours");
        let [port, tls_port, expired_port] = free_ports();
        let config = config(at, [port, tls_port, expired_port], locations);
        let process = nginx(at, &config, port);
        Some(Self {
            directory,
            process,
            port,
            tls_port,
            expired_port,
        })
    }

    /// Puts a file where `name` leads to.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join("www").join(name);
        fs::create_dir_all(path.parent().expect("it is below")).expect("the folder is ours");
        fs::write(&path, content).expect("the folder is ours");
        path
    }

    /// By plain HTTP.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }

    /// By HTTPS.
    pub(crate) fn tls_url(&self, name: &str) -> String {
        format!("https://127.0.0.1:{}/{name}", self.tls_port)
    }

    /// By HTTPS with a certificate that expired long ago.
    pub(crate) fn expired_url(&self, name: &str) -> String {
        format!("https://127.0.0.1:{}/{name}", self.expired_port)
    }

    /// The certificate of the authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// One line a request: method, path, status, range, authorization.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server of OpenSSL's that serves the file `file`; it ends with the value.
#[derive(Debug)]
pub(crate) struct SelfSigned {
    directory: tempfile::TempDir,
    process: Child,
    port: u16,
}

impl SelfSigned {
    /// Makes a certificate as `openssl req -x509` does, which says `CA:TRUE`: `key` are words for `-newkey`, `host` is
    /// its name, and `days` how long it is valid. `options` are of `openssl s_server`.
    pub(crate) fn start(key: &[&str], host: &str, days: &str, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        let at = directory.path();
        let mut request = Command::new("openssl");
        request.args(["req", "-x509", "-nodes", "-subj", "/CN=x", "-addext"]);
        request.arg(format!("subjectAltName=DNS:{host}"));
        request.args(["-keyout", "key.pem", "-out", "new.pem", "-newkey"]);
        succeed(request.args(key).current_dir(at));
        // `openssl req` refuses 0 days.
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-in", "new.pem", "-signkey", "key.pem"]);
        succeed(
            sign.args(["-days", days, "-out", "cert.pem"])
                .current_dir(at),
        );
        fs::write(at.join("file"), "served").expect("the folder is ours");
        let [port] = free_ports();
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "openssl", "s_server", "-WWW"])
            .args(["-cert", "cert.pem", "-key", "key.pem", "-accept"])
            .arg(format!("127.0.0.1:{port}"))
            .args(options)
            .current_dir(at)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl starts");
        wait_for(port, &mut process);
        Self {
            directory,
            process,
            port,
        }
    }

    /// The file, asked for by the host's name.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/file", self.port)
    }

    /// The path of its certificate.
    pub(crate) fn certificate(&self) -> String {
        self.directory.path().join("cert.pem").display().to_string()
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn config(at: &Path, [port, tls_port, expired_port]: [u16; 3], locations: &str) -> String {
    let temporary = temporary_paths(at);
    let at = at.display();
    format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
        events {{}}
        http {{
            {temporary}
            log_format short '$request_method $uri $status \"$http_range\" \"$http_authorization\"';
            access_log {at}/access.log short;
            absolute_redirect off;
            ssl_certificate {at}/server.pem;
            ssl_certificate_key {at}/key.pem;
            root {at}/www;
            auth_basic_user_file {at}/users;
            server {{
                listen 127.0.0.1:{port};
                listen 127.0.0.1:{tls_port} ssl;
                location /private/ {{ auth_basic private; }}
                location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
                location /secure/ {{ rewrite ^/secure/(.*)$ https://127.0.0.1:{tls_port}/$1 redirect; }}
                location /plain/ {{ rewrite ^/plain/(.*)$ http://127.0.0.1:{port}/$1 redirect; }}
                location /ftp {{ return 302 ftp://127.0.0.1/x; }}
                location /circle {{ return 302 /circle; }}
                {locations}
            }}
            server {{
                listen 127.0.0.1:{expired_port} ssl;
                ssl_certificate {at}/expired.pem;
            }}
        }}\n"
    )
}

/// Starts nginx in the folder `at`, and waits until it listens on `port`.
pub(super) fn nginx(at: &Path, config: &str, port: u16) -> Child {
    fs::write(at.join("nginx.conf"), config).expect("the folder is ours");
    let log = fs::File::create(at.join("log")).expect("the folder is ours");
    let mut process = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "/usr/sbin/nginx", "-e"])
        .arg(at.join("error.log"))
        .arg("-c")
        .arg(at.join("nginx.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.into_parts().0)
        .spawn()
        .expect("nginx starts");
    wait_for(port, &mut process);
    process
}

/// Where nginx keeps what is on its way.
pub(super) fn temporary_paths(at: &Path) -> String {
    let at = at.display();
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {at}/tmp/{kind};\n"))
        .concat()
}

/// An authority, and a key with two certificates of it: a good one and one that expired.
pub(super) fn certificates(at: &Path) {
    let openssl =
        |arguments: &[&str]| succeed(Command::new("openssl").args(arguments).current_dir(at));
    fs::write(
        at.join("extensions"),
        "subjectAltName=IP:127.0.0.1,IP:0.0.0.0,DNS:localhost\nbasicConstraints=critical,CA:FALSE\n",
    )
    .expect("the folder is ours");
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=tests"];
    let output = ["-keyout", "authority.key", "-out", "authority.pem"];
    openssl(&[&authority[..], &key, &output].concat());
    let output = ["-keyout", "key.pem", "-out", "request"];
    openssl(&[&["req", "-subj", "/CN=server"][..], &key, &output].concat());
    let register = "[ca]\ndefault_ca=x\n[x]\ndatabase=index\nnew_certs_dir=.\ndefault_md=sha256\n\
                    policy=p\nrand_serial=yes\nunique_subject=no\n[p]\ncommonName=supplied\n";
    fs::write(at.join("ca.conf"), register).expect("the folder is ours");
    fs::write(at.join("index"), "").expect("the folder is ours");
    for (end, file) in [
        ("20990101000000Z", "server.pem"),
        ("20200102000000Z", "expired.pem"),
    ] {
        openssl(&[
            "ca",
            "-batch",
            "-config",
            "ca.conf",
            "-cert",
            "authority.pem",
            "-keyfile",
            "authority.key",
            "-in",
            "request",
            "-extfile",
            "extensions",
            "-startdate",
            "20200101000000Z",
            "-enddate",
            end,
            "-notext",
            "-out",
            file,
        ]);
    }
}

/// Ports that nobody listens on, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

/// Waits until somebody listens.
pub(crate) fn wait_for(port: u16, process: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = process.try_wait().expect("it is our child");
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "nobody listens on port {port}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
