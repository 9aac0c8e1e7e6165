"""The sender of requests, with a client that is told what comes back."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from llmbatch.core.errors import EngineDied, EngineError, LlmbatchError
from llmbatch.core.types import Completion, Outcome, Prompt, Refusal, Request, RequestKey, Sampling
from llmbatch.engines.http.base import CutOff, NotSent, Packed, Reply, Untrusted
from llmbatch.engines.http.limit import Limit
from llmbatch.engines.http.pool import Pool
from llmbatch.engines.http.retry import Verdict
from llmbatch.engines.http.sender import Sender
from llmbatch.engines.openai.dialect import VLLM
from llmbatch.engines.openai.wire import OpenAIWire

ANSWER = Reply(200, {}, b'{"choices": [{"text": "yes"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}')
FAILED = Reply(500, {}, b"{}")
SAMPLING = Sampling((("temperature", 0),))


class Client:
    """``reply`` is given the prompt's text, and gives a reply or raises. It keeps with what else each was in flight."""

    def __init__(self, reply: Callable[[str], Reply], seconds: float = 0.0) -> None:
        self.reply = reply
        self.seconds = seconds
        self.now: list[str] = []
        self.beside: dict[str, list[set[str]]] = {}

    async def post(self, _url: str, body: bytes) -> Reply:
        text = text_of(body)
        met = set(self.now)
        for other in self.now:
            self.beside[other][-1].add(text)
        self.now.append(text)
        self.beside.setdefault(text, []).append(met)
        try:
            await asyncio.sleep(self.seconds)
            return self.reply(text)
        finally:
            self.now.remove(text)


def text_of(body: bytes) -> str:
    return str(json.loads(body)["prompt"])


class Sent:
    """A sender at a client, and what came of it."""

    def __init__(self, client: Any, at_a_time: int = 4, urls: Sequence[str] = ("http://server",)) -> None:
        self.outcomes: list[Outcome] = []
        self.errors: list[LlmbatchError] = []
        self.pool = Pool(urls, lambda: Limit(at_a_time))
        wire = OpenAIWire("any", VLLM, {}, {}, lambda _: None)
        self.sender = Sender(
            wire,
            self.pool,
            client,
            self.outcomes.append,
            self.errors.append,
            lambda _: None,
        )

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not done():
                await asyncio.sleep(0.001)


