"""Groups of rows in; the split that each row belongs to out, such that no group, and no near-duplicates, lie on two sides.

The side is decided by a hash of the group, so it stays when rows are added. Groups that near-duplicates tie together have that of
the first row: where a new row ties two groups that lay on two sides, one of them changes over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbatch.publishing.base import MISSING, Candidate, Example, PublishSettings, value_at
from llmbatch.publishing.keys import DIGEST, Keys, digest, one_by_one, runs_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Groups:
    """The group of each example, in order. ``add`` each, then ask for ``sides``."""

    def __init__(self, folder: Path, settings: PublishSettings) -> None:
        self._fields = settings.group_by
        self._shares: Mapping[str, float] = settings.split
        self._seed = settings.seed
        self.unseen = set(self._fields if settings.split else ())  # fields that no example had
        self._keys = Keys(folder / "groups", DIGEST)

    def add(self, example: Example, candidate: Candidate) -> None:
        if not self._shares:
            return
        self._keys.append(digest(json.dumps(self._group(example, candidate), sort_keys=True), self._seed))

    def sides(self, alive: NDArray[np.bool_], links: NDArray[np.int64]) -> NDArray[np.int64]:
        """By number of the example: which of the settings' splits it belongs to. ``links`` tie examples together."""
        import numpy as np

        if not self._shares:
            return np.zeros(len(alive), dtype=np.int64)
        keys = self._keys.read()
        rows = np.flatnonzero(alive)
        members, starts = runs_of(rows, keys[rows])
        first = np.arange(len(keys))
        first[members] = members[starts]
        for later, earlier in one_by_one(links):
            one, other = _first(first, later), _first(first, earlier)
            first[max(one, other)] = min(one, other)
        while not np.array_equal(first, further := first[first]):
            first = further
        drawn = np.frombuffer(keys.tobytes(), dtype="<u8")[::2][first] / 2.0**64
        bounds = np.cumsum(list(self._shares.values()))
        # what lies beyond the last share is the rest, which is the first of the splits
        sides: NDArray[np.int64] = (np.searchsorted(bounds, drawn, side="right") + 1) % (len(bounds) + 1)
        return sides

    def close(self) -> None:
        self._keys.close()

    def _group(self, example: Example, candidate: Candidate) -> Any:
        if not self._fields:
            return candidate.group
        values = [value_at(example.fields, path) for path in self._fields]
        known = {path for path, value in zip(self._fields, values, strict=True) if value is not MISSING}
        self.unseen -= known
        # a row without the field is a group of its own
        return [None if value is MISSING else value for value in values] if known else candidate.group


def _first(first: NDArray[np.int64], row: int) -> int:
    while first[row] != row:
        first[row] = first[first[row]]
        row = int(first[row])
    return row
