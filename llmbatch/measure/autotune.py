"""Some of a job's requests in; the engine settings that answer them fastest, and what was tried, out.

Each candidate changes one batch size of the default. All run the same requests in the same order on an engine of their own, with
an empty prefix cache; those that look better than the default are run once more, after the default once more, so that a machine
that became faster meanwhile is not taken for a better setting. The default stays unless another wins clearly. Every candidate
needs a start of the engine, so with a large model the starts take most of the time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from llmbatch.core.errors import EngineError, ReadError
from llmbatch.core.files import atomic_write
from llmbatch.core.types import Request
from llmbatch.engines.base import Engine, EngineInfo, EngineSettings, kind_of
from llmbatch.job.job import Job
from llmbatch.job.prepare import Preparer, capacity_of
from llmbatch.job.swept import recipe_of
from llmbatch.measure.speed import Measured, run_for, warm_up
from llmbatch.sources.base import Source

AUTOTUNE_VERSION = 1
SAMPLE = 4096  # requests
_SECONDS = 60.0  # of measuring, over all candidates
_MOST_SECONDS = 600.0  # with the starts: no further candidate is begun after so long
_CLEAR = 0.05  # share by which a winner must be faster, beyond the noise
_SURE = 2.0  # standard errors

Make = Callable[[EngineSettings], Engine]
Say = Callable[[str], None]
Requests = Callable[[Engine, EngineInfo], Sequence[Request]]
"""A started engine, and what it is -> the requests to try it with."""


@dataclass(slots=True)
class Trial:
    """One candidate: what it changes, and how fast it was; ``error`` says why it could not be tried to the end."""

    name: str
    changes: dict[str, Any]  # of EngineSettings
    start_seconds: float = 0.0
    measured: list[Measured] = field(default_factory=list)
    error: str | None = None

    @property
    def all(self) -> Measured:
        """Its rounds together."""
        return Measured(
            tuple(each for measured in self.measured for each in measured.slices),
            (),
            sum(measured.sent for measured in self.measured),
        )

    def report(self, default: Trial) -> dict[str, Any]:
        """As JSON data. ``gain`` is against the default; ``noise`` is the standard error as a share."""
        together = self.all
        rate, noise, base = together.tokens_per_second, together.noise, default.all.tokens_per_second
        return {
            "name": self.name,
            "tokens_per_second": rate or None,
            "noise": noise if noise < float("inf") else None,
            "gain": rate / base - 1 if rate and base else None,
            "rounds": len(self.measured),
            "start_seconds": self.start_seconds,
            "error": self.error,
        }


def tuned(job: Job, settings: EngineSettings, source: Source, path: Path, make: Make, say: Say) -> dict[str, Any]:
    """What ``autotune`` found on the first rows of a job, now or in an earlier session: then ``path`` has it.

    Raises ``WriteError``.
    """
    about = json.dumps([job.model, settings.model_dump(mode="json")], sort_keys=True)
    found = read(path, about)
    if found is None:
        found = autotune(make, settings, partial(_first_requests, job, source), say)
        write(path, about, found)
    say(found["said"])
    return found


def autotune(make: Make, settings: EngineSettings, requests: Requests, say: Say) -> dict[str, Any]:
    """Try the default and the candidates beside it; returns what was tried and what was chosen, as JSON data.

    ``requests`` gives the sample, once there is an engine. What fails is recorded and left out, and never breaks the run.
    """
    end = time.monotonic() + _MOST_SECONDS
    default = Trial("default", {})
    sample: Sequence[Request] = ()
    others: list[Trial] = []

    def first(engine: Engine, info: EngineInfo) -> Sequence[Request]:
        nonlocal sample, others
        sample = requests(engine, info)
        others = candidates(settings, info) if len(sample) >= 2 * info.max_num_seqs else []
        if others:
            say(
                f"autotune: trying {1 + len(others)} engine settings on {len(sample):,} requests, for about "
                f"{_SECONDS:g} s; each needs a start of the engine, which comes on top"
            )
        return sample if others else ()

    # a second round of the default and of the best is likely
    share = _SECONDS / 8
    _try(make, settings, default, first, share)
    if default.error is not None:  # the run will see whether it can be helped
        return _result([default], default, f"autotune: nothing was tried: {default.error}")
    if not others:
        said = "autotune: the engine's own settings are kept: there are too few requests, or all is set by the job"
        return _result([default], default, said)
    for trial in others:
        if time.monotonic() < end:
            _try(make, settings, trial, lambda *_: sample, share)
        else:
            trial.error = "not tried: the time for it was over"
    hopeful = sorted((t for t in others if _gain(t, default) > _CLEAR), key=lambda t: -_gain(t, default))[:2]
    if hopeful:
        for trial in (default, *hopeful):
            _try(make, settings, trial, lambda *_: sample, share)
    winner = max(hopeful, key=lambda t: _gain(t, default), default=default)
    chosen = winner if default.error is None and winner.error is None and is_clear(winner, default) else default
    return _result([default, *others], chosen, _sentence([default, *others], chosen))


def candidates(settings: EngineSettings, info: EngineInfo) -> list[Trial]:
    """What the engine's kind says may be faster, of what the job leaves to the engine."""
    return [Trial(each.name, dict(each.changes)) for each in kind_of(settings.name).candidates(settings, info)]


