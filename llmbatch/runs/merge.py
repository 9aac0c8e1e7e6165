"""The run folders of all slices of an input in, one run folder of the whole input out, as one run without slices would leave it.

Nothing is asked again. Slices are dealt out in blocks that are windows (``sources/shard``), so their parts, in the order of their
rows, are those of the whole; they are shared with the slices where the disk allows that. ``run.json`` is written last: a folder
without it is a merge that did not come to its end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from llmbatch.audit.audit import audit
from llmbatch.core.errors import FolderError, InputChanged, JobError
from llmbatch.core.files import atomic_write, writing
from llmbatch.core.ledger import Ledger
from llmbatch.core.words import count, first_few
from llmbatch.folder.folder import (
    JOB_FILE,
    Manifest,
    RunFolder,
    changes_in_words,
    read_manifest,
    read_report,
    write_report,
)
from llmbatch.folder.input import check_input, kept_input, same_names
from llmbatch.folder.input_copy import KEPT
from llmbatch.folder.overlay import all_retries, finished_retries
from llmbatch.folder.parts import Meta, Parts
from llmbatch.job.identity import identity_of
from llmbatch.job.job import Job, job_from, job_of
from llmbatch.job.recipe import Recipe
from llmbatch.job.swept import recipe_of
from llmbatch.report.report import Facts, Report, SessionReport, report_of
from llmbatch.runs.finish import RunResult, finished_run, take_over, write_outputs
from llmbatch.runs.page import page_beside
from llmbatch.sinks.upload import check_destination, upload
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.opening import open_source
from llmbatch.sources.shard import Shard

_SHARD = "input.shard"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Slice:
    """A finished run of one slice."""

    folder: Path
    shard: Shard
    job: Job
    manifest: Manifest
    report: Report

    @property
    def identity(self) -> dict[str, str]:
        """Without which slice it is."""
        return {key: value for key, value in self.manifest.identity.items() if key != _SHARD}


def merge(folders: Sequence[Path], output: Path, *, to: str | None = None, say: Say = lambda _: None) -> RunResult:
    """Put finished slices into the new folder ``output``; ``to`` is where its files are copied, as ``sinks.to``.

    Raises ``FolderError`` or ``JobError`` where one is unfinished, lacks, comes twice or is of another job, version or input: then
    nothing is written. What is written is audited.
    """
    slices = _together([_slice(folder) for folder in folders])
    job, recipe = _whole_job(slices, output, to)
    _same_input(slices)
    held = RunFolder(output)
    held.open()
    try:
        if held.manifest is not None or any(held.parts.scan()):
            raise FolderError(
                f"{output}: holds a run already, or a merge that did not come to its end: give a new folder"
            )
        report = _write(slices, held, job, recipe)
        found = audit(output)
        if not found.ok or found.rows_owed:
            held.disown()
            said = "; ".join(problem for check in found.checks for problem in check.problems) or "rows are owed"
            raise FolderError(f"{output}: what was merged is not whole: {said}. See llmbatch audit {output}")
        say(f"{count(found.rows_done)} rows of {len(slices)} slices are in {output}, audited")
        upload(job.sinks, output, say)
    finally:
        held.close()
    return RunResult(output, "finished", report, report["exit_code"])


def _slice(folder: Path) -> _Slice:
    manifest = read_manifest(folder)
    if manifest is None:
        raise FolderError(f"{folder}: is no run folder: there is no run.json in it")
    job = job_of(folder)
    if job.input.shard is None:
        raise FolderError(
            f"{folder}: is a run of a whole input, not of a slice (--shard I/N): there is nothing to merge it with"
        )
    if not manifest.finished:
        raise FolderError(
            f"{folder}: the slice {job.input.shard} is not finished: run the same llmbatch run command again, then merge"
        )
    if len(all_retries(folder)) > len(finished_retries(folder)):
        raise FolderError(f"{folder}: a retry of the slice {job.input.shard} is not finished: finish it, then merge")
    return _Slice(folder, Shard.named(job.input.shard), job, manifest, read_report(folder))


def _together(slices: list[_Slice]) -> list[_Slice]:
    """The slices in order, if they are all of one run, each once. Raises ``FolderError``."""
    if not slices:
        raise JobError("no folder is given: name the run folder of each slice")
    ordered = sorted(slices, key=lambda each: each.shard)
    first = ordered[0]
    for each in ordered[1:]:
        if each.shard.of != first.shard.of:
            raise FolderError(
                f"{each.folder}: is slice {each.shard}, and {first.folder} is slice {first.shard}: slices of one input are all of "
                "so many, or they overlap"
            )
    for before, after in pairwise(ordered):
        if before.shard == after.shard:
            raise FolderError(f"{before.folder} and {after.folder} are both slice {after.shard}: give one of them")
    for each in ordered[1:]:
        ours, theirs = (one.report["versions"].get("llmbatch") for one in (first, each))
        if ours != theirs:
            raise FolderError(
                f"{each.folder}: was run with llmbatch {theirs}, and {first.folder} with {ours}: run the slices with one version"
            )
        one, other = replace(first.manifest, identity=first.identity), each.identity
        if changes := one.changes(other) | one.otherwise(each.manifest.came_out):
            raise FolderError(f"{each.folder}: is of another job than {first.folder}: " + changes_in_words(changes))
    lacking = sorted(set(range(1, first.shard.of + 1)) - {each.shard.number for each in ordered})
    if lacking:
        names = first_few(lacking, 8, lambda number: f"{number}/{first.shard.of}")
        raise FolderError(f"slices are lacking: {names}; give all {first.shard.of} folders")
    return ordered


def _whole_job(slices: Sequence[_Slice], output: Path, to: str | None) -> tuple[Job, Recipe]:
    """The job of the whole input, which must still be what the slices were run as. Raises ``FolderError`` or ``JobError``."""
    first = slices[0]
    data = first.job.data()
    data["input"].pop("shard")
    data["output"] = str(output)
    if to is not None:
        data["sinks"] = {**data.get("sinks", {}), "to": to}
    job = job_from(data)
    check_destination(job.sinks, output)
    recipe = recipe_of(job)
    now = {**identity_of(job), **recipe.identity()}
    if changes := replace(first.manifest, identity=first.identity).changes(now):
        raise FolderError(
            f"{first.folder}: its job is not what it was when it ran: "
            + changes_in_words(changes)
            + ". Restore that, then merge"
        )
    return job, recipe


def _same_input(slices: Sequence[_Slice]) -> None:
    """Raises ``FolderError`` where slices did not read the input that is there now."""
    for each in slices:
        source = open_source(_input(each))
        try:
            check_input(source, same_names(each.manifest.fingerprint, source.fingerprint()), [], extend=False)
        except InputChanged as error:
            raise FolderError(f"{each.folder}: {error}") from error


def _input(each: _Slice) -> SourceSettings:
    return kept_input(each.job.input, each.folder)


def _write(slices: Sequence[_Slice], held: RunFolder, job: Job, recipe: Recipe) -> Report:
    output, first = held.path, slices[0]
    if job.input.path == "-":
        with writing(output / KEPT):
            shutil.copyfile(first.folder / KEPT, output / KEPT)
    ledger = _take_parts(slices, held.parts)
    atomic_write(output / JOB_FILE, job.to_yaml(output).encode())
    created = min(each.manifest.created for each in slices)
    finished = replace(finished_run(job, recipe, output, created), parts=held.parts.whole())
    facts = write_outputs(job, finished, output, _facts(slices, output, ledger))
    report = report_of(ledger, list(_sessions(slices)), facts)
    page_beside(output, report, job)
    write_report(output, report)
    if retries := list(_take_retries(slices, job, output)):
        report = take_over(output, job, finished, retries)
    came_out = {key: value for each in reversed(slices) for key, value in each.manifest.came_out.items()}
    sessions = [session for each in slices for session in each.manifest.sessions]
    held.adopt(Manifest(first.identity, open_source(_input(first)).fingerprint(), created, sessions, came_out))
    return report


def _take_parts(slices: Sequence[_Slice], parts: Parts) -> Ledger:
    """All parts, in the order of their rows, as windows of the whole; returns their account."""
    found: list[tuple[Meta, Parts]] = []
    for each in slices:
        theirs = RunFolder(each.folder).parts
        found += [(theirs.meta(window), theirs) for window in sorted(theirs.scan()[0])]
    found.sort(key=lambda pair: pair[0].bounds.start.index)
    for number, (meta, theirs) in enumerate(found):
        parts.take(theirs, meta.bounds.window, number)
    return parts.sum_of(meta for meta, _ in found)


def _take_retries(slices: Sequence[_Slice], job: Job, output: Path) -> Iterator[Path]:
    """The finished retries of the slices, as retries of the whole; each is of rows that no other has."""
    retries = [retry for each in slices for retry in finished_retries(each.folder)]
    for number, retry in enumerate(retries, start=1):
        path = output / "retries" / f"{number:03d}"
        with writing(path):
            shutil.copytree(retry, path)
            rows = path.with_suffix(".rows").absolute()
            shutil.copyfile(retry.with_suffix(".rows"), rows)
        theirs = job_of(retry)
        update = {"output": path, "run": theirs.run.model_copy(update={"rows": rows})}
        if job.input.path == "-":
            update["input"] = theirs.input.model_copy(update={"path": str((output / KEPT).absolute())})
        atomic_write(path / JOB_FILE, theirs.model_copy(update=update).to_yaml(path).encode())
        yield path


def _facts(slices: Sequence[_Slice], output: Path, ledger: Ledger) -> Facts:
    last = slices[-1].report
    return Facts(
        folder=str(output),
        job={**last["job"], "identity": slices[0].identity},
        input=last["input"],
        versions=last["versions"],
        engine=next((each.report["engine"] for each in slices if each.report["engine"] is not None), None),
        rows_total=ledger.rows,
        notes=[{"level": "info", "message": f"merged of {len(slices)} slices"}],
        cost=_sum([each.report["cost"] for each in slices]),
        gpu_hours=_sum([each.report["gpu_hours"] for each in slices]),
    )


def _sum(numbers: Sequence[float | None]) -> float | None:
    """None where one of them is."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _sessions(slices: Sequence[_Slice]) -> Iterator[SessionReport]:
    """Those of all slices, one after another. The last is of a slice that is finished, and so is the whole."""
    number = 0
    for each in slices:
        for session in each.report["sessions"]:
            number += 1
            yield {**session, "session": number}


__all__ = ["merge"]
