"""Runs the program that does all the work, and hands on what it tells.

The program gets the build file and gives its answer through files in memory, and tells of its progress as JSON lines
through a pipe. It stops, and cleans up, when that pipe has no reader any more: so it does not outlive the interpreter,
however that ends.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import threading
from typing import IO, Any, Callable, Dict, Mapping, Sequence

from .errors import Error, Interrupted, OptionsError, from_event

PROGRAM = "pyats-image-build"
DISTRIBUTION = "pyats-image-builder"

Event = Dict[str, Any]


def program() -> str:
    """The program that came with this package; the variable ``PYATS_IMAGE_BUILD`` names another one."""
    named = os.environ.get("PYATS_IMAGE_BUILD")
    if named:
        return named
    candidates: list[pathlib.Path] = []
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
        # Completion scripts have the same name.
        found = [file for file in files if file.name == PROGRAM and file.parent.name == "bin"]
        candidates += [pathlib.Path(str(file.locate())) for file in found]
    except importlib.metadata.PackageNotFoundError:
        pass
    # Where `pip install --target` puts it.
    candidates.append(pathlib.Path(__file__).parent.parent / "bin" / PROGRAM)
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate.resolve())
    elsewhere = shutil.which(PROGRAM)
    if elsewhere:
        return elsewhere
    raise Error(f"the program `{PROGRAM}` cannot be found", hint=f"install the package `{DISTRIBUTION}` anew")


class Stop:
    """The wish of another thread that a run stops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = False
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Lets the run clean up and raise `Interrupted`."""
        with self._lock:
            if not self._wanted and self._process is not None:
                self._process.terminate()
            self._wanted = True

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._process = process
            if self._wanted:
                process.terminate()


def run(
    arguments: Sequence[str],
    *,
    text: str = "",
    environment: Mapping[str, str] | None = None,
    tell: Callable[[Event], None] | None = None,
    stop: Stop | None = None,
) -> str:
    """Runs the program with ``text`` as its standard input, and returns what it printed.

    Raises the error that the program tells of. Whatever is raised meanwhile, by ``tell`` or a signal, ends the program
    first.
    """
    with _memory(text) as stdin, _memory() as stdout:
        process = subprocess.Popen(
            [program(), "--progress=json", *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment} if environment else None,
            # Ctrl-C is for the interpreter, which says what becomes of the program.
            start_new_session=True,
        )
        assert process.stderr is not None
        failure: Event | None = None
        others: list[str] = []
        with process.stderr as events:
            try:
                if stop is not None:
                    stop._watch(process)
                for line in events:
                    event = _event(line)
                    if event is None:
                        others.append(line.decode(errors="replace").rstrip())
                    elif event["event"] == "error":
                        failure = event
                    elif tell is not None:
                        tell(event)
                status = process.wait()
            except BaseException:
                _end(process, events)
                raise
        if status != 0:
            raise _error(status, failure, others)
        stdout.seek(0)
        return stdout.read().decode()


def _memory(text: str = "") -> IO[bytes]:
    file = os.fdopen(os.memfd_create(PROGRAM), "w+b")
    file.write(text.encode())
    file.seek(0)
    return file


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _end(process: subprocess.Popen[bytes], events: IO[bytes]) -> None:
    process.terminate()
    try:
        # It writes until it has cleaned up.
        events.read()
        process.wait()
    except BaseException:
        # Somebody is out of patience. What is left goes when the next build starts.
        process.kill()
        process.wait()
        raise


def _error(status: int, failure: Event | None, others: Sequence[str]) -> Error:
    if failure is not None:
        return from_event(failure)
    text = "\n".join(line for line in others if line)
    prefix = "error: "
    text = text[len(prefix) :] if text.startswith(prefix) else text
    if status == 2:
        return OptionsError(text)
    if status < 0:
        return Interrupted(f"`{PROGRAM}` was ended by signal {-status}", [text] if text else [])
    return Error(text or f"`{PROGRAM}` ended with status {status}")
