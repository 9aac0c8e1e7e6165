from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbatch.core.errors import EngineDied, JobError, OutOfMemory
from llmbatch.core.types import Completion, Constraint, Outcome, Prompt, Refusal, Request, RequestKey, Sampling, Usage
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.scripted.engine import ScriptedEngine
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings

GREEDY = Sampling((("max_tokens", 100), ("temperature", 0)))
numbers = itertools.count()


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Makes an engine of a script, with memory of its own for how often rules applied."""

    def make(_script: dict[str, Any] | None = None, **settings: Any) -> ScriptedEngine:
        path = tmp_path / f"script-{next(numbers)}.yaml"
        path.write_text(yaml.safe_dump(_script or {}))
        return ScriptedEngine(
            "any", EngineSettings(name="scripted", script=str(path), **settings), ChatSettings(), tmp_path / "log"
        )

    return make


def ask(index: int = 0, text: str = "hello", **fields: Any) -> Request:
    prompt = Prompt(messages=({"role": "system", "content": "be kind"}, {"role": "user", "content": text}))
    key = RequestKey(index, attempt=fields.pop("attempt", 1))
    return Request(
        key, prompt, fields.pop("sampling", GREEDY), token_ids=list(range(fields.pop("tokens", 5))), **fields
    )


def stream(engine: ScriptedEngine, *requests: Request) -> Iterator[list[Outcome]]:
    feed = Feed()
    feed.push(requests)
    feed.close()
    engine.start()
    for outcomes in engine.stream(feed):
        for outcome in outcomes:
            feed.done(outcome.key)
        yield outcomes


def answers(engine: ScriptedEngine, *requests: Request) -> list[Outcome]:
    return sorted(itertools.chain.from_iterable(stream(engine, *requests)), key=lambda outcome: outcome.key)


def answer(engine: ScriptedEngine, request: Request) -> Completion:
    (outcome,) = answers(engine, request)
    assert isinstance(outcome, Completion)
    return outcome


def test_without_a_script_it_echoes_the_last_message(make: Any) -> None:
    assert answer(make(), ask(text="say it")).text == "say it"
    assert answer(make(), Request(RequestKey(0), Prompt(text="plain"), GREEDY)).text == "plain"


def test_a_constrained_request_gets_a_smallest_valid_answer(make: Any) -> None:
    assert answer(make(), ask(constraint=Constraint("choice", '["red", "green"]'))).text == "red"


def test_the_first_rule_that_fits_applies(make: Any) -> None:
    rules = [
        {"when": {"contains": "b", "attempt": 2}, "answer": "second try"},
        {"when": {"matches": "^b"}, "answer": "begins with b"},
        {"when": {"index": [3, 4]}, "answer": "{index}: {text}, {attempt}"},
    ]
    engine = make({"rules": rules})
    assert answer(engine, ask(text="ab", attempt=2)).text == "second try"
    assert answer(engine, ask(text="bc")).text == "begins with b"
    assert answer(engine, ask(3, "c", attempt=5)).text == "3: c, 5"
    assert answer(engine, ask(5, "c")).text == "c"


def test_every_request_is_answered_exactly_once(make: Any) -> None:
    got = answers(make({"latency": 0.001, "jitter": 1.0, "concurrency": 7}), *(ask(i) for i in range(100)))
    assert [outcome.key.index for outcome in got] == list(range(100))


def test_answers_come_as_they_finish_and_not_in_the_order_asked(make: Any) -> None:
    steps = stream(make({"latency": 0.02, "jitter": 1.0}), *(ask(i) for i in range(40)))
    order = [outcome.key.index for outcomes in steps for outcome in outcomes]
    assert sorted(order) == list(range(40))
    assert order != sorted(order)


def test_no_more_run_at_a_time_than_its_concurrency(make: Any) -> None:
    feed = Feed()
    feed.push(ask(i) for i in range(20))
    feed.close()
    engine = make({"latency": 0.01, "concurrency": 3})
    most = 0
    for outcomes in engine.stream(feed):
        most = max(most, len(feed.in_flight))
        for outcome in outcomes:
            feed.done(outcome.key)
    assert most == 3


def test_tokens_are_bytes_and_an_answer_is_cut_off_at_max_tokens(make: Any) -> None:
    completion = answer(make(), ask(text="naïve", max_tokens=3))
    assert (completion.text, completion.finish_reason, list(completion.token_ids)) == ("na", "length", [110, 97, 195])
    assert completion.usage == Usage(5, 3)


def test_an_answer_is_gone_on_from_its_partial_one(make: Any) -> None:
    first = answer(make(), ask(text="hello", max_tokens=3))
    second = answer(make(), ask(text="hello", max_tokens=3, partial=tuple(first.token_ids), attempt=2))
    assert (second.text, second.finish_reason) == ("hello", "stop")
    assert second.usage == Usage(5 + 3, 2)


def test_an_answer_is_cut_off_where_the_context_ends(make: Any) -> None:
    completion = answer(make({"context_length": 7}), ask(text="hello", tokens=5))
    assert (completion.text, completion.finish_reason) == ("he", "length")


def test_a_rule_can_end_an_answer_for_another_reason(make: Any) -> None:
    assert answer(make({"rules": [{"answer": "x", "finish_reason": "error"}]}), ask()).finish_reason == "error"


def test_a_rule_can_fail_a_request_and_the_engine_lives(make: Any) -> None:
    failed, other = answers(make({"rules": [{"when": {"index": 0}, "fail": "no"}]}), ask(0), ask(1))
    assert isinstance(failed, Refusal)
    assert failed.failure.message == "no"
    assert isinstance(other, Completion)


def test_a_rule_applies_only_so_often_in_the_life_of_the_process(make: Any) -> None:
    engine = make({"rules": [{"answer": "rule", "times": 2}]})
    assert [answer(engine, ask(text="echo")).text for _ in range(3)] == ["rule", "rule", "echo"]


def test_it_dies_where_its_script_says_so_and_what_was_answered_before_comes_first(make: Any) -> None:
    steps = stream(
        make({"rules": [{"when": {"index": 2}, "die": True}], "concurrency": 10}), *(ask(i) for i in range(5))
    )
    assert [outcome.key.index for outcome in next(steps)] == [0, 1]
    with pytest.raises(EngineDied, match="row 2"):
        next(steps)


def test_it_dies_after_so_many_answers(make: Any) -> None:
    steps = stream(make({"die_after": [3], "concurrency": 1}), *(ask(i) for i in range(5)))
    with pytest.raises(EngineDied, match="after 3 requests"):
        list(steps)


def test_a_death_for_want_of_memory_says_so_by_its_cause(make: Any) -> None:
    with pytest.raises(EngineDied) as died:
        answers(make({"rules": [{"die": "out_of_memory"}]}), ask())
    assert isinstance(died.value.__cause__, OutOfMemory)


def test_a_crash_with_the_engine_in_its_own_process_is_a_death(make: Any) -> None:
    with pytest.raises(EngineDied):
        answers(make({"rules": [{"crash": True}]}, in_process=False), ask())


def test_a_hang_is_a_death_when_nothing_moved_for_the_timeout(make: Any) -> None:
    steps = stream(make({"rules": [{"when": {"index": 1}, "hang": True}]}, timeout=0.1), ask(0), ask(1))
    assert [outcome.key.index for outcome in next(steps)] == [0]
    with pytest.raises(EngineDied, match=r"answered nothing for 0\.1 s"):
        list(steps)


def test_too_many_at_a_time_is_out_of_memory(make: Any) -> None:
    engine = make({"out_of_memory_above": 10, "concurrency": 11})
    with pytest.raises(OutOfMemory):
        engine.start()
    assert make({"out_of_memory_above": 10, "concurrency": 11}, in_flight=10).start().max_num_seqs == 10


def test_what_is_given_up_is_not_answered_and_the_stream_can_go_on(make: Any) -> None:
    engine = make({"rules": [{"when": {"index": 0}, "hang": True}]})
    feed = Feed()
    feed.push([ask(0)])
    assert next(engine.stream(feed)) == []
    engine.abort()
    feed.recall()
    feed.push([ask(1)])
    feed.close()
    assert [outcome.key.index for outcome in next(engine.stream(feed))] == [1]


def test_it_counts_what_it_answered(make: Any) -> None:
    engine = make()
    answers(engine, ask(0, "four"), ask(1, "five!"))
    assert engine.counts() == Usage(10, 9)


def test_its_ids_are_those_of_the_rendered_prompt(make: Any) -> None:
    (ids,) = make().tokenize([Prompt(messages=({"role": "user", "content": "hé"},), prefill="a")])
    assert bytes(list(ids)).decode() == "<user>hé\n<assistant>a"


@pytest.mark.parametrize("content", ["rules: [{answr: x}]", "latency: -1", "- a", "a: [", "rules: 5"])
def test_a_script_that_cannot_be_used_is_refused_naming_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(content)
    with pytest.raises(JobError, match=r"script\.yaml"):
        make_engine("any", EngineSettings(name="scripted", script=str(path)), ChatSettings(), tmp_path / "log")


def test_engine_arguments_are_laid_over_the_script_and_unknown_ones_refused(tmp_path: Path) -> None:
    engine = make_engine(
        "any", EngineSettings(name="scripted", args={"concurrency": 3}), ChatSettings(), tmp_path / "log"
    )
    assert engine.start().max_num_seqs == 3
    with pytest.raises(JobError, match=r"engine.args.*Known keys: rules, latency"):
        make_engine("any", EngineSettings(name="scripted", args={"max_num_seqs": 3}), ChatSettings(), tmp_path / "log")


def test_an_unknown_engine_is_refused_listing_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"known are .*scripted.*vllm"):
        make_engine("any", EngineSettings(name="tgi"), ChatSettings(), tmp_path / "log")
