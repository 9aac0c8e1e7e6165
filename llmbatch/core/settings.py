"""A class of settings in; what its fields say of themselves, besides their type, out: marks, in ``Annotated``.

A setting that is a path, matters to speed alone, or names a file whose content counts says so where it stands, so that no other
module lists settings by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel


class Counts(Enum):
    """What of a setting the results depend on, where that is not its value."""

    NOTHING = "nothing"  # it changes how fast answers come, and no record
    CONTENT = "content"  # where it names a file, what is in it, and not where it lies


def _always(_value: str, _base: Path) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class IsPath:
    """The text is a path, which is relative to the folder of the job file that it stands in.

    ``when`` says of a text, and that folder, whether it is one; ``each``: the setting is a list or a mapping, and this is
    of what is in it.
    """

    when: Callable[[str, Path], bool] = _always
    each: bool = False


class Marked(NamedTuple):
    """A setting with a mark: its place by the keys of a job file, and by the attributes of the classes.

    In both, ``*`` stands for every key of a mapping whose values are sections.
    """

    place: str
    attributes: tuple[str, ...]
    mark: Any

    def value_in(self, settings: Any) -> Any:
        """Its value; ``None`` where its section is not there, and of what is in a mapping."""
        for name in self.attributes:
            settings = getattr(settings, name, None)
        return settings


@functools.cache  # every start of a run asks, several times
def marked(settings: type[BaseModel], mark: Any) -> tuple[Marked, ...]:
    """The fields of settings and of their sections that have this mark, or one of this class."""
    return tuple(_marked(settings, mark))


def _marked(settings: type[BaseModel], mark: Any) -> Iterator[Marked]:
    for name, field in settings.model_fields.items():
        key = field.alias or name
        for each in field.metadata:
            if each is mark or (isinstance(mark, type) and isinstance(each, mark)):
                yield Marked(key, (name,), each)
        within = ("*",) if get_origin(field.annotation) is dict else ()
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                for inner in marked(kind, mark):
                    place = ".".join((key, *within, inner.place))
                    yield Marked(place, (name, *within, *inner.attributes), inner.mark)


def is_there(value: str, base: Path = Path()) -> bool:
    """Whether a text that need not be a path is that of a file or folder."""
    try:
        return value != "" and "\n" not in value and (base / Path(value).expanduser()).exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, a home that is not known
        return False


def is_named_as_path(value: str) -> bool:
    """Whether a text is written as only a path is."""
    return value.startswith(("./", "../", "/", "~"))
