"""The Python API: ``run`` for a run folder, ``generate`` for records in a script, both over the same machinery as the command."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from llmbatch.accept.selection import Selection
from llmbatch.core.errors import JobError, LlmbatchError, ReadError, RunError, SourceError, Stopped, UsageError
from llmbatch.core.events import Note, Started, Watcher
from llmbatch.core.files import atomic_write
from llmbatch.core.notebook import bar, records_html
from llmbatch.core.record import record_from_dict
from llmbatch.core.types import Record, Status
from llmbatch.core.words import quote, short
from llmbatch.engines.base import EngineFactory
from llmbatch.engines.kinds import make_engine
from llmbatch.folder.folder import ACCEPTED, RESULTS, RunFolder, read_results
from llmbatch.folder.input_copy import KEPT, keep
from llmbatch.job.job import Job, job_from, job_of
from llmbatch.job.sweep import SweepSettings
from llmbatch.job.swept import recipe_of
from llmbatch.programs.base import Shape
from llmbatch.programs.given import name_of_given
from llmbatch.publishing.hub import check_name, push
from llmbatch.publishing.publish import Published, settings_from
from llmbatch.publishing.publish import publish as make_dataset
from llmbatch.report.report import Report
from llmbatch.report.summary import headline
from llmbatch.runs.in_order import InOrder
from llmbatch.runs.session import open_session, run_job
from llmbatch.runs.sweep_size import sweep_size
from llmbatch.sources.rows import plain
from llmbatch.watch.watching import seen_by

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

_SHOWN = 5  # records, by a notebook

Model = TypeVar("Model", bound=BaseModel)
Rows = Iterable[Mapping[str, Any]]
"""Rows in memory: a list, a generator, a ``datasets.Dataset``. Dates become ISO 8601, bytes and decimals text, NaN null."""
AProgram = Shape | str | Mapping[str, Any]
"""By which steps a row is done: a generator function, the name or import path of a program, a ``program`` section with either."""
Schema = type[BaseModel] | Mapping[str, Any] | str | Path
"""What an answer must be: a pydantic model, a JSON Schema, or the path of either (``schema.json``, ``module:Model``)."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that came to an end: iterate it for its records, in input order.

    ``report`` is the content of ``report.json``, ``exit_code`` that of the command: 0 every row ok, 3 some rows not, 130 stopped.
    """

    folder: Path
    report: Report = field(repr=False)
    exit_code: int

    def _repr_html_(self) -> str:
        """What a notebook shows of it: how it ended, and its first records."""
        rows = self.report["rows"]
        said = f"<div><b>{escape(headline(self.report))}</b> in {escape(str(self.folder))}</div>"
        first = records_html(islice(self, _SHOWN)) if self.report["outcome"] == "finished" else ""
        return said + bar(rows["by_status"], rows["total"] or rows["done"]) + first

    def __iter__(self) -> Iterator[Record]:
        """Every record. Raises ``RunError`` where the run was stopped before all were there."""
        if self.report["outcome"] != "finished":
            why = self.report["error"] or "it was stopped"
            raise RunError(
                f"{self.folder}: the run did not finish, so there are no results yet: {why}; the same call goes on from here"
            )
        yield from read_results(self.folder)

    def accepted(self) -> Iterator[Record]:
        """The accepted records, in input order, of a job that says which are accepted. Raises as iterating does."""
        next(iter(self), None)
        yield from read_results(self.folder, ACCEPTED)

    def parsed(self, model: type[Model]) -> Iterator[Model | None]:
        """Each row's output as an object of a pydantic model; ``None`` for a row that is not ok.

        Raises pydantic's ``ValidationError`` where the model asks for more than the schema that the answers were checked against.
        """
        for record in self:
            yield model.model_validate(record.output) if record.status is Status.OK else None

    def vectors(self) -> Iterator[np.ndarray[Any, np.dtype[np.float32]] | None]:
        """Each row's vector, of a run of ``embed``; ``None`` for a row that is not ok. Raises as iterating does."""
        import numpy as np

        for record in self:
            yield np.asarray(record.output, np.float32) if record.status is Status.OK else None

    def to_dataset(self) -> Dataset:
        """The results as a ``datasets.Dataset``, a row a record, with the columns of ``results.parquet``.

        That file is written where it is not there, or is older than the results, or of an older llmbatch and has fewer columns; it
        is given as it is where the folder cannot be written. Raises as iterating does, and ``WriteError``.
        """
        with warnings.catch_warnings():  # in a notebook tqdm asks for a widget library, and no bar is shown here
            warnings.filterwarnings("ignore", "IProgress not found")
            from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

        from llmbatch.folder.records import part_lines
        from llmbatch.sinks.base import dimensions_of
        from llmbatch.sinks.parquet import VERSION, version_of, write_table

        next(iter(self), None)
        results, path = self.folder / RESULTS, self.folder / "results.parquet"
        old = not path.exists() or path.stat().st_mtime_ns < results.stat().st_mtime_ns
        if old or (version_of(path) < VERSION and os.access(self.folder, os.W_OK)):
            dimensions = dimensions_of(part_lines([results])) if _gives_vectors(self.folder) else None
            write_table(part_lines([results]), path, dimensions)
        shown = not are_progress_bars_disabled()
        disable_progress_bars()  # of a copy of a file that is there already
        try:
            dataset: Dataset = Dataset.from_parquet(str(path))
        finally:
            if shown:
                enable_progress_bars()
        return dataset


