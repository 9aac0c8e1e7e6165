"""A job in; a run folder with one checked record for every row out.

``run_job`` is what the command line and the Python API call. What an interrupted run left is found again by listing the folder,
so running the same job again goes on from there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from llmbatch.core.errors import LlmbatchError, RunError, Stopped
from llmbatch.core.events import Finished, Note, Watcher
from llmbatch.core.versions import versions
from llmbatch.engines.base import EngineFactory, EngineInfo, SharedDriver, Speculation
from llmbatch.engines.kinds import make_engine
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.input import open_input
from llmbatch.job.identity import identity_of
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.job.swept import recipe_of
from llmbatch.report.report import Facts, RunOutcome, SessionFacts
from llmbatch.runs.assembly import Assembly, How, Told
from llmbatch.runs.brakes import Stop
from llmbatch.runs.budget import up_seconds
from llmbatch.runs.finish import RunResult, earlier_result, finish
from llmbatch.runs.pacing import Pace
from llmbatch.runs.process import calm_collector
from llmbatch.runs.resume import what_is_left
from llmbatch.runs.tuning import Tuner, speculation_report
from llmbatch.runs.window import OpenWindow
from llmbatch.sinks.upload import check_destination, to_upload, upload
from llmbatch.sources.base import Source
from llmbatch.sources.stdin import stdin_stream


def run_job(
    job: Job,
    watchers: Sequence[Watcher] = (),
    *,
    extend: bool = False,
    make: EngineFactory = make_engine,
    stop: Stop | None = None,
    pace: Pace | None = None,
    again: bool = False,
    alike: Mapping[str, str] | None = None,
    driver: SharedDriver | None = None,
) -> RunResult:
    """Run a job to its end, or go on with it. ``extend`` accepts an input that has grown since.

    ``make`` makes the engine; with an ``EngineKeeper``'s several runs have one after the other, and with a ``driver``, which is a
    share of an engine that somebody else keeps (``SharedEngine.share``), at a time. Whoever keeps ``stop`` can end the run from
    another thread: ``stop.ask("why")``; what is in flight gets its grace, and the same call goes on. ``pace`` may end the run
    before its input; with ``again`` one that was ended so is gone on with. ``alike`` is what of that which the job leaves open is
    to come out as it did in another run, see ``RunFolder``.

    Returns where the run finished or was stopped. Raises ``UsageError`` before a model is loaded for whatever can be known by
    then, and ``RunError`` where the run broke; finished rows are safe, and the same call goes on.
    """
    with open_session(
        job, watchers, extend=extend, make=make, stop=stop, pace=pace, again=again, alike=alike, driver=driver
    ) as session:
        for _ in session.windows():
            pass
        return session.result()


@contextlib.contextmanager
def open_session(
    job: Job,
    watchers: Sequence[Watcher] = (),
    *,
    extend: bool = False,
    make: EngineFactory = make_engine,
    stop: Stop | None = None,
    pace: Pace | None = None,
    again: bool = False,
    alike: Mapping[str, str] | None = None,
    driver: SharedDriver | None = None,
) -> Iterator[Session]:
    """A session on the job's run folder, which is locked as long as the session is open. Arguments as those of ``run_job``."""
    recipe = recipe_of(job)  # all that can be wrong about prompt, answer and sampling is said here
    check_destination(job.sinks, job.output)
    folder = RunFolder(job.output, alike)
    taken = folder.open()
    told = Told(watchers, folder.path)
    try:
        if taken:
            told(Note("warning", taken))
        source = open_input(job.input, folder, stdin_stream(), extend=extend)
        for note in source.notes():
            told(Note("info", note))
        how = How(extend, make, stop or Stop(), pace, again or pace is not None, driver)
        # to its end: else the first search after it would look once more at all that the last windows leave
        with calm_collector():
            yield Session(job, folder, source, recipe, told, how)
    finally:
        try:
            told.close()
        finally:
            folder.close()  # whatever happens: others wait for the lock


