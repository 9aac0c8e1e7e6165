from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llmbatch.core.types import Failure, FailureKind
from llmbatch.programs.base import Complete, Incomplete, Need, PromptFacts

BAD = Failure(FailureKind.SCHEMA, "not what was asked for")
Run = Callable[..., tuple[Any, Any]]
Problem = Callable[..., str]


def echo(prompt: str, given: Mapping[str, Any], _sample: int) -> str:
    """``main`` -> ``main``, ``critique`` of a draft -> ``critique(draft)``."""
    return f"{prompt}({','.join(str(value) for value in given.values())})" if given else prompt


def facts(*needs: str, answer: Mapping[str, Any] | None = None, **typed: Need) -> PromptFacts:
    return PromptFacts({**{name: Need() for name in needs}, **typed}, answer, {})


def closed(**properties: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {k: {"type": v} for k, v in properties.items()},
        "additionalProperties": False,
    }


def test_each_step_sees_the_answers_before_it_and_the_last_is_the_output(run: Run) -> None:
    done, _ = run("chain", {"steps": [{"name": "draft", "prompt": "main"}, "critique"]}, echo)
    assert done.output == "critique(main)"
    assert done.details == {
        "steps": [{"step": "draft", "output": "main"}, {"step": "critique", "output": "critique(main)"}]
    }


def test_details_can_be_left_out(run: Run) -> None:
    done, _ = run("chain", {"steps": ["main"], "details": False}, echo)
    assert done == Complete("main")


def test_a_step_of_the_same_name_replaces_the_answer(run: Run) -> None:
    steps = ["draft", "critique", {"name": "draft", "prompt": "revise"}]
    done, _ = run("chain", {"steps": steps}, echo)
    assert done.output == "revise(draft,critique(draft))"


def test_the_output_is_an_expression_or_one_for_each_key(run: Run) -> None:
    settings = {
        "steps": ["question", "answer"],
        "output": {"q": "question.text", "a": "answer", "by": "row.who", "no": "answer.x"},
    }
    done, _ = run(
        "chain", settings, lambda name, _given, _i: {"text": "Why?"} if name == "question" else "So.", {"who": "me"}
    )
    assert done.output == {"q": "Why?", "a": "So.", "by": "me", "no": None}
    done, _ = run("chain", {**settings, "output": "answer | upper"}, lambda name, _given, _i: "so")
    assert done.output == "SO"


def test_a_step_whose_when_is_not_true_is_not_asked(run: Run) -> None:
    steps = ["draft", "critique", {"name": "revise", "when": "critique.score < 4"}]
    settings = {"steps": steps, "output": "revise or draft"}
    for score, asked, output in ((2, ["draft", "critique", "revise"], "revise"), (5, ["draft", "critique"], "draft")):
        done, row = run(
            "chain", settings, lambda name, _g, _i, score=score: {"score": score} if name == "critique" else name
        )
        assert (row.asked, done.output) == (asked, output)


def test_without_an_output_asked_for_it_is_the_last_answer_that_there_is(run: Run) -> None:
    steps = ["draft", {"name": "polish", "when": "row.polish"}]
    assert run("chain", {"steps": steps}, echo, {"polish": False})[0].output == "draft"
    assert run("chain", {"steps": steps}, echo, {"polish": True})[0].output == "polish(draft)"


def test_steps_are_repeated_until_a_condition_holds(run: Run) -> None:
    scores = iter([1, 2, 5])
    steps = [
        {"name": "draft", "prompt": "main"},
        {"repeat": 5, "until": "critique.score >= 4", "steps": ["critique", {"name": "draft", "prompt": "revise"}]},
    ]
    done, row = run(
        "chain",
        {"steps": steps, "output": "draft"},
        lambda name, *_: {"score": next(scores)} if name == "critique" else name,
    )
    assert row.asked == ["main", "critique", "revise", "critique", "revise", "critique"], (
        "a draft that is good is not revised"
    )
    assert [(step["step"], step.get("round")) for step in done.details["steps"]][-2:] == [("draft", 2), ("critique", 3)]


def test_a_repetition_ends_after_its_most_times(run: Run) -> None:
    steps = ["draft", {"name": "draft", "prompt": "better", "repeat": 3, "until": "draft == 'perfect'"}]
    done, row = run("chain", {"steps": steps}, echo)
    assert row.asked == ["draft", "better", "better", "better"]
    assert done.output == "better(better(better(draft)))"


def test_repetitions_may_lie_in_each_other(run: Run) -> None:
    steps = [{"repeat": 2, "steps": ["a", {"repeat": 2, "steps": ["b"]}]}]
    assert run("chain", {"steps": steps}, echo)[1].asked == ["a", "b", "b", "a", "b", "b"]


def test_a_chain_may_stop_early_with_what_it_has(run: Run) -> None:
    steps = [{"name": "kind", "stop_if": "kind == 'spam'"}, "summary"]
    assert run("chain", {"steps": steps}, lambda name, *_: "spam")[0].output == "spam"
    assert run("chain", {"steps": steps}, lambda name, *_: name)[0].output == "summary"


@pytest.mark.parametrize("failing", ["critique", "unrenderable"])
def test_a_step_that_fails_ends_the_row_with_what_came_so_far(run: Run, failing: str) -> None:
    done, row = run("chain", {"steps": ["draft", failing, "revise"]}, lambda name, *_: BAD if name == failing else name)
    assert isinstance(done, Incomplete) and done.failure is None, "the record tells of the request's failure by itself"
    assert done.output == "draft"
    assert done.details["steps"][1]["error"]["kind"] == ("schema" if failing == "critique" else "prompt")
    assert row.asked == ["draft", failing]


