"""Whole runs that ask for numbers and not for answers: vectors, classes, scores of pairs, orders of documents."""

from __future__ import annotations

import json
import subprocess
import sys
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import llmbatch
from llmbatch.cli.main import main
from llmbatch.core.errors import JobError
from llmbatch.core.types import Pooling, Prompt, Request, RequestKey, Sampling
from llmbatch.engines.scripted.kind import KIND
from llmbatch.engines.scripted.pooled import numbers_of
from llmbatch.engines.scripted.script import Script
from llmbatch.job.job import job_from
from llmbatch.measure.job_survey import Assumptions, survey_job

EMBED = {"prompt": None, "program": {"name": "embed"}}


def rows_of(count: int, distinct: int | None = None) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "text": f"text {i % (distinct or count)}"} for i in range(count)]


def vector(text: str, **settings: Any) -> array[float]:
    """What the scripted engine gives for a text."""
    request = Request(RequestKey(0), Prompt(text=text), Sampling(), token_ids=list(text.encode()))
    return numbers_of(request, Pooling("embed", **settings), Script())


def data(jobs: Any, rows: Path, script: Any = None, **sections: Any) -> dict[str, Any]:
    made: dict[str, Any] = jobs.data(rows, script, **{**EMBED, **sections})
    return {name: section for name, section in made.items() if section is not None}


def run(
    jobs: Any, rows: list[dict[str, Any]], script: Any = None, to: str = "out", **sections: Any
) -> list[dict[str, Any]]:
    jobs.run(job_from(data(jobs, jobs.rows(rows), script, output=str(jobs.path / to), **sections)))
    found: list[dict[str, Any]] = jobs.records(to)
    return found


# vectors


def test_every_row_has_the_vector_of_its_text_or_a_record_that_says_why_not(jobs: Any) -> None:
    records = run(jobs, [{"text": "one"}, {"text": " "}, {"no": 1}, {"text": "two"}])
    assert [record["status"] for record in records] == ["ok", "failed", "failed", "ok"]
    for at, text in ((0, "one"), (3, "two")):
        assert array("f", records[at]["output"]) == vector(text)
        assert records[at]["usage"]["prompt_tokens"] == 3
        assert records[at]["usage"]["completion_tokens"] == 0
    assert [records[at]["error"]["kind"] for at in (1, 2)] == ["empty_prompt", "prompt"]
    assert [records[at]["output"] for at in (1, 2)] == [None, None]


