"""Words for a client in; the same words without the places of this machine in them, out."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from llmbatch.server.settings import ServerSettings
from llmbatch.sources.places import expand, is_url

_INSTALLED = tuple(dict.fromkeys((sys.prefix, sys.base_prefix)))


class Places:
    """What messages may name of this machine, and what is said in its place: of a folder that stands for an address the address."""

    def __init__(self, settings: ServerSettings) -> None:
        said = {form: word for place, word in _places(settings) for form in _forms(place)}
        longest_first = sorted(said, key=len, reverse=True)
        self._said = said
        # at its beginning and its end a name ends: "/data" is not a part of "/x/data", nor of "/database"
        self._pattern = re.compile(rf"(?<![\w./~-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")

    def hidden(self, message: str) -> str:
        """A message without these places."""
        return self._pattern.sub(lambda found: self._said[found.group()], message)


def _places(settings: ServerSettings) -> Iterator[tuple[str, str]]:
    """The folders that a message could name, with what is said in the place of each; of those of one name the last counts."""
    for place in (*_INSTALLED, str(Path.cwd()), str(Path.home())):
        yield place, "(a folder of the server)"
    engine = settings.job.get("engine") or {}
    for name, place in {Path(settings.model).name: settings.model, **(engine.get("lora") or {})}.items():
        if Path(expand(place)).is_absolute():
            yield place, name
    for address, place in settings.assets.items():
        if not is_url(place):
            yield place, address.rstrip("/")
    yield str(settings.data), "(the server's data)"


def _forms(place: str) -> Iterator[str]:
    """How a folder may be written: as it was given, from the root on, and without the links in it. Never the root alone."""
    path = Path(expand(place))
    for form in (place.rstrip("/"), str(path), str(path.absolute()), str(path.resolve())):
        if "/" in form and form != "/":
            yield form


__all__ = ["Places"]
