"""Batches in the store in; each of them run, many at a time on one engine, until it is completed, failed, expired or cancelled.

    validating -> failed
               -> in_progress -> finalizing -> completed | expired | failed
    each of these three may be cancelled -> cancelling -> cancelled; one that was given up may be taken up again

What a batch is at is in the store, and what is done of it in its run folder: a server that is killed goes on with every batch. One
thread looks after the queue, and each batch that runs has a thread of its own. Where more batches wait than may run, one that ran
for a while makes room and goes on later, so that a large one keeps nobody from a small one.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmbatch.core.events import Event, Note, Snapshot
from llmbatch.runs.brakes import Stop
from llmbatch.server.base import BatchKind, Runner
from llmbatch.server.errors import place_of
from llmbatch.server.store import Batch, Store
from llmbatch.server.working import Closing, Later, Worker

_log = logging.getLogger("llmbatch.server")
_LOOK_SECONDS = 0.5  # between two looks at who is over time
_ENDING_SLOTS = 2  # for batches that are only to be brought to their end, beside those that run
_END_SECONDS = 60.0  # that running batches get to come to a stop when the server ends
_NOTES_KEPT = 20


@dataclass(slots=True)
class Session:
    """A batch that runs: from here it is told to stop, and here it says where it stands."""

    batch: Batch
    stop: Stop = field(default_factory=Stop)
    why: str | None = None  # it is to stop: cancelled, expired, room (for others) or closing (the server)
    began: float = field(default_factory=time.monotonic)
    snapshot: Snapshot | None = None
    notes: list[Note] = field(default_factory=list)

    def end(self, why: str) -> None:
        """Ask it to stop. A wish to cancel, or that the server ends, goes before others."""
        if self.why is None or why in ("cancelled", "closing"):
            self.why = why
        self.stop.ask(why)

    def hear(self, event: Event) -> None:
        if isinstance(event, Snapshot):
            self.snapshot = event
        elif isinstance(event, Note):
            self.notes = [*self.notes[-_NOTES_KEPT + 1 :], event]


@dataclass(slots=True)
class _Waiting:
    batch: Batch
    turn: int
    not_before: float = 0.0  # by the monotonic clock


class Batches:
    """The queue. May be called from any thread."""

    def __init__(
        self,
        store: Store,
        kinds: Mapping[str, BatchKind],
        worker: Worker,
        *,
        sessions: int,
        slice_seconds: float,
    ) -> None:
        self._store = store
        self._kinds = kinds
        self._worker = worker
        self._sessions = sessions
        self._slice = slice_seconds
        self._turns = itertools.count()
        self._changed = threading.Condition()
        self._waiting: dict[str, _Waiting] = {}
        self._running: dict[str, Session] = {}
        self._threads: set[threading.Thread] = set()
        self._closing = False
        self._scheduler: threading.Thread | None = None

    def start(self) -> None:
        """Go on with every batch that is not over, and take what comes."""
        for batch in self._store.unfinished():
            self._waiting[batch.id] = _Waiting(batch, next(self._turns))
        if self._waiting:
            _log.info("going on with %d batches that are not over", len(self._waiting))
        self._scheduler = threading.Thread(target=self._schedule, name="llmbatch-queue", daemon=True)
        self._scheduler.start()

    def close(self) -> None:
        """Stop what runs; all of it goes on when the server is started again. May be called twice."""
        with self._changed:
            self._closing = True
            for session in self._running.values():
                session.end("closing")
            threads = list(self._threads)
            self._changed.notify_all()
        until = time.monotonic() + _END_SECONDS
        for thread in (*threads, *([self._scheduler] if self._scheduler else [])):
            thread.join(max(0.0, until - time.monotonic()))

    def add(self, batch: Batch, source: Path | None = None) -> None:
        """Take in a batch; once this returns it is run, whatever happens to the server. Raises ``WriteError``."""
        self._store.add_batch(batch, source)
        with self._changed:
            self._waiting[batch.id] = _Waiting(batch, next(self._turns))
            self._changed.notify_all()

    def cancel(self, batch: Batch) -> Batch:
        """Have a batch stop; what is finished by then is kept. One that is over stays as it is."""
        batch = self._store.change(batch.id, "cancelling", only=("validating", "in_progress", "finalizing"))
        if batch.state == "cancelling":
            with self._changed:
                if (session := self._running.get(batch.id)) is not None:
                    session.end("cancelled")
                if (waiting := self._waiting.get(batch.id)) is not None:
                    waiting.batch, waiting.not_before = batch, 0.0
                self._changed.notify_all()
        return batch

    def take_up(self, batch: Batch) -> Batch:
        """Go on with a batch that was given up; any other stays as it is."""
        if not batch.given_up:
            return batch
        ending = None if batch.facts.ending == "failed" else batch.facts.ending
        with self._changed:
            batch = self._store.change(batch.id, "in_progress", only=("failed",), ending=ending, errors=[])
            if batch.id not in self._running and batch.id not in self._waiting:
                self._waiting[batch.id] = _Waiting(batch, next(self._turns))
            self._changed.notify_all()
        return batch

    def session(self, batch_id: str) -> Session | None:
        """Where a batch stands that runs just now."""
        return self._running.get(batch_id)

    @property
    def load(self) -> tuple[int, int]:
        """How many batches run, and how many wait."""
        return len(self._running), len(self._waiting)

    def _schedule(self) -> None:
        with self._changed:
            while not self._closing:
                try:
                    self._expire()
                    while (following := self._next()) is not None:
                        self._begin(following)
                    self._make_room()
                except Exception as error:
                    _log.error("the queue of batches stumbled, and goes on: %s", place_of(error))
                self._changed.wait(_LOOK_SECONDS)

    def _expire(self) -> None:
        for session in self._running.values():
            if _expired(session.batch) and session.why is None:
                session.end("expired")

    def _next(self) -> _Waiting | None:
        """Who is next, if there is room: the highest priority, then the owner with the fewest running, then who waits longest."""
        now, busy = time.monotonic(), Counter(session.batch.owner for session in self._running.values())
        ready = [each for each in self._waiting.values() if each.not_before <= now]

        def rank(each: _Waiting) -> tuple[bool, int, int, int]:
            batch = each.batch
            return not _is_to_end(batch), -batch.priority, busy[batch.owner], each.turn

        first = min(ready, key=rank, default=None)
        if first is None:
            return None
        room = self._sessions + (_ENDING_SLOTS if _is_to_end(first.batch) else 0)
        return first if len(self._running) < room else None

    def _begin(self, waiting: _Waiting) -> None:
        batch = waiting.batch
        del self._waiting[batch.id]
        session = self._running[batch.id] = Session(batch)
        thread = threading.Thread(target=self._work, args=(session,), name=f"llmbatch-{batch.id}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _make_room(self) -> None:
        """Where batches wait and none is about to stop: whoever ran longest, of the lowest priority, goes on later."""
        now = time.monotonic()
        ready = [each.batch.priority for each in self._waiting.values() if each.not_before <= now]
        if not ready or any(session.why is not None for session in self._running.values()):
            return
        running = [session for session in self._running.values() if not _is_to_end(session.batch)]
        least = min(running, key=lambda session: (session.batch.priority, session.began), default=None)
        if least is None or len(running) < self._sessions:
            return
        wanted, has = max(ready), least.batch.priority
        if wanted > has or (wanted == has and now - least.began > self._slice):
            least.end("room")

    def _work(self, session: Session) -> None:
        """A batch's own thread. Whatever goes wrong in it, the batch comes to an end or is tried again."""
        batch, again = session.batch, 0.0
        try:
            self._worker.serve(session, self._kinds[batch.front])
        except Closing:
            pass
        except Later as later:
            again = later.seconds
        except BaseException as error:
            _log.error(
                "batch %s: its thread failed, and the batch is tried again in a while: %s", batch.id, place_of(error)
            )
            again = _END_SECONDS
        with self._changed:
            self._threads.discard(threading.current_thread())
            del self._running[batch.id]
            if not (now := self._as_it_is(batch)).ended:  # taken up again in this moment, it may be that too
                self._waiting[batch.id] = _Waiting(now, next(self._turns), time.monotonic() + again)
            self._changed.notify_all()

    def _as_it_is(self, batch: Batch) -> Batch:
        """The batch as the store has it; as it was, where that cannot be read just now: it must not drop out of the queue."""
        try:
            return self._store.batch(batch.id) or batch
        except Exception as error:
            _log.error("batch %s cannot be looked up, and is tried again: %s", batch.id, place_of(error))
            return batch


def _expired(batch: Batch) -> bool:
    return batch.expires is not None and batch.expires <= time.time()


def _is_to_end(batch: Batch) -> bool:
    """Whether nothing more of a batch is to be run."""
    return batch.state in ("cancelling", "finalizing") or _expired(batch)


__all__ = ["Batches", "Runner", "Session"]
