"""The engine: requests in, answers of a model at a server of the V2 protocol out. The server loads it; here is no model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.types import Constraint, Failure, Outcome, Prompt, Usage
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.http.client import Client
from llmbatch.engines.http.limit import Limit
from llmbatch.engines.http.log import Log
from llmbatch.engines.http.loop import Loop
from llmbatch.engines.http.pool import Pool
from llmbatch.engines.http.settings import named_key
from llmbatch.engines.http.thread import EventThread
from llmbatch.engines.kserve.batches import in_batches
from llmbatch.engines.kserve.prompts import Prompts
from llmbatch.engines.kserve.served import Served, look
from llmbatch.engines.kserve.settings import KserveSettings
from llmbatch.engines.kserve.wire import V2Wire
from llmbatch.formats.kserve_dialects import can_hold
from llmbatch.model.tokenizer import ChatSettings

_LOOK_TIMEOUT = 30.0  # of each question before the start


class _Up:
    """What there is of an engine that is started."""

    def __init__(self, served: Served, wire: V2Wire, loop: Loop, thread: EventThread) -> None:
        self.served = served
        self.wire = wire
        self.thread = thread
        self.loop = loop


class KserveEngine:
    """A model at one server, or at several with the same one."""

    def __init__(self, model: str, settings: KserveSettings, chat: ChatSettings, log: Path) -> None:
        self._name = settings.served or model
        self._settings = settings
        self._chat = chat
        self._log = log
        self._up: _Up | None = None
        self._past = Usage()
        self._past_busy = 0.0

    def start(self) -> EngineInfo:
        settings = self._settings
        prompts = Prompts(settings.tokenizer, self._chat)
        served, away = self._look()
        wire = V2Wire(served, prompts, settings.parameters)
        pool = Pool(settings.urls, self._limit_of(served))
        log = Log(self._log)
        for words in away:
            log.once(words)
        thread = EventThread(self._client(settings.request_timeout or settings.timeout))
        self._up = _Up(served, wire, Loop(wire, pool, thread, settings.timeout, log), thread)
        abilities = (("constraint", can_hold(served.takes, served.model)), ("lora", served.takes.adapter is not None))
        return EngineInfo(
            name="kserve",
            version=served.version,
            model=self._name,
            context_length=None,
            max_num_seqs=pool.capacity * served.batch,
            can=frozenset(name for name, able in abilities if able),
            device=", ".join(settings.urls),
            details={
                "protocol": "generate" if served.generate else "v2",
                "dialect": served.dialect,
                "rows_in_a_request": served.batch,
            },
        )

    def expect(self, constraints: Sequence[Constraint]) -> None:
        """What an answer is to be held to goes with its request."""

    def tokenize(self, prompts: Sequence[Prompt]) -> list[list[int] | Failure] | None:  # noqa: ARG002 - the contract's
        """The server alone has the tokenizer that counts."""
        return None

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        if self._up is None:
            raise EngineError("the engine is not started")
        if self._up.served.batch == 1:
            return self._up.loop.stream(feed)
        return in_batches(self._up.loop.stream, feed, self._up.wire, self._up.served.batch)

    def abort(self) -> None:
        if self._up is not None:
            self._up.loop.abort()

    def stop(self) -> None:
        if self._up is not None:
            self._past, self._past_busy = self.counts(), self.busy()
            self._up.loop.stop()
            self._up.thread.stop()
            self._up = None

    def counts(self) -> Usage:
        return self._past if self._up is None else self._past + self._up.loop.counts

    def busy(self) -> float:
        return self._past_busy if self._up is None else self._past_busy + self._up.loop.busy

    def _look(self) -> tuple[Served, list[str]]:
        if Path(self._name).is_absolute():
            raise JobError(
                f"model: {self._name} is a folder here, and the server has a name for it: give that under engine.served"
            )

        async def looked() -> tuple[Served, list[str]]:
            async with self._client(_LOOK_TIMEOUT) as client:
                return await look(client, self._name, self._settings)

        with ThreadPoolExecutor(1) as thread:  # whoever starts it may have an event loop running, as a notebook does
            return thread.submit(asyncio.run, looked()).result()

    def _client(self, timeout: float) -> Client:
        """Raises ``JobError`` for a key that is not in the environment."""
        name = self._settings.key_env
        return Client(None if name is None else named_key(name), timeout, self._settings.ca_file)

    def _limit_of(self, served: Served) -> Callable[[], Limit]:
        given = self._settings.in_flight
        calls = None if given is None else max(1, given // (served.batch * len(self._settings.urls)))
        return lambda: Limit(calls)
