os.makedirs("/errors/dir")
write("/errors/file")
os.symlink("loop", "/errors/loop")
os.symlink("nowhere", "/errors/dangling")
for path, flags, expected in (
    ("/errors/none", 0, "ENOENT"),
    ("", 0, "ENOENT"),
    ("/errors/none/x", 0, "ENOENT"),
    ("/errors/file/x", 0, "ENOTDIR"),
    ("/errors/file/", 0, "ENOTDIR"),
    ("/errors/file/.", 0, "ENOTDIR"),
    ("/errors/loop", 0, "ELOOP"),
    ("/errors/loop", NOFOLLOW, 0),
    ("/errors/loop/x", NOFOLLOW, "ELOOP"),
    ("/errors/dangling", 0, "ENOENT"),
    ("/errors/" + "x" * 256, 0, "ENAMETOOLONG"),
    ("/errors/" + "x/" * 2100, 0, "ENAMETOOLONG"),
    ("/errors/" + "./" * 2040 + "file", 0, 0),
    ("/errors/file", 0x4000, "EINVAL"),
    ("/errors/dir/", 0, 0),
    ("/errors/dir/../file", 0, 0),
    ("/proc/self/fd/77", 0, "ENOENT"),
    ("/proc/self/cwd/none", 0, "ENOENT"),
    (8, 0, "EFAULT"),
    (0, 0, "EFAULT"),
):
    is_((path if isinstance(path, int) else path[:40], fchownat(AT_FDCWD, path, 1, 1, flags)), (path if isinstance(path, int) else path[:40], expected))
is_(fchownat(77, "file", 1, 1), "EBADF")
is_(fchownat(77, "/errors/file", 1, 1), 0)
is_(fchownat(77, "", 1, 1, EMPTY), "EBADF")
fd = os.open("/errors/file", os.O_RDONLY)
is_(fchownat(fd, "x", 1, 1), "ENOTDIR")
is_(fchown(77, 1, 1), "EBADF")
is_(fchown(-1, 1, 1), "EBADF")
is_(fchownat(AT_FDCWD, "/sys/kernel", 0, 0), "EROFS")
is_(fchown(os.open("/sys/kernel", os.O_RDONLY), 0, 0), "EROFS")

# A path that ends with the page, and one that goes on where nothing is.
import mmap
page = mmap.PAGESIZE
area = libc.mmap
area.restype = ctypes.c_void_p
area.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
start = area(None, 2 * page, 3, 0x22, -1, 0)
libc.munmap(ctypes.c_void_p(start + page), page)
path = b"/errors/file\0"
ctypes.memmove(start + page - len(path), path, len(path))
is_(fchownat(AT_FDCWD, start + page - len(path), 1, 1), 0)
ctypes.memmove(start + page - len(path) + 1, path[:-1], len(path) - 1)
is_(fchownat(AT_FDCWD, start + page - len(path) + 1, 1, 1), "EFAULT")
