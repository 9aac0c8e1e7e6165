"""Whole runs that end with so many accepted rows: kills, windows, inputs that end, sources that give nothing, retries."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.audit.audit import audit
from llmbatch.core.errors import FolderError, JobError, TooFewAccepted
from llmbatch.core.events import Snapshot
from llmbatch.runs.retry_failed import retry_failed

GOOD = "'good' in output"
SLOW = {"latency": 0.05, "jitter": 0.9, "concurrency": 12}


@pytest.fixture
def rows(jobs: Any) -> Path:
    """Rows of which a third is good; every good one comes once more, nearly the same."""
    path: Path = jobs.rows([{"id": f"r{i}", "text": text_of(i)} for i in range(400)])
    return path


def text_of(index: int) -> str:
    rng = hashlib.sha256(str(index // 2).encode()).hexdigest()
    return (
        f"{'good' if int(rng, 16) % 3 == 0 else 'bad'} "
        + " ".join(rng[at : at + 3] for at in range(0, 60, 3))
        + f" {index}"
    )


def accepted(jobs: Any, folder: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (jobs.path / folder / "accepted.jsonl").read_bytes().splitlines()]


def test_exactly_so_many_rows_are_accepted_the_first_that_meet_the_conditions(jobs: Any, rows: Path) -> None:
    result = jobs.run(jobs.job(rows, accept={"rows": 30, "when": GOOD}))
    expected = [f"r{i}" for i in range(400) if "good" in text_of(i)][:30]
    assert [record["id"] for record in accepted(jobs)] == expected
    records = jobs.records()
    assert [record["index"] for record in records] == list(range(len(records)))
    assert len(records) < 400
    assert accepted(jobs) == [record for record in records if "details" not in record][:30]
    report = result.report["accept"]
    assert report["accepted"] == report["wanted"] == 30
    assert report["candidates"] == int(expected[-1][1:]) + 1 == report["accepted"] + report["fell"][GOOD]["rows"]
    assert report["candidates"] + report["surplus"] == len(records)
    assert report["per_accepted"]["completion_tokens"] == pytest.approx(
        sum(record["usage"]["completion_tokens"] for record in records) / 30
    )
    assert result.exit_code == 0
    assert audit(result.folder).complete


def test_a_record_says_which_condition_its_row_does_not_meet(jobs: Any, rows: Path) -> None:
    jobs.run(jobs.job(rows, accept={"when": [GOOD, "output.score > 1"]}))
    good, bad = (next(r for r in jobs.records() if word in r["output"]) for word in ("good", "bad"))
    assert bad["details"] == {"fell": {"condition": GOOD}}
    assert good["details"]["fell"]["condition"] == "output.score > 1"
    assert "it cannot be told" in good["details"]["fell"]["message"]


@pytest.mark.parametrize(
    "sections",
    [
        {"run": {"window": 1}},
        {"run": {"window": 7, "windows_open": 2}},
        {"plan": {"order": "longest", "fold": False}, "engine": {"replicas": 3}},
        {"accept": {"confidence": 0.999}},
    ],
    ids=str,
)
def test_which_rows_are_accepted_depends_neither_on_windows_nor_on_order_nor_on_replicas(
    jobs: Any, rows: Path, sections: dict[str, Any]
) -> None:
    accept = {"rows": 25, "when": GOOD, "unique": True, **sections.get("accept", {})}
    jobs.run(jobs.job(rows, accept=accept, output=str(jobs.path / "plain")))
    jobs.run(jobs.job(rows, {"latency": 0.003, "jitter": 0.9, "concurrency": 8}, **{**sections, "accept": accept}))
    assert (jobs.path / "out" / "accepted.jsonl").read_bytes() == (jobs.path / "plain" / "accepted.jsonl").read_bytes()
    indexes = [record["index"] // 2 for record in accepted(jobs)]
    assert len(set(indexes)) == 25  # of every two that are nearly the same, one


@pytest.mark.parametrize("fault", ["journal-append:2", "journal-torn:4", "part-sealed:1", "renamed/accepted.jsonl:1"])
def test_the_same_rows_are_accepted_after_kills(jobs: Any, rows: Path, fault: str) -> None:
    accept = {"rows": 40, "when": GOOD, "unique": True}
    jobs.run(jobs.job(rows, accept=accept, output=str(jobs.path / "whole")))
    data = jobs.data(rows, SLOW, accept=accept, run={"window": 40})
    for kill in (fault, "journal-append:1"):
        if kill == fault or fault != "renamed/accepted.jsonl:1":  # after which nothing is left to be killed
            jobs.killed(data, kill)
    code, _, err = jobs.finish(data)
    assert code == 0, err
    assert (jobs.path / "out" / "accepted.jsonl").read_bytes() == (jobs.path / "whole" / "accepted.jsonl").read_bytes()
    assert audit(jobs.path / "out").complete


def test_more_rows_may_be_wanted_later_and_fewer_too(jobs: Any, rows: Path) -> None:
    jobs.run(jobs.job(rows, accept={"rows": 20, "when": GOOD}))
    first = accepted(jobs)
    result = jobs.run(jobs.job(rows, accept={"rows": 50, "when": GOOD}))
    assert accepted(jobs)[:20] == first
    assert len(accepted(jobs)) == 50
    assert result.report["accept"]["candidates"] == 1 + accepted(jobs)[-1]["index"]
    jobs.run(jobs.job(rows, accept={"rows": 20, "when": GOOD}))
    assert accepted(jobs) == first


def test_what_is_unique_may_be_said_otherwise_later_but_not_the_conditions(jobs: Any, rows: Path) -> None:
    jobs.run(jobs.job(rows, accept={"rows": 20, "when": GOOD}))
    jobs.run(jobs.job(rows, accept={"rows": 20, "when": GOOD, "unique": "output"}))
    assert len({record["index"] // 2 for record in accepted(jobs)}) == 20
    with pytest.raises(FolderError, match=r"accept\.when was"):
        jobs.run(jobs.job(rows, accept={"rows": 20, "when": "'bad' in output"}))


def test_an_input_that_ends_before_is_said_and_is_no_success(jobs: Any, rows: Path) -> None:
    result = jobs.run(jobs.job(rows, accept={"rows": 1000, "when": GOOD}))
    assert result.exit_code == 3
    assert len(jobs.records()) == 400
    report = result.report["accept"]
    assert (report["accepted"], report["surplus"]) == (len(accepted(jobs)), 0)
    assert audit(result.folder).complete


def test_a_source_of_which_nothing_is_accepted_is_given_up_with_the_reasons_and_can_be_gone_on_with(
    jobs: Any, rows: Path
) -> None:
    accept = {"rows": 30, "when": "'best' in output", "give_up": 60}
    for done in (60, 60, 200):
        with pytest.raises(
            TooFewAccepted, match=rf"none of {done} candidates .* {done} by 'best' in output, as row 'r0'"
        ):
            jobs.run(jobs.job(rows, accept={**accept, "give_up": done}))
        assert jobs.report()["rows"]["done"] == done
    assert jobs.report()["exit_code"] == 1
    assert not audit(jobs.path / "out").complete


def test_rows_that_are_tried_again_may_be_accepted_then(jobs: Any, rows: Path) -> None:
    fails = {"rules": [{"when": {"matches": "good .*[04]$"}, "answer": ""}]}
    accept = {"rows": 20, "when": GOOD}
    jobs.run(jobs.job(rows, fails, accept=accept))
    before = [record["index"] for record in accepted(jobs)]
    assert "invalid: empty" in jobs.report()["accept"]["fell"]
    (jobs.path / "other.yaml").write_text("rules: []")
    result = retry_failed(jobs.path / "out", {"engine": {"script": str(jobs.path / "other.yaml")}})
    assert [record["index"] for record in accepted(jobs)] < before
    assert len(accepted(jobs)) == 20
    assert result.exit_code == 0
    assert "invalid: empty" not in jobs.report()["accept"]["fell"]
    assert audit(result.folder).complete


def test_how_many_are_accepted_is_told_on_the_way(jobs: Any, rows: Path) -> None:
    jobs.run(jobs.job(rows, accept={"rows": 30, "when": GOOD}))
    last = [event for event in jobs.events if isinstance(event, Snapshot)][-1]
    assert (last.accepted, last.accepted_wanted) == (30, 30)
    assert last.rows_total == last.rows


def test_rows_that_are_drawn_without_an_end_need_a_number_that_is_to_be_accepted(jobs: Any) -> None:
    drawn = {"path": "", "draw": {"text": {"from": 1, "to": 1000}}}
    job = jobs.job(Path(), input=drawn, accept={"rows": 25, "when": "output | int > 700"})
    jobs.run(job)
    assert len(accepted(jobs)) == 25
    assert all(int(record["output"]) > 700 for record in accepted(jobs))
    with pytest.raises(JobError, match=r"input\.rows is missing"):
        jobs.job(Path(), input=drawn)