def requests(*texts: str) -> list[Request]:
    return [Request(RequestKey(number), Prompt(text=text), SAMPLING) for number, text in enumerate(texts)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.engines.http.sender.back_off", lambda *_: 0.0)


def breaking(text: str, error: type[NotSent] = CutOff) -> Callable[[str], Reply]:
    def reply(asked: str) -> Reply:
        if asked == text:
            raise error("the stand-in was told so")
        return ANSWER

    return reply


def test_what_may_break_the_connection_goes_with_nothing_else_in_flight() -> None:
    client = Client(breaking("bad"), 0.005)

    async def run() -> Sent:
        sent = Sent(client)
        sent.sender.add(requests("bad", *(f"good {i}" for i in range(60))))
        await sent.until(lambda: len(sent.outcomes) == 61)
        return sent

    sent = asyncio.run(run())
    assert client.beside["bad"][6:] == [set()] * 3
    assert [outcome.key.index for outcome in sent.outcomes if isinstance(outcome, Refusal)] == [0]


def test_where_nothing_is_answered_no_request_is_blamed() -> None:
    def nothing(_: str) -> Reply:
        raise CutOff("the stand-in was told so")

    async def run() -> Sent:
        sent = Sent(Client(nothing))
        sent.sender.add(requests("a", "b", "c"))
        await sent.until(lambda: bool(sent.errors))
        sent.sender.abort()
        return sent

    sent = asyncio.run(run())
    assert not sent.outcomes
    assert isinstance(sent.errors[0], EngineDied)
    assert sent.errors[0].suspect


class Doubts(OpenAIWire):
    """A protocol that has one status for what a request is to blame for and for what breaks."""

    def verdict(self, reply: Reply) -> Verdict:
        return Verdict.DOUBTFUL if reply.status == 500 else super().verdict(reply)

    def harmless(self, request: Request) -> Packed:
        packed = self.pack(replace(request, prompt=Prompt(text="harmless")))
        assert isinstance(packed, Packed)
        return packed


class Fails:
    """What ``waits`` is in flight until so many are, and fails then; what is not ``good`` fails for as long as it does not work."""

    def __init__(self, waits: int, *, works: bool) -> None:
        self.works = works
        self.asked: list[str] = []
        self._barrier = asyncio.Barrier(waits)

    async def post(self, _url: str, body: bytes) -> Reply:
        text = text_of(body)
        self.asked.append(text)
        if text.startswith("waits") and self.asked.count(text) == 1:
            await self._barrier.wait()
            return FAILED
        await asyncio.sleep(0)
        return ANSWER if self.works or text.startswith("good") else FAILED


def doubting(client: Any, at_a_time: int) -> Sent:
    sent = Sent(client, at_a_time)
    wire = Doubts("any", VLLM, {}, {}, lambda _: None)
    sent.sender = Sender(wire, sent.pool, client, sent.outcomes.append, sent.errors.append, lambda _: None)
    return sent


def test_that_others_were_answered_while_a_request_was_in_flight_is_no_sign_that_it_is_to_blame() -> None:
    async def run() -> tuple[Sent, Fails]:
        client = Fails(waits=2, works=False)
        sent = doubting(client, 2)
        sent.sender.add(requests("waits 0", *(f"good {i}" for i in range(20)), "waits 1"))
        await sent.until(lambda: bool(sent.errors))
        sent.sender.abort()
        return sent, client

    sent, client = asyncio.run(run())
    assert client.asked.index("waits 1") > client.asked.index("good 19")
    assert [type(outcome) for outcome in sent.outcomes] == [Completion] * 20
    assert isinstance(sent.errors[0], EngineDied)


def test_of_requests_that_fail_together_one_asks_whether_the_server_works() -> None:
    async def run() -> tuple[Sent, Fails]:
        client = Fails(waits=16, works=True)
        sent = doubting(client, 16)
        sent.sender.add(requests(*(f"waits {i}" for i in range(16))))
        await sent.until(lambda: len(sent.outcomes) == 16)
        return sent, client

    sent, client = asyncio.run(run())
    assert [type(outcome) for outcome in sent.outcomes] == [Refusal] * 16
    assert client.asked.count("harmless") == 2, "the first's was on its way before the others had failed"


def test_a_certificate_that_no_longer_verifies_ends_it() -> None:
    async def run() -> Sent:
        sent = Sent(Client(breaking("a", Untrusted)))
        sent.sender.add(requests("a"))
        await sent.until(lambda: bool(sent.errors))
        return sent

    errors: list[Any] = asyncio.run(run()).errors
    assert [type(error) for error in errors] == [EngineError]


def test_what_is_given_up_before_it_began_takes_no_room() -> None:
    async def run() -> Sent:
        sent = Sent(Client(lambda _: ANSWER))
        sent.sender.add(requests("a", "b", "c", "d"))
        sent.sender.abort()  # none of its tasks had a turn yet
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return sent

    sent = asyncio.run(run())
    assert sent.pool.in_flight == 0
    assert not sent.outcomes


class Told(Limit):
    """Wants more after the first answer, and keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(start=2, asks=True)
        self.told: list[bool] = []

    def answered(self, *_: Any, **__: Any) -> None:
        self.wanted = 4.0

    def permit(self, may: bool) -> None:
        self.told.append(may)
        super().permit(may)


@pytest.mark.parametrize("may", [True, False])
def test_a_server_is_asked_before_it_is_given_more_at_a_time(may: bool) -> None:
    asked: list[str] = []

    async def may_grow(_: Any, url: str) -> bool:
        asked.append(url)
        return may

    async def run() -> Told:
        sent, limit = Sent(Client(lambda _: ANSWER)), Told()
        sent.pool.limit_by(lambda: limit)
        wire = OpenAIWire("any", VLLM, {}, {}, lambda _: None)
        sender = Sender(
            wire, sent.pool, sent.sender._client, sent.outcomes.append, sent.errors.append, lambda _: None, may_grow
        )
        sender.add(requests("a"))
        await sent.until(lambda: bool(limit.told))
        return limit

    limit = asyncio.run(run())
    assert (asked, limit.told, limit.now) == (["http://server"], [may], 4 if may else 2)


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose seconds pass at once, as nothing but its own timers is waited for."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Passing(self))

    def time(self) -> float:
        return self.now


class _Passing(selectors.DefaultSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        self._clock.now += timeout or 0.0
        return super().select(0)


def test_a_server_that_asks_to_be_left_alone_for_so_long_is_and_the_other_one_is_asked_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(
        "llmbatch.engines.http.sender.time", SimpleNamespace(monotonic=clock.time, time=lambda: 1_800_000_000.0)
    )
    asked: list[tuple[str, str, float]] = []  # the server, the text, when

    class Busy:
        async def post(self, url: str, body: bytes) -> Reply:
            asked.append((str(urlsplit(url).hostname), text_of(body), clock.now - 1000.0))
            await asyncio.sleep(1.0)
            first = [each for each in asked if each[0] == "busy"] == [asked[0]]
            return Reply(429, {"retry-after": "60"}, b"{}") if "busy" in url and first else ANSWER

    async def run() -> None:
        sent = Sent(Busy(), at_a_time=1, urls=["http://busy", "http://other"])
        sent.sender.add(requests(*(f"text {i}" for i in range(80))))
        for _ in range(1000):
            if len(sent.outcomes) == 80:
                return
            await asyncio.sleep(1.0)
        raise AssertionError(f"{len(sent.outcomes)} answers: {asked}")

    with asyncio.Runner(loop_factory=lambda: clock) as runner:
        runner.run(run())
    times = [at for server, _, at in asked if server == "busy"]
    assert times[0] == 0.0
    assert len(times) > 1
    assert min(times[1:]) == pytest.approx(61.0), "it said so one second after it was asked"
    assert sum(server == "other" and at < 61.0 for server, _, at in asked) >= 60
    assert [at for _, text, at in asked if text == "text 0"] == [0.0, pytest.approx(61.0)]


def test_what_nobody_wants_any_more_is_ended_wherever_it_is() -> None:
    """In flight, before its next try, and in the queue."""
    ended: list[str] = []

    class Hangs:
        async def post(self, _url: str, body: bytes) -> Reply:
            if (text := text_of(body)) == "tried":
                return Reply(503, {"retry-after": "1000"}, b"{}")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append(text)
                raise
            return ANSWER

    async def run() -> Sent:
        sent = Sent(Hangs(), at_a_time=1, urls=["http://one", "http://two", "http://three"])
        sent.sender.add(requests("tried", "in flight", "kept", "waits", "waits too"))
        await sent.until(lambda: bool(sent.sender._timers) and sent.pool.in_flight == 2)
        sent.sender.cancel({RequestKey(0), RequestKey(1), RequestKey(3)})
        await sent.until(lambda: len(sent.outcomes) == 3 and ended == ["in flight"])
        await sent.until(lambda: sent.pool.in_flight == 2)  # the next one has its place
        sent.sender.abort()
        return sent

    sent = asyncio.run(run())
    assert sorted(outcome.key.index for outcome in sent.outcomes) == [0, 1, 3]
    assert {outcome.finish_reason for outcome in sent.outcomes if isinstance(outcome, Completion)} == {"abort"}
    assert not sent.errors


def test_what_is_ended_twice_has_one_outcome() -> None:
    """Its connection may take a moment to close."""

    class Closes:
        async def post(self, _url: str, _body: bytes) -> Reply:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0.001)
                raise
            return ANSWER

    async def run() -> Sent:
        sent = Sent(Closes())
        sent.sender.add(requests("a"))
        await asyncio.sleep(0)
        for _ in range(2):
            sent.sender.cancel({RequestKey(0)})
            await asyncio.sleep(0)
        await sent.until(lambda: sent.pool.in_flight == 0)
        return sent

    sent = asyncio.run(run())
    assert [outcome.key.index for outcome in sent.outcomes] == [0]
