from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import SourceError
from llmbatch.sources.base import Source
from llmbatch.sources.opening import guess_format

Write = Callable[..., Path]
Open = Callable[..., Source]

CHAT = {
    "custom_id": "r-1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0},
}
COMPLETION = {"custom_id": "r-2", "method": "POST", "url": "/v1/completions", "body": {"prompt": "once"}}


def test_a_request_is_a_row_with_the_whole_object_under_its_custom_id(write: Write, source: Open) -> None:
    path = write("a.jsonl", "\n".join(json.dumps(request) for request in (CHAT, COMPLETION)))
    rows = list(source(path, format="requests").rows())
    assert [(row.id, row.data) for row in rows] == [("r-1", CHAT), ("r-2", COMPLETION)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"custom_id":"x"}', "has no body"),
        ('{"body":{}}', "has no custom_id"),
        ('{"a":1}', "has no custom_id and no body"),
        ('{"custom_id":"x","body":"hi"}', "the body of this is not an object"),
        ('{"custom_id":null,"body":{}}', "no usable id in the field 'custom_id'"),
        ("oops", "not JSON"),
    ],
)
def test_a_line_that_is_no_request_is_malformed_and_its_neighbours_live(
    write: Write, source: Open, line: str, said: str
) -> None:
    rows = list(source(write("a.jsonl", f"{json.dumps(CHAT)}\n{line}\n{json.dumps(COMPLETION)}\n")).rows())
    assert [row.id for row in rows] == ["r-1", 1, "r-2"]
    assert rows[1].failure is not None
    assert "a.jsonl:2: " in rows[1].failure.message
    assert said in rows[1].failure.message


def test_requests_are_told_from_other_json_lines_by_their_first_line(write: Write) -> None:
    assert guess_format(str(write("a.jsonl", "\n" + json.dumps(CHAT)))) == "requests"
    assert guess_format(str(write("b.jsonl", '{"custom_id": "x", "text": "y"}'))) == "jsonl"
    assert guess_format(str(write("c.jsonl", "[1]"))) == "jsonl"
    assert guess_format(str(write("d.jsonl", "oops"))) == "jsonl"
    assert guess_format(str(write("e.jsonl", "[" * 100_000))) == "jsonl"


def test_with_a_prompt_rows_are_rows_also_where_they_look_like_requests(jobs: Any) -> None:
    rows = jobs.rows([{"custom_id": "a", "body": "hello"}, {"custom_id": "b", "body": "you"}])
    result = jobs.run(jobs.job(rows, prompt="{{ body }}"))
    assert [record["output"] for record in jobs.records()] == ["hello", "you"]
    assert result.exit_code == 0


def test_with_a_prompt_requests_are_requests_where_their_format_is_named(jobs: Any) -> None:
    rows = jobs.rows([{"custom_id": "a", "body": {"x": 1}}, {"custom_id": "b", "body": "you"}])
    jobs.run(jobs.job(rows, prompt="{{ body.x }}", input={"path": str(rows), "format": "openai"}))
    assert [(record["id"], record["status"]) for record in jobs.records()] == [("a", "ok"), (1, "failed")]


def bedrock(record_id: str | None, text: str = "x") -> str:
    return json.dumps({**({} if record_id is None else {"recordId": record_id}), "modelInput": {"prompt": text}}) + "\n"


def test_a_request_of_a_format_whose_ids_may_be_missing_is_called_by_its_index(write: Write, source: Open) -> None:
    path = write("a.jsonl", bedrock("one") + bedrock(None) + json.dumps({"recordId": None, "modelInput": {}}) + "\n")
    rows = list(source(path).rows())
    assert [(row.id, row.failure is None) for row in rows] == [("one", True), (1, True), (2, False)]
    named = list(source(path, id_field="recordId").rows())  # whoever names the field wants it in every row
    assert [row.failure is None for row in named] == [True, False, False]


def test_a_strict_input_is_refused_for_its_first_malformed_row(write: Write, source: Open) -> None:
    path = write("a.jsonl", bedrock("one") + "oops\n")
    assert len(list(source(path).rows())) == 2
    with pytest.raises(
        SourceError, match=r"a\.jsonl:2: not JSON.*With input\.strict such a row ends the job before it begins"
    ):
        source(path, strict=True)


def test_a_record_over_a_limit_is_malformed(write: Write, source: Open) -> None:
    path = write("a.jsonl", '"1234567890"\n"123"\n')
    first, second = source(path, format="sagemaker", max_record_bytes=11).rows()
    assert first.failure is not None and "a record of 12 bytes, and one may have 11" in first.failure.message
    assert second.failure is None
    with pytest.raises(SourceError, match=r"input\.max_record_bytes is for .*, and .* is read as jsonl"):
        source(write("b.jsonl", '{"a": 1}\n'), max_record_bytes=5)
