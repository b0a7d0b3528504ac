//! Who the user is: keys, agents, passwords, and what is said when they are refused.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fs_err as fs;

use super::{Setup, refusal, staged};
use crate::support::{Bench, KEYS, is_root, keygen, ssh_folder, succeed};

#[test]
fn every_kind_of_key_logs_in() {
    let Some(setup) = Setup::new() else { return };
    setup.serve("file", "text");
    let folder = ssh_folder(&setup.bench);
    for kind in KEYS {
        for name in KEYS {
            let _ = fs::remove_file(folder.join(format!("id_{name}")));
            let _ = fs::remove_file(folder.join(format!("id_{name}.pub")));
        }
        let key = folder.join(format!("id_{kind}"));
        keygen(&setup.bench, &key, kind, "");
        setup.server.forget_keys();
        setup.server.authorize(&key);
        setup.fetches(&setup.url("file"));
        let accepted = format!("ssh2: {} SHA256:", kind.to_uppercase());
        assert!(
            setup.server.log().contains(&accepted),
            "{}",
            setup.server.log()
        );
        // And in the format of OpenSSL.
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-p", "-m", "PEM", "-N", "", "-f"])
            .arg(&key);
        succeed(&mut command);
        setup.fetches(&setup.url("file"));
    }
}

#[test]
fn the_agent_logs_in() {
    let Some(setup) = Setup::new() else { return };
    setup.serve("file", "text");
    let folder = ssh_folder(&setup.bench);
    fs::remove_file(folder.join("id_ed25519")).expect("ours");
    fs::remove_file(folder.join("id_ed25519.pub")).expect("ours");
    let agent = Agent::start(&setup.bench);
    let run = |files: &[&str]| {
        let mut command = setup.command(files, &[]);
        setup
            .bench
            .finish(command.env("SSH_AUTH_SOCK", &agent.socket))
    };
    let url = setup.url("file");
    for kind in KEYS {
        let key = setup.bench.root().join(format!("key_{kind}"));
        keygen(&setup.bench, &key, kind, "");
        agent.add(&key);
        setup.server.forget_keys();
        setup.server.authorize(&key);
        staged(&setup.bench, &run(&[&url]));
    }
    // With more keys than a server wants to see, the one that the configuration names comes first.
    for number in 0..6 {
        let key = setup.bench.root().join(format!("more_{number}"));
        keygen(&setup.bench, &key, "ed25519", "");
        agent.add(&key);
    }
    let last = setup.bench.root().join("more_5");
    setup.server.forget_keys();
    setup.server.authorize(&last);
    let errors = refusal(
        &run(&[&url]),
        &[
            "keys of the agent: the server ended the connection",
            "hint:",
        ],
    );
    assert!(errors.contains("`IdentityFile`"), "{errors}");
    setup.configure(&format!("Host *\n  IdentityFile {}\n", last.display()));
    staged(&setup.bench, &run(&[&url]));
    setup.configure("Host *\n  IdentityAgent none\n");
    refusal(&run(&[&url]), &["is refused; there is no key to try"]);
    setup.configure(&format!(
        "Host *\n  IdentityAgent {}\n",
        setup.bench.root().join("none").display()
    ));
    refusal(&run(&[&url]), &["the agent: cannot be reached"]);
}

#[test]
fn a_login_that_is_refused_says_what_was_tried() {
    let Some(setup) = Setup::new() else { return };
    setup.serve("file", "text");
    let user = succeed(Command::new("id").arg("-un"));
    let at = format!("{}@{}", user.trim(), setup.server.host());
    setup.refused(
        &setup.url_by(&format!("nobody-at-all@{}", setup.server.host()), "file"),
        &[],
        &[
            &format!("nobody-at-all@{}", setup.server.host()),
            "id_ed25519`: refused",
            "hint:",
        ],
    );
    setup.server.forget_keys();
    setup.refused(
        &setup.url("file"),
        &[],
        &[&at, "id_ed25519`: refused", "hint:"],
    );
    let key = ssh_folder(&setup.bench).join("id_ed25519");
    fs::remove_file(&key).expect("ours");
    for (kind, format) in [("ed25519", "RFC4716"), ("rsa", "PEM")] {
        keygen(&setup.bench, &key, kind, "");
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-p", "-m", format, "-N", "open sesame", "-f"])
            .arg(&key);
        succeed(&mut command);
        setup.server.authorize(&key);
        setup.refused(
            &setup.url("file"),
            &[],
            &[&at, "id_ed25519`: has a passphrase", "hint:"],
        );
        fs::remove_file(&key).expect("ours");
    }
    setup.refused(
        &setup.url("file"),
        &[],
        &["is refused; there is no key to try", "hint:"],
    );
    fs::write(&key, "no key at all").expect("ours");
    setup.refused(
        &setup.url("file"),
        &[],
        &["id_ed25519`: is not a private key"],
    );
}

#[test]
fn a_password_of_the_url_logs_in_and_is_not_shown() {
    if !is_root() {
        return;
    }
    let Some(setup) = Setup::with(&["PasswordAuthentication yes"]) else {
        return;
    };
    setup.server.forget_keys();
    let file = setup.serve("file", "text");
    fs::set_permissions(setup.server.path("data"), PermissionsExt::from_mode(0o755)).expect("ours");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("ours");
    let account = Account::new("open-sesame");
    let url = |password: &str| {
        setup.url_by(
            &format!("{}:{password}@{}", account.name, setup.server.host()),
            "file",
        )
    };
    let (_, said) = setup.stage(&[&url("open-sesame")], &[]);
    assert!(!said.contains("open-sesame"), "{said}");
    let errors = setup.refused(
        &url("open-barley"),
        &[],
        &["the password: refused", "hint:"],
    );
    assert!(!errors.contains("open-barley"), "{errors}");
}

/// An agent, which ends with the value.
struct Agent {
    process: std::process::Child,
    socket: PathBuf,
}

impl Agent {
    fn start(bench: &Bench) -> Self {
        let socket = bench.root().join("agent");
        let mut command = Command::new("ssh-agent");
        command
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null());
        let process = command.spawn().expect("ssh-agent starts");
        while !socket.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { process, socket }
    }

    fn add(&self, key: &Path) {
        let mut command = Command::new("ssh-add");
        succeed(
            command
                .arg("-q")
                .arg(key)
                .env("SSH_AUTH_SOCK", &self.socket),
        );
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An account of the machine with a password, gone with the value.
struct Account {
    name: String,
}

impl Account {
    fn new(password: &str) -> Self {
        let name = format!("pib-login-{}", std::process::id());
        let hashed = succeed(Command::new("openssl").args(["passwd", "-6", password]));
        let mut command = Command::new("/usr/sbin/useradd");
        command.args([
            "--no-create-home",
            "--shell",
            "/bin/sh",
            "--password",
            hashed.trim(),
            &name,
        ]);
        succeed(&mut command);
        Self { name }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let _ = Command::new("/usr/sbin/userdel").arg(&self.name).output();
    }
}