def test_the_command_needs_no_prompt_and_takes_another_field(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(jobs.path)
    jobs.rows([{"body": "one"}], "corpus.jsonl")
    asked = ["run", "--program", "embed", "--input", "corpus.jsonl", "--model", "m", "--engine", "scripted", "--quiet"]
    assert CliRunner().invoke(main, [*asked, "--map", "text=body", "--output", "out"]).exit_code == 0
    assert array("f", jobs.records()[0]["output"]) == vector("one")
    assert CliRunner().invoke(main, [*asked, "--output", "other"]).exit_code == 3
    assert "--map text=FIELD" in jobs.records("other")[0]["error"]["message"]


def test_a_prompt_that_is_given_as_text_is_plain_text(jobs: Any) -> None:
    (record,) = run(jobs, [{"text": "one"}], prompt={"path": "query: {{ text }}"})
    assert array("f", record["output"]) == vector("query: one")


def test_dimensions_and_normalizing_are_asked_for(jobs: Any) -> None:
    program = {"name": "embed", "settings": {"dimensions": 5, "normalize": False}}
    (record,) = run(jobs, [{"text": "one"}], program=program)
    assert array("f", record["output"]) == vector("one", dimensions=5, activation=False)
    assert np.linalg.norm(vector("one")) == pytest.approx(1, rel=1e-6)
    assert np.linalg.norm(record["output"]) != pytest.approx(1, rel=1e-2)


def test_equal_texts_are_computed_once(jobs: Any) -> None:
    records = run(jobs, rows_of(40, distinct=10), run={"window": 16})
    assert len({json.dumps(record["output"]) for record in records}) == 10
    report = jobs.report()
    assert report["rows"]["folded"] == 30
    assert report["tokens"]["useful"]["prompt_tokens"] == 60


def test_answers_of_earlier_runs_are_those_of_the_same_settings_alone(jobs: Any) -> None:
    cache = {"cache": str(jobs.path / "cache.db")}
    first = run(jobs, rows_of(5), reuse=cache)
    assert run(jobs, rows_of(5), to="again", reuse=cache) == first
    assert jobs.report("again")["rows"]["cached"] == 5
    other = {"name": "embed", "settings": {"dimensions": 3}}
    assert {len(record["output"]) for record in run(jobs, rows_of(5), to="other", reuse=cache, program=other)} == {3}
    assert jobs.report("other")["rows"]["cached"] == 0


def test_numbers_that_are_not_finite_fail_their_row_and_are_not_asked_for_again(jobs: Any) -> None:
    script = {"rules": [{"when": {"index": 1}, "answer": "[0.5, NaN, 1]"}]}
    records = run(jobs, rows_of(3), script)
    assert [record["status"] for record in records] == ["ok", "failed", "ok"]
    assert records[1]["error"]["kind"] == "not_finite"
    assert "1 of the 3 numbers" in records[1]["error"]["message"]
    assert records[1]["attempts"] == 1


@pytest.mark.parametrize("name", ["embed", "classify"])
def test_an_answer_without_numbers_fails_its_row_alone(jobs: Any, name: str) -> None:
    records = run(jobs, rows_of(3), {"rules": [{"when": {"index": 1}, "answer": "[]"}]}, program={"name": name})
    assert [record["status"] for record in records] == ["ok", "failed", "ok"]
    assert records[1]["error"]["message"] == "the engine gave no numbers"


def test_what_the_engine_fails_at_once_is_asked_for_once_more(jobs: Any) -> None:
    script = {"rules": [{"when": {"attempt": 1, "index": 1}, "fail": "not now"}]}
    records = run(jobs, rows_of(2), script)
    assert [record["attempts"] for record in records] == [1, 2]
    assert array("f", records[1]["output"]) == vector("text 1")


@pytest.mark.parametrize("engine", [{"hosted": True}, {"replicas": 3}], ids=["hosted", "replicas"])
def test_engines_elsewhere_and_several_give_the_same_bytes(jobs: Any, engine: dict[str, Any]) -> None:
    run(jobs, rows_of(60), run={"window": 16})
    run(jobs, rows_of(60), to="other", run={"window": 16}, engine=engine)
    assert jobs.results("other") == jobs.results()


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("embed", "journal-append:2"),
        ("embed", "journal-torn:2"),
        ("embed", "part-sealed:1"),
        ("classify", "journal-torn:2"),
        ("score_pairs", "journal-append:2"),
        ("rerank", "journal-torn:2"),
    ],
)
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(jobs: Any, program: str, fault: str) -> None:
    pairs = (
        {"query": f"text {i % 45}", "document": f"of {i % 7}", "documents": [f"text {i % 9}", "of 3"]}
        for i in range(60)
    )
    rows = jobs.rows([{**row, **pair} for row, pair in zip(rows_of(60, distinct=45), pairs, strict=True)])
    script = {"latency": 0.05, "jitter": 0.9, "concurrency": 8}
    parts: dict[str, Any] = {"program": {"name": program}, "run": {"window": 16}, "sinks": {"formats": ["parquet"]}}
    jobs.run(job_from(data(jobs, rows, script, **parts, output=str(jobs.path / "whole"))))
    jobs.killed(data(jobs, rows, script, **parts), fault)
    jobs.run(job_from(data(jobs, rows, script, **parts)))
    assert jobs.results() == jobs.results("whole")
    assert [record["status"] for record in jobs.records()] == ["ok"] * 60
    tables = [(jobs.path / name / "results.parquet").read_bytes() for name in ("out", "whole")]
    assert tables[0] == tables[1]


