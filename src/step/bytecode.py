# Compiles the Python sources of a virtual environment: `settle` those that are installed, and `pip.py` those that are about
# to be, on a core that is idle meanwhile.
#
# A `.pyc` file records the time of its source, so the time that the source will have in the layer, `SETTLED`, is set
# before. Equal sources have to give equal bytecode, and what a process compiled before shows in what it compiles next
# (which constants are shared). So sources are compiled in chunks that depend on what is installed alone, each by a fresh
# fork of a process that did nothing yet; and what was compiled ahead, or for an image before, is taken chunk by chunk,
# when all its sources are the installed ones.
import collections
import csv
import functools
import hashlib
import importlib.util
import io
import marshal
import os
import shutil
import stat
import subprocess
import sys
import traceback

LIBRARY = os.path.join(sys.prefix, "lib")
# What was compiled ahead, for the command that settles; no layer has it.
AHEAD = os.path.join(sys.prefix, ".bytecode")
# What was compiled for images before; with uv, whose own cache lies there as well, unless it was told of a place in the
# image. pip is so slow that what is compiled meanwhile costs nothing.
KEPT = os.path.join(UV_CACHE, "bytecode") if os.environ.get("UV_CACHE_DIR") == UV_CACHE else None
# How much a chunk holds, in files and in bytes.
FILES, BYTES = 128, 4 << 20

# PEP 552 has added a word of flags.
HEADER = importlib.util.MAGIC_NUMBER + (b"\0\0\0\0" if sys.version_info >= (3, 7) else b"")
HEADER += (SETTLED & 0xFFFFFFFF).to_bytes(4, "little")

# All that bytecode depends on beside its source: which Python it is, and how it was told to compile.
VARIABLES = sorted(variable for variable in os.environ.items() if variable[0].startswith("PYTHON"))
COMPILED_BY = repr((HEADER, sys.version, sys.flags, sys.getfilesystemencoding(), VARIABLES)).encode()

# Takes chunks from its input, and tells its output of each that is done: where a source will lie, the source, and where
# its bytecode goes; and the file that keeps all of the chunk, if one does.
COMPILER = r"""
import gc, marshal, os, sys, warnings

def compile_chunk():
    header, chunk, kept = marshal.load(sys.stdin.buffer)
    compiled = []
    for number, (path, source, target) in enumerate(chunk):
        try:
            code = compile(source, os.fsdecode(path), "exec", dont_inherit=True)
        except Exception:  # Sources for another Python, or templates: Python itself skips them too.
            continue
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            compiled.append((number, header + (len(source) & 0xFFFFFFFF).to_bytes(4, "little") + marshal.dumps(code)))
            file.write(compiled[-1][1])
    if kept:
        try:
            # Another build may be at it as well.
            temporary = b"%s.%d" % (kept, os.getpid())
            with open(temporary, "wb") as file:
                marshal.dump(compiled, file)
            os.replace(temporary, kept)
        except OSError:  # It is compiled once more the next time.
            pass
    os.write(1, b".")

gc.disable()
warnings.simplefilter("ignore")
while True:
    if os.fork() == 0:
        status = 1
        try:
            compile_chunk()
            status = 0
        except EOFError:
            status = 2
        finally:
            os._exit(status)
    status = os.wait()[1]
    if status != 0:
        sys.exit(0 if status == 2 << 8 else "a bytecode compiler ended with wait status %d" % status)
"""


