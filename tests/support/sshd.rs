//! A real ssh server: OpenSSH's sshd, one process a connection, on a free port of the loopback interface.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use fs_err as fs;

use super::{Bench, have, succeed};

/// The kinds of key that the server has, and that users may have.
pub(crate) const KEYS: [&str; 3] = ["ed25519", "ecdsa", "rsa"];

/// A running server that knows the accounts of this machine, if root runs it, else that of its own user. It
/// ends with the value, but for connections that are still open.
#[derive(Debug)]
pub(crate) struct Sshd {
    directory: tempfile::TempDir,
    address: std::net::SocketAddr,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Sshd {
    /// Starts a server that nobody can log in to yet, with additional lines of `sshd_config`; `None` (and the
    /// test is skipped) if the programs are not there.
    pub(crate) fn start(config: &[&str]) -> Option<Self> {
        if !have(&["sshd", "ssh-keygen"]) {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("pib-sshd-")
            .tempdir()
            .expect("a folder");
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").expect("root may make the folder that sshd wants");
            // Accounts of the tests have to get at their authorized keys.
            fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("ours");
        }
        // The first value of each keyword counts.
        let mut text: String = config.iter().flat_map(|line| [line, "\n"]).collect();
        text += &String::from(
            "AuthorizedKeysFile %s/authorized_keys\nHostKey %s/host_ed25519\nHostKey %s/host_ecdsa\n\
             HostKey %s/host_rsa\nLogLevel VERBOSE\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nPrintMotd no\nUseDNS no\n",
        )
        .replace("%s", directory.path().to_str().expect("a plain name"));
        if !config.iter().any(|line| line.starts_with("Subsystem")) {
            text.push_str("Subsystem sftp internal-sftp\n");
        }
        fs::write(directory.path().join("sshd_config"), text).expect("ours");
        for name in ["log", "authorized_keys"] {
            fs::write(directory.path().join(name), "").expect("ours");
        }

        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let mut server = Self {
            address: listener.local_addr().expect("it is bound"),
            directory,
            connections: Arc::default(),
            ended: Arc::default(),
            listener: None,
        };
        server.renew_host_keys();
        let (folder, connections) = (server.path(""), server.connections.clone());
        let ended = server.ended.clone();
        server.listener = Some(std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                connections.fetch_add(1, Ordering::Relaxed);
                serve(stream, &folder);
            }
        }));
        Some(server)
    }

    /// A server with whom `bench` is on good terms: there is a `~/.ssh/id_ed25519` that it takes, and a
    /// `known_hosts` that names it.
    pub(crate) fn start_for(bench: &Bench, config: &[&str]) -> Option<Self> {
        let server = Self::start(config)?;
        let key = ssh_folder(bench).join("id_ed25519");
        if !key.exists() {
            keygen(bench, &key, "ed25519", "");
        }
        server.authorize(&key);
        server.introduce(bench);
        Some(server)
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// A file or folder of the server's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Lets whoever has the private key at `key` in, as any user.
    pub(crate) fn authorize(&self, key: &Path) {
        let public = fs::read_to_string(key.with_extension("pub")).expect("keys come in pairs");
        let path = self.path("authorized_keys");
        let others = fs::read_to_string(&path).expect("ours");
        fs::write(path, others + &public).expect("ours");
    }

    /// Lets nobody in any more.
    pub(crate) fn forget_keys(&self) {
        fs::write(self.path("authorized_keys"), "").expect("ours");
    }

    /// The line of `known_hosts` for its key of a kind.
    pub(crate) fn known_host(&self, kind: &str) -> String {
        let public = fs::read_to_string(self.path(&format!("host_{kind}.pub"))).expect("ours");
        format!("[127.0.0.1]:{} {public}", self.port())
    }

    /// Adds all its keys to the bench's `known_hosts`.
    pub(crate) fn introduce(&self, bench: &Bench) {
        let path = ssh_folder(bench).join("known_hosts");
        let others = fs::read_to_string(&path).unwrap_or_default();
        let lines = KEYS.map(|kind| self.known_host(kind)).concat();
        fs::write(&path, others + &lines).expect("ours");
        bench.give(&path);
    }

    /// Makes new host keys, as a reinstalled or a false server has.
    pub(crate) fn renew_host_keys(&self) {
        for kind in KEYS {
            let path = self.path(&format!("host_{kind}"));
            let _ = fs::remove_file(&path);
            make_key(&path, kind, "");
        }
    }

    /// The fingerprint of its key of a kind, as ssh-keygen prints it.
    pub(crate) fn fingerprint(&self, kind: &str) -> String {
        let mut command = Command::new("ssh-keygen");
        command
            .arg("-lf")
            .arg(self.path(&format!("host_{kind}.pub")));
        let line = succeed(&mut command);
        line.split(' ').nth(1).expect("a fingerprint").to_owned()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.path("log")).expect("ours");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// Hands a connection to a process of its own, as inetd does.
fn serve(stream: TcpStream, folder: &Path) {
    let input = OwnedFd::from(stream);
    let output = input.try_clone().expect("descriptors are not used up");
    let mut child = Command::new("/usr/sbin/sshd")
        .arg("-i")
        .arg("-f")
        .arg(folder.join("sshd_config"))
        .arg("-E")
        .arg(folder.join("log"))
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::null())
        .spawn()
        .expect("sshd starts");
    std::thread::spawn(move || child.wait());
}

/// The bench's `~/.ssh`.
pub(crate) fn ssh_folder(bench: &Bench) -> PathBuf {
    let folder = bench.root().join("home/.ssh");
    if !folder.exists() {
        fs::create_dir(&folder).expect("ours");
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("ours");
        bench.give(&folder);
    }
    folder
}

/// Makes the user of a bench a pair of keys.
pub(crate) fn keygen(bench: &Bench, path: &Path, kind: &str, passphrase: &str) {
    make_key(path, kind, passphrase);
    bench.give(path);
    bench.give(&path.with_extension("pub"));
}

fn make_key(path: &Path, kind: &str, passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-C", "", "-t", kind, "-N", passphrase]);
    // Shorter than usual, which is faster.
    command.args(
        (kind == "rsa")
            .then_some(["-b", "2048"])
            .into_iter()
            .flatten(),
    );
    succeed(command.arg("-f").arg(path));
}
