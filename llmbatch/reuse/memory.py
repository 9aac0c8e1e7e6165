"""Requests in, the outcomes of equal ones out: of a request that was asked before in this run, or that is in flight now.

Two requests are equal where their digests are (``core.digest.Digests``): then the engine would give the same answer again. What is
shared is the engine's outcome, so each row still judges it by its own checks, and retries and later steps are shared like first
requests. A record is the same whether its answers were reused or not, but for ``usage.cached_tokens``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.settings import IsPath
from llmbatch.core.types import Completion, FailureKind, Outcome, Request, RequestKey

_LASTING = frozenset({FailureKind.REFUSED, FailureKind.ENGINE_DIED})  # the same request would end so again
_ENTRY_BYTES = 600  # of an outcome without its text, with its place in the memory


class ReuseSettings(BaseModel):
    """Which answers are kept for requests that come again; nothing here changes a record. Needs ``plan.fold``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_rows: int = Field(65_536, ge=0, description="answers kept in memory for duplicates in later windows")
    memory_mib: float = Field(32.0, ge=0, description="and at most so much memory for them")
    cache: Annotated[Path | None, IsPath()] = Field(
        None,
        description="a file on a local disk that keeps answers for later runs of the same model; runs may share it",
    )


class Shared(NamedTuple):
    """What an outcome means for the requests that waited for it."""

    outcomes: list[Outcome]  # theirs
    alone: list[Request]  # these are to be sent after all, each for itself


@dataclass(slots=True)
class Reuse:
    """The outcomes of one session, by digest. Memory is bounded: the answer that was not asked for the longest goes first.

    ``keep`` is given every answer of the engine that is sure to be the same at another time.
    """

    settings: ReuseSettings
    keep: Callable[[bytes, Completion], None] | None = None
    _memory: OrderedDict[bytes, tuple[Outcome, int]] = field(default_factory=OrderedDict)  # each with its bytes
    _bytes: int = 0
    _rows: int = field(init=False)
    _limit: float = field(init=False)
    _sent: dict[RequestKey, bytes] = field(default_factory=dict)  # requests on their way, by digest
    _waiting: dict[bytes, list[Request]] = field(default_factory=dict)  # for a request on its way

    def __post_init__(self) -> None:
        self._rows = self.settings.memory_rows
        self._limit = self.settings.memory_mib * (1 << 20)

    def known(self, request: Request, digest: bytes) -> Outcome | None:
        """The outcome of an equal request that was answered before, as the outcome of this one."""
        found = self._memory.get(digest)
        if found is None:
            return None
        self._memory.move_to_end(digest)
        return _for(request, found[0])

    def lead(self, request: Request, digest: bytes) -> bool:
        """Take the request in: True where it is to be sent, as none like it is on its way; else it waits for that one's outcome."""
        waiting = self._waiting.get(digest)
        if waiting is not None:
            waiting.append(request)
            return False
        self._waiting[digest] = []
        self._sent[request.key] = digest
        return True

    def waiting_for(self, key: RequestKey) -> Sequence[Request]:
        """The requests that wait for the outcome of this one, which is on its way."""
        digest = self._sent.get(key)
        return () if digest is None else self._waiting[digest]

    def settle(self, outcome: Outcome) -> Shared | None:
        """Take what the engine answered. Outcomes that may be others at another time are not shared.

        ``None`` where nobody waits for it.
        """
        digest = self._sent.pop(outcome.key, None)
        if digest is None:
            return None
        waiting = self._waiting.pop(digest)
        if not _lasts(outcome):
            return Shared([], waiting) if waiting else None
        if isinstance(outcome, Completion):
            if outcome.finish_reason != "length" and outcome.token_ids:
                outcome = _without_ids(outcome)  # only an answer that was cut off is gone on from
            if self.keep is not None:
                self.keep(digest, outcome)
        self._remember(digest, outcome)
        return Shared([_for(request, outcome) for request in waiting], []) if waiting else None

    def forget(self) -> None:
        """Let go of the answers that are kept in memory."""
        self._memory.clear()
        self._bytes = 0

    def _remember(self, digest: bytes, outcome: Outcome) -> None:
        memory, limit = self._memory, self._limit
        if self._rows == 0 or (size := _size(outcome)) > limit:
            return
        if (before := memory.pop(digest, None)) is not None:
            self._bytes -= before[1]
        memory[digest] = outcome, size
        self._bytes += size
        while len(memory) > self._rows or self._bytes > limit:
            self._bytes -= memory.popitem(last=False)[1][1]


def _lasts(outcome: Outcome) -> bool:
    """Whether an equal request would have this outcome too. What the engine failed to do, it may do another time."""
    if isinstance(outcome, Completion):
        return outcome.finish_reason in ("stop", "length", "repetition")
    return outcome.failure.kind in _LASTING


def _for(request: Request, outcome: Outcome) -> Outcome:
    if isinstance(outcome, Completion):
        return replace(outcome, key=request.key, reused_from="row")
    return replace(outcome, key=request.key)


def _without_ids(c: Completion) -> Completion:
    """``dataclasses.replace``, at a third of its cost: this is done for every answer."""
    return Completion(
        c.key,
        c.text,
        c.finish_reason,
        c.usage,
        (),
        c.reasoning,
        c.stop_reason,
        c.logprobs,
        c.reused_from,
        c.score,
        c.numbers,
        c.tool_calls,
    )


def _size(outcome: Outcome) -> int:
    """About how many bytes of memory an outcome takes."""
    if not isinstance(outcome, Completion):
        return _ENTRY_BYTES
    size = _ENTRY_BYTES + 2 * len(outcome.text) + 8 * len(outcome.token_ids)
    if outcome.numbers is not None:
        size += outcome.numbers.itemsize * len(outcome.numbers)
    if outcome.reasoning is not None:
        size += 2 * len(outcome.reasoning)
    if outcome.tool_calls is not None:
        size += 2 * sum(len(call["function"]["arguments"]) for call in outcome.tool_calls)
    if outcome.logprobs is not None:
        size += 400 * sum(1 + len(token.get("top", ())) for token in outcome.logprobs)
    return size


__all__ = ["Reuse", "ReuseSettings", "Shared"]
