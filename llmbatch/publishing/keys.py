"""A key for each row in; the rows that share their key with another, side by side, out. The keys lie on disk until then."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llmbatch.core.files import writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FEW = 1 << 14

DIGEST = "S16"
"""The numpy type of a key that is a digest."""


class Runs(NamedTuple):
    """Rows that share their key with another, sorted by key and then by number.

    ``starts`` says of each where in ``members`` the rows with its key begin.
    """

    members: NDArray[np.int64]
    starts: NDArray[np.int64]


class Keys:
    """Keys of one numpy type, one for each row, in order. Raises ``WriteError``."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._kind = kind
        with writing(path):
            self._file = path.open("w+b", buffering=1 << 16)

    def append(self, keys: bytes) -> None:
        """One key or several, as bytes."""
        with writing(self._path):
            self._file.write(keys)

    def read(self) -> NDArray[Any]:
        import numpy as np

        with writing(self._path):
            self._file.flush()
            self._file.seek(0)
            keys: NDArray[Any] = np.fromfile(self._file, dtype=self._kind)
        return keys

    def close(self) -> None:
        self._file.close()


def digest(text: str, seed: int = 0) -> bytes:
    """A key of type ``DIGEST``. It never ends in a zero, which numpy takes for the end of a text."""
    found = blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=16, salt=seed.to_bytes(16, "little", signed=True)
    )
    return found.digest()[:15] + b"\x01"


def one_by_one(pairs: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """The pairs as Python's numbers, which take ten times as much memory, a few at a time."""
    for at in range(0, len(pairs), _FEW):
        yield from map(tuple, pairs[at : at + _FEW].tolist())


def runs_of(rows: NDArray[np.int64], keys: NDArray[Any]) -> Runs:
    """Which of the rows, given in ascending order, share their key with another."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    rows, keys = rows[order], keys[order]
    first = np.ones(len(keys), dtype=np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    sizes = np.diff(np.append(np.flatnonzero(first), len(keys)))
    shared = np.repeat(sizes > 1, sizes)
    sizes = sizes[sizes > 1]
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    return Runs(rows[shared], starts)
