"""Merges Debian packages into the layers of an OCI image layout.

    usage: assemble.py ARCHIVES LAYOUT LIST...

Each LIST names package files in the folder ARCHIVES, one a line, and becomes one layer; a last small
layer sets the finishing touches, with a whiteout in it. Nothing is unpacked to disk and no maintainer
script runs, so no privileges are needed and the same packages give the same bytes; what the scripts
would have made, and a Python image needs, is made by `finish`. Standard library only.
"""

import gzip
import hashlib
import io
import json
import os
import posixpath
import subprocess
import sys
import tarfile

# Image references use Go's names of architectures.
ARCHITECTURES = {"amd64": ("amd64", None), "arm64": ("arm64", "v8"), "i386": ("386", None),
                 "armhf": ("arm", "v7"), "ppc64el": ("ppc64le", None), "s390x": ("s390x", None),
                 "riscv64": ("riscv64", None)}
# Left out, as the slim images leave it out.
LEFT_OUT = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/",
            "usr/share/lintian/", "usr/share/gcc/")
# Packages still ship /bin and its kin; the directories are links into /usr, as on an installed system.
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# As in the slim images.
SOURCES = """\
Types: deb
URIs: http://deb.debian.org/debian
Suites: {release} {release}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: {release}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
# As libpam-runtime makes them on a fresh system.
PAM = {
    "common-auth": "auth [success=1 default=ignore] pam_unix.so nullok\n"
                   "auth requisite pam_deny.so\nauth required pam_permit.so\n",
    "common-account": "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\n"
                      "account requisite pam_deny.so\naccount required pam_permit.so\n",
    "common-password": "password [success=1 default=ignore] pam_unix.so obscure yescrypt\n"
                       "password requisite pam_deny.so\npassword required pam_permit.so\n",
    "common-session": "session [default=1] pam_permit.so\nsession requisite pam_deny.so\n"
                      "session required pam_permit.so\nsession required pam_unix.so\n",
}
PAM["common-session-noninteractive"] = PAM["common-session"]


def main(archives, layout, *lists):
    tree = {}   # all layers so far: path -> (TarInfo, bytes)
    layers = []
    status = []
    for number, name in enumerate(lists):
        layer = {}
        if number == 0:
            skeleton(layer)
        with open(name) as lines:
            for line in sorted(lines):
                package(os.path.join(archives, line.strip()), layer, tree, status)
        tree.update(layer)
        layers.append(layer)
    layers.append(finish(tree, status))
    write(layout, layers, tree, max(info.mtime for info, _ in tree.values()))


def skeleton(layer):
    for name in MERGED[:2] + ("lib", "lib64"):
        link(layer, name, "usr/" + name)
        directory(layer, "usr/" + name)


def package(path, layer, tree, status):
    """Puts one package's files, and its entry in dpkg's database, into `layer`."""
    listed = ["/."]
    with tarfile.open(fileobj=io.BytesIO(output("dpkg-deb", "--fsys-tarfile", path))) as archive:
        for info in archive:
            name = merged(info.name)
            if not name or name in MERGED:
                continue
            # dpkg knows of what is left out, or a package of nothing else would seem to be gone.
            listed.append("/" + name)
            if (name + "/").startswith(LEFT_OUT):
                continue
            # A directory that several packages ship belongs to the first.
            if info.isdir() and (name in layer or name in tree):
                continue
            data = archive.extractfile(info).read() if info.isreg() else b""
            info.name = name
            info.linkname = merged(info.linkname) if info.islnk() else info.linkname
            info.uname = info.gname = ""
            info.pax_headers = {}
            layer[name] = (info, data)
    with tarfile.open(fileobj=io.BytesIO(output("dpkg-deb", "--ctrl-tarfile", path))) as archive:
        control = {posixpath.normpath(info.name): archive.extractfile(info).read()
                   for info in archive if info.isreg()}
    paragraph = control.pop("control").decode()
    fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
    name = fields["Package"]
    if fields.get("Multi-Arch") == "same":
        name += ":" + fields["Architecture"]
    first, rest = paragraph.rstrip("\n").split("\n", 1)
    status.append(f"{first}\nStatus: install ok installed\n{rest}\n")
    control["list"] = ("\n".join(listed) + "\n").encode()
    for kind, data in sorted(control.items()):
        executable = kind in ("preinst", "postinst", "prerm", "postrm", "config")
        file(layer, f"var/lib/dpkg/info/{name}.{kind}", data, 0o755 if executable else 0o644)


def finish(tree, status):
    """What maintainer scripts make, and what tells this image from a plain Debian."""
    layer = {}
    accounts = read(tree, "usr/share/base-passwd/passwd.master").replace("root:*:", "root:x:")
    names = [line.split(":")[0] for line in accounts.splitlines()]
    file(layer, "etc/passwd", accounts.replace(":*:", ":x:"))
    file(layer, "etc/group", read(tree, "usr/share/base-passwd/group.master").replace(":*:", ":x:"))
    # Readable by the group `shadow` (42): an owner that is not root.
    file(layer, "etc/shadow", "".join(f"{name}:*:19000:0:99999:7:::\n" for name in names), 0o640, 42)
    file(layer, "etc/nsswitch.conf", read(tree, "usr/share/libc-bin/nsswitch.conf"))
    file(layer, "etc/profile", read(tree, "usr/share/base-files/profile"))
    authorities = sorted(name for name in tree if name.startswith("usr/share/ca-certificates/mozilla/")
                         and name.endswith(".crt"))
    prefix = len("usr/share/ca-certificates/")
    file(layer, "etc/ca-certificates.conf", "".join(name[prefix:] + "\n" for name in authorities))
    file(layer, "etc/ssl/certs/ca-certificates.crt", "".join(read(tree, name) for name in authorities))
    for name, target in (("awk", "mawk"), ("which", "which.debianutils")):
        link(layer, f"etc/alternatives/{name}", f"/usr/bin/{target}")
        link(layer, f"usr/bin/{name}", f"/etc/alternatives/{name}")
    for name, rules in PAM.items():
        file(layer, f"etc/pam.d/{name}", rules)
    link(layer, "usr/bin/python", "python3")
    file(layer, "var/lib/dpkg/status", "\n".join(status))
    file(layer, "var/lib/dpkg/available", "")
    # Says that names in the database may carry an architecture.
    file(layer, "var/lib/dpkg/info/format", "1\n")
    release = read(tree, "etc/os-release" if "etc/os-release" in tree and tree["etc/os-release"][1]
                   else "usr/lib/os-release").split("VERSION_CODENAME=")[1].split()[0]
    file(layer, "etc/apt/sources.list.d/debian.sources", SOURCES.format(release=release))
    # A whiteout, as real images have them: nobody reports bugs from here.
    file(layer, "usr/share/.wh.bug", "")
    return layer


def write(layout, layers, tree, mtime):
    """Writes the layout: blobs, index, and the config with one history entry a layer."""
    os.makedirs(f"{layout}/blobs/sha256")
    created = timestamp(mtime)
    descriptors, diff_ids, history = [], [], []
    for number, layer in enumerate(layers):
        tar = archive(layer, tree, mtime)
        diff_ids.append("sha256:" + hashlib.sha256(tar).hexdigest())
        compressed = gzip.compress(tar, 6, mtime=0)
        descriptors.append(blob(layout, "application/vnd.oci.image.layer.v1.tar+gzip", compressed))
        history.append({"created": created, "created_by": f"testdata/base/make.sh, layer {number + 1}"})
    history.insert(2, {"created": created, "created_by": "ENV PYTHON_VERSION", "empty_layer": True})
    name = output("dpkg", "--print-architecture").decode().strip()
    architecture, variant = ARCHITECTURES.get(name, (name, None))
    platform = {"architecture": architecture, "os": "linux"}
    if variant:
        platform["variant"] = variant
    path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    config = dict(platform, created=created, history=history,
                  config={"Cmd": ["python3"],
                          "Env": [f"PATH={path}", "LANG=C.UTF-8", "PYTHON_VERSION=3.11"]},
                  rootfs={"type": "layers", "diff_ids": diff_ids})
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": document(layout, "application/vnd.oci.image.config.v1+json", config),
                "layers": descriptors}
    entry = document(layout, manifest["mediaType"], manifest)
    entry["platform"] = platform
    entry["annotations"] = {"org.opencontainers.image.ref.name": "3.11-slim"}
    with open(f"{layout}/oci-layout", "w") as marker:
        marker.write('{"imageLayoutVersion":"1.0.0"}')
    with open(f"{layout}/index.json", "w") as index:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, index, sort_keys=True)


def archive(layer, tree, mtime):
    """The layer as a tar archive: sorted, except that hard links follow what they link to. Every
    file's directory is in it, with the mode that it has below."""
    for name in list(layer):
        while name := posixpath.dirname(name):
            if name in layer:
                continue
            if name in tree:
                layer[name] = tree[name]
            else:
                directory(layer, name)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(layer, key=lambda name: (layer[name][0].islnk(), name)):
            info, data = layer[name]
            info.mtime = int(info.mtime or mtime)
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return buffer.getvalue()


def merged(name):
    name = posixpath.normpath(name.lstrip("/")).lstrip("/")
    name = "" if name == "." else name
    return "usr/" + name if name.split("/")[0] in MERGED and "/" in name else name


def read(tree, name):
    return tree[name][1].decode()


def file(layer, name, data, mode=0o644, group=0):
    data = data.encode() if isinstance(data, str) else data
    layer[name] = (entry(name, tarfile.REGTYPE, mode, size=len(data), gid=group), data)


def link(layer, name, target):
    layer[name] = (entry(name, tarfile.SYMTYPE, 0o777, linkname=target), b"")


def directory(layer, name):
    layer[name] = (entry(name, tarfile.DIRTYPE, 0o755), b"")


def entry(name, kind, mode, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, mode
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def document(layout, media_type, value):
    return blob(layout, media_type, json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def blob(layout, media_type, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(f"{layout}/blobs/sha256/{digest}", "wb") as target:
        target.write(data)
    return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}


def timestamp(seconds):
    import datetime
    moment = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
