"""A run folder whose last session left no report in, as it goes on or was killed; the report of what is there until now out."""

from __future__ import annotations

import datetime
from pathlib import Path

from llmbatch.core.errors import LlmbatchError
from llmbatch.core.ledger import Ledger
from llmbatch.core.versions import versions
from llmbatch.folder.folder import find_report, read_manifest
from llmbatch.folder.progress import read_progress
from llmbatch.job.job import job_of
from llmbatch.report.report import Facts, Report, SessionFacts, build_report


def report_until_now(folder: Path, ledger: Ledger, rows_total: int | None) -> Report:
    """The report, with what the session last said of itself. Its outcome is that of a run to be gone on with: stopped.

    Raises ``FolderError``.
    """
    manifest, earlier, progress = read_manifest(folder), find_report(folder), read_progress(folder)
    sessions = manifest.sessions if manifest is not None else []
    began = sessions[-1]["started"] if sessions else 0.0
    # a session may be killed before it said a word: then the last word is that of the one before
    said = None if progress is None or progress.written_at < began else progress.snapshot
    before = earlier["sessions"] if earlier is not None else []
    up = 0.0 if said is None else said.ready_seconds
    seconds = 0.0 if said is None else said.elapsed
    session = SessionFacts(
        number=max(1, len(sessions)),
        started_at=datetime.datetime.fromtimestamp(began).astimezone().isoformat(timespec="seconds"),
        outcome="stopped",
        total_seconds=seconds,
        start_up_seconds=max(0.0, seconds - up) if up else None,
        rows=max(0, ledger.rows - sum(each["rows"] for each in before)),
        engine_tokens=ledger.computed if said is None else said.usage,
        busy_seconds=0.0 if said is None else said.busy_seconds,
        ready_seconds=up or None,
        engine_restarts=0 if said is None else said.deaths,
        replicas=() if said is None else said.replicas,
    )
    facts = Facts(
        folder=str(folder),
        job=_job(folder),
        input={},
        versions=versions(),
        engine=None if earlier is None else earlier["engine"],
        rows_total=rows_total,
    )
    return build_report(ledger, session, facts, earlier=before)


def _job(folder: Path) -> dict[str, str]:
    try:
        return {"model": job_of(folder).model}
    except LlmbatchError:  # its counts are worth a page all the same
        return {}


__all__ = ["report_until_now"]
