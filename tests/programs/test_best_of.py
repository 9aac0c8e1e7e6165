from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import RunError
from llmbatch.core.types import Failure, FailureKind
from llmbatch.programs.base import Complete, Incomplete, Need, PromptFacts

BAD = Failure(FailureKind.SCHEMA, "not what was asked for")
Run = Callable[..., tuple[Any, Any]]
Problem = Callable[..., str]


def sampled(*values: Any, judge: Callable[[Any], Any] = lambda _given: None) -> Callable[..., Any]:
    """Samples by their number; ``judge`` answers to what it is given."""

    def answer(prompt: str, given: Mapping[str, Any], sample: int) -> Any:
        return values[sample % len(values)] if prompt == "main" else judge(next(iter(given.values())))

    return answer


def facts(*needs: str, answer: Mapping[str, Any] | None = None, temperature: float | None = 1.0) -> PromptFacts:
    return PromptFacts({name: Need() for name in needs}, answer, {"temperature": temperature})


def closed(**properties: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {k: {"type": v} for k, v in properties.items()},
        "additionalProperties": False,
    }


def test_a_judge_scores_each_sample_alone_and_the_best_is_the_output(run: Run) -> None:
    done, row = run(
        "best_of", {"n": 3, "judge": "judge"}, sampled("a", "bbb", "cc", judge=lambda it: {"score": len(it)})
    )
    assert done.output == "bbb"
    assert done.details == {
        "by": "judge",
        "chosen": 1,
        "samples": [
            {"output": "a", "score": 1, "judged": {"score": 1}},
            {"output": "bbb", "score": 3, "judged": {"score": 3}},
            {"output": "cc", "score": 2, "judged": {"score": 2}},
        ],
    }
    assert [len(asks) for asks in row.asks] == [1, 3], "the judge is asked about all samples at a time"
    assert row.asks[0][0].samples == 3


def test_of_equals_the_first_is_chosen_and_details_can_be_left_out(run: Run) -> None:
    done, _ = run(
        "best_of", {"n": 2, "judge": "judge", "details": False}, sampled("a", "b", judge=lambda _: {"score": 4})
    )
    assert done == Complete("a")


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("4", 4.0),
        (3.5, 3.5),
        ({"score": "2"}, 2.0),
        ({"score": True}, None),
        ("good", None),
        ("nan", None),
        ({"score": 10**400}, None),
    ],
)
def test_a_score_is_a_number_in_the_judge_s_answer_or_the_answer_itself(
    run: Run, said: Any, score: float | None
) -> None:
    done, _ = run("best_of", {"n": 2, "judge": "judge"}, sampled("a", "b", judge=lambda _: said))
    assert done.details["samples"][0]["score"] == score
    if score is None:
        assert done.failure.kind is FailureKind.REJECTED
        assert "none of 2 samples has a score: no answer of judge has a number as score" in done.failure.message
        assert done.output == "a"


def test_a_judge_that_is_asked_several_times_counts_on_average(run: Run) -> None:
    settings = {"n": 2, "judge": {"prompt": "several", "score": "points"}}

    def answer(prompt: str, given: Mapping[str, Any], sample: int) -> Any:
        if prompt == "main":
            return f"sample {sample}"
        return {"points": 1 + sample} if given["response"] == "sample 0" else [BAD, {"points": 3}][sample]

    done, _ = run("best_of", settings, answer)
    assert [sample["score"] for sample in done.details["samples"]] == [1.5, 3]
    assert done.output == "sample 1"


def test_a_judge_may_compare_all_samples_at_once(run: Run) -> None:
    settings = {"n": 3, "judge": {"prompt": "judge", "compare": True}}
    done, row = run("best_of", settings, sampled("a", BAD, "c", judge=lambda them: {"best": 1 + them.index("c")}))
    assert done.output == "c"
    assert [sample and sample["score"] for sample in done.details["samples"]] == [0, None, 1]
    assert (done.details["chosen"], done.details["samples"][1]) == (2, None)
    assert len(row.asks) == 2
    done, _ = run("best_of", settings, sampled("a", "b", "c", judge=lambda them: {"best": 7}))
    assert "no answer of judge has a number from 1 to 3 as best" in done.failure.message


