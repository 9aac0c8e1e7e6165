"""The pages of an evaluation, of a group of them and of a comparison in a real browser: on a screen, a phone and paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.evals.api import evaluate
from llmbatch.evals.compare import compare
from llmbatch.evals.group_page import write_group_page
from llmbatch.evals.page import write_comparison

NAMES = ["scores", "group", "comparison"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs of one task with eight rows, of which the second has them all right; what they say there is no markup."""
    folder = tmp_path_factory.mktemp("evals")
    texts = [f"<b>{n}</b> of eight" for n in range(8)]
    rows = [{"id": f"r{n}", "answer": text, "other": text if n % 3 else f"not {text}"} for n, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "echo", "dataset": str(folder / "rows.jsonl"), "metrics": ["exact_match"], "references": "answer"}
    engine = {"name": "scripted"}
    runs = []
    for name, prompt in (("first", "{{ other }}"), ("second", "{{ answer }}")):
        runs.append(folder / "runs" / name)
        evaluate({**task, "prompt": prompt}, model="any", output=runs[-1], watchers=[], engine=engine)
    write_comparison(compare(runs), folder / "comparison.html")
    return {
        "scores": runs[0] / "report.html",
        "group": write_group_page(folder / "runs"),
        "comparison": folder / "comparison.html",
    }


def test_a_page_with_scores_shows_them_and_its_records_can_be_looked_through(
    visit: Any, pages: dict[str, Path]
) -> None:
    page = visit(pages["scores"].as_uri())
    assert page.get_by_role("heading", level=1).inner_text().startswith("echo: exact_match 0.625 (")
    assert "all 0.625" in page.get_by_role("img", name="exact_match").get_attribute("aria-label")
    assert page.locator("#scores circle").count() == 1 and page.locator("#scores .interval").count() == 1
    page.get_by_role("searchbox", name="Text").fill("not <b>3")
    page.get_by_role("button", name="r3", exact=True).click()
    assert "not <b>3</b> of eight" in page.get_by_role("dialog").inner_text()


def test_the_page_of_a_group_leads_to_that_of_each_task(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["group"].as_uri(), own=tuple(path.as_uri() for path in pages.values()))
    assert page.locator("#scores circle").count() == 2
    page.locator("#tasks a").first.click()
    assert page.get_by_role("heading", level=1).inner_text().startswith("echo: exact_match 0.625 (")


def test_a_comparison_shows_how_the_answers_to_a_row_differ(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["comparison"].as_uri())
    row = page.locator("article").filter(has_text='Row "r3": B is better')
    assert row.locator("del").inner_text() == "not "
    assert row.locator("pre b").count() == 0
    whole = row.get_by_text("<b>3</b> of eight", exact=True)
    assert [each.is_visible() for each in whole.all()] == [True, False]  # what is right, and B's answer as it is
    row.get_by_label("against the answer before").uncheck()
    assert [each.is_visible() for each in whole.all()] == [True, True]
    assert not row.locator("del").is_visible()


def test_without_its_script_a_comparison_has_the_answers_as_they_are(visit: Any, pages: dict[str, Path]) -> None:
    page = visit(pages["comparison"].as_uri(), java_script_enabled=False)
    row = page.locator("article").filter(has_text='Row "r3": B is better')
    assert row.locator("pre").all_inner_texts() == ["<b>3</b> of eight", "not <b>3</b> of eight", "<b>3</b> of eight"]
    assert row.locator("del").count() == 0


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_a_phone_and_paper_and_text_stands_out_from_what_is_behind_it(
    visit: Any, contrasts: Any, printed: Any, shot: Any, pages: dict[str, Path], name: str
) -> None:
    page = visit(pages[name].as_uri(), viewport={"width": 360, "height": 740}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    shot(page, f"{name}-phone")
    assert contrasts(page) == []
    page.emulate_media(color_scheme="light")
    assert contrasts(page) == []
    assert "exact_match" in printed(page)
