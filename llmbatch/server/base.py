"""The contract of a kind of batch: what of a batch a front knows by itself, while the queue and the runs are the same for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from llmbatch.core.events import Watcher
from llmbatch.job.job import Job
from llmbatch.runs.brakes import Stop
from llmbatch.runs.session import RunResult
from llmbatch.server.outputs import Pair, pairs
from llmbatch.server.places import Places
from llmbatch.server.store import Batch, Store, StoredFile


@dataclass(frozen=True, slots=True)
class Checked:
    """What was seen of a batch's input before anything ran. With ``errors`` it fails, and no row is run."""

    rows: int = 0
    model: str | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ended:
    """A batch whose run is over: how it is to be called from now on, and why where not all of it was run."""

    batch: Batch
    state: str  # completed, cancelled, expired or failed
    job: Job
    store: Store
    places: Places

    def pairs(self) -> Iterator[Pair]:
        """Every row of the input in order, with its record where it has one. Raises as ``pairs`` does.

        Where something lies here is nothing to whoever sent it: of that the records do not tell.
        """
        folder = f"{self.store.batch_folder(self.batch.id)}/"
        for row, record in pairs(self.job):
            if record is not None and (error := record.get("error")) is not None:
                message = self.places.hidden(error["message"].replace(folder, ""))
                record = {**record, "error": {**error, "message": message}}
            yield Pair(row, record)


@dataclass(frozen=True, slots=True)
class Finished:
    """The results of a batch as its front writes them: files by their role, and how many lines are answers and errors."""

    files: Mapping[str, StoredFile]
    done: int
    failed: int
    usage: Mapping[str, int]
    failure: str | None = None  # why its system would say that it failed, though its run came to the end


class BatchKind(Protocol):
    """What a front knows of its batches. Called from the batch's own thread; each may be called again after a kill."""

    def check(self, batch: Batch, path: Path, stopped: Callable[[], bool]) -> Checked | None:
        """Look at the input before anything runs; ``None`` where ``stopped`` said so before the end."""

    def sections(self, batch: Batch, path: Path) -> Mapping[str, Any]:
        """What of its job is the batch's own: its input."""

    def finish(self, ended: Ended) -> Finished:
        """Write the results, whole or not at all, into the store's contents; called again it writes the same files."""


class Share(NamedTuple):
    """What a batch gets of the engine: ``weight`` beside others of the same priority, the higher priority first."""

    name: str
    weight: float
    priority: int


Runner = Callable[[Job, list[Watcher], Stop, Share], RunResult]
"""Runs a job to its end or to the stop, or goes on with it, on the server's engine."""
