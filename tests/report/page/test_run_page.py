"""The page of a report: well formed, whole by itself, and all that comes from outside is text in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.events import Replica, Snapshot
from llmbatch.core.ledger import Ledger
from llmbatch.core.record import record_to_dict
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Status, Usage
from llmbatch.report.page.over_time import Cost
from llmbatch.report.page.plots import dots
from llmbatch.report.page.run import run_page
from llmbatch.report.page.sample import Sample, prompt_of, shown, within
from llmbatch.report.report import Facts, Report, SessionFacts, SettingReport, build_report
from llmbatch.report.timeline import Timeline

VOID = {"meta", "input", "link", "br"}
HOSTILE = "<script>alert(1)</script> </script> <img src=x onerror=alert(2)> {{ 7 * 7 }} &amp; \u202e\x00\x1b[31m"


class Elements(HTMLParser):
    """The tags of a page, and whether each that must be closed is."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written(report: Report, sample: Sample | None = None, **given: Any) -> str:
    return run_page(report, sample or Sample(), **given).decode()


def hostile_record(**changes: Any) -> Record:
    back = Attempt(RequestKey(0), Failure(FailureKind.SCHEMA, HOSTILE), Usage(1, 1, 0), text=HOSTILE)
    record = Record(
        0, HOSTILE, Status.INVALID, attempts=2, usage=Usage(5, 5, 0), failure=Failure(FailureKind.SCHEMA, HOSTILE), raw=HOSTILE,
        history=(back,), input={HOSTILE: HOSTILE}, details={HOSTILE: [HOSTILE]},
    )  # fmt: skip
    return replace(record, **changes)


def test_the_page_leads_with_what_happened_and_four_figures(report: Report) -> None:
    page = written(report)
    assert Elements(page).open == []
    assert "<h1>Finished: 2 of 4 rows are not ok</h1>" in page
    assert re.findall(r"<dt>(.*?)</dt><dd><b>(.*?)</b>", page)[:4] == [
        ("rows ok", "50%"), ("rows not ok", "2"), ("took", "30 s"), ("tokens", "310"),
    ]  # fmt: skip
    assert "llmbatch retry-failed" in page


def test_it_loads_nothing(report: Report) -> None:
    page = written(report)
    elements = Elements(page)
    assert {"link", "img", "iframe", "object", "base"}.isdisjoint(elements.tags)
    assert not [value for name, value in elements.attributes if name in ("src", "srcset", "action", "data")]
    assert all((value or "").startswith("#") for name, value in elements.attributes if name == "href")
    assert "://" not in page and "url(" not in page and "@import" not in page


def test_what_comes_from_outside_is_text_and_no_markup(session: SessionFacts, facts: Facts) -> None:
    ledger, record = Ledger(), hostile_record()
    ledger.add(record)
    outside = replace(
        facts, folder=f"out/{HOSTILE}", job={"model": HOSTILE, "prompt": HOSTILE}, engine={HOSTILE: HOSTILE},
        notes=[{"level": "error", "message": HOSTILE}, {"level": "info", "message": HOSTILE}], outputs=[HOSTILE],
    )  # fmt: skip
    report = build_report(ledger, session, outside, error=HOSTILE)
    sample = Sample(
        1, [5], [5], {2: 1}, [{**shown(record_to_dict(record)), "prompt": prompt_of(None, HOSTILE), "place": HOSTILE}]
    )
    figures = [(HOSTILE, 0.5, 0.4, 0.6, HOSTILE, "in", True)]
    page = written(report, sample, scores=[dots(HOSTILE, figures, span=(0, 1), say=str)])
    clean = written(report, replace(sample, records=[{"index": 0, "id": "x", "status": "invalid", "kind": "schema"}]))
    elements = Elements(page)
    assert elements.open == []
    assert elements.tags.count("script") == Elements(clean).tags.count("script") == 2
    assert "img" not in elements.tags
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page
    assert not set("\x00\x1b\u202e") & set(page)


def test_the_records_for_the_script_are_what_they_were(report: Report) -> None:
    records = [shown(record_to_dict(hostile_record()))]
    page = written(report, Sample(4, records=records))
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data) == records


def test_a_run_without_a_row_has_a_page(session: SessionFacts, facts: Facts) -> None:
    page = written(build_report(Ledger(), replace(session, rows=0), replace(facts, engine=None)))
    assert "all 0 rows are ok" in page and "There are no records yet" in page


def test_several_engines_have_a_table_and_one_alone_has_none(
    report: Report, ledger: Ledger, session: SessionFacts, facts: Facts
) -> None:
    assert "Engines of the last session" not in written(report)
    gone = Replica(0, "left out", 10.0, 9.0, Usage(1200, 50, 480), 3)
    up = Replica(1, "up", 100.0, 12.0, Usage(700, 900, 0), 0)
    page = written(build_report(ledger, replace(session, replicas=(gone, up)), facts))
    [table] = re.findall(r"<h3>Engines of the last session</h3>.*?</table>", page, re.DOTALL)
    head, *rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]
    assert head == ["replica", "up", "busy", "tokens/s in", "tokens/s out", "cache hits", "deaths", ""]
    assert rows == [
        ["0", "10 s", "90%", "120", "5", "40%", "3", "left out"],
        ["1", "1m 40s", "12%", "7", "9", "0%", "0", ""],
    ]


