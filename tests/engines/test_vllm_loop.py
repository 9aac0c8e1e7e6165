"""The loop around ``vllm.LLM`` with a core in its own process that is played here, and a clock that is set."""

from __future__ import annotations

import queue
from types import SimpleNamespace
from typing import Any

import pytest

from llmbatch.core.errors import EngineDied
from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.feed import Feed
from llmbatch.engines.vllm import loop as vllm_loop
from llmbatch.engines.vllm.loop import Intake, Loop, Tools
from llmbatch.engines.vllm.sampling import Setting
from llmbatch.engines.vllm.score import Limits

pytestmark = pytest.mark.vllm  # its exceptions are vLLM's own

TIMEOUT = 100.0
SETTING = Setting(None, detokenize=False, skip_special_tokens=True, include_stop=False)


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(vllm_loop, "time", clock)
    monkeypatch.setattr(vllm_loop, "_WAIT_SECONDS", 0.001)
    return clock


def loop_of() -> Loop:
    """A loop whose engine takes every request and, alive and well, has not answered any yet."""
    core = SimpleNamespace(
        outputs_queue=queue.Queue(), resources=SimpleNamespace(engine_manager=None, engine_dead=False)
    )
    llm: Any = SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core, add_request=lambda *_args, **_more: None))
    samplings: Any = SimpleNamespace(of=lambda _request: (SETTING, None))
    detokenizer: Any = None
    tools = Tools(samplings, detokenizer, None, {}, Limits(100, 64, None))
    return Loop(llm, Intake(8, 1 << 20, 4096, TIMEOUT), tools, lambda: None, lambda _error, seen: EngineDied(seen))


def ask(index: int) -> Request:
    return Request(RequestKey(index), Prompt(text="x"), Sampling(), token_ids=[1])


def test_an_engine_that_had_nothing_to_do_for_long_has_its_whole_time_for_the_next_request(clock: Clock) -> None:
    feed = Feed()
    steps = loop_of().stream(feed)
    assert next(steps) == []
    clock.now += 10 * TIMEOUT  # nothing is asked for so long
    feed.push([ask(0)])
    assert next(steps) == []
    clock.now += 0.9 * TIMEOUT
    assert next(steps) == []
    clock.now += 0.2 * TIMEOUT
    with pytest.raises(EngineDied, match="no sign of life"):
        next(steps)


def test_new_requests_are_no_sign_of_life_of_an_engine_that_owes_others(clock: Clock) -> None:
    feed = Feed()
    feed.push([ask(0)])
    steps = loop_of().stream(feed)
    assert next(steps) == []
    clock.now += 0.9 * TIMEOUT
    feed.push([ask(1)])
    assert next(steps) == []
    clock.now += 0.2 * TIMEOUT
    with pytest.raises(EngineDied, match="no sign of life"):
        next(steps)
