"""Good lines in, damaged ones out, the same for the same seed: what careless exports, cut-off copies or attackers make of rows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

_BYTES = b"\x00\x01\t\x0b\x0c\r\x1b\"'\\{}[]:,0-9eEtfnu\x7f\x80\xbf\xc0\xe2\xed\xef\xf0\xff"
_WORDS = (
    b"NaN", b"Infinity", b"-Infinity", b"null", b"true", b"1e999", b"-0", b"0x10", b"01", b"9" * 30, b"9" * 5000, b"1.5e-400",
    b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc0\x80", b"\xf4\x90\x80\x80", b"[" * 300,
    b'{"a":' * 300, b"{{ 7*7 }}", b"{% for i in range(9**9) %}x{% endfor %}", b'"id":', b'"text":', b"../../etc/passwd",
    b"\xe2\x80\xa8",
    b"<script>", b"__class__", b"%s%n", b"\\u", b"//", b"/*",
)  # fmt: skip


def good_line(number: int, rng: random.Random) -> bytes:
    """A row as it should be, with an id, a text and something more."""
    text = "".join(rng.choice('abc äß語😀\n\t"\\{}%') for _ in range(rng.randrange(1, 40)))
    row = {"id": f"r{number}", "text": text, "n": rng.choice([number, -1.5e10, None, True, [1, [2]], {"k": "v"}])}
    return json.dumps(row, ensure_ascii=rng.random() < 0.5).encode()


def mutated_lines(count: int, seed: int) -> Iterator[bytes]:
    """So many lines without their newlines, none of them blank. About one in eight is left as it was."""
    rng = random.Random(seed)
    known = [good_line(number, rng) for number in range(64)]
    for number in range(count):
        line = good_line(number, rng)
        for _ in range(rng.randrange(0, 6) if rng.random() < 0.9 else 0):
            line = rng.choice(_MUTATIONS)(line, rng, known)
        yield (line.replace(b"\n", b"") or b"x") if line.strip() else b"x"


def _flip(line: bytes, rng: random.Random, _known: list[bytes]) -> bytes:
    at = rng.randrange(len(line) or 1)
    return line[:at] + bytes([(line[at] if line else 0) ^ (1 << rng.randrange(8))]) + line[at + 1 :]


def _insert(line: bytes, rng: random.Random, _known: list[bytes]) -> bytes:
    at = rng.randrange(len(line) + 1)
    return line[:at] + bytes(rng.choices(_BYTES, k=rng.randrange(1, 4))) + line[at:]


def _word(line: bytes, rng: random.Random, _known: list[bytes]) -> bytes:
    at = rng.randrange(len(line) + 1)
    return line[:at] + rng.choice(_WORDS) + line[at + rng.choice((0, 0, 3)) :]


def _delete(line: bytes, rng: random.Random, _known: list[bytes]) -> bytes:
    at = rng.randrange(len(line) + 1)
    return line[:at] + line[at + rng.randrange(1, 9) :]


def _cut(line: bytes, rng: random.Random, _known: list[bytes]) -> bytes:
    return line[: rng.randrange(len(line) + 1)]


def _twice(line: bytes, rng: random.Random, _known: list[bytes]) -> bytes:
    a, b = sorted((rng.randrange(len(line) + 1), rng.randrange(len(line) + 1)))
    return line[:b] + line[a:b] * rng.choice((1, 1, 2, 50 if len(line) < 10_000 else 1)) + line[b:]


def _splice(line: bytes, rng: random.Random, known: list[bytes]) -> bytes:
    other = rng.choice(known)
    return line[: rng.randrange(len(line) + 1)] + other[rng.randrange(len(other)) :]


_MUTATIONS: list[Callable[[bytes, random.Random, list[bytes]], bytes]] = [
    _flip, _flip, _insert, _insert, _word, _delete, _cut, _twice, _splice,
]  # fmt: skip
