# Runs pip with the words of the command line, and meanwhile compiles the wheels that it has fetched; `bytecode.py` stands
# before this text.
import glob
import runpy
import signal
import sysconfig
import tempfile
import time
import zipfile


def sources(path):
    """What a wheel has to compile. Raises if it is not whole yet."""
    site_packages = sysconfig.get_path("purelib")
    wheel = zipfile.ZipFile(path)
    for member in sorted(wheel.infolist(), key=lambda member: member.filename):
        name = member.filename
        if name.endswith(".py") and not name.split("/")[0].endswith(".data"):
            yield Source(os.path.join(site_packages, name), member.file_size, functools.partial(wheel.read, member))


def compile_wheels():
    os.makedirs(AHEAD, exist_ok=True)
    compiler, done = Compiler(), set()
    while True:
        for path in glob.glob(os.path.join(tempfile.gettempdir(), "pip-*", "*.whl")):
            if path in done:
                continue
            try:
                for chunk in chunks(sources(path)):
                    contents = [source.read() for source in chunk]
                    compiled = os.path.join(AHEAD, known_by(chunk, contents))
                    if not os.path.isdir(compiled):
                        temporary = tempfile.mkdtemp(dir=AHEAD)
                        targets = [os.path.join(temporary, str(number)) for number in range(len(chunk))]
                        compiler.compile(chunk, contents, targets)
                        os.rename(temporary, compiled)
                done.add(path)
            except (OSError, EOFError, ValueError, zipfile.BadZipFile):
                pass
        time.sleep(0.1)


def start():
    """Does that in a process group of its own, silently. pip goes before, and does not need it."""
    group = os.fork()
    if group == 0:
        try:
            os.setpgid(0, 0)
            os.nice(19)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(null, stream)
            compile_wheels()
        finally:
            os._exit(0)
    return group


def stop(group):
    for kill in os.killpg, os.kill:
        try:
            kill(group, signal.SIGKILL)
        except OSError:  # It has ended by itself, or has no group yet.
            pass
    os.waitpid(group, 0)


del sys.argv[0]
group = start()
# Relative paths in requirements are relative to the workspace, whose modules are none of pip's.
sys.path[:] = filter(None, sys.path)
os.chdir(WORKSPACE)
try:
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
finally:
    stop(group)
