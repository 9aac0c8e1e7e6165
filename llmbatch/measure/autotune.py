"""A job and its engine's settings in; the settings that answer its rows clearly faster, and all that was tried, out.

Candidates (``EngineKind.candidates``) are tried in rounds. In each the default runs too, so that a machine that became slower is
not taken for a worse setting; after each only those stay that may still win, half of them at most, and are measured for longer.
Those that are merely shown, as they may change answers, are measured twice, since one round may have been a lucky one.

One wins whose whole interval lies above the margin. What may change answers must besides agree with the untuned answers as far as
the job's tolerance says. Every trial needs a start of the engine, so with a large model the starts take most of the time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.files import atomic_write
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.devices import Machine
from llmbatch.engines.kinds import Around, Candidate, kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.job.tuning import TuningSettings
from llmbatch.measure import verdicts
from llmbatch.measure.trials import Make, SampleOf, Stand, Trial
from llmbatch.measure.verdicts import LEAST_ROUNDS, MARGIN, Judged

AUTOTUNE_VERSION = 2
DEFAULT = "default"
_ROUNDS = 3  # that a winner is measured in
_MOST_AFTER = (4, 2)  # candidates that go on after the first round, and after the second
_MOST_SHOWN = 2  # that may change answers more than is allowed, and are measured twice all the same, to be shown
_MEASURED_SHARE = 1 / 75  # of the time that all may take, for one measurement of the first round: 8 s of 10 minutes
_LONGER = (1.0, 1.5, 2.0, 2.0)  # times as long, by round
_LEAST_SECONDS = 1.0
_TURNS = 1.5  # in a measurement an engine answers so many times as many requests as it has at a time, at least
_MOST_SHARE = 1 / 8  # of the time that all may take, for that
_PATIENCE = 3.0  # times as long is waited for an engine that has not answered as many as it has at a time

Say = Callable[[str], None]


class Known(NamedTuple):
    """What is known of a job besides its engine's settings."""

    tuning: TuningSettings = TuningSettings()
    model: str = ""
    machine: Machine = Machine()
    without: tuple[tuple[str, str], ...] = ()  # kinds of candidates that this job leaves out, and why


_NOTHING = Known()


def autotune(
    make: Make, settings: EngineSettings, sample: SampleOf, say: Say, known: Known = _NOTHING
) -> dict[str, Any]:
    """Try the default and the candidates beside it; returns what was tried and what was chosen, as JSON data.

    ``sample`` gives the requests, once there is an engine. What fails is recorded and left out, and never breaks the run.
    """
    tuning = _Tuning(Stand(make, settings), Clock(known.tuning.max_time), say)
    default = Trial(Candidate(DEFAULT, {}, DEFAULT))
    counted: list[Any] = []

    def counting(engine: Any, info: EngineInfo) -> Any:
        counted[:] = sample(engine, info)
        return counted if len(counted) >= 2 * info.max_num_seqs * info.engines else ()

    info = tuning.stand.first(default, counting, tuning.seconds(1), known.tuning.max_time * _MOST_SHARE)
    judged = Judged(default, [], known.tuning.tolerance, settings)
    if default.error is not None:  # the run will see whether it can be helped
        return tuning.result(judged, counted, f"autotune: nothing was tried: {default.error}")
    if info is None or not default.rounds:
        said = f"autotune: the engine's own settings are kept: {len(counted):,} requests are too few to tell anything"
        return tuning.result(judged, counted, said)
    judged.others[:] = candidates(settings, info, known)
    open_ones = [trial for trial in judged.others if trial.candidate.why_not is None]
    if open_ones:
        tuning.announce(open_ones, len(counted), default)
        tuning.rounds(judged, open_ones)
    return tuning.result(judged, counted)


def candidates(settings: EngineSettings, info: EngineInfo, known: Known) -> list[Trial]:
    """A trial for each candidate of the engine's kind and of the job's own, those that cannot be tried last."""
    tuning = known.tuning
    found = list(kind_of(settings.name).candidates(settings, Around(info, known.machine, known.model, tuning.draft)))
    own = [
        Candidate(name, {"args": {**settings.args, **each.args}}, "own", each.exact)
        for name, each in tuning.candidates.items()
    ]
    asked = [each for each in found if tuning.kinds is None or each.kind in tuning.kinds]
    without = dict(known.without)
    asked = [each._replace(why_not=without[each.kind]) if each.kind in without else each for each in asked]
    return [Trial(each) for each in sorted([*own, *asked], key=lambda each: each.why_not is not None)]


@dataclass(slots=True)
class Clock:
    """The time that tuning may take."""

    budget: float
    began: float = 0.0

    def __post_init__(self) -> None:
        self.began = time.monotonic()

    @property
    def spent(self) -> float:
        return time.monotonic() - self.began

    def has(self, seconds: float) -> bool:
        """Whether there is so much left."""
        return seconds <= self.left

    @property
    def left(self) -> float:
        return self.budget - self.spent


