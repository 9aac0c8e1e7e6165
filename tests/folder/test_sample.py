"""A few records of many: the same each time, the rare failures among them, and no more is read than a bounded part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.ledger import Ledger
from llmbatch.core.record import record_to_line
from llmbatch.core.types import Failure, FailureKind, Record, Status, Usage
from llmbatch.folder import sample
from llmbatch.folder.sample import sample_of, spread_lines
from llmbatch.report.report import Facts, Report, SessionFacts, build_report

RARE, OFTEN = 7_777, 20


def record(index: int) -> Record:
    usage = Usage(index % 100 + 1, 2, 0)
    if index == RARE:
        return Record(
            index,
            f"r{index}",
            Status.FAILED,
            failure=Failure(FailureKind.IMAGE, "no such file"),
            usage=usage,
            attempts=1,
        )
    if index % OFTEN == 0:
        failure = Failure(FailureKind.SCHEMA, "wrong")
        return Record(index, f"r{index}", Status.INVALID, failure=failure, raw="{}", usage=usage, attempts=3)
    return Record(index, f"r{index}", Status.OK, "x" * (index % 40), usage=usage, attempts=1 + (index % 50 == 1))


@pytest.fixture
def made(tmp_path: Path, session: SessionFacts, facts: Facts) -> Any:
    def make(rows: int) -> tuple[Path, Report]:
        ledger, folder = Ledger(), tmp_path / f"run-{rows}"
        folder.mkdir()
        with (folder / "results.jsonl").open("wb") as results, (folder / "errors.jsonl").open("wb") as errors:
            for index in range(rows):
                ledger.add(each := record(index))
                line = record_to_line(each)
                results.write(line)
                if each.status is not Status.OK:
                    errors.write(line)
        return folder, build_report(ledger, session, facts)

    return make


def test_of_a_small_run_every_record_is_taken(made: Any) -> None:
    found = sample_of(*made(60))
    assert [each["index"] for each in found.records] == list(range(60))
    assert (found.rows, found.measured) == (60, 60)
    assert found.attempts == {1: 55, 2: 2, 3: 3}


def test_of_a_large_one_some_are_and_every_kind_is_among_them(made: Any) -> None:
    found = sample_of(*made(12_000))
    kinds = [each.get("kind") for each in found.records]
    assert RARE in [each["index"] for each in found.records]
    assert 100 < kinds.count("schema") < 400
    assert 100 < kinds.count(None) < 700
    assert found.measured == 10_000
    assert [each["index"] for each in found.records] == sorted(each["index"] for each in found.records)


def test_it_is_the_same_each_time(made: Any) -> None:
    folder, report = made(3000)
    assert sample_of(folder, report) == sample_of(folder, report)


def test_of_a_huge_one_only_a_part_is_read_and_all_failures_are_looked_at(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, report = made(12_000)
    monkeypatch.setattr(sample, "_READ", 400_000)
    monkeypatch.setattr(sample, "_BLOCK", 4_000)
    found = sample_of(folder, report)
    assert RARE in [each["index"] for each in found.records]
    assert 1000 < found.measured < 6000
    assert len({each["index"] for each in found.records}) == len(found.records)


@pytest.mark.parametrize("most", [1 << 30, 20_000, 4_000])
def test_lines_come_from_all_over_the_files_each_whole_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(sample, "_BLOCK", 500)
    files = [tmp_path / name for name in ("a", "b")]
    for number, file in enumerate(files):
        lines = (json.dumps([number, at, "x" * (at % 90)]) for at in range(1000))
        file.write_text("".join(f"{line}\n" for line in lines))
    found = [tuple(json.loads(line)[:2]) for line in spread_lines(files, most)]
    assert len(set(found)) == len(found) > 20
    assert (len(found) == 2000) == (most == 1 << 30)
    assert {number for number, _ in found} == {0, 1}
    places = [at for _, at in found]
    assert min(places) < 200 and max(places) > 800
