"""Settings to try in; an engine started with them, measured on a sample and ended, out: how fast, and which answers.

All trials run the same requests in the same order, with an empty prefix cache. Where these are answered before their time is over
they are asked again, in all trials of a round equally often, as far as the time goes and the cache can be emptied before: of a
second or less little can be told. A request counts the tokens that its untuned answer had, so that settings under which answers
become longer do not look faster for it. Whatever goes wrong is the trial's error.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from llmbatch.core.errors import LlmbatchError
from llmbatch.core.types import Completion, Request, RequestKey, Sampling, Usage
from llmbatch.engines.base import NO_DRAFTS, Drafts, Engine, EngineInfo, Forgets, Speculates
from llmbatch.engines.kinds import Candidate
from llmbatch.engines.settings import EngineSettings
from llmbatch.measure.ratios import Agreement, Pair, ratio_in, ratio_of
from llmbatch.measure.speed import Interval, Measured, run_for, warm_up

_GREEDY = 256  # requests that are asked greedily besides, where the job draws its answers
_ENOUGH_SECONDS = 8.0  # of a sample that takes less the requests are asked again
_MOST_TIMES = 16

Make = Callable[[EngineSettings], Engine]
"""Settings, which may be those of several engines, -> one engine with them, not yet started."""

SampleOf = Callable[[Engine, EngineInfo], Sequence[Request]]
"""A started engine, and what it is -> the requests to try it with."""


class Round(NamedTuple):
    """One start of the engine, and what was measured then."""

    number: int
    measured: Measured


@dataclass(slots=True)
class Trial:
    """One candidate, and what came of it. ``error``: why it could not be tried to the end; ``not_tried``: why not at all."""

    candidate: Candidate
    rounds: list[Round] = field(default_factory=list)
    start_seconds: float | None = None
    error: str | None = None
    not_tried: str | None = None
    alike: dict[RequestKey, bool] = field(
        default_factory=dict
    )  # requests whose answers are the default's, in all rounds
    drafts: Drafts = NO_DRAFTS

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def agreement(self) -> Agreement:
        """With the default's answers."""
        return agreement_of(self.alike)

    @property
    def tokens_per_second(self) -> float:
        """Over all rounds."""
        seconds = sum(each.seconds for one in self.rounds for each in one.measured.slices)
        tokens = sum(each.prompt_tokens + each.completion_tokens for one in self.rounds for each in one.measured.slices)
        return tokens / seconds if seconds > 0 else 0.0

    @property
    def answer_tokens(self) -> float | None:
        """Tokens of an answer on average, its own."""
        lengths = [length for one in self.rounds for length in one.measured.lengths]
        return sum(lengths) / len(lengths) if lengths else None

    def pairs(self, default: Trial) -> list[Pair]:
        """Its measurements, each with the default's of the same round."""
        theirs = {one.number: one.measured for one in default.rounds}
        return [(one.measured, theirs[one.number]) for one in self.rounds if one.number in theirs]

    def ratio(self, default: Trial) -> Interval | None:
        """How many times as fast as the default it is, with bounds."""
        return ratio_of(self.pairs(default)) if self.error is None else None

    def point(self, default: Trial) -> float:
        """The same without bounds, also where there is too little for any; 0 where nothing was measured."""
        if self.error is not None:
            return 0.0
        if (known := self.ratio(default)) is not None:
            return known.expected
        found = [ratio for pair in self.pairs(default) if (ratio := ratio_in(pair)) is not None]
        return sum(found) / len(found) if found else 0.0


class _Time(NamedTuple):
    """How long a trial is measured, in seconds, how long where too little is answered by then, and how often at most."""

    seconds: float
    longest: float
    most: int


class _Answer(NamedTuple):
    content: int  # a hash of it: that of some thousand long answers need not be kept
    usage: Usage


Answers = dict[RequestKey, _Answer]


