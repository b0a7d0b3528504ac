//! Files and directories by scp, from OpenSSH's own server.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use fs_err as fs;

use crate::support::{
    Bench, KEYS, Run, Sshd, User, base_layout, keygen, sha256, ssh_folder, succeed,
};

/// Exit status of a build that failed.
const FAILED: i32 = 1;

/// A bench, a server that lets its user in, and a base.
struct Setup {
    bench: Bench,
    server: Sshd,
    base: String,
}

impl Setup {
    fn new() -> Option<Self> {
        Self::with(&[])
    }

    /// With more lines of `sshd_config`.
    fn with(config: &[&str]) -> Option<Self> {
        let layout = base_layout()?;
        let bench = Bench::current();
        let server = Sshd::start_for(&bench, config)?;
        // All that the server serves; whatever the tests are run as can be read there.
        fs::create_dir(server.path("data")).expect("ours");
        Some(Self {
            bench,
            server,
            base: format!("oci:{}:3.11-slim", layout.display()),
        })
    }

    /// Puts a file on the server.
    fn serve(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.server.path("data").join(name);
        fs::write(&path, content).expect("ours");
        path
    }

    /// `scp://127.0.0.1:PORT` and the path of a file of the server's.
    fn url(&self, name: &str) -> String {
        self.url_by(&self.server.host(), name)
    }

    /// The same by another host or user.
    fn url_by(&self, host: &str, name: &str) -> String {
        format!(
            "scp://{host}{}",
            self.server.path("data").join(name).display()
        )
    }

    /// Writes the user's `~/.ssh/config`.
    fn configure(&self, text: &str) {
        let path = ssh_folder(&self.bench).join("config");
        fs::write(&path, text).expect("ours");
        self.bench.give(&path);
    }

    fn known_hosts(&self) -> PathBuf {
        ssh_folder(&self.bench).join("known_hosts")
    }

    /// Stages an entry of `files` or several, and nothing else.
    fn command(&self, files: &[&str], more: &[&str]) -> Command {
        let mut text = String::from("python: 3.11\nfiles:\n");
        for file in files {
            text.extend(["  - ", file, "\n"]);
        }
        self.bench.write("build.yaml", text);
        let _ = fs::remove_dir_all(self.bench.path("context"));
        let mut command = self.bench.tool(["build.yaml", "-n", "-k", "-p", "context"]);
        command.args(["--base", &self.base]).args(more);
        command
    }

    fn run(&self, files: &[&str], more: &[&str]) -> Run {
        self.bench.finish(&mut self.command(files, more))
    }

    /// Stages and gives the workspace; the progress is returned, too.
    fn stage(&self, files: &[&str], more: &[&str]) -> (PathBuf, String) {
        staged(&self.bench, &self.run(files, more))
    }

    /// Holds that a file comes by this URL.
    fn fetches(&self, url: &str) {
        let (workspace, _) = self.stage(&[&format!("fetched: {url}")], &[]);
        assert!(workspace.join("fetched").exists(), "{url}");
    }

    /// Holds that the source is refused with one error that has the words and a hint; gives it.
    fn refused(&self, file: &str, more: &[&str], words: &[&str]) -> String {
        refusal(&self.run(&[file], more), words)
    }
}

fn staged(bench: &Bench, run: &Run) -> (PathBuf, String) {
    assert_eq!(run.status(), Some(0), "{}", run.stderr());
    run.stdout();
    (
        bench.path("context/image/workspace"),
        run.stderr().to_owned(),
    )
}

fn refusal(run: &Run, words: &[&str]) -> String {
    let errors = run.refusal(FAILED).to_owned();
    let count = errors
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    assert_eq!(count, 1, "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    for word in words {
        assert!(errors.contains(word), "`{word}` is missing in:\n{errors}");
    }
    errors
}

