"""One fuzz target in, libFuzzer's loop over it out. Each script beside this one is a target: a parser of ours of outside data.

    python eval/fuzz/fuzz_rows.py -max_total_time=60        flags are libFuzzer's; ``make fuzz`` runs all of them, see run.py

A target asserts the parser's contract: whatever the bytes, only the errors that it promises come out. Anything else ends the
fuzzer, which then writes the bytes to a file called ``crash-...``; that file as an argument runs the target on it alone.
"""

from __future__ import annotations

import atexit
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import atheris

MAX_LENGTH = 4096


def scratch() -> Path:
    """A folder for files that a target writes, in memory where the system has such a place; removed at the end."""
    base = Path("/dev/shm")  # noqa: S108
    folder = Path(tempfile.mkdtemp(prefix="llmbatch-fuzz-", dir=base if base.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Notation(NamedTuple):
    """How an input is taken apart and put together again, so that half of the changes can be made inside of it."""

    read: Callable[[bytes], Any]  # may raise anything
    write: Callable[[Any], bytes]


JSON_LINES = Notation(
    lambda data: [json.loads(line) for line in data.splitlines()],
    lambda value: b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in value),
)
YAML = Notation(
    lambda data: _yaml().safe_load(data),
    lambda value: _yaml().safe_dump(value, sort_keys=False, allow_unicode=True).encode(),
)


def fuzz(
    target: Callable[[bytes], None],
    seeds: Iterable[bytes],
    words: Sequence[str],
    folder: Path,
    notation: Notation | None = None,
) -> None:
    """Fuzz the target, beginning with the seeds; ``words`` are put into inputs as they are."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    dictionary = folder / "words"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words))
    arguments = [
        f"-dict={dictionary}",
        f"-max_len={MAX_LENGTH}",
        "-timeout=30",
        "-rss_limit_mb=4096",
        *sys.argv[1:],
        str(corpus),
    ]
    if any(Path(argument).is_file() for argument in sys.argv[1:]):
        arguments = sys.argv[1:]
    options = {} if notation is None else {"custom_mutator": _mutator(notation, words)}
    atheris.Setup([sys.argv[0], *arguments], target, **options)
    atheris.Fuzz()


def _mutator(notation: Notation, words: Sequence[str]) -> Callable[[bytes, int, int], bytes]:
    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        try:
            value = notation.read(data)
            for _ in range(rng.randrange(1, 4)):
                value = _changed(value, rng, words)
            changed = notation.write(value)
        except Exception:  # not of this notation
            return bytes(atheris.Mutate(data, max_size))
        return changed[:max_size]

    return mutate


def _changed(value: Any, rng: random.Random, words: Sequence[str]) -> Any:
    """The value with one thing in it changed, somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if (what := rng.random()) < 0.6:
            return {**value, key: _changed(value[key], rng, words)}
        if what < 0.8:
            return {k: v for k, v in value.items() if k != key}
        return {**value, rng.choice(words): rng.choice([value[key], _made_up(rng, words)])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        instead = rng.choice([[_changed(value[at], rng, words)], [], [value[at]] * 2, [_made_up(rng, words)]])
        return value[:at] + instead + value[at + 1 :]
    if isinstance(value, str) and rng.random() < 0.7:
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice(words) + value[at + rng.randrange(3) :]
    return _made_up(rng, words)


def _made_up(rng: random.Random, words: Sequence[str]) -> Any:
    plain = [None, True, False, 0, -1, 1.5, 2**63, 10**30, "", [], {}, "x" * 300]
    return rng.choice(
        [rng.choice(plain), rng.choice(words), {rng.choice(words): rng.choice(plain)}, [rng.choice(plain)]]
    )


def _yaml() -> Any:
    import yaml  # only now, so that a target can have it instrumented

    return yaml


def _escaped(word: str) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in word.encode())
