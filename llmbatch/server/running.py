"""Settings in; a server with its engine, ended with it, out."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from llmbatch.core.events import EngineReady, Event, Note, Watcher
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.making import Maker
from llmbatch.engines.shared import SharedEngine
from llmbatch.job.job import Job
from llmbatch.job.recipe import engine_of
from llmbatch.job.swept import recipe_of
from llmbatch.runs.brakes import Stop
from llmbatch.runs.session import RunResult, run_job
from llmbatch.server.answering import Answering
from llmbatch.server.base import Share
from llmbatch.server.server import Server
from llmbatch.server.settings import ServerSettings
from llmbatch.server.store import Store

_log = logging.getLogger("llmbatch.server")


@contextlib.contextmanager
def open_server(settings: ServerSettings) -> Iterator[Server]:
    """The server; its engine starts with the first work, in a process of its own. Raises as ``Store`` does, and ``JobError``."""
    job = settings.prove()
    with contextlib.ExitStack() as stack:
        store = Store(settings.data)
        stack.callback(store.close)
        shared = shared_engine(job, settings.data / "engine", settings.idle or None)
        stack.callback(shared.close)
        answering = Answering(shared, job, fold=True)
        stack.callback(answering.close)

        def run(job: Job, watchers: list[Watcher], stop: Stop, share: Share) -> RunResult:
            # the server's own page shows its batches; llmbatch report makes the page of one
            # and whose lines are all wrong has its error for each, as its client expects
            job = job.model_copy(update={"run": job.run.model_copy(update={"page": False, "check_first": False})})
            return run_job(job, watchers, stop=stop, driver=shared.share(share.name, share.weight, share.priority))

        server = Server.of(settings, store, run, answering)
        stack.callback(server.batches.close)
        yield server


def shared_engine(job: Job, folder: Path, idle: float | None) -> SharedEngine:
    """The engine of a job, for all who ask. Its logs are in the folder."""
    folder.mkdir(exist_ok=True)
    recipe = recipe_of(job)
    engine = engine_of(job, recipe)
    if engine.hosted is None and engine.cluster is None and kind_of(engine.name).hosted:
        engine = engine.model_copy(update={"hosted": True})  # what it does in Python would keep requests waiting
    make = Maker(job.model_path, engine, job.chat, folder, expect=recipe.constraints)
    return SharedEngine(make, make.settings, _Trouble(folder / "notes.jsonl"), idle, more=make.more)


class _Trouble:
    """Hears of the engine. What goes wrong with it may be said with a row's words, so that goes to a file beside the data."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, event: Event) -> None:
        if isinstance(event, EngineReady):
            _log.info("the engine is up after %.1f s: %s", event.seconds, event.description)
        elif isinstance(event, Note):
            with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"time": time.time(), "level": event.level, "message": event.message}) + "\n")
            if event.level != "info":
                _log.warning("the engine has trouble: see %s", self._path)


__all__ = ["open_server", "shared_engine"]
