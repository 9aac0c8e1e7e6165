"""A run folder in, the proof that it is whole out, or what is missing or damaged in it. Reads only; needs no lock and no engine.

What is proved: every input row is accounted for once and in order, parts are what was sealed, the ledger is the sum of the records,
the job is the one that the folder was begun with, and results.jsonl is made of the parts (and of rows that were retried).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from llmbatch.errors import LlmbatchError
from llmbatch.folder import read_manifest
from llmbatch.job import Job, job_from, load_job_data
from llmbatch.parts import Bounds, Meta, Parts, read_journal
from llmbatch.record import record_from_dict
from llmbatch.report.ledger import Ledger
from llmbatch.sources import Source, open_source
from llmbatch.stages import Stages

_SHOWN = 5  # problems of one check that are spelled out


@dataclass(slots=True)
class Check:
    """One thing that was looked at. Without problems it holds."""

    name: str
    seen: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(slots=True)
class AuditReport:
    """``ok``: nothing is damaged or doubled. ``complete``: moreover no row is owed. Rows are counted in input lines."""

    folder: Path
    checks: list[Check]
    rows_done: int
    rows_owed: int | None  # None where the input could not be read

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def complete(self) -> bool:
        return self.ok and self.rows_owed == 0

    @property
    def exit_code(self) -> int:
        """0 whole and complete, 3 whole but unfinished, 1 damaged."""
        return 0 if self.complete else 3 if self.ok else 1


def audit(folder: Path) -> AuditReport:
    """Look at everything in a run folder. Raises ``FolderError`` only where it is no run folder at all."""
    from llmbatch.errors import FolderError

    manifest = read_manifest(folder)
    if manifest is None:
        raise FolderError(f"{folder}: is no run folder: there is no run.json in it")
    auditor = _Auditor(folder, manifest.identity)
    return auditor.run()


class _Auditor:
    def __init__(self, folder: Path, identity: dict[str, str]) -> None:
        self._folder = folder
        self._identity = identity
        self._parts = Parts(folder / "parts")
        self._metas: dict[int, Meta] = {}
        self._open: dict[int, Bounds] = {}
        self._done_in_journals: set[int] = set()
        self._ledger = Ledger()

    def run(self) -> AuditReport:
        job_check, job = self._check_job()
        sealed, journals = self._parts.scan()
        parts = self._check_parts(sealed)
        windows = self._check_windows(journals)
        checks = [job_check, parts, windows]
        owed: int | None = None
        if job is not None:
            rows, owed = self._check_rows(job)
            checks.append(rows)
        if (self._folder / "results.jsonl").exists():
            checks += [self._check_results(), self._check_errors(), self._check_report()]
        return AuditReport(self._folder, checks, self._ledger.rows + len(self._done_in_journals), owed)

    def _check_job(self) -> tuple[Check, Job | None]:
        check = Check("job", "job.yaml is the job that the folder was begun with")
        try:
            job = job_from(load_job_data(self._folder / "job.yaml"))
            now = {**job.identity(), **Stages(job).identity()}
        except LlmbatchError as error:
            check.problems.append(str(error))
            return check, None
        for key in sorted(now.keys() | self._identity.keys()):
            if now.get(key) != self._identity.get(key):
                check.problems.append(f"{key} was {self._identity.get(key)}, now {now.get(key)}")
        return check, job

    def _check_parts(self, sealed: set[int]) -> Check:
        check = Check("parts", f"{len(sealed)} sealed parts: checksums, rows in order, ledgers")
        for window in sorted(sealed):
            path = self._parts.path(window)
            try:
                meta = self._parts.meta(window)
                content = path.read_bytes()
            except (LlmbatchError, OSError) as error:
                check.problems.append(str(error))
                continue
            self._metas[window] = meta
            if hashlib.sha256(content).hexdigest() != meta.sha256:
                check.problems.append(f"{path}: its checksum is not what was sealed; the file was changed or damaged")
                continue
            ledger = Ledger()
            check.problems += self._look_at_lines(path, content, meta, ledger)
            self._ledger.merge(Ledger.from_dict(meta.ledger))
            # which rows were folded is known to the meta file alone, so what is compared are the sums over all records
            if _sums(ledger) != _sums(Ledger.from_dict(meta.ledger)):
                check.problems.append(f"{path}: its ledger is not the sum of its records")
        return check

    def _look_at_lines(self, path: Path, content: bytes, meta: Meta, ledger: Ledger) -> list[str]:
        problems: list[str] = []
        last = meta.bounds.start.index - 1
        lines = content.splitlines(keepends=True) if content else []
        for number, line in enumerate(lines, start=1):
            try:
                record = record_from_dict(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                problems.append(f"{path}:{number}: is no record: {error!r}")
                continue
            if record.index <= last:
                problems.append(f"{path}:{number}: row {record.index} comes twice or out of order")
            last = record.index
            ledger.add(record)
        if len(lines) != meta.bounds.rows:
            problems.append(f"{path}: has {len(lines)} records, was sealed with {meta.bounds.rows}")
        return problems

    def _check_windows(self, journals: set[int]) -> Check:
        check = Check(
            "windows", f"{len(journals)} open windows with a journal; all windows follow one another without a gap"
        )
        for window in sorted(journals):
            path = self._parts.folder / f"part-{window:05d}.journal"
            try:
                replay, _ = read_journal(path)
            except (LlmbatchError, OSError) as error:
                check.problems.append(str(error))
                continue
            if replay is None:
                continue  # killed while it was begun: its rows are owed
            self._open[window] = replay.bounds
            self._done_in_journals |= replay.lines.keys()
        bounds = {**{w: m.bounds for w, m in self._metas.items()}, **self._open}
        numbers = sorted(bounds)
        for before, after in zip(numbers, numbers[1:], strict=False):
            stop, start = bounds[before].stop, bounds[after].start
            if after == before + 1 and stop is not None and stop.index != start.index:
                check.problems.append(
                    f"window {before} ends before row {stop.index}, window {after} begins at row {start.index}"
                )
        missing = sorted(set(range(numbers[-1] + 1)) - set(numbers)) if numbers else []
        if missing and (self._folder / "results.jsonl").exists():
            check.problems.append(f"windows {_list(missing)} have neither a part nor a journal")
        return check

    def _check_rows(self, job: Job) -> tuple[Check, int | None]:
        """Walk the input and the records side by side."""
        check = Check("rows")
        try:
            source = self._source(job)
            records = self._records()
            wanted = _wanted(job)
            rows = owed = 0
            record = next(records, None)
            for row in source.rows():
                if wanted is not None and row.index not in wanted:
                    continue
                rows += 1
                while record is not None and record["index"] < row.index:
                    check.problems.append(f"a record for row {record['index']}, which the input does not have")
                    record = next(records, None)
                if record is not None and record["index"] == row.index:
                    if record["id"] != row.id:
                        check.problems.append(
                            f"{source.locate(row.cursor)}: the row's id is {row.id!r}, its record's {record['id']!r}"
                        )
                    record = next(records, None)
                elif row.index not in self._done_in_journals:
                    owed += 1
                    if owed <= _SHOWN and not self._open:
                        check.seen = f"owed: {source.locate(row.cursor)}"
            for extra in (record, *records) if record is not None else records:
                check.problems.append(f"a record for row {extra['index']}, which the input does not have")
        except LlmbatchError as error:
            check.problems.append(str(error))
            return check, None
        check.seen = f"{rows} input rows: {rows - owed} with a record, {owed} owed" + (
            f"; {check.seen}" if check.seen else ""
        )
        if owed and (self._folder / "results.jsonl").exists() and not self._open:
            check.problems.append(f"{owed} rows have no record")
        return check, owed

    def _source(self, job: Job) -> Source:
        settings = job.input
        if settings.path == "-":
            copy = {"path": str(self._folder / "input.jsonl"), "format": settings.format or "jsonl"}
            settings = settings.model_copy(update=copy)
        return open_source(settings)

    def _records(self) -> Iterator[dict[str, Any]]:
        """The records of the sealed parts, in order; damaged lines were told of before."""
        for window in sorted(self._metas):
            for line in self._parts.path(window).read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    record = json.loads(line)
                    if isinstance(record, dict) and {"index", "id"} <= record.keys():
                        yield record

    def _check_results(self) -> Check:
        check = Check("results", "results.jsonl holds the lines of the parts, in order")
        retried = 0
        path = self._folder / "results.jsonl"
        with path.open("rb") as results:
            for number, (line, sealed) in enumerate(zip_longest(results, self._sealed_lines()), start=1):
                if line == sealed:
                    continue
                if line is None or sealed is None:
                    check.problems.append(
                        f"{path}: has {'fewer' if line is None else 'more'} lines than the parts, from line {number}"
                    )
                    break
                if _is_retry_of(line, sealed):
                    retried += 1
                else:
                    check.problems.append(f"{path}:{number}: is not the record that was sealed")
        if retried:
            check.seen += f"; {retried} of them were tried again"
        return check

    def _sealed_lines(self) -> Iterator[bytes]:
        for window in sorted(self._metas):
            yield from self._parts.path(window).read_bytes().splitlines(keepends=True)

    def _check_errors(self) -> Check:
        check = Check("errors", "errors.jsonl holds the lines of results.jsonl that are not ok")
        with (self._folder / "results.jsonl").open("rb") as results:
            bad = (line for line in results if _status(line) != "ok")
            try:
                with (self._folder / "errors.jsonl").open("rb") as errors:
                    if any(a != b for a, b in zip_longest(bad, errors)):
                        check.problems.append(f"{self._folder / 'errors.jsonl'}: differs from what results.jsonl says")
            except OSError as error:
                check.problems.append(str(error))
        return check

    def _check_report(self) -> Check:
        check = Check("report", "report.json counts what results.jsonl holds")
        counts: dict[str, int] = {}
        with (self._folder / "results.jsonl").open("rb") as results:
            for line in results:
                status = _status(line)
                counts[status] = counts.get(status, 0) + 1
        try:
            report = json.loads((self._folder / "report.json").read_bytes())
            said = {status: count for status, count in report["rows"]["by_status"].items() if count}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            check.problems.append(f"{self._folder / 'report.json'}: cannot be read: {error!r}")
            return check
        if said != counts:
            check.problems.append(f"report.json says {said}, results.jsonl has {counts}")
        return check


def _sums(ledger: Ledger) -> tuple[Any, ...]:
    return ledger.by_status, ledger.by_failure, ledger.attempts, ledger.total


def _status(line: bytes) -> str:
    try:
        return str(json.loads(line)["status"])
    except (ValueError, KeyError, TypeError):
        return "unreadable"


def _is_retry_of(line: bytes, sealed: bytes) -> bool:
    """Whether a line tells of the same row as a sealed one that was not ok, with more attempts."""
    try:
        now, before = json.loads(line), json.loads(sealed)
        same = now["index"] == before["index"] and now["id"] == before["id"]
        return bool(same and before["status"] != "ok" and now["attempts"] >= before["attempts"])
    except (ValueError, KeyError, TypeError):
        return False


def _wanted(job: Job) -> frozenset[int] | None:
    if job.run.rows is None:
        return None
    return frozenset(int(line) for line in job.run.rows.read_text(encoding="utf-8").split())


def _list(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return shown + (", ..." if len(numbers) > _SHOWN else "")