def run(
    *,
    model: str | Path,
    input: str | Path | Mapping[str, Any] | Rows,
    output: str | Path,
    prompt: str | Path | Mapping[str, Any] | None = None,
    program: AProgram | None = None,
    schema: Schema | None = None,
    watchers: Sequence[Watcher] | None = None,
    extend: bool = False,
    **sections: Mapping[str, Any],
) -> Run:
    """Run a job into a folder, or go on with it; the arguments are those of a job file, ``sections`` its other sections.

    ``input`` is a path, an ``input`` section, or rows, which are first written into the run folder, so that the run can be resumed
    with the same rows. ``program`` may be a generator function of your own, of a script or a notebook too; then the same call goes
    on with the run as long as its source is the same. ``schema`` is short for ``answer={"schema": ...}``. ``extend`` accepts an
    input that has grown since. In a notebook the run shows how far it is, unless ``watchers`` say otherwise (``[]``: nothing).

        run = llmbatch.run(model="demo", prompt="translate", input=[{"text": "two"}], output="out", retry={"max_attempts": 2})

    A row that fails is data: see each record's ``status``. Raises ``UsageError`` for what is wrong with the job, before a model is
    loaded wherever that can be known by then, and ``RunError`` where the run broke; the same call goes on with it.
    """
    in_memory = {"path": str(Path(output).expanduser() / KEPT), "format": "jsonl"}
    section = input if isinstance(input, str | Path | Mapping) else in_memory
    given = {"model": model, "prompt": prompt, "program": program}
    job = job_given({**given, "input": section, "output": output, **sections}, schema)
    with seen_by(watchers) as watching:
        if not isinstance(input, str | Path | Mapping):
            return run_rows(input, job, watching, extend=extend)
        return _run(job, watching, extend, make_engine)


def generate(
    rows: Rows,
    *,
    model: str | Path,
    prompt: str | Path | Mapping[str, Any] | None = None,
    program: AProgram | None = None,
    schema: Schema | None = None,
    watchers: Sequence[Watcher] | None = None,
    **sections: Mapping[str, Any],
) -> Generator[Record, None, None]:
    """Records for rows, in the rows' order, a window at a time; nothing is left on disk. Arguments as those of ``run``.

    Where the job says which rows are accepted (``accept={"rows": 100, "when": ...}``), only the accepted records come.

        for record in llmbatch.generate([{"text": "two"}], model="demo", prompt="translate"): ...

    The rows are read to their end first, into a temporary folder. The engine is ended with the iterator, be it exhausted, closed or
    abandoned. Raises ``UsageError`` at once for what is wrong with the job; taking records raises ``RunError`` as ``run`` does, and
    ``Stopped`` where a signal or a budget stopped it.

    It works where an event loop runs, as in a notebook; a coroutine that is not to wait for it gives it to a thread:
    ``await asyncio.to_thread(list, llmbatch.generate(...))``.
    """
    input = {"format": "jsonl", **sections.pop("input", {}), "path": KEPT}
    given = {"model": model, "prompt": prompt, "program": program}
    job = job_given({**given, **sections, "input": input, "output": "run"}, schema)
    return _watched(rows, job, watchers, program)


