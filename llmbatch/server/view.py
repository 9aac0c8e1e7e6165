"""What the page shows: batches with all that is known of how they stand, their rows, and one row with its prompt and attempts.

Paths below ``/llmbatch``: for the page alone, and changed as it needs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from llmbatch import __version__
from llmbatch.core.errors import FolderError, ReadError, SourceError, UsageError
from llmbatch.core.files import atomic_write
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Status
from llmbatch.core.words import clip
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.records import index_of, parse, status_of
from llmbatch.job.job import Job
from llmbatch.server.errors import ApiError, not_found
from llmbatch.server.fronts.openai import OpenAIFront
from llmbatch.server.keys import Owner
from llmbatch.server.outputs import pairs, record_lines
from llmbatch.server.server import Server
from llmbatch.server.store import Batch, StoredFile, new_id

_PAGE = Path(__file__).parent / "page"
_MADE = ("sections", "to", "layout")  # of what was given what a front made of it, with places of this machine
_SHOWN = 300  # characters of an answer in the table of rows
_LOOK_SECONDS = 2.0  # that a search may take before it shows what it has
_ID = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {"app.js": "text/javascript", "app.css": "text/css"}


def page_routes() -> APIRouter:
    """The page itself: three files, nothing of them from elsewhere."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index() -> Response:
        return FileResponse(
            _PAGE / "index.html", headers={"content-security-policy": _POLICY, "cache-control": "no-cache"}
        )

    @router.get("/page/{name}")
    async def part(name: str) -> Response:
        if name not in _TYPES:
            raise not_found("file", clip(name, 60))
        return FileResponse(_PAGE / name, media_type=_TYPES[name], headers={"cache-control": "no-cache"})

    return router


