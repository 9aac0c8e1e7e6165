"""A filter of SageMaker's batch transform, in the few forms of JSONPath that it has, in; what it picks of a JSON value out.

Several names give an object with those keys, several indices or a slice a list, as Jayway's JsonPath has it. A slice ends before
its second number. A name that is not there, an index out of range and what picks nothing are a ``Misfit``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmbatch.core.words import near, short, type_name

MAX_LENGTH = 63  # characters; the service takes no longer one

_NAME = re.compile(r"\.([^.\[\]*'\"\s]+)")
_BRACKET = re.compile(r"\[([^\[\]]*)\]")
_QUOTED = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)")\s*""")
_INDEX = re.compile(r"\s*(-?\d+)\s*")
_SLICE = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*")
_FORMS = "$, .name, .*, ['a','b'], [0,-1], [1:], [0,5:]"


class Misfit(ValueError):
    """What a filter looks for is not in a value; in words."""


@dataclass(frozen=True, slots=True)
class _All:
    """Every value of an object or a list."""


@dataclass(frozen=True, slots=True)
class _Names:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Places:
    places: tuple[int | slice, ...]

    @property
    def is_one(self) -> bool:
        return len(self.places) == 1 and isinstance(self.places[0], int)


_Step = _All | _Names | _Places


class JsonPath:
    """One filter. Raises ``ValueError`` for a text that is none, in words that follow it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps = _steps(text)

    @property
    def for_rows(self) -> bool:
        """Whether it can pick from a row of CSV, which has no names: one step of indices and slices at most."""
        return len(self._steps) <= 1 and all(isinstance(step, _Places) for step in self._steps)

    @property
    def has_slice_end(self) -> bool:
        """Whether it says where a slice ends, of which the service's guide and the library behind it say different things."""
        slices = (place for step in self._steps if isinstance(step, _Places) for place in step.places)
        return any(isinstance(place, slice) and place.stop is not None for place in slices)

    def pick(self, value: Any) -> Any:
        """Raises ``Misfit``."""
        return self._picked(value, self._steps) if self._steps else value

    def _picked(self, value: Any, steps: Sequence[_Step]) -> Any:
        for number, step in enumerate(steps):
            match step:
                case _Names():
                    value = self._named(value, step.names)
                case _Places() if step.is_one:
                    (value,) = self._placed(value, step.places)
                case _:
                    found = self._all(value) if isinstance(step, _All) else self._placed(value, step.places)
                    if not found:
                        raise Misfit(f"{self.text} picks nothing of it")
                    rest = steps[number + 1 :]
                    return [self._picked(each, rest) for each in found] if rest else found
        return value

    def _named(self, value: Any, names: tuple[str, ...]) -> Any:
        if not isinstance(value, dict):
            raise Misfit(
                f"{self.text} looks for {names[0]!r} in an object, and there is a value of type {type_name(value)}"
            )
        if missing := next((name for name in names if name not in value), None):
            keys = ", ".join(map(short, list(value)[:8])) or "none"
            raise Misfit(f"{self.text}: there is no {missing!r}{near(missing, map(str, value))}; the keys are {keys}")
        return value[names[0]] if len(names) == 1 else {name: value[name] for name in names}

    def _placed(self, value: Any, places: tuple[int | slice, ...]) -> list[Any]:
        if not isinstance(value, list):
            raise Misfit(f"{self.text} looks for items of a list, and there is a value of type {type_name(value)}")
        found: list[Any] = []
        for place in places:
            if isinstance(place, slice):
                found += value[place]
            elif -len(value) <= place < len(value):
                found.append(value[place])
            else:
                raise Misfit(f"{self.text}: there is no item {place}; there are {len(value)}")
        return found

    def _all(self, value: Any) -> list[Any]:
        if isinstance(value, dict):
            return list(value.values())
        if isinstance(value, list):
            return value
        raise Misfit(f"{self.text} looks into an object or a list, and there is a value of type {type_name(value)}")


def _steps(text: str) -> tuple[_Step, ...]:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"has {len(text)} characters, and a filter has at most {MAX_LENGTH}")
    if not text.startswith("$"):
        raise ValueError(f"does not begin with $, which stands for the whole record; the forms are {_FORMS}")
    steps: list[_Step] = []
    at = 1
    while at < len(text):
        if text.startswith(".*", at):
            steps.append(_All())
            at += 2
        elif name := _NAME.match(text, at):
            steps.append(_Names((name[1],)))
            at = name.end()
        elif bracket := _BRACKET.match(text, at):
            steps.append(_in_brackets(bracket[1]))
            at = bracket.end()
        else:
            raise ValueError(f"cannot be read from {text[at:]!r} on; the forms are {_FORMS}")
    return tuple(steps)


def _in_brackets(text: str) -> _Step:
    if text.strip() == "*":
        return _All()
    if "'" in text or '"' in text:
        return _Names(_names(text))
    places: list[int | slice] = []
    for part in text.split(","):
        if index := _INDEX.fullmatch(part):
            places.append(int(index[1]))
        elif span := _SLICE.fullmatch(part):
            places.append(slice(*(None if end is None else int(end) for end in span.groups())))
        else:
            raise ValueError(f"has {part.strip()!r} in brackets, which is no name in quotes, index or slice")
    return _Places(tuple(places))


def _names(text: str) -> tuple[str, ...]:
    names: list[str] = []
    at = 0
    while quoted := _QUOTED.match(text, at):
        names.append(quoted[1] if quoted[1] is not None else quoted[2])
        at = quoted.end()
        if at == len(text):
            return tuple(names)
        if text[at] != ",":
            break
        at += 1
    raise ValueError(f"has [{text}], which are no names in quotes with commas between them")
