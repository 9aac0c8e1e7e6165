"""Requests that wait in; the next one for an engine out: one line for a single engine, or a lane for each of several.

With several engines, what shares a prefix goes to one of them (its *home*), as only there the prefix is cached. A group of requests
finds its home when an engine takes the first of them, and keeps it over later windows. Every engine takes what comes first in the
planned order, of its own lane and of what has no home yet, so the order holds in each lane. One that finds neither takes waiting
work over from the engine with the most of it: whole groups, those that it would come to last.

Nothing here is safe from several threads: the feed holds its lock.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from llmbatch.core.types import Request, RequestKey

_HOMES_KEPT = 1 << 17  # of groups, and of rows that more may follow from
_ANSWER_TOKENS = 256  # a request is as much work as its prompt, and an answer of which nothing is known here

Groups = Mapping[RequestKey, int]
"""Which requests share a prefix that is worth computing once; one that is not in it shares nothing."""
NO_GROUPS: Groups = MappingProxyType({})


class Line:
    """One line, in the order pushed.

    Of these methods ``Lanes`` has the same. An engine is named by a number of its own; that of a feed without forks is 0.
    """

    def __init__(self) -> None:
        self.first: deque[Request] = deque()  # retries and later steps: their prefixes are still in the cache
        self.queue: deque[Request] = deque()

    def push(self, requests: Iterable[Request], groups: Groups) -> None:  # noqa: ARG002
        """Requests that come after all that wait."""
        self.queue.extend(requests)

    def push_first(self, requests: Iterable[Request], *, follow: bool) -> None:  # noqa: ARG002
        """Requests that come before all that wait; ``follow``: best where their rows were answered before."""
        self.first.extend(requests)

    def push_back(self, requests: list[Request]) -> None:
        """Requests that come before even those: they were taken before."""
        self.first.extendleft(reversed(requests))

    def next(self, engine: int) -> Request | None:  # noqa: ARG002
        """What this engine would take."""
        queue = self.first or self.queue
        return queue[0] if queue else None

    def take(self, engine: int) -> Request:  # noqa: ARG002
        """Take it. Only where ``next`` is not ``None``."""
        return (self.first or self.queue).popleft()

    def answered(self, engine: int, key: RequestKey) -> None:
        """This engine answered a request: what follows in its row finds its prefix there."""

    def leave(self, engine: int) -> None:
        """This engine's cache is gone: what waited for it is anybody's."""

    def __len__(self) -> int:
        return len(self.first) + len(self.queue)


class _Lane:
    """Waiting groups, each with its requests in the planned order; out comes always the request with the least place."""

    def __init__(self) -> None:
        self.groups: dict[int, deque[tuple[int, Request]]] = {}
        self.work = 0
        self._heads: list[
            tuple[int, int]
        ] = []  # (place of a group's first request, group); those that are past are skipped

    def add(self, group: int, waiting: Iterable[tuple[int, Request]]) -> None:
        """Requests of a group, each with its place; they come after those of the group that are here."""
        line = self.groups.setdefault(group, deque())
        was_empty = not line
        for place, request in waiting:
            line.append((place, request))
            self.work += _work(request)
        if was_empty and line:
            heapq.heappush(self._heads, (line[0][0], group))

    @property
    def head(self) -> tuple[int, int] | None:
        """(place, group) of the request that comes next."""
        heads = self._heads
        while heads:
            line = self.groups.get(heads[0][1])
            if line and line[0][0] == heads[0][0]:
                return heads[0]
            heapq.heappop(heads)
        return None

    def take(self) -> Request:
        """Take the request that comes next. Only where there is one."""
        _, group = heapq.heappop(self._heads)
        line = self.groups[group]
        _, request = line.popleft()
        self.work -= _work(request)
        if line:
            heapq.heappush(self._heads, (line[0][0], group))
        else:
            del self.groups[group]
        return request

    def take_group(self, group: int) -> deque[tuple[int, Request]]:
        """All that waits of a group."""
        line = self.groups.pop(group)
        self.work -= sum(_work(request) for _, request in line)
        return line

    def halve(self, group: int) -> list[tuple[int, Request]]:
        """The later half of what waits of a group."""
        line = self.groups[group]
        later = [line.pop() for _ in range((len(line) + 1) // 2)][::-1]
        self.work -= sum(_work(request) for _, request in later)
        if not line:
            del self.groups[group]
        return later


class Lanes:
    """A lane for each of several engines, and one for what has no home yet."""

    def __init__(self, line: Line) -> None:
        self._first: deque[Request] = line.first  # for whoever comes
        self._follow: dict[int, deque[Request]] = {}
        self._lanes: dict[int, _Lane] = {}
        self._homeless = _Lane()
        self._home: OrderedDict[int, int] = OrderedDict()  # group -> engine
        self._answered: OrderedDict[int, int] = OrderedDict()  # index of a row -> engine that answered a request of it
        self._places = 0
        self._singles = 0
        self._count = len(line.first)
        self.push(line.queue, NO_GROUPS)

    def join(self, engine: int) -> None:
        """One more engine."""
        self._lanes[engine] = _Lane()
        self._follow[engine] = deque()

    def push(self, requests: Iterable[Request], groups: Groups) -> None:
        for request in requests:
            group = groups.get(request.key)
            if group is None:  # a group of its own
                self._singles -= 1
                group = self._singles
            home = self._home.get(group)
            lane = self._homeless if home is None else self._lanes[home]
            lane.add(group, [(self._places, request)])
            self._places += 1
            self._count += 1

    def push_first(self, requests: Iterable[Request], *, follow: bool) -> None:
        for request in requests:
            engine = self._answered.get(request.key.index) if follow else None
            (self._first if engine is None else self._follow[engine]).append(request)
            self._count += 1

    def push_back(self, requests: list[Request]) -> None:
        self._first.extendleft(reversed(requests))
        self._count += len(requests)

    def next(self, engine: int) -> Request | None:
        if queue := self._before_all(engine):
            return queue[0]
        lane = self._lanes[engine]
        own, other = lane.head, self._homeless.head
        if other is not None and (own is None or other[0] < own[0]):
            self._settle(engine, other[1])
        elif own is None and not self._take_over(engine):
            return None
        head = lane.head
        assert head is not None  # noqa: S101 - for the type checker
        return lane.groups[head[1]][0][1]

    def take(self, engine: int) -> Request:
        self._count -= 1
        if queue := self._before_all(engine):
            return queue.popleft()
        return self._lanes[engine].take()

    def answered(self, engine: int, key: RequestKey) -> None:
        _keep(self._answered, key.index, engine)

    def leave(self, engine: int) -> None:
        lane = self._lanes[engine]
        for group in list(lane.groups):
            self._homeless.add(group, lane.take_group(group))
        self._first.extend(self._follow[engine])
        self._follow[engine].clear()
        for homes in (self._home, self._answered):
            for name in [name for name, home in homes.items() if home == engine]:
                del homes[name]

    def part(self, engine: int) -> None:
        """This engine is gone for good."""
        self.leave(engine)
        del self._lanes[engine], self._follow[engine]

    def __len__(self) -> int:
        return self._count

    def _before_all(self, engine: int) -> deque[Request] | None:
        """Where the request is that comes before the lanes: anybody's, its own, or another's where there is nothing else."""
        if queue := self._first or self._follow[engine]:
            return queue
        if self._lanes[engine].groups or self._homeless.groups:
            return None
        return max(self._follow.values(), key=len) or None

    def _settle(self, engine: int, group: int) -> None:
        """A group finds its home."""
        self._lanes[engine].add(group, self._homeless.take_group(group))
        if group >= 0:
            _keep(self._home, group, engine)

    def _take_over(self, engine: int) -> bool:
        """Take about half of what waits for the engine with the most work; whether there was any."""
        other = max(self._lanes.values(), key=lambda lane: lane.work)
        if not other.groups:
            return False
        own, enough = self._lanes[engine], other.work / 2
        last_first = sorted(other.groups, key=lambda group: -other.groups[group][0][0])
        for group in last_first[:-1]:
            if own.work and own.work + sum(_work(request) for _, request in other.groups[group]) > enough:
                break
            own.add(group, other.take_group(group))
            if group >= 0:
                _keep(self._home, group, engine)
        if not own.work:  # there is one group alone: two engines end it sooner, though both compute its prefix
            own.add(last_first[-1], other.halve(last_first[-1]))
        return True


def _keep(homes: OrderedDict[int, int], name: int, engine: int) -> None:
    homes[name] = engine
    if len(homes) > _HOMES_KEPT:
        homes.popitem(last=False)


def _work(request: Request) -> int:
    return len(request.token_ids or ()) + len(request.partial) + len(request.target_ids) + _ANSWER_TOKENS


__all__ = ["NO_GROUPS", "Groups", "Lanes", "Line"]
