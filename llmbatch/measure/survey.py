"""Planned windows in, one by one -> what a whole corpus will take, out. Memory does not grow with the corpus."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmbatch.core.digest import pack, token_count
from llmbatch.core.types import Failure, Request, RowId
from llmbatch.plan.advice import Advice, advise
from llmbatch.plan.order import DEFAULT_BLOCK_SIZE, Capacity, spared
from llmbatch.plan.reach import LargerWindow, Reach
from llmbatch.plan.window import WindowPlan

EXAMPLES = 10  # rows named for each kind of trouble
_SAMPLE_PROMPTS = 512
_SAMPLE_TOKENS = 400_000
_EDGES = [0, *(int(m * 10**e) for e in range(1, 8) for m in (1, 2, 5))]


@dataclass(frozen=True, slots=True)
class Bar:
    """Prompts of at least ``low`` and less than ``high`` tokens."""

    low: int
    high: int
    prompts: int


class TooLong(NamedTuple):
    """Rows that are too long and asked all the same, as ``plan.overflow`` says."""

    rows: int = 0
    requests: int = 0  # in place of theirs
    tokens: int = 0  # taken from their prompts, or of ``shrink-output`` from max_tokens
    most: int = 0  # from one of them
    not_measured: int = 0  # rows so long that their tokens were not counted


@dataclass(slots=True)
class Survey:
    """Sums over the windows added so far. Tokens of prompts are of requests that fit, duplicates left out."""

    limits: Capacity
    rows: int = 0
    requests: int = 0
    duplicates: int = 0
    sent: int = 0  # requests that fit, duplicates left out
    prompt_tokens: int = 0
    folded_tokens: int = 0
    answer_tokens: float = 0.0  # expected
    answer_tokens_most: int = 0  # if every answer went on to its limit
    computed_given: int = 0
    computed: int = 0
    computed_least: int = 0
    longest: int = 0
    troubles: Counter[str] = field(default_factory=Counter)  # rows that get no answer, by kind
    examples: dict[str, list[tuple[RowId, str]]] = field(default_factory=dict)  # the first of each kind: id and message
    may_be_cut: int = 0
    too_long: TooLong = field(default_factory=TooLong)  # rows that are made to fit
    with_images: int = 0  # prompts whose images are not counted: how many tokens they become only the engine knows
    not_counted: str = ""  # what rows are asked later, which depends on answers, in words
    _bars: list[int] = field(default_factory=lambda: [0] * len(_EDGES))
    _sample: list[bytes] = field(default_factory=list)
    _sample_tokens: int = 0
    _window: int = 0  # the most requests that a window had
    _reach: Reach = field(init=False)

    def __post_init__(self) -> None:
        self._reach = Reach(self.limits.block_size or DEFAULT_BLOCK_SIZE)

    def trouble(self, row: RowId, failure: Failure) -> None:
        """A row that gets no answer."""
        kind = str(failure.kind)
        self.troubles[kind] += 1
        known = self.examples.setdefault(kind, [])
        if len(known) < EXAMPLES:
            known.append((row, failure.message))

    def made_to_fit(self, requests: int, shortened: Sequence[Mapping[str, Any]]) -> None:
        """A row that is too long and is asked all the same: by how many requests, and what was done to them."""
        known = self.too_long
        taken = [_taken(said) for said in shortened]
        removed = sum(tokens for tokens in taken if tokens is not None)
        self.too_long = TooLong(
            known.rows + 1, known.requests + requests, known.tokens + removed, max(known.most, removed),
            known.not_measured + (None in taken),
        )  # fmt: skip

    def add(self, requests: Sequence[Request], plan: WindowPlan, ids: Sequence[RowId]) -> None:
        """A planned window; ``ids`` are the rows' of its requests."""
        for position, failure in plan.too_long.items():
            self.trouble(ids[position], failure)
        self.requests += len(requests)
        self.duplicates += len(plan.folded)
        self.sent += len(plan.order)
        self.may_be_cut += plan.may_be_cut
        expected = plan.expected
        self.prompt_tokens += expected.prompt_tokens
        self.folded_tokens += expected.folded_tokens
        self.answer_tokens += expected.answer_tokens
        self.answer_tokens_most += expected.answer_tokens_most
        self.computed_given += expected.computed_given
        self.computed += expected.computed
        self.computed_least += expected.computed_least
        self._window = max(self._window, len(requests))
        prompts = [pack(request) or b"" for request in requests]
        self._reach.add([prompts[position] for position in plan.order])
        for request, prompt in zip(requests, prompts, strict=True):
            length = token_count(request, prompt)
            self.with_images += bool(request.prompt.images)
            self._bars[bisect_right(_EDGES, length) - 1] += 1
            self.longest = max(self.longest, length)
            if request.prompt.images:
                continue  # what stands before the ids of such a prompt are no ids
            if len(self._sample) < _SAMPLE_PROMPTS and self._sample_tokens + length <= _SAMPLE_TOKENS:
                self._sample.append(prompt)
                self._sample_tokens += length

    def histogram(self) -> list[Bar]:
        """How long the prompts are, those that do not fit included; from the first to the last bar that is not empty."""
        filled = [i for i, count in enumerate(self._bars) if count]
        if not filled:
            return []
        span = range(filled[0], filled[-1] + 1)
        return [Bar(_EDGES[i], _EDGES[i + 1] if i + 1 < len(_EDGES) else self.longest + 1, self._bars[i]) for i in span]

    def advice(self) -> list[Advice]:
        """What another order of the prompt's parts would save; read from the first rows."""
        return advise(self._sample, self.limits.block_size or DEFAULT_BLOCK_SIZE)

    def window_advice(self) -> str | None:
        """Whether rows that share a prefix lie too far apart for the windows that were added, as a sentence."""
        larger: LargerWindow | None = self._reach.larger()
        cache = self.limits.kv_cache_tokens
        if larger is None or (cache is not None and cache >= larger.distinct_tokens):
            return None
        return (
            f"rows that share a prefix lie farther apart than a window of {self._window:,} rows: in windows of "
            f"{self._window * larger.factor:,} (run.window, and run.window_characters to match) the prefix cache can spare "
            f"{larger.share:.0%} of the prompt tokens instead of {larger.share_now:.0%}, unless the KV cache holds "
            f"{larger.distinct_tokens:,} tokens; --order corpus, which reads the input once more ahead of the run, does the same"
        )

    def sample_tokens(self, prompt: int, start: int, count: int) -> list[int]:
        """Some token ids of a prompt of the sample, for the example of an advice."""
        return memoryview(self._sample[prompt]).cast("I").tolist()[start : start + count]

    @property
    def saving(self) -> float:
        """Share of the tokens to compute that the planned order saves against the order of the input."""
        return 1.0 - self.computed / self.computed_given if self.computed_given else 0.0

    @property
    def hit_rate(self) -> float:
        return spared(self.computed, self.prompt_tokens)

    @property
    def hit_rate_given(self) -> float:
        return spared(self.computed_given, self.prompt_tokens)

    @property
    def hit_rate_possible(self) -> float:
        return spared(self.computed_least, self.prompt_tokens)


