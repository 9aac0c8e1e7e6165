"""Scored examples in, lines of ``examples.jsonl`` out, and back; the format is in ``evals/base.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.errors import FolderError
from llmbatch.evals.base import Example, Value

EXAMPLES = "examples.jsonl"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class ScoredExample(NamedTuple):
    """A line of ``examples.jsonl``."""

    id: Any
    category: str | None
    cluster: str | None
    references: Sequence[Any]
    answers: Sequence[Any]
    values: Mapping[str, Value]
    unread: Sequence[Any]
    error: str | None


def scored_line(example: Example, values: Mapping[str, Value]) -> bytes:
    """The line of an example, with its newline."""
    scored = ScoredExample(
        example.id, example.category, example.cluster, list(example.references), list(example.answers), dict(values),
        example.unread, example.error,
    )  # fmt: skip
    return _encode(scored._asdict()).encode("utf-8", "replace") + b"\n"


def read_examples(folder: Path) -> Iterator[ScoredExample]:
    """The scored examples of a run folder, in the order of its input. Raises ``FolderError``."""
    path = folder / EXAMPLES
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield ScoredExample(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise FolderError(
                        f"{path}:{number}: this is no line of an evaluation ({error}); run llmbatch eval with the same "
                        "arguments again, which writes the file anew"
                    ) from error
    except FileNotFoundError:
        raise FolderError(
            f"{folder}: there is no {EXAMPLES} in it, so it is no finished run of llmbatch eval"
        ) from None
