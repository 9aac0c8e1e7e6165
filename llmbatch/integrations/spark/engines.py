"""Jobs in, as the tasks of an executor bring them; the engine that answers each out, started once and kept for the next query."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from llmbatch.core.errors import EngineError, LlmbatchError
from llmbatch.core.events import Watcher
from llmbatch.engines.kinds import is_hosted
from llmbatch.engines.settings import EngineSettings
from llmbatch.integrations.live import LiveEngine
from llmbatch.integrations.live_job import LiveJob
from llmbatch.job.job import Job, job_from
from llmbatch.job.recipe import Recipe, engine_of
from llmbatch.job.swept import recipe_of
from llmbatch.runs.budget import gpus_of

_JOBS_KEPT = 16  # of one engine: each remembers answers


class _Known(NamedTuple):
    """A job that was read, with the settings of its engine."""

    job: Job
    recipe: Recipe
    settings: EngineSettings

    @property
    def key(self) -> str:
        """Jobs with the same have one engine."""
        return "\n".join((self.job.model_path, self.settings.model_dump_json(), self.job.chat.model_dump_json()))


class _Kept:
    """One engine with its jobs."""

    def __init__(self, live: LiveEngine) -> None:
        self.live = live
        self.users = 0
        self.jobs: OrderedDict[str, tuple[LiveJob, int]] = OrderedDict()  # by its text, with how many use it

    def take(self, text: str, known: _Known) -> LiveJob:
        job, users = self.jobs.get(text) or (LiveJob(known.job, known.recipe, self.live), 0)
        self.jobs[text] = (job, users + 1)
        self.jobs.move_to_end(text)
        self.users += 1
        return job

    def give_back(self, text: str) -> None:
        job, users = self.jobs[text]
        self.jobs[text] = (job, users - 1)
        self.users -= 1
        unused = [each for each, (_, users) in self.jobs.items() if not users]
        for each in unused[: max(0, len(self.jobs) - _JOBS_KEPT)]:
            self.jobs.pop(each)[0].close()

    def close(self) -> None:
        for job, _ in self.jobs.values():
            job.close()
        self.live.close()


class Engines:
    """At most ``most`` engines at a time. Where another one is wanted it waits until one of them has nothing to do, which is ended.

    ``apart``: an engine of this machine's GPUs runs in a process of its own, so that a row that kills it can be found. ``see`` may
    change a job that was read.
    """

    def __init__(
        self, folder: Path, tell: Watcher, most: int, see: Callable[[Job], Job], *, apart: bool = False
    ) -> None:
        self._folder = folder
        self._tell = tell
        self._most = most
        self._see = see
        self._apart = apart
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()  # who waits for an engine, in order
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    @contextmanager
    def job(self, text: str) -> Iterator[LiveJob]:
        """The job of a text on its engine, as long as it is in use. Raises ``UsageError`` for what is wrong with it.

        An ``EngineError`` inside ends that engine, so that whoever comes next gets a new one; so does what broke the job and is no
        error of ours, as it may pass.
        """
        known = self._read(text)
        kept, job = self._take(text, known)
        try:
            yield job
        except BaseException as error:
            if isinstance(error, EngineError) or (job.is_broken and not isinstance(error, LlmbatchError)):
                self._drop(known.key, kept)
            raise
        finally:
            with self._changed:
                kept.give_back(text)
                self._changed.notify_all()

    def close(self) -> None:
        """End all engines."""
        with self._changed:
            kept, self._kept = list(self._kept.values()), OrderedDict()
        for each in kept:
            each.close()

    def _read(self, text: str) -> _Known:
        with self._changed:
            known = self._known.get(text)
        if known is None:
            job = self._see(job_from(json.loads(text)))
            recipe = recipe_of(job)
            known = _Known(job, recipe, self._placed(engine_of(job, recipe)))
            with self._changed:
                self._known[text] = known
                while len(self._known) > 4 * _JOBS_KEPT:
                    self._known.popitem(last=False)
        return known

    def _placed(self, settings: EngineSettings) -> EngineSettings:
        if (
            self._apart
            and gpus_of(settings).number > 0
            and settings.in_process is not False
            and not is_hosted(settings)
        ):
            return settings.model_copy(update={"in_process": False})
        return settings

    def _take(self, text: str, known: _Known) -> tuple[_Kept, LiveJob]:
        ticket, key = object(), known.key
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket and self._has_room(key))
                kept = self._kept.get(key)
                if kept is None:
                    self._make_room()
                    live = LiveEngine(known.job.model_path, known.settings, known.job.chat, self._tell, self._folder)
                    kept = self._kept[key] = _Kept(live)
                self._kept.move_to_end(key)
                return kept, kept.take(text, known)
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _has_room(self, key: str) -> bool:
        return key in self._kept or len(self._kept) < self._most or any(not each.users for each in self._kept.values())

    def _make_room(self) -> None:
        while len(self._kept) >= self._most:
            key = next(key for key, each in self._kept.items() if not each.users)
            self._kept.pop(key).close()

    def _drop(self, key: str, kept: _Kept) -> None:
        """An engine is broken: nobody gets it any more."""
        with self._changed:
            if self._kept.get(key) is kept:
                del self._kept[key]
        kept.close()


__all__ = ["Engines"]
