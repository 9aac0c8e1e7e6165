"""A finished run in, the same run with its rows that are not ok tried again, with other settings if given.

The rows run in a folder of their own, ``retries/001``, which is a run folder like any other: it can be stopped and resumed. When it
is finished, its records are laid over the run's, see ``retried.py``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbatch.audit.rows import same_names
from llmbatch.core.errors import FolderError, JobError
from llmbatch.core.events import Note, Watcher
from llmbatch.core.files import atomic_write
from llmbatch.engines.base import EngineFactory, make_engine
from llmbatch.folder.folder import Manifest, RunFolder, read_manifest
from llmbatch.folder.input import check_input, open_input
from llmbatch.folder.overlay import all_retries, finished_retries
from llmbatch.folder.parts import Parts
from llmbatch.job.identity import identity_of
from llmbatch.job.job import Job, job_from, load_job_data
from llmbatch.job.recipe import Recipe
from llmbatch.report.report import Report
from llmbatch.run.finish import take_over
from llmbatch.run.session import RunResult, run_job
from llmbatch.sinks.base import Origin

_FIXED = (("input",), ("output",), ("run", "rows"))
"""What a retry has from its run and nobody else."""


def retry_failed(
    folder: Path, overrides: Mapping[str, Any], watchers: Sequence[Watcher] = (), *, make: EngineFactory = make_engine
) -> RunResult:
    """Run the rows of a finished run that are not ok again. ``overrides`` are job sections laid over those of its job.

    An earlier retry that was interrupted is gone on with, if the settings are the same. Raises as ``run_job`` does, and
    ``FolderError`` for a folder without results.
    """
    manifest = read_manifest(folder)
    if manifest is None or not (folder / "results.jsonl").exists() or not (folder / "errors.jsonl").exists():
        raise FolderError(
            f"{folder}: there are no results yet to try again; finish the run first (the same llmbatch run command)"
        )
    base = own_job(folder)
    job = _with(folder, overrides)
    with _held(folder, watchers):
        path = _unfinished(folder, base, manifest, job) or _new_retry(folder)
        if path is None:
            return _nothing_to_do(folder, watchers)
        _check_input(folder, base, manifest)
        result = run_job(_job_in(job, path), watchers, make=make)
        if result.outcome != "finished":
            return result
        report = _take_over(folder, base, manifest, path)
    return RunResult(folder, "finished", report, report["exit_code"])


def own_job(folder: Path) -> Job:
    """The job of a run folder, as it is written there; its input from stdin is the copy in the folder."""
    job = job_from(load_job_data(folder / "job.yaml"))
    if job.input.path != "-":
        return job
    copy = {"path": str((folder / "input.jsonl").absolute()), "format": job.input.format or "jsonl"}
    return job.model_copy(update={"input": job.input.model_copy(update=copy)})


def _with(folder: Path, overrides: Mapping[str, Any]) -> Job:
    for place in _FIXED:
        holder: Any = overrides
        for key in place:
            holder = holder.get(key) if isinstance(holder, Mapping) else None
        if holder is not None:
            raise JobError(f"{'.'.join(place)}: a retry runs the rows of {folder} from its own input: leave it out")
    job = job_from(_merge(own_job(folder).data(), overrides))
    Recipe(job)
    return job


@contextlib.contextmanager
def _held(folder: Path, watchers: Sequence[Watcher]) -> Iterator[None]:
    lock = RunFolder(folder)
    taken = lock.open()
    try:
        for watcher in watchers if taken else ():
            watcher(Note("warning", str(taken)))
        yield
    finally:
        lock.close()


def _take_over(folder: Path, base: Job, manifest: Manifest, retry: Path) -> Report:
    samples = Recipe(base).samples if base.sinks.formats else 1
    origin = Origin(base.model, int(manifest.created), samples=samples)
    report = take_over(folder, base.sinks, origin, [*finished_retries(folder), retry])
    atomic_write(retry / "done", b"")
    return report


def _unfinished(folder: Path, base: Job, manifest: Manifest, job: Job) -> Path | None:
    """The last retry, where it was interrupted and has the same settings.

    One with other settings is taken over if only that is missing. Raises ``FolderError`` where rows of it are still to be run.
    """
    path = next(reversed(all_retries(folder)), None)
    if path is None or (path / "done").exists():
        return None
    begun = read_manifest(path)
    if begun is None or not any(Parts(path / "parts").scan()):
        return None  # nothing of it was done yet
    retry = _job_in(job, path)
    now = {**identity_of(retry), **Recipe(retry).identity()}
    if not (changed := begun.changes(now)):
        return path
    if begun.sessions[-1]["outcome"] != "finished":
        raise FolderError(
            f"{path}: an earlier retry with other settings is not finished; they differ in {', '.join(changed)}. "
            f"Give its settings to go on with it (they are in its job.yaml), or remove {path}"
        )
    _take_over(folder, base, manifest, path)
    return None


def _new_retry(folder: Path) -> Path | None:
    """A folder for a retry, with the indexes of its rows beside it; ``None`` where every row is ok."""
    rows = list(_rows_not_ok(folder / "errors.jsonl"))
    if not rows:
        return None
    finished = finished_retries(folder)
    path = folder / "retries" / f"{1 + int(finished[-1].name) if finished else 1:03d}"
    path.mkdir(parents=True, exist_ok=True)
    atomic_write(path.with_suffix(".rows"), ("\n".join(map(str, rows)) + "\n").encode())
    return path


def _job_in(job: Job, path: Path) -> Job:
    return job.model_copy(
        update={
            "output": path,
            "run": job.run.model_copy(update={"rows": path.with_suffix(".rows").absolute()}),
            "sinks": job.sinks.model_copy(update={"formats": ()}),
        }
    )


def _check_input(folder: Path, base: Job, manifest: Manifest) -> None:
    """The rows are found by their index, so the input must be what it was. Raises ``InputChanged``."""
    source = open_input(base.input, folder, sys.stdin.buffer)
    parts = Parts(folder / "parts")
    windows = [(meta.bounds, meta.input_sha256) for meta in map(parts.meta, sorted(parts.scan()[0]))]
    check_input(source, same_names(manifest.fingerprint, source.fingerprint()), windows, extend=True)


def _rows_not_ok(errors: Path) -> Iterator[int]:
    try:
        with errors.open("rb") as file:
            for line in file:
                yield int(json.loads(line)["index"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{errors}: cannot be read: {error!r}; see llmbatch audit") from error


def _nothing_to_do(folder: Path, watchers: Sequence[Watcher]) -> RunResult:
    path = folder / "report.json"
    try:
        report: Report = json.loads(path.read_bytes())
        code = report["exit_code"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: cannot be read: {error!r}; see llmbatch audit") from error
    for watcher in watchers:
        watcher(Note("info", f"{folder}: every row is ok, nothing is to be tried again"))
    return RunResult(folder, "finished", report, code)


def _merge(data: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested data with other nested data laid over it."""
    merged = dict(data)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


__all__ = ["own_job", "retry_failed"]
