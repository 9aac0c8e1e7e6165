"""What is said of a variable in; the value that a row with a number draws for it out, the same in every process, on every machine.

A row's value depends on the seed, the variable's name and the row's number alone: a variable that is added or taken away changes no
other, and a run may begin at any row.
"""

from __future__ import annotations

import json
import math
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping
from decimal import Decimal
from hashlib import blake2b, sha256
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmbatch.core.errors import SourceError
from llmbatch.core.settings import Counts, IsPath
from llmbatch.core.words import excerpt

_BITS = 64
_MOST_STEPS = 1 << 53

Drawn = Callable[[int], Any]
"""A number from 0 up to 2**64, drawn evenly -> a value."""


class DrawSettings(BaseModel):
    """The values of one variable: one of a list, a number in a range, or an item of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    of: tuple[Any, ...] | None = Field(None, min_length=1, description="one of these, each as likely")
    weights: tuple[float, ...] | None = Field(None, description="how likely each of them is against the others")
    from_: int | float | None = Field(None, alias="from", description="the least number")
    to: int | float | None = Field(None, description="the greatest number; it can be drawn too")
    step: int | float | None = Field(
        None, gt=0, description="between two neighbours; by default 1 for whole numbers, and any number else"
    )
    # what is in it counts: it is in the input's fingerprint
    items_of: Annotated[Path | None, IsPath(), Counts.NOTHING] = Field(
        None, description="a file with an item a line: JSON in .jsonl, else text"
    )
    in_turn: bool = Field(
        False, description="not by chance: row by row the next one; of several such variables, every combination"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> DrawSettings:
        ranged = self.from_ is not None or self.to is not None
        if (self.of is not None) + ranged + (self.items_of is not None) != 1:
            raise ValueError("is a list (or of: a list), a range (from, to), or the items of a file (items_of)")
        if ranged:
            self._check_range()
        elif self.step is not None:
            raise ValueError("step is for a range (from, to)")
        if self.weights is not None:
            if self.of is None or len(self.weights) != len(self.of):
                raise ValueError("weights are one for each value of the list")
            if not all(math.isfinite(weight) and weight >= 0 for weight in self.weights) or not sum(self.weights):
                raise ValueError("weights are numbers from 0 on, and not all 0")
            if self.in_turn:
                raise ValueError("what comes in turn has no weights")
        return self

    def _check_range(self) -> None:
        if self.from_ is None or self.to is None:
            raise ValueError("a range needs both from and to")
        if not (math.isfinite(self.from_) and math.isfinite(self.to)) or self.from_ > self.to:
            raise ValueError(
                f"a range goes from the least number to the greatest, not from {self.from_:g} to {self.to:g}"
            )
        if self.numbers is None:
            if self.in_turn:
                raise ValueError("a range of any numbers cannot come in turn: give it a step")
        elif self.numbers > _MOST_STEPS:
            raise ValueError("the range has too many steps")

    @property
    def numbers(self) -> int | None:
        """How many numbers a range has; ``None`` for one of any numbers."""
        if self.from_ is None or self.to is None:
            return None
        step = self.step
        if step is None:
            if not isinstance(self.from_, int) or not isinstance(self.to, int):
                return None
            step = 1
        return int((_exact(self.to) - _exact(self.from_)) / _exact(step)) + 1


def as_settings(value: Any) -> Any:
    """A list is short for ``{of: [...]}``, any other value that is no mapping for a list of one."""
    if isinstance(value, Mapping):
        return value
    return {"of": value if isinstance(value, list | tuple) else [value]}


class Variable(NamedTuple):
    """A variable, ready to be drawn. ``choices`` is how many values it has, and ``turns`` says that they come one after another."""

    name: str
    value: Drawn
    choices: int
    turns: bool
    digest: str | None  # of the file that its items are from


def make_variable(name: str, settings: DrawSettings) -> Variable:
    """Raises ``SourceError`` for a file that cannot be read, or has no items."""
    if settings.of is not None:
        values = settings.of
        if settings.weights is None:
            return _one_of(name, len(values), lambda place: values[place], settings.in_turn)
        return Variable(name, _weighted(values, settings.weights), len(values), False, None)
    if settings.items_of is not None:
        items = _Items(settings.items_of, f"input.draw.{name}.items_of")
        return _one_of(name, len(items), items.item, settings.in_turn, items.digest)
    low, high = settings.from_ or 0, settings.to or 0
    if (numbers := settings.numbers) is None:
        return Variable(name, lambda drawn: low + (high - low) * (drawn / (1 << _BITS)), 0, False, None)
    first, step = _exact(low), _exact(1 if settings.step is None else settings.step)
    whole = all(isinstance(number, int) for number in (low, 1 if settings.step is None else settings.step))

    def number(place: int) -> int | float:
        exact = first + place * step
        return int(exact) if whole else float(exact)

    return _one_of(name, numbers, number, settings.in_turn)


def draw(seed: int, row: int, name: str) -> int:
    """The number that a row draws for a variable."""
    return int.from_bytes(blake2b(f"{seed}:{row}:{name}".encode(), digest_size=_BITS // 8).digest(), "big")


def _one_of(name: str, count: int, value: Callable[[int], Any], in_turn: bool, digest: str | None = None) -> Variable:
    if in_turn:
        return Variable(name, value, count, True, digest)
    return Variable(name, lambda drawn: value(drawn * count >> _BITS), count, False, digest)


def _weighted(values: tuple[Any, ...], weights: tuple[float, ...]) -> Drawn:
    sums = list(accumulate(weights))

    def value(drawn: int) -> Any:
        return values[min(bisect_right(sums, drawn / (1 << _BITS) * sums[-1]), last)]

    last = max(place for place, weight in enumerate(weights) if weight)
    return value


def _exact(number: float) -> Decimal:
    """As it is written: 0.1 is a tenth, so that 0.1 and two steps of it are 0.3."""
    return Decimal(str(number))


class _Items:
    """A file with an item a line; where its lines begin is in memory, and not what is on them."""

    def __init__(self, path: Path, setting: str) -> None:
        self._path = path.expanduser()
        self._json = self._path.suffix in (".jsonl", ".ndjson")
        self._setting = setting
        self._starts, self._lengths = array("Q"), array("L")
        digest = sha256()
        offset = 0
        try:
            with self._path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    digest.update(line)
                    if line.strip():
                        self._parsed(line, number)
                        self._starts.append(offset)
                        self._lengths.append(len(line))
                    offset += len(line)
            self._file = self._path.open("rb", buffering=0)
        except OSError as error:
            raise SourceError(f"{setting}: {self._path}: cannot be read: {error.strerror or error}") from error
        if not self._starts:
            raise SourceError(f"{setting}: {self._path}: there is no item in it (blank lines are none)")
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._starts)

    def item(self, place: int) -> Any:
        # several threads may read
        return self._parsed(os.pread(self._file.fileno(), self._lengths[place], self._starts[place]), None)

    def _parsed(self, line: bytes, number: int | None) -> Any:
        try:
            text = line.decode("utf-8-sig" if number in (1, None) else "utf-8").strip()
            return json.loads(text) if self._json else text
        except ValueError as error:
            where = self._path if number is None else f"{self._path}:{number}"
            kind = "JSON" if self._json else "UTF-8"
            raise SourceError(f"{self._setting}: {where}: is not {kind}: {error}; saw: {excerpt(line)}") from error


__all__ = ["DrawSettings", "Variable", "as_settings", "draw", "make_variable"]
