"""Texts in, one for each example; the pairs of them that are near-duplicates out.

How similar two texts are is estimated from their signatures (``core/minhash.py``), which lie on disk. Two are compared where these
agree in a whole band (locality-sensitive hashing). Where very many agree in a band, as where texts share much boilerplate, a text
is compared with the ``WINDOW`` before it and with the first.

Memory: some 25 bytes a text while a band is sorted, and 16 bytes a pair; on disk 450 bytes a text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llmbatch.core.files import writing
from llmbatch.core.minhash import HASHES, bands_of, mixed, sketcher
from llmbatch.publishing.keys import Keys, runs_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WINDOW = 16
_BATCH, _BATCH_CHARACTERS = 512, 4 << 20  # texts at a time
_CHUNK = 1 << 16  # pairs that are compared at a time


class Similar:
    """The texts of a dataset, in order. ``add`` each, then ask for ``pairs``.

    Its files lie in ``folder``. Raises ``JobError`` where the library is not installed, and ``WriteError``.
    """

    def __init__(self, folder: Path, similarity: float) -> None:
        self._similarity = similarity
        self._bands, self._rows = bands_of(similarity)
        self._sketch = sketcher()
        self._waiting: list[str] = []
        self._waiting_characters = 0
        self._path = folder / "signatures"
        with writing(self._path):
            self._signatures = self._path.open("w+b", buffering=0)
        self._keys = [Keys(folder / f"band-{band:02d}", "<u8") for band in range(self._bands)]

    def add(self, text: str) -> None:
        self._waiting.append(text)
        self._waiting_characters += len(text)
        if len(self._waiting) >= _BATCH or self._waiting_characters >= _BATCH_CHARACTERS:
            self._flush()

    def pairs(self, alive: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Near-duplicates among the texts that are ``alive``: (the later, the earlier), sorted, each once."""
        import numpy as np

        self._flush()
        found = np.empty((0, 2), dtype=np.int64)
        rows = np.flatnonzero(alive)
        for keys in self._keys:
            new = [self._near(some) for some in _candidates(rows, keys.read()[rows])]
            found = np.unique(np.concatenate([found, *new]), axis=0)
        return found

    def similarity(self, one: int, other: int) -> float:
        """The estimated similarity of two texts."""
        import numpy as np

        both = self._read(np.array([one, other]))
        return float((both[0] == both[1]).mean())

    def are_near(self, one: int, other: int) -> bool:
        return self.similarity(one, other) >= self._similarity

    def close(self) -> None:
        self._signatures.close()
        for keys in self._keys:
            keys.close()

    def _flush(self) -> None:

        if not self._waiting:
            return
        signatures = self._sketch(self._waiting)
        self._waiting, self._waiting_characters = [], 0
        with writing(self._path):
            # the lower halves are enough to tell whether two numbers are equal
            self._signatures.write(signatures.astype("<u2").tobytes())
        for band, keys in enumerate(self._keys):
            part = signatures[:, band * self._rows : (band + 1) * self._rows]
            keys.append(mixed(part.T).astype("<u8").tobytes())

    def _near(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the pairs that are similar enough."""
        import numpy as np

        texts, places = np.unique(pairs, return_inverse=True)
        signatures = self._read(texts)[places.reshape(pairs.shape)]
        same = (signatures[:, 0] == signatures[:, 1]).mean(axis=1)
        near: NDArray[np.int64] = pairs[same >= self._similarity]
        return near

    def _read(self, texts: NDArray[np.int64]) -> NDArray[np.uint16]:
        import numpy as np

        size = 2 * HASHES
        with writing(self._path):
            read = b"".join(os.pread(self._signatures.fileno(), size, int(text) * size) for text in texts)
        return np.frombuffer(read, dtype="<u2").reshape(-1, HASHES)


def _candidates(rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Pairs of rows with equal keys, (later, earlier), in chunks: each row with those before it, and with the first."""
    import numpy as np

    members, starts = runs_of(rows, keys)
    place = np.arange(len(members))
    for back in range(1, WINDOW + 1):
        later = place[place - starts >= back]
        yield from _chunks(members[later], members[later - back])
    later = place[place - starts > WINDOW]
    yield from _chunks(members[later], members[starts[later]])


def _chunks(later: NDArray[np.int64], earlier: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    import numpy as np

    for at in range(0, len(later), _CHUNK):
        yield np.stack([later[at : at + _CHUNK], earlier[at : at + _CHUNK]], axis=1)
