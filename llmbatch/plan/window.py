"""A window of tokenized requests in -> their order, duplicates folded, misfits decided, a predicted saving out.

Pure functions over token ids: no I/O, no clock, the same plan for the same window and the same answers before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llmbatch.core.demand import Demand, Demands
from llmbatch.core.digest import pack, token_count
from llmbatch.core.settings import Counts
from llmbatch.core.types import Failure, Request
from llmbatch.plan.fit import may_be_cut, misfit
from llmbatch.plan.fold import Folded, fold
from llmbatch.plan.lengths import LengthEstimate
from llmbatch.plan.order import Capacity, Expected, OrderName, Prompts, choose_order

OverflowMode = Literal["error", "skip", "truncate-head", "truncate-tail", "truncate-middle", "shrink-output", "chunk"]

_LONGEST_CONTEXT = 1 << 20  # tokens; where the engine's is not known


class PlanSettings(BaseModel):
    """How a window is planned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fold: Annotated[bool, Counts.NOTHING] = Field(
        True, description="send exact duplicates once, where sampling is greedy or seeded"
    )
    order: Annotated[OrderName, Counts.NOTHING] = Field(
        "auto",
        description="auto (rows with many requests first; by shared prefix, long answers first, where it saves enough), input, "
        "prefix or longest",
    )
    min_saving: Annotated[float, Counts.NOTHING] = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of predicted saving below which auto leaves the order alone; for long answers first, which cost "
        "next to nothing, 1% does if that is less",
    )
    overflow: OverflowMode = Field(
        "error",
        description="what becomes of a row that the context does not hold: error (failed), skip, truncate-head, truncate-tail, "
        "truncate-middle (of its text), shrink-output (a lower max_tokens) or chunk (a request for each part of its text)",
    )
    overflow_field: str | None = Field(
        None, description="the variable whose text is cut or chunked; by default the row's longest"
    )
    overflow_mark: str = Field(" [...] ", description="stands where truncate-middle took something out")
    overflow_min_tokens: int = Field(
        64,
        ge=1,
        description="shrink-output leaves no less for an answer; and so much is left where max_tokens says nothing",
    )
    overflow_overlap: int = Field(
        0, ge=0, description="tokens of the text before it that a chunk begins with; at most half of a chunk"
    )
    overflow_markup: Literal["text", "markdown"] = Field("text", description="along what chunks are cut")
    max_samples: int = Field(128, ge=1, description="the most answers that a row may ask for (n); each is a request")

    @field_validator("overflow", mode="before")
    @classmethod
    def _as_it_was_called(cls, mode: Any) -> Any:
        return "error" if mode == "fail" else mode

    @property
    def least_answer(self) -> int | None:
        """What ``misfit`` is to know of first attempts: where rows are made to fit, all of an answer must."""
        return None if self.overflow in ("error", "skip") else self.overflow_min_tokens


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Every position of the window is in exactly one of ``order``, ``folded`` and ``too_long``."""

    order: list[int]  # positions of the requests to send, in the order to send them
    folded: dict[int, int]  # position of a duplicate -> position of its leader, which is in ``order``
    too_long: dict[int, Failure]
    expected: Expected
    may_be_cut: int = 0  # requests whose context ends before their max_tokens
    notes: tuple[str, ...] = ()  # sentences for a person
    digests: dict[int, bytes] = field(default_factory=dict)  # by position, see ``Digests``; none where folding is off
    groups: dict[int, int] = field(default_factory=dict)  # position -> group of prefix, for several engines


def plan_window(
    requests: Sequence[Request],
    limits: Capacity,
    settings: PlanSettings,
    lengths: LengthEstimate,
    *,
    last: bool = True,
) -> WindowPlan:
    """Plan one window. ``last`` says that no window follows.

    A request without token ids is not judged, and a window that has one stays in the order given.
    """
    packed = [pack(request) for request in requests]
    counts = [0 if ids is None else token_count(request, ids) for request, ids in zip(requests, packed, strict=True)]
    demands = list(map(Demands().of, requests))
    least, context_length = settings.least_answer, limits.context_length
    too_long: dict[int, Failure] = {}
    fitting: list[int] = []
    cut = 0
    for position, (request, tokens, demand) in enumerate(zip(requests, packed, demands, strict=True)):
        count = counts[position]
        if tokens is not None and not _fits_whole(count, demand, context_length):
            failure = misfit(count, demand, context_length, least if request.key.attempt == 1 else None)
            if failure:
                too_long[position] = failure
                continue
            cut += may_be_cut(count, demand, context_length)
        fitting.append(position)

    folded, digests = fold(requests, packed, demands, fitting) if settings.fold else Folded({}, {})
    leaders = [position for position in fitting if position not in folded] if folded else fitting
    if settings.order == "auto":
        leaders = _longest_rows_first(leaders, requests)

    context = f"{context_length or 0:,} tokens"
    notes: list[str] = []
    if too_long:
        notes.append(f"{len(too_long):,} of {len(requests):,} prompts do not fit the context of {context}")
    if cut:
        notes.append(f"{cut:,} answers may be cut: prompt and max_tokens together exceed the context of {context}")
    if folded:
        notes.append(f"{len(folded):,} of {len(requests):,} requests repeat an earlier one and share its answer")

    ready = [tokens for position in leaders if (tokens := packed[position]) is not None]
    if len(ready) < len(leaders):
        return WindowPlan(leaders, folded, too_long, Expected(), cut, tuple(notes), digests)
    prompts = Prompts(
        ready,
        [requests[position].lora for position in leaders],
        [counts[position] for position in leaders],
        *_answers([(counts[position], demands[position]) for position in leaders], limits, lengths),
    )
    choice = choose_order(prompts, limits, settings.order, settings.min_saving, last=last)
    folded_tokens = sum(counts[leader] for leader in folded.values())
    expected = replace(choice.expected, folded_tokens=folded_tokens)
    order = [leaders[i] for i in choice.order]
    groups = {leaders[item]: group for item, group in choice.groups.items()}
    return WindowPlan(order, folded, too_long, expected, cut, (*notes, *choice.notes), digests, groups)


def _fits_whole(tokens: int, demand: Demand, context_length: int | None) -> bool:
    """Whether prompt and longest answer are sure to fit, as nearly always: then there is nothing to judge."""
    return context_length is not None and demand.most is not None and tokens + demand.most <= context_length


def _longest_rows_first(positions: list[int], requests: Sequence[Request]) -> list[int]:
    """Rows with more requests than others before them, each row's together; the positions as they are where all have as many.

    What follows a row's first requests waits for the last of them, and a long document's for several levels of that: begun late it
    would be what the run waits for at its end, with an engine that has little else to do.
    """
    rows = [requests[position].key.index for position in positions]
    counts = Counter(rows)
    if len(counts) == len(rows) or len(set(counts.values())) < 2:
        return positions
    return sorted(positions, key=lambda position: -counts[requests[position].key.index])


def _answers(
    asked: Iterable[tuple[int, Demand]], limits: Capacity, lengths: LengthEstimate
) -> tuple[list[float], list[int]]:
    """The expected and the longest possible answers, in tokens, of requests by their prompts' tokens and what they ask for."""
    answers: list[float] = []
    longest: list[int] = []
    known: dict[tuple[int, int, int], float] = {}
    context_length = limits.context_length or _LONGEST_CONTEXT
    for count, demand in asked:
        room = context_length - count
        most = room if demand.most is None else min(demand.most, room)
        key = (count, most, demand.least)
        if key not in known:
            known[key] = lengths.expected(*key)
        answers.append(known[key])
        longest.append(most)
    return answers, longest
