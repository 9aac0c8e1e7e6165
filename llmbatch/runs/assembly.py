"""The one place where the rooms meet: a job, its folder and its source in; all that takes part in one session of its run out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from llmbatch import __version__
from llmbatch.accept.similar import BYTES
from llmbatch.core.errors import JobError, RunError
from llmbatch.core.events import EngineReady, Event, Note, Snapshot, Started, Watcher
from llmbatch.core.files import atomic_write
from llmbatch.engines.base import Driver, EngineFactory, EngineInfo, SharedDriver
from llmbatch.engines.chosen import Chosen
from llmbatch.engines.kinds import is_hosted
from llmbatch.engines.making import Maker
from llmbatch.engines.replicas import drive
from llmbatch.engines.settings import EngineSettings
from llmbatch.folder.folder import JOB_FILE, RunFolder
from llmbatch.folder.ordered import Coming, Ordered
from llmbatch.folder.progress import PROGRESS, write_progress
from llmbatch.job.job import Job
from llmbatch.job.prepare import Preparer
from llmbatch.job.recipe import Recipe, engine_of, see_engine
from llmbatch.job.run_settings import RunSettings
from llmbatch.programs.given import is_given
from llmbatch.report.report import AcceptCounts, NoteReport
from llmbatch.reuse.memory import Reuse
from llmbatch.runs.brakes import Brakes, Stop
from llmbatch.runs.budget import Budget, gpus_of, spent_by
from llmbatch.runs.filling import Filling
from llmbatch.runs.finish import accept_counts
from llmbatch.runs.governor import Governor
from llmbatch.runs.guessing import Guessing
from llmbatch.runs.held_to import HeldTo
from llmbatch.runs.history import History
from llmbatch.runs.latest import Latest
from llmbatch.runs.loop import Elsewhere, Loop
from llmbatch.runs.meter import Meter
from llmbatch.runs.ordering import in_order
from llmbatch.runs.pacing import Pace, Pacing
from llmbatch.runs.process import stopped_by_signals
from llmbatch.runs.read_ahead import ReadAhead
from llmbatch.runs.reading import Reading
from llmbatch.runs.resume import Left
from llmbatch.runs.row_messages import Begin
from llmbatch.runs.row_workers import RowWorkers
from llmbatch.runs.tuning import Tuner
from llmbatch.runs.window import OpenWindow
from llmbatch.runs.writer import Writer
from llmbatch.sources.base import Source
from llmbatch.sources.shard import Shard

_ORDERED = 4  # so many times smaller are windows of an order of the corpus
_AHEAD = 1  # windows that are planned before the loop has room for them
_MUCH = 256 << 20  # bytes
_CRASHES = 2  # sessions in a row that were killed without getting anywhere, before the engine is put apart


class Told:
    """Passes events on to the watchers; keeps the notes for the report, and where the run stands for ``llmbatch status``.

    May be told from any thread: the others wait.
    """

    def __init__(self, watchers: Sequence[Watcher], folder: Path) -> None:
        self._lock = threading.RLock()
        self._watchers = watchers
        self._folder = folder
        self.notes: list[NoteReport] = []
        self._latest = Latest()
        self._history = History(folder, self._latest)

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Note):
                self.notes.append({"level": event.level, "message": event.message})
            elif isinstance(event, Snapshot):
                self._latest.put(PROGRESS, lambda: write_progress(self._folder, event))
            self._history(event)
            for watcher in self._watchers:
                watcher(event)

    def ended(self, outcome: str) -> None:
        """The session came to its end: the files that show where it stands are written when this returns. Raises ``WriteError``."""
        self._history.close(outcome)
        self._latest.flush()

    def close(self) -> None:
        """Nothing more is written."""
        self._latest.close()


class How(NamedTuple):
    """How a session goes about its job, as ``run_job`` is told."""

    extend: bool
    make: EngineFactory
    stop: Stop
    pace: Pace | None
    again: bool
    driver: SharedDriver | None


class Assembly:
    """All that takes part in one session, put together. Making it begins the session in the run's manifest."""

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        source: Source,
        recipe: Recipe,
        left: Left,
        tell: Told,
        how: How,
    ) -> None:
        self.left = left
        self.tuner: Tuner | None = None
        self._job = job
        self._folder = folder
        self._recipe = recipe
        self._tell = tell
        self._stop = how.stop
        self._said_unknown = False
        self._guessing = Guessing(folder, tell)
        self._source = source = in_order(
            job, folder, source, recipe, left.identity, tell, lambda: self.driver.info, paced=how.pace is not None
        )
        self._run = _windowed(job.run, source)
        # made first: what is wrong with its settings is said before anything is begun
        settings, apart = self._engines(engine_of(job, recipe), how, left.crashes)
        self._governor = _pacing(job, recipe, self.driver, how.pace, settings.engines)
        self.budget = Budget(job.run, gpus := gpus_of(settings), spent_by(folder.sessions, folder.path, gpus))
        self._held_to = HeldTo(job, folder, left.identity, tell)
        try:
            self.number = folder.begin_session(left.identity, left.fingerprint, left.done)
        except BaseException:
            self._held_to.close()
            raise
        atomic_write(folder.path / JOB_FILE, job.to_yaml(folder.path).encode())
        tell(Started(folder.path, left.rows, self.number))
        if apart:
            tell(
                Note(
                    "warning",
                    f"the last {left.crashes} sessions were killed before they finished a row: the engine now runs in a process of "
                    "its own, so that a row that kills it can be found and set apart",
                )
            )
        if (unique := _memory_of_unique(job)) is not None:
            tell(Note("info", unique))
        self._held_to.begin()
        self.writer = Writer(folder.parts, job.run.commit_seconds)
        rows, part = _row_indexes(job.run.rows), job.input.slice
        self.meter = Meter(
            source, self.driver, tell,
            sealed=left.ledger, journals=left.journals, last=left.last, rows=None if rows is None else len(rows),
            slices=1 if job.input.shard is None else Shard.named(job.input.shard).of, governor=self._governor,
        )  # fmt: skip
        cache = self._held_to.cache
        preparer = Preparer(recipe, job.plan_in_use, self.driver.tokenize, self._context_length)
        cached = None if cache is None else cache.get
        in_blocks = rows is None and part is not None
        self._workers = self._row_workers()
        reading = Reading(
            source, Filling(preparer, self.driver, job.plan, cached), folder.parts, self._run, part if in_blocks else rows,
            in_blocks, self._governor, self._workers,
        )  # fmt: skip
        self._windows = ReadAhead(reading.windows(left.resume), _AHEAD)
        if isinstance(source, Coming) and cached is None:
            self.driver.need()  # it starts while the order is made; with a cache it may not be needed
        reuse = Reuse(job.reuse, None if cache is None else cache.put)
        brakes = Brakes(job.run, self.budget, how.stop, tell, self._governor)
        elsewhere = None if self._workers is None else Elsewhere(self._workers, reading.works_of)
        self._loop = Loop(
            self._windows, preparer, self.driver, self.writer, reuse, brakes, self.meter, job.run, tell, elsewhere
        )

    def _engines(self, engine: EngineSettings, how: How, crashes: int) -> tuple[EngineSettings, bool]:
        """Set the driver; returns the settings of its engines, and whether they are put apart from this process after crashes."""
        job = self._job
        self.driver: Driver
        if how.driver is not None:
            if job.run.autotune:
                raise JobError(
                    "run.autotune: the engine is shared with others and runs already, so it cannot be tuned: leave it out"
                )
            how.driver.hear(self._hear)
            self.driver = how.driver
            return engine, False
        make = Maker(
            job.model_path, engine, job.chat, self._folder.path, make=how.make, expect=self._recipe.constraints
        )
        settings = make.settings
        here = gpus_of(settings).number > 0  # one behind a server kills no session
        apart = here and crashes >= _CRASHES and settings.in_process is not False and not is_hosted(settings)
        if apart:
            settings = settings.model_copy(update={"in_process": False})

        def driver_of(settings: EngineSettings) -> Driver:
            return drive(make, self._guessing.settings(settings), tell=self._hear, more=make.more)

        if job.run.autotune:
            path = self._folder.path / "autotune.json"
            self.tuner = Tuner(job, self._source, path, make, lambda said: self._tell(Note("info", said)))
            self.driver = Chosen(driver_of, settings, self.tuner)
        else:
            self.driver = driver_of(settings)
        return settings, apart

    @contextlib.contextmanager
    def going(self) -> Iterator[Iterator[list[OpenWindow]]]:
        """The run, as long as it goes on. Ended in reverse: the engine first, the writer last, when nobody gives it work."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.writer.close)
            stack.callback(self._held_to.close)
            stack.callback(self._windows.stop)
            if self._workers is not None:
                stack.callback(self._workers.stop)
            if isinstance(self._source, Coming):
                stack.callback(self._source.give_up)
            if self._governor is not None:
                stack.callback(self._governor.stop)
            stack.callback(self.driver.stop)
            stack.enter_context(stopped_by_signals(self._stop, self.driver))
            yield stack.enter_context(contextlib.closing(self._loop.steps()))

    def accept_counts(self) -> AcceptCounts | None:
        """What was decided about candidates, where the number of accepted rows ends the run."""
        if not isinstance(self._governor, Governor) or self._job.accept is None:
            return None
        return accept_counts(self._job.accept, self._governor.decided)

    def _row_workers(self) -> RowWorkers | None:
        """The processes that rows are worked on in, where the job asks for them and it can be had in them."""
        job, count = self._job, self._job.run.workers
        if not count:
            return None
        if why := _why_no_workers(job, self._governor, cached=self._held_to.cache is not None):
            self._tell(Note("info", f"run.workers: rows are worked on in this process, as {why}"))
            return None
        data = job.data()
        data["input"].pop("strict", None)  # that was seen already
        data["run"] = self._run.model_dump(mode="json", exclude_defaults=True, by_alias=True)
        log = self._folder.path / "row-workers.log"
        begin = Begin(
            __version__,
            data,
            self._recipe.identity(),
            str(self._folder.path.absolute()),
            str(log),
            self._held_to.context_length,
        )
        return RowWorkers(count, begin, log, self.driver, self._tell)

    def _context_length(self) -> int | None:
        """Where the cache knows it, no engine is started to ask for it: all that is asked may be in the cache."""
        known = self._held_to.context_length
        return self.driver.wait_ready().context_length if known is None else known

    def _hear(self, event: Event) -> None:
        """Pass on what the engine's supervision says; an engine that is up is looked at before it answers anything."""
        if isinstance(event, EngineReady) and self.driver.info is not None:
            see_engine(self.driver.info, self._recipe)
            self._held_to.engine_is_up(self.driver.info if self.tuner is None else self.tuner.settled(self.driver.info))
        self._tell(event)
        if isinstance(event, EngineReady) and self.driver.info is not None:
            self._guessing.see(self.driver.speculation())
            self._say_what_cannot_be_known(self.driver.info)

    def _say_what_cannot_be_known(self, info: EngineInfo) -> None:
        mode, said = self._job.plan.overflow, self._said_unknown
        self._said_unknown = True  # once, and not after each death
        if not said and mode != "error" and (info.context_length is None or "ids" not in info.can):
            lacks = "how long its context is" if info.context_length is None else "a prompt's token ids"
            self._tell(
                Note(
                    "warning",
                    f"plan.overflow={mode} has no effect: the engine does not tell {lacks}, so what fits cannot be known before it "
                    "is asked, and what it refuses as too long fails",
                )
            )


