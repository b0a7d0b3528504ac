"""Builds container images for pyATS jobs: no daemon, no root.

    from pyatsimagebuilder import build

    image = build(config={"tag": "mypyatsimage:latest", "packages": ["pyats[full]"]})
    image.push("registry.example.com/team/mypyatsimage:latest")

The work is done by the program ``pyats-image-build``, which is in this package and on the path.
"""

from __future__ import annotations

import importlib.metadata

from .builder import ImageBuilder, build, build_async
from .errors import (
    BaseError,
    BuildFileError,
    Error,
    ImageNotFound,
    Interrupted,
    OptionsError,
    PushError,
    SandboxError,
    SourceError,
    StepError,
    StorageError,
)
from .image import Image

__all__ = [
    "BaseError",
    "BuildFileError",
    "Error",
    "Image",
    "ImageBuilder",
    "ImageNotFound",
    "Interrupted",
    "OptionsError",
    "PushError",
    "SandboxError",
    "SourceError",
    "StepError",
    "StorageError",
    "build",
    "build_async",
]

__version__ = importlib.metadata.version("pyats-image-builder")
