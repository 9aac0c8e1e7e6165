from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import SourceError
from llmbatch.job.job import job_from
from tests.examples.alike import difference, difference_of_lines

EXAMPLES = Path(__file__).parents[1] / "examples" / "azure" / "openai"
LAYOUT = {"layout": {"name": "openai_batch"}}


def run(jobs: Any, rows: Path, **sections: Any) -> Path:
    answer = {} if "program" in sections else {"answer": {"allow_truncated": True}}
    given = {"prompt": None, "model": "demo", "sinks": LAYOUT, **answer, **sections}
    folder: Path = jobs.run(jobs.job(rows, **given)).folder / "output"
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_the_example_s_output_and_error_file_are_as_expected(jobs: Any) -> None:
    folder = run(jobs, EXAMPLES / "chat.jsonl")
    for name in ("output.jsonl", "error.jsonl"):
        assert difference_of_lines(folder / name, EXAMPLES / "expected" / name) is None


def test_azure_s_urls_are_answered_and_its_error_file_is_there_though_empty(jobs: Any) -> None:
    folder = run(
        jobs, EXAMPLES / "chat.azure.jsonl", sinks={"layout": {"name": "openai_batch", "settings": {"azure": True}}}
    )
    assert [line["custom_id"] for line in lines(folder / "output.jsonl")] == ["request-0", "request-1", "request-2"]
    assert (folder / "error.jsonl").read_bytes() == b""


def test_a_file_without_lines_is_not_there(jobs: Any) -> None:
    assert [path.name for path in run(jobs, EXAMPLES / "chat.azure.jsonl").iterdir()] == ["output.jsonl"]


@pytest.mark.parametrize("name", ["completions", "responses"])
def test_the_other_endpoints_are_answered_in_their_own_form(jobs: Any, name: str) -> None:
    [line] = lines(run(jobs, EXAMPLES / f"{name}.jsonl") / "output.jsonl")
    body = line["response"]["body"]
    said = body["choices"][0]["text"] if name == "completions" else body["output"][0]["content"][0]["text"]
    assert said == "one loaf of rye"


def test_a_request_with_several_texts_gets_as_many_embeddings(jobs: Any) -> None:
    script = {"dimensions": 8}
    [line] = lines(run(jobs, EXAMPLES / "embeddings.jsonl", script=script, program={"name": "embed"}) / "output.jsonl")
    data = line["response"]["body"]["data"]
    assert [(each["index"], len(each["embedding"])) for each in data] == [(0, 8), (1, 8)]
    assert data[0]["embedding"] != data[1]["embedding"]


def test_an_embedding_of_a_job_for_text_is_the_row_s_error(jobs: Any) -> None:
    [line] = lines(run(jobs, EXAMPLES / "embeddings.jsonl") / "error.jsonl")
    assert line["response"]["status_code"] == 400
    assert "take --program embed" in line["response"]["body"]["error"]["message"]


def test_a_line_that_is_broken_has_its_line_in_the_error_file(jobs: Any) -> None:
    folder = run(jobs, EXAMPLES / "invalid" / "invalid_json_line.jsonl")
    [line] = lines(folder / "error.jsonl")
    assert (line["custom_id"], line["response"]["status_code"]) == ("1", 400)
    assert "invalid_json_line.jsonl:2" in line["response"]["body"]["error"]["message"]


