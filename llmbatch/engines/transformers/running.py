"""The contract between the loop and what runs the model: rows in; the same rows out as they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from llmbatch.core.errors import EngineDied
from llmbatch.core.types import Failure, Request, Score
from llmbatch.engines.transformers.rows import Row

Death = Callable[[BaseException | None, str], EngineDied]
"""(what was raised, what was seen) -> the exception that says it."""


class Scored(NamedTuple):
    """A request for a likelihood, and that."""

    request: Request
    score: Score


class Failed(NamedTuple):
    """A request that the library failed; the others go on."""

    request: Request
    failure: Failure


Ended = Row | Scored | Failed


class Runner(Protocol):
    """Runs the model in a thread of its own. Its methods are called from one other."""

    progress_at: float  # when the model gave its last sign of life

    def add(self, rows: Sequence[Row], targets: Sequence[Request]) -> None:
        """Rows to be answered, and requests to be scored."""

    def wait(self, timeout: float) -> list[Ended]:
        """What has ended, after at most so many seconds. Raises ``EngineDied``."""

    def abort(self) -> None:
        """Forget all that was added."""

    def stop(self) -> None:
        """End the thread. May be called twice."""
