from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from llmbatch.core.events import Replica
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Failure, FailureKind, Record, Status, Usage
from llmbatch.report.html import report_to_html
from llmbatch.report.report import Facts, Report, SessionFacts, build_report


class Elements(HTMLParser):
    """The tags of a page, and whether each that must be closed is."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_says_what_the_summary_says_and_is_well_formed(report: Report) -> None:
    page = report_to_html(report)
    assert Elements(page).open == []
    assert "finished: 2 of 4 rows are not ok" in page
    assert "engine.version" in page
    assert "llmbatch retry-failed" in page


def test_the_page_needs_nothing_from_elsewhere(report: Report) -> None:
    page = report_to_html(report)
    assert {"script", "link", "img"}.isdisjoint(Elements(page).tags)
    assert "http" not in page


def test_what_comes_from_a_row_is_text_and_no_markup(session: SessionFacts, facts: Facts) -> None:
    ledger = Ledger()
    failure = Failure(FailureKind.PROMPT, "<script>alert(1)</script> {{ 7 * 7 }}")
    ledger.add(Record(0, "<b>id</b>", Status.FAILED, failure=failure))
    page = report_to_html(build_report(ledger, session, facts))
    assert "&lt;script&gt;alert(1)&lt;/script&gt; {{ 7 * 7 }}" in page
    assert "script" not in Elements(page).tags
    assert "b" not in Elements(page).tags


def test_a_run_without_a_row_has_a_page(session: SessionFacts, facts: Facts) -> None:
    assert "all 0 rows are ok" in report_to_html(build_report(Ledger(), session, facts))


def test_several_engines_have_a_table_and_one_alone_has_none(
    report: Report, ledger: Ledger, session: SessionFacts, facts: Facts
) -> None:
    assert "Engines of the last session" not in report_to_html(report)
    one = Replica(0, "left out", 10.0, 9.0, Usage(100, 50, 40), 3)
    page = report_to_html(build_report(ledger, replace(session, replicas=(one,)), facts))
    assert "Engines of the last session" in page and "left out" in page
