"""What follows in the work of rows in, as it comes; the same tokenized as one batch, ready to be sent, out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from llmbatch.core.types import Request
from llmbatch.engines.base import EngineInfo
from llmbatch.job.prepare import Prepared, Preparer, characters

_MUCH = 200_000  # characters, which take some 50 ms: so long the engine's thread must not wait


class FollowUp:
    """Collects the requests that follow after a whole step of the engine, and prepares them together.

    Few are prepared at once. Much text is tokenized in a thread of its own, and ``ready`` is called from it when that is done.
    """

    def __init__(self, prepare: Preparer, ready: Callable[[], None]) -> None:
        self._prepare = prepare
        self._ready = ready
        self._collected: list[Request] = []
        self._working: Future[Prepared] | None = None
        self._executor: ThreadPoolExecutor | None = None

    def add(self, requests: Sequence[Request]) -> None:
        """More requests that follow."""
        self._collected.extend(requests)

    @property
    def pending(self) -> bool:
        """Whether there is anything that ``prepared`` has not given yet."""
        return bool(self._collected) or self._working is not None

    def prepared(self, info: EngineInfo | None) -> Prepared | None:
        """What is ready to be sent; None where that is nothing, or not yet.

        ``info`` is the engine's. As long as it is None, as the engine is not up, nothing is: what fits is not known.
        """
        if self._working is not None:
            if not self._working.done():
                return None
            done, self._working = self._working.result(), None
            return done
        if not self._collected or info is None:
            return None
        requests, self._collected = self._collected, []
        length = info.context_length
        if sum(characters(r.prompt) for r in requests if r.token_ids is None) < _MUCH:
            return self._prepare.following(requests, length)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmbatch-follow-up")
        self._working = self._executor.submit(self._prepare.following, requests, length)
        self._working.add_done_callback(lambda _: self._ready())
        return None

    def wait(self) -> None:
        """Block until what is being prepared is ready."""
        if self._working is not None:
            self._working.exception()

    def close(self) -> None:
        """End the thread; what it has in hand is dropped, and owed again."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
