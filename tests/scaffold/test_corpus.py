from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.scaffold import corpus as module
from llmbatch.scaffold.corpus import Corpus, labels_of, look_at


def seen(tmp_path: Path, rows: list[dict[str, Any]]) -> Corpus:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return look_at(str(path))


WORDS = [f"a text of some words, the one with the number {number}" for number in range(12)]


@pytest.mark.parametrize(
    ("row", "text", "row_id", "label"),
    [
        (lambda n: {"id": n, "text": WORDS[n], "label": n % 2}, "text", "id", "label"),
        (lambda n: {"doc_id": f"d{n}", "body": WORDS[n], "summary": WORDS[n] * 2}, "body", "doc_id", None),
        (lambda n: {"text": "short", "story": WORDS[n] * 9}, "story", None, None),
        (lambda n: {"UUID": f"u{n}", "abstract": WORDS[n], "is_spam": n % 3 == 0}, "abstract", "UUID", None),
        (lambda n: {"id": n // 2, "content": WORDS[n], "kind": "ab"[n % 2]}, "content", None, "kind"),
        (lambda n: {"rowId": n, "text": WORDS[n], "text_category": "ab"[n % 2]}, "text", "rowId", "text_category"),
        (lambda n: {"n": n}, None, None, None),
    ],
)
def test_text_id_and_label_are_told_from_names_and_values(
    tmp_path: Path, row: Any, text: str | None, row_id: str | None, label: str | None
) -> None:
    corpus = seen(tmp_path, [row(number) for number in range(12)])
    assert (corpus.text, corpus.id, corpus.label) == (text, row_id, label)


def test_columns_have_types_lengths_and_how_many_rows_fill_them(tmp_path: Path) -> None:
    corpus = seen(
        tmp_path, [{"text": "abc", "n": 1}, {"text": "a", "n": 1.5}, {"text": None}, {"text": "abcde", "n": 2}]
    )
    text, number = corpus.columns
    assert (text.types, text.filled, text.lengths) == (("string",), 3, (1, 3, 5))
    assert (number.types, number.filled, number.lengths) == (("integer", "number"), 3, None)


def test_no_more_rows_are_looked_at_than_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 3)
    rows = [{"text": word} for word in WORDS]
    assert (seen(tmp_path, rows).rows, seen(tmp_path, rows).more) == (3, True)
    assert (seen(tmp_path, rows[:3]).rows, seen(tmp_path, rows[:3]).more) == (3, False)
    monkeypatch.setattr(module, "_CHARACTERS", len(WORDS[0]))
    assert (seen(tmp_path, rows).rows, seen(tmp_path, rows).more) == (2, True)


def test_labels_are_texts_in_an_order_that_the_rows_do_not_change(tmp_path: Path) -> None:
    corpus = seen(
        tmp_path, [{"text": word, "label": value} for word, value in zip(WORDS, [True, False] * 6, strict=True)]
    )
    assert labels_of(corpus.column("label")) == ["false", "true"]
    corpus = seen(tmp_path, [{"text": word, "label": value} for word, value in zip(WORDS, [10, 2, 1] * 4, strict=True)])
    assert labels_of(corpus.column("label")) == ["1", "2", "10"]
