# Paths that change while they are looked up lead nowhere but into the root file system, and never to what pid 1
# has open.
import time

os.makedirs("/hostile/real")
write("/hostile/real/file")
os.makedirs("/hostile/jail/real")
write("/hostile/jail/real/file")
for path in ["/proc/1/root", "/proc/1/cwd", "/proc/1/exe", "/proc/1/root/etc/passwd"] + [
    f"/proc/1/fd/{n}" for n in range(12)
]:
    is_((path, fchownat(AT_FDCWD, path, 1, 1) in ("EACCES", "ENOENT")), (path, True))
is_(fchownat(AT_FDCWD, "/../../../../../../../../../sentinel", 1, 1), "ENOENT")

end = time.monotonic() + 2


def swap():
    targets = ["real", "/proc/1/root", "/proc/1/cwd", "/proc/self/root/../..", "../../../..", "/proc/self/fd/0"]
    number = 0
    while time.monotonic() < end:
        number += 1
        os.symlink(targets[number % len(targets)], "/hostile/new")
        os.rename("/hostile/new", "/hostile/swapped")
        os.rename("/hostile/jail/real", "/hostile/out")
        os.rename("/hostile/out", "/hostile/jail/real")


def jail():
    fd = os.open("/hostile/jail/real", os.O_RDONLY)
    os.chroot("/hostile/jail")
    os.chdir("/")
    while time.monotonic() < end:
        fchownat(AT_FDCWD, "real/../../../../file", 1, 1)
        fchownat(fd, "../../../../sentinel", 1, 1)
        fchownat(AT_FDCWD, "/real/file", 1, 1)


pids = []
for work in (jail, jail):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    pids.append(pid)
swapper = threading.Thread(target=swap)
swapper.start()
while time.monotonic() < end:
    fchownat(AT_FDCWD, "/hostile/swapped/file", 1, 1)
    fchownat(AT_FDCWD, "/hostile/swapped/sentinel", 1, 1)
    fchownat(AT_FDCWD, "/hostile/swapped", 1, 1, NOFOLLOW)
swapper.join()
for pid in pids:
    os.waitpid(pid, 0)

# A path in memory that changes.
write("/hostile/A")
write("/hostile/B")
buffer = ctypes.create_string_buffer(b"/hostile/A")
end = time.monotonic() + 0.5


def flip():
    while time.monotonic() < end:
        buffer[9] = b"B"
        buffer[9] = b"A"


flipper = threading.Thread(target=flip)
flipper.start()
while time.monotonic() < end:
    fchownat(AT_FDCWD, ctypes.addressof(buffer), 1, 1)
flipper.join()
sh("rm -r /hostile")
