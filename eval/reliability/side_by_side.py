"""Runs that share one engine, with live requests beside them, killed together at random moments; their figures out.

The engine dies five times besides in the life of each process. Every run comes to the bytes that it has alone, and every live
request is answered with what was asked.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import corpora
import sessions
from kills import Figures

from llmbatch.core.errors import LlmbatchError
from llmbatch.core.types import Completion, Prompt, Request, RequestKey, Sampling
from llmbatch.engines.making import Maker
from llmbatch.engines.shared import SharedEngine
from llmbatch.job.job import Job
from llmbatch.runs.session import RunResult, run_job
from llmbatch.server.live import Live

_SCRIPT = {"rules": [corpora.FAILS_ONCE, corpora.FAILS_ALWAYS]}
_DEATHS = {"die_after": [30, 80, 81, 140, 200]}
_SAMPLED = {"run": {"window": 24}, "sampling": {"n": 2, "temperature": 1, "seed": 1}}
_PAIR = (
    corpora.Scenario("shared, retries", _SCRIPT, {"run": {"window": 16, "windows_open": 3}}),
    corpora.Scenario("shared, samples", _SCRIPT, _SAMPLED),
)
_WRONG_ANSWER = 9


def killed(folder: Path, kills: int, seed: int = 0, at_once: int = 3) -> Figures:
    """Kill both runs of a pair until there were so many kills, at most ``at_once`` of one pair, then finished and compared."""
    rng, figures = random.Random(seed), Figures()
    references = [_job(folder, number, "alone", {}) for number in range(len(_PAIR))]
    began = time.monotonic()
    for job in references:
        sessions.finish(job)
    seconds = time.monotonic() - began
    pair = 0
    while figures.kills < kills:
        pair += 1
        jobs = [_job(folder, number, f"together-{pair}", _DEATHS) for number in range(len(_PAIR))]
        left = min(at_once, kills - figures.kills)
        while True:
            process = sessions.apart(_together, jobs)
            process.join(rng.uniform(0.05, 0.4 * seconds) if left else None)
            code = sessions.end(process, signal.SIGKILL) if process.is_alive() else process.exitcode
            if code == sessions.KILLED:
                figures.kills += 1
                left -= 1
                continue
            if code:
                figures.problems.append(f"pair {pair}: exit code {code}")
            break
        for scenario, job, reference in zip(_PAIR, jobs, references, strict=True):
            figures.take(scenario.name, sessions.compare(job.output, reference.output, scenario.files))
    return figures


def _job(folder: Path, number: int, name: str, deaths: dict[str, object]) -> Job:
    scenario = _PAIR[number]
    place = folder / f"input-{number}"
    if not place.exists():
        place.mkdir()
        corpora.write_input(scenario, place)
    job = corpora.make_job(scenario, place, folder / f"{name}-{number}")
    if deaths:  # by the script's arguments, so that the runs that nobody disturbs have the same file
        job = job.model_copy(update={"engine": job.engine.model_copy(update={"args": deaths})})
    return job


def _together(jobs: Sequence[Job]) -> None:
    """Both runs on one engine, and live requests as long as they go on. Exits with 0 where all came right."""
    first = jobs[0]
    make = Maker(first.model_path, first.engine, first.chat, first.output.parent)
    shared = SharedEngine(make, make.settings)
    try:
        with ThreadPoolExecutor(len(jobs)) as pool:
            runs = [pool.submit(run_job, job, driver=shared.share(job.output.name)) for job in jobs]
            right = asyncio.run(_ask_as_long_as_they_run(Live(shared), runs))
        codes = [run.result().exit_code for run in runs]
    except LlmbatchError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        shared.close()
    # 3: rows failed, as they are to
    sys.exit(_WRONG_ANSWER if not right else max((code for code in codes if code != 3), default=0))


async def _ask_as_long_as_they_run(live: Live, runs: Sequence[Future[RunResult]]) -> bool:
    right = True
    for number in itertools.count():
        if all(run.done() for run in runs):
            return right
        text = f"live {number} x"
        outcome = await live.ask(Request(RequestKey(0), Prompt(text=text), Sampling()))
        right = right and isinstance(outcome, Completion) and outcome.text == text
    raise AssertionError


__all__ = ["killed"]
