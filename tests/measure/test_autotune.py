from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.engines.kinds import Candidate, make_engine
from llmbatch.engines.messages import answered, outcomes_of
from llmbatch.engines.scripted.engine import ScriptedEngine
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.side_by_side import SideBySide
from llmbatch.job.tuning import TuningSettings
from llmbatch.measure.autotune import Known, autotune, read, sentences, write
from llmbatch.measure.speed import Measured, Slice
from llmbatch.measure.trials import Round, Trial
from llmbatch.measure.verdicts import Judged
from llmbatch.model.tokenizer import ChatSettings

SAMPLING = Sampling((("max_tokens", 1000), ("temperature", 0)))
SLOW: dict[str, Any] = {"latency": 0.03, "concurrency": 4}
OTHER_ANSWERS = [{"when": {"index": [3, 40]}, "answer": "another"}]


def make_one(settings: EngineSettings, _number: int = 0) -> Engine:
    return make_engine("any", settings, ChatSettings(), Path("engine.log"))


def make(settings: EngineSettings) -> Engine:
    return make_one(settings) if settings.engines == 1 else SideBySide(make_one, settings)


def requests(_engine: Engine, _info: EngineInfo, count: int = 120, sampling: Sampling = SAMPLING) -> Sequence[Request]:
    return [Request(RequestKey(i), Prompt(text="12345"), sampling, token_ids=[1] * 5) for i in range(count)]


def tune(sample: Any = requests, tuning: dict[str, Any] | None = None, **args: Any) -> dict[str, Any]:
    known = Known(TuningSettings.model_validate(tuning or {}))
    return autotune(make, EngineSettings(name="scripted", args=args), sample, lambda _: None, known)


def own(*, exact: bool = True, tolerance: Any = None, max_time: float = 600, **args: Any) -> dict[str, Any]:
    """Tuning that tries one candidate of the job's own, and nothing else."""
    candidate = {"args": args, "exact": exact}
    return {"kinds": [], "candidates": {"mine": candidate}, "tolerance": tolerance, "max_time": max_time}


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {tried["name"]: tried for tried in found["tried"]}


def mine(found: dict[str, Any]) -> dict[str, Any]:
    return by_name(found)["mine"]


pytestmark = pytest.mark.usefixtures("clock")


def test_a_setting_that_is_clearly_faster_is_chosen() -> None:
    found = tune(**SLOW)
    assert found["chosen"] == "in_flight=8"
    assert found["changes"] == {"in_flight": 8}
    tried = by_name(found)
    assert tried["in_flight=8"]["verdict"] == "chosen"
    assert tried["in_flight=2"]["verdict"] == "slower"
    assert [len(tried[name]["rounds"]) for name in ("default", "in_flight=8", "in_flight=2")] == [3, 3, 1]
    assert found["engine_starts"] == 8
    assert "in_flight=8 is 2.00x" in found["said"]


def test_a_candidate_of_one_point_three_times_the_speed_wins() -> None:
    found = tune(tuning=own(latency=0.03 / 1.3), **SLOW)
    assert found["chosen"] == "mine"
    assert found["changes"] == {"args": {"latency": 0.03 / 1.3, "concurrency": 4}}
    assert mine(found)["settings"] == {"args": {"latency": 0.03 / 1.3}}
    ratio = mine(found)["ratio"]
    assert 1.05 < ratio["low"] <= ratio["expected"] <= ratio["high"]
    assert ratio["expected"] == pytest.approx(1.3, rel=0.02)


def test_a_candidate_of_one_point_zero_one_times_the_speed_does_not_win() -> None:
    found = tune(tuning=own(latency=0.03 / 1.01), **SLOW)
    assert found["chosen"] == "default"
    assert found["changes"] == {}
    assert mine(found)["verdict"] == "unclear"
    assert len(mine(found)["rounds"]) == 1  # more rounds would make no winner of it


def test_what_changes_answers_is_refused_at_exact() -> None:
    found = tune(tuning=own(latency=0.01, rules=OTHER_ANSWERS, exact=False, tolerance="exact"), **SLOW)
    assert found["chosen"] == "default"
    assert mine(found)["verdict"] == "refused"
    assert mine(found)["agreement"] == {
        "equal": 118,
        "compared": 120,
        "share": 118 / 120,
        "low": pytest.approx(0.949, abs=0.01),
    }
    assert "118 of 120 greedy answers are as without it, less than the tolerance of exact" in mine(found)["reason"]