@pytest.mark.parametrize(
    ("vote", "samples", "chosen", "scores"),
    [
        (True, ["a", "b ", "b"], 1, [1, 2, 2]),
        (True, [{"x": 1, "y": 2}, {"y": 2, "x": 1}, {"x": 2}], 0, [2, 2, 1]),
        ("answer", [{"answer": 1, "why": "p"}, {"answer": 2}, {"answer": 2, "why": "q"}], 1, [1, 2, 2]),
        (["a", "b.c"], [{"a": 1, "b": {"c": 1}}, {"a": 1}, {"a": 1, "b": {"c": 1}}], 0, [2, None, 2]),
    ],
)
def test_a_vote_chooses_the_most_frequent_value(
    run: Run, vote: Any, samples: list[Any], chosen: int, scores: list[int | None]
) -> None:
    done, _ = run("best_of", {"n": 3, "vote": vote}, sampled(*samples))
    assert done.details["chosen"] == chosen and done.output == samples[chosen]
    assert [sample["score"] for sample in done.details["samples"]] == scores


def test_a_score_may_be_a_key_of_the_answer_or_its_mean_log_probability(run: Run) -> None:
    done, _ = run("best_of", {"n": 2, "score": "sure.by"}, sampled({"sure": {"by": 0.2}}, {"sure": {"by": 0.7}}))
    assert done.details["chosen"] == 1
    done, row = run("best_of", {"n": 3, "score": "logprob"}, sampled("-2", "-0.5", "-1"))
    assert done.output == "-0.5" and done.details["samples"][1]["score"] == -0.5
    assert row.asks[0][0].sampling.get("logprobs") == 0
    assert not done.logprobs, "the record does not carry what the program alone looks at"
    done, _ = run("best_of", {"n": 2, "score": "logprob"}, sampled("no", "no"))
    assert "the engine gave no log-probabilities" in done.failure.message


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with functions of the author's."""
    name = f"own_{abs(hash(str(tmp_path))):x}"
    (tmp_path / f"{name}.py").write_text(
        "def short(value, row):\n    return len(value) <= row['most']\n\n"
        "def length(value):\n    return len(value)\n\ndef broken(value):\n    raise KeyError('oh')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_a_predicate_chooses_the_first_that_it_finds_good(run: Run, own: str) -> None:
    settings = {"n": 3, "predicate": f"{own}:short"}
    assert run("best_of", settings, sampled("long", "ab", "c"), {"most": 2})[0].output == "ab"
    done, _ = run("best_of", settings, sampled("long", "ab", "c"), {"most": 0})
    assert isinstance(done, Incomplete) and f"none of 3 samples is good by {own}:short" in done.failure.message
    assert done.details["chosen"] is None


def test_a_score_may_be_a_function_of_one_s_own(run: Run, own: str) -> None:
    assert run("best_of", {"n": 3, "score": f"{own}:length"}, sampled("a", "ccc", "bb"))[0].output == "ccc"
    with pytest.raises(RunError, match=r"row 'r': .*:broken raised KeyError: 'oh', on .*'a'"):
        run("best_of", {"n": 2, "score": f"{own}:broken"}, sampled("a"))


def test_a_row_whose_best_is_not_good_enough_is_not_ok(run: Run, own: str) -> None:
    done, _ = run("best_of", {"n": 2, "score": f"{own}:length", "at_least": 4}, sampled("a", "ccc"))
    assert "the best of 2 samples has the score 3, and at least 4 is asked for" in done.failure.message
    assert done.output == "ccc"


def test_no_more_samples_are_drawn_than_are_needed_and_each_has_its_own_seed(run: Run, own: str) -> None:
    settings = {"n": 8, "score": f"{own}:length", "at_a_time": 3, "enough": 5, "seed": 10}
    values = iter(["a", "bb", "c", "ddd", "eeeee", "f", "g", "h"])
    done, row = run("best_of", settings, lambda *_: next(values))
    assert done.output == "eeeee"
    assert [(ask.samples, ask.seed) for (ask,) in row.asks] == [(3, 10), (3, 13)]
    _, row = run("best_of", {**settings, "enough": 99}, lambda *_: "x")
    assert [(ask.samples, ask.seed) for (ask,) in row.asks] == [(3, 10), (3, 13), (2, 16)]
    _, row = run("best_of", {"n": 2, "vote": True, "seed": None}, lambda *_: "x")
    assert row.asks[0][0].seed is None
    _, row = run("best_of", {"n": 2, "judge": "judge", "seed": 5}, sampled("a", "b", judge=lambda _: {"score": 1}))
    assert [ask.seed for ask in row.asks[1]] == [5, 5], "so a judge that is not greedy says the same another time"


def test_samples_that_fail_are_left_out_and_a_row_without_any_fails(run: Run, own: str) -> None:
    done, _ = run("best_of", {"n": 2, "vote": True}, sampled(BAD, "b"))
    assert done.output == "b" and done.details["samples"][0] is None
    done, _ = run("best_of", {"n": 2, "vote": True}, sampled(BAD))
    assert isinstance(done, Incomplete) and done.failure is None


# before there is a row


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n": 2}, "one of judge, vote, score, predicate chooses the best; none was given"),
        ({"vote": True, "score": "x"}, "vote and score were given"),
        ({"vote": True, "n": 1}, "program.settings.n: "),
        ({"judge": "jugde"}, "asks with a prompt 'jugde', and the job has main, judge, blind"),
        ({"judge": {"prompt": "judge", "scores": 1}}, "unknown key 'program.settings.judge.scores' (did you mean 'score'?)"),
        ({"judge": {"prompt": "judge", "score": "point"}},
         "looks for point, and the answer has no 'point' (did you mean 'points'?)"),
        ({"judge": "blind"}, "the prompt blind does not take 'response', in which it is given what it judges, but 'text'"),
        ({"judge": {"prompt": "judge", "score": "points"}}, ""),
        ({"score": "conf"}, "score: looks for conf, and the answer has no 'conf'"),
        ({"score": "words"}, "score: words is of type array, and a score is a number"),
        ({"vote": ["day", "words"]}, "vote: looks for day, and the answer has no 'day'"),
        ({"score": "nomodule:x"}, "there is no module 'nomodule'"),
        ({"predicate": "good"}, "program.settings.predicate: is no import path"),
        ({"predicate": "json:JSONDecodeError"}, "must take the value, or the value and the row"),
        ({"vote": True, "enough": 2}, "at_a_time and enough go together"),
        ({"judge": {"prompt": "judge", "compare": True}, "enough": 1, "at_a_time": 2},
         "a judge that compares all samples gives none"),
    ],
)  # fmt: skip
def test_what_can_be_known_to_be_wrong_is_said_before_a_row(
    problem: Problem, settings: dict[str, Any], said: str
) -> None:
    seen = problem(
        "best_of",
        settings,
        main=facts("text", answer=closed(words="array", city="string")),
        judge=facts("response", answer=closed(points="integer")),
        blind=facts("text"),
    )
    assert said in seen if said else seen == ""


def test_samples_that_would_all_be_the_same_are_refused(problem: Problem) -> None:
    assert "temperature of the job's prompt is 0, so its 4 samples would all be the same" in problem(
        "best_of", {"vote": True}, main=facts("text", temperature=0)
    )
    assert "looks for city in an answer that is text: give the prompt a schema" in problem(
        "best_of", {"vote": "city"}, main=facts("text")
    )
