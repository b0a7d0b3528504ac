#!/usr/bin/env python3
"""Makes a tiny wheel without any packaging tool, so that tests can install a package without a network.

    usage: make.py FOLDER [REQUIREMENT...]

Writes FOLDER/pib_hello-1.0-py3-none-any.whl: a module `pib_hello` with a greeting, and a command
`pib-hello` that prints it. The same input gives the same bytes. Standard library only.
"""

import base64
import hashlib
import sys
import zipfile

folder, *requirements = sys.argv[1:]
info = "pib_hello-1.0.dist-info"
files = {
    "pib_hello/__init__.py": 'GREETING = "hello"\n\n\ndef main():\n    print(GREETING)\n',
    f"{info}/METADATA": "Metadata-Version: 2.1\nName: pib-hello\nVersion: 1.0\n"
                        + "".join(f"Requires-Dist: {name}\n" for name in requirements),
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: testdata\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{info}/entry_points.txt": "[console_scripts]\npib-hello = pib_hello:main\n",
}
record = ""
for name, text in files.items():
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    record += f"{name},sha256={digest},{len(text.encode())}\n"
files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
with zipfile.ZipFile(f"{folder}/pib_hello-1.0-py3-none-any.whl", "w") as wheel:
    for name, text in files.items():
        # The earliest time that a zip file can hold.
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        entry.external_attr = 0o644 << 16
        wheel.writestr(entry, text)
