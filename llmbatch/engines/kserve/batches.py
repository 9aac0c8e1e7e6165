"""A feed of requests in, one of batches out: rows that share a call go as one request, and come back as their own outcomes.

They share the call's fate at the server, and not here: what is refused together is asked again one by one.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llmbatch.core.types import Completion, Failure, Outcome, Piece, Prompt, Request, RequestKey
from llmbatch.engines.feed import Requests
from llmbatch.engines.kserve.wire import Row, V2Wire

Stream = Callable[[Requests], Iterator[list[Outcome]]]

_BATCH = Prompt(text="")


def in_batches(stream: Stream, feed: Requests, wire: V2Wire, most: int) -> Iterator[list[Outcome]]:
    """What a stream makes of the feed, with up to ``most`` rows in a call."""
    batches = _Batches(feed, wire, most)
    for outcomes in stream(batches):
        yield [own for outcome in outcomes for own in batches.own(outcome)]


class _Batches:
    """The feed as the loop is to see it. A batch is a request with a key that no row has."""

    def __init__(self, feed: Requests, wire: V2Wire, most: int) -> None:
        self._feed = feed
        self._wire = wire
        self._most = most
        self._made = 0
        self._batches: dict[RequestKey, list[Request]] = {}
        self._alone: deque[Request] = deque()  # were refused together

    def take(self, slots: int, tokens: int) -> list[Request]:
        calls: list[Request] = []
        while self._alone and len(calls) < slots:
            calls.append(self._alone.popleft())
        if (room := slots - len(calls)) > 0:
            calls += self._together(self._feed.take(room * self._most, tokens))
        return calls

    def wait(self, timeout: float) -> None:
        if not self._alone:
            self._feed.wait(timeout)

    @property
    def finished(self) -> bool:
        return not self._alone and self._feed.finished

    @property
    def urgent(self) -> bool:
        return self._feed.urgent

    @property
    def hurries(self) -> bool:
        return self._feed.hurries

    def rest(self, timeout: float) -> None:
        self._feed.rest(timeout)

    def take_cancelled(self) -> Sequence[RequestKey]:
        """None: a row of a call cannot be ended."""
        return ()

    def tell(self, pieces: Sequence[Piece]) -> None:
        self._feed.tell(pieces)

    def own(self, outcome: Outcome) -> Sequence[Outcome]:
        """The outcomes of the rows that an outcome is of: none yet where they are to be asked one by one."""
        requests = self._batches.pop(outcome.key, None)
        if requests is None:
            return [outcome]
        answers = self._wire.taken_apart(outcome.key)
        if isinstance(outcome, Completion):
            return answers
        self._alone.extend(requests)
        return []

    def _together(self, requests: Sequence[Request]) -> Iterator[Request]:
        alike: dict[Any, list[Row]] = defaultdict(list)
        for request in requests:
            row = self._wire.row(request)
            if isinstance(row, Failure):
                yield request  # the loop finds so too, and it is an outcome
            else:
                alike[row.alike].append(row)
        for rows in alike.values():
            for start in range(0, len(rows), self._most):
                yield self._batch(rows[start : start + self._most])

    def _batch(self, rows: Sequence[Row]) -> Request:
        if len(rows) == 1:
            return rows[0].request
        self._made += 1
        key = RequestKey(-self._made)
        self._batches[key] = [row.request for row in rows]
        self._wire.put_together(key, rows)
        return Request(key, _BATCH, rows[0].request.sampling)