def _pacing(job: Job, recipe: Recipe, driver: Driver, pace: Pace | None, engines: int) -> Pacing | None:

    def slots() -> int | None:
        if (info := driver.info) is None:
            return None
        requests = (job.engine.in_flight or 2 * info.max_num_seqs) * engines
        return max(1, requests // recipe.requests_a_row)

    if pace is not None:
        return pace(job.run, slots)
    if job.accept is None or job.accept.rows is None:
        return None
    return Governor(job.accept, job.run, slots, job.input.repeat or 1)


def _windowed(run: RunSettings, source: Source) -> RunSettings:
    """The settings, with smaller windows where all of the corpus is in order.

    There rows that share something stand together, however small the windows; and so do long texts, which take much memory.
    """
    if not isinstance(source, Coming | Ordered):
        return run
    return run.model_copy(update={"window_characters": max(1, run.window_characters // _ORDERED)})


def _why_no_workers(job: Job, governor: Pacing | None, *, cached: bool) -> str:
    if governor is not None:
        return "the run may end before its input, by what came until then"
    if cached:
        return "answers of earlier runs are looked up (reuse.cache)"
    if is_given(job.program.name):
        return "its program was given in Python, and cannot be imported elsewhere"
    return ""


def _memory_of_unique(job: Job) -> str | None:
    """What comparing with the accepted rows takes, where that is worth a word."""
    accept = job.accept
    if accept is None or accept.rows is None or accept.unique is None or accept.rows * BYTES < _MUCH:
        return None
    mib = accept.rows * BYTES / 2**20
    return (
        f"accept.unique: to find near-duplicates of {accept.rows:,} accepted rows takes up to {mib:,.0f} MiB of memory"
    )


def _row_indexes(path: Path | None) -> frozenset[int] | None:
    if path is None:
        return None
    try:
        return frozenset(int(line) for line in path.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: is to hold a row index a line: {error}") from error


__all__ = ["Assembly", "How", "Told"]
