"""The loop around ``vllm.LLM`` with a core in its own process that is played here, and a clock that is set."""

from __future__ import annotations

import queue
import threading
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
from llmbatch.engines.vllm.handing import Tools
from llmbatch.engines.vllm.loop import Intake, Loop
from llmbatch.engines.vllm.sampling import Setting
from llmbatch.engines.vllm.score import Limits
from llmbatch.engines.vllm.sight import Sight
from llmbatch.images.ahead import load
from llmbatch.images.base import ImageSettings

pytestmark = pytest.mark.vllm  # its exceptions are vLLM's own

TIMEOUT = 100.0
SETTING = Setting(None, detokenize=False, skip_special_tokens=True, include_stop=False)


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_loop, "_WAIT_SECONDS", 0.001)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(vllm_loop, "time", clock)
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


def test_the_engine_goes_on_while_images_are_decoded(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decoding = threading.Event(), threading.Semaphore(0)

    def waits(prompt: Prompt, settings: ImageSettings) -> Any:
        decoding.release()
        decoded.wait(20)
        return load(prompt, settings)

    monkeypatch.setattr("llmbatch.images.ahead.load", waits)
    feed = Feed()
    feed.push([*[looking(i, picture) for i in range(3)], ask(3), ask(4)])
    played = Played([[out(0, "a", finished=True)], [], [out(1, "b", finished=True)]])
    loop = played.loop()
    chat: Any = SimpleNamespace(made=lambda *_: {"type": "multimodal", "prompt_token_ids": [1, 2, 3]})
    loop._tools = replace(loop._tools, sight=Sight(None, chat, ImageSettings(workers=2), 3))
    steps = loop.stream(feed)
    answered = [outcome.key.index for _ in range(3) for outcome in next(steps)]
    assert answered == [3, 4], "both texts were answered before any image was there"
    assert [decoding.acquire(timeout=20) for _ in range(2)] == [True, True], "and two images are looked at together"
    assert len(played.given) == 2
    decoded.set()
    while len(played.given) < 5:
        next(steps)


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


class Played:
    """An engine in this process whose steps are given: what comes out of each."""

    def __init__(self, steps: list[list[Any]]) -> None:
        self.steps = steps
        self.given: list[tuple[str, int]] = []  # the name and the priority of each request
        self.aborted: list[str] = []
        self.engine_core = SimpleNamespace()

    def add_request(self, name: str, _prompt: Any, _params: Any, *, priority: int, **_more: Any) -> None:
        self.given.append((name, priority))

    def abort_request(self, names: list[str]) -> None:
        self.aborted += names

    def step(self) -> list[Any]:
        return self.steps.pop(0) if self.steps else []

    def loop(self, reasoning: Any = None, with_room: int | None = None) -> Loop:
        samplings: Any = SimpleNamespace(of=lambda _request: (SETTING, None))
        detokenizer: Any = SimpleNamespace(texts=lambda _answers: [])
        tools = Tools(samplings, detokenizer, reasoning, {}, Limits(100, 64, None))
        intake = Intake(8, 1 << 20, 4096, TIMEOUT, with_room)
        llm: Any = SimpleNamespace(llm_engine=self)
        return Loop(llm, intake, tools, lambda: None, lambda _error, seen: EngineDied(seen))


def out(name: int, text: str, *, tokens: int = 1, finished: bool = False) -> Any:
    answer = SimpleNamespace(
        text=text, token_ids=[1] * tokens, finish_reason="stop" if finished else None, stop_reason=None, logprobs=None
    )
    return SimpleNamespace(
        request_id=str(name),
        finished=finished,
        outputs=[answer],
        prompt_token_ids=[1],
        num_cached_tokens=0,
        prompt_logprobs=None,
    )


def told_of(feed: Feed) -> list[tuple[int, str]]:
    """(start, text) of the pieces that come of a feed from now on."""
    told: list[tuple[int, str]] = []
    feed.listen(told=lambda pieces: told.extend((piece.start, piece.text) for piece in pieces))
    return told


def test_pieces_are_what_came_since_the_one_before() -> None:
    feed = Feed()
    told = told_of(feed)
    feed.push([replace(ask(0), stream=True)])
    played = Played([[out(0, "un")], [out(0, "un")], [out(0, "un deux")], [out(0, "un deux trois", finished=True)]])
    steps = played.loop().stream(feed)
    outcomes = [outcome for _ in range(4) for outcome in next(steps)]
    assert told == [(0, "un"), (2, " deux")]
    (outcome,) = outcomes
    assert isinstance(outcome, Completion)
    assert outcome.text == "un deux trois"


def test_of_an_answer_that_begins_with_thinking_what_follows_that_is_told() -> None:
    def split(text: str) -> Any:
        thought, end, rest = text.partition("</think>")
        return SimpleNamespace(content=rest) if end else SimpleNamespace(content=thought)

    feed = Feed()
    told = told_of(feed)
    feed.push([replace(ask(0), stream=True)])
    texts = ["so", "so</th", "so</think>", "so</think>un", "so</think>un deux"]
    played = Played([[out(0, text)] for text in texts])
    steps = played.loop(reasoning=SimpleNamespace(split=split, end="</think>")).stream(feed)
    for _ in texts:
        assert next(steps) == []
    assert told == [(0, "un"), (2, " deux")]


def test_a_request_that_nobody_wants_any_more_is_ended_and_what_comes_of_it_all_the_same_is_nobodys() -> None:
    feed = Feed(hurries=True)
    feed.push([ask(0), ask(1)])
    played = Played([[], [out(0, "late", finished=True)]])
    steps = played.loop().stream(feed)
    assert next(steps) == []
    feed.cancel(lambda key: key.index == 0)
    (outcome,) = next(steps)
    assert isinstance(outcome, Completion)
    assert (outcome.key, outcome.finish_reason, played.aborted) == (RequestKey(0), "abort", ["0"])


@pytest.mark.parametrize(("tokens", "handed"), [(64, 6), (1, 8)], ids=["long", "short"])
def test_places_are_left_for_what_is_urgent_as_long_as_answers_are_long(tokens: int, handed: int) -> None:
    feed = Feed()
    feed.push(ask(i) for i in range(200))
    played = Played([[out(i, "a", tokens=tokens, finished=True)] for i in range(60)])
    steps = played.loop(with_room=6).stream(feed)
    for _ in range(61):
        for outcome in next(steps):
            feed.done(outcome.key)
    assert len(feed.in_flight) == handed
    feed.push_urgent([replace(ask(200), urgent=True)])
    next(steps)
    assert len(feed.in_flight) == handed + 1
    assert [priority for _, priority in played.given] == [0] * (len(played.given) - 1) + [-1]


class Steps:
    """An engine in this process: each step takes as long as is said, and ends with these requests finished, or dies."""

    def __init__(self, clock: Clock, steps: list[list[int] | Exception], seconds: float) -> None:
        self.loop = loop_of()
        self.loop._outputs = None
        self.loop._engine.step = self.step
        self.loop._outcomes = self.outcomes  # type: ignore[method-assign]
        self._clock = clock
        self._steps = steps
        self._seconds = seconds

    def step(self) -> list[Any]:
        self._clock.now += self._seconds
        came = self._steps.pop(0)
        if isinstance(came, Exception):
            raise came
        return [SimpleNamespace(request_id=str(number), finished=True) for number in came]

    def outcomes(self, finished: Any) -> list[Outcome]:
        return [
            Completion(self.loop._pending.pop(each.request_id).request.key, "", "stop", Usage())  # type: ignore[union-attr]
            for each in finished
        ]


def told(steps: Any) -> list[int]:
    return [outcome.key.index for outcome in next(steps)]


def test_what_finishes_in_short_steps_is_told_together_as_long_as_there_is_enough_to_do(clock: Clock) -> None:
    feed = Feed()
    feed.push([ask(i) for i in range(8)])  # as many as it is handed, and four of them are enough
    steps = Steps(clock, [[0], [], [1], [], [2], [], [3], [4], [], [], [5, 6, 7]], seconds=0.003).loop.stream(feed)
    assert told(steps) == [0, 1, 2]  # of five steps: 0.01 s after the first no other one begins
    assert told(steps) == [3]  # four are left
    assert told(steps) == [4]
    assert told(steps) == [5, 6, 7]


def test_a_step_that_takes_long_is_told_by_itself(clock: Clock) -> None:
    feed = Feed()
    feed.push([ask(i) for i in range(8)])
    steps = Steps(clock, [[], [0], []], seconds=0.02).loop.stream(feed)
    assert [told(steps) for _ in range(1)] == [[0]]


def test_somebody_who_waits_for_an_answer_is_told_after_every_step(clock: Clock) -> None:
    feed = Feed(hurries=True)
    feed.push([ask(i) for i in range(8)])
    steps = Steps(clock, [[], [0], [], [1]], seconds=0.001).loop.stream(feed)
    assert [told(steps) for _ in range(4)] == [[], [0], [], [1]]


def test_what_finished_before_a_death_is_told_before_it(clock: Clock) -> None:
    feed = Feed()
    feed.push([ask(i) for i in range(8)])
    steps = Steps(clock, [[0], [], RuntimeError("boom")], seconds=0.001).loop.stream(feed)
    assert told(steps) == [0]
    with pytest.raises(EngineDied, match="engine failed"):
        next(steps)