def test_what_changes_few_answers_is_kept_where_the_tolerance_allows_it() -> None:
    found = tune(tuning=own(latency=0.01, rules=OTHER_ANSWERS, exact=False, tolerance=0.95), **SLOW)
    assert found["chosen"] == "mine"
    assert "98.3% of 120 greedy answers are as without it" in found["said"]


def test_without_a_tolerance_what_may_change_answers_is_shown_and_not_kept() -> None:
    found = tune(tuning=own(latency=0.01, exact=False), **SLOW)
    assert found["chosen"] == "default"
    assert mine(found)["verdict"] == "refused"
    assert mine(found)["agreement"]["share"] == 1
    assert "to use what agrees so far give --tolerance exact" in mine(found)["reason"]
    assert any("mine is not used: 3.0" in said for said in sentences(found))


def test_what_is_merely_shown_is_measured_twice_beside_the_default() -> None:
    found = tune(tuning=own(latency=0.01, exact=False), **SLOW)
    assert [one["round"] for one in mine(found)["rounds"]] == [1, 2]
    assert [one["round"] for one in by_name(found)["default"]["rounds"]] == [1, 2]
    assert "in 2 rounds, but" in mine(found)["reason"]


def test_what_one_round_alone_says_is_not_shown() -> None:
    """A round and a half take all of the time."""
    found = tune(tuning=own(latency=0.01, exact=False, max_time=50), start_seconds=10, **SLOW)
    assert len(mine(found)["rounds"]) == 1
    assert "one round, which is no proof" in mine(found)["reason"]
    assert not any("mine is not used" in said for said in sentences(found))


def test_a_sample_that_ends_before_its_time_is_asked_again_by_all_equally_often() -> None:
    """One latency for every four of 40 requests: 0.3 s, of 8 s that there are."""
    few = partial(requests, count=40)
    found = tune(few, own(latency=0.015, exact=True), **SLOW)
    first = [by_name(found)[name]["rounds"][0] for name in ("default", "mine")]
    assert [one["requests"] for one in first] == [16 * 40, 16 * 40]
    assert first[0]["seconds"] == pytest.approx(2 * first[1]["seconds"], rel=0.01)
    assert found["chosen"] == "mine"
    assert mine(found)["ratio"]["expected"] == pytest.approx(2.0, rel=0.01)


def test_a_prefix_cache_is_emptied_before_the_sample_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    forgot: list[int] = []
    monkeypatch.setattr(ScriptedEngine, "forget", lambda engine: forgot.append(id(engine)), raising=False)
    tune(partial(requests, count=40), own(latency=0.015), **SLOW)
    assert len(forgot) == 15 * 6  # in three rounds of two


def test_an_engine_whose_prefix_cache_cannot_be_emptied_is_asked_once() -> None:
    found = tune(partial(requests, count=40), own(latency=0.015, kv_cache_tokens=10_000), **SLOW)
    first = [by_name(found)[name]["rounds"][0] for name in ("default", "mine")]
    assert [one["requests"] for one in first] == [16 * 40, 40]
    assert first[0]["seconds"] / 16 == pytest.approx(2 * first[1]["seconds"], rel=0.01)


def test_answers_of_an_engine_in_another_process_agree_with_those_of_one_in_this() -> None:
    """Token ids do not cross the border, where nothing needs them."""

    def elsewhere(settings: EngineSettings) -> Engine:
        engine = ScriptedEngine("any", settings, ChatSettings(), Path("engine.log"))
        if settings.args["latency"] == 0.01:
            stream = engine.stream
            engine.stream = lambda feed: (  # type: ignore[method-assign]
                outcomes_of(answered(outcomes, engine.counts(), engine.busy())) for outcomes in stream(feed)
            )
        return engine

    known = Known(TuningSettings.model_validate(own(latency=0.01, exact=False, tolerance="exact")))
    settings = EngineSettings(name="scripted", args=SLOW)
    found = autotune(elsewhere, settings, requests, lambda _: None, known)
    assert mine(found)["agreement"]["share"] == 1.0
    assert found["chosen"] == "mine"


def test_an_engine_whose_answers_take_longer_than_a_measurement_is_measured_for_longer() -> None:
    """As a large model's: one of its answers takes 20 s, of 8 s that are meant."""
    found = tune(tuning=own(latency=10.0), latency=20.0, concurrency=4)
    assert found["chosen"] == "mine"
    assert mine(found)["ratio"]["expected"] == pytest.approx(2.0, rel=0.05)
    assert found["seconds"] <= 600