/// Kind, mode and content of everything below a directory.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        let mode = metadata.mode() & 0o7777;
        let text = if metadata.is_symlink() {
            format!("link to {:?}", fs::read_link(&path).expect("a link"))
        } else if metadata.is_dir() {
            let entries = fs::read_dir(&path).expect("root or the owner may");
            waiting.extend(entries.map(|entry| entry.expect("readable").path()));
            format!("directory {mode:o}")
        } else {
            format!("file {mode:o} {:?}", fs::read(&path).expect("readable"))
        };
        let name = path.strip_prefix(root).expect("it is below").to_owned();
        found.insert(name, text);
    }
    found
}

#[test]
fn files_and_directories_arrive_as_they_are() {
    let Some(setup) = Setup::new() else { return };
    setup.serve("plain", "some text\n");
    let script = setup.serve("script", vec![7; 3_000_001]);
    fs::set_permissions(&script, PermissionsExt::from_mode(0o4750)).expect("ours");
    let tree = setup.server.path("data/tree");
    fs::create_dir(&tree).expect("ours");
    fs::create_dir(tree.join("sub")).expect("ours");
    fs::create_dir(tree.join("sub/empty")).expect("ours");
    for name in [
        b"with space".as_slice(),
        b"new\nline",
        b"\xff\xfe",
        b"-dash",
        b".hidden",
        b"$(touch x) '\"`;\\",
        b"sub/\xc3\xbc",
        b"sub/nothing",
    ] {
        let content = if name.ends_with(b"nothing") {
            b""
        } else {
            name
        };
        fs::write(tree.join(OsStr::from_bytes(name)), content).expect("ours");
    }
    for (name, mode) in [
        ("-dash", 0o400),
        (".hidden", 0o777),
        ("sub/empty", 0o1777),
        ("sub", 0o555),
    ] {
        fs::set_permissions(tree.join(name), PermissionsExt::from_mode(mode)).expect("ours");
    }
    fs::set_permissions(&tree, PermissionsExt::from_mode(0o750)).expect("ours");
    for (link, target) in [
        ("up", "../.."),
        ("passwd", "/etc/passwd"),
        ("broken", "no where"),
    ] {
        symlink(target, tree.join(link)).expect("ours");
    }
    symlink("tree", setup.server.path("data/link")).expect("ours");

    let (workspace, progress) = setup.stage(
        &[
            &setup.url("plain"),
            &format!("sub/renamed: {}", setup.url("script")),
            &setup.url("tree"),
            &format!("other: {}/", setup.url("link")),
        ],
        &[],
    );
    assert!(!progress.contains("warning"), "{progress}");
    assert_eq!(
        fs::read(workspace.join("plain")).expect("it came"),
        b"some text\n"
    );
    let renamed = workspace.join("sub/renamed");
    assert_eq!(fs::read(&renamed).expect("it came"), vec![7; 3_000_001]);
    let mode = fs::metadata(&renamed).expect("it came").mode() & 0o7777;
    assert_eq!(
        mode, 0o750,
        "the bit that gives others its owner's rights is gone"
    );
    let expected = listing(&tree);
    assert_eq!(expected.len(), 14);
    assert_eq!(listing(&workspace.join("tree")), expected);
    assert_eq!(
        listing(&workspace.join("other")),
        expected,
        "a link that is named is followed"
    );
}

