"""An engine that outlives a run: the next run with the same model and settings finds it started.

For scripts that run several jobs one after another, and for benchmarks. An engine that died is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.errors import EngineDied, JobError
from llmbatch.core.types import Constraint, Failure, Outcome, Prompt, Usage
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import is_hosted, make_engine
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings


class EngineKeeper:
    """Makes engines for runs, and keeps the last one started. A context manager: leaving it ends the engine."""

    def __init__(self) -> None:
        self._key: Any = None
        self._engine: Engine | None = None
        self._info: EngineInfo | None = None

    def __enter__(self) -> EngineKeeper:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def make(self, model: str, settings: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
        """As ``make_engine``; the engine that is kept, if it was made with the same arguments. Another one is ended first."""
        if not _can_be_kept(settings):
            raise JobError(
                "engine.replicas: one engine is kept for the next run, so a run here has one, in this process"
            )
        key = (model, settings.model_dump_json(), chat.model_dump_json())
        if self._engine is None or key != self._key:
            self.close()
            self._key, self._engine = key, make_engine(model, settings, chat, log)
        return _Kept(self, self._engine)

    def make_any(self, model: str, settings: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
        """As ``make``; but several engines, and one in a process of its own, are started for each run."""
        make = self.make if _can_be_kept(settings) else make_engine
        return make(model, settings, chat, log)

    def close(self) -> None:
        """End the engine that is kept, if there is one."""
        engine, self._engine, self._info = self._engine, None, None
        if engine is not None:
            engine.stop()


def _can_be_kept(settings: EngineSettings) -> bool:
    return settings.engines == 1 and not is_hosted(settings)


class _Kept:
    """One run's view of a kept engine: it counts from this run on, and stopping it leaves the engine alone."""

    def __init__(self, keeper: EngineKeeper, engine: Engine) -> None:
        self._keeper = keeper
        self._engine = engine
        self._before, self._busy_before = engine.counts(), engine.busy()

    def start(self) -> EngineInfo:
        if self._keeper._info is None:
            self._keeper._info = self._engine.start()
        return self._keeper._info

    def expect(self, constraints: Sequence[Constraint]) -> None:
        if self._keeper._info is None:
            self._engine.expect(constraints)

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        return self._engine.tokenize(prompts)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        try:
            yield from self._engine.stream(feed)
        except EngineDied:
            self._keeper.close()
            raise

    def abort(self) -> None:
        self._engine.abort()

    def stop(self) -> None:
        if self._keeper._info is not None:
            self._engine.abort()

    def counts(self) -> Usage:
        return self._engine.counts() - self._before

    def busy(self) -> float:
        return self._engine.busy() - self._busy_before
