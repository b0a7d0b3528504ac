//! What the tests stand on.
//!
//! Nothing is mocked: the tool runs as the user that a test names, bases come from Debian's
//! docker-registry, and other people's programs judge the images. Whatever a test does not look at
//! must be empty: see [`Run`] and [`Bench`].

mod base;
mod bench;
mod chance;
mod disk;
mod docker;
mod faults;
mod ftpd;
mod gate;
mod git;
mod http;
mod noise;
mod oracles;
mod proxies;
mod registry;
mod sessions;
mod sshd;
mod stage;
mod tokens;
mod tree;
mod user;
mod verify;
mod web;

pub(crate) use base::{base_layout, serve_base};
pub(crate) use bench::{Bench, REACH, Run, binary, processes, send};
pub(crate) use disk::Disk;
pub(crate) use docker::Docker;
pub(crate) use faults::{Faults, Kind, Plan};
pub(crate) use ftpd::Ftpd;
pub(crate) use gate::{Gate, Way};
pub(crate) use git::{GitDaemon, GitProtocol, GitRepository, GitWeb, git_clone};
pub(crate) use noise::{Noise, noise};
pub(crate) use oracles::{
    buildah_build, run_bundle, skopeo_copy, skopeo_inspect, skopeo_manifest, umoci_unpack,
};
pub(crate) use proxies::Proxy;
pub(crate) use registry::{Logged, Login, Mode, Registry, Settings};
pub(crate) use sshd::{KEYS, Sshd, keygen, ssh_folder};
pub(crate) use stage::{Stage, peak, resident, without_proxies};
pub(crate) use tokens::{Account, Failure, Policy, Tokens};
pub(crate) use tree::Tree;
pub(crate) use user::User;
pub(crate) use verify::{Image, check, verify};
pub(crate) use web::{SelfSigned, Web, free_ports};

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

/// Says loudly that a test is skipped. With `REQUIRE_ALL=1`, as CI sets, that is a failure.
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var_os("REQUIRE_ALL").is_none_or(|value| value != "1"),
        "REQUIRE_ALL=1, but this test cannot run: {reason}"
    );
    note(reason);
}

/// Says loudly that a test, or a part of it, is skipped.
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must not look like a passed one"
)]
pub(crate) fn note(reason: &str) {
    let thread = std::thread::current();
    eprintln!("SKIPPED {}: {reason}", thread.name().unwrap_or("a test"));
}

/// Whether the programs are there; skips if not.
pub(crate) fn have(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|name| !on_path(name))
        .copied()
        .collect();
    if !missing.is_empty() {
        skip(&format!("not installed: {}", missing.join(", ")));
    }
    missing.is_empty()
}

/// Whether this process is root; skips if not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(name).is_file())
}

/// Runs a program of somebody else that has to succeed, and returns its output.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The SHA-256 of all that a reader gives, in hexadecimal digits.
pub(crate) fn sha256(mut reader: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}

/// The folder of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
