"""An engine that cannot end a model's thinking in; one that keeps to a thinking budget, by two requests where one would do, out.

The first request thinks up to the budget. Where it is still thinking then, that is ended for it, and the second goes on from
there to the answer; else that goes on from wherever the first was cut off. The row knows of one request: its usage is the sum of
both, as the engine counts them, and its answer and limits are those of the whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from llmbatch.core.types import Completion, Outcome, Piece, Refusal, Request, RequestKey, Sampling
from llmbatch.engines.feed import Feed, Requests

BUDGET = "thinking_token_budget"
_OF_THE_WHOLE = (BUDGET, "min_tokens")  # what counts from the start of the answer, and says nothing of a part
_SETTINGS_KEPT = 1024

Stream = Callable[[Requests], Iterator[list[Outcome]]]


class Marks(NamedTuple):
    """The ids that begin and end a model's thinking."""

    start: tuple[int, ...]
    end: tuple[int, ...]

    def is_open(self, ids: Sequence[int]) -> bool:
        """Whether thinking has begun last, and not ended."""
        return _last(ids, self.start) > _last(ids, self.end)

    def after(self, ids: Sequence[int]) -> int:
        """How many of the ids are of the thinking, its end included."""
        place = _last(ids, self.end)
        return 0 if place < 0 else place + len(self.end)


def in_two_requests(stream: Stream, feed: Feed, marks: Marks) -> Iterator[list[Outcome]]:
    """The outcomes of a feed by an engine's ``stream``, which is never asked to keep to a budget itself."""
    two = _InTwo(feed, marks)
    for outcomes in stream(two):
        yield [outcome for each in outcomes if (outcome := two.settle(each)) is not None]


class _InTwo:
    """Implements ``Requests``: those of a feed, and the second ones that follow from what was answered."""

    def __init__(self, feed: Feed, marks: Marks) -> None:
        self._feed = feed
        self._marks = marks
        self._thinking: dict[RequestKey, tuple[Request, int]] = {}  # as the feed has it, and what the first may think
        # the answer to the first, and how many of its tokens are kept, while the second is in flight
        self._thought: dict[RequestKey, tuple[Completion, int]] = {}
        self._waiting: deque[Request] = deque()
        self._without: dict[tuple[int, tuple[str, ...]], tuple[Sampling, Sampling]] = {}

    def take(self, slots: int, tokens: int) -> list[Request]:
        taken: list[Request] = []
        while self._waiting and len(taken) < slots:
            taken.append(self._waiting.popleft())
            tokens -= len(taken[-1].token_ids or ()) + len(taken[-1].partial)
        if self._feed.urgent or (len(taken) < slots and (tokens > 0 or not taken)):
            taken += map(self._first, self._feed.take(slots - len(taken), tokens))
        return taken

    def wait(self, timeout: float) -> None:
        if not self._waiting:
            self._feed.wait(timeout)

    @property
    def finished(self) -> bool:
        return self._feed.finished  # what waits here is in flight there

    @property
    def urgent(self) -> bool:
        return self._feed.urgent

    @property
    def hurries(self) -> bool:
        return self._feed.hurries

    def rest(self, timeout: float) -> None:
        if not self._waiting:
            self._feed.rest(timeout)

    def take_cancelled(self) -> Sequence[RequestKey]:
        cancelled = self._feed.take_cancelled()
        for key in cancelled:  # there is no second part
            self._thinking.pop(key, None)
        return cancelled

    def tell(self, pieces: Sequence[Piece]) -> None:
        self._feed.tell(pieces)

    def settle(self, outcome: Outcome) -> Outcome | None:
        """The outcome of a request of the feed; None where its second part is yet to come."""
        first = self._thinking.pop(outcome.key, None)
        if first is not None:
            if isinstance(outcome, Refusal) or (second := self._second(*first, outcome)) is None:
                return outcome
            kept = min(len(outcome.token_ids), len(second.partial)) - len(first[0].partial)
            self._thought[outcome.key] = outcome, kept
            self._waiting.append(second)
            return None
        thought = self._thought.pop(outcome.key, None)
        if thought is None:
            return outcome
        # there was no room to go on: what there is was cut off
        return thought[0] if isinstance(outcome, Refusal) else _joined(*thought, outcome)

    def _first(self, request: Request) -> Request:
        budget = request.sampling.get(BUDGET)
        if budget is None or request.target is not None:
            return request
        plain = replace(
            request, sampling=self._less(request.sampling, BUDGET), stream=False
        )  # it may be told in two parts
        marks, partial = self._marks, request.partial
        left, limit = max(budget - len(partial), 0), _limit(request)
        answering = marks.after(partial) > 0 and not marks.is_open(partial)
        if budget < 0 or answering or request.token_ids is None or (limit is not None and left >= limit):
            return plain
        if left == 0 and marks.is_open((*request.token_ids, *partial)):
            return self._on_from(request, (*partial, *marks.end)) or plain
        left = max(left, 1)  # whether it will think at all is known with its first token
        self._thinking[request.key] = request, left
        return replace(plain, sampling=self._less(request.sampling, *_OF_THE_WHOLE), max_tokens=left)

    def _second(self, request: Request, allowed: int, first: Completion) -> Request | None:
        """What goes on from where the first was cut off by the budget; None where it was not, or there is no room."""
        ids = tuple(first.token_ids)
        if first.finish_reason != "length" or first.usage.completion_tokens < allowed:
            return None
        if self._marks.is_open((*(request.token_ids or ()), *ids)):
            partial = ids + self._marks.end
        elif request.constraint is None:
            partial = ids
        else:  # a grammar begins with the answer, and cannot begin in the middle of it
            partial = ids[: max(self._marks.after(ids), len(request.partial))]
        return self._on_from(request, partial)

    def _on_from(self, request: Request, partial: tuple[int, ...]) -> Request | None:
        """The request with so much of its answer there already; None where its limit leaves no room for more."""
        limit = _limit(request)
        left = None if limit is None else limit - (len(partial) - len(request.partial))
        if left is not None and left < 1:
            return None
        sampling = self._less(request.sampling, *_OF_THE_WHOLE)
        return replace(request, sampling=sampling, partial=partial, max_tokens=left, stream=False)

    def _less(self, sampling: Sampling, *names: str) -> Sampling:
        """The sampling without these settings; equal ones are one object."""
        known = self._without.get((id(sampling), names))
        if known is None:
            if len(self._without) >= _SETTINGS_KEPT:
                self._without.clear()
            # the one is kept with the other, so that its identity is not another's later
            known = self._without[id(sampling), names] = (sampling, sampling.replace(**dict.fromkeys(names)))
        return known[1]


def _limit(request: Request) -> int | None:
    limit: int | None = request.sampling.get("max_tokens") if request.max_tokens is None else request.max_tokens
    return limit


def _joined(first: Completion, kept: int, second: Completion) -> Completion:
    logprobs = None
    if first.logprobs is not None and second.logprobs is not None:
        logprobs = [*first.logprobs[:kept], *second.logprobs]  # nothing was drawn where the thinking was ended for it
    return replace(second, usage=first.usage + second.usage, logprobs=logprobs)


def _last(ids: Sequence[int], part: Sequence[int]) -> int:
    """Where a part stands in ids for the last time; -1 where it does not."""
    part = tuple(part)
    for at in range(len(ids) - len(part), -1, -1):
        if ids[at] == part[0] and tuple(ids[at : at + len(part)]) == part:
            return at
    return -1


__all__ = ["BUDGET", "Marks", "in_two_requests"]
