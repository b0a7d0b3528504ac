"""Builds images: `build`, its variant for asyncio, and the class `ImageBuilder`."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from typing import Any, Callable, Literal, Mapping, Protocol, Sequence, Union, overload

from ._config import document
from ._tool import Event, Stop, run
from .errors import Error
from .image import Image, Path, familiar

logger = logging.getLogger(__name__)

Config = Union[Mapping[str, Any], Path]


class Stream(Protocol):
    """What log lines can be written to."""

    def write(self, text: str, /) -> Any:
        """Takes a text."""


class _Log:
    """Makes lines of what the program tells, and hands them on."""

    def __init__(self, logger: logging.Logger, streams: Sequence[Stream], progress: Callable[[Event], None] | None):
        self._logger = logger
        self._streams = streams
        self._progress = progress
        self._parts: dict[int, str] = {}
        self.built: Event | None = None

    def __call__(self, event: Event) -> None:
        kind = event["event"]
        if kind == "built":
            self.built = event
        elif kind == "started" and not event["nested"]:
            self._parts[event["id"]] = event["label"]
            self._line(logging.INFO, event["label"])
        elif kind == "finished" and event["id"] in self._parts:
            outcome = event["outcome"] or "done"
            self._line(logging.INFO, f"{self._parts.pop(event['id'])}: {outcome} in {event['elapsed']:.1f} s")
        elif kind == "output":
            self._logger.debug("%s", event["line"])
            # A step's line cannot be taken for one of the tool's.
            self.write(f"  | {event['line']}")
        elif kind == "warning":
            self._line(logging.WARNING, event["message"])
        elif kind == "note":
            self._line(logging.INFO, event["message"])
        if self._progress is not None:
            self._progress(event)

    def _line(self, level: int, text: str) -> None:
        self._logger.log(level, "%s", text)
        self.write(f"warning: {text}" if level == logging.WARNING else text)

    def write(self, text: str) -> None:
        """Writes lines to the streams."""
        for stream in self._streams:
            stream.write(text + "\n")
            flush = getattr(stream, "flush", None)
            if flush is not None:
                flush()


@overload
def build(
    config: Config = {},  # noqa: B006
    path: Path | None = None,
    tag: str | None = None,
    keep_context: bool = False,
    verbose: bool = False,
    stream: Stream | None = None,
    no_cache: bool = False,
    dry_run: Literal[False] = False,
    *,
    outputs: Sequence[str] = (),
    base: str | None = None,
    platform: str | None = None,
    runner: str | None = None,
    store: Path | None = None,
    arguments: Sequence[str] = (),
    progress: Callable[[Event], None] | None = None,
) -> Image: ...


@overload
def build(
    config: Config = {},  # noqa: B006
    path: Path | None = None,
    tag: str | None = None,
    keep_context: bool = False,
    verbose: bool = False,
    stream: Stream | None = None,
    no_cache: bool = False,
    dry_run: bool = False,
    *,
    outputs: Sequence[str] = (),
    base: str | None = None,
    platform: str | None = None,
    runner: str | None = None,
    store: Path | None = None,
    arguments: Sequence[str] = (),
    progress: Callable[[Event], None] | None = None,
) -> Image | None: ...


def build(
    config: Config = {},  # noqa: B006
    path: Path | None = None,
    tag: str | None = None,
    keep_context: bool = False,
    verbose: bool = False,
    stream: Stream | None = None,
    no_cache: bool = False,
    dry_run: bool = False,
    *,
    outputs: Sequence[str] = (),
    base: str | None = None,
    platform: str | None = None,
    runner: str | None = None,
    store: Path | None = None,
    arguments: Sequence[str] = (),
    progress: Callable[[Event], None] | None = None,
) -> Image | None:
    """Builds an image, and returns it; nothing after a dry run.

    ``config`` is the mapping that a build file holds, or the path of a build file. Relative paths in it are relative to the
    current directory.

    - ``path``: where the context is staged. A folder that exists is not cleaned.
    - ``tag``: takes precedence over the tag of ``config``.
    - ``keep_context``: the context is not removed after the build.
    - ``verbose``: writes the whole log to standard output.
    - ``stream``: gets the whole log, line by line as it happens.
    - ``no_cache``: fetches every source, and runs every step, anew.
    - ``dry_run``: stages the context and logs the plan, but builds nothing.
    - ``outputs``: what is written beside the store, such as ``["oci-dir:out"]``.
    - ``base``, ``platform``, ``runner``, ``store``: as the options of the command line.
    - ``arguments``: more options of the command line, as they stand there, such as ``["--offline"]``.
    - ``progress``: called with each event of the program, a dictionary with the key ``event``.

    The log also goes to the logger ``pyatsimagebuilder.builder``: the output of steps at the level ``DEBUG``.

    Raises `BuildFileError`, `OptionsError`, `SourceError`, `BaseError`, `StepError`, `SandboxError`, `PushError`,
    `StorageError`, all of them `Error`. Whatever is raised meanwhile, such as `KeyboardInterrupt`, ends the build, which
    cleans up before.
    """
    return _build(logger, Stop(), **locals())


async def build_async(config: Config = {}, **options: Any) -> Image | None:  # noqa: B006
    """`build` for asyncio: another thread waits for it. Cancelling it ends the build, which cleans up before."""
    stop = Stop()
    loop = asyncio.get_running_loop()
    built = loop.run_in_executor(None, functools.partial(_build, logger, stop, config, **options))
    try:
        return await asyncio.shield(built)
    except asyncio.CancelledError:
        stop.stop()
        await asyncio.wait([built])
        built.exception()
        raise


class ImageBuilder:
    """Builds an image from ``config``, and tells ``logger`` of it."""

    def __init__(self, config: Config, logger: logging.Logger = logger) -> None:
        self.config = config
        #: What was built last.
        self.image: Image | None = None
        self._logger = logger
        if isinstance(config, Mapping):
            document(config)

    def run(
        self, keep_context: bool = False, tag: str | None = None, no_cache: bool = True, dry_run: bool = False
    ) -> Image:
        """Builds the image; unlike `build`, it fetches and runs everything anew unless ``no_cache`` is false.

        The image that it returns after a dry run has no id.
        """
        image = _build(
            self._logger,
            Stop(),
            self.config,
            keep_context=keep_context,
            tag=tag,
            no_cache=no_cache,
            dry_run=dry_run,
        )
        self.image = image or Image._built(None, tag, None)
        return self.image


def _build(
    logger: logging.Logger,
    stop: Stop,
    config: Config,
    path: Path | None = None,
    tag: str | None = None,
    keep_context: bool = False,
    verbose: bool = False,
    stream: Stream | None = None,
    no_cache: bool = False,
    dry_run: bool = False,
    outputs: Sequence[str] = (),
    base: str | None = None,
    platform: str | None = None,
    runner: str | None = None,
    store: Path | None = None,
    arguments: Sequence[str] = (),
    progress: Callable[[Event], None] | None = None,
) -> Image | None:
    named = {"path": path, "tag": tag, "base": base, "platform": platform, "runner": runner, "store": store}
    command = [f"--{name}={os.fsdecode(value)}" for name, value in named.items() if value is not None]
    command += [f"--output={output}" for output in outputs]
    switches = {"keep-context": keep_context, "verbose": verbose, "no-cache": no_cache, "dry-run": dry_run}
    command += [f"--{name}" for name, is_set in switches.items() if is_set]
    command += arguments
    text = ""
    if isinstance(config, (str, os.PathLike)):
        command += ["--", os.fsdecode(config)]
    else:
        text = document(config)
        command.append("-")
    streams: list[Stream] = [] if stream is None else [stream]
    if verbose and stream is not sys.stdout:
        streams.append(sys.stdout)
    log = _Log(logger, streams, progress)
    try:
        said = run(command, text=text, tell=log, stop=stop)
    except Error as error:
        log.write(f"error: {error}")
        raise
    if log.built is None:
        log.write(said.rstrip())
        return None
    references = log.built["references"]
    image = Image._built(log.built["id"], familiar(references[0]) if references else None, store)
    parts = log.built["platform"]
    image.platform = "/".join(parts[part] for part in ("os", "architecture", "variant") if part in parts)
    return image