def test_of_several_samples_an_answer_is_the_list(run: Run) -> None:
    done, _ = run("chain", {"steps": ["several"]}, lambda name, _given, i: f"{name}{i}")
    assert done.output == ["several0", "several1"]


def test_an_expression_that_cannot_be_told_ends_the_row_and_is_named(run: Run) -> None:
    steps = ["critique", {"name": "revise", "when": "critique.score < 4"}]
    done, _ = run("chain", {"steps": steps}, lambda name, *_: {"score": "low"})
    assert done.failure.kind is FailureKind.PROMPT
    assert "row 'r': when of step revise (critique.score < 4): TypeError" in done.failure.message


def test_a_row_of_which_nothing_is_asked_says_so(run: Run) -> None:
    done, _ = run("chain", {"steps": [{"name": "draft", "when": "false"}]}, echo)
    assert "no step was asked" in done.failure.message


def test_the_keys_of_an_answer_are_fields_to_map_from(run: Run) -> None:
    from llmbatch.programs.steps import spread

    given: dict[str, Any] = {}
    spread("question", {"text": "Why?", "by": {"who": "me"}}, given)
    assert given["question.text"] == "Why?" and given["question.by.who"] == "me"


# before there is a row

STEPS = ["main", "critique"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, r"program.settings.steps is missing"),
        ({"steps": ["main", "critic"]}, "asks with a prompt 'critic', and the job has main, critique, revise"),
        ({"steps": [{"nam": "main"}]}, "unknown key 'program.settings.steps.0.nam' (did you mean 'name'?)"),
        ({"steps": [{"prompt": "main"}]}, "needs a name, or steps that are repeated"),
        ({"steps": [{"name": "my draft"}]}, "'my draft' cannot name a step"),
        ({"steps": ["row"]}, "'row' cannot name a step"),
        ({"steps": ["main", {"name": "critique", "when": "main =="}]}, "the expression 'main ==' is wrong"),
        ({"steps": ["main", {"name": "critique", "until": "critique"}]}, "until ends what is repeated: give repeat"),
        ({"steps": [{"name": "x", "steps": STEPS}]}, "steps that are repeated have no name"),
        ({"steps": ["revise", "critique"]},
         "steps[0] (revise): the prompt revise takes 'critique', and the step critique comes later: put it before"),
        ({"steps": ["main", {"name": "critique", "when": "revise == 1"}, "revise"]},
         "steps[1].when (revise == 1): looks at the step revise, which comes later"),
        ({"steps": STEPS, "output": "critik.score"},
         "output (critik.score): there is no step 'critik' (did you mean 'critique'?); known here are main, critique, row"),
        ({"steps": STEPS, "output": {"s": "critique.scor"}},
         "output.s (critique.scor): takes critique.scor, and the answer has no 'scor' (did you mean 'score'?)"),
        ({"steps": ["main", {"steps": ["critique"], "repeat": 2, "until": "main == ''"}]},
         "looks at none of the steps that are repeated: critique"),
        ({"steps": ["main", {"steps": ["revise", "critique"], "repeat": 2}]},
         "the first time there is no answer of critique yet: give the variable a default"),
        ({"steps": STEPS, "outputs": "main"}, "unknown key 'program.settings.outputs' (did you mean 'output'?)"),
        ({"steps": "main"}, "program.settings.steps: "),
    ],
)  # fmt: skip
def test_what_can_be_known_to_be_wrong_is_said_before_a_row(
    problem: Problem, settings: dict[str, Any], said: str
) -> None:
    seen = problem(
        "chain",
        settings,
        main=facts("text"),
        critique=facts("main", answer=closed(score="integer", words="string")),
        revise=facts("main", "critique"),
    )
    assert said in seen


@pytest.mark.parametrize(
    ("need", "said"),
    [
        ({"critique": Need(parts=frozenset({"wrods"}))},
         "takes 'critique' and of it 'wrods', and the answer has no 'wrods' (did you mean 'words'?)"),
        ({"critique": Need("string")}, "takes 'critique' as string, and the answer is of type object"),
        ({"critique.wrods": Need()}, "takes 'critique.wrods', and the answer has no 'wrods'"),
        ({"critique.score": Need("string")}, "takes 'critique.score' as string, and the answer is of type integer"),
        ({"draft": Need(parts=frozenset({"text"}))},
         "takes 'draft' and of it 'text', and the answer is of type string, without keys"),
        ({"critique.score": Need("number"), "draft": Need("string", parts=frozenset({"upper"})), "text": Need()}, ""),
        ({"critique": Need("object", parts=frozenset({"score", "items"}))}, ""),
    ],
)  # fmt: skip
def test_what_a_prompt_takes_of_an_answer_is_held_against_what_that_is(
    problem: Problem, need: dict[str, Need], said: str
) -> None:
    seen = problem(
        "chain",
        {"steps": [{"name": "draft", "prompt": "main"}, "critique", "revise"]},
        main=facts("text"),
        critique=facts("draft", answer=closed(score="integer", words="string")),
        revise=facts(**need),
    )
    assert said in seen if said else seen == ""


def test_a_variable_with_a_default_may_be_answered_later_in_a_repetition(problem: Problem) -> None:
    steps = [{"repeat": 3, "until": "critique.score > 3", "steps": ["draft", "critique"]}]
    seen = problem("chain", {"steps": steps}, draft=facts(critique=Need(required=False)), critique=facts("draft"))
    assert (
        "steps[0].until (critique.score > 3): takes critique.score, and the answer is of type string, without keys"
        in seen
    )
    schema = {"$ref": "#/$defs/C", "$defs": {"C": closed(score="integer")}}
    critique = facts("draft", answer=schema)
    assert problem("chain", {"steps": steps}, draft=facts(critique=Need(required=False)), critique=critique) == ""
