"""What a session did in; the run's files (results, other outputs, report), made of its parts and its finished retries, out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from llmbatch.accept.base import AcceptSettings, candidate_of
from llmbatch.accept.selection import Decided, decided_of
from llmbatch.core.errors import FolderError
from llmbatch.core.faults import point
from llmbatch.core.files import atomic_write
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Status
from llmbatch.folder.folder import (
    ERRORS,
    JOB_FILE,
    RESULTS,
    RunFolder,
    find_report,
    read_report,
    read_results,
    unreadable_report,
    write_report,
)
from llmbatch.folder.input import check_input, kept_input
from llmbatch.folder.order import in_input_order, read_order
from llmbatch.folder.ordered import read_by
from llmbatch.folder.overlay import Tally, finished_retries, ledger_with, overlay, sealed_lines
from llmbatch.folder.records import part_lines, record_on
from llmbatch.job.identity import left_open
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.job.sweep import label
from llmbatch.report.report import (
    AcceptCounts,
    Facts,
    LayoutReport,
    Report,
    RunOutcome,
    SessionFacts,
    SessionReport,
    SettingReport,
    accept_report,
    build_report,
    children_report,
    counts_of,
    exit_code,
)
from llmbatch.runs.page import page_beside
from llmbatch.sinks.base import Finished, write_sinks
from llmbatch.sinks.upload import plan_upload, to_upload
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import open_source


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. ``report`` is the content of ``report.json``."""

    folder: Path
    outcome: RunOutcome
    report: Report
    exit_code: int


def earlier_result(
    job: Job, folder: RunFolder, fingerprint: list[dict[str, Any]], identity: Mapping[str, str]
) -> RunResult | None:
    """The result of a run whose every row is done, where neither job nor input changed since."""
    path, manifest = folder.path, folder.manifest
    if manifest is None or not manifest.finished:
        return None
    try:
        same = (path / JOB_FILE).read_text(encoding="utf-8") == job.to_yaml(path)
        report = read_report(path)
    except (OSError, ValueError, FolderError):
        return None
    unchanged = manifest.fingerprint == fingerprint and manifest.identity == identity
    unchanged = unchanged and not manifest.otherwise(left_open(job))
    copied = to_upload(job.sinks, path) is not None  # or at least it is known what is missing
    if not (same and unchanged and copied and (path / RESULTS).exists()):
        return None
    return RunResult(path, "finished", report, report["exit_code"])


def finish(
    job: Job, folder: RunFolder, recipe: Recipe, ledger: Ledger, session: SessionFacts, facts: Facts, error: str | None
) -> Report:
    """Write what a session leaves: results where all rows are done, and the report, which is returned."""
    path = folder.path
    finished = finished_run(job, recipe, path, folder.created)
    if session.outcome == "finished":
        if job.sinks.layout is not None:
            _check_input(finished, folder)
        whole: Sequence[Path] = folder.parts.whole(gaps=job.run.rows is not None or job.input.shard is not None)
        if read_order(path) is not None:
            atomic_write(path / RESULTS, in_input_order(whole))
            whole = [path / RESULTS]
        facts = write_outputs(job, replace(finished, parts=whole), path, facts)
        point("results-written")
    report = build_report(ledger, session, facts, earlier=_earlier_sessions(path), error=error)
    retries = finished_retries(path) if session.outcome == "finished" else []
    if not retries:
        page_beside(path, report, job)
    write_report(path, report)
    point("report-written")
    if retries:
        report = take_over(path, job, finished, retries)
    return report


def _check_input(finished: Finished, folder: RunFolder) -> None:
    """A layout has what stands in the input beside the answers to it: it must be what was asked. Raises ``InputChanged``.

    Where size, time and ends of the files are what they were that is believed; else the windows' digests tell.
    """
    if folder.manifest is not None:
        check_input(finished.source(), folder.manifest.fingerprint, read_by(folder.path), extend=True)


def write_outputs(job: Job, finished: Finished, path: Path, facts: Facts) -> Facts:
    """Write the files of a run whose every row is done; returns the facts with what is known of them."""
    counted: dict[str, Mapping[str, int]] = {}
    failures: list[str | None] = []
    finished = replace(finished, counted=counted.__setitem__, laid_out=failures.append)
    written = write_sinks(job.sinks, finished, path)
    plan_upload(job.sinks, path, written, page=job.run.page)
    facts = replace(facts, outputs=_names(written, path))
    facts = replace(facts, children=counted.get("children"), layout=_layout(job, failures))
    results = finished.parts
    return replace(facts, accept=facts.accept or _accepted(job, results), settings=_settings(job, results))


def _layout(job: Job, failures: Sequence[str | None]) -> LayoutReport | None:
    """What a report says of the layout, once it was written."""
    return {"name": job.sinks.layout.name, "failure": failures[-1]} if job.sinks.layout and failures else None