#[test]
fn a_source_that_did_not_change_is_not_fetched_again() {
    let Some(setup) = Setup::new() else { return };
    let file = setup.serve("file", "one");
    let tree = setup.server.path("data/tree");
    fs::create_dir(&tree).expect("ours");
    let inner = setup.serve("tree/inner", "one");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    let write = |text: &str, time| {
        for path in [&file, &inner] {
            fs::write(path, text).expect("ours");
            let opened = fs::OpenOptions::new().write(true).open(path).expect("ours");
            opened.file().set_modified(time).expect("ours");
        }
    };
    let read = |more: &[&str]| {
        let (workspace, _) = setup.stage(&[&setup.url("file"), &setup.url("tree")], more);
        ["file", "tree/inner"]
            .map(|name| fs::read_to_string(workspace.join(name)).expect("it came"))
    };
    write("one", time);
    assert_eq!(read(&[]), ["one", "one"]);
    // The same size and time: only a server that is not asked for the content can be deceived by that.
    write("two", time);
    assert_eq!(read(&[]), ["one", "one"]);
    assert_eq!(read(&["--no-cache"]), ["two", "two"]);
    write("six", time + Duration::from_secs(1));
    assert_eq!(read(&[]), ["six", "six"]);
    fs::set_permissions(&inner, PermissionsExt::from_mode(0o700)).expect("ours");
    fs::write(tree.join("new"), "").expect("ours");
    let (workspace, _) = setup.stage(&[&setup.url("tree")], &[]);
    assert_eq!(listing(&workspace.join("tree")), listing(&tree));
}

#[test]
fn the_configuration_is_followed() {
    let Some(setup) = Setup::new() else { return };
    setup.serve("file", "text");
    let folder = ssh_folder(&setup.bench);
    fs::create_dir(folder.join("more")).expect("ours");
    let included = format!(
        "Host lab*\n  HostName 127.0.0.1\n  Port {}\n  User nobody-at-all\n  IdentityFile ~/.ssh/for %n\n",
        setup.server.port()
    );
    fs::write(
        folder.join("more/lab.conf"),
        included.replace("for %n", "\"for %n\""),
    )
    .expect("ours");
    for name in ["id_ed25519", "id_ed25519.pub"] {
        fs::rename(
            folder.join(name),
            folder.join(name.replace("id_ed25519", "for lab1")),
        )
        .expect("ours");
    }
    let user = succeed(Command::new("id").arg("-un"));
    setup.configure(&format!(
        "Host lab1\n  User {user}\nHost *\n  Include more/*.conf\n"
    ));
    setup.fetches(&setup.url_by("lab1", "file"));
    // What the URL says goes first: here a port where nobody is.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    setup.refused(
        &setup.url_by(&format!("lab1:{port}"), "file"),
        &[],
        &[&format!("127.0.0.1:{port}"), "refused"],
    );
    let errors = setup.refused(
        &setup.url_by("lab2", "file"),
        &[],
        &["nobody-at-all@127.0.0.1", "hint:"],
    );
    assert!(errors.contains("for lab2`: does not exist"), "{errors}");

    setup.configure("Host *\n  Port many\n");
    setup.refused(&setup.url("file"), &[], &[".ssh/config`, line 2", "`many`"]);
    setup.configure("");
    fs::set_permissions(folder.join("config"), PermissionsExt::from_mode(0o666)).expect("ours");
    setup.refused(
        &setup.url("file"),
        &[],
        &[".ssh/config`", "hint: ", "chmod go-w"],
    );
}

