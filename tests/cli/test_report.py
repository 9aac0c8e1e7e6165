"""``llmbatch report``, and the page that it writes in a real browser."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest


def test_it_writes_the_page_of_a_finished_run_anew(commands: Any, tmp_path: Path) -> None:
    commands(*commands.run)
    page = commands.folder / "report.html"
    page.unlink()
    result = commands("report", commands.folder)
    assert (result.exit_code, result.stdout.strip()) == (0, str(page))
    assert "Finished: 2 of 5 rows are not ok" in page.read_text()
    elsewhere = tmp_path / "mail.html"
    assert commands("report", commands.folder, "--output", elsewhere).exit_code == 0
    assert elsewhere.read_text() == page.read_text()


def test_the_job_need_not_be_readable_any_more(commands: Any) -> None:
    commands(*commands.run)
    (commands.folder / "job.yaml").write_text("model: [")
    assert commands("report", commands.folder).exit_code == 0
    assert "the job cannot be read any more" in (commands.folder / "report.html").read_text()


def test_a_run_that_was_killed_has_a_page_of_what_is_there(slow: Any) -> None:
    process = slow.start(*slow.run)
    for _ in range(1800):
        if (slow.folder / "progress.json").exists() and json.loads((slow.folder / "progress.json").read_bytes())[
            "in_flight"
        ]:
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert slow("report", slow.folder).exit_code == 0
    page = (slow.folder / "report.html").read_text()
    assert f"Dead: process {process.pid}" in page
    assert "malformed_row" in page


def test_a_folder_without_a_run_is_refused(commands: Any, tmp_path: Path) -> None:
    result = commands("report", tmp_path)
    assert result.exit_code == 1
    assert "no run has begun here" in result.stderr


@pytest.fixture
def page(commands: Any) -> Path:
    """Of a run with a row that is a hostile text, and one that is ok at its second answer."""
    rows = Path(commands.run[commands.run.index("--input") + 1])
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    rows.write_text(rows.read_text() + json.dumps({"id": hostile, "text": f"never {hostile}"}) + "\n")
    commands(*commands.run)
    found: Path = commands.folder / "report.html"
    return found


def test_records_are_filtered_and_one_is_read_with_its_attempts(visit: Any, page: Path) -> None:
    opened = visit(page.as_uri())
    rows = opened.locator("#rows tbody tr")
    assert rows.count() == 6
    opened.locator("#status").select_option("ok")
    assert rows.count() == 3
    opened.locator("#status").select_option("retried")
    assert rows.count() == 3
    opened.locator("#status").select_option("")
    opened.locator("#kind").select_option("choice")
    assert opened.get_by_role("status").inner_text() == "3 of 6 records"
    opened.get_by_role("searchbox", name="Text").fill("ALERT(1)")
    assert rows.count() == 1
    opened.get_by_role("searchbox", name="Text").fill("second")
    opened.get_by_role("button", name="c", exact=True).click()
    dialog = opened.get_by_role("dialog")
    assert "Say: second" in dialog.inner_text()
    assert "Attempt 1, sent back: choice" in dialog.inner_text()
    assert dialog.locator("del").inner_text() == "wrong"
    assert dialog.locator("ins").inner_text() == "blue"
    dialog.get_by_label("against the answer before").uncheck()
    assert not dialog.locator("del").is_visible()
    opened.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_a_failure_opens_with_examples_and_leads_to_its_records(visit: Any, page: Path) -> None:
    opened = visit(page.as_uri())
    first = opened.locator("details.kind").first
    assert first.locator("details.record").count() == 2
    assert first.locator(".why").first.is_visible()
    opened.evaluate("document.querySelector('a[data-kind]').click()")
    assert opened.locator("#kind").input_value() == "choice"


def test_it_is_used_with_the_keyboard(visit: Any, page: Path) -> None:
    opened = visit(page.as_uri())
    opened.locator("#rows button").first.focus()
    opened.keyboard.press("Enter")
    title = opened.locator("#record-title")
    assert title.inner_text() == "Row a"
    opened.keyboard.press("ArrowRight")
    assert title.inner_text() == "Row b"
    opened.keyboard.press("Escape")
    assert opened.evaluate("document.activeElement.textContent") == "a"


def test_without_its_script_counts_failures_and_tables_are_there(visit: Any, page: Path) -> None:
    opened = visit(page.as_uri(), java_script_enabled=False)
    assert opened.get_by_role("heading", name="Finished: 3 of 6 rows are not ok").is_visible()
    assert opened.locator("details.kind .why").first.is_visible()
    assert opened.get_by_text("let this file run its script").is_visible()
    assert not opened.locator("#browser").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_text_stands_out_from_what_is_behind_it(
    visit: Any, shot: Any, contrasts: Any, page: Path, scheme: str
) -> None:
    opened = visit(page.as_uri(), viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    shot(opened, f"report-phone-{scheme}")
    assert contrasts(opened) == []
