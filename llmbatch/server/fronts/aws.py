"""What the fronts of AWS have in common: a job document in, what of our job it asks for out; who asks, and from where.

A document may name objects in S3 alone: whoever may send jobs here may not for that read this machine's files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import Request

from llmbatch.core.errors import JobError, UsageError
from llmbatch.core.files import atomic_write
from llmbatch.folder.folder import find_report, read_manifest
from llmbatch.job.swept import recipe_of
from llmbatch.runs.finish import finished_run
from llmbatch.server.base import Checked, Ended, Finished
from llmbatch.server.errors import ApiError
from llmbatch.server.keys import Owner
from llmbatch.server.outputs import record_lines
from llmbatch.server.settings import ServerSettings
from llmbatch.server.store import Batch, Store
from llmbatch.sinks.base import Output
from llmbatch.sinks.layout import write_layout
from llmbatch.sinks.upload import plan_upload, upload
from llmbatch.sources.base import START
from llmbatch.sources.opening import open_source
from llmbatch.sources.reader import Reader
from llmbatch.systems.base import Assets, System

_SCOPE = re.compile(r"Credential=[^/,\s]+/\d{8}/([a-z0-9-]{1,40})/")
_ACCOUNT = re.compile(r"arn:[^:]*:iam::(\d{12}):")
_REGION, _NO_ACCOUNT = "us-east-1", "000000000000"
_LOOK_EVERY = 1_000  # rows, while an input is looked at
_OWN = ("input", "answer", "retry", "sinks", "prompt")
"""What of a job is its document's own; how fast the engine goes, and with which model, is the server's matter."""


@dataclass(frozen=True, slots=True)
class InS3(Assets):
    """Addresses in S3, which stand for themselves. Raises ``JobError`` for any other, whoever names it."""

    def place(self, address: str) -> str:
        if not address.startswith("s3://") or "::" in address:
            raise JobError(
                f"{address[:200]}: is no address in S3, and this server reads and writes nothing else for a job"
            )
        return address


def owner_of(request: Request) -> Owner:
    owner: Owner = request.state.owner
    return owner


def region_of(request: Request) -> str:
    """The region that the client signed for."""
    scope = _SCOPE.search(request.headers.get("authorization", ""))
    return scope[1] if scope else _REGION


def account_of(role: Any) -> str:
    """The account of a role's ARN."""
    account = _ACCOUNT.match(role) if isinstance(role, str) else None
    return account[1] if account else _NO_ACCOUNT


def sections_of(system: System, operation: str, document: Any) -> dict[str, Any]:
    """The job's own sections of a document. Raises ``ApiError`` that names what of it is not done here."""
    try:
        if not system.recognizes(document, Path(operation)):
            raise JobError(f"{operation}: the request lacks its input or its output")
        job = system.job(document, Path(operation), InS3()).job
    except UsageError as error:
        raise ApiError(400, str(error), code="ValidationException") from error
    return {name: job[name] for name in _OWN if name in job}


def check_input(batch: Batch, settings: ServerSettings, store: Store, stopped: Callable[[], bool]) -> Checked | None:
    """Count the rows of the input; ``None`` where ``stopped`` says so. Raises ``ReadError``, after which it is tried again."""
    try:
        reader = Reader(open_source(settings.job_for(batch.given["sections"], store.run_folder(batch.id)).input))
    except UsageError as error:
        return Checked(errors=[{"code": "invalid_input", "line": None, "message": str(error), "param": None}])
    reader.seek(START)
    rows = 0
    while reader.next is not None:
        reader.take()
        rows += 1
        if rows % _LOOK_EVERY == 0 and stopped():
            return None
    if reader.failure is not None:
        raise reader.failure
    return Checked(rows, settings.model)


def counted(ended: Ended) -> Finished:
    """How many rows have an answer. The files of such a batch are not ours: they lie where the document says."""
    done = failed = 0
    usage = dict.fromkeys(("input", "cached", "output"), 0)
    for _, record in ended.pairs():
        if record is None:
            continue
        done += record["status"] == "ok"
        failed += record["status"] != "ok"
        usage["input"] += record["usage"]["prompt_tokens"]
        usage["cached"] += record["usage"]["cached_tokens"]
        usage["output"] += record["usage"]["completion_tokens"]
    return Finished({}, done, failed, usage)


def write_what_is_done(ended: Ended, change: Callable[[Path], None]) -> None:
    """Lay out the records that there are of a batch that ended early, and copy them to where the document says.

    ``change`` is given the folder of the files before they are copied. Again it does the same.
    """
    job, folder = ended.job, ended.job.output
    manifest = read_manifest(folder)
    part = folder / "done.jsonl"
    if manifest is None or not atomic_write(part, record_lines(folder)):
        return
    finished = replace(finished_run(job, recipe_of(job), folder, manifest.created), parts=[part])
    files = write_layout(finished, Output(folder, job.sinks))
    change(folder)
    plan_upload(job.sinks, folder, files)
    upload(job.sinks, folder, lambda _: None)


def failure_of(batch: Batch, store: Store) -> str | None:
    """Why a batch failed: because of itself, or because its layout says so of a run that came to its end."""
    if batch.facts.errors:
        return str(batch.facts.errors[0]["message"])
    report = find_report(store.run_folder(batch.id)) if batch.state == "completed" else None
    layout: Mapping[str, Any] | None = report.get("layout") if report is not None else None
    return layout["failure"] if layout else None


__all__ = [
    "account_of", "check_input", "counted", "failure_of", "owner_of", "region_of", "sections_of", "write_what_is_done",
]  # fmt: skip
