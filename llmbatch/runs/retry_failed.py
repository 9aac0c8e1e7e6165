"""A finished run in, the same run with its rows that are not ok tried again, with other settings if given.

The rows run in a folder of their own, ``retries/001``, which is a run folder like any other: it can be stopped and resumed. When it
is finished, its records are laid over the run's, see ``folder/overlay.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError, JobError
from llmbatch.core.events import Note, Watcher
from llmbatch.core.files import atomic_write
from llmbatch.core.merge import merged
from llmbatch.engines.base import EngineFactory
from llmbatch.engines.kinds import make_engine
from llmbatch.folder.folder import (
    ENGINE_VERSION,
    ERRORS,
    RESULTS,
    Manifest,
    RunFolder,
    begun_run,
    changes_in_words,
    read_manifest,
    read_report,
)
from llmbatch.folder.input import check_input, kept_input, same_names
from llmbatch.folder.ordered import read_by
from llmbatch.folder.overlay import all_retries, finished_retries
from llmbatch.folder.records import index_of
from llmbatch.job.identity import identity_of, model_identity
from llmbatch.job.job import Job, job_from, job_of
from llmbatch.job.swept import recipe_of
from llmbatch.report.report import Report
from llmbatch.runs.finish import finished_run, take_over
from llmbatch.runs.session import RunResult, run_job
from llmbatch.sinks.upload import upload
from llmbatch.sources.opening import open_source

_FIXED = (("input",), ("output",), ("run", "rows"))
"""What a retry has from its run and nobody else."""


def retry_failed(
    folder: Path, overrides: Mapping[str, Any], watchers: Sequence[Watcher] = (), *, make: EngineFactory = make_engine
) -> RunResult:
    """Run the rows of a finished run that are not ok again. ``overrides`` are job sections laid over those of its job.

    An earlier retry that was interrupted is gone on with, if the settings are the same. What the overrides do not name is as it
    was in the run: a model that was overwritten since is refused, and so is one that comes out otherwise.

    Raises as ``run_job`` does, and ``FolderError`` for a folder without results.
    """
    manifest = begun_run(folder)
    if not (folder / RESULTS).exists() or not (folder / ERRORS).exists():
        raise FolderError(
            f"{folder}: there are no results yet to try again; finish the run first (the same llmbatch run command)"
        )
    if not manifest.finished:
        how = manifest.sessions[-1]["outcome"] or "ended without a word"
        raise FolderError(
            f"{folder}: the run is not finished, rows of it are owed (its last session {how}): finish it first (the same llmbatch "
            "run command), then try again what is not ok"
        )
    base = _own_job(folder)
    job = _with(folder, overrides)

    def tell(note: Note) -> None:
        for watcher in watchers:
            watcher(note)

    def say(message: str) -> None:
        tell(Note("info", message))

    with _held(folder, watchers):
        path = _unfinished(folder, base, manifest, job) or _new_retry(folder)
        if path is None:
            upload(base.sinks, folder, say)
            return _nothing_to_do(folder, watchers)
        _check_input(folder, base, manifest)
        if changed := _changed_since(folder, base, manifest, overrides):
            tell(Note("warning", changed))
        result = run_job(_job_in(job, path), watchers, make=make, alike=_alike(manifest, overrides))
        if result.outcome != "finished":
            return result
        report = _take_over(folder, base, manifest, path)
        upload(base.sinks, folder, say)
    return RunResult(folder, "finished", report, report["exit_code"])


def _own_job(folder: Path) -> Job:
    """The job of a run folder; its input from stdin is the copy in the folder."""
    job = job_of(folder)
    return job.model_copy(update={"input": kept_input(job.input, folder.absolute())})


def _with(folder: Path, overrides: Mapping[str, Any]) -> Job:
    for place in _FIXED:
        holder: Any = overrides
        for key in place:
            holder = holder.get(key) if isinstance(holder, Mapping) else None
        if holder is not None:
            raise JobError(f"{'.'.join(place)}: a retry runs the rows of {folder} from its own input: leave it out")
    job = job_from(merged(_own_job(folder).data(), overrides))
    recipe_of(job)
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
    finished = finished_run(base, recipe_of(base), folder, manifest.created)
    report = take_over(folder, base, finished, [*finished_retries(folder), retry])
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
    if begun is None or not RunFolder(path).begun:
        return None  # nothing of it was done yet
    retry = _job_in(job, path)
    now = {**identity_of(retry), **recipe_of(retry).identity()}
    if not (changed := begun.changes(now)):
        return path
    if not begun.finished:
        raise FolderError(
            f"{path}: an earlier retry with other settings is not finished; they differ in {', '.join(changed)}. "
            f"Give its settings to go on with it (they are in its job.yaml), or remove {path}"
        )
    _take_over(folder, base, manifest, path)
    return None


def _new_retry(folder: Path) -> Path | None:
    """A folder for a retry, with the indexes of its rows beside it; ``None`` where every row is ok."""
    rows = list(_rows_not_ok(folder / ERRORS))
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
            "sinks": job.sinks.model_copy(update={"formats": (), "to": None, "storage_options": {}}),
            # every row that is not ok is tried again: which are accepted is decided when they are taken over
            "accept": job.accept and job.accept.model_copy(update={"rows": None}),
        }
    )


def _check_input(folder: Path, base: Job, manifest: Manifest) -> None:
    """The rows are found by their index, so the input must be what it was. Raises ``InputChanged``."""
    source = open_source(base.input)
    check_input(source, same_names(manifest.fingerprint, source.fingerprint()), read_by(folder), extend=True)


def _changed_since(folder: Path, base: Job, manifest: Manifest, overrides: Mapping[str, Any]) -> str | None:
    """What the run's own job stands for now and did not then, where the retry does not name it: a sentence.

    Raises ``FolderError`` where that is the model, an adapter, or a setting of the engine.
    """
    now = {**identity_of(base), **recipe_of(base).identity()}
    changes = {
        key: words
        for key, words in manifest.changes(now).items()
        if not key.startswith("input.")
        and not _named(overrides, key.partition(" ")[0])  # the input is seen to by itself
    }
    if other := model_identity(changes):
        raise FolderError(
            f"{folder}: the model is not what it was when the run was made, and its rows would be tried again with another one: "
            f"{changes_in_words(other)}. Put back what it was, or name the one to try the rows with (--model)"
        )
    if not changes:
        return None
    return (
        f"{folder}: rows are tried again with what changed since the run was made, though the retry does not name it: "
        f"{changes_in_words(changes)}"
    )


def _alike(manifest: Manifest, overrides: Mapping[str, Any]) -> dict[str, str]:
    """What is to come out as it did in the run: all but what the retry names. With another model all of it is open."""
    if _named(overrides, "model") or _named(overrides, "engine.name"):
        return {}
    return {
        key: value
        for key, value in manifest.came_out.items()
        if key == ENGINE_VERSION or not _named(overrides, key.partition(" ")[0])
    }


def _named(overrides: Mapping[str, Any], setting: str) -> bool:
    """Whether a setting, something in it, or all of a section that it is in is given."""
    holder: Any = overrides
    for key in setting.split("."):
        if not isinstance(holder, Mapping):
            return True
        if key not in holder:
            return False
        holder = holder[key]
    return True


def _rows_not_ok(errors: Path) -> Iterator[int]:
    try:
        with errors.open("rb") as file:
            for line in file:
                yield index_of(line)
    except (OSError, FolderError) as error:
        raise FolderError(f"{errors}: cannot be read: {error!r}; see llmbatch audit") from error


def _nothing_to_do(folder: Path, watchers: Sequence[Watcher]) -> RunResult:
    report = read_report(folder)
    for watcher in watchers:
        watcher(Note("info", f"{folder}: every row is ok, nothing is to be tried again"))
    return RunResult(folder, "finished", report, report["exit_code"])


__all__ = ["retry_failed"]
