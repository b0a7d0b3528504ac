def owner(path):
    status = os.lstat(path)
    return (status.st_uid, status.st_gid)


is_(owner("/base/a"), (2000, 2001))
is_(owner("/base/g"), (1000, 1001))
is_(owner("/base/f2"), (1000, 1001))
is_(owner("/base/link-b"), (0, 0))
is_(owner("/base/link-c2"), (7, 7))
is_(owner("/base/pipe-c"), (1004, 1005))
is_(owner("/base/two"), (33, 33))
is_(owner("/base/one"), (34, 34))
is_(owner("/new/dangling"), (96, 8))
is_(owner("/etc/passwd"), (0, 0))
is_(owner("/data/file"), (1234, 1234))
is_(sh("stat -c %u:%g:%U:%G /data/file"), "1234:1234:app:app")
is_(sh("ls -ln /data/link | cut -d' ' -f3,4"), "1234 1234")
is_(sh("stat -c %U:%G /etc/shadow"), "root:shadow")
with open("/data/file") as file:
    status = os.fstat(file.fileno())
    is_((status.st_uid, status.st_gid), (1234, 1234))
    is_((status.st_size, stat.S_ISREG(status.st_mode)), (1, True))
directory = os.open("/data", os.O_RDONLY)
status = os.stat("sub/file", dir_fd=directory)
is_((status.st_uid, status.st_gid), (1234, 4321))
with os.scandir("/data") as entries:
    is_({entry.name: entry.stat(follow_symlinks=False).st_uid for entry in entries}["link"], 1234)
is_(sh("find /data -user app | wc -l"), sh("find /data | wc -l"))
is_(sh("find /base -user 1000 -name g"), "/base/g")
write("/base/shown")
is_(owner("/base/shown"), (0, 0))
os.chown("/base/shown", 3, -1)
is_(owner("/base/shown"), (3, 0))
os.lchown("/base/link-d", -1, 4)
is_(owner("/base/link-d"), (1002, 4))
try:
    os.stat("/base/none")
    sys.exit("there is none")
except FileNotFoundError:
    pass

# What is made in a directory with setgid has its group, and what was there before or is moved there keeps its own.
os.mkdir("/shared")
write("/shared/older")
os.chown("/shared", 0, 50)
os.chmod("/shared", 0o2775)
write("/shared/file")
os.mkdir("/shared/dir")
os.symlink("file", "/shared/link")
write("/shared/dir/file")
write("/outside")
os.rename("/outside", "/shared/moved")
for name, group in {"older": 0, "file": 50, "dir": 50, "link": 50, "dir/file": 50, "moved": 0}.items():
    is_((name, owner(f"/shared/{name}")), (name, (0, group)))
is_(stat.S_IMODE(os.stat("/shared/dir").st_mode), 0o2755)
is_(sh("stat -c %u:%g /shared/file"), "0:50")
