from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmbatch.job.job import job_from
from llmbatch.sinks.base import SinkSettings

MISFIT = {"when": {"matches": "misfit"}, "answer": "none"}


def request(text: str, **config: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], "generationConfig": config}


def run(jobs: Any, name: str, rows: list[Any], **settings: Any) -> Path:
    """The folder of the output of a job over some requests."""
    sinks = {"layout": {"name": name, "settings": settings}}
    data = jobs.data(
        jobs.rows(rows), {"rules": [MISFIT]}, sinks=sinks, input={"format": name}, retry={"max_attempts": 1}
    )
    del data["prompt"]
    folder: Path = jobs.run(job_from(data)).folder / "output"
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_of_vertex_has_a_line_for_every_line_with_what_stood_beside_the_request(jobs: Any) -> None:
    rows = [{"request": request("a"), "note": 3}, "{cut", {"prompt": "b"}]
    [folder] = run(jobs, "gemini", rows).iterdir()
    assert folder.name.startswith("prediction-model-2")
    one, two, three = lines(folder / "predictions.jsonl")
    assert (one["note"], one["status"], one["request"]) == (3, "", request("a"))
    assert one["response"]["candidates"][0]["content"]["parts"] == [{"text": "a"}]
    assert "rows.jsonl:2: not JSON" in two["status"]
    assert (three["prompt"], three["response"]) == ("b", {})
    assert "request must be an object" in three["status"]
    assert {line["processed_time"] for line in (one, two, three)} == {
        folder.name.removeprefix("prediction-model-").removesuffix("Z") + "+00:00"
    }


@pytest.mark.parametrize("errors", ["lenient", "strict"])
def test_an_answer_that_is_not_as_its_request_asks(jobs: Any, errors: str) -> None:
    config = {"responseMimeType": "application/json", "responseSchema": {"type": "OBJECT", "properties": {}}}
    rows = [{"key": "a", "request": request("misfit", **config)}, {"key": "b", "request": request("fits", **config)}]
    one, two = lines(run(jobs, "gemini_api", rows, errors=errors) / "responses.jsonl")
    assert two["response"]["candidates"][0]["content"]["parts"] == [{"text": "{}"}]
    if errors == "strict":
        assert one["error"]["code"] == 9
    else:
        assert one["response"]["candidates"][0]["content"]["parts"] == [{"text": "none"}]


def test_an_output_bears_the_time_that_it_is_given(jobs: Any) -> None:
    [folder] = run(jobs, "gemini", [{"request": request("a")}], time="2026-11-24T14:14:15.123+01:00").iterdir()
    assert folder.name == "prediction-model-2026-11-24T13:14:15.123Z"
    assert lines(folder / "predictions.jsonl")[0]["processed_time"] == "2026-11-24T13:14:15.123+00:00"


def test_an_answer_that_is_cut_off_is_no_error(jobs: Any) -> None:
    data = jobs.data(
        jobs.rows([{"key": "a", "request": request("eleven more", maxOutputTokens=6)}]), answer={"allow_truncated": True},
        input={"format": "gemini_api"}, sinks={"layout": {"name": "gemini_api"}},
    )  # fmt: skip
    del data["prompt"]
    [line] = lines(jobs.run(job_from(data)).folder / "output" / "responses.jsonl")
    assert line["response"]["candidates"] == [
        {"content": {"role": "model", "parts": [{"text": "eleven"}]}, "finishReason": "MAX_TOKENS"}
    ]


def test_several_candidates_are_one_line(jobs: Any) -> None:
    [line] = lines(
        run(jobs, "gemini_api", [{"key": "a", "request": request("x", candidateCount=2)}]) / "responses.jsonl"
    )
    assert [candidate["index"] for candidate in line["response"]["candidates"]] == [0, 1]


def test_settings_that_are_not_known_are_refused() -> None:
    with pytest.raises(ValidationError, match="the settings of gemini are errors, time"):
        SinkSettings(layout={"name": "gemini", "settings": {"shards": 2}})
