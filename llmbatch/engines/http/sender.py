"""Requests in; their outcomes out, once each: sent as servers have room, and again where nothing or no answer came back.

All of it runs in one event loop. What the servers do is looked at in one place, ``_replied`` and ``_not_sent``; nothing of the
protocol is known here.

A request that was in flight at many broken connections may be what breaks them. It then goes with nothing else in flight, so that
no other request is taken for it, and is refused when that breaks the connection again.

No request is blamed for an outage: what failed too often is refused only where the servers answered others meanwhile. Where they
answered none, that is the engine's death, and who drives the engine finds out whether one request is to blame. Where a protocol has
the same status for both, that server is asked something harmless.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable

from llmbatch.core.errors import EngineDied, EngineError, LlmbatchError, NotServed
from llmbatch.core.types import Completion, Failure, FailureKind, Outcome, Refusal, Request, RequestKey, Usage
from llmbatch.engines.http.base import (
    CutOff,
    NoAnswer,
    Note,
    NotSent,
    Packed,
    Reply,
    TimedOut,
    Unreachable,
    Untrusted,
    Wire,
)
from llmbatch.engines.http.client import Client
from llmbatch.engines.http.limit import Limit
from llmbatch.engines.http.pool import Pool, Server
from llmbatch.engines.http.retry import Verdict, back_off, retry_after

_ONLY_A_GATEWAY = (502, 503, 504)  # what is behind it gave no sign of life
_NOT_THERE = (404, 405)  # what is asked for, and not one request
_TOOK_TOO_LONG = (408, 504)  # a time-out that the server or its gateway has found
_TRIES = 8  # of a request at which the server fails, before that is its outcome
_CUTS_TO_GO_ALONE = 6
_CUTS_TO_REFUSE = 9
_DENIED_IN_A_ROW = 8  # 403 may be about one request's content, where others were answered
_PROMPT_SHARE = 1 / 8  # of the work that a token of an answer is


MayGrow = Callable[[Client, str], Awaitable[bool]]
"""Asks the server at a URL whether it has use for more requests at a time. Raises nothing."""


class _Sending:
    """A request on its way."""

    __slots__ = ("cuts", "failed_at", "packed", "put_off", "request", "tries")

    def __init__(self, request: Request, packed: Packed | None) -> None:
        self.request = request
        self.packed = packed  # None: it has images, which are large, and are read once there is a place for it
        self.tries = 0  # that the server failed at
        self.put_off = 0  # times, as the server had too much to do
        self.cuts = 0  # connections that ended with it in flight
        self.failed_at: float | None = None  # when it first failed, in whichever of these ways but for ``put_off``

    @property
    def is_suspect(self) -> bool:
        """Whether it is to go with nothing else in flight."""
        return self.cuts >= _CUTS_TO_GO_ALONE


class Sender:
    """``deliver`` is given each outcome, and ``fail`` what ends all of it. Made and called in the event loop."""

    def __init__(
        self,
        wire: Wire,
        pool: Pool,
        client: Client,
        deliver: Callable[[Outcome], None],
        fail: Callable[[LlmbatchError], None],
        note: Note,
        may_grow: MayGrow | None = None,
    ) -> None:
        self._wire = wire
        self._pool = pool
        self._client = client
        self._deliver = deliver
        self._fail = fail
        self._note = note
        self._may_grow = may_grow
        self._asked: dict[Server, asyncio.Task[None]] = {}  # whether they have use for more
        self._spread = random.Random()  # noqa: S311 - of waits
        self._ready: deque[_Sending] = deque()
        self._alone: deque[_Sending] = deque()
        self._tasks: dict[asyncio.Task[None], tuple[Server, _Sending]] = {}
        self._suspect_in_flight = False
        self._proving: defaultdict[Server, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._proved: dict[
            Server, tuple[float, bool]
        ] = {}  # when it was last asked something harmless; whether it answered
        self._timers: dict[asyncio.TimerHandle, _Sending] = {}
        self._wake: asyncio.TimerHandle | None = None
        self._answered = False
        self._denied = 0
        self._settled_at = float("-inf")  # when a request was last answered or refused
        self.alive_at = time.monotonic()  # the last sign of life of any server, or until when one asked to wait
        self.nothing_came = True  # since then: no word of a gateway, no connection that failed

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
        for task in list(self._tasks):
            task.cancel()
        for task in self._asked.values():
            task.cancel()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def cancel(self, keys: Collection[RequestKey]) -> None:
        """End requests that nobody wants any more: where one is in flight its connection closes, by which a server knows."""
        ended = []
        for queue in (self._ready, self._alone):
            ended += [sending for sending in queue if sending.request.key in keys]
            kept = [sending for sending in queue if sending.request.key not in keys]
            queue.clear()
            queue.extend(kept)
        for timer, sending in list(self._timers.items()):
            if sending.request.key in keys:
                timer.cancel()
                ended.append(self._timers.pop(timer))
        for task, (_, sending) in self._tasks.items():
            # one that is done has its outcome, or waits for its next try, and has been found above
            if sending.request.key in keys and not task.done() and not task.cancelling() and task.cancel():
                ended.append(sending)
        for sending in ended:
            self._deliver(Completion(sending.request.key, "", "abort", Usage()))

    def _pump(self) -> None:
        """Send what there is room for."""
        now = time.monotonic()
        while queue := self._alone or self._ready:
            if self._pool.in_flight and (self._alone or self._suspect_in_flight):
                return
            server = self._pool.pick(now)
            if server is None:
                self._wake_up(now)
                return
            server.in_flight += 1  # here, so that the next look sees it
            sending = queue.popleft()
            self._suspect_in_flight = sending.is_suspect
            task = asyncio.create_task(self._send(server, sending))
            self._tasks[task] = server, sending
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Also of one that was given up before it began."""
        self._tasks.pop(task)[0].in_flight -= 1
        self._pump()

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
                if isinstance(packed, Failure):
                    self._deliver(Refusal(sending.request.key, packed))
                    return
                sent_at = time.monotonic()
                reply = await self._client.post(packed.at(server.url), packed.body)
            except NotSent as error:
                self._not_sent(server, sending, error, sent_at)
            else:
                full = server.is_full
                meaning = self._wire.verdict(reply)
                if meaning is Verdict.DOUBTFUL:
                    # that it answers others is no sign: those may have been answered before it began to fail
                    meaning = Verdict.REFUSED if await self._works(server, sending.request) else Verdict.AGAIN
                self._replied(server, sending, reply, meaning, packed.at(server.url), sent_at, full=full)
        except LlmbatchError as error:
            self._fail(error)
        except Exception as error:  # a task's exception would be lost, and its request with it
            failed = EngineError(
                f"llmbatch could not read what {server.url} sent: {error!r}: this is a bug of llmbatch"
            )
            failed.__cause__ = error
            self._fail(failed)

    async def _packed(self, sending: _Sending) -> Packed | Failure:
        if sending.packed is not None:
            return sending.packed
        return await asyncio.to_thread(self._wire.pack, sending.request)

    async def _works(self, server: Server, request: Request) -> bool:
        """Whether a server answers something harmless now. Of requests that fail together one asks."""
        packed, failed_at = self._wire.harmless(request), time.monotonic()
        if packed is None:
            return False
        async with self._proving[server]:
            asked_at, works = self._proved.get(server, (float("-inf"), False))
            if asked_at <= failed_at:  # an answer to what was asked before may be from before the server began to fail
                asked_at = time.monotonic()
                works = await self._answers(server, packed)
                self._proved[server] = asked_at, works
            return works

    async def _answers(self, server: Server, packed: Packed) -> bool:
        try:
            reply = await self._client.post(packed.at(server.url), packed.body)
        except NotSent:
            return False
        return self._wire.verdict(reply) is Verdict.ANSWERED

    def _replied(
        self,
        server: Server,
        sending: _Sending,
        reply: Reply,
        meaning: Verdict,
        url: str,
        sent_at: float,
        *,
        full: bool,
    ) -> None:
        now = time.monotonic()
        if meaning not in (Verdict.AGAIN, Verdict.AWAY):
            self._pool.reached(server)
        self.nothing_came = reply.status not in _ONLY_A_GATEWAY
        if self.nothing_came:
            self.alive_at = max(self.alive_at, now)
        if meaning is Verdict.ANSWERED:
            self._read(server, sending, reply, sent_at, full=full)
            return
        if said := self._wire.ends_all(reply):
            raise EngineError(said)
        if reply.status in _NOT_THERE and sending.request.lora is None:
            refusal = self._wire.refusal(sending.request, reply)
            seen = f"{url} is not there for this model: {refusal.message}"
            # what was there goes away when a server starts with another model: it is looked at anew
            raise EngineDied(seen, suspect=False) if self._answered else NotServed(seen)
        if meaning is Verdict.REFUSED or (meaning is Verdict.DENIED and self._is_about_one(reply)):
            self._settled_at = now
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
            self._pool.failed(server, time.monotonic(), self._spread.random())
            self._try_again(sending, str(error))
            return
        now = time.monotonic()
        self._pool.answered(server)
        self._answered, self._denied, self._settled_at = True, 0, now
        work = 1.0
        if isinstance(outcome, Completion):
            usage = outcome.usage
            work += usage.completion_tokens + (usage.prompt_tokens - usage.cached_tokens) * _PROMPT_SHARE
        server.limit.answered(sent_at, now, work, full=full)
        if server.limit.wanted is not None and server not in self._asked:
            self._asked[server] = asyncio.create_task(self._ask(server, server.limit))
        self._deliver(outcome)

    async def _ask(self, server: Server, limit: Limit) -> None:
        """Whether the server has use for more; where that cannot be found out, more is tried."""
        may = True
        try:
            if self._may_grow is not None:
                may = await self._may_grow(self._client, server.url)
        finally:
            del self._asked[server]
            limit.permit(may)
            self._pump()

    def _put_off(self, server: Server, sending: _Sending, reply: Reply, meaning: Verdict, sent_at: float) -> None:
        """The same request again, later."""
        now = time.monotonic()
        asked = retry_after(reply.headers, time.time())
        if asked is not None:
            self._pool.rest(server, now + asked)
            self.alive_at = max(self.alive_at, now + asked)
        if meaning in (Verdict.AGAIN, Verdict.AWAY):
            self._pool.failed(server, now, self._spread.random())
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
        if reply.status in _TOOK_TOO_LONG:
            self._try_again(sending, f"the server answered with status {reply.status}", asked)
            return
        sending.put_off += 1
        self._later(sending, asked if asked is not None else back_off(sending.put_off, self._spread.random()))

    def _not_sent(self, server: Server, sending: _Sending, error: NotSent, sent_at: float) -> None:
        now = time.monotonic()
        if isinstance(error, Untrusted):
            raise EngineError(str(error))
        if isinstance(error, Unreachable):
            self.nothing_came = False
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
        self.nothing_came = False
        self._pool.failed(server, now, self._spread.random())
        sending.cuts += 1
        sending.failed_at = sending.failed_at or now
        if isinstance(error, CutOff) and sending.cuts >= _CUTS_TO_REFUSE:
            message = "the connection broke again and again with this row in flight, at last with this row alone"
            self._blame(sending, Failure(FailureKind.ENGINE_DIED, message))
        else:
            self._later(sending, back_off(sending.cuts, self._spread.random()))

    def _try_again(self, sending: _Sending, seen: str, asked: float | None = None) -> None:
        """The same request once more, as long as the server has not failed at it too often."""
        sending.tries += 1
        sending.failed_at = sending.failed_at or time.monotonic()
        if sending.tries < _TRIES:
            self._later(sending, asked if asked is not None else back_off(sending.tries, self._spread.random()))
            return
        message = f"the server failed at this request {_TRIES} times; the last time: {seen}"
        self._blame(sending, Failure(FailureKind.ENGINE, message))

    def _blame(self, sending: _Sending, failure: Failure) -> None:
        """Refuse it, where others were answered since it first failed; else it may be the servers that fail at all of them."""
        if sending.failed_at is None or self._settled_at < sending.failed_at:
            urls = ", ".join(server.url for server in self._pool.servers)
            raise EngineDied(f"{urls} answered nothing while a request failed again and again: {failure.message}")
        self._deliver(Refusal(sending.request.key, failure))

    def _later(self, sending: _Sending, seconds: float) -> None:
        def come_back() -> None:
            del self._timers[timer]
            (self._alone if sending.is_suspect else self._ready).appendleft(sending)
            self._pump()

        timer = asyncio.get_running_loop().call_later(seconds, come_back)
        self._timers[timer] = sending

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


__all__ = ["MayGrow", "Sender"]
