"""A started engine and a sample of a job's requests in; how fast it answers them, and what the whole job would take, out.

The engine is kept full and is looked at in slices of time, so that a start from empty and the end of the sample do not count
where the sample is large enough. Time is modelled as ``a * computed prompt tokens + b * answer tokens``, both fitted to the
slices; a part of the sample is asked for one token each, so that the two can be told apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple, TypeVar

from llmbatch.core.demand import Demands
from llmbatch.core.types import Completion, Request, Usage
from llmbatch.engines.base import Engine
from llmbatch.engines.feed import Feed

SAMPLE = 4096  # requests
_SLICES = 16
_WARM_UP = 8  # requests, before anything is measured
_WARM_UP_TOKENS = 16
_REPLICATES = 400  # of the bootstrap
_QUANTILES = (0.1, 0.9)
_ENOUGH_TO_SPLIT = 64  # requests from which a part of them is asked for one token each

Item = TypeVar("Item")


class Slice(NamedTuple):
    """What was answered in a stretch of time."""

    seconds: float
    prompt_tokens: int
    computed_tokens: int  # prompt tokens that the prefix cache did not spare
    completion_tokens: int
    answers: int = 0


class Interval(NamedTuple):
    """An estimate, and bounds that hold it as far as the sample tells: in how many cases, whoever makes it says."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests run through an engine that was kept full."""

    slices: tuple[Slice, ...]
    lengths: tuple[int, ...]  # tokens of the answers, also of those outside the slices
    sent: int
    unfinished: int = 0  # given up when their time was over
    refused: int = 0
    # seconds until as many were answered as were in flight at most; None: they never were
    turnover: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens of prompts (cached or not) and of answers; 0 where nothing was measured."""
        seconds = sum(each.seconds for each in self.slices)
        return (
            sum(each.prompt_tokens + each.completion_tokens for each in self.slices) / seconds if seconds > 0 else 0.0
        )

    @property
    def noise(self) -> float:
        """The standard error of ``tokens_per_second``, as a share of it; infinite for less than three slices."""
        if len(self.slices) < 3 or not self.tokens_per_second:
            return float("inf")
        random = Random(0)  # noqa: S311 - the same answer for the same slices
        rates = []
        for _ in range(_REPLICATES):
            drawn = random.choices(self.slices, k=len(self.slices))
            seconds = sum(each.seconds for each in drawn)
            rates.append(sum(each.prompt_tokens + each.completion_tokens for each in drawn) / max(seconds, 1e-9))
        mean = sum(rates) / len(rates)
        return float((sum((rate - mean) ** 2 for rate in rates) / len(rates)) ** 0.5 / self.tokens_per_second)


@dataclass(frozen=True, slots=True)
class Rates:
    """The time model of one engine on one kind of request. ``prefill`` are requests that were asked for one token each."""

    full: Measured
    prefill: Measured

    @property
    def answer_tokens(self) -> float:
        """Tokens of an answer on average."""
        return sum(self.full.lengths) / len(self.full.lengths) if self.full.lengths else 0.0

    def per_token(self) -> tuple[float, float]:
        """Seconds for a computed prompt token, and for a token of an answer."""
        return _fit(self.full.slices, self.prefill.slices)

    def seconds(self, computed_tokens: float, requests: int) -> Interval:
        """Seconds for so many requests with so many prompt tokens to compute; the bounds hold in four of five cases."""
        prompt, answer = self.per_token()
        expected = prompt * computed_tokens + answer * self.answer_tokens * requests
        if not self.full.slices:
            return Interval(expected, expected, expected)
        random = Random(0)  # noqa: S311 - the same answer for the same measurement
        found = []
        for _ in range(_REPLICATES):
            prompt, answer = _fit(_redrawn(self.full.slices, random), _redrawn(self.prefill.slices, random))
            lengths = random.choices(self.full.lengths, k=len(self.full.lengths))
            found.append(prompt * computed_tokens + answer * sum(lengths) / len(lengths) * requests)
        found.sort()
        low, high = (found[round(share * (len(found) - 1))] for share in _QUANTILES)
        return Interval(expected, min(low, expected), max(high, expected))


def measure(engine: Engine, requests: Sequence[Request], seconds: float) -> Rates:
    """Run a sample (see ``stratified``) for about so many seconds. Raises what ``engine.stream`` raises.

    What is in flight at the end gets as long again, so that long answers are not left out of the lengths.
    """
    warm_up(engine, requests, seconds)
    least = max((Demands().of(request).least for request in requests), default=0)
    part = list(requests[: len(requests) // 4]) if least <= 1 and len(requests) >= _ENOUGH_TO_SPLIT else []
    prefill = run_for(engine, [replace(request, max_tokens=1) for request in part], seconds / 4)
    full = run_for(engine, requests[prefill.sent :], seconds * 3 / 4)
    return Rates(full, prefill)


def warm_up(engine: Engine, requests: Sequence[Request], seconds: float) -> None:
    """Let the engine answer the last few requests shortly, so that what it does only once is done; as ``run_for``."""
    demands = Demands()
    short = []
    for request in requests[-_WARM_UP:]:
        demand = demands.of(request)
        most = _WARM_UP_TOKENS if demand.most is None else min(demand.most, _WARM_UP_TOKENS)
        short.append(replace(request, max_tokens=max(most, demand.least)))
    run_for(engine, short, seconds)


def _own_tokens(answer: Completion) -> Usage:
    return answer.usage


def run_for(
    engine: Engine,
    requests: Sequence[Request],
    seconds: float,
    counts_as: Callable[[Completion], Usage] = _own_tokens,
    longest: float = 0.0,
) -> Measured:
    """Send requests, in their order, for so many seconds; what is in flight then gets as long again, and is given up.

    Where fewer were answered by then than the engine has at a time, it goes on until so many are, for ``longest`` seconds at most:
    of the first few answers nothing can be told. ``counts_as`` is shown every answer, and says how many tokens it counts: by
    default its own.
    """
    if not requests:
        return Measured((), (), 0)
    feed = Feed()
    feed.push(requests)
    feed.close()
    began = time.monotonic()
    steps = [_Step(began, 0, Slice(0, 0, 0, 0))]
    lengths: list[int] = []
    peak, full_until, refused = 0, 0.0, 0
    turnover: float | None = None
    for outcomes in engine.stream(feed):
        now = time.monotonic()
        peak = max(peak, len(feed.in_flight))
        answers = []
        for outcome in outcomes:
            feed.done(outcome.key)
            if isinstance(outcome, Completion):
                answers.append(counts_as(outcome))
                lengths.append(outcome.usage.completion_tokens)
            else:
                refused += 1
        if answers:
            prompt, cached = sum(u.prompt_tokens for u in answers), sum(u.cached_tokens for u in answers)
            done = sum(u.completion_tokens for u in answers)
            steps.append(_Step(now, len(answers), Slice(0, prompt, prompt - cached, done, len(answers))))
        if not full_until and (feed.halted or not feed.waiting):
            full_until = now
        if turnover is None and lengths and len(lengths) >= peak:
            turnover = now - began
        end = max(seconds, longest) if turnover is None else max(seconds, min(longest, turnover))
        if now - began > end:
            feed.halt()
            if feed.in_flight and now - began > 2 * end:
                engine.abort()
                break
    unfinished = len(feed.recall())
    sent = len(requests) - feed.waiting
    return Measured(tuple(_slices(steps, peak, full_until)), tuple(lengths), sent, unfinished, refused, turnover)


def stratified(requests: Sequence[Request]) -> list[Request]:
    """The requests in an order in which every beginning has prompts of all lengths, in their shares."""
    return spread(requests, lambda request: len(request.token_ids or ()))


def spread(items: Iterable[Item], size: Callable[[Item], float]) -> list[Item]:
    """The items in an order in which every beginning has all sizes, in their shares."""
    by_size = sorted(items, key=size)
    bits = max(len(by_size) - 1, 1).bit_length()
    places = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(1 << bits))
    return [by_size[place] for place in places if place < len(by_size)]


class Sample:
    """An even sample of the requests that are offered to it, the same for the same requests in the same order."""

    def __init__(self, size: int = SAMPLE) -> None:
        self._size = size
        self._random = Random(0)  # noqa: S311 - a sample, not a secret
        self._seen = 0
        self.requests: list[Request] = []

    def offer(self, requests: Iterator[Request]) -> None:
        for request in requests:
            self._seen += 1
            if len(self.requests) < self._size:
                self.requests.append(request)
            elif (place := self._random.randrange(self._seen)) < self._size:
                self.requests[place] = request


class _Step(NamedTuple):
    """One step of the engine in which something finished."""

    at: float
    answers: int
    done: Slice


def _slices(steps: list[_Step], peak: int, full_until: float) -> Iterator[Slice]:
    """Stretches of about equal length, of the time in which the engine was full; of all the time where that was too short."""
    answers, begin = 0, 0
    for begin, step in enumerate(steps):  # noqa: B007
        answers += step.answers
        if answers >= peak:
            break
    steady = [step for step in steps[begin:] if step.at <= full_until]
    kept = steady if sum(step.answers for step in steady[1:]) >= 2 * peak else steps
    start, end = kept[0].at, kept[-1].at
    width = (end - start) / _SLICES
    last, group = start, Slice(0, 0, 0, 0)
    for step in kept[1:]:
        group = Slice(0, *(a + b for a, b in zip(group[1:], step.done[1:], strict=True)))
        if step.at - last >= width or step is kept[-1]:
            if step.at > last:
                yield group._replace(seconds=step.at - last)
            last, group = step.at, Slice(0, 0, 0, 0)


def _redrawn(slices: Sequence[Slice], random: Random) -> Sequence[Slice]:
    return random.choices(slices, k=len(slices)) if slices else slices


def _fit(full: Sequence[Slice], prefill: Sequence[Slice]) -> tuple[float, float]:
    """Non-negative least squares in two unknowns, scaled so that the time of the full answers comes out exactly."""
    xx = xy = yy = xt = yt = 0.0
    for each in (*full, *prefill):
        x, y, t = each.computed_tokens, each.completion_tokens, each.seconds
        xx, xy, yy, xt, yt = xx + x * x, xy + x * y, yy + y * y, xt + x * t, yt + y * t
    determinant = xx * yy - xy * xy
    a = b = -1.0
    if determinant > 1e-9 * xx * yy:
        a, b = (xt * yy - yt * xy) / determinant, (yt * xx - xt * xy) / determinant
    if a < 0 or b < 0:  # one of them explains all of the time
        a, b = (xt / xx, 0.0) if xx and (not yy or xt * xt / xx >= yt * yt / yy) else (0.0, yt / yy if yy else 0.0)
    modelled = sum(a * each.computed_tokens + b * each.completion_tokens for each in full)
    scale = sum(each.seconds for each in full) / modelled if modelled > 0 else 1.0
    return a * scale, b * scale


__all__ = [
    "SAMPLE",
    "Interval",
    "Measured",
    "Rates",
    "Sample",
    "Slice",
    "measure",
    "run_for",
    "spread",
    "stratified",
    "warm_up",
]
