//! Docker's own daemon, private to a test, where one can be started.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Bench, User, base_layout, note, on_path, skopeo_copy, succeed};

/// A running daemon without images; it ends with the value.
#[derive(Debug)]
pub(crate) struct Docker {
    process: Child,
    folder: PathBuf,
    host: String,
}

impl Docker {
    /// Starts a daemon. `None` where that is not possible: many machines on which this tool is tested
    /// cannot, which is why it exists. So this is no failure with `REQUIRE_ALL=1` either.
    pub(crate) fn start(bench: &Bench) -> Option<Self> {
        if bench.user() != User::Root || !on_path("dockerd") || !on_path("docker") {
            note("Docker's oracle needs root, dockerd and docker");
            return None;
        }
        let folder = bench.root().join("docker");
        fs::create_dir(&folder).expect("the bench is ours");
        let log = fs::File::create(folder.join("log"))
            .expect("the bench is ours")
            .into_parts()
            .0;
        let host = format!("unix://{}/socket", folder.display());
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(folder.join("data"));
        command.arg("--exec-root").arg(folder.join("exec"));
        command.arg("--pidfile").arg(folder.join("pid"));
        // Touches nothing of the machine's network.
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.args(["--host", &host]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let process = command.spawn().expect("dockerd starts");
        let mut docker = Self {
            process,
            folder: folder.clone(),
            host,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let version = docker.command().arg("version").output();
            if version.is_ok_and(|output| output.status.success()) {
                return Some(docker);
            }
            let ended = docker
                .process
                .try_wait()
                .expect("it is our child")
                .is_some();
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                note(&format!("Docker's daemon cannot be started here: {log}"));
                return None;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Starts a daemon that has the base as `base:1`, to start containers from.
    pub(crate) fn with_base(bench: &Bench) -> Option<Self> {
        let docker = Self::start(bench)?;
        let archive = bench.root().join("base.tar");
        skopeo_copy(
            bench,
            &format!("oci:{}:3.11-slim", base_layout()?.display()),
            &format!("docker-archive:{}:base:1", archive.display()),
        );
        docker.load(&archive);
        fs::remove_file(archive).expect("it is ours");
        Some(docker)
    }

    /// `docker load`
    pub(crate) fn load(&self, archive: &Path) -> String {
        succeed(self.command().args(["load", "--input"]).arg(archive))
    }

    /// `docker image inspect`
    pub(crate) fn inspect(&self, image: &str) -> Value {
        let text = succeed(self.command().args(["image", "inspect", image]));
        let all: Value = serde_json::from_str(&text).expect("Docker writes JSON");
        all[0].clone()
    }

    /// `docker run`
    pub(crate) fn run(&self, image: &str, command: &[&str]) -> String {
        let mut run = self.command();
        succeed(
            run.args(["run", "--rm", "--network", "none", image])
                .args(command),
        )
    }

    /// `docker`, at this daemon.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host]);
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Not killed: it stops its own children and unmounts. It may have ended already.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
        // It leaves mounts of networks behind.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let places = table.lines().filter_map(|line| line.split(' ').nth(4));
        for place in places.filter(|place| Path::new(place).starts_with(&self.folder)) {
            let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
        }
    }
}
