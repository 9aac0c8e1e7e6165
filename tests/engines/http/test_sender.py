"""The sender of requests, with a client that is told what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from llmbatch.core.errors import EngineDied, EngineError, LlmbatchError
from llmbatch.core.types import Outcome, Prompt, Refusal, Request, RequestKey, Sampling
from llmbatch.engines.http.base import CutOff, NotSent, Reply, Untrusted
from llmbatch.engines.http.limit import Limit
from llmbatch.engines.http.pool import Pool
from llmbatch.engines.http.sender import Sender
from llmbatch.engines.openai.dialect import VLLM
from llmbatch.engines.openai.wire import OpenAIWire

ANSWER = Reply(200, {}, b'{"choices": [{"text": "yes"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}')
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

    def __init__(self, client: Any, at_a_time: int = 4) -> None:
        self.outcomes: list[Outcome] = []
        self.errors: list[LlmbatchError] = []
        self.pool = Pool(["http://server"], lambda: Limit(at_a_time))
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
