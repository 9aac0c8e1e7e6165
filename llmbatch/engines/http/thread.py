"""An event loop in a thread of its own, with a client in it; coroutines in, their results out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from llmbatch.engines.http.client import Client

T = TypeVar("T")


class EventThread:
    """Begins when it is first needed. May be stopped twice, and begins anew after that."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def runs(self) -> bool:
        return self._thread is not None

    def begin(self) -> None:
        """Start it, where it is not running."""
        if self._thread is not None:
            return
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llmbatch-http", daemon=True)
        self._thread.start()
        self._run(self._client.__aenter__())

    def call(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do something with the client, and wait for it. Raises what it raises."""
        self.begin()

        async def run() -> T:
            return await work(self._client)

        result: T = self._run(run())
        return result

    def soon(self, what: Callable[..., Any], *arguments: Any) -> None:
        """Call something in the loop, and do not wait for it."""
        assert self._loop is not None  # noqa: S101 - for the type checker
        self._loop.call_soon_threadsafe(what, *arguments)

    def stop(self) -> None:
        """Close the connections and end the thread."""
        if self._thread is None or self._loop is None:
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._thread = self._loop = None

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.__aexit__(None, None, None)

    def _run(self, work: Any) -> Any:
        assert self._loop is not None  # noqa: S101 - for the type checker
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


__all__ = ["EventThread"]
