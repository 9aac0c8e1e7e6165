"""What fronts have in common that answer each request at once and have no batches: a request as its format reads it in, the row
with what became of it out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import Request

from llmbatch.core.errors import RunError
from llmbatch.core.record import record_to_dict
from llmbatch.core.types import Failure, Rendered
from llmbatch.core.words import clip
from llmbatch.formats.base import Answered, wire_format
from llmbatch.formats.outcome import code_of
from llmbatch.server.base import Checked, Ended, Finished
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.openai_live import LiveRequests
from llmbatch.server.server import Server
from llmbatch.server.store import Batch


class Synchronous:
    """Answers requests of one wire format, in the way of OpenAI's live requests, beside which they are counted and bounded."""

    def __init__(self, server: Server) -> None:
        self.settings = server.settings
        self._live = LiveRequests(server)
        self._openai = wire_format("openai")

    async def answered(
        self, request: Request, read: Rendered | Failure | None, row: Mapping[str, Any], model: str
    ) -> Answered:
        """The row, with its record. ``read`` is what its format makes of it. Raises ``ApiError``."""
        if not isinstance(read, Rendered):
            failure = read
            said = "the request has no prompt" if failure is None else failure.message
            raise ApiError(400 if failure is None else code_of(failure.kind).http, said, code="invalid_value")
        line = self._openai.write("live", read, model)
        record = await self._live.record(request, line)
        asked = self._live.asked(line)
        return Answered(record_to_dict(record), row, asked, model, int(time.time()))

    def model(self, name: str | None) -> str:
        """The model of this name; None: the only one. Raises ``ApiError``."""
        known = self.settings.models
        if self.settings.gives_vectors:
            raise ApiError(400, "the model of this server gives numbers (embeddings), and this asks for text")
        if name is not None and name not in known:
            said = f"Request for unknown model: '{clip(name, 100)}' is not found; there is {', '.join(known)}"
            raise ApiError(404, said, code="model_not_found", param="model")
        return name or known[0]

    # It is in the table of fronts, whose batches it would know, had it any.

    def check(self, batch: Batch, path: Path, stopped: Callable[[], bool]) -> Checked | None:  # noqa: ARG002
        raise self._has_none(batch)

    def sections(self, batch: Batch, path: Path) -> Mapping[str, Any]:  # noqa: ARG002
        raise self._has_none(batch)

    def finish(self, ended: Ended) -> Finished:
        raise self._has_none(ended.batch)

    def uploads(self, path: str) -> bool:  # noqa: ARG002
        return False

    def _has_none(self, batch: Batch) -> RunError:
        return RunError(
            f"{batch.id}: is called a batch of a front that has none: this is a bug of llmbatch, please report it"
        )


__all__ = ["Synchronous"]
