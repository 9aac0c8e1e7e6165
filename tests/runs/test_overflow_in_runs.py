"""Rows longer than the context, through whole runs on the scripted engine, whose tokens are bytes: what is asked, what the record
says, what a kill changes (nothing)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmbatch.audit.audit import audit
from llmbatch.core.errors import JobError
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.engines.scripted.engine import ScriptedEngine
from llmbatch.job.job import job_from
from llmbatch.runs.retry_failed import retry_failed
from llmbatch.runs.session import run_job

CONTEXT, ANSWER = 200, 80
LONG = " ".join(f"word{number:03}" for number in range(60))  # 479 characters
JAPANESE = "漢字かな👩‍👩‍👧‍👦" * 12
ANSWERED = {"rules": [{"answer": "done"}], "context_length": CONTEXT}
TRUNCATIONS = ["truncate-head", "truncate-tail", "truncate-middle"]
MODES = ["error", "skip", *TRUNCATIONS, "shrink-output", "chunk"]


def data_of(jobs: Any, rows: Path, mode: str, script: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    plan = {"overflow": mode, **sections.pop("plan", {})}
    sampling = {"max_tokens": ANSWER, **sections.pop("sampling", {})}
    data: dict[str, Any] = jobs.data(rows, script or ANSWERED, plan=plan, sampling=sampling, **sections)
    return data


def run(jobs: Any, rows: Any, mode: str, script: dict[str, Any] | None = None, **sections: Any) -> list[dict[str, Any]]:
    jobs.run(job_from(data_of(jobs, jobs.rows(rows), mode, script, **sections)))
    return list(jobs.records())


def echoed(jobs: Any, text: str, mode: str, **sections: Any) -> dict[str, Any]:
    """The record of a row with this text whose answer is its prompt, of a job whose answers have room for that."""
    script = {"context_length": 2 * CONTEXT}
    (record,) = run(jobs, [{"id": "r", "text": text}], mode, script, sampling={"max_tokens": CONTEXT + 20}, **sections)
    return record


# truncation


@pytest.mark.parametrize("mode", TRUNCATIONS)
def test_a_text_is_cut_so_that_prompt_and_answer_fill_the_context(jobs: Any, mode: str) -> None:
    (record,) = run(jobs, [{"id": "r", "text": LONG}], mode, prompt={"path": "Say {{ text }} again"})
    assert record["status"] == "ok"
    assert record["attempts"] == 1
    assert record["usage"]["prompt_tokens"] == CONTEXT - ANSWER
    assert "history" not in record
    said = record["details"]["overflow"]
    assert (said["mode"], said["field"], said["characters"]) == (mode, "text", len(LONG))
    assert said["prompt_tokens"] == CONTEXT - ANSWER
    taken = said["removed"][1] - said["removed"][0]
    mark = len(" [...] ") if mode == "truncate-middle" else 0
    assert said["removed_tokens"] == taken - mark


def test_head_tail_and_middle_leave_the_other_parts_and_the_template_alone(jobs: Any) -> None:
    prompt = {"path": "<<{{ text }}>>"}
    for mode in TRUNCATIONS:
        data = data_of(
            jobs, jobs.rows([{"id": "r", "text": LONG}]), mode, {"context_length": 400}, prompt=prompt,
            sampling={"max_tokens": 200}, output=str(jobs.path / mode),
        )  # fmt: skip
        jobs.run(job_from(data))
        (record,) = jobs.records(mode)
        start, end = record["details"]["overflow"]["removed"]
        mark = " [...] " if mode == "truncate-middle" else ""
        assert record["output"] == f"<<{LONG[:start]}{mark}{LONG[end:]}>>"
        assert (start == 0) == (mode == "truncate-head")
        assert (end == len(LONG)) == (mode == "truncate-tail")


@pytest.mark.parametrize("mode", TRUNCATIONS)
def test_a_text_of_many_bytes_is_cut_between_characters(jobs: Any, mode: str) -> None:
    record = echoed(jobs, JAPANESE, mode)
    start, end = record["details"]["overflow"]["removed"]
    mark = " [...] " if mode == "truncate-middle" else ""
    assert record["output"] == JAPANESE[:start] + mark + JAPANESE[end:]
    room = CONTEXT - 20
    assert room - 25 - 12 < record["usage"]["prompt_tokens"] <= room, "one more family of 25 bytes would be too long"
    assert not JAPANESE[end:].startswith(("\u200d", "👧")), "nor is the family divided"


def test_of_several_texts_the_longest_is_cut_or_the_one_that_is_named(jobs: Any) -> None:
    rows = [{"id": "r", "a": "x" * 70, "b": "y" * 90}]
    prompt = {"path": "{{ a }} {{ b }}"}
    (record,) = run(jobs, rows, "truncate-tail", prompt=prompt)
    assert record["details"]["overflow"]["field"] == "b"
    sections: dict[str, Any] = {"plan": {"overflow_field": "a"}, "output": str(jobs.path / "named")}
    jobs.run(job_from(data_of(jobs, jobs.rows(rows), "truncate-tail", prompt=prompt, **sections)))
    assert jobs.records("named")[0]["details"]["overflow"]["field"] == "a"


def test_a_variable_is_named_as_the_prompt_or_as_the_row_calls_it(jobs: Any) -> None:
    for name in ("text", "body"):
        data = data_of(
            jobs, jobs.rows([{"id": "r", "body": LONG}]), "truncate-tail", plan={"overflow_field": name},
            prompt={"path": "{{ text }}", "fields": {"text": "body"}}, output=str(jobs.path / name),
        )  # fmt: skip
        jobs.run(job_from(data))
        assert jobs.records(name)[0]["details"]["overflow"]["field"] == "body"


def test_each_sample_of_a_row_has_the_same_shorter_prompt(jobs: Any) -> None:
    (record,) = run(jobs, [{"id": "r", "text": LONG}], "truncate-tail", sampling={"n": 3, "seed": 1})
    assert record["output"] == ["done"] * 3
    assert record["usage"]["prompt_tokens"] == 3 * (CONTEXT - ANSWER)
    assert record["details"]["overflow"]["mode"] == "truncate-tail"


def test_duplicates_are_cut_alike_and_asked_once(jobs: Any) -> None:
    rows = [{"id": number, "text": LONG} for number in range(5)]
    records = run(jobs, rows, "truncate-tail")
    assert {json.dumps(record["details"]) for record in records} == {json.dumps(records[0]["details"])}
    assert jobs.report()["sessions"][0]["tokens"]["prompt_tokens"] == CONTEXT - ANSWER


def test_an_answer_that_is_sent_back_is_asked_again_with_the_shorter_prompt(jobs: Any) -> None:
    script = {"rules": [{"when": {"attempt": 1}, "answer": "no"}, {"answer": "yes"}], "context_length": CONTEXT}
    answer = {"choice": ["yes"], "constrained": False}
    (record,) = run(
        jobs, [{"id": "r", "text": LONG}], "truncate-tail", script, answer=answer, retry={"feedback": False}
    )
    assert (record["status"], record["output"], record["attempts"]) == ("ok", "yes", 2)
    assert [each["error"]["kind"] for each in record["history"]] == ["choice"]
    assert record["usage"]["prompt_tokens"] == 2 * (CONTEXT - ANSWER)


def test_what_is_shown_to_the_model_again_keeps_its_rule_where_it_becomes_too_long(jobs: Any) -> None:
    """The bad answer and what is wrong with it do not fit behind a prompt that is full: another answer is drawn."""
    script = {"rules": [{"when": {"attempt": 1}, "answer": "no"}, {"answer": "yes"}], "context_length": CONTEXT}
    answer = {"choice": ["yes"], "constrained": False}
    (record,) = run(jobs, [{"id": "r", "text": LONG}], "truncate-tail", script, answer=answer)
    assert record["details"]["overflow"]["mode"] == "truncate-tail"
    assert record["attempts"] == 2


def test_an_answer_is_held_against_what_was_asked_and_not_against_all_of_the_row(jobs: Any) -> None:
    """The echo of what is left is as long as that, and an eighth of the row's text."""
    ratio = {"length_ratio": {"field": "text", "least": 0.5, "most": 2}}
    script, sampling = {"context_length": CONTEXT}, {"max_tokens": 98}
    (record,) = run(jobs, [{"id": "r", "text": LONG}], "truncate-tail", script, answer=ratio, sampling=sampling)
    assert record["status"] == "ok"
    assert len(record["output"]) < len(LONG) / 4


