"""Multiple choice by likelihood: what is asked, and which choice is the likeliest."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llmbatch.core.types import Prompt, Sampling, Score
from llmbatch.programs.base import Ask
from llmbatch.programs.score import continued, ranking

SCRIPT = {"rules": [{"when": {"contains": "bb"}, "answer": " bb"}, {"answer": " a"}]}


def choose(jobs: Any, rows: list[dict[str, Any]], **settings: Any) -> Any:
    prompt = jobs.path / "text.yaml"
    prompt.write_text('name: t\nvariables: {text: {type: any}}\ntext: "{{ text }}"\n')
    program = {"name": "score", "settings": {"choices": "options", "delimiter": " ", **settings}}
    jobs.run(jobs.job(jobs.rows(rows), SCRIPT, prompt={"path": str(prompt)}, program=program))
    return jobs.records()


def test_the_value_is_the_likeliest_choice_and_details_tell_them_all(jobs: Any) -> None:
    rows = [{"text": "say bb:", "options": ["a", "bb"]}, {"text": "say it:", "options": ["a", "bb"]}]
    first, second = choose(jobs, rows)
    assert (first["output"], first["details"]["chosen"]) == ("bb", 1)
    assert (second["output"], second["details"]["chosen"]) == ("a", 0)
    assert [score["greedy"] for score in first["details"]["scores"]] == [False, True]
    assert first["details"]["scores"][1] == {"logprob": pytest.approx(3 * math.log(0.9)), "greedy": True, "tokens": 3}
    assert first["attempts"] == 2


@pytest.mark.parametrize("options", [None, [], "a", ["a", ""], ["a", 1]], ids=str)
def test_a_row_without_choices_has_its_own_record_that_says_so(jobs: Any, options: Any) -> None:
    (record,) = choose(jobs, [{"text": "x", "options": options}])
    assert record["status"] == "failed"
    assert "its choices (options)" in record["error"]["message"]


def test_choices_may_be_the_same_for_every_row(jobs: Any) -> None:
    (record,) = choose(jobs, [{"text": "x"}], choices=["a", "b"])
    assert record["output"] == "a"


def test_spaces_at_the_end_of_a_plain_prompt_are_the_start_of_the_choice() -> None:
    ask = continued(Ask(Prompt(text="Answer: "), Sampling()), "yes")
    assert (ask.prompt.text, ask.target) == ("Answer:", " yes")
    ask = continued(Ask(Prompt(text="  "), Sampling()), "yes")
    assert (ask.prompt.text, ask.target) == ("  ", "yes")
    chat = Prompt(messages=({"role": "user", "content": "Answer: "},))
    assert continued(Ask(chat, Sampling()), "yes").prompt is chat


def test_the_likeliest_is_told_by_sum_tokens_or_bytes() -> None:
    choices, scores = ["a", "bbbbbbbb", "cc"], [Score(-2.0, True, 1), Score(-4.0, True, 4), Score(-2.5, True, 2)]
    assert [ranking(choices, scores, by) for by in ("sum", "tokens", "bytes")] == [[0, 2, 1], [1, 2, 0], [1, 2, 0]]
    assert ranking(["a", "b"], [Score(-1.0, True, 1), Score(-1.0, True, 1)], "sum") == [0, 1]


def test_the_value_may_be_all_choices_the_likeliest_first(jobs: Any) -> None:
    (record,) = choose(jobs, [{"text": "say bb:", "options": ["a", "bb"]}], rank=True)
    assert record["output"] == ["bb", "a"]
    assert record["details"]["chosen"] == 1


@pytest.mark.parametrize("fault", ["journal-append:1", "journal-torn:2", "part-sealed:1"])
def test_choices_are_the_same_after_kills(jobs: Any, fault: str) -> None:
    prompt = jobs.path / "text.yaml"
    prompt.write_text('name: t\nvariables: {text: {type: any}}\ntext: "{{ text }}"\n')
    rows = jobs.rows([{"text": f"say {'bb' * (n % 2)} {n}:", "options": ["a", "bb", "c" * (n + 1)]} for n in range(30)])
    data = jobs.data(
        rows, {**SCRIPT, "latency": 0.05, "jitter": 0.9, "concurrency": 4}, prompt={"path": str(prompt)}, run={"window": 8},
        program={"name": "score", "settings": {"choices": "options", "delimiter": " "}},
    )  # fmt: skip
    assert jobs.finish(data, environment={"LLMBATCH_FAULT": fault})[0] == -9
    assert jobs.finish(data)[0] == 0
    assert jobs.finish({**data, "output": str(jobs.path / "whole")})[0] == 0
    assert jobs.results() == jobs.results("whole")
