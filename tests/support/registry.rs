//! A real registry: Debian's docker-registry on a free port of the loopback interface.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::{have, succeed};

/// A running registry, empty at first; it ends with the value, or with the tests.
#[derive(Debug)]
pub(crate) struct Registry {
    directory: tempfile::TempDir,
    process: Child,
    port: u16,
}

impl Registry {
    /// Starts a registry; `None` (and the test is skipped) if the programs are not there.
    pub(crate) fn start() -> Option<Self> {
        if !have(&["docker-registry", "skopeo", "setpriv"]) {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("pib-registry-")
            .tempdir()
            .expect("a folder");
        let data = directory.path().join("data");
        let config = directory.path().join("config.yml");
        // Port 0: the system picks a free one, and the log says which.
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nhttp: {{addr: '127.0.0.1:0'}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n",
            data.display()
        );
        fs::write(&config, text).expect("the folder is ours");
        let log = fs::File::create(directory.path().join("log")).expect("the folder is ours");
        let both = log.file().try_clone().expect("descriptors are not used up");
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(both)
            .stderr(log.into_parts().0)
            .spawn()
            .expect("docker-registry starts");
        let mut registry = Self {
            directory,
            process,
            port: 0,
        };
        registry.port = registry.wait();
        Some(registry)
    }

    fn wait(&mut self) -> u16 {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let log = self.log();
            let said = log.split("listening on 127.0.0.1:").nth(1);
            if let Some(port) =
                said.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
            {
                return port.parse().expect("a port");
            }
            let ended = self.process.try_wait().expect("it is our child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "docker-registry did not start: {log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `host:port`
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// What a user would call the image `name`, such as `library/python:3.11-slim`.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Pushes an image of a layout with skopeo, and returns its reference.
    pub(crate) fn push(&self, layout: &Path, tag: &str, name: &str) -> String {
        let source = format!("oci:{}:{tag}", layout.display());
        let reference = self.reference(name);
        let mut command = Command::new("skopeo");
        command.args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &source,
        ]);
        succeed(command.arg(format!("docker://{reference}")));
        reference
    }

    /// Where the registry keeps the blob, to be tampered with.
    pub(crate) fn blob(&self, digest: &str) -> std::path::PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let blobs = self
            .directory
            .path()
            .join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Everything it has logged: one line a request.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Stops it; the port refuses connections from then on.
    pub(crate) fn stop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