def test_what_it_cost_is_said_by_row(report: Report) -> None:
    page = written({**report, "cost": 12.0, "gpu_hours": 4.0})
    assert "<dt>cost</dt><dd><b>12.00</b><span>6.00 per row that is ok</span>" in page
    assert "<dt>Cost: a thousand rows</dt><dd>3,000.00</dd>" in page


@pytest.fixture
def timeline(snapshot: Snapshot) -> Timeline:
    """Ten seconds, each with ten rows, of which one is not ok, and a hundred prompt tokens a row."""
    timeline = Timeline()
    timeline.began(1, 0)
    for at in range(11):
        usage, rows = Usage(1000 * at, 100 * at, 0), {"ok": 9 * at, "failed": at}
        timeline.snapshot(replace(snapshot, elapsed=float(at), rows=10 * at, usage=usage, by_status=rows))
    timeline.ended("finished")
    return timeline


@pytest.mark.parametrize(
    ("cost", "half"),
    [
        (Cost(12.0, None, True), "6.00"),
        (Cost(12.0, (1.0, 1.0, 0.0), False), "6.00"),
        (Cost(12.0, (100.0, 0.0, 0.0), True), "6.00"),
    ],
    ids=["hours", "tokens", "both"],
)
def test_the_cost_so_far_is_a_plot_with_that_of_a_row(
    report: Report, timeline: Timeline, cost: Cost, half: str
) -> None:
    page = written({**report, "cost": 12.0}, timeline=timeline, cost=cost)
    assert "<strong>Cost so far</strong>" in page
    assert "12.00, 0.133 per row that is ok" in page
    assert f"<title>5 s: {half} so far, 0.133 per row that is ok</title>" in page
    assert "Cost so far" not in written(report, timeline=timeline)


def test_deaths_of_engines_in_a_session_that_was_killed_are_told_too(report: Report, timeline: Timeline) -> None:
    assert "An engine died" not in written(report, timeline=timeline)
    timeline.columns["deaths"][1] += 3
    assert "An engine died 3 times" in written(report, timeline=timeline)


@pytest.fixture
def whole(report: Report, snapshot: Snapshot) -> str:
    """The page of a run of which all is known; its engine is up for ten seconds and busy for four of them."""
    timeline = Timeline()
    timeline.began(1, 0)
    for at in range(11):
        usage, rows = Usage(1000 * at, 200 * at, 400 * at), {"ok": 9 * at, "failed": at}
        told = replace(snapshot, elapsed=float(at), rows=10 * at, usage=usage, by_status=rows)
        timeline.snapshot(replace(told, ready_seconds=float(at), busy_seconds=0.4 * at))
    timeline.ended("finished")
    accept: Any = {"accepted": 8, "wanted": None, "candidates": 10, "surplus": 0, "fell": {}}
    record = {**shown(record_to_dict(hostile_record())), "prompt": prompt_of(None, "Say it")}
    sample = Sample(5, [100, 100, 100, 200, 300], [7, 7, 7, 8, 9], {1: 3, 2: 1, 3: 1}, [record])
    return written({**report, "cost": 12.0, "accept": accept}, sample, timeline=timeline, cost=Cost(12.0, None, True))


@pytest.mark.parametrize(
    "said",
    [
        ("<strong>Rows done</strong>", "100 rows after 10 s", "<title>5 s: 50 rows done, 5 not ok</title>"),
        ("<strong>Prompt tokens per second</strong>", "at most 1k", ": 1k prompt tokens/s, 400 cached</title>",
         "from the prefix cache</li>"),
        ("<strong>Answer tokens per second</strong>", "at most 200", ": 200 answer tokens/s</title>"),
        ("<strong>Engine busy</strong>", "engines that were up had work for 40% of the time", ": engine busy 40%</title>"),
        ('<a href="#time">Over time</a>', ">prompt tokens/s</th>",
         '<td class="n">1,000</td><td class="n">400</td><td class="n">200</td>'),
        ("<strong>Prompts, in tokens</strong>", "longest 300"),
        ("<strong>Answers, in tokens</strong>", "longest 9"),
        ("<strong>Answers that a row took</strong>", '<th scope="row">1 answer</th>', "3 (60%)",
         '<th scope="row">3 answers</th>'),
        ("<p>19.2% of the prompt tokens came from the prefix cache.</p>",),
        ("engine idle 25%",),
        ('<th scope="col" class="n">idle</th>', '<td class="n">25%</td>'),
        ("1.50 per accepted row", "<dt>Cost: an accepted row</dt><dd>1.50</dd>"),
    ],
    ids=[
        "rows over time", "prompt tokens over time", "answer tokens over time", "the engine's work over time",
        "the same as a table", "lengths of prompts", "lengths of answers", "attempts", "cache hits", "idle share",
        "idle share of each session",
        "cost of an accepted row",
    ],
)  # fmt: skip
def test_a_page_shows(whole: str, said: tuple[str, ...]) -> None:
    assert [each for each in said if each not in whole] == []