class Session:
    """One start of the command on one run folder."""

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        source: Source,
        recipe: Recipe,
        tell: Told,
        how: How,
    ) -> None:
        self._job = job
        self._folder = folder
        self._source = source
        self._recipe = recipe
        self._tell = tell
        self._how = how
        self._began = time.monotonic()
        self._began_at = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        self._result: RunResult | None = None

    def windows(self) -> Iterator[OpenWindow]:
        """Run, and yield each window of this session as it is complete, in no particular order.

        Sets the result at the end. A run that finished before yields nothing.
        """
        identity = {**identity_of(self._job), **self._recipe.identity()}
        done = (
            None if self._how.again else earlier_result(self._job, self._folder, self._source.fingerprint(), identity)
        )
        if done is not None:
            folder = self._folder.path
            left_to_do = (
                "only files are to be copied" if to_upload(self._job.sinks, folder) else "nothing is left to do"
            )
            message = f"{folder}: the run is finished, {left_to_do}; its results are in results.jsonl"
            self._tell(Note("info", message))
            upload(self._job.sinks, folder, self._say)
            self._tell(Finished("finished", done.report))
            self._result = done
            return
        limit = self._job.input.limit and self._job.input.limit * (self._job.input.repeat or 1)
        left = what_is_left(self._folder, self._source, identity, extend=self._how.extend, limit=limit)
        run = Assembly(self._job, self._folder, self._source, self._recipe, left, self._tell, self._how)
        outcome: RunOutcome = "finished"
        error: str | None = None
        try:
            with run.going() as steps:
                for complete in steps:
                    if self._folder.lost:
                        run.writer.abandon()
                        raise RunError(
                            "another run took this folder over, as this one gave no sign of life for a minute; this one ends"
                        )
                    yield from complete
        except Stopped as stopped:
            outcome, error = "stopped", str(stopped)
        except KeyboardInterrupt:
            outcome, error = "stopped", f"stopped at once: {self._how.stop.reason or 'interrupted'}"
        except GeneratorExit:
            self._result = self._end(run, "stopped", "the caller stopped iterating", identity)
            raise
        except BaseException as broken:
            if not self._folder.lost:
                with contextlib.suppress(LlmbatchError, OSError):  # the first error is the one to be told
                    self._result = self._end(run, "broken", str(broken) or repr(broken), identity)
            raise
        self._result = self._end(run, outcome, error, identity)

    def _say(self, message: str) -> None:
        self._tell(Note("info", message))

    def result(self) -> RunResult:
        """How it ended; after ``windows`` is exhausted."""
        if self._result is None:
            raise RunError("the run did not come to an end")
        return self._result

    def _end(self, run: Assembly, outcome: RunOutcome, error: str | None, identity: Mapping[str, str]) -> RunResult:
        """Write results (where all rows are done) and the report, and close the session in the run's manifest."""
        driver, ledger = run.driver, run.meter.ledger
        facts = SessionFacts(
            number=run.number,
            started_at=self._began_at,
            outcome=outcome,
            total_seconds=time.monotonic() - self._began,
            start_up_seconds=driver.start_seconds,
            rows=ledger.rows - run.left.rows,
            engine_tokens=driver.counts(),
            busy_seconds=driver.busy_seconds,
            ready_seconds=driver.ready_seconds if driver.start_seconds is not None else None,
            engine_restarts=driver.deaths,
            replicas=driver.replicas(),
        )
        spent = run.budget.session(facts.total_seconds, facts.engine_tokens, up_seconds(driver))
        if outcome == "finished" and not ledger.rows and self._job.input.shard is not None:
            self._say(
                f"no row of the input is in the slice {self._job.input.shard}: it is too short for so many slices"
            )
        report_facts = Facts(
            folder=str(self._folder.path),
            job={"model": self._job.model, "prompt": self._recipe.prompt_name, "identity": dict(identity)},
            input={"path": self._job.input.name, "fingerprint": self._source.fingerprint()},
            versions=versions(),
            engine=None if driver.info is None else _plain(driver.info, run.tuner, driver.speculation()),
            rows_total=ledger.rows if outcome == "finished" else run.meter.rows_total(),
            notes=self._tell.notes,
            cost=run.budget.cost(run.budget.before + spent),
            gpu_hours=run.budget.gpu_hours(run.budget.before + spent),
            accept=run.accept_counts(),
        )
        self._tell.ended(outcome)
        report = finish(self._job, self._folder, self._recipe, ledger, facts, report_facts, error)
        paced = {} if self._how.pace is None else {"ends_itself": True}
        self._folder.end_session(outcome, rows=facts.rows, spent=asdict(spent), **paced)
        if outcome == "finished":
            upload(self._job.sinks, self._folder.path, self._say)
        result = RunResult(self._folder.path, outcome, report, report["exit_code"])
        self._tell(Finished(outcome, report))
        return result


def _plain(info: EngineInfo, tuner: Tuner | None, speculation: Speculation | None) -> dict[str, Any]:
    """As it is read back from a file."""
    tried = {} if tuner is None or tuner.found is None else {"autotune": tuner.found}
    guessed = {} if speculation is None else {"speculation": speculation_report(speculation)}
    plain: dict[str, Any] = json.loads(json.dumps({**asdict(info), **tried, **guessed}, default=sorted))
    return plain


__all__ = ["RunResult", "Session", "open_session", "run_job"]
