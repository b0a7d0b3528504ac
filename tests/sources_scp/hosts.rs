//! Which host it is, and how it is reached: configuration, jumps, commands, host keys.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;
use std::process::Command;

use fs_err as fs;

use super::Setup;
use crate::support::{KEYS, Sshd, ssh_folder, succeed};

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
