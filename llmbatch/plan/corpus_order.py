"""What the prompts of a corpus begin with in -> an order of all its rows, sorted beyond memory, out; and from a sample its worth.

A row's key is made of checksums of its prompt's first 64, 80, 100, ... bytes, each a quarter longer than the one before. Prompts
that begin alike have keys that begin alike, so sorting by the key is a walk through the tree of prefixes: whoever shares the most
stands together, without a token being counted. A block of a KV cache (16 tokens, about 64 bytes) is shared only by prompts whose
text is the same up to its end, so those that share blocks also share the checksums up to there; how close that comes to sorting by
blocks is held by a test.

Among the groups at which the tree branches those with the longest work go first, so that what takes long does not begin at the
end. Exact duplicates stand together. The sort is DuckDB's, which goes to disk where memory ends.
"""

from __future__ import annotations

import struct
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from llmbatch.core.messages import text_of
from llmbatch.core.types import Prompt

_BYTES_A_TOKEN = 4  # about
_LEVEL = 4  # bytes of a key for each depth
_BRANCHES = 3  # depths at which groups are ordered by their work
_GROWS = 1.5  # times as many groups as at the depth before: there the tree branches
_SAMPLE = 20_000  # rows from which that is told
_SURE = 4  # pairs of rows far apart that share a beginning; of fewer nothing is made


def _depths() -> tuple[int, ...]:
    depths, depth = [], 64.0
    while depth <= 1 << 18:
        depths.append(int(depth))
        depth *= 1.25
    return tuple(depths)


DEPTHS = _depths()
"""Bytes of a prompt, of which a key has a checksum each."""


class Key(NamedTuple):
    """What a row is ordered by. ``whole``: of all of its prompt; ``size`` in bytes; ``work`` about in tokens, most of an answer."""

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
    sums, before, view = [seed], 0, memoryview(prompt)
    for depth in DEPTHS:
        if depth > len(prompt):
            break
        seed = crc32(view[before:depth], seed)
        sums.append(seed)
        before = depth
    whole = blake2b(prompt, digest_size=8, key=b"" if lora is None else lora.encode()[:64]).digest()
    work = len(prompt) // _BYTES_A_TOKEN + most
    return Key(struct.pack(f">{len(sums)}I", *sums), int.from_bytes(whole, "big") >> 1, len(prompt), work)


class Gain(NamedTuple):
    """Which shares of the prompts a prefix cache can spare, in windows of the input and in an order of all of it."""

    windows: float
    corpus: float

    @property
    def saving(self) -> float:
        """The share of the prompts' text to compute that the order saves."""
        return 1.0 - (1.0 - self.corpus) / (1.0 - self.windows) if self.windows < 1.0 else 0.0


def foreseen(sample: Sequence[Key], rows: int) -> Gain:
    """What an order of so many rows is worth, from about a window of neighbours among them.

    How many rows elsewhere begin as a row of the sample does is told from those that came just once and just twice: of a group
    that is spread over the corpus, twice in proportion to its size, and far apart. Rows that stand together in the input already
    come twice close by, and count as found. Duplicates count once, as they are folded. What the rest of the input is like when
    the sample is not, cannot be known.
    """
    keys = list({key.whole: key for key in sample if key.start}.values())
    sizes, windows, corpus = sum(key.size for key in keys), 0.0, 0.0
    if not sizes:
        return Gain(0.0, 0.0)
    elsewhere = max(0.0, rows / len(sample) - 1.0)  # rows that are not in the sample, for each that is
    before = 0.0
    for level, (depth, next_) in enumerate(pairwise(DEPTHS), start=1):
        places: dict[bytes, list[int]] = defaultdict(list)
        for place, key in enumerate(keys):
            if len(key.start) >= (level + 1) * _LEVEL:
                places[key.start[: (level + 1) * _LEVEL]].append(place)
        count = sum(map(len, places.values()))
        if count < 2:
            break
        once = sum(len(found) == 1 for found in places.values())
        # two places drawn at random are farther apart than a third of all in four of nine cases
        apart = sum(len(found) == 2 and found[1] - found[0] > len(keys) / 3 for found in places.values())
        twice = 9 / 4 * apart if apart >= _SURE else 0.0
        others = 2 * twice / once * elsewhere if once else 0.0
        after = (
            depth + next_
        ) / 2  # what is shared up to here goes on a little, half of the way to the next depth if any
        text, before = after - before, after
        windows += text * (count - len(places))
        corpus += text * (count - len(places) + once * (1.0 - 1.0 / (1.0 + others)))
    return Gain(windows / sizes, corpus / sizes)