#[test]
fn jump_hosts_lead_on() {
    let Some(setup) = Setup::new() else { return };
    let bytes: Vec<u8> = (0..5_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    setup.serve("file", &bytes);
    let [Some(near), Some(middle)] = [(); 2].map(|()| Sshd::start_for(&setup.bench, &[])) else {
        return;
    };
    let hosts = format!(
        "Host far\n  HostName 127.0.0.1\n  Port {}\n  ProxyJump near,middle\n\
         Host near\n  HostName 127.0.0.1\n  Port {}\n  ProxyJump none\n\
         Host middle\n  HostName 127.0.0.1\n  Port {}\n\
         Host circle\n  ProxyJump circle\nHost *\n  ProxyJump near\n",
        setup.server.port(),
        near.port(),
        middle.port()
    );
    setup.configure(&hosts);
    let (workspace, _) = setup.stage(&[&setup.url_by("far", "file")], &[]);
    assert_eq!(fs::read(workspace.join("file")).expect("it came"), bytes);
    assert_eq!((near.connections(), middle.connections()), (1, 1));
    // Through the one that `*` names.
    setup.fetches(&setup.url("file"));
    assert_eq!((near.connections(), middle.connections()), (2, 1));

    let url = setup.url_by("circle", "file");
    setup.refused(&url, &[], &["leads through itself", "hint:"]);
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = closed.local_addr().expect("bound").port();
    drop(closed);
    let url = setup.url_by(&format!("127.0.0.1:{port}"), "file");
    setup.refused(
        &url,
        &[],
        &["jump host", &format!("cannot reach `127.0.0.1:{port}`")],
    );
    near.forget_keys();
    setup.refused(
        &setup.url("file"),
        &[],
        &["the jump host `near`", "is refused", "hint:"],
    );
}

#[test]
fn a_command_leads_on() {
    let Some(setup) = Setup::new() else { return };
    setup.serve("file", "text");
    let relay = setup.bench.write(
        "relay.py",
        "import os, socket, sys, threading\n\
         peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n\
         def up():\n    while data := os.read(0, 65536): peer.sendall(data)\n\
         threading.Thread(target=up, daemon=True).start()\n\
         while data := peer.recv(65536): os.write(1, data)\n",
    );
    let command = format!("python3 {} 127.0.0.1 %p", relay.display());
    setup.configure(&format!(
        "Host relayed\n  Port {}\n  ProxyCommand {command}\n",
        setup.server.port()
    ));
    let known = fs::read_to_string(setup.known_hosts()).expect("ours");
    fs::write(
        setup.known_hosts(),
        known.replace("[127.0.0.1]", "[relayed]"),
    )
    .expect("ours");
    setup.fetches(&setup.url_by("relayed", "file"));

    setup.configure("Host *\n  ProxyCommand sh -c 'echo the way is closed >&2'\n");
    let errors = setup.refused(
        &setup.url_by("relayed", "file"),
        &[],
        &["the way is closed"],
    );
    assert!(errors.contains("relayed:22"), "{errors}");
    setup.configure("Host *\n  ProxyCommand sleep %x\n");
    setup.refused(
        &setup.url_by("relayed", "file"),
        &[],
        &["`%x` in `sleep %x`"],
    );
}

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
        // And in the format of OpenSSL.
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-p", "-m", "PEM", "-N", "", "-f"])
            .arg(&key);
        succeed(&mut command);
        setup.fetches(&setup.url("file"));
    }
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
    if !crate::support::is_root() {
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

#[test]
fn hosts_are_known_by_their_keys() {
    let Some(setup) = Setup::new() else { return };
    setup.serve("file", "text");
    let (url, known) = (setup.url("file"), setup.known_hosts());
    // By any of its keys alone, whichever the server would rather show.
    for kind in KEYS {
        fs::write(&known, setup.server.known_host(kind)).expect("ours");
        setup.fetches(&url);
        // And with names that do not tell whose they are.
        succeed(
            Command::new("ssh-keygen")
                .args(["-q", "-H", "-f"])
                .arg(&known),
        );
        assert!(
            !fs::read_to_string(&known)
                .expect("ours")
                .contains("127.0.0.1")
        );
        setup.fetches(&url);
    }
    fs::remove_file(known.with_extension("old")).expect("ssh-keygen leaves it");
    fs::write(
        &known,
        format!(
            "@revoked * {}",
            setup
                .server
                .known_host("ed25519")
                .split_once(' ')
                .expect("two")
                .1
        ),
    )
    .expect("ours");
    setup.refused(
        &url,
        &["--accept-new-host-keys"],
        &["revokes in line 1", ".ssh/known_hosts"],
    );
}

#[test]
fn an_unknown_host_is_an_error_unless_it_is_accepted() {
    let Some(setup) = Setup::new() else { return };
    setup.serve("file", "text");
    let (url, known) = (setup.url("file"), setup.known_hosts());
    let place = format!("[127.0.0.1]:{}", setup.server.port());
    let key = ssh_folder(&setup.bench).join("id_ed25519");
    fs::remove_file(&known).expect("ours");
    let errors = setup.refused(
        &url,
        &[],
        &[
            &place,
            "not a known host",
            "ssh-ed25519",
            "hint:",
            "--accept-new-host-keys",
            "ssh-keyscan",
        ],
    );
    assert!(
        errors.contains(&setup.server.fingerprint("ed25519")),
        "{errors}"
    );
    assert!(!known.exists());

    let (_, said) = setup.stage(&[&url], &["--accept-new-host-keys"]);
    assert!(
        said.contains(&setup.server.fingerprint("ed25519")),
        "{said}"
    );
    assert_eq!(
        fs::read_to_string(&known).expect("it was made"),
        setup.server.known_host("ed25519").replace(" \n", "\n")
    );
    assert_eq!(fs::metadata(&known).expect("made").mode() & 0o777, 0o600);
    setup.fetches(&url);

    // Many at once write it once, into a folder that has to be made.
    let other = setup.bench.path("other/known");
    let other = other.to_str().expect("a plain name");
    let option = ["--known-hosts", other];
    setup.refused(&url, &option, &["not a known host", "other/known"]);
    let files: Vec<String> = (0..8)
        .map(|number| format!("file{number}: {url}"))
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    setup.stage(&files, &["--known-hosts", other, "--accept-new-host-keys"]);
    assert_eq!(fs::read_to_string(other).expect("made").lines().count(), 1);
    assert_eq!(
        fs::metadata(Path::new(other).parent().expect("a folder"))
            .expect("made")
            .mode()
            & 0o777,
        0o700
    );

    setup.server.renew_host_keys();
    for more in [&[][..], &["--accept-new-host-keys"]] {
        let errors = setup.refused(
            &url,
            more,
            &[&place, "another key", ".ssh/known_hosts", "line 1", "hint:"],
        );
        assert!(
            errors.contains(&setup.server.fingerprint("ed25519")),
            "{errors}"
        );
    }
    assert!(key.exists());
}

#[test]
fn what_cannot_be_fetched_is_told() {
    let Some(setup) = Setup::new() else { return };
    setup.refused(
        &setup.url("missing"),
        &[],
        &["data/missing` does not exist", "hint:"],
    );
    fs::create_dir(setup.server.path("data/tree")).expect("ours");
    let pipe = setup.server.path("data/tree/pipe");
    succeed(Command::new("mkfifo").arg(&pipe));
    setup.refused(
        &setup.url("tree"),
        &[],
        &["data/tree/pipe` is a named pipe", "hint:"],
    );
    setup.refused(
        &format!("x: {}", setup.url("tree/pipe")),
        &[],
        &["is a named pipe"],
    );
    setup.refused(
        &format!("scp://{}/~other/file", setup.server.host()),
        &[],
        &["~other/file`", "hint:"],
    );
    setup.refused(
        "scp://no-such-host.invalid/file",
        &[],
        &["no-such-host.invalid"],
    );
    setup.refused(
        "scp://$(touch%20pwned)/file",
        &[],
        &["cannot be the name of a host"],
    );
    let port = setup.server.port();
    drop(setup.server);
    let setup = Setup::new().expect("it was possible before");
    setup.refused(&format!("scp://127.0.0.1:{port}/file"), &[], &["refused"]);
}

#[test]
fn a_server_without_a_shell_will_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = format!("ForceCommand internal-sftp -d {}", folder.path().display());
    let Some(setup) = Setup::with(&[&line]) else {
        return;
    };
    fs::create_dir(folder.path().join("tree")).expect("ours");
    fs::write(folder.path().join("tree/file"), "text").expect("ours");
    let url = format!("scp://{}/~/tree", setup.server.host());
    let (workspace, _) = setup.stage(&[&url], &[]);
    assert_eq!(
        fs::read(workspace.join("tree/file")).expect("it came"),
        b"text"
    );
    setup.refused(&format!("{url}/none"), &[], &["/tree/none` does not exist"]);
}