class View:
    """The data behind the page."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/llmbatch", tags=["page"])
        self._of_batches(router)
        self._of_rows(router)

        @router.get("/server")
        async def about(request: Request) -> Response:
            """What is served here, and to whom."""
            settings = self._server.settings
            return JSONResponse(
                {
                    "version": __version__, "models": settings.models, "max_lines": settings.max_lines,
                    "max_bytes": settings.max_bytes, "keys": bool(settings.keys), "owner": _owner(request).name,
                    "vectors": settings.gives_vectors, "owner_bytes": settings.owner_bytes,
                    "stored_bytes": self._server.store.stored(_owner(request).name),
                }
            )  # fmt: skip

        return router

    def _of_batches(self, router: APIRouter) -> None:
        store = self._server.store

        @router.get("/batches")
        async def list_all(
            request: Request,
            limit: Annotated[int, Query(ge=1, le=100)] = 50,
            after: Annotated[_ID | None, Query()] = None,
        ) -> Response:
            """The batches of the key's owner, of every API."""
            found = store.batches(_owner(request).name, front=None, after=after, limit=limit + 1)
            return JSONResponse(
                {"data": [self._standing(batch) for batch in found[:limit]], "has_more": len(found) > limit}
            )

        @router.get("/batches/{batch_id}")
        async def detail(request: Request, batch_id: _ID) -> Response:
            """One batch, with its account by kind of failure."""
            batch = self._own(batch_id, request)
            standing = self._standing(batch)
            if "by_failure" not in standing:
                standing |= await run_in_threadpool(self._account, batch)
            return JSONResponse(standing)

        @router.post("/batches/{batch_id}/cancel")
        async def cancel(request: Request, batch_id: _ID) -> Response:
            """Stop a batch, whichever API it came by."""
            batch = await run_in_threadpool(self._server.batches.cancel, self._own(batch_id, request))
            return JSONResponse(self._standing(batch))

        @router.post("/batches/{batch_id}/retry")
        async def retry(request: Request, batch_id: _ID) -> Response:
            """A new batch of the rows that have no good answer; of one that was given up, the same batch goes on."""
            batch = self._own(batch_id, request)
            made = await run_in_threadpool(self._retry, batch, _owner(request))
            return JSONResponse(self._standing(made))

    def _of_rows(self, router: APIRouter) -> None:
        @router.get("/batches/{batch_id}/rows")
        async def rows(
            request: Request,
            batch_id: _ID,
            search: Annotated[str, Query(max_length=200)] = "",
            status: Annotated[str, Query(pattern="^(|ok|invalid|truncated|failed|skipped)$")] = "",
            after: Annotated[int, Query(ge=-1)] = -1,
            limit: Annotated[int, Query(ge=1, le=200)] = 50,
        ) -> Response:
            """Rows that are done, from behind an index on, that hold a text."""
            folder = self._server.store.run_folder(self._own(batch_id, request).id)
            found = await run_in_threadpool(_found, folder, search, status, after, limit)
            for row in found["rows"]:
                row["error"] = self._for_clients(row["error"])
            return JSONResponse(found)

        @router.get("/batches/{batch_id}/rows/{index}")
        async def row(request: Request, batch_id: _ID, index: int) -> Response:
            """One row: what was asked, every attempt, and what came of it."""
            found = await run_in_threadpool(self._row, self._own(batch_id, request), index)
            if found is None:
                raise not_found("row", str(index))
            return JSONResponse(found)

    def _standing(self, batch: Batch) -> dict[str, Any]:
        facts, session = batch.facts, self._server.batches.session(batch.id)
        standing: dict[str, Any] = {
            "id": batch.id, "front": batch.front, "state": batch.state, "created": batch.created, "times": facts.times,
            "expires": batch.expires, "model": facts.model, "rows": facts.rows, "done": facts.done,
            "failed": facts.failed, "errors": facts.errors, "files": facts.results, "usage": facts.usage,
            "given": {key: value for key, value in batch.given.items() if key not in _MADE}, "given_up": batch.given_up,
            "running": session is not None,
        }  # fmt: skip
        if session is not None and (snapshot := session.snapshot) is not None and not batch.ended:
            done = snapshot.by_status.get(Status.OK, 0)
            standing |= {
                "done": done, "failed": snapshot.rows - done, "by_status": dict(snapshot.by_status),
                "by_failure": dict(snapshot.by_failure), "rows_per_s": snapshot.rows_per_s,
                "tokens_per_s": snapshot.completion_tokens_per_s, "seconds_left": snapshot.seconds_left,
                "usage": {
                    "input": snapshot.usage.prompt_tokens, "cached": snapshot.usage.cached_tokens,
                    "output": snapshot.usage.completion_tokens,
                },
            }  # fmt: skip
        return standing

    def _account(self, batch: Batch) -> dict[str, Any]:
        folder = self._server.store.run_folder(batch.id)
        try:
            ledger = RunFolder(folder).ledger()
        except FolderError:
            ledger = Ledger()
        return {"by_status": ledger.by_status, "by_failure": ledger.by_failure}

    def _own(self, batch_id: str, request: Request) -> Batch:
        batch = self._server.store.batch(batch_id, _owner(request).name)
        if batch is None:
            raise not_found("batch", batch_id)
        return batch

    def _job(self, batch: Batch) -> Job:
        store = self._server.store
        try:
            sections = self._server.fronts[batch.front].sections(batch, store.input(batch.id))
            return self._server.settings.job_for(sections, store.run_folder(batch.id))
        except UsageError as error:
            raise ApiError(409, "the rows of this batch cannot be read with the settings of this server") from error

    def _row(self, batch: Batch, index: int) -> dict[str, Any] | None:
        try:
            pair = next((pair for pair in pairs(self._job(batch)) if pair.row.index == index), None)
        except (SourceError, ReadError):  # the input is gone
            return None
        if pair is None:
            return None
        record = pair.record
        if record is not None and "error" in record:
            record = {**record, "error": self._for_clients(record["error"])}
        return {"request": dict(pair.row.data), "record": record}

    def _for_clients(self, error: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """An error of a record without the places of this machine."""
        return None if error is None else {**error, "message": self._server.places.hidden(error["message"])}

    def _retry(self, batch: Batch, owner: Owner) -> Batch:
        """Raises ``ApiError`` where there is nothing to try again."""
        if batch.given_up:
            return self._server.batches.take_up(batch)
        store, front = self._server.store, self._server.fronts[batch.front]
        if not isinstance(front, OpenAIFront) or not batch.ended:
            raise ApiError(409, "only a batch that is over can be tried again", code="invalid_state")
        if not store.input(batch.id).exists():
            raise ApiError(409, "what this batch asked was deleted, or is expired", code="invalid_state")
        file_id, now = new_id("file-"), int(time.time())
        size = atomic_write(store.upload(file_id), _not_ok(self._job(batch)))
        if not size:
            store.upload(file_id).unlink()
            raise ApiError(409, "every row of this batch has a good answer", code="nothing_to_retry")
        try:
            self._server.keep(StoredFile(file_id, owner.name, "batch", f"retry-of-{batch.id}.jsonl", size, now))
        finally:
            store.upload(file_id).unlink(missing_ok=True)
        metadata = {**(batch.given["metadata"] or {}), "retry_of": batch.id}
        window = batch.given["expires_at"] - batch.created
        given = {**batch.given, "input_file_id": file_id, "metadata": metadata, "expires_at": now + window}
        expires = now + window if front.expires else None
        again = Batch(
            new_id("batch_"), owner.name, batch.front, now, expires, given, priority=batch.priority, weight=batch.weight
        )
        self._server.batches.add(again, store.content(file_id))
        return again


def _not_ok(job: Job) -> Iterator[bytes]:
    for row, record in pairs(job):
        if record is None or record["status"] != Status.OK:
            yield json.dumps(row.data, ensure_ascii=False).encode() + b"\n"


def _found(folder: Path, search: str, status: str, after: int, limit: int) -> dict[str, Any]:
    """Rows, and the index to go on behind, where there may be more."""
    wanted, until = search.casefold(), time.monotonic() + _LOOK_SECONDS
    rows: list[dict[str, Any]] = []
    seen = after
    for line in record_lines(folder):
        index = index_of(line)
        if index <= after:
            continue
        if len(rows) == limit or time.monotonic() > until:
            return {"rows": rows, "next": seen}
        seen = index
        if (not status or status_of(line) == status) and (not wanted or wanted in line.decode().casefold()):
            rows.append(_brief(parse(line)))
    return {"rows": rows, "next": None}


def _brief(record: Mapping[str, Any]) -> dict[str, Any]:
    said = (record["output"], record.get("tool_calls"), record.get("raw"))
    output = next((each for each in said if each is not None), None)
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    return {
        "index": record["index"], "id": record["id"], "status": record["status"],
        "error": record.get("error"), "attempts": record["attempts"], "output": clip(text, _SHOWN),
        "tokens": record["usage"]["completion_tokens"],
    }  # fmt: skip


def _owner(request: Request) -> Owner:
    owner: Owner = request.state.owner
    return owner


__all__ = ["View", "page_routes"]
