"""Worked examples before a row's prompt, in a chat and in a text, and where there is no room for them."""

from __future__ import annotations

from typing import Any

import pytest

SHOTS = [{"row": {"text": "one"}, "answer": "un"}, {"row": {"text": "two"}, "answer": "deux"}]


def run(jobs: Any, prompt: str, context_length: int = 1000, **settings: Any) -> Any:
    path = jobs.path / "prompt.yaml"
    path.write_text(prompt)
    rows = jobs.rows([{"id": "a", "text": "three", "mine": {"shots": SHOTS}}])
    program = {"name": "few_shot", "settings": {"shots": "mine.shots", **settings}}
    script = {"context_length": context_length}
    jobs.run(jobs.job(rows, script, prompt={"path": str(path)}, program=program, sampling={"max_tokens": 60}))
    return jobs.records()[0]


TEXT = 'name: t\nvariables: {text: {type: any}}\ntext: "Q: {{ text }}\\nA:"\n'
CHAT = (
    "name: t\nvariables: {text: {type: any}}\nmessages:\n  - {role: system, content: Translate.}\n"
    '  - {role: user, content: "{{ text }}"}\n'
)


def test_in_a_text_examples_stand_one_after_another(jobs: Any) -> None:
    record = run(jobs, TEXT, delimiter=" ")
    assert record["output"] == "Q: one\nA: un\n\nQ: two\nA: deux\n\nQ: three\nA:"


def test_in_a_chat_each_example_is_a_turn_behind_the_system_message(jobs: Any) -> None:
    record = run(jobs, CHAT)
    said = "<system>Translate.\n<user>one\n<assistant>un\n<user>two\n<assistant>deux\n<user>three\n<assistant>"
    assert record["output"] == "three"
    assert record["usage"]["prompt_tokens"] == len(said)


@pytest.mark.parametrize(("context_length", "examples"), [(200, 2), (101, 2), (100, 1), (87, 1), (86, 0)])
def test_the_first_examples_are_left_out_where_they_leave_no_room(
    jobs: Any, context_length: int, examples: int
) -> None:
    record = run(jobs, TEXT, context_length, fewer=True, delimiter=" ")
    shown = ["Q: one\nA: un\n\n", "Q: two\nA: deux\n\n"][2 - examples :]
    assert record["output"] == "".join(shown) + "Q: three\nA:"


def test_whoever_looks_at_a_prompt_sees_its_examples(jobs: Any) -> None:
    from llmbatch.runs.shown import find_records, shown_of

    run(jobs, TEXT, delimiter=" ")
    (shown,) = shown_of(jobs.path / "out", find_records(jobs.path / "out", "a"))
    assert shown.prompt is not None
    assert shown.prompt.text == "Q: one\nA: un\n\nQ: two\nA: deux\n\nQ: three\nA:"


def test_without_that_a_row_whose_examples_are_too_long_has_its_own_record(jobs: Any) -> None:
    record = run(jobs, TEXT, 35)
    assert (record["status"], record["error"]["kind"]) == ("failed", "too_long")
