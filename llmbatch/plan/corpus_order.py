"""What a prompt begins with in -> a key, by which rows are sorted, out; and from a sample what an order of all rows is worth.

A row's key is made of checksums of its prompt's first 64, 80, 100, ... bytes, each a quarter longer than the one before. Prompts
that begin alike have keys that begin alike, so sorting by the key is a walk through the tree of prefixes: whoever shares the most
stands together, without a token being counted. A block of a KV cache (16 tokens, about 64 bytes) is shared only by prompts whose
text is the same up to its end, so those that share blocks also share the checksums up to there; how close that comes to sorting by
blocks is held by a test.

Among the groups at which the tree branches those with the longest work go first, so that what takes long does not begin at the
end. Exact duplicates stand together. How all that is sorted: ``sorting``.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple
from zlib import crc32

from llmbatch.core.messages import text_of
from llmbatch.core.types import Prompt

_BYTES_A_TOKEN = 4  # about
_LEVEL = 4  # bytes of a key for each depth
_SURE = 4  # pairs of rows far apart that share a beginning; of fewer nothing is made


def _depths() -> tuple[int, ...]:
    depths, depth = [], 64.0
    while depth <= 1 << 18:
        depths.append(int(depth))
        depth *= 1.25
    return tuple(depths)


DEPTHS = _depths()
"""Bytes of a prompt, of which a key has a checksum each."""

_PACKED = [struct.Struct(f">{count}I").pack for count in range(len(DEPTHS) + 2)]


class Key(NamedTuple):
    """What a row is ordered by. ``whole``: of all of its prompt; ``size`` in bytes; ``work`` about in tokens, most of an answer.

    ``start`` has a checksum for each of the ``DEPTHS`` that the prompt reaches, and one of its adapter before them.
    """

    start: bytes
    whole: int
    size: int
    work: int


NO_PROMPT = Key(b"", 0, 0, 0)
"""Of a row that has none: it needs no engine."""


def said(prompt: Prompt) -> bytes:
    """A prompt as bytes: what two of them share at the start, the engine's prompts share too, whatever the chat template."""
    if prompt.ids is not None:
        return array("I", prompt.ids).tobytes()
    if prompt.messages is None:
        text = prompt.text or ""
        if prompt.pair is not None:
            text = f"{text}\x1f{prompt.pair}"
        return text.encode("utf-8", "surrogatepass")
    parts = []
    for message in prompt.messages:
        content = message["content"]
        parts.append(f"{message['role']}\x1e{content if content.__class__ is str else text_of(content)}\x1f")
    for image in prompt.images:
        parts.append(f"{image.url}\x1f")
    return "".join(parts).encode("utf-8", "surrogatepass")


def key_of(prompt: bytes, lora: str | None = None, most: int = 0) -> Key:
    """The key of a prompt that is asked with this adapter: those of different adapters share nothing.

    ``most`` is the longest answer in tokens, where rows differ in that.
    """
    seed = 0 if lora is None else crc32(lora.encode())
    size, before, sums = len(prompt), 0, [seed]
    for depth in DEPTHS:
        if depth > size:
            break
        seed = crc32(prompt[before:depth], seed)
        sums.append(seed)
        before = depth
    whole = crc32(prompt[before:], seed) << 31 | size & 0x7FFFFFFF
    return Key(_PACKED[len(sums)](*sums), whole, size, size // _BYTES_A_TOKEN + most)


class Gain(NamedTuple):
    """Which shares of the prompts a prefix cache can spare, in windows of the input and in an order of all of it."""

    windows: float
    corpus: float

    @property
    def saving(self) -> float:
        """The share of the prompts' text to compute that the order saves."""
        return 1.0 - (1.0 - self.corpus) / (1.0 - self.windows) if self.windows < 1.0 else 0.0


def foreseen(stretches: Sequence[Sequence[Key]], rows: int, window: int) -> Gain:
    """What an order of so many rows is worth, from neighbours among them: a stretch of about a ``window``, or several shorter ones.

    How many rows elsewhere begin as a row of the sample does is told from those that came just once and just twice: of a group
    that is spread over the corpus, twice in proportion to its size, and far apart. Rows that stand together in the input already
    come twice close by, and count as found. Duplicates count once, as they are folded. What is in no stretch cannot be known.
    """
    sample: dict[int, tuple[int, Key]] = {}
    for number, keys_of_one in enumerate(stretches):
        for key in keys_of_one:
            if key.start:
                sample.setdefault(key.whole, (number, key))
    of, keys = [number for number, _ in sample.values()], [key for _, key in sample.values()]
    sizes, count = sum(key.size for key in keys), sum(map(len, stretches))
    if not sizes:
        return Gain(0.0, 0.0)
    neighbours = count / sum(map(bool, stretches))
    # rows in a window, and in all, that are in no stretch, for each that is in one
    near, elsewhere = max(0.0, window - neighbours) / count, max(0.0, rows / count - 1.0)
    windows = corpus = before = 0.0
    for level, (depth, next_) in enumerate(pairwise(DEPTHS), start=1):
        length = (level + 1) * _LEVEL
        places: dict[bytes, list[int]] = defaultdict(list)
        for place, key in enumerate(keys):
            if len(key.start) >= length:
                places[key.start[:length]].append(place)
        seen = sum(map(len, places.values()))
        if seen < 2:
            break
        once = sum(len(found) == 1 for found in places.values())
        # two places drawn at random are farther apart than a third of all in four of nine cases
        apart = sum(len(found) == 2 and found[1] - found[0] > len(keys) / 3 for found in places.values())
        twice = 9 / 4 * apart if apart >= _SURE else 0.0
        others = 2 * twice / once if once else 0.0  # that begin as a row does, in as many rows as the sample has
        # what is shared up to here goes on a little, half of the way to the next depth if any
        text, before = (depth + next_) / 2 - before, (depth + next_) / 2
        first = Counter((of[place], start) for start, found in places.items() for place in found)
        alone = sum(number == 1 for number in first.values())
        windows += text * (seen - len(first) + alone * _some(others * near))
        corpus += text * (seen - len(places) + once * _some(others * elsewhere))
    return Gain(min(windows, corpus) / sizes, corpus / sizes)


def _some(others: float) -> float:
    """How likely it is that there is one at least, where so many are to be expected."""
    return 1.0 - 1.0 / (1.0 + others)


__all__ = ["DEPTHS", "NO_PROMPT", "Gain", "Key", "foreseen", "key_of", "said"]