def _taken(said: Mapping[str, Any]) -> int | None:
    """How many tokens were taken to make a request fit; None where that is not known."""
    if said["mode"] == "shrink-output":
        return int(said["asked_for"] - said["max_tokens"])
    removed: int | None = said["removed_tokens"]
    return removed


@dataclass(frozen=True, slots=True)
class Hours:
    """A measured expectation, and the bounds that hold it in four of five cases."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Prices:
    """What is known of speed and price; None: not given. Measured ``hours`` go before a speed."""

    tokens_per_second: float | None = None  # computed: prompt tokens that the cache does not spare, and answer tokens
    per_gpu_hour: float | None = None
    gpus: int = 1
    per_million: tuple[float, float, float] | None = None  # of prompt tokens, of answer tokens, of cached prompt tokens
    hours: Hours | None = None


def costs(survey: Survey, prices: Prices) -> dict[str, Any]:
    """Hours and costs as far as they are known: ``hours``, ``cost_gpu``, ``cost_tokens``; answers at their expected length.

    Of what was measured also ``_low`` and ``_high`` of the first two.
    """
    found: dict[str, Any] = {}
    if prices.hours is not None:
        found |= {"hours": prices.hours.expected, "hours_low": prices.hours.low, "hours_high": prices.hours.high}
    elif prices.tokens_per_second:
        found["hours"] = (survey.computed + survey.answer_tokens) / prices.tokens_per_second / 3600
    if prices.per_gpu_hour is not None:
        hourly = prices.per_gpu_hour * prices.gpus
        found |= {name.replace("hours", "cost_gpu"): hours * hourly for name, hours in found.items()}
    if prices.per_million is not None:
        into, out, _ = prices.per_million  # what a server will have cached is not known
        found["cost_tokens"] = (survey.prompt_tokens * into + survey.answer_tokens * out) / 1e6
    return found
