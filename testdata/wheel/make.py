#!/usr/bin/env python3
"""Makes a tiny wheel without any packaging tool, so that tests can install a package without a network.

    usage: make.py FOLDER [--noise BYTES] [REQUIREMENT...]

Writes FOLDER/pib_hello-1.0-py3-none-any.whl: a module `pib_hello` with a greeting, and a command
`pib-hello` that prints it; on request with so many bytes that do not compress. The same input gives the same bytes. Standard library only.
"""

import base64
import hashlib
import random
import sys
import zipfile

folder, *requirements = sys.argv[1:]
noise = 0
if requirements[:1] == ["--noise"]:
    noise, requirements = int(requirements[1]), requirements[2:]
info = "pib_hello-1.0.dist-info"
files = {
    "pib_hello/__init__.py": 'GREETING = "hello"\n\n\ndef main():\n    print(GREETING)\n',
    f"{info}/METADATA": "Metadata-Version: 2.1\nName: pib-hello\nVersion: 1.0\n"
                        + "".join(f"Requires-Dist: {name}\n" for name in requirements),
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: testdata\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{info}/entry_points.txt": "[console_scripts]\npib-hello = pib_hello:main\n",
}
files = {name: text.encode() for name, text in files.items()}
if noise:
    files["pib_hello/noise"] = random.Random(0).randbytes(noise)
record = ""
for name, data in files.items():
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    record += f"{name},sha256={digest},{len(data)}\n"
files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
with zipfile.ZipFile(f"{folder}/pib_hello-1.0-py3-none-any.whl", "w") as wheel:
    for name, data in files.items():
        # The earliest time that a zip file can hold.
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        entry.external_attr = 0o644 << 16
        wheel.writestr(entry, data)