def _watched(
    rows: Rows, job: Job, watchers: Sequence[Watcher] | None, program: AProgram | None
) -> Generator[Record, None, None]:
    with seen_by(watchers) as watching:
        told = watching if watchers is not None else [_without_folder(each) for each in watching]
        yield from generate_job(rows, job, told, program)


def _without_folder(watcher: Watcher) -> Watcher:
    """The same watcher, which is not told of a folder that is gone when it is over."""
    return lambda event: None if isinstance(event, Started) else watcher(event)


def _gives_vectors(folder: Path) -> bool:
    """Whether outputs are vectors, as far as the run's job still tells: its prompt or program need not be there any more."""
    try:
        return recipe_of(job_of(folder)).gives_vectors
    except UsageError:
        return False


def publish(
    runs: Run | str | Path | Sequence[Run | str | Path],
    output: str | Path,
    *,
    push_to: str | None = None,
    private: bool | None = None,
    **settings: Any,
) -> Published:
    """Make a dataset of finished runs: a folder with a card, for ``datasets.load_dataset``, and the same on the hub if asked for.

    ``settings`` are the options of ``llmbatch publish``, with ``_`` for ``-``; those that can be repeated take a list, ``split`` a
    mapping, and ``input=False`` is ``--no-input``. The folder is written whole or not at all, and takes the place of an earlier
    publication.

        llmbatch.publish("answers", "dataset", where="output.score >= 4", split={"test": 0.1}, license="apache-2.0")

    Raises ``UsageError`` for what is wrong with the settings or fits no row, and ``RunError`` where there is nothing to publish, or
    the hub would not take it: then the folder is whole all the same.
    """
    several = [runs] if isinstance(runs, Run | str | Path) else runs
    folders = [run.folder if isinstance(run, Run) else Path(run).expanduser() for run in several]
    if push_to is not None:
        check_name(push_to)
    done = make_dataset(folders, Path(output), settings_from(settings))
    return done if push_to is None else replace(done, url=push(done.folder, push_to, private=private))


def generate_job(
    rows: Rows,
    job: Job,
    watchers: Sequence[Watcher],
    _program: AProgram | None = None,
    make: EngineFactory = make_engine,
) -> Generator[Record, None, None]:
    """Records for rows, as ``generate`` gives them, by a job that has all but its input.

    A program that is known by its name alone is there as long as somebody has it: this does, to its end.
    """
    with tempfile.TemporaryDirectory(prefix="llmbatch-") as name:
        folder = Path(name) / "run"
        folder.mkdir()
        path = folder / KEPT
        atomic_write(path, _lines(rows))
        _see_rows(path)
        order = "input" if job.run.order == "input" else "window"  # rows are given out as they come
        run = job.run.model_copy(update={"page": False, "order": order})  # nobody ever sees this folder
        here = {"output": folder, "input": job.input.model_copy(update={"path": str(path)}), "run": run}
        ordered = InOrder(RunFolder(folder).parts)
        selection = None if job.accept is None else Selection(job.accept)
        with open_session(job.model_copy(update=here), watchers, make=make) as session, contextlib.ExitStack() as stack:
            windows = session.windows()
            if isinstance(windows, Generator):
                stack.callback(windows.close)  # the engine goes before the folder's lock
            for window in windows:
                ordered.add(window)
                del window  # it is sealed while the caller looks at the records
                for line in ordered.lines():
                    record = record_from_dict(json.loads(line))
                    if selection is None or selection.accepts(record):
                        yield record
            result = session.result()
        if result.outcome != "finished":
            raise Stopped(result.report["error"] or "the run was stopped")


def run_rows(
    rows: Rows,
    job: Job,
    watchers: Sequence[Watcher] = (),
    *,
    extend: bool = False,
    make: EngineFactory = make_engine,
) -> Run:
    """A run on rows in memory, as ``run`` has it, by a job that has all but its input."""
    input = job.input.model_copy(update={"path": str(job.output / KEPT)})
    _keep_rows(rows, job.output, extend)
    return _run(job.model_copy(update={"input": input}), watchers, extend, make)


def _run(job: Job, watchers: Sequence[Watcher], extend: bool, make: EngineFactory) -> Run:
    if job.sweep is not None:
        _see_size(job, job.sweep, watchers)
    result = run_job(job, watchers, extend=extend, make=make)
    return Run(result.folder, result.report, result.exit_code)


