//! Proxies: Debian's tinyproxy for HTTP and microsocks for SOCKS5, on free ports of the loopback
//! interface, with a password.

use std::process::{Child, Command, Stdio};

use fs_err as fs;

use super::have;
use super::web::{free_ports, wait_for};

/// A running proxy; it ends with the value, or with the tests.
#[derive(Debug)]
pub(crate) struct Proxy {
    directory: tempfile::TempDir,
    process: Child,
    port: u16,
}

impl Proxy {
    /// What it wants, as it stands in a URL.
    pub(crate) const LOGIN: &str = "proxy:pa55-of-proxy";

    /// An HTTP proxy; `None` (and the test is skipped) if the program is not there.
    pub(crate) fn http() -> Option<Self> {
        let start = |port, config: &str| {
            let text = format!(
                "Port {port}\nListen 127.0.0.1\nBasicAuth proxy pa55-of-proxy\nLogLevel Connect\n\
                 Timeout 60\nMaxClients 50\n"
            );
            fs::write(config, text).expect("the folder is ours");
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "tinyproxy", "-d", "-c", config]);
            command
        };
        Self::start("tinyproxy", start)
    }

    /// A SOCKS5 proxy; `None` (and the test is skipped) if the program is not there.
    pub(crate) fn socks() -> Option<Self> {
        let start = |port: u16, _: &str| {
            let mut command = Command::new("setpriv");
            command
                .args(["--pdeathsig", "KILL", "microsocks", "-i", "127.0.0.1", "-p"])
                .arg(port.to_string())
                .args(["-u", "proxy", "-P", "pa55-of-proxy"]);
            command
        };
        Self::start("microsocks", start)
    }

    fn start(program: &str, command: impl Fn(u16, &str) -> Command) -> Option<Self> {
        if !have(&[program, "setpriv"]) {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("pib-proxy-")
            .tempdir()
            .expect("a folder");
        let [port] = free_ports();
        let config = directory.path().join("config");
        let log = fs::File::create(directory.path().join("log")).expect("the folder is ours");
        let both = log.file().try_clone().expect("descriptors are not used up");
        let process = command(port, config.to_str().expect("a plain name"))
            .stdin(Stdio::null())
            .stdout(both)
            .stderr(log.into_parts().0)
            .spawn()
            .expect("the proxy starts");
        let mut proxy = Self {
            directory,
            process,
            port,
        };
        wait_for(port, &mut proxy.process);
        Some(proxy)
    }

    /// `login@host:port`
    pub(crate) fn authority(&self) -> String {
        format!("{}@{}", Self::LOGIN, self.host())
    }

    /// `host:port`
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
