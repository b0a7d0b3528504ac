"""What can go wrong, by kind.

Each error says what the program said: a message, its causes, a hint what to do about it, and the last lines of a step
that failed.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence


class Error(Exception):
    """A build, or another command, failed. The base of all errors of this package."""

    #: The word for it in the program's events.
    kind = "error"

    def __init__(
        self,
        message: str,
        causes: Sequence[str] = (),
        hint: str | None = None,
        tail: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        #: What failed.
        self.message = message
        #: Why, from the outermost to the innermost cause.
        self.causes: list[str] = list(causes)
        #: What to do about it.
        self.hint = hint
        #: The last lines that a failed step printed.
        self.tail: list[str] = list(tail)

    def __str__(self) -> str:
        lines = [f"  | {line}" for line in self.tail]
        lines += [self.message] + [f"  caused by: {cause}" for cause in self.causes]
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)

    def __reduce__(self) -> Any:
        return type(self), (self.message, self.causes, self.hint, self.tail)


class BuildFileError(Error, ValueError):
    """The build file, or the mapping that stands for it, says what it may not."""

    kind = "build-file"


class OptionsError(Error, ValueError):
    """An argument, or a variable of the environment, is wrong."""

    kind = "options"


class ImageNotFound(Error, KeyError):
    """There is no such image, or it does not have that tag."""

    kind = "no-image"


class SourceError(Error):
    """Files or repositories could not be had."""

    kind = "sources"


class BaseError(Error):
    """The base could not be had."""

    kind = "base"


class StepError(Error):
    """A command in the image failed; ``tail`` has its last lines."""

    kind = "step"


class SandboxError(Error):
    """This machine allows no way to run steps; ``pyats-image-build doctor`` says more."""

    kind = "sandbox"


class PushError(Error):
    """A registry did not take the image, or the login."""

    kind = "push"


class StorageError(Error):
    """The store, a layer or an output could not be written or read."""

    kind = "storage"


class Interrupted(Error):
    """The program was told to stop, and has cleaned up."""

    kind = "interrupted"


def _subclasses() -> dict[str, type[Error]]:
    return {subclass.kind: subclass for subclass in Error.__subclasses__()}


def from_event(event: Mapping[str, Any]) -> Error:
    """The error that the program told of."""
    kind = _subclasses().get(event.get("kind", ""), Error)
    return kind(event["message"], event["causes"], event["hint"], event["tail"])
