"""A run folder in; a few of its records, and the lengths of some more, out: in a second or two, however many records there are.

Which rows are taken depends on their indexes alone, so the same run gives the same sample. What is not ok is taken before what is:
each kind of failure has a share of its own, so that the rare ones are there too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.types import Status
from llmbatch.folder.folder import ERRORS, RESULTS, RunFolder
from llmbatch.folder.records import failure_on, head_of, index_of, parse, reading
from llmbatch.report.page.sample import Sample, shown, within
from llmbatch.report.report import Report

_READ = 256 << 20  # bytes, of a larger folder evenly spread blocks are read
_BLOCK = 1 << 20
_PARSED = 64 << 20  # bytes: a line may be long
_MEASURED = 10_000  # rows
_OK, _RETRIED, _BAD, _LEAST = (
    150,
    100,
    300,
    12,
)  # records that are ok, ok after more than one answer, not ok, of one kind


def sample_of(folder: Path, report: Report) -> Sample:
    """What a page is told of the records of a run, finished or not. Raises ``FolderError``."""
    run, taken = RunFolder(folder), _Taken(report)
    if (folder / RESULTS).exists() and report["outcome"] == "finished":
        read = spread_lines([folder / RESULTS], _READ)
        taken.take(read, _share_read([folder / RESULTS]))
        if _share_read([folder / RESULTS]) < 1 and (folder / ERRORS).exists():
            taken.take_bad(spread_lines([folder / ERRORS], _READ))
    else:
        sealed, _ = run.parts.scan()
        parts = [run.parts.path(window) for window in sorted(sealed)]
        taken.take(spread_lines(parts, _READ), _share_read(parts))
        taken.take(run.open_lines(), 1.0)
    return taken.sample()


def _share_read(files: Sequence[Path]) -> float:
    size = sum(file.stat().st_size for file in files)
    return min(1.0, _READ / size) if size else 1.0


def spread_lines(files: Sequence[Path], most: int) -> Iterator[bytes]:
    """The lines of the files; of more than so many bytes those that begin in blocks which are spread evenly over them.

    Each line is as likely to be among them as any other, be it short or long. Raises ``FolderError``.
    """
    share = min(1.0, most / max(1, sum(file.stat().st_size for file in files)))
    for file in files:
        with reading(file), file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if share >= 1:
                yield from stream
                continue
            blocks = max(1, int(size * share / _BLOCK))
            for block in range(blocks):
                start = max(0, size - _BLOCK) * block // max(1, blocks - 1)
                stream.seek(max(0, start - 1))
                if start:
                    stream.readline()  # the rest of a line that began before
                while stream.tell() < min(size, start + _BLOCK):
                    yield stream.readline()


class _Taken:
    """What is taken of the lines that it is shown."""

    def __init__(self, report: Report) -> None:
        rows, failures = report["rows"], report["failures"]
        self._sample = Sample(rows["done"])
        self._rows = max(1, rows["done"])
        ok = rows["by_status"].get(Status.OK, 0)
        each = max(_LEAST, _BAD // max(1, len(failures)))
        self._most = dict.fromkeys(failures, each)
        self._rate = {kind: each / max(1, failure["rows"]) for kind, failure in failures.items()}
        self._rate["ok"] = _OK / max(1, ok)
        self._wanted = {failure["index"] for failure in failures.values()}
        accept = report.get("accept")
        self._wanted |= {fell["index"] for fell in accept["fell"].values()} if accept else set()
        self._kept: dict[str, list[dict[str, Any]]] = {}
        self._known: set[int] = set()
        self._parsed = 0

    def take(self, lines: Iterable[bytes], share: float) -> None:
        """Look at lines that are such a share of all there are."""
        measure = _MEASURED / (self._rows * share)
        for line in lines:
            index, status = head_of(line)
            place = _place(index)
            measured = place < measure and self._parsed < _PARSED and self._sample.measured < 2 * _MEASURED
            kind = "ok" if status == Status.OK else failure_on(line)
            kept = index in self._wanted or place < self._rate.get(kind, 1.0) / share
            if not (measured or kept):
                continue
            self._parsed += len(line)
            record = parse(line)
            if measured:
                self._measure(record)
            retried = kind == "ok" and record["attempts"] > 1
            if kept or retried:
                self._keep("ok, retried" if retried else kind, record)

    def take_bad(self, lines: Iterable[bytes]) -> None:
        """Look at lines of rows that are not ok, of which only some were seen."""
        for line in lines:
            index, kind = index_of(line), failure_on(line)
            if index in self._wanted or _place(index) < self._rate.get(kind, 1.0):
                self._keep(kind, parse(line))

    def sample(self) -> Sample:
        """What is not ok first, one of each kind after the other, and then the rest: as far as there is room."""
        found = self._sample
        bad = [records for kind, records in self._kept.items() if not kind.startswith("ok")]
        ordered = [*_in_turn(bad), *_in_turn([self._kept.get("ok, retried", []), self._kept.get("ok", [])])]
        found.records = within(ordered)
        return found

    def _measure(self, record: dict[str, Any]) -> None:
        if not record["attempts"]:  # nothing was asked
            return
        usage, found = record["usage"], self._sample
        wasted = usage["wasted"]
        found.attempts[record["attempts"]] = found.attempts.get(record["attempts"], 0) + 1
        # of one answer: what was sent back before it does not make the prompt longer
        found.prompt_tokens.append(usage["prompt_tokens"] - wasted["prompt_tokens"] or usage["prompt_tokens"])
        found.answer_tokens.append(usage["completion_tokens"] - wasted["completion_tokens"])

    def _keep(self, kind: str, record: dict[str, Any]) -> None:
        records, index = self._kept.setdefault(kind, []), record["index"]
        most = _OK if kind == "ok" else _RETRIED if kind == "ok, retried" else self._most.get(kind, _LEAST)
        if index in self._known or (len(records) >= 2 * most and index not in self._wanted):
            return
        self._known.add(index)
        records.append(shown(record))


def _place(index: int) -> float:
    """Where a row's index falls between 0 and 1: any stretch of indexes falls evenly, and the same one always at the same place."""
    return (index * 0x9E3779B1 & 0xFFFFFFFF) / 2**32


def _in_turn(groups: Sequence[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for at in range(max(map(len, groups), default=0)):
        yield from (group[at] for group in groups if at < len(group))


__all__ = ["sample_of", "spread_lines"]
