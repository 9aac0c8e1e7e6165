"""Live requests in, from an event loop; the outcome of each out, or its answer piece by piece: on an engine that runs share.

A live request goes ahead of all that runs have waiting there. Of an answer that is not waited for any more, because its client went
away, the engine is told, and where it can it gives the place to somebody else. When the engine dies, what was in flight is asked
again: a stream goes on where it was, if the answer comes out the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from llmbatch.core.errors import EngineError, LlmbatchError
from llmbatch.core.events import EngineReady
from llmbatch.core.types import Completion, Failure, Outcome, Piece, Refusal, Request, RequestKey
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.shared import SharedEngine
from llmbatch.job.prepare import characters

_MUCH = 20_000  # characters, which take some milliseconds: as long as it takes to hand work to a thread and back beside others

Result = TypeVar("Result")


async def aside(work: Callable[[], Result], size: int) -> Result:
    """Do work on so many characters: on many in a thread, so that others need not wait."""
    return work() if size < _MUCH else await asyncio.to_thread(work)


class Live:
    """Used from one event loop, whose other work goes on meanwhile. Implements ``Client`` for the engine's threads."""

    def __init__(self, shared: SharedEngine) -> None:
        self._shared = shared
        self._loop: asyncio.AbstractEventLoop | None = None
        self._feed = Feed()
        self._number: int | None = None  # by which the engine knows us
        self._indexes = itertools.count()
        self._asked: dict[RequestKey, _Asked] = {}
        self._for_the_engine: set[asyncio.Future[None]] = set()  # who waits until it is up

    async def info(self) -> EngineInfo:
        """What the engine is; starts it where that is not known. Raises ``EngineError`` where it cannot be had."""
        while (info := self._shared.info) is None:
            self._take_part()
            waiter = asyncio.get_running_loop().create_future()
            self._for_the_engine.add(waiter)
            self._shared.need()
            try:
                await waiter
            finally:
                self._for_the_engine.discard(waiter)
        return info

    async def ask(self, request: Request) -> Outcome:
        """The outcome, under the request's own key. Raises ``EngineError`` where the engine cannot be had."""
        async with self._sent(request) as asked:
            while isinstance(came := await asked.next(), Piece):
                pass
            return came

    async def stream(self, request: Request) -> AsyncIterator[Piece | Outcome]:
        """The answer's text in pieces as it comes, one after another, and the outcome, which has all of it, at the end.

        Of an engine that cannot stream all of the text is one piece. Raises ``EngineError`` as ``ask`` does, and where the engine
        died meanwhile and answers otherwise now.
        """
        async with self._sent(replace(request, stream=True)) as asked:
            while isinstance(came := await asked.next(), Piece):
                yield came
            if isinstance(came, Completion) and (rest := asked.rest(came)) is not None:
                yield rest
            yield came

    @property
    def in_flight(self) -> int:
        """How many are asked and not answered."""
        return len(self._asked)

    def close(self) -> None:
        """Take part no more: who waits is told."""
        number, self._number = self._number, None
        if number is not None:
            self._shared.detach(number)
        self._fail(EngineError("the server is ending"))

    @contextlib.asynccontextmanager
    async def _sent(self, request: Request) -> AsyncIterator[_Asked]:
        """The request, asked. On the way out it is given up, if it has no outcome by then."""
        asked = _Asked(request, RequestKey(next(self._indexes), *request.key[1:4]))
        ids = request.token_ids
        if ids is None:
            found = await aside(partial(self._shared.tokenize, [request.prompt]), characters(request.prompt))
            tokens = None if found is None else found[0]
            if isinstance(tokens, Failure):
                asked.put(Refusal(asked.key, tokens))
                yield asked
                return
            ids = tokens
        self._take_part()
        self._asked[asked.key] = asked
        try:
            self._feed.push([replace(request, key=asked.key, token_ids=ids)])
            yield asked
        finally:
            given_up = self._asked.pop(asked.key, None) is not None and self._number is not None
            if given_up and not self._feed.withdraw({asked.key}):
                self._shared.cancel(self._number or 0, asked.key)

    def _take_part(self) -> None:
        if self._number is None:
            self._loop = asyncio.get_running_loop()
            self._feed = Feed()
            self._number = self._shared.attach(self, self._feed, urgent=True)

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        in_flight = self._feed.in_flight
        self._feed.done_all([outcome.key for outcome in outcomes if outcome.key in in_flight])
        for outcome in outcomes:
            if (asked := self._asked.pop(outcome.key, None)) is not None:
                asked.put(outcome)

    def _tell(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if (asked := self._asked.get(piece.key)) is not None:
                asked.put(piece)

    def _fail(self, error: LlmbatchError) -> None:
        self._number = None
        asked, self._asked = self._asked, {}
        for each in asked.values():
            each.put(error)
        for waiter in self._for_the_engine:
            if not waiter.done():
                waiter.set_exception(EngineError(str(error)))

    def _is_up(self) -> None:
        for waiter in self._for_the_engine:
            if not waiter.done():
                waiter.set_result(None)

    # by the engine's threads

    def answered(self, outcomes: Sequence[Outcome]) -> None:
        self._in_loop(lambda: self._settle(outcomes))

    def told(self, pieces: Sequence[Piece]) -> None:
        self._in_loop(lambda: self._tell(pieces))

    def failed(self, error: LlmbatchError) -> None:
        self._in_loop(lambda: self._fail(error))

    def heard(self, ready: EngineReady) -> None:  # noqa: ARG002
        self._in_loop(self._is_up)

    def _in_loop(self, work: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed, and nobody waits
                self._loop.call_soon_threadsafe(work)


class _Asked:
    """One request on its way, and what came of it that was not taken yet."""

    def __init__(self, request: Request, key: RequestKey) -> None:
        self.key = key  # in the engine
        self._own = request.key
        self._came: asyncio.Queue[Piece | Outcome | LlmbatchError] = asyncio.Queue()
        self._given = ""  # the text of the pieces that were taken
        self._text = ""  # of the present attempt: shorter where the engine died and begins anew

    def put(self, what: Piece | Outcome | LlmbatchError) -> None:
        self._came.put_nowait(what)

    async def next(self) -> Piece | Outcome:
        """What comes next: pieces, each with text that was not there before, and then the outcome."""
        while True:
            match await self._came.get():
                case Piece() as piece:
                    if (new := self._new(piece)) is not None:
                        return new
                case LlmbatchError() as error:
                    raise EngineError(str(error)) from error
                case Completion() | Refusal() as outcome:
                    return replace(outcome, key=self._own)

    def rest(self, completion: Completion) -> Piece | None:
        """What of the whole answer no piece had."""
        self._see_that_it_goes_on(completion.text, whole=True)
        start = len(self._given)
        return Piece(self._own, start, completion.text[start:]) if len(completion.text) > start else None

    def _new(self, piece: Piece) -> Piece | None:
        again = len(self._text) < len(self._given) or piece.start == 0
        self._text = piece.text if piece.start == 0 else self._text + piece.text
        if again:
            self._see_that_it_goes_on(self._text)
        start = len(self._given)
        if len(self._text) <= start:
            return None
        self._given = self._text
        logprobs = piece.logprobs if start == piece.start else None
        return Piece(self._own, start, self._text[start:], logprobs)

    def _see_that_it_goes_on(self, text: str, *, whole: bool = False) -> None:
        if not text.startswith(self._given) and (whole or not self._given.startswith(text)):
            raise EngineError(
                "the engine died in the middle of the answer, and answers otherwise when it is asked again: ask once more, with a "
                "seed or temperature 0 if the answer is to be the same"
            )


__all__ = ["Live", "aside"]
