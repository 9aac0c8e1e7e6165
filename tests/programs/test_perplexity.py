"""Rolling windows: each token is predicted once, with as much before it as fits, as lm-evaluation-harness cuts them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.programs.perplexity import rolling


@given(length=st.integers(1, 80), prefix=st.booleans(), most=st.integers(2, 30))
def test_each_token_is_predicted_once_and_windows_fit(length: int, prefix: bool, most: int) -> None:
    tokens = list(range(1, length + 1))
    windows = list(rolling(tokens, [0] if prefix else [], most))
    assert [token for window in windows for token in window.target] == (tokens if prefix else tokens[1:])
    for window in windows:
        assert window.context
        assert len(window.context) + len(window.target) <= most
        assert window.context[-1] + 1 == window.target[0]
    for window in windows[1:]:  # as much is before it as fits
        assert len(window.context) + len(window.target) == most


def harness_windows(tokens: list[int], prefix: int, most: int) -> list[tuple[list[int], list[int]]]:
    """What lm_eval.utils.get_rolling_token_windows and make_disjoint_window give, with context_len=1 and this much in all."""
    size = most - 1
    first = min(size, len(tokens))
    found = [([prefix, *tokens[: first - 1]], tokens[:first])]
    done = first
    while done < len(tokens):
        new = min(len(tokens) - done, size)
        end = done + new
        found.append((tokens[end - size - 1 : end - 1], tokens[end - new : end]))
        done = end
    return [(context[: len(context) - (len(target) - 1)], target) for context, target in found]


@given(length=st.integers(1, 80), most=st.integers(2, 30))
def test_the_windows_are_those_of_the_harness(length: int, most: int) -> None:
    tokens = list(range(1, length + 1))
    ours = [(list(window.context), list(window.target)) for window in rolling(tokens, [0], most)]
    assert ours == harness_windows(tokens, 0, most)


def test_a_text_without_a_token_before_it_has_its_first_token_given() -> None:
    assert list(rolling([7], [], 10)) == []
    assert [list(window.target) for window in rolling([7, 8], [], 10)] == [[8]]


def run(jobs: Any, texts: list[str], context_length: int = 20, **settings: Any) -> Any:
    prompt = jobs.path / "text.yaml"
    prompt.write_text('name: t\nvariables: {text: {type: any}}\ntext: "{{ text }}"\n')
    rows = jobs.rows([{"id": text[:5], "text": text} for text in texts])
    program = {"name": "perplexity", "settings": settings}
    jobs.run(jobs.job(rows, {"context_length": context_length}, prompt={"path": str(prompt)}, program=program))
    return jobs.records()


def test_a_text_longer_than_the_context_is_taken_in_windows(jobs: Any) -> None:
    (record,) = run(jobs, ["x" * 50], start="#")
    assert record["output"]["tokens"] == 50
    assert record["output"]["windows"] == 3
    assert record["details"]["scores"][0]["tokens"] == 50
    assert record["attempts"] == 3


def test_a_text_of_one_token_with_nothing_before_it_has_a_record_that_says_so(jobs: Any) -> None:
    (record,) = run(jobs, ["x"])
    assert record["status"] == "failed"
    assert "only one token" in record["error"]["message"]


def test_a_chat_has_no_perplexity(jobs: Any) -> None:
    program = {"name": "perplexity"}
    jobs.run(jobs.job(jobs.rows([{"text": "two"}]), program=program))
    assert "plain text" in jobs.records()[0]["error"]["message"]


@pytest.mark.parametrize("script", [{"no_ids": True}, {"no_context_length": True}], ids=str)
def test_an_engine_that_tells_no_tokens_is_said(jobs: Any, script: dict[str, Any]) -> None:
    prompt = jobs.path / "text.yaml"
    prompt.write_text('name: t\nvariables: {text: {type: any}}\ntext: "{{ text }}"\n')
    path = {"path": str(prompt)}
    jobs.run(jobs.job(jobs.rows([{"text": "two"}]), script, prompt=path, program={"name": "perplexity"}))
    assert "does not tell" in jobs.records()[0]["error"]["message"]


@pytest.mark.parametrize("fault", ["journal-append:1", "journal-append:3", "part-sealed:1"])
def test_windows_are_the_same_after_kills(jobs: Any, fault: str) -> None:
    prompt = jobs.path / "text.yaml"
    prompt.write_text('name: t\nvariables: {text: {type: any}}\ntext: "{{ text }}"\n')
    rows = jobs.rows([{"text": f"{n} " * (10 + n)} for n in range(24)])
    script = {"context_length": 20, "latency": 0.05, "jitter": 0.9, "concurrency": 8}
    program = {"name": "perplexity", "settings": {"start": "#"}}
    data = jobs.data(rows, script, prompt={"path": str(prompt)}, program=program, run={"window": 6})
    assert jobs.finish(data, environment={"LLMBATCH_FAULT": fault})[0] == -9
    assert jobs.finish(data)[0] == 0
    assert jobs.finish({**data, "output": str(jobs.path / "whole")})[0] == 0
    assert jobs.results() == jobs.results("whole")