#[test]
fn a_server_without_sftp_is_told() {
    let Some(setup) = Setup::with(&["Subsystem nothing /bin/false"]) else {
        return;
    };
    setup.refused(&setup.url("file"), &[], &["offers no SFTP", "hint:"]);
}

#[test]
fn a_hostile_server_writes_nothing_elsewhere() {
    let script = tempfile::NamedTempFile::new().expect("a file");
    fs::write(script.path(), HOSTILE).expect("ours");
    let line = format!(
        "Subsystem sftp /usr/bin/python3 {}",
        script.path().display()
    );
    let Some(setup) = Setup::with(&[&line]) else {
        return;
    };
    let url = |name: &str| format!("scp://{}/{name}", setup.server.host());
    for (name, words) in [
        ("parent", "lists `../../evil`"),
        ("absolute", "lists `/tmp/evil`"),
        ("nul", r"lists `e\x00vil`"),
        ("twice", "lists `evil` in"),
        ("deep", "more than"),
        ("short", "ended after 3 of 1000 bytes"),
        ("garbage", "cannot be read"),
    ] {
        let errors = setup.refused(&url(name), &[], &[words]);
        assert!(errors.contains("127.0.0.1"), "{errors}");
    }
    // A file that has no end stops where the list says.
    let (workspace, _) = setup.stage(&[&url("endless")], &[]);
    assert_eq!(
        fs::metadata(workspace.join("endless/evil"))
            .expect("it came")
            .len(),
        1000
    );
    assert!(!Path::new("/tmp/evil").exists());
}

