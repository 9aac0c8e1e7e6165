"""Rows in prefix groups, shuffled, in; what the caches of several engines spare against one's, and when the last engine ends, out.

The plan and the feed are those of a run. The engines are simulated: each takes from its fork as vLLM would, answers a token a step,
and its prefix cache is ``plan/simulate``'s over the requests in the order in which it took them.

    routing.py [--rows N] [--groups N] [--engines N]
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from llmbatch.core.digest import pack
from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.feed import Feed
from llmbatch.plan.lengths import LengthEstimate
from llmbatch.plan.order import Capacity
from llmbatch.plan.prefix import build_tree
from llmbatch.plan.simulate import Cache, simulate
from llmbatch.plan.window import PlanSettings, plan_window

WINDOW = 16_384
BLOCK = 16
SLOTS = 64  # requests that run at a time on an engine; twice as many are in flight
CACHE_TOKENS = 120_000  # of each engine: a twentieth of what all prefixes together take
BUDGET = 8192
SYSTEM, DOCUMENT, QUESTION = 64, 480, 32  # tokens of a prompt: what all share, what a group shares, what is a row's own


@dataclass(frozen=True)
class Routing:
    """``share`` is what several engines' caches spare against one's, ``late`` by what share the last engine ends after the mean."""

    name: str
    rows: int
    groups: int
    engines: int
    hits_one: float
    hits: float
    share: float
    late: float


def corpus(rows: int, groups: int, *, skewed: bool, seed: int = 1) -> list[Request]:
    """Shuffled requests. Skewed: some groups have a hundred times as many rows as others, and answers have 16 to 1,024 tokens."""
    rng = random.Random(seed)
    weights = [1 / (1 + place) ** 0.5 for place in range(groups)] if skewed else [1.0] * groups
    system = [rng.randrange(50_000) for _ in range(SYSTEM)]
    documents = [array("I", [*system, *(rng.randrange(50_000) for _ in range(DOCUMENT))]) for _ in range(groups)]
    of = [g % groups for g in range(rows)] if not skewed else rng.choices(range(groups), weights, k=rows)
    rng.shuffle(of)
    requests = []
    for index, group in enumerate(of):
        ids = documents[group] + array("I", [rng.randrange(50_000) for _ in range(QUESTION)])
        answer = min(1024, max(16, int(rng.lognormvariate(4, 1)))) if skewed else 64
        requests.append(Request(RequestKey(index), Prompt(text=""), Sampling(), max_tokens=answer, token_ids=ids))
    return requests


def planned(requests: Sequence[Request], engines: int) -> list[tuple[list[Request], dict[RequestKey, int]]]:
    """The windows of a run as it plans them: requests in order, and their groups."""
    limits = Capacity(8192, engines * SLOTS, engines * CACHE_TOKENS, BLOCK, engines * BUDGET, engines)
    windows = []
    for start in range(0, len(requests), WINDOW):
        window = requests[start : start + WINDOW]
        last = start + WINDOW >= len(requests)
        plan = plan_window(window, limits, PlanSettings(fold=False), LengthEstimate(), last=last)
        groups = {window[position].key: group for position, group in plan.groups.items()}
        windows.append(([window[position] for position in plan.order], groups))
    return windows


def answer_all(requests: Sequence[Request], engines: int) -> tuple[list[list[int]], list[int]]:
    """(indexes in the order in which each engine took them, the step at which each ended)."""
    feed = Feed()
    forks = [feed.fork() for _ in range(engines)]
    windows = planned(requests, engines)[::-1]
    taken: list[list[int]] = [[] for _ in forks]
    waiting: list[deque[Request]] = [deque() for _ in forks]
    running, ends = [0] * engines, [0] * engines
    finishing: list[tuple[int, int, RequestKey]] = []

    def go_on(number: int, now: int) -> None:
        """One engine takes what it has room for, and begins what it has slots for."""
        while windows and feed.waiting <= WINDOW:
            window, groups = windows.pop()
            feed.push(window, groups)
        fresh = forks[number].take(2 * SLOTS - running[number] - len(waiting[number]), sys.maxsize)
        taken[number] += [request.key.index for request in fresh]
        waiting[number].extend(fresh)
        while waiting[number] and running[number] < SLOTS:
            request = waiting[number].popleft()
            running[number] += 1
            heapq.heappush(finishing, (now + (request.max_tokens or 1), number, request.key))

    for number in range(engines):
        go_on(number, 0)
    while finishing:
        now, number, key = heapq.heappop(finishing)
        forks[number].done(key)
        feed.settled(1)
        running[number] -= 1
        ends[number] = now
        go_on(number, now)
    assert sum(map(len, taken)) == len(requests)
    return taken, ends


def measure(name: str, requests: Sequence[Request], groups: int, engines: int) -> Routing:
    """Several engines against one with a cache of the same size."""
    packed = [pack(request) or b"" for request in requests]
    tree = build_tree(packed, [None] * len(packed), BLOCK)
    tokens = [len(request.token_ids or ()) for request in requests]
    answers = [request.max_tokens or 1 for request in requests]
    cache = Cache(CACHE_TOKENS // BLOCK, BLOCK, SLOTS, BUDGET)
    (alone,), _ = answer_all(requests, 1)
    one = simulate(alone, tree, tokens, answers, cache).hit_tokens
    orders, ends = answer_all(requests, engines)
    several = sum(simulate(order, tree, tokens, answers, cache).hit_tokens for order in orders)
    total, mean = sum(tokens), sum(ends) / len(ends)
    return Routing(
        name, len(requests), groups, engines, one / total, several / total, several / one, max(ends) / mean - 1
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--groups", type=int, default=5_000)
    parser.add_argument("--engines", type=int, default=8)
    given = parser.parse_args()
    for found in both(given.rows, given.groups, given.engines):
        print(json.dumps(asdict(found)))
    return 0


def both(rows: int, groups: int, engines: int) -> list[Routing]:
    """Equal groups, and skewed work."""
    found = []
    for skewed in (False, True):
        name = "skewed groups and answers" if skewed else "equal groups"
        found.append(measure(name, corpus(rows, groups, skewed=skewed), groups, engines))
    return found


if __name__ == "__main__":
    sys.exit(main())