class Compiler:
    def __init__(self):
        # Nothing that was installed has a say in how it starts.
        command = [sys.executable, "-S", "-c", COMPILER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/")

    def compile(self, chunk, contents, targets, kept=None):
        """Compiles a chunk; what is no Python has no bytecode then."""
        paths = [os.fsencode(source.path) for source in chunk]
        task = HEADER, list(zip(paths, contents, map(os.fsencode, targets))), kept and os.fsencode(kept)
        try:
            marshal.dump(task, self.process.stdin)
            self.process.stdin.flush()
        except BrokenPipeError:  # It has said why.
            pass
        if self.process.stdout.read(1) != b".":
            sys.exit(self.process.wait() or 1)


# Where it will lie, its size, and what reads it.
Source = collections.namedtuple("Source", "path size read")


def chunks(sources):
    """Parts of sources that come in order."""
    chunk, size = [], 0
    for source in sources:
        if chunk and (len(chunk) == FILES or size + source.size > BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(source)
        size += source.size
    if chunk:
        yield chunk


def known_by(chunk, contents):
    """What the bytecode of a chunk is known by."""
    digest = hashlib.sha256(COMPILED_BY)
    for source, content in zip(chunk, contents):
        path = os.fsencode(source.path)
        digest.update(b"%d %d " % (len(path), len(content)) + path)
        digest.update(content)
    return digest.hexdigest()


def take(kept, targets):
    """Writes the bytecode of a chunk that was compiled for an image before, if there is any."""
    try:
        with open(kept, "rb") as file:
            compiled = [(targets[number], memoryview(content)) for number, content in marshal.load(file)]
    except (OSError, EOFError, ValueError, TypeError, IndexError):
        return False
    for target, content in compiled:
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(content)
    return True


def read(path):
    with open(path, "rb") as file:
        return file.read()


def recorded(record):
    """The sources that a file `RECORD` names; none if it is not what it should be."""
    site_packages = os.path.dirname(os.path.dirname(record))
    try:
        with io.open(record, encoding="utf-8", newline="", errors="surrogateescape") as file:
            names = [row[0] for row in csv.reader(file) if row]
    except (OSError, csv.Error):
        names = []
    return [os.path.normpath(os.path.join(site_packages, name)) for name in names if name.endswith(".py")]


def settle():
    is_ahead = os.path.isdir(AHEAD)
    if KEPT:
        try:
            os.makedirs(KEPT, exist_ok=True)
        except OSError:  # Nothing is kept then.
            pass
    umask = os.umask(0)
    os.umask(umask)
    found, modes, records = {}, {}, []
    for directory, _, names in os.walk(LIBRARY):
        if directory.endswith(".dist-info") and "RECORD" in names:
            records.append(os.path.join(directory, "RECORD"))
        for name in names:
            path = os.path.join(directory, name)
            if not name.endswith(".py"):
                continue
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_mtime_ns != SETTLED * 10**9:
                os.utime(path, (SETTLED, SETTLED))
            elif os.path.exists(importlib.util.cache_from_source(path)):
                continue
            found[path] = Source(path, status.st_size, functools.partial(read, path))
            modes[path] = (status.st_mode | 0o200) & 0o666 & ~umask
    # A package's sources are compiled together, as they are ahead.
    everything = []
    for record in sorted(records):
        paths = {path for path in recorded(record) if path in found}
        everything += chunks(found.pop(path) for path in sorted(paths))
    everything += chunks(found[path] for path in sorted(found))

    def settle_chunk(chunk, compiler):
        contents = [source.read() for source in chunk]
        targets = [importlib.util.cache_from_source(source.path) for source in chunk]
        for target in targets:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if os.path.lexists(target):
                os.remove(target)
        known = known_by(chunk, contents) if is_ahead or KEPT else ""
        compiled = os.path.join(AHEAD, known)
        kept = KEPT and os.path.join(KEPT, known)
        if is_ahead and os.path.isdir(compiled):
            for number in os.listdir(compiled):
                os.rename(os.path.join(compiled, number), targets[int(number)])
        elif not (kept and take(kept, targets)):
            compiler.compile(chunk, contents, targets, kept)
        for source, target in zip(chunk, targets):
            if modes[source.path] != 0o666 & ~umask and os.path.exists(target):
                os.chmod(target, modes[source.path])

    # Each process takes the next chunk.
    numbers, taken = os.pipe()
    cores = len(os.sched_getaffinity(0))
    for _ in range(cores):
        if os.fork() == 0:
            status = 1
            try:
                os.close(taken)
                compiler = Compiler()
                for number in iter(lambda: os.read(numbers, 4), b""):
                    settle_chunk(everything[int.from_bytes(number, "little")], compiler)
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
    os.close(numbers)
    try:
        for number in range(len(everything)):
            os.write(taken, number.to_bytes(4, "little"))
    except BrokenPipeError:  # All have failed.
        pass
    os.close(taken)
    failed = [os.wait()[1] for _ in range(cores)]
    shutil.rmtree(AHEAD, ignore_errors=True)
    if any(failed):
        sys.exit("bytecode could not be compiled")
