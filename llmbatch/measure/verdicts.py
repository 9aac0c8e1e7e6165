"""Trials in; which of them is chosen, and of each a verdict with its reason, as JSON data, out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmbatch.core import words
from llmbatch.core.types import Request
from llmbatch.engines.kinds import Candidate
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.speculation import break_even
from llmbatch.measure.ratios import CONFIDENCE
from llmbatch.measure.speed import Interval
from llmbatch.measure.trials import Stand, Trial, json_of
from llmbatch.measure.tuning_sample import SEED, lengths

MARGIN = 1.05
"""A winner is more than so many times as fast, all of its interval."""
LEAST_ROUNDS = 2  # of a winner: one start of an engine may have been a lucky one
_NOTED = 1.0  # second that a start is longer, from which on it is said
_LEAST_COMPARED = 32  # answers, before anything is said of how many agree

Tolerance = Literal["exact"] | float | None
Verdict = Literal[
    "default", "chosen", "faster", "unclear", "slower", "refused", "failed", "left out", "not tried"
]  # fmt: skip


@dataclass(slots=True)
class Judged:
    """The default, the others, and how far their answers may differ."""

    default: Trial
    others: list[Trial]
    tolerance: Tolerance
    settings: EngineSettings

    def hopeful(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that may still win, the fastest first."""
        return self._fastest(trial for trial in trials if self._may_win(trial) and self.objection(trial) is None)

    def tempting(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that may be as fast, and are not used as they may change answers: a person may want them. The fastest first."""
        return self._fastest(trial for trial in trials if self._may_win(trial) and self.objection(trial) is not None)

    def _fastest(self, trials: Iterable[Trial]) -> list[Trial]:
        return sorted(trials, key=lambda trial: -trial.point(self.default))

    @property
    def chosen(self) -> Trial:
        """The fastest of those that clearly win, or the default."""
        if self.default.error is not None:
            return self.default
        winners = [trial for trial in self.others if self.is_clear(trial) and self.objection(trial) is None]
        return max(winners, key=lambda trial: trial.point(self.default), default=self.default)

    def is_clear(self, trial: Trial) -> bool:
        """Whether it is faster by more than a little, and by more than chance explains."""
        known = trial.ratio(self.default)
        return known is not None and known.low > MARGIN and len(trial.pairs(self.default)) >= LEAST_ROUNDS

    def objection(self, trial: Trial) -> str | None:
        """Why its answers do not do; ``None`` where they do."""
        if trial.candidate.exact:
            return None
        agreement, tolerance = trial.agreement, self.tolerance
        seen = f"{agreement.equal:,} of {agreement.compared:,} greedy answers are as without it"
        if tolerance is None:
            advice = (
                "exact"
                if agreement.equal == agreement.compared
                else f"{math.floor((agreement.share or 0) * 100) / 100:g}"
            )
            said = f"{seen}, and it may change answers: to use what agrees so far give --tolerance {advice}"
            return said if agreement.compared else "it may change answers, which no --tolerance allows"
        least = 1.0 if tolerance == "exact" else tolerance
        needed = _LEAST_COMPARED if least == 1.0 else max(_LEAST_COMPARED, math.ceil(1 / (1 - least)))
        if agreement.compared < needed:
            return (
                f"{agreement.compared:,} answers could be compared, of {needed:,} that a tolerance of {tolerance} needs"
            )
        if (agreement.share or 0.0) < least:
            return f"{seen}, less than the tolerance of {tolerance}"
        return None

    def pays_from(self, trial: Trial) -> int | None:
        """From how many requests on, about, its longer start is made up for; None where nothing is saved."""
        known = trial.ratio(self.default)
        slices = [each for one in self.default.rounds for each in one.measured.slices]
        answers = sum(each.answers for each in slices)
        if known is None or known.expected <= 1.0 or not answers:
            return None
        saved = sum(each.seconds for each in slices) / answers * (1.0 - 1.0 / known.expected)
        return math.ceil(max(0.0, self._later(trial)) / saved)

    def start_in_words(self, trial: Trial) -> str:
        """What is to be said of its start; nothing where that is about as short as the default's."""
        later, pays_from = self._later(trial), self.pays_from(trial)
        if later < _NOTED or pays_from is None:
            return ""
        return f"; it takes {later:.0f} s longer to start, which pays from about {pays_from:,} requests on"

    def _later(self, trial: Trial) -> float:
        return (trial.start_seconds or 0.0) - (self.default.start_seconds or 0.0)

    def combination(self) -> Trial | None:
        """The two best of different kinds together, where both clearly win by themselves."""
        winners = self.hopeful([trial for trial in self.others if self.is_clear(trial)])
        if not winners:
            return None
        first = winners[0].candidate
        second = next((trial.candidate for trial in winners[1:] if trial.candidate.kind != first.kind), None)
        if second is None:
            return None
        # where both set the same, as what is held fixed for the other's sake, the better one says what it is
        changes = {**second.changes, **first.changes}
        if "args" in first.changes and "args" in second.changes:
            changes["args"] = {**second.changes["args"], **json_of(first.changes, self.settings).get("args", {})}
        exact = first.exact and second.exact
        return Trial(Candidate(f"{first.name} + {second.name}", changes, "combination", exact))

    def _may_win(self, trial: Trial) -> bool:
        known = trial.ratio(self.default)
        return trial.not_tried is None and (trial.point(self.default) if known is None else known.high) > MARGIN


def result(judged: Judged, stand: Stand, requests: Sequence[Request], said: str | None) -> dict[str, Any]:
    """All of it, as JSON data."""
    chosen = judged.chosen
    shortest, median, longest = lengths(requests)
    trials = [judged.default, *judged.others]
    return {
        "chosen": chosen.name,
        "changes": _changes(chosen, judged),
        "said": said or _sentence(judged, chosen),
        "tolerance": judged.tolerance,
        "margin": MARGIN,
        "confidence": CONFIDENCE,
        "sample": {
            "requests": len(requests), "seed": SEED, "shortest": shortest, "median": median, "longest": longest,
            "greedy": stand.is_greedy,
        },
        "engine_starts": stand.starts,
        "self_agreement": _agreement(judged.default),
        "tried": [_row(trial, judged, chosen) for trial in trials],
    }  # fmt: skip


def _agreement(trial: Trial) -> dict[str, Any] | None:
    return trial.agreement.as_dict() if trial.agreement.compared else None


def _changes(chosen: Trial, judged: Judged) -> dict[str, Any]:
    """What of the settings is to be changed; of speculation also from where on it does not pay."""
    changes = dict(chosen.candidate.changes)
    known = chosen.ratio(judged.default)
    if known is not None and chosen.drafts.tokens:
        answered = sum(length for one in chosen.rounds for length in one.measured.lengths)
        price = break_even(known.expected, answered, chosen.drafts)
        if price is not None:
            changes["least_acceptance"] = round(price, 3)
    return changes


def _row(trial: Trial, judged: Judged, chosen: Trial) -> dict[str, Any]:
    default, candidate, drafts = judged.default, trial.candidate, trial.drafts
    verdict, reason = _verdict(trial, judged, chosen)
    known = None if trial is default else trial.ratio(default)
    theirs = {one.number: one.measured.tokens_per_second for one in default.rounds}
    rounds = [
        {
            "round": one.number,
            "tokens_per_second": one.measured.tokens_per_second,
            "ratio": None
            if trial is default or not theirs.get(one.number)
            else one.measured.tokens_per_second / theirs[one.number],
            "seconds": sum(each.seconds for each in one.measured.slices),
            "requests": len(one.measured.lengths),
        }
        for one in trial.rounds
    ]
    return {
        "name": trial.name,
        "family": candidate.kind,
        "settings": json_of(candidate.changes, judged.settings),
        "exact": candidate.exact,
        "verdict": verdict,
        "reason": reason,
        "tokens_per_second": trial.tokens_per_second or None,
        "ratio": None if known is None else known._asdict(),
        "agreement": None if trial is default else _agreement(trial),
        "answer_tokens": trial.answer_tokens,
        "acceptance": {"drafts": drafts.drafts, "draft_tokens": drafts.tokens, "accepted_tokens": drafts.accepted}
        if drafts.tokens
        else None,
        "start_seconds": trial.start_seconds,
        "pays_from_requests": None if trial is default else judged.pays_from(trial),
        "rounds": rounds,
    }


def _verdict(trial: Trial, judged: Judged, chosen: Trial) -> tuple[Verdict, str]:
    """What became of a trial, and why, in words."""
    candidate, default = trial.candidate, judged.default
    if candidate.why_not is not None:
        return "left out", candidate.why_not
    if trial.error is not None:
        return "failed", trial.error
    if trial is default:
        return "default", "what the others are compared with"
    if trial.not_tried is not None or not trial.rounds:
        return "not tried", trial.not_tried or "the time for tuning was over (--autotune-time)"
    known, pairs = trial.ratio(default), trial.pairs(default)
    if known is None:
        return "unclear", f"{trial.point(default):.2f}x, of too little to say how sure that is"
    speed = f"{times(known)} in {'one round, which is no proof' if len(pairs) == 1 else f'{len(pairs)} rounds'}"
    if known.high < 1:
        return "slower", speed
    if known.low <= MARGIN:
        return "unclear", f"{speed}: not surely more than {MARGIN:g}x"
    if (objection := judged.objection(trial)) is not None:
        return "refused", f"{speed}, but {objection}"
    if len(pairs) < LEAST_ROUNDS:
        return "unclear", f"{speed}: {LEAST_ROUNDS} are needed, and others were faster, or the time was over"
    return ("chosen", speed) if trial is chosen else ("faster", f"{speed}: {chosen.name} is faster still")


def times(ratio: Interval) -> str:
    """``1.31x (1.27 to 1.35)``."""
    return f"{ratio.expected:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


def _sentence(judged: Judged, chosen: Trial) -> str:
    default = judged.default
    tried = "; ".join(_tried(judged)) or "nothing else could be tried"
    if chosen is default:
        return f"autotune: the engine's own settings are kept, none of the others is clearly faster ({tried})"
    known = chosen.ratio(default)
    agreement = chosen.agreement
    same = (
        ""
        if chosen.candidate.exact
        else f", and {words.share(agreement.share or 0.0)} of {agreement.compared:,} greedy answers are as without it"
    )
    fast = "" if known is None else f"{times(known)} as fast as the engine's own settings"
    return f"autotune: {chosen.name} is {fast}{same}{judged.start_in_words(chosen)} ({tried})"


def _tried(judged: Judged) -> Iterator[str]:
    """Of each that was tried its name and what came of it, shortly."""
    for trial in judged.others:
        if trial.candidate.why_not is None:
            yield f"{trial.name} {_came_of(trial, judged.default)}"


def _came_of(trial: Trial, default: Trial) -> str:
    if trial.error:
        return "failed"
    if not trial.rounds:
        return "not tried"
    known = trial.ratio(default)
    return "answered too little to be judged" if known is None else f"{known.expected:.2f}x"


__all__ = ["LEAST_ROUNDS", "MARGIN", "Judged", "result", "times"]
