"""Files that come in as Google's clients send them: announced first, then their bytes, in one piece or several, to an address."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from llmbatch.core.words import clip, printable
from llmbatch.server.errors import ApiError, Room, not_found
from llmbatch.server.server import Server
from llmbatch.server.store import StoredFile, new_id

_KEPT_SECONDS = 48 * 3600  # as the Gemini API keeps a file
_PENDING_SECONDS = 3600.0  # that an upload may rest
_MOST_PENDING = 1000
_LONGEST_NAME = 255


@dataclass(slots=True)
class _Upload:
    owner: str
    filename: str
    began: float
    bytes: int = 0
    busy: bool = False


class GoogleUploads:
    """The uploads that are on their way. Those of a server that ended are gone: a client begins anew."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = server.store
        self._pending: dict[str, _Upload] = {}

    def begin(self, owner: str, body: Mapping[str, Any]) -> str:
        """The id of a new upload. Raises ``ApiError``."""
        self._forget()
        self._server.room(owner)
        if len(self._pending) >= _MOST_PENDING:
            raise ApiError(429, "too many files are on their way: finish some, or wait", retry=True)
        upload = new_id("")
        self._pending[upload] = _Upload(owner, _name_in(body) or upload, time.monotonic())
        return upload

    async def take(
        self, upload: str, owner: str, headers: Mapping[str, str], chunks: AsyncIterator[bytes]
    ) -> StoredFile | None:
        """Take in what comes; the file, once it is whole. Raises ``ApiError``."""
        known = self._pending.get(upload)
        if known is None or known.owner != owner:
            raise not_found("upload", upload)
        if known.busy:
            raise ApiError(409, "this file is being sent already", retry=True)
        offset = headers.get("x-goog-upload-offset", "0")
        if offset != str(known.bytes):
            raise ApiError(
                400, f"the next bytes of this file are those from {known.bytes:,} on, and not from {offset[:20]}"
            )
        known.busy, known.began = True, time.monotonic()
        place = self._store.upload(upload)
        try:
            await self._append(place, known, chunks, self._server.room(owner))
            commands = headers.get("x-goog-upload-command", "upload, finalize").split(",")
            if "finalize" not in map(str.strip, commands):
                return None
            now = int(time.time())
            file = StoredFile(upload, owner, "batch", known.filename, known.bytes, now, now + _KEPT_SECONDS)
            await run_in_threadpool(self._keep, place, file)
        except BaseException:
            self._drop(upload)
            raise
        finally:
            known.busy = False
        del self._pending[upload]
        return file

    async def _append(self, place: Path, upload: _Upload, chunks: AsyncIterator[bytes], room: Room) -> None:
        try:
            with place.open("ab") as stream:
                async for chunk in chunks:
                    upload.bytes += len(chunk)
                    if upload.bytes > room.bytes:
                        raise room.error
                    await asyncio.to_thread(stream.write, chunk)
        except OSError as error:
            raise ApiError(507, f"the file cannot be stored: {error.strerror}") from error

    def _keep(self, place: Path, file: StoredFile) -> None:
        with place.open("rb") as stream:
            os.fsync(stream.fileno())
        self._server.keep(file)

    def _forget(self) -> None:
        """Drop uploads that nobody has gone on with."""
        old = time.monotonic() - _PENDING_SECONDS
        for upload in [upload for upload, known in self._pending.items() if known.began < old and not known.busy]:
            self._drop(upload)

    def _drop(self, upload: str) -> None:
        self._pending.pop(upload, None)
        self._store.upload(upload).unlink(missing_ok=True)


def _name_in(body: Mapping[str, Any]) -> str:
    """What a file is called by whoever announces it."""
    file = body.get("file") or {}
    if not isinstance(file, dict):
        raise ApiError(400, 'the body is {"file": {"displayName": ...}}', param="file")
    name = file.get("displayName") or file.get("display_name") or ""
    return clip(printable(str(name)).replace("\n", " ").replace('"', "'"), _LONGEST_NAME)


__all__ = ["GoogleUploads"]