def test_on_paper_it_is_all_open_and_what_can_only_be_clicked_is_left_out(
    whole: str, visit: Any, printed: Any, shot: Any, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text(whole, encoding="utf-8")
    page = visit((tmp_path / "report.html").as_uri(), color_scheme="dark")
    assert not page.get_by_text("Say it", exact=True).first.is_visible()
    paper = printed(page)
    for there in ("rows not ok", "Say it", "engine.version", "answer tokens/s", "Answers that a row took"):
        assert there in paper
    assert "more than one answer" not in paper  # of the form that filters
    page.emulate_media(media="print")
    assert [each.is_visible() for each in page.locator("nav, #browser, #without, .skip, dialog").all()] == [False] * 5
    shot(page, "report-paper")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"


TRIED = {
    "chosen": "max_num_seqs=512", "margin": 1.05, "said": "autotune: it is faster",
    "tried": [
        {"name": "default", "verdict": "default", "ratio": None, "tokens_per_second": 10.0, "reason": ""},
        {"name": "max_num_seqs=512", "verdict": "chosen", "ratio": {"expected": 1.31, "low": 1.27, "high": 1.35},
         "agreement": {"share": 0.998}, "reason": "1.31x"},
        {"name": "ngram<8>", "verdict": "failed", "ratio": None, "agreement": None, "reason": "out of memory"},
    ],
}  # fmt: skip


def test_the_settings_that_were_tried_are_a_plot_and_what_failed_is_said(report: Report) -> None:
    page = written({**report, "engine": {**(report["engine"] or {}), "autotune": TRIED}})
    assert "1.31× , 99.8%".replace(" ,", ",") in page
    assert "autotune: it is faster" in page
    assert "ngram&lt;8&gt;" in page and "out of memory" in page


def test_the_settings_that_an_older_run_tried_are_a_plot_too(report: Report) -> None:
    old = {"chosen": "a", "tried": [{"name": "a", "gain": 0.2, "noise": 0.01, "error": None}]}
    assert "1.20× (chosen)" in written({**report, "engine": {"autotune": old}})


def swept(meet: int | None) -> list[SettingReport]:
    common: Any = {"rows": 10, "prompt_tokens": 1, "completion_tokens": 1}
    return [
        {"setting": {"sampling.temperature": 0}, "ok": 9, "meet": meet, **common},
        {"setting": {"sampling.temperature": "<b>1"}, "ok": 5, "meet": meet, **common},
    ]


def test_the_settings_of_a_sweep_are_a_plot_of_the_rows_that_came_out_well(report: Report) -> None:
    page = written({**report, "settings": swept(None)})
    assert "<strong>Rows ok, by setting</strong>" in page
    assert re.findall(r'class="dot( strong)?"><span class="name">(temperature.*?)</span>', page) == [
        (" strong", "temperature=0"), ("", "temperature=&lt;b&gt;1"),
    ]  # fmt: skip
    assert "90% of 10" in page and "50% of 10" in page
    accepted = written({**report, "settings": swept(4)})
    assert "Rows accepted, by setting" in accepted and accepted.count("40% of 10") >= 2


def test_of_very_many_settings_the_best_are_drawn(report: Report) -> None:
    [one, _] = swept(None)
    page = written({**report, "settings": [{**one, "ok": at % 11} for at in range(200)]})
    assert "The best 60 of 200." in page
    assert page.count("100% of 10") >= 18 and ">0% of 10" not in page


def test_a_page_is_bounded_however_long_the_texts_are() -> None:
    long = shown(record_to_dict(hostile_record(raw="x" * 10**6, history=(), details=None, input=None)))
    assert len(json.dumps(long)) < 10_000
    assert "(997,000 more characters)" in long["raw"]
    records = [{**long, "index": index} for index in range(10_000)]
    assert len(json.dumps(within(records))) < 1_600_000


SEE = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:,AAA"}}]


@pytest.mark.parametrize(
    ("messages", "text", "expected"),
    [
        (None, "Say: x", [{"role": "prompt", "text": "Say: x"}]),
        ([{"role": "user", "content": "x"}], None, [{"role": "user", "text": "x"}]),
        (
            [{"role": "user", "content": SEE}],
            None,
            [{"role": "user", "text": "see\n[image_url: data:,AAA]"}],
        ),
    ],
    ids=["text", "a message", "an image"],
)  # fmt: skip
def test_a_prompt_is_a_role_and_a_text_for_each_message(messages: Any, text: str | None, expected: list[Any]) -> None:
    assert prompt_of(messages, text) == expected


def test_of_a_long_conversation_the_start_and_the_end_are_kept() -> None:
    messages = [{"role": "user", "content": str(number)} for number in range(100)]
    kept = prompt_of(messages, None)
    assert (kept[0]["text"], kept[-1]["text"]) == ("0", "99")
    assert len(kept) <= 14
    assert any("messages are left out" in each["text"] for each in kept)