def test_without_max_tokens_so_much_is_left_for_an_answer_as_the_settings_say(jobs: Any) -> None:
    plan = {"overflow_min_tokens": 50}
    (record,) = run(jobs, [{"id": "r", "text": LONG}], "truncate-tail", plan=plan, sampling={"max_tokens": None})
    assert record["usage"]["prompt_tokens"] == CONTEXT - 50


def test_a_template_that_is_too_long_by_itself_fails_the_row_and_says_so(jobs: Any) -> None:
    prompt = {"path": "x" * 300 + "{{ text }}"}
    records = run(jobs, [{"id": 0, "text": "short"}, {"id": 1, "text": LONG}], "truncate-tail", prompt=prompt)
    for record in records:
        assert (record["status"], record["error"]["kind"]) == ("failed", "too_long")
        assert "max_tokens = 80 and the prompt without the text 'text', about 3" in record["error"]["message"]


def test_an_answer_that_alone_is_longer_than_the_context_fails_the_row(jobs: Any) -> None:
    (record,) = run(jobs, [{"id": 0, "text": "short"}], "truncate-tail", sampling={"max_tokens": 500})
    assert "max_tokens = 500" in record["error"]["message"]


def test_a_row_without_a_text_to_cut_says_so(jobs: Any) -> None:
    prompt = {"path": "{% for item in items %}{{ item }}{% endfor %}"}
    (record,) = run(jobs, [{"id": 0, "items": list(range(500))}], "truncate-tail", prompt=prompt)
    assert "there is no text of the row to cut" in record["error"]["message"]


