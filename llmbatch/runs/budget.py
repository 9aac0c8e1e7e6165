"""What a run has taken so far in; whether a budget of its job is used up, out.

Budgets are of the run: what earlier sessions in the same run folder took counts, a killed session's up to its last sign of life.
A folder of ``retry-failed`` is a run of its own. What is in flight when a budget is used up may still finish within ``run.grace``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.types import Usage
from llmbatch.engines.base import Driver
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.folder.progress import last_sign
from llmbatch.job.run_settings import RunSettings


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds from a session's start to its end, the engine's start included, and tokens by the engine's own count."""

    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens
    gpu_seconds: float = 0.0  # seconds in which GPUs were kept, times their number

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.seconds + other.seconds,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.gpu_seconds + other.gpu_seconds,
        )

    @classmethod
    def of(cls, seconds: float, usage: Usage, gpu_seconds: float = 0.0) -> Spent:
        return cls(seconds, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, gpu_seconds)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Gpus(NamedTuple):
    """The GPUs of a run: its own from start to end, or those of a cluster, where each engine has its own while it is up."""

    each: int  # of one engine
    engines: int = 1  # with which it begins
    come_and_go: bool = False

    @property
    def number(self) -> int:
        return self.each * self.engines

    def seconds(self, session: float, up: float) -> float:
        """GPU-seconds of a session of so many seconds, whose engines were up for so many, all of them together."""
        return self.each * up if self.come_and_go else self.number * session


@dataclass(frozen=True, slots=True)
class Budget:
    """The budgets of a job, over what its run took ``before`` this session."""

    settings: RunSettings
    gpus: Gpus
    before: Spent = Spent()

    def cost(self, spent: Spent) -> float | None:
        """What it costs by the job's prices: GPU-hours and tokens together; ``None`` where it has no price."""
        hourly, tokens = self.settings.price_per_gpu_hour, self.settings.price_per_million
        if hourly is None and tokens is None:
            return None
        cost = spent.gpu_seconds / 3600 * (hourly or 0.0)
        if tokens is not None:
            into, out, cached = tokens
            computed = spent.prompt_tokens - spent.cached_tokens
            cost += (computed * into + spent.completion_tokens * out + spent.cached_tokens * cached) / 1e6
        return cost

    def gpu_hours(self, spent: Spent) -> float | None:
        """Those that are paid for; ``None`` where they have no price."""
        return None if self.settings.price_per_gpu_hour is None else spent.gpu_seconds / 3600

    def session(self, seconds: float, usage: Usage, up: float) -> Spent:
        """What a session has taken; ``up``: the seconds of all engines together in which they were up."""
        return Spent.of(seconds, usage, self.gpus.seconds(seconds, up))

    def used_up(self, seconds: float, usage: Usage, up: float = 0.0) -> str | None:
        """The budget that is used up after so much of this session, and what to do, as a sentence; ``None``: go on."""
        settings = self.settings
        spent = self.before + self.session(seconds, usage, up)
        if settings.max_time is not None and spent.seconds >= settings.max_time:
            return f"max_time of {settings.max_time:g} s is over{self._sessions()}; to go on, raise --max-time"
        if settings.max_total_tokens is not None and spent.tokens >= settings.max_total_tokens:
            return (
                f"max_total_tokens of {settings.max_total_tokens} is spent{self._sessions()}; "
                "to go on, raise --max-total-tokens"
            )
        cost = self.cost(spent)
        if settings.max_cost is not None and cost is not None and cost >= settings.max_cost:
            return f"max_cost of {settings.max_cost:g} is spent{self._sessions()}; to go on, raise --max-cost"
        return None

    def _sessions(self) -> str:
        return ", earlier sessions of this run counted" if self.before != Spent() else ""


def gpus_of(engine: EngineSettings) -> Gpus:
    """The GPUs that the run's engines are on, as far as their settings tell."""
    return Gpus(kind_of(engine.name).devices(engine), engine.engines, engine.cluster is not None)


def up_seconds(driver: Driver) -> float:
    """Seconds in which engines were up, those of all of them together."""
    return 0.0 if driver.info is None else driver.ready_seconds * driver.info.engines


def spent_by(sessions: list[dict[str, Any]], folder: Path, gpus: Gpus) -> Spent:
    """What the sessions of a run's manifest took together.

    Of a session that was killed the last progress file tells it; its entry is completed with that, for the manifest to keep.
    """
    if sessions and "spent" not in sessions[-1]:
        sessions[-1]["spent"] = asdict(_last_sign(sessions[-1], folder, gpus))
    return sum((Spent(**session["spent"]) for session in sessions if "spent" in session), Spent())


def _last_sign(session: Mapping[str, Any], folder: Path, gpus: Gpus) -> Spent:
    """What the run last said of itself, if it is that session that said it."""
    seen = last_sign(folder)
    if seen is None or seen.pid != session["pid"] or seen.written_at < session["started"]:
        return Spent()
    seconds = seen.written_at - session["started"]
    return Spent.of(seconds, seen.usage, gpus.seconds(seconds, seen.up))


__all__ = ["Budget", "Gpus", "Spent", "gpus_of", "spent_by", "up_seconds"]
