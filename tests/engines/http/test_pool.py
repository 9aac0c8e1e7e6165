"""Which of several servers the next request goes to."""

from __future__ import annotations

from llmbatch.engines.http.limit import Limit
from llmbatch.engines.http.pool import Pool


def pool(*levels: int) -> Pool:
    left = iter(levels)
    return Pool([f"http://s{i}" for i in range(len(levels))], lambda: Limit(next(left)))


def fill(servers: Pool, count: int, now: float = 0.0) -> list[int]:
    for _ in range(count):
        server = servers.pick(now)
        assert server is not None
        server.in_flight += 1
    return [server.in_flight for server in servers.servers]


def test_the_least_loaded_comes_next_by_what_each_can_take() -> None:
    assert fill(pool(4, 4, 4), 6) == [2, 2, 2]
    assert fill(pool(2, 8), 5) == [1, 4]


def test_none_is_given_more_than_it_may() -> None:
    servers = pool(1, 2)
    assert fill(servers, 3) == [1, 2]
    assert servers.pick(0.0) is None
    assert servers.capacity == servers.in_flight == 3


def test_one_that_cannot_be_reached_is_left_out_and_tried_again_with_one_request() -> None:
    servers = pool(4, 4)
    away = servers.servers[0]
    servers.unreachable(away, 10.0, 1.0)
    servers.unreachable(away, 10.1, 1.0)  # another request of the same moment
    assert away.failures == 1
    assert fill(servers, 3, now=10.1) == [0, 3]
    assert servers.wakes_at(10.1) == 10.25
    assert fill(servers, 2, now=10.3) == [1, 4]
    servers.reached(away)
    assert fill(servers, 1, now=10.3) == [2, 4]


def test_one_that_asked_to_be_left_alone_is() -> None:
    servers = pool(4)
    servers.rest(servers.servers[0], 5.0)
    servers.rest(servers.servers[0], 3.0)
    assert servers.pick(4.9) is None
    assert servers.wakes_at(4.9) == 5.0
    assert servers.pick(5.0) is servers.servers[0]


def test_other_limits_hold_for_all_servers_at_once() -> None:
    servers = pool(4, 4)
    servers.limit_by(lambda: Limit(9))
    assert servers.capacity == 18
