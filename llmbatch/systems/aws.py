"""What the job documents of AWS have in common: a document in, its settings out, checked; addresses in S3 in, files of ours out."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel, to_pascal

from llmbatch.core.errors import JobError, SourceError
from llmbatch.core.words import first_few, near, short
from llmbatch.sources.input_files import find_input
from llmbatch.sources.places import expand, is_url
from llmbatch.systems.base import Assets

_AT_A_TIME = 16  # objects of a list that are looked for
_SHOWN = 5
S = TypeVar("S", bound=BaseModel)


class Pascal(BaseModel):
    """A part of a document whose keys are written ``LikeThis``."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_pascal, protected_namespaces=())


class Camel(BaseModel):
    """A part of a document whose keys are written ``likeThis``."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, protected_namespaces=())


class Objects(NamedTuple):
    """Objects of a bucket as an input of ours. ``folder`` is what stands before the names that their output is called by."""

    path: str
    more: tuple[str, ...]
    folder: str


def checked(settings: type[S], document: Any, path: Path) -> S:
    """The settings that a document holds. Raises ``JobError`` that names the first key that is missing, wrong or not done here."""
    try:
        return settings.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            known = _keys(settings, problem["loc"][:-1])
            said = f"is not done here{near(str(problem['loc'][-1]), known)}: leave it out"
        elif problem["type"] == "missing":
            said = "is missing"
        else:
            said = f"{problem['msg'].removeprefix('Value error, ')} (got {short(problem.get('input'))})"
        raise JobError(f"{path}: {name}: {said}" if name else f"{path}: {said}") from None


def _keys(settings: Any, place: Sequence[str | int]) -> list[str]:
    """The keys that a part of a document may have."""
    for key in place:
        field = next((f for f in settings.model_fields.values() if f.alias == key), None)
        kinds = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        settings = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if settings is None:
            return []
    return [field.alias or name for name, field in settings.model_fields.items()]


def place_of(address: str, assets: Assets) -> str:
    """Where an address in a document lies here: a URL, or an absolute path."""
    place = assets.place(address)
    if is_url(place):
        return place
    return str(Path(expand(place)).absolute()) + ("/" if place.endswith("/") else "")


def model_of(name: str, key: str, assets: Assets) -> tuple[str, list[str]]:
    """What a model of a document is called here, and what is to be said of that."""
    if name in assets.places:
        return assets.model(name), [f"{key} {name}: {assets.model(name)}"]
    return name, [f"{key} {name}: is what --model says, or --asset {name}=MODEL; else it is looked for by this name"]


def starting_with(address: str, assets: Assets) -> Objects:
    """All objects whose keys start with that of an address, which need not end in a slash. Raises ``JobError``."""
    place = place_of(address, assets)
    folder = place[: place.rfind("/") + 1]
    if place == folder:
        return Objects(f"{glob.escape(place)}**", (), folder)
    patterns = [f"{glob.escape(place)}*", f"{glob.escape(place)}*/**"]
    found = [pattern for pattern in patterns if _is_there(pattern)]
    if not found:
        raise JobError(f"{address}: no object's key starts with that{_looked_in(address, place)}")
    return Objects(found[0], tuple(found[1:]), folder)


def below(address: str, assets: Assets, pattern: str) -> Objects:
    """The object at an address whose name the pattern fits, or else all those below it."""
    place = place_of(address, assets)
    name = place.rpartition("/")[2]
    if name and fnmatchcase(name, pattern):
        return Objects(_literally(place), (), place[: len(place) - len(name)])
    folder = f"{place.rstrip('/')}/"
    return Objects(f"{glob.escape(folder)}**/{pattern}", (), folder)


def listed(addresses: Sequence[str], folder: str, assets: Assets, where: str) -> Objects:
    """Objects by their addresses. Raises ``JobError`` for those that are not there; ``where`` they are named is for the message."""
    places = [_literally(place_of(address, assets)) for address in addresses]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        there = list(pool.map(_is_there, places))
    if missing := [address for address, is_there in zip(addresses, there, strict=True) if not is_there]:
        raise JobError(f"{where} names objects that are not there: {first_few(missing, _SHOWN)}")
    return Objects(places[0], tuple(places[1:]), place_of(folder, assets))


def _is_there(pattern: str) -> bool:
    try:
        find_input(pattern, {})
    except SourceError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise JobError(str(error)) from error
        return False
    return True


def _literally(place: str) -> str:
    return glob.escape(place) if glob.has_magic(place) else place


def _looked_in(address: str, place: str) -> str:
    return "" if place == address else f"; looked for {place}"


def given(document: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Those of the keys, with dots in them where they are of a part, that a document has."""

    def is_given(key: str) -> bool:
        value: Any = document
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value is not None

    return [key for key in keys if is_given(key)]
