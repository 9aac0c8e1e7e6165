"""A scoring script, a folder of files and an output folder in; every file through the script, with Azure's accounting, out.

Finished mini-batches are journalled: the same command again goes on where it was killed, and gives the same bytes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmbatch.azureml.files import Files
from llmbatch.azureml.journal import Counts, Done, Journal, begin, end, tidy
from llmbatch.azureml.launching import identity_of, launch_of, model_of
from llmbatch.azureml.logs import Logs
from llmbatch.azureml.process import Failed, Launch, Ran, ScriptFailed, ScriptProcess
from llmbatch.azureml.thresholds import exceeded
from llmbatch.core import words
from llmbatch.core.errors import FolderError, JobError, LlmbatchError, Stopped
from llmbatch.core.files import atomic_write
from llmbatch.engines.devices import this_machine
from llmbatch.engines.guardian import Guardian
from llmbatch.folder.lock import Lock
from llmbatch.sources.places import is_url
from llmbatch.systems.azure_ml.scoring import Scoring, Script

HIDDEN = ".azureml"
_STARTS = 2  # how often init() is tried where it fails
_SECONDS_BETWEEN_LINES = 10.0
NOTHING_SUCCEEDED = "No succeeded mini batch item returned from run()"


@dataclass(frozen=True, slots=True)
class Scored:
    """How a job ended. ``aborted`` says why it was ended before all was done, or counts as failed; else it is ``None``."""

    output: Path
    file: Path | None
    counts: Counts
    items: int
    mini_batches: int
    aborted: str | None = None

    @property
    def exit_code(self) -> int:
        return 1 if self.aborted else 3 if self.counts.failed_items else 0


def run_scoring(
    scoring: Scoring, source: str, output: Path, *, python: str, say: Callable[[str], None] = lambda _: None
) -> Scored:
    """Run the script over the input. Raises ``UsageError`` before anything is begun, and ``RunError`` where the run breaks.

    A job that fails by Azure's rules is no exception, but a result with ``aborted``; its rows so far are written.
    """
    if scoring.script is None:
        raise JobError(
            f"{scoring.name}: has no scoring script; llmbatch itself answers the rows of its files: "
            "llmbatch run DEPLOYMENT.yml --prompt PROMPT --input FOLDER --output RUN"
        )
    if not is_url(source) and output.absolute().is_relative_to(Path(source).absolute()):
        raise JobError(
            f"{output}: lies in the input, {source}, so that it would be input itself: give another --output"
        )
    files = Files(source, scoring.mini_batch_size)
    if files.hidden:
        say(f"{words.count(files.hidden)} hidden files of the input are left out")
    hidden = output.absolute() / HIDDEN
    file = None if scoring.output_file is None else output.absolute() / scoring.output_file
    model = model_of(scoring)
    ended = begin(hidden, identity_of(scoring, scoring.script, model, files), file)
    lock = Lock(hidden / "lock")
    if (taken := lock.acquire()) is not None:
        say(taken)
    try:
        if ended == "finished":
            return _finished(hidden, output, file, files)
        run = _Run(scoring, scoring.script, files, output.absolute(), file, say)
        with _stoppable(run.stop):
            return run.to_the_end(launch_of(scoring, scoring.script, hidden, python, model), again=ended == "aborted")
    finally:
        lock.release()


def _finished(hidden: Path, output: Path, file: Path | None, files: Files) -> Scored:
    if file is not None and not file.exists():
        raise FolderError(f"{file}: was written, and is gone; remove {hidden} to run the script anew")
    tidy(hidden, whole=True)  # a kill may have come before it
    counts = Counts(**json.loads((hidden / "counts.json").read_bytes()))
    return Scored(output, file, counts, len(files), files.mini_batches)


class _Run:
    """One session over the mini-batches that are not finished: a thread for each process, and one journal."""

    def __init__(
        self,
        scoring: Scoring,
        script: Script,
        files: Files,
        output: Path,
        file: Path | None,
        say: Callable[[str], None],
    ) -> None:
        self.stop = threading.Event()
        self._scoring = scoring
        self._script = script
        self._files = files
        self._output = output
        self._hidden = output / HIDDEN
        self._file = file
        self._say = say
        self._logs = Logs(output)
        self._journal = Journal(self._hidden, files.mini_batches)
        self._counts = Counts()
        self._lock = threading.Lock()
        self._aborted: str | None = None
        self._broken: LlmbatchError | None = None
        self._said = time.monotonic()

    def to_the_end(self, launch: Launch, *, again: bool) -> Scored:
        for done in self._journal.open(again=again):
            self._counts = self._counts.plus(done, self._files.items(done.number))
        if again:
            end(self._hidden, None)
        total = f"{words.count(len(self._files))} files in {words.count(self._files.mini_batches)} mini-batches"
        kept = (
            f", {words.count(self._counts.mini_batches)} of them are done already" if self._counts.mini_batches else ""
        )
        self._tell(f"{total}{kept}")
        self._look_at_thresholds()
        try:
            self._work(launch)
        finally:
            self._journal.close()
        if self._broken is not None:
            raise self._broken
        return self._ended()

    def _work(self, launch: Launch) -> None:
        """Have every mini-batch done, until one of the threads, or a signal, says stop."""
        left = self._left()
        processes = min(self._processes(), self._files.mini_batches - self._counts.mini_batches)
        guardian = Guardian()
        threads = [
            threading.Thread(target=self._worker, args=(number, launch, guardian, left), name=f"process{number:03d}")
            for number in range(processes)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self._broken = self._broken or Stopped("stopped; the same command goes on")
            raise
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
            guardian.close()

    def _processes(self) -> int:
        if self._scoring.processes is not None:
            return self._scoring.processes
        machine = this_machine()
        return 1 if machine.gpus else len(machine.cpus)

    def _left(self) -> Iterator[int]:
        return (n for n in range(self._files.mini_batches) if not self._journal.is_done(n))

    def _worker(self, number: int, launch: Launch, guardian: Guardian, left: Iterator[int]) -> None:
        process = ScriptProcess(number, launch, self._logs, guardian, self.stop)
        try:
            while not self.stop.is_set():
                with self._lock:
                    mini_batch = next(left, None)
                if mini_batch is None:
                    process.end()
                    return
                self._do(mini_batch, number, process)
        except Stopped:
            pass
        except ScriptFailed as error:
            self._abort(str(error))
        except LlmbatchError as error:
            self._break(error)
        except BaseException as error:  # the run must not go on as if this thread were still there
            self._break(LlmbatchError(f"process {number}: {type(error).__name__}: {error}"))
            raise
        finally:
            process.kill()

    def _do(self, mini_batch: int, number: int, process: ScriptProcess) -> None:
        """One mini-batch, tried as often as the deployment says."""
        rows = None if self._file is None else self._hidden / f"process{number:03d}.rows"
        attempts = self._scoring.retries + 1
        with self._files.paths(mini_batch, self._hidden / f"process{number:03d}.input") as paths:
            for attempt in range(1, attempts + 1):
                self._started(process)
                came = process.run(paths, rows)
                if isinstance(came, Ran):
                    break
                what = f"mini-batch {mini_batch}, attempt {attempt} of {attempts}"
                self._logs.failed(number, what, came.error, came.trace)
        items = self._files.items(mini_batch)
        if isinstance(came, Failed):
            done, rows = Done(mini_batch, 0, items, True), None
        else:
            done = Done(mini_batch, came.rows, max(0, items - came.rows), False)
        with self._lock:
            if self.stop.is_set() and self._aborted is not None:
                return  # what ended the job was counted before this one was
            self._journal.add(done, rows)
            self._counts = self._counts.plus(done, items)
            self._look_at_thresholds()
            self._tell_now_and_then()

    @staticmethod
    def _started(process: ScriptProcess) -> None:
        for left in reversed(range(_STARTS)):
            try:
                process.start()
                return
            except ScriptFailed:
                if not left:
                    raise

    def _look_at_thresholds(self) -> None:
        if (why := exceeded(self._scoring.thresholds, self._counts, self._files.mini_batches)) is not None:
            self._abort(why)

    def _abort(self, why: str) -> None:
        self._aborted = self._aborted or why
        self.stop.set()

    def _break(self, error: LlmbatchError) -> None:
        self._broken = self._broken or error
        self.stop.set()

    def _ended(self) -> Scored:
        counts = self._counts
        if self._aborted is None and counts.items and counts.failed_items >= counts.items and not counts.rows:
            self._aborted = f"{NOTHING_SUCCEEDED}: see {self._output / 'logs' / 'user' / 'error.txt'}"
        if self._file is not None:
            self._journal.write_output(self._file)
        outcome = "finished" if self._aborted is None else "aborted"
        atomic_write(self._hidden / "counts.json", json.dumps(counts._asdict()).encode())
        end(self._hidden, outcome)
        tidy(self._hidden, whole=outcome == "finished")
        self._tell(f"{self._standing()}: {outcome}" + ("" if self._aborted is None else f": {self._aborted}"))
        return Scored(self._output, self._file, counts, len(self._files), self._files.mini_batches, self._aborted)

    def _tell(self, line: str) -> None:
        self._logs.progress(line)
        self._say(line)
        self._said = time.monotonic()

    def _tell_now_and_then(self) -> None:
        if time.monotonic() - self._said > _SECONDS_BETWEEN_LINES:
            self._tell(self._standing())

    def _standing(self) -> str:
        counts = self._counts
        return (
            f"{words.count(counts.mini_batches)} of {words.count(self._files.mini_batches)} mini-batches are done, "
            f"{words.count(counts.failed)} failed; {words.count(counts.items)} of {words.count(len(self._files))} items, "
            f"{words.count(counts.failed_items)} failed; {words.count(counts.rows)} rows"
        )


@contextmanager
def _stoppable(stop: threading.Event) -> Iterator[None]:
    """SIGTERM in this block ends it as Ctrl-C does. Raises ``Stopped`` where either came."""
    import signal

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, interrupt) if main else None
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("stopped; what is finished is kept, and the same command goes on") from None
    finally:
        stop.set()
        if main:
            signal.signal(signal.SIGTERM, before)
