#!/usr/bin/env python3
"""Measures this tool against Buildah, and Docker with the ancestor: same machine, same base, same packages, in turns.

    usage: bench.py TOOL EXPORT REGISTRY_PORT WORK [OPTION...]

Called by run.sh. Prints a table of medians and ratios in Markdown, and with --svg draws it; ends with 1 if a goal is
missed. Buildah has the same context and the Dockerfile below, on overlay storage with --layers. Cold means that there is
neither a store, nor a cache of layers, nor one of pip, and that the base is pulled, for all. Standard library only.
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
parser.add_argument("export")
parser.add_argument("port")
parser.add_argument("work", type=pathlib.Path)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--packages", nargs="*", default=["pyats[full]"])
parser.add_argument("--added", default="requests-toolbelt==1.0.0")
parser.add_argument("--files", type=int, default=250)
parser.add_argument("--ancestor", metavar="PROGRAM", help="the ancestor's pyats-image-build; DOCKER_HOST is its daemon")
parser.add_argument("--svg", type=pathlib.Path)
options = parser.parse_args()

work = options.work
registry = f"localhost:{options.port}"
base = f"{registry}/library/python:3.11-slim"
authorities = os.environ.get("SSL_CERT_FILE")


# As people write it for such an image. Where pip has to be told whom this machine trusts, it is: Buildah has no variables
# for a step alone.
DOCKERFILE = f"""
FROM {base}
ENV WORKSPACE=/workspace VIRTUAL_ENV=/venv
RUN python3 -m venv /venv
COPY image/workspace/installation/requirements.txt /workspace/installation/
RUN {'PIP_CERT=/run/ca.crt ' if authorities else ''}/venv/bin/pip install --no-cache-dir -r /workspace/installation/requirements.txt
COPY image /
WORKDIR /workspace
ENTRYPOINT ["/workspace/installation/entrypoint.sh"]
"""


class Run:
    """Seconds, and the largest resident set of any process, in MB."""

    def __init__(self, command):
        log = work / "log"
        began = time.monotonic()
        with log.open("wb") as out:
            child = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=work)
            _, status, usage = os.wait4(child.pid, 0)
        self.seconds = time.monotonic() - began
        self.memory = usage.ru_maxrss / 1000
        self.said = log.read_text(errors="replace")
        if status != 0:
            raise Failed(f"{command} failed:\n{self.said[-4000:]}")


class Failed(Exception):
    """A command did; no measurement is worth anything then."""


def remove(name):
    shutil.rmtree(work / name, ignore_errors=True)


CMDS = ["cmds:", "  pre: RUN echo before >/etc/before", "  post: RUN echo after >/etc/after"]


def write_build(packages, files=options.files, more=()):
    remove("jobs")
    for number in range(files):
        folder = work / "jobs" / f"{number // 100:04}"
        folder.mkdir(parents=True, exist_ok=True)
        # Of a hundred files of a test suite one is a job.
        name = "job" if number % 100 == 0 else "library"
        (folder / f"{name}{number}.py").write_text(f"# {name} {number}\n" + "x = 1\n" * 200)
    lines = ["tag: bench:1", "python: 3.11", "system-packages: []", "files: [jobs]", "packages:"]
    lines += [f"  - {package}" for package in packages]
    (work / "build.yaml").write_text("\n".join([*lines, *more]) + "\n")


def touch():
    touch.count += 1
    (work / "jobs/0000/job0.py").write_text(f"# touched {touch.count}\n")


touch.count = 0


class Ours:
    """This tool."""

    name = "pyats-image-build"

    def clean(self):
        remove("store")

    def stage(self):
        """It stages within its build."""

    def build(self, *more):
        return Run([options.tool, "build.yaml", "-q", "--base", base, "--store", "store", *more])

    def push(self, name):
        return Run([options.tool, "push", "-q", "--store", "store", "bench:1", f"{registry}/ours/{name}:1"])


class Buildah:
    """Debian's Buildah."""

    name = "Buildah"
    command = ["buildah", "--root", str(work / "buildah"), "--runroot", str(work / "buildah-run"),
               "--storage-driver", "overlay"]

    def clean(self):
        if (work / "buildah").exists():
            subprocess.run([*self.command, "rm", "--all"], check=False, capture_output=True)
            subprocess.run([*self.command, "rmi", "--all", "--force"], check=False, capture_output=True)
        remove("buildah")

    def stage(self):
        remove("context")
        Run([options.tool, "build.yaml", "-q", "--base", base, "--store", "plan", "--dry-run", "--keep-context",
             "--path", "context"])
        (work / "context/Dockerfile").write_text(DOCKERFILE)

    def build(self):
        shown = ["--volume", f"{authorities}:/run/ca.crt:ro"] if authorities else []
        return Run([*self.command, "build", "--quiet", "--layers", "--isolation", "chroot", "--format", "oci", *shown,
                    "--tls-verify=false", "--tag", "bench:1", "context"])

    def export(self):
        remove("theirs")
        return Run([*self.command, "push", "--quiet", "bench:1", f"oci:{work}/theirs:1"])

    def push(self, name):
        return Run([*self.command, "push", "--quiet", "--tls-verify=false", "bench:1", f"docker://{registry}/theirs/{name}:1"])

    def tree(self):
        """Where the image's files are."""
        container = subprocess.run([*self.command, "from", "bench:1"], check=True, capture_output=True, text=True).stdout.strip()
        return subprocess.run([*self.command, "mount", container], check=True, capture_output=True, text=True).stdout.strip()


