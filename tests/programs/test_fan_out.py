from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llmbatch.core.types import Failure, FailureKind
from llmbatch.programs.base import Incomplete, Need, PromptFacts

BAD = Failure(FailureKind.SCHEMA, "not what was asked for")
Run = Callable[..., tuple[Any, Any]]
Problem = Callable[..., str]


def listing(items: Any, child: Callable[[Any], Any] = lambda item: f"about {item}") -> Callable[..., Any]:
    """The list, and what is said to each of its items."""

    def answer(prompt: str, given: Mapping[str, Any], _sample: int) -> Any:
        return items if prompt == "main" else child(given["item"])

    return answer


def facts(*needs: str, answer: Mapping[str, Any] | None = None, **typed: Need) -> PromptFacts:
    return PromptFacts({**{name: Need() for name in needs}, **typed}, answer, {})


def outputs(done: Any) -> list[Any]:
    return [child["output"] for child in done.details["children"]]


def test_each_item_of_the_list_is_asked_about_at_the_same_time(run: Run) -> None:
    done, row = run("fan_out", {}, listing(["a", "b", "c"]))
    assert done.output == {"children": 3, "ok": 3}
    assert [len(asks) for asks in row.asks] == [1, 3]
    assert done.details["children"][1] == {
        "item": "b",
        "status": "ok",
        "output": "about b",
        "usage": {"prompt_tokens": 10, "completion_tokens": 2},
    }


@pytest.mark.parametrize(
    ("settings", "answer", "items"),
    [
        ({}, "1. one?\n2) two?\n\n- three\n* four\n(5) five\n  six\n2024 was a year\n3.5 is a number\n-7",
         ["one?", "two?", "three", "four", "five", "six", "2024 was a year", "3.5 is a number", "-7"]),
        ({"items": "found.questions"}, {"found": {"questions": ["a", {"q": 1}, None]}}, ["a", {"q": 1}]),
        ({"items": "text"}, {"text": "a\nb"}, ["a", "b"]),
        ({"unique": True}, ["a", "b", "a", {"x": 1, "y": 2}, {"y": 2, "x": 1}], ["a", "b", {"x": 1, "y": 2}]),
        ({"most": 2}, ["a", "b", "c"], ["a", "b"]),
        ({}, [], []),
    ],
)  # fmt: skip
def test_a_list_is_json_or_lines_of_text(run: Run, settings: dict[str, Any], answer: Any, items: list[Any]) -> None:
    done, _ = run("fan_out", settings, listing(answer))
    assert [child["item"] for child in done.details["children"]] == items


def test_what_became_no_child_is_counted(run: Run) -> None:
    done, _ = run("fan_out", {"most": 2, "unique": True}, listing(["a", "a", "b", "c", "d"]))
    assert done.output == {"children": 2, "ok": 2, "repeated": 1, "left_out": 2}


def test_one_child_s_failure_fails_that_child_alone(run: Run) -> None:
    done, _ = run("fan_out", {}, listing(["a", "b"], lambda item: BAD if item == "a" else "fine"))
    assert done.output == {"children": 2, "ok": 1}
    first = done.details["children"][0]
    assert (first["status"], first["output"]) == ("invalid", None)
    assert first["error"] == {"kind": "schema", "message": "not what was asked for"}


def test_a_row_whose_children_all_fail_is_not_ok(run: Run) -> None:
    done, _ = run("fan_out", {}, listing(["a", "b"], lambda _item: BAD))
    assert isinstance(done, Incomplete) and done.output == {"children": 2, "ok": 0}
    assert "row 'r': each of its 2 children failed; the first: not what was asked for" in done.failure.message
    assert len(done.details["children"]) == 2


def test_a_list_that_does_not_come_fails_the_row(run: Run) -> None:
    done, row = run("fan_out", {}, listing(BAD))
    assert done == Incomplete() and len(row.asks) == 1
    done, _ = run("fan_out", {"items": "q"}, listing({"questions": ["a"]}))
    assert "the answer has no list under q, but is of type object" in done.failure.message


def test_a_child_may_have_several_steps_and_an_output_made_of_them(run: Run) -> None:
    settings = {
        "item": "question",
        "steps": ["reply", {"name": "check", "when": "question != 'b'"}],
        "output": {"q": "question", "a": "reply", "right": "check"},
    }

    def answer(prompt: str, given: Mapping[str, Any], _sample: int) -> Any:
        return ["a", "b"] if prompt == "main" else f"{prompt} {given['question']}"

    prompts = {"main": facts(answer={}), "reply": facts("question"), "check": facts("reply", "question")}
    done, row = run("fan_out", settings, answer, prompts=prompts)
    assert outputs(done) == [
        {"q": "a", "a": "reply a", "right": "check a"},
        {"q": "b", "a": "reply b", "right": None},
    ]
    assert [len(asks) for asks in row.asks] == [1, 2, 1]
    assert [step["step"] for step in done.details["children"][0]["steps"]] == ["reply", "check"]
    done, _ = run("fan_out", {**settings, "details": False}, answer, prompts=prompts)
    assert "steps" not in done.details["children"][0]


def test_the_lists_of_several_samples_are_one(run: Run) -> None:
    from dataclasses import replace

    from llmbatch.programs.fan_out import KIND, FanOutSettings

    row = run("fan_out", {}, listing(["a"]))[1]
    row.settings = FanOutSettings()
    program = KIND.shape(row)
    ask = replace(program.send(None), samples=2)
    assert len(program.send(row.answers(ask))) == 2


# before there is a row

QUESTIONS = {
    "type": "object",
    "properties": {"questions": {"type": "array", "items": {"type": "string"}}, "n": {"type": "integer"}},
}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "the prompt's answer is of type object, and a list is needed: name the key that has it: items: questions"),
        ({"items": "question"}, "looks for question, and the answer has no 'question' (did you mean 'questions'?)"),
        ({"items": "n"}, "the prompt's answer is of type integer, and a list is needed"),
        ({"items": "questions"}, ""),
        ({"items": "questions", "item": "row"}, "a variable is letters, digits and _, and not row"),
        ({"items": "questions", "item": "q"}, "the prompt child does not take 'q', so every child would be asked the same"),
        ({"items": "questions", "steps": ["kid"]}, "asks with a prompt 'kid', and the job has main, child, parts"),
        ({"items": "questions", "steps": ["parts"]}, "takes 'item' and of it 'q', and the answer is of type string"),
        ({"items": "questions", "steps": ["child", {"name": "parts", "when": "chidl"}]},
         "there is no step 'chidl' (did you mean 'child'?)"),
        ({"items": "questions", "steps": [{"name": "item", "prompt": "child"}]}, "'item' cannot name a step"),
        ({"items": "questions", "most": 0}, "program.settings.most"),
    ],
)  # fmt: skip
def test_what_can_be_known_to_be_wrong_is_said_before_a_row(
    problem: Problem, settings: dict[str, Any], said: str
) -> None:
    parts = facts(item=Need(parts=frozenset({"q"})))
    seen = problem("fan_out", settings, main=facts("topic", answer=QUESTIONS), child=facts("item"), parts=parts)
    assert said in seen if said else seen == ""