def test_a_window_ends_before_its_vectors_are_too_much(jobs: Any) -> None:
    run(jobs, rows_of(60), {"dimensions": 100}, run={"window_characters": 50_000})
    sizes = [json.loads(path.read_text())["rows"] for path in sorted((jobs.path / "out" / "parts").glob("*.meta.json"))]
    assert sum(sizes) == 60
    assert sizes[0] == 2  # of vectors of which nothing is known yet
    assert max(sizes) <= 42


@pytest.mark.parametrize("mode", ["truncate-tail", "truncate-head"])
def test_a_text_that_is_too_long_fails_alone_or_is_cut(jobs: Any, mode: str) -> None:
    rows = [{"text": "short"}, {"text": "long " * 20}]
    records = run(jobs, rows, {"context_length": 30})
    assert records[1]["error"]["kind"] == "too_long"
    assert "answer" not in records[1]["error"]["message"]
    records = run(jobs, rows, {"context_length": 30}, to=mode, plan={"overflow": mode})
    assert [record["status"] for record in records] == ["ok", "ok"]
    assert records[1]["usage"]["prompt_tokens"] == 30
    text = ("long " * 20)[:30] if mode == "truncate-tail" else ("long " * 20)[-30:]
    assert array("f", records[1]["output"]) == vector(text)


def test_a_text_that_fills_the_context_fits(jobs: Any) -> None:
    records = run(jobs, [{"text": "x" * 30}, {"text": "x" * 31}], {"context_length": 30})
    assert [record["status"] for record in records] == ["ok", "failed"]


# the files


def test_parquet_has_lists_of_fixed_size_and_null_for_a_row_that_failed(jobs: Any) -> None:
    sinks = {"formats": ["parquet", "shards", "by_file"], "shard_format": "parquet", "rows_per_shard": 2}
    records = run(jobs, [{"text": ""}, {"text": "one"}, {"text": "two"}], sinks=sinks)
    places = ["results.parquet", "results-00000-of-00002.parquet", "results-00001-of-00002.parquet"]
    for name in (*places, "results/rows.parquet"):
        assert pq.read_schema(jobs.path / "out" / name).field("output").type == pa.list_(pa.float32(), 16), name
    outputs = pq.read_table(jobs.path / "out" / "results.parquet")["output"].to_pylist()
    assert outputs[0] is None
    assert [array("f", output) for output in outputs[1:]] == [vector("one"), vector("two")]
    assert records[0]["output"] is None


def test_parquet_without_any_vector_is_written_all_the_same(jobs: Any) -> None:
    run(jobs, [{"text": ""}], sinks={"formats": ["parquet"]})
    assert pq.read_table(jobs.path / "out" / "results.parquet")["output"].to_pylist() == [None]


def test_openai_s_output_has_them_as_its_embeddings(jobs: Any) -> None:
    (record,) = run(jobs, [{"text": "one"}], sinks={"formats": ["openai"]})
    line = json.loads((jobs.path / "out" / "results.openai.jsonl").read_text())
    assert line["response"]["body"] == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": record["output"]}],
        "model": "any",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


def test_python_has_them_as_arrays(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"text": ""}]
    done = llmbatch.run(program="embed", model="m", input=rows, output=tmp_path / "out", engine={"name": "scripted"})
    one, none = done.vectors()
    assert none is None
    assert one is not None and one.dtype == np.float32
    assert one.tobytes() == vector("one").tobytes()
    assert done.to_dataset().features["output"].length == 16


# what is wrong with a job is said before anything is begun


