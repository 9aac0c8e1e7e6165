"""A file of requests in; its batch at the provider, and what came back, out: the calls, each until it gets its answer."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmbatch.core.errors import EngineDied, EngineError
from llmbatch.core.imports import extra
from llmbatch.engines.http.base import Note, NotSent, Reply, Untrusted
from llmbatch.engines.http.client import Client
from llmbatch.engines.http.retry import Verdict, back_off, retry_after, verdict
from llmbatch.engines.openai.words import data_of, is_without_quota, words

_PAGE = 100
_NOT_THERE = 404
RUN, NAME = "llmbatch_run", "llmbatch_file"
"""The keys of a batch's metadata."""


class Gone(EngineError):
    """The provider does not know, or no longer, what it is asked for. ``str(error)`` says what and in which words."""


class Provider:
    """One server's Batch API. ``timeout``: seconds without any reply after which it counts as gone."""

    def __init__(self, client: Client, url: str, timeout: float, note: Note) -> None:
        self._client = client
        self._url = url
        self._timeout = timeout
        self._note = note
        self._spread = random.Random()  # noqa: S311 - of waits

    async def upload(self, path: Path) -> str:
        """A file of requests; its id. One that is uploaded twice costs nothing."""
        http = extra("aiohttp", "http", "an engine behind an HTTP server")

        def form() -> Any:
            made = http.FormData()
            made.add_field("purpose", "batch")
            made.add_field("file", path.read_bytes(), filename=path.name, content_type="application/jsonl")
            return made

        return str(_field(await self._data("POST", "/files", form), "id"))

    async def find(self, run: str, name: str) -> dict[str, Any] | None:
        """The batch that a run made of a file, if it did; one that failed was never begun."""
        after = ""
        while True:
            page = await self._data("GET", f"/batches?limit={_PAGE}{after}")
            batches = page.get("data") or []
            for batch in batches:
                said = batch.get("metadata") or {}
                if said.get(RUN) == run and said.get(NAME) == name and batch.get("status") != "failed":
                    return dict(batch)
            if not batches or not page.get("has_more"):
                return None
            after = f"&after={batches[-1]['id']}"

    async def create(self, run: str, name: str, file: str, path: str) -> dict[str, Any]:
        """Make a batch of an uploaded file; where no reply says whether it was made, it is looked for before it is made again."""
        asked = {
            "input_file_id": file,
            "endpoint": f"/v1{path}",
            "completion_window": "24h",
            "metadata": {RUN: run, NAME: name},
        }
        since, tries = time.monotonic(), 0
        while True:
            tries += 1
            try:
                reply = await self._client.post(f"{self._url}/batches", json.dumps(asked).encode())
                if verdict(reply.status) is Verdict.ANSWERED and isinstance(data_of(reply), dict):
                    return dict(data_of(reply))
                wait = self._wait(reply, tries, "/batches")
            except NotSent as error:
                wait = self._wait_for(error, tries)
            self._see_that_it_lives(since, wait, "/batches")
            await asyncio.sleep(wait)
            if (made := await self.find(run, name)) is not None:
                return made

    async def look(self, batch: str) -> dict[str, Any]:
        """How far a batch is. Raises ``Gone``."""
        return await self._data("GET", f"/batches/{batch}", missing=Gone)

    async def content(self, file: str) -> bytes:
        """What a file holds. Raises ``Gone``."""
        return (await self._ask("GET", f"/files/{file}/content", missing=Gone)).body

    async def _data(
        self, method: str, path: str, body: Callable[[], Any] = lambda: None, missing: type[EngineError] = EngineError
    ) -> dict[str, Any]:
        reply = await self._ask(method, path, body, missing)
        data = data_of(reply)
        if not isinstance(data, dict):
            raise EngineError(f"{self._url}{path} answers with no JSON: {words(reply)}. Has this server a Batch API?")
        return data

    async def _ask(
        self, method: str, path: str, body: Callable[[], Any] = lambda: None, missing: type[EngineError] = EngineError
    ) -> Reply:
        """``missing`` is raised where what is asked for is not there."""
        since, tries = time.monotonic(), 0
        while True:
            tries += 1
            try:
                reply = await self._client.send(method, f"{self._url}{path}", body())
                if verdict(reply.status) is Verdict.ANSWERED:
                    return reply
                wait = self._wait(reply, tries, path, missing)
            except NotSent as error:
                wait = self._wait_for(error, tries)
            self._see_that_it_lives(since, wait, path)
            await asyncio.sleep(wait)

    def _see_that_it_lives(self, since: float, wait: float, path: str) -> None:
        """Raises where it will have been asked in vain for too long."""
        if time.monotonic() + wait - since > self._timeout:
            raise EngineDied(f"{self._url}{path} gave no answer for {self._timeout:g} s", suspect=False)

    def _wait(self, reply: Reply, tries: int, path: str, missing: type[EngineError] = EngineError) -> float:
        """The seconds until it is asked again; raises where that is of no use."""
        if verdict(reply.status) in (Verdict.PUSHED_BACK, Verdict.AWAY, Verdict.AGAIN) and not is_without_quota(reply):
            asked = retry_after(reply.headers, time.time())
            return asked if asked is not None else back_off(tries, self._spread.random())
        seen = f"{self._url}{path.partition('?')[0]} refuses (status {reply.status}): {words(reply)}"
        raise (missing if reply.status == _NOT_THERE else EngineError)(seen)

    def _wait_for(self, error: NotSent, tries: int) -> float:
        if isinstance(error, Untrusted):
            raise EngineError(str(error)) from error
        self._note(f"{error}; it is tried again")
        return back_off(tries, self._spread.random())


def _field(data: dict[str, Any], name: str) -> Any:
    if not data.get(name):
        raise EngineError(f"the server's reply has no {name!r}: {json.dumps(data)[:200]}. Has it a Batch API?")
    return data[name]


__all__ = ["Gone", "Provider"]