class _Tuning:
    """The rounds: who takes part in which, as far as the time goes."""

    def __init__(self, stand: Stand, clock: Clock, say: Say) -> None:
        self.stand = stand
        self._clock = clock
        self._say = say

    def seconds(self, number: int) -> float:
        """How long is measured in this round: where answers take long, as a large model's do, so long that enough of them end."""
        budget = self._clock.budget
        first = max(_LEAST_SECONDS, budget * _MEASURED_SHARE)
        turns = min(_TURNS * (self.stand.turnover or 0.0), budget * _MOST_SHARE)
        return max(first * _LONGER[min(number, len(_LONGER)) - 1], turns)

    def announce(self, trials: Sequence[Trial], requests: int, default: Trial) -> None:
        each = (default.start_seconds or 0.0) + self.seconds(1)
        most = min(self._clock.budget, each * (1 + 3 * len(trials)))
        self._say(
            f"autotune: trying {len(trials)} other engine settings on {requests:,} requests, each with a start of the engine: this "
            f"takes {_about(most)}, and at most {_about(self._clock.budget)} (--autotune-time)"
        )

    def rounds(self, judged: Judged, trials: Sequence[Trial]) -> None:
        """All in the first, as the time goes; then the default beside those that may still win.

        The default is measured anew: the first engine of a process paid for what is done once, and looked slow beside all others.
        """
        judged.default.rounds.clear()
        self._visit(judged.default, 1)
        if judged.default.error is not None:
            return
        for trial in trials:
            # two thirds for the first round, so that what looks best can be measured again
            if self._clock.spent + self._cost(1, judged) > self._clock.budget * 2 / 3:
                trial.not_tried = "the time for tuning was over (--autotune-time)"
            else:
                self._visit(trial, 1)
        number, left = 1, list(trials)
        while number < _ROUNDS:
            shown = judged.tempting(left)[:_MOST_SHOWN] if number == 1 else []
            left = judged.hopeful(left)[: min(_MOST_AFTER[number - 1], max(1, -(-len(left) // 2)))] + shown
            number += 1
            if not left or not self._round(judged, left, number):
                return
        if (both := judged.combination()) is not None and self._clock.has(4 * self._cost(number, judged)):
            judged.others.append(both)
            for extra in (number + 1, number + 2):
                if not self._round(judged, [both], extra):
                    return

    def _round(self, judged: Judged, left: list[Trial], number: int) -> bool:
        """One more round of these, as many as there is time for; whether there was any. Every second goes backwards."""
        cost = self._cost(number, judged)
        while left and not self._clock.has(cost * (1 + len(left))):
            left.pop()
        if not left:
            return False
        taking_part = [judged.default, *left]
        for trial in taking_part if number % 2 else reversed(taking_part):
            self._visit(trial, number)
        return judged.default.error is None

    def _visit(self, trial: Trial, number: int) -> None:
        """What answers too little in its time gets more of it, as long as there is some: it is given up after twice as long."""
        seconds = self.seconds(number)
        self.stand.visit(trial, number, seconds, max(seconds, min(_PATIENCE * seconds, self._clock.left / 2)))

    def _cost(self, number: int, judged: Judged) -> float:
        """Seconds of one trial, about: those that it takes to warm up and to end go with the start.

        What is in flight when its time is over takes as long as it took to answer so many.
        """
        return (judged.default.start_seconds or 0.0) + self.seconds(number) + (self.stand.turnover or 0.0)

    def result(self, judged: Judged, requests: Sequence[Any], said: str | None = None) -> dict[str, Any]:
        return {
            **verdicts.result(judged, self.stand, requests, said),
            "seconds": self._clock.spent,
            "budget_seconds": self._clock.budget,
        }


def _about(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def read(path: Path, about: str) -> dict[str, Any] | None:
    """What an earlier session found out about the same engine (``about``); ``None`` where there is nothing to go by."""
    try:
        kept: dict[str, Any] = json.loads(path.read_bytes())
        known = kept.pop("llmbatch_autotune") == AUTOTUNE_VERSION and kept.pop("about") == about
        return kept if known else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, about: str, found: dict[str, Any]) -> None:
    """Keep it for later sessions. Raises ``WriteError``."""
    body = {"llmbatch_autotune": AUTOTUNE_VERSION, "about": about, **found}
    atomic_write(path, json.dumps(body, indent=1, ensure_ascii=False).encode() + b"\n")


def sentences(found: dict[str, Any]) -> Iterator[str]:
    """What a person is told of a result: what was chosen, and what else would be faster, and is not used."""
    yield found["said"]
    for tried in found["tried"]:
        if tried["verdict"] == "refused" and len(tried["rounds"]) >= LEAST_ROUNDS:
            yield f"autotune: {tried['name']} is not used: {tried['reason']}"


__all__ = ["DEFAULT", "MARGIN", "Known", "autotune", "candidates", "read", "sentences", "write"]
