"""Examples in, one by one; which of them repeat an earlier one out. The first stays, and each other knows which row it repeats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llmbatch.publishing.base import MISSING, Example, PublishSettings, value_at
from llmbatch.publishing.keys import DIGEST, Keys, digest, one_by_one, runs_of
from llmbatch.publishing.similar import Similar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Repeats(NamedTuple):
    """By number of the example: the one that stays and that it repeats, or -1; and whether it is only near to it.

    ``links`` are pairs of examples that both stay and repeat one another: (the later, the earlier).
    """

    of: NDArray[np.int64]
    near: NDArray[np.bool_]
    links: NDArray[np.int64]


class Duplicates:
    """Compares examples by the fields that ``compared`` names. ``add`` each, then ``find``."""

    def __init__(self, folder: Path, settings: PublishSettings, compared: Sequence[str]) -> None:
        self._compared = compared
        self._dropped = settings.duplicates
        self.count = 0
        self.unseen = set(compared)  # fields that no example had
        self._keys = Keys(folder / "digests", DIGEST)
        near = settings.duplicates == "near" or settings.split  # a split must know of them, be they dropped or not
        self._similar = Similar(folder, settings.similarity) if near else None

    def add(self, example: Example, content: Mapping[str, Any] | None) -> None:
        """``content`` is the row of the input as it is compared: without its id."""
        values = [self._value(example, content, path) for path in self._compared]
        known = any(value is not None for value in values)
        # one with none of the fields is like no other
        text = json.dumps(values, ensure_ascii=False, sort_keys=True) if known else f"number {self.count}"
        self._keys.append(digest(text))
        if self._similar is not None:
            self._similar.add("\n".join(_texts(values)) if known else text)
        self.count += 1

    def find(self) -> Repeats:
        import numpy as np

        of = np.full(self.count, -1, dtype=np.int64)
        near = np.zeros(self.count, dtype=np.bool_)
        members, starts = runs_of(np.arange(self.count), self._keys.read())
        later = starts != np.arange(len(members))
        equal = np.stack([members[later], members[starts[later]]], axis=1)
        links = equal[:0]
        if self._dropped == "keep":
            links = equal
        else:
            of[equal[:, 0]] = equal[:, 1]
        if self._similar is not None:
            pairs = self._similar.pairs(of < 0)
            if self._dropped == "near":
                self._drop_near(pairs, of, near)
            else:
                links = np.concatenate([links, pairs])
        return Repeats(of, near, links)

    def similarity(self, one: int, other: int) -> float | None:
        return None if self._similar is None else round(self._similar.similarity(one, other), 3)

    def close(self) -> None:
        self._keys.close()
        if self._similar is not None:
            self._similar.close()

    def _drop_near(self, pairs: NDArray[np.int64], of: NDArray[np.int64], near: NDArray[np.bool_]) -> None:
        """Drop each row that is near to an earlier one that stays."""
        import numpy as np

        assert self._similar is not None  # noqa: S101 - for the type checker
        for later, earlier in one_by_one(pairs):  # in the order of the later ones, so what is earlier is decided
            if of[later] >= 0:
                continue
            # it may be near to what the earlier one was dropped for, without having been compared with that
            kept = earlier if of[earlier] < 0 else int(of[earlier])
            if kept == earlier or self._similar.are_near(later, kept):
                of[later] = kept
                near[later] = True
        moved = np.flatnonzero((of >= 0) & (of[of] >= 0))  # equal to one that is near to another
        of[moved] = of[of[moved]]
        near[moved] = True

    def _value(self, example: Example, content: Mapping[str, Any] | None, path: str) -> Any:
        value = content if path == "input" and content is not None else value_at(example.fields, path)
        if value is MISSING or value is None:
            return None
        self.unseen.discard(path)
        return value


def _texts(value: Any) -> Iterator[str]:
    """What a value says, without the names of its fields."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif value is not None:
        yield str(value)
