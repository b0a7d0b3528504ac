//! A server that wants to write elsewhere.

use std::path::Path;

use fs_err as fs;

use super::Setup;

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
        ("nul", "lists `e␀vil`"),
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
const HOSTILE: &str = r"
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
";
