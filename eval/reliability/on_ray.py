"""Scripted engines in the actors of a real Ray cluster on this machine: the run, an actor or a node killed; figures out.

Every run comes to the bytes that it has without a cluster.
"""

from __future__ import annotations

import itertools
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import corpora
import psutil
import real_engine
import sessions

from llmbatch.job.job import Job

sys.path.append(str(Path(__file__).parents[1] / "scale"))
import nodes

Kinds = Iterator[tuple[str, real_engine.Action]]
_NODES = 2
_LATENCY, _AT_A_TIME = 0.3, 4  # long enough for the run to be met in the middle
_PATIENCE_SECONDS = 60.0
_RETRIES = {"rules": [corpora.FAILS_ONCE, corpora.FAILS_ALWAYS]}
_SAMPLED = {"run": {"window": 48}, "sampling": {"n": 2, "temperature": 1, "seed": 1}}
_SCENARIOS = (
    corpora.Scenario("cluster, retries", _RETRIES, {"run": {"window": 64, "commit_seconds": 0.1}}),
    corpora.Scenario("cluster, samples", _RETRIES, _SAMPLED),
)


def killed(folder: Path, count: int, seed: int = 0, at_once: int = 3) -> real_engine.Real:
    """Kill until there were so many kills, of runs, actors and nodes by turns, at most ``at_once`` in one run."""
    rng, figures = random.Random(seed), real_engine.Real()
    with nodes.nodes_of(_NODES) as cluster:
        kinds = itertools.cycle(_kinds(cluster, rng).items())
        for number in itertools.count():
            if sum(figures.kills.values()) >= count:
                return figures
            scenario = _SCENARIOS[number % len(_SCENARIOS)]
            reference = _reference(scenario, folder)
            job = _job(scenario, folder, folder / f"killed-{number}")
            _end_to_end(job, figures, kinds, rng, min(at_once, count - sum(figures.kills.values())))
            verdict = sessions.compare(job.output, reference, scenario.files)
            figures.runs += 1
            figures.lost += verdict.lost
            figures.doubled += verdict.doubled
            figures.different += not verdict.same_bytes
            figures.problems += [f"{job.output.name}: {problem}" for problem in verdict.problems]
    raise AssertionError


def _end_to_end(job: Job, figures: real_engine.Real, kinds: Kinds, rng: random.Random, left: int) -> None:
    """Sessions of one job, one after the other, until one comes to its end; ``left`` of them are disturbed."""
    while True:
        act = _counted(*next(kinds), figures) if left else None
        code = real_engine.session(job, figures, at=rng.randrange(10, corpora.ROWS // 2), act=act)
        left = max(0, left - 1)
        print(f"{job.output.name}: {figures.kills}, exit code {code}", file=sys.stderr, flush=True)
        if not _wait_for(lambda: not nodes.actors()):
            figures.orphans += len(nodes.actors())
        if code != -signal.SIGKILL:
            if code not in (0, 3):
                figures.problems.append(f"{job.output.name}: exit code {code}")
            return


def _counted(kind: str, act: real_engine.Action, figures: real_engine.Real) -> real_engine.Action:
    def done(run: psutil.Process, below: list[psutil.Process]) -> None:
        act(run, below)
        figures.killed(kind)

    return done


def _kinds(cluster: nodes.Nodes, rng: random.Random) -> dict[str, real_engine.Action]:
    def kill_actor(_run: psutil.Process, _below: list[psutil.Process]) -> None:
        _wait_for(nodes.actors)
        rng.choice(nodes.actors()).kill()

    def kill_node(_run: psutil.Process, _below: list[psutil.Process]) -> None:
        cluster.kill(rng.choice(cluster.nodes))
        cluster.add()  # a machine comes back

    return {"run on a Ray cluster": real_engine.kill_run, "actor": kill_actor, "node of the cluster": kill_node}


def _job(scenario: corpora.Scenario, folder: Path, output: Path, cluster: str | None = "ray") -> Job:
    place = folder / f"input of {scenario.name}"
    if not place.exists():
        place.mkdir()
        corpora.write_input(scenario, place)
    job = corpora.make_job(scenario, place, output, latency=_LATENCY, concurrency=_AT_A_TIME)
    return job.model_copy(update={"engine": job.engine.model_copy(update={"cluster": cluster})})


def _reference(scenario: corpora.Scenario, folder: Path) -> Path:
    """The folder of a run of the scenario that nobody disturbs, without a cluster."""
    output = folder / f"undisturbed {scenario.name}"
    if not output.exists():
        sessions.finish(_job(scenario, folder, output, cluster=None))
    return output


def _wait_for(there: Callable[[], object]) -> bool:
    end = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        if there():
            return True
        time.sleep(0.1)
    return False
