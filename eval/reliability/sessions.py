"""A job in; sessions of it in processes of their own out, to be killed, and what their engine answered, to be counted."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbatch.audit.audit import audit
from llmbatch.core import faults
from llmbatch.core.errors import LlmbatchError
from llmbatch.core.types import Completion, Outcome
from llmbatch.engines.base import Engine
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import make_engine
from llmbatch.job.job import Job
from llmbatch.runs.session import run_job

_FORK = multiprocessing.get_context("fork")  # no import is paid again, so the kills hit the run and not its start


class Tally:
    """What the engines of killed processes answered: shared memory outlives them."""

    def __init__(self) -> None:
        self.answers = _FORK.Value(ctypes.c_longlong, 0)
        self.tokens = _FORK.Value(ctypes.c_longlong, 0)
        self.in_flight = _FORK.Value(ctypes.c_longlong, 0)  # prompt tokens

    def count(self, outcomes: list[Outcome], feed: Feed) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Completion):
                self.answers.value += 1
                self.tokens.value += outcome.usage.prompt_tokens + outcome.usage.completion_tokens
        self.in_flight.value = sum(len(request.token_ids or ()) for request in list(feed.in_flight.values()))


class _Counted:
    """An engine whose answers are tallied before anybody else sees them."""

    def __init__(self, engine: Engine, tally: Tally) -> None:
        self._engine = engine
        self._tally = tally

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        for outcomes in self._engine.stream(feed):
            self._tally.count(outcomes, feed)
            yield outcomes


def start(job: Job, tally: Tally | None = None, *, fault: str = "") -> Any:
    """One session of the job, as a process that exits as the command would; at the fault point ``fault`` it kills itself."""
    return apart(_session, job, tally, fault)


def apart(work: Callable[..., None], *arguments: Any) -> Any:
    """Work, as a process that is started and exits as the work says."""
    sys.stdout.flush()
    process = _FORK.Process(target=work, args=arguments)
    process.start()
    return process


def _session(job: Job, tally: Tally | None, fault: str) -> None:
    faults.aim(fault)

    def make(*arguments: Any) -> Any:
        engine = make_engine(*arguments)
        return engine if tally is None else _Counted(engine, tally)

    try:
        code = run_job(job, make=make).exit_code
    except LlmbatchError as error:
        print(f"{job.output.name}: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:  # a second signal, as the command has it
        code = 130
    sys.exit(code)


def finish(job: Job, tally: Tally | None = None) -> int:
    """Run the job to its end, undisturbed; returns the exit code."""
    process = start(job, tally)
    process.join()
    code: int = process.exitcode
    return code


def end(process: Any, number: int) -> int:
    """Send a signal and wait for the end; returns the exit code, that of a process which was faster as well."""
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        pass
    process.join()
    code: int = process.exitcode
    return code


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run that was disturbed compares with one that was not."""

    lost: int
    doubled: int
    same_bytes: bool
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.same_bytes and not (self.lost or self.doubled or self.problems)


@dataclass(slots=True)
class Counts:
    """What came of runs that were disturbed."""

    runs: int = 0
    lost: int = 0
    doubled: int = 0
    different: int = 0  # runs whose bytes are not those of an undisturbed one
    problems: list[str] = field(default_factory=list)

    def take(self, name: str, verdict: Verdict) -> None:
        self.runs += 1
        self.lost += verdict.lost
        self.doubled += verdict.doubled
        self.different += not verdict.same_bytes
        self.problems += [f"{name}: {problem}" for problem in verdict.problems]


def compare(output: Path, reference: Path, files: Sequence[str]) -> Verdict:
    """Rows, bytes and the audit of a finished run against an undisturbed one.

    ``files`` are those, and the folders, that are to be the same; the first has a line a row.
    """
    ours, theirs = (_indexes(folder / files[0]) for folder in (output, reference))
    same = all(contents(output / name) == contents(reference / name) for name in files)
    report = audit(output)
    problems = tuple(problem for check in report.checks for problem in check.problems)
    if not report.complete:
        problems = problems or (f"not complete: {report.rows_owed} rows owed, {report.pending}",)
    return Verdict(len(set(theirs) - set(ours)), len(ours) - len(set(ours)), same, problems)


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of each file of a folder; nothing where there is neither."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def _indexes(results: Path) -> list[int]:
    return [json.loads(line)["index"] for line in results.read_bytes().splitlines()]


KILLED = -signal.SIGKILL