def test_a_candidate_that_answers_more_at_a_time_gets_the_time_for_it() -> None:
    """32 at a time that take four times as long: half of what it has in flight is answered only after twice the time."""
    found = tune(tuning=own(latency=4.0, concurrency=32, max_time=75), latency=0.5, concurrency=4)
    assert mine(found)["rounds"][0]["requests"] >= 32
    assert mine(found)["verdict"] != "failed"


def test_a_candidate_that_answers_too_little_is_not_said_to_be_slow() -> None:
    found = tune(tuning=own(latency=500.0, max_time=60), latency=0.5, concurrency=4)
    assert mine(found)["verdict"] == "failed"
    assert "mine failed" in found["said"]


@pytest.mark.parametrize("count", [16, 120, 600])  # what is answered while the engine fills or empties is no other pace
def test_of_what_takes_longer_to_start_it_is_said_from_where_on_that_pays(count: int) -> None:
    """Four at a time, 30 ms each, are 7.5 ms a request: half of that is saved, and the start takes 9 s more."""
    tuning = own(latency=0.015, start_seconds=10)
    found = tune(partial(requests, count=count), tuning, **SLOW, start_seconds=1)
    assert found["chosen"] == "mine"
    assert mine(found)["pays_from_requests"] == pytest.approx(9 / 0.00375, rel=0.02)
    assert "it takes 9 s longer to start, which pays from about 2,4" in found["said"]


def test_a_start_that_is_as_short_is_not_spoken_of() -> None:
    found = tune(**SLOW)
    assert "to start" not in found["said"]
    assert by_name(found)["in_flight=8"]["pays_from_requests"] == 0


def test_too_few_answers_are_no_proof_that_they_agree() -> None:
    tuning = own(latency=0.01, exact=False, tolerance=0.995)
    found = tune(tuning=tuning, **SLOW)
    assert "120 answers could be compared, of 200 that a tolerance of 0.995 needs" in mine(found)["reason"]


def test_answers_that_are_drawn_are_compared_by_greedy_versions() -> None:
    drawn = Sampling((("max_tokens", 1000), ("seed", 1), ("temperature", 1.0)))
    found = tune(lambda e, i: requests(e, i, sampling=drawn), own(latency=0.01, exact=False, tolerance="exact"), **SLOW)
    assert not found["sample"]["greedy"]
    assert mine(found)["agreement"]["compared"] == 120
    assert found["chosen"] == "mine"


def test_longer_answers_are_no_gain() -> None:
    """A request counts the tokens of its untuned answer: twice as many in twice the time is half the speed."""
    longer = [{"answer": "1234512345123451234512345"}]
    found = tune(tuning=own(latency=0.06, rules=longer, exact=False, tolerance=0.5), **SLOW)
    assert mine(found)["ratio"]["expected"] == pytest.approx(0.5, rel=0.02)
    assert mine(found)["answer_tokens"] == 25


def test_a_candidate_that_cannot_start_is_recorded_and_the_default_kept() -> None:
    found = tune(**SLOW, out_of_memory_above=4)
    assert found["chosen"] == "default"
    assert found["changes"] == {}
    tried = by_name(found)["in_flight=8"]
    assert tried["verdict"] == "failed"
    assert "no memory for 8 requests" in tried["reason"]


def test_a_candidate_that_dies_ends_nothing_but_its_own_trial() -> None:
    candidates = {
        "dies": {"args": {"rules": [{"when": {"index": 50}, "die": True}]}, "exact": True},
        "fast": {"args": {"latency": 0.01}, "exact": True},
    }
    found = tune(tuning={"kinds": [], "candidates": candidates}, **SLOW)
    assert by_name(found)["dies"]["verdict"] == "failed"
    assert "died of row 50" in by_name(found)["dies"]["reason"]
    assert found["chosen"] == "fast"


def test_a_candidate_that_refuses_what_the_default_answers_has_failed() -> None:
    found = tune(tuning=own(rules=[{"when": {"index": 7}, "fail": "no"}]), **SLOW)
    assert mine(found)["verdict"] == "failed"
    assert "1 requests were refused" in mine(found)["reason"]


def test_a_candidate_with_an_argument_that_is_wrong_has_failed() -> None:
    found = tune(tuning=own(nonsense=1), **SLOW)
    assert mine(found)["verdict"] == "failed"
    assert "nonsense" in mine(found)["reason"]


