"""Rows in; their work begun, its requests tokenized, held against the context, digested and planned, out.

The one way from a row to a planned request: a run takes it window by window, ``llmbatch plan`` and the tuner for a sample. An
engine that has no token ids (only its server does) gives none: then nothing is held against the context here, and the server's
refusal says so.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from llmbatch.core.demand import Demands
from llmbatch.core.digest import Digests, pack
from llmbatch.core.messages import text_of
from llmbatch.core.types import Completion, Failure, FailureKind, Outcome, PairIds, Prompt, Refusal, Request, Row
from llmbatch.engines.base import EngineInfo
from llmbatch.images.ahead import Looker
from llmbatch.job.lengths import Lengths, Tokenize, with_target
from llmbatch.job.overflow import Overflow
from llmbatch.job.recipe import Recipe
from llmbatch.job.run_settings import RunSettings
from llmbatch.plan.fit import misfit
from llmbatch.plan.lengths import LengthEstimate
from llmbatch.plan.order import Capacity
from llmbatch.plan.window import PlanSettings, WindowPlan, plan_window
from llmbatch.programs.work import Work

_VECTOR = 4096  # numbers of a vector, before one came
_CHARACTERS_A_NUMBER = 12  # as JSON
_IMAGE_CHARACTERS = 65_536  # that an image counts: of a window every image is looked at before any is asked about
_AT_ONCE, _PIECES = 64, 16  # requests that are tokenized at once; in how many pieces, where there are more
_REQUESTS = 4  # times as many requests as rows a window may have, where a row has several, also in later steps


class Prepared(NamedTuple):
    """Requests that can be sent, and the refusals of those that cannot."""

    ready: list[Request]
    refused: list[Refusal]


class Room(NamedTuple):
    """What a window holds at most: it takes no more once it has so many of any of these."""

    rows: int
    requests: int
    characters: int

    def is_full(self, rows: int, requests: int, characters: int) -> bool:
        """Whether a window with so many takes no more."""
        return rows >= self.rows or characters >= self.characters or requests >= self.requests

    def share(self, rows: int, requests: int, characters: int) -> float:
        """How much of a full window one with so many is: 1 or more where it is full."""
        return max(rows / self.rows, requests / self.requests, characters / self.characters)


class Preparer:
    """Prepares the rows of one job. May be called from several threads at a time, but for ``plan``.

    ``context_length`` (in tokens, None: unknown) is asked for once an answer is to be tried again, or a program wants to know it;
    without it nothing is tried again.
    ``answer_tokens`` is how long an answer is expected to be, before the first one came.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: PlanSettings,
        tokenize: Tokenize,
        context_length: Callable[[], int | None] | None = None,
        *,
        answer_tokens: int | None = None,
    ) -> None:
        self._lengths = LengthEstimate()
        if answer_tokens is not None:
            self._lengths.observe(1, answer_tokens, cut=False)
        self._recipe = recipe
        self._images = Looker(recipe.images)
        self._settings = settings
        self._tokenize = tokenize
        self._measure = Lengths(tokenize, context_length)
        self._vector = _VECTOR
        self._rules = recipe.rules(context_length)
        if settings.overflow not in ("error", "skip", "chunk"):
            self._rules = replace(self._rules, shorten=Overflow(settings, self._measure))

    def begin(self, row: Row) -> Work:
        """A row's work; one that cannot be asked about has its record at once, or once it is started."""
        return self._recipe.begin(row, self._rules, self._measure)

    def size(self, row: Row, work: Work, requests: Iterable[Request]) -> int:
        """About how many characters a row holds in memory until it is done: its prompts, and the fields that are still needed."""
        size = self._recipe.size(row, work)
        for request in requests:
            size += characters(request.prompt)
            if request.pooling is not None and request.pooling.task == "embed":
                size += _CHARACTERS_A_NUMBER * self._vector
        return size

    def room(self, run: RunSettings) -> Room:
        """What a window may hold."""
        requests = _REQUESTS * run.window
        rows = min(run.window, -(-requests // self._recipe.requests_a_row))
        return Room(rows, requests, run.window_characters)

    def tokenized(self, requests: Sequence[Request]) -> Prepared:
        """The requests with their token ids, where they have none yet; images are looked at before."""
        refused: list[Refusal] = []
        if [request for request in requests if request.prompt.images]:
            requests, refused = self._looked_at(requests)
        prepared = tokenized(requests, self._tokenize)
        return Prepared(prepared.ready, refused + prepared.refused)

    def _looked_at(self, requests: Sequence[Request]) -> tuple[list[Request], list[Refusal]]:
        """The requests whose images can be used, with the digests of these, and the refusals of the others."""
        if not self._recipe.takes_images:
            said = Failure(FailureKind.IMAGE, "the prompt has images, and this model, or its engine, takes text alone")
            with_images = [request for request in requests if request.prompt.images]
            return [r for r in requests if not r.prompt.images], [Refusal(r.key, said) for r in with_images]
        looked = self._images.look([request.prompt for request in requests])
        ready: list[Request] = []
        refused: list[Refusal] = []
        for request, images in zip(requests, looked, strict=True):
            if isinstance(images, Failure):
                refused.append(Refusal(request.key, images))
            elif images:
                ready.append(replace(request, prompt=replace(request.prompt, images=images)))
            else:
                ready.append(request)
        return ready, refused

    def following(self, requests: Sequence[Request], context_length: int | None) -> Prepared:
        """What follows in the work of rows, tokenized as one batch and held against the context.

        As the plan would say it: a resumed run, whose plan has these requests, gives the same records.
        """
        ready, refused = self.tokenized(requests)
        demands, least = Demands(), self._settings.least_answer
        fitting: list[Request] = []
        for request in ready:
            failure = None
            if request.token_ids is not None and context_length is not None:
                tokens = len(request.token_ids) + len(request.partial) + len(request.target_ids)
                # what is tried again gets what room is left
                room = least if request.key.attempt == 1 else None
                failure = misfit(tokens, demands.of(request), context_length, room)
            if failure is None:
                fitting.append(request)
            else:
                refused.append(Refusal(request.key, failure))
        return Prepared(fitting, refused)

    def plan(self, requests: Sequence[Request], capacity: Capacity, *, last: bool = True) -> WindowPlan:
        """The plan of a window's tokenized requests; ``last`` says that no window follows."""
        return plan_window(requests, capacity, self._settings, self._lengths, last=last)

    def observe(self, outcome: Outcome) -> None:
        """Let later plans know how long an answer was."""
        if isinstance(outcome, Completion) and outcome.reused_from is None:
            if outcome.numbers is not None:
                self._vector = len(outcome.numbers)
                return
            usage = outcome.usage
            self._lengths.observe(usage.prompt_tokens, usage.completion_tokens, cut=outcome.finish_reason == "length")

    def digests(self, requests: Iterable[Request]) -> list[bytes | None]:
        """By what each request is equal to others; None for one that is not to be folded, or whose answer may differ."""
        if not self._settings.fold:
            return [None for _ in requests]
        digests = Digests()
        return [digests.digest(request, pack(request)) for request in requests]


def tokenized(requests: Sequence[Request], tokenize: Tokenize) -> Prepared:
    """The requests with their token ids, where they have none yet and the tokenizer has any.

    Of many a sixteenth at a time: what a tokenizer gives takes several times the memory that ids take here.
    """
    if len(requests) <= _AT_ONCE:
        return _tokenized(requests, tokenize)
    piece = max(_AT_ONCE // _PIECES, -(-len(requests) // _PIECES))
    whole = Prepared([], [])
    for at in range(0, len(requests), piece):
        ready, refused = _tokenized(requests[at : at + piece], tokenize)
        whole.ready.extend(ready)
        whole.refused.extend(refused)
    return whole


def _tokenized(requests: Sequence[Request], tokenize: Tokenize) -> Prepared:
    prompts: list[Prompt] = []
    for request in requests:
        if request.token_ids is None:
            prompts.append(request.prompt)
            if request.target is not None:
                prompts.append(with_target(request.prompt, request.target))
    found = tokenize(prompts) if prompts else ()
    if found is None:
        return Prepared(list(requests), [])
    ids = iter(found)
    ready: list[Request] = []
    refused: list[Refusal] = []
    for request in requests:
        if request.token_ids is not None:
            ready.append(request)
            continue
        tokens = next(ids)
        whole: Sequence[int] | Failure = tokens if request.target is None else next(ids)
        if isinstance(tokens, Failure):
            refused.append(Refusal(request.key, tokens))
        elif isinstance(whole, Failure):
            refused.append(Refusal(request.key, whole))
        elif isinstance(tokens, PairIds):
            first, second = tokens[: tokens.second], tokens[tokens.second :]
            ready.append(_with_ids(request, array("I", first), array("I", second)))
        else:
            target = () if request.target is None else array("I", whole[len(tokens) :])
            ready.append(_with_ids(request, array("I", tokens), target))  # a ninth of a list's memory
    return Prepared(ready, refused)


def capacity_of(info: EngineInfo) -> Capacity:
    """What a started engine can hold, for the plan; several engines hold as much more together."""
    engines, cache, batched = info.engines, info.kv_cache_tokens, info.max_num_batched_tokens
    return Capacity(
        context_length=info.context_length,
        kv_cache_tokens=None if cache is None else engines * cache,
        block_size=info.block_size,
        max_num_seqs=engines * info.max_num_seqs,
        max_num_batched_tokens=None if batched is None else engines * batched,
        engines=engines,
    )


def characters(prompt: Prompt) -> int:
    """How long a prompt is as text."""
    if prompt.messages is None:
        return len(prompt.text or "") + len(prompt.pair or "") + len(prompt.ids or ())
    length = 0
    for message in prompt.messages:  # ``sum`` over a generator takes twice as long, and this is done for every row
        content = message["content"]
        length += len(content if content.__class__ is str else text_of(content))
    for image in prompt.images:
        length += len(image.url) + _IMAGE_CHARACTERS
    return length


def _with_ids(r: Request, ids: array[int], target: Sequence[int]) -> Request:
    """``dataclasses.replace``, at a tenth of its cost: this is done for every request."""
    return Request(
        r.key,
        r.prompt,
        r.sampling,
        r.constraint,
        r.seed,
        r.max_tokens,
        r.lora,
        r.partial,
        ids,
        r.target,
        target,
        r.pooling,
    )