def is_clear(trial: Trial, default: Trial) -> bool:
    """Whether a candidate is faster than the default by more than a little and by more than chance explains."""
    noise = math.hypot(trial.all.noise, default.all.noise)
    gain = _gain(trial, default)
    return gain - _SURE * noise * (1 + gain) > _CLEAR


def read(path: Path, about: str) -> dict[str, Any] | None:
    """What an earlier session found out about the same engine (``about``); ``None`` where there is nothing to go by."""
    try:
        kept: dict[str, Any] = json.loads(path.read_bytes())
        return kept if kept["llmbatch_autotune"] == AUTOTUNE_VERSION and kept["about"] == about else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, about: str, found: dict[str, Any]) -> None:
    """Keep it for later sessions. Raises ``WriteError``."""
    body = {"llmbatch_autotune": AUTOTUNE_VERSION, "about": about, **found}
    atomic_write(path, json.dumps(body, indent=1, ensure_ascii=False).encode() + b"\n")


def _try(
    make: Make,
    settings: EngineSettings,
    trial: Trial,
    sample: Requests,
    seconds: float,
) -> None:
    """Start an engine with a candidate's settings, measure it, end it; what goes wrong is the trial's error."""
    engine = make(settings.model_copy(update=trial.changes))
    try:
        began = time.monotonic()
        info = engine.start()
        trial.start_seconds = time.monotonic() - began
        requests = sample(engine, info)
        if requests:
            warm_up(engine, requests, seconds)
            trial.measured.append(run_for(engine, requests, seconds))
    except EngineError as error:
        trial.error = str(error)
    finally:
        engine.stop()


def _first_requests(job: Job, source: Source, engine: Engine, info: EngineInfo) -> Sequence[Request]:
    """Those of the first rows, planned as the run will plan them."""
    # a recipe of its own: that of the run is in use in another thread
    prepare = Preparer(recipe_of(job), job.plan, lambda prompts: engine.tokenize(prompts), lambda: info.context_length)
    asked: list[Request] = []
    with contextlib.suppress(ReadError):  # the run itself says it
        for row in itertools.islice(source.rows(), SAMPLE):
            asked.extend(prepare.begin(row).start())
    ready, _ = prepare.tokenized(asked)
    plan = prepare.plan(ready, capacity_of(info), last=False)
    return [ready[position] for position in plan.order]


def _gain(trial: Trial, default: Trial) -> float:
    base = default.all.tokens_per_second
    return trial.all.tokens_per_second / base - 1 if base and trial.error is None else 0.0


def _result(trials: Sequence[Trial], chosen: Trial, said: str) -> dict[str, Any]:
    return {
        "chosen": chosen.name,
        "changes": chosen.changes,
        "tried": [trial.report(trials[0]) for trial in trials],
        "said": said,
    }


def _sentence(trials: Sequence[Trial], chosen: Trial) -> str:
    default = trials[0]
    tried = ", ".join(
        f"{trial.name} " + ("failed" if trial.error else f"{trial.all.tokens_per_second:,.0f} tokens/s")
        for trial in trials
    )
    if chosen is default:
        return f"autotune: the engine's own settings are kept, none of the others is clearly faster ({tried})"
    return f"autotune: {chosen.name} is {_gain(chosen, default):.0%} faster than the engine's own settings ({tried})"


__all__ = ["SAMPLE", "Trial", "autotune", "candidates", "is_clear", "read", "tuned", "write"]
