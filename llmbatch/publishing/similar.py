"""Texts in, one for each example; the pairs of them that are near-duplicates out.

Near is the share of three-word pieces that two texts have in common (Jaccard similarity of their shingles), estimated from MinHash
signatures of ``HASHES`` numbers, with a standard error of some 0.03. Signatures lie on disk. Two texts are compared where their
signatures agree in a whole band (locality-sensitive hashing): of texts that are just similar enough less than one pair in a hundred
is missed by that, of more similar ones hardly any. Where very many texts agree in a band, as where they share much boilerplate, a
text is compared with the ``WINDOW`` before it and with the first.

Memory: some 25 bytes a text while a band is sorted, and 16 bytes a pair; on disk 450 bytes a text.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbatch.core.errors import JobError
from llmbatch.core.files import writing
from llmbatch.publishing.keys import Keys, runs_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HASHES = 128
WINDOW = 16
_WORDS = 3  # in a shingle
_SEED = 42
_BATCH = 512  # texts at a time
_CHUNK = 1 << 16  # pairs that are compared at a time
_FOUND = 0.99  # of the pairs that are just similar enough, the share that is to be compared

# a letter of a script that is written without spaces is a word
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|\w+"
)


class Similar:
    """The texts of a dataset, in order. ``add`` each, then ask for ``pairs``.

    Its files lie in ``folder``. Raises ``JobError`` where the library is not installed, and ``WriteError``.
    """

    def __init__(self, folder: Path, similarity: float) -> None:
        self._similarity = similarity
        self._bands, self._rows = _bands(similarity)
        self._sketch = _sketcher()
        self._waiting: list[list[str]] = []
        self._path = folder / "signatures"
        with writing(self._path):
            self._signatures = self._path.open("w+b", buffering=0)
        self._keys = [Keys(folder / f"band-{band:02d}", "<u8") for band in range(self._bands)]

    def add(self, text: str) -> None:
        self._waiting.append(words_of(text))
        if len(self._waiting) >= _BATCH:
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
        self._waiting = []
        with writing(self._path):
            # the lower halves are enough to tell whether two numbers are equal
            self._signatures.write(signatures.astype("<u2").tobytes())
        for band, keys in enumerate(self._keys):
            part = signatures[:, band * self._rows : (band + 1) * self._rows]
            keys.append(_mixed(part.T).astype("<u8").tobytes())

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


def words_of(text: str) -> list[str]:
    """The words of a text, case and width of letters apart, three at least: of a text without any it is itself the first."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) or [text]
    return words if len(words) >= _WORDS else words + [""] * (_WORDS - len(words))


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


def _bands(similarity: float) -> tuple[int, int]:
    """(bands, rows of each) of a signature: as many rows as find pairs that are just similar enough."""
    for rows in range(HASHES, 1, -1):
        bands = HASHES // rows
        if 1 - (1 - similarity**rows) ** bands >= _FOUND:
            return bands, rows
    return HASHES, 1


def _pieces(words: Sequence[Sequence[int]]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Numbers for the words of texts -> one for each three that follow each other, of all texts, and where those of each begin."""
    import numpy as np

    sizes = np.array([len(each) for each in words])
    flat = np.fromiter(chain.from_iterable(words), dtype=np.uint64, count=sizes.sum())
    mixed = _mixed([flat[at : len(flat) - _WORDS + 1 + at] for at in range(_WORDS)])
    inside = np.ones(len(flat), dtype=np.bool_)
    for back in range(1, _WORDS):
        inside[np.cumsum(sizes) - back] = False  # a piece that begins so late in a text would end in the next one
    bounds = np.cumsum([0, *(sizes - _WORDS + 1)])
    return mixed[inside[: len(mixed)]], bounds.astype(np.uint64)


def _mixed(columns: Iterable[NDArray[Any]]) -> NDArray[np.uint64]:
    """One number for those that stand side by side in the columns."""
    import numpy as np

    mixed: Any = np.uint64(0)
    for column in columns:
        mixed = (mixed ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    numbers: NDArray[np.uint64] = mixed
    return numbers


def _sketcher() -> Callable[[Sequence[Sequence[str]]], NDArray[np.uint32]]:
    """Words of texts -> a signature for each."""
    import numpy as np

    try:
        from rensa import RMinHash
    except ImportError:
        raise JobError(
            "finding near-duplicates needs rensa: pip install 'llmbatch[publish]', or say that only exact duplicates are dropped"
        ) from None

    def sketch(texts: Sequence[Sequence[str]]) -> NDArray[np.uint32]:
        pieces, bounds = _pieces(RMinHash.hash_token_sets(texts))
        return np.array(
            RMinHash.digest_matrix_from_flat_token_hashes(pieces, bounds, HASHES, _SEED).to_rows(), dtype=np.uint32
        )

    return sketch
