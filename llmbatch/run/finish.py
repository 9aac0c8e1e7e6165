"""A run's sealed records and its finished retries in; the run's files, made of both, out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError
from llmbatch.core.files import atomic_write
from llmbatch.core.ledger import Ledger
from llmbatch.folder.input import open_input
from llmbatch.folder.overlay import Tally, ledger_with, overlay, sealed_lines
from llmbatch.job.job import Job
from llmbatch.job.recipe import Recipe
from llmbatch.report.report import Report, counts_of, exit_code
from llmbatch.sinks.base import Finished, SinkSettings, write_sinks


def finished_run(job: Job, recipe: Recipe, folder: Path, parts: Sequence[Path], created: float) -> Finished:
    """What sinks are given of a run."""
    source = partial(open_input, job.input, folder, sys.stdin.buffer)
    return Finished(parts, source, recipe.asked, job.model, int(created))


def take_over(folder: Path, sinks: SinkSettings, finished: Finished, retries: Sequence[Path]) -> Report:
    """Write the run's results, other outputs and report anew, with the retries laid over its parts; returns the report.

    Whatever a kill leaves of it, doing it again gives the same files. Raises ``FolderError`` and ``WriteError``.
    """
    merged, tally = folder / "retries" / "merged.jsonl", Tally()
    try:
        atomic_write(merged, overlay(sealed_lines(folder), retries, tally))
        write_sinks(sinks, replace(finished, parts=[merged]), folder)
    finally:
        merged.unlink(missing_ok=True)
    report = _report(folder, ledger_with(folder, retries, tally), retries)
    atomic_write(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")
    return report


def _report(folder: Path, ledger: Ledger, retries: Sequence[Path]) -> Report:
    """The run's report with the counts as they are now. Its sessions stay; a retry's stand in its own folder."""
    path = folder / "report.json"
    try:
        report: Any = json.loads(path.read_bytes())
        report.update(counts_of(ledger, rows_total=report["rows"]["total"]))
        known = {note["message"] for note in report["notes"]}
        notes = [f"rows were tried again: see {retry.relative_to(folder)}" for retry in retries]
        report["notes"] += [{"level": "info", "message": note} for note in notes if note not in known]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path}: cannot be read: {error!r}; see llmbatch audit") from error
    report["exit_code"] = exit_code("finished", ledger)
    updated: Report = report
    return updated
