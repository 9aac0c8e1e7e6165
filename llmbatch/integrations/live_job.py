"""Rows of one job in, from any thread and as they come; a record for each out: their requests join what an engine answers already.

Prompts, programs, checks, retries, equal requests asked once, the cache of answers: all as in a run, without a run folder. What
outlives a kill is the cache, which is why a caller that asks again after one is to have one, and a seed where answers are drawn.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.types import Completion, Cursor, Outcome, Record, Request, RequestKey, Row
from llmbatch.integrations.live import LiveEngine
from llmbatch.job.identity import identity_of
from llmbatch.job.job import Job
from llmbatch.job.prepare import Preparer
from llmbatch.job.recipe import Recipe, see_engine
from llmbatch.programs.work import Work
from llmbatch.reuse.memory import Reuse
from llmbatch.runs.held_to import Remembered

Inbox = SimpleQueue["Outcome | BaseException"]
"""Where one caller hears what its requests came to, or why nothing will come."""


class Gone(Exception):
    """Whoever asked does not want the answers any more. ``given_up`` says how many requests nobody else waited for."""

    given_up = 0


class LiveJob:
    """One job on an engine that it does not own. ``records`` may be called from several threads at a time.

    Raises ``UsageError`` for what is wrong with the job when it is made; ``recipe`` is the job's.
    """

    def __init__(self, job: Job, recipe: Recipe, live: LiveEngine) -> None:
        if job.sweep is not None or job.accept is not None:
            raise JobError("sweep, accept: rows that come one by one have one record each; leave these sections out")
        self._live = live
        self._recipe = recipe
        self._prepare = Preparer(recipe, job.plan, live.tokenize, self._context_length)
        self._indexes = itertools.count()
        self._asking = threading.Lock()  # the cache is read by one at a time
        self._remembered = Remembered(job, {**identity_of(job), **recipe.identity()})
        if self._remembered.came_out is not None:
            self._remembered.identify(self._remembered.came_out)
        self._is_up = False
        self._state = threading.Lock()  # for what follows, and for writing to the cache
        cache = self._remembered.cache
        self._reuse = Reuse(job.reuse, None if cache is None else cache.put)
        self._inboxes: dict[RequestKey, Inbox] = {}
        self._in_engine: dict[RequestKey, Future[Outcome]] = {}
        self._broken: BaseException | None = None

    def records(self, rows: Iterable[Mapping[str, Any]], inbox: Inbox | None = None) -> tuple[list[Record], int]:
        """A record for each row, in their order, and how many of them took an answer that was there or on its way already.

        Returns when all are there. ``index`` and ``id`` of a record say nothing. Whoever gives the ``inbox`` can end the call by
        putting ``Gone`` into it, which is raised; what was answered until then is in the cache.

        Raises ``EngineError`` where the engine cannot start or keeps dying; then this job can be asked nothing more.
        """
        works: dict[int, Work] = {}
        requests: list[Request] = []
        for data, index in zip(rows, self._indexes, strict=False):
            work = works[index] = self._prepare.begin(Row(index, index, data, Cursor(index)))
            requests += work.start()
        left = {index for index, work in works.items() if work.record is None}
        inbox = inbox or SimpleQueue()
        try:
            self._ask(requests, inbox)
            while left:
                following: list[Request] = []
                for outcome in _all_there(inbox):
                    work = works[outcome.key.index]
                    following += work.feed(outcome)
                    if work.record is not None:
                        left.discard(outcome.key.index)
                self._ask([request for request in following if request.key.index in left], inbox)
        except Gone as gone:
            self._forget(works)
            gone.given_up = self._give_up()
            raise
        except BaseException:
            self._forget(works)
            raise
        self._forget(works)
        reused = sum(work.reused is not None for work in works.values())
        return [work.record for work in works.values() if work.record is not None], reused

    @property
    def is_broken(self) -> bool:
        """Whether it can be asked nothing more."""
        return self._broken is not None

    def close(self) -> None:
        """Write what the cache has not written yet. The engine stays."""
        with self._state:
            self._remembered.close()

    def _context_length(self) -> int | None:
        """Where the cache knows it, no engine is started to ask for it: all that is asked may be in the cache."""
        known = self._remembered.context_length
        return self._up() if known is None or self._is_up else known

    def _up(self) -> int | None:
        """Start the engine where it is not up, and look at it before it answers anything. Returns its context's length."""
        info = self._live.ready()
        if not self._is_up:
            see_engine(info, self._recipe)
            with self._asking, self._state:
                self._remembered.identify(self._remembered.engine_is_up(info))
                self._is_up = True
        return info.context_length

    def _ask(self, requests: Sequence[Request], inbox: Inbox) -> None:
        """Have requests answered: by the cache, by an equal one that is known or on its way, by the engine."""
        if not requests:
            return
        prepared = self._prepare.following(requests, self._context_length())
        for refusal in prepared.refused:
            inbox.put(refusal)
        digests = self._prepare.digests(prepared.ready)
        cached = self._cached([digest for digest in digests if digest is not None])
        sent: list[Request] = []
        with self._state:
            if self._broken is not None:  # else it would wait for an equal request that nobody answers any more
                raise self._broken
            for request, digest in zip(prepared.ready, digests, strict=True):
                self._inboxes[request.key] = inbox
                if digest is not None:
                    known = cached.get(digest)
                    outcome = replace(known, key=request.key) if known else self._reuse.known(request, digest)
                    if outcome is not None:
                        self._deliver(outcome)
                        continue
                    if not self._reuse.lead(request, digest):
                        continue
                sent.append(request)
        self._send(sent)

    def _cached(self, digests: list[bytes]) -> dict[bytes, Completion]:
        cache = self._remembered.cache
        if cache is None or not digests:
            return {}
        with self._asking:
            return cache.get(digests)

    def _send(self, requests: Sequence[Request]) -> None:
        if not requests:
            return
        try:
            self._up()
            futures = self._live.ask(requests)
        except BaseException as error:  # others may wait for the same answers
            self._fail(error)
            raise
        with self._state:
            self._in_engine.update((request.key, future) for request, future in zip(requests, futures, strict=True))
        for request, future in zip(requests, futures, strict=True):
            future.add_done_callback(partial(self._settle, request.key))

    def _settle(self, key: RequestKey, future: Future[Outcome]) -> None:
        """In the engine's thread: an answer for whoever asked, and for those that asked the same.

        What is raised there a future only logs, and whoever waits would wait for ever: it is told to them.
        """
        try:
            outcome = replace(future.result(), key=key)
            with self._state:
                self._in_engine.pop(key, None)
                shared = self._reuse.settle(outcome)
                self._deliver(outcome)
                for other in shared.outcomes if shared else ():
                    self._deliver(other)
                alone = [request for request in shared.alone if request.key in self._inboxes] if shared else []
            self._send(alone)
        except BaseException as error:
            self._fail(error)

    def _deliver(self, outcome: Outcome) -> None:
        inbox = self._inboxes.pop(outcome.key, None)
        if inbox is not None:  # else whoever asked has gone
            inbox.put(outcome)

    def _give_up(self) -> int:
        """Take back what the engine was asked and nobody waits for any more; returns how many requests."""
        with self._state:
            unwanted = [
                key
                for key in self._in_engine
                if key not in self._inboxes
                and not any(other.key in self._inboxes for other in self._reuse.waiting_for(key))
            ]
            futures = [self._in_engine.pop(key) for key in unwanted]
        self._live.give_up(futures)
        return len(unwanted)

    def _fail(self, error: BaseException) -> None:
        with self._state:
            self._broken = self._broken or error
            self._in_engine.clear()
            inboxes, self._inboxes = list(self._inboxes.values()), {}
        for inbox in {id(inbox): inbox for inbox in inboxes}.values():
            inbox.put(error)

    def _forget(self, works: Mapping[int, Work]) -> None:
        """A caller is done: what it still waits for, after an error, is nobody's. What it was answered is in the cache's file."""
        with self._state:
            for key in [key for key in self._inboxes if key.index in works]:
                del self._inboxes[key]
            writing = None if self._remembered.cache is None else self._remembered.cache.flush()
        if writing is not None:  # else a kill just after the answers were given would have them asked again
            writing.result()


def _all_there(inbox: Inbox) -> list[Outcome]:
    """What has come, at least one; waits for that. Raises what came in place of an outcome."""
    found: list[Outcome] = []
    item: Outcome | BaseException = inbox.get()
    while True:
        if isinstance(item, BaseException):
            raise item
        found.append(item)
        try:
            item = inbox.get_nowait()
        except Empty:
            return found


__all__ = ["Gone", "Inbox", "LiveJob"]
