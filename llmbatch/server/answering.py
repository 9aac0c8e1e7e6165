"""A live request as a line of a batch would have it in; its record out, or its answer piece by piece: as a row of a job.

So all that a batch's line may ask for, a live request may: schemas, several answers, seeds, stop strings, log-probabilities. It is
read, checked and tried again by the same code, with the settings of the job.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from llmbatch.core.types import Completion, Cursor, Outcome, Piece, Record, Refusal, Request, RequestKey, Row
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.shared import SharedEngine
from llmbatch.formats.base import Asked
from llmbatch.job.identity import came_out, identity_of, model_identity
from llmbatch.job.job import Job
from llmbatch.job.prepare import Prepared, Preparer, characters
from llmbatch.job.recipe import Recipe
from llmbatch.job.step import size_of
from llmbatch.programs.work import Work
from llmbatch.reuse.cache import AnswerCache
from llmbatch.reuse.memory import Reuse
from llmbatch.server.live import Live, aside


class Answering:
    """Answers live requests on a shared engine, with the settings of a job whose input is in a wire format.

    With ``fold`` equal requests are asked once, as far as their answers are sure to be equal: those that are there at a time, and
    those that were answered a while ago. Where the job has a cache of answers, it is used and filled. Used from one event loop.
    """

    def __init__(self, shared: SharedEngine, job: Job, *, fold: bool = False) -> None:
        self.live = Live(shared)
        self._job = job
        self._recipe = Recipe(job)
        self._prepare = Preparer(self._recipe, job.plan, shared.tokenize, lambda: self._context_length)
        self._knowing = asyncio.Lock()  # while it is found out what the engine is: who comes meanwhile needs that too
        self._known = False
        self._context_length: int | None = None
        self._indexes = itertools.count()
        path = job.reuse.cache
        self._cache = None if path is None else AnswerCache(path.expanduser())
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="llmbatch-live-cache")
        self._reuse = Reuse(job.reuse, None if self._cache is None else self._cache.put) if fold or path else None
        self._flights: dict[bytes, _Flight] = {}

    async def answer(self, data: Mapping[str, Any], row_id: str = "live") -> Record:
        """The record of a request. Raises ``EngineError`` where the engine cannot be had, and ``RunError`` as a run does."""
        work, requests = await self._begin(data, row_id)
        running: set[asyncio.Task[Outcome]] = set()
        try:
            while work.record is None:
                if requests:
                    prepared = await self._prepared(requests)
                    requests = [following for refusal in prepared.refused for following in work.feed(refusal)]
                    running |= {asyncio.create_task(self._ask(request)) for request in prepared.ready}
                    continue
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                requests = [following for task in done for following in work.feed(task.result())]
            return work.record
        finally:
            for task in running:
                task.cancel()

    async def stream(self, data: Mapping[str, Any], row_id: str = "live") -> AsyncIterator[Piece | Outcome]:
        """The pieces of a request's answers as they come, and the outcome of each at its end; ``key.sample`` says of which.

        The first is a refusal where the request cannot be asked at all. What came is not judged, nor tried again. Raises as
        ``answer``.
        """
        work, requests = await self._begin(data, row_id)
        if work.record is not None:
            failure = work.record.failure
            if failure is not None:
                yield Refusal(RequestKey(work.record.index), failure)
            return
        prepared = await self._prepared(requests)
        for refusal in prepared.refused:
            yield refusal
        came: asyncio.Queue[Piece | Outcome | BaseException] = asyncio.Queue()
        pumps = [asyncio.create_task(self._pump(request, came)) for request in prepared.ready]
        try:
            left = len(pumps)
            while left:
                item = await came.get()
                if isinstance(item, BaseException):
                    raise item
                left -= not isinstance(item, Piece)
                yield item
        finally:
            for pump in pumps:
                pump.cancel()

    def asked(self, row: Row) -> Asked:
        """How a request was asked, which its record does not say."""
        return self._recipe.asked(row)

    def close(self) -> None:
        """Answer no more: who waits is told. The shared engine goes on."""
        self.live.close()
        self._reader.shutdown()
        if self._cache is not None:
            self._cache.close()

    async def _begin(self, data: Mapping[str, Any], row_id: str) -> tuple[Work, list[Request]]:
        info = await self.live.info()
        async with self._knowing:
            if not self._known:
                await asyncio.to_thread(self._know, info)
                self._known = True
        index = next(self._indexes)

        def begin() -> tuple[Work, list[Request]]:
            work = self._prepare.begin(Row(index, row_id, data, Cursor(index)))
            return work, work.start()

        return await aside(begin, size_of(data))

    def _know(self, info: EngineInfo) -> None:
        self._context_length = info.context_length
        if self._cache is not None:
            identity = {**identity_of(self._job), **self._recipe.identity()}
            self._cache.identify({**model_identity(identity), **came_out(self._job, info)})

    async def _prepared(self, requests: list[Request]) -> Prepared:
        size = sum(characters(request.prompt) for request in requests)
        return await aside(partial(self._prepare.following, requests, self._context_length), size)

    async def _pump(self, request: Request, came: asyncio.Queue[Piece | Outcome | BaseException]) -> None:
        try:
            async for item in self.live.stream(request):
                came.put_nowait(item)
        except Exception as error:
            came.put_nowait(error)

    async def _ask(self, request: Request) -> Outcome:
        digest = None if self._reuse is None else self._prepare.digests([request])[0]
        if self._reuse is None or digest is None:
            return await self.live.ask(request)
        known = self._reuse.known(request, digest) or await self._cached(request, digest)
        known = known or self._reuse.known(request, digest)  # an equal one may have been answered meanwhile
        if known is not None:
            return known
        flight = self._flights.get(digest)
        if flight is None or flight.given_up:
            flight = self._flights[digest] = _Flight(asyncio.create_task(self.live.ask(request)))
            flight.task.add_done_callback(partial(self._landed, request, digest))
        outcome = await flight.wait()
        if outcome.key == request.key:
            return outcome
        if isinstance(outcome, Completion):
            return replace(outcome, key=request.key, reused_from="row")
        return replace(outcome, key=request.key)

    async def _cached(self, request: Request, digest: bytes) -> Completion | None:
        if self._cache is None:
            return None
        found = await asyncio.get_running_loop().run_in_executor(self._reader, self._cache.get, [digest])
        answer = found.get(digest)
        return None if answer is None else replace(answer, key=request.key, reused_from="cache")

    def _landed(self, request: Request, digest: bytes, task: asyncio.Task[Outcome]) -> None:
        """Remember the answer, if it is one that lasts."""
        if (flight := self._flights.get(digest)) is not None and flight.task is task:
            del self._flights[digest]
        if self._reuse is not None and not task.cancelled() and task.exception() is None:
            self._reuse.lead(request, digest)
            self._reuse.settle(task.result())


class _Flight:
    """A request that some wait for. It is given up when all of them have gone."""

    def __init__(self, task: asyncio.Task[Outcome]) -> None:
        self.task = task
        self.given_up = False
        self._waiting = 0

    async def wait(self) -> Outcome:
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.given_up = True
                self.task.cancel()


__all__ = ["Answering"]