def accept_counts(settings: AcceptSettings, decided: Decided) -> AcceptCounts:
    """What was decided about the candidates, for the report."""
    reasons = sorted(decided.fell, key=lambda reason: (-decided.fell[reason].rows, reason))
    return {
        "wanted": settings.rows,
        "accepted": decided.accepted,
        "candidates": decided.candidates,
        "surplus": decided.surplus,
        "rate": decided.accepted / decided.candidates if decided.candidates else None,
        "fell": {reason: asdict(decided.fell[reason]) for reason in reasons},  # type: ignore[misc]
    }


def _accepted(job: Job, results: Sequence[Path]) -> AcceptCounts | None:
    """The same of files of results, for a job that says which rows are accepted."""
    if job.accept is None:
        return None
    return accept_counts(job.accept, decided_of(job.accept, map(record_on, part_lines(results))))


def _settings(job: Job, results: Sequence[Path]) -> list[SettingReport]:
    """What became of the rows under each setting of a sweep."""
    if job.sweep is None:
        return []
    said: list[SettingReport] = [
        {
            "setting": label(each),
            "rows": 0,
            "ok": 0,
            "meet": 0 if job.accept else None,
            "prompt_tokens": 0,
            "completion_tokens": 0,
        }
        for each in job.sweep.each()
    ]
    for record in map(record_on, part_lines(results)):
        setting = said[record.index % len(said)]
        setting["rows"] += 1
        setting["ok"] += record.status is Status.OK
        if setting["meet"] is not None:
            setting["meet"] += candidate_of(record, None).fell is None
        setting["prompt_tokens"] += record.usage.prompt_tokens
        setting["completion_tokens"] += record.usage.completion_tokens
    return said


def _names(outputs: Sequence[Path], run_folder: Path) -> list[str]:
    """The names of files for the report; of many that differ in a number or lie in one folder the first, with how many follow."""
    kinds: dict[str, list[str]] = {}
    for name in (str(output.relative_to(run_folder)) for output in outputs):
        folder = name.partition("/")[0]
        kinds.setdefault(folder if folder != name else re.sub(r"-\d+-of-", "-of-", name), []).append(name)
    return [names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more" for names in kinds.values()]


def _earlier_sessions(folder: Path) -> list[SessionReport]:
    """The sessions that the report of the folder knows; a session that was killed left none."""
    try:
        report = find_report(folder)
    except FolderError:
        return []
    return report["sessions"] if report is not None else []


def finished_run(job: Job, recipe: Recipe, folder: Path, created: float) -> Finished:
    """What sinks are given of a run, but for its parts."""
    source = partial(_kept_source, job.input, folder)
    facts: Any = {
        "accept": job.accept,
        "vectors": recipe.gives_vectors,
        "options": job.input.options,
        "limited": job.input.limit is not None,
    }
    return Finished((), source, recipe.asked, job.model, int(created), recipe.sinks, **facts)


def _kept_source(settings: SourceSettings, folder: Path) -> Source:
    return open_source(kept_input(settings, folder))


def take_over(folder: Path, job: Job, finished: Finished, retries: Sequence[Path]) -> Report:
    """Write the run's results, other outputs and report anew, with the retries laid over its parts; returns the report.

    Whatever a kill leaves of it, doing it again gives the same files. Raises ``FolderError`` and ``WriteError``.
    """
    merged, tally = folder / "retries" / "merged.jsonl", Tally()
    counted: dict[str, Mapping[str, int]] = {}
    failures: list[str | None] = []
    try:
        atomic_write(merged, overlay(sealed_lines(folder), retries, tally))
        whole = replace(finished, parts=[merged], counted=counted.__setitem__, laid_out=failures.append)
        written = write_sinks(job.sinks, whole, folder)
        plan_upload(job.sinks, folder, written, page=job.run.page)
    finally:
        merged.unlink(missing_ok=True)
    retried = (RunFolder(retry).ledger() for retry in retries)
    ledger = ledger_with(RunFolder(folder).ledger(), retried, tally, read_results(folder, ERRORS))
    results = [folder / RESULTS]
    report = _report(folder, ledger, retries, _accepted(job, results), _layout(job, failures))
    report["settings"] = _settings(job, results)
    report["outputs"] = _names(written, folder)
    if "children" in counted:
        report["children"] = children_report(counted["children"])
    page_beside(folder, report, job)
    write_report(folder, report)
    return report


def _report(
    folder: Path, ledger: Ledger, retries: Sequence[Path], accept: AcceptCounts | None, layout: LayoutReport | None
) -> Report:
    """The run's report with the counts as they are now. Its sessions stay; a retry's stand in its own folder."""
    report: Any = read_report(folder)
    try:
        report.update(counts_of(ledger, rows_total=report["rows"]["total"]))
        known = {note["message"] for note in report["notes"]}
        notes = [f"rows were tried again: see {retry.relative_to(folder)}" for retry in retries]
        if accept is not None:
            report["accept"] = accept_report(accept, ledger, report["seconds"]["total"], report["cost"])
        report["notes"] += [{"level": "info", "message": note} for note in notes if note not in known]
    except (KeyError, TypeError) as error:
        raise unreadable_report(folder, error) from error
    report["layout"] = layout
    report["exit_code"] = exit_code("finished", ledger, accept, layout)
    updated: Report = report
    return updated
