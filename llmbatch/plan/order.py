"""The leaders of a window in -> the order to send them in, and what it is expected to save, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from llmbatch.plan.groups import prefix_groups
from llmbatch.plan.prefix import PrefixTree, build_tree
from llmbatch.plan.simulate import Cache, simulate, steps_to_answer

OrderName = Literal["auto", "input", "prefix", "longest"]

DEFAULT_BLOCK_SIZE = 16  # vLLM's on a GPU
DEFAULT_BUDGET = 8192  # tokens a step
_SOONER = 0.01  # share of the steps that long answers first must save
_WORTH = 0.4  # of that share, by which there may be more to compute than in an order by prefixes alone; of no more than
_SURE = 0.05  # this, as a forecast is none to the letter


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the engine can hold, or several ``engines`` together. None: not known, taken as no limit. Budget in tokens a step."""

    context_length: int | None
    max_num_seqs: int
    kv_cache_tokens: int | None = None
    block_size: int | None = None
    max_num_batched_tokens: int | None = None
    engines: int = 1


@dataclass(frozen=True, slots=True)
class Expected:
    """Prompt tokens that the engine must compute for the window, as the simulation of its prefix cache says.

    An estimate: it begins with an empty cache, and where no order can save much it is only an upper bound.
    """

    prompt_tokens: int = 0  # of what is sent, duplicates left out
    folded_tokens: int = 0  # prompt tokens of duplicates, which are not sent
    answer_tokens: float = 0.0  # of what is sent
    answer_tokens_most: int = 0  # if every answer went on to its limit
    computed_given: int = 0  # to compute if sent in the order of the input
    computed: int = 0  # to compute in the planned order
    computed_least: int = 0  # to compute with a cache without limit

    @property
    def saving(self) -> float:
        """Share of the tokens to compute that the planned order saves against the order of the input."""
        return 1.0 - self.computed / self.computed_given if self.computed_given else 0.0

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that the cache spares in the planned order."""
        return spared(self.computed, self.prompt_tokens)

    @property
    def hit_rate_possible(self) -> float:
        """The hit rate with a cache without limit."""
        return spared(self.computed_least, self.prompt_tokens)


def spared(computed: int, tokens: int) -> float:
    """The hit rate; what preempted requests compute again can exceed what the cache spares."""
    return max(0.0, 1.0 - computed / tokens) if tokens else 0.0


class Choice(NamedTuple):
    order: list[int]
    expected: Expected
    notes: tuple[str, ...]
    groups: dict[int, int]  # request -> number of those that are best answered by one engine, where there are several


class Prompts(NamedTuple):
    """What is to be ordered, one element for each request: packed tokens, LoRA adapter, lengths in tokens."""

    packed: Sequence[bytes]
    loras: Sequence[str | None]
    tokens: Sequence[int]
    answers: Sequence[float]  # expected
    most: Sequence[int]  # the longest possible answers


def choose_order(prompts: Prompts, limits: Capacity, wanted: OrderName, min_saving: float, *, last: bool) -> Choice:
    """The order by name, or for ``auto`` the best of them if it saves at least ``min_saving``, else the one given.

    ``last``: no window follows, so the longest answers decide when the run ends. Otherwise the slots that run empty are
    filled from the next window, and long answers first would only bunch up the decoding. Where that costs next to
    nothing of what the cache spares, it need not save as much.
    """
    count = len(prompts.tokens)
    given = list(range(count))
    forecast = _Forecast(prompts, limits, min_saving)
    order, notes = given, list[str]()

    if wanted == "prefix" or (wanted == "auto" and forecast.order_matters):
        grouped = _adapters_together(forecast.tree.order(given), prompts.loras)
        if wanted == "prefix" or forecast.computed(grouped) <= (1.0 - min_saving) * forecast.computed(given):
            order = grouped
            notes.append(_saving_note(forecast.computed(given), forecast.computed(grouped)))
    if wanted == "auto" and order is given:
        together = _adapters_together(given, prompts.loras)
        if together != given and forecast.computed(together) <= forecast.computed(given):
            order = together
            notes.append("requests of one LoRA adapter are sent together")

    if wanted == "longest" or (wanted == "auto" and last):
        by_length = sorted(given, key=lambda i: -prompts.answers[i])  # stable: equals stay in the order given
        if order is given:
            longest = _adapters_together(by_length, prompts.loras) if wanted == "auto" else by_length
        else:
            ranks = [0] * count
            for rank, item in enumerate(by_length):
                ranks[item] = rank
            longest = _adapters_together(forecast.tree.order(ranks), prompts.loras)
        sooner = _sooner(order, longest, prompts.answers, limits.max_num_seqs)
        if wanted == "longest" or (longest != order and forecast.allows(longest, order, given, sooner)):
            order = longest
            notes.append(f"long answers first: the last one is expected to end {max(0.0, sooner):.0%} sooner")

    expected = Expected(
        prompt_tokens=forecast.total,
        answer_tokens=sum(prompts.answers),
        answer_tokens_most=sum(prompts.most),
        computed_given=forecast.computed(given),
        computed=forecast.computed(order),
        computed_least=forecast.least,
    )
    groups: dict[int, int] = {}
    if limits.engines > 1:
        block = limits.block_size or DEFAULT_BLOCK_SIZE
        groups = prefix_groups(forecast.tree, prompts.packed, prompts.loras, block, limits.engines)
    return Choice(order, expected, tuple(notes), groups)


class _Forecast:
    """Prompt tokens to compute, for any order; simulated only where the order can make a difference."""

    def __init__(self, prompts: Prompts, limits: Capacity, min_saving: float) -> None:
        block = limits.block_size or DEFAULT_BLOCK_SIZE
        self.tree: PrefixTree = build_tree(prompts.packed, prompts.loras, block)
        self.total = sum(prompts.tokens)
        self.least = self.total - self.tree.spared_blocks * block
        self._min_saving = min_saving
        self._tokens = prompts.tokens
        self._answers = [round(a) for a in prompts.answers]
        budget = limits.max_num_batched_tokens or DEFAULT_BUDGET
        self._simulated: dict[tuple[int, ...], int] = {}
        self._same: int | None = None  # what every order computes, where it makes no difference
        if limits.kv_cache_tokens is None or not prompts.tokens:
            self._same = self.least
            return
        self._cache = Cache(limits.kv_cache_tokens // block, block, limits.max_num_seqs, budget)
        blocks = sum(-(-tokens // block) for tokens in self._tokens) - self.tree.spared_blocks
        blocks += sum(self._answers) // block + len(self._answers)
        # What all prompts share is spared in any order, so none computes more than this.
        most = self.total - self.tree.common_blocks * block * (len(self._tokens) - 1)
        if blocks <= self._cache.blocks:  # nothing is ever evicted
            self._same = self.least
        elif self.least >= (1.0 - min_saving) * most:
            self._same = most

    @property
    def order_matters(self) -> bool:
        return self._same is None

    def allows(self, longest: Sequence[int], order: Sequence[int], given: Sequence[int], sooner: float) -> bool:
        """Whether long answers first save enough of the steps for what they cost, in place of another order."""
        if sooner < min(_SOONER, self._min_saving):
            return False
        most = (1.0 + _WORTH * min(sooner, _SURE)) * self.computed(order)
        return self.computed(longest) <= min(self.computed(given), most)

    def computed(self, order: Sequence[int]) -> int:
        if self._same is not None:
            return self._same
        key = tuple(order)
        if key not in self._simulated:
            self._simulated[key] = simulate(order, self.tree, self._tokens, self._answers, self._cache).computed_tokens
        return self._simulated[key]


def _adapters_together(order: list[int], loras: Sequence[str | None]) -> list[int]:
    """The same order with the requests of one adapter next to each other, adapters by their first request."""
    first: dict[str | None, int] = {}
    for place, item in enumerate(order):
        first.setdefault(loras[item], place)
    return order if len(first) == 1 else sorted(order, key=lambda item: first[loras[item]])


def _sooner(order: Sequence[int], longest: Sequence[int], answers: Sequence[float], slots: int) -> float:
    """By what share of its steps the last answer ends sooner."""
    if len(order) <= slots:  # all begin at once
        return 0.0
    steps = steps_to_answer([answers[i] for i in order], slots)
    return 1.0 - steps_to_answer([answers[i] for i in longest], slots) / steps if steps else 0.0


def _saving_note(given: int, planned: int) -> str:
    share = 1.0 - planned / given if given else 0.0
    return f"grouped by shared prefix: {planned:,} prompt tokens to compute instead of {given:,} ({share:.0%} fewer)"
