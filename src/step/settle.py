# Settles the times of a virtual environment's sources, then compiles them on all cores.
#
# Arguments: a directory, and seconds since 1970. A `.pyc` file records the time of its source, so the
# time that the source will have in the layer has to be set before. Equal sources have to give equal
# bytecode, and what a process compiled before can show in what it compiles next (which constants are
# shared): so each small, fixed chunk of files is compiled by a fresh fork of the same process.
import importlib.util
import os
import py_compile
import sys
import warnings

CHUNK = 32

root, seconds = sys.argv[1], int(sys.argv[2])
options = {}
if hasattr(py_compile, "PycInvalidationMode"):  # Python 3.7
    options["invalidation_mode"] = py_compile.PycInvalidationMode.TIMESTAMP
warnings.simplefilter("ignore")

sources = []
for directory, _, names in os.walk(root):
    for name in names:
        path = os.path.join(directory, name)
        if not name.endswith(".py") or os.path.islink(path):
            continue
        settled = os.lstat(path).st_mtime_ns == seconds * 10**9
        if not settled:
            os.utime(path, (seconds, seconds))
        if not settled or not os.path.exists(importlib.util.cache_from_source(path)):
            sources.append(path)
sources.sort()


def compile_chunk(chunk):
    for path in chunk:
        try:
            py_compile.compile(path, doraise=True, **options)
        except Exception:  # Sources for another Python, or templates: Python itself skips them too.
            pass


def reap():
    _, status = os.wait()
    if status != 0:
        sys.exit("a bytecode compiler ended with wait status %d" % status)


running = 0
for start in range(0, len(sources), CHUNK):
    if running == len(os.sched_getaffinity(0)):
        reap()
        running -= 1
    if os.fork() == 0:
        code = 1
        try:
            compile_chunk(sources[start : start + CHUNK])
            code = 0
        finally:
            os._exit(code)
    running += 1
for _ in range(running):
    reap()