/// A server of SFTP (version 3) on standard input and output, in whose directories everything has an evil name.
const HOSTILE: &str = r#"
import struct, sys
def text(data): return struct.pack('>I', len(data)) + data
def attributes(mode, size=1000): return struct.pack('>IQIII', 0xd, size, mode, 0, 0)
def send(kind, body):
    sys.stdout.buffer.write(struct.pack('>IB', len(body) + 1, kind) + body)
    sys.stdout.buffer.flush()
DIRECTORY, FILE, LINK = 0o40755, 0o100644, 0o120777
LISTS = {
    b'/parent': [(b'../../evil', FILE)], b'/absolute': [(b'/tmp/evil', FILE)], b'/nul': [(b'e\0vil', FILE)],
    b'/twice': [(b'evil', LINK), (b'evil', DIRECTORY)], b'/short': [(b'evil', FILE)],
    b'/endless': [(b'evil', FILE)],
}
listed = set()
while head := sys.stdin.buffer.read(5):
    length, kind = struct.unpack('>IB', head)
    body = sys.stdin.buffer.read(length - 1)
    if kind == 1:
        send(2, struct.pack('>I', 3))
        continue
    number, rest = body[:4], body[4:]
    name = rest[4:4 + struct.unpack('>I', rest[:4])[0]]
    end = number + struct.pack('>I', 1) + text(b'') + text(b'')
    if name.startswith(b'/garbage'):
        send(105, number + b'\xff' * 4)
    elif kind in (7, 17):
        send(105, number + attributes(DIRECTORY))
    elif kind in (3, 11):
        listed.discard(name)
        send(102, number + text(name))
    elif kind == 12 and name not in listed:
        listed.add(name)
        entries = LISTS.get(name, [(b'deep', DIRECTORY)])
        send(104, number + struct.pack('>I', len(entries))
            + b''.join(text(entry) + text(b'') + attributes(mode) for entry, mode in entries))
    elif kind == 5 and name == b'/endless/evil':
        send(103, number + text(b'x' * struct.unpack('>I', rest[-4:])[0]))
    elif kind == 5 and rest[-12:-4] == b'\0' * 8:
        send(103, number + text(b'abc'))
    elif kind == 19:
        send(104, number + struct.pack('>I', 1) + text(b'/tmp') + text(b'') + attributes(LINK))
    elif kind == 4:
        send(101, number + struct.pack('>I', 0) + text(b'') + text(b''))
    else:
        send(101, end)
