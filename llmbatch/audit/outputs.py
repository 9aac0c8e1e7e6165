"""The parts of a run and its retries in, whether results, errors and report are made of them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.accept.base import AcceptSettings
from llmbatch.accept.selection import Selection
from llmbatch.audit.finding import Finding
from llmbatch.core.errors import FolderError, LlmbatchError
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Status
from llmbatch.folder.folder import ACCEPTED, ERRORS, REPORT, RESULTS, read_report, unreadable_report
from llmbatch.folder.overlay import finished_retries, overlay, sealed_lines
from llmbatch.folder.records import parse, record_on
from llmbatch.sinks.children import CHILDREN, child_lines


def check_outputs(
    folder: Path, *, finished: bool, pending: Path | None, accept: AcceptSettings | None = None
) -> list[Finding]:
    """A check for each file. Of a run that is not ``finished`` the files may be those of a shorter one, which it extends.

    Where a job says what is accepted, ``accepted.jsonl`` is one of them.

    ``pending`` is a retry that is being taken over: each file may be from before or after. So it is while a run that has retries is
    finished anew.
    """
    done = finished_retries(folder)
    states = [done]
    if pending is not None:
        states.append([*done, pending])
    if done and not finished:
        states.append([])
    found = [
        (*_outputs(folder, retries, finished), *_accepted(folder, retries, finished, accept)) for retries in states
    ]
    return [min(of_one, key=lambda check: len(check.problems)) for of_one in zip(*found, strict=True)]


def _outputs(folder: Path, retries: Sequence[Path], finished: bool) -> tuple[Finding, ...]:
    over = f" and of {len(retries)} retries over them" if retries else ""
    results = Finding("results", f"results.jsonl holds the lines of the parts{over}, in order")
    errors = Finding("errors", "errors.jsonl holds the records that are not ok")
    report = Finding("report", "report.json counts what the records hold")
    children = Finding("children", "children.jsonl holds the children of the rows, in order")
    ledger = Ledger()
    expected_results = _Expected(folder / RESULTS, results, whole=finished)
    expected_errors = _Expected(folder / ERRORS, errors, whole=finished)
    expected_children = _Expected(folder / CHILDREN, children, whole=finished) if _has_children(folder) else None
    expected = [each for each in (expected_results, expected_errors, expected_children) if each is not None]
    count = 0
    try:
        for line in overlay(sealed_lines(folder), retries):
            record = record_on(line)
            ledger.add(record)
            expected_results.next(line)
            if expected_children is not None:
                for child in child_lines(parse(line), count):
                    expected_children.next(child)
                    count += 1
            if record.status is not Status.OK:
                expected_errors.next(line)
        if finished:
            _check_report(folder, ledger, report)
    except (LlmbatchError, ValueError, KeyError, TypeError) as error:
        results.problem(str(error) if isinstance(error, LlmbatchError) else f"a part cannot be read: {error!r}")
    else:
        for each in expected:
            each.end()
    finally:
        for each in expected:
            each.close()
    return (results, errors, report) if expected_children is None else (results, errors, children, report)


def _has_children(folder: Path) -> bool:
    """Whether the run's program makes children of rows: their file is there, or the report names it."""
    try:
        return (folder / CHILDREN).exists() or CHILDREN in read_report(folder)["outputs"]
    except (FolderError, KeyError, TypeError):
        return False


def _accepted(
    folder: Path, retries: Sequence[Path], finished: bool, accept: AcceptSettings | None
) -> Iterator[Finding]:
    """Of a run that is not finished, other rows may be accepted by now."""
    if accept is None or not finished:
        return
    check = Finding("accepted", "accepted.jsonl holds the records that are accepted")
    expected = _Expected(folder / ACCEPTED, check, whole=True)
    try:
        lines = overlay(sealed_lines(folder), retries)
        for line in Selection(accept).among((line, record_on(line)) for line in lines):
            expected.next(line)
        expected.end()
    except LlmbatchError as error:
        check.problem(str(error))
    finally:
        expected.close()
    yield check


def _check_report(folder: Path, ledger: Ledger, check: Finding) -> None:
    path = folder / REPORT
    counted: dict[str, Any] = {
        "rows": ledger.rows,
        "by status": {str(status): count for status, count in ledger.by_status.items()},
        "by failure": {str(kind): count for kind, count in ledger.by_failure.items()},
        "attempts": ledger.attempts,
        "tokens": ledger.total.as_dict(),
    }
    try:
        report: Any = read_report(folder)
        rows, tokens = report["rows"], report["tokens"]
        said = {
            "rows": rows["done"],
            "by status": {status: count for status, count in rows["by_status"].items() if count},
            "by failure": {kind: failure["rows"] for kind, failure in report["failures"].items()},
            "attempts": report["attempts"],
            "tokens": tokens["total"],
        }
        sums = {name: sum(tokens[part][name] for part in ("useful", "wasted", "folded")) for name in tokens["total"]}
    except FolderError as error:
        check.problem(str(error))
        return
    except (KeyError, TypeError, AttributeError) as error:
        check.problem(str(unreadable_report(folder, error)))
        return
    for name, value in counted.items():
        if said[name] != value:
            check.problem(f"{path}: says {name} {said[name]}, the records have {value}")
    if sums != said["tokens"]:
        check.problem(f"{path}: useful, wasted and folded tokens do not add up to their total")


class _Expected:
    """A file's lines, held against those that are expected. A file that need not be ``whole`` may end earlier."""

    def __init__(self, path: Path, check: Finding, *, whole: bool) -> None:
        self._path = path
        self._check = check
        self._whole = whole
        self._number = 0
        self._ended = False
        try:
            self._file = path.open("rb")
        except OSError as error:
            check.problem(f"{path}: {error.strerror}")
            self._ended = True

    def next(self, expected: bytes) -> None:
        """The line that comes next."""
        if self._ended:
            return
        self._number += 1
        line = self._file.readline()
        if not line:
            self._ended = True
            if self._whole:
                self._check.problem(f"{self._path}: ends before line {self._number}; more records were sealed")
        elif line != expected:
            self._check.problem(f"{self._path}:{self._number}: is not the record that was sealed")

    def end(self) -> None:
        """No more lines come."""
        if not self._ended and self._file.readline():
            self._check.problem(f"{self._path}: goes on after line {self._number}; no more records were sealed")

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