class Sorting(NamedTuple):
    """How much the sort may take, and where it puts what memory does not hold."""

    scratch: Path
    threads: int
    memory: str = "192MB"


COLUMNS = ("row", "file", "place", "line", "spool", "spot")
"""Whole numbers: a row's index, its place in the input as in a cursor, and where its copy is, if there is one."""


def sorted_rows(keys: str, sorting: Sorting) -> Iterator[bytes]:
    """The rows of Parquet files of keys (a glob), in order: their ``COLUMNS`` as 64-bit numbers, some thousands at a time.

    Beside these, the files have ``start`` and ``whole`` of a key, and ``work``: how long a row is expected to take.
    """
    import duckdb
    import numpy as np
    import pyarrow.parquet as pq

    done = sorting.scratch / "sorted.parquet"
    with duckdb.connect() as database:
        database.execute("SET memory_limit = ?", [sorting.memory])
        database.execute("SET threads = ?", [sorting.threads])
        database.execute("SET temp_directory = ?", [str(sorting.scratch / "sort")])
        database.execute("SET preserve_insertion_order = false")
        database.execute("CREATE VIEW keys AS SELECT * FROM read_parquet(?)".replace("?", _quoted(keys)))
        database.execute(f"COPY ({_query(_branches(database))}) TO {_quoted(str(done))} (FORMAT parquet)")
    with pq.ParquetFile(done) as file:
        for batch in file.iter_batches(1 << 14, columns=list(COLUMNS)):
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
            yield np.stack(columns, axis=1).astype("<i8").tobytes()
    done.unlink()


def _branches(database: Any) -> list[int]:
    """The depths, as lengths of a key, at which groups become many more, as far as a sample of the rows tells."""
    rows = database.execute(
        "SELECT start FROM keys WHERE hash(row) % greatest(1, (SELECT count(*) FROM keys) // ?) = 0", [_SAMPLE]
    ).fetchall()
    found, before = [], 1
    for length in range(_LEVEL, (len(DEPTHS) + 1) * _LEVEL + 1, _LEVEL):
        groups = len({start[:length] for (start,) in rows if len(start) >= length})
        if groups > _GROWS * before:
            found.append(length)
            before = groups
        if len(found) == _BRANCHES or not groups:
            break
    return found


def _query(branches: Sequence[int]) -> str:
    """Groups by their longest work at each branching, below that by the key; shorter prompts are groups of their own kind."""
    tables, terms = ["keys AS k"], []
    for number, length in enumerate(branches):
        start = f"k.start[1:{length}]"
        longest = f"SELECT start[1:{length}] AS start, max(work) AS work FROM keys GROUP BY 1"  # noqa: S608 - a number
        tables.append(f"JOIN ({longest}) AS g{number} ON g{number}.start = {start}")
        terms += [f"g{number}.work DESC", f"g{number}.start"]
    columns = ", ".join(f"k.{name}" for name in COLUMNS)
    by = ", ".join([*terms, "k.start", "k.whole", "k.row"])
    return f"SELECT {columns} FROM {' '.join(tables)} ORDER BY {by}"  # noqa: S608 - names of ours


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


__all__ = ["COLUMNS", "DEPTHS", "NO_PROMPT", "Gain", "Key", "Sorting", "foreseen", "key_of", "said", "sorted_rows"]
