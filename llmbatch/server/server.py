"""The settings of a server in; all that takes part in one, put together, out: store, queue, live answers, counters, fronts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llmbatch.core.table import find
from llmbatch.server.answering import Answering
from llmbatch.server.base import BatchKind, Runner
from llmbatch.server.batches import Batches
from llmbatch.server.errors import ApiError, Room
from llmbatch.server.fronts import FRONTS
from llmbatch.server.metrics import Metrics
from llmbatch.server.places import Places
from llmbatch.server.settings import ServerSettings
from llmbatch.server.store import OwnerFull, Store, StoredFile
from llmbatch.server.working import Worker

if TYPE_CHECKING:
    from fastapi import APIRouter
    from starlette.responses import Response


class Front(BatchKind, Protocol):
    """Somebody's HTTP API on this server's files, batches and live answers."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """With what the paths begin that are this front's; the longest of all fronts' that fits decides."""

    def uploads(self, path: str) -> bool:
        """Whether what is sent to this path may be as large as a file."""

    def routes(self) -> APIRouter:
        """Its paths."""

    def refusal(self, error: ApiError) -> Response:
        """An error in the form in which this API's clients read it."""


@dataclass(slots=True)
class Server:
    """What the fronts work on."""

    settings: ServerSettings
    store: Store
    batches: Batches
    answering: Answering
    metrics: Metrics
    places: Places
    fronts: Mapping[str, Front]

    @classmethod
    def of(cls, settings: ServerSettings, store: Store, run: Runner, answering: Answering) -> Server:
        """A server that runs nothing yet."""
        fronts: dict[str, Any] = {}
        places = Places(settings)
        metrics = Metrics(store.counts, store.stored)
        worker = Worker(store, settings, run, places, metrics.over)
        batches = Batches(store, fronts, worker, sessions=settings.sessions, slice_seconds=settings.slice_seconds)
        server = cls(settings, store, batches, answering, metrics, places, fronts)
        fronts |= {name: find(FRONTS, name, "front")(server) for name in FRONTS}
        return server

    def start(self) -> None:
        """Go on with the batches that are not over, and take what comes."""
        self.store.remove_expired()
        self.batches.start()

    def room(self, owner: str) -> Room:
        """What an owner may send of a file. Raises ``ApiError`` where that is nothing, and no batch can have results."""
        settings = self.settings
        said = f"the file is larger than {settings.max_bytes:,} bytes, the most that this server takes"
        room = Room(settings.max_bytes, ApiError(413, said, code="file_too_large"))
        if settings.owner_bytes is None:
            return room
        left = settings.owner_bytes - self.store.stored(owner)
        if left <= 0:
            raise self._full()
        return room if room.bytes <= left else Room(left, self._full())

    def keep(self, file: StoredFile) -> None:
        """Take in a file that lies whole at ``store.upload``. Raises ``ApiError`` where its owner has too much then."""
        try:
            self.store.keep(file, self.settings.owner_bytes)
        except OwnerFull:
            raise self._full() from None
        self.metrics.uploaded.inc(file.bytes)

    def _full(self) -> ApiError:
        said = (
            f"your files may have {self.settings.owner_bytes:,} bytes together on this server: delete some, results too"
        )
        return ApiError(429, said, code="insufficient_quota")

    def front_of(self, path: str) -> Front:
        """Whose path it is; of those that are nobody's the first front says so."""
        fitting = [
            (len(prefix), front)
            for front in self.fronts.values()
            for prefix in front.prefixes
            if path == prefix or (prefix != "/" and path.startswith(prefix))
        ]
        if not fitting:
            return next(iter(self.fronts.values()))
        return max(fitting, key=lambda each: each[0])[1]


__all__ = ["Front", "Server"]
