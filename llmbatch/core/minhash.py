"""Texts in, MinHash signatures out: the share of numbers that two signatures have in common estimates how similar the texts are.

Similar is the share of three-word pieces that two texts have in common (Jaccard similarity of their shingles), case, width of
letters and punctuation apart. A signature has ``HASHES`` numbers; the estimate has a standard error of some 0.03.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from llmbatch.core.errors import JobError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HASHES = 128
_WORDS = 3  # in a piece
_SEED = 42
_FOUND = 0.99  # of the pairs that are just similar enough, the share whose signatures agree in a band

# a letter of a script that is written without spaces is a word
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|\w+"
)

Sketch = Callable[[Sequence[str]], "NDArray[np.uint32]"]
"""Texts -> a row of numbers for each, its signature."""


def sketcher() -> Sketch:
    """What makes signatures. Raises ``JobError`` where the library for it is not installed."""
    import numpy as np

    try:
        from rensa import RMinHash
    except ImportError:
        raise JobError("finding near-duplicates needs rensa: pip install 'llmbatch[publish]'") from None

    def sketch(texts: Sequence[str]) -> NDArray[np.uint32]:
        pieces, bounds = _pieces(RMinHash.hash_token_sets([words_of(text) for text in texts]))
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(pieces, bounds, HASHES, _SEED)
        return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), HASHES)

    return sketch


def words_of(text: str) -> list[str]:
    """The words that pieces are made of, three at least: of a text without any it is itself the first."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) or [text]
    return words if len(words) >= _WORDS else words + [""] * (_WORDS - len(words))


def bands_of(similarity: float) -> tuple[int, int]:
    """(bands, numbers in each) of a signature for locality-sensitive hashing: as many numbers as still find what is to be found.

    Of two texts that are just so similar, the signatures agree in at least one whole band in 99 of a hundred cases.
    """
    for numbers in range(HASHES, 1, -1):
        bands = HASHES // numbers
        if 1 - (1 - similarity**numbers) ** bands >= _FOUND:
            return bands, numbers
    return HASHES, 1


def mixed(columns: Iterable[NDArray[Any]]) -> NDArray[np.uint64]:
    """One number for those that stand side by side in the columns, such as the numbers of a band."""
    import numpy as np

    found: Any = np.uint64(0)
    for column in columns:
        found = (found ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    numbers: NDArray[np.uint64] = found
    return numbers


def _pieces(words: Sequence[Sequence[int]]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Numbers for the words of texts -> one for each three that follow each other, of all texts, and where those of each begin."""
    import numpy as np

    sizes = np.array([len(each) for each in words])
    flat = np.fromiter(chain.from_iterable(words), dtype=np.uint64, count=sizes.sum())
    pieces = mixed(flat[at : len(flat) - _WORDS + 1 + at] for at in range(_WORDS))
    inside = np.ones(len(flat), dtype=np.bool_)
    for back in range(1, _WORDS):
        inside[np.cumsum(sizes) - back] = False  # a piece that begins so late in a text would end in the next one
    return pieces[inside[: len(pieces)]], np.cumsum([0, *(sizes - _WORDS + 1)]).astype(np.uint64)
