"""Images of the local store."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Mapping, Sequence, Union

from ._tool import Event, run
from .errors import ImageNotFound

Path = Union[str, "os.PathLike[str]"]


class Image:
    """An image of the local store.

    ``image_id`` is the id that `build` gave it, a digest, or at least twelve digits of one. Raises `ImageNotFound` if there
    is no such image, or if ``tag`` is given and not one of its tags. ``store`` is the store's folder.
    """

    def __init__(self, image_id: str, tag: str | None = None, *, store: Path | None = None) -> None:
        #: Its id, as it was given; none for one that a dry run did not build.
        self.id: str | None = image_id
        #: What it was built for, if the build file says so.
        self.platform: str | None = None
        self._store = store
        self._tag: str | None = None
        tags = self.inspect()["RepoTags"]
        if tag:
            self._tag = _find(tag, tags, image_id)

    @classmethod
    def _built(cls, image_id: str | None, tag: str | None, store: Path | None) -> Image:
        """What `build` made just now, which need not be looked up."""
        image = cls.__new__(cls)
        image.id, image._tag, image._store, image.platform = image_id, tag, store, None
        return image

    def __repr__(self) -> str:
        return f"Image({self.id!r}, tag={self._tag!r})"

    @property
    def tag(self) -> str | None:
        """The main tag. Setting it adds a tag to the image; raises `ImageNotFound` if the image is gone."""
        return self._tag

    @tag.setter
    def tag(self, value: str) -> None:
        self._add_tag(value)
        self._tag = _find(value, self.inspect()["RepoTags"], self._known())

    def inspect(self) -> dict[str, Any]:
        """All about it, in the shape of ``docker image inspect``."""
        said = run([*self._options("inspect"), "--", self._known()])
        inspected: dict[str, Any] = json.loads(said)
        return inspected

    def push(
        self,
        remote_tag: str | None = None,
        credentials: Mapping[str, str] | None = None,
        *,
        arguments: Sequence[str] = (),
        progress: Callable[[Event], None] | None = None,
    ) -> str:
        """Pushes the image, and returns ``REFERENCE@DIGEST``.

        ``remote_tag`` is the name to push to, with the registry in it, and becomes a tag of the image; without it that is
        `tag`. ``credentials`` has a ``username`` and a ``password``, in place of those that the machine keeps. ``arguments``
        are options of ``pyats-image-build push``, such as ``["--insecure-registry", "host:5000"]``. Raises `PushError` if the
        registry does not take it, and `KeyError` if there is no tag to push to.
        """
        target = remote_tag or self._tag
        if not target:
            raise ImageNotFound(f"the image `{self.id}` has no tag", hint="give `remote_tag`, or set `tag` before")
        if remote_tag:
            self._add_tag(remote_tag)
        command = [*self._options("push"), *arguments, "--", self._known(), target]
        return run(command, environment=_login(credentials), tell=progress).strip()

    def _add_tag(self, tag: str) -> None:
        run([*self._options("tag"), "--", self._known(), tag])

    def _options(self, command: str) -> list[str]:
        return [command] + ([f"--store={os.fsdecode(self._store)}"] if self._store is not None else [])

    def _known(self) -> str:
        if self.id is None:
            raise ImageNotFound("there is no image yet", hint="build it without `dry_run`")
        return self.id


def familiar(reference: str) -> str:
    """A name as Docker shows it: without the parts that a name on Docker Hub has in any case."""
    for prefix in ("docker.io/library/", "docker.io/"):
        if reference.startswith(prefix):
            return reference[len(prefix) :]
    return reference


def _find(tag: str, tags: Sequence[str], image_id: str) -> str:
    for name in (familiar(tag), familiar(tag) + ":latest"):
        if name in tags:
            return name
    raise ImageNotFound(f"the image `{image_id}` has no tag `{tag}`", hint=f"it has {', '.join(tags) or 'none'}")


def _login(credentials: Mapping[str, str] | None) -> dict[str, str]:
    """Passwords stand on no command line, where others could read them."""
    if not credentials:
        return {}
    return {
        "PYATS_IMAGE_BUILD_USERNAME": credentials["username"],
        "PYATS_IMAGE_BUILD_PASSWORD": credentials["password"],
    }
