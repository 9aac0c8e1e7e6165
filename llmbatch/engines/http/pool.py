"""The URLs of servers with the same model in; which of them gets the next request out: the least loaded that is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmbatch.engines.http.limit import Limit
from llmbatch.engines.http.retry import back_off

_FAULTS = 4  # in a row, after which a server is left out for a while


class Server:
    """One of them: what it has in flight, and from when on it is asked again."""

    def __init__(self, url: str, limit: Limit) -> None:
        self.url = url
        self.limit = limit
        self.in_flight = 0
        self.failures = 0  # connections in a row that did not come about
        self.faults = 0  # requests in a row that it failed at
        self.rests_until = 0.0

    @property
    def room(self) -> int:
        """How many more it may be sent; one that was away is tried with one request first."""
        return (1 if self.failures else self.limit.now) - self.in_flight

    @property
    def is_full(self) -> bool:
        """Whether it has about as many as it may."""
        return self.in_flight >= 0.9 * self.limit.now


class Pool:
    """All of them. Used by one thread; ``now`` is seconds of any clock that only goes on."""

    def __init__(self, urls: Sequence[str], limit: Callable[[], Limit]) -> None:
        self.servers = [Server(url, limit()) for url in urls]

    def limit_by(self, limit: Callable[[], Limit]) -> None:
        """Other limits, for what is sent from now on."""
        for server in self.servers:
            server.limit = limit()

    @property
    def capacity(self) -> int:
        """How many requests they are sent at a time, all together."""
        return sum(server.limit.now for server in self.servers)

    @property
    def in_flight(self) -> int:
        return sum(server.in_flight for server in self.servers)

    def pick(self, now: float) -> Server | None:
        """The one that the next request goes to; ``None`` where there is none with room."""
        best: Server | None = None
        for server in self.servers:
            if server.rests_until > now or server.room <= 0:
                continue
            if best is None or server.in_flight * best.limit.now < best.in_flight * server.limit.now:
                best = server
        return best

    def wakes_at(self, now: float) -> float | None:
        """When the next of those that rest may be asked again; ``None`` where none rests."""
        return min((server.rests_until for server in self.servers if server.rests_until > now), default=None)

    def unreachable(self, server: Server, now: float, share: float) -> None:
        """No connection to it came about: it is left out for a while, longer each time."""
        if server.rests_until <= now:  # of many requests that failed at once, the first counts
            server.failures += 1
            server.rests_until = now + back_off(server.failures, share)

    def failed(self, server: Server, now: float, share: float) -> None:
        """It failed at a request. One that fails at all of them is soon free again, and would be picked for all of them."""
        server.faults += 1
        if server.faults >= _FAULTS and len(self.servers) > 1:
            self.unreachable(server, now, share)

    def answered(self, server: Server) -> None:
        """It answered a request."""
        server.faults = 0

    def rest(self, server: Server, until: float) -> None:
        """It asked to be left alone until then."""
        server.rests_until = max(server.rests_until, until)

    def reached(self, server: Server) -> None:
        """It replied."""
        server.failures = 0
