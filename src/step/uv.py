# Runs the command of its arguments, `uv pip install -r FILE`, by the uv of the constants that stand before this text:
# pip fetches that from wherever it takes packages, its digest is verified, and nothing of it stays in the image. uv
# reads no settings of pip's; each has its way of being told to uv, or is refused.
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile

# For how long PyPI says that its answers hold. A proxy that reads along may take that away, and uv would ask for all of it
# again in each build. An explicit index is one that is not asked for anything by itself.
CONFIGURATION = """
[[index]]
name = "pypi"
url = "https://pypi.org/simple"
explicit = true
cache-control = { api = "max-age=600", files = "max-age=365000000, immutable" }
"""

# An option of pip in a file of requirements. uv reads the others of them there by itself.
IN_REQUIREMENTS = r"(?m)^[ \t]*--(pre|trusted-host|require-hashes|prefer-binary|use-feature)\b(?:[ \t=]+(\S+))?"


def fail(message):
    sys.exit("error: " + message)


def settings(requirements):
    """What pip would go by: the later of two sections wins, and a file of requirements adds to both."""
    from pip._internal.configuration import Configuration

    configuration = Configuration(isolated=False)
    configuration.load()
    names = set()
    for name, value in configuration.items():
        # By file since pip 25.3.
        names.update(value if isinstance(value, dict) else [name])
    found = {}
    for section in ["global", "install", ":env:"]:
        for name in sorted(names):
            if name.startswith(section + "."):
                value = str(configuration.get_value(name))
                name = name[len(section) + 1 :].replace("default-timeout", "timeout")
                if name not in SETTINGS:
                    fail("uv has nothing like pip's setting `%s`: `installer: pip` goes by it" % name)
                found[name] = value
    with open(requirements, encoding="utf-8", errors="replace") as file:
        text = file.read()
    for name, value in re.findall(IN_REQUIREMENTS, text):
        if name not in SETTINGS:
            fail("uv has nothing like the option `--%s` in `%s`: `installer: pip` goes by it" % (name, requirements))
        found[name] = (found.get(name, "") + " " + value if value else "true").strip()
    # pip wants them of all requirements once one of them has some.
    if re.search(r"(?m)[ \t]--hash[ \t=]", text):
        found["require-hashes"] = "true"
    return found


def tell(found, environment):
    """The settings as arguments of uv; URLs, which may hold credentials, as variables."""
    arguments = []
    for name, value in found.items():
        way = SETTINGS[name]
        words = value.split()
        if way.endswith("?"):
            if value.strip().lower() in ("1", "true", "yes", "on", "y", "t"):
                arguments.append(way[:-1])
        elif way.startswith("-"):
            if name.endswith("-binary"):
                words = value.replace(",", " ").split()
            for word in words:
                arguments += [way, word]
        elif words:
            for variable in way.split():
                environment[variable] = ("," if name == "find-links" else " ").join(words)
    return arguments


def verified(program):
    if not os.path.exists(program):
        return False
    digest = hashlib.sha256()
    with open(program, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest() in PROGRAMS


def fetch(program, temporary):
    """Has pip install uv aside, and puts it there in one go: another build may be at it as well."""
    requirement = os.path.join(temporary, "requirement")
    with open(requirement, "w") as file:
        file.write("uv==" + VERSION + "".join(" --hash=sha256:" + wheel for wheel in WHEELS) + "\n")
    target = os.path.join(temporary, "uv")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-cache-dir", "--no-deps"]
    command += ["--only-binary", "uv", "--require-hashes", "--target", target, "-r", requirement]
    if subprocess.call(command) != 0:
        fail("uv %s could not be fetched; `installer: pip` does without it" % VERSION)
    fetched = os.path.join(target, "bin", "uv")
    if not verified(fetched):
        fail("this is not uv %s as it was released" % VERSION)
    os.replace(fetched, program)


def forget(site_packages):
    """Removes what uv tells itself of local files, the time of this build among it."""
    for directory in os.listdir(site_packages):
        note = os.path.join(site_packages, directory, "uv_cache.json")
        if not os.path.lexists(note):
            continue
        os.remove(note)
        record = os.path.join(site_packages, directory, "RECORD")
        with open(record, newline="") as file:
            lines = file.readlines()
        with open(record, "w", newline="") as file:
            file.writelines(line for line in lines if not line.startswith(directory + "/uv_cache.json,"))


def main():
    if sys.version_info < (3, 8):
        fail("uv needs Python 3.8 or later, and this is %d.%d: choose one by `python`, or `installer: pip`" % sys.version_info[:2])
    environment = dict(os.environ)
    found = settings(sys.argv[-1])
    arguments = tell(found, environment)
    cache = environment.get("UV_CACHE_DIR")
    if "--no-cache" in arguments or environment.get("UV_NO_CACHE"):
        cache = None
    if cache is None:
        environment.pop("UV_CACHE_DIR", None)
        arguments = [word for word in arguments if word != "--no-cache"] + ["--no-cache"]
    # Bytecode is compiled once the times are settled.
    environment.pop("UV_COMPILE_BYTECODE", None)
    if cache:
        # One in the image need not be there yet.
        os.makedirs(cache, exist_ok=True)
    temporary = tempfile.mkdtemp(dir=cache)
    try:
        environment["TMPDIR"] = temporary
        # A store may serve bases of several C libraries.
        system = sysconfig.get_config_var("HOST_GNU_TYPE") or sysconfig.get_platform()
        program = os.path.join(cache or temporary, "uv-%s-%s" % (VERSION, system))
        if not verified(program):
            fetch(program, temporary)
        configuration = os.path.join(temporary, "uv.toml")
        with open(configuration, "w") as file:
            file.write(CONFIGURATION)
        arguments += ["--config-file", configuration, "--no-progress", "--color", "never", "--link-mode", "copy"]
        # pip takes the best of all indexes, and not that of the first index which knows the name.
        arguments += ["--index-strategy", "unsafe-best-match", "--python", sys.executable]
        # Relative paths in requirements are relative to the workspace.
        status = subprocess.call([program] + sys.argv[2:] + arguments, env=environment, cwd=WORKSPACE)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if os.path.exists(os.path.join(sys.prefix, ".lock")):
        os.remove(os.path.join(sys.prefix, ".lock"))
    for name in {"purelib", "platlib"}:
        forget(sysconfig.get_path(name))
    sys.exit(status if status >= 0 else 128 - status)


main()
