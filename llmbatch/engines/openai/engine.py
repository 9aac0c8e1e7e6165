"""One engine that is servers with OpenAI's API: settings in; a feed's requests answered by them out. Nothing of a model is here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.types import Constraint, Failure, Outcome, Prompt, Usage
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.http.base import NotSent, Untrusted
from llmbatch.engines.http.client import Client
from llmbatch.engines.http.limit import Limit
from llmbatch.engines.http.log import Log
from llmbatch.engines.http.loop import Loop
from llmbatch.engines.http.pool import Pool
from llmbatch.engines.http.settings import named_key
from llmbatch.engines.http.thread import EventThread
from llmbatch.engines.openai.batch.loop import MOST_LINES, BatchLoop, Polling
from llmbatch.engines.openai.batch.state import on_their_way
from llmbatch.engines.openai.dialect import DIALECTS, Dialect
from llmbatch.engines.openai.queue import has_use_for_more
from llmbatch.engines.openai.server import Found, base_of, look_at
from llmbatch.engines.openai.settings import OpenAISettings
from llmbatch.engines.openai.wire import OpenAIWire
from llmbatch.model.tokenizer import ChatSettings

BATCHES = "engine-batches"
"""The folder beside the engine's log that holds what is known of batches."""
_USUAL_REQUESTS = 256  # at a time, for the plan: how many it will be is found out


class OpenAIEngine:
    """Implements ``llmbatch.engines.Engine``. The servers tokenize, so there are no ids; what does not fit they refuse."""

    def __init__(self, model: str, settings: OpenAISettings, chat: ChatSettings, log: Path) -> None:
        self._settings = settings
        self._model = settings.served_name or model
        self._urls = [base_of(url) for url in settings.urls]
        self._log = Log(log)
        self._thread = EventThread(
            Client(key_of(settings), settings.request_timeout or settings.timeout, settings.ca_file)
        )
        dialect = DIALECTS.get(settings.dialect, DIALECTS["other"])
        self._wire = OpenAIWire(
            self._model,
            dialect,
            settings.args,
            chat.template_kwargs,
            self._log.once,
            settings.images,
            settings.classes or (),
        )
        self._pool = Pool(self._urls, lambda: Limit(settings.in_flight))
        self._batches = log.with_name(BATCHES)
        self._loop = self._make_loop(self._batches)

    def start(self) -> EngineInfo:
        if self._settings.mode == "online" and (count := on_their_way(self._batches)):
            raise JobError(
                f"engine.mode is online, and {count:,} batches of this run are on their way, which are to be paid for: "
                f"engine.mode=batch brings them back. To ask for their rows again all the same, remove {self._batches}"
            )
        found = self._thread.call(self._look)
        first = next(iter(found.values()))
        as_grammars = first.dialect.grammars and self._settings.schemas == "grammar"
        self._wire.dialect = replace(first.dialect, grammars=as_grammars)
        kind, fixed = first.dialect, self._settings.in_flight
        self._pool.limit_by(lambda: Limit(fixed, start=kind.at_first, asks=kind.tells_waiting))
        lengths = [each.context_length for each in found.values() if each.context_length is not None]
        self._wire.context_length = min(lengths, default=None)
        requests = self._settings.in_flight or (_USUAL_REQUESTS if self._settings.mode == "online" else MOST_LINES)
        return EngineInfo(
            name="openai",
            version=first.version,
            model=self._model,
            context_length=self._wire.context_length,
            max_num_seqs=requests * len(self._urls),
            in_flight=None if self._settings.in_flight is None else requests * len(self._urls),
            can=frozenset({"constraint", "lora", "images", "embed", *self._also_can(first.dialect)}),
            device="its server" if len(self._urls) == 1 else f"{len(self._urls)} servers",
            details={"dialect": first.dialect.name, "urls": self._urls},
        )

    def expect(self, constraints: Sequence[Constraint]) -> None:
        """The servers hold answers to what they can, or refuse."""

    def tokenize(self, prompts: Sequence[Prompt]) -> list[list[int] | Failure] | None:  # noqa: ARG002
        return None

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        return self._loop.stream(feed)

    def abort(self) -> None:
        self._loop.abort()

    def stop(self) -> None:
        self._loop.stop()
        self._thread.stop()

    def counts(self) -> Usage:
        return self._loop.counts

    def busy(self) -> float:
        return self._loop.busy

    def _also_can(self, dialect: Dialect) -> list[str]:
        """A line of a batch cannot be ended, and goes to no path of vLLM's own."""
        if self._settings.mode == "batch":
            return ["activation"] if dialect.name == "vllm" else []
        return ["cancel", *(["activation", "classify", "pairs"] if dialect.name == "vllm" else [])]

    def _make_loop(self, folder: Path) -> Loop | BatchLoop:
        settings = self._settings
        if settings.mode == "batch":
            how = Polling(self._urls[0], settings.timeout, settings.poll)
            return BatchLoop(self._wire, self._thread, how, folder, self._log)
        return Loop(self._wire, self._pool, self._thread, settings.timeout, self._log, has_use_for_more)

    async def _look(self, client: Client) -> dict[str, Found]:
        """What each of the servers is that can be reached; the others may come later."""
        settings = self._settings
        wanted = [self._model, *settings.lora] if settings.check_model else []
        looked = await asyncio.gather(
            *(look_at(client, url, self._model, wanted, settings.dialect, settings.timeout) for url in self._urls),
            return_exceptions=True,
        )
        found: dict[str, Found] = {}
        unreachable: list[str] = []
        for url, seen in zip(self._urls, looked, strict=True):
            if isinstance(seen, Untrusted):
                raise JobError(str(seen)) from seen
            if isinstance(seen, NotSent):
                unreachable.append(str(seen))
                self._log.once(f"{seen}; it is tried again later")
            elif isinstance(seen, BaseException):
                raise seen
            else:
                found[url] = seen
        if not found:
            raise EngineError(f"{'; '.join(unreachable)}. Is the server running, and is engine.urls right?")
        kinds = {each.dialect.name for each in found.values()}
        if len(kinds) > 1:
            raise JobError(
                f"engine.urls names servers of several kinds ({', '.join(sorted(kinds))}): give one kind to a job"
            )
        return found


def key_of(settings: OpenAISettings) -> str | None:
    """The key, from the environment. Raises ``JobError`` for what is no key."""
    name = settings.key_env
    if name is None:  # to nobody but OpenAI is its key sent without being asked to
        return os.environ.get("OPENAI_API_KEY") if settings.are_openais else None
    return named_key(name)


__all__ = ["OpenAIEngine", "key_of"]
