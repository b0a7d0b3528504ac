"""Makes what the fragments need: the base that they build upon, and the context that they copy from.

    usage: make.py base DIRECTORY    an OCI layout with the tag `base`, of about 2 MB
           make.py context DIRECTORY

The base holds busybox, `tool.c`, accounts, and files of every kind, whose owners are not all root. It needs
busybox-static and cc. The context is made by whoever builds from it, since it holds files that nobody else
can read; all its times are fixed. Standard library only.
"""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import platform
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# 2001-02-03T04:05:06Z
TIME = 981173106
# VFS capability, version 2, effective; permitted: CAP_NET_BIND_SERVICE.
CAPABILITY = bytes([1, 0, 0, 2, 0, 4]) + bytes(14)

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
app:x:1000:1000:An application:/home/app:/bin/sh
web:x:1001:50:No home of its own::/bin/sh
12:x:77:78:A name of digits:/home/twelve:/bin/sh
"""
GROUP = """\
root:x:0:
daemon:x:1:
staff:x:50:app,web
wheel:x:51:root,app
app:x:1000:
"""


def base(directory):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        fill(Layer(archive))
    layer = data.getvalue()
    machine = platform.machine()
    config = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/bin:/bin", "FROM_BASE=base value"],
            "Cmd": ["/bin/sh"],
            "WorkingDir": "/srv",
            "Labels": {"from": "base"},
            "ExposedPorts": {"9/tcp": {}},
            "Volumes": {"/vol": {}},
            "StopSignal": "SIGQUIT",
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created": "2001-02-03T04:05:06Z", "created_by": "the base of the fragments"}],
        "created": "2001-02-03T04:05:06Z",
    }
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(media_type, content):
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}",
                "size": len(content)}

    def document(value):
        return json.dumps(value, indent=1).encode()

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put("config.v1+json", document(config)),
        "layers": [put("layer.v1.tar+gzip", gzip.compress(layer, 1, mtime=0))],
    }
    tagged = put("manifest.v1+json", document(manifest))
    tagged["annotations"] = {"org.opencontainers.image.ref.name": "base"}
    (directory / "index.json").write_bytes(document({"schemaVersion": 2, "manifests": [tagged]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


class Layer:
    def __init__(self, archive):
        self.archive = archive

    def add(self, name, kind, mode, owner=(0, 0), data=b"", target="", capability=None):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = kind, mode, TIME
        info.uid, info.gid = owner
        info.size, info.linkname = len(data), target
        if capability:
            info.pax_headers = {"SCHILY.xattr.security.capability": capability.decode("latin-1")}
        self.archive.addfile(info, io.BytesIO(data))

    def directory(self, name, mode=0o755, owner=(0, 0)):
        self.add(name, tarfile.DIRTYPE, mode, owner)

    def file(self, name, data, mode=0o644, owner=(0, 0), **more):
        data = data.encode() if isinstance(data, str) else data
        self.add(name, tarfile.REGTYPE, mode, owner, data, **more)

    def link(self, name, target):
        self.add(name, tarfile.SYMTYPE, 0o777, target=target)


def fill(layer):
    for name in ("bin dev etc proc sys run usr usr/bin usr/lib home opt srv vol var data data/sub full "
                 "full/deep full/deep/deeper old many").split():
        layer.directory(name)
    layer.directory("tmp", 0o1777)
    layer.directory("root", 0o700)
    layer.directory("home/app", 0o750, (1000, 1000))
    busybox = pathlib.Path("/bin/busybox")
    layer.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in subprocess.run([busybox, "--list"], check=True, text=True, capture_output=True).stdout.split():
        if "/" not in applet and applet != "busybox":
            layer.link("bin/" + applet, "busybox")
    with tempfile.TemporaryDirectory() as place:
        tool = pathlib.Path(place) / "tool"
        subprocess.run(["cc", "-static", "-s", "-O1", "-o", tool, HERE / "tool.c"], check=True)
        layer.file("bin/tool", tool.read_bytes(), 0o755)
    layer.file("etc/passwd", PASSWD)
    layer.file("etc/group", GROUP)
    for name in ("hosts", "resolv.conf", "hostname"):
        layer.file("etc/" + name, "")
    layer.file("data/a", "a of the base\n")
    layer.file("data/b", "b of the base\n", 0o640)
    layer.file("data/sub/c", "c of the base\n")
    layer.file("data/owned", "of app\n", 0o600, (1000, 1000))
    layer.file("full/one", "1\n")
    layer.file("full/deep/two", "2\n")
    layer.file("full/deep/deeper/three", "3\n")
    layer.file("old/file", "old\n")
    for number in range(5):
        layer.file(f"many/{number}", f"{number}\n")
    layer.file("usr/bin/suid", "#!/bin/sh\nid\n", 0o4755)
    layer.file("usr/bin/sgid", "#!/bin/sh\nid\n", 0o2755)
    layer.file("usr/bin/capable", "#!/bin/sh\nid\n", 0o755, capability=CAPABILITY)
    layer.file("opt/hard", "two names\n")
    layer.add("opt/linked", tarfile.LNKTYPE, 0o644, target="opt/hard")
    layer.link("to-data", "data")
    layer.link("abs-to-data", "/data")
    layer.link("to-file", "data/a")
    layer.link("dangling", "nowhere/at/all")
    layer.link("up-and-out", "../../../../data")


def context(directory):
    os.umask(0)
    directory = os.fsencode(directory)

    def at(name):
        return os.path.join(directory, name if isinstance(name, bytes) else name.encode())

    def folder(name, mode=0o755):
        os.makedirs(at(name), exist_ok=True)
        os.chmod(at(name), mode)

    def file(name, data, mode=0o644, time=TIME):
        with open(at(name), "wb") as made:
            made.write(data if isinstance(data, bytes) else data.encode())
        os.chmod(at(name), mode)
        os.utime(at(name), (time, time))

    os.makedirs(directory, exist_ok=True)
    for name in ("dir", "dir/sub", "dir/empty", "dir/.hidden", "links", "names", "modes", "glob", "glob/one",
                 "glob/two", "special", "archives", "deep", "deep/er", "deep/er/est", "ignored",
                 "ignored/kept", "over", "over/sub"):
        folder(name)
    folder("modes/closed", 0o700)
    folder("modes/sticky", 0o1777)
    folder("modes/setgid", 0o2775)
    file("a.txt", "a\n")
    file("b.txt", "b\n")
    file("c.md", "c\n")
    file("empty", "")
    file("name with blanks.txt", "blanks\n")
    file("script.sh", "#!/bin/sh\necho script ran: \"$@\"\n", 0o755)
    file("$dollar", "dollar\n")
    file("[x].txt", "brackets\n")
    file("x.txt", "x\n")
    file("dir/one", "one\n")
    file("dir/sub/two", "two\n", 0o600)
    file("dir/.hidden/three", "three\n")
    file("dir/.dot", "dot\n")
    file("over/a", "a of the context\n", 0o600)
    file("over/sub/new", "new\n")
    file("deep/er/est/file", "deep\n")
    file("deep/er/note", "note\n")
    for name in ("glob/file1", "glob/file2", "glob/file10", "glob/other", "glob/.file3", "glob/one/x",
                 "glob/two/x", "glob/two/y"):
        file(name, name + "\n")
    for mode in (0o400, 0o444, 0o600, 0o666, 0o755, 0o4755, 0o2755):
        file(f"modes/{mode:04o}", "mode\n", mode)
    os.symlink(b"../a.txt", at("links/relative"))
    os.symlink(b"/a.txt", at("links/absolute"))
    os.symlink(b"nowhere", at("links/dangling"))
    os.symlink(b"../dir", at("links/to-dir"))
    os.symlink(b"../../../../../../../../etc/hostname", at("links/out"))
    os.symlink(b"dir", at("to-dir"))
    os.symlink(b"a.txt", at("to-a"))
    file(b"names/new\nline", "newline\n")
    file(b"names/latin-\xe9\xff", "not UTF-8\n")
    file("names/ünï", "UTF-8\n")
    file("names/back\\slash", "backslash\n")
    file("names/" + "l" * 200, "long\n")
    file("special/hard1", "hard\n")
    os.link(at("special/hard1"), at("special/hard2"))
    with open(at("special/sparse"), "wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"end")
    os.chmod(at("special/sparse"), 0o644)
    os.utime(at("special/sparse"), (TIME, TIME))
    folder("fifo")
    os.mkfifo(at("fifo/pipe"), 0o640)
    file("old.txt", "before 1980\n", time=86400)
    file("future.txt", "after 2038\n", time=4102444800)
    file("ignored/no.log", "no\n")
    file("ignored/kept/yes.log", "yes\n")
    file("ignored/plain", "plain\n")
    file(".dockerignore", "# What no COPY sees.\nignored/*\n!ignored/kept\n**/*.secret\n")
    file("hidden.secret", "secret\n")
    file("dir/deep.secret", "secret\n")
    archives(at)
    for place, folders, files in os.walk(directory, topdown=False):
        for name in folders:
            if not os.path.islink(os.path.join(place, name)):
                os.utime(os.path.join(place, name), (TIME, TIME))
        for name in files:
            if os.path.islink(os.path.join(place, name)):
                os.utime(os.path.join(place, name), (TIME, TIME), follow_symlinks=False)
    os.utime(directory, (TIME, TIME))


def archives(at):
    def entry(name, kind=tarfile.REGTYPE, data=b"", mode=0o644, owner=(0, 0), target=""):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime, info.linkname, info.size = kind, mode, TIME + 60, target, len(data)
        info.uid, info.gid = owner
        return info, io.BytesIO(data)

    def write(name, pack, entries):
        path = at("archives/" + name)
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for info, data in entries():
                archive.addfile(info, data)
        with open(path, "wb") as out:
            out.write(pack(made.getvalue()))
        os.chmod(path, 0o644)
        os.utime(path, (TIME, TIME))

    def plain():
        yield entry("top", tarfile.DIRTYPE, mode=0o750)
        yield entry("top/file", data=b"in the archive\n", mode=0o640)
        yield entry("top/run", data=b"#!/bin/sh\n", mode=0o755)
        yield entry("top/link", tarfile.SYMTYPE, target="file")
        yield entry("top/hard", tarfile.LNKTYPE, mode=0o640, target="top/file")

    def owned():
        yield entry("home", tarfile.DIRTYPE, owner=(1000, 1000))
        yield entry("home/mine", data=b"mine\n", owner=(1000, 50))
        yield entry("home/suid", data=b"suid\n", mode=0o4755, owner=(1000, 1000))

    def bare():
        yield entry("no/directory/entry", data=b"alone\n")

    def over():
        yield entry("data/a", data=b"a of the archive\n")
        yield entry("data/new", data=b"new in the archive\n")

    def file_over_directory():
        yield entry("sub", data=b"sub\n")

    def directory_over_file():
        yield entry("a", tarfile.DIRTYPE, mode=0o755)
        yield entry("a/in", data=b"in\n")

    def through():
        yield entry("sub/x", data=b"x\n")

    def directory_through():
        yield entry("sub", tarfile.DIRTYPE, mode=0o700)
        yield entry("sub/x", data=b"x\n")

    def up():
        for name in ("../x", "./y", "/abs", "a/../../z"):
            yield entry(name, data=b"up\n")

    def old():
        yield entry("old", data=b"old\n")

    def fifo():
        yield entry("pipe", tarfile.FIFOTYPE)

    def v7(data):
        """The header without its mark and all that came with it."""
        header = bytearray(data[:257] + bytes(255))
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return bytes(header) + data[512:]

    def hostile():
        yield entry("up", tarfile.SYMTYPE, target="../../../../../..")
        yield entry("fine", data=b"fine\n")

    def gz(data):
        return gzip.compress(data, mtime=0)

    for name, pack in (("plain.tar", bytes), ("plain.tar.gz", gz), ("plain.tar.bz2", bz2.compress),
                       ("plain.tar.xz", lzma.compress)):
        write(name, pack, plain)
    write("owned.tar", bytes, owned)
    write("bare.tar", bytes, bare)
    write("over.tar.gz", gz, over)
    write("links.tar", bytes, hostile)
    write("empty.tar", bytes, lambda: ())
    write("file-over-directory.tar", bytes, file_over_directory)
    write("directory-over-file.tar", bytes, directory_over_file)
    write("through.tar", bytes, through)
    write("directory-through.tar", bytes, directory_through)
    write("up.tar", bytes, up)
    write("v7.tar", v7, old)
    write("fifo.tar", bytes, fifo)
    for name, data in (("not-an-archive.tar", b"only its name\n"),
                       ("text.gz", gzip.compress(b"compressed text\n", mtime=0))):
        with open(at("archives/" + name), "wb") as made:
            made.write(data)
        os.chmod(at("archives/" + name), 0o644)
        os.utime(at("archives/" + name), (TIME, TIME))


if __name__ == "__main__":
    {"base": base, "context": context}[sys.argv[1]](pathlib.Path(sys.argv[2]))
