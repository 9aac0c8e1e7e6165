"""Requests in; their outcomes out, once each: sent as servers have room, and again where nothing or no answer came back.

All of it runs in one event loop. What the servers do is looked at in one place, ``_replied`` and ``_not_sent``; nothing of the
protocol is known here.

A request that was in flight at many broken connections may be what breaks them. It then goes with nothing else in flight, so that
no other request is taken for it, and is refused when that breaks the connection again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable

from llmbatch.core.errors import EngineError, LlmbatchError
from llmbatch.core.types import Completion, Failure, FailureKind, Outcome, Refusal, Request
from llmbatch.engines.http.base import CutOff, NoAnswer, NotSent, Packed, Reply, TimedOut, Unreachable, Untrusted, Wire
from llmbatch.engines.http.client import Client
from llmbatch.engines.http.pool import Pool, Server
from llmbatch.engines.http.retry import Verdict, back_off, retry_after

_ONLY_A_GATEWAY = (502, 503, 504)  # what is behind it gave no sign of life
_NOT_THERE = (404, 405)  # of the first reply: what is asked for, and not one request
_TRIES = 8  # of a request at which the server fails, before that is its outcome
_CUTS_TO_GO_ALONE = 6
_CUTS_TO_REFUSE = 9
_DENIED_IN_A_ROW = 8  # 403 may be about one request's content, where others were answered
_PROMPT_SHARE = 1 / 8  # of the work that a token of an answer is


class _Sending:
    """A request on its way."""

    __slots__ = ("cuts", "packed", "put_off", "request", "tries")

    def __init__(self, request: Request, packed: Packed | None) -> None:
        self.request = request
        self.packed = packed  # None: it has images, which are large, and are read once there is a place for it
        self.tries = 0  # that the server failed at
        self.put_off = 0  # times, as the server had too much to do
        self.cuts = 0  # connections that ended with it in flight


class Sender:
    """``deliver`` is given each outcome, and ``fail`` what ends all of it. Made and called in the event loop."""

    def __init__(
        self,
        wire: Wire,
        pool: Pool,
        client: Client,
        deliver: Callable[[Outcome], None],
        fail: Callable[[LlmbatchError], None],
        note: Callable[[str], None],
    ) -> None:
        self._wire = wire
        self._pool = pool
        self._client = client
        self._deliver = deliver
        self._fail = fail
        self._note = note
        self._spread = random.Random()  # noqa: S311 - of waits
        self._ready: deque[_Sending] = deque()
        self._alone: deque[_Sending] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._answered = False
        self._denied = 0
        self.alive_at = time.monotonic()  # the last sign of life of any server, or until when one asked to wait

    def add(self, requests: Iterable[Request]) -> None:
        """Send these too."""
        for request in requests:
            packed = None if request.prompt.images else self._wire.pack(request)
            if isinstance(packed, Failure):
                self._deliver(Refusal(request.key, packed))
            else:
                self._ready.append(_Sending(request, packed))
        self._pump()

    def abort(self) -> None:
        """Give up all that is here."""
        self._ready.clear()
        self._alone.clear()
        for task in self._tasks:
            task.cancel()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _pump(self) -> None:
        """Send what there is room for."""
        now = time.monotonic()
        while queue := self._alone or self._ready:
            if self._alone and self._pool.in_flight:
                return
            server = self._pool.pick(now)
            if server is None:
                self._wake_up(now)
                return
            server.in_flight += 1  # here, so that the next look sees it
            task = asyncio.create_task(self._send(server, queue.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _wake_up(self, now: float) -> None:
        """Look again when a server that rests may be asked."""
        at = self._pool.wakes_at(now)
        if self._wake is not None:
            self._wake.cancel()
        self._wake = None if at is None else asyncio.get_running_loop().call_later(at - now, self._pump)

    async def _send(self, server: Server, sending: _Sending) -> None:
        sent_at = time.monotonic()
        try:
            try:
                packed = await self._packed(sending)
                if isinstance(packed, Packed):
                    sent_at = time.monotonic()
                    reply = await self._client.post(server.url + packed.path, packed.body)
            finally:
                full = server.is_full
                server.in_flight -= 1
            if isinstance(packed, Packed):
                self._replied(server, sending, reply, packed.path, sent_at, full=full)
            else:
                self._deliver(Refusal(sending.request.key, packed))
        except NotSent as error:
            self._not_sent(server, sending, error, sent_at)
        except LlmbatchError as error:
            self._fail(error)
            return
        except Exception as error:  # a task's exception would be lost, and its request with it
            failed = EngineError(
                f"llmbatch could not read what {server.url} sent: {error!r}: this is a bug of llmbatch"
            )
            failed.__cause__ = error
            self._fail(failed)
            return
        self._pump()

    async def _packed(self, sending: _Sending) -> Packed | Failure:
        if sending.packed is not None:
            return sending.packed
        return await asyncio.to_thread(self._wire.pack, sending.request)

    def _replied(
        self, server: Server, sending: _Sending, reply: Reply, path: str, sent_at: float, *, full: bool
    ) -> None:
        now, meaning = time.monotonic(), self._wire.verdict(reply)
        self._pool.reached(server)
        if reply.status not in _ONLY_A_GATEWAY:
            self.alive_at = max(self.alive_at, now)
        if meaning is Verdict.ANSWERED:
            self._read(server, sending, reply, sent_at, full=full)
            return
        if said := self._wire.ends_all(reply):
            raise EngineError(said)
        if reply.status in _NOT_THERE and not self._answered:
            refusal = self._wire.refusal(sending.request, reply)
            raise EngineError(f"{server.url}{path} is not there for this model: {refusal.message}")
        if meaning is Verdict.REFUSED or (meaning is Verdict.DENIED and self._is_about_one(reply)):
            self._deliver(Refusal(sending.request.key, self._wire.refusal(sending.request, reply)))
        elif meaning in (Verdict.DENIED, Verdict.MISPLACED):
            raise EngineError(_denied(server, reply, self._wire.refusal(sending.request, reply)))
        else:
            self._put_off(server, sending, reply, meaning, sent_at)

    def _read(self, server: Server, sending: _Sending, reply: Reply, sent_at: float, *, full: bool) -> None:
        try:
            outcome = self._wire.read(sending.request, reply)
        except NoAnswer as error:
            self._note(f"{server.url}: {error}; asked again")
            self._try_again(sending, str(error))
            return
        self._answered, self._denied = True, 0
        work = 1.0
        if isinstance(outcome, Completion):
            usage = outcome.usage
            work += usage.completion_tokens + (usage.prompt_tokens - usage.cached_tokens) * _PROMPT_SHARE
        server.limit.answered(sent_at, time.monotonic(), work, full=full)
        self._deliver(outcome)

    def _put_off(self, server: Server, sending: _Sending, reply: Reply, meaning: Verdict, sent_at: float) -> None:
        """The same request again, later."""
        now = time.monotonic()
        asked = retry_after(reply.headers, time.time())
        if asked is not None:
            self._pool.rest(server, now + asked)
            self.alive_at = max(self.alive_at, now + asked)
        if meaning is Verdict.AGAIN:
            self._try_again(sending, f"the server answered with status {reply.status}", asked)
            return
        if meaning is Verdict.PUSHED_BACK:
            before = server.limit.now
            server.limit.pushed_back(sent_at, now)
            if server.limit.now < before:
                self._note(
                    f"{server.url} has too much to do (status {reply.status}): {server.limit.now} at a time, not {before}"
                )
        sending.put_off += 1
        self._later(sending, asked if asked is not None else back_off(sending.put_off, self._spread.random()))

    def _not_sent(self, server: Server, sending: _Sending, error: NotSent, sent_at: float) -> None:
        now = time.monotonic()
        if isinstance(error, Untrusted):
            raise EngineError(str(error))
        if isinstance(error, Unreachable):
            if not server.failures:
                self._note(f"{error}; it is tried again later")
            self._pool.unreachable(server, now, self._spread.random())
            self._ready.appendleft(sending)
            return
        if isinstance(error, TimedOut):
            server.limit.pushed_back(sent_at, now)
            self._note(f"{error}; asked again")
            self._try_again(sending, str(error))
            return
        self._note(f"{error}; asked again")
        sending.cuts += 1
        if isinstance(error, CutOff) and sending.cuts >= _CUTS_TO_REFUSE:
            message = "the connection broke again and again with this row in flight, at last with this row alone"
            self._deliver(Refusal(sending.request.key, Failure(FailureKind.ENGINE_DIED, message)))
        else:
            self._later(sending, back_off(sending.cuts, self._spread.random()))

    def _try_again(self, sending: _Sending, seen: str, asked: float | None = None) -> None:
        """The same request once more, as long as the server has not failed at it too often."""
        sending.tries += 1
        if sending.tries < _TRIES:
            self._later(sending, asked if asked is not None else back_off(sending.tries, self._spread.random()))
            return
        message = f"the server failed at this request {_TRIES} times; the last time: {seen}"
        self._deliver(Refusal(sending.request.key, Failure(FailureKind.ENGINE, message)))

    def _later(self, sending: _Sending, seconds: float) -> None:
        def come_back() -> None:
            self._timers.discard(timer)
            (self._alone if sending.cuts >= _CUTS_TO_GO_ALONE else self._ready).appendleft(sending)
            self._pump()

        timer = asyncio.get_running_loop().call_later(seconds, come_back)
        self._timers.add(timer)

    def _is_about_one(self, reply: Reply) -> bool:
        """Whether a denial is about what one request asks, and not about who asks."""
        if reply.status != 403 or not self._answered:
            return False
        self._denied += 1
        return self._denied < _DENIED_IN_A_ROW


def _denied(server: Server, reply: Reply, failure: Failure) -> str:
    if 300 <= reply.status < 400:
        return f"{server.url} redirects to {reply.headers.get('location')}: give that under engine.urls, if it is the server"
    return (
        f"{server.url} denies access (status {reply.status}): {failure.message}. The key is read from the environment variable "
        "that engine.key_env names. Finished rows are safe; the same command goes on from here"
    )


__all__ = ["Sender"]
