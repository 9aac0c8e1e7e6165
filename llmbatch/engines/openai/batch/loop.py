"""A feed of requests in; their outcomes out, through a provider's Batch API.

Requests are gathered until a file is full, or nothing more comes for a moment, and then sent as one batch. Several batches are on
their way at a time. What an earlier session of this run asked for is known by its line's id: it is waited for, or read from the
output that is here, and never asked again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.errors import EngineError, LlmbatchError
from llmbatch.core.types import Completion, Failure, FailureKind, Outcome, Refusal, Request, Usage
from llmbatch.engines.feed import Requests
from llmbatch.engines.http.base import NoAnswer
from llmbatch.engines.http.client import Client
from llmbatch.engines.http.log import Log
from llmbatch.engines.http.retry import Verdict
from llmbatch.engines.http.thread import EventThread
from llmbatch.engines.openai.batch.lines import Got, Line, got, line_of
from llmbatch.engines.openai.batch.provider import Gone, Provider
from llmbatch.engines.openai.batch.state import Batch, State
from llmbatch.engines.openai.wire import OpenAIWire

MOST_LINES = 50_000
_MOST_BYTES = 190_000_000  # the provider's own limit is 200 MB
_QUIET_SECONDS = 2.0  # without a further request, after which what is gathered is sent
_WAIT_SECONDS = 0.5
_OUTPUTS_KEPT = 4
_TRIES = 3  # of a request that batches leave without an answer
_FULL = ("token_limit_exceeded", "batch_limit_exceeded")  # codes of a batch for which there is no room yet
_FULL_POLLS = 10  # before it is tried again
_OVER = ("completed", "expired", "cancelled", "failed")


class Polling(NamedTuple):
    """Where batches are made, seconds without any reply after which that counts as gone, and seconds between two looks at one."""

    url: str
    timeout: float
    poll: float


class BatchLoop:
    """Drives one provider. ``folder`` is where what is known of the batches lies."""

    def __init__(self, wire: OpenAIWire, thread: EventThread, how: Polling, folder: Path, log: Log) -> None:
        self._wire = wire
        self._thread = thread
        self._how = how
        self._folder = folder
        self._log = log
        self._state: State | None = None
        self._batch_of: dict[str, str] = {}  # line id -> name of the batch that has it, while that is on its way
        self._here: dict[str, str] = {}  # line id -> name of the batch whose output has it
        self._read_of: dict[str, dict[str, Got]] = {}  # outputs that were read for the requests of a resumed run
        self._waiting: dict[str, Request] = {}
        self._gathered: dict[tuple[str, str], list[Line]] = {}
        self._sizes: Counter[tuple[str, str]] = Counter()
        self._tries: Counter[str] = Counter()
        self._moved_at = time.monotonic()
        self._outcomes: deque[Outcome] = deque()
        self._ended: deque[tuple[Batch, list[Got]]] = deque()
        self._failed: LlmbatchError | None = None
        self._happened = threading.Event()
        self.busy = 0.0
        self.counts = Usage()

    def stream(self, feed: Requests) -> Iterator[list[Outcome]]:
        """As ``Engine.stream``."""
        state = self._state or self._resume()
        while True:
            began = time.monotonic()
            if requests := feed.take(MOST_LINES, 1 << 40):
                self._moved_at = began
                for request in requests:
                    self._add(request, state)
            self._send(all_of_it=began - self._moved_at > _QUIET_SECONDS)
            while self._ended:
                self._settle(*self._ended.popleft())
            outcomes = self._take()
            if not outcomes and not self._waiting:
                if feed.finished:
                    return
                feed.wait(_WAIT_SECONDS)
            yield outcomes
            if self._failed is not None:
                failed, self._failed = self._failed, None
                raise failed
            if self._waiting and not requests and self._happened.wait(_WAIT_SECONDS):
                self._happened.clear()
            if self._waiting:
                self.busy += time.monotonic() - began

    def abort(self) -> None:
        """Wait no longer. The batches go on at the provider; the next session, or ``stream``, waits for them again."""
        self._waiting.clear()
        self._gathered.clear()
        self._sizes.clear()
        self._outcomes.clear()

    def stop(self) -> None:
        self.abort()
        self._state = None

    def _resume(self) -> State:
        """Find what earlier sessions asked for, and wait for what has not come back."""
        state = self._state = State(self._folder)
        for batch in list(state.batches.values()):
            if batch.ended:
                said = got(state.output(batch.name).read_bytes())
                self._here |= {each.id: batch.name for each in said if self._is_final(each)}
            else:
                self._batch_of |= dict.fromkeys((line.id for line in state.lines(batch.name)), batch.name)
                self._watch(batch, state)
        return state

    def _add(self, request: Request, state: State) -> None:
        packed = self._wire.pack(request)
        if isinstance(packed, Failure):
            self._outcomes.append(Refusal(request.key, packed))
            return
        line = line_of(request, packed)
        self._waiting[line.id] = request
        if (name := self._here.get(line.id)) is not None:
            self._answer(self._output(name, state)[line.id], again=line)
        elif line.id not in self._batch_of:
            self._gather(line)

    def _output(self, name: str, state: State) -> dict[str, Got]:
        """What came back for a batch, by line id; of the last few that were looked into it is kept."""
        if name not in self._read_of:
            if len(self._read_of) >= _OUTPUTS_KEPT:
                del self._read_of[next(iter(self._read_of))]
            said = got(state.output(name).read_bytes())
            self._read_of[name] = {each.id: each for each in said if self._is_final(each)}
        return self._read_of[name]

    def _is_final(self, came: Got) -> bool:
        """Whether the request need not be asked again."""
        return came.reply is not None and self._wire.verdict(came.reply) in (Verdict.ANSWERED, Verdict.REFUSED)

    def _gather(self, line: Line) -> None:
        kind = (line.path, line.model)
        if kind in self._gathered and self._sizes[kind] + len(line.text) > _MOST_BYTES:
            self._submit(self._gathered.pop(kind))
            del self._sizes[kind]
        self._gathered.setdefault(kind, []).append(line)
        self._sizes[kind] += len(line.text)

    def _send(self, *, all_of_it: bool) -> None:
        """Make batches of what is gathered: full ones, or all of it."""
        for kind, lines in list(self._gathered.items()):
            while len(lines) >= MOST_LINES or (lines and all_of_it):
                self._submit(lines[:MOST_LINES])
                lines = lines[MOST_LINES:]
            if lines:
                self._gathered[kind] = lines
            else:
                del self._gathered[kind], self._sizes[kind]

    def _submit(self, lines: list[Line]) -> None:
        assert self._state is not None  # noqa: S101 - for the type checker
        batch = self._state.add(lines)
        self._batch_of |= dict.fromkeys((line.id for line in lines), batch.name)
        self._watch(batch, self._state)

    def _watch(self, batch: Batch, state: State) -> None:
        """Bring a batch to its end, in the thread."""

        async def begin(client: Client) -> None:
            task = asyncio.create_task(self._followed(batch, state, client))
            task.add_done_callback(self._seen)

        self._thread.call(begin)

    def _seen(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, LlmbatchError):
            failed = EngineError(f"a batch could not be followed: {error!r}: this is a bug of llmbatch")
            failed.__cause__ = error
            error = failed
        self._failed = self._failed or error
        self._happened.set()

    async def _followed(self, batch: Batch, state: State, client: Client) -> None:
        provider = Provider(client, self._how.url, self._how.timeout, self._log.once)
        try:
            await self._to_its_end(batch, state, provider)
        except Gone as error:
            raise EngineError(
                f"{error}. It has the answers to {batch.lines:,} requests of this run, which are paid for: see whether the key and "
                f"engine.urls are of the account that asked for them. If they are lost, remove {state.told(batch.name)}, and the "
                "same command asks for them again, and pays again"
            ) from error

    async def _to_its_end(self, batch: Batch, state: State, provider: Provider) -> None:
        while True:
            if batch.id is None:
                batch = await self._made(batch, state, provider)
            found = await provider.look(str(batch.id))
            while found.get("status") not in _OVER:
                await asyncio.sleep(self._how.poll)
                found = await provider.look(str(batch.id))
            if found["status"] != "failed":
                break
            # nothing of it was done, and nothing is to be paid for it: it is asked for anew, now or by the next session
            errors = (found.get("errors") or {}).get("data") or []
            said = "; ".join(str(each.get("message")) for each in errors) or "it does not say why"
            batch_id, batch = batch.id, state.set(batch, id=None, asked=False, file=None)
            if not any(each.get("code") in _FULL for each in errors):
                raise EngineError(f"the provider could not begin batch {batch_id}: {said}")
            self._log.once(f"the provider takes no more batches for now: {said}")
            await asyncio.sleep(_FULL_POLLS * self._how.poll)
        await self._bring_back(batch, found, state, provider)

    async def _made(self, batch: Batch, state: State, provider: Provider) -> Batch:
        """The batch at the provider: the one that an earlier session made, if it did, else a new one."""
        found = await provider.find(state.run, batch.name) if batch.asked else None
        if found is None:
            if batch.file is None:
                batch = state.set(batch, file=await provider.upload(state.asked(batch.name)))
            batch = state.set(batch, asked=True)
            found = await provider.create(state.run, batch.name, str(batch.file), batch.path)
        batch = state.set(batch, id=str(found["id"]))
        self._log.say(f"batch {batch.id} has {batch.lines:,} requests")
        return batch

    async def _bring_back(self, batch: Batch, found: dict[str, Any], state: State, provider: Provider) -> None:
        files = [found.get("output_file_id"), found.get("error_file_id")]
        contents = [await provider.content(str(name)) for name in files if name]
        batch = state.end(batch, contents)
        self._log.say(f"batch {batch.id}: {found['status']}")
        if found["status"] == "cancelled":  # before anything of it is asked again
            self._failed = self._failed or EngineError(
                f"batch {batch.id} was cancelled at the provider. What it had answered is kept; the same command asks for the rest "
                "in a new batch"
            )
        self._ended.append((batch, [each for content in contents for each in got(content)]))
        self._happened.set()

    def _settle(self, batch: Batch, came: list[Got]) -> None:
        """Answer what a batch brought back, and ask again for what it did not."""
        assert self._state is not None  # noqa: S101 - for the type checker
        lines = {line.id: line for line in self._state.lines(batch.name)}
        for name in lines:
            self._batch_of.pop(name, None)
        for each in came:
            if each.id in lines:
                if each.id not in self._waiting and self._is_final(each):  # a later ``stream`` may want it
                    self._here[each.id] = batch.name
                self._answer(each, again=lines.pop(each.id))
        for line in lines.values():
            self._answer(Got(line.id, None), again=line)

    def _answer(self, came: Got, again: Line) -> None:
        """The outcome of a request that is waited for, if it is; one that got none is asked again, a few times."""
        request = self._waiting.get(came.id)
        if request is None:  # it was given up, or its row was done before the run was killed
            return
        said = "nothing came back for it"
        if came.reply is not None:
            meaning = self._wire.verdict(came.reply)
            try:
                if meaning is Verdict.ANSWERED:
                    self._outcome(came.id, self._wire.read(request, came.reply))
                    return
                failure = self._wire.refusal(request, came.reply)
                if meaning is Verdict.REFUSED:
                    self._outcome(came.id, Refusal(request.key, failure))
                    return
                said = failure.message
            except NoAnswer as error:
                said = str(error)
        self._here.pop(came.id, None)
        self._tries[came.id] += 1
        if self._tries[came.id] < _TRIES:
            self._gather(again)
            return
        message = f"{_TRIES} batches left this request without an answer; the last time: {said}"
        self._outcome(came.id, Refusal(request.key, Failure(FailureKind.ENGINE, message)))

    def _outcome(self, name: str, outcome: Outcome) -> None:
        del self._waiting[name]
        self._outcomes.append(outcome)

    def _take(self) -> list[Outcome]:
        taken = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
        for outcome in taken:
            if isinstance(outcome, Completion):
                self.counts = self.counts + outcome.usage
        return taken


__all__ = ["BatchLoop"]
