"""Rows with their answers in; for each row of a task the examples that are shown before it, out, never the row itself."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from llmbatch.core.errors import JobError
from llmbatch.core.sandbox import RenderError
from llmbatch.core.words import short
from llmbatch.evals.task import FewShotSettings


class Shot(NamedTuple):
    """A worked example: the fields of its row, and the answer that is shown."""

    row: Mapping[str, Any]
    answer: str


class Pool:
    """The examples of a task. Which of them a row gets depends on the seed, the row's index and the examples alone."""

    def __init__(self, settings: FewShotSettings, shots: Iterable[Shot]) -> None:
        self._settings = settings
        self._groups: dict[str, list[Shot]] = {}
        self._drawn: dict[str, list[int]] = {}  # once for all rows, by group
        for shot in islice(shots, settings.pool):
            self._groups.setdefault(self._group(shot.row), []).append(shot)
        if not self._groups:
            raise JobError("few_shot: there is no row to take examples from")

    def shots(self, index: int, fields: Mapping[str, Any], called: str) -> list[Shot]:
        """The examples of the row with this index. Raises ``JobError``, which calls the row so, where there are too few."""
        settings, group = self._settings, self._group(fields)
        there = self._groups.get(group, [])
        others = (there[at] for at in self._order(index, group, len(there)) if there[at].row != fields)
        found = list(islice(others, settings.number))
        if len(found) < settings.number:
            alike = (
                f" with the same {settings.same.source} ({short(json.loads(group))})"
                if settings.same is not None
                else ""
            )
            raise JobError(
                f"{called}: few_shot.number is {settings.number}, and there are {len(found)} examples{alike} besides the row "
                f"itself, among the first {settings.pool:,} rows: take fewer, or raise few_shot.pool"
            )
        return found

    def _order(self, index: int, group: str, size: int) -> Iterable[int]:
        settings = self._settings
        if settings.draw == "first":
            return range(size)
        if settings.draw == "once":
            if group not in self._drawn:
                self._drawn[group] = list(_one_by_one(str(settings.seed), size))
            return self._drawn[group]
        return _one_by_one(f"{settings.seed} {index}", size)

    def _group(self, fields: Mapping[str, Any]) -> str:
        same = self._settings.same
        if same is None:
            return ""
        try:
            return json.dumps(same.value(fields), sort_keys=True)
        except RenderError as error:
            raise JobError(f"few_shot.same ({same.source}): cannot be told: {error}") from error


def _one_by_one(seed: str, size: int) -> Iterator[int]:
    """The numbers below ``size``, each once, in an order that can be had again; few of many cost little."""
    seen: set[int] = set()
    rng = random.Random(f"examples {seed}")  # noqa: S311 - to be drawn again, not a secret
    while len(seen) < size:
        if len(seen) > size // 2:
            rest = [at for at in range(size) if at not in seen]
            rng.shuffle(rest)
            yield from rest
            return
        if (at := rng.randrange(size)) not in seen:
            seen.add(at)
            yield at


__all__ = ["Pool", "Shot"]
