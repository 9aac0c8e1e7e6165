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
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from llmbatch.core.types import Request, RequestKey

_HOMES_KEPT = 1 << 17  # of groups, and of rows that more may follow from

Groups = Mapping[RequestKey, int]
"""Which requests share a prefix that is worth computing once; one that is not in it shares nothing."""
NO_GROUPS: Groups = MappingProxyType({})


class Waiting(Protocol):
    """Requests that wait, and which of them comes next.

    An engine is named by a number of its own; that of a feed without forks is 0.
    """

    def push(self, requests: Iterable[Request], groups: Groups) -> None:
        """Requests that come after all that wait."""

    def push_first(self, requests: Iterable[Request], *, follow: bool) -> None:
        """Requests that come before all that wait; ``follow``: best where their rows were answered before."""

    def push_back(self, requests: list[Request]) -> None:
        """Requests that come before even those: they were taken before."""

    def push_urgent(self, requests: Iterable[Request]) -> None:
        """Requests that come first of all, even where there is no slot."""

    def take(self, engine: int, slots: int, tokens: int) -> list[Request]:
        """What this engine takes: so many requests at most, with so many tokens together; the first comes whatever its length."""

    def withdraw(self, keys: Collection[RequestKey]) -> set[RequestKey]:
        """Let go of those of these that wait; returns which they were."""

    def answered(self, engine: int, key: RequestKey) -> None:
        """This engine answered a request: what follows in its row finds its prefix there."""

    def join(self, engine: int) -> None:
        """One more engine."""

    def leave(self, engine: int) -> None:
        """This engine's cache is gone: what waited for it is anybody's."""

    def part(self, engine: int) -> None:
        """This engine is gone for good."""

    @property
    def has_urgent(self) -> bool:
        """Whether something waits that is to be taken even where there is no slot."""

    def __len__(self) -> int: ...


def length_of(request: Request) -> int:
    """Tokens that an engine is given with a request, as far as they are known."""
    ids = request.token_ids
    return (0 if ids is None else len(ids)) + len(request.partial) + len(request.target_ids)


class Line:
    """One line, in the order pushed: for one engine, or whoever comes."""

    def __init__(self) -> None:
        self.urgent: deque[Request] = deque()
        self.first: deque[Request] = deque()  # retries and later steps: their prefixes are still in the cache
        self.queue: deque[Request] = deque()

    def push(self, requests: Iterable[Request], groups: Groups) -> None:  # noqa: ARG002
        self.queue.extend(requests)

    def push_first(self, requests: Iterable[Request], *, follow: bool) -> None:  # noqa: ARG002
        self.first.extend(requests)

    def push_back(self, requests: list[Request]) -> None:
        self.first.extendleft(reversed(requests))

    def push_urgent(self, requests: Iterable[Request]) -> None:
        self.urgent.extend(requests)

    def take(self, engine: int, slots: int, tokens: int) -> list[Request]:  # noqa: ARG002
        taken: list[Request] = []
        if self.urgent:
            taken += self.urgent
            self.urgent.clear()
            tokens -= sum(map(length_of, taken))
        while len(taken) < slots and (queue := self.first or self.queue):
            tokens -= length_of(queue[0])
            if tokens < 0 and taken:
                break
            taken.append(queue.popleft())
        return taken

    def withdraw(self, keys: Collection[RequestKey]) -> set[RequestKey]:
        lines = (self.urgent, self.first, self.queue)
        found = {request.key for line in lines for request in line if request.key in keys}
        if found:
            self.urgent, self.first, self.queue = (deque(r for r in line if r.key not in found) for line in lines)
        return found

    def answered(self, engine: int, key: RequestKey) -> None:
        """There is one line."""

    def join(self, engine: int) -> None:
        """There is one line for all."""

    def leave(self, engine: int) -> None:
        """Nothing here is for one engine alone."""

    def part(self, engine: int) -> None:
        """As ``leave``."""

    @property
    def has_urgent(self) -> bool:
        return bool(self.urgent)

    def __len__(self) -> int:
        return len(self.urgent) + len(self.first) + len(self.queue)