def test_a_text_whose_rest_is_blank_is_no_prompt(jobs: Any) -> None:
    (record,) = run(jobs, [{"id": 0, "text": " " * 5000 + "x"}], "truncate-tail")
    assert record["error"]["kind"] == "empty_prompt"


# a shorter answer


def test_an_answer_gets_what_room_there_is_down_to_the_least(jobs: Any) -> None:
    """Besides the text the prompt has 18 bytes on this engine: so 102 leave all of max_tokens, and 118 leave 64."""
    rows = [{"id": length, "text": "x" * length} for length in (102, 103, 118, 119)]
    fits, one_less, least, long = run(jobs, rows, "shrink-output", plan={"overflow_min_tokens": 64})
    assert "details" not in fits and fits["usage"]["prompt_tokens"] == 120
    said = {"mode": "shrink-output", "prompt_tokens": 121, "max_tokens": 79, "asked_for": 80}
    assert one_less["details"]["overflow"] == said
    assert least["details"]["overflow"] == {**said, "prompt_tokens": 136, "max_tokens": 64}
    assert (long["status"], long["error"]["kind"]) == ("failed", "too_long")
    assert "leaves 63 tokens, and it is to have 64 (plan.overflow_min_tokens)" in long["error"]["message"]


def test_an_answer_is_cut_off_at_its_lower_max_tokens(jobs: Any) -> None:
    script = {"context_length": CONTEXT, "rules": [{"answer": "a" * 500}]}
    (record,) = run(
        jobs, [{"id": 0, "text": "x" * 110}], "shrink-output", script, retry={"max_attempts": 1},
        plan={"overflow_min_tokens": 1},
    )  # fmt: skip
    assert record["status"] == "truncated"
    assert record["usage"]["completion_tokens"] == record["details"]["overflow"]["max_tokens"] < ANSWER
    assert record["usage"]["prompt_tokens"] + record["usage"]["completion_tokens"] == CONTEXT


# chunks


def test_chunks_are_asked_with_the_prompt_and_their_answers_are_joined_with_what_stood_between(jobs: Any) -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "Some words. " * 10 for number in range(9)).strip()
    record = echoed(jobs, text, "chunk")
    assert record["output"] == text
    said = record["details"]["overflow"]
    assert (said["mode"], said["field"], said["characters"]) == ("chunk", "text", len(text))
    assert len(said["chunks"]) > 5
    assert {chunk["status"] for chunk in said["chunks"]} == {"ok"}
    assert {key for chunk in said["chunks"] for key in chunk["usage"]} == {"prompt_tokens", "completion_tokens"}
    assert sum(chunk["usage"]["prompt_tokens"] for chunk in said["chunks"]) == record["usage"]["prompt_tokens"]
    assert all(chunk["usage"]["prompt_tokens"] <= CONTEXT - 20 for chunk in said["chunks"])
    assert [each["error"]["kind"] for each in record["history"]] == ["too_long"], "of the row as a whole"


