"""Settings in; a server with its engine, ended with it, out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from llmbatch.core.events import Watcher
from llmbatch.job.job import Job
from llmbatch.runs.brakes import Stop
from llmbatch.runs.session import RunResult, run_job
from llmbatch.server.base import Share
from llmbatch.server.server import Server
from llmbatch.server.settings import ServerSettings


@contextlib.contextmanager
def open_server(settings: ServerSettings) -> Iterator[Server]:
    """The server; its engine starts with the first work. Raises as ``Store`` does."""
    server = Server.of(settings, _run)
    try:
        yield server
    finally:
        server.close()


def _run(job: Job, watchers: list[Watcher], stop: Stop, share: Share) -> RunResult:  # noqa: ARG001 - until engines are shared
    return run_job(job, watchers, stop=stop)


__all__ = ["open_server"]
