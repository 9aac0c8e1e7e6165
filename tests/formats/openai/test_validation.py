from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.formats.openai.validation import Problem, problems

EXAMPLES = Path(__file__).parents[2] / "examples" / "azure" / "openai"


def lines(*requests: Any) -> list[bytes]:
    return [each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in requests]


def request(
    custom_id: Any = "a", url: Any = "/v1/chat/completions", method: Any = "POST", **body: Any
) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": method, "url": url, "body": {"model": "demo", **body}}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("invalid/*.jsonl")), ids=lambda path: path.stem)
def test_each_example_is_bad_for_the_reason_that_it_is_named_after(path: Path) -> None:
    with path.open("rb") as stream:
        [problem] = problems(stream, endpoint="/v1/chat/completions")
    assert problem.code == path.stem
    content = path.read_bytes()
    assert problem.line == (None if not content else len(content.splitlines()))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_file_whose_rows_fail_by_themselves_is_good(path: Path) -> None:
    with path.open("rb") as stream:
        assert list(problems(stream, models={"demo"})) == []


@pytest.mark.parametrize(
    ("content", "settings", "code", "line"),
    [
        (lines(request("a"), request("b"), request("c")), {"most": 2}, "too_many_tasks", 3),
        (lines(request(model="x")), {"models": {"demo", "poet"}}, "model_not_found", 1),
        (lines(request(), request("b", model="x")), {}, "model_mismatch", 2),
        (lines(request(), request("b", "/v1/responses")), {}, "url_mismatch", 2),
        (lines(request()), {"endpoint": "/v1/responses"}, "url_mismatch", 1),
        (lines(b"\n", b"[1]\n"), {}, "invalid_request", 2),
        (lines(request(url="/v1/moderations")), {}, "invalid_request", 1),
        (lines(request(custom_id=5)), {}, "invalid_request", 1),
        (lines(request(custom_id="")), {}, "invalid_request", 1),
        (lines(request(method="GET")), {}, "invalid_request", 1),
        (lines({"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": []}), {}, "invalid_request", 1),
        (lines(b"\xff\n"), {}, "invalid_json_line", 1),
        (lines(b" \n", b"\n"), {}, "empty_file", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_file_is_told_with_the_line(content: list[bytes], settings: Any, code: str, line: int | None) -> None:
    assert [(problem.code, problem.line) for problem in problems(content, **settings)] == [(code, line)]


def test_the_batch_s_endpoint_may_be_in_either_spelling() -> None:
    assert list(problems(lines(request(url="/chat/completions")), endpoint="/v1/chat/completions")) == []
    assert list(problems(lines(request()), endpoint="/chat/completions")) == []


def test_every_line_with_an_id_of_an_earlier_one_is_told_in_order() -> None:
    numbers = [number % 700 for number in range(1000)]
    found = list(problems(lines(*(request(str(number)) for number in numbers))))
    assert [problem.line for problem in found] == list(range(701, 1001))
    assert found[0] == Problem(
        "duplicate_custom_id", "line 1 has the same custom_id: each request needs one of its own", 701, "custom_id"
    )
