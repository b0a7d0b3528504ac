# Installs the pip that this Python brings, as `venv` would, but without bytecode, which is compiled afterwards
# on all cores; then replaces one that is too old for today's packages by the newest that this Python supports.
import ensurepip
import importlib
import subprocess
import sys

run_pip = ensurepip._run_pip


def without_bytecode(arguments, *rest):
    code = run_pip(arguments[:1] + ["--no-compile"] + arguments[1:], *rest)
    if code:
        sys.exit(code)
    return code


ensurepip._run_pip = without_bytecode
ensurepip.bootstrap(upgrade=True, default_pip=True)
importlib.invalidate_caches()

import pip

if tuple(int(part) for part in pip.__version__.split(".")[:2]) < (21, 3):
    command = [sys.executable, "-m", "pip", "install", "--no-compile", "--no-cache-dir", "--upgrade"]
    subprocess.check_call(command + ["pip", "setuptools"])