def test_an_engine_that_has_no_numbers_is_refused(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.engines.scripted.kind.KIND", replace(KIND, pooled=None))
    with pytest.raises(JobError, match="asks for numbers, and the scripted engine gives text"):
        run(jobs, rows_of(1))


def test_an_engine_that_turns_out_to_have_none_ends_the_run(jobs: Any) -> None:
    with pytest.raises(JobError, match="the scripted engine can do none of"):
        run(jobs, rows_of(1), {"no_ids": True})


@pytest.mark.parametrize(
    "answer", [{"choice": ["a", "b"]}, {"schema": {"type": "object"}}, {"language": "de"}], ids=str
)
def test_what_holds_for_an_answer_is_refused(jobs: Any, answer: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="answer: the program embed asks for numbers"):
        run(jobs, rows_of(1), answer=answer)


def test_a_program_that_is_not_there_is_named_before_a_prompt_is_missed(jobs: Any) -> None:
    with pytest.raises(JobError, match=r"unknown program 'embd' \(did you mean 'embed'\?\)"):
        run(jobs, rows_of(1), program={"name": "embd"})


def test_plan_counts_the_tokens_of_texts(jobs: Any) -> None:
    """In a process of its own, in which no engine may start any more."""
    rows = str(jobs.rows(rows_of(6, distinct=4)))
    command = [sys.executable, "-m", "llmbatch.cli", "plan", "--program", "embed", "--input", rows, "--model", "demo"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["rows"], found["requests"], found["duplicates"]) == (6, 6, 2)


def test_plan_says_what_the_model_cannot_do(jobs: Any) -> None:
    wrong = data(jobs, jobs.rows(rows_of(1)), model="demo", engine={"name": "vllm"}, program={"name": "classify"})
    with pytest.raises(JobError, match="no classification head"):
        survey_job(job_from(wrong), Assumptions(None, None, None))


def test_requests_for_classes_are_not_written_as_requests_for_text(jobs: Any) -> None:
    rows = str(jobs.rows(rows_of(1)))
    done = CliRunner().invoke(main, ["render", "--program", "classify", "--input", rows])
    assert done.exit_code == 2
    assert "the program classify asks for numbers" in done.output


def test_requests_for_embeddings_are_written_and_run(jobs: Any) -> None:
    rows, requests = str(jobs.rows(rows_of(3))), jobs.path / "requests.jsonl"
    command = ["render", "--program", "embed", "--input", rows, "--model", "m", "--output", str(requests)]
    assert CliRunner().invoke(main, command).exit_code == 0
    first = json.loads(requests.read_text().splitlines()[0])
    assert (first["url"], first["body"]) == ("/v1/embeddings", {"model": "m", "input": "text 0"})
    jobs.run(job_from(data(jobs, requests)))
    assert [array("f", record["output"]) for record in jobs.records()] == [vector(f"text {i}") for i in range(3)]
    text = data(jobs, requests, program={"name": "single"}, output=str(jobs.path / "text"))
    jobs.run(job_from(text))
    assert "the request is for an embedding" in jobs.records("text")[0]["error"]["message"]


def test_settings_of_another_program_are_refused(jobs: Any) -> None:
    with pytest.raises(JobError, match=r"unknown key 'program\.settings\.top_n'"):
        run(jobs, rows_of(1), program={"name": "embed", "settings": {"top_n": 3}})


# classes


def test_the_value_is_the_likeliest_class_and_details_tell_all(jobs: Any) -> None:
    script = {"classes": ["bad", "good"], "rules": [{"when": {"index": 0}, "answer": "[0.25, 0.75]"}]}
    records = run(jobs, rows_of(3), script, program={"name": "classify"})
    assert records[0]["output"] == "good"
    assert records[0]["details"] == {"probabilities": {"bad": 0.25, "good": 0.75}}
    assert sum(records[1]["details"]["probabilities"].values()) == pytest.approx(1, abs=1e-6)


# pairs


def pairs(jobs: Any, rows: list[dict[str, Any]], name: str = "score_pairs", script: Any = None, **settings: Any) -> Any:
    return run(jobs, rows, script, program={"name": name, "settings": settings})


def test_a_pair_is_scored_as_one_text_or_by_the_vectors_of_both(jobs: Any) -> None:
    rows = [{"query": "red fish", "document": "a red fish"}]
    (record,) = pairs(jobs, rows)
    assert record["output"] == pytest.approx(2 / 3)
    assert record["usage"]["prompt_tokens"] == len("red fisha red fish")
    by_vectors = {"name": "score_pairs", "settings": {"encoder": "bi"}}
    (record,) = run(jobs, rows, to="bi", program=by_vectors)
    assert record["output"] == pytest.approx(float(np.dot(vector("red fish"), vector("a red fish"))), abs=1e-6)
    assert record["attempts"] == 2


def test_pairs_that_have_the_same_letters_in_a_row_are_not_taken_for_equal(jobs: Any) -> None:
    records = pairs(jobs, [{"query": "ab c", "document": "c"}, {"query": "ab", "document": " cc"}])
    assert [record["output"] for record in records] == [0.5, 0.0]
    assert jobs.report()["rows"]["folded"] == 0


def test_of_a_pair_that_is_too_long_the_document_is_cut(jobs: Any) -> None:
    rows = [{"query": "red fish", "document": "red " + "blue " * 20}]
    (record,) = run(
        jobs, rows, {"context_length": 20}, program={"name": "score_pairs"}, plan={"overflow": "truncate-tail"}
    )
    assert record["status"] == "ok"
    assert record["usage"]["prompt_tokens"] == 20
    assert record["details"]["overflow"]["field"] == "document"


def test_documents_come_in_the_order_of_their_scores(jobs: Any) -> None:
    rows = [{"query": "red fish", "documents": ["blue dog", "a red fish", "fish", "a cat"]}]
    (record,) = pairs(jobs, rows, "rerank")
    assert [each["index"] for each in record["output"]] == [1, 2, 0, 3]
    assert [each["score"] for each in record["output"]] == pytest.approx([2 / 3, 1 / 2, 0, 0])
    best = {"name": "rerank", "settings": {"top_n": 2, "texts": True}}
    (record,) = run(jobs, rows, to="two", program=best)
    assert [each["document"] for each in record["output"]] == ["a red fish", "fish"]


@pytest.mark.parametrize("documents", [None, [], "text", [""], [None]], ids=str)
def test_a_row_without_documents_has_its_own_record_that_says_so(jobs: Any, documents: Any) -> None:
    (record,) = pairs(jobs, [{"query": "q", "documents": documents}], "rerank")
    assert record["status"] == "failed"
    assert "document" in record["error"]["message"]


def test_a_reranking_that_is_killed_between_its_vectors_goes_on_to_the_same_bytes(jobs: Any) -> None:
    rows = jobs.rows(
        [{"query": f"number {i}", "documents": [f"of {k + i}" for k in range(1 + i % 4)]} for i in range(30)]
    )
    script = {"latency": 0.05, "jitter": 0.9, "concurrency": 8}
    program = {"name": "rerank", "settings": {"encoder": "bi"}}
    jobs.run(job_from(data(jobs, rows, script, program=program, output=str(jobs.path / "whole"))))
    jobs.killed(data(jobs, rows, script, program=program), "journal-append:2")
    jobs.run(job_from(data(jobs, rows, script, program=program)))
    assert jobs.results() == jobs.results("whole")


def test_a_prompt_that_makes_a_chat_makes_no_pair(jobs: Any) -> None:
    prompt = jobs.path / "chat.yaml"
    prompt.write_text('name: t\nvariables: {query: {}}\nmessages: [{role: user, content: "{{ query }}"}]\n')
    rows = [{"query": "a", "document": "b"}]
    (record,) = run(jobs, rows, prompt={"path": str(prompt)}, program={"name": "score_pairs"})
    assert "a pair is of two plain texts" in record["error"]["message"]
