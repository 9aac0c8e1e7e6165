"""The name of a corpus in; what its first rows show of it, column by column, out, with a guess which has text, id and label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median
from typing import Any, NamedTuple

from llmbatch.core.errors import SourceError, UsageError
from llmbatch.core.types import Row
from llmbatch.core.words import near, type_name
from llmbatch.formats import FORMATS as WIRE_FORMATS
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.opening import guess_format, open_source

ROWS = 1_000  # that are looked at
_CHARACTERS = 32 << 20  # of texts that are looked at, but for the row in which that is reached
_MOST_LABELS = 30
_TEXTS = (
    "text", "content", "body", "document", "article", "review", "message", "comment", "question", "prompt", "sentence", "abstract",
    "description", "transcript", "input",
)  # fmt: skip
_LABELS = ("label", "class", "category", "sentiment", "intent", "topic", "tag", "rating", "stars", "target")
_REFERENCES = (
    "answer",
    "reference",
    "gold",
    "expected",
    "target",
    "label",
    "output",
    "summary",
    "highlights",
    "translation",
)


class Lengths(NamedTuple):
    """Characters of a column's texts."""

    shortest: int
    median: int
    longest: int


@dataclass(frozen=True, slots=True)
class Column:
    """What the rows that were looked at have in a column. ``values`` are its different texts, numbers and truths, the most
    frequent first."""

    name: str
    types: tuple[str, ...]  # as JSON calls them, the most frequent first
    filled: int  # rows in which it is neither missing nor null
    values: tuple[str | int | float | bool, ...]
    lengths: Lengths | None = None  # where there are texts

    @property
    def is_text(self) -> bool:
        return self.types[:1] == ("string",)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus, as far as it was looked at. ``text``, ``id`` and ``label`` are names of columns, each only a guess."""

    path: str
    format: str
    rows: int
    more: bool  # whether there are further rows
    broken: Sequence[str]  # what is wrong with rows that could not be read
    columns: tuple[Column, ...]
    text: str | None = None
    id: str | None = None
    label: str | None = None

    def column(self, name: str) -> Column:
        """Raises ``UsageError`` for one that is not there."""
        found = next((column for column in self.columns if column.name == name), None)
        if found is None:
            names = [column.name for column in self.columns]
            raise UsageError(
                f"{self.path}: there is no column {name!r}{near(name, names)}; its columns are {', '.join(names)}"
            )
        return found

    def with_columns(self, text: str | None, id_: str | None, label: str | None) -> Corpus:
        """With the columns that a person named in place of the guesses. Raises ``UsageError``."""
        for name in (text, id_, label):
            if name is not None:
                self.column(name)
        return replace(self, text=text or self.text, id=id_ or self.id, label=label or self.label)

    @property
    def reference(self) -> str | None:
        """The column that may say what would be right, for an evaluation."""
        others = [column for column in self.columns if column.name not in (self.text, self.id) and column.filled]
        return self.label or _named(others, _REFERENCES)


def look_at(path: str) -> Corpus:
    """Read the first rows of a corpus. Raises ``SourceError``, also for one of ready-made requests, which need no prompt."""
    name = guess_format(path)
    if name in WIRE_FORMATS:
        raise SourceError(
            f"{path}: holds ready-made requests ({name}), which need no prompt: llmbatch run --input {path} --model MODEL "
            "--output DIR"
        )
    source = open_source(SourceSettings(path=path, format=name))
    seen: dict[str, _Seen] = {}
    rows = characters = 0
    broken: list[str] = []
    more = False
    for row in islice(source.rows(), ROWS + 1):
        if rows == ROWS or characters > _CHARACTERS:
            more = True
            break
        rows += 1
        if row.failure is not None:
            broken.append(row.failure.message)
            continue
        characters += _add(seen, row)
    columns = tuple(each.column(name) for name, each in seen.items())
    if not columns:
        raise SourceError(
            f"{path}: none of the first {rows:,} rows could be read: {broken[0]}"
            if broken
            else f"{path}: its rows have no fields"
        )
    corpus = Corpus(path, name, rows, more, broken, columns)
    good = rows - len(broken)
    id_ = "path" if name == "documents" else _id_of(columns, good)
    text = _text_of([column for column in columns if column.name != id_])
    return replace(corpus, text=text, id=id_, label=_label_of([c for c in columns if c.name not in (text, id_)], good))


@dataclass(slots=True)
class _Seen:
    filled: int = 0
    types: Counter[str] = field(default_factory=Counter)
    values: Counter[str | int | float | bool] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)

    def column(self, name: str) -> Column:
        lengths = Lengths(min(self.lengths), round(median(self.lengths)), max(self.lengths)) if self.lengths else None
        types = tuple(kind for kind, _ in self.types.most_common())
        return Column(name, types, self.filled, tuple(value for value, _ in self.values.most_common()), lengths)


def _add(seen: dict[str, _Seen], row: Row) -> int:
    """Count a row's values; returns the characters of its texts."""
    characters = 0
    for name, value in row.data.items():
        column = seen.setdefault(name, _Seen())
        if value is None:
            continue
        column.filled += 1
        column.types[type_name(value)] += 1
        if isinstance(value, str):
            column.lengths.append(len(value))
            characters += len(value)
        if isinstance(value, str | int | float):
            column.values[value] += 1
    return characters


