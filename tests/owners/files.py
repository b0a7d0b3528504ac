os.makedirs("/new/a/b/c")
for path in ("/new/file", "/new/a/file", "/new/a/b/file", "/new/a/b/c/file"):
    write(path)
os.symlink("file", "/new/link")
os.symlink("/new/a", "/new/absolute")
os.symlink("nowhere", "/new/dangling")
os.mkfifo("/new/pipe")
os.chown("/new/file", 1, 2)
os.chown("/new/link", 3, 4)  # Follows.
os.lchown("/new/link", 5, 6)
os.lchown("/new/dangling", 7, 8)
os.chown("/new/pipe", 9, 10)
os.chown("/new/a", -1, 11)
os.chown("/new/absolute/b", 12, -1)
os.chown("/new/absolute/b", -1, 13)
is_(fchownat(AT_FDCWD, "/new/absolute/b/c", 60000, 60001), 0)

# By descriptor, with and without paths.
write("/new/fd")
with open("/new/fd") as file:
    os.fchown(file.fileno(), 14, 15)
write("/new/fd2")
fd = os.open("/new/fd2", os.O_PATH)
is_(fchown(fd, 1, 1), "EBADF")
is_(fchownat(fd, "", 16, 17, EMPTY), 0)
is_(fchownat(fd, "", 16, 17), "ENOENT")
link = os.open("/new/link", os.O_PATH | os.O_NOFOLLOW)
is_(fchownat(link, "", 18, 19, EMPTY | NOFOLLOW), 0)
directory = os.open("/new/a", os.O_RDONLY | os.O_DIRECTORY)
is_(fchownat(directory, "file", 20, 21), 0)
is_(fchownat(directory, "./b/../b/./file", 22, 23), 0)
is_(fchownat(directory, "../absolute/b/c/file", 24, 25, NOFOLLOW), 0)
os.chdir("/new/a/b")
is_(fchownat(AT_FDCWD, "c", 26, 27), 0)
is_(fchownat(AT_FDCWD, "", 28, 29, EMPTY), 0)
os.chdir("/")

# A file that has no name any more, and one that got another one while open.
write("/new/gone")
fd = os.open("/new/gone", os.O_RDWR)
os.unlink("/new/gone")
is_(fchown(fd, 1, 1), 0)
write("/new/before")
fd = os.open("/new/before", os.O_RDWR)
os.rename("/new/before", "/new/after")
is_(fchown(fd, 30, 31), 0)

# Through /proc, as /dev/stdout leads.
write("/new/proc")
fd = os.open("/new/proc", os.O_RDONLY)
is_(fchownat(AT_FDCWD, f"/proc/self/fd/{fd}", 32, 33), 0)
is_(fchownat(AT_FDCWD, f"/dev/fd/{fd}", -1, 34), 0)
is_(fchownat(AT_FDCWD, f"/proc/{os.getpid()}/fd/{fd}", 35, -1), 0)
os.chdir("/new")
write("/new/cwd")
is_(fchownat(AT_FDCWD, "/proc/self/cwd/cwd", 36, 37), 0)
is_(fchownat(AT_FDCWD, "/proc/thread-self/root/new/cwd", -1, 38), 0)
os.chdir("/")

# Inside of a chroot all paths begin there.
os.makedirs("/jail/etc")
write("/jail/etc/passwd")
os.symlink("/etc/passwd", "/jail/absolute")
os.symlink("../../../etc/passwd", "/jail/up")


def jailed():
    os.chroot("/jail")
    os.chdir("/")
    os.chown("/absolute", 40, -1)
    os.chown("/up", -1, 41)
    os.lchown("/../../up", 42, 43)
    os.mkdir("/made")
    os.chown("made", 44, 45)
    os.chown("/", 46, 47)


child(jailed)

# Many, deep, and with a change of none.
os.makedirs("/new/deep/" + "/".join("d" * 100 for _ in range(20)))
sh("chown -R 50:51 /new/deep")
before = os.stat("/new/after")
os.chown("/new/after", -1, -1)
sh("mkdir -p '/new/odd\nname' && touch '/new/odd\nname/f' && chown -R 52:53 '/new/odd\nname'")
os.makedirs(b"/new/\xff\xfe")
os.chown(b"/new/\xff\xfe", 54, 55)