class _Lane:
    """Waiting groups, each with its requests in the planned order; out comes always the request with the least place."""

    def __init__(self) -> None:
        self.groups: dict[int, deque[tuple[int, Request]]] = {}
        self.count = 0
        # (place of a group's first request, group), a heap; what is no longer so is skipped
        self._heads: list[tuple[int, int]] = []

    def add(self, group: int, place: int, request: Request) -> None:
        """One more request of a group, behind those that are here."""
        line = self.groups.get(group)
        if line is None:
            self.groups[group] = deque([(place, request)])
            heapq.heappush(self._heads, (place, group))
        else:
            line.append((place, request))
        self.count += 1

    def put(self, group: int, line: deque[tuple[int, Request]]) -> None:
        """All that waited of a group elsewhere. A part of it is here already where the group was halved."""
        self.count += len(line)
        here = self.groups.get(group)
        self.groups[group] = line if here is None else deque(heapq.merge(here, line))
        heapq.heappush(self._heads, (self.groups[group][0][0], group))

    def pull(self, group: int) -> deque[tuple[int, Request]]:
        """All that waits of a group."""
        line = self.groups.pop(group)
        self.count -= len(line)
        return line

    def halve(self, group: int) -> deque[tuple[int, Request]]:
        """The later half of what waits of a group."""
        line = self.groups[group]
        later = deque([line.pop() for _ in range((len(line) + 1) // 2)][::-1])
        self.count -= len(later)
        if not line:
            del self.groups[group]
        return later

    @property
    def head(self) -> tuple[int, int] | None:
        """(place, group) of the request that comes next."""
        heads, groups = self._heads, self.groups
        while heads:
            place, group = heads[0]
            line = groups.get(group)
            if line is not None and line[0][0] == place:
                return heads[0]
            heapq.heappop(heads)
        return None

    def take(self) -> Request:
        """Take the request that comes next, of which ``head`` was looked at."""
        group = self._heads[0][1]
        line = self.groups[group]
        request = line.popleft()[1]
        self.count -= 1
        if line:
            heapq.heapreplace(self._heads, (line[0][0], group))
        else:
            heapq.heappop(self._heads)
            del self.groups[group]
        return request


class Lanes:
    """A lane for each of several engines, one for groups that have no home yet, and a line for what is in no group."""

    def __init__(self, line: Line) -> None:
        self._first: deque[Request] = deque((*line.urgent, *line.first))  # for whoever comes
        self._follow: dict[int, deque[Request]] = {}
        self._lanes: dict[int, _Lane] = {}
        self._homeless = _Lane()
        self._singles: deque[tuple[int, Request]] = deque()  # each with its place, as in a lane
        self._home: OrderedDict[int, int] = OrderedDict()  # group -> engine
        self._answered: OrderedDict[int, int] = OrderedDict()  # index of a row -> engine that answered a request of it
        self._places = 0
        self._count = len(self._first)
        self._found: Callable[[], Request] = self._first.popleft  # takes what ``_next`` gave last
        self.push(line.queue, NO_GROUPS)

    has_urgent = False  # of what several engines take, nothing is but in the line before these lanes: see ``fair``

    def join(self, engine: int) -> None:
        self._lanes[engine] = _Lane()
        self._follow[engine] = deque()

    def push(self, requests: Iterable[Request], groups: Groups) -> None:
        for request in requests:
            group = groups.get(request.key) if groups else None
            self._places += 1
            self._count += 1
            if group is None:
                self._singles.append((self._places, request))
                continue
            home = self._home.get(group)
            lane = self._homeless if home is None else self._lanes[home]
            lane.add(group, self._places, request)

    def push_first(self, requests: Iterable[Request], *, follow: bool) -> None:
        for request in requests:
            engine = self._answered.get(request.key.index) if follow else None
            (self._first if engine is None else self._follow[engine]).append(request)
            self._count += 1

    def push_back(self, requests: list[Request]) -> None:
        self._first.extendleft(reversed(requests))
        self._count += len(requests)

    def push_urgent(self, requests: Iterable[Request]) -> None:
        self.push_back(list(requests))

    def withdraw(self, keys: Collection[RequestKey]) -> set[RequestKey]:  # noqa: ARG002
        """None: what waits in lanes is a run's, which ends as a whole."""
        return set()

    def take(self, engine: int, slots: int, tokens: int) -> list[Request]:
        taken: list[Request] = []
        while len(taken) < slots and (request := self._next(engine)) is not None:
            tokens -= length_of(request)
            if tokens < 0 and taken:
                break
            self._count -= 1
            taken.append(self._found())
        return taken

    def _next(self, engine: int) -> Request | None:
        if queue := self._first or self._follow[engine]:
            self._found = queue.popleft
            return queue[0]
        lane, singles = self._lanes[engine], self._singles
        own, other = lane.head, self._homeless.head
        if singles and not (own and own < singles[0]) and not (other and other[0] < singles[0][0]):
            self._found = self._take_single
            return singles[0][1]
        if other is not None and (own is None or other < own):
            self._settle(engine, other[1], self._homeless)
        elif own is None:
            if queue := max(self._follow.values(), key=len):  # another's, which is busy
                self._found = queue.popleft
                return queue[0]
            if not self._take_over(engine):
                return None
        head = lane.head
        assert head is not None  # noqa: S101 - for the type checker
        self._found = lane.take
        return lane.groups[head[1]][0][1]

    def answered(self, engine: int, key: RequestKey) -> None:
        _keep(self._answered, key.index, engine)

    def leave(self, engine: int) -> None:
        lane = self._lanes[engine]
        for group in list(lane.groups):
            self._homeless.put(group, lane.pull(group))
        self._first.extend(self._follow[engine])
        self._follow[engine].clear()
        for homes in (self._home, self._answered):
            for name in [name for name, home in homes.items() if home == engine]:
                del homes[name]

    def part(self, engine: int) -> None:
        self.leave(engine)
        del self._lanes[engine], self._follow[engine]

    def __len__(self) -> int:
        return self._count

    def _take_single(self) -> Request:
        return self._singles.popleft()[1]

    def _settle(self, engine: int, group: int, lane: _Lane) -> None:
        """A group finds its home, or another one: all that waits of it moves."""
        self._lanes[engine].put(group, lane.pull(group))
        _keep(self._home, group, engine)

    def _take_over(self, engine: int) -> bool:
        """Take about half of what waits for the engine for which most does; whether there was any."""
        other, own = max(self._lanes.values(), key=lambda lane: lane.count), self._lanes[engine]
        if not other.groups:
            return False
        enough = other.count / 2
        *most, first = sorted(other.groups, key=lambda group: -other.groups[group][0][0])
        for group in most:
            if own.count and own.count + len(other.groups[group]) > enough:
                break
            self._settle(engine, group, other)
        if not own.count:  # there is one group alone: two engines end it sooner, though both compute its prefix
            own.put(first, other.halve(first))
        return True


def _keep(homes: OrderedDict[int, int], name: int, engine: int) -> None:
    homes[name] = engine
    if len(homes) > _HOMES_KEPT:
        homes.popitem(last=False)


__all__ = ["NO_GROUPS", "Groups", "Lanes", "Line", "Waiting", "length_of"]