def _text_of(columns: Sequence[Column]) -> str | None:
    """The column of the longest texts, but for one that is called as texts are and has some that are not much shorter."""
    texts = [column for column in columns if column.is_text and column.lengths is not None]
    if not texts:
        return None
    longest = max(texts, key=_usual_length)
    enough = [column for column in texts if 4 * _usual_length(column) >= _usual_length(longest)]
    return _named(enough, _TEXTS) or longest.name


def _usual_length(column: Column) -> int:
    return column.lengths.median if column.lengths is not None else 0


def _id_of(columns: Sequence[Column], rows: int) -> str | None:
    """A column called as ids are, in which every row has a value of its own."""
    unique = [
        column
        for column in columns
        if column.filled == len(column.values) == rows and set(column.types) <= {"string", "integer"}
    ]
    named = [column.name for column in unique if _is_id(column.name)]
    return "id" if "id" in named else next(iter(named), None)


def _is_id(name: str) -> bool:
    parts = name.replace("-", "_").lower().strip("_").split("_")
    return bool({"id", "uuid", "guid", "key"} & set(parts)) or name.endswith(("Id", "ID"))


def _label_of(columns: Sequence[Column], rows: int) -> str | None:
    """A column of a few values that come again and again; one that is called as labels are first."""
    few = [
        column
        for column in columns
        if set(column.types) <= {"string", "integer", "boolean"}
        and 2 <= len(column.values) <= _MOST_LABELS
        and 2 * len(column.values) <= max(rows, 4)
        and (column.lengths is None or column.lengths.longest <= 60)
    ]
    return _named(few, _LABELS) or next((column.name for column in few if column.is_text), None)


def _named(columns: Sequence[Column], names: Sequence[str]) -> str | None:
    """The first column that is called like one of the names, else one in whose name such a word stands."""
    by_name: Mapping[str, str] = {column.name.lower(): column.name for column in reversed(columns)}
    whole = next((by_name[name] for name in names if name in by_name), None)
    return whole or next(_with_word(columns, names), None)


def _with_word(columns: Sequence[Column], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        for column in columns:
            if name in column.name.lower().replace("-", "_").split("_"):
                yield column.name


def labels_of(column: Column) -> list[str]:
    """A column's values as labels, in a fixed order."""
    values: list[Any] = sorted(column.values, key=lambda value: (isinstance(value, str), value))
    return [str(value).lower() if isinstance(value, bool) else str(value) for value in values]


__all__ = ["ROWS", "Column", "Corpus", "Lengths", "labels_of", "look_at"]
