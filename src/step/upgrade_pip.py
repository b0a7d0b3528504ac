# Replaces a pip that is too old for today's packages by the newest one that this Python supports.
import subprocess
import sys

import pip

if tuple(int(part) for part in pip.__version__.split(".")[:2]) < (21, 3):
    command = [sys.executable, "-m", "pip", "install", "--no-compile", "--no-cache-dir", "--upgrade"]
    subprocess.check_call(command + ["pip", "setuptools"])