"#;

#[test]
fn another_user_fetches_as_well() {
    let Some(layout) = base_layout() else { return };
    for user in User::ALL {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        let Some(server) = Sshd::start_for(&bench, &[]) else {
            return;
        };
        let tree = server.path("tree");
        fs::create_dir(&tree).expect("ours");
        fs::write(tree.join("file"), "text").expect("ours");
        // What its own user could not write to.
        for (path, mode) in [(tree.join("file"), 0o444), (tree.clone(), 0o555)] {
            fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("ours");
        }
        let me = succeed(Command::new("id").arg("-un"));
        let url = format!("scp://{}@{}{}", me.trim(), server.host(), tree.display());
        bench.write("build.yaml", format!("python: 3.11\nfiles: ['{url}']\n"));
        let base = bench.path("base");
        succeed(
            Command::new("cp")
                .args(["-r", "--no-preserve=mode"])
                .arg(&layout)
                .arg(&base),
        );
        let base = format!("oci:{}:3.11-slim", base.display());
        for _ in 0..2 {
            let run = bench.run(["build.yaml", "-n", "-k", "-p", "context", "--base", &base]);
            let (workspace, _) = staged(&bench, &run);
            assert_eq!(listing(&workspace.join("tree")), listing(&tree), "{user:?}");
        }
    }
}

/// The largest resident set that the tool may have while it fetches, in KiB.
const MEMORY: u64 = 60 * 1024;

#[test]
#[ignore = "long: a file of two gigabytes comes over an encrypted line"]
fn a_large_file_arrives_in_little_memory() {
    let Some(setup) = Setup::new() else { return };
    let path = setup.serve("large", "");
    // Not compressible, and no two blocks alike.
    let script = "import random, sys\nwith open(sys.argv[1], 'wb') as file:\n    \
                  for number in range(2048): file.write(random.Random(number).randbytes(1 << 20))\n";
    succeed(Command::new("python3").args(["-c", script]).arg(&path));
    let mut command = setup.command(&[&setup.url("large")], &[]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut largest = 0;
    let status = loop {
        largest = largest.max(resident(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success());
    let fetched = setup.bench.path("context/image/workspace/large");
    let digest =
        |path: &Path| sha256(fs::File::open(path).expect("it is there")).expect("readable");
    assert_eq!(digest(&fetched), digest(&path));
    assert!(
        largest > 0 && largest < MEMORY,
        "the largest resident set is {largest} KiB"
    );
}

/// The largest resident set that a process had so far, in KiB.
fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[test]
#[ignore = "long: ten thousand files"]
fn many_small_files_arrive() {
    let Some(setup) = Setup::new() else { return };
    let tree = setup.server.path("data/tree");
    for folder in 0..100 {
        let folder = tree.join(format!("folder{folder}"));
        fs::create_dir_all(&folder).expect("ours");
        for file in 0..100 {
            fs::write(folder.join(format!("file{file}")), format!("text {file}\n")).expect("ours");
        }
    }
    let began = Instant::now();
    let (workspace, said) = setup.stage(&[&setup.url("tree")], &[]);
    let first = began.elapsed();
    assert_eq!(listing(&workspace.join("tree")), listing(&tree));
    let began = Instant::now();
    setup.stage(&[&setup.url("tree")], &[]);
    let again = began.elapsed();
    assert!(first < Duration::from_secs(60), "{said}");
    assert!(
        again < first,
        "the second build took {again:?}, the first {first:?}"
    );
}
