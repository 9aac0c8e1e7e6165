"""Texts in, one after another; whether each is a near-duplicate of one that was kept before it, out.

How similar two texts are is estimated from their signatures (``core/minhash.py``). They are compared where these agree in a whole
band (locality-sensitive hashing): of texts that are just similar enough one pair in a hundred is missed by that, of more similar
ones hardly any. In a band a text is compared with at most ``MOST`` kept ones: very many agree where texts share much boilerplate.

All of it is in memory: at most ``BYTES`` for each text that is kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmbatch.core.minhash import HASHES, bands_of, mixed, sketcher

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BYTES = 1024
MOST = 16
_LEAST_SLOTS = 1 << 10  # of a band's table
_LOW = 0xFFFFFFFF


class Near(NamedTuple):
    """A kept text that is near: its number among those that were kept, and how similar it is."""

    number: int
    similarity: float


class Sketch(NamedTuple):
    """What is left of a text: its signature, and of each band 32 bits for the numbers in it."""

    signature: NDArray[np.uint16]
    keys: list[int]


class Kept:
    """The texts that were kept. Raises ``JobError`` where the library is not installed."""

    def __init__(self, similarity: float) -> None:
        import numpy as np

        self._similarity = similarity
        self._bands, self._rows = bands_of(similarity)
        self._sketch = sketcher()
        self._signatures = np.zeros((64, HASHES), dtype=np.uint16)
        # of each band an open hash table: a slot holds a key and, below it, the number of a text counted from 1; 0 is empty
        self._tables = [_table(_LEAST_SLOTS) for _ in range(self._bands)]
        self._count = 0

    def sketches(self, texts: Sequence[str]) -> list[Sketch]:
        """A sketch of each text."""
        import numpy as np

        if not texts:
            return []
        numbers = self._sketch(texts)
        banded = numbers[:, : self._bands * self._rows].reshape(len(texts), self._bands, self._rows)
        keys = mixed(banded[:, :, place] for place in range(self._rows))
        # the lower halves are enough to tell whether two numbers are equal
        signatures = numbers.astype(np.uint16)
        return list(map(Sketch, signatures, (keys >> np.uint64(32)).tolist()))

    def near(self, sketch: Sketch) -> Near | None:
        """The kept text that is most similar, if it is similar enough; of equal ones the first."""
        import numpy as np

        found: set[int] = set()
        for table, key in zip(self._tables, sketch.keys, strict=True):
            found.update(_under(table, key))
        if not found:
            return None
        texts = sorted(found)
        same = (self._signatures[texts] == sketch.signature).mean(axis=1)
        best = int(np.argmax(same))
        return Near(texts[best], float(same[best])) if same[best] >= self._similarity else None

    def keep(self, sketch: Sketch) -> None:
        """Keep one more."""
        import numpy as np

        if self._count == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        if 2 * (self._count + 1) > len(self._tables[0]):
            self._tables = [_grown(table) for table in self._tables]
        self._signatures[self._count] = sketch.signature
        self._count += 1
        for table, key in zip(self._tables, sketch.keys, strict=True):
            if len(_under(table, key)) < MOST:
                _put(table, key << 32 | self._count)


def _table(slots: int) -> array[int]:
    return array("Q", bytes(8 * slots))


def _under(table: array[int], key: int) -> list[int]:
    """The numbers, counted from 0, of the texts that are kept under a key, in the order in which they came."""
    mask = len(table) - 1
    place = key & mask
    found = []
    while slot := table[place]:
        if slot >> 32 == key:
            found.append((slot & _LOW) - 1)
        place = (place + 1) & mask
    return found


def _put(table: array[int], slot: int) -> None:
    mask = len(table) - 1
    place = slot >> 32 & mask
    while table[place]:
        place = (place + 1) & mask
    table[place] = slot


def _grown(table: array[int]) -> array[int]:
    """The same with twice as many slots; the texts are put in again in their order."""
    larger = _table(2 * len(table))
    for slot in sorted(filter(None, table), key=lambda slot: slot & _LOW):
        _put(larger, slot)
    return larger


__all__ = ["BYTES", "Kept", "Near", "Sketch"]