def test_a_row_that_fits_is_asked_as_without_chunks(jobs: Any) -> None:
    rows = [{"id": number, "text": f"text {number}"} for number in range(5)]
    run(jobs, rows, "chunk")
    chunked = jobs.results()
    jobs.run(job_from(data_of(jobs, jobs.rows(rows), "error", output=str(jobs.path / "plain"))))
    assert jobs.results("plain") == chunked


def test_json_answers_of_chunks_are_a_list(jobs: Any) -> None:
    schema = jobs.path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}')
    script = {"context_length": CONTEXT, "rules": [{"answer": '{"n": 1}'}]}
    (record,) = run(jobs, [{"id": 0, "text": LONG}], "chunk", script, answer={"schema": str(schema)})
    assert record["status"] == "ok"
    assert record["output"] == [{"n": 1}] * len(record["details"]["overflow"]["chunks"])


def test_labels_of_chunks_are_a_list_and_no_text(jobs: Any) -> None:
    script = {"context_length": CONTEXT, "rules": [{"answer": "yes"}]}
    answer = {"choice": ["yes", "no"], "constrained": False}
    (record,) = run(jobs, [{"id": 0, "text": LONG}], "chunk", script, answer=answer)
    assert set(record["output"]) == {"yes"}
    assert isinstance(record["output"], list)


def test_a_row_with_a_chunk_that_fails_is_not_ok_and_keeps_the_answers_of_the_others(jobs: Any) -> None:
    rules = [{"when": {"contains": "word020"}, "fail": "no"}, {"answer": "done"}]
    (record,) = run(jobs, [{"id": "r", "text": LONG}], "chunk", {"context_length": CONTEXT, "rules": rules})
    chunks = record["details"]["overflow"]["chunks"]
    bad = [number for number, chunk in enumerate(chunks) if chunk["status"] != "ok"]
    assert record["status"] == "failed"
    assert len(bad) == 1
    assert record["output"] == [None if number in bad else "done" for number in range(len(chunks))]
    assert chunks[bad[0]]["error"] == {"kind": "engine", "message": "no"}
    assert f"row 'r': chunk {bad[0] + 1} of {len(chunks)} (characters" in record["error"]["message"]


def test_samples_are_joined_over_the_chunks_each_by_itself(jobs: Any) -> None:
    rules = [{"when": {"sample": 1}, "answer": "one"}, {"answer": "other"}]
    (record,) = run(
        jobs, [{"id": "r", "text": LONG}], "chunk", {"context_length": CONTEXT, "rules": rules},
        sampling={"n": 2, "seed": 1},
    )  # fmt: skip
    chunks = len(record["details"]["overflow"]["chunks"])
    assert record["output"] == [" ".join(["other"] * chunks), " ".join(["one"] * chunks)]


def test_with_an_overlap_chunks_repeat_and_answers_are_joined_by_a_blank_line(jobs: Any) -> None:
    (record,) = run(jobs, [{"id": "r", "text": LONG}], "chunk", plan={"overflow_overlap": 20})
    chunks = record["details"]["overflow"]["chunks"]
    assert all(after["start"] < before["end"] for before, after in pairwise(chunks))
    assert record["output"] == "\n\n".join(["done"] * len(chunks))


def test_a_template_without_room_for_a_chunk_fails_the_row_and_says_so(jobs: Any) -> None:
    (record,) = run(jobs, [{"id": "r", "text": LONG}], "chunk", prompt={"path": "x" * 110 + "{{ text }}"})
    assert record["error"]["kind"] == "too_long"
    assert "and the prompt without the text 'text'" in record["error"]["message"]


# all modes


