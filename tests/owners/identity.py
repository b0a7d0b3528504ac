# The base is not configured, and so has no rules for su.
for service in ("su", "su-l", "other"):
    write(
        f"/etc/pam.d/{service}",
        "".join(f"{kind} required pam_permit.so\n" for kind in ("auth", "account", "password", "session")),
    )
is_(sh("id -u; id -g; id -G"), "0\n0\n0")
is_(sh("su app -c 'id -u; id -g; id -un'"), "1234\n1234\napp")
is_(sh("su app -c 'id -Gn'"), "app team")
is_(sh("su - app -c 'touch made; mkdir -p dir/sub; echo x > dir/sub/file; ln -s made link; pwd'"), "/home/app")
is_(sh("stat -c %U:%G /home/app/made /home/app/dir/sub/file /home/app/link"), "app:app\napp:app\napp:app")


def refused(work):
    try:
        work()
    except PermissionError:
        return
    raise AssertionError("that was allowed")


def app():
    os.setgroups([4321, 7])
    os.setgid(1234)
    os.setuid(1234)
    is_(os.getresuid(), (1234, 1234, 1234))
    is_(os.getresgid(), (1234, 1234, 1234))
    is_(sorted(os.getgroups()), [7, 4321])
    refused(lambda: os.setuid(0))
    refused(lambda: os.seteuid(0))
    refused(lambda: os.setgroups([]))
    refused(lambda: os.chown("/data/file", 0, 0))
    refused(lambda: os.chown("/base/a", 1234, -1))
    os.chown("/data/file", -1, 4321)
    refused(lambda: os.chown("/data/file", -1, 8))
    is_(sh("id -u; id -G"), "1234\n1234 7 4321")
    os.umask(0o027)
    fd = os.open("/data/open", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    os.write(fd, b"by app")
    os.close(fd)
    os.mkdir("/data/mkdir", 0o777)
    os.mkfifo("/data/fifo", 0o666)
    os.symlink("x", "/data/symlink")
    with open("/data/open", "a") as file:
        file.write("more")
    try:
        os.open("/data/open", os.O_CREAT | os.O_EXCL)
        raise AssertionError("it is there")
    except FileExistsError:
        pass
    is_(os.path.exists("/data/none"), False)
    # What belongs to root refuses, and what is there is told of first.
    refused(lambda: os.mkdir("/etc/new"))
    refused(lambda: os.symlink("x", "/etc/new"))
    refused(lambda: os.mkfifo("/etc/new"))
    refused(lambda: write("/etc/new"))
    refused(lambda: write("/etc/passwd"))
    sh("mkdir -p /data/mkdir/deep/er")
    try:
        os.mkdir("/etc")
        raise AssertionError("it is there")
    except FileExistsError:
        pass
    # A daemon: its parent is gone.
    if os.fork() == 0:
        os.setsid()
        read, up = os.pipe()
        if os.fork() == 0:
            os.close(up)
            os.read(read, 1)
            os.execvp("sh", ["sh", "-c", "id -u > /data/daemon"])
        os._exit(0)
    os.wait()
    while not os.path.exists("/data/daemon") or not os.path.getsize("/data/daemon"):
        pass


child(app)
is_(open("/data/daemon").read(), "1234\n")


os.mkdir("/open")
os.chmod("/open", 0o1777)


def back_and_forth():
    os.setresgid(-1, 9, -1)
    os.setresuid(-1, 8, -1)
    is_((os.getuid(), os.geteuid(), os.getegid()), (0, 8, 9))
    write("/open/while")
    os.seteuid(0)
    os.setegid(0)
    write("/open/afterwards")
    os.setreuid(5, 6)
    is_(os.getresuid(), (5, 6, 6))


child(back_and_forth)
is_(os.getuid(), 0)


def threads():
    seen = []
    threading.Thread(target=lambda: (os.setuid(77), seen.append(os.getuid()))).start()
    while not seen:
        pass
    is_((seen, os.getuid()), ([77], 77))


child(threads)
