from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Failure, FailureKind, Record, Status
from llmbatch.report.page.run import run_page
from llmbatch.report.page.sample import Sample
from llmbatch.report.report import Facts, Report, SessionFacts, build_report
from llmbatch.report.summary import headline, next_steps, print_summary


def printed(report: Report, width: int = 100) -> str:
    stream = io.StringIO()
    print_summary(Console(file=stream, width=width), report)
    return stream.getvalue()


def test_the_summary_says_what_became_of_the_rows(report: Report) -> None:
    text = printed(report)
    assert "finished: 2 of 4 rows are not ok" in text
    assert "c: 'age' is missing [bold]\\x1b[31m" in text
    assert "3: rows.jsonl:4: not JSON" in text


def test_a_row_is_not_named_twice(session: SessionFacts, facts: Facts) -> None:
    ledger = Ledger()
    ledger.add(Record(0, "r-1", Status.FAILED, failure=Failure(FailureKind.PROMPT, "row 'r-1': no text")))
    assert "1  row 'r-1': no text" in printed(build_report(ledger, session, facts))


def test_the_summary_says_where_the_tokens_went(report: Report) -> None:
    lines = {line.split()[0]: line.split() for line in printed(report).splitlines() if line.strip()}
    assert lines["useful"] == ["useful", "100", "50", "10"]
    assert lines["wasted"] == ["wasted", "160", "0", "40", "sent", "back:", "schema", "2"]
    assert lines["folded"][:4] == ["folded", "100", "50", "10"]


def test_the_summary_says_where_the_results_are(report: Report) -> None:
    assert "out/my run/results.jsonl" in printed(report)


def test_the_next_steps_can_be_pasted_into_a_shell(report: Report) -> None:
    assert next_steps(report) == ["llmbatch show 'out/my run' 3", "llmbatch retry-failed 'out/my run'"]


def test_where_every_row_is_ok_nothing_is_left_to_do(session: SessionFacts, facts: Facts) -> None:
    ledger = Ledger()
    ledger.add(Record(0, 0, Status.OK))
    report = build_report(ledger, session, facts)
    assert headline(report) == "finished: all 1 rows are ok"
    assert next_steps(report) == []


def test_a_run_that_broke_says_why_and_how_to_go_on(ledger: Ledger, session: SessionFacts, facts: Facts) -> None:
    report = build_report(ledger, replace(session, outcome="broken"), facts, error="the disk is full")
    assert headline(report) == "broken after 4 of 4 rows: the disk is full"
    assert next_steps(report) == ["the same command again goes on where this one stopped"]
    assert next_steps(report, "llmbatch run job.yaml") == ["llmbatch run job.yaml"]


@pytest.mark.parametrize("width", [20, 60, 200])
def test_the_summary_fits_its_console_but_for_what_is_to_be_pasted(report: Report, width: int) -> None:
    lines = printed(report, width).splitlines()
    pasteable = [line for line in lines if line.startswith(("results", "next"))]
    assert [line[10:].rstrip() for line in pasteable] == ["out/my run/results.jsonl", *next_steps(report)]
    assert all(len(line) <= width for line in lines if line not in pasteable)


def test_a_run_without_a_row_can_be_summarized(session: SessionFacts, facts: Facts) -> None:
    assert "finished: all 0 rows are ok" in printed(build_report(Ledger(), replace(session, rows=0), facts))


def test_what_became_of_the_children_of_rows_is_counted(ledger: Ledger, session: SessionFacts, facts: Facts) -> None:
    counts = {"ok": 7, "invalid": 2, "repeated": 1, "left_out": 3}
    report = build_report(ledger, session, replace(facts, children=counts))
    assert report["children"] == {
        "by_status": {"ok": 7, "invalid": 2, "truncated": 0, "failed": 0, "skipped": 0},
        "repeated": 1,
        "left_out": 3,
    }
    lines = {line.split()[0]: line for line in printed(report).splitlines() if line.strip()}
    assert lines["children"].split()[1:] == [
        "9",
        "ok",
        "7",
        "·",
        "invalid",
        "2",
        "·",
        "repeated",
        "1",
        "·",
        "left",
        "out",
        "3",
    ]
    assert "children: invalid" in run_page(report, Sample()).decode()
    assert "children" not in printed(build_report(ledger, session, facts))
