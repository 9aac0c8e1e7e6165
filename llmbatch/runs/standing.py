"""A run folder in, where its run stands out, be it over, stopped, dead or going on in another process.

Nothing is written and no lock is taken. What is read is bounded: the parts' meta files, the open journals, and what the run
says of itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from llmbatch.core.ledger import Ledger
from llmbatch.folder.folder import RunFolder, begun_run, find_report
from llmbatch.folder.lock import alive, read_lock
from llmbatch.folder.progress import Progress, read_progress
from llmbatch.report.report import Report

FRESH_SECONDS = 60.0  # a run on another host that said nothing for longer may be dead


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands. ``state`` is running, finished, stopped, broken, dead, or begun (it never got to a first report)."""

    state: str
    sentence: str
    ledger: Ledger
    rows_total: int | None
    progress: Progress | None
    report: Report | None


def standing_of(folder: Path) -> Standing:
    """Where the run of a folder stands. Raises ``FolderError`` for a folder that no run has begun."""
    begun_run(folder)
    report, progress = find_report(folder), read_progress(folder)
    ledger = RunFolder(folder).ledger()
    state, sentence = state_of(folder, report, progress)
    total = report["rows"]["total"] if report is not None and state != "running" else None
    if total is None and progress is not None:
        total = progress.snapshot.rows_total
    return Standing(state, sentence, ledger, total, progress if state == "running" else None, report)


def state_of(folder: Path, report: Report | None, progress: Progress | None) -> tuple[str, str]:
    """The state of a run, and a sentence that says how that is known."""
    owner = read_lock(folder / "lock")
    if owner is not None:
        who = f"process {owner.get('pid')} on {owner.get('host')}"
        lives = alive(owner)
        if lives:
            return "running", f"running: {who}, since {owner.get('since')}"
        if lives is False:
            return "dead", f"dead: {who} ended without a word; the same command goes on"
        silence = time.time() - progress.written_at if progress else float("inf")
        if silence <= FRESH_SECONDS:
            return "running", f"running: {who}, as it said {silence:.0f} s ago"
        return "dead", f"probably dead: {who} has not said anything for a while, and cannot be seen from here"
    if report is None:
        return "begun", "begun, and ended before its first report; the same command goes on"
    outcome = report["outcome"]
    return outcome, outcome + (f": {report['error']}" if report["error"] else "")


__all__ = ["Standing", "standing_of", "state_of"]