class Docker:
    """The ancestor, which lets Docker's daemon build."""

    name = "ancestor"

    def clean(self):
        subprocess.run(["docker", "system", "prune", "--all", "--force", "--volumes"], check=True, capture_output=True)
        # The base by the name that it asks for, and what pip has to trust.
        folder = work / "docker-base"
        folder.mkdir(exist_ok=True)
        lines = [f"FROM {base}"]
        if authorities:
            shutil.copyfile(authorities, folder / "ca.crt")
            lines += ["COPY ca.crt /etc/ca.crt", "ENV PIP_CERT=/etc/ca.crt"]
        (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
        Run(["docker", "build", "--quiet", "--tag", "python:3.11-slim", folder])

    def build(self):
        # It knows none of the keys that are this tool's own.
        text = (work / "build.yaml").read_text()
        (work / "ancestor.yaml").write_text(text.replace("system-packages: []\n", ""))
        return Run([options.ancestor, "ancestor.yaml"])


ours, buildah, docker = Ours(), Buildah(), Docker()
measured = {}


def note(scenario, tool, run):
    measured.setdefault(scenario, {}).setdefault(tool.name, []).append(run)
    print(f"{scenario}: {tool.name}: {run.seconds:.3f} s, {run.memory:.0f} MB", file=sys.stderr, flush=True)
    return run


def directory_size(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def export(tool):
    """The same tree, which Buildah has unpacked: compressed, and written as blobs."""
    if tool is buildah:
        note("export", tool, buildah.export())
        return
    remove("ours")
    tree = buildah.tree()
    run = note("export", tool, Run([options.export, tree, "ours"]))
    subprocess.run([*buildah.command, "rm", "--all"], check=True, capture_output=True)
    run.said = run.said.strip()


def new_machine(number):
    """Another store, which takes what the first one made from a registry, and pushes."""
    cache = f"{registry}/cache/steps{number}"
    ours.build("--cache-repo", cache)
    remove("other")
    note("new machine", ours, Run([
        options.tool, "build.yaml", "-q", "--base", base, "--store", "other", "--cache-repo", cache, "--cache-mode", "read",
        "--push", "-t", f"{registry}/new/machine{number}:1",
    ]))
    remove("other")


for number in range(options.rounds):
    # Who is first takes turns.
    tools = [ours, buildah] if number % 2 == 0 else [buildah, ours]
    write_build(options.packages)
    for tool in tools:
        tool.clean()
        tool.stage()
        note("cold, pip", tool, tool.build())
    # These take no time, and so are measured more often.
    for _ in range(5):
        for tool in tools:
            note("unchanged", tool, tool.build())
    for _ in range(5):
        for tool in tools:
            touch()
            tool.stage()
            note("one test file touched", tool, tool.build())
    write_build(options.packages, more=CMDS)
    ours.build()
    for _ in range(5):
        touch()
        note("one test file touched, with cmds", ours, ours.build())
    write_build(options.packages)
    ours.build()
    for tool in tools:
        export(tool)
    sizes = (int(measured["export"][ours.name][-1].said), directory_size(work / "theirs"))
    for tool in tools:
        note("push", tool, tool.push(f"image{number}"))
    new_machine(number)
    write_build([*options.packages, options.added])
    for tool in tools:
        tool.stage()
        note("one package added, pip", tool, tool.build())
    write_build(options.packages)
    ours.clean()
    note("cold, uv", ours, ours.build("--installer", "uv"))
    write_build([*options.packages, options.added])
    note("one package added, uv", ours, ours.build("--installer", "uv"))
    ours.clean()
    write_build(options.packages)
    # Its builds take so long that one is enough.
    if options.ancestor and number == 0:
        try:
            docker.clean()
            for scenario in ("cold, pip", "unchanged", "one test file touched"):
                note(scenario, docker, docker.build())
                touch()
        except Failed as failed:
            # Its steps fetch tini from GitHub, for one.
            print(f"the ancestor cannot build here, and is left out: {failed}", file=sys.stderr, flush=True)
            options.ancestor = None
buildah.clean()

growth = {}
for files in (1_000, 100_000):
    write_build([], files)
    ours.clean()
    ours.build()
    touch()
    growth[files] = note(f"{files} files", ours, ours.build())
remove("jobs")


def median(scenario, tool):
    runs = measured[scenario].get(tool.name)
    return statistics.median(run.seconds for run in runs) if runs else None


# Name, what it is compared with, the largest ratio, and the most seconds.
GOALS = [
    ("cold, pip", "cold, pip", 0.6, None),
    ("cold, uv", "cold, pip", 0.3, None),
    ("unchanged", "unchanged", 0.15, 0.15),
    ("one test file touched", "one test file touched", 0.3, 0.4),
    ("one test file touched, with cmds", None, None, 0.5),
    ("one package added, pip", "one package added, pip", 0.3, None),
    ("one package added, uv", "one package added, pip", 0.3, None),
    ("new machine", None, None, 2.0),
    ("export", "export", 0.35, None),
    ("push", "push", None, None),
]
missed = []
rows = []
columns = ["scenario", "pyats-image-build", "Buildah", "ratio", "goal", "memory"] + ["ancestor"] * bool(options.ancestor)
lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
for scenario, other, most, seconds in GOALS:
    own = median(scenario, ours)
    theirs = other and median(other, buildah)
    ancestor = median(scenario, docker)
    ratio = theirs and own / theirs
    goal = " and ".join([f"{most}"] * bool(most) + [f"{seconds} s"] * bool(seconds))
    if (most and ratio > most) or (seconds and own > seconds):
        missed.append(scenario)
    memory = [max(run.memory for run in runs) for runs in measured[scenario].values()]
    cells = [scenario, f"{own:.2f} s", f"{theirs:.2f} s" if theirs else "", f"{ratio:.2f}" if ratio else "", goal,
             " / ".join(f"{most:.0f} MB" for most in memory)]
    if options.ancestor:
        cells.append(f"{ancestor:.0f} s" if ancestor else "")
    lines.append(f"| {' | '.join(cells)} |")
    rows.append((scenario, own, theirs))
print("\n".join(lines))
few, many = growth.values()
times, megabytes = many.seconds / few.seconds, many.memory - few.memory
print(f"\n100,000 files take {times:.0f} times as long as 1,000 ({many.seconds:.1f} and {few.seconds:.2f} s); the largest "
      f"resident sets differ by {megabytes:.1f} MB ({many.memory:.0f} and {few.memory:.0f} MB).")
print(f"The exported layers have {sizes[0] / 1e6:.1f} MB, Buildah's {sizes[1] / 1e6:.1f} MB.")
if times > 110 or megabytes > 10:
    missed.append("growth")
if sizes[0] > sizes[1]:
    missed.append("size of the export")

if options.svg:
    height = 40 * len(rows) + 40
    text = [f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" font-size="13">',
            '<rect width="100%" height="100%" fill="white"/>',
            '<text x="10" y="20" font-weight="bold">Time, as a share of Buildah\'s: shorter is better</text>']
    for number, (scenario, own, theirs) in enumerate(rows):
        y = 40 + 40 * number
        text.append(f'<text x="10" y="{y + 16}">{scenario}</text>')
        if theirs:
            share = min(own / theirs, 1.2)
            text.append(f'<rect x="200" y="{y}" width="400" height="10" fill="#bbbbbb"/>')
            text.append(f'<rect x="200" y="{y + 12}" width="{max(400 * share, 1):.0f}" height="10" fill="#1f77b4"/>')
            text.append(f'<text x="610" y="{y + 10}">{theirs:.2f} s</text>')
            text.append(f'<text x="610" y="{y + 24}">{own:.2f} s ({own / theirs:.3f})</text>')
        else:
            text.append(f'<text x="610" y="{y + 17}">{own:.2f} s</text>')
    text.append("</svg>\n")
    options.svg.write_text("\n".join(text))

if missed:
    sys.exit(f"missed: {', '.join(missed)}")