def completion(custom_id: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": {"model": "demo", **body}}


def test_prompts_times_samples_are_choices_in_order_and_token_ids_are_asked_as_they_are(jobs: Any) -> None:
    rows = jobs.rows(
        [
            completion("several", prompt=["one", "two"], n=2, seed=1, temperature=1),
            completion("ids", prompt=list(b"three")),
            completion("lists of ids", prompt=[list(b"four"), list(b"five")], max_tokens=3),
        ]
    )
    several, ids, cut = lines(run(jobs, rows) / "output.jsonl")
    assert [choice["text"] for choice in several["response"]["body"]["choices"]] == ["one", "one", "two", "two"]
    assert [choice["text"] for choice in ids["response"]["body"]["choices"]] == ["three"]
    assert ids["response"]["body"]["usage"]["prompt_tokens"] == 5
    choices = cut["response"]["body"]["choices"]
    assert [(choice["text"], choice["finish_reason"]) for choice in choices] == [("fou", "length"), ("fiv", "length")]


def test_of_a_request_with_several_prompts_one_that_does_not_fit_is_named(jobs: Any) -> None:
    rows = jobs.rows([completion("a", prompt=["short", "x" * 200])])
    [line] = lines(run(jobs, rows, script={"context_length": 100}) / "error.jsonl")
    error = line["response"]["body"]["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith("sample 1 of 2 failed")


def test_several_prompts_are_not_for_what_makes_one_value_of_a_row(jobs: Any) -> None:
    rows = jobs.rows([completion("a", prompt=["one", "two"])])
    [line] = lines(run(jobs, rows, plan={"overflow": "chunk"}) / "error.jsonl")
    assert "brings 2 prompts" in line["response"]["body"]["error"]["message"]


def test_equal_prompts_of_one_request_are_asked_once(jobs: Any) -> None:
    rows = jobs.rows([completion("a", prompt=["same", "same", "other"])])
    run(jobs, rows)
    assert jobs.report()["tokens"]["folded"]["prompt_tokens"] == len("same")


def without_times(path: Path) -> list[Any]:
    """The lines, without what says when the run began."""
    said = [line["response"] for line in lines(path)]
    return [{**response["body"], "created": 0} for response in said]


@pytest.mark.parametrize("fault", ["journal-opened:3", "part-sealed:2", "results-written:1"])
def test_a_killed_run_is_finished_by_the_same_command_with_the_same_bytes(jobs: Any, fault: str) -> None:
    rows = jobs.rows([completion(f"r{i}", prompt=[f"one {i}", f"two {i}"], n=2, seed=1) for i in range(40)])
    data = jobs.data(
        rows,
        {"latency": 0.002},
        prompt=None,
        sinks=LAYOUT,
        run={"window": 8},
        model="demo",
        output=str(jobs.path / "killed"),
    )
    jobs.killed(data, fault)
    jobs.run(job_from(data))
    whole = jobs.run(job_from({**data, "output": str(jobs.path / "whole")})).folder
    killed = jobs.path / "killed"
    assert difference(*(without_times(folder / "output" / "output.jsonl") for folder in (killed, whole))) is None
    assert [line["custom_id"] for line in lines(killed / "output" / "output.jsonl")] == [f"r{i}" for i in range(40)]


STRICT = {"format": "openai", "options": {"validation": "strict"}}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("invalid/*.jsonl")), ids=lambda path: path.stem)
def test_a_file_with_which_the_api_would_not_begin_is_refused_where_that_is_asked_for(jobs: Any, path: Path) -> None:
    with pytest.raises(SourceError, match=path.stem):
        run(jobs, path, input=STRICT)
    assert not list((jobs.path / "out" / "parts").iterdir())


def test_a_file_with_which_it_would_begin_is_run(jobs: Any) -> None:
    assert len(lines(run(jobs, EXAMPLES / "chat.jsonl", input=STRICT) / "error.jsonl")) == 1


def test_an_empty_answer_is_an_answer(jobs: Any) -> None:
    rows = jobs.rows([completion("a", prompt="x")])
    script = {"rules": [{"answer": ""}]}
    [line] = lines(run(jobs, rows, script=script) / "output.jsonl")
    assert line["response"]["body"]["choices"][0]["text"] == ""


@pytest.mark.parametrize(
    ("answer", "file"),
    [({}, "output"), ({"choice": ["yes"], "constrained": False}, "error"), ({"reject": ["/sorry/"]}, "error")],
)
def test_an_answer_that_was_cut_off_is_an_error_where_the_job_itself_asks_for_a_check(
    jobs: Any, answer: dict[str, Any], file: str
) -> None:
    script = {"rules": [{"answer": "ye", "finish_reason": "length"}]}
    folder = run(jobs, EXAMPLES / "chat.azure.jsonl", script=script, answer=answer)
    assert [path.name for path in folder.iterdir()] == [f"{file}.jsonl"]
