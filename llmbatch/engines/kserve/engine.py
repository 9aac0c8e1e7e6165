"""The engine: requests in, answers of a model at servers of the V2 protocol out. They load it; here is no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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


class _Up(NamedTuple):
    """What there is of an engine that is started."""

    wire: V2Wire
    loop: Loop
    batch: int  # rows in a call, at most


class KserveEngine:
    """A model at one server, or at several that have the same one."""

    def __init__(self, model: str, settings: KserveSettings, chat: ChatSettings, log: Path) -> None:
        self._name = settings.served_name or model
        self._settings = settings
        self._chat = chat
        self._log = Log(log)
        key = None if settings.key_env is None else named_key(settings.key_env)
        timeout = settings.request_timeout or settings.timeout
        self._thread = EventThread(Client(key, timeout, settings.ca_file))
        self._up: _Up | None = None
        self._past = Usage()
        self._past_busy = 0.0

    def start(self) -> EngineInfo:
        settings = self._settings
        if Path(self._name).is_absolute():
            raise JobError(
                f"model: {self._name} is a folder here, and the server has a name for it: give that under engine.served_name"
            )
        prompts = Prompts(settings.tokenizer, self._chat)
        served, away = self._thread.call(self._look)
        for words in away:
            self._log.once(f"{words}; it is tried again later")
        wire = V2Wire(served, prompts, settings, self._log.once)
        pool = Pool(settings.urls, self._limit_of(served))
        self._up = _Up(wire, Loop(wire, pool, self._thread, settings.timeout, self._log), served.batch)
        abilities = (
            ("constraint", can_hold(served.takes, served.model)),
            ("lora", served.takes.adapter is not None),
            ("cancel", served.batch == 1),  # a row of a call cannot be ended
        )
        return EngineInfo(
            name="kserve",
            version=served.version,
            model=self._name,
            context_length=None,
            max_num_seqs=pool.capacity * served.batch,
            can=frozenset(name for name, able in abilities if able),
            device="its server" if len(settings.urls) == 1 else f"{len(settings.urls)} servers",
            details={
                "urls": settings.urls,
                "protocol": "generate" if served.generate else "v2",
                "dialect": served.dialect,
                "rows_in_a_request": served.batch,
            },
        )

    def expect(self, constraints: Sequence[Constraint]) -> None:
        """What an answer is to be held to goes with its request."""

    def tokenize(self, prompts: Sequence[Prompt]) -> list[list[int] | Failure] | None:  # noqa: ARG002
        """The server alone has the tokenizer that counts."""
        return None

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        if self._up is None:
            raise EngineError("the engine is not started")
        wire, loop, batch = self._up
        return loop.stream(feed) if batch == 1 else in_batches(loop.stream, feed, wire, batch)

    def abort(self) -> None:
        if self._up is not None:
            self._up.loop.abort()

    def stop(self) -> None:
        if self._up is not None:
            self._past, self._past_busy = self.counts(), self.busy()
            self._up.loop.stop()
            self._up = None
        self._thread.stop()

    def counts(self) -> Usage:
        return self._past if self._up is None else self._past + self._up.loop.counts

    def busy(self) -> float:
        return self._past_busy if self._up is None else self._past_busy + self._up.loop.busy

    async def _look(self, client: Client) -> tuple[Served, list[str]]:
        return await look(client, self._name, self._settings)

    def _limit_of(self, served: Served) -> Callable[[], Limit]:
        """Makes the limit of one server, which counts calls."""
        given = self._settings.in_flight
        calls = None if given is None else max(1, given // (served.batch * len(self._settings.urls)))
        return lambda: Limit(calls)


__all__ = ["KserveEngine"]