def test_a_default_that_cannot_start_is_left_to_the_run() -> None:
    found = tune(**SLOW, out_of_memory_above=3)
    assert found["changes"] == {}
    assert "nothing was tried" in found["said"]


def test_with_too_few_requests_nothing_is_tried() -> None:
    found = tune(lambda engine, info: requests(engine, info, 7), **SLOW)
    assert [tried["name"] for tried in found["tried"]] == ["default"]
    assert "7 requests are too few" in found["said"]


def test_no_trial_is_begun_that_the_time_does_not_hold() -> None:
    found = tune(tuning={"max_time": 60, "kinds": None}, start_seconds=10, **SLOW)
    tried = by_name(found)
    assert tried["in_flight=8"]["rounds"]
    assert tried["in_flight=2"]["verdict"] == "not tried"
    assert "--autotune-time" in tried["in_flight=2"]["reason"]
    assert found["seconds"] <= 60


def test_what_wins_by_itself_is_tried_together_where_it_is_of_two_kinds() -> None:
    tuning = {"candidates": {"mine": {"args": {"latency": 0.02}, "exact": True}}}
    found = tune(tuning=tuning, **SLOW)
    assert found["chosen"] == "in_flight=8 + mine"
    assert found["changes"] == {"in_flight": 8, "args": {"latency": 0.02, "concurrency": 4}}
    assert by_name(found)["in_flight=8 + mine"]["ratio"]["expected"] == pytest.approx(3.0, rel=0.03)
    assert by_name(found)["in_flight=8"]["verdict"] == "faster"


def test_several_engines_are_tried_as_one(clock: None) -> None:
    with_two = Candidate("two", {"replicas": 2}, "replicas", exact=False)
    engine = make(EngineSettings(name="scripted", args={"concurrency": 4}).model_copy(update=dict(with_two.changes)))
    info = engine.start()
    assert info.engines == 2
    engine.stop()


def test_speculation_that_wins_says_how_much_must_be_right() -> None:
    found = tune(tuning=own(latency=0.03 * 0.75, accepts=[0.4], exact=False, tolerance="exact"), **SLOW)
    assert found["chosen"] == "mine"
    # as many guessed as there are tokens, 0.4 of them right, in 0.75 of the time: 0.6 steps, and 0.15 for a guessed token each
    assert found["changes"]["least_acceptance"] == pytest.approx(0.15, abs=0.01)
    asked = sum(one["requests"] for one in mine(found)["rounds"])
    assert asked >= 3 * 120
    assert mine(found)["acceptance"] == {"drafts": asked, "draft_tokens": 5 * asked, "accepted_tokens": 2 * asked}


# verdicts, of figures that are given


def measured(*rates: int) -> Measured:
    return Measured(tuple(Slice(1.0, rate, rate, 0) for rate in rates), (1,), 1)


def judged(ours: Sequence[Measured], theirs: Sequence[Measured]) -> tuple[Judged, Trial]:
    default, trial = Trial(Candidate("default", {}, "default")), Trial(Candidate("x", {"in_flight": 1}))
    for side, figures in ((default, theirs), (trial, ours)):
        side.rounds += [Round(number, each) for number, each in enumerate(figures, 1)]
    return Judged(default, [trial], None, EngineSettings()), trial


STEADY = [measured(*[1000] * 10)] * 2


def test_a_little_faster_is_not_clearly_faster() -> None:
    for rate, clear in ((1040, False), (1100, True)):
        both, trial = judged([measured(*[rate] * 10)] * 2, STEADY)
        assert both.is_clear(trial) is clear


def test_one_round_makes_no_winner() -> None:
    both, trial = judged([measured(*[1500] * 10)], STEADY)
    assert not both.is_clear(trial)


def test_what_chance_explains_is_not_clearly_faster() -> None:
    both, trial = judged([measured(600, 1600, 800, 1500)] * 2, [measured(500, 1500, 700, 1300)] * 2)
    assert not both.is_clear(trial)


def test_rounds_that_disagree_are_no_proof() -> None:
    both, trial = judged([measured(*[1100] * 10), measured(*[1900] * 10)], STEADY)
    assert not both.is_clear(trial)


def test_what_was_found_is_kept_for_the_same_engine_only(tmp_path: Path) -> None:
    path = tmp_path / "autotune.json"
    assert read(path, "a") is None
    write(path, "a", {"changes": {"in_flight": 8}})
    assert read(path, "a") == {"changes": {"in_flight": 8}}
    assert read(path, "b") is None
    path.write_text("{")
    assert read(path, "a") is None