class Stand:
    """Where candidates are tried: makes their engines, keeps the sample, and what the untuned engine answered."""

    def __init__(self, make: Make, settings: EngineSettings) -> None:
        self._make = make
        self._settings = settings
        self._requests: Sequence[Request] = ()
        self._greedy: list[Request] = []  # those that are asked besides; none where the job's are greedy
        self._untuned: Answers = {}
        self._untuned_greedy: Answers = {}
        self._refused_before = False
        self._once: float | None = None  # seconds in which the untuned engine answers the whole sample, as far as known
        self._times: dict[
            int, int
        ] = {}  # that the sample is asked, by round: what is known later changes nothing in it
        self.is_greedy = True
        self.starts = 0
        self.turnover: float | None = None  # of the untuned engine, see ``Measured``

    def first(self, default: Trial, sample: SampleOf, seconds: float, longest: float) -> EngineInfo | None:
        """Start the default, have the sample made with its help, and measure it; what the engine is, None where it failed.

        How long it is to be measured is not known yet: for ``longest`` at most, where its answers take that long.
        """
        found: list[EngineInfo] = []

        def take(engine: Engine, info: EngineInfo) -> Sequence[Request]:
            found.append(info)
            self._requests = sample(engine, info)
            compared = [request for request in self._requests if request.target is None and request.pooling is None]
            self.is_greedy = all(map(_is_greedy, compared))
            if not self.is_greedy:
                self._greedy = _as_greedy(compared[:_GREEDY])
            return self._requests

        self._visit(default, 0, seconds, take, longest)
        return found[0] if found and default.error is None else None

    def visit(self, trial: Trial, number: int, seconds: float, longest: float) -> None:
        """One round of a trial: start, warm up, measure for so many seconds, end; for ``longest`` where too little was answered."""
        self._visit(trial, number, seconds, lambda *_: self._requests, longest)

    def _visit(self, trial: Trial, number: int, seconds: float, sample: SampleOf, longest: float) -> None:
        self.starts += 1
        engine: Engine | None = None
        try:
            engine = self._make(self._settings.model_copy(update=dict(trial.candidate.changes)))
            began = time.monotonic()
            info = engine.start()
            trial.start_seconds = time.monotonic() - began
            if requests := sample(engine, info):
                once_only = info.prefix_caching and not isinstance(engine, Forgets)
                most = 1 if once_only else _MOST_TIMES
                self._measure(trial, number, engine, requests, _Time(seconds, max(seconds, longest), most))
        except LlmbatchError as error:
            trial.error = str(error)
        finally:
            if engine is not None:
                engine.stop()

    def _measure(self, trial: Trial, number: int, engine: Engine, requests: Sequence[Request], may: _Time) -> None:
        """Ask the requests."""
        seconds, untuned = may.seconds, not trial.candidate.changes
        warm_up(engine, requests, seconds)
        answers: Answers = {}

        def counts_as(answer: Completion) -> Usage:
            said = answers.setdefault(answer.key, _Answer(_content(answer), answer.usage))
            return self._untuned.get(answer.key, said).usage

        before = _drafts(engine)
        may = may._replace(most=min(may.most, self._times_in(number, seconds)))
        measured, once = _run(engine, requests, may, counts_as)
        trial.drafts += _drafts(engine) - before
        if untuned:
            self._once = once
            self.turnover = self.turnover or measured.turnover
        if not measured.lengths:
            trial.error = f"nothing was answered within {2 * may.longest:.0f} s"
            return
        if measured.refused and not untuned and not self._refused_before:
            trial.error = f"{measured.refused:,} requests were refused, and none is without it"
            return
        trial.rounds.append(Round(number, measured))
        greedy = self._ask_greedily(engine, seconds) if untuned or not trial.candidate.exact else {}
        if untuned:
            self._refused_before = self._refused_before or measured.refused > 0
            self._compare(trial, answers, greedy)
            self._untuned = {**answers, **self._untuned}
            self._untuned_greedy = {**greedy, **self._untuned_greedy}
        elif not trial.candidate.exact:
            self._compare(trial, answers, greedy)

    def _times_in(self, number: int, seconds: float) -> int:
        """How often the sample is asked in this round."""
        enough = min(seconds, _ENOUGH_SECONDS)
        times = 1 if self._once is None else min(_MOST_TIMES, math.ceil(enough / max(self._once, 1e-3)))
        return self._times.setdefault(number, times)

    def _ask_greedily(self, engine: Engine, seconds: float) -> Answers:
        """Greedy versions of some requests, where the job draws its answers."""
        found: Answers = {}

        def keep(answer: Completion) -> Usage:
            found[answer.key] = _Answer(_content(answer), answer.usage)
            return answer.usage

        run_for(engine, self._greedy, seconds, keep)
        return found

    def _compare(self, trial: Trial, answers: Answers, greedy: Answers) -> None:
        """With what the default answered first; the default itself too, whose answers may not be the same every time."""
        ours, theirs = (answers, self._untuned) if self.is_greedy else (greedy, self._untuned_greedy)
        for key in ours.keys() & theirs.keys():
            trial.alike[key] = trial.alike.get(key, True) and ours[key].content == theirs[key].content


