"""What a job leaves to the hub, the engine and the machine: a run, and its cache of answers, are held to what it came out as."""

from __future__ import annotations

from collections.abc import Mapping

from llmbatch.core.events import Note, Watcher
from llmbatch.engines.base import EngineInfo
from llmbatch.folder.folder import RunFolder
from llmbatch.job.identity import came_out, engine_before_start, left_open, model_identity
from llmbatch.job.job import Job
from llmbatch.reuse.cache import AnswerCache

_CONTEXT_LENGTH = "context length"


class Remembered:
    """A job's cache of answers, and what is known from it of the engine that gave them.

    ``came_out`` is what an engine came out as that began with the same, None where none did; ``context_length`` is that engine's,
    where it is known. Until ``identify`` says whose answers are meant, the cache gives none and keeps none.
    """

    def __init__(self, job: Job, identity: Mapping[str, str]) -> None:
        self._job = job
        self._identity = identity
        self.cache = None if job.reuse.cache is None else AnswerCache(job.reuse.cache.expanduser())
        self.came_out: dict[str, str] | None = None
        try:
            # it may answer without an engine
            self.came_out = None if self.cache is None else self.cache.recall(engine_before_start(job, identity))
        except BaseException:
            self.close()
            raise
        length = (self.came_out or {}).pop(_CONTEXT_LENGTH, None)
        self.context_length: int | None = None if length is None else int(length)

    def identify(self, known: Mapping[str, str]) -> None:
        """From here on the cache answers, and keeps answers, for an engine that came out so."""
        if self.cache is not None:
            self.cache.identify({**model_identity(self._identity), **known})

    def engine_is_up(self, info: EngineInfo) -> dict[str, str]:
        """Remember what an engine came out as, which is returned."""
        known = came_out(self._job, info)
        if self.cache is not None:
            length = {} if info.context_length is None else {_CONTEXT_LENGTH: str(info.context_length)}
            self.cache.remember(engine_before_start(self._job, self._identity), {**known, **length})
        return known

    def close(self) -> None:
        """Write what is not written yet. May be called twice."""
        if self.cache is not None:
            self.cache.close()


class HeldTo:
    """Of one session. ``context_length`` is that of the engine whose answers the cache has, where it is known.

    Made before the session begins in the folder, ``begin`` after it.

    Making it raises ``FolderError`` where it is known already that this session's answers would be of another kind than those that
    are there; ``engine_is_up`` raises it where that is known only then.
    """

    def __init__(self, job: Job, folder: RunFolder, identity: Mapping[str, str], tell: Watcher) -> None:
        self._folder = folder
        self._tell = tell
        self._remembered = Remembered(job, identity)
        self.cache = self._remembered.cache
        self.context_length = self._remembered.context_length
        try:
            folder.refuse_otherwise({**left_open(job), **(self._remembered.came_out or {})})
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """The session has begun: from here on the cache may answer."""
        if self._remembered.came_out is not None:
            self._settle(self._remembered.came_out)

    def engine_is_up(self, info: EngineInfo) -> None:
        """Look at an engine before it answers anything."""
        self._settle(self._remembered.engine_is_up(info))

    def close(self) -> None:
        """Write what the cache has not written yet, and say what went wrong with it. May be called twice."""
        self._remembered.close()
        if self.cache is not None and self.cache.trouble is not None:
            self._tell(Note("warning", self.cache.trouble))

    def _settle(self, known: Mapping[str, str]) -> None:
        if changed := self._folder.settle(known):
            self._tell(Note("warning", changed))
        self._remembered.identify(known)


__all__ = ["HeldTo", "Remembered"]
