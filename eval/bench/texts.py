"""The installed packages in; text that nobody made for a benchmark (licences, documentation, a table) out, with whose it is.

The same packages give the same passages. A passage is known by where it begins, so that any number of different ones can be had.
"""

from __future__ import annotations

import hashlib
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from random import Random

_SUFFIXES = frozenset({".md", ".rst", ".txt"})
_NAMES = re.compile(r"(METADATA|LICEN[CS]E|COPYING|NOTICE|AUTHORS|README|CHANGELOG|CHANGES)", re.IGNORECASE)
_SHORTEST, _LONGEST = 2_000, 400_000  # characters of a file that count
_LONGEST_WORD = 40  # characters: what is longer is data, and may be longer than a context
_WORDS = re.compile(r"\S+")


@cache
def words() -> tuple[str, ...]:
    """The words of all of them, one after another; no file twice."""
    found: list[str] = []
    seen: set[bytes] = set()
    for path in _files():
        content = path.read_bytes()
        digest = hashlib.sha256(content).digest()
        if digest not in seen and (text := content.decode("utf-8", "ignore")):
            seen.add(digest)
            found += (word for word in _WORDS.findall(text[:_LONGEST]) if len(word) <= _LONGEST_WORD)
    return tuple(found)


@cache
def packages() -> tuple[str, ...]:
    """Whose texts they are."""
    root = Path(sysconfig.get_path("purelib"))
    return tuple(sorted({path.relative_to(root).parts[0].partition("-")[0] for path in _files()}))


def passages(count: int, shortest: int, longest: int, seed: int = 1) -> Iterator[str]:
    """So many passages of between so many words, each from a place of its own on: no two begin with the same word of the texts."""
    random, all_words = Random(seed), words()
    last = len(all_words) - longest
    if count > last:
        raise SystemExit(
            f"the installed packages have {len(all_words):,} words of text, too few for {count:,} passages"
        )
    for start in random.sample(range(last), count):
        yield " ".join(all_words[start : start + random.randint(shortest, longest)])


def languages(count: int) -> list[str]:
    """So many rows of the table of languages that ``language_data`` ships, each as a line; from the first again where it ends."""
    names = ("code", "name", "family", "scripts", "other names")
    path = Path(sysconfig.get_path("purelib")) / "language_data" / "data" / "wiktionary" / "codes-en.csv"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SystemExit(f"the table of languages cannot be read: {error}. Install llmbatch[language]") from None
    rows = [
        "; ".join(f"{name}: {cell}" for name, cell in zip(names, line.split("\t"), strict=False) if cell)
        for line in lines
    ]
    return [rows[i % len(rows)] for i in range(count)]


def of_passages() -> str:
    """Whose the passages are, in a few words."""
    return f"licences and documentation of {len(packages())} installed packages, {len(words()):,} words"


def of_languages() -> str:
    """Whose the table is."""
    return f"the table of languages in language_data {version('language_data')}"


@cache
def _files() -> tuple[Path, ...]:
    root = Path(sysconfig.get_path("purelib"))
    found = (path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES or _NAMES.match(path.name))
    return tuple(sorted(path for path in found if path.is_file() and path.stat().st_size >= _SHORTEST))
