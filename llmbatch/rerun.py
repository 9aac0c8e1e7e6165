"""A finished run in, the same run with its rows that are not ok tried again, with other settings if given.

The rows run in a folder of their own, ``retries/001``, which is a run folder like any other: it can be stopped and resumed. When it
is finished, its records take the place of the old ones in the results: every attempt and every token of both is kept in them.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from llmbatch.errors import FolderError
from llmbatch.events import Note, Watcher
from llmbatch.files import atomic_write
from llmbatch.folder import RunFolder, read_manifest
from llmbatch.job import Job, job_from, load_job_data
from llmbatch.record import record_from_dict, record_to_line
from llmbatch.report import exit_code
from llmbatch.report.ledger import Ledger
from llmbatch.session import RunResult, run_job
from llmbatch.sinks import Origin, write_sinks
from llmbatch.stages import Stages
from llmbatch.types import Attempt, Record, RequestKey, Usage


def retry_failed(folder: Path, overrides: Mapping[str, Any], watchers: Sequence[Watcher] = ()) -> RunResult:
    """Run the rows of a finished run that are not ok again. ``overrides`` are job sections laid over those of its job.

    An earlier retry that was interrupted is gone on with, if the settings are the same. Raises as ``run_job`` does, and
    ``FolderError`` for a folder without results.
    """
    manifest = read_manifest(folder)
    results = folder / "results.jsonl"
    if manifest is None or not results.exists():
        raise FolderError(
            f"{folder}: there are no results yet to try again; finish the run first (the same llmbatch run command)"
        )
    job = job_from(_merge(load_job_data(folder / "job.yaml"), overrides))
    lock = RunFolder(folder)
    lock.open()
    try:
        attempt = _open_retry(folder, job)
        if attempt is None:
            return _nothing_to_do(folder, watchers)
        path, job = attempt
        merged = path / "merged.jsonl"
        if not merged.exists():
            result = run_job(job, watchers)
            if result.outcome != "finished":
                return result
            atomic_write(merged, _merged(results, path / "results.jsonl"))
        base = _base_job(folder)
        origin = Origin(base.model, int(manifest.created), samples=Stages(base).samples)
        write_sinks(base.sinks, [merged], folder, origin)
        report = _report(folder, merged, path)
        atomic_write(path / "done", b"")
        merged.unlink()
    finally:
        lock.close()
    return RunResult(folder, "finished", report, report["exit_code"])


def combine(before: Record, after: Record) -> Record:
    """The record of a row that was tried again: what came of it, with the attempts and tokens of both.

    Everything that the first record took is wasted, because it did not end ok.
    """
    history = list(before.history)
    if before.attempts and before.failure is not None:
        last = before.usage
        spent = Usage(
            last.prompt_tokens - before.wasted.prompt_tokens,
            last.completion_tokens - before.wasted.completion_tokens,
            last.cached_tokens - before.wasted.cached_tokens,
        )
        key = RequestKey(before.index, attempt=before.attempts)
        history.append(Attempt(key, before.failure, spent, before.raw, before.finish_reason))
    later = [replace(a, key=a.key._replace(attempt=a.key.attempt + before.attempts)) for a in after.history]
    return replace(
        after,
        attempts=before.attempts + after.attempts,
        usage=before.usage + after.usage,
        wasted=before.usage + after.wasted,
        history=(*history, *later),
    )


def _open_retry(folder: Path, job: Job) -> tuple[Path, Job] | None:
    """The folder of the retry and its job; ``None`` where every row is ok."""
    retries = folder / "retries"
    number = 1 + max((int(p.name) for p in retries.glob("[0-9]*") if p.name.isdigit()), default=0)
    last = retries / f"{number - 1:03d}"
    if number > 1 and not (last / "done").exists():
        if _same_but_for_the_folder(last, job):
            return last, _job_in(job, last)
        if read_manifest(last) is not None:
            raise FolderError(
                f"{last}: an earlier retry with other settings is not finished. Give its settings to go on with it, or remove it"
            )
        number -= 1
    path = retries / f"{number:03d}"
    rows = list(_rows_not_ok(folder / "errors.jsonl"))
    if not rows:
        return None
    path.mkdir(parents=True, exist_ok=True)
    atomic_write(retries / f"{number:03d}.rows", ("\n".join(map(str, rows)) + "\n").encode())
    return path, _job_in(job, path)


def _job_in(job: Job, path: Path) -> Job:
    rows = path.with_suffix(".rows").absolute()
    return job.model_copy(
        update={
            "output": path,
            "run": job.run.model_copy(update={"rows": rows}),
            "sinks": job.sinks.model_copy(update={"formats": ()}),
        }
    )


def _same_but_for_the_folder(path: Path, job: Job) -> bool:
    try:
        known = yaml.safe_load((path / "job.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return bool(known == yaml.safe_load(_job_in(job, path).to_yaml()))


def _base_job(folder: Path) -> Job:
    return job_from(load_job_data(folder / "job.yaml"))


def _rows_not_ok(errors: Path) -> Iterator[int]:
    with errors.open("rb") as file:
        for line in file:
            yield int(json.loads(line)["index"])


def _merged(results: Path, retried: Path) -> Iterator[bytes]:
    """The lines of the results with those of the retried rows combined; both files are in input order."""
    with results.open("rb") as before, retried.open("rb") as after:
        pairs = heapq.merge(_by_index(before, 0), _by_index(after, 1), key=lambda item: item[:2])
        last: tuple[int, bytes] | None = None
        for index, which, line in pairs:
            if which == 1:
                if last is None or last[0] != index:
                    raise FolderError(f"{retried}: has a row (index {index}) that {results} does not have")
                last = (index, record_to_line(combine(_record(last[1]), _record(line))))
                continue
            if last is not None:
                yield last[1]
            last = (index, line)
        if last is not None:
            yield last[1]


def _by_index(lines: Iterator[bytes] | Any, which: int) -> Iterator[tuple[int, int, bytes]]:
    for line in lines:
        yield int(json.loads(line)["index"]), which, line


def _record(line: bytes) -> Record:
    return record_from_dict(json.loads(line))


def _report(folder: Path, merged: Path, retry: Path) -> Any:
    """The run's report with the counts of the merged results; its sessions stay, and the retry's stand in its own folder."""
    from llmbatch.report import counts_of

    ledger = Ledger()
    with merged.open("rb") as file:
        for line in file:
            ledger.add(_record(line))
    report = json.loads((folder / "report.json").read_bytes())
    folded = report["tokens"]["folded"]
    report.update(counts_of(ledger, rows_total=report["rows"]["total"]))
    report["tokens"]["folded"] = folded
    report["exit_code"] = exit_code("finished", ledger)
    report["notes"].append(
        {"level": "info", "message": f"rows tried again at {time.strftime('%Y-%m-%d %H:%M')}: {retry}"}
    )
    atomic_write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")
    return report


def _nothing_to_do(folder: Path, watchers: Sequence[Watcher]) -> RunResult:
    report = json.loads((folder / "report.json").read_bytes())
    for watcher in watchers:
        watcher(Note("info", f"{folder}: every row is ok, nothing is to be tried again"))
    return RunResult(folder, "finished", report, report["exit_code"])


def _merge(data: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested data with other nested data laid over it."""
    merged = dict(data)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


__all__ = ["combine", "retry_failed"]