def _run(
    engine: Engine, requests: Sequence[Request], may: _Time, counts_as: Callable[[Completion], Usage]
) -> tuple[Measured, float | None]:
    """Ask all of them so often, as far as the time goes; also how long they took the first time, where it went so far."""
    began = time.monotonic()
    done: list[Measured] = []
    once: float | None = None
    while len(done) < may.most and (not done or time.monotonic() - began < may.seconds):
        if done and isinstance(engine, Forgets):
            engine.forget()
        spent = time.monotonic() - began
        done.append(run_for(engine, requests, may.seconds - spent, counts_as, 0.0 if done else may.longest))
        if len(done) == 1 and done[0].sent == len(requests) and not done[0].unfinished:
            once = time.monotonic() - began
    lengths = [length for each in done for length in each.lengths]
    slices = [part for each in done for part in each.slices]
    sent, unfinished = sum(each.sent for each in done), sum(each.unfinished for each in done)
    refused = max(each.refused for each in done)
    return Measured(tuple(slices), tuple(lengths), sent, unfinished, refused, done[0].turnover), once


def _content(answer: Completion) -> int:
    """What a record is made of. Not the token ids: an engine in another process does not tell them."""
    numbers = None if answer.numbers is None else tuple(answer.numbers)
    calls = None if answer.tool_calls is None else repr(answer.tool_calls)
    return hash((answer.text, answer.reasoning, calls, answer.finish_reason, answer.score, numbers))


def _drafts(engine: Engine) -> Drafts:
    return engine.drafts() if isinstance(engine, Speculates) else NO_DRAFTS


def _is_greedy(request: Request) -> bool:
    return bool(request.sampling.get("temperature") == 0)


def _as_greedy(requests: Sequence[Request]) -> list[Request]:
    made: dict[int, Sampling] = {}  # requests share these objects
    for request in requests:
        if id(request.sampling) not in made:
            made[id(request.sampling)] = request.sampling.replace(temperature=0.0, seed=None)
    return [replace(request, sampling=made[id(request.sampling)], seed=None) for request in requests]


def agreement_of(alike: Mapping[RequestKey, bool]) -> Agreement:
    """Of the requests that were compared, those whose answers are the same."""
    return Agreement(sum(alike.values()), len(alike))


def json_of(changes: Any, settings: EngineSettings) -> dict[str, Any]:
    """What a candidate changes, as JSON data, without the arguments that are the job's own."""
    found = {name: value for name, value in dict(changes).items() if name != "args"}
    args = {name: value for name, value in dict(changes).get("args", {}).items() if settings.args.get(name) != value}
    return {**found, **({"args": args} if args else {})}


__all__ = ["Make", "Round", "SampleOf", "Stand", "Trial", "json_of"]
