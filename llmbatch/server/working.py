"""One batch in; what is next for it done, step by step, until it is over: checked, run, its results written."""

from __future__ import annotations

import errno
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from llmbatch.core.errors import EngineError, LlmbatchError, Locked, ReadError, UsageError, WriteError
from llmbatch.core.events import Event
from llmbatch.core.faults import point
from llmbatch.core.words import clip
from llmbatch.job.job import Job
from llmbatch.runs.brakes import Stop
from llmbatch.server.base import BatchKind, Ended, Runner, Share
from llmbatch.server.errors import place_of
from llmbatch.server.places import Places
from llmbatch.server.settings import ServerSettings
from llmbatch.server.store import Batch, Store

_log = logging.getLogger("llmbatch.server")
_TRIES = 3  # of a batch that the engine, or a bug, breaks, one after another
_REFUSALS = 15  # tries where its bucket or its disk refuses to be read or written: some ten minutes
_BEFORE_ITS_END = ("validating", "in_progress", "finalizing")
_PAUSES = (1.0, 5.0, 15.0, 60.0)  # seconds before a batch is tried again; the last goes for all that follow


class Later(Exception):
    """The batch is to go on after a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Closing(Exception):
    """The batch was stopped before its end: for others, or with the server."""


class Running(Protocol):
    """What is needed here of a batch's session."""

    batch: Batch
    stop: Stop

    @property
    def why(self) -> str | None: ...

    def hear(self, event: Event) -> None: ...


