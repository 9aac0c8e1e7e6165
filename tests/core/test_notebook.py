from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from llmbatch.core.notebook import bar, in_notebook, records_html
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Status, Usage

WRONG = Failure(FailureKind.SCHEMA, "<age> is missing")


def test_a_record_shows_what_came_of_it_and_why_answers_were_sent_back() -> None:
    back = Attempt(RequestKey(0), Failure(FailureKind.INVALID_JSON, "no JSON"), Usage(10, 2), text="{<")
    record = Record(0, "a", Status.INVALID, attempts=2, usage=Usage(1200, 34), failure=WRONG, raw="{}", history=(back,))
    page = record._repr_html_()
    for said in ("invalid", "schema: &lt;age&gt; is missing", "sent back, 1", "{&lt;", "no JSON", "1,200 in, 34 out"):
        assert said in page


def test_a_long_answer_is_cut_and_a_vector_shows_its_first_numbers() -> None:
    assert len(Record(0, "a", Status.OK, "x" * 100_000)._repr_html_()) < 4000
    assert "[1.0, 1.0, 1.0, 1.0" in Record(0, "a", Status.OK, [1.0] * 4096)._repr_html_()


def test_a_table_of_records_says_for_each_what_came_or_what_went_wrong() -> None:
    page = records_html([Record(0, "a", Status.OK, {"n": 1}), Record(1, "b", Status.INVALID, failure=WRONG)])
    assert "{&quot;n&quot;: 1}" in page and "&lt;age&gt; is missing" in page


def test_a_bar_has_a_piece_for_each_status_and_leaves_room_for_what_is_not_done() -> None:
    page = bar({"ok": 30, "failed": 10, "skipped": 0}, 80)
    assert "width:37.50%" in page and "width:12.50%" in page and "skipped" not in page
    assert bar({"ok": 0}, 0) == ""


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        (None, False),
        (SimpleNamespace(), False),
        (SimpleNamespace(kernel=None), False),
        (SimpleNamespace(kernel=object()), True),
    ],
    ids=["no shell", "a terminal", "a shell without a kernel", "a kernel"],
)
def test_only_the_kernel_of_a_notebook_is_one(shell: Any, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert in_notebook() is expected


def test_without_ipython_there_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
