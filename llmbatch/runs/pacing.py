"""The contract of what decides how many rows a run asks, where that is not all of its input: told of rows and records, it says how
many may be begun. ``Governor`` is one, for a run that is to accept so many rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from llmbatch.core.types import Record
from llmbatch.job.run_settings import RunSettings

Slots = Callable[[], int | None]
"""How many rows the engine has in hand at a time, once it is up."""


class Pacing(Protocol):
    """Of one session. Shared by the reader, which begins rows and waits here, and the loop, which finishes them.

    A row that was begun is always finished, so waiting for what is outstanding has an end. Decisions depend on records in input
    order alone, so that they are the same after any number of kills.
    """

    @property
    def accepted(self) -> int | None:
        """How many rows are accepted, where rows are; for whoever watches."""

    @property
    def wanted(self) -> int | None:
        """How many accepted rows end the run."""

    def expected(self) -> int | None:
        """How many rows there will have been at the end, as far as that can be told."""

    def room(self) -> int:
        """Wait until more rows are needed; how many may be begun now, 0 where none is needed any more. Raises ``Cancelled``."""

    def begun(self, indexes: Iterable[int]) -> None:
        """These rows are begun, the next in order."""

    def sealed(self, records: Iterable[Record]) -> None:
        """These rows, the next in order, have their records from an earlier session."""

    def finished(self, record: Record) -> None:
        """A row that was begun has its record."""

    def look(self) -> None:
        """Raises a ``RunError`` where the run is to be given up."""

    def stop(self) -> None:
        """Let go of a reader that waits."""


Pace = Callable[[RunSettings, Slots], Pacing]
"""Makes the pacing of one session."""

__all__ = ["Pace", "Pacing", "Slots"]
