"""A build file as a mapping becomes a text that the program reads: JSON, which is YAML."""

from __future__ import annotations

import datetime
import json
import os
import re
from typing import Any, Mapping

from .errors import BuildFileError

# Deeper than any build file.
_DEPTH = 50
# JSON leaves these as they are, and YAML allows none of them in a text.
_UNPRINTABLE = re.compile("[\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")


def document(config: Mapping[str, Any]) -> str:
    """The text of a build file. Raises `BuildFileError` for what no build file can say."""
    if not isinstance(config, Mapping):
        raise BuildFileError(f"a build file must be a mapping, not {_kind(config)}")
    version = config.get("python")
    # What YAML makes of 3.10 and 3.20. No other version reads like another number.
    if isinstance(version, float) and version in (3.1, 3.2):
        raise BuildFileError(
            f"`python` is the number {version}, which is what becomes of {version}0 without quotes",
            hint=f"write it as text: `python: '{version}0'`",
        )
    plain = {
        _key(name, "config"): _env(value) if name == "env" else _plain(value, str(name), 1)
        for name, value in config.items()
    }
    text = json.dumps(plain, ensure_ascii=False, indent=2)
    text = _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BuildFileError("a text of the build file is not Unicode", [str(error)]) from None
    return text + "\n"


def _env(value: Any) -> Any:
    """Variables of the environment are texts, so that truth values are what Python writes."""
    if not isinstance(value, Mapping):
        return _plain(value, "env", 1)
    return {
        _key(name, "env"): str(inner) if isinstance(inner, bool) else _plain(inner, f"env.{name}", 2)
        for name, inner in value.items()
    }


def _plain(value: Any, where: str, depth: int) -> Any:
    if depth > _DEPTH:
        raise BuildFileError(f"`{where}` is nested too deeply")
    if isinstance(value, Mapping):
        return {_key(name, where): _plain(inner, f"{where}.{name}", depth + 1) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{where}[{number}]", depth + 1) for number, inner in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, float):
        return str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    raise BuildFileError(f"`{where}` cannot be {_kind(value)}")


def _key(name: Any, where: str) -> str:
    if isinstance(name, (str, int, float)) and not isinstance(name, bool):
        return str(name)
    raise BuildFileError(f"a key of `{where}` cannot be {_kind(name)}", hint="put it in quotes")


def _kind(value: Any) -> str:
    return f"of the type `{type(value).__name__}`"
