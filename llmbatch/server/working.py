"""One batch in; what is next for it done, step by step, until it is over: checked, run, its results written."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any, Protocol

from llmbatch.core.errors import EngineError, LlmbatchError, Locked, ReadError, UsageError, WriteError
from llmbatch.core.events import Event
from llmbatch.core.faults import point
from llmbatch.job.job import Job
from llmbatch.runs.brakes import Stop
from llmbatch.server.base import BatchKind, Ended, Runner, Share
from llmbatch.server.errors import place_of
from llmbatch.server.settings import ServerSettings
from llmbatch.server.store import Batch, Store

_log = logging.getLogger("llmbatch.server")
_TRIES = 3  # of a batch that the engine, or a bug, breaks, one after another
_PAUSES = (
    1.0,
    5.0,
    15.0,
    60.0,
)  # seconds before a batch is tried again whose disk is full, or whose engine did not start


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

    def __init__(self, store: Store, settings: ServerSettings, run: Runner) -> None:
        self._store = store
        self._settings = settings
        self._run = run
        self._broken: Counter[str] = Counter()  # how often a batch could not go on, by its id

    def serve(self, session: Running, kind: BatchKind) -> None:
        """Bring a batch to its end. Raises ``Later`` or ``Closing`` where it is to go on another time."""
        batch = self._store.batch(session.batch.id)
        if batch is None or batch.ended:
            return
        try:
            self._serve(batch, session, kind)
        except (WriteError, ReadError, Locked) as error:  # a full disk may be emptied
            raise self._later(batch, error) from error
        except (Closing, Later):
            raise
        except Exception as error:
            said = self._bug(batch, error)
            self._store.change(batch.id, "failed", ending="failed", errors=_said("server_error", said))
        self._broken.pop(batch.id, None)

    def _serve(self, batch: Batch, session: Running, kind: BatchKind) -> None:
        path = self._store.input(batch.id)
        if not batch.facts.rows:
            checked = kind.check(batch, path, lambda: session.why in ("room", "closing"))
            if checked is None:
                raise Closing
            if checked.errors:
                self._store.change(batch.id, "failed", errors=checked.errors, rows=0, model=checked.model)
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
        if batch.facts.ending is not None:
            return batch.facts.ending
        if batch.state == "cancelling":
            return "cancelled"
        return "expired" if batch.expires is not None and batch.expires <= time.time() else None

    def _run_to_end(self, batch: Batch, job: Job, session: Running) -> tuple[str, str | None]:
        """(how the batch ends, why it failed). Raises ``Later`` or ``Closing``."""
        share = Share(batch.id, batch.weight, batch.priority)
        try:
            result = self._run(job, [session.hear], session.stop, share)
        except (WriteError, ReadError, Locked):
            raise
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
        point("batch-run")
        errors = _said("server_error", message)
        state = "cancelling" if ending == "cancelled" else "finalizing"
        batch = self._store.change(batch.id, state, ending=ending, errors=errors)
        if not isinstance(job, Job):
            self._store.change(batch.id, ending)
            return
        done = kind.finish(Ended(batch, ending, job, self._store))
        point("batch-results-written")
        self._store.change(
            batch.id,
            ending,
            files=done.files.values(),
            results={role: file.id for role, file in done.files.items()},
            done=done.done,
            failed=done.failed,
            usage=done.usage,
            errors=errors or _said("job_failed", done.failure),
        )
        _log.info("batch %s %s: %d rows done, %d failed", batch.id, ending, done.done, done.failed)

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


def _said(code: str, message: str | None) -> list[dict[str, Any]]:
    return [{"code": code, "line": None, "message": message, "param": None}] if message else []


__all__ = ["Closing", "Later", "Worker"]
