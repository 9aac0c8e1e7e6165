"""A run folder in, the proof that it is whole out, or what is missing or damaged in it. Reads only; needs no lock and no engine.

What is proved: every input row is accounted for once and in order, parts are what was sealed, the ledger is the sum of the records,
job and input are those that the folder was begun with, and results, errors and report are made of the parts and of the retries that
lie over them. Memory is bounded by the largest window.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmbatch.audit.finding import Finding
from llmbatch.audit.outputs import check_outputs
from llmbatch.audit.rows import check_rows
from llmbatch.audit.windows import Windows, check_order, check_parts, check_windows
from llmbatch.core.errors import FolderError, LlmbatchError
from llmbatch.folder.folder import RESULTS, Manifest, RunFolder, read_manifest
from llmbatch.folder.lock import alive, read_lock
from llmbatch.folder.order import read_order
from llmbatch.folder.overlay import all_retries
from llmbatch.job.identity import identity_of
from llmbatch.job.job import Job, job_of
from llmbatch.job.swept import recipe_of
from llmbatch.sinks.upload import to_upload


@dataclass(slots=True)
class AuditReport:
    """``ok``: nothing is damaged or doubled. ``complete``: moreover nothing is left to do. Rows are counted in input lines."""

    folder: Path
    checks: list[Finding]
    rows_done: int
    rows_owed: int | None  # None where the input could not be read
    pending: str | None = None  # what is left to do besides rows

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def complete(self) -> bool:
        return self.ok and self.rows_owed == 0 and self.pending is None

    @property
    def exit_code(self) -> int:
        """0 whole and complete, 3 whole but unfinished, 1 damaged."""
        return 0 if self.complete else 3 if self.ok else 1


def audit(folder: Path) -> AuditReport:
    """Look at everything in a run folder. Raises ``FolderError`` where it is no run folder, or one of a newer llmbatch."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise FolderError(f"{folder}: is no run folder: there is no run.json in it")
    finished = manifest.finished
    windows = Windows(RunFolder(folder).parts, order=read_order(folder))
    job_check, job = _check_job(folder, manifest)
    if not job_check.ok and not any(windows.parts.scan()):
        job_check, job = Finding("job", "nothing was done yet, so any job may begin here"), None
    checks = [job_check, *([] if windows.order is None else [check_order(windows.order)]), check_parts(windows)]
    # of a job that runs only some of the rows, windows leave rows out between them
    some_rows = bool({"run.rows (content)", "input.shard"} & manifest.identity.keys())
    ends_itself = job is not None and job.accept is not None and job.accept.rows is not None
    ends_itself = ends_itself or bool(finished and manifest.sessions[-1].get("ends_itself"))
    checks.append(check_windows(windows, finished=finished, some_rows=some_rows, to_the_end=not ends_itself))
    owed: int | None = None
    if job is not None:
        unchanged, rows, owed = check_rows(job, folder, manifest.fingerprint, windows, ends_itself=ends_itself)
        checks += [unchanged, rows]
    retries, pending = _check_retries(folder)
    checks += retries
    if finished or (folder / RESULTS).exists():
        accept = None if job is None else job.accept
        checks += check_outputs(folder, finished=finished, pending=pending, accept=accept)
    to_do = _to_do(folder, pending, job if finished else None)
    if to_do is None and job is not None and job.accept is not None and job.accept.rows is not None and not finished:
        to_do = f"not all of the {job.accept.rows:,} rows that are wanted are accepted yet: run the same command again"
    return AuditReport(folder, checks, windows.ledger.rows + windows.rows_in_journals, owed, to_do)


def _to_do(folder: Path, pending: Path | None, finished: Job | None) -> str | None:
    if pending is not None:
        return f"{pending} is finished, and its records are not taken over yet: run the same llmbatch retry-failed command again"
    if finished is not None and to_upload(finished.sinks, folder) != []:
        return f"files are still to be copied to {finished.sinks.to}: run the same llmbatch run command again"
    return None


def _check_job(folder: Path, manifest: Manifest) -> tuple[Finding, Job | None]:
    check = Finding("job", f"job.yaml is the job that the folder was begun with{_who_writes(folder)}")
    try:
        job = job_of(folder)
        now = {**identity_of(job), **recipe_of(job).identity()}
    except LlmbatchError as error:
        check.problem(str(error))
        return check, None
    before = manifest.identity
    for key in sorted(now.keys() | before.keys()):
        if now.get(key) != before.get(key):
            check.problem(f"{key} was {before.get(key)}, now {now.get(key)}")
    return check, job


def _who_writes(folder: Path) -> str:
    """A run that is going on may be seen in the middle of something."""
    try:
        owner = read_lock(folder / "lock")
    except FolderError:
        return ""
    if owner is None or alive(owner) is False:
        return ""
    return f"; a run is going on (process {owner.get('pid')} on {owner.get('host')}): what it writes now may look unfinished"


def _check_retries(folder: Path) -> tuple[list[Finding], Path | None]:
    """A check for each retry, and the retry that is finished and not yet taken over, if there is one."""
    checks, pending = [], None
    for retry in all_retries(folder):
        check = Finding(f"retry {retry.name}", "not begun")
        try:
            if (manifest := read_manifest(retry)) is not None:
                found = audit(retry)
                owed = f", {found.rows_owed} owed" if found.rows_owed else ""
                check.seen = f"{found.rows_done} rows tried again{owed}"
                for problem in (problem for part in found.checks for problem in part.problems):
                    check.problem(problem)
                pending = retry if manifest.finished and not (retry / "done").exists() else None
        except LlmbatchError as error:
            check.problem(str(error))
        checks.append(check)
    return checks, pending


__all__ = ["AuditReport", "audit"]
