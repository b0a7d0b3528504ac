# What the steps of `tests/owners.rs` have in common.
import ctypes, errno, os, stat, struct, subprocess, sys, threading

libc = ctypes.CDLL(None, use_errno=True)
FCHOWNAT = {"x86_64": 260, "aarch64": 54}[os.uname().machine]
FCHOWN = {"x86_64": 93, "aarch64": 55}[os.uname().machine]
AT_FDCWD, NOFOLLOW, EMPTY = -100, 0x100, 0x1000


def fchownat(directory, path, uid, gid, flags=0):
    """The bare call; 0 or the error's name."""
    address = ctypes.c_void_p(path) if isinstance(path, int) else ctypes.c_char_p(os.fsencode(path))
    done = libc.syscall(FCHOWNAT, directory, address, uid, gid, flags)
    return 0 if done == 0 else errno.errorcode[ctypes.get_errno()]


def fchown(fd, uid, gid):
    done = libc.syscall(FCHOWN, fd, uid, gid)
    return 0 if done == 0 else errno.errorcode[ctypes.get_errno()]


def is_(found, expected):
    if found != expected:
        where = sys._getframe(1).f_lineno
        sys.exit(f"line {where}: {found!r} is not {expected!r}")


def write(path, text="x", mode=0o644):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def sh(script):
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{script}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def child(work):
    """Runs in a child, which has to succeed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
    is_(os.waitpid(pid, 0)[1], 0)


CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