def test_rows_that_fit_get_the_same_records_and_are_tokenized_once(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize, counted = ScriptedEngine.tokenize, [0]

    def counting(self: ScriptedEngine, prompts: Any) -> Any:
        counted[0] += len(prompts)
        return tokenize(self, prompts)

    monkeypatch.setattr(ScriptedEngine, "tokenize", counting)
    rows = jobs.rows([{"id": number, "text": f"text {number}"} for number in range(20)])
    seen = set()
    for mode in MODES:
        counted[0] = 0
        jobs.run(job_from(data_of(jobs, rows, mode, output=str(jobs.path / mode))))
        seen.add((jobs.results(mode), counted[0]))
    ((_, count),) = seen
    assert count == 20


@pytest.mark.parametrize(
    ("mode", "fault"),
    [
        ("truncate-head", "journal-torn:2"),
        ("truncate-tail", "part-sealed:2"),
        ("truncate-middle", "journal-append:2"),
        ("shrink-output", "journal-append:1"),
        ("chunk", "journal-append:1"),
        ("chunk", "journal-append:3"),
        ("chunk", "journal-torn:2"),
        ("chunk", "part-sealed:2"),
    ],
)
def test_a_run_that_is_killed_comes_to_the_same_bytes(jobs: Any, mode: str, fault: str) -> None:
    rows = jobs.rows([{"id": number, "text": f"{number} " + LONG * (number % 3)} for number in range(24)])
    jobs.run(job_from(data_of(jobs, rows, mode, output=str(jobs.path / "whole"), run={"window": 8})))
    slow = {**ANSWERED, "latency": 0.05, "concurrency": 4}
    data = data_of(jobs, rows, mode, slow, run={"window": 8})
    environment = {"LLMBATCH_FAULT": fault, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed, _, _ = jobs.finish(data, environment=environment)
    assert killed == -9
    code, _, err = jobs.finish(data, environment={**environment, "LLMBATCH_FAULT": ""})
    assert code in (0, 3), err
    assert jobs.results() == jobs.results("whole")
    assert audit(jobs.path / "out").ok


@pytest.mark.parametrize("mode", ["truncate-middle", "chunk"])
def test_deaths_of_the_engine_change_nothing(jobs: Any, mode: str) -> None:
    rows = [{"id": number, "text": f"{number} " + LONG * (number % 3)} for number in range(12)]
    whole = run(jobs, rows, mode)
    data = data_of(
        jobs,
        jobs.rows(rows),
        mode,
        {**ANSWERED, "die_after": [3, 11], "concurrency": 4},
        output=str(jobs.path / "dead"),
    )
    jobs.run(job_from(data))
    assert jobs.records("dead") == whole


@pytest.mark.parametrize("mode", ["truncate-tail", "chunk"])
def test_a_second_run_finds_the_answers_to_what_was_cut_in_the_cache(jobs: Any, mode: str) -> None:
    cache = {"cache": str(jobs.path / "cache")}
    rows = [{"id": number, "text": f"{number} " + LONG} for number in range(3)]
    first = run(jobs, rows, mode, reuse=cache)
    jobs.run(job_from(data_of(jobs, jobs.rows(rows), mode, reuse=cache, output=str(jobs.path / "again"))))
    assert jobs.records("again") == first
    tokens = jobs.report("again")["sessions"][0]["tokens"]
    assert tokens["prompt_tokens"] == 0


def test_what_is_too_long_can_be_tried_again_with_another_policy(jobs: Any) -> None:
    """``retry-failed`` takes another setting for the rows that are not ok."""
    run(jobs, [{"id": 0, "text": "short"}, {"id": 1, "text": LONG}], "error")
    retry_failed(jobs.path / "out", {"plan": {"overflow": "truncate-tail"}})
    records = jobs.records()
    assert [record["status"] for record in records] == ["ok", "ok"]
    assert records[1]["details"]["overflow"]["mode"] == "truncate-tail"


@pytest.mark.parametrize("mode", [*TRUNCATIONS, "shrink-output", "chunk"])
def test_where_only_a_server_knows_what_fits_its_refusal_stays_and_all_is_said(jobs: Any, mode: str) -> None:
    server = {**ANSWERED, "no_ids": True, "no_context_length": True}
    records = run(jobs, [{"id": 0, "text": "short"}, {"id": 1, "text": LONG}], mode, server)
    assert [record["status"] for record in records] == ["ok", "failed"]
    assert records[1]["error"]["kind"] == "too_long"
    assert f"plan.overflow={mode} was not tried" in records[1]["error"]["message"]
    (note,) = [note for note in jobs.notes() if "overflow" in note]
    assert f"plan.overflow={mode} has no effect" in note


@pytest.mark.parametrize("mode", ["truncate-tail", "chunk"])
def test_an_empty_document_and_one_line_of_ten_megabytes_have_their_records(jobs: Any, mode: str) -> None:
    rows = [{"id": "empty", "text": ""}, {"id": "huge", "text": "x" * 10_000_000}, {"id": "next", "text": "short"}]
    script = {"rules": [{"answer": "done"}], "context_length": 20_000}
    records = run(jobs, rows, mode, script)
    assert [record["status"] for record in records] == ["failed", "ok", "ok"]
    said = records[1]["details"]["overflow"]
    if mode == "chunk":
        assert 500 < len(said["chunks"]) < 600
        assert records[1]["output"] == "done" * len(said["chunks"])
    else:
        assert records[1]["usage"]["prompt_tokens"] == 20_000 - ANSWER


# programs of several steps


def test_a_step_that_is_too_long_is_cut_in_its_own_longest_text(jobs: Any) -> None:
    """The draft is as long as the text, so that the step that has both does not fit."""
    program = {
        "name": "chain",
        "prompts": {"check": "{{ text }} against {{ draft }}"},
        "settings": {"steps": [{"name": "draft", "prompt": "main"}, {"name": "check"}]},
    }
    rules = [{"when": {"step": 0}, "answer": "d" * 75}, {"answer": "good"}]
    (record,) = run(
        jobs, [{"id": "r", "text": "t" * 60}], "truncate-tail", {"context_length": CONTEXT, "rules": rules},
        program=program,
    )  # fmt: skip
    assert (record["status"], record["output"]) == ("ok", "good")
    (said,) = record["details"]["overflow"]
    assert (said["step"], said["field"], said["prompt_tokens"]) == (1, "draft", CONTEXT - ANSWER)


SCORES = """
from dataclasses import replace

def likelihoods(row):
    ask = row.ask()
    scores = yield [replace(ask, target=target) for target in (" yes", " certainly")]
    return [score.value.tokens for score in scores]
"""


def test_a_continuation_whose_likelihood_is_asked_for_fits_behind_what_is_left(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"scores_{abs(hash(str(jobs.path))):x}"
    (jobs.path / f"{name}.py").write_text(SCORES)
    monkeypatch.chdir(jobs.path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (record,) = run(
        jobs,
        [{"id": "r", "text": LONG}],
        "truncate-head",
        program={"name": f"{name}:likelihoods"},
        retry={"max_attempts": 1},
    )
    assert record["output"] == [len(" yes"), len(" certainly")]
    said = record["details"]["overflow"]
    assert [(each["step"], each["prompt_tokens"]) for each in said] == [(0, CONTEXT), (1, CONTEXT)]


def test_chunks_are_refused_for_programs_of_several_steps_and_map_reduce_is_named(jobs: Any) -> None:
    program = {"name": "best_of", "settings": {"vote": True}}
    data = data_of(jobs, jobs.rows([{"text": "x"}]), "chunk", program=program, sampling={"temperature": 1.0})
    with pytest.raises(JobError, match=r"the program best_of asks more than that: take the program map_reduce"):
        jobs.run(job_from(data))


# requests


def test_of_ready_made_messages_the_longest_of_the_user_is_cut(jobs: Any) -> None:
    messages = [
        {"role": "system", "content": "s" * 30},
        {"role": "user", "content": "short"},
        {"role": "assistant", "content": "a" * 20},
        {"role": "user", "content": "u" * 300},
    ]
    rows = [
        {"custom_id": "a", "body": {"messages": messages, "max_tokens": ANSWER}},
        {"custom_id": "b", "body": {"messages": [{"role": "system", "content": "s" * 300}], "max_tokens": ANSWER}},
        {"custom_id": "c", "body": {"messages": messages[:2], "max_tokens": ANSWER}},
    ]
    data = data_of(jobs, jobs.rows(rows), "truncate-head")
    del data["prompt"], data["sampling"]["max_tokens"]
    jobs.run(job_from(data))
    cut, system, fits = jobs.records()
    assert cut["status"] == fits["status"] == "ok"
    assert cut["usage"]["prompt_tokens"] == CONTEXT - ANSWER
    assert cut["details"]["overflow"]["field"] == "messages[3].content"
    assert "details" not in fits
    assert (system["status"], system["error"]["kind"]) == ("failed", "too_long")
    assert "there is no text of the row to cut" in system["error"]["message"]


def test_messages_that_a_row_brings_are_cut_and_chunked_too(jobs: Any) -> None:
    prompt = jobs.path / "chat.yaml"
    prompt.write_text(
        "name: chat\ndescription: d\nvariables: {chat: {type: array}}\nmessages_from: chat\n", encoding="utf-8"
    )
    rows = [{"id": 0, "chat": [{"role": "user", "content": LONG}]}]
    for mode in ("truncate-tail", "chunk"):
        data = data_of(jobs, jobs.rows(rows), mode, prompt={"path": str(prompt)}, output=str(jobs.path / mode))
        jobs.run(job_from(data))
        (record,) = jobs.records(mode)
        assert record["status"] == "ok"
        assert record["details"]["overflow"]["field"] == "messages[0].content"


# before the start


def test_a_field_that_no_prompt_has_is_refused_before_the_start(jobs: Any) -> None:
    data = data_of(jobs, jobs.rows([{"text": "x"}]), "truncate-tail", plan={"overflow_field": "txt"})
    with pytest.raises(
        JobError, match=r"plan\.overflow_field: no prompt of the job has a variable 'txt' of its rows"
    ) as told:
        jobs.run(job_from(data))
    assert "'text'" in str(told.value) and "they have text" in str(told.value)
    assert not (jobs.path / "out" / "results.jsonl").exists()


def test_a_field_that_is_no_text_is_refused_before_the_start(jobs: Any) -> None:
    prompt = jobs.path / "list.yaml"
    prompt.write_text(
        "name: list\ndescription: d\nvariables: {items: {type: array}}\ntext: '{{ items }}'\n", encoding="utf-8"
    )
    data = data_of(
        jobs,
        jobs.rows([{"items": []}]),
        "truncate-tail",
        plan={"overflow_field": "items"},
        prompt={"path": str(prompt)},
    )
    with pytest.raises(JobError, match="'items' is of type array, and only a text can be cut"):
        jobs.run(job_from(data))


def test_a_mode_that_is_not_known_is_refused_with_those_that_are(jobs: Any) -> None:
    with pytest.raises(JobError, match=r"plan\.overflow: .*'truncate-head'"):
        job_from(data_of(jobs, jobs.rows([{"text": "x"}]), "truncate"))


def test_fail_is_what_error_was_called(jobs: Any) -> None:
    assert job_from(data_of(jobs, jobs.rows([{"text": "x"}]), "fail")).plan.overflow == "error"


# the real engine


@pytest.fixture(scope="module")
def keeper() -> Iterator[EngineKeeper]:
    """One engine for all runs on vLLM here."""
    with EngineKeeper() as kept:
        yield kept


@pytest.mark.vllm
@pytest.mark.parametrize("mode", [*TRUNCATIONS, "shrink-output", "chunk"])
def test_on_vllm_prompt_and_answer_fill_the_context_to_the_token(jobs: Any, keeper: EngineKeeper, mode: str) -> None:
    """The end of text is ignored, so an answer takes all of its max_tokens: more than the context would be cut off before that."""
    context, answer = 256, 100
    words = [f"Item {number} costs €{number * 7}. " for number in range(60)]
    short = 40 if mode == "shrink-output" else 4  # words
    rows = [
        {"id": "short", "text": "one"},
        {"id": "long", "text": "".join(words[: 60 if mode != "shrink-output" else 11])},
    ]
    data = jobs.data(
        jobs.rows(rows), model="demo", prompt={"path": "Say it again: {{ text }}"},
        engine={"name": "vllm", "args": {"max_model_len": context, "dtype": "float32", "enforce_eager": True}},
        sampling={"max_tokens": answer, "ignore_eos": True}, plan={"overflow": mode, "overflow_min_tokens": short},
    )  # fmt: skip
    run_job(job_from(data), make=keeper.make)
    fits, long = jobs.records()
    assert fits["status"] == long["status"] == "ok"
    assert "details" not in fits
    said = long["details"]["overflow"]
    assert said["mode"] == mode
    assert fits["usage"]["completion_tokens"] == answer
    if mode == "chunk":
        usages = [chunk["usage"] for chunk in said["chunks"]]
        assert len(usages) > 3
        assert {usage["completion_tokens"] for usage in usages} == {answer}
        assert all(usage["prompt_tokens"] + answer <= context for usage in usages)
        assert sum(usage["prompt_tokens"] for usage in usages) > 0.7 * len(usages) * (context - answer)
    else:
        assert long["usage"]["prompt_tokens"] + long["usage"]["completion_tokens"] == context
        assert long["usage"]["completion_tokens"] == said.get("max_tokens", answer)