class Worker:
    """Serves batches, several at a time, each in its own thread."""

    def __init__(
        self, store: Store, settings: ServerSettings, run: Runner, places: Places, over: Callable[[Batch], None]
    ) -> None:
        """``over`` is told of each batch whose results are written."""
        self._store = store
        self._settings = settings
        self._run = run
        self._places = places
        self._over = over
        self._broken: Counter[str] = Counter()  # how often a batch could not go on, by its id

    def serve(self, session: Running, kind: BatchKind) -> None:
        """Bring a batch to its end. Raises ``Later`` or ``Closing`` where it is to go on another time."""
        batch = self._store.batch(session.batch.id)
        if batch is None or batch.ended:
            return
        try:
            self._serve(batch, session, kind)
        except (WriteError, ReadError, Locked) as error:
            if self._may_pass(batch, error):
                raise self._later(batch, error) from error
            self._give_up(batch, _refused(error))
        except (Closing, Later):
            raise
        except Exception as error:
            self._give_up(batch, self._bug(batch, error))
        self._broken.pop(batch.id, None)

    def _serve(self, batch: Batch, session: Running, kind: BatchKind) -> None:
        path = self._store.input(batch.id)
        if not batch.facts.rows:
            checked = kind.check(batch, path, lambda: session.why in ("room", "closing"))
            if checked is None:
                raise Closing
            if checked.errors:
                errors = [{**each, "message": self._places.hidden(each["message"])} for each in checked.errors]
                self._store.change(batch.id, "failed", errors=errors, rows=0, model=checked.model)
                _log.info("batch %s failed: its input has %d errors", batch.id, len(checked.errors))
                return
            point("batch-checked")
            self._store.change(batch.id, rows=checked.rows, model=checked.model)
            batch = self._store.change(batch.id, "in_progress", only=("validating",))  # it may be cancelled by now
        ending, message = self._ending(batch), None
        job = self._job(batch, kind)
        if ending is None and isinstance(job, Job):
            ending, message = self._run_to_end(batch, job, session)
        if not isinstance(job, Job):
            ending, message = "failed", str(job)
        self._finish(batch, ending or "failed", message, job, kind)

    def _job(self, batch: Batch, kind: BatchKind) -> Job | UsageError:
        try:
            sections = kind.sections(batch, self._store.input(batch.id))
            return self._settings.job_for(sections, self._store.run_folder(batch.id))
        except UsageError as error:
            return error

    def _ending(self, batch: Batch) -> str | None:
        """How a batch is to end of which nothing more is run; None: it is to be run."""
        if batch.state == "cancelling":
            return "cancelled"
        if batch.facts.ending is not None:
            return batch.facts.ending
        return "expired" if batch.expires is not None and batch.expires <= time.time() else None

    def _run_to_end(self, batch: Batch, job: Job, session: Running) -> tuple[str, str | None]:
        """(how the batch ends, why it failed). Raises ``Later`` or ``Closing``."""
        share = Share(batch.id, batch.weight, batch.priority)
        try:
            result = self._run(job, [session.hear], session.stop, share)
        except (WriteError, ReadError, Locked) as error:
            if self._may_pass(batch, error):
                raise
            return "failed", _refused(error)
        except EngineError as error:
            if session.why in ("cancelled", "expired"):
                return session.why, None
            if self._broken[batch.id] + 1 < _TRIES:
                raise self._later(batch, error) from error
            return "failed", f"the engine cannot go on with this batch: {error}"
        except LlmbatchError as error:
            return "failed", str(error)
        except Exception as error:
            return "failed", self._bug(batch, error)
        if result.outcome == "finished":
            return "completed", None
        if session.why in ("cancelled", "expired"):
            return session.why, None
        if session.why is None:  # a budget of the server's own settings
            return "failed", result.report["error"] or "the run was stopped"
        raise Closing

    def _finish(self, batch: Batch, ending: str, message: str | None, job: Job | UsageError, kind: BatchKind) -> None:
        """Write the results, and say that it is over; where it is cancelled meanwhile, they are written as of one that was."""
        point("batch-run")
        errors = self._said("server_error", message)
        batch = self._store.change(batch.id, "finalizing", only=_BEFORE_ITS_END, ending=ending, errors=errors)
        if batch.state == "cancelling":
            ending, errors = "cancelled", []
        if not isinstance(job, Job):
            self._store.change(batch.id, ending)
            return
        done = kind.finish(Ended(batch, ending, job, self._store, self._places))
        point("batch-results-written")
        after = self._store.change(
            batch.id,
            ending,
            only=(batch.state,),
            files=done.files.values(),
            results={role: file.id for role, file in done.files.items()},
            done=done.done,
            failed=done.failed,
            usage=done.usage,
            errors=errors or self._said("job_failed", done.failure),
        )
        if not after.ended:
            self._finish(after, "cancelled", None, job, kind)
            return
        if not after.given_up:  # else its rows would be counted once more when it was taken up again
            self._over(after)
        _log.info("batch %s %s: %d rows done, %d failed", batch.id, ending, done.done, done.failed)

    def _give_up(self, batch: Batch, said: str) -> None:
        """End a batch whose results cannot be written; what is finished of it stays in its run folder."""
        now = self._store.batch(batch.id) or batch
        ending = "cancelled" if now.state == "cancelling" else "failed"
        self._store.change(batch.id, ending, errors=self._said("server_error", said))
        _log.error("batch %s %s: it was tried again in vain", batch.id, ending)

    def _said(self, code: str, message: str | None) -> list[dict[str, Any]]:
        """What a client is told of a batch, without the places of this machine."""
        hidden = message and self._places.hidden(message)
        return [{"code": code, "line": None, "message": hidden, "param": None}] if message else []

    def _may_pass(self, batch: Batch, error: Exception) -> bool:
        """Whether to try again what could not be read or written: without end only where a disk is full, or in use."""
        cause = error.__cause__
        full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        busy = isinstance(error, Locked) or isinstance(cause, sqlite3.Error)
        return full or busy or self._broken[batch.id] + 1 < (_TRIES if batch.state == "cancelling" else _REFUSALS)

    def _bug(self, batch: Batch, error: Exception) -> str:
        """What is said of a batch that a bug broke. Raises ``Later`` at first; tried without end, nobody would get it back."""
        _log.error("batch %s: %s", batch.id, place_of(error))
        if self._broken[batch.id] + 1 < _TRIES:
            raise self._later(batch, error) from error
        return "the server failed on this batch; its log says more"

    def _later(self, batch: Batch, error: Exception) -> Later:
        tries = self._broken[batch.id] = self._broken[batch.id] + 1
        pause = _PAUSES[min(tries, len(_PAUSES)) - 1]
        # the error may quote a row, so only its kind is said
        _log.warning("batch %s cannot go on (%s), and is tried again in %g s", batch.id, type(error).__name__, pause)
        return Later(pause)


def _refused(error: Exception) -> str:
    cause = error.__cause__
    reason = (cause.strerror or str(cause)) if isinstance(cause, OSError) else type(cause or error).__name__
    what = "its results could not be written" if isinstance(error, WriteError) else "its input could not be read"
    return f"{what}, again and again: {clip(' '.join(reason.split()), 300)}; what is finished is kept on the server"


__all__ = ["Closing", "Later", "Worker"]
