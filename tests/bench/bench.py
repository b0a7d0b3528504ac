#!/usr/bin/env python3
"""Measures this tool against Buildah: same machine, same base, same packages, in turns.

    usage: bench.py TOOL REGISTRY_PORT WORK [--rounds N] [--packages REQUIREMENT...] [--files N] [--svg FILE]

Called by run.sh. Prints a table of medians and ratios in Markdown, and with --svg draws it. Buildah builds the context
and the Dockerfile that the tool generates, on overlay storage with --layers. Cold means that there is neither a store,
nor a cache of layers, nor one of pip, and that the base is pulled, for both. Standard library only.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("tool")
parser.add_argument("port")
parser.add_argument("work", type=pathlib.Path)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--packages", nargs="*", default=["pyats[full]"])
parser.add_argument("--added", default="requests-toolbelt==1.0.0")
parser.add_argument("--files", type=int, default=250)
parser.add_argument("--growth", action="store_true", help="also 1,000 and 100,000 files")
parser.add_argument("--svg", type=pathlib.Path)
options = parser.parse_args()

work = options.work
registry = f"localhost:{options.port}"
base = f"{registry}/library/python:3.11-slim"


class Run:
    """Seconds, and the largest resident set of any process, in MB."""

    def __init__(self, command, **keywords):
        log = work / "log"
        began = time.monotonic()
        with log.open("wb") as out:
            child = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=work, **keywords)
            _, status, usage = os.wait4(child.pid, 0)
        self.seconds = time.monotonic() - began
        self.memory = usage.ru_maxrss / 1000
        if status != 0:
            sys.exit(f"{command} failed:\n{log.read_text(errors='replace')[-4000:]}")


def write_build(packages, files=options.files):
    jobs = work / "jobs"
    shutil.rmtree(jobs, ignore_errors=True)
    for number in range(files):
        folder = jobs / f"{number // 100:04}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"job{number}.py").write_text(f"# job {number}\n" + "x = 1\n" * 200)
    lines = ["tag: bench:1", "python: 3.11", "system-packages: []", "files: [jobs]", "packages:"]
    lines += [f"  - {package}" for package in packages]
    (work / "build.yaml").write_text("\n".join(lines) + "\n")


def touch():
    touch.count += 1
    (work / "jobs/0000/job0.py").write_text(f"# touched {touch.count}\n")


touch.count = 0


class Ours:
    """This tool."""

    name = "pyats-image-build"

    def clean(self):
        shutil.rmtree(work / "store", ignore_errors=True)

    def stage(self):
        """It stages within its build."""

    def build(self):
        return Run([options.tool, "build.yaml", "-q", "--base", base, "--store", "store"])

    def export(self):
        shutil.rmtree(work / "ours", ignore_errors=True)
        return Run([options.tool, "build.yaml", "-q", "--base", base, "--store", "store", "-o", "oci-dir:ours"])

    def push(self, name):
        return Run([options.tool, "push", "-q", "--store", "store", "bench:1", f"{registry}/ours/{name}:1"])


class Buildah:
    """Debian's Buildah."""

    name = "Buildah"
    command = ["buildah", "--root", str(work / "buildah"), "--runroot", str(work / "buildah-run"),
               "--storage-driver", "overlay"]

    def clean(self):
        if (work / "buildah").exists():
            subprocess.run([*self.command, "rmi", "--all", "--force"], check=False, capture_output=True)
        shutil.rmtree(work / "buildah", ignore_errors=True)

    def stage(self):
        shutil.rmtree(work / "context", ignore_errors=True)
        Run([options.tool, "build.yaml", "-q", "--base", base, "--store", "plan", "--dry-run", "--keep-context",
             "--path", "context"])

    def build(self):
        return Run([*self.command, "build", "--quiet", "--layers", "--tls-verify=false", "--tag", "bench:1", "context"])

    def export(self):
        shutil.rmtree(work / "theirs", ignore_errors=True)
        return Run([*self.command, "push", "--quiet", "bench:1", f"oci:{work}/theirs:1"])

    def push(self, name):
        return Run([*self.command, "push", "--quiet", "--tls-verify=false", "bench:1", f"docker://{registry}/theirs/{name}:1"])


tools = [Ours(), Buildah()]
measured = {}


def measure(scenario, number, prepare, run):
    """Both, in turns."""
    for tool in tools if number % 2 == 0 else reversed(tools):
        prepare(tool)
        result = run(tool)
        measured.setdefault(scenario, {}).setdefault(tool.name, []).append(result)
        print(f"{scenario}: {tool.name}: {result.seconds:.2f} s, {result.memory:.0f} MB", file=sys.stderr)


for number in range(options.rounds):
    write_build(options.packages)
    measure("cold", number, lambda tool: (tool.clean(), tool.stage()), lambda tool: tool.build())
    measure("unchanged", number, lambda tool: None, lambda tool: tool.build())
    measure("one test file touched", number, lambda tool: (touch(), tool.stage()), lambda tool: tool.build())
    measure("export to oci-dir", number, lambda tool: None, lambda tool: tool.export())
    measure("push", number, lambda tool: None, lambda tool: tool.push(f"image{number}"))
    write_build([*options.packages, options.added])
    measure("one package added", number, lambda tool: tool.stage(), lambda tool: tool.build())

lines = ["| scenario | pyats-image-build | Buildah | ratio |", "|---|---|---|---|"]
rows = []
for scenario, results in measured.items():
    ours, theirs = (statistics.median(run.seconds for run in results[tool.name]) for tool in tools)
    rows.append((scenario, ours, theirs))
    lines.append(f"| {scenario} | {ours:.2f} s | {theirs:.2f} s | {ours / theirs:.2f} |")
ours, theirs = (max(run.memory for results in measured.values() for run in results[tool.name]) for tool in tools)
lines.append(f"| largest process | {ours:.0f} MB | {theirs:.0f} MB | {ours / theirs:.2f} |")
print("\n".join(lines))

if options.growth:
    sizes = {}
    for files in (1_000, 100_000):
        write_build([], files)
        tools[0].clean()
        tools[0].build()
        touch()
        sizes[files] = tools[0].build()
    few, many = sizes.values()
    print(f"\n100,000 files take {many.seconds / few.seconds:.0f} times as long as 1,000; the largest resident sets are "
          f"{few.memory:.0f} and {many.memory:.0f} MB.")

if options.svg:
    height = 40 * len(rows) + 40
    text = [f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" font-family="sans-serif" font-size="13">',
            '<text x="10" y="20" font-weight="bold">time, as a share of Buildah\'s (shorter is better)</text>']
    for number, (scenario, ours, theirs) in enumerate(rows):
        y = 40 + 40 * number
        share = min(ours / theirs, 1.2)
        text.append(f'<text x="10" y="{y + 16}">{scenario}</text>')
        text.append(f'<rect x="200" y="{y}" width="400" height="10" fill="#bbbbbb"/>')
        text.append(f'<rect x="200" y="{y + 12}" width="{max(400 * share, 1):.0f}" height="10" fill="#1f77b4"/>')
        text.append(f'<text x="610" y="{y + 10}">{theirs:.2f} s</text>')
        text.append(f'<text x="610" y="{y + 24}">{ours:.2f} s ({ours / theirs:.2f})</text>')
    text.append("</svg>\n")
    options.svg.write_text("\n".join(text))
