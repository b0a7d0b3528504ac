# Settles the times of a virtual environment's sources, then compiles them on all cores.
#
# Arguments: a directory, and seconds since 1970. A `.pyc` file records the time of its source, so the
# time that the source will have in the layer has to be set before. Equal sources have to give equal
# bytecode, and what a process compiled before can show in what it compiles next (which constants are
# shared): so each fixed chunk of files is compiled by a fresh fork of the same process, which frees
# nothing in between.
import gc
import importlib.util
import marshal
import os
import sys
import warnings

CHUNK = 128

root, seconds = sys.argv[1], int(sys.argv[2])
# PEP 552 has added a word of flags.
header = importlib.util.MAGIC_NUMBER + (b"\0\0\0\0" if sys.version_info >= (3, 7) else b"")
header += (seconds & 0xFFFFFFFF).to_bytes(4, "little")
warnings.simplefilter("ignore")

sources = []
for directory, _, names in os.walk(root):
    sources += [os.path.join(directory, name) for name in names if name.endswith(".py")]
sources.sort()


def settle(path):
    if os.path.islink(path):
        return
    status = os.lstat(path)
    target = importlib.util.cache_from_source(path)
    if status.st_mtime_ns != seconds * 10**9:
        os.utime(path, (seconds, seconds))
    elif os.path.exists(target):
        return
    with open(path, "rb") as file:
        source = file.read()
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except Exception:  # Sources for another Python, or templates: Python itself skips them too.
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.lexists(target):
        os.remove(target)
    mode = (status.st_mode | 0o200) & 0o666
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(header + (len(source) & 0xFFFFFFFF).to_bytes(4, "little") + marshal.dumps(code))


def reap():
    _, status = os.wait()
    if status != 0:
        sys.exit("a bytecode compiler ended with wait status %d" % status)


gc.disable()
running = 0
for start in range(0, len(sources), CHUNK):
    if running == len(os.sched_getaffinity(0)):
        reap()
        running -= 1
    if os.fork() == 0:
        code = 1
        try:
            for path in sources[start : start + CHUNK]:
                settle(path)
            code = 0
        finally:
            os._exit(code)
    running += 1
for _ in range(running):
    reap()
