"""Requests of several runs in, each run's in a feed of its own; the next one for the engine that they share out.

Nothing is copied ahead: a request leaves its run's feed when the engine takes it. What is urgent comes first, whatever room there
is. Among the rest the highest priority comes first, and at the same priority each run has its share of the engine's tokens, by
weight: the next request is of the run that was served least, with what it has in flight. So a run of ten rows is done after about
ten requests of each other run, however long those are, and a run that had nothing to ask for a while has no claim to the past.

A request's key says whose it is as long as the engine has it (``RequestKey.share``), so keys are unique over all runs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from llmbatch.core.types import Completion, Outcome, Refusal, Request, RequestKey
from llmbatch.engines.feed import Feed
from llmbatch.engines.waiting import Groups, length_of

_ALL = 1 << 40
_MOST_URGENT = 256  # of each line, that the engine has at a time
_USUAL_ANSWER = 128.0  # tokens, before one came
_NEWS = 0.1  # share of the last answer in how long one is expected to be


@dataclass(slots=True, eq=False)
class Party:
    """One run, or the live requests: its feed, and what it had of the engine. ``number`` is its share in keys, from 1."""

    number: int
    feed: Feed
    weight: float = 1.0
    priority: int = 0
    urgent: bool = False
    served: float = 0.0  # tokens by weight: of prompts that the engine took, and of answers that came
    in_engine: int = 0  # requests that it took, and did not answer yet
    answer: float = _USUAL_ANSWER  # tokens that one is expected to have

    @property
    def claim(self) -> float:
        """What it was served, with what it has in flight: who has least comes next."""
        return self.served + self.in_engine * self.answer / self.weight

    @property
    def waiting(self) -> int:
        """Requests that could be taken now."""
        if self.feed.halted or (self.urgent and self.in_engine >= _MOST_URGENT):
            return 0
        return self.feed.waiting

    def take(self, slots: int, tokens: int, engine: int) -> list[Request]:
        """Up to so many of its requests, as the engine is to have them."""
        taken = self.feed.take(slots, tokens, engine)
        self.in_engine += len(taken)
        self.served += sum(map(length_of, taken)) / self.weight
        return [_as_shared(request, self.number, urgent=self.urgent) for request in taken]

    def answered(self, outcome: Outcome) -> None:
        """One of its requests was answered."""
        self.in_engine -= 1
        if isinstance(outcome, Completion):
            tokens = outcome.usage.completion_tokens
            self.served += tokens / self.weight
            self.answer += _NEWS * (tokens - self.answer)


class Fair:
    """Implements ``Waiting``. Safe from several threads; whoever calls may hold the lock of the engine's feed, not of a run's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # for all that follows
        self._parties: dict[int, Party] = {}
        self._engines: set[int] = set()  # of several
        self._first: deque[Request] = deque()  # what engines had that died
        self._urgent: deque[Request] = deque()  # the same, of what is urgent
        self._answer = _USUAL_ANSWER  # tokens that one of a run that had none is expected to have
        self._clock = 0.0  # the claim of the one that was served last

    def add(self, party: Party) -> None:
        """One more takes part."""
        with self._lock:
            for engine in () if party.urgent else self._engines:
                party.feed.serve(engine)
            party.answer = self._answer
            self._parties[party.number] = party

    def remove(self, number: int) -> None:
        """One takes part no more, and nothing that waits is its."""
        with self._lock:
            party = self._parties.pop(number, None)
            if party is not None and not party.urgent:
                for engine in self._engines:
                    party.feed.forget(engine, for_good=True)
            self._first = deque(request for request in self._first if request.key.share != number)
            self._urgent = deque(request for request in self._urgent if request.key.share != number)

    def settle(self, outcome: Outcome) -> bool:
        """A request was answered; whether anybody waits for it."""
        with self._lock:
            party = self._parties.get(outcome.key.share)
            if party is not None:
                party.answered(outcome)
                self._answer = party.answer
            return party is not None

    def take(self, engine: int, slots: int, tokens: int) -> list[Request]:
        with self._lock:
            taken, self._urgent = list(self._urgent), deque()
            for party in self._at_work(urgent=True):
                most = min(-(-party.waiting // max(1, len(self._engines))), _MOST_URGENT - party.in_engine)
                taken += party.take(most, _ALL, engine)
            slots, tokens = slots - len(taken), tokens - sum(map(length_of, taken))
            while self._first and slots > 0 and (tokens > 0 or not taken):
                taken.append(self._first.popleft())
                slots, tokens = slots - 1, tokens - length_of(taken[-1])
            parties = self._at_work(urgent=False)
            while parties and slots > 0 and (tokens > 0 or not taken):
                party = self._next(parties)
                found = party.take(slots if len(parties) == 1 else 1, tokens, engine)
                if not found or not party.waiting:
                    parties.remove(party)
                taken += found
                slots, tokens = slots - len(found), tokens - sum(map(length_of, found))
            return taken

    def _next(self, parties: list[Party]) -> Party:
        party = min(parties, key=lambda each: (-each.priority, each.claim, each.number))
        if party.in_engine == 0 and party.claim < self._clock:
            party.served = self._clock
        self._clock = party.claim
        return party

    def _at_work(self, *, urgent: bool) -> list[Party]:
        return [party for party in self._parties.values() if party.urgent is urgent and party.waiting]

    def push(self, requests: Iterable[Request], groups: Groups) -> None:  # noqa: ARG002
        self.push_first(requests, follow=False)

    def push_first(self, requests: Iterable[Request], *, follow: bool) -> None:  # noqa: ARG002
        with self._lock:
            for request in requests:
                (self._urgent if request.urgent else self._first).append(request)

    def push_back(self, requests: list[Request]) -> None:
        with self._lock:
            for request in reversed(requests):
                (self._urgent if request.urgent else self._first).appendleft(request)

    def push_urgent(self, requests: Iterable[Request]) -> None:
        self.push_first(requests, follow=False)

    def withdraw(self, keys: Collection[RequestKey]) -> set[RequestKey]:
        with self._lock:
            found = {request.key for line in (self._urgent, self._first) for request in line if request.key in keys}
            self._urgent = deque(request for request in self._urgent if request.key not in found)
            self._first = deque(request for request in self._first if request.key not in found)
            return found

    def answered(self, engine: int, key: RequestKey) -> None:
        with self._lock:
            if (party := self._parties.get(key.share)) is not None and not party.urgent:
                party.feed.answered(engine, key)

    def join(self, engine: int) -> None:
        with self._lock:
            self._engines.add(engine)
            for party in self._parties.values():
                if not party.urgent:
                    party.feed.serve(engine)

    def leave(self, engine: int) -> None:
        self._forget(engine, for_good=False)

    def part(self, engine: int) -> None:
        self._forget(engine, for_good=True)

    def _forget(self, engine: int, *, for_good: bool) -> None:
        with self._lock:
            if engine not in self._engines:
                return
            if for_good:
                self._engines.discard(engine)
            for party in self._parties.values():
                if not party.urgent:
                    party.feed.forget(engine, for_good=for_good)

    @property
    def has_urgent(self) -> bool:
        with self._lock:
            return bool(self._urgent or self._at_work(urgent=True))

    def __len__(self) -> int:
        with self._lock:
            return len(self._urgent) + len(self._first) + sum(party.waiting for party in self._parties.values())


def _as_shared(r: Request, share: int, *, urgent: bool) -> Request:
    """The request of one run as the shared engine has it. ``dataclasses.replace`` takes three times as long."""
    index, step, sample, attempt, _ = r.key
    return Request(
        RequestKey(index, step, sample, attempt, share), r.prompt, r.sampling, r.constraint, r.seed, r.max_tokens, r.lora,
        r.partial, r.token_ids, r.target, r.target_ids, r.pooling, urgent, r.stream,
    )  # fmt: skip


def own_key(key: RequestKey) -> RequestKey:
    """A shared engine's key as the run has it."""
    return RequestKey(key.index, key.step, key.sample, key.attempt)


def as_own(o: Outcome) -> Outcome:
    """The outcome of a shared engine as the run is to have it."""
    key = own_key(o.key)
    if isinstance(o, Refusal):
        return Refusal(key, o.failure)
    return Completion(
        key, o.text, o.finish_reason, o.usage, o.token_ids, o.reasoning, o.stop_reason, o.logprobs, o.reused_from, o.score,
        o.numbers, o.tool_calls,
    )  # fmt: skip


__all__ = ["Fair", "Party", "as_own", "own_key"]
