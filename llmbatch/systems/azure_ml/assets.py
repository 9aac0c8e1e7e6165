"""A reference to what only a workspace knows in, such as ``azureml:demo@latest``; the place that the user gave for its name out.

``--asset NAME=PLACE`` says where a name lies; ``--asset NAME:VERSION=PLACE`` where that version of it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from llmbatch.core.errors import JobError
from llmbatch.core.settings import is_named_as_path, is_there
from llmbatch.core.words import near
from llmbatch.sources.places import is_url

_REFERENCE = re.compile(r"azureml:(?!//)(?P<name>[^@:/]+)(?:@(?P<label>[^@:/]+)|:(?P<version>[^@:/]+))?")
_IN_CLOUD = ("azureml://", "wasbs://", "runs:/")


def is_reference(text: str) -> bool:
    return text.startswith("azureml:") and not text.startswith("azureml://")


def place_of(text: str, assets: Mapping[str, str], base: Path, where: str) -> str:
    """The absolute path, or the URL, that a text of a document stands for; it is relative to ``base``.

    Raises ``JobError`` for a reference whose place nobody gave; ``where`` is what the message calls the text.
    """
    if not is_reference(text):
        for start in sorted(assets, key=len, reverse=True):  # the longest beginning that fits
            if is_url(start) and (text == start or text.startswith(f"{start.rstrip('/')}/")):
                return _here(assets[start].rstrip("/") + text.removeprefix(start.rstrip("/")))
        if text.startswith(_IN_CLOUD):
            raise JobError(
                f"{where}: {text} can only be reached within Azure ML: say where it lies, --asset {text}=FOLDER"
            )
        return _absolute(text, base)
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise JobError(
            f"{where}: {text} is no reference to an asset: it has the form azureml:NAME@latest or azureml:NAME:VERSION"
        )
    name, version = found["name"], found["version"]
    for known in (text, f"{name}:{version}", name):
        if known in assets:
            return _here(assets[known])
    hint = near(name, assets)
    raise JobError(f"{where}: {text} is a name that a workspace knows: say where it lies, --asset {name}=PLACE{hint}")


def _here(place: str) -> str:
    """What the user gave, who may also mean a model that has a name and no path, such as ``demo``."""
    return _absolute(place, Path()) if is_named_as_path(place) or is_there(place) else place


def _absolute(text: str, base: Path) -> str:
    return text if is_url(text) else str((base / Path(text).expanduser()).absolute())
