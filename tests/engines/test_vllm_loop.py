"""The loop around ``vllm.LLM`` with a core in its own process that is played here, and a clock that is set."""

from __future__ import annotations

import queue
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbatch.core.errors import EngineDied
from llmbatch.core.types import (
    Completion,
    Image,
    Outcome,
    Pooling,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Sampling,
    Usage,
)
from llmbatch.engines.feed import Feed
from llmbatch.engines.vllm import loop as vllm_loop
from llmbatch.engines.vllm.loop import Intake, Loop, Tools
from llmbatch.engines.vllm.sampling import Setting
from llmbatch.engines.vllm.score import Limits
from llmbatch.engines.vllm.sight import Sight
from llmbatch.images.base import ImageSettings

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


def loop_of(taken: list[Any] | None = None, *, most_with_images: int | None = None, poolings: Any = None) -> Loop:
    """A loop whose engine takes every request and, alive and well, has not answered any yet. ``taken`` is what it was given."""
    core = SimpleNamespace(
        outputs_queue=queue.Queue(), resources=SimpleNamespace(engine_manager=None, engine_dead=False)
    )
    given = [] if taken is None else taken

    def add_request(_name: str, prompt: Any, _params: Any, **_more: Any) -> None:
        given.append(prompt)

    llm: Any = SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core, add_request=add_request))
    samplings: Any = SimpleNamespace(of=lambda _request: (SETTING, None))
    detokenizer: Any = None
    chat: Any = SimpleNamespace(made=lambda *_: {"type": "multimodal", "prompt_token_ids": [1, 2, 3]})
    sight = None if most_with_images is None else Sight(llm, chat, ImageSettings(workers=2), most_with_images)
    tools = Tools(samplings, detokenizer, None, {}, Limits(100, 64, None), poolings=poolings, sight=sight)
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


def looking(index: int, picture: Path) -> Request:
    return replace(ask(index), prompt=Prompt(messages=(), images=(Image(str(picture)),)))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image as Pillow

    path = tmp_path / "picture.png"
    Pillow.new("RGB", (4, 4)).save(path)
    return path


def test_no_more_prompts_with_images_are_handed_over_than_may_be_held_and_text_goes_past_them(picture: Path) -> None:
    taken: list[Any] = []
    feed = Feed()
    feed.push([*[looking(i, picture) for i in range(5)], *[ask(i) for i in range(5, 8)]])
    steps = loop_of(taken, most_with_images=2).stream(feed)
    while len(taken) < 5:
        assert next(steps) == []
    for _ in range(50):
        assert next(steps) == []
    assert [prompt["type"] for prompt in taken].count("multimodal") == 2
    assert len(taken) == 5
    assert len(feed.in_flight) == 8


def test_an_image_that_cannot_be_loaded_and_a_model_without_sight_refuse_the_request_alone(picture: Path) -> None:
    missing = looking(0, picture.with_name("none.png"))
    for most, words in ((2, "there is no such image"), (None, "the model takes text alone")):
        taken: list[Any] = []
        feed = Feed()
        feed.push([missing, ask(1)])
        steps = loop_of(taken, most_with_images=most).stream(feed)
        outcomes: list[Outcome] = []
        while not outcomes or not taken:
            outcomes += next(steps)
        (refused,) = outcomes
        assert isinstance(refused, Refusal)
        assert words in refused.failure.message
        assert len(taken) == 1


def test_what_is_being_loaded_is_given_up_with_the_rest(picture: Path) -> None:
    taken: list[Any] = []
    feed = Feed()
    feed.push([looking(0, picture)])
    loop = loop_of(taken, most_with_images=0)
    steps = loop.stream(feed)
    next(steps)
    loop._engine.abort_request = lambda _names: None
    loop.abort()
    feed.recall()
    feed.push([ask(1)])
    while not taken:
        next(steps)
    assert taken == [{"type": "token", "prompt_token_ids": [1]}]


def test_numbers_are_asked_for_with_the_images_of_the_prompt(picture: Path) -> None:
    taken: list[Any] = []
    feed = Feed()
    pooling = Pooling("embed")
    feed.push([replace(looking(0, picture), pooling=pooling), replace(ask(1), pooling=pooling)])
    poolings: Any = SimpleNamespace(
        of=lambda *_: None, outcome=lambda request, _: Completion(request.key, "", "stop", Usage())
    )
    loop = loop_of(taken, most_with_images=1, poolings=poolings)
    steps = loop.stream(feed)
    while len(taken) < 2:
        assert next(steps) == []
    assert [prompt["type"] for prompt in taken] == ["token", "multimodal"]
    assert loop._seen == 1
    loop._outcomes([SimpleNamespace(request_id=str(number)) for number in range(2)])
    assert loop._seen == 0, "there is room for the next one"
