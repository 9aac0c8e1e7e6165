"""Runs on the scripted engine, killed at random moments and at every fault point, stopped by signals; their figures out."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import corpora
import sessions

from llmbatch.job.job import Job

FAULTS = (
    "journal-opened:1", "journal-opened:4", "journal-torn:1", "journal-torn:3", "journal-append:2", "meta-written:1",
    "meta-written:3", "temp-written/part-00001.meta.json:1", "temp-written/part-00001.jsonl:1", "renamed/part-00001.jsonl:1",
    "part-sealed:2", "journal-removed:2", "temp-written/run.json:1", "renamed/run.json:1", "temp-written/job.yaml:1",
    "temp-written/errors.jsonl:1", "renamed/errors.jsonl:1", "temp-written/results.jsonl:1", "renamed/results.jsonl:1",
    "results-written:1", "temp-written/report.json:1", "renamed/report.json:1", "report-written:1", "temp-written/run.json:2",
    "renamed/run.json:2",
)  # fmt: skip


@dataclass(slots=True)
class Figures(sessions.Counts):
    """What was done to runs, and what came of it."""

    kills: int = 0

    @property
    def ok(self) -> bool:
        return not (self.lost or self.doubled or self.different or self.problems)


def random_kills(folder: Path, kills: int, seed: int = 0, at_once: int = 4) -> Figures:
    """Kill -9 at random moments until there were so many, at most ``at_once`` in one run, each run then finished and compared."""
    rng = random.Random(seed)
    figures = Figures()
    for job, seconds in _disturbed(folder / "killed", kills, figures):
        left = min(at_once, kills - figures.kills)
        while True:
            process = sessions.start(job)
            process.join(rng.uniform(0.02, 0.4 * seconds) if left else None)
            code = sessions.end(process, signal.SIGKILL) if process.is_alive() else process.exitcode
            if code == sessions.KILLED:
                figures.kills += 1
                left -= 1
            elif code in (0, 3):
                break
            else:
                figures.problems.append(f"{job.output.name}: exit code {code}")
                break
    return figures


def stops(folder: Path, count: int, seed: int = 0) -> Figures:
    """SIGINT or SIGTERM at random moments, now and then twice; ``kills`` counts the sessions that said that they were stopped."""
    rng = random.Random(seed)
    figures = Figures()
    for job, seconds in _disturbed(folder / "stopped", count, figures):
        for _ in range(4):
            process = sessions.start(job)
            process.join(rng.uniform(0.3, seconds))
            if process.is_alive():
                for _ in range(rng.choice((1, 1, 2))):
                    os.kill(process.pid, rng.choice((signal.SIGINT, signal.SIGTERM)))
                process.join()
            if process.exitcode == 130:
                figures.kills += 1
            elif process.exitcode not in (
                0,
                3,
                -signal.SIGTERM,
            ):  # before the run has its handlers, the signal's own effect
                figures.problems.append(f"{job.output.name}: exit code {process.exitcode} after a signal")
        sessions.finish(job)
    return figures


def _disturbed(output: Path, kills: int, figures: Figures) -> Iterator[tuple[Job, float]]:
    """Jobs of one scenario after another, until so many kills are counted, each with the seconds that it takes undisturbed.

    Whoever takes one brings its run to an end; the run is compared when the next one is asked for. ``output`` is where their
    folders lie, but for a number at the end.
    """
    references: dict[str, _Reference] = {}
    while figures.kills < kills:
        scenario = corpora.SCENARIOS[figures.runs % len(corpora.SCENARIOS)]
        if scenario.name not in references:
            references[scenario.name] = _reference(scenario, output.parent)
        reference = references[scenario.name]
        job = corpora.make_job(scenario, reference.input, output.with_name(f"{output.name}-{figures.runs}"))
        yield job, reference.seconds
        figures.take(
            f"{job.output.name} ({scenario.name})", sessions.compare(job.output, reference.output, scenario.files)
        )


def fault_points(folder: Path) -> tuple[Figures, list[str]]:
    """Kill at every fault point on purpose; returns the points that were not reached too."""
    figures, missed = Figures(), []
    first, *_ = corpora.SCENARIOS
    for scenario in corpora.SCENARIOS:
        faults = FAULTS if scenario is first else scenario.faults
        reference = _reference(scenario, folder) if faults else None
        for number, fault in enumerate(faults):
            assert reference is not None
            output = folder / f"fault-{scenario.name}-{number}"
            job = corpora.make_job(scenario, reference.input, output, latency=0.01)
            process = sessions.start(job, fault=fault)
            process.join()
            if process.exitcode != sessions.KILLED:
                missed.append(f"{scenario.name}: {fault}")
            figures.kills += process.exitcode == sessions.KILLED
            sessions.finish(job)
            figures.take(f"{scenario.name}: {fault}", sessions.compare(output, reference.output, scenario.files))
    return figures, missed


@dataclass(frozen=True, slots=True)
class Redone:
    """Tokens of a run that was killed once, half-way, and of one that was not."""

    one_pass: int
    in_flight: int  # prompt tokens in flight at the kill
    both_sessions: int

    @property
    def share(self) -> float:
        """Of one pass, what was computed again."""
        return (self.both_sessions - self.one_pass) / self.one_pass


def tokens_redone(folder: Path) -> Redone:
    """Kill a run when half of its answers are there, and finish it."""
    scenario = corpora.Scenario(
        "half-way", {"rules": [corpora.FAILS_ONCE]}, {"run": {"window": 64}, "plan": {"fold": False}}
    )
    input_ = _input(scenario, folder)
    whole = sessions.Tally()
    sessions.finish(corpora.make_job(scenario, input_, folder / "half-way-whole", latency=0.15, concurrency=4), whole)
    job = corpora.make_job(scenario, input_, folder / "half-way-killed", latency=0.15, concurrency=4)
    tally = sessions.Tally()
    process = sessions.start(job, tally)
    while tally.answers.value < whole.answers.value / 2:
        time.sleep(0.01)
    sessions.end(process, signal.SIGKILL)
    in_flight = tally.in_flight.value
    sessions.finish(job, tally)
    return Redone(whole.tokens.value, in_flight, tally.tokens.value)


def _input(scenario: corpora.Scenario, folder: Path) -> Path:
    path = folder / f"input-{scenario.name}"
    path.mkdir(exist_ok=True)
    return corpora.write_input(scenario, path)


class _Reference(NamedTuple):
    """A scenario's input, and its run that nobody disturbs."""

    input: Path
    output: Path
    seconds: float


def _reference(scenario: corpora.Scenario, folder: Path) -> _Reference:
    input_, output = _input(scenario, folder), folder / f"undisturbed-{scenario.name}"
    began = time.monotonic()
    sessions.finish(corpora.make_job(scenario, input_, output))
    return _Reference(input_, output, time.monotonic() - began)