def job_given(data: Mapping[str, Any], schema: Schema | None) -> Job:
    """The job, with all that can be wrong about it found. A program that is a function has a name in it. Raises ``UsageError``."""
    data = {key: value for key, value in data.items() if value is not None}
    if "program" in data:
        data["program"] = _program(data["program"])
    if schema is not None:
        answer = data.get("answer", {})
        if not isinstance(answer, Mapping):
            raise JobError(f"answer: is a mapping of settings, not {short(answer)}")
        data["answer"] = {**answer, "schema": _schema(schema)}
    job = job_from(data)
    recipe_of(job)
    return job


def _program(program: AProgram) -> Any:
    """The section of a program, in which a function has a name."""
    if isinstance(program, str):
        return {"name": program}
    if not isinstance(program, Mapping):
        return {"name": name_of_given(program)}
    name = program.get("name")
    return {**program, "name": name_of_given(name)} if callable(name) else program


def _see_size(job: Job, sweep: SweepSettings, watchers: Sequence[Watcher]) -> None:
    """Tell how many rows a sweep makes. Raises ``UsageError`` for more than it allows itself."""
    size = sweep_size(job, sweep)
    if size.too_large is not None:
        raise UsageError(f"{size.said}; {size.too_large}: raise that, or take some values out of the sweep")
    for watcher in watchers:
        watcher(Note("info", size.said))


def _schema(schema: Schema) -> Any:
    """A pydantic model by its import path, where it has one: then its own validators judge the answers too."""
    if isinstance(schema, BaseModel):
        raise JobError(f"schema: is a pydantic model, and not an object of one: schema={type(schema).__name__}")
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return schema
    found: Any = sys.modules.get(schema.__module__) if schema.__module__ != "__main__" else None
    for name in schema.__qualname__.split("."):
        found = getattr(found, name, None)
    return f"{schema.__module__}:{schema.__qualname__}" if found is schema else schema.model_json_schema()


def _keep_rows(rows: Rows, output: Path, extend: bool) -> None:
    """Put the rows into the run folder, from where the run reads them. Raises ``JobError`` where it holds a run on other rows."""

    def refusal(grown: bool) -> JobError:
        if grown:
            return JobError(
                f"{output}: the rows are those of the run and more; give extend=True to run the new ones too"
            )
        return JobError(f"{output}: holds other rows in {KEPT}; give the same rows, or another output")

    folder = RunFolder(output)
    folder.open()
    try:
        keep(folder, _lines(rows), extend=extend, check=_see_rows, refusal=refusal)
    finally:
        folder.close()


def _lines(rows: Rows) -> Iterator[bytes]:
    """The rows as JSON lines. One that JSON cannot hold becomes a line that says why, and so a row that is malformed."""
    kind = type(rows)
    if isinstance(rows, str | bytes | Path | Mapping) or not isinstance(rows, Iterable):
        raise JobError(
            f"rows are mappings, one a row, not a {kind.__name__}: give a list of them, as [{{'text': 'two'}}]; a file with rows "
            "is the input of llmbatch.run"
        )
    if kind.__name__ == "DataFrame" and (library := kind.__module__.partition(".")[0]) in ("pandas", "polars"):
        # iterating it gives the names of its columns
        raise JobError(
            f"rows are mappings, not a {kind.__name__}: import llmbatch.{library}, and call df.llmbatch.run(...)"
        )
    if isinstance(rows, Sequence) and rows and all(isinstance(row, str) for row in rows):
        raise JobError(
            f"rows are mappings, one a row, and all of these are texts, as {quote(rows[0])}: give "
            "[{'text': text} for text in texts], and a prompt with {{ text }}"
        )
    return map(_line, _read(rows))


def _see_rows(path: Path) -> None:
    if not path.stat().st_size:
        raise SourceError("there are no rows in the input: give at least one")


def _read(rows: Rows) -> Iterator[Any]:
    try:
        yield from rows
    except LlmbatchError:
        raise
    except OSError as error:  # not to be taken for one of writing
        raise ReadError(f"reading the rows failed: {error}") from error


def _line(row: Any) -> bytes:
    try:
        if isinstance(row, ValueError):  # of a table's row that could not be read
            raise row
        return json.dumps(plain(row), ensure_ascii=False).encode() + b"\n"
    except ValueError as error:
        return json.dumps(str(error)).encode() + b"\n"


__all__ = ["Published", "Run", "generate", "publish", "run"]
